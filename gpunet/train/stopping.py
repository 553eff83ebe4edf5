"""Early stopping of single nets of a stack, successive halving, and the best weights of each net."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import no_grad
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import Stack
from gpunet.ops.creation import as_tensor

__all__ = ["StackStopping"]


class StackStopping:
    """Keep the best weights of each net of a stack, and stop nets that do not improve.

        stopping = StackStopping(stack, patience=5, halving=3)
        for epoch in range(epochs):
            ...
            if not stopping.update(held_out_losses):
                break
        stopping.restore()

    A net whose loss is not finite is stopped.  With ``halving``, of the nets that are still trained the share 1 / halving with the
    lowest losses, at least one, continues after 1, halving, halving^2, ... times ``first`` epochs (successive halving, Jamieson and
    Talwalkar 2016).

    Args:
        stack: the nets.
        patience: stop a net after so many epochs without a lower loss; None never does.
        halving: 2 or more; None stops no net by rank.
        first: the epochs before the first ranking.

    Attributes:
        best: the lowest loss of each net, infinite before the first one.
        best_epoch: the epoch of it, from 1.
        epochs: how many epochs each net was trained.
        reasons: why each net was stopped: "patience", "halving", "not finite", or "".

    Raises:
        ArgumentError: a number is out of range.
    """

    def __init__(self, stack: Stack, patience: int | None = None, halving: int | None = None, first: int = 1) -> None:
        for name, value, low in (("patience", patience, 1), ("halving", halving, 2), ("first", first, 1)):
            if value is not None and value < low:
                raise ArgumentError(f"StackStopping: {name}={value}; expected {low} or more")
        self.stack, self.patience, self.halving, self._next = stack, patience, halving, first
        nets = stack.num_nets
        self.best, self.best_epoch = numpy.full(nets, math.inf), numpy.zeros(nets, numpy.int64)
        self.epochs, self.reasons = numpy.zeros(nets, numpy.int64), [""] * nets
        self._epoch = 0
        self._weights = [p.detach().cpu().numpy().copy() for p in stack.parameters()]

    def update(self, losses: Any) -> bool:
        """Take the losses of the nets after an epoch, (nets,); return whether some net is still trained.

        Raises:
            ShapeError: there is not one loss for each net.
        """
        values = numpy.asarray(losses.tolist() if hasattr(losses, "tolist") else losses, numpy.float64)
        if values.shape != self.best.shape:
            raise ShapeError(f"StackStopping: got losses of shape {values.shape}; expected {self.best.shape}, one for each net")
        self._epoch += 1
        trained = self.stack.is_active()
        self.epochs[trained] = self._epoch
        better = trained & (values < self.best)
        self.best[better], self.best_epoch[better] = values[better], self._epoch
        if better.any():
            for kept, p in zip(self._weights, self.stack.parameters()):
                kept[better] = p.detach().cpu().numpy()[better]
        self._stop(trained & ~numpy.isfinite(values), "not finite")
        if self.patience is not None:
            self._stop(self.stack.is_active() & (self._epoch - self.best_epoch >= self.patience), "patience")
        if self.halving is not None and self._epoch == self._next:
            self._next *= self.halving
            active = numpy.flatnonzero(self.stack.is_active())
            ranked = active[numpy.argsort(self.best[active], kind="stable")]
            flags = numpy.zeros(len(values), bool)
            flags[ranked[max(1, math.ceil(len(ranked) / self.halving)) :]] = True
            self._stop(flags, "halving")
        return bool(self.stack.is_active().any())

    def _stop(self, nets: numpy.ndarray, reason: str) -> None:
        if nets.any():
            self.stack.stop(nets)
            for net in numpy.flatnonzero(nets):
                self.reasons[net] = reason

    @no_grad()
    def restore(self) -> None:
        """Give each net the weights of its best epoch; a net without a finite loss gets those that it began with."""
        for kept, p in zip(self._weights, self.stack.parameters()):
            p.copy_(as_tensor(kept, device=p.device))
