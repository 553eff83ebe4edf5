"""Softmax cross-entropy of a linear layer, without the memory of its logits.

Forward takes rows in chunks: the logits of a chunk, their losses and gradients, and the products of the gradients with weight and
input, so that only the gradients of the operands are kept, as of the sum of the losses; backward scales them.  A chunk has at least
as many logits as the input has elements, as in Liger kernels (Hsu et al. 2024).
"""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import FILL, Gradient, Tensor, fused, wrap
from gpunet.autograd.autocast import is_cast
from gpunet.backend.dtypes import accumulator, is_floating, is_half, is_integer
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.faults import fault_record
from gpunet.launch.kernel import ceil_div
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import cast
from gpunet.ops.compare import ne
from gpunet.ops.cross_entropy import LABELS, cross_entropy, cross_entropy_labels, labels_loss
from gpunet.ops.face import as_integer, public
from gpunet.ops.linear import apply_layer, check_linear, input_gradient, linear, weight_gradients
from gpunet.ops.nll import check_labels

__all__ = ["linear_cross_entropy"]

_CHUNK_LOGITS = 1 << 22  # at least: products of fewer rows are slower, and there is little memory to save
_TILE = 128  # a chunk is a multiple of the rows of the largest tile of a product

ADD = Ufunc("add")
ADD_SUM = Shim("add_sum", lambda xp, out, x: xp.add(out, x.sum(dtype=out.dtype), out=out))


def rows_of_chunk(n: int, classes: int, features: int) -> int:
    """How many rows a chunk has."""
    rows = ceil_div(max(n * features, _CHUNK_LOGITS), max(1, classes))
    return max(1, min(n, ceil_div(rows, _TILE) * _TILE))


def _summed_composed(x, w, b, labels, *, ignore_index, rows):
    total = labels_loss.op.composed(linear(x, w, b), labels, reduction="sum", ignore_index=ignore_index)
    return cast(total, dtype=accumulator(x.dtype))


@fused(composed=_summed_composed, name="linear_cross_entropy")
def summed_losses(x, w, b, labels, *, ignore_index, rows, need):
    """The sum of the losses, in the accumulator's dtype.  x (n, i), w (classes, i), b (classes,) or None, labels (n,) int64."""
    total = empty((), accumulator(x.dtype), x)
    FILL(total, value=0)
    dx = empty(x.shape, x.dtype, x) if need[0] else None
    dw = db = None
    losses = empty((rows,), x.dtype, x)
    check_labels(LABELS, labels, len(w), ignore_index)  # of all rows, so that the message on the CPU counts from the first
    for start in range(0, max(1, len(x)), rows):
        part, targets = x[start : start + rows], labels[start : start + rows]
        logits, _ = apply_layer(part, w, b, "identity", 0.0)
        gradient = empty(logits.shape, logits.dtype, logits)
        cross_entropy_labels(
            losses[: len(part)], gradient, None, None, None, fault_record(logits), logits, targets, reduction="none",
            ignore_index=ignore_index, code=LABELS.code,
        )  # fmt: skip
        ADD_SUM(total, losses[: len(part)])
        if dx is not None:
            input_gradient(gradient, w, out=dx[start : start + rows])
        if need[1] or need[2]:
            of_w, of_b = weight_gradients(gradient, part if need[1] else None, None, need[2])
            if start == 0:
                dw, db = of_w, of_b
                continue
            for result, of_part in ((dw, of_w), (db, of_b)):
                if result is not None:
                    ADD(result, result, of_part)
    return total, (dx, dw, db)


@summed_losses.backward
def _(saved, dy, *, ignore_index, rows, need):
    scale = dy.array.reshape(1)
    found = [None if gradient is None else Gradient(gradient, scale) for gradient in saved]
    return [gradient if is_needed else None for gradient, is_needed in zip([*found, None], need)]


@public(out=False)
def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target, ...)``, for long rows without the memory of the logits.

    More than 2^22 logits are computed in chunks of rows, if the target holds labels, the reduction is "mean" or "sum", and neither
    class weights, label smoothing nor autocast apply.  Halves are not: they cannot hold the gradients of sums.

    Args:
        input: (n, in_features), or (in_features,) for one row.
        linear_weight: (classes, in_features), or (classes, d1, ..., in_features) for losses (n, d1, ...).
        target: labels (n,), () or (n, d1, ...), or probabilities (n, classes, ...).
        linear_bias: (classes,), or (classes, d1, ...).
        weight, reduction, label_smoothing: as of :func:`cross_entropy`.
        ignore_index: rows with this label are not counted; None means -100 for labels.
        options: None; the chunks follow from the shapes.

    Raises:
        ShapeError, DtypeError, ArgumentError, LabelError: as of :func:`linear` and :func:`cross_entropy`.  On a GPU and in a
            captured step, a LabelError counts rows from the first of its chunk.
    """
    if options is not None:
        raise ArgumentError(f"linear_cross_entropy: options={options!r}; expected None: the chunks follow from the shapes")
    x, w, labels = wrap(input), wrap(linear_weight), wrap(target)
    b = None if linear_bias is None else wrap(linear_bias)
    if x.ndim not in (1, 2) or w.ndim < 2 or (w.ndim > 2 and x.ndim == 1):
        raise ShapeError(
            f"linear_cross_entropy: input has shape {tuple(x.shape)}, linear_weight {tuple(w.shape)}; expected (n, in_features) "
            "and (classes, ..., in_features)"
        )
    if b is not None and b.shape != w.shape[:-1]:
        raise ShapeError(
            f"linear_cross_entropy: linear_bias has shape {tuple(b.shape)}; expected {tuple(w.shape[:-1])} for linear_weight "
            f"{tuple(w.shape)}"
        )
    if ignore_index is not None and is_floating(labels.dtype):
        raise ArgumentError(f"linear_cross_entropy: ignore_index={ignore_index} beside probabilities; it needs integer labels")
    ignored = -100 if ignore_index is None else as_integer("linear_cross_entropy", "ignore_index", ignore_index)
    is_plain = weight is None and not label_smoothing and reduction in ("mean", "sum") and not is_cast(x)
    is_matrix = w.ndim == 2 and x.ndim == 2 and x.dtype == w.dtype and is_floating(x.dtype) and not is_half(x.dtype)
    if is_plain and is_matrix and is_integer(labels.dtype) and labels.shape == x.shape[:1]:
        rows = rows_of_chunk(len(x), check_linear(x.shape[1], w, b), x.shape[1])
        if rows < len(x):
            return _in_chunks(x, w, b, labels, reduction, ignored, rows)
    logits = linear(x, w.reshape(-1, w.shape[-1]), None if b is None else b.reshape(-1))
    if w.ndim > 2:
        logits = logits.reshape(len(x), *w.shape[:-1])
    return cross_entropy(
        logits, labels, weight, ignore_index=ignored, reduction=reduction, label_smoothing=label_smoothing
    )


def _in_chunks(
    x: Tensor, w: Tensor, b: Tensor | None, labels: Tensor, reduction: str, ignore_index: int, rows: int
) -> Tensor:
    labels = labels if labels.array.dtype == numpy.int64 else cast(labels, dtype=numpy.dtype("int64"))
    total = summed_losses(x, w, b, labels, ignore_index=ignore_index, rows=rows)
    if reduction == "mean":
        total = total / reductions.sum(cast(ne(labels, ignore_index), dtype=total.dtype))
    return total if total.dtype == x.dtype else cast(total, dtype=x.dtype)
