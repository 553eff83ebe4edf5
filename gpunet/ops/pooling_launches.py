"""The kernels of pooling and the ops on them.

A tensor (batch, channels, ...) is pooled along its last one, two or three dimensions, its plane.  All kernels see planes of three
dimensions, of which the first ones may have one element.  Max pooling saves the place of each maximum; backward gathers: a pixel
adds the gradients of the windows whose maximum it is, in the order of the windows.  A mean is linear, so its backward divides
and gathers likewise.

Adaptive pooling divides a dimension of n elements into m windows: window i has the elements floor(i n / m) up to
ceil((i + 1) n / m).  If m divides n, these are windows at equal distances; otherwise windows may overlap by one element.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.autograd import fused, make_tensor
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import int32
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.loops import Loops
from gpunet.launch.memory import empty, scratch
from gpunet.ops.gemm import DIVISOR, divisor
from gpunet.ops.index import GATHER, gather_at
from gpunet.ops.pooling_loops import halving_loop, spread_loop
from gpunet.ops.resample import Rows, Table, resample, span_rows
from gpunet.ops.shape import _reshape

Triple = tuple[int, int, int]


class Windows(NamedTuple):
    """The windows of a plane; triples are (depth, height, width)."""

    dims: int  # of the tensor's plane: its extents are the last ones of ``extent``
    extent: Triple  # of the plane
    size: Triple  # how many windows there are
    taps: Triple  # elements of a window; the most of them if adaptive
    stride: Triple
    padding: Triple  # on both sides
    dilation: Triple
    is_adaptive: bool = False

    def spans(self, axis: int) -> tuple[ndarray, ndarray]:
        """The first element of each window of a dimension without dilation, and the first one behind it."""
        n, m = self.extent[axis], self.size[axis]
        numbers = numpy.arange(m)
        if self.is_adaptive:
            return numbers * n // m, -(-(numbers + 1) * n // m)
        starts = numbers * self.stride[axis] - self.padding[axis]
        return starts, starts + self.taps[axis]

    def elements(self, axis: int, window: int) -> slice:
        """The elements of a window along a dimension."""
        if self.is_adaptive:
            starts, ends = self.spans(axis)
            return slice(int(starts[window]), int(ends[window]))
        start, step = window * self.stride[axis] - self.padding[axis], self.dilation[axis]
        end = min(start + step * (self.taps[axis] - 1) + 1, self.extent[axis])
        return slice(start if start >= 0 else start % step, end, step)

    @property
    def are_halves(self) -> bool:
        """Whether these are 2 x 2 windows at stride 2, all inside the plane."""
        is_inside = all(2 * count <= extent for count, extent in zip(self.size[1:], self.extent[1:]))
        return self[3:] == ((1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1), False) and is_inside

    @property
    def num_taps(self) -> int:
        return math.prod(self.taps)


def padded(dims: int, numbers: Sequence[int], fill: int) -> Triple:
    """Numbers of ``dims`` dimensions as those of three."""
    depth, height, width = (*(fill,) * (3 - dims), *numbers)
    return depth, height, width


def adaptive_windows(dims: int, extent: Triple, size: Triple) -> Windows:
    """Windows that divide each dimension of a plane into so many parts."""
    if all(n % m == 0 for n, m in zip(extent, size)):
        taps = padded(3, [n // m for n, m in zip(extent, size)], 1)
        return Windows(dims, extent, size, taps, taps, (0, 0, 0), (1, 1, 1))
    found = Windows(dims, extent, size, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), True)
    spans = [found.spans(axis) for axis in range(3)]
    return found._replace(taps=padded(3, [int((ends - starts).max()) for starts, ends in spans], 1))


class Divisors(NamedTuple):
    """What the sum of a window is divided by."""

    counts_padding: bool = True  # the number of its elements counts those of the padding
    number: int = 0  # if not 0, it is divided by this number instead


# ---- twins ------------------------------------------------------------------------------------------------------------
# NumPy is fast on long rows, and rows of windows are short.  A maximum therefore copies the elements of one tap of all windows
# to contiguous memory, and compares those.  A sum takes one dimension after the other.

#: Bytes of a tap of the planes that are processed at once: a few arrays of this size stay in the L2 cache.
_CHUNK_BYTES = 1 << 18


def _planes(array: Array, extent: Triple) -> Array:
    """The planes of an array as (planes, depth, height, width)."""
    return array.reshape(array.size // max(1, math.prod(extent)), *extent)


def covered_windows(windows: Windows, axis: int, tap: int) -> tuple[slice, slice]:
    """The windows whose tap lies in the plane, and the elements that it reads there."""
    stride, count = windows.stride[axis], windows.size[axis]
    first = tap * windows.dilation[axis] - windows.padding[axis]
    low = min(count, max(0, -(first // stride)))
    high = max(low, min(count, (windows.extent[axis] - 1 - first) // stride + 1))
    start = max(0, first + low * stride)
    return slice(low, high), slice(start, start + max(0, (high - low - 1) * stride + 1) * (high > low), stride)


def _taps(windows: Windows) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Yield for each tap the index of the windows that have it, and the index of their elements."""
    if windows.is_adaptive:  # a window with fewer taps repeats its last one
        spans = [windows.spans(axis) for axis in range(3)]
        everything = (slice(None), *(slice(0, count) for count in windows.size))
        for tap in numpy.ndindex(*windows.taps):
            yield everything, (slice(None), *numpy.ix_(*(numpy.minimum(a + t, b - 1) for (a, b), t in zip(spans, tap))))
        return
    covered = [[covered_windows(windows, axis, tap) for tap in range(windows.taps[axis])] for axis in range(3)]
    for tap in numpy.ndindex(*windows.taps):
        of_axes = [covered[axis][t] for axis, t in enumerate(tap)]
        yield (slice(None), *(place for place, _ in of_axes)), (slice(None), *(source for _, source in of_axes))


