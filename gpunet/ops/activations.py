"""Activations: one row of ``ACTIVATIONS`` and one struct in ``activations.cuh`` per activation.

A row holds the residual that backward needs (``saves``: the output or the pre-activation), the NumPy twins of forward
and backward, and both composed of primitives.  ``linear`` runs any activation in its epilogue, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Gradient, Tensor, fused, get_default_dtype, method, wrap
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import as_0d_arrays, empty, scratch, zeros_like
from gpunet.ops.broadcast import cast
from gpunet.ops.define import elementwise
from gpunet.ops.elementwise import erf, exp, expm1, log1p, maximum, where
from gpunet.ops.face import as_number, public
from gpunet.ops.in_place import in_place
from gpunet.ops.special import erf_into

__all__ = ["elu", "elu_", "gelu", "leaky_relu", "leaky_relu_", "relu", "relu_", "sigmoid", "silu", "softplus", "tanh"]


class Activation(NamedTuple):
    """A row of ``ACTIVATIONS``.  ``alpha`` is the parameter of leaky_relu (negative slope) and elu."""

    struct: str  # name in activations.cuh
    saves: str  # the residual: "output", "preactivation" or "" (none)
    forward: Callable[[Array, Array, float], None]  # (y, z, alpha): y = act(z); y may alias z
    backward: Callable[[Array, Array, Array, float], None]  # (dz, dy, saved, alpha): dz = dy * act'; dz may alias dy
    composed: Callable[[Tensor, float], Tensor]
    composed_backward: Callable[[Tensor, Tensor, float], Tensor]  # (dy, saved, alpha) -> dy * act'
    alpha: float = 0.0  # default value


# ---- twins: y = act(z), dz = dy * act'(z) -----------------------------------------------------------------------------
# Twins allocate nothing: temporaries come from scratch(), or live in y or dz until the result is written there.


def _relu(y, z, alpha):
    numpy.maximum(z, zeros_like(z), out=y)


def _relu_backward(dz, dy, y, alpha):
    # y is 0, positive, or NaN, which passes the gradient on as in PyTorch
    numpy.multiply(dy, numpy.not_equal(y, as_0d_arrays(y.dtype, 0)[0], out=scratch(y.shape, bool)), out=dz)


def _leaky_relu(y, z, alpha):
    negative = scratch(z.shape, z.dtype)
    numpy.minimum(z, zeros_like(z), out=negative)
    negative *= z.dtype.type(alpha)
    numpy.maximum(z, zeros_like(z), out=y)
    y += negative


def _leaky_relu_backward(dz, dy, y, alpha):
    # alpha >= 0, so y has the sign of z
    factor = scratch(y.shape, y.dtype)
    numpy.greater(y, 0, out=factor, casting="unsafe")
    if alpha <= 1:
        numpy.maximum(factor, y.dtype.type(alpha), out=factor)
    else:
        numpy.copyto(factor, alpha, where=numpy.equal(factor, 0, out=scratch(y.shape, bool)))
    numpy.multiply(dy, factor, out=dz)


def _sigmoid(y, z, alpha):
    # exp(-z) may overflow to infinity; its reciprocal is 0, the correct limit
    numpy.negative(z, out=y)
    numpy.exp(y, out=y)
    y += y.dtype.type(1)
    numpy.divide(1, y, out=y)


def _sigmoid_backward(dz, dy, y, alpha):
    derivative = scratch(y.shape, y.dtype)
    numpy.subtract(1, y, out=derivative)
    derivative *= y
    numpy.multiply(dy, derivative, out=dz)


def _tanh(y, z, alpha):
    numpy.tanh(z, out=y)


def _tanh_backward(dz, dy, y, alpha):
    derivative = scratch(y.shape, y.dtype)
    numpy.multiply(y, y, out=derivative)
    numpy.subtract(1, derivative, out=derivative)
    numpy.multiply(dy, derivative, out=dz)


def _gelu(y, z, alpha):
    half = scratch(z.shape, z.dtype, 2)
    numpy.multiply(z, z.dtype.type(math.sqrt(0.5)), out=half)
    erf_into(half, half)
    half += z.dtype.type(1)
    half *= z.dtype.type(0.5)
    numpy.multiply(z, half, out=y)


def _gelu_backward(dz, dy, z, alpha):
    # Phi(z) + z phi(z)
    density, distribution = scratch(z.shape, z.dtype, 2), scratch(z.shape, z.dtype, 3)
    numpy.multiply(z, z.dtype.type(math.sqrt(0.5)), out=distribution)
    erf_into(distribution, distribution)
    distribution += z.dtype.type(1)
    distribution *= z.dtype.type(0.5)
    numpy.multiply(z, z, out=density)
    density *= z.dtype.type(-0.5)
    numpy.exp(density, out=density)
    density *= z
    density *= z.dtype.type(1 / math.sqrt(2 * math.pi))
    distribution += density
    numpy.multiply(dy, distribution, out=dz)


_GELU_SCALE, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def _gelu_tanh_inner(t, z):
    """t = tanh(sqrt(2 / pi) (z + 0.044715 z^3))."""
    numpy.multiply(z, z, out=t)
    t *= z.dtype.type(_GELU_SCALE * _GELU_CUBE)
    t += z.dtype.type(_GELU_SCALE)
    t *= z
    numpy.tanh(t, out=t)


def _gelu_tanh(y, z, alpha):
    t = scratch(z.shape, z.dtype)
    _gelu_tanh_inner(t, z)
    t += z.dtype.type(1)
    t *= z.dtype.type(0.5)
    numpy.multiply(z, t, out=y)


def _gelu_tanh_backward(dz, dy, z, alpha):
    # 0.5 (1 + t) + 0.5 z (1 - t^2) sqrt(2 / pi) (1 + 3 * 0.044715 z^2)
    t, slope, square = (scratch(z.shape, z.dtype, slot) for slot in range(3))
    _gelu_tanh_inner(t, z)
    numpy.multiply(z, z, out=slope)
    slope *= z.dtype.type(3 * _GELU_SCALE * _GELU_CUBE)
    slope += z.dtype.type(_GELU_SCALE)
    slope *= z
    numpy.multiply(t, t, out=square)
    numpy.subtract(1, square, out=square)
    slope *= square
    slope += t
    slope += z.dtype.type(1)
    slope *= z.dtype.type(0.5)
    numpy.multiply(dy, slope, out=dz)


def _silu(y, z, alpha):
    s = scratch(z.shape, z.dtype)
    _sigmoid(s, z, alpha)
    numpy.multiply(z, s, out=y)


def _silu_backward(dz, dy, z, alpha):
    # s (1 + z (1 - s))
    s, slope = scratch(z.shape, z.dtype), scratch(z.shape, z.dtype, 1)
    _sigmoid(s, z, alpha)
    numpy.subtract(1, s, out=slope)
    slope *= z
    slope += z.dtype.type(1)
    slope *= s
    numpy.multiply(dy, slope, out=dz)


def _elu(y, z, alpha):
    negative = scratch(z.shape, z.dtype)
    numpy.minimum(z, zeros_like(z), out=negative)
    numpy.expm1(negative, out=negative)
    negative *= z.dtype.type(alpha)
    numpy.maximum(z, zeros_like(z), out=y)
    y += negative


def _elu_backward(dz, dy, y, alpha):
    # alpha exp(z) = y + alpha where y <= 0, else 1, also at NaN
    slope, is_linear = scratch(y.shape, y.dtype), scratch(y.shape, bool)
    numpy.minimum(y, 0, out=slope)
    slope += y.dtype.type(alpha)
    numpy.less_equal(y, 0, out=is_linear)
    numpy.logical_not(is_linear, out=is_linear)
    numpy.copyto(slope, 1, where=is_linear)
    numpy.multiply(dy, slope, out=dz)


def _softplus(y, z, alpha):
    # log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|))
    small = scratch(z.shape, z.dtype)
    numpy.absolute(z, out=small)
    numpy.negative(small, out=small)
    numpy.exp(small, out=small)
    numpy.log1p(small, out=small)
    numpy.maximum(z, zeros_like(z), out=y)
    y += small


def _softplus_backward(dz, dy, y, alpha):
    # sigmoid(z) = 1 - exp(-y)
    slope = scratch(y.shape, y.dtype)
    numpy.negative(y, out=slope)
    numpy.expm1(slope, out=slope)
    numpy.negative(slope, out=slope)
    numpy.multiply(dy, slope, out=dz)


def _identity(y, z, alpha):
    if y is not z:
        numpy.copyto(y, z)


def _identity_backward(dz, dy, saved, alpha):
    if dz is not dy:
        numpy.copyto(dz, dy)


# ---- composed of primitives -------------------------------------------------------------------------------------------


def _sigmoid_composed(z, alpha=0.0):
    small = exp(where(z >= 0, -z, z))  # exp(-|z|), which cannot overflow, with the slope -1 at 0
    return where(z >= 0, 1.0, small) / (1.0 + small)


def _tanh_composed(z, alpha=0.0):
    return 2.0 * _sigmoid_composed(2.0 * z) - 1.0


def _gelu_composed_backward(dy, z, alpha):
    density = exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))
    return dy * (0.5 * (1.0 + erf(z * math.sqrt(0.5))) + z * density)


def _gelu_tanh_composed(z, alpha):
    return 0.5 * z * (1.0 + _tanh_composed(_GELU_SCALE * (z + _GELU_CUBE * z * z * z)))


def _gelu_tanh_composed_backward(dy, z, alpha):
    t = _tanh_composed(_GELU_SCALE * (z + _GELU_CUBE * z * z * z))
    return dy * (0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * (_GELU_SCALE + 3.0 * _GELU_SCALE * _GELU_CUBE * z * z))


def _silu_composed_backward(dy, z, alpha):
    s = _sigmoid_composed(z)
    return dy * (s * (1.0 + z * (1.0 - s)))


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(
        "Identity", "", _identity, _identity_backward, lambda z, alpha: z, lambda dy, z, alpha: dy
    ),
    "relu": Activation(
        "Relu", "output", _relu, _relu_backward,
        lambda z, alpha: where(z <= 0, 0.0, z), lambda dy, y, alpha: where(y <= 0, 0.0, dy),
    ),
    "leaky_relu": Activation(
        "LeakyRelu", "output", _leaky_relu, _leaky_relu_backward,
        lambda z, alpha: where(z > 0, z, alpha * z), lambda dy, y, alpha: where(y > 0, dy, alpha * dy), 0.01,
    ),
    "sigmoid": Activation(
        "Sigmoid", "output", _sigmoid, _sigmoid_backward, _sigmoid_composed, lambda dy, y, alpha: dy * (y * (1.0 - y))
    ),
    "tanh": Activation(
        "Tanh", "output", _tanh, _tanh_backward, _tanh_composed, lambda dy, y, alpha: dy * (1.0 - y * y)
    ),
    "gelu": Activation(
        "Gelu", "preactivation", _gelu, _gelu_backward,
        lambda z, alpha: 0.5 * z * (1.0 + erf(z * math.sqrt(0.5))), _gelu_composed_backward,
    ),
    "gelu_tanh": Activation(
        "GeluTanh", "preactivation", _gelu_tanh, _gelu_tanh_backward, _gelu_tanh_composed, _gelu_tanh_composed_backward
    ),
    "silu": Activation(
        "Silu", "preactivation", _silu, _silu_backward, lambda z, alpha: z * _sigmoid_composed(z), _silu_composed_backward
    ),
    "elu": Activation(
        "Elu", "output", _elu, _elu_backward,
        lambda z, alpha: where(z <= 0, alpha * (exp(where(z <= 0, z, 0.0)) - 1.0), z),
        lambda dy, y, alpha: where(y <= 0, dy * (where(y < 0, y, 0.0) + alpha), dy), 1.0,
    ),
    "softplus": Activation(
        "Softplus", "output", _softplus, _softplus_backward,
        lambda z, alpha: maximum(z, 0.0) + log1p(exp(-z.abs())), lambda dy, y, alpha: dy * -expm1(-y),
    ),
}  # fmt: skip


def find(name: str, alpha: float = 0.0) -> Activation:
    """Look up the row of an activation.

    Raises:
        ArgumentError: the name is unknown, or ``alpha`` is negative (backward could not tell the sign of z from y).
    """
    try:
        row = ACTIVATIONS[name]
    except KeyError:
        raise ArgumentError(f"unknown activation {name!r}; expected one of {', '.join(ACTIVATIONS)}") from None
    if alpha < 0.0:
        raise ArgumentError(f"activation {name!r} with alpha={alpha}: expected alpha >= 0 for a fused activation")
    return row


# ---- launches ---------------------------------------------------------------------------------------------------------


@kernel("activation.cu", outputs=1)
def activation_forward(y, z, *, activation, alpha):
    """y = act(z), elementwise."""
    ACTIVATIONS[activation].forward(y, z, alpha)


@kernel("activation.cu", outputs=1)
def activation_backward(dz, dy, saved, *, activation, alpha):
    """dz = dy * act'(z); ``saved`` is y or z, as ``Activation.saves`` says."""
    ACTIVATIONS[activation].backward(dz, dy, saved, alpha)


