"""The table of activations: one row of ``ACTIVATIONS`` and one struct in ``activations.cuh`` per activation.

A row holds the residual that backward needs (``saves``: the output or the pre-activation), the NumPy twins of forward
and backward, and both composed of primitives.  ``linear`` and ``conv2d`` run any activation in their epilogue, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.devices import Array
from gpunet.launch.memory import as_0d_arrays, scratch, zeros_like
from gpunet.ops.elementwise import erf, exp, expm1, log1p, maximum, minimum, where
from gpunet.ops.special import erf_into


class Activation(NamedTuple):
    """A row of ``ACTIVATIONS``.

    ``alpha`` is the parameter: the negative slope of leaky_relu, alpha of elu and celu, the bound of hardtanh, the upper bound of
    relu6, lambda of the shrinks, the threshold.
    """

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
#: Beyond it tanh is 1 or -1 in every dtype.  Its argument is limited where squares would overflow.
_GELU_LIMIT = 10.0


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
    numpy.clip(z, -_GELU_LIMIT, _GELU_LIMIT, out=slope)
    numpy.multiply(slope, slope, out=square)
    square *= z.dtype.type(3 * _GELU_SCALE * _GELU_CUBE)
    square += z.dtype.type(_GELU_SCALE)
    slope *= square
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


def _hardtanh(y, z, alpha):
    numpy.clip(z, -alpha, alpha, out=y)


def _hardtanh_backward(dz, dy, z, alpha):
    # 0 at the bounds, too, 1 at NaN
    slope, is_clipped = scratch(z.shape, z.dtype), scratch(z.shape, bool)
    numpy.absolute(z, out=slope)
    numpy.greater_equal(slope, z.dtype.type(alpha), out=is_clipped)
    numpy.logical_not(is_clipped, out=is_clipped)
    numpy.multiply(dy, is_clipped, out=dz)


def _relu6(y, z, alpha):
    numpy.clip(z, 0.0, alpha, out=y)


def _relu6_backward(dz, dy, z, alpha):
    is_low, is_high = scratch(z.shape, bool), scratch(z.shape, bool, 1)
    numpy.less_equal(z, as_0d_arrays(z.dtype, 0)[0], out=is_low)
    numpy.greater_equal(z, z.dtype.type(alpha), out=is_high)
    numpy.logical_or(is_low, is_high, out=is_low)
    numpy.logical_not(is_low, out=is_low)
    numpy.multiply(dy, is_low, out=dz)


def _hardsigmoid(y, z, alpha):
    numpy.add(z, z.dtype.type(3), out=y)
    numpy.clip(y, 0.0, 6.0, out=y)
    y /= z.dtype.type(6)


def _hardsigmoid_backward(dz, dy, z, alpha):
    slope, is_inside = scratch(z.shape, z.dtype), scratch(z.shape, bool)
    numpy.absolute(z, out=slope)
    numpy.less(slope, z.dtype.type(3), out=is_inside)
    numpy.multiply(is_inside, z.dtype.type(1 / 6), out=slope)
    numpy.multiply(dy, slope, out=dz)


def _hardswish(y, z, alpha):
    gate = scratch(z.shape, z.dtype)
    _hardsigmoid(gate, z, alpha)
    numpy.multiply(z, gate, out=y)


def _hardswish_backward(dz, dy, z, alpha):
    # z / 3 + 1 / 2 between -3 and 3, 0 below, 1 above and at NaN
    slope, is_outside = scratch(z.shape, z.dtype), scratch(z.shape, bool)
    low, high = as_0d_arrays(z.dtype, -3, 3)
    numpy.divide(z, high, out=slope)
    slope += z.dtype.type(0.5)
    numpy.less(z, high, out=is_outside)
    numpy.logical_not(is_outside, out=is_outside)
    numpy.copyto(slope, as_0d_arrays(z.dtype, 1)[0], where=is_outside)
    numpy.less_equal(z, low, out=is_outside)
    numpy.copyto(slope, as_0d_arrays(z.dtype, 0)[0], where=is_outside)
    numpy.multiply(dy, slope, out=dz)


def _hardshrink(y, z, alpha):
    size, is_small = scratch(z.shape, z.dtype), scratch(z.shape, bool)
    numpy.absolute(z, out=size)
    numpy.less_equal(size, z.dtype.type(alpha), out=is_small)
    _identity(y, z, alpha)
    numpy.copyto(y, as_0d_arrays(z.dtype, 0)[0], where=is_small)


def _shrink_backward(dz, dy, y, alpha):
    # y is 0 exactly where z is at most alpha in size; the slope is 1 elsewhere, also at NaN
    numpy.multiply(dy, numpy.not_equal(y, as_0d_arrays(y.dtype, 0)[0], out=scratch(y.shape, bool)), out=dz)


def _softshrink(y, z, alpha):
    # z - clip(z, -alpha, alpha)
    near = scratch(z.shape, z.dtype)
    numpy.clip(z, -alpha, alpha, out=near)
    numpy.subtract(z, near, out=y)


def _softshrink_backward(dz, dy, z, alpha):
    # the output of a half may underflow to 0, so z tells
    size, is_large = scratch(z.shape, z.dtype), scratch(z.shape, bool)
    numpy.absolute(z, out=size)
    numpy.less_equal(size, z.dtype.type(alpha), out=is_large)
    numpy.logical_not(is_large, out=is_large)
    numpy.multiply(dy, is_large, out=dz)


def _threshold(y, z, alpha):
    is_low = numpy.less_equal(z, z.dtype.type(alpha), out=scratch(z.shape, bool))
    _identity(y, z, alpha)
    numpy.copyto(y, as_0d_arrays(z.dtype, 0)[0], where=is_low)


def _tanhshrink(y, z, alpha):
    t = scratch(z.shape, z.dtype)
    numpy.tanh(z, out=t)
    numpy.subtract(z, t, out=y)


def _tanhshrink_backward(dz, dy, z, alpha):
    t = scratch(z.shape, z.dtype)
    numpy.tanh(z, out=t)
    t *= t
    numpy.multiply(dy, t, out=dz)


def _log_sigmoid(y, z, alpha):
    # min(z, 0) - log1p(exp(-|z|))
    small = scratch(z.shape, z.dtype)
    numpy.absolute(z, out=small)
    numpy.negative(small, out=small)
    numpy.exp(small, out=small)
    numpy.log1p(small, out=small)
    numpy.minimum(z, zeros_like(z), out=y)
    y -= small


def _log_sigmoid_backward(dz, dy, y, alpha):
    # sigmoid(-z) = 1 - exp(y)
    slope = scratch(y.shape, y.dtype)
    numpy.expm1(y, out=slope)
    numpy.negative(slope, out=slope)
    numpy.multiply(dy, slope, out=dz)


def _celu(y, z, alpha):
    negative = scratch(z.shape, z.dtype)
    numpy.minimum(z, zeros_like(z), out=negative)
    negative /= z.dtype.type(alpha)
    numpy.expm1(negative, out=negative)
    negative *= z.dtype.type(alpha)
    numpy.maximum(z, zeros_like(z), out=y)
    y += negative


def _celu_backward(dz, dy, y, alpha):
    # exp(z / alpha) = y / alpha + 1 where y <= 0, else 1, also at NaN
    slope, is_linear, one = scratch(y.shape, y.dtype), scratch(y.shape, bool), as_0d_arrays(y.dtype, 1)[0]
    numpy.divide(y, y.dtype.type(alpha), out=slope)
    slope += one
    numpy.less_equal(y, as_0d_arrays(y.dtype, 0)[0], out=is_linear)
    numpy.logical_not(is_linear, out=is_linear)
    numpy.copyto(slope, one, where=is_linear)
    numpy.multiply(dy, slope, out=dz)


#: Of Klambauer et al. (2017): outputs keep mean 0 and variance 1.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804935, 1.6732632423543772848


def _selu(y, z, alpha):
    _elu(y, z, _SELU_ALPHA)
    y *= z.dtype.type(_SELU_SCALE)


def _selu_backward(dz, dy, y, alpha):
    # scale alpha exp(z) = y + scale alpha where y <= 0, else scale, also at NaN
    slope, is_linear, scale = scratch(y.shape, y.dtype), scratch(y.shape, bool), as_0d_arrays(y.dtype, _SELU_SCALE)[0]
    numpy.add(y, y.dtype.type(_SELU_SCALE * _SELU_ALPHA), out=slope)
    numpy.less_equal(y, as_0d_arrays(y.dtype, 0)[0], out=is_linear)
    numpy.logical_not(is_linear, out=is_linear)
    numpy.copyto(slope, scale, where=is_linear)
    numpy.multiply(dy, slope, out=dz)


def _mish_gate(t, z):
    """t = tanh(softplus(z))."""
    small = scratch(z.shape, z.dtype)
    numpy.absolute(z, out=small)
    numpy.negative(small, out=small)
    numpy.exp(small, out=small)
    numpy.log1p(small, out=small)
    numpy.maximum(z, zeros_like(z), out=t)
    t += small
    numpy.tanh(t, out=t)


def _mish(y, z, alpha):
    t = scratch(z.shape, z.dtype, 1)
    _mish_gate(t, z)
    numpy.multiply(z, t, out=y)


def _mish_backward(dz, dy, z, alpha):
    # t + z (1 - t^2) sigmoid(z)
    t, slope, square = scratch(z.shape, z.dtype, 1), scratch(z.shape, z.dtype), scratch(z.shape, z.dtype, 2)
    _mish_gate(t, z)
    _sigmoid(slope, z, alpha)
    slope *= z
    numpy.multiply(t, t, out=square)
    numpy.subtract(1, square, out=square)
    slope *= square
    slope += t
    numpy.multiply(dy, slope, out=dz)


def _softsign(y, z, alpha):
    size = scratch(z.shape, z.dtype)
    numpy.absolute(z, out=size)
    size += z.dtype.type(1)
    numpy.divide(z, size, out=y)


def _softsign_backward(dz, dy, z, alpha):
    # 1 / (1 + |z|)^2
    size = scratch(z.shape, z.dtype)
    numpy.absolute(z, out=size)
    size += z.dtype.type(1)
    size *= size
    numpy.divide(dy, size, out=dz)


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


def _gelu_tanh_inner_composed(z):
    """(t, z), z limited to where t depends on it."""
    near = maximum(minimum(z, _GELU_LIMIT), -_GELU_LIMIT)
    return _tanh_composed(_GELU_SCALE * (near + _GELU_CUBE * near * near * near)), near


def _gelu_tanh_composed(z, alpha):
    return 0.5 * z * (1.0 + _gelu_tanh_inner_composed(z)[0])


def _gelu_tanh_composed_backward(dy, z, alpha):
    t, near = _gelu_tanh_inner_composed(z)
    slope = near * (_GELU_SCALE + 3.0 * _GELU_SCALE * _GELU_CUBE * near * near)
    return dy * (0.5 * (1.0 + t) + 0.5 * slope * (1.0 - t * t))


def _silu_composed_backward(dy, z, alpha):
    s = _sigmoid_composed(z)
    return dy * (s * (1.0 + z * (1.0 - s)))


def _hardswish_composed_backward(dy, z, alpha):
    return where(z <= -3.0, 0.0, where(z < 3.0, dy * (z / 3.0 + 0.5), dy))


def _mish_gate_composed(s):
    """tanh(softplus(z)) of s = sigmoid(z): softplus(z) is -log(1 - s)."""
    return s * (2.0 - s) / (1.0 + (1.0 - s) * (1.0 - s))


def _mish_composed_backward(dy, z, alpha):
    s = _sigmoid_composed(z)
    t = _mish_gate_composed(s)
    return dy * (t + z * (1.0 - t * t) * s)


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
    "hardtanh": Activation(
        "Hardtanh", "preactivation", _hardtanh, _hardtanh_backward,
        lambda z, alpha: where(z <= -alpha, -alpha, where(z >= alpha, alpha, z)),
        lambda dy, z, alpha: where((z <= -alpha) | (z >= alpha), 0.0, dy), 1.0,
    ),
    "relu6": Activation(
        "Relu6", "preactivation", _relu6, _relu6_backward,
        lambda z, alpha: where(z <= 0.0, 0.0, where(z >= alpha, alpha, z)),
        lambda dy, z, alpha: where((z <= 0.0) | (z >= alpha), 0.0, dy), 6.0,
    ),
    "hardsigmoid": Activation(
        "Hardsigmoid", "preactivation", _hardsigmoid, _hardsigmoid_backward,
        lambda z, alpha: where(z <= -3.0, 0.0, where(z >= 3.0, 1.0, (z + 3.0) / 6.0)),
        lambda dy, z, alpha: where((z > -3.0) & (z < 3.0), dy / 6.0, 0.0),
    ),
    "hardswish": Activation(
        "Hardswish", "preactivation", _hardswish, _hardswish_backward,
        lambda z, alpha: where(z <= -3.0, 0.0, where(z >= 3.0, z, z * (z + 3.0) / 6.0)), _hardswish_composed_backward,
    ),
    "hardshrink": Activation(
        "Hardshrink", "output", _hardshrink, _shrink_backward,
        lambda z, alpha: where((z >= -alpha) & (z <= alpha), 0.0, z), lambda dy, y, alpha: where(y == 0.0, 0.0, dy), 0.5,
    ),
    "softshrink": Activation(
        "Softshrink", "preactivation", _softshrink, _softshrink_backward,
        lambda z, alpha: where(z > alpha, z - alpha, where(z < -alpha, z + alpha, 0.0 * z)),
        lambda dy, z, alpha: where((z >= -alpha) & (z <= alpha), 0.0, dy), 0.5,
    ),
    "tanhshrink": Activation(
        "Tanhshrink", "preactivation", _tanhshrink, _tanhshrink_backward,
        lambda z, alpha: z - _tanh_composed(z), lambda dy, z, alpha: dy * (_tanh_composed(z) * _tanh_composed(z)),
    ),
    "threshold": Activation(
        "Threshold", "output", _threshold, _shrink_backward,
        lambda z, alpha: where(z <= alpha, 0.0, z), lambda dy, y, alpha: where(y == 0.0, 0.0, dy),
    ),
    "log_sigmoid": Activation(
        "LogSigmoid", "output", _log_sigmoid, _log_sigmoid_backward,
        lambda z, alpha: -(maximum(-z, 0.0) + log1p(exp(-z.abs()))), lambda dy, y, alpha: dy * -expm1(y),
    ),
    "celu": Activation(
        "Celu", "output", _celu, _celu_backward,
        lambda z, alpha: where(z <= 0, alpha * (exp(where(z <= 0, z, 0.0) / alpha) - 1.0), z),
        lambda dy, y, alpha: where(y <= 0, dy * (where(y < 0, y, 0.0) / alpha + 1.0), dy), 1.0,
    ),
    "selu": Activation(
        "Selu", "output", _selu, _selu_backward,
        lambda z, alpha: _SELU_SCALE * where(z <= 0, _SELU_ALPHA * (exp(where(z <= 0, z, 0.0)) - 1.0), z),
        lambda dy, y, alpha: where(y <= 0, dy * (where(y < 0, y, 0.0) + _SELU_SCALE * _SELU_ALPHA), _SELU_SCALE * dy),
    ),
    "mish": Activation(
        "Mish", "preactivation", _mish, _mish_backward, lambda z, alpha: z * _mish_gate_composed(_sigmoid_composed(z)),
        _mish_composed_backward,
    ),
    "softsign": Activation(
        "Softsign", "preactivation", _softsign, _softsign_backward,
        lambda z, alpha: z / (1.0 + z.abs()), lambda dy, z, alpha: dy / ((1.0 + z.abs()) * (1.0 + z.abs())),
    ),
}  # fmt: skip
