"""Elementwise losses: value and gradient in one launch.

A loss kernel writes the reduced value, the gradient of each sample without the factor of the reduction, and that factor
(1/n for "mean") in device memory.  Backward launches nothing: the factor travels with the gradient as a pending scale
(see ``autograd.Gradient``), and the kernel that reduces the batch applies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import COPY, FILL, MULTIPLY, Gradient, Tensor, fused, primitive, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, is_floating, promote, uint8
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import as_0d_arrays, empty, scratch, ticket
from gpunet.launch.tape import warn_user
from gpunet.ops import reduce as reductions
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import activate
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, broadcasts_to, cast, in_accumulator
from gpunet.ops.elementwise import clamp_min, exp, log, log1p, where
from gpunet.ops.face import as_number

__all__ = ["binary_cross_entropy_with_logits", "huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]

REDUCTIONS = ("mean", "sum", "none")
#: In the cross-entropy of probabilities x, as in PyTorch: bounds from below of their logarithms, and of x (1 - x).
_LEAST_LOG, _LEAST_VARIANCE = -100.0, 1e-12
#: Largest grid of a loss launch: its partial sums have that many elements.
MAX_BLOCKS = 1024


def num_loss_blocks(count: int) -> int:
    """Grid size of a loss launch; depends on ``count`` alone, so that all GPUs sum to the same bits."""
    return max(1, min(MAX_BLOCKS, ceil_div(count, 1024)))


# ---- elementwise losses -----------------------------------------------------------------------------------------------


class ElementwiseLoss(NamedTuple):
    """A row of ``ELEMENTWISE_LOSSES``: the twin writes loss(x, y) to ``value`` and d loss / d x to ``dx``."""

    function: str  # the public function
    struct: str  # name in losses.cu
    twin: Callable[[Array, Array, Array, Array, float], None]  # (value, dx, x, y, delta)
    composed: Callable[[Tensor, Tensor, float], Tensor]
    of_difference: bool = False  # it depends on x - y only


def _squared(value, dx, x, y, delta):
    numpy.subtract(x, y, out=dx)
    numpy.multiply(dx, dx, out=value)
    dx *= as_0d_arrays(dx.dtype, 2)[0]


def _absolute(value, dx, x, y, delta):
    numpy.subtract(x, y, out=dx)
    numpy.absolute(dx, out=value)
    numpy.sign(dx, out=dx)
    is_nan = numpy.not_equal(dx, dx, out=scratch(dx.shape, bool, 1))
    numpy.copyto(dx, 0, where=is_nan)  # the gradient at NaN is 0, as in PyTorch


def _huber(value, dx, x, y, delta):
    # with d = x - y and c = clip(d, -delta, delta): the loss is c (d - c / 2), its derivative c
    difference = scratch(x.shape, x.dtype, 1)
    numpy.subtract(x, y, out=difference)
    numpy.clip(difference, -delta, delta, out=dx)
    numpy.multiply(dx, dx.dtype.type(-0.5), out=value)
    value += difference
    value *= dx


def _binary_cross_entropy(value, dx, x, y, delta):
    # max(x, 0) - x y + log(1 + exp(-|x|)), with derivative sigmoid(x) - y; x ((x > 0) - y) is no inf - inf
    small = scratch(x.shape, x.dtype, 1)
    numpy.absolute(x, out=small)
    numpy.negative(small, out=small)
    numpy.exp(small, out=small)
    numpy.log1p(small, out=value)
    numpy.greater(x, as_0d_arrays(x.dtype, 0)[0], out=dx, casting="unsafe")
    dx -= y
    dx *= x
    value += dx
    ACTIVATIONS["sigmoid"].forward(dx, x, 0.0)
    dx -= y


def _cross_entropy_of_probabilities(value, dx, x, y, delta):
    # -(y max(log x, -100) + (1 - y) max(log(1 - x), -100)), with derivative (x - y) / max(x (1 - x), 1e-12)
    one, least, variance = as_0d_arrays(x.dtype, 1, _LEAST_LOG, _LEAST_VARIANCE)
    other = scratch(x.shape, x.dtype, 1)
    numpy.negative(x, out=other)
    numpy.log1p(other, out=value)
    numpy.maximum(value, least, out=value)
    numpy.subtract(y, one, out=dx)
    value *= dx
    numpy.log(x, out=dx)
    numpy.maximum(dx, least, out=dx)
    dx *= y
    value -= dx
    other += one
    other *= x
    numpy.maximum(other, variance, out=other)
    numpy.subtract(x, y, out=dx)
    dx /= other


def _kl_divergence(value, dx, x, y, delta):
    # y (log y - x), 0 log 0 = 0
    numpy.equal(y, as_0d_arrays(y.dtype, 0)[0], out=dx, casting="unsafe")
    dx += y
    numpy.log(dx, out=value)
    value *= y
    numpy.multiply(x, y, out=dx)
    value -= dx
    numpy.negative(y, out=dx)


def _kl_divergence_of_logs(value, dx, x, y, delta):
    # e^y (y - x)
    numpy.exp(y, out=dx)
    numpy.subtract(y, x, out=value)
    value *= dx
    numpy.negative(dx, out=dx)


def _poisson(value, dx, x, y, delta):
    # x - y log(x + delta)
    rate = scratch(x.shape, x.dtype, 1)
    numpy.add(x, x.dtype.type(delta), out=rate)
    numpy.log(rate, out=value)
    value *= y
    numpy.subtract(x, value, out=value)
    numpy.divide(y, rate, out=dx)
    numpy.subtract(as_0d_arrays(x.dtype, 1)[0], dx, out=dx)


def _poisson_of_logs(value, dx, x, y, delta):
    # e^x - y x
    numpy.exp(x, out=dx)
    numpy.multiply(x, y, out=value)
    numpy.subtract(dx, value, out=value)
    dx -= y


def _soft_margin(value, dx, x, y, delta):
    # log(1 + exp(-y x)) = log1p(exp(-|y x|)) - min(y x, 0), with derivative -y / (1 + exp(y x))
    product = scratch(x.shape, x.dtype, 1)
    numpy.multiply(x, y, out=product)
    numpy.absolute(product, out=value)
    numpy.negative(value, out=value)
    numpy.exp(value, out=value)
    numpy.log1p(value, out=value)
    numpy.exp(product, out=dx)
    dx += dx.dtype.type(1)
    numpy.divide(y, dx, out=dx)
    numpy.negative(dx, out=dx)
    numpy.minimum(product, as_0d_arrays(x.dtype, 0)[0], out=product)
    value -= product


def _hinge_embedding(value, dx, x, y, delta):
    # x where y is 1, max(delta - x, 0) where it is -1, as PyTorch the sum of both elsewhere
    zero, one, minus_one = as_0d_arrays(x.dtype, 0, 1, -1)
    hinge, is_zero, is_one = scratch(x.shape, x.dtype, 1), scratch(x.shape, bool, 2), scratch(x.shape, bool, 3)
    numpy.subtract(x.dtype.type(delta), x, out=hinge)
    numpy.less(hinge, zero, out=is_zero)
    numpy.equal(y, one, out=is_one)
    numpy.logical_or(is_zero, is_one, out=is_zero)
    numpy.copyto(hinge, zero, where=is_zero)
    is_minus_one = numpy.equal(y, minus_one, out=is_one)
    numpy.copyto(value, x)
    numpy.copyto(value, zero, where=is_minus_one)
    value += hinge
    numpy.logical_not(is_minus_one, out=dx, casting="unsafe")
    numpy.logical_not(is_zero, out=hinge, casting="unsafe")
    hinge *= numpy.equal(x, x, out=is_zero)  # the gradient of the hinge at NaN is 0, as in PyTorch
    if delta != delta:
        hinge[...] = zero
    dx -= hinge


@primitive(name="binary_cross_entropy")
def _probability_cross_entropy(x, y):
    x, y = x.detach(), y.detach()
    return ((y - 1.0) * clamp_min(log1p(-x), _LEAST_LOG) - y * clamp_min(log(x), _LEAST_LOG)).array


_probability_cross_entropy.derivatives(
    x=lambda g, x, y: g * ((x - y) / clamp_min(x * (1.0 - x), _LEAST_VARIANCE)),
    y=lambda g, x, y: g * (log1p(-x) - log(x)),
)


@primitive(name="kl_div")
def _x_log_x(x):
    """x log x, 0 at 0."""
    x = x.detach()
    return (x * log(where(x == 0.0, 1.0, x))).array


_x_log_x.derivatives(x=lambda g, x: g * (log(x) + 1.0))


def _hinge_embedding_composed(x, y, delta):
    return where(y == -1.0, 0.0, x) + where(y == 1.0, 0.0, clamp_min(delta - x, 0.0))


def _huber_composed(d, delta):
    # neither branch multiplies inf by 0, and the derivative at NaN is NaN
    is_square = d.abs() < delta
    small, sign = where(is_square, d, 0.0), where(d < 0.0, -1.0, where(d >= 0.0, 1.0, math.nan))
    return where(is_square, 0.5 * small * small, delta * (d * sign - 0.5 * delta))


ELEMENTWISE_LOSSES = {
    "squared": ElementwiseLoss("mse_loss", "SquaredError", _squared, lambda x, y, delta: (x - y) * (x - y), True),
    "absolute": ElementwiseLoss("l1_loss", "AbsoluteError", _absolute, lambda x, y, delta: (x - y).abs(), True),
    "huber": ElementwiseLoss(
        "huber_loss",
        "HuberError",
        _huber,
        lambda x, y, delta: _huber_composed(x - y, delta),
        True,
    ),
    "binary_cross_entropy": ElementwiseLoss(
        "binary_cross_entropy_with_logits",
        "BinaryCrossEntropy",
        _binary_cross_entropy,
        lambda x, y, delta: (1.0 - y) * x + activate(-x, "softplus"),
    ),
    "cross_entropy_of_probabilities": ElementwiseLoss(
        "binary_cross_entropy", "ProbabilityCrossEntropy", _cross_entropy_of_probabilities,
        lambda x, y, delta: _probability_cross_entropy(x, y),
    ),
    "kl_divergence": ElementwiseLoss(
        "kl_div", "KlDivergence", _kl_divergence, lambda x, y, delta: _x_log_x(y) - x * y
    ),
    "kl_divergence_of_logs": ElementwiseLoss(
        "kl_div", "KlDivergenceOfLogs", _kl_divergence_of_logs, lambda x, y, delta: exp(y) * (y - x)
    ),
    "poisson": ElementwiseLoss("poisson_nll_loss", "Poisson", _poisson, lambda x, y, delta: x - y * log(x + delta)),
    "poisson_of_logs": ElementwiseLoss(
        "poisson_nll_loss", "PoissonOfLogs", _poisson_of_logs, lambda x, y, delta: exp(x) - y * x
    ),
    "soft_margin": ElementwiseLoss(
        "soft_margin_loss", "SoftMargin", _soft_margin, lambda x, y, delta: activate(-x * y, "softplus")
    ),
    "hinge_embedding": ElementwiseLoss(
        "hinge_embedding_loss", "HingeEmbedding", _hinge_embedding, _hinge_embedding_composed
    ),
}  # fmt: skip


def reduce_losses(value, factor, each, count, reduction):
    """value (1,) = sum of ``each``, times factor (1,) = 1 / count for "mean"; nothing for "none".

    If ``count`` is 0, the mean is NaN and the factor 0: the gradient of rows that are not counted is 0.
    """
    if reduction != "none":
        total = value.reshape(())  # 0-d: NumPy multiplies it in half the time of shape (1,)
        numpy.add.reduce(each, axis=None, out=total)
        if reduction == "mean":
            factor[0] = 1.0 / count if count else 0.0
            total *= factor.reshape(()) if count else numpy.nan


@kernel(
    "losses.cu", outputs=5, types={"factor": "A", "partials": "A", "ticket": "uint32"}, optional="factor partials ticket",
    workspace="partials", tickets="ticket",
)  # fmt: skip
def elementwise_loss(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    """value = reduction of loss(x, y); dx = d loss / d x of each element; factor (1,) = 1/count for "mean".

    x, y, dx have the same shape; ``value`` is (1,), or has the shape of x for "none".  ``partials`` (2 * MAX_BLOCKS,)
    and ``ticket`` (1,) are workspace of the CUDA kernel, None for "none" and on the CPU.
    """
    each = value if reduction == "none" else scratch(x.shape, x.dtype, 0)
    ELEMENTWISE_LOSSES[loss].twin(each, dx, x, y, delta)
    reduce_losses(value, factor, each, x.size, reduction)


@elementwise_loss.geometry
def _(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    return Geometry(
        num_loss_blocks(x.size), 256, (numpy.int64(x.size), delta),
        (ELEMENTWISE_LOSSES[loss].struct, f"Reduction::{reduction}"),
    )  # fmt: skip


@elementwise_loss.computes
def _(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    return parts.Loss(value, dx, factor, None, x, y, loss, reduction, {"delta": delta})


def reduce_composed(each: Tensor, reduction: str) -> Tensor:
    """Return the mean or the sum of the losses ``each``, or the losses themselves, in primitives."""
    if reduction == "none":
        return each
    return reductions.mean(each) if reduction == "mean" else reductions.sum(each)


def allocate_loss(x: Array, reduction: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Allocate value, factor, partials (a sum and a count per block) and ticket; ``shape`` is the unreduced shape."""
    on_gpu = type(x) is not numpy.ndarray and reduction != "none"
    return (
        empty(shape if reduction == "none" else (1,), x.dtype, x),
        empty((1,), accumulator(x.dtype), x) if reduction == "mean" else None,
        empty((2 * MAX_BLOCKS,), accumulator(x.dtype), x) if on_gpu else None,
        ticket(x) if on_gpu else None,
    )


