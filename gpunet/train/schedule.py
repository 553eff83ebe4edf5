"""A learning-rate schedule and what it counts: epochs or optimizer steps."""

from __future__ import annotations

from collections.abc import Callable

from gpunet.errors import ArgumentError
from gpunet.optim import Optimizer
from gpunet.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

#: The attribute with the length of schedules that have one.
_LENGTHS: dict[type[LRScheduler], str] = {
    OneCycleLR: "total_steps", CosineAnnealingLR: "T_max", LinearLR: "total_iters", PolynomialLR: "total_iters",
}  # fmt: skip


def make_schedule(
    schedule: LRScheduler | Callable[[Optimizer, int], LRScheduler] | None, per: str | None, optimizer: Optimizer,
    num_epochs: int | None, num_steps: int | None,
) -> LRScheduler | None:  # fmt: skip
    """Return the schedule of a training run.

    Args:
        schedule: a schedule, or a function of (optimizer, number of steps of the schedule) that makes one.
        per: "epoch" or "step", what the schedule counts.
        optimizer: the optimizer of the schedule.
        num_epochs, num_steps: the length of the training; None if it is unknown.

    Raises:
        ArgumentError: ``per`` is missing, or the schedule belongs to another optimizer.
    """
    if schedule is None:
        return None
    if per not in ("epoch", "step"):
        raise ArgumentError(
            f"fit: schedule_per={per!r}; expected 'epoch' or 'step': whether the schedule moves after each epoch or each optimizer "
            "step"
        )
    length = num_epochs if per == "epoch" else num_steps
    if not isinstance(schedule, LRScheduler):
        if length is None:
            raise ArgumentError(f"fit: the number of {per}s is unknown, so no schedule can be made for it; pass a schedule")
        schedule = schedule(optimizer, length)
    if schedule.optimizer is not optimizer:
        name = type(schedule).__name__
        raise ArgumentError(f"fit: the {name} belongs to another optimizer; make it with the optimizer of the Trainer")
    if isinstance(schedule, ReduceLROnPlateau) and per == "step":
        raise ArgumentError("fit: ReduceLROnPlateau looks at the monitored figure of an epoch; pass schedule_per='epoch'")
    return schedule


def check_schedule(
    schedule: LRScheduler, per: str | None, num_epochs: int | None, num_steps: int | None, *, made_for: int | None, mode: str
) -> None:
    """Compare a schedule with the training.

    Args:
        schedule, per, num_epochs, num_steps: see :func:`make_schedule`.
        made_for: the length for which a function made the schedule; None if no function did.
        mode: "min" or "max", which values of the monitored figure are better.

    Raises:
        ArgumentError: they do not fit together.
    """
    length, other = (num_epochs, num_steps) if per == "epoch" else (num_steps, num_epochs)
    name = type(schedule).__name__
    if made_for is not None and length != made_for:
        raise ArgumentError(
            f"fit: the function schedule= made the {name} for {made_for} {per}s, but the training has {length}; train for "
            f"{made_for}, or start a new Trainer, or pass the schedule itself if it does not depend on the length"
        )
    if isinstance(schedule, ReduceLROnPlateau) and schedule.mode != mode:
        raise ArgumentError(
            f"fit: the {name} has mode={schedule.mode!r}, but the Trainer mode={mode!r}; pass the same mode to both"
        )
    _check_length(schedule, str(per), length, other)


def _check_length(schedule: LRScheduler, per: str, length: int | None, other: int | None) -> None:
    attribute = _LENGTHS.get(type(schedule))
    if attribute is None or length is None:
        return
    found = getattr(schedule, attribute)
    is_fixed = isinstance(schedule, OneCycleLR)  # it has no learning rates behind its end
    if found != length and (is_fixed or found == other):
        wrong = f"made for {found} steps"
        way_out = f"pass {attribute}={length}"
        if found == other:
            way_out += f", or schedule_per={'step' if per == 'epoch' else 'epoch'!r}"
        raise ArgumentError(
            f"fit: the {type(schedule).__name__} is {wrong}, but schedule_per={per!r} makes {length}; {way_out}. A function "
            f"schedule=lambda optimizer, length: {type(schedule).__name__}(...) gets the length"
        )
