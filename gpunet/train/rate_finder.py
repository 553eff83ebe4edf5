"""Find a learning rate: train with rates that grow, look at the losses, and leave everything as it was."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.optim import Optimizer
from gpunet.train.drawing import subplots

__all__ = ["LearningRates"]

_SMOOTHING = 0.8  # weight of the losses before in their moving average
_MARGIN = 10.0  # between the suggestion and the rate at which the loss begins to rise
_DIVERGED = 4.0  # times the lowest smoothed loss, at which the search ends


class LearningRates:
    """What training with growing learning rates showed.

    Attributes:
        rates: the learning rate of each step.
        losses: the loss of each step.
        smoothed: a moving average of the losses.
        suggestion: a tenth of the rate at which the smoothed loss was lowest.

    Raises:
        ArgumentError: the loss never fell.
    """

    def __init__(self, rates: Sequence[float], losses: Sequence[float]) -> None:
        self.rates, self.losses = list(rates), list(losses)
        self.smoothed = smooth(losses)
        lowest = self.smoothed.index(min(self.smoothed, key=lambda loss: math.inf if math.isnan(loss) else loss))
        if lowest == 0:
            bounds = f"{self.rates[0]:g} and {self.rates[-1]:g}"
            raise ArgumentError(f"find_learning_rate: the loss never fell between the rates {bounds}; pass other bounds")
        self.suggestion = self.rates[lowest] / _MARGIN

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot the losses over the rates; return a figure of matplotlib, and write it to ``path``, if that is given.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        figure, (axes,) = subplots(1)
        axes.plot(self.rates, self.losses, alpha=0.4, label="loss")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        axes.axvline(self.suggestion, linestyle=":", label=f"suggestion {self.suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.legend()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


def smooth(losses: Iterable[float]) -> list[float]:
    """The moving average of the losses up to each, without a bias to zero at the beginning."""
    found, average = [], 0.0
    for number, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1.0 - _SMOOTHING) * loss
        found.append(average / (1.0 - _SMOOTHING**number))
    return found


def rates_between(low: float, high: float, steps: int) -> list[float]:
    """Return rates from ``low`` to ``high``, each the same factor above the one before.

    Raises:
        ArgumentError: there are no such rates.
    """
    if not 0.0 < low < high < math.inf or isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ArgumentError(f"find_learning_rate: low={low}, high={high}, steps={steps}; expected 0 < low < high, 2 steps or more")
    return [low * (high / low) ** (number / (steps - 1)) for number in range(steps)]


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether larger rates are of no use.

    A loss without negative values has diverged at a multiple of its lowest value; any other loss when it rose by as large a
    multiple of its range so far, or of its lowest value if that is larger.
    """
    smoothed = smooth(losses)
    lowest = min(smoothed)
    scale = lowest if lowest > 0.0 else max(-lowest, smoothed[0] - lowest)
    return not math.isfinite(losses[-1]) or smoothed[-1] - lowest > (_DIVERGED - 1.0) * scale


def set_rate(optimizer: Optimizer, before: Sequence[float], rate: float) -> None:
    """Set the rate of the first group; scale the rates ``before`` of the other groups by the same factor."""
    for group, own in zip(optimizer.param_groups, before):
        group["lr"] = rate * own / before[0] if before[0] else rate


def endless(data: Iterable[Any]) -> Iterator[Any]:
    """The batches of pass after pass over data.

    Raises:
        ArgumentError: two passes in a row have no batch; the first may begin at the end of a data set.
    """
    num_empty = 0
    while num_empty < 2:
        num_empty += 1
        for batch in data:
            num_empty = 0
            yield batch
    raise ArgumentError("find_learning_rate: the training data have no batch")
