"""The kernel of learning-rate schedules: one step of a schedule for one parameter group.

The formulas are PyTorch's recursive ones, which compute a learning rate from the previous one.  Therefore schedules can
be chained, and a learning rate that the user sets between two steps has an effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from gpunet.launch.kernel import Geometry, kernel

# Each formula takes the learning rate, the step t, the state and its constants, and returns the new learning rate.  All
# are arrays of one element instead of Python numbers, so that replays use the current t.  The first constant of the
# kinds that are not in NOT_RESET is the learning rate after a restart.


def _step(rate, t, state, first, period, gamma):
    return numpy.where((t > 0) & (t % period == 0), rate * gamma, rate)


def _points(rate, t, state, first, *points):
    for count, factor in zip(points[::2], points[1::2]):
        rate = numpy.where(t == count, rate * factor, rate)
    return rate


def _exponential(rate, t, state, first, gamma):
    return rate * gamma


def _linear(rate, t, state, first, start, end, total):
    slope = end - start
    after_first = numpy.where(t > total, rate, rate * (1.0 + slope / (total * start + (t - 1.0) * slope)))
    return numpy.where(t == 0, rate * start, after_first)


def _polynomial(rate, t, state, first, total, power):
    return numpy.where(t > total, rate, rate * ((1.0 - t / total) / (1.0 - (t - 1.0) / total)) ** power)


def _cosine(rate, t, state, base, half_period, minimum):
    rising = rate + (base - minimum) * (1.0 - numpy.cos(math.pi / half_period)) / 2.0
    ratio = (1.0 + numpy.cos(math.pi * t / half_period)) / (1.0 + numpy.cos(math.pi * (t - 1.0) / half_period))
    was_at_minimum = (t - 1.0 - half_period) % (2.0 * half_period) == 0  # the denominator of ratio is 0
    return numpy.where(was_at_minimum, rising, ratio * (rate - minimum) + minimum)


def _warm_restarts(rate, t, state, base, growth, minimum):
    return minimum + (base - minimum) * (1.0 + numpy.cos(math.pi * state[1:2] / state[2:])) / 2.0


def _cyclic(rate, t, state, base, maximum, total, ratio, per_step, per_cycle):
    cycle = numpy.floor(1.0 + t / total)
    x = 1.0 + t / total - cycle
    scale = numpy.where(x <= ratio, x / ratio, (x - 1.0) / (ratio - 1.0))
    return base + (maximum - base) * scale * per_step**t * per_cycle ** (cycle - 1.0)


def _one_cycle(rate, t, state, is_cosine, *points):
    ends, values = points[::2], points[1::2]
    t = numpy.minimum(t, ends[-1] + 1.0)
    result = None
    for index in reversed(range(1, len(ends))):
        before, after = values[index - 1], values[index]
        fraction = (t - ends[index - 1]) / (ends[index] - ends[index - 1])
        cosine = after + (before - after) / 2.0 * (numpy.cos(math.pi * fraction) + 1.0)
        segment = numpy.where(is_cosine != 0, cosine, (after - before) * fraction + before)
        result = segment if result is None else numpy.where(t <= ends[index], segment, result)
    return result


def _anneal(rate, t, state, target, epochs, is_cosine):
    t = numpy.maximum(t, epochs == 0)  # without epochs, the first step arrives
    before, now = (numpy.clip(x / numpy.maximum(epochs, 1.0), 0.0, 1.0) for x in (t - 1.0, t))
    before, now = (numpy.where(is_cosine != 0, (1.0 - numpy.cos(math.pi * x)) / 2.0, x) for x in (before, now))
    is_there = before == 1.0
    start = numpy.where(is_there, target, (rate - before * target) / (1.0 - before + is_there))
    return target * now + start * (1.0 - now)


#: The formulas by kind, in the order of ScheduleKind in the CUDA source.
KINDS: dict[str, Callable[..., numpy.ndarray]] = {
    "step": _step,
    "points": _points,
    "exponential": _exponential,
    "linear": _linear,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "warm_restarts": _warm_restarts,
    "cyclic": _cyclic,
    "one_cycle": _one_cycle,
    "anneal": _anneal,
}


#: The kinds whose formula does not use the previous rate.
NOT_RECURSIVE = ("warm_restarts", "cyclic", "one_cycle")
#: The kinds that compute the rate of a restart as that of any other step.
NOT_RESET = (*NOT_RECURSIVE, "anneal")


@kernel(
    "schedules.cu",
    outputs=3,
    types=dict.fromkeys(("state", "constants", "position"), "float64"),
    optional="momentum position",
    updates="rate momentum state",
)
def schedule_step(rate, momentum, state, constants, position, *, kind, low, high):
    """Advance the step count by one, and compute the learning rate and the momentum of the new step.

    Args:
        rate: learning rate, (1,).
        momentum: momentum, (1,), or None if it does not change.
        state: the step count; of "warm_restarts", also the steps since the last restart and from it to the next.
        constants: the constants of the formula for the rate, then those for the momentum.
        position: the step count of a SequentialLR, (1,), or None.  The schedule advances only while
            low <= position < high; at position == low it restarts with step count 0.
        kind: a key of KINDS.
    """
    t = state[:1] + 1.0
    period_state = state[1:]
    if kind == "warm_restarts":
        current, period = state[1:2] + 1.0, state[2:]
        is_over = current >= period
        period_state = numpy.concatenate(
            [numpy.where(is_over, current % period, current), numpy.where(is_over, period * constants[1:2], period)]
        )
    is_active = is_restart = True
    if position is not None:
        is_active, is_restart = (position >= low) & (position < high), position == low
        t = numpy.where(is_restart, 0.0, t)
        period_state = numpy.where(is_active & ~is_restart, period_state, state[1:])
    new_state = numpy.concatenate([t, period_state])
    targets = [rate] if momentum is None else [rate, momentum]
    count = constants.size // len(targets)
    for index, target in enumerate(targets):
        values = [constants[i : i + 1] for i in range(index * count, (index + 1) * count)]
        new = KINDS[kind](target, t, new_state, *values)
        if position is not None:
            if kind not in NOT_RESET:
                new = numpy.where(is_restart, values[0], new)
            new = numpy.where(is_active, new, target)
        target[...] = new
    if position is not None:
        t = numpy.where(is_active, t, state[:1])
    state[:1] = t
    if kind == "warm_restarts":
        state[1:] = period_state


@schedule_step.geometry
def _(rate, momentum, state, constants, position, *, kind, low, high):
    count = constants.size // (1 if momentum is None else 2)
    return Geometry(1, 1, ([*KINDS].index(kind), count, float(low), float(high)))


def schedule_at(kind: str, t: int, constants: list[float]) -> float:
    """Return the learning rate at step t, in Python, of a kind whose formula does not use the previous rate."""
    rate = numpy.zeros(1)
    schedule_step.twin(rate, None, numpy.array([t - 1.0]), numpy.array(constants), None, kind=kind, low=0.0, high=math.inf)
    return float(rate[0])


def rate_after(kind: str, t: int, constants: list[float]) -> float:
    """Return the learning rate after t steps from the start, in Python, of a kind whose formula uses the previous rate."""
    first, *options = constants
    rate = numpy.array([first])
    for step in range(1, t + 1):
        rate = KINDS[kind](rate, numpy.array([float(step)]), None, first, *options)
    return float(rate[0])
