"""The metrics of a Trainer: figures of an epoch beside the loss."""

from __future__ import annotations

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

    def compute(self) -> float:
        """Return the value.

        Raises:
            ArgumentError: it is not one number.
        """
        if as_number(self._has_nan):
            return math.nan
        value = self.metric.compute()
        try:
            return as_number(value)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(f"fit: the metric {self.name!r} computes {value!r}; expected one number") from None

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the metric, if it tells them."""
        state = self.metric.state_dict() if hasattr(self.metric, "state_dict") else None
        return {"metric": state, "has_nan": bool(as_number(self._has_nan))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the sums."""
        self._has_nan = bool(state["has_nan"])
        if hasattr(self.metric, "load_state_dict"):
            self.metric.load_state_dict(state["metric"])


def as_number(value: Any) -> float:
    """Return the number in a tensor of one element, or the number."""
    return float(value.item() if isinstance(value, Tensor) else value)
