"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn import init
from gpunet.nn.module import Module, Parameter, UninitializedParameter, empty_parameter, launches, run_activated
from gpunet.ops.conv_transpose import transpose_convolve
from gpunet.ops.convolution import conv2d_forward, convolve, paddings
from gpunet.ops.face import as_integer, as_positive
from gpunet.ops.pad import pad
from gpunet.ops.windows import per_dimension

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
]  # fmt: skip

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """The parameters of a convolution of any kind, see its classes."""

    weight: Parameter
    bias: Parameter | None
    padding: Any
    transposed = False
    _dims = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, output_padding: Any,
        groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name, dims = type(self).__name__, self._dims
        groups = as_positive(name, "groups", groups)
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        for key, value in channels.items():
            channels[key] = value = as_integer(name, key, value)
            if value < 1 or value % groups:
                raise ArgumentError(f"{name}: {key}={value}; expected a positive multiple of groups={groups}")
        modes = ("zeros",) if self.transposed else _PADDING_MODES
        if padding_mode not in modes:
            raise ArgumentError(f"{name}: padding_mode={padding_mode!r}; expected one of {', '.join(map(repr, modes))}")
        self.in_channels, self.out_channels = channels.values()
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1)
        self.stride, self.dilation = (
            per_dimension(name, key, value, dims, 1) for key, value in (("stride", stride), ("dilation", dilation))
        )
        self.output_padding = per_dimension(name, "output_padding", output_padding, dims, 0)
        self.groups, self.padding_mode = groups, padding_mode
        low, high = paddings(name, padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else low
        #: as the argument of pad(): left, right, above, below
        self._reversed_padding_repeated_twice = [n for pair in zip(low[::-1], high[::-1]) for n in pair]
        self.weight = empty_parameter(self._weight_shape(), device, dtype)
        if bias:
            self.bias = empty_parameter((self.out_channels,), device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        ends = (self.in_channels, self.out_channels) if self.transposed else (self.out_channels, self.in_channels)
        return (ends[0], ends[1] // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Initialize weight and bias again with random values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * self._dims:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self._dims:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * self._dims:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Conv(_ConvNd):
    """Convolve {things} with filters (cross-correlation); in a :class:`Sequential`, with the activation that follows.

    Args:
        in_channels, out_channels: channels of the input and of the result, multiples of ``groups``.
        kernel_size: sizes of the filters, an integer or one for each dimension.
        stride, padding, dilation, groups: see :func:`gpunet.nn.functional.conv2d`.
        bias: whether to add a number to each output channel.
        padding_mode: what the padding consists of: "zeros", or elements of the input, as in :func:`gpunet.nn.functional.pad`.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size), initialised uniformly from ±1/sqrt(in_channels / groups *
            elements of the kernel): He et al. 2015 with a = sqrt(5).
        bias: (out_channels,), initialised from the same range; None without bias.

    Raises:
        ArgumentError: an argument is out of its range, or a number of channels is not a multiple of ``groups``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        windows = (kernel_size, stride, padding, dilation, 0)
        super().__init__(in_channels, out_channels, *windows, groups, bias, padding_mode, device, dtype)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(wrap(input), self._reversed_padding_repeated_twice, self.padding_mode), 0
        return convolve(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, activation, alpha,
            self._dims,
        )  # fmt: skip

    @launches(conv2d_forward, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)


class Conv1d(_Conv):
    __doc__ = str(_Conv.__doc__).format(things="signals")
    _dims = 1


class Conv2d(_Conv):
    __doc__ = str(_Conv.__doc__).format(things="images")
    _dims = 2


class Conv3d(_Conv):
    __doc__ = str(_Conv.__doc__).format(things="volumes")
    _dims = 3


class _ConvTranspose(_ConvNd):
    """The transpose of a convolution of {things}: each element of the input adds a filter to the result, times the element.

    Args:
        in_channels, out_channels: channels of the input and of the result, multiples of ``groups``.
        kernel_size: sizes of the filters, an integer or one for each dimension.
        stride, padding, output_padding, dilation, groups: see :func:`gpunet.nn.functional.conv_transpose2d`.
        bias: whether to add a number to each output channel.
        padding_mode: "zeros".
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (in_channels, out_channels / groups, *kernel_size), initialised uniformly from ±1/sqrt(out_channels / groups *
            elements of the kernel).
        bias: (out_channels,), initialised from the same range; None without bias.

    Raises:
        ArgumentError: an argument is out of its range, or a number of channels is not a multiple of ``groups``.
    """

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if isinstance(padding, str):
            raise ArgumentError(f"{type(self).__name__}: padding={padding!r}; expected integers")
        windows = (kernel_size, stride, padding, dilation, output_padding)
        super().__init__(in_channels, out_channels, *windows, groups, bias, padding_mode, device, dtype)

    def forward(self, input: Any, output_size: Any = None) -> Tensor:
        """The result; ``output_size``, its last sizes or all of them, replaces ``output_padding``."""
        return transpose_convolve(
            wrap(input), self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation,
            self._dims, output_size,
        )  # fmt: skip


class ConvTranspose1d(_ConvTranspose):
    __doc__ = str(_ConvTranspose.__doc__).format(things="signals")
    _dims = 1


class ConvTranspose2d(_ConvTranspose):
    __doc__ = str(_ConvTranspose.__doc__).format(things="images")
    _dims = 2


class ConvTranspose3d(_ConvTranspose):
    __doc__ = str(_ConvTranspose.__doc__).format(things="volumes")
    _dims = 3


class _LazyConvNd(_ConvNd):
    """Base class of the layers that take ``in_channels`` from their first input; their class changes then.

    Until then their parameters are :class:`gpunet.nn.parameter.UninitializedParameter`.  Create an optimizer after the first call.
    """

    #: the class of the layer after the first input
    cls_to_become: type[_ConvNd]

    def _forget(self, bias: bool, device: Any, dtype: Any) -> None:
        """Put parameters of unknown shape in the place of those of as few channels as there can be."""
        self.in_channels = 0
        for name in ("weight", "bias")[: 1 + bias]:
            self.register_parameter(name, UninitializedParameter(device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Do nothing: the shape of the weight is not known."""

    def _become(self, input: Any) -> None:
        shape, name = wrap(input).shape, type(self).__name__
        if isinstance(self.weight, UninitializedParameter):
            if len(shape) not in (self._dims + 1, self._dims + 2):
                expected = f"{self._dims + 1} or {self._dims + 2} dimensions"
                raise ShapeError(f"{name}: the input has shape {tuple(shape)}; expected {expected}")
            channels = shape[-self._dims - 1]
            if not channels or channels % self.groups:
                expected = f"a positive multiple of groups={self.groups}"
                raise ShapeError(f"{name}: the input has {channels} channels; expected {expected}")
            self.in_channels = channels
            self.weight.materialize(self._weight_shape())
            if isinstance(self.bias, UninitializedParameter):
                self.bias.materialize((self.out_channels,))
            _ConvNd.reset_parameters(self)
        # also of a loaded state
        self.in_channels = self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups
        self.__class__ = self.cls_to_become  # type: ignore[assignment]


class _LazyConv(_LazyConvNd, _Conv):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        windows = (kernel_size, stride, padding, dilation)
        super().__init__(
            as_positive(type(self).__name__, "groups", groups), out_channels, *windows, groups, False, padding_mode, device, dtype
        )
        self._forget(bias, device, dtype)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        self._become(input)
        return self._activated(input, activation, alpha)

    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)


class _LazyConvTranspose(_LazyConvNd, _ConvTranspose):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
        bias: bool = True, dilation: int = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        channels = as_positive(type(self).__name__, "groups", groups)
        windows = (kernel_size, stride, padding, output_padding)
        super().__init__(channels, out_channels, *windows, groups, False, dilation, padding_mode, device, dtype)
        self._forget(bias, device, dtype)

    def forward(self, input: Any, output_size: Any = None) -> Tensor:
        self._become(input)
        return self.forward(input, output_size)


class LazyConv1d(_LazyConv):
    """A :class:`Conv1d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = Conv1d, 1


class LazyConv2d(_LazyConv):
    """A :class:`Conv2d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = Conv2d, 2


class LazyConv3d(_LazyConv):
    """A :class:`Conv3d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = Conv3d, 3


class LazyConvTranspose1d(_LazyConvTranspose):
    """A :class:`ConvTranspose1d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = ConvTranspose1d, 1


class LazyConvTranspose2d(_LazyConvTranspose):
    """A :class:`ConvTranspose2d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = ConvTranspose2d, 2


class LazyConvTranspose3d(_LazyConvTranspose):
    """A :class:`ConvTranspose3d` that takes ``in_channels`` from its first input."""

    cls_to_become, _dims = ConvTranspose3d, 3
