"""Complex tensors: made of real ones, their parts, magnitudes and angles, conjugates.

Parts are views.  A conjugate is a copy, where PyTorch's is a view with a flag.
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import NATIVE, to_complex
from gpunet.backend.dtypes import is_complex as holds_complex
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import broadcast_shape, launch_unary, ufunc, zero_gradient
from gpunet.ops.compare import compare, eq, isnan
from gpunet.ops.define import elementwise, unary
from gpunet.ops.elementwise import WHERE, abs, cos, sin, where
from gpunet.ops.face import public
from gpunet.ops.rounding import sign_array
from gpunet.ops.trigonometry import _atan2, floating_dtype

__all__ = [
    "angle", "complex", "conj", "conj_physical", "imag", "is_complex", "is_conj", "is_neg", "isreal", "polar", "real",
    "resolve_conj", "resolve_neg", "sgn", "view_as_complex", "view_as_real",
]  # fmt: skip


# ---- from real numbers ------------------------------------------------------------------------------------------------


@primitive
def _complex(real, imag):
    shape = broadcast_shape("complex", real.array.shape, imag.array.shape)
    out = empty(shape, to_complex(real.dtype), real.array)
    ufunc("positive")(out.real, real.array)
    ufunc("positive")(out.imag, imag.array)
    return out


_complex.derivatives(real=lambda g: _real(g), imag=lambda g: _imag(g))


def _pair(function: str, names: tuple[str, str], first: Any, second: Any) -> tuple[Tensor, Tensor]:
    a, b = wrap(first, function), wrap(second, function)
    if a.dtype != b.dtype or a.dtype not in NATIVE:
        raise DtypeError(f"{function}: {names[0]} of {a.dtype} and {names[1]} of {b.dtype}; expected both float32 or float64")
    return a, b


@public()
def complex(real: Any, imag: Any) -> Tensor:
    """real + i imag, broadcast: complex64 of float32, complex128 of float64.

    Raises:
        DtypeError: the dtypes differ, or are neither float32 nor float64.
    """
    return _complex(*_pair("complex", ("real", "imag"), real, imag))


@public(autocast="cuda: float32")
def polar(abs: Any, angle: Any) -> Tensor:
    """abs * (cos(angle) + i sin(angle)), broadcast; dtypes as of :func:`complex`."""
    size, turn = _pair("polar", ("abs", "angle"), abs, angle)
    return _complex(size * cos(turn), size * sin(turn))


# ---- parts ------------------------------------------------------------------------------------------------------------


@primitive(view=True, takes_complex=True)
def _real(z):
    return z.array.real


_real.derivatives(z=lambda g: g)


@primitive(view=True, takes_complex=True)
def _imag(z):
    return z.array.imag


_imag.derivatives(z=lambda g: g * 1j)


@public(out=False, takes_complex=True)
def real(input: Any) -> Tensor:
    """The real parts, a view; a real tensor itself."""
    return _real(input) if holds_complex(input.array.dtype) else input


@public(out=False, takes_complex=True)
def imag(input: Any) -> Tensor:
    """The imaginary parts, a view.

    Raises:
        DtypeError: the tensor is real.
    """
    return _imag(_checked("imag", input))


def _checked(function: str, z: Tensor) -> Tensor:
    if not holds_complex(z.array.dtype):
        raise DtypeError(f"{function}: the tensor has dtype {z.dtype}; expected a complex one")
    return z


def _part(name: str, part: Any) -> property:
    return property(part, lambda z, value: part(z).copy_(value), doc=f"The {name} parts, a view; see :func:`{part.__name__}`.")


Tensor.real = _part("real", real)  # type: ignore[assignment]
Tensor.imag = _part("imaginary", imag)  # type: ignore[assignment]


@primitive(view=True, takes_complex=True)
def _view_as_real(z):
    return devices.parts_of(z.array)


@primitive(view=True)
def _view_as_complex(pairs):
    return devices.as_pairs(pairs.array).view(to_complex(pairs.dtype))[..., 0]


_view_as_real.derivatives(z=lambda g: _view_as_complex(g))
_view_as_complex.derivatives(pairs=lambda g: _view_as_real(g))


@public(out=False, takes_complex=True)
def view_as_real(input: Any) -> Tensor:
    """(...) complex -> (..., 2) real: the real and the imaginary part, a view.

    Raises:
        DtypeError: the tensor is real.
    """
    return _view_as_real(_checked("view_as_real", input))


@public(out=False, autocast="cuda: float32")
def view_as_complex(input: Any) -> Tensor:
    """(..., 2) float32 or float64 -> (...) complex, a view.

    Raises:
        DtypeError: another dtype.
        ShapeError: the last dimension has no two elements side by side.
    """
    array = input.array
    if array.dtype not in NATIVE:
        raise DtypeError(f"view_as_complex: the tensor has dtype {array.dtype}; expected float32 or float64")
    if not array.ndim or array.shape[-1] != 2:
        raise ShapeError(f"view_as_complex: the tensor has shape {tuple(array.shape)}; expected (..., 2), the two parts")
    if array.size and devices.as_pairs(array) is not array:
        raise ShapeError(
            f"view_as_complex: strides of {array.strides} bytes; expected the two parts side by side: use .contiguous()"
        )
    return _view_as_complex(input)


# ---- conjugates, magnitudes, angles -----------------------------------------------------------------------------------


@primitive(takes_complex=True)
def _conj(z):
    return launch_unary(ufunc("conjugate"), z)


_conj.derivatives(z=lambda g: _conj(g) if holds_complex(g.dtype) else g)


@public("conj", out=False, takes_complex=True)
def conj(input: Any) -> Tensor:
    """The complex conjugate, a copy; a real tensor itself."""
    return _conj(input) if holds_complex(input.array.dtype) else input


@elementwise("conj_physical", takes_complex=True)
def conj_physical(input: Any) -> Tensor:
    """The complex conjugate, a copy; a real tensor itself."""
    return conj(input)


def _return_input(name: str) -> Any:
    def function(input: Any) -> Tensor:
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "The tensor itself: no tensor is a view with a pending conjugate or sign."
    return public(name, out=False, takes_complex=True)(function)


def _is_false(name: str) -> Any:
    def function(input: Any) -> bool:
        return False

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "False: no tensor is a view with a pending conjugate or sign."
    return public(name, out=False, takes_complex=True)(function)


resolve_conj, resolve_neg = _return_input("resolve_conj"), _return_input("resolve_neg")
is_conj, is_neg = _is_false("is_conj"), _is_false("is_neg")


@public("is_complex", out=False, takes_complex=True)
def is_complex(input: Any) -> bool:
    """Whether the dtype of a tensor is complex."""
    return holds_complex(input.array.dtype)


@public("isreal", out=False, takes_complex=True)
def isreal(input: Any) -> Tensor:
    """Whether numbers have no imaginary part, a boolean tensor."""
    return eq(_imag(input), 0) if holds_complex(input.array.dtype) else compare("equal", input, input) | isnan(input)


def _divide_by_magnitude(xp: Any, out: Array, z: Array) -> None:
    """out = z / |z|, 0 at 0."""
    size = xp.absolute(z)
    size += size == 0
    xp.divide(z, size, out=out)


DIRECTION = Shim("sgn", _divide_by_magnitude)


def _sgn_array(x: Tensor) -> Array:
    return launch_unary(DIRECTION, x) if holds_complex(x.array.dtype) else sign_array(x)


def _sgn_derivative(g, input, out):
    """The part of the gradient across the direction s, per magnitude: (g - s Re(g conj(s))) / |z|.  ``out`` is conj(s)."""
    if not holds_complex(out.dtype):
        return zero_gradient(g)
    size = abs(input)
    is_zero = eq(size, 0)
    return where(is_zero, 0.0, (g - conj(out) * _real(g * out)) / where(is_zero, 1.0, size))


@unary(_sgn_derivative, forward=_sgn_array, takes_complex=True)
def sgn(input):
    """The sign of real numbers, as :func:`sign`; of complex ones z / |z|, and 0 of 0."""


@primitive(name="angle")
def _angle_of_real(x):
    dtype = floating_dtype(x)
    out = empty(x.array.shape, dtype, x.array)
    ufunc("multiply")(out, compare("less", x, 0).array, math.pi)
    WHERE(out, isnan(x).array, x.array, out)
    return out


_angle_of_real.derivatives(x=zero_gradient)


@public("angle", takes_complex=True)
def angle(input: Any) -> Tensor:
    """The angle of complex numbers to the real axis, in [-pi, pi]; of real ones pi if negative, else 0.  The gradient at 0 is 0."""
    return _atan2(_imag(input), _real(input)) if holds_complex(input.array.dtype) else _angle_of_real(input)


@primitive(name="tanh", takes_complex=True)
def complex_tanh(z):
    """tanh of complex numbers, which our kernels do not compute."""
    return launch_unary(ufunc("tanh"), z)


complex_tanh.derivatives(z=lambda g, out: g * (1.0 - out * out))
