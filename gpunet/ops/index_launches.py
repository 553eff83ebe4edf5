"""The launches of indexing with arrays: NumPy's on the CPU, kernels of ours on a GPU.

CuPy's own indexing wraps an index out of range silently.  On a GPU, kernels therefore turn the index arrays into one array of
positions, -1 for an index out of range, which is reported (see :mod:`gpunet.launch.faults`); others copy rows at positions.
The indexed tensor is seen as ``(outer, size, inner)``, where the index arrays pick along ``size``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import COPY, FILL, Tensor, contiguous
from gpunet.backend import devices
from gpunet.backend.devices import Array, real_view
from gpunet.backend.dtypes import C_TYPES, is_boolean, is_complex, is_floating, is_inexact
from gpunet.errors import GpunetError, LabelError, OutOfRangeError, ShapeError
from gpunet.launch.faults import Fault, fault_code, fault_record, report_first
from gpunet.launch.kernel import Geometry, ceil_div, elementwise_grid, kernel
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim


def elements_at(x: Array, index: tuple[Any, ...]) -> Array:
    """x[index], where slices over whole dimensions precede arrays; NumPy's ``take`` is several times as fast for one array."""
    *_, last = index
    is_single = len(index) == 1 or not devices.is_array(index[-2])
    if type(x) is numpy.ndarray and x.size and x.flags.c_contiguous and is_single and last.ndim and not is_boolean(last.dtype):
        return x.take(last, axis=len(index) - 1)
    return devices.take(x, (*index, Ellipsis))  # the Ellipsis keeps a 0-d array


TAKE = Shim("take", lambda xp, out, x, *, index: xp.copyto(out, elements_at(x, index)), widens=False)
TAKE_ROWS = Shim("take rows", lambda xp, out, x, positions: xp.take(x, positions, axis=0, out=out, mode="clip"), widens=False)
PUT = Shim(
    "put",
    lambda xp, out, value, *, index: out.__setitem__(index, value),
    on_gpu=lambda xp, out, value, *, index: devices.assign(out, value, index),
    widens=False,
)
ORDER = Shim("argsort", lambda xp, out, x: xp.copyto(out, xp.argsort(x, kind="stable")))
POSITIONS = Shim(
    "positions",
    lambda xp, out, *, index, shape, view: xp.copyto(
        out, view.of(xp.arange(math.prod(shape)).reshape(shape))[index].reshape(-1)
    ),
    reads_values=True,
)

INT64 = numpy.dtype("int64")


# ---- errors -----------------------------------------------------------------------------------------------------------


class Site(NamedTuple):
    """A function that takes indices, and how a kernel reports one of them that is out of range."""

    name: str  # as the user wrote it, for messages
    wraps: bool  # whether -1 is the last element
    code: int  # see gpunet.launch.faults
    detail: int | None = None  # one more number for the message, instead of the dimension


def _index_site(name: str, wraps: bool = True) -> Site:
    return Site(name, wraps, fault_code(lambda fault: index_error(name, fault.value, fault.detail, fault.size, wraps)))


def index_error(name: str, value: int, dim: int, size: int, wraps: bool = True) -> OutOfRangeError:
    """Return the error of an index out of range; ``dim`` has ``size`` elements, and -1 is the last one if it ``wraps``."""
    expected = f"expected {-size if wraps else 0} .. {size - 1}" if size else "the dimension is empty"
    return OutOfRangeError(f"{name}: index {value} is out of bounds for dimension {dim} with size {size}; {expected}")


def label_error(name: str, value: int, row: int, classes: int, ignore_index: int = 0) -> LabelError:
    """Return the error of a label out of range."""
    ignored = f" (or ignore_index {ignore_index})" if ignore_index else ""
    return LabelError(f"{name}: label {value} at row {row}; expected 0 .. {classes - 1} for {classes} classes{ignored}")


def label_site(name: str) -> Site:
    """Make the site of a function that takes class labels."""

    def make_error(fault: Fault) -> GpunetError:
        return label_error(name, fault.value, fault.position, fault.size, fault.detail)

    return Site(name, False, fault_code(make_error))


