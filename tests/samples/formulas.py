"""NumPy formulas that the samples of several families use."""

from __future__ import annotations

import math
from typing import Any

import numpy

erf = numpy.vectorize(math.erf, otypes=[float])


def softmax(x: Any, axis: int) -> Any:
    e = numpy.exp(x - x.max(axis, keepdims=True, initial=-99.0))
    return e / e.sum(axis, keepdims=True)


sigmoid = lambda z: 1 / (1 + numpy.exp(-z))  # noqa: E731
REDUCE = {"none": lambda v: v, "mean": numpy.mean, "sum": numpy.sum}
