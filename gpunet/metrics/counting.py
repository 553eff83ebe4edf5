"""Sums of weights by class, in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.launch.shims import Shim

_BINCOUNT = Shim(
    "count", lambda xp, out, labels, weights: xp.add(out, xp.bincount(labels, weights, len(out)), out=out), reads_values=True
)


def count(sums: Any, labels: Any, weights: Any) -> None:
    """Add the weight of each row, float64 (rows,), to the sum of its label, float64 (classes,)."""
    if type(sums.array) is numpy.ndarray:
        _BINCOUNT(sums.array, labels.array, weights.array)
    else:  # CuPy's bincount waits for the largest label, and adds weights in no fixed order
        sums.index_add_(0, labels, weights)
