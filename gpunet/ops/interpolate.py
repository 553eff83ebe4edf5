"""Interpolation of signals, images and volumes to another size, and rearrangements of channels and pixels.

An interpolation is a product by a small sparse matrix along each dimension (:mod:`gpunet.ops.resample`), whose rows have the
weights of one, two or four elements.  Positions and weights follow PyTorch's formulas.  For the nearest element they are computed
in float32, as PyTorch does.  For the other modes they are computed in float64 and then rounded; PyTorch computes them in the dtype
of the input, so that in float32 its results differ by the rounding of its positions, up to 2^-24 times the size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from gpunet.launch.tape import constant, warn_user
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.convert import clone
from gpunet.ops.dims import MAX_ELEMENTS
from gpunet.ops.face import as_integer, as_number, as_positive, public
from gpunet.ops.index import index_select
from gpunet.ops.pooling import adaptive_average
from gpunet.ops.resample import Rows, Table, cubic_weights, resample, rows_of
from gpunet.ops.shape import _permute, _reshape
from gpunet.ops.windows import check_images

__all__ = [
    "channel_shuffle", "interpolate", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "upsample",
    "upsample_bilinear", "upsample_nearest",
]  # fmt: skip


# ---- positions and weights of the elements of a result ----------------------------------------------------------------


def _nearest(n: int, m: int, scale: float | None, align: bool, shift: float = 0.0) -> tuple[ndarray, ndarray]:
    """The element in which each position lies.  PyTorch computes positions in float32, which decides between neighbours."""
    step = numpy.float32(1 / scale) if scale else numpy.float32(n) / numpy.float32(m)
    positions = (numpy.arange(m, dtype=numpy.float32) + numpy.float32(shift)) * step
    return numpy.minimum(positions.astype(numpy.int64), n - 1)[:, None], numpy.ones((m, 1))


def _positions(n: int, m: int, scale: float | None, align: bool) -> ndarray:
    """Where the elements of the result lie among those of the input."""
    if align:
        return numpy.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    return (numpy.arange(m) + 0.5) * (1 / scale if scale else n / m) - 0.5


def _linear(n: int, m: int, scale: float | None, align: bool) -> tuple[ndarray, ndarray]:
    positions = numpy.maximum(_positions(n, m, scale, align), 0)
    low = numpy.minimum(positions.astype(numpy.int64), n - 1)
    part = numpy.clip(positions - low, 0, 1)
    return numpy.stack([low, numpy.minimum(low + 1, n - 1)], 1), numpy.stack([1 - part, part], 1)


def _cubic(n: int, m: int, scale: float | None, align: bool) -> tuple[ndarray, ndarray]:
    positions = _positions(n, m, scale, align)
    low = numpy.floor(positions)
    index = numpy.clip(low.astype(numpy.int64)[:, None] + numpy.arange(-1, 3), 0, n - 1)
    return index, numpy.stack(cubic_weights(positions - low), 1)


_KINDS: dict[str, Callable[..., tuple[ndarray, ndarray]]] = {
    "nearest": _nearest, "nearest-exact": functools.partial(_nearest, shift=0.5), "linear": _linear, "bilinear": _linear,
    "bicubic": _cubic, "trilinear": _linear,
}  # fmt: skip
#: Modes that need a number of dimensions behind the channels.
_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_MODES = (*_KINDS, "area")


def _rows(mode: str, n: int, m: int, scale: float | None, align: bool) -> Rows:
    """The rows of an interpolation from n to m elements."""
    return Rows(*_KINDS[mode](n, m, scale, align), n)


# ---- interpolate ------------------------------------------------------------------------------------------------------


def _sizes(
    function: str, extent: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[list[int], list[float | None]]:
    """The sizes of the result, and the factors that positions follow; None for the quotient of the sizes."""
    dims = len(extent)
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"{function}: size={size!r}, scale_factor={scale_factor!r}; expected one of them")
    given, name = (size, "size") if scale_factor is None else (scale_factor, "scale_factor")
    items = tuple(given) if isinstance(given, (tuple, list)) else (given,) * dims
    if len(items) != dims:
        raise ArgumentError(f"{function}: {name}={given!r}; expected a number, or {dims}, one for each dimension of an image")
    factors: list[float | None] = [None] * dims
    if scale_factor is None:
        if recompute:
            raise ArgumentError(f"{function}: recompute_scale_factor=True with size={size!r}; pass scale_factor instead of size")
        sizes = [as_integer(function, name, item) for item in items]
    else:
        numbers = [as_number(function, name, item) for item in items]
        if not all(0 < number < math.inf for number in numbers):
            raise ArgumentError(f"{function}: scale_factor={scale_factor!r}; expected positive numbers")
        sizes = [math.floor(n * number) for n, number in zip(extent, numbers)]
        if not recompute:
            factors = [*numbers]
    if min(sizes) < 1:
        raise ArgumentError(f"{function}: {name}={given!r} gives a result of {tuple(sizes)}; expected sizes of 1 or more")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise ShapeError(f"{function}: {name}={given!r} gives {math.prod(sizes)} elements; expected at most {MAX_ELEMENTS}")
    return sizes, factors


@casts("cuda: float32")
@in_accumulator
def _along_each(
    x: Tensor, function: str, mode: str, sizes: list[int], factors: list[float | None], align: bool
) -> Tensor:
    """Interpolate the last dimensions on behalf of ``function``, first those whose result is the smallest."""
    dims = len(sizes)
    for d in sorted(range(dims), key=lambda d: sizes[d] / x.array.shape[d - dims]):
        table = Table(_rows, (mode, x.array.shape[d - dims], sizes[d], factors[d], align))
        if is_floating(x.dtype):
            x = resample(function, x, d - dims, table)
        else:
            x = index_select(x, d - dims, make_tensor(constant(rows_of(table).places[:, 0].astype(numpy.int64))))
    return x


#: As adaptive_avg_pool3d.
_average_volumes = casts("cpu: float32")(adaptive_average)


@public(out=False)
def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Resize signals, images or volumes; the last one, two or three dimensions.

    Args:
        input: (batch, channels, ...); floating, of integers for the nearest element.
        size: of the result, an integer or one for each dimension.
        scale_factor: of the sizes, a number or one for each dimension; pass this or ``size``.
        mode: "nearest", "nearest-exact" (by the centres of elements), "linear" (one dimension), "bilinear" (two), "trilinear"
            (three), "bicubic" (two; Keys 1981 with a = -0.75), or "area" (means, see :func:`adaptive_avg_pool2d`).
        align_corners: let the centres of the first and last elements coincide, instead of their edges; of the modes of lines
            and cubics.
        recompute_scale_factor: take positions from the quotient of the sizes instead of ``scale_factor``.
        antialias: is not supported.

    Raises:
        ArgumentError: the size is missing, given twice or less than 1; an unknown mode; an option that the mode does not take.
        ShapeError: the mode does not take an input of this shape.
        DtypeError: the dtype is not floating.
    """
    return _interpolate("interpolate", input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)


