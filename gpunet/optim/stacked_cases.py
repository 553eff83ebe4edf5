"""Cases of the kernels of the optimizers of a stack."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.optim.stacked import stacked_adam_factors, stacked_adam_step, stacked_sgd_step

_NETS = 3
_ACTIVE: tuple[Any, ...] = (None, numpy.array([1, 0, 1]))
_SHAPES = ((1,), (7, 9), (300,), (0,))

stacked_sgd_step.describe(waste={"reads": "each block reads the few numbers of its net"})
stacked_adam_factors.describe(
    waste={"reads writes": "a thread reads and writes the few numbers of a net one after the other"}
)
def _sgd(s: Samples, nets: int, shape: tuple[int, ...], has_velocity: bool, active: Any) -> list[Any]:
    numbers = numpy.tile([[0.1, 0.9, 0.05], [0.01, 0.0, 0.0], [1.0, 0.5, 0.1]], (-(-nets // 3), 1))[:nets]
    velocity = s.normal(nets, *shape) if has_velocity else None
    return [s.normal(nets, *shape), velocity, s.normal(nets, *shape), numbers, active]


@stacked_sgd_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shape, (has_velocity, nesterov), active in itertools.product(
        _SHAPES, ((False, False), (True, False), (True, True)), _ACTIVE
    ):
        label = f"3 nets, {shape}, velocity {has_velocity}, nesterov {nesterov}, active {active}"
        yield label, _sgd(s, _NETS, shape, has_velocity, active), {"nesterov": nesterov}
    yield from unaligned("3 nets, (300,)", _sgd(s, _NETS, (300,), True, _ACTIVE[1]), {"nesterov": True}, 0, 1, 2)


@stacked_sgd_step.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width} nets, {s.width}", _sgd(s, s.width, (s.width,), True, None), {"nesterov": False}


@stacked_sgd_step.cost
def _(p, velocity, g, numbers, active, *, nesterov):
    return Cost(6.0 * p.size, 2 * num_bytes(p, velocity) + num_bytes(g, numbers, active))


def _factors(nets: int, active: Any) -> list[Any]:
    numbers = numpy.tile([[0.1, 0.9, 0.999, 1e-8, 0.0], [0.01, 0.5, 0.9, 1e-3, 0.1], [1.0, 0.0, 0.5, 1.0, 0.5]], (-(-nets // 3), 1))
    powers = numpy.tile([[1.0, 1.0], [0.25, 0.81], [0.0, 0.125]], (-(-nets // 3), 1))
    return [numpy.zeros((nets, 9)), powers[:nets], numbers[:nets], active]


@stacked_adam_factors.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for nets, decoupled in itertools.product((1, 2, 300), (False, True)):
        yield f"{nets} nets, decoupled {decoupled}", _factors(nets, None), {"decoupled": decoupled}
    for decoupled in (False, True):
        yield f"3 nets, one stopped, decoupled {decoupled}", _factors(_NETS, _ACTIVE[1]), {"decoupled": decoupled}


@stacked_adam_factors.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width} nets", _factors(s.width, None), {"decoupled": False}


@stacked_adam_factors.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width**2} nets", _factors(s.width**2, None), {"decoupled": False}


@stacked_adam_factors.cost
def _(factors, powers, numbers, active, *, decoupled):
    return Cost(12.0 * len(numbers), num_bytes(factors, powers, powers, numbers, active))


def _adam(s: Samples, nets: int, shape: tuple[int, ...], active: Any) -> list[Any]:
    row = [[0.99, 0.0, 0.9, 0.1, 0.99, 0.01, 0.1, 1.5, 1e-8], [1.0, 0.05, 0.5, 0.5, 0.9, 0.1, 0.02, 1.0, 1e-3]]
    factors = numpy.tile(row, (-(-nets // 2), 1))[:nets]
    drawn = [s.normal(nets, *shape), s.normal(nets, *shape), s.positive(nets, *shape), s.normal(nets, *shape)]
    return [*drawn, factors, active]


@stacked_adam_step.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shape, active in itertools.product(_SHAPES, _ACTIVE):
        yield f"3 nets, {shape}, active {active}", _adam(s, _NETS, shape, active), {}
    yield from unaligned("3 nets, (300,)", _adam(s, _NETS, (300,), _ACTIVE[1]), {}, 0, 1, 2, 3)


@stacked_adam_step.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width} nets, {s.width}", _adam(s, s.width, (s.width,), None), {}


@stacked_adam_step.cost
def _(p, average, square, g, factors, active):
    return Cost(13.0 * p.size, 2 * num_bytes(p, average, square) + num_bytes(g, factors, active))
