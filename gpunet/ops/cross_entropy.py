"""Softmax cross-entropy against labels or probabilities: value and gradient in one launch."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy
from numpy import float64

from gpunet.autograd import Tensor, fused, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating, is_integer, promote
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch import parts
from gpunet.launch.faults import fault_record
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.loops import (
    Loops,
    advance,
    exp,
    like,
    load,
    log,
    loop_body,
    reduce_add,
    reduce_maximum,
    select,
    store,
)
from gpunet.launch.memory import as_0d_arrays, empty, scratch
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.compare import eq
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, as_number
from gpunet.ops.index_launches import label_site
from gpunet.ops.losses import (
    MAX_BLOCKS,
    REDUCTIONS,
    allocate_loss,
    loss_backward,
    reduce_composed,
    reduce_losses,
    reduction_of,
)
from gpunet.ops.nll import check_labels, class_weights, picked, picked_weights
from gpunet.ops.softmax import log_softmax

__all__ = ["cross_entropy"]

LABELS = label_site("cross_entropy")


def _log_sum_exp(each, probabilities, logits):
    """each (n,) = log(sum(exp(row))); probabilities (n, c) = softmax(logits)."""
    if logits.shape[1] <= 64 and type(logits) is numpy.ndarray:  # NumPy reduces short rows faster after a transposition
        columns = scratch(logits.shape[::-1], logits.dtype, 2)
        numpy.copyto(columns, logits.T)
        numpy.maximum.reduce(columns, axis=0, out=each)
    else:
        numpy.maximum.reduce(logits, axis=1, out=each)
    numpy.subtract(logits, each[:, None], out=probabilities)
    numpy.exp(probabilities, out=probabilities)
    total = scratch(each.shape, each.dtype, 2)
    numpy.add.reduce(probabilities, axis=1, out=total)
    numpy.divide(probabilities, total[:, None], out=probabilities)
    numpy.log(total, out=total)
    each += total


@functools.lru_cache(maxsize=8)
def _row_starts(rows: int, columns: int) -> numpy.ndarray:
    """The flat offset of each row of a C-contiguous matrix: 0, columns, 2 columns, ..."""
    return numpy.arange(0, rows * columns, columns)


@kernel(
    "cross_entropy.cu",
    outputs=6,
    types={"factor": "A", "partials": "A", "ticket": "uint32", "fault": "int64", "labels": "int64"},
    optional="factor partials ticket fault",
    reads_values=True,
    updates="fault",
    workspace="partials",
    tickets="ticket",
)
def cross_entropy_labels(value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    """value = reduction of log sum exp(row) - row[label]; dx = softmax - one_hot; factor (1,) = 1 / counted rows.

    logits (n, c), labels (n,) -> value (1,) or (n,) for "none", dx (n, c).  A row whose label is ``ignore_index`` has
    loss and gradient 0 and is not counted.  A label out of range raises on the CPU; on a GPU it makes the loss NaN and
    is reported in ``fault`` with ``code`` (see :mod:`gpunet.launch.faults`).
    """
    n, classes = logits.shape
    each = value if reduction == "none" else scratch((n,), logits.dtype, 1)
    counted = n
    if n:
        in_range = numpy.maximum.reduce(labels.view(numpy.uint64)) < classes  # as unsigned, a negative label is huge
        ignored = None
        if not in_range or 0 <= ignore_index < classes:
            check_labels(LABELS, labels, classes, ignore_index)
            ignored = labels == ignore_index
            counted -= int(numpy.count_nonzero(ignored))
            labels = numpy.where(ignored, 0, labels)
        _log_sum_exp(each, dx, logits)
        positions, picked, flat = scratch((n,), numpy.int64, 0), scratch((n,), logits.dtype, 2), dx.reshape(-1)
        numpy.add(_row_starts(n, classes), labels, out=positions)
        each -= logits.reshape(-1).take(positions, out=picked, mode="clip")
        flat.take(positions, out=picked, mode="clip")
        picked -= as_0d_arrays(picked.dtype, 1)[0]
        flat[positions] = picked
        if ignored is not None:
            each[ignored] = 0
            dx[ignored] = 0
    reduce_losses(value, factor, each, counted, reduction)


@cross_entropy_labels.loops
def _(value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    n, classes = logits.shape
    arrays = (value, dx, value if factor is None else factor, logits, labels)
    numbers = (n, classes, REDUCTIONS.index(reduction), ignore_index)
    return Loops(_labels_loop, arrays, numbers, scratch=2 * n, checks_input=True)


@loop_body
def _labels_loop(value, dx, factor, logits, labels, losses, n, c, reduction, ignore_index):
    num_counted = 0
    for i in range(n):
        label = load(labels, i, 3)
        if label != ignore_index:
            num_counted += 1
            if label < 0 or label >= c:
                return 1
    _softmax_loop(dx, losses, logits, n, c)
    for i in range(n):
        label = load(labels, i, 3)
        if label == ignore_index:
            store(losses, i, like(losses, 0), 1)
            for j in range(c):
                store(dx, i * c + j, like(dx, 0), 0)
        else:
            store(losses, i, load(losses, i, 1) - load(logits, i * c + label, 2), 1)
            store(dx, i * c + label, load(dx, i * c + label, 0) - like(dx, 1), 0)
    _reduce_loop(value, factor, losses, n, reduction, num_counted)
    return 0


@loop_body
def _softmax_loop(probabilities, logs, logits, n, c):
    """Softmax of logits (n, c), and log-sum-exp of each row.

    ``logs`` holds 2 n elements: the results, then the sums.  A NaN reaches its whole row through the row's sum.
    """
    totals = advance(logs, n)
    for i in range(n):
        top = _row_maximum_loop(logits, i * c, c)
        for j in range(c):
            store(probabilities, i * c + j, load(logits, i * c + j, 2) - top, 0)
        store(logs, i, top, 1)
    for i in range(n * c):
        store(probabilities, i, exp(load(probabilities, i, 0)), 0)
    for i in range(n):
        total = load(probabilities, i * c, 0)
        for j in range(1, c):
            total = reduce_add(total, load(probabilities, i * c + j, 0))
        store(totals, i, total, 4)
        inverse = like(probabilities, 1) / total
        for j in range(c):
            store(probabilities, i * c + j, load(probabilities, i * c + j, 0) * inverse, 0)
    for i in range(n):
        store(logs, i, load(logs, i, 1) + log(load(totals, i, 4)), 1)


@loop_body
def _row_maximum_loop(x, first, c):
    """The maximum of c elements from ``first`` on; a short row may ignore NaN, which makes it three times as fast."""
    top = load(x, first, 2)
    if c < 32:
        for j in range(1, c):
            value = load(x, first + j, 2)
            top = select(value > top, value, top)
    else:
        for j in range(1, c):
            top = reduce_maximum(top, load(x, first + j, 2))
    return top


@loop_body
def _reduce_loop(value, factor, losses, n, reduction, num_counted):
    """value = the mean of n losses, factor = 1 / num_counted (reduction 0), the sum (1), or each of them (2)."""
    if reduction == 2:
        for i in range(n):
            store(value, i, load(losses, i, 1), 0)
        return
    total = float64(0)
    for i in range(n):
        total = reduce_add(total, float64(load(losses, i, 1)))
    if reduction == 0:
        inverse = like(value, 1.0 / num_counted if num_counted else 0.0)
        store(factor, 0, inverse, 2)
        store(value, 0, like(value, total) * inverse if num_counted else like(value, math.nan), 0)
    else:
        store(value, 0, like(value, total), 0)


@cross_entropy_labels.computes
def _(value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    options = {"ignore_index": ignore_index, "code": code}
    return parts.Loss(value, dx, factor, fault, logits, labels, "cross_entropy", reduction, options)


@kernel(
    "cross_entropy.cu",
    outputs=5,
    types={"factor": "A", "partials": "A", "ticket": "uint32"},
    optional="factor partials ticket",
    workspace="partials",
    tickets="ticket",
)
def cross_entropy_soft(value, dx, factor, partials, ticket, logits, targets, *, reduction):
    """value = reduction of -sum_c target_c log softmax_c; dx = softmax * sum(target) - target; factor (1,) = 1/n.

    logits, targets (n, c) -> value (1,) or (n,) for "none", dx (n, c).
    """
    n = len(logits)
    each = value if reduction == "none" else scratch((n,), logits.dtype, 1)
    if n:
        mass, product = scratch((n,), logits.dtype, 3), scratch(logits.shape, logits.dtype, 4)
        _log_sum_exp(each, dx, logits)
        numpy.add.reduce(targets, axis=1, out=mass)
        each *= mass
        numpy.multiply(targets, logits, out=product)
        dot = scratch((n,), logits.dtype, 2)
        numpy.add.reduce(product, axis=1, out=dot)
        each -= dot
        dx *= mass[:, None]
        dx -= targets
    reduce_losses(value, factor, each, n, reduction)


def _cross_entropy_geometry(logits: Array, reduction: str, *scalars: Any) -> Geometry:
    # one warp per row up to 1024 classes, one block per row beyond
    rows, classes = logits.shape
    warp_per_row = classes <= 1024
    blocks = max(1, min(MAX_BLOCKS, ceil_div(rows, 8) if warp_per_row else rows))
    return Geometry(
        blocks, 256, (rows, classes, *scalars), (f"Reduction::{reduction}", "true" if warp_per_row else "false")
    )


@cross_entropy_labels.geometry
def _(value, dx, factor, partials, ticket, fault, logits, labels, *, reduction, ignore_index, code):
    return _cross_entropy_geometry(logits, reduction, numpy.int64(ignore_index), numpy.int32(code))


@cross_entropy_soft.geometry
def _(value, dx, factor, partials, ticket, logits, targets, *, reduction):
    return _cross_entropy_geometry(logits, reduction)


def _labels_composed(logits, labels, *, reduction, ignore_index):
    ignored = eq(labels, ignore_index)
    safe = where(ignored, 0, labels)
    each = -picked(LABELS, log_softmax(logits, 1), safe, ignore_index)
    each = where(ignored, 0.0, each)
    if reduction == "mean":
        return reductions.sum(each) / reductions.sum(cast(~ignored, dtype=logits.dtype))
    return reduce_composed(each, reduction)


@fused(name="cross_entropy", composed=_labels_composed, takes_unit=True)
def labels_loss(logits, labels, *, reduction, ignore_index, need):
    """Softmax cross-entropy of logits (n, c) against integer labels (n,)."""
    n = len(logits)
    dx = empty(logits.shape, logits.dtype, logits)
    value, factor, partials, counter = allocate_loss(logits, reduction, (n,))
    cross_entropy_labels(
        value, dx, factor, partials, counter, fault_record(logits), logits, labels, reduction=reduction,
        ignore_index=ignore_index, code=LABELS.code,
    )  # fmt: skip
    return value if reduction == "none" else value.reshape(()), (dx, factor)


@labels_loss.backward
def _(saved, dy, *, reduction, ignore_index, need):
    return loss_backward(saved, dy, reduction)


def _soft_composed(logits, targets, *, reduction):
    each = -reductions.sum(targets * log_softmax(logits, 1), 1)
    return reduce_composed(each, reduction)


@fused(name="cross_entropy", composed=_soft_composed, takes_unit=True)
def soft_labels_loss(logits, targets, *, reduction, need):
    """Softmax cross-entropy of logits (n, c) against probabilities (n, c), which get no gradient."""
    n = len(logits)
    dx = empty(logits.shape, logits.dtype, logits)
    value, factor, partials, counter = allocate_loss(logits, reduction, (n,))
    cross_entropy_soft(value, dx, factor, partials, counter, logits, targets, reduction=reduction)
    return value if reduction == "none" else value.reshape(()), (dx, factor)


@soft_labels_loss.backward
def _(saved, dy, *, reduction, need):
    return loss_backward(saved, dy, reduction)


@casts("float32")
def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits against class labels or class probabilities, in one launch.

    Args:
        input: logits (n, c), (c,) or (n, c, d1, ...).
        target: integer labels (n,), () or (n, d1, ...), or probabilities of the shape of ``input``.
        weight: (c,), a factor per class; with labels, "mean" then divides by the sum of the factors of the counted rows.
        size_average, reduce: deprecated; bools that select the reduction.
        ignore_index: rows with this label are not counted (integer labels only).
        reduction: "mean" over the counted rows, NaN without one; "sum" or "none".
        label_smoothing: weight of the uniform distribution in the target, in [0, 1].

    Raises:
        ShapeError: the shapes of input, target or weight do not match.
        LabelError: a label is outside 0 .. c - 1.  On a GPU the loss is NaN, and the error is raised when the host next
            reads a value or synchronizes.
        DtypeError: the logits are not floating, or the target is neither integer nor floating.
        ArgumentError: an option is out of range, or ``ignore_index`` is a class and the target holds probabilities.
    """
    reduction = reduction_of("cross_entropy", size_average, reduce, reduction)
    label_smoothing = as_number("cross_entropy", "label_smoothing", label_smoothing)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing={label_smoothing}; expected a number from 0 to 1")
    ignore_index = as_integer("cross_entropy", "ignore_index", ignore_index)
    logits, target = wrap(input), wrap(target)
    shape, dtype, target_dtype = logits.array.shape, logits.array.dtype, target.array.dtype
    if not is_floating(dtype):
        raise DtypeError(f"cross_entropy: logits of dtype {dtype}; expected a floating tensor")
    if not shape or not shape[1 if len(shape) > 1 else 0]:
        raise ShapeError(f"cross_entropy: logits of shape {shape} have no classes; expected (n, classes)")
    soft = is_floating(target_dtype)
    rows_shape = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if not rows_shape and not soft and target.array.shape == (1,):
        target = target.reshape(())
    if target.array.shape != (shape if soft else rows_shape):
        raise ShapeError(
            f"cross_entropy: logits have shape {shape}, target {target.shape} of dtype {target_dtype}; expected "
            f"integer labels of shape {rows_shape} or probabilities of shape {shape}"
        )
    if not soft and not is_integer(target_dtype):
        raise DtypeError(f"cross_entropy: target of dtype {target_dtype}; expected integer labels or probabilities")
    if len(shape) > 2:
        order = (0, *range(2, len(shape)), 1)
        logits = logits.permute(*order).reshape(-1, shape[1])
        target = target.permute(*order).reshape(-1, target.shape[1]) if soft else target.reshape(-1)
    elif len(shape) == 1:
        logits, target = logits.reshape(1, -1), target.reshape((1, -1) if soft else 1)
    if soft:
        if ignore_index >= 0:
            raise ArgumentError(
                f"cross_entropy: ignore_index={ignore_index}, but the target holds probabilities of dtype {target_dtype}; it "
                "needs integer labels"
            )
        if target_dtype != dtype:
            common = promote(dtype, target_dtype)
            logits, target = (v if v.dtype == common else cast(v, dtype=common) for v in (logits, target))
    elif target_dtype != numpy.int64:
        target = cast(target, dtype=numpy.dtype("int64"))
    if weight is not None or label_smoothing or (soft and target.requires_grad):
        loss = _weighted(logits, target, weight, ignore_index, reduction, label_smoothing, soft)
    elif soft:
        loss = soft_labels_loss(logits, target, reduction=reduction)
    else:
        loss = labels_loss(logits, target, reduction=reduction, ignore_index=ignore_index)
    return loss.reshape(rows_shape) if reduction == "none" else loss


