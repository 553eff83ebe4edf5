"""Cases of softmax cross-entropy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy

from gpunet.ops.cases.case import Samples, maker
from gpunet.ops.cases.losses import loss_arrays
from gpunet.ops.cross_entropy import cross_entropy_labels as _cross_entropy_labels
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


def _labels_out_of_range(value, dx, factor, partials, ticket, logits, labels, **options) -> None:
    """The twin for labels out of range: the CPU raises, the CUDA kernel makes their rows NaN."""
    wrong = (labels != options["ignore_index"]) & ((labels < 0) | (labels >= logits.shape[1]))
    _cross_entropy_labels.twin(value, dx, factor, partials, ticket, logits, numpy.where(wrong, 0, labels), **options)
    dx[wrong] = numpy.nan
    value[wrong if options["reduction"] == "none" else ...] = numpy.nan


@maker(workspace="partials")
def cross_entropy_labels(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction, ignore_index in itertools.product(ROWS, REDUCTIONS, (-100, 2)):
        labels = s.random.integers(0, classes, rows)
        if ignore_index < 0:
            labels[1::5] = ignore_index
        arrays = [*loss_arrays(s, reduction, (rows, classes), (rows,)), 3 * s.normal(rows, classes), labels.astype("int64")]
        label = f"{reduction} ({rows}, {classes}){f' by {grid} blocks' * bool(grid)} ignoring {ignore_index}"
        yield label, arrays, {"reduction": reduction, "ignore_index": ignore_index}, grid
    for reduction in REDUCTIONS:
        arrays = [*loss_arrays(s, reduction, (7, 65), (7,)), s.normal(7, 65), numpy.full(7, -100, "int64")]
        yield f"{reduction} (7, 65) ignoring all", arrays, {"reduction": reduction, "ignore_index": -100}
        for classes in (65, 1025):
            arrays = [*loss_arrays(s, reduction, (7, classes), (7,)), _extreme_logits(s, 7, classes), s.random.integers(0, 3, 7)]
            yield f"{reduction} (7, {classes}) far apart", arrays, {"reduction": reduction, "ignore_index": -100}
        arrays = [*loss_arrays(s, reduction, (7, 10), (7,)), s.normal(7, 10), numpy.array([0, 9, 10, 11, -1, -100, 3])]
        options = {"reduction": reduction, "ignore_index": -100}
        yield f"{reduction} (7, 10) out of range", arrays, options, None, _labels_out_of_range


@maker(workspace="partials")
def cross_entropy_soft(s: Samples) -> Iterator[Any]:
    for (rows, classes, grid), reduction in itertools.product(ROWS, REDUCTIONS):
        targets = s.positive(rows, classes) / s.dtype.type(classes)
        arrays = [*loss_arrays(s, reduction, (rows, classes), (rows,)), 3 * s.normal(rows, classes), targets]
        yield f"{reduction} ({rows}, {classes}){f' by {grid} blocks' * bool(grid)}", arrays, {"reduction": reduction}, grid
    for reduction, classes in itertools.product(REDUCTIONS, (65, 1025)):
        targets = s.positive(7, classes) / s.dtype.type(classes)
        arrays = [*loss_arrays(s, reduction, (7, classes), (7,)), _extreme_logits(s, 7, classes), targets]
        yield f"{reduction} (7, {classes}) far apart", arrays, {"reduction": reduction}
