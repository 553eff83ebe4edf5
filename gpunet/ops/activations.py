"""Activations as launches, ops and public functions; their formulas stand in ``activation_table``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Gradient, Tensor, fused, get_default_dtype, method, wrap
from gpunet.backend.dtypes import complex_in_use, is_boolean, is_complex, is_floating, is_half, limits
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import empty
from gpunet.ops.activation_table import ACTIVATIONS, Activation
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.complex_numbers import complex_tanh
from gpunet.ops.define import elementwise
from gpunet.ops.elementwise import clamp, maximum, where
from gpunet.ops.face import as_number, public
from gpunet.ops.in_place import in_place

__all__ = [
    "celu", "celu_", "elu", "elu_", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "hardtanh_", "leaky_relu",
    "leaky_relu_", "logsigmoid", "mish", "relu", "relu6", "relu_", "selu", "selu_", "sigmoid", "silu", "softplus", "softshrink",
    "softsign", "tanh", "tanhshrink", "threshold", "threshold_",
]  # fmt: skip


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


@activation_forward.computes
def _(y, z, *, activation, alpha):
    return parts.Activation(y, z, activation, alpha)


@activation_backward.computes
def _(dz, dy, saved, *, activation, alpha):
    return parts.ActivationGradient(dz, dy, saved, activation, alpha)


@activation_forward.geometry
def _(y, z, *, activation, alpha):
    return Geometry(elementwise_grid(y.size), 256, (numpy.int64(y.size), alpha), (ACTIVATIONS[activation].struct,))


@activation_backward.geometry
def _(dz, dy, saved, *, activation, alpha):
    return Geometry(elementwise_grid(dz.size), 256, (numpy.int64(dz.size), alpha), (ACTIVATIONS[activation].struct,))


def absorb_activation(arrays, options, follower, is_needed):
    """What a product with an activation in its epilogue absorbs (``Kernel.absorbs``): an activation of its result.

    Its arrays begin with the result, the pre-activation and the workspace.  Halves would be rounded once instead of twice.
    """
    y, z, *others = arrays
    if options["activation"] != "identity" or z is not None or is_half(y.dtype):
        return None
    return follower[0].reshape(y.shape), y if is_needed else None, *others


def absorb_derivative(arrays, options, follower, is_needed):
    """What the gradient of a product's input absorbs: that of the activation before it.  Its last array is the residual."""
    dx, *others, _ = arrays
    if options["activation"] != "identity" or is_needed or is_half(dx.dtype):
        return None
    return follower[0].reshape(dx.shape), *others, follower[2].reshape(dx.shape)


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
        return in_accumulator(find(name).composed)(x, alpha)
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


