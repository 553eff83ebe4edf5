"""unfold and fold: the windows of images as columns, and the sum of columns at the places of windows."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ShapeError
from gpunet.ops.conv_transpose import spread
from gpunet.ops.pad import pad
from gpunet.ops.shape import _fold, _permute, _reshape, _unfold
from gpunet.ops.windows import check_images, num_windows, per_dimension

__all__ = ["fold", "unfold"]


def _numbers(function: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> list[tuple[int, ...]]:
    """Taps, dilations, paddings and strides of both dimensions."""
    given = (("kernel_size", kernel_size, 1), ("dilation", dilation, 1), ("padding", padding, 0), ("stride", stride, 1))
    return [per_dimension(function, name, value, 2, least, expands=False) for name, value, least in given]


def _counts(function: str, extent: tuple[int, ...], numbers: list[tuple[int, ...]]) -> list[int]:
    """How many windows there are along each dimension of images.

    Raises:
        ShapeError: none fits.
    """
    taps, dilations, pads, strides = numbers
    counts = [num_windows(*n) for n in zip(extent, taps, strides, pads, dilations)]
    if min(counts) < 1:
        raise ShapeError(
            f"{function}: windows of kernel_size={taps} with dilation={dilations} on images of {extent} padded by {pads}; expected "
            "windows that fit"
        )
    return counts


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of images as columns (im2col).

    Args:
        input: (n, channels, height, width), or one image without n.
        kernel_size, dilation, padding, stride: integers or pairs (vertical, horizontal), as of :func:`conv2d`.

    Returns:
        (n, channels * elements of a window, windows), without n of one image.

    Raises:
        ShapeError: the input is no image, or no window fits.
        ArgumentError: a number is out of its range.
    """
    x = wrap(input)
    shape = x.array.shape
    check_images("unfold", shape, 2)
    if len(shape) == 3:
        return unfold(_reshape(x, shape=(1, *shape)), kernel_size, dilation, padding, stride)[0]
    numbers = _numbers("unfold", kernel_size, dilation, padding, stride)
    (n, channels, *extent), (taps, dilations, pads, strides) = shape, numbers
    counts = _counts("unfold", tuple(extent), numbers)
    x = pad(x, (pads[1], pads[1], pads[0], pads[0]))
    for dim in (0, 1):
        x = _unfold(x, dim=dim + 2, size=dilations[dim] * (taps[dim] - 1) + 1, step=strides[dim])[..., :: dilations[dim]]
    return _reshape(_permute(x, dims=(0, 1, 4, 5, 2, 3)), shape=(n, channels * math.prod(taps), math.prod(counts)))


def fold(input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Add columns at the places of windows (col2im), the transpose of :func:`unfold`.

    Args:
        input: (n, channels * elements of a window, windows), or without n.
        output_size: height and width of the images.
        kernel_size, dilation, padding, stride: as of unfold.

    Returns:
        (n, channels, height, width), or without n.

    Raises:
        ShapeError: the input does not have that many rows or columns.
        ArgumentError: a number is out of its range.
    """
    x = wrap(input)
    shape = x.array.shape
    if len(shape) == 2:
        return fold(_reshape(x, shape=(1, *shape)), output_size, kernel_size, dilation, padding, stride)[0]
    extent = per_dimension("fold", "output_size", output_size, 2, 1, expands=False)
    numbers = _numbers("fold", kernel_size, dilation, padding, stride)
    (taps, dilations, pads, strides), counts = numbers, _counts("fold", extent, numbers)
    if len(shape) != 3 or shape[1] % math.prod(taps) or not shape[1] or shape[2] != math.prod(counts):
        raise ShapeError(
            f"fold: the input has shape {shape}; expected (batch, a multiple of {math.prod(taps)}, {math.prod(counts)}) for "
            f"output_size={extent}, or the same without batch"
        )
    n, channels = shape[0], shape[1] // math.prod(taps)
    windows = _permute(_reshape(x, shape=(n, channels, *taps, *counts)), dims=(0, 1, 4, 5, 2, 3))
    for dim in (1, 0):  # the last dimension has the taps along width, then those along height
        reach, length = dilations[dim] * (taps[dim] - 1) + 1, extent[dim] + 2 * pads[dim]
        windows = spread(windows, windows.ndim - 1, dilations[dim])
        if not dim:
            windows = _fold(windows, dim=2, size=reach, step=strides[0], length=length)
        else:
            order = (0, 1, 2, 4, 3, 5)  # the taps along height before the windows along width
            folded = _fold(_permute(windows, dims=order), dim=4, size=reach, step=strides[1], length=length)
            windows = _permute(folded, dims=(0, 1, 2, 4, 3))
    return pad(windows, (-pads[1], -pads[1], -pads[0], -pads[0]))
