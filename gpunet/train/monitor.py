"""The best epoch so far, its weights, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.train.checkpoint import check_type

_MODES = ("min", "max")


class Monitor:
    """Compare a figure of each epoch with the best one so far.

    Args:
        name: the figure, such as "val_loss"; :meth:`choose` replaces None.
        mode: "min" if smaller is better, "max" if larger is; None is "min" for a loss.
        patience: stop after so many epochs in a row that were not better; None never stops.
        function: that the user called, for error messages.

    Attributes:
        value: the best figure so far; None before there is one.  NaN is never best.
        epoch: its epoch.
        num_waited: epochs since.
        weights: the weights of that epoch, nested as the caller's ``weights()`` returned them; None unless they are kept.
    """

    def __init__(self, name: str | None, mode: str | None, patience: int | None, function: str) -> None:
        if mode is not None and mode not in _MODES:
            raise ArgumentError(f"{function}: mode={mode!r}; expected 'min' or 'max'")
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
            raise ArgumentError(f"{function}: patience={patience!r}; expected a number of epochs, 1 or more, or None")
        self._given, self._given_mode, self.patience = name, mode, patience
        self.mode = mode or "min"
        self.name = name or ""
        self.value: float | None = None
        self.epoch: int | None = None
        self.num_waited = 0
        self.weights: Any = None

    def choose(self, figures: list[str]) -> None:
        """Take the figure among those of a training run; by default the loss of the data set "val", or else of the training.

        Raises:
            ArgumentError: there is no such figure, or it is no loss and there is no ``mode``.
        """
        name = self._given or ("val_loss" if "val_loss" in figures else "train_loss")
        if name not in figures:
            raise ArgumentError(f"fit: monitor={name!r}; expected one of {', '.join(figures)}")
        if self._given_mode is None and not name.endswith("_loss"):
            raise ArgumentError(
                f"fit: monitor={name!r} without mode; pass mode='min' if smaller figures are better, 'max' if larger ones are"
            )
        if name != self.name:
            self.value = self.epoch = self.weights = None  # those of another figure
        self.name = name

    def update(self, row: dict[str, Any], weights: Callable[[], Any] | None) -> bool:
        """Look at the row of an epoch; return whether it is the best so far.

        Args:
            weights: returns a copy of the weights, which is kept if the epoch is the best; None keeps no weights.
        """
        value = float(row[self.name])
        sign = 1.0 if self.mode == "min" else -1.0
        is_best = not math.isnan(value) and (self.value is None or sign * value < sign * self.value)
        if is_best:
            self.value, self.epoch, self.num_waited = value, row["epoch"], 0
            self.weights = None if weights is None else weights()
        else:
            self.num_waited += 1
        return is_best

    @property
    def is_out_of_patience(self) -> bool:
        """Whether to stop."""
        return self.patience is not None and self.num_waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best figure, its epoch and weights, and the epochs waited."""
        return {"value": self.value, "epoch": self.epoch, "num_waited": self.num_waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            CheckpointError: a part has another type.
        """
        kinds = {"value": (float, type(None)), "epoch": (int, type(None)), "num_waited": (int,), "weights": (dict, type(None))}
        for name, allowed in kinds.items():
            check_type(f"{name} of the best epoch", state[name], *allowed)
        self.value, self.epoch, self.num_waited = state["value"], state["epoch"], state["num_waited"]
        self.weights = state["weights"]
