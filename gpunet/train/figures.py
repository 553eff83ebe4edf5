"""The metrics of a Trainer: figures of an epoch beside the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError


class Figure:
    """A metric whose value is NaN if outputs of the model were, where most metrics refuse them.

    So a network that diverges does not end the training in an error of a metric.

    Args:
        name: for error messages.
        metric: an object with ``reset()``, ``update(output, target)`` and ``compute()``.
    """

    def __init__(self, name: str, metric: Any) -> None:
        self.name, self.metric = name, metric
        self._has_nan: Any = False  # or a flag on the device: no batch waits for it

    def reset(self) -> None:
        """Start anew."""
        self.metric.reset()
        self._has_nan = False

    def update(self, output: Any, target: Any) -> None:
        """Add a batch."""
        if isinstance(output, Tensor) and is_floating(output.dtype):
            is_nan = output.isnan()
            self._has_nan = is_nan.any() | self._has_nan
            output = output.masked_fill(is_nan, 0)
        self.metric.update(output, target)

    def merge(self, other: Figure) -> None:
        """Add the batches of a figure of another process."""
        self.metric.merge_state(other.metric)
        self._has_nan = bool(as_number(self._has_nan)) or bool(as_number(other._has_nan))

    def compute(self, function: str = "fit") -> float:
        """Return the value.

        Args:
            function: that the user called, for the error message.

        Raises:
            ArgumentError: it is not one number.
        """
        return math.nan if as_number(self._has_nan) else self._number(self.metric.compute(), function)

    def check(self, output: Any, target: Any) -> None:
        """Compute the value of a batch alone, by a copy of the metric.

        Raises:
            ArgumentError: it is not one number.
        """
        probe = copy.deepcopy(self)
        try:
            probe.reset()
            probe.update(output, target)
            value = probe.metric.compute()
        except Exception:  # such as for outputs that differ in evaluation mode; training raises it, if it occurs there
            return
        self._number(value, "fit")

    def _number(self, value: Any, function: str) -> float:
        try:
            return as_number(value)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(
                f"{function}: the metric {self.name!r} computes {value!r}; expected one number, as by average='macro'"
            ) from None

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the metric, if it tells them."""
        state = self.metric.state_dict() if hasattr(self.metric, "state_dict") else None
        return {"metric": state, "has_nan": bool(as_number(self._has_nan))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the sums."""
        self._has_nan = bool(state["has_nan"])
        if hasattr(self.metric, "load_state_dict"):
            self.metric.load_state_dict(state["metric"])


def figures_of(metrics: Any, function: str) -> dict[str, Figure]:
    """Return the figures of metrics by name.

    Args:
        metrics: a mapping of names and metrics, or None.
        function: that the user called, for error messages.

    Raises:
        ArgumentError: ``metrics`` is no such mapping, or a name is that of the loss.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise ArgumentError(
            f"{function}: metrics is a {type(metrics).__name__}; expected a dict of names and metrics, such as {{'accuracy': ...}}"
        )
    for name, metric in metrics.items():
        if not isinstance(name, str) or name == "loss":
            raise ArgumentError(f"{function}: a metric has the name {name!r}; expected a string other than 'loss'")
        if isinstance(metric, type) or not all(callable(getattr(metric, part, None)) for part in ("reset", "update", "compute")):
            raise ArgumentError(
                f"{function}: the metric {name!r} is {metric!r}; expected an object with reset(), update(output, target) and "
                "compute()"
            )
    return {name: Figure(name, metric) for name, metric in metrics.items()}


def check_mergeable(figures: Mapping[str, Figure], function: str) -> None:
    """Check that figures of several processes can be merged.

    Raises:
        ArgumentError: a metric has no ``merge_state``.
    """
    for name, figure in figures.items():
        if not callable(getattr(figure.metric, "merge_state", None)):
            raise ArgumentError(
                f"{function}: the metric {name!r} is a {type(figure.metric).__name__} without merge_state(other), which adds the "
                "batches of another process; define it, or use a metric of gpunet.metrics"
            )


def merged(figures: list[dict[str, Figure]]) -> dict[str, Figure]:
    """The figures of all shards together, merged in their order."""
    found = copy.deepcopy(figures[0])
    for name, figure in found.items():
        for other in figures[1:]:
            figure.merge(other[name])
    return found


def as_number(value: Any) -> float:
    """Return the number in a tensor of one element, or the number."""
    return float(value.item() if isinstance(value, Tensor) else value)