GETITEM, SETITEM = _index_site("x[index]"), _index_site("x[index] = value")
#: Functions that take indices from 0 only, as in PyTorch.
GATHER, INDEX_SELECT = _index_site("gather", wraps=False), _index_site("index_select", wraps=False)
EMBEDDING, EMBEDDING_BAG = _index_site("embedding", wraps=False), _index_site("embedding_bag", wraps=False)
#: Functions that write at indices, by name.
SITES = {
    name: _index_site(name, wraps=name in ("index_fill", "take", "put", "index_put"))
    for name in (
        "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "masked_scatter", "max_unpool1d", "max_unpool2d",
        "max_unpool3d", "put", "scatter", "scatter_add", "scatter_reduce", "take", "take_along_dim",
    )
}  # fmt: skip

_OUT_OF_BOUNDS = re.compile(r"(-?\d+) is out of bounds for axis (\d+) with size (\d+)")


def translate_index_error(error: IndexError, name: str, shape: tuple[int, ...], dims: Sequence[int] = ()) -> ShapeError:
    """Return our error for an IndexError of NumPy or CuPy; ``dims`` are the tensor's of the axes of the indexed array."""
    found = _OUT_OF_BOUNDS.search(str(error))
    if not found:
        return ShapeError(f"{name} of a tensor of shape {shape}: {error}")
    value, axis, size = map(int, found.groups())
    return index_error(name, value, dims[axis] if dims else axis, size)


# ---- kernels ----------------------------------------------------------------------------------------------------------


