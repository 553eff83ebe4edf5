"""Metrics of rankings have scikit-learn's values; calibration errors those of the formula."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import metrics
from gpunet.errors import ArgumentError, DtypeError, LabelError
from tests.metrics.table import LABELS, assert_equal, binary, multilabel, on_device, present, to_host, weights

sklearn = pytest.importorskip("sklearn.metrics")

CLASSES = 4


def found(metric: metrics.Metric, *arguments: Any) -> Any:
    metric.update(*map(on_device, arguments))
    return to_host(metric.compute())


def drawn(draw: Any, seed: int, rows: int = 40) -> tuple[Any, Any, Any]:
    random = numpy.random.default_rng(seed)
    return (*draw(random, rows), weights(random, rows))


# ---- AUROC and average precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_binary(dtype: str, seed: int, device: str) -> None:
    """With ties: scores are multiples of 1/8."""
    scores, target, weight = drawn(binary, seed)
    for given in (None, weight):
        arguments = (scores.astype(dtype), target, *([] if given is None else [given]))
        assert_equal(found(metrics.AUROC("binary"), *arguments), sklearn.roc_auc_score(target, scores, sample_weight=given))
        expected = sklearn.average_precision_score(target, scores, sample_weight=given)
        assert_equal(found(metrics.AveragePrecision("binary"), *arguments), expected)


@pytest.mark.parametrize("average", ["macro", "weighted", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_classes(average: str, seed: int, device: str) -> None:
    scores, target, weight = drawn(present, seed)
    scores = scores.astype("float64") / scores.sum(1, keepdims=True, dtype="float64")
    options = {"average": None if average == "none" else average, "sample_weight": weight}
    value = found(metrics.AUROC("multiclass", num_classes=CLASSES, average=average), scores, target, weight)
    if average != "none":
        assert_equal(value, sklearn.roc_auc_score(target, scores, multi_class="ovr", **options))
    is_class = target[:, None] == numpy.arange(CLASSES)
    assert_equal(value, sklearn.roc_auc_score(is_class, scores, **options))
    value = found(metrics.AveragePrecision("multiclass", num_classes=CLASSES, average=average), scores, target, weight)
    assert_equal(value, sklearn.average_precision_score(is_class, scores, **options))


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
def test_labels(average: str) -> None:
    scores, target, weight = drawn(multilabel, 0)
    options = {"average": None if average == "none" else average, "sample_weight": weight}
    value = found(metrics.AUROC("multilabel", num_labels=LABELS, average=average), scores, target, weight)
    assert_equal(value, sklearn.roc_auc_score(target, scores, **options))
    value = found(metrics.AveragePrecision("multilabel", num_labels=LABELS, average=average), scores, target, weight)
    assert_equal(value, sklearn.average_precision_score(target, scores, **options))


def test_logits_of_classes_become_probabilities() -> None:
    logits, target = numpy.random.default_rng(0).normal(size=(40, CLASSES)), numpy.arange(40) % CLASSES
    scores = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    value = found(metrics.AUROC("multiclass", num_classes=CLASSES, from_logits=True), logits, target)
    assert_equal(value, sklearn.roc_auc_score(target, scores, multi_class="ovr"))
    assert abs(value - sklearn.roc_auc_score(target[:, None] == numpy.arange(CLASSES), logits)) > 1e-4  # of logits


def test_scores_of_any_range_are_ranked() -> None:
    scores, target, _ = drawn(binary, 0)
    expected = found(metrics.AUROC("binary"), scores, target)
    assert found(metrics.AUROC("binary"), 1000 * scores - 500, target) == expected
    assert found(metrics.AUROC("binary"), numpy.where(scores == 1, numpy.inf, scores), target) == expected


def test_one_class_only_is_nan() -> None:
    x, ones = numpy.array([0.1, 0.5, 0.9]), numpy.ones(3, numpy.int64)
    for target in (ones, 0 * ones):
        with pytest.warns(UserWarning, match="^AUROC: all rows are of one class; the value is nan$"):
            assert numpy.isnan(found(metrics.AUROC("binary"), x, target))
    assert found(metrics.AveragePrecision("binary"), x, ones) == 1
    with pytest.warns(UserWarning, match="^AveragePrecision: all rows are negative; the value is nan$"):
        assert numpy.isnan(found(metrics.AveragePrecision("binary"), x, 0 * ones))


def test_classes_that_are_absent_are_left_out_of_the_mean() -> None:
    scores, target, _ = drawn(present, 0)
    scores = numpy.concatenate([scores, numpy.zeros((40, 1), "float32")], 1)
    with pytest.warns(UserWarning, match=r"AUROC: all rows of classes \[4\] are of one class; the value is nan, left out of"):
        value = found(metrics.AUROC("multiclass", num_classes=5), scores, target)
    assert_equal(value, found(metrics.AUROC("multiclass", num_classes=4), scores[:, :4], target))
    with pytest.warns(UserWarning, match=r"all rows of classes \[4\] are of one class; the value is nan$"):
        values = found(metrics.AUROC("multiclass", num_classes=5, average="none"), scores, target)
    assert numpy.isnan(values).tolist() == [False] * 4 + [True]


def test_a_small_weight_at_the_top() -> None:
    """The precision of the highest score is 1/3, though its rows are 1e-12 of the sum."""
    scores, target, weight = numpy.array([3.0, 3.0, 2.0, 1.0]), numpy.array([1, 0, 0, 0]), numpy.array([1e-13, 2e-13, 1.0, 0.7])
    assert_equal(found(metrics.AveragePrecision("binary"), scores, target, weight), 1 / 3)


def test_ignored_targets_are_left_out(device: str) -> None:
    scores, target, _ = drawn(binary, 0)
    target[::3] = -1
    value = found(metrics.AUROC("binary", ignore_index=-1), scores, target)
    assert_equal(value, sklearn.roc_auc_score(target[target >= 0], scores[target >= 0]))


# ---- calibration ------------------------------------------------------------------------------------------------------


def gaps(confidence: Any, hits: Any, bins: int) -> tuple[Any, Any]:
    """|accuracy - confidence| and the number of rows of each bin (lower, upper]."""
    place = numpy.clip(numpy.ceil(confidence * bins).astype(int) - 1, 0, None)
    count = numpy.array([(place == k).sum() for k in range(bins)])
    return numpy.array([abs((confidence - hits)[place == k].mean()) if count[k] else 0.0 for k in range(bins)]), count


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_calibration_error(bins: int, device: str) -> None:
    random = numpy.random.default_rng(bins)
    x, target = random.integers(0, 33, 200) / 32, random.integers(0, 2, 200)  # some lie on the ends of bins
    gap, count = gaps(x, target, bins)
    for norm, expected in (("l1", (gap * count).sum() / 200), ("l2", ((gap**2 * count).sum() / 200) ** 0.5), ("max", gap.max())):
        assert_equal(found(metrics.CalibrationError("binary", n_bins=bins, norm=norm), x, target), expected)
    logits, labels = random.normal(size=(200, CLASSES)), random.integers(0, CLASSES, 200)
    scores = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    gap, count = gaps(scores.max(1), scores.argmax(1) == labels, bins)
    metric = metrics.CalibrationError("multiclass", num_classes=CLASSES, n_bins=bins, from_logits=True)
    assert_equal(found(metric, logits, labels), (gap * count).sum() / 200)


def test_calibration_curve_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    random = numpy.random.default_rng(0)
    x, target = random.random(500), random.integers(0, 2, 500)
    accuracy, confidence = calibration_curve(target, x, n_bins=10)
    assert_equal(found(metrics.CalibrationError("binary", n_bins=10, norm="max"), x, target), abs(accuracy - confidence).max())


# ---- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, preds, target, error, message",
    [
        (lambda: metrics.AUROC("binary"), [0.1, numpy.nan], [0, 1], ArgumentError, "AUROC: preds has nan at position 1; expected"),
        (lambda: metrics.AUROC("binary"), [0.1, 0.2], [0, 2], LabelError, "AUROC: target has the label 2 at position 1; expected"),
        (lambda: metrics.AUROC("binary"), [0, 1], [0, 1], DtypeError, "AUROC: preds are integers; expected scores"),
        (lambda: metrics.AUROC("multiclass", num_classes=2), [[2.0, -1.0]], [0], ArgumentError, "AUROC: preds has 2 at position 0"),
        (lambda: metrics.AUROC("binary", average="micro"), [], [], ArgumentError, "AUROC: average='micro' for task='binary'"),
        (lambda: metrics.CalibrationError("binary"), [1.5], [1], ArgumentError, "preds has 1.5 at position 0; expected probabilit"),
        (lambda: metrics.CalibrationError("binary"), [1], [1], DtypeError, "CalibrationError: preds are integers; expected probab"),
        (lambda: metrics.CalibrationError("multilabel", num_classes=2), [], [], ArgumentError, "'multilabel'"),
        (lambda: metrics.CalibrationError("binary", norm="l3"), [], [], ArgumentError, "CalibrationError: norm='l3'; expected 'l1"),
    ],
)
def test_errors(make: Any, preds: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().update(gpunet.tensor(preds), gpunet.tensor(target))
