"""Schedules that combine schedules: in sequence (SequentialLR) or chained (ChainedScheduler)."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import ignore_fp_errors
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Ufunc
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import graph_break
from gpunet.optim.lr_scheduler.python import ReduceLROnPlateau
from gpunet.optim.lr_scheduler.scheduler import LRScheduler, warn_of_verbose, zero_counters
from gpunet.optim.optimizer import Optimizer, ParameterGroup

__all__ = ["ChainedScheduler", "SequentialLR"]

_ADD, _SUBTRACT, _MULTIPLY = (Ufunc(name) for name in ("add", "subtract", "multiply"))


class _Combined(LRScheduler):
    """Base class: holds the schedulers and their states."""

    def _init_schedulers(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        graph_break(f"creating a {name}", "create it before the step is recorded")
        self._schedulers = list(schedulers)
        if not self._schedulers:
            raise ArgumentError(f"{name} got no schedulers; pass a list of at least one")
        for number, scheduler in enumerate(self._schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise DtypeError(f"{name}: schedulers[{number}] has type {type(scheduler).__name__}; expected a scheduler")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentError(
                    f"{name}: schedulers[{number}] is a ReduceLROnPlateau, which needs a metric; step it separately"
                )
            if scheduler.optimizer is not (optimizer or self._schedulers[0].optimizer):
                raise ArgumentError(
                    f"{name}: schedulers[{number}] belongs to another optimizer; create all schedulers for the same one"
                )
        self.optimizer, self.base_lrs = self._schedulers[0].optimizer, self._schedulers[0].base_lrs

    def adopt_group(self, group: ParameterGroup) -> None:
        """Nothing: the schedulers take up the group."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all schedulers, with PyTorch's keys."""
        return {
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
            "_last_lr": self.get_last_lr(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`.

        Raises:
            StateDictError: the state belongs to other schedulers, or to a different number of them.
        """
        states = state_dict.get("_schedulers", ())
        if len(states) != len(self._schedulers):
            raise StateDictError(
                f"state_dict of {len(states)} schedulers; this {type(self).__name__} has {len(self._schedulers)}"
            )
        for scheduler, state in zip(self._schedulers, states):
            scheduler.load_state_dict(state)


class SequentialLR(_Combined):
    """Run schedules one after the other; each starts from its beginning at its milestone.

    A warm-up of 5 steps: ``SequentialLR(o, [LinearLR(o, 0.1, total_iters=5), CosineAnnealingLR(o, 95)], [5])``.

    Args:
        optimizer: the optimizer of all schedulers.
        schedulers: the schedules, in order.
        milestones: the steps at which the second, third, ... schedule starts, in ascending order.
        last_epoch, verbose: see :class:`LRScheduler`.

    Raises:
        ArgumentError: the number or order of the milestones is wrong, a scheduler is a SequentialLR, or a scheduler
            after the first is a ChainedScheduler.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: list[int], last_epoch: int = -1,
        verbose: Any = None,
    ) -> None:  # fmt: skip
        warn_of_verbose(self, verbose)
        self._init_schedulers(schedulers, optimizer)
        if len(milestones) != len(self._schedulers) - 1 or sorted(milestones) != list(milestones):
            raise ArgumentError(
                f"SequentialLR: {len(self._schedulers)} schedulers and milestones {list(milestones)}; expected "
                f"{len(self._schedulers) - 1} steps in ascending order, at which the next scheduler starts"
            )
        for number, scheduler in enumerate(self._schedulers):
            if isinstance(scheduler, SequentialLR) or (number and isinstance(scheduler, ChainedScheduler)):
                raise ArgumentError(
                    f"SequentialLR: schedulers[{number}], a {type(scheduler).__name__}, cannot restart at a "
                    "milestone; pass its schedulers to this SequentialLR directly"
                )
        self._milestones = list(milestones)
        self._states = zero_counters(optimizer)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            scheduler.undo_initial_step()
        self._schedulers[bisect_right(self._milestones, 0)]._initial_step()

    @ignore_fp_errors
    def step(self) -> None:  # type: ignore[override]
        """Advance the active schedule by one step."""
        self._adopt_groups()
        positions, skip = self._states, self._skip_of_step()
        rely_on(positions)
        if skip is None:
            for position in positions:
                _ADD(position, position, 1.0)
        else:
            positions = [self._advanced_unless(skip, position) for position in positions]
        bounds = (-1.0, *self._milestones, math.inf)
        for scheduler, (low, high) in zip(self._schedulers, itertools.pairwise(bounds)):
            scheduler.step_within(positions, low, high)

    @staticmethod
    def _advanced_unless(skip: Array, position: Array) -> Array:
        """Add 1 to a position unless ``skip`` is 1; return the position, or then -2, which is before all schedules."""
        steps, returned = (empty((1,), position.dtype, position) for _ in range(2))
        _SUBTRACT(steps, 1.0, skip)
        _ADD(position, position, steps)
        _ADD(returned, position, 2.0)
        _MULTIPLY(returned, returned, steps)
        _ADD(returned, returned, -2.0)
        return returned

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "last_epoch": self.last_epoch, "_milestones": list(self._milestones)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.last_epoch = state_dict["last_epoch"]
        self._milestones = list(state_dict.get("_milestones", self._milestones))


class ChainedScheduler(_Combined):
    """Run all schedules in each step, in order; each changes the learning rate that the one before has set.

    Args:
        schedulers: the schedules, in order.
        optimizer: their optimizer; that of the first scheduler if None.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._init_schedulers(schedulers, optimizer)

    @property
    def last_epoch(self) -> int:
        """The number of steps that the first schedule has taken."""
        return self._schedulers[0].last_epoch

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        for scheduler in self._schedulers:
            scheduler.last_epoch = value

    def step(self) -> None:  # type: ignore[override]
        """Advance all schedules by one step."""
        for scheduler in self._schedulers:
            scheduler.step()

    def step_within(self, positions: list[Array], low: float, high: float) -> None:
        for scheduler in self._schedulers:
            scheduler.step_within(positions, low, high)

    def undo_initial_step(self) -> None:
        for scheduler in self._schedulers:
            scheduler.undo_initial_step()

    def _initial_step(self) -> None:
        self.step()
