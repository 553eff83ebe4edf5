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

from gpunet.autograd import Gradient, Tensor, fused, wrap
from gpunet.backend import blas
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, is_floating, is_half
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, elementwise_grid, kernel
from gpunet.launch.memory import empty, scratch
from gpunet.ops.activations import ACTIVATIONS, activation_backward, activation_forward, find
from gpunet.ops.broadcast import broadcasts_to, cast
from gpunet.ops.face import public
from gpunet.ops.matmul import matmul

__all__ = ["linear"]


def gemm_tile(rows: int, columns: int) -> int:
    """Edge of a block's output tile: 128, or 64 if 128 would give too few blocks to fill a GPU."""
    return 128 if ceil_div(rows, 128) * ceil_div(columns, 128) >= 96 else 64


def split_k(rows: int, columns: int, depth: int) -> int:
    """Number of split-K slices of a dW product; depends on the shape alone, so that all GPUs compute the same bits."""
    blocks = ceil_div(rows, 64) * ceil_div(columns, 64)
    return max(1, min(64, ceil_div(256, blocks), depth // 256))


@kernel("linear.cu", outputs=2, optional="z b")
def linear_forward(y, z, x, w, b, *, activation, alpha):
    """y = act(x w^T + b).  x (n, i), w (o, i), b (o,) -> y (n, o); z (n, o), the pre-activation, or None."""
    blas.dot(x, w.T, out=y)
    if b is not None:
        y += b
    if z is not None:
        numpy.copyto(z, y)
    ACTIVATIONS[activation].forward(y, y, alpha)


@kernel("linear.cu", outputs=1, optional="saved")
def linear_backward_input(dx, dy, w, saved, *, activation, alpha):
    """dx = (dy w) * act'(saved).  dy (n, o), w (o, i), saved (n, i) -> dx (n, i)."""
    blas.dot(dy, w, out=dx)
    ACTIVATIONS[activation].backward(dx, dx, saved, alpha)


@kernel("linear.cu", outputs=2, types={"scale": "A"}, optional="dw db x scale")
def linear_backward_weight(dw, db, dy, x, scale):
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


@kernel("linear.cu", outputs=1, types={"partials": "A"})
def linear_backward_weight_partial(partials, dy, x, *, slices):
    """partials[s] (o * i + o,) = dy^T x of slice s of the batch, flattened, then the column sums of dy of slice s."""
    rows, (o, i) = ceil_div(len(x), slices), (dy.shape[1], x.shape[1])
    for index in range(slices):
        part = slice(index * rows, (index + 1) * rows)
        blas.dot(dy[part].T, x[part], out=partials[index, : o * i].reshape(o, i))
        numpy.add.reduce(dy[part], axis=0, out=partials[index, o * i :])


@kernel("linear.cu", outputs=2, types={"partials": "A", "scale": "A"}, optional="dw db scale")
def linear_backward_weight_reduce(dw, db, partials, scale):
    """dw, db = scale * (partials[0] + partials[1] + ...), summed in this order."""
    total = scratch(partials.shape[1:], partials.dtype)
    numpy.copyto(total, partials[0])
    for part in partials[1:]:
        total += part
    if scale is not None:
        total *= scale
    if dw is not None:
        dw.reshape(-1)[...] = total[: dw.size]
    if db is not None:
        db[...] = total[total.size - db.size :]


@linear_forward.geometry
def _(y, z, x, w, b, *, activation, alpha):
    (n, o), i = y.shape, x.shape[1]
    tile = gemm_tile(n, o)
    grid = ceil_div(n, tile) * ceil_div(o, tile)
    return Geometry(grid, 256, (n, o, i, alpha), (str(tile), ACTIVATIONS[activation].struct))


@linear_backward_input.geometry
def _(dx, dy, w, saved, *, activation, alpha):
    (n, i), o = dx.shape, dy.shape[1]
    tile = gemm_tile(n, i)
    grid = ceil_div(n, tile) * ceil_div(i, tile)
    return Geometry(grid, 256, (n, i, o, alpha), (str(tile), ACTIVATIONS[activation].struct))


@linear_forward.absorbs(activation_forward)
def _(arrays, options, follower, is_needed):
    y, z, x, w, b = arrays
    if options["activation"] != "identity" or z is not None or is_half(y.dtype):  # halves would be rounded once instead of twice
        return None
    return follower[0].reshape(y.shape), y if is_needed else None, x, w, b


@linear_backward_input.absorbs(activation_backward)
def _(arrays, options, follower, is_needed):
    dx, dy, w, saved = arrays
    if options["activation"] != "identity" or is_needed or is_half(dx.dtype):
        return None
    return follower[0].reshape(dx.shape), dy, w, follower[2].reshape(dx.shape)


@linear_backward_weight.geometry
def _(dw, db, dy, x, scale):
    n, o = dy.shape
    i = 0 if dw is None else x.shape[1]
    tile = gemm_tile(o, i)
    columns = max(1, ceil_div(i, tile))  # without dw, one column of tiles computes db
    return Geometry(ceil_div(o, tile) * columns, 256, (o, i, n), (str(tile),))


@linear_backward_weight_partial.geometry
def _(partials, dy, x, *, slices):
    n, o = dy.shape
    i = x.shape[1]
    grid = (ceil_div(o, 64) * max(1, ceil_div(i, 64)), slices)
    return Geometry(grid, 256, (o, i, n, ceil_div(n, slices)), ("64",))


@linear_backward_weight_reduce.geometry
def _(dw, db, partials, scale):
    slices, count = partials.shape
    products = count - db.size if dw is None else dw.size
    scalars = (numpy.int64(products), numpy.int64(count), slices)
    return Geometry(elementwise_grid(count, per_thread=1), 256, scalars)


def weight_gradients(dy: Array, x: Array | None, scale: Array | None, need_b: bool) -> tuple[Any, Any]:
    """Allocate and compute (dW, db) of a layer: in one launch, or on a GPU with a large batch by split-K in two.

    Args:
        dy: (n, o), the gradient of the pre-activation.
        x: (n, i), the input; None skips dW.
        scale: (1,), the pending scale of dy, or None.
        need_b: False skips db.
    """
    n, o = dy.shape
    db = empty((o,), dy.dtype, dy) if need_b else None
    if x is None:
        linear_backward_weight(None, db, dy, None, scale)
        return None, db
    i = x.shape[1]
    dw = empty((o, i), dy.dtype, dy)
    slices = 1 if type(dy) is numpy.ndarray else split_k(o, i, n)
    if slices == 1:
        linear_backward_weight(dw, db, dy, x, scale)
    else:
        partials = empty((slices, o * i + o), accumulator(dy.dtype), dy)
        linear_backward_weight_partial(partials, dy, x, slices=slices)
        linear_backward_weight_reduce(dw, db, partials, scale)
    return dw, db


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
        row = find(name)
        y = empty((len(x), len(w)), x.dtype, x)
        z = empty(y.shape, y.dtype, y) if row.saves == "preactivation" else None
        linear_forward(y, z, x, w, b, activation=name, alpha=alpha)
        saved += (x if need[1 + 2 * layer] else None, w if first <= 2 * layer else None, y if row.saves == "output" else z)
        x = y
    return x, tuple(saved)


@linear_chain.backward
def _(saved, dy, *, activations, need):
    gradients: list[Any] = [None] * len(need)
    first = need.index(True)
    (name, alpha), dz, scale = activations[-1], dy.array, dy.scale
    if name != "identity":
        dz = empty(dz.shape, dz.dtype, dz)
        activation_backward(dz, dy.array, saved[-1], activation=name, alpha=alpha)
    for layer in reversed(range(len(activations))):
        x, w = saved[3 * layer], saved[3 * layer + 1]
        at_w, at_b = 1 + 2 * layer, 2 + 2 * layer
        if need[at_w] or need[at_b]:
            gradients[at_w], gradients[at_b] = weight_gradients(dz, x, scale, need[at_b])
        if first > 2 * layer:
            return gradients
        name, alpha = activations[layer - 1] if layer else ("identity", 0.0)
        dx = empty((len(dz), w.shape[1]), dz.dtype, dz)
        linear_backward_input(dx, dz, w, saved[3 * layer - 1] if layer else None, activation=name, alpha=alpha)
        dz = dx
    gradients[0] = dz if scale is None else Gradient(dz, scale)
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
    if x.array.dtype != dtype:
        x = cast(x, dtype=dtype)
    if x.array.ndim == 2:
        return linear_chain(x, *parameters, activations=activations)
    rows = math.prod(x.shape[:-1])
    out = linear_chain(x.reshape(rows, x.shape[-1]), *parameters, activations=activations)
    return out.reshape(*x.shape[:-1], features)


@public()
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
    if is_floating(weight.dtype) and (bias is None or bias.shape == weight.shape[:1]):
        return linear_layers(input, [(weight, bias, activation, alpha)])
    if is_floating(weight.dtype) or not input.ndim:
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
