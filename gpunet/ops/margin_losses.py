"""Losses with a margin between classes or pairs, and the losses of multi-label classification."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.dtypes import is_boolean, is_floating, is_integer, uint8
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from gpunet.ops import reduce as reductions
from gpunet.ops.activations import relu
from gpunet.ops.broadcast import broadcasts_to, cast, in_accumulator, result_dtype
from gpunet.ops.creation import arange
from gpunet.ops.distance import common_floating
from gpunet.ops.elementwise import clamp_min, where
from gpunet.ops.face import as_number
from gpunet.ops.index import gather_at
from gpunet.ops.index_launches import INT64, label_site
from gpunet.ops.losses import apply_loss, loss_operands, reduce_composed, reduction_of
from gpunet.ops.nll import check_labels, class_weights, picked, picked_weights, rows_and_labels

__all__ = [
    "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "soft_margin_loss",
]  # fmt: skip

_MULTI_MARGIN, _MULTILABEL = label_site("multi_margin_loss"), label_site("multilabel_margin_loss")


@casts("float32")
def soft_margin_loss(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target input)) of scores and targets -1 and 1, of the same shape, reduced as by :func:`mse_loss`.

    The result has the dtype of the scores.
    """
    reduction = reduction_of("soft_margin_loss", size_average, reduce, reduction)
    _check_signed("soft_margin_loss", target)
    x = wrap(input)
    x, y = loss_operands("soft_margin_loss", x, target, dtype=x.dtype)
    _check_broadcast("soft_margin_loss", "target", y, x)
    return apply_loss("soft_margin_loss", "soft_margin", x, y, reduction)


def _check_signed(name: str, target: Any) -> None:
    if (dtype := wrap(target).dtype) == uint8 or is_boolean(dtype):
        raise DtypeError(f"{name}: target of dtype {dtype}, which cannot hold -1; expected a signed or floating dtype")


def _check_broadcast(name: str, argument: str, value: Tensor, x: Tensor) -> None:
    if not broadcasts_to(value.shape, x.shape):
        raise ShapeError(
            f"{name}: {argument} has shape {tuple(value.shape)}; expected one that broadcasts to the input's, {tuple(x.shape)}"
        )


@casts("float32")
def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The distance ``input`` where the target is 1, max(margin - input, 0) where it is -1, reduced as by :func:`mse_loss`."""
    name = "hinge_embedding_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    x = wrap(input)
    x, y = loss_operands(name, x, target, dtype=x.dtype)
    return apply_loss(name, "hinge_embedding", x, y, reduction, as_number(name, "margin", margin))


@casts("float32")
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(margin - target (input1 - input2), 0), reduced: input1 shall be larger where the target is 1, smaller where it is -1.

    Args:
        input1, input2, target: tensors with the same number of dimensions, whose shapes broadcast.
        margin: by which one shall exceed the other.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".
    """
    name = "margin_ranking_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    _check_signed(name, target)
    a, b, target = common_floating(name, input1, input2, target)
    if not a.ndim == b.ndim == target.ndim:
        raise ShapeError(
            f"{name}: input1, input2 and target have shapes {tuple(a.shape)}, {tuple(b.shape)} and {tuple(target.shape)}; expected "
            "the same number of dimensions"
        )
    return _ranking(a, b, target, as_number(name, "margin", margin), reduction)


@in_accumulator
def _ranking(a, b, target, margin, reduction):
    return reduce_composed(clamp_min(margin - target * (a - b), 0.0), reduction)


