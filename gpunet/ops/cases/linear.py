"""Cases of the kernels of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, Floor, Product, num_bytes
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.cases.case import LARGE_SIZES, SIZES, WHOLE_SIZE, Samples, unaligned
from gpunet.ops.linear import (
    linear_backward_input,
    linear_backward_weight,
    linear_backward_weight_partial,
    linear_backward_weight_reduce,
    linear_forward,
)

_PRESENCE = tuple(itertools.product((True, False), repeat=2))


def _products() -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(activation, size): every activation with both tile sizes, and every size."""
    yield from zip(itertools.cycle(("tanh", "identity")), SIZES)
    yield from itertools.product(ACTIVATIONS, ((64, 68, 32), LARGE_SIZES[0]))
    yield "identity", LARGE_SIZES[1]


#: (rows, columns, depth) of products on whole tiles of 64 and of 128, and the activations that are shown.
_TILES, _REPRESENTATIVES = ((128, 128, 64), (128, 96 * 128, 32)), ("relu", "gelu")

#: The floor of the tile of 64: its 4 x 4 outputs per thread read shared memory more often than they multiply.
_SMALL_TILE = {("float, 64*", "*"): Floor(0.69, shared=1.63)}

linear_forward.describe(is_hot=True, floors={("float, 128*", "*"): Floor(0.85), **_SMALL_TILE})


@linear_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (name, (n, o, i)), (with_z, with_b) in zip(_products(), itertools.cycle(_PRESENCE)):
        z, b = s.blank(n, o) if with_z else None, s.normal(o) if with_b else None
        label = f"{name} ({n}, {i}) -> ({n}, {o}){', z' * with_z}{', b' * with_b}"
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield label, [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), b], options
    n, o, i = WHOLE_SIZE
    arrays = [s.blank(n, o), s.blank(n, o), s.normal(n, i), s.normal(o, i), s.normal(o)]
    yield from unaligned(f"({n}, {i}) -> ({n}, {o})", arrays, {"activation": "identity", "alpha": 0.0})


@linear_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for name, (n, o, i) in itertools.product(_REPRESENTATIVES, _TILES):
        z = s.blank(n, o) if ACTIVATIONS[name].saves == "preactivation" else None
        options = {"activation": name, "alpha": 0.0}
        yield f"({n}, {i}) -> ({n}, {o})", [s.blank(n, o), z, s.normal(n, i), s.normal(o, i), s.normal(o)], options


@linear_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n, options = s.width, {"activation": "relu", "alpha": 0.0}
    yield f"relu ({n}, {n}) -> ({n}, {n})", [s.blank(n, n), None, s.normal(n, n), s.normal(n, n), s.normal(n)], options


@linear_forward.cost
def _(y, z, x, w, b, *, activation, alpha):
    epilogue = (b is not None) + (activation != "identity")
    return Cost(y.size * (2.0 * x.shape[1] + epilogue), num_bytes(y, z, x, w, b))


@linear_forward.product
def _(y, z, x, w, b, *, activation, alpha):
    (n, o), i = y.shape, x.shape[1]
    return Product(n, o, i)


@linear_forward.equivalent
def _(torch, y, z, x, w, b, *, activation, alpha):
    return lambda: torch.addmm(b, x, w.T, out=y).relu_()


linear_backward_input.describe(
    is_hot=True,
    floors={("float, 128*", "sm_80 sm_90a"): Floor(0.85), ("float, 128*", "*"): Floor(0.84), **_SMALL_TILE},
)


