"""Metrics of classes have scikit-learn's values, and refuse wrong input in the user's words."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import metrics
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError
from tests.metrics.table import (
    CLASSES,
    LABELS,
    assert_equal,
    binary,
    multiclass,
    multilabel,
    on_device,
    to_host,
    weights,
)

sklearn = pytest.importorskip("sklearn.metrics")

SCORES: dict[str, Any] = {
    "Precision": sklearn.precision_score, "Recall": sklearn.recall_score, "F1Score": sklearn.f1_score, "Dice": sklearn.f1_score,
    "JaccardIndex": sklearn.jaccard_score,
}  # fmt: skip
OPTIONS = {"binary": {}, "multiclass": {"num_classes": CLASSES}, "multilabel": {"num_labels": LABELS}}
DRAW = {"binary": binary, "multiclass": multiclass, "multilabel": multilabel}


def batch(task: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Scores, the labels that they predict, targets, weights."""
    random = numpy.random.default_rng(seed)
    scores, target = DRAW[task](random, 30)
    return scores, scores.argmax(1) if task == "multiclass" else (scores > 0.5).astype(int), target, weights(random, 30)


def found(metric: metrics.Metric, *arguments: Any) -> Any:
    metric.update(*map(on_device, arguments))
    return to_host(metric.compute())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_scikit_learn(name: str, task: str, average: str, seed: int) -> None:
    scores, predicted, target, weight = batch(task, seed)
    options: dict[str, Any] = {"average": "binary" if task == "binary" else average if average != "none" else None}
    if task == "multiclass" and average == "none":
        options["labels"] = range(CLASSES)
    for preds in (scores, predicted):
        for given in (None, weight):
            metric = getattr(metrics, name)(task, average=average, **OPTIONS[task])
            expected = SCORES[name](target, predicted, sample_weight=given, zero_division=0.0, **options)
            assert_equal(found(metric, preds, target, *([] if given is None else [given])), expected)


@pytest.mark.parametrize("beta", [0, 0.5, 2])
def test_f_beta(beta: float) -> None:
    scores, predicted, target, weight = batch("multiclass", 5)
    metric = metrics.FBetaScore("multiclass", beta, average="macro", num_classes=CLASSES)
    expected = sklearn.fbeta_score(target, predicted, beta=beta, average="macro", sample_weight=weight, zero_division=0.0)
    assert_equal(found(metric, scores, target, weight), expected)


@pytest.mark.parametrize("zero_division", [0.0, 1.0])
def test_division_by_zero(zero_division: float) -> None:
    metric = metrics.Precision("multiclass", num_classes=3, average="none", zero_division=zero_division)
    assert found(metric, numpy.array([0, 0]), numpy.array([0, 1])).tolist() == [0.5, zero_division, zero_division]


def test_accuracy_of_classes(device: str) -> None:
    scores, predicted, target, weight = batch("multiclass", 0)

    def accuracy(average: str, *arguments: Any, **options: Any) -> Any:
        return found(metrics.Accuracy("multiclass", num_classes=CLASSES, average=average, **options), *arguments)

    assert_equal(accuracy("micro", scores, target, weight), sklearn.accuracy_score(target, predicted, sample_weight=weight))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = sklearn.balanced_accuracy_score(target, predicted, sample_weight=weight)
    assert_equal(accuracy("macro", scores, target, weight), expected)
    scores = numpy.random.default_rng(0).random((30, CLASSES))  # of equal scores scikit-learn takes the last class
    for k in range(1, CLASSES):
        expected = sklearn.top_k_accuracy_score(target, scores, k=k, sample_weight=weight, labels=range(CLASSES))
        assert_equal(accuracy("micro", scores, target, weight, top_k=k), expected)


def test_equal_scores_count_the_first_class_as_larger() -> None:
    scores, target = numpy.ones((4, 4)), numpy.arange(4)
    for k in range(1, 5):
        assert found(metrics.Accuracy("multiclass", num_classes=4, top_k=k, average="none"), scores, target).tolist() == [
            float(label < k) for label in range(4)
        ]


def test_accuracy_of_labels(device: str) -> None:
    scores, predicted, target, weight = batch("multilabel", 0)
    expected = [sklearn.accuracy_score(target[:, k], predicted[:, k], sample_weight=weight) for k in range(LABELS)]
    for average, value in (("none", expected), ("macro", numpy.mean(expected)), ("micro", numpy.mean(expected))):
        assert_equal(found(metrics.Accuracy("multilabel", num_labels=LABELS, average=average), scores, target, weight), value)