@kernel(
    "index.cu", outputs=2, types={"positions": "int64", "fault": "int64", "index": "int64"}, optional="positions",
    reads_values=True,
    updates="positions fault",
)  # fmt: skip
def index_positions(
    positions, fault, index, *, count, size, repeat, length, span, inner, continues, wraps, code, detail
):  # fmt: skip
    """positions[e] = (start * size + index) * inner + e % inner, -1 for an index out of range, which is reported.

    Args:
        positions: (count,), or None to check the range only.
        fault: see :func:`gpunet.launch.faults.fault_record`.
        index: element e takes ``index[e // repeat % length]``.
        size: of the indexed dimension.
        span: without ``continues``, start = e // span.
        continues: start = positions[e], where an earlier launch handled the dimensions before; -1 stays.
        wraps: whether indices from -size to -1 are in range.
        code, detail: see :class:`gpunet.launch.faults.Fault`.
    """
    e = numpy.arange(count)
    values = index.reshape(-1)[e // repeat % length]
    is_bad = (values >= size) | (values < (-size if wraps else 0))
    report_first(fault, is_bad, code, values, size, detail)
    if positions is not None:
        start = positions.copy() if continues else e // span
        found = (start * size + numpy.where(values < 0, values + size, values)) * inner + e % inner
        positions[:] = numpy.where(is_bad | (start < 0), -1, found)


@index_positions.geometry
def _(positions, fault, index, *, count, size, repeat, length, span, inner, continues, wraps, code, detail):
    numbers = tuple(map(numpy.int64, (count, size, repeat, length, span, inner)))
    scalars = (*numbers, numpy.bool_(wraps), numpy.int32(code), numpy.int64(detail))
    return Geometry(ceil_div(count, 256), 256, scalars, ("true" if continues else "false",))


def _bytes(array: Array) -> Array:
    """The bytes of a contiguous array, as the kernels of rows take it: they copy elements of any dtype."""
    return array.reshape(-1).view(numpy.uint8)


def _word(itemsize: int) -> numpy.dtype[Any]:
    return numpy.dtype(f"uint{8 * itemsize}")


def _rows(array: Array, rows: int, inner: int, itemsize: int) -> Array:
    """Bytes as words of shape (outer, rows, inner)."""
    return array.view(_word(itemsize)).reshape(-1, rows, inner)


@kernel("index.cu", outputs=1, types={"out": "uint8", "x": "uint8", "positions": "int64"})
def gather_rows(out, x, positions, *, size, inner, itemsize, fill):
    """out[:, j] = x[:, positions[j]], or ``fill`` for a position of -1.

    Args:
        out: bytes of an array (outer, count, inner).
        x: bytes of an array (outer, size, inner).
        positions: (count,).
        itemsize: bytes of an element.
        fill: the bits of an element, as an unsigned integer.
    """
    if out.size:
        to, is_bad = _rows(out, positions.size, inner, itemsize), positions < 0
        to[:, ~is_bad] = _rows(x, size, inner, itemsize)[:, positions[~is_bad]] if size else 0
        to[:, is_bad] = fill


@gather_rows.geometry
def _(out, x, positions, *, size, inner, itemsize, fill):
    total = out.size // itemsize
    scalars = (*map(numpy.int64, (total, positions.size, size, inner)), numpy.uint64(fill))
    return Geometry(elementwise_grid(total), 256, scalars, (C_TYPES[_word(itemsize).name],))


@kernel(
    "index.cu", outputs=1, types={"x": "uint8", "values": "uint8", "positions": "int64", "order": "int64"}, reads_values=True,
    updates="x",
)  # fmt: skip
def scatter_rows(x, values, positions, order, *, size, inner, itemsize):
    """x[:, positions[j]] = values[:, order[j]]; of equal positions the last one counts, and -1 writes nothing.

    Args:
        x: bytes of an array (outer, size, inner).
        values: bytes of an array (outer, count, inner).
        positions: (count,), sorted.
        order: (count,).
    """
    if values.size:
        first = int(numpy.searchsorted(positions, 0))
        if first < positions.size:
            to, values = _rows(x, size, inner, itemsize), _rows(values, positions.size, inner, itemsize)
            to[:, positions[first:]] = values[:, order[first:]]


@scatter_rows.geometry
def _(x, values, positions, order, *, size, inner, itemsize):
    total = values.size // itemsize
    scalars = tuple(map(numpy.int64, (total, positions.size, size, inner)))
    return Geometry(elementwise_grid(total), 256, scalars, (C_TYPES[_word(itemsize).name],))


@kernel("scatter.cu", outputs=1, types={"positions": "int64", "order": "int64"}, reads_values=True, updates="out")
def add_rows(out, values, positions, order):
    """out[:, positions[j]] += values[:, order[j]], summed in the order of j for equal positions; -1 adds nothing.

    out (n,) or (outer, n, inner); values (m,) or (outer, m, inner); positions (sorted), order (m,).
    """
    if out.ndim == 1:
        numpy.add.at(out, positions, values[order])
        return
    skipped = int(numpy.searchsorted(positions, 0))
    positions, order = positions[skipped:], order[skipped:]
    if not positions.size:
        return
    starts = numpy.flatnonzero(numpy.concatenate(([True], positions[1:] != positions[:-1])))
    lengths = numpy.diff(starts, append=positions.size)
    longest_first = numpy.argsort(-lengths, kind="stable")
    starts, lengths = starts[longest_first], lengths[longest_first]
    places = positions[starts]
    sums = out[:, places]
    num_longer = numpy.searchsorted(-lengths, -numpy.arange(lengths[0]), side="left")  # than k, for each k
    # the k-th values of all places at once, as long as there are several
    num_rounds = int(numpy.count_nonzero(num_longer >= 4))
    for k in range(num_rounds):
        sums[:, : num_longer[k]] += values[:, order[starts[: num_longer[k]] + k]]
    for place in range(num_longer[num_rounds] if num_rounds < lengths[0] else 0):
        rest = values[:, order[starts[place] + num_rounds : starts[place] + lengths[place]]]
        numpy.add.reduce(numpy.concatenate((sums[:, place : place + 1], rest), axis=1), axis=1, out=sums[:, place])
    out[:, places] = sums


@add_rows.geometry
def _(out, values, positions, order):
    size, inner = out.shape[-2:] if out.ndim == 3 else (out.size, 1)
    scalars = tuple(map(numpy.int64, (values.size, positions.size, size, inner)))
    return Geometry(ceil_div(values.size, 256), 256, scalars)


def _add_integers(xp: Any, out: Array, values: Array, positions: Array, order: Array) -> None:
    """What :func:`add_rows` does, for integers: differences of cumulative sums, which wrap around as the sums do."""
    target, source = (out, values) if out.ndim == 3 else (out.reshape(1, -1, 1), values.reshape(1, -1, 1))
    sums = xp.zeros((source.shape[0], source.shape[1] + 1, source.shape[2]), out.dtype)
    sums[:, 1:] = xp.cumsum(source[:, order], axis=1, dtype=out.dtype)
    ends = xp.searchsorted(positions, xp.arange(target.shape[1] + 1))
    target += sums[:, ends[1:]] - sums[:, ends[:-1]]


INTEGER_ADD = Shim("add_integers", _add_integers, reads_values=True)


# ---- the order of an index --------------------------------------------------------------------------------------------


class View(NamedTuple):
    """The part of an index that gives a view: numbers, slices and None, then a transposition."""

    basic: tuple[Any, ...]  # empty if it changes nothing
    axes: tuple[int, ...]  # empty if it changes nothing

    def of(self, array: Array) -> Array:
        """The view of an array."""
        array = array[self.basic] if self.basic else array
        return array.transpose(self.axes) if self.axes else array


_NO_VIEW = View((), ())


class Resolved(NamedTuple):
    """An index in PyTorch's order: numbers, slices and None give a view; arrays pick from adjacent dimensions of it."""

    view: View
    before: int  # number of dimensions of the view before those that are picked from
    arrays: tuple[Array, ...]  # of integers, or masks, which stand for as many dimensions as they have
    dims: tuple[int, ...]  # the tensor's dimension of each dimension that is picked from; -1 for a new one

    @property
    def picks(self) -> tuple[Any, ...]:
        """The index arrays as an index of the view, for NumPy and CuPy."""
        return (slice(None),) * self.before + self.arrays


def resolve(array: Array, index: tuple[Any, ...], name: str) -> Resolved:
    """Order a normalized index with index arrays.

    The dimensions that arrays pick stand where the arrays are, if these are adjacent, else first.  A number or an array
    without dimensions selects before: it is not counted, nor does it separate arrays.

    Args:
        name: of the user's function, for messages.

    Raises:
        ShapeError: too many indices, or a mask of another shape than the dimensions that it indexes.
        OutOfRangeError: a number is out of range.
    """
    shape = array.shape
    leading = tuple([item.array for item in index if isinstance(item, Tensor)])
    if len(leading) == len(index) <= len(shape) and not any(is_boolean(item.dtype) for item in leading):
        return Resolved(_NO_VIEW, 0, leading, tuple(range(len(leading))))  # fast path: arrays only
    items = [item.array if isinstance(item, Tensor) else item for item in index]
    used = sum(_width(item) for item in items)
    if used > len(shape):
        raise ShapeError(f"{name}: {used} indices for a tensor of shape {tuple(shape)}; expected at most {len(shape)}")
    if sum(item is Ellipsis for item in items) > 1:
        raise ShapeError(f"{name}: more than one ... in the index; expected at most one")
    basic: list[Any] = []
    arrays: list[Array] = []
    dims: list[int] = []  # of ``array``, for each dimension that an index array picks from
    axes: list[int] = []  # the same dimensions, of the view
    pinned: list[int] = []  # those of arrays that have dimensions
    axis = dim = 0
    for item in items:
        if isinstance(item, (bool, numpy.bool_)):  # a new dimension of one element, which is picked or not
            basic.append(None)
            arrays.append(devices.module(array).zeros(int(item), INT64))
            dims.append(-1)
        elif isinstance(item, (int, numpy.integer)):
            if not -shape[dim] <= item < shape[dim]:
                raise index_error(name, int(item), dim, shape[dim])
            basic.append(item)
            dim += 1
            continue
        elif devices.is_array(item):
            width = _width(item)
            if is_boolean(item.dtype) and item.shape != shape[dim : dim + width]:
                expected = shape[dim : dim + width]
                raise ShapeError(f"{name}: a mask of shape {item.shape} for dimensions of shape {expected}; expected equal shapes")
            basic += [slice(None)] * width
            arrays.append(item)
            dims += range(dim, dim + width)
            dim += width
        else:
            width = len(shape) - used if item is Ellipsis else 1
            basic += [slice(None)] * width if item is Ellipsis else [item]
            axis, dim = axis + width, dim + (0 if item is None else width)
            continue
        picked = range(axis, axis + len(dims) - len(axes))
        pinned += picked if arrays[-1].ndim else ()
        axes += picked
        axis += len(picked)
    rest = [a for a in range(axis + len(shape) - dim) if a not in axes]
    first, last = (pinned[0], pinned[-1]) if pinned else (axes[0], axes[0])
    before = sum(a < first for a in rest)
    if any(first < a < last for a in rest):  # separated
        before = 0
    order = (*rest[:before], *axes, *rest[before:])
    changes = any(not isinstance(item, slice) or item != slice(None) for item in basic)
    view = View(tuple(basic) if changes else (), order if order != tuple(range(len(order))) else ())
    return Resolved(view, before, tuple(arrays), tuple(dims))


def _width(item: Any) -> int:
    """The number of dimensions that an item of an index stands for; 0 for an Ellipsis."""
    if item is None or item is Ellipsis or isinstance(item, (bool, numpy.bool_)):
        return 0
    return item.ndim if devices.is_array(item) and is_boolean(item.dtype) else 1


# ---- an index on a GPU ------------------------------------------------------------------------------------------------


class Along(NamedTuple):
    """First item of the index ``(Along(dim), array)`` of gather: the array indexes ``dim``, other dimensions stay."""

    dim: int


def needs_kernels(index: tuple[Any, ...]) -> bool:
    """Whether kernels of ours index an array on a GPU: unless the index is a view's, or has one mask, which is in range."""
    arrays = [i for i in index if isinstance(i, (Along, Tensor, bool, numpy.bool_))]
    return len(arrays) > 1 or (len(arrays) == 1 and not (isinstance(arrays[0], Tensor) and is_boolean(arrays[0].dtype)))


class Picked(NamedTuple):
    """How index arrays pick from an array."""

    source: Array  # a view of it, of shape (outer, size, inner) once flattened; positions are picked along size
    outer: int
    size: int
    inner: int
    shape: tuple[int, ...]  # of the result: (outer, positions, inner) once flattened
    index_shape: tuple[int, ...]  # that the index arrays broadcast to; its elements are the positions
    arrays: list[tuple[Array, int, int]]  # index array, dimension that it indexes, size of that
    along: int | None = None  # of gather, the number of elements behind the dimension

    @property
    def num_positions(self) -> int:
        return math.prod(self.index_shape)


def pick(array: Array, index: tuple[Any, ...], site: Site) -> Picked:
    """Resolve an index with index arrays in PyTorch's order.

    Raises:
        ShapeError: too many indices, or index arrays that do not broadcast.
        OutOfRangeError: a Python number is out of range.
    """
    with devices.on_device_of(array):
        if isinstance(index[0], Along):
            return _pick_along(array, index[0].dim, index[1].array)
        return _pick(array, index, site)


def _pick_along(array: Array, dim: int, index: Array) -> Picked:
    shape = index.shape
    source = array
    if any(n < array.shape[d] for d, n in enumerate(shape) if d != dim):
        source = array[tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(shape))]
    arrays = [(index, dim, array.shape[dim])]
    return Picked(source, 1, source.size, 1, shape, shape, arrays, math.prod(shape[dim + 1 :]))


