"""softmax and log_softmax, computed without overflow."""

from __future__ import annotations

import warnings
from typing import Any

from gpunet.autograd import Tensor, primitive
from gpunet.launch.memory import empty
from gpunet.launch.shims import Ufunc
from gpunet.ops.broadcast import SUM, in_accumulator
from gpunet.ops.dims import kept_shape, normalize_dim
from gpunet.ops.elementwise import exp
from gpunet.ops.face import as_integer, public
from gpunet.ops.order import EXTREMA
from gpunet.ops.reduce import _sum, check_floating, converted, promote_0d

__all__ = ["log_softmax", "softmax", "softmin"]

SUBTRACT, EXP, DIVIDE, LOG = (Ufunc(name) for name in ("subtract", "exp", "divide", "log"))


@primitive
def _softmax(x, *, axis):
    shifted = x.array
    largest = empty(kept_shape(x.shape, (axis,)), x.dtype, x.array)
    out, total = empty(x.shape, x.dtype, x.array), empty(largest.shape, x.dtype, x.array)
    if x.array.size:
        EXTREMA["max"](largest, shifted, axis=(axis,))
        SUBTRACT(out, shifted, largest)
        EXP(out, out)
        SUM(total, out, axis=(axis,), keepdims=True)
        DIVIDE(out, out, total)
    return out


_softmax.derivatives(x=lambda g, out, axis: out * (g - _sum(g * out, axes=(axis,), keepdim=True)))


@primitive
def _log_softmax(x, *, axis):
    largest = empty(kept_shape(x.shape, (axis,)), x.dtype, x.array)
    out, work = empty(x.shape, x.dtype, x.array), empty(x.shape, x.dtype, x.array)
    if x.array.size:
        EXTREMA["max"](largest, x.array, axis=(axis,))
        SUBTRACT(out, x.array, largest)
        EXP(work, out)
        SUM(largest, work, axis=(axis,), keepdims=True)
        LOG(largest, largest)
        SUBTRACT(out, out, largest)
    return out


_log_softmax.derivatives(x=lambda g, out, axis: g - exp(out) * _sum(g, axes=(axis,), keepdim=True))


_wide_softmax, _wide_log_softmax = (promote_0d(in_accumulator(op)) for op in (_softmax, _log_softmax))


def _operand(function: str, x: Tensor, dim: int | None, dtype: Any, stacklevel: int) -> tuple[Tensor, int]:
    """The tensor in ``dtype`` and the dimension as an index; None is PyTorch's implicit choice, with its warning."""
    x = check_floating(converted(x, dtype), function)
    stacklevel = as_integer(function, "_stacklevel", stacklevel)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{function}: the implicit choice of a dimension is deprecated; pass dim={dim}", UserWarning, stacklevel=stacklevel + 1
        )
    return x, normalize_dim(dim, x.ndim, function)


@public("softmax", autocast="cuda: float32")
def softmax(input: Any, dim: int | None = None, dtype: Any = None, *, _stacklevel: int = 3) -> Tensor:
    """exp(input) / sum exp(input) along ``dim``.

    Args:
        dim: without it, dimension 0 of a tensor with 0, 1 or 3 dimensions, else 1, with a warning.
        dtype: convert the tensor first.

    Raises:
        DtypeError: an integer tensor.
    """
    x, axis = _operand("softmax", input, dim, dtype, _stacklevel)
    return _wide_softmax(x, axis=axis)


@public("log_softmax", autocast="cuda: float32")
def log_softmax(input: Any, dim: int | None = None, dtype: Any = None, *, _stacklevel: int = 3) -> Tensor:
    """log(:func:`softmax`), computed without underflow; same arguments.

    Raises:
        DtypeError: an integer tensor.
    """
    x, axis = _operand("log_softmax", input, dim, dtype, _stacklevel)
    return _wide_log_softmax(x, axis=axis)


@public(out=False, autocast="cuda: float32")
def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """The :func:`softmax` of -input; same arguments."""
    x, axis = _operand("softmin", -input, dim, dtype, _stacklevel)
    return _wide_softmax(x, axis=axis)