def _is_whole(place: tuple[Any, ...], windows: Windows) -> bool:
    return all(part.stop - part.start == count for part, count in zip(place[1:], windows.size))


@functools.lru_cache(maxsize=64)
def _positions(windows: Windows) -> tuple[ndarray, ndarray]:
    """(by tap, by window): the element of a tap lies at their sum in the plane, unless windows are adaptive."""
    _, height, width = windows.extent
    unit = (height * width, width, 1)
    of_tap, of_window = numpy.zeros((1,), numpy.int32), numpy.zeros((1,), numpy.int32)
    for axis in range(3):
        steps = numpy.arange(windows.taps[axis]) * windows.dilation[axis] * unit[axis]
        of_tap = numpy.add.outer(of_tap, steps).reshape(-1).astype(numpy.int32)
        starts = (numpy.arange(windows.size[axis]) * windows.stride[axis] - windows.padding[axis]) * unit[axis]
        of_window = numpy.add.outer(of_window, starts).reshape(-1).astype(numpy.int32)
    return of_tap, of_window


def _place_of_taps(index: ndarray, number: ndarray, windows: Windows) -> None:
    """index (planes, windows) = the place in the plane of tap ``number`` of each window."""
    if not windows.is_adaptive:
        of_tap, of_window = _positions(windows)
        of_tap.take(number, out=index, mode="clip")
        index += of_window
        return
    index.fill(0)
    taps = numpy.unravel_index(number.astype(numpy.intp).reshape(len(index), *windows.size), windows.taps)
    for axis, tap in enumerate(taps):
        start, end = windows.spans(axis)
        along = (-1,) + (1,) * (2 - axis)
        place = numpy.minimum(tap + start.reshape(along), end.reshape(along) - 1)
        numpy.add(index * windows.extent[axis], place.reshape(index.shape), out=index, casting="same_kind")


