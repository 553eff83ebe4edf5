"""Cases of the matrix product."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.launch.facts import Cost, Floor, Product, num_bytes
from gpunet.ops.cases.case import SIZES, WHOLE_SIZE, Samples, View, unaligned
from gpunet.ops.matmul import matmul_forward

matmul_forward.describe(
    is_hot=True,
    spills={
        ("*float*, 128, *", "*"): "two blocks per multiprocessor leave 128 registers per thread; accumulators, fragments and the "
        "prefetched step take 96, and the addresses of operands with arbitrary 64-bit strides more than the remaining 32. One "
        "block per multiprocessor would not spill, but could not hide the latency of barriers"
    },
    floors={
        ("float, 64, *", "*"): Floor(0.69, shared=1.63),
        ("float, 128, *", "sm_80 sm_90a"): Floor(0.82),
        ("float, 128, *", "*"): Floor(0.81),
    },
)


def _transposed(x: Array) -> Array:
    return x.transpose(0, 2, 1)


@matmul_forward.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    # a batch of 96 selects the tile of 128
    sizes = [(1, *size) for size in SIZES] + [(96, 7, 9, 33), (96, 6, 10, 34), (3, 65, 129, 7)]
    for (j, m, n, k), flip_a, flip_b in itertools.product(sizes, (False, True), (False, True)):
        a = View(s.normal(j, k, m), _transposed) if flip_a else s.normal(j, m, k)
        b = View(s.normal(j, n, k), _transposed) if flip_b else s.normal(j, k, n)
        label = f"({j}, {m}, {k}){' transposed' * flip_a}, ({j}, {k}, {n}){' transposed' * flip_b}"
        yield label, [s.blank(j, m, n), a, b], {}
    broadcast = View(s.normal(1, 7, 63), lambda x: devices.module(x).broadcast_to(x, (3, 7, 63)))
    reversed_strided = View(s.normal(3, 63, 2 * 65), lambda x: x[:, ::-1, ::2])
    yield "a broadcast, b reversed with every second column", [s.blank(3, 7, 65), broadcast, reversed_strided], {}
    rows, column = View(s.normal(129, 65), lambda x: x[None, ::3]), View(s.normal(65, 2), lambda x: x[None, :, :1])
    yield "every third row, one column", [s.blank(1, 43, 1), rows, column], {}
    arrays = [s.blank(5, 7, 65), s.normal(5, 7, 9), s.normal(5, 9, 65)]
    yield "(5, 7, 9), (5, 9, 65), two at once", arrays, {}, (2, 2)
    m, n, k = WHOLE_SIZE
    yield from unaligned(f"(1, {m}, {k}), (1, {k}, {n})", [s.blank(1, m, n), s.normal(1, m, k), s.normal(1, k, n)], {})


@matmul_forward.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    """The product and its two gradients."""
    for j, m, n, k in ((1, 128, 128, 64), (96, 128, 128, 32)):
        a, b = s.normal(j, m, k), s.normal(j, k, n)
        of_b, of_a = View(s.normal(j, n, k), _transposed), View(s.normal(j, k, m), _transposed)
        for left, right, label in ((a, b, "a b"), (a, of_b, "a b^T"), (of_a, b, "a^T b")):
            yield f"{label}, ({j}, {m}, {k}), ({j}, {k}, {n})", [s.blank(j, m, n), left, right], {}


@matmul_forward.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    yield f"({n}, {n}) ({n}, {n})", [s.blank(1, n, n), s.normal(1, n, n), s.normal(1, n, n)], {}


@matmul_forward.cost
def _(out, a, b):
    return Cost(2.0 * out.size * a.shape[2], num_bytes(out, a, b))


@matmul_forward.product
def _(out, a, b):
    batches, rows, columns = out.shape
    return Product(rows, columns, a.shape[2], batches)


@matmul_forward.equivalent
def _(torch, out, a, b):
    return lambda: torch.bmm(a, b, out=out)
