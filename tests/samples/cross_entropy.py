"""Samples of softmax cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from gpunet.autograd import OPS
from tests.samples.formulas import REDUCE, softmax
from tests.samples.inputs import (
    ROWS,
    Input,
    labels,
    normal,
    probabilities,
)
from tests.samples.row import row

F = gpunet.nn.functional

_weight = numpy.array([0.5, 1.0, 2.0, 3.0])


def _cross_entropy(logits: Any, target: Any, reduction: str, weight: Any, smoothing: float, ignore: int = -100) -> Any:
    """Cross-entropy over the last axis, as defined in PyTorch's documentation; ``target`` holds labels or probabilities."""
    logs = numpy.log(softmax(logits, -1))
    if target.dtype.kind == "f":
        target = target * (1 - smoothing) + smoothing / logits.shape[-1]
        return REDUCE[reduction](-(target * weight * logs).sum(-1) * numpy.ones(logits.shape[:-1]))
    is_counted = target != ignore
    safe = numpy.where(is_counted, target, 0)
    each = -(1 - smoothing) * weight[safe] * numpy.take_along_axis(logs, safe[..., None], -1)[..., 0]
    each = (each - smoothing * (weight * logs).mean(-1)) * is_counted
    return each.sum() / (weight[safe] * is_counted).sum() if reduction == "mean" else REDUCE[reduction](each)


def _cross_entropy_rows(op: str, logits: Input, target: Input, name: str, weight: Any = None, **options: Any) -> None:
    def formula(x: Any, y: Any, reduction: str) -> Any:
        if x.ndim > 2:
            x, y = numpy.moveaxis(x, 1, -1), numpy.moveaxis(y, 1, -1) if y.dtype.kind == "f" else y
        factors = numpy.ones(x.shape[-1]) if weight is None else weight
        return _cross_entropy(x, y, reduction, factors, options.get("label_smoothing", 0.0), options.get("ignore_index", -100))

    for reduction in REDUCE:
        row(
            op,
            lambda x, y, r=reduction: F.cross_entropy(
                x, y, None if weight is None else gpunet.tensor(weight.tolist()).to(x), reduction=r, **options
            ),
            lambda x, y, r=reduction: formula(x, y, r), logits, target, name=f"{name} {reduction}",
            torch=lambda torch, x, y, r=reduction: torch.nn.functional.cross_entropy(
                x, y.long() if not y.is_floating_point() else y, None if weight is None else torch.tensor(weight).to(x),
                reduction=r, **options,
            ),
        )  # fmt: skip


_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS), "labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, dtype="int32"), "int32 labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, ignored=-100), "ignored labels")
_cross_entropy_rows("labels_loss", normal(ROWS, 4), labels(4, ROWS, ignored=2), "class ignored", ignore_index=2)
_cross_entropy_rows("labels_loss", normal(4), labels(4), "one row")
_cross_entropy_rows("labels_loss", normal(ROWS, 4, 2, 3), labels(4, ROWS, 2, 3), "images")
_cross_entropy_rows("soft_labels_loss", normal(ROWS, 4), probabilities(ROWS, 4), "probabilities")
_cross_entropy_rows("soft_labels_loss", normal(ROWS, 4, 3), probabilities(ROWS, 4, 3), "probabilities of images")
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS), "smoothing", label_smoothing=0.1)
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS, ignored=1), "weights", weight=_weight, ignore_index=1)
_cross_entropy_rows("_log_softmax", normal(ROWS, 4), labels(4, ROWS), "weights and smoothing", weight=_weight, label_smoothing=0.2)
_cross_entropy_rows(
    "_log_softmax", normal(ROWS, 4), probabilities(ROWS, 4), "probabilities and weights", weight=_weight, label_smoothing=0.2
)


row("summed_losses", lambda x, w, b, y: OPS["summed_losses"].call(x, w, b, y, ignore_index=1, rows=2),
    lambda x, w, b, y: _cross_entropy(x @ w.T + b, y, "sum", numpy.ones(4), 0.0, 1),
    normal(ROWS, 3), normal(4, 3), normal(4), labels(4, ROWS, ignored=1))  # fmt: skip