def _maxima(y: ndarray, number: ndarray | None, x: ndarray, windows: Windows, has_nan: bool) -> None:
    """y = the maxima of windows of x, number = the tap where each is.

    Args:
        has_nan: let a NaN be larger than any other number, and than a NaN before it.
    """
    tap, better = scratch(y.shape, y.dtype, 1), scratch(y.shape, numpy.bool_, 2)
    numbers = None if number is None else scratch(y.shape, number.dtype, 3)
    for count, (place, source) in enumerate(_taps(windows)):
        target = tap if count else y
        if not _is_whole(place, windows):
            target.fill(-numpy.inf)
        if target[place].size:
            numpy.copyto(target[place], x[source])
        if not count:
            if number is not None:
                number.fill(0)
            continue
        if number is not None and numbers is not None:
            numpy.greater(tap, y, out=better)
            if has_nan:
                better |= numpy.isnan(tap)
            numpy.multiply(better, number.dtype.type(count), out=numbers)
            numpy.maximum(number, numbers, out=number)
        numpy.maximum(y, tap, out=y)


def _first_in_the_plane(number: ndarray, y: ndarray, windows: Windows) -> None:
    """Where all elements of a window are -inf, let ``number`` be its first tap in the plane instead of one in the padding."""
    lowest = y == -numpy.inf
    if not lowest.any():
        return
    first = numpy.zeros(windows.size, number.dtype)
    for count, (place, _) in reversed([*enumerate(_taps(windows))]):
        first[place[1:]] = count
    numpy.copyto(number, numpy.broadcast_to(first, number.shape), where=lowest)


def _maxima_by_window(y: ndarray, index: ndarray | None, x: ndarray, windows: Windows) -> None:
    """y = the maxima of windows of x, index = their places: one window of all planes after the other."""
    places = numpy.arange(math.prod(windows.extent), dtype=numpy.int32).reshape(windows.extent)
    for at in numpy.ndindex(*windows.size):
        part = tuple([windows.elements(axis, w) for axis, w in enumerate(at)])
        of_window = places[part].reshape(-1)
        elements = scratch((len(x), len(of_window)), x.dtype, 1)
        numpy.copyto(elements.reshape(len(x), *places[part].shape), x[(slice(None), *part)])
        maxima = elements.max(axis=1)
        y[(slice(None), *at)] = maxima
        if index is not None:
            taps, is_nan = elements.argmax(axis=1), numpy.isnan(maxima)
            if is_nan.any():
                taps[is_nan] = len(of_window) - 1 - numpy.isnan(elements[is_nan, ::-1]).argmax(axis=1)
            index[(slice(None), *at)] = of_window[taps]


_TYPES = {"index": "int32"}


