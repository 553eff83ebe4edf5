"""Cases of the kernels of stacked nets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, Product, num_bytes
from gpunet.ops.cases.case import Samples, cut, unaligned
from gpunet.ops.cases.random import STATES, first_half
from gpunet.ops.gemm import LOOPS, SIMT, Cut
from gpunet.ops.stacked import (
    stacked_linear_backward_input,
    stacked_linear_backward_weight,
    stacked_linear_forward,
    stacked_mean_forward,
)
from gpunet.ops.stacked_dropout import stacked_dropout

#: (rows, columns, depth) of the product of a net: ragged and empty ones, and one of whole packs.
_SIZES = ((1, 1, 1), (7, 63, 9), (129, 33, 5), (33, 129, 6), (132, 8, 12), (0, 7, 5), (5, 7, 0), (64, 32, 16))
_NETS = 3
_ACTIVE: tuple[Any, ...] = (None, numpy.array([1, 0, 1]), numpy.array([1, 1, 1]))


def _products() -> Iterator[tuple[tuple[int, int, int], Cut, Any]]:
    """(size, cut, active): every size with every tile."""
    for (size, tile), active in zip(itertools.product(_SIZES, LOOPS[SIMT]), itertools.cycle(_ACTIVE)):
        yield size, cut(tile, 1, *size, batches=_NETS), active


def _label(size: tuple[int, int, int], chosen: Cut, active: Any, more: str = "") -> str:
    stopped = "" if active is None else f", active {active.tolist()}"
    return f"{_NETS} nets of {size}, tiles of {chosen.rows} x {chosen.columns}{stopped}{more}"


def _forward(s: Samples, size: tuple[int, int, int], active: Any, is_shared: bool, has_b: bool) -> list[Any]:
    n, o, i = size
    x = s.normal(n, i) if is_shared else s.normal(_NETS, n, i)
    b = s.normal(_NETS, o) if has_b else None
    return [s.blank(_NETS, n, o), s.blank(_NETS, i, o), x, s.normal(_NETS, o, i), b, active]


@stacked_linear_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    kinds = itertools.cycle(itertools.product((False, True), repeat=2))
    for (size, chosen, active), (is_shared, has_b) in zip(_products(), kinds):
        label = _label(size, chosen, active, ", one x" * is_shared + ", b" * has_b)
        yield label, _forward(s, size, active, is_shared, has_b), {"cut": chosen}
    arrays = _forward(s, (4, 8, 36), _ACTIVE[1], False, True)
    arrays[1] = None  # as on a GPU
    yield from unaligned("3 nets of (4, 8, 36)", arrays, {}, 0, 2, 3, 4)


@stacked_linear_forward.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield "3 nets of (64, 32, 64)", _forward(s, (64, 32, 64), None, False, True), {}


@stacked_linear_forward.cost
def _(y, packed, x, w, b, active, *, cut=None):
    return Cost(y.size * (2.0 * w.shape[2] + (b is not None)), num_bytes(y, x, w, b, active))


@stacked_linear_forward.product
def _(y, packed, x, w, b, active, *, cut=None):
    return Product(y.shape[1], y.shape[2], w.shape[2], len(y))


@stacked_linear_forward.equivalent
def _(torch, y, packed, x, w, b, active):
    return lambda: torch.baddbmm(b[:, None], x, w.mT, out=y)


def _input(s: Samples, size: tuple[int, int, int], active: Any) -> list[Any]:
    n, i, o = size
    return [s.blank(_NETS, n, i), s.normal(_NETS, n, o), s.normal(_NETS, o, i), active]


@stacked_linear_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for size, chosen, active in _products():
        yield _label(size, chosen, active), _input(s, size, active), {"cut": chosen}
    yield from unaligned("3 nets of (4, 8, 36)", _input(s, (4, 8, 36), _ACTIVE[1]), {}, 0, 1, 2)


@stacked_linear_backward_input.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield "3 nets of (64, 32, 64)", _input(s, (64, 32, 64), None), {}


@stacked_linear_backward_input.cost
def _(dx, dy, w, active, *, cut=None):
    return Cost(2.0 * dx.size * w.shape[1], num_bytes(dx, dy, w, active))


@stacked_linear_backward_input.product
def _(dx, dy, w, active, *, cut=None):
    return Product(dx.shape[1], dx.shape[2], w.shape[1], len(dx))


@stacked_linear_backward_input.equivalent
def _(torch, dx, dy, w, active):
    return lambda: torch.bmm(dy, w, out=dx)


def _weight(s: Samples, size: tuple[int, int, int], active: Any, is_shared: bool, has_db: bool) -> list[Any]:
    o, i, n = size
    x = s.normal(n, i) if is_shared else s.normal(_NETS, n, i)
    return [s.blank(_NETS, o, i), s.blank(_NETS, o) if has_db else None, s.normal(_NETS, n, o), x, active]


@stacked_linear_backward_weight.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    kinds = itertools.cycle(itertools.product((False, True), repeat=2))
    for (size, chosen, active), (is_shared, has_db) in zip(_products(), kinds):
        label = _label(size, chosen, active, ", one x" * is_shared + ", db" * has_db)
        yield label, _weight(s, size, active, is_shared, has_db), {"cut": chosen}
    yield from unaligned("3 nets of (4, 8, 36)", _weight(s, (4, 8, 36), _ACTIVE[1], False, True), {}, 0, 1, 2, 3)


@stacked_linear_backward_weight.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield "3 nets of (32, 64, 64)", _weight(s, (32, 64, 64), None, False, True), {}


@stacked_linear_backward_weight.cost
def _(dw, db, dy, x, active, *, cut=None):
    return Cost(2.0 * dw.size * dy.shape[1] + (dy.size if db is not None else 0), num_bytes(dw, db, dy, x, active))


@stacked_linear_backward_weight.product
def _(dw, db, dy, x, active, *, cut=None):
    return Product(dw.shape[1], dw.shape[2], dy.shape[1], len(dw))


@stacked_linear_backward_weight.equivalent
def _(torch, dw, db, dy, x, active):
    return lambda: torch.bmm(dy.mT, x, out=dw)


@stacked_mean_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for count, active in itertools.product((1, 7, 300), _ACTIVE):
        yield f"3 nets, {count}, active {active}", [s.blank(_NETS), s.positive(_NETS, count), active], {}
    yield from unaligned("3 nets, 300", [s.blank(_NETS), s.positive(_NETS, 300), _ACTIVE[1]], {}, 0, 1)


@stacked_mean_forward.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width} nets, {s.width}", [s.blank(s.width), s.normal(s.width, s.width), None], {}


@stacked_mean_forward.cost
def _(value, each, active):
    return Cost(each.size, num_bytes(value, each, active))


@stacked_mean_forward.equivalent
def _(torch, value, each, active):
    return lambda: torch.mean(each, 1, out=value)


stacked_dropout.describe(
    waste={"reads writes": "a thread draws the numbers of eight adjacent elements, and visits one after the other"}
)


def _dropout(s: Samples, nets: int, count: int, kept: Any, is_marked: bool) -> list[Any]:
    state = numpy.array([STATES[net % len(STATES)] for net in range(nets)], "uint64")
    start = numpy.zeros((nets, 2), "uint64") if is_marked else None
    return [s.blank(nets, count), start, state, s.normal(nets, count), numpy.array(kept)]


@stacked_dropout.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    kept = [2**31, 2**32, 0]
    for count in (1, 7, 65, 300, 4099):
        yield f"3 nets, {count}", _dropout(s, 3, count, kept, True), {"advances": True}
        yield f"3 nets, {count}, no copy of the states", _dropout(s, 3, count, kept, False), {"advances": True}
        yield f"3 nets, {count} again", _dropout(s, 3, count, kept, False), {"advances": False}
    for threshold in (first_half(), first_half() + 1):  # around the first number: dropped, then kept
        yield f"a threshold of {threshold}", _dropout(s, 1, 7, [threshold], True), {"advances": True}
    yield from unaligned("3 nets, 300", _dropout(s, 3, 300, kept, True), {"advances": True}, 0, 3)


@stacked_dropout.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield f"{s.width} nets, {s.width}", _dropout(s, s.width, s.width, [2**31] * s.width, True), {"advances": True}


@stacked_dropout.cost
def _(y, start, state, x, kept, *, advances):
    return Cost(y.size, num_bytes(y, start, state, x, kept))


@stacked_dropout.equivalent
def _(torch, y, start, state, x, kept, *, advances):
    return lambda: torch.nn.functional.dropout(x, 0.5)