def _pick(array: Array, index: tuple[Any, ...], site: Site) -> Picked:
    found, xp = resolve(array, index, site.name), devices.module(array)
    arrays: list[Array] = []
    for item in found.arrays:
        arrays += xp.nonzero(item) if is_boolean(item.dtype) else [item]
    source, before, behind = found.view.of(array), found.before, found.before + len(arrays)
    index_shape = broadcast_index_shapes([a.shape for a in arrays], site.name)
    outer, sizes, inner = source.shape[:before], source.shape[before:behind], source.shape[behind:]
    return Picked(
        source, math.prod(outer), math.prod(sizes), math.prod(inner), (*outer, *index_shape, *inner), index_shape,
        [*zip(arrays, found.dims, sizes, strict=True)],
    )  # fmt: skip


def broadcast_index_shapes(shapes: Sequence[tuple[int, ...]], name: str) -> tuple[int, ...]:
    """Return the shape that index arrays of these shapes broadcast to.

    Raises:
        ShapeError: they do not.
    """
    try:
        return numpy.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"{name}: index arrays of shapes {', '.join(map(str, shapes))} do not broadcast") from None


def _broadcast_index(index: Array, shape: tuple[int, ...]) -> tuple[Array, int]:
    """Return (flat, repeat): the index broadcast to ``shape`` has ``flat[e // repeat % flat.size]`` at flat position e."""
    own = (1,) * (len(shape) - index.ndim) + index.shape
    differs = [axis for axis, n in enumerate(own) if n != 1]
    low, high = (differs[0], differs[-1] + 1) if differs else (0, 0)
    if own[low:high] == shape[low:high]:
        return index, math.prod(shape[high:])
    out = empty(shape, index.dtype, index)
    COPY(out, index)
    return out, 1