@in_accumulator
def _weighted(logits, target, weight, ignore_index, reduction, smoothing, soft):
    """Class weights, label smoothing and differentiable targets, composed of primitives."""
    classes = logits.shape[1]
    logs = log_softmax(logits, 1)
    if weight is not None:
        weight = class_weights("cross_entropy", weight, classes)
        weight = weight if weight.dtype == logits.dtype else cast(weight, dtype=logits.dtype)
    if soft:
        target = target if not smoothing else target * (1.0 - smoothing) + smoothing / classes
        each = -reductions.sum((target if weight is None else target * weight) * logs, 1)
        return reduce_composed(each, reduction)
    check_labels(LABELS, target.array, classes, ignore_index)
    ignored = target == ignore_index
    safe = where(ignored, 0, target)
    factor: Any = 1.0 if weight is None else picked_weights(LABELS, weight, logs, safe, ignore_index)
    parts = [(-picked(LABELS, logs, safe, ignore_index) * factor, 1.0 - smoothing)]
    if smoothing:
        parts.append((-reductions.sum(logs if weight is None else logs * weight, 1) / classes, smoothing))
    counted = reductions.sum(cast(~ignored, dtype=logits.dtype) * factor) if reduction == "mean" else None
    loss: Any = None
    for each, share in parts:  # reduced separately, as in PyTorch, which shows where no row counts
        each = where(ignored, 0.0, each)
        part = reduce_composed(each, reduction) if counted is None else reductions.sum(each) / counted
        loss = part * share if loss is None else loss + part * share
    return loss
