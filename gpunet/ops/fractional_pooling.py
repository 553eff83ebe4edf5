"""Fractional max pooling: the maxima of windows at random places (Graham 2014)."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend.dtypes import int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.broadcast import cast
from gpunet.ops.compare import ne
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, public
from gpunet.ops.index import gather
from gpunet.ops.join import cat
from gpunet.ops.order import argmax
from gpunet.ops.random import rand
from gpunet.ops.windows import check_images, per_dimension

__all__ = [
    "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d", "fractional_max_pool3d_with_indices",
]  # fmt: skip


def check_sizes(function: str, dims: int, output_size: Any, output_ratio: Any) -> tuple[Any, Any]:
    """The sizes of the result and None, or None and its parts of the sizes of the input, of each dimension.

    Raises:
        ArgumentError: neither is given, or a ratio is out of its range.
    """
    if output_size is None and output_ratio is None:
        raise ArgumentError(f"{function}: output_size=None, output_ratio=None; expected one of them")
    if output_size is not None:
        return per_dimension(function, "output_size", output_size, dims, 1, expands=False), None
    given = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * dims
    ratios = tuple([as_number(function, "output_ratio", ratio) for ratio in given])
    if len(ratios) != dims or not all(0.0 < ratio < 1.0 for ratio in ratios):
        raise ArgumentError(f"{function}: output_ratio={output_ratio}; expected a number between 0 and 1, or {dims} of them")
    return None, ratios


def _starts(sample: Tensor, extent: int, size: int, taps: int) -> Tensor:
    """The first element of each window of each plane (planes, size); ``sample`` is of [0, 1), (planes, 1)."""
    last = arange(1, device=sample.device) + (extent - taps)
    ends = last.reshape(1, 1).expand(len(sample), 1)
    if size == 1:
        return ends
    step = sample.new_full((), extent - taps) / (size - 1)
    numbers = cast(arange(size - 1, device=sample.device), dtype=sample.dtype)
    places = cast((numbers + sample) * step, dtype=int64) - cast(sample * step, dtype=int64)
    return cat([places, ends], 1)


def _pooled(
    function: str, input: Tensor, dims: int, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Any
) -> tuple[Tensor, Tensor]:  # fmt: skip
    check_images(function, input.array.shape, dims)
    if not is_floating(input.dtype):
        raise DtypeError(f"{function}: the input has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    *lead, channels = input.array.shape[:-dims]
    extent = input.array.shape[-dims:]
    taps = per_dimension(function, "kernel_size", kernel_size, dims, 1, expands=False)
    sizes, ratios = check_sizes(function, dims, output_size, output_ratio)
    sizes = tuple([int(n * ratio) for n, ratio in zip(extent, ratios)]) if sizes is None else sizes
    if any(size < 1 or size + tap - 1 > n for n, size, tap in zip(extent, sizes, taps)):
        raise ShapeError(
            f"{function}: the input has shape {tuple(input.shape)}, windows of {taps}, a result of {sizes}; expected sizes of at "
            "most the input's less the window's, plus 1"
        )
    batch = lead[0] if lead else 1
    wanted = (batch, channels, dims)
    if samples is None:
        drawn = rand(*wanted, dtype=input.dtype, device=input.device)
    else:
        drawn = wrap(samples, function).detach()
        if tuple(drawn.shape) != wanted or drawn.dtype != input.dtype:
            got = f"{tuple(drawn.shape)}, {drawn.dtype}"
            raise ShapeError(f"{function}: _random_samples have shape {got}; expected {wanted}, {input.dtype}")
    planes = batch * channels
    numbers = drawn.reshape(planes, dims)
    place: Any = 0
    for axis in range(dims):
        column = dims - 1 - axis if dims == 2 else axis  # of images the first number is that of the columns, as in PyTorch
        first = _starts(numbers[:, column : column + 1], extent[axis], sizes[axis], taps[axis])
        inside = arange(taps[axis], device=input.device)
        of_axis = (first.reshape(planes, sizes[axis], 1) + inside) * math.prod(extent[axis + 1 :])
        extended = [planes, *(1,) * (2 * dims)]
        extended[1 + axis], extended[1 + dims + axis] = sizes[axis], taps[axis]
        place = place + of_axis.reshape(extended)
    count, window = math.prod(sizes), math.prod(taps)
    place = place.reshape(planes, count, window)
    elements = input.reshape(planes, math.prod(extent))
    values = gather(elements.detach(), 1, place.reshape(planes, count * window)).reshape(planes, count, window)
    chosen = gather(place, 2, _place_in_window(values).unsqueeze(-1)).reshape(planes, count)
    shape = (*input.array.shape[:-dims], *sizes)
    return gather(elements, 1, chosen).reshape(shape), chosen.reshape(shape)


def _place_in_window(values: Tensor) -> Tensor:
    """The place of the first maximum along the last dimension, or of the last NaN, as the other poolings choose it."""
    last_nan = where(ne(values, values), arange(1, values.array.shape[-1] + 1, device=values.device), 0).amax(-1)
    return where(last_nan > 0, last_nan - 1, argmax(values, -1))


def _pool(function: str, dims: int, input: Tensor, return_indices: bool | None, *arguments: Any) -> Any:
    maxima, places = _pooled(function, input, dims, *arguments)
    return (maxima, places) if return_indices else maxima


@public(out=False, autocast="cpu: float32")
def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool | None = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The maxima of as many windows of images as ``output_size`` says, at distances that are drawn for each channel.

    Args:
        input: (n, channels, height, width), or without n; floating.
        kernel_size: the sizes of a window, an integer or a pair.
        output_size: the sizes of the result, an integer or a pair.
        output_ratio: without ``output_size``, the sizes of the result as parts of those of the input, between 0 and 1.
        return_indices: return (maxima, places): int64, the place of each maximum in its plane.
        _random_samples: uniform numbers (n, channels, 2) to compute the places from, instead of new ones.

    Raises:
        ShapeError: the sizes do not fit.
        ArgumentError: neither ``output_size`` nor ``output_ratio``, or a ratio out of its range.
        DtypeError: the input is not floating.
    """
    return _pool(
        "fractional_max_pool2d", 2, input, return_indices, kernel_size, output_size, output_ratio, _random_samples
    )


@public(out=False, autocast="cpu: float32")
def fractional_max_pool2d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool | None = False,
    _random_samples: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool2d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    name = "fractional_max_pool2d_with_indices"
    return _pooled(name, input, 2, kernel_size, output_size, output_ratio, _random_samples)


@public(out=False, autocast="cpu: float32")
def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool | None = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """:func:`fractional_max_pool2d` of volumes (n, channels, depth, height, width), or without n; three sizes and numbers."""
    return _pool(
        "fractional_max_pool3d", 3, input, return_indices, kernel_size, output_size, output_ratio, _random_samples
    )


@public(out=False, autocast="cpu: float32")
def fractional_max_pool3d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool | None = False,
    _random_samples: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool3d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    name = "fractional_max_pool3d_with_indices"
    return _pooled(name, input, 3, kernel_size, output_size, output_ratio, _random_samples)
