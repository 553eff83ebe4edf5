"""Metrics of numbers have scikit-learn's values, also far from zero."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import metrics
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from tests.metrics.table import assert_equal, on_device, to_host, weights

sklearn = pytest.importorskip("sklearn.metrics")


def found(metric: metrics.Metric, *arguments: Any) -> Any:
    metric.update(*map(on_device, arguments))
    return to_host(metric.compute())


def drawn(shape: tuple[int, ...], seed: int = 0) -> tuple[Any, Any, Any]:
    random = numpy.random.default_rng(seed)
    target = random.normal(size=shape)
    return target + random.normal(size=shape), target, weights(random, shape[0])


@pytest.mark.parametrize("shape", [(1,), (40,), (30, 3)])
@pytest.mark.parametrize("has_weights", [False, True])
def test_mean_errors(shape: tuple[int, ...], has_weights: bool, device: str) -> None:
    preds, target, weight = drawn(shape, 1)
    given = weight + 0.5 if has_weights else None
    arguments = (preds, target, *([] if given is None else [given]))
    options = {"sample_weight": given}
    assert_equal(found(metrics.MeanAbsoluteError(), *arguments), sklearn.mean_absolute_error(target, preds, **options))
    square = sklearn.mean_squared_error(target, preds, **options)
    assert_equal(found(metrics.MeanSquaredError(), *arguments), square)
    assert_equal(found(metrics.MeanSquaredError(squared=False), *arguments), square**0.5)


@pytest.mark.parametrize("multioutput", ["uniform_average", "variance_weighted", "raw_values"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_r2(multioutput: str, offset: float, device: str) -> None:
    """With targets around 1e6 a difference of sums of squares would have no more than four digits."""
    preds, target, weight = (array + offset * (n < 2) for n, array in enumerate(drawn((40, 3))))
    metric = metrics.R2Score(3, multioutput)
    for part in numpy.array_split(numpy.arange(40), 7):
        metric.update(*map(on_device, (preds[part], target[part], weight[part])))
    expected = sklearn.r2_score(target, preds, sample_weight=weight, multioutput=multioutput)
    assert_equal(to_host(metric.compute()), expected, 1e-12 if not offset else 1e-9)


@pytest.mark.parametrize("multioutput", ["uniform_average", "variance_weighted", "raw_values"])
def test_r2_of_constant_targets(multioutput: str) -> None:
    """0.1 + 0.1 + 0.1 is no multiple of 0.1 in float64; scikit-learn's own mean of such numbers is not exact."""
    target = numpy.stack([numpy.full(4, 0.5), numpy.full(4, 0.5), numpy.arange(4.0)], 1)
    preds = target + [[0, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert_equal(found(metrics.R2Score(3, multioutput), preds, target), sklearn.r2_score(target, preds, multioutput=multioutput))
    for count in range(2, 20):
        constant = numpy.full(count, 0.1)
        assert found(metrics.R2Score(), constant, constant) == 1
        assert found(metrics.R2Score(), constant + 1e-3, constant) == 0
        both = metrics.R2Score()
        for part in (constant[:1], constant[1:]):
            both.update(gpunet.tensor(part) + 1e-3, gpunet.tensor(part))
        assert both.compute().item() == 0


def test_r2_of_one_row_is_nan() -> None:
    with pytest.warns(UserWarning, match="R2Score: less than two rows since the last reset; the value is nan"):
        assert numpy.isnan(found(metrics.R2Score(), numpy.ones(1), numpy.ones(1)))


@pytest.mark.parametrize(
    "metric, preds, target, error, message",
    [
        (metrics.MeanAbsoluteError, [1.0], [[1.0]], ShapeError, r"preds has shape \(1,\), target \(1, 1\); expected equal shapes"),
        (metrics.MeanAbsoluteError, [1.0, numpy.nan], [1.0, 1.0], ArgumentError, "MeanAbsoluteError: preds has nan at position 1;"),
        (metrics.MeanSquaredError, [1.0, 1.0], [1.0, numpy.nan], ArgumentError, "MeanSquaredError: target has nan at position 1"),
        (metrics.MeanSquaredError, [1j], [2j], DtypeError, "MeanSquaredError.update: got a tensor of complex64; expected real"),
        (metrics.MeanSquaredError, [True], [True], DtypeError, "MeanSquaredError: preds has dtype bool; expected numbers"),
        (metrics.R2Score, [[1.0, 2.0]], [[1.0, 2.0]], ShapeError, r"R2Score: target has shape \(1, 2\) with num_outputs=1; expect"),
        (lambda: metrics.R2Score(multioutput="mean"), [], [], ArgumentError, "R2Score: multioutput='mean'; expected one of 'unifo"),
        (lambda: metrics.MeanSquaredError(2), [], [], DtypeError, "MeanSquaredError: squared=2 has type int; expected True or Fal"),
    ],
)  # fmt: skip
def test_errors(metric: Any, preds: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metric().update(gpunet.tensor(preds), gpunet.tensor(target))


def test_complex_weights_are_refused() -> None:
    with pytest.raises(DtypeError, match="MeanSquaredError.update: got a tensor of complex64; expected real"):
        metrics.MeanSquaredError().update(gpunet.tensor([1.0]), gpunet.tensor([2.0]), gpunet.tensor([1j]))
