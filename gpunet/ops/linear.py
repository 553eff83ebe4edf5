"""Linear layers: act(x W^T + b) in one launch, and a chain of such layers as one op.

For layers z_l = a_(l-1) W_l^T + b_l, a_l = act(z_l), backward computes

* dZ_(l-1) = (dZ_l W_l) * act'(saved_(l-1)), with the activation's derivative in the epilogue of the GEMM,
* dW_l = scale * dZ_l^T a_(l-1) and db_l = scale * (column sums of dZ_l) in one pass over dZ_l; ``scale`` is the pending
  scale of the gradient, such as the 1/n of a mean loss (see ``autograd.Gradient``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import Gradient, Tensor, fused, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import blas
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import complex_in_use, is_complex, is_inexact
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch import parts
from gpunet.launch.kernel import kernel
from gpunet.launch.memory import empty
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import absorb_activation, absorb_derivative, activation_backward, activation_forward, find
from gpunet.ops.broadcast import broadcasts_to, cast
from gpunet.ops.face import public
from gpunet.ops.gemm import best_cut, cut_of, geometry, math_of, whole_flag, workspace
from gpunet.ops.matmul import matmul

__all__ = ["linear"]


_SPLIT = {"partials": "A", "tickets": "uint32"}


@kernel("linear.cu", outputs=4, types=_SPLIT, optional="z partials tickets b", workspace="partials", tickets="tickets")
def linear_forward(y, z, partials, tickets, x, w, b, *, activation, alpha, cut=None):
    """y = act(x w^T + b).  x (n, i), w (o, i), b (o,) -> y (n, o); z (n, o), the pre-activation, or None.

    Here and below, ``cut`` says how a GPU computes the product, ``partials`` and ``tickets`` are the workspace of it (see
    :mod:`gpunet.ops.gemm`).
    """
    blas.dot(x, w.T, out=y)
    if b is not None:
        y += b
    if z is not None:
        numpy.copyto(z, y)
    ACTIVATIONS[activation].forward(y, y, alpha)


@kernel("linear.cu", outputs=3, types=_SPLIT, optional="partials tickets saved", workspace="partials", tickets="tickets")
def linear_backward_input(dx, partials, tickets, dy, w, saved, *, activation, alpha, cut=None):
    """dx = (dy w) * act'(saved).  dy (n, o), w (o, i), saved (n, i) -> dx (n, i)."""
    blas.dot(dy, w, out=dx)
    ACTIVATIONS[activation].backward(dx, dx, saved, alpha)


