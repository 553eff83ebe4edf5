"""Cases of the gradient norm and of clipping."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes, num_elements
from gpunet.launch.list_kernel import ELEMENTS_PER_BLOCK, num_blocks
from gpunet.ops.cases.case import TENSORS, Samples, unaligned
from gpunet.ops.clip import clip_by_norm, clip_by_value, gradient_norm


def _norm_arrays(s: Samples, grads: list[numpy.ndarray]) -> list[Any]:
    """The arguments of gradient_norm: grads, norm, partials, ticket."""
    return [grads, s.accumulators.positive(1), s.accumulators.blank(num_blocks(grads)), s.blank(1, dtype="uint32")]


def _two_gradients(s: Samples, *values: float) -> list[numpy.ndarray]:
    """Two gradients; the first starts with ``values``."""
    grads = [s.normal(300), s.normal(7)]
    grads[0][: len(values)] = values
    return grads


@gradient_norm.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    ends = ((True, True), (True, False), (False, False), (False, True))
    orders = (1.0, 2.0, 3.5, numpy.inf)
    for shapes, order, (first, last) in itertools.product(TENSORS, orders, ends):
        label, options = f"{len(shapes)} tensors, order {order}", {"order": order, "first": first, "last": last}
        arrays = _norm_arrays(s, [s.normal(*shape) for shape in shapes])
        yield f"{label}, first {first}, last {last}", arrays, options
        if first and last and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0)
    for order, value in itertools.product(orders, (numpy.nan, numpy.inf)):
        arrays, options = _norm_arrays(s, _two_gradients(s, value)), {"order": order, "first": True, "last": True}
        yield f"{value} among them, order {order}", arrays, options
    many = s.blank(256 * ELEMENTS_PER_BLOCK + 1)  # more blocks than the last block, which sums the partials, has threads
    many[-1] = 1
    yield "257 blocks", _norm_arrays(s, [many]), {"order": 2.0, "first": True, "last": True}


@gradient_norm.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for order in (1.0, 2.0, 3.5, numpy.inf):
        yield _whole_norm(s, order)


@gradient_norm.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_norm(s, 2.0)


def _whole_norm(s: Samples, order: float) -> Any:
    return s.layers_label, _norm_arrays(s, s.layers(s.normal)), {"order": order, "first": True, "last": True}


@gradient_norm.cost
def _(grads, norm, partials, ticket, *, order, first, last):
    return Cost(2 * num_elements(grads), num_bytes(grads, norm))


@clip_by_norm.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shapes, max_norm in itertools.product(TENSORS, (0.0, 0.05, 5.0)):
        label, options = f"{len(shapes)} tensors to {max_norm}", {"max_norm": max_norm}
        arrays = [[s.normal(*shape) for shape in shapes], s.accumulators.positive(1)]
        yield label, arrays, options
        if max_norm == 0.05 and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, options, 0)
    for norm in (0.0, 5.0, numpy.inf, numpy.nan):
        yield f"of norm {norm} to 5.0", [_two_gradients(s), numpy.array([norm], s.accumulators.dtype)], {"max_norm": 5.0}


@clip_by_norm.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield s.layers_label, [s.layers(s.normal), s.positive(1)], {"max_norm": 0.01}


@clip_by_norm.cost
def _(grads, norm, *, max_norm):
    return Cost(num_elements(grads), 2 * num_bytes(grads) + num_bytes(norm))


@clip_by_value.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for shapes, limit in itertools.product(TENSORS, (0.0, 0.5)):
        label, arrays = f"{len(shapes)} tensors to {limit}", [[s.normal(*shape) for shape in shapes]]
        yield label, arrays, {"limit": limit}
        if limit and shapes is TENSORS[0]:
            yield from unaligned(label, arrays, {"limit": limit})
    yield "at the limit, and not finite", [_two_gradients(s, 0.5, -0.5, numpy.nan, numpy.inf, -numpy.inf)], {"limit": 0.5}


@clip_by_value.cases("representative", "bench")
def _(s: Samples) -> Iterator[Any]:
    yield s.layers_label, [s.layers(s.normal)], {"limit": 0.5}


@clip_by_value.cost
def _(grads, *, limit):
    return Cost(2 * num_elements(grads), 2 * num_bytes(grads))
