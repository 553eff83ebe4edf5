"""Convolution layers: Conv2d."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.module import Module, Parameter, empty_parameter, launches, run_activated
from gpunet.ops.convolution import as_pair, conv2d_forward, convolve, paddings
from gpunet.ops.face import as_integer
from gpunet.ops.pad import pad

__all__ = ["Conv2d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Conv2d(Module):
    """Convolve images with filters (cross-correlation); in a :class:`Sequential`, the launch includes the activation that follows.

    Args:
        in_channels, out_channels: channels of the input and of the result, multiples of ``groups``.
        kernel_size: height and width of the filters, an integer or a pair.
        stride, padding, dilation, groups: see :func:`gpunet.nn.functional.conv2d`.
        bias: whether to add a number to each output channel.
        padding_mode: what the padding consists of: "zeros", or elements of the image, as in :func:`gpunet.nn.functional.pad`.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (out_channels, in_channels / groups, height, width), initialised uniformly from ±1/sqrt(in_channels / groups *
            height * width): He et al. 2015 with a = sqrt(5).
        bias: (out_channels,), initialised from the same range; None without bias.

    Raises:
        ArgumentError: an argument is out of its range, or a number of channels is not a multiple of ``groups``.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        groups = as_integer("Conv2d", "groups", groups)
        if groups < 1:
            raise ArgumentError(f"Conv2d: groups={groups}; expected 1 or more")
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        for name, value in channels.items():
            channels[name] = value = as_integer("Conv2d", name, value)
            if value < 1 or value % groups:
                raise ArgumentError(f"Conv2d: {name}={value}; expected a positive multiple of groups={groups}")
        if padding_mode not in _PADDING_MODES:
            raise ArgumentError(f"Conv2d: padding_mode={padding_mode!r}; expected one of {', '.join(map(repr, _PADDING_MODES))}")
        self.in_channels, self.out_channels = channels.values()
        self.kernel_size = as_pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.dilation = as_pair("Conv2d", "stride", stride, 1), as_pair("Conv2d", "dilation", dilation, 1)
        self.groups, self.padding_mode = groups, padding_mode
        low, high = paddings("Conv2d", padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else low
        #: as the argument of pad(): left, right, above, below
        self._reversed_padding_repeated_twice = [low[1], high[1], low[0], high[0]]
        self.weight = empty_parameter((self.out_channels, self.in_channels // groups, *self.kernel_size), device, dtype)
        if bias:
            self.bias = empty_parameter((self.out_channels,), device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weight and bias again with random values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def _activated(self, input: Any, activation: str, alpha: float) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(wrap(input), self._reversed_padding_repeated_twice, self.padding_mode), 0
        return convolve(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, activation, alpha
        )

    @launches(conv2d_forward, run_activated)
    def forward(self, input: Any) -> Tensor:
        return self._activated(input, "identity", 0.0)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)