def _interpolate(
    function: str, input: Tensor, size: Any, scale_factor: Any, mode: str, align_corners: bool | None,
    recompute: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    shape = input.array.shape
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArgumentError(f"{function}: mode={mode!r}; expected one of {', '.join(map(repr, _MODES))}")
    if align_corners is not None and mode not in _DIMS:
        raise ArgumentError(f"{function}: align_corners={align_corners} with mode={mode!r}; only {', '.join(_DIMS)} take it")
    if antialias:
        raise ArgumentError(f"{function}: antialias=True is not supported; pass False, or reduce the size with mode='area'")
    dims = _DIMS.get(mode, len(shape) - 2)
    if len(shape) != dims + 2 or not 1 <= dims <= 3:
        expected = dims + 2 if mode in _DIMS else "3, 4 or 5"
        raise ShapeError(
            f"{function}: mode={mode!r} with an input of shape {shape}; expected {expected} dimensions (batch, channels, ...)"
        )
    check_images(function, shape, dims)
    sizes, factors = _sizes(function, shape[2:], size, scale_factor, recompute)
    if not is_floating(input.dtype) and not mode.startswith("nearest"):
        raise DtypeError(f"{function}: mode={mode!r} of dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    if mode == "area":
        return (_average_volumes if dims == 3 else adaptive_average)(function, input, dims, sizes)
    return _along_each(input, function=function, mode=mode, sizes=sizes, factors=factors, align=bool(align_corners))


def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """Deprecated: :func:`interpolate`."""
    warn_user("nn.functional.upsample is deprecated: use nn.functional.interpolate")
    return _interpolate("upsample", wrap(input), size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Deprecated: :func:`interpolate` with the nearest elements."""
    warn_user("nn.functional.upsample_nearest is deprecated: use nn.functional.interpolate")
    return _interpolate("upsample_nearest", wrap(input), size, scale_factor, "nearest", None)


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Deprecated: :func:`interpolate`, bilinear with ``align_corners=True``."""
    warn_user("nn.functional.upsample_bilinear is deprecated: use nn.functional.interpolate")
    return _interpolate("upsample_bilinear", wrap(input), size, scale_factor, "bilinear", True)


# ---- channels and pixels ----------------------------------------------------------------------------------------------


def _check_dims(function: str, shape: tuple[int, ...], least: int) -> None:
    if len(shape) < least:
        raise ShapeError(f"{function}: the input has shape {shape}; expected {least} dimensions or more")


@public(out=False)
def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """(..., channels r², height, width) -> (..., channels, r height, r width), r the factor (Shi et al. 2016).

    Raises:
        ShapeError: the channels are no multiple of r².
        ArgumentError: the factor is less than 1.
    """
    r, shape = as_positive("pixel_shuffle", "upscale_factor", upscale_factor), input.array.shape
    _check_dims("pixel_shuffle", shape, 3)
    (*lead, channels, height, width), n = shape, len(shape) - 3
    if channels % r**2:
        raise ShapeError(f"pixel_shuffle: the input {shape} has {channels} channels; expected a multiple of {r**2} = {r}²")
    parts = _reshape(input, shape=(*lead, channels // r**2, r, r, height, width))
    order = clone(_permute(parts, dims=(*range(n), n, n + 3, n + 1, n + 4, n + 2)))
    return _reshape(order, shape=(*lead, channels // r**2, r * height, r * width))


@public(out=False)
def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """(..., channels, r height, r width) -> (..., channels r², height, width), the inverse of :func:`pixel_shuffle`.

    Raises:
        ShapeError: height or width is no multiple of the factor.
        ArgumentError: the factor is less than 1.
    """
    r, shape = as_positive("pixel_unshuffle", "downscale_factor", downscale_factor), input.array.shape
    _check_dims("pixel_unshuffle", shape, 3)
    (*lead, channels, height, width), n = shape, len(shape) - 3
    if height % r or width % r:
        raise ShapeError(f"pixel_unshuffle: the input has shape {shape}; expected height and width to be multiples of {r}")
    parts = _reshape(input, shape=(*lead, channels, height // r, r, width // r, r))
    order = clone(_permute(parts, dims=(*range(n), n, n + 2, n + 4, n + 1, n + 3)))
    return _reshape(order, shape=(*lead, channels * r**2, height // r, width // r))


@public(out=False)
def channel_shuffle(input: Any, groups: int) -> Tensor:
    """(batch, channels, ...): divide the channels into groups, and take one of each in turn (Zhang et al. 2018).

    Raises:
        ShapeError: the channels are no multiple of ``groups``.
        ArgumentError: ``groups`` is less than 1.
    """
    count, shape = as_positive("channel_shuffle", "groups", groups), input.array.shape
    _check_dims("channel_shuffle", shape, 3)
    if shape[1] % count or shape[1] < count:
        raise ShapeError(f"channel_shuffle: the input {shape} has {shape[1]} channels; expected a multiple of groups={count}")
    parts = _reshape(input, shape=(shape[0], count, shape[1] // count, *shape[2:]))
    return _reshape(clone(_permute(parts, dims=(0, 2, 1, *range(3, parts.ndim)))), shape=shape)


@public(out=False)
def native_channel_shuffle(input: Any, groups: int) -> Tensor:
    """:func:`channel_shuffle`, by the name of PyTorch's kernel."""
    try:
        return channel_shuffle(input, groups)
    except GpunetError as error:
        raise type(error)(f"native_{error}") from None
