"""Cases of the kernel of the last linear layer of a classifier and its loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.backend.dtypes import float32, float64
from gpunet.launch.facts import Cost, Floor, Product, num_bytes
from gpunet.launch.faults import RECORD_SIZE, report_first
from gpunet.ops.cases.case import Samples, cut, tf32_twin, unaligned
from gpunet.ops.cases.linear import FLOORS
from gpunet.ops.cases.losses import loss_arrays, value_and_gradient
from gpunet.ops.gemm import HALVES, LOOPS, SIMT, Cut
from gpunet.ops.linear_loss import linear_forward_loss
from gpunet.ops.losses import REDUCTIONS

_FLOORS = {
    **{tile: FLOORS[tile] for tile in (("float, 64, 64, *", "*"), ("float16, 64, 64, *, Mma>", "*"))},
    ("float, 128, 32, *", "*"): Floor(0.78, 1.2),
}

linear_forward_loss.describe(
    is_hot=True, floors=_FLOORS,
    spills={
        ("float, 128, 128, *", "sm_75 sm_100a sm_120"): "12 to 32 bytes; the product takes the last of the 128 registers that "
        "two blocks per multiprocessor leave",
    },
)


#: How products are computed in the cases that are shown, and their tiles.
_SHOWN = ((SIMT, (64, 64)), (SIMT, (128, 32)), (HALVES, (64, 64)))


def _case(
    s: Samples, size: tuple[int, int, int], chosen: Cut, reduction: str, labels: numpy.ndarray, label: str = "", twin: Any = None,
    ignore_index: int = -100, has_bias: bool = True,
) -> Any:  # fmt: skip
    n, o, i = size
    value, dx, factor, losses, ticket = loss_arrays(s, reduction, (n, o), (n,))
    arrays = [
        s.blank(n, o), value, dx, factor, losses, ticket, s.blank(RECORD_SIZE, dtype="int64"), *s.split(chosen),
        s.operand(chosen, n, i), s.operand(chosen, o, i), s.normal(o) if has_bias else None, labels.astype("int64"),
    ]  # fmt: skip
    options = {"reduction": reduction, "ignore_index": ignore_index, "code": 7, "cut": chosen}
    tiles = f"{chosen.blocks} blocks of {chosen.rows} x {chosen.columns} by {chosen.math.name}"
    label = f"{reduction} ({n}, {i}) -> ({n}, {o}), {tiles}{label}"
    return label, arrays, options, None, twin or tf32_twin(linear_forward_loss, chosen, "x", "w")


def _out_of_range(
    y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, ignore_index, code, **options
):
    """The twin for labels out of range: the CPU raises, the CUDA kernel makes their rows NaN and reports the first."""
    classes = y.shape[1]
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    report_first(fault, wrong, code, labels, classes, ignore_index)
    linear_forward_loss.twin(
        y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, numpy.where(wrong, 0, labels),
        ignore_index=ignore_index, code=code, **options,
    )  # fmt: skip
    dx[wrong] = numpy.nan
    value[wrong if options["reduction"] == "none" else ...] = numpy.nan


@linear_forward_loss.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    numbers = itertools.cycle(itertools.product(REDUCTIONS, (-100, 2), (1, 1.5, 3, 0.6)))
    for math in s.maths:
        for tile, size in itertools.product(LOOPS[math], ((1, 1, 1), (70, 10, 33), (133, 32, 64), (200, 7, 0), (64, 4, 100))):
            reduction, ignore_index, slices = next(numbers)
            labels = s.random.integers(0, size[1], size[0])
            if ignore_index < 0:
                labels[1::5] = ignore_index
            chosen = cut(tile, slices, *size, math=math)
            yield _case(s, size, chosen, reduction, labels, ignore_index=ignore_index, has_bias=size[2] != 33)
    for reduction in REDUCTIONS:
        for size in ((2100, 3, 4), (64, 10, 5)):  # more partial sums than threads add at once
            yield _case(s, size, cut((64, 64), 1, *size), reduction, s.random.integers(0, size[1], size[0]))
        size = (150, 10, 9)
        yield _case(s, size, cut((64, 64), 1, *size), reduction, numpy.full(150, -100), ", ignoring all")
        for wrong in ({70: 10, 80: -1, 149: 11}, {0: -1, 18: 10}):
            labels = s.random.integers(0, 10, 150)
            labels[5::7] = -100
            labels[[*wrong]] = [*wrong.values()]
            yield _case(s, size, cut((64, 64), 1, *size), reduction, labels, f", out of range at {[*wrong]}", _out_of_range)
    for math, tile in _SHOWN:
        if math in s.maths:
            size = (132, 32, 64)
            yield _case(s, size, cut(tile, 2, *size, math=math), "mean", s.random.integers(0, 32, 132))
    size = (7, 12, 8)
    label, arrays, options, *_ = _case(s, size, cut((64, 64), 1, *size), "none", s.random.integers(0, 12, 7))
    yield from unaligned(label, arrays, options, 0, 1, 2, 9, 10, 11)


@linear_forward_loss.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for math, tile in _SHOWN:
        if math in s.maths and (s.dtype == float32 or math != SIMT or (s.dtype == float64 and tile == (64, 64))):
            size = (128, 32, 64)
            yield _case(s, size, cut(tile, 1, *size, math=math), "mean", s.random.integers(0, 32, 128))


@linear_forward_loss.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    size = (s.width, 10, s.width)
    yield _case(s, size, cut((64, 64), 1, *size), "mean", s.random.integers(0, 10, s.width))[:3]


@linear_forward_loss.cost
def _(y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, reduction, ignore_index, code, cut=None):
    return Cost(y.size * (2.0 * x.shape[1] + 6), num_bytes(y, value, dx, factor, x, w, b, labels))


@linear_forward_loss.product
def _(y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, reduction, ignore_index, code, cut=None):
    (n, o), i = y.shape, x.shape[1]
    return Product(n, o, i, terms=cut.terms if cut else 1)


@linear_forward_loss.equivalent
def _(
    torch, y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, reduction, ignore_index, code,
    cut=None,
):  # fmt: skip
    def run() -> Any:
        logits = torch.nn.functional.linear(x, w, b)
        return value_and_gradient(torch, torch.nn.functional.cross_entropy, logits, labels)()

    return run
