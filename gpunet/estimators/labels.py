"""Class labels of any kind as targets of a network, and back."""

from __future__ import annotations

from typing import Any

import numpy
import scipy.sparse
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from gpunet.errors import ArgumentError


class Labels:
    """The classes of a target, or the labels of a multilabel target.

    Args:
        y: (n,) labels of any sortable type, or (n, k) indicators of several labels for each row, dense or sparse.
        classes: all classes, if ``y`` may lack some.

    Attributes:
        classes: sorted, (c,); the numbers 0 to k - 1 of a multilabel target.
        is_multilabel: whether a row has several labels.

    Raises:
        ValueError: ``y`` are no labels; scikit-learn's message.
    """

    def __init__(self, y: Any, classes: Any = None) -> None:
        check_classification_targets(y)
        self.is_multilabel = y.ndim == 2
        self._is_sparse = scipy.sparse.issparse(y)
        if self.is_multilabel:
            self.classes = numpy.arange(y.shape[1])
        else:
            self.classes = unique_labels(y if classes is None else classes)

    def check_kind(self, y: Any, name: str) -> None:
        """Check that a target is of the first one's kind: a class for each row, or as many indicators.

        Args:
            y: the target.
            name: of the estimator, for messages.

        Raises:
            ArgumentError: it is of the other kind, or has another number of labels.
            ValueError: ``y`` are no labels; scikit-learn's message.
        """
        check_classification_targets(y)
        if (y.ndim == 2) == self.is_multilabel:
            if self.is_multilabel and y.shape[1] != len(self.classes):
                raise ArgumentError(f"{name}: y has the shape {y.shape}; expected {len(self.classes)} columns, one for each label")
            return
        raise ArgumentError(
            f"{name}: y has the shape {y.shape}; expected "
            + (f"(n, {len(self.classes)}), indicators of labels" if self.is_multilabel else "(n,), one class for each row")
            + ", as in the first call; call fit() with warm_start=False to start anew"
        )

    def encode(self, y: Any, name: str) -> numpy.ndarray:
        """Return the indices of the classes, int64 (n,); of a multilabel target 0 and 1, int64 (n, k).

        Args:
            y: labels of the same kind.
            name: of the estimator, for messages.

        Raises:
            ArgumentError: a label is none of the classes, an indicator is neither 0 nor 1, or ``y`` is of another kind.
        """
        self.check_kind(y, name)
        if self.is_multilabel:
            indicators: numpy.ndarray = y.toarray() if scipy.sparse.issparse(y) else numpy.asarray(y)
            is_wrong = ~numpy.isin(indicators, (0, 1))
            if is_wrong.any():
                wrong = indicators[is_wrong].tolist()[0]
                raise ArgumentError(
                    f"{name}: y has the shape {y.shape} and the value {wrong!r}; expected 0 or 1 for each label of a row, or "
                    "classes (n,)"
                )
            return indicators.astype(numpy.int64)
        found = unique_labels(y)
        unknown = numpy.setdiff1d(found, self.classes)
        if len(unknown):
            raise ArgumentError(
                f"{name}: y has the classes {found.tolist()}, of which {unknown.tolist()} are not among the classes "
                f"{self.classes.tolist()}; pass all classes in the first call"
            )
        return numpy.searchsorted(self.classes, y)

    def decode(self, scores: numpy.ndarray) -> Any:
        """Return the labels of probabilities.

        Args:
            scores: probabilities (n, c), or (n, k) of a multilabel target.

        Returns:
            Labels (n,), or indicators (n, k), sparse if those of training were.
        """
        if self.is_multilabel:
            indicators = (scores > 0.5).astype(numpy.int64)
            return scipy.sparse.csr_array(indicators) if self._is_sparse else indicators
        return self.classes[scores.argmax(1)]
