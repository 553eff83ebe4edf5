"""Products of large matrices on the CPU, by the library that multiplies fastest on this machine.

    libraries   what may be installed beside NumPy, and how it is called
    choice      which of them is taken: measured once a machine, and kept
    measure     the process that measures one

A product of fewer than :data:`LEAST` multiplications is NumPy's, always; a larger one goes to the library that
``GPUNET_BLAS`` names ("auto", "numpy", "mkl" or "onednn").  The choice is made at the first large product and holds until the
process ends, since the last bits of a product differ between libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from gpunet.backend.blas.choice import Choice
    from gpunet.backend.blas.libraries import Operand

#: Multiplications in a product from which on it may go to another library: below, calling that costs what it saves.
LEAST = 1 << 21

_chosen: Choice | None = None


def chosen() -> Choice:
    """The library of large products; the first call loads it, and the first one on a machine measures.

    Raises:
        ArgumentError: ``GPUNET_BLAS`` names no library.
        MissingDependencyError: it names one that is not installed or does not load.
    """
    global _chosen
    if _chosen is None:
        from gpunet.backend.blas import choice

        _chosen = choice.choose()
    return _chosen


def dot(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> None:
    """Write the product of a (m, k) and b (k, n), float32 or float64, into out (m, n), which overlaps neither."""
    if type(out) is numpy.ndarray and a.size * b.shape[1] >= LEAST:
        call = prepared(a, b, out)
        if call is not None:
            call()
            return
    numpy.dot(a, b, out=out)


def prepared(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> Callable[[], Any] | None:
    """The call that does what :func:`dot` does with these arrays; None where it is NumPy's."""
    if a.size * b.shape[1] < LEAST or (multiply := chosen().functions.get(out.dtype)) is None:
        return None
    left, right, product = map(_operand, (a, b, out))
    if left is None or right is None or product is None or product.transposed:
        return None
    (m, n), k = out.shape, b.shape[0]
    return multiply.prepared(m, n, k, left, right, product)


def _operand(x: numpy.ndarray) -> Operand | None:
    """How a library is told of a matrix; None where neither its rows nor its columns are contiguous."""
    from gpunet.backend.blas.libraries import operand

    rows, columns = x.shape
    row, column = (s // x.itemsize for s in x.strides)
    if column == 1 and row >= columns:
        return operand(x, row)
    return operand(x, column, transposed=True) if row == 1 and column >= rows else None
