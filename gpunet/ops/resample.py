"""Linear maps along one dimension whose rows have few elements: interpolation, and means of parts of a dimension.

A :class:`Table` has the elements and weights of each element of the result.  Its transpose is a table as well, so the gradient is
the same launch, of any order.  A map along several dimensions is one launch for each: a bilinear interpolation of an image is a
linear one of its columns and one of its rows.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import Tensor, contiguous, primitive
from gpunet.backend import blas, devices
from gpunet.backend.dtypes import accumulator
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import empty, scratch
from gpunet.launch.tape import constant


class Table:
    """A sparse matrix (rows, columns) with at most k elements in each row.

    Args:
        index: (rows, k), int; the columns of the elements.  A column may stand in a row several times.
        weight: (rows, k), float64.
        columns: how many there are.
    """

    def __init__(self, index: ndarray, weight: ndarray, columns: int) -> None:
        self.index, self.weight, self.columns = numpy.ascontiguousarray(index, numpy.int32), weight, columns
        self._moved: dict[Any, tuple[Any, Any]] = {}

    @property
    def rows(self) -> int:
        return len(self.index)

    @functools.cached_property
    def transposed(self) -> Table:
        """The transpose, whose rows have their elements in ascending order of columns."""
        rows = numpy.repeat(numpy.arange(self.rows), self.index.shape[1])
        columns, weights = self.index.reshape(-1), self.weight.reshape(-1)
        order = numpy.argsort(columns[weights != 0], kind="stable")
        rows, columns, weights = (a[weights != 0][order] for a in (rows, columns, weights))
        counts = numpy.bincount(columns, minlength=self.columns)
        place = numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        index = numpy.zeros((self.columns, max(1, counts.max(initial=0))), numpy.int32)
        weight = numpy.zeros(index.shape)
        index[columns, place], weight[columns, place] = rows, weights
        found = Table(index, weight, self.rows)
        found.__dict__["transposed"] = self
        return found

    def on(self, device: devices.Device, dtype: numpy.dtype[Any]) -> tuple[Any, Any]:
        """Index and weight on a device; weight of this dtype."""
        if (device, dtype) not in self._moved:
            self._moved[device, dtype] = tuple(devices.move(a, device) for a in (self.index, self.weight.astype(dtype)))
        return self._moved[device, dtype]


# ---- tables -----------------------------------------------------------------------------------------------------------


def spans_table(starts: ndarray, ends: ndarray, counts: ndarray, columns: int) -> Table:
    """The table of sums from ``starts`` up to ``ends``, divided by ``counts``; all (rows,)."""
    taps = numpy.arange(max(1, (ends - starts).max(initial=0)))
    index, inside = starts[:, None] + taps, taps < (ends - starts)[:, None]
    return Table(numpy.where(inside, index, 0), inside / counts[:, None], columns)


# ---- the kernel -------------------------------------------------------------------------------------------------------

#: Columns up to which a product with the dense matrix is faster than a pass for each element of a row.
_DENSE_COLUMNS = 128


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
    if index.shape[1] > 1 and x.shape[1] <= _DENSE_COLUMNS and _multiply_dense(y, x, index, weight):
        return
    part = scratch(y.shape, y.dtype, 2)
    for k in range(index.shape[1]):
        numpy.take(x, index[:, k], axis=1, out=part if k else y, mode="clip")
        of_rows = weight[:, k]
        if not of_rows.all():
            (part if k else y)[:, of_rows == 0] = 0
        if (of_rows != 1).any():
            numpy.multiply(part if k else y, of_rows[:, None], out=part if k else y)
        if k:
            y += part


@resample_rows.geometry
def _(y, x, index, weight):
    rows, taps = index.shape
    scalars = (numpy.int64(y.size), numpy.int64(x.shape[2]), x.shape[1], rows, taps)
    return Geometry(elementwise_grid(y.size, per_thread=1), 256, scalars)


@primitive(name="interpolate")
def _resample(x, *, dim, table):
    shape = x.array.shape
    out = empty((*shape[:dim], table.rows, *shape[dim + 1 :]), x.dtype, x.array)
    index, weight = (constant(a) for a in table.on(devices.of(x.array), accumulator(x.dtype)))
    outer, inner = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    source = contiguous(x.array).reshape(outer, shape[dim], inner)
    resample_rows(out.reshape(outer, table.rows, inner), source, index, weight)
    return out


_resample.derivatives(x=lambda g, dim, table: _resample(g, dim=dim, table=table.transposed))


def resample(x: Tensor, dim: int, table: Table) -> Tensor:
    """The product of a table and a floating tensor along a dimension, which has ``table.columns`` elements."""
    return _resample(x, dim=dim % x.ndim, table=table)
