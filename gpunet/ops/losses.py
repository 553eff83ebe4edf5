"""Losses: value and gradient in one launch.

A loss launch writes the reduced value, the gradient of each sample (not yet divided by the count) and the factor that
the reduction brings: 1/n for "mean", on the device.  Backward is then no launch at all: the factor travels with the
gradient to where the batch is reduced anyway (see ``autograd.Scaled``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import MULTIPLY, Scaled, Tensor, fused, wrap
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import empty, numbers, scratch, ticket, zeros_like
from gpunet.launch.tape import settle
from gpunet.ops import reduce as reductions
from gpunet.ops.activations import ACTIVATIONS
from gpunet.ops.broadcast import broadcast_to, cast
from gpunet.ops.compare import eq
from gpunet.ops.elementwise import exp, log1p, maximum, where
from gpunet.ops.index import gather
from gpunet.ops.softmax import log_softmax

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"reduction {reduction!r}; expected one of 'mean', 'sum', 'none'")


MAX_BLOCKS = 1024


def loss_blocks(count: int) -> int:
    """Blocks of a loss launch: from the size alone, so that the sum's order, and its bits, never depend on the card."""
    return max(1, min(MAX_BLOCKS, ceil_div(count, 1024)))


# ---- elementwise losses -----------------------------------------------------------------------------------------------


class ElementwiseLoss(NamedTuple):
    """A row of the table: the twin writes the loss of each element to ``value`` and its derivative by x to ``dx``."""

    struct: str  # in losses.cu
    twin: Callable[[Array, Array, Array, Array, float], None]  # (value, dx, x, y, delta)
    composed: Callable[[Tensor, Tensor, float], Tensor]


def _squared(value, dx, x, y, delta):
    numpy.subtract(x, y, out=dx)
    numpy.multiply(dx, dx, out=value)
    dx *= numbers(dx.dtype, 2)[0]


def _absolute(value, dx, x, y, delta):
    numpy.subtract(x, y, out=dx)
    numpy.absolute(dx, out=value)
    numpy.sign(dx, out=dx)


def _huber(value, dx, x, y, delta):
    # d = x - y clipped to [-delta, delta] is the derivative; the loss is c (d - c / 2) with that c
    difference = scratch(x.shape, x.dtype, 1)
    numpy.subtract(x, y, out=difference)
    numpy.clip(difference, -delta, delta, out=dx)
    numpy.multiply(dx, dx.dtype.type(-0.5), out=value)
    value += difference
    value *= dx


def _binary_cross_entropy(value, dx, x, y, delta):
    # max(x, 0) - x y + log(1 + exp(-|x|)); its derivative is sigmoid(x) - y
    small = scratch(x.shape, x.dtype, 1)
    numpy.absolute(x, out=small)
    numpy.negative(small, out=small)
    numpy.exp(small, out=small)
    numpy.log1p(small, out=value)
    numpy.maximum(x, zeros_like(x), out=dx)
    value += dx
    numpy.multiply(x, y, out=dx)
    value -= dx
    ACTIVATIONS["sigmoid"].forward(dx, x, 0.0)
    dx -= y


ELEMENTWISE_LOSSES = {
    "squared": ElementwiseLoss("SquaredError", _squared, lambda x, y, delta: (x - y) * (x - y)),
    "absolute": ElementwiseLoss("AbsoluteError", _absolute, lambda x, y, delta: (x - y).abs()),
    "huber": ElementwiseLoss(
        "HuberError",
        _huber,
        lambda x, y, delta: (x - y).clamp(-delta, delta) * ((x - y) - 0.5 * (x - y).clamp(-delta, delta)),
    ),
    "binary_cross_entropy": ElementwiseLoss(
        "BinaryCrossEntropy", _binary_cross_entropy, lambda x, y, delta: maximum(x, 0.0) - x * y + log1p(exp(-x.abs()))
    ),
}


