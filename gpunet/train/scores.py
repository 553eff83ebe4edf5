"""The metrics of ``gpunet train``, of outputs and targets as its losses take them."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor


class _Sums:
    """A metric that is a function of sums, which are float64 tensors on the device of the batches."""

    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.sums: dict[str, Any] = dict.fromkeys(self.names, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return dict(self.sums)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sums."""
        self.sums = {name: state[name] for name in self.names}

    def _add(self, **values: Any) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + (value.sum().double() if isinstance(value, Tensor) else value)


class Accuracy(_Sums):
    """The fraction of right classes: the argmax of several outputs, or the sign of a single one."""

    names = ("hits", "rows")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch."""
        hits = output.argmax(1) == target if output.shape[1] > 1 else (output > 0.0) == (target > 0.5)
        self._add(hits=hits, rows=len(output))

    def compute(self) -> Any:
        """Return the fraction."""
        return self.sums["hits"] / self.sums["rows"]


class R2(_Sums):
    """The fraction of explained variance, NaN if the targets are constant."""

    names = ("errors", "targets", "squares", "rows")

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._origin: Tensor | None = None  # near the targets, so that the sum of their squares is accurate

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch."""
        if self._origin is None:
            self._origin = target[:1].double()
        error, shifted = (output - target).double(), target.double() - self._origin
        self._add(errors=error * error, targets=shifted, squares=shifted * shifted, rows=len(output))

    def compute(self) -> Any:
        """Return the fraction."""
        variance = self.sums["squares"] - self.sums["targets"] ** 2 / self.sums["rows"]
        return 1.0 - self.sums["errors"] / variance if variance.item() > 0.0 else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {**self.sums, "origin": self._origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sums."""
        super().load_state_dict(state)
        self._origin = state["origin"]


class MeanAbsoluteError(_Sums):
    """The mean absolute error times ``scale``, which takes standardised targets to their unit."""

    names = ("errors", "rows")

    def __init__(self, scale: float) -> None:
        self.scale = scale
        super().__init__()

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._add(errors=(output - target).abs(), rows=len(output))

    def compute(self) -> Any:
        """Return the error."""
        return self.sums["errors"] / self.sums["rows"] * self.scale


def scores_of(task: str, target_scale: float) -> dict[str, Any]:
    """The metrics of "classification" or "regression", by name."""
    if task == "classification":
        return {"accuracy": Accuracy()}
    return {"r2": R2(), "mae": MeanAbsoluteError(target_scale)}
