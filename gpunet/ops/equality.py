"""Whether tensors are equal or close."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, no_grad, operands, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_inexact
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.compare import eq, isfinite, isnan
from gpunet.ops.elementwise import abs, sub
from gpunet.ops.face import as_number, public

__all__ = ["allclose", "equal", "isclose"]


@public("equal", out=False, takes_complex=True)
def equal(input: Any, other: Any) -> bool:
    """Whether two tensors have the same shape and equal elements."""
    input, other = operands("equal", [input, wrap(other)])
    return input.shape == other.shape and _is_all_true(eq(input, other), "equal()")


@public("isclose", out=False, takes_complex=True)
def isclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Elementwise |input - other| <= atol + rtol * |other|, or equal; a boolean tensor.

    Raises:
        DtypeError: the tensors have different dtypes.
        ArgumentError: a negative tolerance.
    """
    return _is_close("isclose", input, other, rtol, atol, equal_nan)


@public("allclose", out=False, takes_complex=True)
def allclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether :func:`isclose` holds for all elements."""
    return _is_all_true(_is_close("allclose", input, other, rtol, atol, equal_nan), "allclose()")


@no_grad()
def _is_close(function: str, input: Any, other: Any, rtol: Any, atol: Any, equal_nan: bool) -> Tensor:
    input, other = operands(function, [input, wrap(other)])
    if input.dtype != other.dtype:
        raise DtypeError(f"{function}: tensors of {input.dtype} and {other.dtype}; expected one dtype: convert with .to(dtype)")
    rtol, atol = as_number(function, "rtol", rtol), as_number(function, "atol", atol)
    if not (rtol >= 0 and atol >= 0):
        raise ArgumentError(f"{function}: rtol={rtol}, atol={atol}; expected tolerances of at least 0")
    close = eq(input, other)
    if not is_inexact(input.dtype):
        input, other = input * 1.0, other * 1.0
    elif equal_nan:
        close = close | (isnan(input) & isnan(other))
    error = abs(sub(input, other))
    return close | (isfinite(error) & (error <= atol + abs(rtol * other)))


def _is_all_true(condition: Tensor, action: str) -> bool:
    graph_break_on_read(action)
    return bool(devices.to_host(condition.array).all())