@kernel(
    "linear.cu", outputs=4, types={**_SPLIT, "scale": "A"}, optional="dw db partials tickets x scale",
    workspace="partials", tickets="tickets",
)  # fmt: skip
def linear_backward_weight(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    """dw = scale * dy^T x, db = scale * column sums of dy.  dy (n, o), x (n, i), scale (1,) -> dw (o, i), db (o,).

    x may be None if dw is None.
    """
    if dw is not None:
        blas.dot(dy.T, x, out=dw)
    if db is not None:
        numpy.add.reduce(dy, axis=0, out=db)
    if scale is not None:
        factor = scale.reshape(())  # 0-d: NumPy multiplies by it in half the time of shape (1,)
        for gradient in (dw, db):
            if gradient is not None:
                gradient *= factor


@linear_forward.geometry
def _(y, z, partials, tickets, x, w, b, *, activation, alpha, cut=None):
    (n, o), i = y.shape, x.shape[1]
    cut = cut_of(cut, x, n, o, i)
    return geometry(n, o, i, cut, (alpha,), whole_flag(x, w, pack=cut.pack(x.itemsize)), ACTIVATIONS[activation].struct)


@linear_backward_input.geometry
def _(dx, partials, tickets, dy, w, saved, *, activation, alpha, cut=None):
    (n, i), o = dx.shape, dy.shape[1]
    cut = cut_of(cut, dy, n, i, o)
    return geometry(n, i, o, cut, (alpha,), whole_flag(dy, w, pack=cut.pack(dy.itemsize)), ACTIVATIONS[activation].struct)


@linear_backward_weight.geometry
def _(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    (n, o), i = dy.shape, 0 if dw is None else x.shape[1]
    cut = cut_of(cut, dy, o, i, n)
    return geometry(o, i, n, cut, (), whole_flag(dy, None if dw is None else x, pack=cut.pack(dy.itemsize)))


@linear_forward.computes
def _(y, z, partials, tickets, x, w, b, *, activation, alpha, cut=None):
    return parts.Layer(y, z, x, w, b, activation, alpha)


@linear_backward_input.computes
def _(dx, partials, tickets, dy, w, saved, *, activation, alpha, cut=None):
    return parts.InputGradient(dx, dy, w, saved, activation, alpha)


@linear_backward_weight.computes
def _(dw, db, partials, tickets, dy, x, scale, *, cut=None):
    return parts.WeightGradient(dw, db, dy, x, scale)


linear_forward.absorbs(activation_forward)(absorb_activation)
linear_backward_input.absorbs(activation_backward)(absorb_derivative)


def weight_gradients(dy: Array, x: Array | None, scale: Array | None, need_b: bool) -> tuple[Any, Any]:
    """Allocate and compute (dW, db) of a layer, in one launch.

    Args:
        dy: (n, o), the gradient of the pre-activation.
        x: (n, i), the input; None skips dW.
        scale: (1,), the pending scale of dy, or None.
        need_b: False skips db.
    """
    n, o = dy.shape
    db = empty((o,), dy.dtype, dy) if need_b else None
    dw = None if x is None else empty((o, x.shape[1]), dy.dtype, dy)
    if type(dy) is ndarray:
        linear_backward_weight(dw, db, None, None, dy, x, scale)
    else:
        cut = best_cut(o, 0 if x is None else x.shape[1], n, math=math_of(dy))
        linear_backward_weight(dw, db, *workspace(dy, cut, extra=1), dy, x, scale, cut=cut)
    return dw, db


def apply_layer(x: Array, w: Array, b: Array | None, activation: str = "identity", alpha: float = 0.0) -> tuple[Array, Any]:
    """Allocate and compute (y, z) of a layer, in one launch.

    Args:
        x: (n, i), the input.
        w: (o, i).
        b: (o,), or None.

    Returns:
        act(x w^T + b), (n, o), and the pre-activation, or None if the derivative of the activation does not need it.
    """
    y = empty((len(x), len(w)), x.dtype, x)
    z = empty(y.shape, y.dtype, y) if find(activation).saves == "preactivation" else None
    if type(x) is ndarray:
        linear_forward(y, z, None, None, x, w, b, activation=activation, alpha=alpha)
    else:
        cut = best_cut(*y.shape, x.shape[1], math=math_of(x))
        linear_forward(y, z, *workspace(x, cut), x, w, b, activation=activation, alpha=alpha, cut=cut)
    return y, z


def input_gradient(
    dy: Array, w: Array, saved: Any = None, activation: str = "identity", alpha: float = 0.0, out: Array | None = None
) -> Array:
    """Compute (dy w) * act'(saved), in one launch.

    Args:
        dy: (n, o), the gradient of the pre-activation.
        w: (o, i).
        saved: (n, i), the residual of the activation before the layer; None for "identity".
        out: (n, i), the memory of the result; None allocates it.
    """
    dx = empty((len(dy), w.shape[1]), dy.dtype, dy) if out is None else out
    if type(dy) is ndarray:
        linear_backward_input(dx, None, None, dy, w, saved, activation=activation, alpha=alpha)
    else:
        cut = best_cut(*dx.shape, dy.shape[1], math=math_of(dy))
        linear_backward_input(dx, *workspace(dy, cut), dy, w, saved, activation=activation, alpha=alpha, cut=cut)
    return dx


def _chain_composed(x, *parameters, activations):
    for (name, alpha), w, b in zip(activations, parameters[::2], parameters[1::2], strict=True):
        z = matmul(x, w.T) if b is None else matmul(x, w.T) + b
        x = find(name).composed(z, alpha)
    return x


@fused(name="linear", composed=_chain_composed, takes_scale=True)
def linear_chain(x, *parameters, activations, need):
    """A chain of linear layers: x (n, i), parameters w1 (o1, i), b1 (o1,) or None, w2 (o2, o1), ... -> (n, o_last).

    Args:
        activations: (name, alpha) per layer.
    """
    saved: list[Any] = []  # input, weight and residual of each layer, None where backward does not need it
    first = need.index(True) if True in need else len(need)  # no operand before this one needs a gradient
    layers = zip(activations, parameters[::2], parameters[1::2], strict=True)
    for layer, ((name, alpha), w, b) in enumerate(layers):
        y, z = apply_layer(x, w, b, name, alpha)
        residual = y if find(name).saves == "output" else z
        saved += (x if need[1 + 2 * layer] else None, w if first <= 2 * layer else None, residual)
        x = y
    return x, tuple(saved)


def _chain_gradients(saved, dy, *, activations, need):
    """Yield the position of each input that needs a gradient, and its gradient, from the last layer on.

    The gradients of a layer follow when its weight is no longer needed.
    """
    first = need.index(True)
    (name, alpha), dz, scale = activations[-1], dy.array, dy.scale
    if name != "identity":
        dz = empty(dz.shape, dz.dtype, dz)
        activation_backward(dz, dy.array, saved[-1], activation=name, alpha=alpha)
    for layer in reversed(range(len(activations))):
        x, w = saved[3 * layer], saved[3 * layer + 1]
        at_w, at_b, dw, db = 1 + 2 * layer, 2 + 2 * layer, None, None
        if need[at_w] or need[at_b]:
            dw, db = weight_gradients(dz, x, scale, need[at_b])
        is_lowest = first > 2 * layer
        if not is_lowest:
            dz = input_gradient(dz, w, saved[3 * layer - 1], *activations[layer - 1]) if layer else input_gradient(dz, w)
        if need[at_w]:
            yield at_w, dw
        if need[at_b]:
            yield at_b, db
        if is_lowest:
            return
    yield 0, dz if scale is None else Gradient(dz, scale)


linear_chain.op.stream = _chain_gradients


@linear_chain.backward
def _(saved, dy, *, activations, need):
    gradients: list[Any] = [None] * len(need)
    for position, gradient in _chain_gradients(saved, dy, activations=activations, need=need):
        gradients[position] = gradient
    return gradients


def check_linear(features: int, weight: Tensor, bias: Tensor | None) -> int:
    """Check the shapes of a linear layer's operands and return the number of output features.

    Raises:
        ShapeError: a shape does not match.
        DtypeError: the bias has another dtype than the weight.
    """
    shape = weight.array.shape
    if len(shape) != 2:
        raise ShapeError(f"linear: weight has shape {shape}; expected (out_features, in_features)")
    if features != shape[1]:
        raise ShapeError(
            f"linear: the input has {features} features in its last dimension; the weight of shape {shape} "
            f"expects {shape[1]}"
        )
    if bias is not None and bias.array.shape != shape[:1]:
        raise ShapeError(f"linear: bias has shape {bias.shape}; expected {shape[:1]} for weight {shape}")
    if bias is not None and bias.array.dtype != weight.array.dtype:
        raise DtypeError(f"linear: bias has dtype {bias.dtype}; expected that of the weight, {weight.dtype}")
    return shape[0]


@casts("half")
def linear_layers(x: Any, layers: Sequence[tuple[Any, Any, str, float]]) -> Tensor:
    """Apply a chain of linear layers to x (..., in_features): one op, one launch per layer.

    Args:
        x: cast to the dtype of the first weight if it differs.
        layers: (weight, bias or None, activation name, alpha) per layer; weights and biases are tensors.

    Raises:
        ShapeError: the shapes of x and the layers do not match.
    """
    x = wrap(x)
    if x.array.ndim == 0:
        raise ShapeError("linear: the input has no dimensions; expected (..., in_features)")
    parameters: list[Any] = []
    activations: list[tuple[str, float]] = []
    features = x.array.shape[-1]
    dtype, is_mixed = layers[0][0].array.dtype, False
    for weight, bias, name, alpha in layers:
        features = check_linear(features, weight, bias)
        parameters += (weight, bias)
        activations.append((name, alpha))
        is_mixed = is_mixed or weight.array.dtype != dtype
    if is_mixed:
        for layer in layers:  # each casts its input to the dtype of its weight
            x = linear_layers(x, [layer])
        return x
    if complex_in_use and (is_complex(dtype) or is_complex(x.array.dtype)):
        return _complex_layers(x, layers)
    if x.array.dtype != dtype:
        x = cast(x, dtype=dtype)
    if x.array.ndim == 2:
        return linear_chain(x, *parameters, activations=activations)
    rows = math.prod(x.shape[:-1])
    out = linear_chain(x.reshape(rows, x.shape[-1]), *parameters, activations=activations)
    return out.reshape(*x.shape[:-1], features)


def _complex_layers(x: Tensor, layers: Sequence[tuple[Any, Any, str, float]]) -> Tensor:
    """:func:`linear_layers` of complex numbers, which our kernels do not take."""
    for weight, bias, name, alpha in layers:
        if x.dtype != weight.dtype:
            raise DtypeError(f"linear: input has dtype {x.dtype}, the weight {weight.dtype}; expected one dtype")
        x = matmul(x, weight.mT)
        x = find(name, alpha).composed(x if bias is None else x + bias, alpha)
    return x


@public(autocast="half", takes_complex=True)
def linear(
    input: Any, weight: Any, bias: Any = None, *, activation: str = "identity", alpha: float | None = None
) -> Tensor:
    """act(input weight^T + bias) in one launch.

    Args:
        input: (..., in_features); cast to the dtype of the weight if it differs.
        weight: (out_features, in_features), or (in_features,) for one output without its dimension.
        bias: (out_features,), or a tensor that broadcasts to the result; None for none.
        activation: a key of ``ACTIVATIONS``, computed in the epilogue.  PyTorch does not have it.
        alpha: the activation's parameter (negative slope of leaky_relu, alpha of elu); None means its default.

    Returns:
        (..., out_features).

    Raises:
        ShapeError: the shapes do not match.
        ArgumentError: the activation is unknown, or alpha is negative.
    """
    row = find(activation, alpha or 0.0)
    alpha = row.alpha if alpha is None else float(alpha)
    weight = wrap(weight)
    bias = None if bias is None else wrap(bias)
    if weight.ndim == 1 and bias is None:
        return linear(input, weight.reshape(1, -1), activation=activation, alpha=alpha).squeeze(-1)
    if is_inexact(weight.dtype) and (bias is None or bias.shape == weight.shape[:1]):
        return linear_layers(input, [(weight, bias, activation, alpha)])
    if is_inexact(weight.dtype) or not input.ndim:
        product = linear_layers(input, [(weight, None, "identity", 0.0)])
    else:
        check_linear(input.shape[-1], weight, None)
        product = matmul(input, weight.mT)
    if bias is not None:
        if bias.dtype != product.dtype:
            raise DtypeError(f"linear: bias has dtype {bias.dtype}; expected that of the product, {product.dtype}")
        if not broadcasts_to(bias.shape, product.shape):
            raise ShapeError(
                f"linear: bias has shape {tuple(bias.shape)}; expected {tuple(weight.shape[:1])} for weight {tuple(weight.shape)}"
            )
        product = product + bias
    return row.composed(product, alpha)
