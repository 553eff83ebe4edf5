"""Class labels of any kind as targets of a network, and back."""

from __future__ import annotations

from typing import Any

import numpy
import scipy.sparse
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

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
        kind = type_of_target(y, input_name="y")
        self.is_multilabel = kind.startswith("multilabel")
        self._is_sparse = scipy.sparse.issparse(y)
        if self.is_multilabel:
            self.classes = numpy.arange(y.shape[1])
        else:
            self.classes = unique_labels(y if classes is None else classes)

    def encode(self, y: Any, name: str) -> numpy.ndarray:
        """Return the indices of the classes, int64 (n,); of a multilabel target 0 and 1, int64 (n, k).

        Args:
            y: labels of the same kind.
            name: of the estimator, for messages.

        Raises:
            ArgumentError: a label is none of the classes, or the number of labels is another.
        """
        if self.is_multilabel:
            if y.ndim != 2 or y.shape[1] != len(self.classes):
                raise ArgumentError(f"{name}: y has the shape {y.shape}; expected {len(self.classes)} columns, one for each label")
            return (y.toarray() if scipy.sparse.issparse(y) else numpy.asarray(y)).astype(numpy.int64)
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