@casts("float32")
def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The hinge loss of classes: sum over j != y of weight[y] max(margin - x[y] + x[j], 0)^p / c, reduced.

    Args:
        input: scores (n, c) or (c,).
        target: integer labels (n,), or () for (c,).
        p: 1 or 2.
        margin: by which the score of the label shall exceed the other scores.
        weight: (c,), a factor per class.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean" over the rows, "sum" or "none".

    Raises:
        ArgumentError: p is neither 1 nor 2.
        ShapeError, DtypeError, LabelError: as :func:`nll_loss`.
    """
    name = "multi_margin_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    if p not in (1, 2):
        raise ArgumentError(f"{name}: p={p!r}; expected 1 or 2")
    x, is_vector = wrap(input), wrap(target).ndim == 1
    if x.ndim > 2:
        raise ShapeError(f"{name}: input of shape {tuple(x.shape)}; expected (n, classes) or (classes,)")
    rows, labels = rows_and_labels(name, x, wrap(target))
    if weight is not None:
        weight = class_weights(name, weight, rows.shape[1])
    loss = _multi_margin(rows, labels.reshape(-1), weight, p, as_number(name, "margin", margin), reduction)
    return loss.reshape(() if labels.ndim == 0 and not is_vector else (-1,)) if reduction == "none" else loss


@in_accumulator
def _multi_margin(rows, labels, weight, p, margin, reduction):
    classes = rows.shape[1]
    check_labels(_MULTI_MARGIN, labels.array, classes)
    hinge = relu(margin - picked(_MULTI_MARGIN, rows, labels).reshape(-1, 1) + rows)  # its gradient at 0 is 0
    each = where(arange(classes, device=rows.device) == labels.reshape(-1, 1), 0.0, hinge if p == 1 else hinge * hinge)
    each = reductions.sum(each, 1) / classes
    return reduce_composed(each if weight is None else each * picked_weights(_MULTI_MARGIN, weight, rows, labels), reduction)


@casts("float32")
def multilabel_margin_loss(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """The hinge loss of several labels: sum over labels j and other classes i of max(1 - x[j] + x[i], 0) / c, reduced.

    Args:
        input: scores (n, c) or (c,).
        target: int64, of the same shape: the labels of a row, then -1; what follows the first -1 is ignored.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean" over the rows, "sum" or "none".

    Raises:
        ShapeError: the shapes differ, or are neither (n, c) nor (c,).
        DtypeError: the input is not floating, or the target not integer.
        LabelError: a label is outside -1 .. c - 1.  On a GPU the loss is NaN, and the error is raised when the host next reads a
            value or synchronizes.
    """
    name = "multilabel_margin_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    x, target = wrap(input), wrap(target)
    if not is_floating(x.dtype):
        raise DtypeError(f"{name}: input of dtype {x.dtype}; expected a floating tensor")
    if not is_integer(target.dtype):
        raise DtypeError(f"{name}: target of dtype {target.dtype}; expected integer labels, ended by -1")
    if x.ndim not in (1, 2) or x.shape != target.shape:
        raise ShapeError(
            f"{name}: input has shape {tuple(x.shape)}, target {tuple(target.shape)}; expected equal shapes, (n, classes) or "
            "(classes,)"
        )
    target = target if target.dtype == INT64 else cast(target, dtype=INT64)
    classes = x.shape[-1]
    loss = _multilabel_margin(x.reshape(-1, classes), target.reshape(-1, classes), reduction)
    return loss.reshape(x.shape[:-1]) if reduction == "none" else loss


@in_accumulator
def _multilabel_margin(rows, target, reduction):
    classes, labels = rows.shape[1], target.array
    if type(labels) is numpy.ndarray and ((labels < -1) | (labels >= classes)).any():
        bad = labels[(labels < -1) | (labels >= classes)]
        raise LabelError(f"{_MULTILABEL.name}: label {bad[0]}; expected 0 .. {classes - 1} for {classes} classes, or -1")
    is_label = reductions.cumsum(cast(target < 0, dtype=INT64), 1) == 0  # (n, labels)
    safe = where(is_label, target, 0)
    numbers = arange(classes, device=rows.device)
    is_target = ((safe.unsqueeze(2) == numbers) & is_label.unsqueeze(2)).any(1)  # (n, classes)
    scores = gather_at(rows, 1, safe, _MULTILABEL._replace(detail=0))
    hinge = relu(1.0 - scores.unsqueeze(2) + rows.unsqueeze(1))  # (n, labels, classes)
    counts = is_label.unsqueeze(2) & ~is_target.unsqueeze(1)
    return reduce_composed(reductions.sum(where(counts, hinge, 0.0), (1, 2)) / classes, reduction)


@casts("cuda: float32")
def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The binary cross-entropy of the logits of each class, as its mean over the classes, the last dimension, reduced.

    Args:
        input: logits (..., c).
        target: probabilities or 0/1, whose shape broadcasts.
        weight: factor of each element, which broadcasts.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean" over the rows, "sum" or "none".
    """
    name = "multilabel_soft_margin_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    x, y = wrap(input), wrap(target)
    x, y = loss_operands(name, x, y, dtype=result_dtype(x, y))
    if not x.ndim:
        raise ShapeError(f"{name}: input has no dimensions; expected (..., classes)")
    _check_broadcast(name, "target", y, x)
    if weight is not None:
        _check_broadcast(name, "weight", weight := wrap(weight), x)
    return _mean_over_classes(x, y, weight, name, reduction)


@in_accumulator
def _mean_over_classes(x, y, weight, name, reduction):
    each = apply_loss(name, "binary_cross_entropy", x, y, "none")
    each = each if weight is None else each * weight
    return reduce_composed(reductions.sum(each, -1) / x.shape[-1], reduction)
