"""One step of a schedule, as a launch: the step count and the learning rate are buffers.

Formulas are PyTorch's recursive ones (a step's rate from the rate before), so that schedules can be chained, and a rate
that is set by hand in between is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from gpunet.launch.kernel import Geometry, kernel

# Each takes the rate, the step t, the state and the constants, all arrays of one element, and returns the new rate.  There
# are no Python numbers in them, so that a replay follows t.  Except for WARM_RESTARTS and what comes behind it, the first
# constant is the rate that a schedule starts anew from.


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
    later = numpy.where(t > total, rate, rate * (1.0 + slope / (total * start + (t - 1.0) * slope)))
    return numpy.where(t == 0, rate * start, later)


def _polynomial(rate, t, state, first, total, power):
    return numpy.where(t > total, rate, rate * ((1.0 - t / total) / (1.0 - (t - 1.0) / total)) ** power)


def _cosine(rate, t, state, base, half, least):
    rising = rate + (base - least) * (1.0 - numpy.cos(math.pi / half)) / 2.0
    ratio = (1.0 + numpy.cos(math.pi * t / half)) / (1.0 + numpy.cos(math.pi * (t - 1.0) / half))
    return numpy.where((t - 1.0 - half) % (2.0 * half) == 0, rising, ratio * (rate - least) + least)


def _warm_restarts(rate, t, state, base, growth, least):
    return least + (base - least) * (1.0 + numpy.cos(math.pi * state[1:2] / state[2:])) / 2.0


def _cyclic(rate, t, state, base, most, total, ratio, per_step, per_cycle):
    cycle = numpy.floor(1.0 + t / total)
    x = 1.0 + t / total - cycle
    scale = numpy.where(x <= ratio, x / ratio, (x - 1.0) / (ratio - 1.0))
    return base + (most - base) * scale * per_step**t * per_cycle ** (cycle - 1.0)


def _one_cycle(rate, t, state, curved, *points):
    ends, values = points[::2], points[1::2]
    t = numpy.minimum(t, ends[-1] + 1.0)
    result = None
    for index in reversed(range(1, len(ends))):
        before, after = values[index - 1], values[index]
        share = (t - ends[index - 1]) / (ends[index] - ends[index - 1])
        curve = after + (before - after) / 2.0 * (numpy.cos(math.pi * share) + 1.0)
        segment = numpy.where(curved != 0, curve, (after - before) * share + before)
        result = segment if result is None else numpy.where(t <= ends[index], segment, result)
    return result


#: In the order of the CUDA source's ScheduleKind.
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
}


@kernel(
    "schedules.cu",
    outputs=3,
    types=dict.fromkeys(("state", "constants", "position"), "float64"),
    optional="momentum position",
)
def schedule_step(rate, momentum, state, constants, position, *, kind, low, high):
    """state[0] += 1; rate = what the schedule says there.  With a position only while low <= position < high, and
    at position == low state[0] = 0 and the schedule starts anew.  A momentum moves likewise, by as many constants more.
    """
    t = state[:1] + 1.0
    after = state[1:]
    if kind == "warm_restarts":
        current, period = state[1:2] + 1.0, state[2:]
        over = current >= period
        after = numpy.concatenate(
            [numpy.where(over, current % period, current), numpy.where(over, period * constants[1:2], period)]
        )
    moves = restart = True
    if position is not None:
        moves, restart = (position >= low) & (position < high), position == low
        t = numpy.where(restart, 0.0, t)
        after = numpy.where(moves & ~restart, after, state[1:])
    now = numpy.concatenate([t, after])
    moved = [rate] if momentum is None else [rate, momentum]
    count = constants.size // len(moved)
    for index, number in enumerate(moved):
        values = [constants[i : i + 1] for i in range(index * count, (index + 1) * count)]
        new = KINDS[kind](number, t, now, *values)
        if position is not None:
            if kind not in ("warm_restarts", "cyclic", "one_cycle"):
                new = numpy.where(restart, values[0], new)
            new = numpy.where(moves, new, number)
        number[...] = new
    if position is not None:
        t = numpy.where(moves, t, state[:1])
    state[:1] = t
    if kind == "warm_restarts":
        state[1:] = after


@schedule_step.geometry
def _(rate, momentum, state, constants, position, *, kind, low, high):
    count = constants.size // (1 if momentum is None else 2)
    return Geometry(1, 1, ([*KINDS].index(kind), count, float(low), float(high)))


def schedule_at(kind: str, t: int, constants: list[float]) -> float:
    """What a schedule that does not look at the rate before says at step t, in Python."""
    rate = numpy.zeros(1)
    schedule_step.twin(rate, None, numpy.array([t - 1.0]), numpy.array(constants), None, kind=kind, low=0.0, high=math.inf)
    return float(rate[0])