@activation_forward.geometry
def _(y, z, *, activation, alpha):
    return Geometry(elementwise_grid(y.size), 256, (numpy.int64(y.size), alpha), (ACTIVATIONS[activation].struct,))


@activation_backward.geometry
def _(dz, dy, saved, *, activation, alpha):
    return Geometry(elementwise_grid(dz.size), 256, (numpy.int64(dz.size), alpha), (ACTIVATIONS[activation].struct,))


@fused(
    composed=lambda x, *, name, alpha: find(name).composed(x, alpha),
    name_from=lambda options: options["name"],
    takes_scale=True,
)
def activation(x, *, name, alpha, need):
    """y = act(x), elementwise; ``name`` is a key of ``ACTIVATIONS``."""
    row = find(name, alpha)
    y = empty(x.shape, x.dtype, x)
    activation_forward(y, x, activation=name, alpha=alpha)
    return y, (y if row.saves == "output" else x,)


@activation.backward
def _(saved, dy, *, name, alpha, need):
    dx = empty(dy.array.shape, dy.array.dtype, dy.array)
    activation_backward(dx, dy.array, saved[0], activation=name, alpha=alpha)
    return (dx if dy.scale is None else Gradient(dx, dy.scale),)


@activation.composed_backward
def _(saved, dy, *, name, alpha, need):
    return (find(name).composed_backward(dy, saved[0], alpha),)


