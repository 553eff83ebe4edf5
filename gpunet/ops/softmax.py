"""softmax and log_softmax, computed without overflow."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, primitive
from gpunet.launch.memory import empty
from gpunet.launch.shims import Ufunc
from gpunet.ops.broadcast import SUM, in_accumulator
from gpunet.ops.dims import kept_shape, normalize_dim
from gpunet.ops.elementwise import exp
from gpunet.ops.face import public
from gpunet.ops.reduce import EXTREMA, _sum, check_floating, promote_0d

__all__ = ["log_softmax", "softmax"]

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


@public("softmax")
@promote_0d
@in_accumulator
def softmax(input: Any, dim: int) -> Tensor:
    """exp(input) / sum exp(input) along ``dim``.

    Raises:
        DtypeError: an integer tensor.
    """
    return _softmax(check_floating(input, "softmax"), axis=normalize_dim(dim, input.ndim, "softmax"))


@public("log_softmax")
@promote_0d
@in_accumulator
def log_softmax(input: Any, dim: int) -> Tensor:
    """log(:func:`softmax`), computed without underflow.

    Raises:
        DtypeError: an integer tensor.
    """
    return _log_softmax(check_floating(input, "log_softmax"), axis=normalize_dim(dim, input.ndim, "log_softmax"))