def loss_backward(saved: tuple[Any, ...], dy: Gradient, reduction: str) -> tuple[Any, ...]:
    """Backward of a loss whose launch wrote dx and factor, which are saved."""
    dx, factor = saved
    if dy.array is None:  # the gradient is exactly 1
        return Gradient(dx, factor), None
    if reduction == "none":
        out = empty(dx.shape, dx.dtype, dx)
        MULTIPLY(out, dx, dy.array.reshape(dy.array.shape + (1,) * (dx.ndim - dy.array.ndim)))
        return out, None
    upstream, dtype = dy.array.reshape(1), accumulator(dx.dtype)
    if factor is None and upstream.dtype == dtype:
        return Gradient(dx, upstream), None
    scale = empty((1,), dtype, dx)
    COPY(scale, upstream) if factor is None else MULTIPLY(scale, upstream, factor)
    return Gradient(dx, scale), None


@in_accumulator
def _elementwise_composed(x, y, *, loss, reduction, delta):
    return reduce_composed(ELEMENTWISE_LOSSES[loss].composed(x, y, delta), reduction)


@fused(
    name="loss",
    name_from=lambda options: ELEMENTWISE_LOSSES[options["loss"]].function,
    composed=_elementwise_composed,
    takes_unit=True,
)
def regression_loss(x, y, *, loss, reduction, delta, need):
    """The reduced loss of x and y, of the same shape; y gets no gradient."""
    dx = empty(x.shape, x.dtype, x)
    value, factor, partials, counter = allocate_loss(x, reduction, x.shape)
    elementwise_loss(value, dx, factor, partials, counter, x, y, loss=loss, reduction=reduction, delta=delta)
    return value if reduction == "none" else value.reshape(()), (dx, factor)


