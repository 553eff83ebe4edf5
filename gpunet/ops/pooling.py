"""Pooling: the maximum or the mean of each window of images, signals or volumes."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, as_number, public
from gpunet.ops.pooling_launches import (
    Divisors,
    Windows,
    adaptive_windows,
    avg_pool,
    avg_pool_composed,
    covered_windows,
    max_pool,
    padded,
)
from gpunet.ops.windows import check_images, num_windows, per_dimension

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d",
    "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d", "max_pool3d_with_indices",
]  # fmt: skip


def _checked(function: str, input: Tensor, dims: int) -> tuple[int, ...]:
    """Check the tensor that is pooled; return the extents of its plane."""
    check_images(function, input.array.shape, dims)
    if not is_floating(input.dtype):
        raise DtypeError(f"{function}: the input has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    extent = input.array.shape[-dims:]
    if math.prod(extent) >= 1 << 31:
        raise ShapeError(f"{function}: the input has shape {input.array.shape}; expected less than 2^31 elements in a plane")
    return extent


def _windows(
    function: str, input: Tensor, dims: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    extent = _checked(function, input, dims)
    taps = per_dimension(function, "kernel_size", kernel_size, dims, 1)
    is_default = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    strides = taps if is_default else per_dimension(function, "stride", stride, dims, 1)
    pads = per_dimension(function, "padding", padding, dims, 0)
    dilations = per_dimension(function, "dilation", dilation, dims, 1)
    for pad, tap, step in zip(pads, taps, dilations):
        reach = step * (tap - 1) + 1
        if pad > reach // 2:
            raise ArgumentError(
                f"{function}: padding={padding} with windows of {reach} elements; expected at most half of it, {reach // 2}"
            )
    size = [num_windows(*numbers, ceil_mode) for numbers in zip(extent, taps, strides, pads, dilations)]
    if min(size) < 1:
        raise ShapeError(
            f"{function}: windows of kernel_size={kernel_size} on the input of shape {tuple(input.array.shape)}; expected "
            "windows that fit: pass a smaller kernel_size, or padding"
        )
    return Windows(
        dims, padded(dims, extent, 1), padded(dims, size, 1), padded(dims, taps, 1), padded(dims, strides, 1),
        padded(dims, pads, 0), padded(dims, dilations, 1),
    )  # fmt: skip


def _refuse_empty_windows(function: str, windows: Windows) -> None:
    """Raise an ArgumentError if all elements of a window lie in the padding, which only dilation makes possible."""
    for axis in range(3):
        if windows.padding[axis] and windows.dilation[axis] > 1:
            covered = numpy.zeros(windows.size[axis], bool)
            for tap in range(windows.taps[axis]):
                covered[covered_windows(windows, axis, tap)[0]] = True
            if not covered.all():
                dilation, padding, extent = (n[3 - windows.dims :] for n in (windows.dilation, windows.padding, windows.extent))
                raise ArgumentError(
                    f"{function}: dilation={dilation}, padding={padding}; some windows have no element of a plane of {extent}: "
                    "expected less of one of them"
                )


def _max_pool(function: str, input: Tensor, dims: int, *numbers: Any, return_indices: bool | None) -> Any:
    windows = _windows(function, input, dims, *numbers)
    _refuse_empty_windows(function, windows)
    return _maximum(function, input, windows, return_indices)


def _maximum(function: str, input: Tensor, windows: Windows, return_indices: bool | None) -> Any:
    if not return_indices:
        return max_pool(input, windows=windows, with_index=False, function=function)
    values, places = max_pool(input, windows=windows, with_index=True, function=function)
    return values, cast(places, dtype=int64)


def _avg_pool(
    function: str, input: Tensor, dims: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    windows = _windows(function, input, dims, kernel_size, stride, padding, 1, ceil_mode)
    number = 0
    if divisor_override is not None:
        number = as_integer(function, "divisor_override", divisor_override)
        if not 0 < abs(number) < 1 << 31:
            raise ArgumentError(f"{function}: divisor_override={number}; expected an integer of 32 bits that is not 0")
    return avg_pool(input, windows=windows, divisors=Divisors(count_include_pad, number), function=function)


def _adaptive(function: str, input: Tensor, dims: int, output_size: Any) -> Windows:
    """The windows of adaptive pooling; at equal distances where the sizes divide the extents."""
    extent = _checked(function, input, dims)
    items = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(items) != dims or output_size is None or (dims == 1 and None in items):
        several = f", or {dims} integers or None, which means the size of the input" if dims > 1 else ""
        raise ArgumentError(f"{function}: output_size={output_size!r}; expected an integer{several}")
    size = [n if item is None else as_integer(function, "output_size", item) for n, item in zip(extent, items)]
    if min(size) < 1:
        raise ArgumentError(f"{function}: output_size={output_size!r}; expected integers of 1 or more")
    return adaptive_windows(dims, padded(dims, extent, 1), padded(dims, size, 1))


def adaptive_average(function: str, input: Tensor, dims: int, output_size: Any) -> Tensor:
    windows = _adaptive(function, input, dims, output_size)
    pool = adaptive_mean if windows.is_adaptive else avg_pool
    return pool(input, windows=windows, divisors=Divisors(), function=function)


def _adaptive_max(function: str, input: Tensor, dims: int, output_size: Any, return_indices: bool | None) -> Any:
    return _maximum(function, input, _adaptive(function, input, dims, output_size), return_indices)


#: The means of windows that are not at equal distances, one dimension after the other.
adaptive_mean = in_accumulator(avg_pool_composed)


@public(out=False)
def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> Any:  # fmt: skip
    """The maximum of each window of signals.

    A NaN is larger than any other number.

    Args:
        input: (batch, channels, length), or without batch; floating.
        kernel_size: elements of a window, an integer.
        stride: elements from one window to the next; ``kernel_size`` if None.
        padding: elements of -inf on each side, at most half of a window.
        dilation: elements from one element of a window to the next.
        ceil_mode: also take a window that ends behind the padding, if it begins before the end of the input.
        return_indices: return (maxima, places): int64, the place of each maximum in its plane, the first one of equal ones.

    Returns:
        (batch, channels, (length + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1).

    Raises:
        ShapeError: the input is not of that form, or no window fits.
        ArgumentError: a number is out of its range.
        DtypeError: the input is not floating.
    """
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool1d", input, 1, *numbers, return_indices=return_indices)


@public(out=False)
def max_pool1d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool1d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool1d_with_indices", input, 1, *numbers, return_indices=True)


@public(out=False)
def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> Any:  # fmt: skip
    """The maximum of each window of images; arguments and errors as of :func:`max_pool1d`.

    Args:
        input: (batch, channels, height, width), or without batch.
        kernel_size, stride, padding, dilation: an integer, or a pair (vertical, horizontal).
    """
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool2d", input, 2, *numbers, return_indices=return_indices)


@public(out=False)
def max_pool2d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool2d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool2d_with_indices", input, 2, *numbers, return_indices=True)


@public(out=False, autocast="cpu: float32")
def max_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> Any:  # fmt: skip
    """The maximum of each window of volumes; arguments and errors as of :func:`max_pool1d`.

    Args:
        input: (batch, channels, depth, height, width), or without batch.
        kernel_size, stride, padding, dilation: an integer, or three (depth, height, width).
    """
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool3d", input, 3, *numbers, return_indices=return_indices)


@public(out=False, autocast="cpu: float32")
def max_pool3d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool | None = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool3d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    numbers = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool3d_with_indices", input, 3, *numbers, return_indices=True)


@public(out=False)
def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window of signals.

    Args:
        input: (batch, channels, length), or without batch; floating.
        kernel_size: elements of a window, an integer.
        stride: elements from one window to the next; ``kernel_size`` if None.
        padding: elements of 0 on each side, at most half of a window.
        ceil_mode: also take a window that ends behind the padding, if it begins before the end of the input.
        count_include_pad: count the elements of the padding in the mean.

    Returns:
        (batch, channels, (length + 2 padding - kernel_size) // stride + 1).

    Raises:
        ShapeError: the input is not of that form, or no window fits.
        ArgumentError: a number is out of its range.
        DtypeError: the input is not floating.
    """
    return _avg_pool("avg_pool1d", input, 1, kernel_size, stride, padding, ceil_mode, count_include_pad)


@public(out=False)
def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of images; arguments and errors as of :func:`avg_pool1d`.

    Args:
        input: (batch, channels, height, width), or without batch.
        kernel_size, stride, padding: an integer, or a pair (vertical, horizontal).
        divisor_override: divide the sums by this number, which is not 0, instead of the number of elements.
    """
    return _avg_pool("avg_pool2d", input, 2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@public(out=False, autocast="cpu: float32")
def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of volumes; arguments and errors as of :func:`avg_pool1d`.

    Args:
        input: (batch, channels, depth, height, width), or without batch.
        kernel_size, stride, padding: an integer, or three (depth, height, width).
        divisor_override: divide the sums by this number, which is not 0, instead of the number of elements.
    """
    return _avg_pool("avg_pool3d", input, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _lp_pool(
    function: str, input: Tensor, dims: int, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Tensor:  # fmt: skip
    p = as_number(function, "norm_type", norm_type)
    if not p:
        raise ArgumentError(f"{function}: norm_type=0; expected another number")
    _checked(function, input, dims)
    taps = math.prod(per_dimension(function, "kernel_size", kernel_size, dims, 1, expands=False))
    sums = _avg_pool(function, input**p, dims, kernel_size, stride, 0, ceil_mode, True) * taps
    return where(sums == 0, sums.detach(), sums) ** (1.0 / p)


@public(out=False)
def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(the sum of x^p over each window of signals)^(1/p).

    The gradient of a window whose sum is 0 is 0.

    Args:
        input: (batch, channels, length), or without batch; floating.
        norm_type: p.
        kernel_size, stride, ceil_mode: as of :func:`avg_pool1d`.  A window that ends behind the input counts as one whose
            missing elements are the mean of the others, as in PyTorch.

    Raises:
        ShapeError, DtypeError: as of :func:`avg_pool1d`.
        ArgumentError: a number is out of its range, or p is 0.
    """
    return _lp_pool("lp_pool1d", input, 1, norm_type, kernel_size, stride, ceil_mode)


@public(out=False)
def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """:func:`lp_pool1d` of images (batch, channels, height, width), or without batch."""
    return _lp_pool("lp_pool2d", input, 2, norm_type, kernel_size, stride, ceil_mode)


@public(out=False, autocast="cpu: float32")
def lp_pool3d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """:func:`lp_pool1d` of volumes (batch, channels, depth, height, width), or without batch."""
    return _lp_pool("lp_pool3d", input, 3, norm_type, kernel_size, stride, ceil_mode)


@public(out=False)
def adaptive_avg_pool1d(input: Any, output_size: Any) -> Tensor:
    """The means of as many windows of signals as ``output_size`` says: window i of m has elements i n // m to (i + 1) n / m.

    Args:
        input: (batch, channels, length), or without batch; floating.
        output_size: an integer.

    Raises:
        ShapeError: the input is not of that form.
        ArgumentError: a size is less than 1.
    """
    return adaptive_average("adaptive_avg_pool1d", input, 1, output_size)


@public(out=False)
def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    """The means of as many windows of images as ``output_size`` says: window i of m has elements i n // m to (i + 1) n / m.

    Args:
        input: (batch, channels, height, width), or without batch; floating.
        output_size: an integer, or a pair (vertical, horizontal); None in a tuple means the size of the input.

    Raises:
        ShapeError: the input is not of that form.
        ArgumentError: a size is less than 1.
    """
    return adaptive_average("adaptive_avg_pool2d", input, 2, output_size)


@public(out=False, autocast="cpu: float32")
def adaptive_avg_pool3d(input: Any, output_size: Any) -> Tensor:
    """The means of as many windows of volumes as ``output_size`` says: window i of m has elements i n // m to (i + 1) n / m.

    Args:
        input: (batch, channels, depth, height, width), or without batch; floating.
        output_size: an integer, or three (depth, height, width); None in a tuple means the size of the input.

    Raises:
        ShapeError: the input is not of that form.
        ArgumentError: a size is less than 1.
    """
    return adaptive_average("adaptive_avg_pool3d", input, 3, output_size)


@public(out=False)
def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool | None = False) -> Any:
    """The maxima of as many windows of signals as ``output_size`` says; windows and errors of :func:`adaptive_avg_pool1d`.

    Args:
        return_indices: return (maxima, places), as :func:`max_pool1d` does.
    """
    return _adaptive_max("adaptive_max_pool1d", input, 1, output_size, return_indices)


@public(out=False)
def adaptive_max_pool1d_with_indices(input: Any, output_size: Any, return_indices: bool | None = False) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool1d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    return _adaptive_max("adaptive_max_pool1d_with_indices", input, 1, output_size, True)


@public(out=False)
def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool | None = False) -> Any:
    """The maxima of as many windows of images as ``output_size`` says; windows and errors of :func:`adaptive_avg_pool2d`.

    Args:
        return_indices: return (maxima, places), as :func:`max_pool2d` does.
    """
    return _adaptive_max("adaptive_max_pool2d", input, 2, output_size, return_indices)


@public(out=False)
def adaptive_max_pool2d_with_indices(input: Any, output_size: Any, return_indices: bool | None = False) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool2d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    return _adaptive_max("adaptive_max_pool2d_with_indices", input, 2, output_size, True)


@public(out=False, autocast="cpu: float32")
def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool | None = False) -> Any:
    """The maxima of as many windows of volumes as ``output_size`` says; windows and errors of :func:`adaptive_avg_pool3d`.

    Args:
        return_indices: return (maxima, places), as :func:`max_pool3d` does.
    """
    return _adaptive_max("adaptive_max_pool3d", input, 3, output_size, return_indices)


@public(out=False, autocast="cpu: float32")
def adaptive_max_pool3d_with_indices(input: Any, output_size: Any, return_indices: bool | None = False) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool3d` that returns (maxima, places); ``return_indices`` has no effect, as in PyTorch."""
    return _adaptive_max("adaptive_max_pool3d_with_indices", input, 3, output_size, True)
