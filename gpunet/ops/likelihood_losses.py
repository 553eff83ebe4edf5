"""Losses that are negative log-likelihoods, or divergences of distributions, elementwise."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.ops.broadcast import broadcasts_to, cast, in_accumulator, result_dtype
from gpunet.ops.elementwise import log, raise_to, where
from gpunet.ops.face import as_number, check_flag
from gpunet.ops.losses import REDUCTIONS, apply_loss, loss_operands, reduce_composed, reduction_of, weighted_loss

__all__ = ["binary_cross_entropy", "gaussian_nll_loss", "kl_div", "poisson_nll_loss"]

KL_REDUCTIONS = ("batchmean", *REDUCTIONS)


@casts("cpu: float32, cuda: refused")
def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(y log x + (1 - y) log(1 - x)) of probabilities x and targets y, reduced; logarithms are at least -100, as in PyTorch.

    Of logits, :func:`binary_cross_entropy_with_logits` is more accurate.

    Args:
        input: probabilities in [0, 1].
        target: probabilities or 0/1, of the same shape.
        weight: factor of each element, broadcast to the shape of the input.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".

    Raises:
        ShapeError: the shapes of input and target differ, or the weight does not fit.
        DtypeError: the dtypes of input and target differ, or are not floating.
        OutOfRangeError: an element is NaN or outside [0, 1], on the CPU.  On a GPU, and in a replay of a captured step, its loss
            is NaN.
    """
    name = "binary_cross_entropy"
    reduction = reduction_of(name, size_average, reduce, reduction)
    x, y = wrap(input), wrap(target)
    if x.dtype != y.dtype or not is_floating(x.dtype):
        raise DtypeError(f"{name}: input has dtype {x.dtype}, target {y.dtype}; expected one floating dtype")
    if x.shape != y.shape:
        raise ShapeError(
            f"{name}: input has shape {tuple(x.shape)}, target {tuple(y.shape)}; expected equal shapes: reshape one, this loss "
            "does not broadcast"
        )
    _check_probabilities(name, "input", x)
    _check_probabilities(name, "target", y)
    if weight is None:
        return apply_loss(name, "cross_entropy_of_probabilities", x, y, reduction)
    weight = wrap(weight)
    if not broadcasts_to(weight.shape, x.shape):
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}; expected one that broadcasts to {tuple(x.shape)}")
    return weighted_loss(x, y, weight, name, "cross_entropy_of_probabilities", reduction)


def _check_probabilities(name: str, argument: str, x: Tensor) -> None:
    values = x.array
    if type(values) is numpy.ndarray and values.size:
        with numpy.errstate(invalid="ignore"):
            low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):
            raise OutOfRangeError(
                f"{name}: {argument} has an element {high if low >= 0.0 else low:g}; expected probabilities from 0 to 1: apply "
                "sigmoid(), or use binary_cross_entropy_with_logits"
            )


