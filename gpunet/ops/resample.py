"""Linear maps along one dimension whose rows have few elements: interpolation, and means of parts of a dimension.

A :class:`Table` tells the elements and weights of each element of the result.  Its transpose is a table as well, so the gradient is
the same launch, of any order.  A map along several dimensions is one launch for each: a bilinear interpolation of an image is a
linear one of its columns and one of its rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.autograd import Tensor, contiguous, primitive
from gpunet.backend import blas, devices
from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import empty, scratch
from gpunet.launch.tape import constant


class Rows(NamedTuple):
    """A sparse matrix (rows, columns) with at most k elements in each row."""

    places: ndarray  # (rows, k), int32: the columns of the elements; a column may stand in a row several times
    weights: ndarray  # (rows, k), float64: the elements
    columns: int

    def transposed(self) -> Rows:
        """The transpose, whose rows have their elements in ascending order of columns."""
        columns, weights = self.places.reshape(-1), self.weights.reshape(-1)
        order = numpy.argsort(columns[weights != 0], kind="stable")
        rows = numpy.repeat(numpy.arange(len(self.places)), self.places.shape[1])
        rows, columns, weights = (a[weights != 0][order] for a in (rows, columns, weights))
        counts = numpy.bincount(columns, minlength=self.columns)
        place = numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        index = numpy.zeros((self.columns, max(1, counts.max(initial=0))), numpy.int32)
        weight = numpy.zeros(index.shape)
        index[columns, place], weight[columns, place] = rows, weights
        return Rows(index, weight, len(self.places))


class Table(NamedTuple):
    """A sparse matrix by what it is made from: plain values, so that it can be an option of an op.

    Attributes:
        make: a function that returns its :class:`Rows`.
        arguments: of that function; they can be hashed.
        is_transposed: whether the matrix is the transpose of those rows.
    """

    make: Callable[..., Rows]
    arguments: tuple[Any, ...]
    is_transposed: bool = False

    @property
    def transposed(self) -> Table:
        return self._replace(is_transposed=not self.is_transposed)


@functools.lru_cache(maxsize=256)
def rows_of(table: Table) -> Rows:
    """The rows of a table."""
    rows = table.make(*table.arguments)
    rows = rows._replace(places=numpy.ascontiguousarray(rows.places, numpy.int32))
    return rows.transposed() if table.is_transposed else rows


@functools.lru_cache(maxsize=256)
def _moved(table: Table, device: devices.Device, dtype: numpy.dtype[Any]) -> tuple[Any, Any]:
    """Index and weight of a table on a device; weight of this dtype."""
    rows = rows_of(table)
    return devices.move(rows.places, device), devices.move(rows.weights.astype(dtype), device)


def cubic_weights(t: Any) -> list[Any]:
    """The weights of the elements at -1, 0, 1 and 2 for positions t in [0, 1], an array or a tensor (Keys 1981, a = -0.75)."""
    a = -0.75
    found = []
    for offset in (-1, 0, 1, 2):
        d = (t - offset) if offset < 1 else (offset - t)
        inner = ((a + 2) * d - (a + 3)) * d * d + 1
        outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        found.append(inner if offset in (0, 1) else outer)
    return found


def span_rows(starts: ndarray, ends: ndarray, counts: ndarray, columns: int) -> Rows:
    """The rows of sums from ``starts`` up to ``ends``, divided by ``counts``; all (rows,)."""
    taps = numpy.arange(max(1, (ends - starts).max(initial=0)))
    index, inside = starts[:, None] + taps, taps < (ends - starts)[:, None]
    return Rows(numpy.where(inside, index, 0), inside / counts[:, None], columns)


# ---- the kernel -------------------------------------------------------------------------------------------------------

#: Columns up to which, and elements of a row from which on, a product with the dense matrix is faster than a pass for each element.
_DENSE_COLUMNS, _DENSE_ELEMENTS = 128, 1.5


def _dense(index: ndarray, weight: ndarray, columns: int) -> ndarray:
    """The matrix (rows, columns) of a table."""
    matrix = scratch((len(index), columns), weight.dtype, 1)
    matrix.fill(0)
    numpy.add.at(matrix, (numpy.arange(len(index))[:, None], index), weight)
    return matrix


def _multiply_dense(y: ndarray, x: ndarray, index: ndarray, weight: ndarray) -> bool:
    """y = the product with the dense matrix.  Return False if it meets an infinite or NaN element, which 0 does not erase."""
    matrix = _dense(index, weight, x.shape[1])
    if x.shape[2] == 1:
        blas.dot(x[:, :, 0], matrix.T, out=y[:, :, 0])
    else:
        numpy.matmul(matrix, x, out=y)
    return bool(numpy.isfinite(numpy.add.reduce(y, axis=None)))


@kernel("resample.cu", outputs=1, types={"index": "int32", "weight": "A"}, reads_values=True)
def resample_rows(y, x, index, weight):
    """y[o, r, i] = the sum over k of weight[r, k] x[o, index[r, k], i], without those whose weight is 0.

    x (outer, columns, inner), index and weight (rows, k) -> y (outer, rows, inner).
    """
    if not y.size:
        return
    is_dense = x.shape[1] <= _DENSE_COLUMNS and numpy.count_nonzero(weight) > _DENSE_ELEMENTS * len(weight)
    if is_dense and _multiply_dense(y, x, index, weight):
        return
    for k in range(index.shape[1]):
        (rows,) = numpy.nonzero(weight[:, k])
        is_whole, factors = len(rows) == len(weight), weight[rows, k]
        if not k and not is_whole:
            y.fill(0)
        part = scratch((len(y), len(rows), y.shape[2]), y.dtype, 2) if k or not is_whole else y
        numpy.take(x, index[rows, k], axis=1, out=part, mode="clip")
        if (factors != 1).any():
            part *= factors[:, None]
        if k and is_whole:
            y += part
        elif part is not y:
            y[:, rows] += part


@resample_rows.geometry
def _(y, x, index, weight):
    rows, taps = index.shape
    scalars = (numpy.int64(y.size), numpy.int64(x.shape[2]), x.shape[1], rows, taps)
    return Geometry(elementwise_grid(y.size, per_thread=1), 256, scalars)


@primitive(name_from=lambda options: options["function"])
def _resample(x, *, dim, table, function):
    shape, rows = x.array.shape, len(rows_of(table).places)
    out = empty((*shape[:dim], rows, *shape[dim + 1 :]), x.dtype, x.array)
    index, weight = (constant(a) for a in _moved(table, devices.of(x.array), accumulator(x.dtype)))
    outer, inner = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    source = contiguous(x.array).reshape(outer, shape[dim], inner)
    resample_rows(out.reshape(outer, rows, inner), source, index, weight)
    return out


_resample.derivatives(x=lambda g, dim, table, function: _resample(g, dim=dim, table=table.transposed, function=function))


def resample(function: str, x: Tensor, dim: int, table: Table) -> Tensor:
    """The product of a table and a floating tensor along a dimension, which has as many elements as the table columns.

    Args:
        function: what the user calls, for messages.
    """
    return _resample(x, dim=dim % x.ndim, table=table, function=function)
