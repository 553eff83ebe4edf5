"""Padding layers."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn.module import Module
from gpunet.ops.face import as_integer
from gpunet.ops.pad import pad

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "ReflectionPad1d",
    "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d",
    "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """Pad the last dimensions, as many as the name says; see :func:`gpunet.nn.functional.pad`.

    Args:
        padding: (left, right) of the last dimension, then of the second to last, and so on; an integer for all of them.

    Raises:
        ArgumentError: there is another number of integers.
    """

    _mode = "constant"
    _dims: int

    def __init__(self, padding: Any) -> None:
        super().__init__()
        name, dims = type(self).__name__, self._dims
        items = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * (2 * dims)
        self.padding = tuple([as_integer(name, "padding", item) for item in items])
        if len(self.padding) != 2 * dims:
            raise ArgumentError(f"{name}: padding={padding!r}; expected an integer, or {2 * dims} of them")

    def forward(self, input: Any) -> Tensor:
        input, dims = wrap(input), self._dims
        if self._mode != "constant" and input.ndim not in (dims + 1, dims + 2):
            raise ShapeError(
                f"{type(self).__name__}: the input has shape {tuple(input.shape)}; expected {dims} dimensions behind the "
                "channels, and a batch or none"
            )
        return pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Pad the last dimensions, as many as the name says, with a constant.

    Args:
        padding: (left, right) of the last dimension, then of the second to last, and so on; an integer for all of them.
        value: the constant.

    Raises:
        ArgumentError: there is another number of integers.
    """

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Tensor:
        return pad(wrap(input), self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ReflectionPad(_Pad):
    __doc__ = _Pad.__doc__
    _mode = "reflect"


class _ReplicationPad(_Pad):
    __doc__ = _Pad.__doc__
    _mode = "replicate"


class _CircularPad(_Pad):
    __doc__ = _Pad.__doc__
    _mode = "circular"


class ConstantPad1d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    _dims = 1


class ConstantPad2d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    _dims = 2


class ConstantPad3d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    _dims = 3


class ZeroPad1d(_Pad):
    __doc__ = _Pad.__doc__
    _dims = 1


class ZeroPad2d(_Pad):
    __doc__ = _Pad.__doc__
    _dims = 2


class ZeroPad3d(_Pad):
    __doc__ = _Pad.__doc__
    _dims = 3


class ReflectionPad1d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    _dims = 1


class ReflectionPad2d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    _dims = 2


class ReflectionPad3d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    _dims = 3


class ReplicationPad1d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    _dims = 1


class ReplicationPad2d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    _dims = 2


class ReplicationPad3d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    _dims = 3


class CircularPad1d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    _dims = 1


class CircularPad2d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    _dims = 2


class CircularPad3d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    _dims = 3
