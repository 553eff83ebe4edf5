"""Samples of distances and similarities, and of the losses of them."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.formulas import REDUCE
from tests.samples.inputs import ROWS, distinct, normal, positive, signs, uniform
from tests.samples.row import row

F = gpunet.nn.functional


def _norm(x: Any, p: float = 2.0, axis: int = -1) -> Any:
    return (abs(x) ** p).sum(axis) ** (1 / p)


def _same_call(op: str, name: str, formula: Any, *inputs: Any, **options: Any) -> None:
    row(op, lambda *v: getattr(F, name)(*v, **options), formula, *inputs, name=f"{name} {options or ''}".strip(),
        torch=lambda torch, *v: getattr(torch.nn.functional, name)(*v, **options))  # fmt: skip


def _cosine(a: Any, b: Any, axis: int = 1) -> Any:
    return (a * b).sum(axis) / (_norm(a, 2, axis) * _norm(b, 2, axis))


_same_call("_sum", "cosine_similarity", _cosine, normal(ROWS, 4, 3), normal(ROWS, 4, 3))
_same_call("_sum", "cosine_similarity", lambda a, b: _cosine(a, b, -1), normal(ROWS, 4), normal(4), dim=-1)
_same_call("_sum", "pairwise_distance", lambda a, b: _norm(a - b + 1e-6), normal(ROWS, 4), normal(ROWS, 4))
_same_call("_sum", "pairwise_distance", lambda a, b: _norm(a - b + 1e-3, 3.0)[..., None], normal(ROWS, 4), normal(4),
           p=3.0, eps=1e-3, keepdim=True)  # fmt: skip
_same_call("_div", "normalize", lambda x: x / _norm(x, 2, 1)[:, None], normal(ROWS, 4))
_same_call("_div", "normalize", lambda x: x / _norm(x, 1, 2)[..., None], normal(ROWS, 4, 3), p=1.0, dim=-1)
for _reduction, _reduce in REDUCE.items():
    _same_call(
        "_where", "cosine_embedding_loss",
        lambda a, b, y, r=_reduce: r(numpy.where(y > 0, 1 - _cosine(a, b), numpy.maximum(_cosine(a, b) + 2, 0))),
        normal(ROWS, 4), normal(ROWS, 4), signs(ROWS), margin=-2.0, reduction=_reduction,
    )  # fmt: skip
    _same_call(
        "_clamp", "triplet_margin_loss",
        lambda a, b, c, r=_reduce: r(
            numpy.maximum(9 + _norm(a - b + 1e-6) - numpy.minimum(_norm(a - c + 1e-6), _norm(b - c + 1e-6)), 0)
        ),
        normal(ROWS, 4), normal(ROWS, 4), normal(ROWS, 4), margin=9.0, swap=True, reduction=_reduction,
    )  # fmt: skip
    _same_call(
        "_clamp", "triplet_margin_with_distance_loss",
        lambda a, b, c, r=_reduce: r(numpy.maximum(9 + _norm(a - b + 1e-6) - _norm(a - c + 1e-6), 0)),
        normal(ROWS, 4), normal(ROWS, 4), normal(ROWS, 4), margin=9.0, reduction=_reduction,
    )  # fmt: skip
    _same_call(
        "_log", "gaussian_nll_loss",
        lambda x, y, v, r=_reduce: r(0.5 * (numpy.log(v) + (x - y) ** 2 / v + numpy.log(2 * numpy.pi))),
        normal(ROWS, 4), normal(ROWS, 4), positive(ROWS, 4), full=True, reduction=_reduction,
    )  # fmt: skip
_same_call("_log", "gaussian_nll_loss", lambda x, y, v: (0.5 * (numpy.log(v) + (x - y) ** 2 / v)).mean(), normal(ROWS, 4),
           normal(ROWS, 4), uniform(0.5, 2.0, ROWS, 1))  # fmt: skip
_same_call(
    "regression_loss", "poisson_nll_loss",
    lambda x, y: (numpy.exp(x) - y * x + y * numpy.log(y) - y + numpy.log(2 * numpy.pi * y) / 2).mean(), normal(ROWS, 4),
    uniform(1.5, 5.0, ROWS, 4, gradient=False), full=True,
)  # fmt: skip


def _pairs(x: numpy.ndarray, p: float) -> numpy.ndarray:
    first, second = numpy.triu_indices(len(x), 1)
    return _norm(x[first] - x[second], p)


for _p in (1.0, 2.0, 3.5):
    row("_sub", lambda x, p=_p: F.pdist(x, p), lambda x, p=_p: _pairs(x, p), distinct(ROWS, 4), name=f"pdist {_p}",
        torch=lambda torch, x, p=_p: torch.pdist(x, p))  # fmt: skip
    row(
        "_sub", lambda x, y, p=_p: gpunet.cdist(x, y, p), lambda x, y, p=_p: _norm(x[:, :, None] - y[:, None], p),
        distinct(2, ROWS, 4), distinct(2, 5, 4, offset=0.125), name=f"cdist {_p}", torch=lambda torch, *x, p=_p: torch.cdist(*x, p),
    )  # fmt: skip
