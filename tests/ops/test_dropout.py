"""Kinds of dropout and their layers: which elements are dropped together, moments, gradients, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError

F = nn.functional
#: (function, module, shape, how many of the first dimensions have a draw for each index)
CHANNELS = (
    ("dropout1d", "Dropout1d", (40, 50, 3), 2), ("dropout1d", "Dropout1d", (2000, 3), 1),
    ("dropout2d", "Dropout2d", (40, 50, 2, 3), 2), ("dropout2d", "Dropout2d", (40, 50, 3), 2),
    ("dropout3d", "Dropout3d", (40, 50, 2, 1, 3), 2), ("dropout3d", "Dropout3d", (2000, 2, 1, 3), 1),
    ("feature_alpha_dropout", "FeatureAlphaDropout", (40, 50, 2, 3), 2), ("alpha_dropout", "AlphaDropout", (40, 50), 2),
)  # fmt: skip
SATURATION = 1.7580993408473766  # -SELU(-infinity)


@pytest.mark.parametrize(("function", "module", "shape", "lead"), CHANNELS)
def test_draws(function: str, module: str, shape: tuple[int, ...], lead: int, device: str) -> None:
    """Each channel is dropped or scaled as a whole, a fifth of them; with the gradient of the elements that are kept."""
    gpunet.manual_seed(1)
    x = gpunet.arange(1.0, 1.0 + math.prod(shape), device=device, dtype=gpunet.float64).reshape(shape).requires_grad_()
    p = 0.2
    for y in (getattr(F, function)(x, p, True), getattr(nn, module)(p)(x)):
        (slopes,) = gpunet.grad(y.sum(), [x])
        slope = slopes.cpu().numpy().reshape(*shape[:lead], -1)
        is_kept = slope[..., 0] != 0
        assert abs(1 - is_kept.mean() - p) < 4 * math.sqrt(p * (1 - p) / is_kept.size)  # four standard deviations
        assert (slope == slope[..., :1]).all()
        a = 1 / math.sqrt((1 - p) * (1 + p * SATURATION**2)) if "alpha" in function else 1 / (1 - p)
        b = a * p * SATURATION if "alpha" in function else 0.0
        numpy.testing.assert_allclose(slope[is_kept], a, rtol=1e-12)
        given = numpy.arange(1.0, 1.0 + math.prod(shape)).reshape(slope.shape)
        expected = numpy.where(is_kept[..., None], a * given + b, b - a * SATURATION * ("alpha" in function))
        numpy.testing.assert_allclose(y.detach().cpu().numpy().reshape(slope.shape), expected, rtol=1e-12, atol=1e-12)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    gpunet.manual_seed(0)
    y = F.alpha_dropout(gpunet.randn(400, 400), 0.3, True)
    assert abs(y.mean().item()) < 0.01 and abs(y.std().item() - 1.0) < 0.01


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"])
def test_modes(name: str, device: str) -> None:
    """The identity in evaluation and for p=0, zeros for p=1; the result in place of the input; the dtype of the input."""
    function, shape = getattr(F, name), (2, 3, 4, 5, 6)[: 4 if name in ("dropout1d", "dropout2d") else 5]
    shape = shape[:3] if name == "dropout1d" else shape
    x = gpunet.ones(*shape, device=device)
    assert function(x, 0.5, False) is x and function(x, 0.0, True) is x
    assert (function(x, 1.0, True) == 0).all()
    half = function(x.half(), 0.5, True)
    assert half.dtype == gpunet.float16
    copy = x.clone()
    assert function(copy, 0.5, True, True) is copy and not (copy == 1).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout1d(gpunet.ones(2, 3, 4, 5)), ShapeError,
         r"dropout1d: the input has shape \(2, 3, 4, 5\); expected \(batch, channels, length\)"),
        (lambda: F.dropout2d(gpunet.ones(2, 3)), ShapeError, r"dropout2d: the input has shape \(2, 3\); expected \(batch, chan"),
        (lambda: F.dropout3d(gpunet.ones(2, 3)), ShapeError, r"dropout3d: the input has shape \(2, 3\)"),
        (lambda: F.feature_alpha_dropout(gpunet.ones(3), training=True), ShapeError, "feature_alpha_dropout: the input has shape"),
        (lambda: F.dropout2d(gpunet.ones(2, 3, 4, dtype=int)), DtypeError, "dropout2d: the tensor has dtype int64"),
        (lambda: F.alpha_dropout(gpunet.ones(2), 1.5), ArgumentError, "alpha_dropout: p=1.5; expected a probability from 0 to 1"),
        (lambda: nn.Dropout2d(float("nan")), ArgumentError, "Dropout2d: p=nan; expected a probability from 0 to 1"),
        (lambda: nn.Dropout("a"), DtypeError, "Dropout: p='a' has type str; expected a number"),
    ],
)  # fmt: skip
def test_refusals(call: Callable[[], Any], error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
