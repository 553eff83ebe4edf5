"""Windows of pooling, convolution and their kin: arguments with a number for each dimension, and how many windows fit."""

from __future__ import annotations

from typing import Any

from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.face import as_integer

_TUPLES = {1: "an integer", 2: "an integer, or a pair (vertical, horizontal)", 3: "an integer, or three (depth, height, width)"}


def per_dimension(function: str, name: str, value: Any, dims: int, least: int, *, expands: bool = True) -> tuple[int, ...]:
    """An argument that is an integer, or one for each of ``dims`` dimensions, as a tuple of ``dims`` integers.

    Args:
        expands: take a sequence of one integer for all dimensions; some functions of PyTorch do, some refuse it.

    Raises:
        ArgumentError: it has another number of integers, or one is less than ``least``.
        DtypeError: it holds something else than integers.
    """
    items = value if isinstance(value, (tuple, list)) else (value,)
    numbers = tuple([as_integer(function, name, item) for item in items])
    if len(numbers) != dims and (len(numbers) != 1 or (items is value and not expands)):
        raise ArgumentError(f"{function}: {name}={value!r}; expected {_TUPLES[dims]}")
    if min(numbers) < least:
        raise ArgumentError(f"{function}: {name}={value!r}; expected integers of {least} or more")
    return numbers if len(numbers) == dims else numbers * dims


def num_windows(extent: int, taps: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False) -> int:
    """The number of windows along a dimension; 0 or less if none fits.

    Args:
        ceil_mode: also count a window that ends behind the padding, if it begins in the tensor or in the padding before it.
    """
    room = extent + 2 * padding - dilation * (taps - 1) - 1
    count = -(-room // stride) + 1 if ceil_mode else room // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= extent + padding else count


def check_images(function: str, shape: tuple[int, ...], dims: int, takes_empty: bool = False) -> None:
    """Check that a shape is that of images: (channels, ...) or (batch, channels, ...) with ``dims`` dimensions behind.

    Raises:
        ShapeError: it has another number of dimensions, or one behind the batch is empty.
    """
    names = ("depth", "height", "width")[3 - dims :] if dims > 1 else ("length",)
    if len(shape) not in (dims + 1, dims + 2):
        raise ShapeError(
            f"{function}: the input has shape {shape}; expected (batch, channels, {', '.join(names)}), or the same without batch"
        )
    if not takes_empty and 0 in (shape[1:] if len(shape) == dims + 2 else shape):
        raise ShapeError(f"{function}: the input has shape {shape}; expected no empty dimension but the batch")
