"""Metrics of predicted classes: functions of how often each class is predicted, is the target, and is both.

Source of all but the IoU: Sokolova and Lapalme, A systematic analysis of performance measures for classification tasks (2009).
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.backend.dtypes import float64, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.metrics.counting import count
from gpunet.metrics.inputs import ClassMetric
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, as_positive
from gpunet.ops.index import gather

__all__ = ["Accuracy", "ConfusionMatrix", "Dice", "F1Score", "FBetaScore", "JaccardIndex", "Precision", "Recall"]

AVERAGES = ("micro", "macro", "weighted", "none", None)


class ClassRatio(ClassMetric):
    """Base class of ratios of sums by class or label: of hits (predicted and target), predictions, and targets.

    Args:
        task, num_classes, num_labels, threshold, from_logits, ignore_index: see :class:`~gpunet.metrics.inputs.ClassMetric`.
        average: "micro": of the sums over all classes.  "macro": the mean over the classes that are predicted or target.
            "weighted": the mean by their targets.  "none": the values of all classes.  A binary task has one value.
        zero_division: the value of 0 / 0.
    """

    def __init__(
        self, task: str, *, num_classes: int | None = None, num_labels: int | None = None, average: str | None = "micro",
        threshold: float = 0.5, from_logits: bool = False, ignore_index: int | None = None, zero_division: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(task, num_classes, num_labels, ignore_index, from_logits, threshold)
        if average not in AVERAGES:
            raise ArgumentError(f"{self._name}: average={average!r}; expected one of {', '.join(map(repr, AVERAGES))}")
        self.average = average
        self.zero_division = as_number(self._name, "zero_division", zero_division)
        self._shapes = dict.fromkeys(("hits", "predicted", "targets", "rows"), (self._num_outputs,))

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            preds: integer labels (rows, ...), or scores: (rows, ...) of "binary", (rows, classes, ...) of "multiclass", where only
                their order counts, (rows, labels, ...) of "multilabel".
            target: labels (rows, ...), of "multilabel" 0 or 1 for each (rows, labels, ...).  Of "binary" and "multilabel" they may
                be floating.
            sample_weight: (rows,), 1 by default.

        Raises:
            ShapeError: shapes do not fit.
            LabelError: a label is out of range.
            ArgumentError: a score is NaN or no probability, a floating target is neither 0 nor 1, or a weight is negative.
        """
        preds, target, weights = self._read(preds, target, sample_weight)
        if self.task == "multiclass":
            predicted = self._predicted(preds)
            count(self._sum("hits"), target, weights * self._is_hit(preds, predicted, target))
            count(self._sum("predicted"), predicted, weights)
            count(self._sum("targets"), target, weights)
        else:
            predicted = self._predicted(preds) * weights
            self._add({"hits": (predicted * target).sum(0), "predicted": predicted.sum(0), "targets": (target * weights).sum(0)})
            self._add({"rows": weights.sum(0)})

    def _is_hit(self, preds: Any, predicted: Any, target: Any) -> Any:
        return predicted == target

    def compute(self) -> Any:
        """Return the value, a float64 tensor: 0-d, or (classes,) for ``average="none"``."""
        sums = [self._sum(name) for name in ("hits", "predicted", "targets", "rows")]
        one_value = self.task == "binary" or self.average not in ("none", None)
        if not float((sums[2] if self.task == "multiclass" else sums[3]).sum()):
            return self._nan(shape=() if one_value else (self._num_outputs,))
        if self.average == "micro" or self.task == "binary":
            return self._divide(*self._ratio(*[tensor.sum() for tensor in sums]))
        values = self._divide(*self._ratio(*sums))
        if self.average in ("none", None):
            return values
        weights = sums[2] if self.average == "weighted" else self._is_present(*sums[:3]).to(float64)
        return self._divide((values * weights).sum(), weights.sum())

    def _divide(self, numerator: Any, denominator: Any) -> Any:
        is_zero = denominator == 0
        return where(is_zero, self.zero_division, numerator / where(is_zero, 1.0, denominator))

    def _is_present(self, hits: Any, predicted: Any, targets: Any) -> Any:
        """The classes that a macro average has; of labels all."""
        return predicted + targets > 0 if self.task == "multiclass" else targets >= 0

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        """Numerator and denominator."""
        raise NotImplementedError


