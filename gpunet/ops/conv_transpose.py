"""Transposed convolution: the gradient of a convolution with respect to its input, as a function of its own.

For images x (n, c, height, width) and filters w (c, o / groups, r, s), each pixel of x adds its filters to the result, ``stride``
pixels apart; the border of ``padding`` pixels is cut off.  Forward is the launch that computes the gradient of a convolution's
input, and the gradients are the launches of convolution and of its weight's gradient (Dumoulin and Visin 2016).
"""

from __future__ import annotations

from typing import Any

from numpy import ndarray

from gpunet.autograd import Tensor, fused, wrap
from gpunet.autograd.autocast import casts
from gpunet.autograd.op import Composite, observers
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.convolution import (
    Window,
    check_tensors,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    convolution_composed,
    forward_product,
    input_product,
    last_two,
    weight_product,
)
from gpunet.ops.face import as_integer, as_positive, public
from gpunet.ops.gemm import best_cut, workspace
from gpunet.ops.pad import pad
from gpunet.ops.shape import _fold, _permute, _reshape, flip
from gpunet.ops.windows import per_dimension

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def spread(x: Tensor, dim: int, step: int) -> Tensor:
    """x with step - 1 zeros between the elements of a dimension."""
    if step == 1:
        return x
    shape = x.array.shape
    wide = pad(_reshape(x, shape=(*shape[: dim + 1], 1, *shape[dim + 1 :])), (*(0, 0) * (len(shape) - dim - 1), 0, step - 1))
    joined = _reshape(wide, shape=(*shape[:dim], shape[dim] * step, *shape[dim + 1 :]))
    return pad(joined, (*(0, 0) * (len(shape) - dim - 1), 0, 1 - step))


