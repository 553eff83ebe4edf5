"""Samples of the negative log-likelihood of labels."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.formulas import REDUCE
from tests.samples.inputs import ROWS, Input, labels, normal
from tests.samples.row import row

F = gpunet.nn.functional

_weight = numpy.array([0.5, 1.0, 2.0, 3.0])


def _nll(x: Any, y: Any, reduction: str, weight: Any, ignore: int) -> Any:
    x = numpy.moveaxis(x, 1, -1) if x.ndim > 1 else x
    is_counted = y != ignore
    safe = numpy.where(is_counted, y, 0)
    factor = weight[safe] * is_counted
    each = -factor * numpy.take_along_axis(x, safe[..., None], -1)[..., 0]
    return each.sum() / factor.sum() if reduction == "mean" else REDUCE[reduction](each)


def _rows(x: Input, target: Input, name: str, weight: Any = None, ignore_index: int = -100) -> None:
    for reduction in REDUCE:
        options: dict[str, Any] = {"ignore_index": ignore_index, "reduction": reduction}
        row(
            "_index",
            lambda x, y, o=options: F.nll_loss(x, y, None if weight is None else gpunet.tensor(weight.tolist()).to(x), **o),
            lambda x, y, r=reduction: _nll(x, y, r, numpy.ones(4) if weight is None else weight, ignore_index),
            x, target, name=f"nll_loss, {name} {reduction}",
            torch=lambda torch, x, y, o=options: torch.nn.functional.nll_loss(
                x, y, None if weight is None else torch.tensor(weight).to(x), **o
            ),
        )  # fmt: skip


_rows(normal(ROWS, 4), labels(4, ROWS), "labels")
_rows(normal(ROWS, 4), labels(4, ROWS, ignored=1), "weights", _weight, 1)
_rows(normal(ROWS, 4, 2, 3), labels(4, ROWS, 2, 3, ignored=-100), "images")
_rows(normal(4), labels(4), "one row")
