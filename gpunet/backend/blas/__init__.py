"""Products of large matrices on the CPU, computed by the fastest BLAS library on this machine.

    libraries   the supported libraries: how they are found, loaded and called
    operands    how BLAS sees a matrix
    openblas    the threads of NumPy's own library
    choice      selects a library: timed once per machine, cached on disk
    measure     the subprocess that times one library

Products with fewer than :data:`LEAST` multiplications always use NumPy.  Larger ones use the library that ``GPUNET_BLAS``
names ("auto", "numpy", "mkl" or "onednn").  The library is selected at the first large product and then kept until the
process ends, because the last bits of a product differ between libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from gpunet.backend.blas.operands import operand

if TYPE_CHECKING:
    from gpunet.backend.blas.choice import Choice

#: Smallest number of multiplications worth handing to another library; below it the call overhead exceeds the gain.
LEAST = 1 << 21

_chosen: Choice | None = None


def chosen() -> Choice:
    """Return the library for large products.  The first call loads it; the first call on a machine times the candidates.

    Raises:
        ArgumentError: ``GPUNET_BLAS`` is not the name of a library.
        MissingDependencyError: the library that ``GPUNET_BLAS`` names is not installed or cannot be loaded.
    """
    global _chosen
    if _chosen is None:
        from gpunet.backend.blas import choice

        _chosen = choice.choose()
    return _chosen


def dot(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> None:
    """Write a @ b into out: a (m, k), b (k, n), out (m, n), all float32 or all float64.  out must not overlap a or b."""
    if a.size == 1 or b.size == 1:  # numpy.dot skips the product if this one element is 0, and so loses inf and NaN
        numpy.multiply(a, b, out=out)
        return
    if type(out) is numpy.ndarray and a.size * b.shape[1] >= LEAST:
        call = prepared(a, b, out)
        if call is not None:
            call()
            return
    numpy.dot(a, b, out=out)


def prepared(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> Callable[[], Any] | None:
    """Return a function without arguments that computes :func:`dot` for these arrays; None if NumPy should compute it."""
    if a.size * b.shape[1] < LEAST or (multiply := chosen().functions.get(out.dtype)) is None:
        return None
    left, right, product = map(operand, (a, b, out))
    if left is None or right is None or product is None or product.transposed:
        return None
    (m, n), k = out.shape, b.shape[0]
    return multiply.bind(m, n, k, left, right, product)
