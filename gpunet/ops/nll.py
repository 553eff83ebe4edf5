"""The negative log-likelihood of class labels."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.errors import DtypeError, ShapeError
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import broadcast_to, cast, in_accumulator
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer
from gpunet.ops.index import gather_at
from gpunet.ops.index_launches import INT64, Site, label_error, label_site
from gpunet.ops.losses import reduce_composed, reduction_of

__all__ = ["nll_loss"]

_SITE = label_site("nll_loss")


@casts("float32")
def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: bool | None = None, ignore_index: int = -100,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-input[label] of log-probabilities, reduced; with :func:`log_softmax` before it, it is :func:`cross_entropy`, in one launch.

    Args:
        input: log-probabilities (n, c), (c,) or (n, c, d1, ...).
        target: integer labels (n,), () or (n, d1, ...).
        weight: (c,), a factor per class; "mean" then divides by the sum of the factors of the counted labels.
        size_average, reduce: deprecated; bools that select the reduction.
        ignore_index: this label is not counted.
        reduction: "mean" over the counted labels, NaN without one; "sum" or "none".

    Raises:
        ShapeError: the shapes of input, target or weight do not match.
        DtypeError: the input is not floating, or the target not integer.
        LabelError: a label is outside 0 .. c - 1.  On a GPU the loss is NaN, and the error is raised when the host next reads a
            value or synchronizes.
    """
    reduction = reduction_of("nll_loss", size_average, reduce, reduction)
    ignore_index = as_integer("nll_loss", "ignore_index", ignore_index)
    rows, target = rows_and_labels("nll_loss", wrap(input), wrap(target))
    if weight is not None:
        weight = class_weights("nll_loss", weight, rows.shape[1])
    loss = _nll(rows, target.reshape(-1), weight, ignore_index=ignore_index, reduction=reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


def rows_and_labels(name: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return x as rows (n, c), and the labels as int64 in the shape of the unreduced loss.

    Raises:
        ShapeError, DtypeError: x or the labels have a shape or dtype that ``name`` does not take.
    """
    if not is_floating(x.dtype):
        raise DtypeError(f"{name}: input of dtype {x.dtype}; expected a floating tensor")
    if not is_integer(target.dtype):
        raise DtypeError(f"{name}: target of dtype {target.dtype}; expected integer labels")
    shape = tuple(x.shape)
    if not shape or not shape[1 if len(shape) > 1 else 0]:
        raise ShapeError(f"{name}: input of shape {shape} has no classes; expected (n, classes)")
    expected = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if not expected and target.shape == (1,):
        target = target.reshape(())
    if target.shape != expected:
        raise ShapeError(f"{name}: input has shape {shape}, target {tuple(target.shape)}; expected labels of shape {expected}")
    rows = x.permute(0, *range(2, x.ndim), 1).reshape(-1, shape[1]) if x.ndim > 2 else x.reshape(-1, shape[-1])
    return rows, target if target.dtype == INT64 else cast(target, dtype=INT64)


def class_weights(name: str, weight: Any, classes: int) -> Tensor:
    """Return the weight of each class.

    Raises:
        ShapeError: there is not one number per class.
    """
    weight = wrap(weight)
    if weight.shape != (classes,):
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}; expected ({classes},), one number per class")
    return weight


def check_labels(site: Site, labels: Array, classes: int, ignore_index: int | None = None) -> None:
    """Raise a LabelError if one of the labels (n,) is out of range; on a GPU, :func:`picked` reports it."""
    if type(labels) is numpy.ndarray:
        bad = (labels < 0) | (labels >= classes)
        if bad.any():
            bad &= labels != ignore_index
            if bad.any():
                row = int(bad.argmax())
                raise label_error(site.name, int(labels[row]), row, classes, ignore_index or 0)


def picked(site: Site, x: Tensor, labels: Tensor, ignore_index: int = 0) -> Tensor:
    """The element x[row, labels[row]] of each row; a label out of range is reported on a GPU."""
    return gather_at(x, 1, labels.reshape(-1, 1), site._replace(detail=ignore_index)).reshape(-1)


def picked_weights(site: Site, weight: Tensor, rows: Tensor, labels: Tensor, ignore_index: int = 0) -> Tensor:
    """The weight (c,) of each label, in the dtype of the rows (n, c)."""
    weight = weight if weight.dtype == rows.dtype else cast(weight, dtype=rows.dtype)
    return picked(site, broadcast_to(weight, shape=rows.array.shape), labels, ignore_index)


@in_accumulator
def _nll(rows, labels, weight, *, ignore_index, reduction):
    check_labels(_SITE, labels.array, rows.shape[1], ignore_index)
    ignored = labels == ignore_index
    safe = where(ignored, 0, labels)
    each = where(ignored, 0.0, -picked(_SITE, rows, safe, ignore_index))
    factor: Any = 1.0
    if weight is not None:
        factor = picked_weights(_SITE, weight, rows, safe)
        each = each * factor
    if reduction != "mean":
        return reduce_composed(each, reduction)
    return reductions.sum(each) / reductions.sum(cast(~ignored, dtype=rows.dtype) * factor)