def _positions(picked: Picked, site: Site) -> Array:
    """Launch index_positions for each index array."""
    count = picked.num_positions
    positions = empty((count,), INT64, picked.source)
    for number, (index, dim, size) in enumerate(picked.arrays):
        flat, repeat = _broadcast_index(index, picked.index_shape)
        inner = 1 if picked.along is None else picked.along
        span = count if picked.along is None else inner * picked.index_shape[dim]
        detail = dim if site.detail is None else site.detail
        _launch_positions(positions, flat, count, site, size, detail, repeat, span, inner, number > 0)
    return positions


def _launch_positions(
    positions: Array | None, index: Array, count: int, site: Site, size: int, detail: int, repeat: int = 1, span: int = 1,
    inner: int = 1, continues: bool = False,
) -> None:  # fmt: skip
    if not count:
        return
    if index.dtype != INT64:
        converted = empty(index.shape, INT64, index)
        COPY(converted, index)
        index = converted
    index_positions(
        positions, fault_record(index), contiguous(index), count=count, size=size, repeat=repeat, length=index.size, span=span,
        inner=inner, continues=continues, wraps=site.wraps, code=site.code, detail=detail,
    )  # fmt: skip


def check_labels(labels: Array, classes: int, site: Site) -> None:
    """Report labels on a GPU that are not in 0 .. classes - 1; the error is raised when the host next waits."""
    _launch_positions(None, labels, labels.size, site, classes, 0)


