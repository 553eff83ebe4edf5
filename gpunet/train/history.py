"""The figures of a training run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.nn import Module
from gpunet.train.drawing import subplots

__all__ = ["History"]


class History:
    """The figures of each epoch: ``history["val_loss"]`` is a list with one number per epoch.

    Attributes:
        rows: a dict for each epoch: "epoch", "step" (optimizer steps so far), "lr", "seconds", and the figures of each data set,
            such as "train_loss" and "val_accuracy".
        best_epoch: the epoch with the best monitored figure; None before there is one.
        ending: why training ended: "finished", "early" (patience ran out), "stopped" (a callback) or "interrupted" (Ctrl-C); ""
            before.
        averaged: the model with the moving averages of the weights, of the best epoch; None without ``ema``.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.best_epoch: int | None = None
        self.ending = ""
        self.averaged: Module | None = None

    def __getitem__(self, name: str) -> list[float]:
        names = [*self.rows[0]] if self.rows else []
        if name not in names:
            raise ArgumentError(f"history[{name!r}]; expected one of {', '.join(names) or 'none: there is no epoch yet'}")
        return [row[name] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        best = "" if self.best_epoch is None else f", best: {self.best_epoch}"
        return f"<History of {len(self)} epochs{best}{self.ending and ', '}{self.ending}>"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best epoch."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), None)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot each figure over the epochs, one diagram for all data sets.

        Args:
            path: write the figure there, too, as PNG, PDF or SVG by its extension.

        Returns:
            A figure of matplotlib.

        Raises:
            ArgumentError: there is no epoch yet.
            MissingDependencyError: matplotlib is not installed.
        """
        if not self.rows:
            raise ArgumentError("history.plot: there is no epoch yet")
        figure, axes = subplots(len(self._figures()))
        for place, (name, parts) in zip(axes, self._figures().items()):
            for part in parts:
                marker = "o" if len(self.rows) == 1 else None
                place.plot(self["epoch"], self[f"{part}_{name}"], label=part, marker=marker)
            place.set_title("R²" if name == "r2" else name)
            place.set_xlabel("epoch")
            place.grid(alpha=0.3)
            place.legend()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def _figures(self) -> dict[str, list[str]]:
        """The data sets of each figure: {"loss": ["train", "val"], ...}."""
        found: dict[str, list[str]] = {}
        for key in self.rows[0]:
            part, underline, name = key.partition("_")
            if underline:
                found.setdefault(name, []).append(part)
        return found
