"""Sampling of images at any positions, and the positions of an affine transformation (Jaderberg et al. 2015).

Pixels are gathered as rows of channels, and the weights of a position are ops on tensors; so are the gradients of input and grid.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, no_grad, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import clamp, where
from gpunet.ops.face import check_flag, sizes_of
from gpunet.ops.index import index_select
from gpunet.ops.reduce import sum as sum_of
from gpunet.ops.resample import cubic_weights
from gpunet.ops.rounding import floor
from gpunet.ops.rounding import round as round_to_integers
from gpunet.ops.shape import _permute, _reshape

__all__ = ["affine_grid", "grid_sample"]

_MODES, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def _reflected(x: Tensor, n: int, align: bool) -> Tensor:
    """Positions reflected at the centres of the first and last elements, or at their edges."""
    low, span = (0.0, n - 1.0) if align else (-0.5, float(n))
    if not span:
        return x * 0.0
    distance = (x - low).abs()
    with no_grad():
        flips = floor(distance / span)
        is_odd = flips - 2 * floor(flips / 2) != 0
    rest = distance - flips * span
    return where(is_odd, span - rest, rest) + low


def _inside(x: Tensor, n: int, padding: str, align: bool) -> Tensor:
    """Positions moved into the input, unless there are zeros around it."""
    if padding == "zeros":
        return x
    x = _reflected(x, n, align) if padding == "reflection" else x
    return where(x <= 0, 0.0, where(x >= n - 1, float(n - 1), x))  # without a gradient on the border, as in PyTorch


def _taps(x: Tensor, n: int, mode: str, padding: str, align: bool) -> list[tuple[Tensor, Tensor]]:
    """For one dimension: (positions of integers, weights) of each tap; the weight of an element outside is 0."""
    x = (x + 1) * (0.5 * (n - 1)) if align else (x + 1) * (0.5 * n) - 0.5
    if mode != "bicubic":
        x = _inside(x, n, padding, align)
    with no_grad():
        low = round_to_integers(x) if mode == "nearest" else floor(x)
    if mode == "nearest":
        pairs = [(low, clamp(floor(x), 1, 1))]  # 1, with a gradient of 0
    elif mode == "bilinear":
        pairs = [(low, 1 - (x - low)), (low + 1, x - low)]
    else:
        pairs = [(low + offset, weight) for offset, weight in zip((-1, 0, 1, 2), cubic_weights(x - low))]
    found = []
    for place, weight in pairs:
        with no_grad():
            at = _inside(place, n, padding, align) if mode == "bicubic" else place
            is_inside, is_outside = (at >= 0) & (at <= n - 1), (at < 0) | (at > n - 1)  # NaN is neither: its weight is NaN
            index = cast(where(is_inside, at, 0.0), dtype=int64)
        found.append((index, where(is_outside, 0.0, weight)))
    return found


@casts("cpu: float32, cuda: widest")
def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Sample images or volumes at positions.

    Args:
        input: (n, c, height, width) or (n, c, depth, height, width), floating.
        grid: (n, rows, columns, 2) or (n, slices, rows, columns, 3) of the dtype of ``input``: positions (x, y) or (x, y, z), from
            -1, the left or upper edge of the input, to 1, the right or lower one.
        mode: "bilinear" (of volumes trilinear), "nearest", or of images "bicubic" (Keys 1981 with a = -0.75).
        padding_mode: what lies outside: "zeros", the elements of the "border", or the input's "reflection".
        align_corners: let -1 and 1 be the centres of the first and last elements, instead of their edges.

    Returns:
        (n, c, rows, columns), or (n, c, slices, rows, columns).

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: the dtypes differ or are not floating, or ``align_corners`` is no bool.
        ArgumentError: an unknown mode.
    """
    check_flag("grid_sample", "align_corners", align_corners, True)
    x, positions = wrap(input), wrap(grid)
    shape, places = x.array.shape, positions.array.shape
    dims = len(shape) - 2
    if dims not in (2, 3) or 0 in shape[1:]:
        raise ShapeError(
            f"grid_sample: the input has shape {shape}; expected (batch, channels, height, width) or (batch, channels, depth, "
            "height, width), of which only the batch may be empty"
        )
    if len(places) != dims + 2 or places[0] != shape[0] or places[-1] != dims:
        raise ShapeError(f"grid_sample: grid has shape {places}; expected ({shape[0]}, ..., {dims}) of {dims + 2} dimensions")
    if not is_floating(x.dtype) or positions.dtype != x.dtype:
        raise DtypeError(f"grid_sample: input of dtype {x.dtype}, grid of {positions.dtype}; expected one floating dtype")
    for name, value, known in (("mode", mode, _MODES), ("padding_mode", padding_mode, _PADDINGS)):
        if value not in known:
            raise ArgumentError(f"grid_sample: {name}={value!r}; expected one of {', '.join(map(repr, known))}")
    if mode == "bicubic" and dims == 3:
        raise ArgumentError("grid_sample: mode='bicubic' with volumes; expected 'bilinear' or 'nearest'")
    return _sampled(x, positions, mode=mode, padding=padding_mode, align=bool(align_corners))