def _gather(out: Array, x: Array, positions: Array, size: int, inner: int) -> None:
    out, x, inner = _numbers(out), _numbers(x), _width_of(x, inner)
    bits = numpy.array(numpy.nan, x.dtype).view(_word(x.itemsize)) if is_floating(x.dtype) else 0
    gather_rows(_bytes(out), _bytes(x), positions, size=size, inner=inner, itemsize=x.itemsize, fill=int(bits))


def _numbers(array: Array) -> Array:
    """A contiguous array as our kernels move it: a complex number is two numbers side by side."""
    return real_view(array) if is_complex(array.dtype) else array


def _width_of(array: Array, inner: int) -> int:
    """The numbers that lie side by side in ``inner`` elements."""
    return 2 * inner if is_complex(array.dtype) else inner


def _sorted(positions: Array) -> tuple[Array, Array]:
    """Return the positions in ascending order, and their stable order."""
    order, ascending = (empty(positions.shape, INT64, positions) for _ in range(2))
    ORDER(order, positions)
    _gather(ascending, positions, order, positions.size, 1)
    return ascending, order


def _positions_on_cpu(picked: Picked, site: Site) -> Array:
    """The positions as NumPy finds them."""
    positions = empty((picked.num_positions,), INT64, picked.source)
    arrays, sizes = tuple([array for array, _, _ in picked.arrays]), tuple([size for _, _, size in picked.arrays])
    try:
        POSITIONS(positions, index=arrays, shape=sizes, view=_NO_VIEW)
    except IndexError as error:
        raise translate_index_error(error, site.name, sizes, [dim for _, dim, _ in picked.arrays]) from None
    return positions


def _sorted_on_cpu(positions: Array) -> tuple[Array, Array]:
    """What :func:`_sorted` returns, by NumPy's or CuPy's own indexing."""
    order, ascending = (empty(positions.shape, INT64, positions) for _ in range(2))
    ORDER(order, positions)
    TAKE(ascending, positions, index=(order,))
    return ascending, order


@contextmanager
def _contiguous_target(picked: Picked) -> Iterator[Array]:
    """The picked view itself, or a contiguous copy that is written back to it."""
    if picked.source.flags.c_contiguous:
        yield picked.source
    else:
        copy = contiguous(picked.source)
        yield copy
        COPY(picked.source, copy)


# ---- indexing ---------------------------------------------------------------------------------------------------------


