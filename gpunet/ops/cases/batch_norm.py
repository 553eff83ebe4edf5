"""Cases of the kernels of batch norm."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.batch_norm import batch_norm_apply, batch_norm_backward_input, batch_norm_statistics
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.cases.normalization import CHANNELS, workspace

_SHAPES = tuple(shape for shape, _ in CHANNELS if shape[0])
_WHOLE = ((128, 256, 1), (8, 32, 64))
_SHOWN = (*_WHOLE, (128, 250, 1))
_WASTE = {
    "reads": "weights of channels whose number is no multiple of four are read one by one; the L1 cache has them, and those that "
    "every image reads"
}


def _statistics(s: Samples, shape: tuple[int, ...], momentum: float | None, is_running: bool, is_counted: bool) -> Any:
    a, channels = s.accumulators, shape[1]
    running = [a.normal(channels), a.positive(channels)] if is_running and shape[0] * shape[2] > 1 else [None, None]
    batches = numpy.array([4]) if is_counted else None
    label = f"{shape}, momentum {momentum}{', running' * is_running}{', counted' * is_counted}"
    arrays = [a.blank(channels), a.blank(channels), *running, batches, *workspace(s, shape, 3)]
    # off the origin: a variance that is the difference of two averages would be wrong
    return label, [*arrays, s.normal(*shape) + s.dtype.type(8)], {"momentum": momentum, "eps": 1e-3}


batch_norm_statistics.describe(
    is_hot=True,
    spills={("*, 1>", "*"): "8 bytes; ptxas limits the registers to reach full occupancy"},
)


@batch_norm_statistics.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(
        ((0.1, True, True), (None, True, True), (0.1, True, False), (0.1, False, False), (0.0, True, True), (1.0, False, True),
         (-0.5, True, False))
    )
    for shape, _ in itertools.product(_SHAPES, range(4)):
        yield _statistics(s, shape, *next(presence))
    label, arrays, options = _statistics(s, (5, 4, 24), 0.1, True, True)
    yield from unaligned(label, arrays, options, 0, 1, 2, 3, 7)


@batch_norm_statistics.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape in _WHOLE:
        yield _statistics(s, shape, 0.1, True, True)


@batch_norm_statistics.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _statistics(s, (s.width, s.width, 1), 0.1, True, True)


@batch_norm_statistics.cost
def _(mean, rstd, running_mean, running_var, batches, partials, tickets, x, *, momentum, eps):
    return Cost(4 * x.size, num_bytes(mean, rstd, x, batches, batches) + 2 * num_bytes(running_mean, running_var))


def _apply(s: Samples, shape: tuple[int, ...], name: str, is_variance: bool, has_weights: bool = True, has_z: bool = True) -> Any:
    a, channels = s.accumulators, shape[1]
    w, b = (s.normal(channels), s.normal(channels)) if has_weights else (None, None)
    z = s.blank(*shape) if has_z else None
    label = f"{name} {shape}{', variance' * is_variance}{', weights' * has_weights}{', z' * has_z}"
    options = {"eps": 1e-3, "is_variance": is_variance, "activation": name, "alpha": ACTIVATIONS[name].alpha}
    return label, [s.blank(*shape), z, s.normal(*shape), w, b, a.normal(channels), a.positive(channels)], options


batch_norm_apply.describe(
    is_hot=True,
    waste=_WASTE,
    spills={("float16, *, false>", "sm_90a"): "8 bytes; ptxas limits the registers to reach full occupancy"},
)


@batch_norm_apply.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product((True, False), repeat=3))
    for (shape, _), _ in itertools.product(CHANNELS, range(2)):
        yield _apply(s, shape, "identity", *next(presence))
    yield *_apply(s, (90, 40, 7), "identity", False), 2  # a grid so small that the loop iterates
    for name in ACTIVATIONS:
        yield _apply(s, (5, 3, 8), name, False)
    yield from unaligned(*_apply(s, (5, 3, 8), "identity", True))


@batch_norm_apply.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape in _SHOWN:
        yield _apply(s, shape, "relu", False, has_z=False)


@batch_norm_apply.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _apply(s, (s.width, s.width, 1), "relu", False, has_z=False)


@batch_norm_apply.cost
def _(y, z, x, w, b, mean, spread, *, eps, is_variance, activation, alpha):
    return Cost((4 + (activation != "identity")) * x.size, num_bytes(y, z, x, w, b, mean, spread))


@batch_norm_apply.equivalent
def _(torch, y, z, x, w, b, mean, spread, *, eps, is_variance, activation, alpha):
    variance = spread**-2 - eps
    return lambda: torch.nn.functional.batch_norm(x, mean, variance, w, b, False, 0.1, eps).relu_()


def _backward(s: Samples, shape: tuple[int, ...], is_variance: bool, has_weights: bool = True) -> Any:
    a, channels = s.accumulators, shape[1]
    x, mean, sums = (None, None, None) if is_variance else (s.normal(*shape), a.normal(channels), a.normal(2, channels))
    w = s.normal(channels) if has_weights else None
    label = f"{shape}{', variance' * is_variance}{', weights' * has_weights}"
    arrays = [s.blank(*shape), s.normal(*shape), x, w, mean, a.positive(channels), sums]
    return label, arrays, {"eps": 1e-3, "is_variance": is_variance}


batch_norm_backward_input.describe(is_hot=True, waste=_WASTE)


@batch_norm_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    presence = itertools.cycle(itertools.product((True, False), repeat=2))
    for (shape, _), _ in itertools.product(CHANNELS, range(2)):
        yield _backward(s, shape, *next(presence))
    yield *_backward(s, (90, 40, 7), False), 2  # a grid so small that the loop iterates
    yield from unaligned(*_backward(s, (5, 3, 8), False))


@batch_norm_backward_input.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for shape in _SHOWN:
        yield _backward(s, shape, False)


@batch_norm_backward_input.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _backward(s, (s.width, s.width, 1), False)


@batch_norm_backward_input.cost
def _(dx, dy, x, w, mean, spread, sums, *, eps, is_variance):
    return Cost((2 if is_variance else 7) * dx.size, num_bytes(dx, dy, x, w, mean, spread, sums))