def _reduce(value, factor, each, count, reduction):
    """value = sum of the losses, for "mean" times factor = 1 / count; for "none" they are in it already."""
    if reduction != "none":
        total = value.reshape(())  # without dimensions: NumPy multiplies it in half the time
        numpy.add.reduce(each, axis=None, out=total)
        if reduction == "mean":
            factor[0] = 1.0 / count if count else numpy.nan
            total *= factor.reshape(())


@kernel("losses.cu", outputs=5, types={"ticket": "uint32"}, optional="factor partials ticket")
def elementwise_loss(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    """value = reduction of loss(x, y); dx = d loss / d x of each element; factor (1,) = 1/count for "mean".

    ``value`` is (1,), or has the shape of x for "none".  ``partials`` (blocks,) and ``ticket`` are work space of the
    card.
    """
    each = value if reduction == "none" else scratch(x.shape, x.dtype, 0)
    ELEMENTWISE_LOSSES[loss].twin(each, dx, x, y, delta)
    _reduce(value, factor, each, x.size, reduction)


@elementwise_loss.geometry
def _(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    return Geometry(
        loss_blocks(x.size), 256, (numpy.int64(x.size), delta),
        (ELEMENTWISE_LOSSES[loss].struct, f"Reduction::{reduction}"),
    )  # fmt: skip


def _reduce_composed(each: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return each
    return reductions.mean(each) if reduction == "mean" else reductions.sum(each)


def _loss_memory(x: Array, reduction: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """value, factor, partials (a sum and a count for each block), ticket."""
    on_card = type(x) is not numpy.ndarray and reduction != "none"
    return (
        empty(shape if reduction == "none" else (1,), x.dtype, x),
        empty((1,), x.dtype, x) if reduction == "mean" else None,
        empty((2 * MAX_BLOCKS,), x.dtype, x) if on_card else None,
        ticket(x) if on_card else None,
    )


def _loss_backward(dx: Array, factor: Array | None, reduction: str) -> Callable[..., Any]:
    """Backward of a loss whose launch wrote ``dx`` and ``factor``."""

    def backward(dy):
        if dy is None:  # exactly 1
            return Scaled(dx, factor), None
        if reduction == "none":
            out = empty(dx.shape, dx.dtype, dx)
            MULTIPLY(out, dx, dy.reshape(dy.shape + (1,) * (dx.ndim - dy.ndim)))
            return out, None
        if factor is None:
            return Scaled(dx, dy.reshape(1)), None
        scale = empty((1,), dx.dtype, dx)
        MULTIPLY(scale, dy.reshape(1), factor)
        return Scaled(dx, scale), None

    return backward


def _elementwise_composed(x, y, *, loss, reduction, delta):
    return _reduce_composed(ELEMENTWISE_LOSSES[loss].composed(x, y, delta), reduction)


@fused(composed=_elementwise_composed, takes_unit=True)
def regression_loss(x, y, *, loss, reduction, delta, need):
    """The reduced loss of x against y, of one shape; y has no gradient here."""
    dx = empty(x.shape, x.dtype, x)
    value, factor, partials, counter = _loss_memory(x, reduction, x.shape)
    elementwise_loss(value, dx, factor, partials, counter, x, y, loss=loss, reduction=reduction, delta=delta)
    return value if reduction == "none" else value.reshape(()), _loss_backward(dx, factor, reduction)


def _elementwise(name: str, loss: str, x: Any, y: Any, reduction: str, delta: float = 0.0) -> Tensor:
    check_reduction(reduction)
    x, y = wrap(x), wrap(y)
    dtype = x.array.dtype
    if x.array.shape != y.array.shape:
        raise ShapeError(
            f"{name}: input has shape {x.shape}, target {y.shape}; they must be equal (reshape one: broadcasting here "
            "is nearly always a mistake)"
        )
    if dtype.kind != "f":
        raise DtypeError(f"{name}: input of dtype {dtype}; expected a floating tensor")
    y = y if y.array.dtype == dtype else cast(y, dtype=dtype)
    if y.requires_grad:
        return _elementwise_composed(x, y, loss=loss, reduction=reduction, delta=delta)
    return regression_loss(x, y, loss=loss, reduction=reduction, delta=float(delta))


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(input - target)^2, reduced.  Both of one shape; ``reduction`` is "mean", "sum" or "none"."""
    return _elementwise("mse_loss", "squared", input, target, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|input - target|, reduced: the mean absolute error."""
    return _elementwise("l1_loss", "absolute", input, target, reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = input - target, reduced (Huber 1964).

    Raises:
        ArgumentError: delta is not positive.
    """
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta={delta}; expected a positive number")
    return _elementwise("huber_loss", "huber", input, target, reduction, delta)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Huber's loss divided by its delta: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
    if beta == 0.0:
        return l1_loss(input, target, reduction)
    if beta < 0.0:
        raise ArgumentError(f"smooth_l1_loss: beta={beta}; expected zero or a positive number")
    return _elementwise("smooth_l1_loss", "huber", input, target, reduction, beta) / beta


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """-(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))) of logits x and targets y in [0, 1], reduced.

    Args:
        input: logits.
        target: probabilities or 0/1, of the same shape.
        weight: factor of each element, broadcast.
        reduction: "mean", "sum" or "none".
        pos_weight: factor of the positive term, broadcast: above 1 it counts misses of the positive class more.
    """
    name = "binary_cross_entropy_with_logits"
    if weight is None and pos_weight is None:
        return _elementwise(name, "binary_cross_entropy", input, target, reduction)
    check_reduction(reduction)
    x, y = (wrap(v) for v in (input, target))
    if x.shape != y.shape:
        raise ShapeError(f"{name}: input has shape {x.shape}, target {y.shape}; they must be equal")
    # log(1 + exp(-x)) without overflow
    soft = maximum(-x, 0.0) + log1p(exp(-x.abs()))
    each = (1.0 - y) * x + (1.0 + (pos_weight - 1.0) * y if pos_weight is not None else 1.0) * soft
    return _reduce_composed(each if weight is None else each * weight, reduction)


# ---- softmax cross-entropy ----------------------------------------------------------------------------------------------


def _log_sum_exp(each, probabilities, logits):
    """each = log sum exp of every row; probabilities = softmax."""
    if logits.shape[1] <= 64 and type(logits) is numpy.ndarray:  # NumPy reduces short rows faster as columns
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
    """Where each row of a matrix starts in its elements: 0, columns, 2 columns, ..."""
    return numpy.arange(0, rows * columns, columns)


def _check_labels(labels: numpy.ndarray, classes: int, ignore_index: int) -> None:
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        bad &= labels != ignore_index
        if bad.any():
            row = int(bad.argmax())
            raise LabelError(
                f"cross_entropy: label {int(labels[row])} at row {row}; expected 0 .. {classes - 1} for {classes} classes"
                + (f" (or ignore_index {ignore_index})" if ignore_index else "")
            )


@kernel(
    "losses.cu",
    outputs=5,
    types={"ticket": "uint32", "labels": "int64"},
    optional="factor partials ticket",
)
def cross_entropy_labels(value, dx, factor, partials, ticket, logits, labels, *, reduction, ignore_index):
    """value = reduction of log sum exp(row) - row[label]; dx = softmax - onehot; factor (1,) = 1 / rows that count.

    logits (n, c), labels (n,) -> value (1,) or (n,) for "none", dx (n, c).  A row whose label is ``ignore_index`` has
    loss and gradient 0 and does not count.  A label out of range raises on the CPU; on a card it makes the loss NaN.
    """
    n, classes = logits.shape
    each = value if reduction == "none" else scratch((n,), logits.dtype, 1)
    counted = n
    if n:
        in_range = numpy.maximum.reduce(labels.view(numpy.uint64)) < classes  # a negative label is a huge unsigned one
        ignored = None
        if not in_range or 0 <= ignore_index < classes:
            _check_labels(labels, classes, ignore_index)
            ignored = labels == ignore_index
            counted -= int(numpy.count_nonzero(ignored))
            labels = numpy.where(ignored, 0, labels)
        _log_sum_exp(each, dx, logits)
        places, picked, flat = scratch((n,), numpy.int64, 0), scratch((n,), logits.dtype, 2), dx.reshape(-1)
        numpy.add(_row_starts(n, classes), labels, out=places)
        each -= logits.reshape(-1).take(places, out=picked, mode="clip")
        flat.take(places, out=picked, mode="clip")
        picked -= numbers(picked.dtype, 1)[0]
        flat[places] = picked
        if ignored is not None:
            each[ignored] = 0
            dx[ignored] = 0
    _reduce(value, factor, each, counted, reduction)


@kernel("losses.cu", outputs=5, types={"ticket": "uint32"}, optional="factor partials ticket")
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
    _reduce(value, factor, each, n, reduction)


def _cross_entropy_geometry(logits: Array, reduction: str, *scalars: Any) -> Geometry:
    # one warp a row up to 1024 classes, one block a row beyond
    rows, classes = logits.shape
    warp_a_row = classes <= 1024
    blocks = max(1, min(MAX_BLOCKS, ceil_div(rows, 8) if warp_a_row else rows))
    return Geometry(
        blocks, 256, (rows, classes, *scalars), (f"Reduction::{reduction}", "true" if warp_a_row else "false")
    )


@cross_entropy_labels.geometry
def _(value, dx, factor, partials, ticket, logits, labels, *, reduction, ignore_index):
    return _cross_entropy_geometry(logits, reduction, numpy.int64(ignore_index))


@cross_entropy_soft.geometry
def _(value, dx, factor, partials, ticket, logits, targets, *, reduction):
    return _cross_entropy_geometry(logits, reduction)


def _labels_composed(logits, labels, *, reduction, ignore_index):
    ignored = eq(labels, ignore_index)
    safe = where(ignored, 0, labels)
    each = -gather(log_softmax(logits, 1), 1, safe.reshape(-1, 1)).reshape(-1)
    each = where(ignored, 0.0, each)
    if reduction == "mean":
        return reductions.sum(each) / reductions.sum(cast(~ignored, dtype=logits.dtype))
    return _reduce_composed(each, reduction)


@fused(composed=_labels_composed, takes_unit=True)
def labels_loss(logits, labels, *, reduction, ignore_index, need):
    """Softmax cross-entropy of logits (n, c) against integer labels (n,)."""
    n = len(logits)
    dx = empty(logits.shape, logits.dtype, logits)
    value, factor, partials, counter = _loss_memory(logits, reduction, (n,))
    cross_entropy_labels(
        value, dx, factor, partials, counter, logits, labels, reduction=reduction, ignore_index=ignore_index
    )
    return value if reduction == "none" else value.reshape(()), _loss_backward(dx, factor, reduction)


def _soft_composed(logits, targets, *, reduction):
    each = -reductions.sum(targets * log_softmax(logits, 1), 1)
    return _reduce_composed(each, reduction)


@fused(composed=_soft_composed, takes_unit=True)
def soft_labels_loss(logits, targets, *, reduction, need):
    """Softmax cross-entropy of logits (n, c) against probabilities (n, c) that have no gradient here."""
    n = len(logits)
    dx = empty(logits.shape, logits.dtype, logits)
    value, factor, partials, counter = _loss_memory(logits, reduction, (n,))
    cross_entropy_soft(value, dx, factor, partials, counter, logits, targets, reduction=reduction)
    return value if reduction == "none" else value.reshape(()), _loss_backward(dx, factor, reduction)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits against class labels or class probabilities, from the logits, in one launch.

    Args:
        input: logits (n, c), (c,) or (n, c, d1, ...).
        target: integer labels (n,), (), (n, d1, ...), or probabilities of the shape of ``input``.
        weight: (c,) factor of each class; "mean" then divides by the sum of the factors used.
        ignore_index: rows with this label do not count (integer labels only).
        reduction: "mean" over the rows that count, "sum" or "none".
        label_smoothing: mix the target with the uniform distribution by this share, in [0, 1].

    Raises:
        ShapeError: shapes that do not fit.
        LabelError: a label outside 0 .. c - 1; on a card, where looking would stop the stream, the loss is NaN.
        DtypeError: logits that are not floating.
    """
    check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing={label_smoothing}; expected a share from 0 to 1")
    logits, target = wrap(input), wrap(target)
    shape, dtype, target_dtype = logits.array.shape, logits.array.dtype, target.array.dtype
    if dtype.kind != "f":
        raise DtypeError(f"cross_entropy: logits of dtype {dtype}; expected a floating tensor")
    if not shape or not shape[1 if len(shape) > 1 else 0]:
        raise ShapeError(f"cross_entropy: logits of shape {shape} have no classes; expected (n, classes)")
    soft = target_dtype.kind == "f"
    rows_shape = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if target.array.shape != (shape if soft else rows_shape):
        raise ShapeError(
            f"cross_entropy: logits have shape {shape}, target {target.shape} of dtype {target_dtype}; expected "
            f"integer labels of shape {rows_shape} or probabilities of shape {shape}"
        )
    if not soft and target_dtype.kind not in "iu":
        raise DtypeError(f"cross_entropy: target of dtype {target_dtype}; expected integer labels or probabilities")
    if len(shape) > 2:
        order = (0, *range(2, len(shape)), 1)
        logits = logits.permute(*order).reshape(-1, shape[1])
        target = target.permute(*order).reshape(-1, target.shape[1]) if soft else target.reshape(-1)
    elif len(shape) == 1:
        logits, target = logits.reshape(1, -1), target.reshape((1, -1) if soft else 1)
    if soft:
        target = target if target_dtype == dtype else cast(target, dtype=dtype)
    elif target_dtype != numpy.int64:
        target = cast(target, dtype=numpy.dtype("int64"))
    if weight is not None or label_smoothing or (soft and target.requires_grad):
        loss = _weighted(logits, target, weight, ignore_index, reduction, label_smoothing, soft)
    elif soft:
        loss = soft_labels_loss(logits, target, reduction=reduction)
    else:
        loss = labels_loss(logits, target, reduction=reduction, ignore_index=int(ignore_index))
    return loss.reshape(rows_shape) if reduction == "none" else loss


def _weighted(logits, target, weight, ignore_index, reduction, smoothing, soft):
    """The rarer forms (class weights, label smoothing, differentiable targets), in primitives."""
    classes = logits.shape[1]
    logs = log_softmax(logits, 1)
    if weight is not None:
        weight = wrap(weight)
        if weight.shape != (classes,):
            raise ShapeError(f"cross_entropy: weight has shape {weight.shape}; expected ({classes},), one for each class")
    if soft:
        target = target if not smoothing else target * (1.0 - smoothing) + smoothing / classes
        each = -reductions.sum((target if weight is None else target * weight) * logs, 1)
        return _reduce_composed(each, reduction)
    if type(target.array) is numpy.ndarray:  # on a card the labels are not looked at: that would wait for it
        settle("labels, whose range is checked,", target.array)
        _check_labels(target.array, classes, ignore_index)
    ignored = target == ignore_index
    column = where(ignored, 0, target).reshape(-1, 1)
    factor = (
        1.0 if weight is None else gather(broadcast_to(weight, shape=(len(target), classes)), 1, column).reshape(-1)
    )
    each = -gather(logs, 1, column).reshape(-1) * factor
    if smoothing:
        uniform = -reductions.sum(logs if weight is None else logs * weight, 1) / classes
        each = each * (1.0 - smoothing) + uniform * smoothing
    each = where(ignored, 0.0, each)
    if reduction != "mean":
        return _reduce_composed(each, reduction)
    counted = cast(~ignored, dtype=logits.dtype)
    return reductions.sum(each) / reductions.sum(counted * factor)
