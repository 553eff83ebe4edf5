"""Pooling layers."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module
from gpunet.ops import fractional_pooling, pooling, unpooling
from gpunet.ops.windows import per_dimension

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d", "LPPool1d", "LPPool2d", "LPPool3d",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip


class _MaxPool(Module):
    """The maximum of each window.

    Args:
        kernel_size: elements of a window, an integer or one for each dimension.
        stride: elements from one window to the next; ``kernel_size`` if None.
        padding: elements of -inf on each side, at most half of a window.
        dilation: elements from one element of a window to the next.
        return_indices: return (maxima, places); see :func:`gpunet.nn.functional.max_pool1d`, which also tells the shapes.
        ceil_mode: also take a window that ends behind the padding.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    __doc__ = _MaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.max_pool1d(input, *self._arguments())


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.max_pool2d(input, *self._arguments())


class MaxPool3d(_MaxPool):
    __doc__ = _MaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.max_pool3d(input, *self._arguments())


class _AvgPool(Module):
    """The mean of each window.

    Args:
        kernel_size: elements of a window, an integer or one for each dimension.
        stride: elements from one window to the next; ``kernel_size`` if None.
        padding: elements of 0 on each side, at most half of a window.
        ceil_mode: also take a window that ends behind the padding.
        count_include_pad: count the elements of the padding in the mean.
        divisor_override: of two and three dimensions: divide the sums by this number instead.
    """

    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    __doc__ = _AvgPool.__doc__

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
    ) -> None:
        super().__init__()
        found = [pooling.per_dimension("AvgPool1d", name, value, 1, least) for name, value, least in (
            ("kernel_size", kernel_size, 1), ("stride", kernel_size if stride is None else stride, 1), ("padding", padding, 0)
        )]  # fmt: skip
        self.kernel_size, self.stride, self.padding = found
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Any) -> Any:
        numbers = (self.kernel_size, self.stride, self.padding)
        return pooling.avg_pool1d(input, *numbers, self.ceil_mode, self.count_include_pad)


class _AvgPoolNd(_AvgPool):
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def _arguments(self) -> tuple[Any, ...]:
        numbers = (self.kernel_size, self.stride, self.padding)
        return (*numbers, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AvgPool2d(_AvgPoolNd):
    __doc__ = _AvgPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.avg_pool2d(input, *self._arguments())


class AvgPool3d(_AvgPoolNd):
    __doc__ = _AvgPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.avg_pool3d(input, *self._arguments())


class _AdaptiveAvgPool(Module):
    """The means of as many windows as ``output_size`` says.

    Args:
        output_size: an integer, or one for each dimension, of which None means the size of the input.
    """

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMaxPool(Module):
    """The maxima of as many windows as ``output_size`` says.

    Args:
        output_size: an integer, or one for each dimension, of which None means the size of the input.
        return_indices: return (maxima, places); see :func:`gpunet.nn.functional.max_pool1d`.
    """

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__

    def forward(self, input: Any) -> Any:
        return pooling.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class _LPPool(Module):
    """(the sum of x^p over each window)^(1/p), see :func:`gpunet.nn.functional.lp_pool1d`.

    Args:
        norm_type: p.
        kernel_size: elements of a window, an integer or one for each dimension.
        stride: elements from one window to the next; ``kernel_size`` if None.
        ceil_mode: also take a window that ends behind the input.
    """

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def _arguments(self) -> tuple[Any, ...]:
        return float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    __doc__ = _LPPool.__doc__

    def forward(self, input: Any) -> Tensor:
        return pooling.lp_pool1d(input, *self._arguments())


class LPPool2d(_LPPool):
    __doc__ = _LPPool.__doc__

    def forward(self, input: Any) -> Tensor:
        return pooling.lp_pool2d(input, *self._arguments())


class LPPool3d(_LPPool):
    __doc__ = _LPPool.__doc__

    def forward(self, input: Any) -> Tensor:
        return pooling.lp_pool3d(input, *self._arguments())


class _FractionalMaxPool(Module):
    """The maxima of windows at random places, see :func:`gpunet.nn.functional.fractional_max_pool2d`.

    Args:
        kernel_size: the sizes of a window, an integer or one for each dimension.
        output_size: the sizes of the result, an integer or one for each dimension.
        output_ratio: instead, the sizes of the result as parts of those of the input, between 0 and 1.
        return_indices: return (maxima, places).

    Raises:
        ArgumentError: neither or both of ``output_size`` and ``output_ratio``, or a ratio out of its range.
    """

    _dims = 0

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name, dims = type(self).__name__, self._dims
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1, expands=False)
        if output_size is not None and output_ratio is not None:
            raise ArgumentError(f"{name}: output_size={output_size}, output_ratio={output_ratio}; expected one of them")
        self.output_size, self.output_ratio = fractional_pooling.check_sizes(name, dims, output_size, output_ratio)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples


class FractionalMaxPool2d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    _dims = 2

    def forward(self, input: Any) -> Any:
        return fractional_pooling.fractional_max_pool2d(input, *self._arguments())


class FractionalMaxPool3d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    _dims = 3

    def forward(self, input: Any) -> Any:
        return fractional_pooling.fractional_max_pool3d(input, *self._arguments())


class _MaxUnpool(Module):
    """Write elements to the places of the maxima that max pooling found, see :func:`gpunet.nn.functional.max_unpool1d`.

    Args:
        kernel_size, stride, padding: as of the max pooling: integers, or one for each dimension.
    """

    _dims = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        name, dims = type(self).__name__, self._dims
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1, expands=False)
        self.stride = self.kernel_size if stride is None else per_dimension(name, "stride", stride, dims, 1, expands=False)
        self.padding = per_dimension(name, "padding", padding, dims, 0, expands=False)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    _dims = 1

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Tensor:
        return unpooling.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    _dims = 2

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Tensor:
        return unpooling.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    _dims = 3

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Tensor:
        return unpooling.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