def _transposed_composed(x, w, *, window, function):
    """The convolution of x, with zeros between its pixels, with the filters turned by 180 degrees."""
    (c, of_group, down, across), groups, dilation = w.array.shape, window.groups, window.dilation
    for dim in (2, 3):
        x = spread(x, dim, window.stride[dim - 2])
    turned = _reshape(flip(w, (2, 3)), shape=(groups, c // groups, of_group, down, across))
    filters = _reshape(_permute(turned, dims=(0, 2, 1, 3, 4)), shape=(groups * of_group, c // groups, down, across))
    border = (dilation[0] * (down - 1) - window.padding[0], dilation[1] * (across - 1) - window.padding[1])
    extent = (x.array.shape[2], x.array.shape[3])
    of_filters = Window(extent, filters.array.shape, window.extent, (1, 1), border, dilation, groups)
    return convolution_composed(x, filters, None, window=of_filters, activation="identity", alpha=0.0, function=function)


#: What exports see instead of the op on images.
CONV_TRANSPOSE3D = Composite("conv_transpose3d")
_PLAIN = {"activation": "identity", "alpha": 0.0}


@fused(composed=_transposed_composed, name_from=lambda options: options["function"])
def transposed_convolution(x, w, *, window, function, need):
    """The transpose of the convolution with ``window``: x (n, c, p, q), w (c, o / groups, r, s) -> (n, o, *window.extent)."""
    y = empty((len(x), w.shape[1] * window.groups, *window.extent), x.dtype, x)
    if type(x) is ndarray:
        conv2d_backward_input(y, None, None, x, w, None, window=window, **_PLAIN)
    else:
        cut = best_cut(*input_product(y, w, window))
        conv2d_backward_input(y, *workspace(x, cut), x, w, None, window=window, **_PLAIN, cut=cut)
    return y, (x if need[1] else None, w if need[0] else None)


@transposed_convolution.backward
def _(saved, dy, *, window, function, need):
    x, w = saved
    g, dx, dw = dy.array, None, None
    if need[0]:
        dx = empty((len(g), window.filters[0], *window.size), g.dtype, g)
        if type(g) is ndarray:
            conv2d_forward(dx, None, None, None, g, w, None, window=window, **_PLAIN)
        else:
            cut = best_cut(*forward_product(dx, w, window))
            conv2d_forward(dx, None, *workspace(g, cut), g, w, None, window=window, **_PLAIN, cut=cut)
    if need[1]:
        dw = empty(window.filters, g.dtype, g)
        if type(g) is ndarray:
            conv2d_backward_weight(dw, None, None, None, x, g, None, window=window)
        else:
            cut = best_cut(*weight_product(dw, x, window))
            conv2d_backward_weight(dw, None, *workspace(g, cut, extra=1), x, g, None, window=window, cut=cut)
    return dx, dw


def _output_padding(function: str, output_size: Any, least: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The output padding that gives ``output_size``, an integer or integers.

    Raises:
        ArgumentError: it has another number of sizes, or no output padding below the stride gives it.
    """
    items = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * len(least)
    sizes = [as_integer(function, "output_size", n) for n in items]
    if len(sizes) == len(least) + 2:
        sizes = sizes[2:]
    if len(sizes) != len(least):
        raise ArgumentError(
            f"{function}: output_size={output_size!r}; expected {len(least)} sizes, or {len(least) + 2} with batch and channels"
        )
    if any(not low <= n < low + step for n, low, step in zip(sizes, least, strides)):
        most = tuple(low + step - 1 for low, step in zip(least, strides))
        raise ArgumentError(f"{function}: output_size={tuple(sizes)}; expected sizes from {least} to {most}")
    return tuple(n - low for n, low in zip(sizes, least))


@casts("half")
def transpose_convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any,
    dims: int = 2, output_size: Any = None,
) -> Tensor:  # fmt: skip
    """conv_transpose1d, conv_transpose2d or conv_transpose3d, for ``dims`` dimensions; arguments as of :func:`conv_transpose2d`.

    Args:
        output_size: sizes of the result, which replace ``output_padding``.
    """
    function = f"conv_transpose{dims}d"
    groups = as_positive(function, "groups", groups)
    strides, dilations, pads, extra = (
        per_dimension(function, name, value, dims, least)
        for name, value, least in (
            ("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0), ("output_padding", output_padding, 0)
        )
    )  # fmt: skip
    if x.array.ndim == dims + 1:
        batch = _reshape(x, shape=(1, *x.shape))
        return transpose_convolve(batch, weight, bias, strides, pads, extra, groups, dilations, dims, output_size)[0]
    shape, filters = x.array.shape, weight.array.shape
    check_tensors(function, x, weight, bias, dims)
    if filters[0] % groups:
        raise ShapeError(f"{function}: weight {filters} has {filters[0]} input channels; expected a multiple of groups={groups}")
    if shape[1] != filters[0]:
        raise ShapeError(f"{function}: the input {shape} has {shape[1]} channels; the weight {filters} expects {filters[0]}")
    channels = filters[1] * groups
    if bias is not None and bias.array.shape != (channels,):
        raise ShapeError(
            f"{function}: bias has shape {bias.array.shape}; expected ({channels},) for weight {filters} with groups={groups}"
        )
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, filters[2:]))
    least = tuple((n - 1) * s - 2 * p + r for n, s, p, r in zip(shape[2:], strides, pads, reach))
    if output_size is not None:
        extra = _output_padding(function, output_size, least, strides)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations)):
        raise ArgumentError(
            f"{function}: output_padding={extra} with stride={strides} and dilation={dilations}; expected less than one of them"
        )
    sizes = tuple(n + e for n, e in zip(least, extra))
    if min(sizes) < 1 or 0 in shape[1:]:
        raise ShapeError(f"{function}: the input {shape} gives a result of sizes {sizes}; expected 1 or more: pass less padding")
    y = (_transpose_volumes if dims == 3 else _transpose_images)(function, x, weight, sizes, strides, pads, dilations, groups)
    if observers and dims == 3:
        options = {"stride": strides, "padding": pads, "extra": extra, "dilation": dilations, "groups": groups}
        CONV_TRANSPOSE3D.notify((x, weight), options, y)
    return y if bias is None else y + _reshape(bias, shape=(channels, *(1,) * dims))


def _transpose_images(
    function: str, x: Tensor, w: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
    dilations: tuple[int, ...], groups: int,
) -> Tensor:  # fmt: skip
    """The result for images, or for signals, which are images of one row."""
    (n, c, *extent), (_, of_group, *taps) = x.array.shape, w.array.shape
    if len(extent) == 1:
        x, w = _reshape(x, shape=(n, c, 1, *extent)), _reshape(w, shape=(c, of_group, 1, *taps))
    size, numbers = last_two(x.array.shape[2:]), (last_two(strides), last_two(pads, 0), last_two(dilations))
    window = Window(last_two(sizes), w.array.shape, size, *numbers, groups)
    transpose = transposed_convolution if is_floating(w.dtype) else _transposed_composed
    y = transpose(x, w, window=window, function=function)
    return _reshape(y, shape=(n, of_group * groups, *sizes))


def _transpose_volumes(
    function: str, x: Tensor, w: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
    dilations: tuple[int, ...], groups: int,
) -> Tensor:  # fmt: skip
    """The result for volumes: that of their images, with the taps along depth as channels, added along depth."""
    (n, c, depth, height, width), (_, of_group, taps, r, s) = x.array.shape, w.array.shape
    images = _reshape(_permute(x, dims=(0, 2, 1, 3, 4)), shape=(n * depth, c, height, width))
    filters = _reshape(w, shape=(c, of_group * taps, r, s))
    planes = _transpose_images(function, images, filters, sizes[1:], strides[1:], pads[1:], dilations[1:], groups)
    parts = _reshape(planes, shape=(n, depth, groups * of_group, taps, *sizes[1:]))
    windows = spread(_permute(parts, dims=(0, 2, 1, 4, 5, 3)), 5, dilations[0])
    reach = dilations[0] * (taps - 1) + 1
    length = (depth - 1) * strides[0] + reach
    y = _fold(windows, dim=2, size=reach, step=strides[0], length=length)
    return pad(y, (0, 0, 0, 0, -pads[0], sizes[0] - length + pads[0]))


@public(out=False)
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv1d`; arguments and errors as of :func:`conv_transpose2d`.

    Args:
        input: (n, in_channels, length), or one signal without n.
        weight: (in_channels, out_channels / groups, filter length).
    """
    numbers = (stride, padding, output_padding, groups, dilation)
    return transpose_convolve(input, wrap(weight), None if bias is None else wrap(bias), *numbers, dims=1)


@public(out=False)
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv2d`: each pixel adds its filters to the result.

    Args:
        input: (n, in_channels, height, width), or one image without n; of the dtype of the weight.
        weight: the filters, (in_channels, out_channels / groups, filter height, filter width).
        bias: (out_channels,), added to each channel; None for none.
        stride: pixels of the result from one pixel's filters to the next's, an integer or a pair (vertical, horizontal).
        padding: width of the border that is cut off on each side, an integer or a pair.
        output_padding: rows and columns that are added below and to the right; less than stride or dilation.
        groups: the channels are divided into so many groups; each output channel sees the input channels of its group.
        dilation: pixels from one tap of a filter to the next, an integer or a pair.

    Returns:
        (n, out_channels, (height - 1) stride - 2 padding + dilation (filter height - 1) + output_padding + 1, ...).

    Raises:
        ShapeError: the shapes do not match, or nothing is left of the result.
        DtypeError: the dtypes differ, or are boolean.
        ArgumentError: a number is out of its range.
    """
    numbers = (stride, padding, output_padding, groups, dilation)
    return transpose_convolve(input, wrap(weight), None if bias is None else wrap(bias), *numbers)


@public(out=False)
def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv3d`; arguments and errors as of :func:`conv_transpose2d`.

    Args:
        input: (n, in_channels, depth, height, width), or one volume without n.
        weight: (in_channels, out_channels / groups, filter depth, filter height, filter width).
    """
    numbers = (stride, padding, output_padding, groups, dilation)
    return transpose_convolve(input, wrap(weight), None if bias is None else wrap(bias), *numbers, dims=3)
