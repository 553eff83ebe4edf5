"""Cases of the kernels of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpunet.launch.facts import Cost, Floor, Product, num_bytes
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.cases.case import (
    MMA_FLOORS,
    WHOLE_SIZES,
    Samples,
    cut,
    products,
    rounded_operands,
    tf32_twin,
    unaligned,
)
from gpunet.ops.gemm import LOOPS, SIMT, TF32, Cut
from gpunet.ops.linear import (
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)

_PRESENCE = tuple(itertools.product((True, False), repeat=2))
#: (rows, columns, depth) of a product on whole tiles.
_WHOLE = (128, 256, 64)


def _shown(s: Samples) -> Iterator[tuple[str, Cut]]:
    """(activation, cut) of a product on whole tiles that is shown: with every tile, and with another activation."""
    for math in s.maths:
        for tile in LOOPS[math]:
            yield "relu", cut(tile, 1, *_WHOLE, math=math)
    for tile in ((64, 64), (128, 128)):
        yield "gelu", cut(tile, 1, *_WHOLE, math=s.maths[-1] if s.dtype.itemsize == 2 else SIMT)


def _products(s: Samples) -> Iterator[tuple[str, tuple[int, int, int], Cut]]:
    """(activation, size, cut): every size with every tile, every activation, and those that are shown."""
    for size, chosen in products(s.maths):
        yield "relu", size, chosen
    small, whole = (7, 63, 9), (8, 64, 16)
    for name in ACTIVATIONS:
        yield name, small, cut((64, 64), 1, *small)
    for name, chosen in _shown(s):
        yield name, whole, cut((chosen.rows, chosen.columns), 1, *whole, math=chosen.math)


def _name(cut: Cut) -> str:
    math = f" by {cut.math.name}" if cut.math != SIMT else ""
    return f"tiles of {cut.rows} x {cut.columns}{math}{f', {cut.blocks} blocks' if cut.blocks != cut.tiles else ''}"


FLOORS = {
    **MMA_FLOORS,
    ("float, 128, 128, *", "*"): Floor(0.85),
    ("float, 64, 64, *", "*"): Floor(0.82),
    ("float, 32, 128, *", "*"): Floor(0.8),
    ("float, 128, 32, *", "*"): Floor(0.8),
}

# 512 of 642 instructions on sm_90a: the addresses of a block that computes parts of several tiles take more than those of a tile.
_FORWARD_FLOORS = {(f"float, {tile}, *", "sm_90a"): Floor(0.79) for tile in ("32, 128", "128, 32")} | FLOORS

_SPILLS = {
    ("float, 128, 128, false*", "sm_100a sm_120"): "8 to 16 bytes; accesses of any width take the last of the 128 registers that "
    "two blocks per multiprocessor leave",
    ("float, 128, 128, true, *", "sm_100a"): "4 bytes around the main loop; the epilogue takes the last of the 128 registers that "
    "two blocks per multiprocessor leave",
}

linear_forward.describe(is_hot=True, floors=_FORWARD_FLOORS, spills=_SPILLS)


@linear_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (name, (n, o, i), chosen), (with_z, with_b) in zip(_products(s), itertools.cycle(_PRESENCE)):
        z, b = s.blank(n, o) if with_z else None, s.normal(o) if with_b else None
        label = f"{name} ({n}, {i}) -> ({n}, {o}){', z' * with_z}{', b' * with_b}, {_name(chosen)}"
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha, "cut": chosen}
        arrays = [s.blank(n, o), z, *s.split(chosen), s.operand(chosen, n, i), s.operand(chosen, o, i), b]
        yield label, arrays, options, None, tf32_twin(linear_forward, chosen, "x", "w")
    n, o, i = WHOLE_SIZES[0]
    arrays = [s.blank(n, o), s.blank(n, o), None, None, s.normal(n, i), s.normal(o, i), s.normal(o)]
    yield from unaligned(f"({n}, {i}) -> ({n}, {o})", arrays, {"activation": "identity", "alpha": 0.0})


@linear_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    n, o, i = _WHOLE
    for name, chosen in _shown(s):
        z = s.blank(n, o) if ACTIVATIONS[name].saves == "preactivation" else None
        options = {"activation": name, "alpha": 0.0, "cut": chosen}
        arrays = [s.blank(n, o), z, None, None, s.normal(n, i), s.normal(o, i), s.normal(o)]
        yield f"({n}, {i}) -> ({n}, {o}), {_name(chosen)}", arrays, options


@linear_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n, options = s.width, {"activation": "relu", "alpha": 0.0}
    yield f"relu ({n}, {n}) -> ({n}, {n})", [s.blank(n, n), None, None, None, s.normal(n, n), s.normal(n, n), s.normal(n)], options


@linear_forward.cost
def _(y, z, partials, tickets, x, w, b, *, activation, alpha, cut=None):
    epilogue = (b is not None) + (activation != "identity")
    return Cost(y.size * (2.0 * x.shape[1] + epilogue), num_bytes(y, z, x, w, b))


@linear_forward.product
def _(y, z, partials, tickets, x, w, b, *, activation, alpha, cut=None):
    (n, o), i = y.shape, x.shape[1]
    return Product(n, o, i, terms=cut.terms if cut else 1)


@linear_forward.equivalent
def _(torch, y, z, partials, tickets, x, w, b, *, activation, alpha):
    return lambda: torch.addmm(b, x, w.T, out=y).relu_()


linear_backward_input.describe(is_hot=True, floors=FLOORS, spills=_SPILLS)


@linear_backward_input.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for name, (n, i, o), chosen in _products(s):
        saved = s.saved(name, n, i) if name != "identity" else None
        options = {"activation": name, "alpha": ACTIVATIONS[name].alpha, "cut": chosen}
        arrays = [s.blank(n, i), *s.split(chosen), s.operand(chosen, n, o), s.operand(chosen, o, i), saved]
        label = f"{name} ({n}, {o}) -> ({n}, {i}), {_name(chosen)}"
        yield label, arrays, options, None, tf32_twin(linear_backward_input, chosen, "dy", "w")
    n, i, o = WHOLE_SIZES[0]
    arrays = [s.blank(n, i), None, None, s.normal(n, o), s.normal(o, i), s.saved("tanh", n, i)]
    yield from unaligned(f"({n}, {o}) -> ({n}, {i})", arrays, {"activation": "tanh", "alpha": 0.0})


@linear_backward_input.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    n, i, o = _WHOLE
    for name, chosen in _shown(s):
        arrays = [s.blank(n, i), None, None, s.normal(n, o), s.normal(o, i), s.saved(name, n, i)]
        yield f"({n}, {o}) -> ({n}, {i}), {_name(chosen)}", arrays, {"activation": name, "alpha": 0.0, "cut": chosen}


@linear_backward_input.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    arrays = [s.blank(n, n), None, None, s.normal(n, n), s.normal(n, n), s.saved("relu", n, n)]
    yield f"relu ({n}, {n}) -> ({n}, {n})", arrays, {"activation": "relu", "alpha": 0.0}


@linear_backward_input.cost
def _(dx, partials, tickets, dy, w, saved, *, activation, alpha, cut=None):
    epilogue = 2 * (activation != "identity")
    return Cost(dx.size * (2.0 * dy.shape[1] + epilogue), num_bytes(dx, dy, w, saved))


@linear_backward_input.product
def _(dx, partials, tickets, dy, w, saved, *, activation, alpha, cut=None):
    (n, i), o = dx.shape, dy.shape[1]
    return Product(n, i, o, terms=cut.terms if cut else 1)


@linear_backward_input.equivalent
def _(torch, dx, partials, tickets, dy, w, saved, *, activation, alpha):
    return lambda: torch.ops.aten.threshold_backward(torch.mm(dy, w, out=dx), saved, 0)


def _weight_in_tf32(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    """The twin where dw is a product of TF32; db is not rounded to it."""
    if dw is not None:
        linear_backward_weight.twin(dw, None, None, None, *rounded_operands(dy, x), scale)
    if db is not None:
        linear_backward_weight.twin(None, db, None, None, dy, None, scale)


linear_backward_weight.describe(is_hot=True, floors=FLOORS)


@linear_backward_weight.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for ((o, i, n), chosen), (leave_out, scaled) in zip(
        products(s.maths), itertools.cycle(itertools.product(("", "dw", "db"), (True, False)))
    ):
        dw = s.blank(o, i) if leave_out != "dw" else None
        db = s.blank(o) if leave_out != "db" else None
        if dw is None:
            chosen = cut((chosen.rows, chosen.columns), chosen.blocks / max(1, chosen.tiles), o, 0, n, math=chosen.math)
        label = f"({n}, {o}), ({n}, {i}){', scale' * scaled}{', no ' * bool(leave_out)}{leave_out}, {_name(chosen)}"
        scale = s.accumulators.positive(1) if scaled else None
        arrays = [dw, db, *s.split(chosen, extra=1), s.operand(chosen, n, o), s.operand(chosen, n, i), scale]
        yield label, arrays, {"cut": chosen}, None, _weight_in_tf32 if chosen.math == TF32 else None
    o, i, n = WHOLE_SIZES[0]
    arrays = [s.blank(o, i), s.blank(o), None, None, s.normal(n, o), s.normal(n, i), s.accumulators.positive(1)]
    yield from unaligned(f"({n}, {o}), ({n}, {i})", arrays, {})


@linear_backward_weight.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    o, i, n = _WHOLE
    for chosen in (cut(tile, 1, o, i, n, math=math) for math in s.maths for tile in LOOPS[math]):
        arrays = [s.blank(o, i), s.blank(o), None, None, s.normal(n, o), s.normal(n, i), s.accumulators.positive(1)]
        yield f"({n}, {o}), ({n}, {i}), {_name(chosen)}", arrays, {"cut": chosen}


@linear_backward_weight.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    scale = s.accumulators.positive(1)
    yield f"({n}, {n}), ({n}, {n})", [s.blank(n, n), s.blank(n), None, None, s.normal(n, n), s.normal(n, n), scale], {}


@linear_backward_weight.cost
def _(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    products = 0 if dw is None else 2.0 * len(dy) * dw.size
    sums = 0 if db is None else dy.size
    return Cost(products + sums, num_bytes(dw, db, dy, None if dw is None else x, scale))


@linear_backward_weight.product
def _(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    return Product(dy.shape[1], 0 if dw is None else x.shape[1], len(dy), terms=cut.terms if cut else 1)


@linear_backward_weight.equivalent
def _(torch, dw, db, partials, tickets, dy, x, scale):
    def run() -> None:
        torch.mm(dy.T, x, out=dw)
        torch.sum(dy, 0, out=db)

    return run
