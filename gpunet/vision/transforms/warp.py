"""Geometry of transforms: maps of the plane, images sampled at positions, boxes moved along.

The edges of an image of (height, width) pixels are 0 and width, 0 and height; the center of the first pixel is (0.5, 0.5).  A map
is three rows of three entries, each a number or a tensor (batch,), and takes positions of the input to positions of the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating, is_half, limits, significand_bits
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.activations import hardtanh
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import maximum, minimum, where
from gpunet.ops.index import index_select
from gpunet.ops.join import cat, stack
from gpunet.ops.pad import pad
from gpunet.ops.resample import Rows, Table, resample
from gpunet.ops.rounding import floor
from gpunet.ops.strided import as_strided
from gpunet.vision.ops import box_convert
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

Entry = Any  # a number, or a tensor (batch,)
Map = tuple[tuple[Entry, Entry, Entry], ...]

#: The smallest denominator of a perspective: nearer to the horizon there is nothing to see.
_HORIZON = 1e-6


def shift_and_scale(x: Entry, y: Entry, scale_x: Entry = 1.0, scale_y: Entry = 1.0) -> Map:
    """(scale_x x' + x, scale_y y' + y)."""
    return (scale_x, 0.0, x), (0.0, scale_y, y), (0.0, 0.0, 1.0)


def is_affine(forward: Map) -> bool:
    """Whether the last row is (0, 0, 1)."""
    return all(not isinstance(entry, Tensor) and entry == value for entry, value in zip(forward[2], (0.0, 0.0, 1.0)))


def affine_map(
    angle: Entry, translate: Sequence[Entry], scale: Entry, shear: Sequence[Entry], center: Sequence[Entry]
) -> Map:
    """Rotate clockwise by ``angle``, after shears along x and y (all in degrees), scale about ``center``, then translate.

    The linear part is scale R(angle) [[1, 0], [-tan shear_y, 1]] [[1, -tan shear_x], [0, 1]].
    """
    (sin, cos), (tan_x, tan_y) = _sin_cos(angle), (_tangent(s) for s in shear)
    a, c = cos + sin * tan_y, sin - cos * tan_y
    b, d = -a * tan_x - sin, -c * tan_x + cos
    a, b, c, d = a * scale, b * scale, c * scale, d * scale
    (x, y), (dx, dy) = center, translate
    return (a, b, x + dx - a * x - b * y), (c, d, y + dy - c * x - d * y), (0.0, 0.0, 1.0)


def _sin_cos(degrees: Entry) -> tuple[Entry, Entry]:
    if isinstance(degrees, Tensor):
        radians = degrees * (math.pi / 180)
        return radians.sin(), radians.cos()
    return math.sin(math.radians(degrees)), math.cos(math.radians(degrees))


def _tangent(degrees: Entry) -> Entry:
    return (degrees * (math.pi / 180)).tan() if isinstance(degrees, Tensor) else math.tan(math.radians(degrees))


def inverse(forward: Map) -> Map:
    """The inverse map, up to a factor if it is a perspective: the adjugate."""
    (a, b, c), (d, e, f), (g, h, i) = forward
    if is_affine(forward):
        determinant = a * e - b * d
        a, b, d, e = e / determinant, -b / determinant, -d / determinant, a / determinant
        return (a, b, -a * c - b * f), (d, e, -d * c - e * f), (0.0, 0.0, 1.0)
    return (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )


def applied(is_applied: Tensor, forward: Map) -> Map:
    """A map for the samples where ``is_applied`` (batch,) holds, the identity for all others."""
    return tuple(
        tuple(
            where(is_applied, entry, float(row == column)) if isinstance(entry, Tensor) or entry != float(row == column) else entry
            for column, entry in enumerate(entries)
        )
        for row, entries in enumerate(forward)
    )


def perspective_map(start: Any, end: Any) -> Map:
    """The perspective that takes four points to four points.

    Args:
        start, end: (4, 2) numbers in nested lists, or tensors (batch, 4, 2): x and y of each corner, in the order of the image's
            left upper, right upper, right lower and left lower corner.

    Raises:
        ShapeError: these are not four points.
        ArgumentError: three of the points are on a line.
    """
    for name, points in (("startpoints", start), ("endpoints", end)):
        if numpy.shape(points)[-2:] != (4, 2) if not isinstance(points, Tensor) else tuple(points.shape[-2:]) != (4, 2):
            raise ShapeError(f"perspective: {name}={points!r}; expected four points (x, y), or a tensor (batch, 4, 2)")
    try:
        to, back = (_from_square(points) for points in (end, start))
    except ZeroDivisionError:
        raise ArgumentError(
            f"perspective: startpoints={start!r}, endpoints={end!r}; expected four points of which no three are on a line"
        ) from None
    product = _product(to, inverse(back))
    scale = product[2][2]
    return tuple(tuple(entry / scale for entry in row) for row in product)


def _from_square(points: Any) -> Map:
    """The perspective that takes the corners of the unit square to four points (Heckbert 1989)."""
    corners: list[Any]
    if isinstance(points, Tensor):
        corners = [(points[..., k, 0], points[..., k, 1]) for k in range(4)]
    else:
        corners = [(float(x), float(y)) for x, y in points]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    determinant = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / determinant, (dx1 * sy - sx * dy1) / determinant
    return (x1 - x0 + g * x1, x3 - x0 + h * x3, x0), (y1 - y0 + g * y1, y3 - y0 + h * y3, y0), (g, h, 1.0)


def _product(left: Map, right: Map) -> Map:
    return tuple(
        tuple(sum(left[r][k] * right[k][c] for k in range(1, 3)) + left[r][0] * right[0][c] for c in range(3)) for r in range(3)
    )


def on_axes(value: Entry, dims: int) -> Entry:
    """An entry that broadcasts with tensors of a batch dimension and ``dims`` more."""
    return value.reshape(-1, *(1,) * dims) if isinstance(value, Tensor) else value


# ---- dtypes -----------------------------------------------------------------------------------------------------------

#: Integers up to this one are exact in float32.
_EXACT = 2**24


def as_floating(x: Tensor) -> Tensor:
    """Images as the floating numbers to compute with: float32 of halves and of narrow integers, float64 of wide integers."""
    if is_floating(x.dtype):
        return x.float() if is_half(x.dtype) else x
    return x.to("float32" if limits(x.dtype)[1] <= _EXACT else "float64")


def saturated(x: Any, dtype: Any) -> Any:
    """Floating numbers as a dtype; as integers, those out of its range become the least or the largest one."""
    if is_floating(dtype):
        return x.to(dtype)
    low, high = limits(dtype)
    x = x.clamp(min=float(low))
    if high < 2 ** significand_bits(x.dtype):
        return x.clamp(max=float(high)).to(dtype)
    is_above = x >= float(high)  # which is the power of two behind it: no floating number is between
    return where(is_above, high, where(is_above, 0.0, x).to(dtype))


# ---- images -----------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Images as (batch, planes, height, width), and the shape that they had before the last two dimensions."""

    planes: Tensor
    lead: tuple[int, ...]

    @classmethod
    def of(cls, function: str, x: Tensor, samples: int) -> Batch:
        """Of images (batch, ..., height, width), or of one image (channels, height, width) or (height, width).

        Raises:
            ShapeError: the batch is no multiple of the number of samples.
        """
        lead = tuple(x.shape[:-2])
        is_batch = len(lead) > 1 or (samples > 1 and isinstance(x, Mask))
        count = lead[0] if is_batch and lead else 1
        if samples not in (1, count):
            raise ShapeError(
                f"{function}: numbers for {samples} samples, but a tensor of shape {tuple(x.shape)}; expected one for each sample"
            )
        return cls(x.reshape(count, math.prod(lead) // max(count, 1), *x.shape[-2:]), lead)

    def restore(self, planes: Tensor) -> Tensor:
        return planes.reshape(*self.lead, *planes.shape[-2:])


def samples_of(*values: Any) -> int:
    """The number of samples of which tensors among ``values`` have an entry for each; 1 without tensors."""
    return max((len(value) for value in values if isinstance(value, Tensor)), default=1)


def bordered(function: str, x: Tensor, widths: tuple[int, int, int, int], fill: Any) -> Tensor:
    """Planes (..., channels, height, width) with a border (left, right, top, bottom) of ``fill``, a number or one per channel.

    Raises:
        ShapeError: there are not as many numbers as channels.
    """
    if not isinstance(fill, (tuple, list)):
        return pad(x, widths, value=fill)
    channels = x.shape[-3] if x.ndim > 2 else 1
    if len(fill) not in (1, channels):
        raise ShapeError(
            f"{function}: fill={fill!r} for an image of {channels} channels; expected a number, or one for each channel"
        )
    if len(fill) == 1:
        return pad(x, widths, value=fill[0])
    return cat([pad(x[..., c : c + 1, :, :], widths, value=value) for c, value in enumerate(fill)], -3)


def _border(mode: str, low: int, high: int, n: int) -> numpy.ndarray:
    """The pixels of a line of n with a border in one of NumPy's modes."""
    kind: Any = mode
    return numpy.pad(numpy.arange(n), (low, high), mode=kind)


def _border_rows(mode: str, low: int, high: int, n: int) -> Rows:
    places = _border(mode, low, high, n)[:, None]
    return Rows(places.astype(numpy.int32), numpy.ones(places.shape), n)


def with_border(x: Tensor, dim: int, line: tuple[str, int, int, int]) -> Tensor:
    """A tensor with a border along a dimension, ``line`` = (NumPy's mode, width before, width behind, pixels)."""
    if is_floating(x.dtype):
        return resample("pad", x, dim, Table(_border_rows, line))
    return index_select(x, dim, make_tensor(constant(devices.move(_border(*line), x.device))))


def _positions(back: Map, size: tuple[int, int], device: Any) -> tuple[Tensor, Tensor]:
    """Rows and columns, (batch or 1, height, width), of the input's pixels at the centers of those of the result."""
    height, width = size
    y = (arange(height, dtype="float32", device=device) + 0.5).reshape(1, height, 1)
    x = (arange(width, dtype="float32", device=device) + 0.5).reshape(1, 1, width)
    if is_affine(back):
        return _affine_positions(back, x, y)
    (a, b, c), (d, e, f), (g, h, i) = (tuple(on_axes(entry, 2) for entry in row) for row in back)
    scale = (g * x + i) + h * y
    is_seen = scale > _HORIZON
    scale = where(is_seen, scale, 1.0)
    rows, columns = ((d * x + f) + e * y) / scale - 0.5, ((a * x + c) + b * y) / scale - 0.5
    return where(is_seen, rows, -1.0), where(is_seen, columns, -1.0)


def _affine_positions(back: Map, x: Any, y: Any) -> tuple[Any, Any]:
    """:func:`_positions` of an affine map, of centers x and y that broadcast to (batch or 1, height, width)."""
    (a, b, c), (d, e, f), _ = (tuple(on_axes(entry, 2) for entry in row) for row in back)
    return (d * x + (f - 0.5)) + e * y, (a * x + (c - 0.5)) + b * y


def _nearest_pixels(back: Map, size: tuple[int, int], height: int, width: int) -> numpy.ndarray:
    """The nearest pixels of planes (height, width) with a border of one, int64 (pixels,), for an affine map of numbers."""
    y, x = (numpy.arange(n, dtype=numpy.float32) + 0.5 for n in size)
    rows, columns = _affine_positions(back, x.reshape(1, 1, -1), y.reshape(1, -1, 1))
    # + 1 for the border, + 0.5 to round
    rows, columns = (numpy.floor(p.clip(-1, n) + 1.5).astype(numpy.int64) for p, n in ((rows, height), (columns, width)))
    return (rows * (width + 2) + columns).reshape(-1)


_cached_nearest_pixels = functools.lru_cache(32)(_nearest_pixels)
#: The largest number of pixels whose places are cached: of all 32 results 64 MiB at most.
_MAX_CACHED = 1 << 18


def pixel_index(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Where pixels of planes (batch, planes, height, width) are in memory, int64 (batch, planes, h, w).

    Args:
        x: the planes.
        rows, columns: integers, which may be in float32, and broadcast to (batch or 1, h, w).
    """
    batch, planes, height, width = x.shape
    if height * width > _EXACT:
        rows, columns = rows.to("int64"), columns.to("int64")
    place = (rows * width + columns).to("int64").unsqueeze(1)
    return place + (arange(batch * planes, device=x.device) * (height * width)).reshape(batch, planes, 1, 1)


def gather_pixels(x: Tensor, index: Tensor, down: int = 0, right: int = 0) -> Tensor:
    """The pixels of contiguous planes (batch, planes, height, width) behind those at :func:`pixel_index`."""
    return x.reshape(-1)[down * x.shape[-1] + right :][index.reshape(-1)].reshape(index.shape)


def cut(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """The part of ``height`` x ``width`` pixels at (top, left), each (batch,), of planes (batch, planes, rows, columns)."""
    batch, planes, rows, columns = x.shape
    line = top.reshape(-1, 1, 1) + arange(height, device=x.device).reshape(1, height, 1)
    if type(x.array) is not numpy.ndarray or not x.numel():
        place = left.reshape(-1, 1, 1) + arange(width, device=x.device).reshape(1, 1, width)
        return gather_pixels(x, pixel_index(x, line, place))
    # NumPy copies whole lines of overlapping windows several times as fast as single pixels
    windows = as_strided(x.contiguous(), (x.numel() - width + 1, width), (1, 1))
    return windows[pixel_index(x, line, left.reshape(-1, 1, 1)).squeeze(3)]


def warp(function: str, x: Tensor, forward: Map, size: tuple[int, int], is_nearest: bool, fill: Any) -> Tensor:
    """Images (batch, planes, height, width) mapped to (batch, planes, *size); what comes from outside is ``fill``.

    Positions are computed in float32; halves and integers are interpolated in float32, and integers rounded.
    """
    height, width = x.shape[-2:]
    rows, columns = _positions(inverse(forward), size, x.device)
    rows, columns = hardtanh(rows, -1.0, float(height)), hardtanh(columns, -1.0, float(width))
    if is_nearest:
        padded = bordered(function, x, (1, 1, 1, 1), fill)
        # + 1 for the border, + 0.5 to round
        return gather_pixels(padded, pixel_index(padded, floor(rows + 1.5), floor(columns + 1.5)))
    dtype = x.dtype
    source = bordered(function, as_floating(x), (1, 2, 1, 2), fill)
    low_y, low_x = floor(rows), floor(columns)
    part_y, part_x = ((p - low).unsqueeze(1).to(source.dtype) for p, low in ((rows, low_y), (columns, low_x)))
    index, lines = pixel_index(source, low_y + 1, low_x + 1), []
    for dy in (0, 1):
        left, right = (gather_pixels(source, index, dy, dx) for dx in (0, 1))
        lines.append(left + (right - left) * part_x)
    result = lines[0] + (lines[1] - lines[0]) * part_y
    return saturated(result if is_floating(dtype) else result.round(), dtype)


class NearestPixels:
    """The nearest pixels of planes (batch, planes, height, width) on the host, by maps that are one for several samples.

    As :func:`warp`, but the positions are computed once for all images of a size.
    """

    def __init__(self, function: str, x: Tensor, fill: Any) -> None:
        self._size = x.shape[-2:]
        self._pixels = bordered(function, x, (1, 1, 1, 1), fill).array.reshape(*x.shape[:2], -1)

    def write(self, result: numpy.ndarray, rows: slice, forward: Map) -> None:
        """Write images of ``rows`` to ``result``, contiguous (images, planes, h, w), by an affine map of numbers."""
        size = result.shape[-2:]
        nearest = _cached_nearest_pixels if math.prod(size) <= _MAX_CACHED else _nearest_pixels
        places = nearest(inverse(forward), size, *self._size)
        self._pixels[rows].take(places, axis=2, out=result.reshape(*result.shape[:2], -1), mode="clip")  # within it anyway


# ---- boxes ------------------------------------------------------------------------------------------------------------


def move_boxes(boxes: BoundingBoxes, forward: Map, size: tuple[int, int]) -> BoundingBoxes:
    """The boxes around the mapped corners, clamped to the canvas ``size`` of the result; of integers rounded."""
    shape, dtype, name = boxes.shape, boxes.dtype, boxes.format.value
    corners: Any = box_convert(boxes.float() if not is_floating(dtype) else boxes, name, "xyxy")
    dims = 2 if len(shape) > 2 else 1
    x1, y1, x2, y2 = (corners.reshape(shape[0], math.prod(shape[1:-1]), 4) if dims == 2 else corners).unbind(-1)
    (a, b, c), (d, e, f), (g, h, i) = (tuple(on_axes(entry, dims - 1) for entry in row) for row in forward)
    xs, ys = [], []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        new_x, new_y = a * x + b * y + c, d * x + e * y + f
        if not is_affine(forward):
            scale = maximum(g * x + h * y + i, _HORIZON)
            new_x, new_y = new_x / scale, new_y / scale
        xs.append(hardtanh(new_x, 0.0, float(size[1])))
        ys.append(hardtanh(new_y, 0.0, float(size[0])))
    sides = [functools.reduce(choose, values) for choose in (minimum, maximum) for values in (xs, ys)]
    moved: Any = stack(sides, -1).reshape(shape)
    moved = box_convert(moved, "xyxy", name)
    return wrap((moved if is_floating(dtype) else moved.round()).to(dtype), like=boxes, canvas_size=size)


# ---- sizes ------------------------------------------------------------------------------------------------------------


def _cubic(x: Any) -> Any:
    """Keys (1981) with a = -0.5, as Pillow."""
    x = abs(x)
    return numpy.where(x < 1, (1.5 * x - 2.5) * x * x + 1, numpy.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0))


#: Pillow's filters: half their width, and their values, for reductions wider by the factor.
_FILTERS: dict[str, tuple[float, Any]] = {
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)) * 1.0),
    "bilinear": (1.0, lambda x: numpy.maximum(1 - abs(x), 0.0)),
    "hamming": (1.0, lambda x: numpy.where(abs(x) < 1, numpy.sinc(x) * (0.54 + 0.46 * numpy.cos(math.pi * x)), 0.0)),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: numpy.where(abs(x) < 3, numpy.sinc(x) * numpy.sinc(x / 3), 0.0)),
}  # fmt: skip


#: The bits behind the point of Pillow's weights for bytes.
_WEIGHT_BITS = 22


def _filter_rows(name: str, n: int, m: int, is_fixed: bool) -> Rows:
    """The weights by which Pillow resizes n pixels to m, those for bytes with a fixed point."""
    half, value = _FILTERS[name]
    factor = n / m
    widen = max(factor, 1.0)
    centers = (numpy.arange(m) + 0.5) * factor
    low = numpy.maximum((centers - half * widen + 0.5).astype(numpy.int64), 0)
    high = numpy.minimum((centers + half * widen + 0.5).astype(numpy.int64), n)
    places = low[:, None] + numpy.arange((high - low).max())
    weights = numpy.where(places < high[:, None], value((places + 0.5 - centers[:, None]) / widen), 0.0)
    weights /= weights.sum(1, keepdims=True)
    if is_fixed:
        weights = numpy.copysign(numpy.floor(numpy.abs(weights) * 2.0**_WEIGHT_BITS + 0.5), weights) / 2.0**_WEIGHT_BITS
    return Rows(numpy.minimum(places, n - 1).astype(numpy.int32), weights, n)


def resize_like_pillow(x: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """Images (..., height, width) resized by a filter of Pillow; integers are rounded after each pass, as there.

    Bytes are those of Pillow 13: the weights have a fixed point, so that their sums are exact in float64.
    """
    dtype, is_fixed = x.dtype, x.dtype == numpy.uint8
    planes = x.reshape(-1, *x.shape[-2:])
    planes = planes.to("float64") if is_fixed else as_floating(planes)
    passes = ((2, size[1]), (1, size[0]))
    fewer_rows, fewer_columns = x.shape[-2] - size[0], x.shape[-1] - size[1]
    if fewer_rows > max(0, 2 * fewer_columns):
        passes = passes[::-1]  # found by experiments
    for dim, wanted in passes:
        if planes.shape[dim] != wanted:
            planes = resample("Resize", planes, dim, Table(_filter_rows, (filter, planes.shape[dim], wanted, is_fixed)))
            if not is_floating(dtype):
                planes = (planes + 0.5).floor().clamp(*limits(dtype))
    return saturated(planes.reshape(*x.shape[:-2], *size), dtype)


def _spread(start: Tensor, length: Tensor, n: int, m: int, antialias: bool) -> Tensor:
    """The matrices (batch, m, n) that resize the pixels from ``start``, ``length`` of n, to m, each (batch,)."""
    factor = (length / m).reshape(-1, 1, 1)
    widen = factor.clamp(min=1.0) if antialias else 1.0
    first, count = start.reshape(-1, 1, 1), length.reshape(-1, 1, 1)
    centers = (arange(m, dtype="float32", device=start.device) + 0.5).reshape(1, m, 1) * factor
    if not antialias:
        centers = minimum(maximum(centers, 0.5), count - 0.5)
    place = arange(n, dtype="float32", device=start.device).reshape(1, 1, n) + 0.5 - first
    weights = (1 - (place - centers).abs() / widen).clamp(min=0.0)
    weights = where((place > 0) & (place < count), weights, 0.0)
    return weights / weights.sum(2, keepdim=True)


def resize_parts(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int], is_nearest: bool, antialias: bool
) -> Tensor:
    """A part of each image (batch, planes, rows, columns), resized to ``size``, bilinear or nearest; places are (batch,)."""
    rows, columns = x.shape[-2:]
    if is_nearest:
        ys = _nearest_places(top, height, size[0]).reshape(-1, size[0], 1)
        return gather_pixels(x, pixel_index(x, ys, _nearest_places(left, width, size[1]).reshape(-1, 1, size[1])))
    dtype = x.dtype
    source = as_floating(x)
    down = _spread(top, height, rows, size[0], antialias).to(source.dtype).unsqueeze(1)
    across = _spread(left, width, columns, size[1], antialias).to(source.dtype).unsqueeze(1)
    result = down @ (source @ across.transpose(-1, -2))
    return saturated(result if is_floating(dtype) else result.round(), dtype)


def _nearest_places(start: Tensor, length: Tensor, count: int) -> Tensor:
    steps = (arange(count, dtype="float32", device=start.device) + 0.5) * (length / count).reshape(-1, 1)
    return (start.reshape(-1, 1) + minimum(floor(steps), length.reshape(-1, 1) - 1)).to("int64")
