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
    labels,
    near_zero,
    normal,
    positive,
    probabilities,
    signs,
    uniform,
)
from tests.samples.row import row

F = gpunet.nn.functional

_KINKED = away(ROWS, 4, kinks=(0.0, 1.0, -1.0, 0.5, -0.5))


def _huber(d: Any, delta: float) -> Any:
    return numpy.where(abs(d) <= delta, d * d / 2, delta * (abs(d) - delta / 2))


def _loss(op: str, name: str, formula: Any, *inputs: Input, reductions: dict[str, Any] = REDUCE, **options: Any) -> None:
    """Add a row per reduction for a function of ``nn.functional``; ``formula`` is the elementwise loss."""
    for reduction, reduce in reductions.items():
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
_cross_entropy = lambda x, y: -(y * numpy.log(x) + (1 - y) * numpy.log(1 - x))  # noqa: E731
_loss("regression_loss", "binary_cross_entropy", _cross_entropy, uniform(0.1, 0.9, ROWS, 4), probabilities(ROWS, 4))
_of_kl_div = {"none": REDUCE["none"], "sum": REDUCE["sum"], "batchmean": lambda v: v.sum() / len(v)}  # "mean" warns
_loss("regression_loss", "kl_div", lambda x, y: y * (numpy.log(y) - x), normal(ROWS, 4), probabilities(ROWS, 4),
      reductions=_of_kl_div)  # fmt: skip
_loss("regression_loss", "kl_div", lambda x, y: numpy.exp(y) * (y - x), normal(ROWS, 4), near_zero(ROWS, 4), reductions=_of_kl_div,
      log_target=True)  # fmt: skip
_loss("regression_loss", "poisson_nll_loss", lambda x, y: numpy.exp(x) - y * x, normal(ROWS, 4), probabilities(ROWS, 4))
_loss("regression_loss", "poisson_nll_loss", lambda x, y: x - y * numpy.log(x + 0.1), positive(ROWS, 4), probabilities(ROWS, 4),
      log_input=False, eps=0.1)  # fmt: skip
_loss("regression_loss", "soft_margin_loss", lambda x, y: numpy.log1p(numpy.exp(-y * x)), normal(ROWS, 4), signs(ROWS, 4))
_loss("regression_loss", "hinge_embedding_loss", lambda x, y: numpy.where(y > 0, x, numpy.maximum(0.5 - x, 0)), _KINKED,
      signs(ROWS, 4), margin=0.5)  # fmt: skip
row("_probability_cross_entropy", lambda x, y: F.binary_cross_entropy(x, y, reduction="none"), _cross_entropy,
    uniform(0.1, 0.9, ROWS, 4), uniform(0.1, 0.9, ROWS, 4), name="with a gradient for its target",
    torch=lambda torch, x, y: torch.nn.functional.binary_cross_entropy(x, y, reduction="none"))  # fmt: skip
row("_x_log_x", lambda x, y: F.kl_div(x, y, reduction="sum"), lambda x, y: (y * (numpy.log(y) - x)).sum(), normal(ROWS, 4),
    positive(ROWS, 4), name="kl_div with a gradient for its target",
    torch=lambda torch, x, y: torch.nn.functional.kl_div(x, y, reduction="sum"))  # fmt: skip
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


def _ctc(x: Any, y: Any) -> Any:
    """The loss of sequences of one label, over three frames: blanks (class 0), then the label, then blanks."""
    paths = [
        sum(numpy.take_along_axis(x[:, t], y, 1)[:, 0] if first <= t <= last else x[:, t, 0] for t in range(3))
        for first in range(3) for last in range(first, 3)
    ]  # fmt: skip
    return -numpy.logaddexp.reduce(paths)


row(
    "ctc_losses", lambda x, y: F.ctc_loss(x.transpose(0, 1), y + 1, (3,) * len(x), (1,) * len(x), reduction="none"),
    lambda x, y: _ctc(x, y + 1), normal(ROWS, 3, 4), labels(3, ROWS, 1),
)  # fmt: skip