@kernel("pooling.cu", outputs=2, types=_TYPES, optional="index", reads_values=True)
def max_pool_forward(y, index, x, *, windows):
    """y = the maximum of each window of x, index = its place in the plane: the first one, of NaN the last one.

    x (..., plane), y (..., windows); index of the shape of y, or None.
    """
    x, y, index = _planes(x, windows.extent), _planes(y, windows.size), None if index is None else _planes(index, windows.size)
    if math.prod(windows.size) <= windows.num_taps and len(x):
        _maxima_by_window(y, index, x, windows)
        return
    step = max(1, _CHUNK_BYTES // max(1, y.itemsize * math.prod(windows.size)))
    dtype = numpy.min_scalar_type(windows.num_taps)
    for start in range(0, len(x), step):
        images, maxima = x[start : start + step], y[start : start + step]
        number = None if index is None else scratch(maxima.shape, dtype, 4)
        _maxima(maxima, number, images, windows, False)
        if index is None or number is None:
            continue
        if numpy.isnan(maxima).any():
            _maxima(maxima, number, images, windows, True)
        if any(windows.padding):
            _first_in_the_plane(number, maxima, windows)
        _place_of_taps(index[start : start + step].reshape(len(maxima), -1), number.reshape(len(maxima), -1), windows)


@max_pool_forward.loops
def _(y, index, x, *, windows):
    if index is None or not windows.are_halves:
        return None
    numbers = (0, x.size // max(1, math.prod(windows.extent)), *windows.size[1:], *windows.extent[1:])
    return Loops(halving_loop, (y, index, x), numbers, work=x.nbytes)


@kernel("pooling.cu", outputs=1, types=_TYPES, reads_values=True)
def max_pool_backward(dx, index, dy, *, windows):
    """dx = the sum of dy over the windows whose maximum is the element; arrays as in :func:`max_pool_forward`."""
    dx.fill(0)
    places, planes = scratch(index.shape, numpy.int64, 1), math.prod(windows.extent)
    rows = places.reshape(-1, math.prod(windows.size))
    numpy.add(index.reshape(rows.shape), numpy.arange(0, len(rows) * planes, planes)[:, None], out=rows)
    numpy.add.at(dx.reshape(-1), places.reshape(-1), dy.reshape(-1))


@max_pool_backward.loops
def _(dx, index, dy, *, windows):
    places = math.prod(windows.size)
    planes = index.size // max(1, places)
    return Loops(spread_loop, (dx, index, dy), (0, planes, places, math.prod(windows.extent)), work=2 * dx.nbytes)


def _counts(windows: Windows, axis: int, divisors: Divisors) -> ndarray:
    """The number of elements of each window along a dimension."""
    starts, ends = windows.spans(axis)
    low, high = (0, windows.extent[axis])
    if divisors.counts_padding and not windows.is_adaptive:
        low, high = -windows.padding[axis], high + windows.padding[axis]
    return numpy.minimum(ends, high) - numpy.maximum(starts, low)


@functools.lru_cache(maxsize=64)
def _factors(windows: Windows, divisors: Divisors, dtype: Any) -> ndarray:
    """1 / what the sum of each window is divided by: an array of the windows, or one number if that is the same for all."""
    if divisors.number:
        return numpy.asarray(1 / divisors.number, dtype)
    total = numpy.ones(windows.size)
    for axis in range(3):
        total *= _counts(windows, axis, divisors).reshape((-1,) + (1,) * (2 - axis))
    factors = (1 / total).astype(dtype)
    return factors if factors.size and factors.min() != factors.max() else factors.reshape(-1)[:1].reshape(())


def _changed_axes(windows: Windows) -> list[int]:
    """The dimensions along which pooling does something, the last one first."""
    return [axis for axis in (2, 1, 0) if (windows.taps[axis], windows.stride[axis], windows.padding[axis]) != (1, 1, 0)]


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * (axis + 1) + (part,)


def _tiles(windows: Windows, axis: int) -> bool:
    """Whether the windows of a dimension have each element once."""
    taps, stride, padding = windows.taps[axis], windows.stride[axis], windows.padding[axis]
    return stride == taps and not padding and windows.size[axis] * stride == windows.extent[axis]


def _sum_taps(out: ndarray, x: ndarray, windows: Windows, axis: int) -> None:
    """out = the sums of the windows of x along one dimension."""
    taps = [covered_windows(windows, axis, tap) for tap in range(windows.taps[axis])]
    parts = [(out[_along(axis, place)], x[_along(axis, source)]) for place, source in taps]
    parts.sort(key=lambda part: part[0].shape != out.shape)  # first those that all windows have
    whole = sum(target.shape == out.shape for target, _ in parts)
    if whole > 1:
        numpy.add(parts[0][1], parts[1][1], out=out)
    elif whole:
        numpy.copyto(out, parts[0][1])
    else:
        out.fill(0)
    for target, part in parts[min(whole, 2) :]:
        if part.size:
            target += part


def _spread_taps(out: ndarray, g: ndarray, windows: Windows, axis: int) -> None:
    """The transpose of :func:`_sum_taps`."""
    tiles = _tiles(windows, axis)
    if not tiles:
        out.fill(0)
    for tap in range(windows.taps[axis]):
        place, source = covered_windows(windows, axis, tap)
        target = out[_along(axis, source)]
        if tiles:
            numpy.copyto(target, g)
        elif target.size:
            target += g[_along(axis, place)]


def _is_global(windows: Windows) -> bool:
    return windows.size == (1, 1, 1) and windows.taps == windows.extent and windows.padding == (0, 0, 0)


@kernel("pooling.cu", outputs=1)
def avg_pool_forward(y, x, *, windows, divisors):
    """y = the sum of each window of x, divided.  x (..., plane), y (..., windows); windows without dilation."""
    factors = _factors(windows, divisors, y.dtype)
    if _is_global(windows):
        numpy.add.reduce(x.reshape(-1, math.prod(windows.extent)), axis=1, out=y.reshape(-1))
        y *= factors
        return
    source, shape = _planes(x, windows.extent), [x.size // max(1, math.prod(windows.extent)), *windows.extent]
    axes, target = _changed_axes(windows), _planes(y, windows.size)
    for number, axis in enumerate(axes):
        shape[axis + 1] = windows.size[axis]
        out = target if number == len(axes) - 1 else scratch(tuple(shape), y.dtype, number)
        _sum_taps(out, source, windows, axis)
        source = out
    numpy.multiply(source, factors, out=target)


@kernel("pooling.cu", outputs=1)
def avg_pool_backward(dx, dy, *, windows, divisors):
    """dx = the sum of dy, divided, over the windows that contain the element; arrays as in :func:`avg_pool_forward`."""
    factors, target, axes = _factors(windows, divisors, dx.dtype), _planes(dx, windows.extent), _changed_axes(windows)
    if not axes:
        numpy.multiply(_planes(dy, windows.size), factors, out=target)
        return
    shape = [target.shape[0], *windows.size]
    source = scratch(tuple(shape), dx.dtype, 3)
    numpy.multiply(_planes(dy, windows.size), factors, out=source)
    if _is_global(windows):
        numpy.copyto(target, source)
        return
    for number, axis in enumerate(axes):
        shape[axis + 1] = windows.extent[axis]
        out = target if number == len(axes) - 1 else scratch(tuple(shape), dx.dtype, number)
        _spread_taps(out, source, windows, axis)
        source = out


# ---- geometries -------------------------------------------------------------------------------------------------------

_AXIS = numpy.dtype([(name, "i4") for name in ("extent", "size", "taps", "stride", "padding", "dilation")])
#: The struct PoolShape of pooling.cu.
POOL_SHAPE = numpy.dtype(
    [("axes", _AXIS, (3,)), ("plane", DIVISOR), ("slice", DIVISOR), ("row", DIVISOR), ("divisor", "i4"), ("counts_padding", "i4")],
    metadata={"c_type": "PoolShape"},
)
#: Elements of a window from which on a warp computes it: two of each thread.  Estimated, not measured.
WARP_TAPS = 64
_NO_SUM = Divisors()  # of a maximum, which is not divided


@functools.lru_cache(maxsize=1024)
def _pool_shape(windows: Windows, destination: Triple, divisors: Divisors) -> ndarray:
    """The PoolShape of a launch whose destination has planes of this extent."""
    axes = [*zip(windows.extent, windows.size, windows.taps, windows.stride, windows.padding, windows.dilation)]
    counts = (math.prod(destination), math.prod(destination[1:]), destination[2])
    shape = numpy.zeros(1, POOL_SHAPE)
    shape[0] = (axes, *(divisor(max(1, count)) for count in counts), divisors.number, divisors.counts_padding)
    shape.flags.writeable = False
    return shape


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _grid(count: int, by_warps: bool) -> int:
    return elementwise_grid(32 * count if by_warps else count, per_thread=1)


def _by_warps(windows: Windows) -> bool:
    return windows.num_taps >= WARP_TAPS


@max_pool_forward.geometry
def _(y, index, x, *, windows):
    by_warps = _by_warps(windows)
    scalars = (numpy.int64(y.size), _pool_shape(windows, windows.size, _NO_SUM))
    return Geometry(_grid(y.size, by_warps), 256, scalars, (_flag(windows.is_adaptive), _flag(by_warps)))


@max_pool_backward.geometry
def _(dx, index, dy, *, windows):
    scalars = (numpy.int64(dx.size), _pool_shape(windows, windows.extent, _NO_SUM))
    return Geometry(_grid(dx.size, False), 256, scalars, (_flag(windows.is_adaptive),))


@avg_pool_forward.geometry
def _(y, x, *, windows, divisors):
    by_warps = _by_warps(windows)
    scalars = (numpy.int64(y.size), _pool_shape(windows, windows.size, divisors))
    return Geometry(_grid(y.size, by_warps), 256, scalars, (_flag(by_warps),))


@avg_pool_backward.geometry
def _(dx, dy, *, windows, divisors):
    return Geometry(_grid(dx.size, False), 256, (numpy.int64(dx.size), _pool_shape(windows, windows.extent, divisors)))


# ---- ops --------------------------------------------------------------------------------------------------------------


def _pooled(shape: tuple[int, ...], windows: Windows) -> tuple[int, ...]:
    """The shape of the result for a tensor of this shape."""
    return (*shape[: len(shape) - windows.dims], *windows.size[3 - windows.dims :])


def _unpooled(shape: tuple[int, ...], windows: Windows) -> tuple[int, ...]:
    return (*shape[: len(shape) - windows.dims], *windows.extent[3 - windows.dims :])


def _max_composed(x, *, windows, with_index, function):
    y, index = (empty(_pooled(x.array.shape, windows), dtype, x.array) for dtype in (x.array.dtype, int32))
    source = x.array if x.array.flags.c_contiguous else x.detach().contiguous().array
    max_pool_forward(y, index, source, windows=windows)
    flat, places = _reshape(x, shape=(-1, math.prod(windows.extent))), make_tensor(index)
    rows = _reshape(places, shape=(flat.shape[0], math.prod(windows.size)))
    values = _reshape(gather_at(flat, 1, rows, GATHER), shape=y.shape)
    return (values, places) if with_index else values


@fused(composed=_max_composed, name_from=lambda options: options["function"])
def max_pool(x, *, windows, with_index, function, need):
    """The maxima of the windows of x (..., plane), and their places (int32) if ``with_index``, on behalf of ``function``."""
    shape = _pooled(x.shape, windows)
    y, index = empty(shape, x.dtype, x), empty(shape, int32, x) if with_index or need[0] else None
    max_pool_forward(y, index, x, windows=windows)
    return (y, index) if with_index else y, (index,)


@max_pool.backward
def _(saved, dy, *more, windows, with_index, function, need):
    (index,) = saved
    dx = empty(_unpooled(index.shape, windows), dy.array.dtype, index)
    max_pool_backward(dx, index, dy.array, windows=windows)
    return (dx,)


def _mean_rows(windows: Windows, axis: int, divisors: Divisors) -> Rows:
    """The mean of the windows along one dimension; their sum if they are divided by a number."""
    starts, ends = windows.spans(axis)
    counts = numpy.ones(windows.size[axis]) if divisors.number else _counts(windows, axis, divisors)
    return span_rows(numpy.maximum(starts, 0), numpy.minimum(ends, windows.extent[axis]), counts, windows.extent[axis])


def avg_pool_composed(x, *, windows, divisors, function):
    for axis in range(3 - windows.dims, 3):
        x = resample(function, x, x.ndim + axis - 3, Table(_mean_rows, (windows, axis, divisors)))
    return x / divisors.number if divisors.number else x


@fused(composed=avg_pool_composed, name_from=lambda options: options["function"])
def avg_pool(x, *, windows, divisors, function, need):
    """The sums of the windows of x (..., plane), divided, on behalf of ``function``."""
    y = empty(_pooled(x.shape, windows), x.dtype, x)
    avg_pool_forward(y, x, windows=windows, divisors=divisors)
    return y, ()


@avg_pool.backward
def _(saved, dy, *, windows, divisors, function, need):
    dx = empty(_unpooled(dy.array.shape, windows), dy.array.dtype, dy.array)
    avg_pool_backward(dx, dy.array, windows=windows, divisors=divisors)
    return (dx,)
