"""Complex numbers in the engine: the refusal of ops that take real tensors only, and the conjugates in derivatives.

The gradient of a real loss L with respect to complex z = x + i y is PyTorch's: dL/dx + i dL/dy.  A function f whose power series
has real coefficients (a product, a quotient, exp, sqrt ...) then has the gradient ``g * conj(f'(z)) = g * f'(conj(z))``: the
rule for real numbers, given the conjugates of what was saved.  So one rule serves both, and the engine conjugates.

On a branch cut the conjugate is told by the sign of a zero: conj(-2 + 0i) is -2 - 0i.  A real operand has no such zero, so a rule
that takes the logarithm of one (the base of a complex power) first makes it complex.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy import ndarray

from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_complex
from gpunet.errors import DtypeError


def has_complex(value: Any) -> bool:
    """Return whether a value is a complex number, tensor or array, or a list or tuple of values some of which are."""
    if isinstance(value, (list, tuple)):
        return any(map(has_complex, value))
    if isinstance(value, Tensor):
        return is_complex(value.array.dtype)
    return isinstance(value, complex) or ((type(value) is ndarray or devices.is_array(value)) and is_complex(value.dtype))


def refuse_complex(function: str, arguments: Iterable[Any]) -> None:
    """Check that no argument of a function that takes real numbers only is complex.

    Raises:
        DtypeError: one is.
    """
    for value in arguments:
        if has_complex(value):
            dtype = "a complex number" if isinstance(value, complex) else f"a tensor of {_dtype_of(value)}"
            raise DtypeError(
                f"{function}: got {dtype}; expected real numbers: pass x.real, x.imag or x.abs(), or view_as_real(x), whose last "
                "dimension holds the two parts"
            )


def _dtype_of(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = next(filter(has_complex, value))
        return _dtype_of(value) if not isinstance(value, complex) else "complex numbers"
    return str(value.dtype)


def conjugated(value: Any) -> Any:
    """Return the conjugate of a complex tensor or number; of a plain tuple, of its items; another value as it is."""
    if type(value) is tuple:
        return tuple(map(conjugated, value))
    if isinstance(value, complex):
        return value.conjugate()
    if isinstance(value, Tensor) and is_complex(value.array.dtype):
        found: Any = value
        return found.conj()
    return value


def as_real(x: Tensor) -> Tensor:
    """Return a complex tensor as one of its two parts, (..., 2), in the same memory; a real one as it is."""
    if not is_complex(x.array.dtype):
        return x
    result = make_tensor(devices.parts_of(x.array))
    result._version = x._version
    return result


@contextmanager
def as_real_in_place(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block, complex tensors are real ones of their two parts, (..., 2), for launches that change them."""
    arrays = [(x, x.array) for x in tensors if is_complex(x.array.dtype)]
    try:
        for x, array in arrays:
            x.array = devices.parts_of(array)
        yield
    finally:
        for x, array in arrays:
            x.array = array