@regression_loss.backward
def _(saved, dy, *, loss, reduction, delta, need):
    return loss_backward(saved, dy, reduction)


def reduction_of(
    function: str, size_average: bool | None, reduce: bool | None, reduction: str, allowed: tuple[str, ...] = REDUCTIONS
) -> str:
    """Return the reduction that PyTorch's deprecated arguments select; ``reduction`` if neither is passed.

    Raises:
        ArgumentError: ``size_average`` or ``reduce`` is no bool, or ``reduction`` is not ``allowed``.
    """
    if reduction not in allowed:
        raise ArgumentError(f"{function}: reduction={reduction!r}; expected one of {', '.join(map(repr, allowed))}")
    if size_average is None and reduce is None:
        return reduction
    for name, value in (("size_average", size_average), ("reduce", reduce)):
        if value is not None and not isinstance(value, (bool, numpy.bool_)):
            raise ArgumentError(f"{function}: {name}={value!r}; expected a bool or None, or reduction={value!r} by keyword")
    averages, reduces = size_average is not False, reduce is not False
    reduction = "none" if not reduces else "mean" if averages else "sum"
    message = f"{function}: size_average and reduce are deprecated; pass reduction={reduction!r}"
    warn_user(message)
    return reduction


def loss_operands(name: str, input: Any, target: Any, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Return input and target as tensors of ``dtype``, by default of their common dtype.

    Raises:
        DtypeError: the dtype is not floating.
    """
    x, y = wrap(input), wrap(target)
    if x.array.dtype != y.array.dtype:
        dtype = dtype or promote(x.array.dtype, y.array.dtype)  # of 0-d tensors, too: PyTorch expands them first
        x, y = (v if v.array.dtype == dtype else cast(v, dtype=dtype) for v in (x, y))
    if not is_floating(x.array.dtype):
        raise DtypeError(f"{name}: input of dtype {x.dtype}, target of {y.dtype}; expected a floating tensor")
    return x, y


def apply_loss(name: str, loss: str, x: Tensor, y: Tensor, reduction: str, delta: float = 0.0) -> Tensor:
    """Return the loss ``loss`` of ELEMENTWISE_LOSSES of tensors of one dtype, which are broadcast; ``name`` is the caller.

    A loss of the difference warns if the shapes differ, as in PyTorch.
    """
    of_difference = ELEMENTWISE_LOSSES[loss].of_difference
    if x.array.shape != y.array.shape:
        shape = broadcast_shape(name, x.shape, y.shape)
        if of_difference:
            warn_user(
                f"{name}: input has shape {tuple(x.shape)}, target {tuple(y.shape)}; both are broadcast to {shape}, which is "
                "nearly always a mistake: reshape one",
            )
        x, y = (broadcast_to(v, shape=shape) for v in (x, y))
    if y.requires_grad:
        if not of_difference:
            return _elementwise_composed(x, y, loss=loss, reduction=reduction, delta=delta)
        x = x - y
        zeros = empty(x.array.shape, x.array.dtype, x.array)
        FILL(zeros, value=0.0)
        y = wrap(zeros)
    return regression_loss(x, y, loss=loss, reduction=reduction, delta=float(delta))


@in_accumulator
def weighted_loss(
    x: Tensor, y: Tensor, weight: Tensor, name: str, loss: str, reduction: str, delta: float = 0.0, *, is_average: bool = False
) -> Tensor:
    """Return the reduced loss (see :func:`apply_loss`) times ``weight``; the mean ``is_average`` divides by the sum of weights."""
    each = apply_loss(name, loss, x, y if y.dtype == x.dtype else cast(y, dtype=x.dtype), "none", delta) * weight
    return reductions.sum(each) / reductions.sum(weight) if is_average and reduction == "mean" else reduce_composed(each, reduction)


def _like_input(name: str, weight: Any, x: Tensor) -> Tensor:
    """Return ``weight`` as a tensor, which must have the shape of the input."""
    weight = wrap(weight)
    if weight.shape != x.shape:
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}; expected that of the input, {tuple(x.shape)}")
    return weight


@casts("float32")
def mse_loss(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
    weight: Any = None,
) -> Tensor:  # fmt: skip
    """The squared error (input - target)^2, reduced.

    Args:
        input, target: of the same shape; other shapes are broadcast, with a warning.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".
        weight: a factor of each element, of the shape of the input; "mean" then divides by the sum of the factors.
    """
    reduction = reduction_of("mse_loss", size_average, reduce, reduction)
    x, y = loss_operands("mse_loss", input, target)
    if weight is None:
        return apply_loss("mse_loss", "squared", x, y, reduction)
    return weighted_loss(x, y, _like_input("mse_loss", weight, x), "mse_loss", "squared", reduction, is_average=True)


@casts("float32")
def l1_loss(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
    weight: Any = None,
) -> Tensor:  # fmt: skip
    """The absolute error |input - target|, reduced; arguments as of :func:`mse_loss`."""
    reduction = reduction_of("l1_loss", size_average, reduce, reduction)
    x, y = loss_operands("l1_loss", input, target)
    if weight is None:
        return apply_loss("l1_loss", "absolute", x, y, reduction)
    return weighted_loss(x, y, _like_input("l1_loss", weight, x), "l1_loss", "absolute", reduction, is_average=True)


@casts("float32")
def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """Huber's loss, reduced: d^2 / 2 if |d| <= delta, else delta (|d| - delta / 2), d = input - target (Huber 1964).

    Args:
        input: the result has its dtype.
        target, reduction: as of :func:`mse_loss`.
        weight: a factor of each element, of the shape of the input; "mean" divides by the number of elements all the same.

    Raises:
        ArgumentError: delta is not positive.
    """
    delta = as_number("huber_loss", "delta", delta)
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta={delta}; expected a positive number")
    reduction = reduction_of("huber_loss", None, None, reduction)
    x = wrap(input)
    x, y = loss_operands("huber_loss", x, target, dtype=x.dtype)
    if weight is None:
        return apply_loss("huber_loss", "huber", x, y, reduction, delta)
    return weighted_loss(x, y, _like_input("huber_loss", weight, x), "huber_loss", "huber", reduction, delta)


@casts("float32")
def smooth_l1_loss(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """Huber's loss divided by its delta: d^2 / (2 beta) if |d| < beta, else |d| - beta / 2; reduced as by :func:`mse_loss`.

    Raises:
        ArgumentError: beta is negative.
    """
    reduction = reduction_of("smooth_l1_loss", size_average, reduce, reduction)
    beta = as_number("smooth_l1_loss", "beta", beta)
    if not 0.0 <= beta < math.inf:
        raise ArgumentError(f"smooth_l1_loss: beta={beta}; expected zero or a positive number")
    x, y = loss_operands("smooth_l1_loss", input, target)
    if beta == 0.0:
        return apply_loss("smooth_l1_loss", "absolute", x, y, reduction)
    return apply_loss("smooth_l1_loss", "huber", x, y, reduction, beta) / beta


@casts("float32")
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", pos_weight: Any = None,
) -> Tensor:  # fmt: skip
    """-(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))) of logits x and targets y in [0, 1], reduced.

    Args:
        input: logits.
        target: probabilities or 0/1, of the same shape.
        weight: factor of each element, broadcast to the shape of the input.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".
        pos_weight: factor of the term y log sigmoid(x), broadcast; above 1 it raises recall.

    Raises:
        ShapeError: the shapes of input and target differ, or a weight does not fit.
    """
    name = "binary_cross_entropy_with_logits"
    reduction = reduction_of(name, size_average, reduce, reduction)
    x, y = wrap(input), wrap(target)
    if not is_floating(x.dtype):
        raise DtypeError(f"{name}: input of dtype {x.dtype}; expected a floating tensor")
    x, y = loss_operands(name, x, y)
    if x.array.shape != y.array.shape:
        raise ShapeError(
            f"{name}: input has shape {tuple(x.shape)}, target {tuple(y.shape)}; expected equal shapes: reshape one, this loss "
            "does not broadcast"
        )
    if weight is None and pos_weight is None:
        return apply_loss(name, "binary_cross_entropy", x, y, reduction)
    factors = []
    for key, factor in (("weight", weight), ("pos_weight", pos_weight)):
        factor = None if factor is None else wrap(factor)
        if key == "pos_weight" and factor is not None and factor.dtype == uint8:  # PyTorch's pos_weight - 1 wraps
            raise DtypeError(f"{name}: pos_weight has dtype uint8; expected a floating dtype: convert it with .float()")
        if factor is not None and not broadcasts_to(factor.shape, x.shape):
            raise ShapeError(f"{name}: {key} has shape {tuple(factor.shape)}; expected one that broadcasts to {tuple(x.shape)}")
        factors.append(factor if factor is None or factor.dtype == x.dtype else cast(factor, dtype=x.dtype))
    return _weighted_binary_cross_entropy(x, y, *factors, reduction=reduction)


@in_accumulator
def _weighted_binary_cross_entropy(x, y, weight, pos_weight, *, reduction):
    soft = activate(-x, "softplus")
    each = (1.0 - y) * x + (1.0 + (pos_weight - 1.0) * y if pos_weight is not None else 1.0) * soft
    return reduce_composed(each if weight is None else each * weight, reduction)
