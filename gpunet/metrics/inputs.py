"""Predictions and targets of classes: three tasks, and the rows of their tensors."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.backend.dtypes import float64, is_floating
from gpunet.errors import ArgumentError, ShapeError
from gpunet.metrics.checks import check_labels, check_numbers
from gpunet.metrics.metric import Metric
from gpunet.ops.creation import ones
from gpunet.ops.face import as_positive, as_probability
from gpunet.ops.order import argmax

TASKS = {"binary": "", "multiclass": "num_classes", "multilabel": "num_labels"}
PROBABILITIES = "probabilities from 0 to 1; for logits pass from_logits=True"


class ClassMetric(Metric):
    """Base class of metrics that compare predictions with classes.

    Args:
        task: "binary": target is 0 or 1.  "multiclass": target is one of 0 .. num_classes - 1.  "multilabel": target has a 0 or 1
            for each label.
        num_classes: of "multiclass".
        num_labels: of "multilabel".
        threshold: a score above it is a 1.
        from_logits: whether floating predictions are logits; else they are probabilities.
        ignore_index: targets that do not count.

    Raises:
        ArgumentError: an option is missing, out of range, or belongs to another task.
    """

    def __init__(
        self, task: str, num_classes: int | None = None, num_labels: int | None = None, ignore_index: int | None = None,
        from_logits: bool = False, threshold: float = 0.5, rows: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__({}, rows)
        self.task, self.num_classes, self.num_labels = task, num_classes, num_labels
        self.ignore_index, self.from_logits = ignore_index, from_logits
        self.threshold = as_probability(self._name, "threshold", threshold)
        self._num_outputs = self._count_outputs()

    def _count_outputs(self) -> int:
        """The number of classes or labels; 1 of "binary"."""
        if self.task not in TASKS:
            raise ArgumentError(f"{self._name}: task={self.task!r}; expected one of {', '.join(map(repr, TASKS))}")
        needed = TASKS[self.task]
        for name in TASKS.values():
            if name and name != needed and getattr(self, name) is not None:
                given = f"{name}={getattr(self, name)} with task={self.task!r}"
                raise ArgumentError(f"{self._name}: {given}; leave it out{f', and pass {needed}' if needed else ''}")
        if not needed:
            return 1
        if getattr(self, needed) is None:
            raise ArgumentError(f"{self._name}: {needed} is missing; task={self.task!r} needs it")
        return as_positive(self._name, needed, getattr(self, needed))

    # -- rows
    def _read(self, preds: Any, target: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
        """Return scores or labels, labels, and weights of rows, which are 0 of rows that do not count.

        Returns:
            Of "multiclass" scores (rows, classes) or labels (rows,); target and weights (rows,).  Else all (rows, outputs).
        """
        preds, target = self._take(preds=preds, target=target)
        has_scores = is_floating(preds.dtype)
        self._check_shapes(preds, target, has_scores)
        weights = self._weights(sample_weight, target)
        counts = None if self.ignore_index is None else self._rows_of(target) != self.ignore_index
        if counts is not None:
            weights = weights * counts
        is_multiclass = self.task == "multiclass"
        classes = self._num_outputs if is_multiclass else 2
        labels = check_labels(self._name, "target", self._rows_of(target), classes, self.ignore_index, not is_multiclass)
        if has_scores:
            preds = self._rows_of(preds, has_classes=is_multiclass)
        else:
            preds = check_labels(self._name, "preds", self._rows_of(preds), classes)
        return preds, labels, weights

    def _check_shapes(self, preds: Any, target: Any, has_scores: bool) -> None:
        got = f"{self._name}: preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}"
        if not target.ndim:
            raise ShapeError(f"{got}; expected a dimension that counts the rows")
        if self.task == "multiclass" and has_scores:
            expected = (*target.shape[:1], self._num_outputs, *target.shape[1:])
            if tuple(preds.shape) != expected:
                raise ShapeError(f"{got}; expected scores of shape {expected} for {self._num_outputs} classes, or integer labels")
        elif preds.shape != target.shape:
            raise ShapeError(f"{got}; expected equal shapes for task={self.task!r}")
        elif self.task == "multilabel" and (target.ndim < 2 or target.shape[1] != self._num_outputs):
            raise ShapeError(f"{got}; expected (rows, {self._num_outputs}) for {self._num_outputs} labels")

    def _rows_of(self, values: Any, has_classes: bool = False) -> Any:
        """A tensor as (rows, outputs), its second dimension last; without classes of "multiclass" as (rows,)."""
        if has_classes or self.task == "multilabel":
            return values.movedim(1, -1).reshape(-1, self._num_outputs)
        return values.reshape(-1, 1) if self.task == "binary" else values.reshape(-1)

    def _weights(self, sample_weight: Any, target: Any) -> Any:
        if sample_weight is None:
            return self._rows_of(ones(target.shape, dtype=float64, device=target.device))
        weights = weights_of(self, sample_weight, target)
        return self._rows_of(weights.reshape(-1, *(1,) * (target.ndim - 1)).expand(target.shape))

    # -- predictions
    def _probabilities(self, scores: Any) -> Any:
        """Return probabilities.

        Raises:
            ArgumentError: a probability is not from 0 to 1.
        """
        if self.from_logits:
            check_numbers(self._name, "preds", scores)
            return scores.softmax(-1) if self.task == "multiclass" else scores.sigmoid()
        check_numbers(self._name, "preds", scores, 0.0, 1.0, PROBABILITIES)
        return scores

    def _predicted(self, preds: Any) -> Any:
        """Return the predicted labels, int64: the first class with the largest score; or 1 above the threshold."""
        if not is_floating(preds.dtype):
            return preds
        if self.task == "multiclass":
            check_numbers(self._name, "preds", preds)
            return argmax(preds, -1)
        if not self.from_logits:
            check_numbers(self._name, "preds", preds, 0.0, 1.0, PROBABILITIES)
            return (preds > self.threshold).long()
        check_numbers(self._name, "preds", preds)
        odds = self.threshold / (1 - self.threshold) if self.threshold < 1 else math.inf
        return (preds > (math.log(odds) if odds else -math.inf)).long()


def weights_of(metric: Metric, sample_weight: Any, target: Any) -> Tensor:
    """Return the weights of rows, float64 (rows,); the first dimension of the target counts the rows.

    Raises:
        DtypeError: they are complex.
        ShapeError: they have another shape.
        ArgumentError: a weight is negative or NaN.
    """
    name = type(metric).__name__
    weights = wrap(sample_weight, f"{name}.update").detach()
    refuse_complex(f"{name}.update", [weights])
    metric._check_device("sample_weight", weights.device)
    if tuple(weights.shape) != tuple(target.shape[:1]):
        shapes = f"sample_weight has shape {tuple(weights.shape)}, target {tuple(target.shape)}"
        raise ShapeError(f"{name}: {shapes}; expected a weight for each row, {tuple(target.shape[:1])}")
    weights = weights.to(float64)
    check_numbers(name, "sample_weight", weights, 0.0, math.inf, "numbers of 0 or more")
    return weights
