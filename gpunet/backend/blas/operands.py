"""How BLAS sees a matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy


class Operand(NamedTuple):
    """A matrix as BLAS sees it."""

    array: numpy.ndarray
    transposed: bool  # stored column-major
    leading_dimension: int  # elements from one stored row to the next


def operand(x: numpy.ndarray) -> Operand | None:
    """Describe a matrix as a BLAS operand; None if neither its rows nor its columns are contiguous."""
    (rows, columns), (row, column), size = x.shape, x.strides, x.itemsize
    if column == size and row >= columns * size:
        return Operand(x, False, row // size)
    return Operand(x, True, column // size) if row == size and column >= rows * size else None