class Accuracy(ClassRatio):
    """The fraction of rows whose class, or label, is predicted.

    The macro average of classes is the mean recall of the classes in the target (balanced accuracy); of labels it is the mean
    accuracy.

    Args:
        task, num_classes, num_labels, average, threshold, from_logits, ignore_index, zero_division: see :class:`ClassRatio`.
        top_k: a target among the ``top_k`` largest scores is a hit; of equal scores the first classes count as larger.
    """

    def __init__(self, task: str, *, top_k: int = 1, **options: Any) -> None:
        super().__init__(task, **options)
        self.top_k = as_positive(self._name, "top_k", top_k)
        if self.top_k > 1 and (task != "multiclass" or self.top_k > self._num_outputs):
            of = f"{self._num_outputs} classes" if task == "multiclass" else f"task={task!r}"
            raise ArgumentError(f"{self._name}: top_k={top_k} with {of}; expected 1, or up to num_classes of 'multiclass'")

    def _is_hit(self, preds: Any, predicted: Any, target: Any) -> Any:
        if self.top_k == 1:
            return predicted == target
        if not is_floating(preds.dtype):
            raise DtypeError(f"{self._name}: top_k={self.top_k} with integer preds; expected scores (rows, classes)")
        target = target.reshape(-1, 1)
        own = gather(preds, 1, target)
        is_before = (preds > own) | ((preds == own) & (arange(self._num_outputs, device=preds.device) < target))
        return is_before.sum(1) < self.top_k

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        return (hits, targets) if self.task == "multiclass" else (rows - predicted - targets + 2 * hits, rows)

    def _is_present(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return targets > 0 if self.task == "multiclass" else targets >= 0


class Precision(ClassRatio):
    """The fraction of a class's predictions that are right: hits / predicted."""

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        return hits, predicted


class Recall(ClassRatio):
    """The fraction of a class's targets that are predicted: hits / targets."""

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        return hits, targets


class FBetaScore(ClassRatio):
    """The weighted harmonic mean of precision and recall: (1 + beta^2) hits / (beta^2 targets + predicted).

    Source: van Rijsbergen, Information Retrieval (1979), chapter 7.

    Args:
        task, num_classes, num_labels, average, threshold, from_logits, ignore_index, zero_division: see :class:`ClassRatio`.
        beta: how many times as important recall is.
    """

    def __init__(self, task: str, beta: float = 1.0, **options: Any) -> None:
        super().__init__(task, **options)
        self.beta = as_number(self._name, "beta", beta)
        if not 0.0 <= self.beta < math.inf:
            raise ArgumentError(f"{self._name}: beta={beta}; expected a number of 0 or more")

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        square = self.beta**2
        return (1 + square) * hits, square * targets + predicted


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall: 2 hits / (targets + predicted)."""

    def __init__(self, task: str, **options: Any) -> None:
        super().__init__(task, 1.0, **options)


class Dice(F1Score):
    """The Dice coefficient, by which segmentations are compared: the same as :class:`F1Score`, of pixels.

    Source: Dice, Measures of the amount of ecologic association between species (1945).
    """


class JaccardIndex(ClassRatio):
    """Intersection over union (IoU): hits / (targets + predicted - hits); its macro average is the mean IoU of segmentations.

    The average leaves out class ``ignore_index``, which has predictions but no target.

    Source: Jaccard, The distribution of the flora in the alpine zone (1912).
    """

    def __init__(self, task: str, *, average: str | None = "macro", **options: Any) -> None:
        super().__init__(task, average=average, **options)

    def _ratio(self, hits: Any, predicted: Any, targets: Any, rows: Any) -> tuple[Any, Any]:
        return hits, targets + predicted - hits

    def _is_present(self, hits: Any, predicted: Any, targets: Any) -> Any:
        is_present = super()._is_present(hits, predicted, targets)
        if self.task != "multiclass" or self.ignore_index is None:
            return is_present
        return is_present & (arange(self._num_outputs, device=targets.device) != self.ignore_index)


class ConfusionMatrix(ClassMetric):
    """How often each class is predicted for each: rows are targets, columns predictions.

    Args:
        task, num_classes, num_labels, threshold, from_logits, ignore_index: see :class:`~gpunet.metrics.inputs.ClassMetric`.
        normalize: divide by the sums over "true" targets, "pred" predictions, or "all"; None for the counts.
    """

    def __init__(
        self, task: str, *, num_classes: int | None = None, num_labels: int | None = None, normalize: str | None = None,
        threshold: float = 0.5, from_logits: bool = False, ignore_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(task, num_classes, num_labels, ignore_index, from_logits, threshold)
        if normalize not in ("true", "pred", "all", None):
            raise ArgumentError(f"{self._name}: normalize={normalize!r}; expected 'true', 'pred', 'all' or None")
        self.normalize = normalize
        classes = self._num_outputs if task == "multiclass" else 2
        self._shape = (self._num_outputs, 2, 2) if task == "multilabel" else (classes, classes)
        self._shapes = {"counts": (math.prod(self._shape),)}

    def update(self, preds: Any, target: Any) -> None:
        """Add a batch; ``preds``, ``target`` and errors as of :meth:`Accuracy.update`, without weights of rows."""
        preds, target, weights = self._read(preds, target)
        places = target * self._shape[-1] + self._predicted(preds)
        if self.task == "multilabel":
            places = places + 4 * arange(self._num_outputs, device=places.device)
        count(self._sum("counts"), places.reshape(-1), weights.reshape(-1))

    def compute(self) -> Any:
        """Return (classes, classes), of "multilabel" (labels, 2, 2): int64, or float64 if normalized, where 0 / 0 is 0."""
        counts = self._sum("counts").reshape(self._shape)
        if self.normalize is None:
            return counts.long()
        over = {"true": -1, "pred": -2, "all": (-2, -1)}[self.normalize]
        total = counts.sum(over, keepdim=True)
        return counts / where(total == 0, 1.0, total)