def _hardtanh_of(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    low, high = as_number("hardtanh", "min_val", min_val), as_number("hardtanh", "max_val", max_val)
    if not low <= high:
        raise ArgumentError(f"hardtanh: min_val={low:g}, max_val={high:g}; expected min_val <= max_val")
    if not is_floating(input.dtype):
        if is_boolean(input.dtype):
            raise DtypeError("hardtanh of a boolean tensor; convert it with .float() or .long() first")
        for key, bound in {"min_val": low, "max_val": high}.items():
            if not math.isfinite(bound):
                raise ArgumentError(f"hardtanh: {key}={bound} with a tensor of dtype {input.dtype}; expected a finite number")
        return clamp(input, int(low), int(high))
    fused_form = bounded(low, high)
    if fused_form is not None:
        return activate(input, *fused_form)
    return where(input <= low, low, where(input >= high, high, input))


def bounded(low: float, high: float) -> tuple[str, float] | None:
    """The activation (name, alpha) that limits to [low, high]; None if the table has none."""
    if high == -low:
        return "hardtanh", high
    return ("relu6", high) if low == 0.0 else None


def _relu6_of(input: Tensor) -> Tensor:
    return _hardtanh_of(input, 0.0, 6.0)


def _hardsigmoid_of(input: Tensor) -> Tensor:
    return activate(_floating("hardsigmoid", input), "hardsigmoid")


def _hardswish_of(input: Tensor) -> Tensor:
    return activate(_floating("hardswish", input), "hardswish")


def _celu_of(input: Tensor, alpha: float = 1.0) -> Tensor:
    alpha = _as_finite("celu", "alpha", alpha)
    if alpha == 0.0:
        raise ArgumentError("celu: alpha=0, by which the input is divided; expected another number")
    return activate(_floating("celu", input), "celu", alpha)


def _selu_of(input: Tensor) -> Tensor:
    return activate(_floating("selu", input), "selu")


def _mish_of(input: Tensor) -> Tensor:
    return activate(_floating("mish", input), "mish")


def _threshold_of(input: Tensor, threshold: float, value: float) -> Tensor:
    threshold, value = as_number("threshold", "threshold", threshold), as_number("threshold", "value", value)
    if is_boolean(input.dtype):
        raise DtypeError("threshold of a boolean tensor; convert it with .float() or .long() first")
    if not is_floating(input.dtype):
        return where(input <= _as_element("threshold", threshold, input), _as_element("value", value, input), input)
    if value == 0.0 and threshold >= 0.0:
        return activate(input, "threshold", threshold)
    if threshold != math.inf:
        threshold = min(threshold, limits(input.dtype)[1])  # a larger one would become infinite, and include infinity
    return where(input <= threshold, value, input)


def _as_element(name: str, number: float, input: Tensor) -> int:
    """A parameter of threshold() as a number of the integer dtype of the input."""
    limits = numpy.iinfo(input.dtype)
    if not (number.is_integer() and limits.min <= number <= limits.max):
        raise DtypeError(f"threshold: {name}={number:g} with a tensor of dtype {input.dtype}; expected one of its integers")
    return int(number)


def _floating(function: str, input: Tensor) -> Tensor:
    if not is_floating(input.dtype):
        raise DtypeError(f"{function}: a tensor of dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    return input


def _changing(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    function.__qualname__ = name  # Python's in messages
    return in_place(function, name)


relu_, leaky_relu_, elu_ = _changing(_relu_of_any, "relu_"), _changing(_leaky_relu_of, "leaky_relu_"), _changing(_elu_of, "elu_")
hardtanh_, celu_, selu_ = _changing(_hardtanh_of, "hardtanh_"), _changing(_celu_of, "celu_"), _changing(_selu_of, "selu_")
threshold_, _silu_in_place = _changing(_threshold_of, "threshold_"), _changing(_silu_of, "silu(inplace=True)")
_relu6_in_place, _mish_in_place = _changing(_relu6_of, "relu6(inplace=True)"), _changing(_mish_of, "mish(inplace=True)")
_hardsigmoid_in_place = _changing(_hardsigmoid_of, "hardsigmoid(inplace=True)")
_hardswish_in_place = _changing(_hardswish_of, "hardswish(inplace=True)")
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


@public()
def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Limit to [min_val, max_val], with gradient 0 at the bounds; integers keep their dtype.

    Raises:
        ArgumentError: min_val is larger than max_val, or a bound of integers is infinite.
        DtypeError: a boolean tensor.
    """
    return (hardtanh_ if inplace else _hardtanh_of)(input, min_val, max_val)


@public()
def relu6(input: Any, inplace: bool = False) -> Tensor:
    """Limit to [0, 6], as :func:`hardtanh`."""
    return (_relu6_in_place if inplace else _relu6_of)(input)


@public()
def hardsigmoid(input: Any, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6.

    Raises:
        DtypeError: an integer tensor.
    """
    return (_hardsigmoid_in_place if inplace else _hardsigmoid_of)(input)


@public()
def hardswish(input: Any, inplace: bool = False) -> Tensor:
    """x :func:`hardsigmoid` (x) (Howard et al. 2019).

    Raises:
        DtypeError: an integer tensor.
    """
    return (_hardswish_in_place if inplace else _hardswish_of)(input)


@public()
def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere (Barron 2017).

    Raises:
        ArgumentError: alpha is 0.
        DtypeError: an integer tensor.
    """
    return (celu_ if inplace else _celu_of)(input, alpha)


@public()
def selu(input: Any, inplace: bool = False) -> Tensor:
    """1.0507 x where x > 0, 1.7581 (exp(x) - 1) elsewhere (Klambauer et al. 2017).

    Raises:
        DtypeError: an integer tensor.
    """
    return (selu_ if inplace else _selu_of)(input)


@public()
def mish(input: Any, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x)) (Misra 2019).

    Raises:
        DtypeError: an integer tensor.
    """
    return (_mish_in_place if inplace else _mish_of)(input)


@public()
def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, ``value`` elsewhere; integers keep their dtype.

    Raises:
        DtypeError: a boolean tensor, or parameters that are no numbers of an integer tensor's dtype.
    """
    return (threshold_ if inplace else _threshold_of)(input, threshold, value)


def _shrunk(function: str, input: Tensor, lambd: Any) -> Tensor:
    lambd = _as_finite(function, "lambd", lambd)
    return activate(_floating(function, input), function, lambd)


@public("hardshrink")
def hardshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, 0 elsewhere.

    Raises:
        DtypeError: an integer tensor.
    """
    return _shrunk("hardshrink", input, lambd)


@public()
def softshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """x - lambd where x > lambd, x + lambd where x < -lambd, 0 elsewhere.

    Raises:
        ArgumentError: lambd is negative.
        DtypeError: an integer tensor.
    """
    if not as_number("softshrink", "lambd", lambd) >= 0.0:
        raise ArgumentError(f"softshrink: lambd={lambd}; expected zero or a positive number")
    return _shrunk("softshrink", input, lambd)


@public(out=False)
def tanhshrink(input: Any) -> Tensor:
    """x - tanh(x).

    Raises:
        DtypeError: a boolean tensor.
    """
    if is_boolean(input.dtype):
        raise DtypeError("tanhshrink of a boolean tensor; convert it with .float() first")
    return activate(input, "tanhshrink")


@public()
def logsigmoid(input: Any) -> Tensor:
    """log(sigmoid(x)), computed without underflow.

    Raises:
        DtypeError: an integer tensor.
    """
    return activate(_floating("logsigmoid", input), "log_sigmoid")


@public(out=False)
def softsign(input: Any) -> Tensor:
    """x / (1 + |x|)."""
    return activate(input, "softsign")


@elementwise("sigmoid")
def sigmoid(input: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activate(input, "sigmoid")


@elementwise("tanh", takes_complex=True)
def tanh(input: Any) -> Tensor:
    """Hyperbolic tangent."""
    return complex_tanh(input) if complex_in_use and is_complex(input.array.dtype) else activate(input, "tanh")


@public()
def gelu(input: Any, *, approximate: str = "none") -> Tensor:
    """x Phi(x) (Hendrycks and Gimpel 2016); ``approximate="tanh"`` selects the tanh approximation.

    Raises:
        ArgumentError: ``approximate`` is neither "none" nor "tanh".
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate={approximate!r}; expected 'none' or 'tanh'")
    return activate(input, "gelu" if approximate == "none" else "gelu_tanh")


@public(autocast="cuda: float32")
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, or x where beta x > threshold."""
    beta, threshold = _as_finite("softplus", "beta", beta), as_number("softplus", "threshold", threshold)
    if beta == 0.0:
        raise ArgumentError("softplus: beta=0, by which the result is divided; expected another number")
    if beta == 1.0 and threshold >= 20.0:  # for x > 20 both branches round to x in float32
        return activate(input, "softplus")
    return where(input * beta > threshold, input, activate(input * beta, "softplus") / beta)