@linear_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for name, (n, i, o) in _products():
        saved = s.saved(name, n, i) if name != "identity" else None
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha}
        yield f"{name} ({n}, {o}) -> ({n}, {i})", [s.blank(n, i), s.normal(n, o), s.normal(o, i), saved], options
    n, i, o = WHOLE_SIZE
    arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved("tanh", n, i)]
    yield from unaligned(f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": "tanh", "alpha": 0.0})


@linear_backward_input.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for name, (n, i, o) in itertools.product(_REPRESENTATIVES, _TILES):
        arrays = [s.blank(n, i), s.normal(n, o), s.normal(o, i), s.saved(name, n, i)]
        yield f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": name, "alpha": 0.0}


@linear_backward_input.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    arrays = [s.blank(n, n), s.normal(n, n), s.normal(n, n), s.saved("relu", n, n)]
    yield f"relu ({n}, {n}) -> ({n}, {n})", arrays, {"activation": "relu", "alpha": 0.0}


@linear_backward_input.cost
def _(dx, dy, w, saved, *, activation, alpha):
    epilogue = 2 * (activation != "identity")
    return Cost(dx.size * (2.0 * dy.shape[1] + epilogue), num_bytes(dx, dy, w, saved))


@linear_backward_input.product
def _(dx, dy, w, saved, *, activation, alpha):
    (n, i), o = dx.shape, dy.shape[1]
    return Product(n, i, o)


@linear_backward_input.equivalent
def _(torch, dx, dy, w, saved, *, activation, alpha):
    return lambda: torch.ops.aten.threshold_backward(torch.mm(dy, w, out=dx), saved, 0)


linear_backward_weight.describe(
    is_hot=True,
    spills={
        ("float, 128*", "sm_100a"): "8 bytes; the column sum and the widths of accesses take the last of the 128 registers "
        "that two blocks per multiprocessor leave"
    },
    floors={("float, 128*", "*"): Floor(0.85), **_SMALL_TILE},
)


@linear_backward_weight.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (o, i, n), (leave_out, scaled) in zip(
        (*SIZES, *SIZES, *LARGE_SIZES), itertools.cycle(itertools.product(("", "dw", "db"), (True, False)))
    ):
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"({n}, {o}), ({n}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, s.normal(n, o), s.normal(n, i), s.accumulators.positive(1) if scaled else None], {}
    o, i, n = WHOLE_SIZE
    arrays = [s.blank(o, i), s.blank(o), s.normal(n, o), s.normal(n, i), s.accumulators.positive(1)]
    yield from unaligned(f"({n}, {o}), ({n}, {i})", arrays, {})


@linear_backward_weight.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for o, i, n in _TILES:
        scale = s.accumulators.positive(1)
        yield f"({n}, {o}), ({n}, {i})", [s.blank(o, i), s.blank(o), s.normal(n, o), s.normal(n, i), scale], {}


@linear_backward_weight.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    scale = s.accumulators.positive(1)
    yield f"({n}, {n}), ({n}, {n})", [s.blank(n, n), s.blank(n), s.normal(n, n), s.normal(n, n), scale], {}


@linear_backward_weight.cost
def _(dw, db, dy, x, scale):
    products = 0 if dw is None else 2.0 * len(dy) * dw.size
    sums = 0 if db is None else dy.size
    return Cost(products + sums, num_bytes(dw, db, dy, None if dw is None else x, scale))


@linear_backward_weight.product
def _(dw, db, dy, x, scale):
    return Product(dy.shape[1], 0 if dw is None else x.shape[1], len(dy))


@linear_backward_weight.equivalent
def _(torch, dw, db, dy, x, scale):
    def run() -> None:
        torch.mm(dy.T, x, out=dw)
        torch.sum(dy, 0, out=db)

    return run


linear_backward_weight_partial.describe(is_hot=True, floors=_SMALL_TILE)


@linear_backward_weight_partial.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (o, i, n), slices in zip((*SIZES, (65, 64, 300)), (1, 4, 3, 7, 2, 64, 3, 2, 2, 8)):
        label = f"({n}, {o}), ({n}, {i}) in {slices} slices"
        yield label, [s.accumulators.blank(slices, o * i + o), s.normal(n, o), s.normal(n, i)], {"slices": slices}
    arrays = [s.accumulators.blank(2, 8 * 4 + 8), s.normal(5, 8), s.normal(5, 4)]
    yield from unaligned("(5, 8), (5, 4) in 2 slices", arrays, {"slices": 2}, 0)


@linear_backward_weight_partial.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    o, i, n, slices = 64, 128, 256, 4
    arrays = [s.accumulators.blank(slices, o * i + o), s.normal(n, o), s.normal(n, i)]
    yield f"({n}, {o}), ({n}, {i}) in 4 slices", arrays, {"slices": slices}


@linear_backward_weight_partial.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    rows, small = 8 * s.width, max(1, s.width // 4)
    arrays = [s.accumulators.blank(8, small * (small + 1)), s.normal(rows, small), s.normal(rows, small)]
    yield f"({rows}, {small}) in 8 slices", arrays, {"slices": 8}


@linear_backward_weight_partial.cost
def _(partials, dy, x, *, slices):
    return Cost(dy.size * (2.0 * x.shape[1] + 1), num_bytes(partials, dy, x))


@linear_backward_weight_partial.product
def _(partials, dy, x, *, slices):
    return Product(dy.shape[1], x.shape[1], len(dy))


linear_backward_weight_reduce.describe(is_hot=True)


@linear_backward_weight_reduce.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    choices = itertools.product(((1, 1, 1), (7, 63, 65), (65, 7, 2), (129, 300, 5)), ("", "dw", "db"), (True, False))
    wide = s.accumulators
    for (o, i, slices), leave_out, scaled in choices:
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        label = f"{slices} of ({o}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}"
        yield label, [dw, db, wide.normal(slices, o * i + o), wide.positive(1) if scaled else None], {}
    numbers = wide.normal(1, 3 * 3 + 3)
    numbers[0, :5] = numpy.inf, -numpy.inf, numpy.nan, 1e38, -numpy.nan
    numbers.view(f"uint{8 * numbers.itemsize}")[0, 2] |= 2 ** (8 * numbers.itemsize - 1) - 1  # the NaN of a GPU: all bits set
    yield "1 of (3, 3), not finite", [s.blank(3, 3), s.blank(3), numbers, None], {}
    yield "2 of (63, 65) by 3 blocks", [s.blank(63, 65), s.blank(63), wide.normal(2, 63 * 66), None], {}, 3


@linear_backward_weight_reduce.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    o, i, slices = 64, 128, 4
    partials, scale = s.accumulators.normal(slices, o * i + o), s.accumulators.positive(1)
    yield f"{slices} of ({o}, {i})", [s.blank(o, i), s.blank(o), partials, scale], {}


@linear_backward_weight_reduce.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    partials, scale = s.accumulators.normal(8, n * (n + 1)), s.accumulators.positive(1)
    yield f"8 of ({n}, {n})", [s.blank(n, n), s.blank(n), partials, scale], {}


@linear_backward_weight_reduce.cost
def _(dw, db, partials, scale):
    return Cost(partials.size, num_bytes(dw, db, partials, scale))
