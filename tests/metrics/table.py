"""A row for each metric: how to make it, and random batches of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

import gpunet
from gpunet import metrics
from gpunet.metrics import Metric

Random = numpy.random.Generator


class Row(NamedTuple):
    """A metric to test.

    Attributes:
        make: returns a metric.
        draw: returns the arguments of ``update`` for a number of rows, arrays or lists.
        is_summed: whether it is a function of sums, so that a captured step may update it.
    """

    name: str
    make: Callable[[], Metric]
    draw: Callable[[Random, int], tuple[Any, ...]]
    is_summed: bool = True

    def update(self, metric: Metric, arguments: tuple[Any, ...]) -> None:
        metric.update(*map(on_device, arguments))


def on_device(value: Any) -> Any:
    """Arrays as tensors on the default device, also in lists of dicts."""
    if isinstance(value, numpy.ndarray):
        return gpunet.tensor(value)
    if isinstance(value, list):
        return [{k: on_device(v) for k, v in item.items()} if isinstance(item, dict) else item for item in value]
    return value


def pick(value: Any, index: Any) -> Any:
    """Rows of an argument."""
    return value[index] if isinstance(value, numpy.ndarray) else [value[i] for i in index]


def to_host(value: Any) -> Any:
    """The value of a metric as an array, or a dict of arrays."""
    return {k: to_host(v) for k, v in value.items()} if isinstance(value, dict) else value.cpu().numpy()


def assert_equal(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            numpy.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-13, err_msg=name)
    else:
        numpy.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


# ---- batches ----------------------------------------------------------------------------------------------------------

CLASSES, LABELS = 5, 3


def weights(random: Random, rows: int) -> Any:
    return random.integers(0, 4, rows) / 2  # some are 0


def multiclass(random: Random, rows: int) -> tuple[Any, ...]:
    """Probabilities with ties, and targets that lack the last class."""
    scores = random.integers(1, 6, (rows, CLASSES)).astype("float32")
    return scores / scores.sum(1, keepdims=True), random.integers(0, CLASSES - 1, rows)


def present(random: Random, rows: int) -> tuple[Any, ...]:
    """Probabilities of the classes that occur."""
    scores, target = multiclass(random, rows)
    return scores[:, : CLASSES - 1], target


def pixels(random: Random, rows: int) -> tuple[Any, ...]:
    """Logits (rows, classes, 2, 3), and targets with 255 for what does not count."""
    target = random.integers(0, CLASSES, (rows, 2, 3))
    return random.normal(size=(rows, CLASSES, 2, 3)).astype("float32"), numpy.where(random.random(target.shape) < 0.2, 255, target)


def binary(random: Random, rows: int) -> tuple[Any, ...]:
    return random.integers(0, 9, rows).astype("float32") / 8, random.integers(0, 2, rows)


def multilabel(random: Random, rows: int) -> tuple[Any, ...]:
    return random.integers(0, 9, (rows, LABELS)).astype("float32") / 8, random.integers(0, 2, (rows, LABELS))


def weighted(draw: Callable[[Random, int], tuple[Any, ...]]) -> Callable[[Random, int], tuple[Any, ...]]:
    return lambda random, rows: (*draw(random, rows), weights(random, rows))


def numbers(random: Random, rows: int) -> tuple[Any, ...]:
    target = random.normal(1000.0, 1.0, (rows, 2))
    return target + random.normal(size=(rows, 2)), target


def tokens(random: Random, rows: int) -> tuple[Any, ...]:
    return random.normal(size=(rows, 4, CLASSES)), random.integers(-1, CLASSES, (rows, 4))


def sentences(random: Random, rows: int) -> tuple[Any, ...]:
    def text() -> str:
        return " ".join(random.choice(list("abc"), random.integers(4, 9)))

    return [text() for _ in range(rows)], [[text() for _ in range(random.integers(1, 4))] for _ in range(rows)]


def images(random: Random, rows: int, distinct: bool = True) -> tuple[Any, ...]:
    """Detections near true boxes, of different scores; some images are empty."""
    preds, target = [], []
    for _ in range(rows):
        n, m = random.integers(0, 9, 2)
        low = random.integers(0, 40, (m, 2))
        true = numpy.concatenate([low, low + random.integers(1, 60, (m, 2))], 1).astype("float64")
        found = true[random.integers(0, m, n)] + random.integers(0, 3, (n, 4)) if m else numpy.ones((n, 4)) * [1, 1, 9, 9]
        found[:, 2:] = numpy.maximum(found[:, 2:], found[:, :2])
        scores = random.random(n) if distinct else random.integers(0, 5, n) / 4
        preds.append({"boxes": found, "scores": scores, "labels": random.integers(0, 3, n)})
        target.append({"boxes": true, "labels": random.integers(0, 3, m), "iscrowd": (random.random(m) < 0.2).astype("int64")})
    return preds, target


def _of(name: str, *args: Any, **options: Any) -> Callable[[], Metric]:
    return lambda: getattr(metrics, name)(*args, **options)  # type: ignore[no-any-return]


MULTICLASS = {"num_classes": CLASSES}
ROWS = [
    Row("accuracy", _of("Accuracy", "multiclass", **MULTICLASS), weighted(multiclass)),
    Row("accuracy of top 2", _of("Accuracy", "multiclass", top_k=2, average="macro", **MULTICLASS), multiclass),
    Row("binary accuracy", _of("Accuracy", "binary"), weighted(binary)),
    Row("accuracy of labels", _of("Accuracy", "multilabel", num_labels=LABELS, average="none"), weighted(multilabel)),
    Row("precision", _of("Precision", "multiclass", average="macro", **MULTICLASS), weighted(multiclass)),
    Row("recall", _of("Recall", "multilabel", num_labels=LABELS, average="weighted"), weighted(multilabel)),
    Row("F2", _of("FBetaScore", "multiclass", 2.0, average="none", **MULTICLASS), weighted(multiclass)),
    Row("F1", _of("F1Score", "binary", threshold=0.25), weighted(binary)),
    Row("IoU", _of("JaccardIndex", "multiclass", ignore_index=255, **MULTICLASS), weighted(pixels)),
    Row("Dice", _of("Dice", "multiclass", ignore_index=255, average="macro", **MULTICLASS), pixels),
    Row("confusion matrix", _of("ConfusionMatrix", "multiclass", **MULTICLASS), multiclass),
    Row("confusion matrices", _of("ConfusionMatrix", "multilabel", num_labels=LABELS, normalize="true"), multilabel),
    Row("AUROC", _of("AUROC", "binary"), weighted(binary), False),
    Row("AUROC of classes", _of("AUROC", "multiclass", num_classes=4), present, False),
    Row("average precision", _of("AveragePrecision", "multilabel", num_labels=LABELS), weighted(multilabel), False),
    Row("calibration error", _of("CalibrationError", "multiclass", n_bins=7, norm="l2", **MULTICLASS), weighted(multiclass)),
    Row("binary calibration error", _of("CalibrationError", "binary", n_bins=8), weighted(binary)),
    Row("MAE", _of("MeanAbsoluteError"), weighted(numbers)),
    Row("RMSE", _of("MeanSquaredError", squared=False), weighted(numbers)),
    Row("R2", _of("R2Score", 2), weighted(numbers)),
    Row("perplexity", _of("Perplexity", ignore_index=-1), tokens),
    Row("BLEU", _of("BLEUScore", 2), sentences, False),
    Row("mAP", _of("MeanAveragePrecision", class_metrics=True), images, False),
]  # fmt: skip
