"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import ignore_fp_errors
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import graph_break
from gpunet.optim.lr_scheduler.python import ReduceLROnPlateau
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, counters
from gpunet.optim.optimizer import Optimizer

__all__ = ["ChainedScheduler", "SequentialLR"]

_ADD = Ufunc("add")


class _Combined(LRScheduler):
    """Holds the schedules, and their states."""

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        graph_break(f"making a {name}", "make it before the step is recorded")
        self._schedulers = list(schedulers)
        if not self._schedulers:
            raise ArgumentError(f"{name} got no schedulers; pass a list of at least one")
        for number, scheduler in enumerate(self._schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise DtypeError(f"{name}: number {number} is a {type(scheduler).__name__}; expected a scheduler")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentError(f"{name}: number {number} is a ReduceLROnPlateau, which needs a metric; step it by itself")
            if scheduler.optimizer is not (optimizer or self._schedulers[0].optimizer):
                raise ArgumentError(f"{name}: number {number} belongs to another optimizer; make all for the same one")
        self.optimizer, self.base_lrs = self._schedulers[0].optimizer, self._schedulers[0].base_lrs

    def state_dict(self) -> dict[str, Any]:
        """The states of all schedulers."""
        return {
            "last_epoch": self.last_epoch,
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
            "_last_lr": self.get_last_lr(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Raises:
            StateDictError: of other or of more schedulers.
        """
        states = state_dict.get("_schedulers", ())
        if len(states) != len(self._schedulers):
            raise StateDictError(
                f"state of {len(states)} schedulers; this {type(self).__name__} has {len(self._schedulers)}"
            )
        for scheduler, state in zip(self._schedulers, states):
            scheduler.load_state_dict(state)


class SequentialLR(_Combined):
    """One schedule after the other: the next at each of the ``milestones``, from its beginning.

    A warm-up and what follows: ``SequentialLR(o, [LinearLR(o, 0.1, total_iters=5), CosineAnnealingLR(o, 95)], [5])``.

    Raises:
        ArgumentError: as many milestones as don't lie between the schedulers; one that is itself a sequence, or a
            ChainedScheduler that is not the first.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: list[int], last_epoch: int = -1
    ) -> None:
        self._take(schedulers, optimizer)
        if len(milestones) != len(self._schedulers) - 1 or sorted(milestones) != list(milestones):
            raise ArgumentError(
                f"SequentialLR: {len(self._schedulers)} schedulers and milestones {list(milestones)}; expected "
                f"{len(self._schedulers) - 1} in ascending order, the steps at which the next one begins"
            )
        for number, scheduler in enumerate(self._schedulers):
            if isinstance(scheduler, SequentialLR) or (number and isinstance(scheduler, ChainedScheduler)):
                raise ArgumentError(
                    f"SequentialLR: number {number} is a {type(scheduler).__name__}, which cannot begin anew at a milestone; "
                    "put its schedulers into this one"
                )
        self._milestones = list(milestones)
        self._states = counters(optimizer)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            scheduler.undo()
        self._schedulers[bisect_right(self._milestones, 0)]._initial_step()

    @ignore_fp_errors
    def step(self) -> None:
        """The next rates, of the schedule whose turn it is."""
        self._check_groups()
        for position in self._states:
            _ADD(position, position, 1.0)
        bounds = (-1.0, *self._milestones, math.inf)
        for scheduler, (low, high) in zip(self._schedulers, itertools.pairwise(bounds)):
            scheduler.step_within(self._states, low, high)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.last_epoch = state_dict["last_epoch"]


class ChainedScheduler(_Combined):
    """All schedules in each step, one behind the other: their factors are multiplied."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take(schedulers, optimizer)

    @property
    def last_epoch(self) -> int:
        """Steps so far, of the first schedule."""
        return self._schedulers[0].last_epoch

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        for scheduler in self._schedulers:
            scheduler.last_epoch = value

    def step(self) -> None:
        """The next rates."""
        for scheduler in self._schedulers:
            scheduler.step()

    def step_within(self, positions: list[Array], low: float, high: float) -> None:
        for scheduler in self._schedulers:
            scheduler.step_within(positions, low, high)

    def undo(self) -> None:
        for scheduler in self._schedulers:
            scheduler.undo()

    def _initial_step(self) -> None:
        self.step()