@in_accumulator
def _sampled(x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    shape, places = x.array.shape, grid.array.shape
    (n, c, *extent), dims, count = shape, len(shape) - 2, math.prod(places[1:-1])
    rows = _reshape(_permute(x, dims=(0, *range(2, dims + 2), 1)), shape=(n * math.prod(extent), c))
    positions = _reshape(grid, shape=(n, count, dims))
    first_rows = _reshape(arange(n, device=x.device) * math.prod(extent), shape=(n, 1))
    taps = [_taps(positions[..., dims - 1 - d], extent[d], mode, padding, align) for d in range(dims)]
    total: Any = None
    for chosen in itertools.product(*taps):
        index, weight = first_rows, None
        for d, (place, factor) in enumerate(chosen):
            index = index + place * math.prod(extent[d + 1 :])
            weight = factor if weight is None else weight * factor
        part = index_select(rows, 0, _reshape(index, shape=(n * count,))) * _reshape(weight, shape=(n * count, 1))
        total = part if total is None else total + part
    return _permute(_reshape(total, shape=(n, *places[1:-1], c)), dims=(0, dims + 1, *range(1, dims + 1)))


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Tensor:
    """The positions at which :func:`grid_sample` applies affine transformations.

    Args:
        theta: (n, 2, 3) for images, (n, 3, 4) for volumes; floating.
        size: of the result of grid_sample, (n, c, height, width) or (n, c, depth, height, width).
        align_corners: as of grid_sample.

    Returns:
        (n, height, width, 2) or (n, depth, height, width, 3).

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: ``theta`` is not floating.
    """
    check_flag("affine_grid", "align_corners", align_corners, True)
    matrices, sizes = wrap(theta), sizes_of("affine_grid", (), size=size)
    dims = len(sizes) - 2
    if not is_floating(matrices.dtype):
        raise DtypeError(f"affine_grid: theta has dtype {matrices.dtype}; expected a floating dtype: convert it with .float()")
    if dims not in (2, 3) or min(sizes, default=0) < 1:
        raise ShapeError(f"affine_grid: size={sizes}; expected (n, c, height, width) or (n, c, depth, height, width), positive")
    wanted = (sizes[0], dims, dims + 1)
    if matrices.array.shape != wanted:
        raise ShapeError(f"affine_grid: theta has shape {matrices.array.shape}; expected {wanted} for size={sizes}")
    return _positions(matrices, extent=sizes[2:], align=bool(align_corners))


@functools.lru_cache(maxsize=16)
def _centers_on(device: devices.Device, dtype: Any, extent: tuple[int, ...], align: bool) -> Array:
    """The positions of all elements, each with a 1 behind it: (elements, 1, dims + 1)."""
    lines = [numpy.linspace(-1, 1, n) if align and n > 1 else (2 * numpy.arange(n) + 1) / n - 1 for n in extent]
    points = numpy.stack([*numpy.meshgrid(*lines, indexing="ij")[::-1], numpy.ones(extent)], -1)
    return devices.move(points.reshape(-1, 1, len(extent) + 1).astype(dtype), device)


@in_accumulator
def _positions(matrices: Tensor, extent: tuple[int, ...], align: bool) -> Tensor:
    centers = make_tensor(constant(_centers_on(devices.of(matrices.array), matrices.dtype, extent, align)))
    n, dims, terms = matrices.array.shape
    return _reshape(sum_of(_reshape(matrices, shape=(n, 1, dims, terms)) * centers, -1), shape=(n, *extent, dims))
