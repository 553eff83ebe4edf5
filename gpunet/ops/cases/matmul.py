"""Cases of the matrix product."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.launch.facts import Cost, Floor, Product, num_bytes
from gpunet.ops.cases.case import MMA_FLOORS, WHOLE_SIZES, Samples, View, cut, products, tf32_twin, unaligned
from gpunet.ops.gemm import LOOPS, SIMT
from gpunet.ops.matmul import matmul_forward

_SPILLS = (
    "few bytes, of the {registers} registers per thread that {blocks} blocks per multiprocessor leave: the addresses of operands "
    "with any 64-bit strides take more than those of linear layers, which do not spill"
)

matmul_forward.describe(
    is_hot=True,
    spills={
        ("*, 128, 128, *", "*"): _SPILLS.format(registers=128, blocks="two"),
        ("*", "sm_100a sm_120"): _SPILLS.format(registers=168, blocks="six"),
        ("*, 32, 128, false, true, true>", "sm_90a"): _SPILLS.format(registers=168, blocks="six"),
    },
    floors={
        **MMA_FLOORS,
        ("float, 128, 128, *", "*"): Floor(0.84),
        ("float, 64, 64, *", "*"): Floor(0.81),
        ("float, 32, 128, *", "*"): Floor(0.78),
        ("float, 128, 32, *", "*"): Floor(0.78),
    },
)


def _transposed(x: Array) -> Array:
    return x.transpose(0, 2, 1)


@matmul_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    sizes = [(size, (chosen.rows, chosen.columns), chosen.math, 1) for size, chosen in products(s.maths)]
    batches = ((96, 7, 9, 33), (3, 65, 129, 7))
    sizes += [((m, n, k), tile, math, j) for j, m, n, k in batches for math in s.maths for tile in LOOPS[math]]
    for ((m, n, k), tile, math, j), (flip_a, flip_b) in itertools.product(sizes, itertools.product((False, True), repeat=2)):
        if (flip_a or flip_b) and tile != (64, 64):
            continue  # the tiles differ in other things than where their operands lie
        chosen = cut(tile, 3 if flip_a == flip_b else 1, m, n, k, j, math)
        a = View(s.operand(chosen, j, k, m), _transposed) if flip_a else s.operand(chosen, j, m, k)
        b = View(s.operand(chosen, j, n, k), _transposed) if flip_b else s.operand(chosen, j, k, n)
        by = f" by {math.name}" if math != SIMT else ""
        label = f"({j}, {m}, {k}){' transposed' * flip_a}, ({j}, {k}, {n}){' transposed' * flip_b}, tiles of {tile}{by}"
        arrays = [s.blank(j, m, n), *s.split(chosen), a, b]
        yield label, arrays, {"cut": chosen}, None, tf32_twin(matmul_forward, chosen, "a", "b")
    broadcast = View(s.normal(1, 7, 63), lambda x: devices.module(x).broadcast_to(x, (3, 7, 63)))
    reversed_strided = View(s.normal(3, 63, 2 * 65), lambda x: x[:, ::-1, ::2])
    yield "a broadcast, b reversed with every second column", [s.blank(3, 7, 65), None, None, broadcast, reversed_strided], {}
    rows, column = View(s.normal(129, 65), lambda x: x[None, ::3]), View(s.normal(65, 2), lambda x: x[None, :, :1])
    yield "every third row, one column", [s.blank(1, 43, 1), None, None, rows, column], {}
    every_second = View(s.normal(1, 8, 2 * 12), lambda x: x[:, :, ::2])
    yield "(1, 8, 12) of every second column", [s.blank(1, 8, 8), None, None, every_second, s.normal(1, 12, 8)], {}
    m, n, k = WHOLE_SIZES[0]
    yield from unaligned(f"(1, {m}, {k}), (1, {k}, {n})", [s.blank(1, m, n), None, None, s.normal(1, m, k), s.normal(1, k, n)], {})


@matmul_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    """The product with every tile, and its two gradients."""
    m, n, k = 128, 256, 64
    a, b = s.normal(1, m, k), s.normal(1, k, n)
    of_b, of_a = View(s.normal(1, n, k), _transposed), View(s.normal(1, k, m), _transposed)
    for math in s.maths:
        shown = [(a, b, "a b", tile) for tile in LOOPS[math]]
        for left, right, label, tile in (*shown, (a, of_b, "a b^T", (64, 64)), (of_a, b, "a^T b", (64, 64))):
            options = {"cut": cut(tile, 1, m, n, k, math=math)}
            by = f", by {math.name}" if math != SIMT else ""
            yield f"{label}, (1, {m}, {k}), (1, {k}, {n}){by}", [s.blank(1, m, n), None, None, left, right], options


@matmul_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    yield f"({n}, {n}) ({n}, {n})", [s.blank(1, n, n), None, None, s.normal(1, n, n), s.normal(1, n, n)], {}


@matmul_forward.cost
def _(out, partials, tickets, a, b, *, cut=None):
    return Cost(2.0 * out.size * a.shape[2], num_bytes(out, a, b))


@matmul_forward.product
def _(out, partials, tickets, a, b, *, cut=None):
    batches, rows, columns = out.shape
    return Product(rows, columns, a.shape[2], batches, cut.terms if cut else 1)


@matmul_forward.equivalent
def _(torch, out, partials, tickets, a, b):
    return lambda: torch.bmm(a, b, out=out)
