"""Max unpooling: elements at the places of the maxima that max pooling found (Zeiler and Fergus 2014), and zeros elsewhere."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend.dtypes import int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.creation import zeros
from gpunet.ops.face import as_integer, public
from gpunet.ops.index import from_zero, gather_index
from gpunet.ops.index_launches import SITES
from gpunet.ops.scatter import write_at
from gpunet.ops.shape import _reshape
from gpunet.ops.windows import check_images, per_dimension

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]


def _sizes(function: str, output_size: Any, usual: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that ``output_size`` asks for.

    Raises:
        ArgumentError: it has another number of sizes, or one differs from the usual size by a stride or more.
    """
    if output_size is None:
        return usual
    items = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * len(usual)
    sizes = tuple([as_integer(function, "output_size", n) for n in items])
    if len(sizes) == len(usual) + 2:
        sizes = sizes[2:]
    if len(sizes) != len(usual):
        raise ArgumentError(
            f"{function}: output_size={output_size!r}; expected {len(usual)} sizes, or {len(usual) + 2} with batch and channels"
        )
    if any(abs(n - m) >= step for n, m, step in zip(sizes, usual, strides)):
        least, most = (tuple(m + sign * (step - 1) for m, step in zip(usual, strides)) for sign in (-1, 1))
        raise ArgumentError(f"{function}: output_size={sizes}; expected sizes from {least} to {most}")
    return sizes


def _max_unpool(
    function: str, x: Tensor, indices: Any, dims: int, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:  # fmt: skip
    index, shape = wrap(indices, function), x.array.shape
    check_images(function, shape, dims)
    if not is_floating(x.dtype):
        raise DtypeError(f"{function}: the input has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    if index.dtype != int64:
        raise DtypeError(f"{function}: indices has dtype {index.dtype}; expected int64, as max pooling returns with the maxima")
    if index.array.shape != shape:
        raise ShapeError(f"{function}: indices has shape {index.array.shape}; expected that of the input, {shape}")
    taps = per_dimension(function, "kernel_size", kernel_size, dims, 1, expands=False)
    strides = taps if stride is None else per_dimension(function, "stride", stride, dims, 1, expands=False)
    pads = per_dimension(function, "padding", padding, dims, 0, expands=False)
    usual = tuple((n - 1) * step - 2 * pad + tap for n, step, pad, tap in zip(shape[-dims:], strides, pads, taps))
    sizes = _sizes(function, output_size, usual, strides)
    if min(sizes) < 1:
        raise ShapeError(f"{function}: the input {shape} gives a result of sizes {sizes}; expected 1 or more: pass less padding")
    planes, site = math.prod(shape[:-dims]), SITES[function]
    flat, places = (_reshape(t, shape=(planes, math.prod(shape[-dims:]))) for t in (x, index))
    empty = zeros(planes, math.prod(sizes), dtype=x.dtype, device=x.device)
    y = write_at(empty, flat, gather_index(1, from_zero(places, 1, empty, site), empty), site)
    return _reshape(y, shape=(*shape[:-dims], *sizes))


@public(out=False, autocast="cpu: float32")
def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Write the elements of signals to their places in zeros; the inverse of :func:`max_pool1d` but for what is no maximum.

    Args:
        input: (batch, channels, length), or without batch; floating.
        indices: of the shape of ``input``, int64: the place of each element in its plane, which max pooling returns with
            ``return_indices=True``.  Of equal places, one counts.
        kernel_size, stride, padding: as of the max pooling.
        output_size: the sizes of the result, or its whole shape; by default (length - 1) stride - 2 padding + kernel_size, from
            which they differ by less than a stride.

    Returns:
        (batch, channels, size).

    Raises:
        ShapeError: the shapes do not match.
        DtypeError: the input is not floating, or ``indices`` not int64.
        ArgumentError: a number is out of its range.
        OutOfRangeError: a place is outside of its plane; on a GPU as for x[index].
    """
    return _max_unpool("max_unpool1d", input, indices, 1, kernel_size, stride, padding, output_size)


@public(out=False, autocast="cpu: float32")
def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """:func:`max_unpool1d` of images (batch, channels, height, width), or without batch; numbers are integers or pairs."""
    return _max_unpool("max_unpool2d", input, indices, 2, kernel_size, stride, padding, output_size)


@public(out=False, autocast="cpu: float32")
def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """:func:`max_unpool1d` of volumes (batch, channels, depth, height, width), or without batch; integers or triples."""
    return _max_unpool("max_unpool3d", input, indices, 3, kernel_size, stride, padding, output_size)
