"""Metrics of scores alone: how well they order the rows, and whether they are probabilities."""

from __future__ import annotations

from typing import Any

from gpunet.backend.dtypes import float64, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.tape import warn_user
from gpunet.metrics.checks import check_numbers
from gpunet.metrics.counting import count
from gpunet.metrics.inputs import ClassMetric
from gpunet.ops.creation import arange, zeros
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_positive
from gpunet.ops.join import stack
from gpunet.ops.reduce import cumsum
from gpunet.ops.sets import searchsorted, unique
from gpunet.ops.shape import flip

__all__ = ["AUROC", "AveragePrecision", "CalibrationError"]


class ClassRanking(ClassMetric):
    """Base class of metrics of the order of scores.  Each class is compared with all other classes.

    Args:
        task, num_classes, num_labels, ignore_index: see :class:`~gpunet.metrics.inputs.ClassMetric`.
        from_logits: of "multiclass": whether predictions are logits; else they are probabilities.  Of other tasks only the order of
            predictions counts.
        average: "macro": the mean over the classes that have a value.  "weighted": the mean by their targets.  "micro": of all
            labels together, for "multilabel".  "none": the values of all classes.
    """

    def __init__(
        self, task: str, *, num_classes: int | None = None, num_labels: int | None = None, average: str | None = "macro",
        from_logits: bool = False, ignore_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(task, num_classes, num_labels, ignore_index, from_logits, rows=("scores", "target", "weights"))
        allowed = ("macro", "weighted", "none", None, *(("micro",) if task == "multilabel" else ()))
        if average not in allowed:
            expected = ", ".join(map(repr, allowed))
            raise ArgumentError(f"{self._name}: average={average!r} for task={task!r}; expected one of {expected}")
        self.average = average

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch.  Its rows are kept, so that a captured step cannot contain it.

        Args:
            preds: scores, (rows, ...), of "multiclass" and "multilabel" (rows, classes, ...).
            target: labels (rows, ...), of "multilabel" 0 or 1 for each (rows, labels, ...).
            sample_weight: (rows,), 1 by default.

        Raises:
            DtypeError: scores are integers.
            ShapeError: shapes do not fit.
            LabelError: a label is out of range.
            ArgumentError: a score is NaN or no probability, or a weight is negative.
        """
        scores, target, weights = self._read(preds, target, sample_weight)
        if not is_floating(scores.dtype):
            raise DtypeError(f"{self._name}: preds are integers; expected scores, which are floating")
        if self.task == "multiclass":
            scores = self._probabilities(scores)
        else:
            check_numbers(self._name, "preds", scores)
        self._keep(scores=scores, target=target, weights=weights)

    def compute(self) -> Any:
        """Return the value, a float64 tensor: 0-d, or (classes,) for ``average="none"``; NaN if all rows are of one class."""
        scores, target, weights = (self._all(name) for name in ("scores", "target", "weights"))
        one_value = self.task == "binary" or self.average not in ("none", None)
        if scores is None or not scores.shape[0]:
            return self._nan(shape=() if one_value else (self._num_outputs,))
        if self.task == "multiclass":
            target = (target.reshape(-1, 1) == arange(self._num_outputs, device=target.device)).long()
            weights = weights.reshape(-1, 1).expand(target.shape)
        if self.average == "micro":
            scores, target, weights = (tensor.reshape(-1, 1) for tensor in (scores, target, weights))
        found = [self._value(scores[:, k], target[:, k], weights[:, k]) for k in range(scores.shape[1])]
        values, targets = stack([value for value, _ in found]), stack([positives for _, positives in found])
        is_defined = ~values.isnan()
        if undefined := (~is_defined).nonzero().reshape(-1).tolist():
            of = "" if scores.shape[1] == 1 else f" of {'labels' if self.task == 'multilabel' else 'classes'} {undefined}"
            is_left_out = of != "" and one_value
            warn_user(f"{self._name}: all rows{of} {self._undefined}; the value is nan{', left out of the mean' * is_left_out}")
        if not one_value:
            return values
        shares = (targets if self.average == "weighted" else 1.0) * is_defined.to(float64)
        return where(is_defined, values, 0.0).mul(shares).sum() / shares.sum()

    _undefined = "are of one class"

    def _value(self, scores: Any, target: Any, weights: Any) -> tuple[Any, Any]:
        """The value of one class, and the sum of the weights of its rows."""
        different, place = unique(scores, return_inverse=True)
        sums = [zeros(len(different), dtype=float64, device=scores.device) for _ in range(2)]
        for total, part in zip(sums, (target, 1 - target)):
            count(total, place.reshape(-1), weights * part)
        positives, negatives = sums
        return self._area(positives, negatives, positives.sum(), negatives.sum()), positives.sum()

    def _area(self, positives: Any, negatives: Any, num_positives: Any, num_negatives: Any) -> Any:
        """The value, from the weights at each different score, ascending, and their sums; NaN for 0 / 0."""
        raise NotImplementedError


class AUROC(ClassRanking):
    """The area under the ROC curve: the probability that a row of the class has a higher score than a row of another class.

    Equal scores count half.  Source: Hanley and McNeil, The meaning and use of the area under a ROC curve (1982).
    """

    def _area(self, positives: Any, negatives: Any, num_positives: Any, num_negatives: Any) -> Any:
        below = cumsum(negatives, 0) - negatives / 2
        return (positives * below).sum() / (num_positives * num_negatives)


class AveragePrecision(ClassRanking):
    """The mean of the precisions at each row of the class, from the highest score down; of equal scores all count.

    Source: Zhu, Recall, precision and average precision (2004).  Without rows of the class it is NaN (scikit-learn: 0).
    """

    _undefined = "are negative"

    def _area(self, positives: Any, negatives: Any, num_positives: Any, num_negatives: Any) -> Any:
        hits, false = (flip(cumsum(flip(part, 0), 0), 0) for part in (positives, negatives))  # with such scores or higher ones
        precision = hits / where(hits + false == 0, 1.0, hits + false)
        return (positives * precision).sum() / num_positives


class CalibrationError(ClassMetric):
    """How far probabilities are from frequencies: the mean difference, over bins of equal width, of confidence and accuracy.

    The confidence of "binary" is the probability of class 1, and its accuracy how often it is the target; of "multiclass" it is the
    largest probability, and whether that class is the target.  A bin contains its upper end.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).

    Args:
        task: "binary" or "multiclass".
        num_classes, from_logits, ignore_index: see :class:`~gpunet.metrics.inputs.ClassMetric`.
        n_bins: number of bins.
        norm: "l1" the mean by rows, "l2" the root of the mean square, "max" the largest difference.
    """

    def __init__(
        self, task: str, *, n_bins: int = 15, norm: str = "l1", num_classes: int | None = None, from_logits: bool = False,
        ignore_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(task, num_classes, None, ignore_index, from_logits)
        if task == "multilabel":
            raise ArgumentError(f"{self._name}: task='multilabel'; expected 'binary' or 'multiclass'")
        if norm not in ("l1", "l2", "max"):
            raise ArgumentError(f"{self._name}: norm={norm!r}; expected 'l1', 'l2' or 'max'")
        self.n_bins, self.norm = as_positive(self._name, "n_bins", n_bins), norm
        self._shapes = dict.fromkeys(("rows", "confidence", "hits"), (self.n_bins,))

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch; arguments as of :meth:`Accuracy.update`, but integer predictions are refused.

        Raises:
            DtypeError, ShapeError, LabelError, ArgumentError: as of :meth:`AUROC.update`.
        """
        preds, target, weights = self._read(preds, target, sample_weight)
        if not is_floating(preds.dtype):
            raise DtypeError(f"{self._name}: preds are integers; expected probabilities, which are floating")
        confidence, hits = self._probabilities(preds), target
        if self.task == "multiclass":
            confidence, predicted = confidence.max(1)
            hits = predicted == target
        confidence, weights = confidence.reshape(-1).to(float64), weights.reshape(-1)
        edges = arange(1, self.n_bins, dtype=float64, device=confidence.device) / self.n_bins
        place = searchsorted(edges, confidence)
        for name, factor in (("rows", 1.0), ("confidence", confidence), ("hits", hits.reshape(-1))):
            count(self._sum(name), place, weights * factor)

    def compute(self) -> Any:
        """Return the error, a 0-d float64 tensor from 0 to 1."""
        rows = self._sum("rows")
        if not float(rows.sum()):
            return self._nan()
        gaps = (self._sum("confidence") - self._sum("hits")).abs() / where(rows == 0, 1.0, rows)
        if self.norm == "max":
            return gaps.max()
        power = {"l1": 1, "l2": 2}[self.norm]
        return ((gaps**power * rows).sum() / rows.sum()) ** (1 / power)
