"""Samples of the elementwise losses."""

from __future__ import annotations

from typing import Any

import numpy

import gpunet
from tests.samples.formulas import REDUCE, sigmoid
from tests.samples.inputs import (
    ROWS,
    Input,
    away,
    near_zero,
    normal,
    probabilities,
)
from tests.samples.row import row

F = gpunet.nn.functional

_KINKED = away(ROWS, 4, kinks=(0.0, 1.0, -1.0, 0.5, -0.5))


def _huber(d: Any, delta: float) -> Any:
    return numpy.where(abs(d) <= delta, d * d / 2, delta * (abs(d) - delta / 2))


def _loss(op: str, name: str, formula: Any, *inputs: Input, **options: Any) -> None:
    """Add a row per reduction for a function of ``nn.functional``; ``formula`` is the elementwise loss."""
    for reduction, reduce in REDUCE.items():
        row(
            op, lambda x, y, r=reduction: getattr(F, name)(x, y, reduction=r, **options),
            lambda x, y, f=reduce: f(formula(x, y)), *inputs, name=f"{name} {reduction} {options or ''}".strip(),
            torch=lambda torch, x, y, r=reduction: getattr(torch.nn.functional, name)(x, y, reduction=r, **options),
        )  # fmt: skip


_bce = lambda x, y: numpy.log1p(numpy.exp(-abs(x))) + numpy.maximum(x, 0) - x * y  # noqa: E731
_loss("regression_loss", "mse_loss", lambda x, y: (x - y) ** 2, normal(ROWS, 4), near_zero(ROWS, 4))
_loss("regression_loss", "l1_loss", lambda x, y: abs(x - y), _KINKED, near_zero(ROWS, 4))
_loss("regression_loss", "huber_loss", lambda x, y: _huber(x - y, 1.0), _KINKED, near_zero(ROWS, 4))
_loss("regression_loss", "huber_loss", lambda x, y: _huber(x - y, 0.5), _KINKED, near_zero(ROWS, 4), delta=0.5)
_loss("regression_loss", "smooth_l1_loss", lambda x, y: _huber(x - y, 0.5) / 0.5, _KINKED, near_zero(ROWS, 4), beta=0.5)
_loss("regression_loss", "binary_cross_entropy_with_logits", _bce, away(ROWS, 4), probabilities(ROWS, 4))
row("regression_loss", lambda x, y: F.mse_loss(x, y), lambda x, y: ((x - y) ** 2).mean(), normal(ROWS, 4), normal(ROWS, 4),
    torch=lambda torch, x, y: torch.nn.functional.mse_loss(x, y), name="mse_loss with a gradient for its target")  # fmt: skip
_weight, _pos_weight = numpy.array([0.5, 1.0, 2.0, 3.0]), numpy.array([3.0, 1.0, 0.5, 2.0])
row(
    "activation",
    lambda x, y: F.binary_cross_entropy_with_logits(
        x, y, gpunet.tensor(_weight.tolist()).to(x), pos_weight=gpunet.tensor(_pos_weight.tolist()).to(x)
    ),
    lambda x, y: -(_weight * (_pos_weight * y * numpy.log(sigmoid(x)) + (1 - y) * numpy.log(sigmoid(-x)))).mean(),
    away(ROWS, 4), probabilities(ROWS, 4), name="binary cross-entropy with weights",
    torch=lambda torch, x, y: torch.nn.functional.binary_cross_entropy_with_logits(
        x, y, torch.tensor(_weight).to(x), pos_weight=torch.tensor(_pos_weight).to(x)
    ),
)  # fmt: skip
