"""Cases of softmax cross-entropy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.launch.faults import RECORD_SIZE, report_first
from gpunet.ops.cases.case import Samples, unaligned
from gpunet.ops.cases.losses import loss_arrays, value_and_gradient
from gpunet.ops.cross_entropy import cross_entropy_labels, cross_entropy_soft
from gpunet.ops.losses import REDUCTIONS

#: (rows, classes, grid): one warp per row up to 1024 classes, one block per row beyond.  The grids of (8300, 3, None) and
#: (9, 1025, 4) are smaller than their rows need, so that the grid-stride loop iterates.
ROWS = (
    (1, 1, None), (7, 63, None), (65, 10, None), (129, 1024, None), (9, 1025, None), (3, 5003, None), (8300, 3, None),
    (9, 1025, 4), (0, 7, None),
)  # fmt: skip


def _extreme_logits(s: Samples, rows: int, classes: int) -> numpy.ndarray:
    """Logits up to ±1000, some of them -inf: a whole row, every second element of another; one is +inf, one NaN."""
    logits = s.random.permuted(numpy.linspace(-1000, 1000, rows * classes)).reshape(rows, classes).astype(s.dtype)
    logits[0, 3::2] = logits[1] = -numpy.inf
    logits[2, 5], logits[3, 7] = numpy.inf, numpy.nan
    return logits


def _labels_out_of_range(value, dx, factor, partials, ticket, fault, logits, labels, **options) -> None:
    """The twin for labels out of range: the CPU raises, the CUDA kernel makes their rows NaN and reports the first."""
    classes, ignored, code = logits.shape[1], options["ignore_index"], options["code"]
    wrong = (labels != ignored) & ((labels < 0) | (labels >= classes))
    report_first(fault, wrong, code, labels, classes, ignored)
    cross_entropy_labels.twin(value, dx, factor, partials, ticket, fault, logits, numpy.where(wrong, 0, labels), **options)
    dx[wrong] = numpy.nan
    value[wrong if options["reduction"] == "none" else ...] = numpy.nan


def _labels_case(
    s: Samples, label: str, reduction: str, logits: numpy.ndarray, labels: numpy.ndarray, *more: Any, ignore_index: int = -100
) -> Any:
    rows, classes = logits.shape
    arrays = [
        *loss_arrays(s, reduction, (rows, classes), (rows,)), s.blank(RECORD_SIZE, dtype="int64"), logits, labels.astype("int64")
    ]  # fmt: skip
    options = {"reduction": reduction, "ignore_index": ignore_index, "code": 7}
    return f"{reduction} ({rows}, {classes}) {label}", arrays, options, *more


cross_entropy_labels.describe(
    is_hot=True,
    spills={("float, *", "sm_100a"): "4 bytes; ptxas limits the registers to reach full occupancy"},
)


@cross_entropy_labels.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction, ignore_index in itertools.product(ROWS, REDUCTIONS, (-100, 2)):
        labels = s.random.integers(0, classes, rows)
        if ignore_index < 0:
            labels[1::5] = ignore_index
        label = f"{f'by {grid} blocks ' * bool(grid)}ignoring {ignore_index}"
        yield _labels_case(s, label, reduction, 3 * s.normal(rows, classes), labels, grid, ignore_index=ignore_index)
    for reduction in REDUCTIONS:
        yield _labels_case(s, "ignoring all", reduction, s.normal(7, 65), numpy.full(7, -100))
        for classes in (65, 1025):
            yield _labels_case(s, "far apart", reduction, _extreme_logits(s, 7, classes), s.random.integers(0, 3, 7))
        labels = numpy.array([0, 9, 10, 11, -1, -100, 3])
        yield _labels_case(s, "out of range", reduction, s.normal(7, 10), labels, None, _labels_out_of_range)
        labels = numpy.where(numpy.arange(129) < 70, s.random.integers(0, 3, 129), 2000)
        for classes in (3, 1025):
            yield _labels_case(s, "out of range from row 70", reduction, s.normal(129, classes), labels, None, _labels_out_of_range)
        for wrong in ({200: 10, 210: -1, 290: 11}, {0: -1, 16: 10, 299: -2}, {17: -1, 33: 10}):  # in several warps
            labels = s.random.integers(0, 10, 300)
            labels[5::7] = -100
            labels[[*wrong]] = [*wrong.values()]
            yield _labels_case(s, f"out of range at {[*wrong]}", reduction, s.normal(300, 10), labels, 2, _labels_out_of_range)
    label, arrays, options = _labels_case(s, "ignoring none", "none", s.normal(7, 12), s.random.integers(0, 12, 7))
    yield from unaligned(label, arrays, options, 0, 1, 6)


#: (rows, classes): a block per row, and a warp per row of many and of few classes.
_REPRESENTATIVES = ((64, 1024), (8, 4096), (1024, 10))


@cross_entropy_labels.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for rows, classes in _REPRESENTATIVES:
        yield _whole_labels(s, f"({rows}, {classes})", rows, classes)


@cross_entropy_labels.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_labels(s, f"mean ({s.width}, {s.width})", s.width, s.width)


def _whole_labels(s: Samples, label: str, rows: int, classes: int) -> Any:
    record, labels = s.blank(RECORD_SIZE, dtype="int64"), s.random.integers(0, classes, rows).astype("int64")
    arrays = [*loss_arrays(s, "mean", (rows, classes), (rows,)), record, s.normal(rows, classes), labels]
    return label, arrays, {"reduction": "mean", "ignore_index": -100, "code": 1}


@cross_entropy_labels.cost
def _(value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    # the row's maximum, the difference from it, exp, their sum, the division
    return Cost(5 * logits.size, num_bytes(value, dx, factor, logits, labels))


@cross_entropy_labels.equivalent
def _(torch, value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    return value_and_gradient(torch, torch.nn.functional.cross_entropy, logits, labels)


cross_entropy_soft.describe(is_hot=True)


@cross_entropy_soft.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction in itertools.product(ROWS, REDUCTIONS):
        targets = s.positive(rows, classes) / s.dtype.type(classes)
        arrays = [*loss_arrays(s, reduction, (rows, classes), (rows,)), 3 * s.normal(rows, classes), targets]
        yield f"{reduction} ({rows}, {classes}){f' by {grid} blocks' * bool(grid)}", arrays, {"reduction": reduction}, grid
    for reduction, classes in itertools.product(REDUCTIONS, (65, 1025)):
        targets = s.positive(7, classes) / s.dtype.type(classes)
        arrays = [*loss_arrays(s, reduction, (7, classes), (7,)), _extreme_logits(s, 7, classes), targets]
        yield f"{reduction} (7, {classes}) far apart", arrays, {"reduction": reduction}
    arrays = [*loss_arrays(s, "none", (7, 12), (7,)), s.normal(7, 12), s.positive(7, 12) / s.dtype.type(12)]
    yield from unaligned("none (7, 12)", arrays, {"reduction": "none"}, 0, 1, 5, 6)


@cross_entropy_soft.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    for rows, classes in _REPRESENTATIVES:
        yield _whole_soft(s, f"({rows}, {classes})", rows, classes)


@cross_entropy_soft.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    yield _whole_soft(s, f"mean ({s.width}, {s.width})", s.width, s.width)


def _whole_soft(s: Samples, label: str, rows: int, classes: int) -> Any:
    logits, targets = s.normal(rows, classes), s.positive(rows, classes) / s.dtype.type(classes)
    return label, [*loss_arrays(s, "mean", (rows, classes), (rows,)), logits, targets], {"reduction": "mean"}


@cross_entropy_soft.cost
def _(value, dx, factor, partials, ticket, logits, targets, *, reduction):
    # as with labels; the sums of the targets and of their products with the logits; two more operations for dx
    return Cost(10 * logits.size, num_bytes(value, dx, factor, logits, targets))


@cross_entropy_soft.equivalent
def _(torch, value, dx, factor, partials, ticket, logits, targets, *, reduction):
    return value_and_gradient(torch, torch.nn.functional.cross_entropy, logits, targets)