def kl_div(
    input: Any, target: Any, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:  # fmt: skip
    """The Kullback-Leibler divergence y (log y - x) of log-probabilities x and probabilities y, with 0 log 0 = 0, reduced.

    Args:
        input: logarithms of probabilities, of any shape.
        target: probabilities of the same shape, or one that broadcasts.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "batchmean" divides the sum by the number of rows, which is the divergence of distributions; "mean", which
            warns, by the number of elements; "sum" or "none".
        log_target: the target, too, holds logarithms of probabilities.

    Raises:
        DtypeError: input or target is not floating.
    """
    if reduction == "mean" and size_average is None and reduce is None:
        warn_user(
            "kl_div: reduction='mean' divides by the number of elements; reduction='batchmean' divides by that of rows, as the "
            "divergence is defined",
        )
    return divergence(input, target, reduction_of("kl_div", size_average, reduce, reduction, KL_REDUCTIONS), log_target)


@casts("float32")
def divergence(input: Any, target: Any, reduction: str, log_target: bool) -> Tensor:
    """:func:`kl_div` without a warning."""
    check_flag("kl_div", "log_target", log_target)
    x, y = wrap(input), wrap(target)
    if not (is_floating(x.dtype) and is_floating(y.dtype)):
        raise DtypeError(f"kl_div: input of dtype {x.dtype}, target of {y.dtype}; expected floating tensors")
    x, y = loss_operands("kl_div", x, y, dtype=result_dtype(x, y))
    loss = "kl_divergence_of_logs" if log_target else "kl_divergence"
    if reduction != "batchmean":
        return apply_loss("kl_div", loss, x, y, reduction)
    return _sum_per_row(x, y, loss, len(x) if x.ndim else 1)


@in_accumulator
def _sum_per_row(x, y, loss, rows):
    return apply_loss("kl_div", loss, x, y if y.dtype == x.dtype else cast(y, dtype=x.dtype), "sum") / rows


@casts("float32")
def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, size_average: bool | None = None, eps: float = 1e-8,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The negative log-likelihood of counts y under Poisson distributions, reduced, without log(y!).

    Args:
        input: logarithms x of the rates, whose loss is e^x - y x; or with ``log_input=False`` the rates, and
            x - y log(x + eps).
        target: counts, of the same shape or one that broadcasts.
        log_input: whether ``input`` holds logarithms.
        full: add Stirling's approximation of log(y!), y log y - y + log(2 pi y) / 2, where y > 1.
        size_average, reduce: deprecated; bools that select the reduction.
        eps: added to a rate, so that its logarithm is finite.
        reduction: "mean", "sum" or "none".

    Raises:
        DtypeError: the input is not floating.
    """
    name = "poisson_nll_loss"
    for key, flag in (("log_input", log_input), ("full", full)):
        check_flag(name, key, flag)
    reduction = reduction_of(name, size_average, reduce, reduction)
    eps = as_number(name, "eps", eps)
    x = wrap(input)
    if not is_floating(x.dtype):
        raise DtypeError(f"{name}: input of dtype {x.dtype}; expected a floating tensor")
    y = wrap(target)
    x, y = loss_operands(name, x, y, dtype=result_dtype(x, y))
    loss, delta = ("poisson_of_logs", 0.0) if log_input else ("poisson", eps)
    if not full:
        return apply_loss(name, loss, x, y, reduction, delta)
    return reduce_composed(apply_loss(name, loss, x, y, "none", delta) + _log_factorial(y), reduction)


@in_accumulator
def _log_factorial(y):
    """Stirling's approximation of log(y!), 0 where y <= 1."""
    is_small = y <= 1.0
    y = where(is_small, 1.0, y)
    return where(is_small, 0.0, y * log(y) - y + 0.5 * log(2.0 * math.pi * y))


@casts("cuda: float32")
def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """The negative log-likelihood (log v + (input - target)^2 / v) / 2 under normal distributions of variance v, reduced.

    Args:
        input: means.
        target: samples, of the same shape or one that broadcasts.
        var: variances, not negative: of the shape of the input, without its last dimension, or with one dimension of size 1; or
            one number.
        full: add the constant log(2 pi) / 2.
        eps: variances are at least this; the gradient passes the bound.
        reduction: "mean", "sum" or "none".

    Raises:
        ArgumentError: eps is not positive, or var is a negative number.
        OutOfRangeError: var holds a negative element, on the CPU.  On a GPU ``eps`` takes its place.
        ShapeError: the shapes do not fit.
    """
    name = "gaussian_nll_loss"
    check_flag(name, "full", full)
    reduction = reduction_of(name, None, None, reduction)
    eps = as_number(name, "eps", eps)
    if not eps > 0.0:
        raise ArgumentError(f"{name}: eps={eps:g}; expected a positive number")
    x, y = wrap(input), wrap(target)
    x, y = loss_operands(name, x, y, dtype=result_dtype(x, y))
    if isinstance(var, (int, float, numpy.number)):
        if var < 0:
            raise ArgumentError(f"{name}: var={var}; expected a variance, zero or more")
        with numpy.errstate(over="ignore"):  # the variance may be larger than the largest number of a half
            variance = wrap(numpy.asarray(float(var), x.dtype)).to(x)
    else:
        variance = _variances(name, wrap(var), x)
    return _gaussian(x, y, variance, eps=eps, constant=0.5 * math.log(2.0 * math.pi) if full else 0.0, reduction=reduction)


def _variances(name: str, variance: Tensor, x: Tensor) -> Tensor:
    """The variances in a shape that broadcasts to that of x."""
    values = variance.array
    if type(values) is numpy.ndarray and (values < 0).any():
        raise OutOfRangeError(f"{name}: var holds the element {float(values.min()):g}; expected variances, zero or more")
    if variance.shape == x.shape:
        return variance
    if variance.shape == x.shape[:-1]:
        return variance.unsqueeze(-1)
    differ = [n for n, m in zip(variance.shape, x.shape) if n != m]
    if variance.ndim != x.ndim or differ != [1]:
        raise ShapeError(
            f"{name}: var has shape {tuple(variance.shape)}, input {tuple(x.shape)}; expected the shape of the input, that "
            "without its last dimension, or one with a dimension of size 1"
        )
    return variance


@in_accumulator
def _gaussian(x, y, variance, *, eps, constant, reduction):
    variance, d = raise_to(variance, bound=eps), x - y
    return reduce_composed(0.5 * (log(variance) + d * d / variance) + constant, reduction)