def take(x: Array, index: tuple[Any, ...], site: Site) -> Array:
    """x[index] on a GPU, for index arrays: a new array."""
    picked = pick(x, index, site)
    out = empty(picked.shape, x.dtype, x)
    _gather(out, contiguous(picked.source), _positions(picked, site), picked.size, picked.inner)
    return out


def put(x: Array, value: Any, index: tuple[Any, ...], site: Site) -> None:
    """x[index] = value on a GPU, for index arrays; the last of equal indices counts.

    Args:
        value: an array that broadcasts to x[index], or a number.
    """
    picked = pick(x, index, site)
    if not devices.is_array(value) or value.shape != picked.shape or value.dtype != x.dtype:
        values = empty(picked.shape, x.dtype, x)
        COPY(values, value) if devices.is_array(value) else FILL(values, value=value)
    else:
        values = contiguous(value)
    ascending, order = _sorted(_positions(picked, site))
    with _contiguous_target(picked) as target:
        options = {"size": picked.size, "inner": _width_of(x, picked.inner), "itemsize": _numbers(values).itemsize}
        scatter_rows(_bytes(target), _bytes(values), ascending, order, **options)


def add_at(out: Array, values: Array, index: tuple[Any, ...], site: Site) -> None:
    """out[index] += values, where ``index`` may repeat an element; the order of summation is fixed.

    A stable argsort of the positions lets one thread sum the values of an element in their original order.
    """
    # all launches, so that a replay recomputes the positions when the indices (argmax, labels) have changed
    add = add_rows if is_inexact(out.dtype) else INTEGER_ADD
    on_cpu = type(out) is numpy.ndarray
    if not on_cpu and not needs_kernels(index) and not is_complex(out.dtype):
        ascending, order = _sorted_on_cpu(flat_positions(out, values.size, index, site))
        add(out.reshape(-1), contiguous(values).reshape(-1), ascending, order)
        return
    picked = pick(out, index, site)
    ascending, order = _sorted_on_cpu(_positions_on_cpu(picked, site)) if on_cpu else _sorted(_positions(picked, site))
    inner = _width_of(out, picked.inner)
    with _contiguous_target(picked) as target:
        target, rows = _numbers(target), _numbers(contiguous(values)).reshape(picked.outer, picked.num_positions, inner)
        if picked.outer == inner == 1:
            add(target.reshape(-1), rows.reshape(-1), ascending, order)
        else:
            add(target.reshape(picked.outer, picked.size, inner), rows, ascending, order)


# ---- rows of a table --------------------------------------------------------------------------------------------------


def row_positions(index: Array, rows: int, site: Site) -> Array:
    """The index, int64, as positions of rows: on a GPU those out of range are reported and -1; on the CPU they are in range."""
    if type(index) is numpy.ndarray:
        return index.reshape(-1)
    positions = empty((index.size,), INT64, index)
    _launch_positions(positions, index, index.size, site, rows, 0, span=index.size)
    return positions


def take_rows(out: Array, x: Array, positions: Array) -> None:
    """out[j] = x[positions[j]]; NaN for a position of -1.  x (rows, columns)."""
    if type(x) is numpy.ndarray:
        TAKE_ROWS(out.reshape(positions.size, x.shape[1]), x, positions)
    else:
        _gather(out, x, positions, *x.shape)


def add_at_rows(out: Array, values: Array, positions: Array) -> None:
    """out[positions[j]] += values[j], in a fixed order; -1 adds nothing.  out (rows, columns), values (count, columns)."""
    ascending, order = (_sorted_on_cpu if type(out) is numpy.ndarray else _sorted)(positions)
    add_rows(out.reshape(1, *out.shape), values.reshape(1, positions.size, out.shape[1]), ascending, order)


def flat_positions(x: Array, count: int, index: tuple[Any, ...], site: Site) -> Array:
    """The positions, in the flattened x, of the ``count`` elements of x[index]; arrays of the index pick single elements."""
    if type(x) is not numpy.ndarray and needs_kernels(index):
        return _positions(pick(x, index, site), site)
    found = resolve(x, index, site.name)
    positions = empty((count,), INT64, x)
    try:
        POSITIONS(positions, index=found.picks, shape=x.shape, view=found.view)
    except IndexError as error:
        raise translate_index_error(error, site.name, x.shape, (*range(found.before), *found.dims)) from None
    return positions