def activate(x: Any, name: str, alpha: float = 0.0) -> Tensor:
    """Apply the activation ``name``; integer tensors are cast to the default dtype first."""
    x = wrap(x)
    if not is_floating(x.dtype):
        x = cast(x, dtype=get_default_dtype())
    if alpha < 0.0:
        return find(name).composed(x, alpha)
    return activation(x, name=name, alpha=float(alpha))


# ---- public functions -------------------------------------------------------------------------------------------------


def _as_finite(function: str, name: str, value: Any) -> float:
    number = as_number(function, name, value)
    if not math.isfinite(number):
        raise ArgumentError(f"{function}: {name}={value}; expected a finite number")
    return number


def _relu_of_any(input: Tensor) -> Tensor:
    if is_floating(input.array.dtype):
        return activation(input, name="relu", alpha=0.0)
    if is_boolean(input.dtype):
        raise DtypeError("relu of a boolean tensor; convert it with .float() or .long() first")
    return maximum(input, 0)


def _leaky_relu_of(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return activate(input, "leaky_relu", _as_finite("leaky_relu", "negative_slope", negative_slope))


def _elu_of(input: Tensor, alpha: float = 1.0) -> Tensor:
    return activate(input, "elu", _as_finite("elu", "alpha", alpha))


def _silu_of(input: Tensor) -> Tensor:
    return activate(input, "silu")


for _function, _name in ((_relu_of_any, "relu_"), (_leaky_relu_of, "leaky_relu_"), (_elu_of, "elu_"), (_silu_of, "silu")):
    _function.__qualname__ = _name  # Python's in messages
relu_, leaky_relu_ = in_place(_relu_of_any, "relu_"), in_place(_leaky_relu_of, "leaky_relu_")
elu_, _silu_in_place = in_place(_elu_of, "elu_"), in_place(_silu_of, "silu(inplace=True)")
method("relu_")(relu_)


@public("relu")
def relu(input: Any, inplace: bool = False) -> Tensor:
    """max(x, 0); integers keep their dtype.

    Raises:
        DtypeError: a boolean tensor.
    """
    return relu_(input) if inplace else _relu_of_any(input)


@public()
def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere."""
    return (leaky_relu_ if inplace else _leaky_relu_of)(input, negative_slope)


@public()
def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (exp(x) - 1) elsewhere."""
    return (elu_ if inplace else _elu_of)(input, alpha)


@public()
def silu(input: Any, inplace: bool = False) -> Tensor:
    """x sigmoid(x), also called swish."""
    return (_silu_in_place if inplace else _silu_of)(input)


@elementwise("sigmoid")
def sigmoid(input: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activate(input, "sigmoid")


@elementwise("tanh")
def tanh(input: Any) -> Tensor:
    """Hyperbolic tangent."""
    return activate(input, "tanh")


@public()
def gelu(input: Any, *, approximate: str = "none") -> Tensor:
    """x Phi(x) (Hendrycks and Gimpel 2016); ``approximate="tanh"`` selects the tanh approximation.

    Raises:
        ArgumentError: ``approximate`` is neither "none" nor "tanh".
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate={approximate!r}; expected 'none' or 'tanh'")
    return activate(input, "gelu" if approximate == "none" else "gelu_tanh")


@public()
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, or x where beta x > threshold."""
    beta, threshold = _as_finite("softplus", "beta", beta), as_number("softplus", "threshold", threshold)
    if beta == 0.0:
        raise ArgumentError("softplus: beta=0, by which the result is divided; expected another number")
    if beta == 1.0 and threshold >= 20.0:  # for x > 20 both branches round to x in float32
        return activate(input, "softplus")
    return where(input * beta > threshold, input, activate(input * beta, "softplus") / beta)