@pytest.mark.parametrize("normalize", ["true", "pred", "all", None])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_confusion_matrix(task: str, normalize: str | None) -> None:
    scores, predicted, target, _ = batch(task, 0)
    matrix = found(metrics.ConfusionMatrix(task, normalize=normalize, **OPTIONS[task]), scores, target)
    labels = range(CLASSES if task == "multiclass" else 2)
    expected = sklearn.confusion_matrix(target, predicted, labels=labels, normalize=normalize)
    assert_equal(matrix, expected)
    assert matrix.dtype == expected.dtype


def test_confusion_matrices_of_labels() -> None:
    scores, predicted, target, _ = batch("multilabel", 0)
    matrices = found(metrics.ConfusionMatrix("multilabel", num_labels=LABELS), scores, target)
    assert_equal(matrices, sklearn.multilabel_confusion_matrix(target, predicted))


def test_ignored_targets_are_left_out(device: str) -> None:
    random = numpy.random.default_rng(0)
    scores, target = random.normal(size=(6, CLASSES, 3, 4)), random.integers(0, CLASSES, (6, 3, 4))
    target[random.random(target.shape) < 0.3] = 255
    counts = target != 255
    for name in ("JaccardIndex", "Accuracy", "Dice"):
        metric = getattr(metrics, name)("multiclass", num_classes=CLASSES, average="macro", ignore_index=255)
        expected = {"JaccardIndex": sklearn.jaccard_score, "Dice": sklearn.f1_score, "Accuracy": sklearn.recall_score}[name]
        assert_equal(found(metric, scores, target), expected(target[counts], scores.argmax(1)[counts], average="macro"))
    labels = numpy.where(random.random((30, LABELS)) < 0.3, -1, random.integers(0, 2, (30, LABELS)))
    preds = random.integers(0, 2, labels.shape)
    value = found(metrics.F1Score("multilabel", num_labels=LABELS, average="none", ignore_index=-1), preds, labels)
    assert_equal(value, [sklearn.f1_score(t[t >= 0], p[t >= 0]) for t, p in zip(labels.T, preds.T)])


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_logits_are_compared_with_the_threshold_of_probabilities(threshold: float, device: str) -> None:
    logits = numpy.array([-800.0, -2.0, -1.0, 1e-9, 1.0, 800.0])
    target = numpy.array([1, 0, 1, 1, 0, 1])
    predicted = [threshold == 0, *(1 / (1 + numpy.exp(-logits[1:5])) > threshold), threshold < 1]
    predicted[3] = threshold <= 0.5  # the sigmoid rounds it to 0.5
    metric = metrics.Accuracy("binary", threshold=threshold, from_logits=True)
    assert_equal(found(metric, logits, target), numpy.mean(predicted == target))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_dtypes_of_scores(dtype: str, device: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x = gpunet.tensor([0.25, 0.75, 1.0]).to(dtype)
    metric = metrics.Accuracy("binary")
    metric.update(x, gpunet.tensor([True, True, False]))
    assert metric.compute().item() == pytest.approx(1 / 3)


# ---- errors -----------------------------------------------------------------------------------------------------------

THREE = {"num_classes": 3}


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: m.Accuracy("multi"), ArgumentError, "Accuracy: task='multi'; expected one of 'binary', 'multiclass'"),
        (lambda m: m.Recall("multiclass"), ArgumentError, "Recall: num_classes is missing; task='multiclass' needs it"),
        (lambda m: m.Recall("multilabel", num_classes=2), ArgumentError, "num_classes=2 with task='multilabel'; leave it out, and"),
        (lambda m: m.Dice("binary", average="mean"), ArgumentError, "Dice: average='mean'; expected one of 'micro', 'macro'"),
        (lambda m: m.Accuracy("binary", threshold=2), ArgumentError, "Accuracy: threshold=2; expected a probability from 0 to 1"),
        (lambda m: m.Accuracy("multiclass", top_k=4, **THREE), ArgumentError, "top_k=4 with 3 classes; expected 1, or up to"),
        (lambda m: m.Accuracy("binary", top_k=2), ArgumentError, "top_k=2 with task='binary'"),
        (lambda m: m.FBetaScore("binary", -1), ArgumentError, "FBetaScore: beta=-1; expected a number of 0 or more"),
        (lambda m: m.ConfusionMatrix("binary", normalize="x"), ArgumentError, "normalize='x'; expected 'true', 'pred', 'all'"),
    ],
)
def test_errors_of_options(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(metrics)


@pytest.mark.parametrize(
    "task, preds, target, error, message",
    [
        ("multiclass", [[0.1, 0.2, 0.7]], [3], LabelError, "target has the label 3 at position 0; expected 0 .. 2 for 3 classes;"),
        ("multiclass", [5], [2], LabelError, "Accuracy: preds has the label 5 at position 0; expected 0 .. 2 for 3 classes$"),
        ("multiclass", [[0.1, 0.9]], [1], ShapeError, r"preds has shape \(1, 2\), target \(1,\); expected scores of shape \(1, 3"),
        ("multiclass", [1, 2], [1], ShapeError, r"preds has shape \(2,\), target \(1,\); expected equal shapes for task"),
        ("multiclass", [[0.1, numpy.nan, 0.7]], [1], ArgumentError, "Accuracy: preds has nan at position 1; expected a number"),
        ("multiclass", [1], [1.0], DtypeError, "Accuracy: target has dtype float32; expected integer labels: convert it"),
        ("binary", [0.5, -0.5], [0, 1], ArgumentError, "preds has -0.5 at position 1; expected probabilities from 0 to 1; for lo"),
        ("binary", [0.5, numpy.nan], [0, 1], ArgumentError, "preds has nan at position 1"),
        ("binary", 0.5, 1, ShapeError, r"preds has shape \(\), target \(\); expected a dimension that counts"),
        ("multilabel", [[0.1, 0.2]], [[0, 1]], ShapeError, r"expected \(rows, 3\) for 3 labels"),
    ],
)
def test_errors_of_values(task: str, preds: Any, target: Any, error: type[Exception], message: str, device: str) -> None:
    options: Any = {"multiclass": {"num_classes": 3}, "multilabel": {"num_labels": 3}, "binary": {}}[task]
    metric = metrics.Accuracy(task, **options)
    with pytest.raises(error, match=message):
        (metric.update(gpunet.tensor(preds), gpunet.tensor(target)), gpunet.synchronize())
    if device == "cpu":  # nothing was added
        assert metric.state_dict()["rows"].sum().item() == metric.state_dict()["targets"].sum().item() == 0


@pytest.mark.parametrize(
    "weight, error, message",
    [
        ([1.0, -2.0], ArgumentError, "sample_weight has -2 at position 1; expected numbers of 0 or more"),
        ([1.0], ShapeError, r"sample_weight has shape \(1,\), target \(2,\); expected a weight for each row, \(2,\)"),
    ],
)
def test_errors_of_weights(weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.Accuracy("binary").update(gpunet.tensor([0, 1]), gpunet.tensor([0, 1]), gpunet.tensor(weight))


def test_top_k_needs_scores() -> None:
    with pytest.raises(DtypeError, match=r"top_k=2 with integer preds; expected scores \(rows, classes\)"):
        metrics.Accuracy("multiclass", num_classes=3, top_k=2).update(gpunet.tensor([0, 1]), gpunet.tensor([0, 1]))


def test_macro_iou_leaves_the_ignored_class_out() -> None:
    """As torchmetrics: class 0 has a prediction and no target."""
    preds, target = gpunet.tensor([0, 0, 1, 2]), gpunet.tensor([0, 1, 1, 2])
    metric = metrics.JaccardIndex("multiclass", num_classes=3, ignore_index=0)
    assert metric(preds, target).item() == 0.75


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_floating_targets_of_two_classes(dtype: str, device: str) -> None:
    logits = gpunet.tensor([2.0, -1.0, 0.5, -3.0])
    target = gpunet.tensor([1.0, 0.0, 0.0, -1.0], dtype=dtype)
    assert metrics.Accuracy("binary", from_logits=True)(logits[:3], target[:3]).item() == pytest.approx(2 / 3)
    assert metrics.Accuracy("binary", from_logits=True, ignore_index=-1)(logits, target).item() == pytest.approx(2 / 3)
    labels = gpunet.tensor([[1.0, 1.0]], dtype=dtype)
    assert metrics.F1Score("multilabel", num_labels=2)(gpunet.tensor([[1, 0]]), labels).item() == pytest.approx(2 / 3)
    with pytest.raises(ArgumentError, match="Accuracy: target has 0.5 at position 1; expected 0 or 1"):
        metrics.Accuracy("binary", from_logits=True)(logits[:2], gpunet.tensor([1.0, 0.5], dtype=dtype)).item()
    with pytest.raises(DtypeError, match="target has dtype float32; expected integer labels"):
        metrics.Accuracy("multiclass", num_classes=2)(gpunet.tensor([0, 1]), gpunet.tensor([0.0, 1.0]))
