"""Batch norm (Ioffe and Szegedy 2015), two launches forward and two backward; instance norm with its running statistics.

For x (n, c, s), n images of c channels with s elements, each channel has

    mean, variance    over n and s, rstd = 1 / sqrt(variance + eps)
    y = act(w (x - mean) rstd + b)

Training takes the statistics of the batch, and moves running ones towards them in the same launch, evaluation takes the running
ones.  With h = (x - mean) rstd, backward of training computes

    dw = sum of (dy h), db = sum of dy, dx = w rstd (dy - db / (n s) - h dw / (n s))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import (
    COPY,
    Gradient,
    Tensor,
    bump_version,
    fused,
    ignore_fp_errors,
    is_grad_enabled,
    mode,
    no_grad,
    wrap,
)
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, ShapeError
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import as_0d_arrays, empty, scratch
from gpunet.launch.shims import Shim
from gpunet.ops import reduce as reductions
from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.ops.activations import absorb_activation, activation_forward, find
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.face import as_number, public
from gpunet.ops.normalization import (
    activation_gradient,
    as_images,
    channel_geometry,
    channel_workspace,
    check_eps,
    norm_backward_weight,
    norm_operands,
    normalized_rows,
    per_column,
    reciprocal_root,
    reshaped,
    rounded,
    sum_column_products,
    sum_columns,
)

__all__ = ["batch_norm", "instance_norm"]

RECIPROCAL_ROOT = Shim("rsqrt", lambda xp, out, x, *, eps: xp.divide(1.0, xp.sqrt(x + eps), out=out))


# ---- kernels ----------------------------------------------------------------------------------------------------------


@kernel(
    "batch_norm.cu", outputs=7, optional="running_mean running_var batches partials tickets",
    types={
        "mean": "A", "rstd": "A", "running_mean": "A", "running_var": "A", "batches": "int64", "partials": "A", "tickets": "uint32"
    },
    updates="running_mean running_var batches", workspace="partials", tickets="tickets",
)  # fmt: skip
def batch_norm_statistics(mean, rstd, running_mean, running_var, batches, partials, tickets, x, *, momentum, eps):
    """mean and rstd (c,) of the channels of x (n, c, s); running statistics = momentum of the batch's + (1 - momentum) of them.

    The running variance is unbiased.  ``batches`` (1,) counts the batches; a momentum of None means its reciprocal.  ``partials``
    and ``tickets`` are workspace of the CUDA kernel.
    """
    n, c, s = x.shape
    count, columns, centred = n * s, x.reshape(n, c * s), scratch((n, c * s), x.dtype, 1)
    sum_columns(mean, columns, 2)
    mean *= mean.dtype.type(1 / count)
    numpy.subtract(columns, per_column(mean, s, 2), out=centred)
    error = scratch((c,), mean.dtype, 3)  # of the mean, whose sum in one order has lost digits of many numbers
    sum_columns(error, centred, 2)
    error *= error.dtype.type(1 / count)
    mean += error
    sum_column_products(rstd, centred, centred, 2)
    error *= error
    error *= error.dtype.type(count)
    rstd -= error
    if batches is not None:
        batches += 1
    if running_mean is not None:
        share, rest = as_0d_arrays(mean.dtype, momentum or 0.0, 1.0 - (momentum or 0.0))
        if momentum is None:
            share, rest = scratch((1,), mean.dtype, 2), scratch((1,), mean.dtype, 3)
            numpy.divide(1.0, batches, out=share, casting="same_kind")
            numpy.subtract(1.0, share, out=rest)
        unbiased = scratch((c,), mean.dtype, 4)
        numpy.multiply(rstd, mean.dtype.type(1 / (count - 1)), out=unbiased)
        unbiased *= share
        running_var *= rest
        running_var += unbiased
        numpy.multiply(mean, share, out=unbiased)
        running_mean *= rest
        running_mean += unbiased
    rstd *= rstd.dtype.type(1 / count)
    reciprocal_root(rstd, eps)


def _factor(w: ndarray | None, spread: ndarray, eps: float, is_variance: bool) -> ndarray:
    """w rstd of each channel."""
    factor = scratch(spread.shape, spread.dtype, 1)
    numpy.copyto(factor, spread)
    if is_variance:
        reciprocal_root(factor, eps)
    if w is not None:
        factor *= w
    return factor


@kernel("batch_norm.cu", outputs=2, types={"mean": "A", "spread": "A"}, optional="z w b")
def batch_norm_apply(y, z, x, w, b, mean, spread, *, eps, is_variance, activation, alpha):
    """y = act(w (x - mean) rstd + b).  x (n, c, s); w, b, mean and spread (c,) -> y (n, c, s).

    ``spread`` is a variance if ``is_variance``, else rstd.  z, the pre-activation, of the shape of y, or None.
    """
    n, c, s = x.shape
    out, factor = y.reshape(n, c * s), _factor(w, spread, eps, is_variance)
    shift = scratch(mean.shape, mean.dtype, 2)
    numpy.multiply(mean, factor, out=shift)
    if b is None:
        numpy.negative(shift, out=shift)
    else:
        numpy.subtract(b, shift, out=shift)
    numpy.multiply(x.reshape(n, c * s), per_column(factor, s, 3), out=out)
    out += per_column(shift, s, 3)
    if z is not None:
        numpy.copyto(z, y)
    ACTIVATIONS[activation].forward(y, y, alpha)


@kernel("batch_norm.cu", outputs=1, types={"mean": "A", "spread": "A", "sums": "A"}, optional="x w mean sums")
def batch_norm_backward_input(dx, dy, x, w, mean, spread, sums, *, eps, is_variance):
    """The gradient of :func:`batch_norm_apply`, without activation, with respect to x.

    With ``is_variance`` the statistics are constants, else those of x: then sums (2, c) are of dy and of dy (x - mean) rstd.
    """
    n, c, s = dy.shape
    factor, out = _factor(w, spread, eps, is_variance), dx.reshape(n, c * s)
    numpy.multiply(dy.reshape(n, c * s), per_column(factor, s, 2), out=out)
    if not is_variance:
        # dx = factor dy - slope x - shift
        slope, shift, product = scratch((c,), spread.dtype, 3), scratch((c,), spread.dtype, 4), scratch((n, c * s), dx.dtype, 5)
        share = factor.dtype.type(1 / (n * s))
        numpy.multiply(spread, sums[1], out=slope)
        slope *= factor
        slope *= share
        numpy.multiply(sums[0], factor, out=shift)
        shift *= share
        numpy.multiply(mean, slope, out=factor)
        shift -= factor
        numpy.multiply(x.reshape(n, c * s), per_column(slope, s, 2), out=product)
        out -= product
        out -= per_column(shift, s, 2)


@batch_norm_statistics.geometry
def _(mean, rstd, running_mean, running_var, batches, partials, tickets, x, *, momentum, eps):
    return channel_geometry(x, None, float(momentum or 0.0), numpy.bool_(momentum is None), float(eps))


def _elementwise_geometry(x: Array, *scalars: float, template: tuple[str, ...]) -> Geometry:
    return Geometry(elementwise_grid(x.size), 256, (*x.shape, *scalars), template)


@batch_norm_apply.geometry
def _(y, z, x, w, b, mean, spread, *, eps, is_variance, activation, alpha):
    template = (ACTIVATIONS[activation].struct, "true" if is_variance else "false")
    return _elementwise_geometry(x, float(eps), float(alpha), template=template)


@batch_norm_backward_input.geometry
def _(dx, dy, x, w, mean, spread, sums, *, eps, is_variance):
    return _elementwise_geometry(dy, float(eps), template=("true" if is_variance else "false",))


batch_norm_apply.absorbs(activation_forward)(absorb_activation)


# ---- running statistics -----------------------------------------------------------------------------------------------


@contextmanager
def _wide(*tensors: Tensor) -> Iterator[list[Array]]:
    """Arrays in the accumulator's dtype that are changed in place inside the block: those of the tensors, or copies of halves."""
    arrays = [t.array if t.array.flags.c_contiguous else None for t in tensors]
    wide = [
        a if a is not None and a.dtype == accumulator(a.dtype) else cast(t.detach(), dtype=accumulator(t.dtype)).array
        for a, t in zip(arrays, tensors)
    ]
    yield wide
    for tensor, array in zip(tensors, wide):
        if array is not tensor.array:
            COPY(tensor.array, array)
    bump_version(*tensors)


# ---- the ops ----------------------------------------------------------------------------------------------------------


def _apply_composed(x, w, b, mean, variance, eps, activation, alpha):
    channels = (-1, *(1,) * (x.ndim - 2))
    y = (x - mean.reshape(*channels)) / (variance.reshape(*channels) + eps).sqrt()
    if w is not None:
        y = y * w.reshape(*channels)
    return find(activation).composed(y if b is None else y + b.reshape(*channels), alpha)


@in_accumulator
def _batch_composed(x, w, b, *, running, momentum, eps, activation, alpha):
    axes = (0, *range(2, x.ndim))
    mean = reductions.mean(x, axes, True)
    variance = reductions.mean((x - mean) * (x - mean), axes, True)
    return _apply_composed(x, w, b, mean, variance, eps, activation, alpha)


def _outputs(x: Array, activation: str) -> tuple[Any, Any]:
    """Allocate y, and z if backward needs it."""
    needs_z = find(activation).saves == "preactivation"
    return empty(x.shape, x.dtype, x), empty(x.shape, x.dtype, x) if needs_z else None


@fused(name="batch_norm", composed=_batch_composed, takes_scale=True)
def batch_normalized(x, w, b, *, running, momentum, eps, activation, alpha, need):
    """Batch norm of x (n, c, ...) by its own statistics; w and b (c,), or None.

    Args:
        running: arrays of the running mean and variance, and of the number of batches; each may be None.
    """
    dtype = accumulator(x.dtype)
    mean, rstd = empty(x.shape[1:2], dtype, x), empty(x.shape[1:2], dtype, x)
    y, z = _outputs(x, activation)
    out, before, images = reshaped(as_images(x.shape), (y, z, x), ())
    batch_norm_statistics(mean, rstd, *running, *channel_workspace(images, 3), images, momentum=momentum, eps=eps)
    options = {"is_variance": False, "activation": activation, "alpha": alpha}
    batch_norm_apply(out, before, images, w, b, mean, rstd, eps=eps, **options)
    return y, (x, w if need[0] else None, mean, rstd, y if find(activation).saves == "output" else z)


@batch_normalized.backward
def _(saved, dy, *, running, momentum, eps, activation, alpha, need):
    x, w, mean, rstd, residual = saved
    dz, channels = activation_gradient(dy, residual, activation, alpha), x.shape[1:2]
    dw = empty(channels, x.dtype, x) if need[1] else None
    db = empty(channels, x.dtype, x) if need[2] else None
    sums = empty((2, *channels), accumulator(x.dtype), x) if need[0] else None
    images, gradient = reshaped(as_images(x.shape), (x, dz), ())
    norm_backward_weight(dw, db, sums, *channel_workspace(images, 2), gradient, images, mean, rstd, dy.scale, groups=0)
    if not need[0]:
        return None, dw, db
    dx = empty(x.shape, x.dtype, x)
    (of_x,) = reshaped(images.shape, (dx,), ())
    batch_norm_backward_input(of_x, gradient, images, w, mean, rstd, sums, eps=eps, is_variance=False)
    return dx if dy.scale is None else Gradient(dx, dy.scale), dw, db


@in_accumulator
def _fixed_composed(x, w, b, mean, variance, *, eps, activation, alpha):
    return _apply_composed(x, w, b, mean, variance, eps, activation, alpha)


@fused(name="batch_norm", composed=_fixed_composed, takes_scale=True)
def normalized_by(x, w, b, mean, variance, *, eps, activation, alpha, need):
    """x (n, c, ...), normalized by a mean and a variance (c,) of the accumulator's dtype, which get no gradient."""
    y, z = _outputs(x, activation)
    out, before, images = reshaped(as_images(x.shape), (y, z, x), ())
    options = {"is_variance": True, "activation": activation, "alpha": alpha}
    batch_norm_apply(out, before, images, w, b, mean, variance, eps=eps, **options)
    return y, (x if need[1] else None, w if need[0] else None, mean, variance, y if find(activation).saves == "output" else z)


@normalized_by.backward
def _(saved, dy, *, eps, activation, alpha, need):
    x, w, mean, variance, residual = saved
    dz = activation_gradient(dy, residual, activation, alpha)
    dw = empty(dz.shape[1:2], dz.dtype, dz) if need[1] else None
    db = empty(dz.shape[1:2], dz.dtype, dz) if need[2] else None
    gradient, images = reshaped(as_images(dz.shape), (dz, dz if x is None else x), ())
    if dw is not None or db is not None:
        rstd = empty(variance.shape, variance.dtype, dz)
        RECIPROCAL_ROOT(rstd, variance, eps=eps)
        norm_backward_weight(dw, db, None, *channel_workspace(images, 2), gradient, images, mean, rstd, dy.scale, groups=0)
    dx: Any = None
    if need[0]:
        dx = empty(dz.shape, dz.dtype, dz)
        (of_x,) = reshaped(gradient.shape, (dx,), ())
        batch_norm_backward_input(of_x, gradient, None, w, None, variance, None, eps=eps, is_variance=True)
    return dx if dx is None or dy.scale is None else Gradient(dx, dy.scale), dw, db, None, None


# ---- public functions -------------------------------------------------------------------------------------------------


def _check_running(function: str, x: Tensor, running: dict[str, Any]) -> dict[str, Tensor]:
    """Running statistics as tensors, by name; arrays keep their memory.

    Raises:
        DeviceError: one is on another device than the input.
        GradientError: one requires grad, and a graph is recorded.
        ShapeError: one has not a number for each channel.
        DtypeError: one has neither the dtype of the input nor its accumulator's.
    """
    found = {}
    for name, value in running.items():
        if not isinstance(value, Tensor) and not devices.is_array(value):
            raise DtypeError(f"{function}: {name} has type {type(value).__name__}; expected a tensor, which training changes")
        tensor, expected = wrap(value), (x.array.dtype, accumulator(x.array.dtype))
        if tensor.device != x.device:
            raise DeviceError(f"{function}: {name} is on {tensor.device}, the input on {x.device}; move it with .to(x.device)")
        if tensor.requires_grad and is_grad_enabled():
            raise GradientError(f"{function}: {name} requires grad, but has no gradient; pass {name}.detach()")
        if tensor.array.shape != x.array.shape[1:2]:
            raise ShapeError(
                f"{function}: {name} has shape {tuple(tensor.shape)}; expected {x.array.shape[1:2]} for an input of shape "
                f"{tuple(x.shape)}"
            )
        if tensor.array.dtype not in expected:
            raise DtypeError(f"{function}: {name} has dtype {tensor.dtype}; expected {expected[0]}, the dtype of the input")
        found[name] = tensor
    return found


@ignore_fp_errors
def normalize_batch(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: bool, momentum: float | None, eps: float,
    batches: Tensor | None = None, activation: str = "identity", alpha: float = 0.0,
) -> Tensor:  # fmt: skip
    """Batch norm, and the activation behind it, in one op; the first arguments are those of :func:`batch_norm`.

    Args:
        momentum: None for averages of all batches, which needs ``batches``.
        batches: their number, a tensor of one int64, which training increments.
    """
    shape = tuple(wrap(input).array.shape)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: the input has shape {shape}; expected (batch, channels, ...)")
    x, w, b = norm_operands("batch_norm", input, shape[1:2], weight=weight, bias=bias)
    if (running_mean is None) != (running_var is None):
        given, missing = ("running_var", "running_mean") if running_mean is None else ("running_mean", "running_var")
        raise ArgumentError(f"batch_norm: got {given}, but {missing} is None; expected both, or None for both")
    named = {} if running_mean is None else {"running_mean": running_mean, "running_var": running_var}
    running = _check_running("batch_norm", x, named)
    options: dict[str, Any] = {"eps": eps, "activation": activation, "alpha": alpha}
    if not training:
        if not running:
            raise ArgumentError("batch_norm: training=False without running_mean and running_var; pass both, or training=True")
        return rounded(_evaluated(x, w, b, *running.values(), **options), input)
    if not eps:
        raise ArgumentError("batch_norm: eps=0; expected a positive number in training, where a variance may be 0")
    if x.array.size == shape[1]:
        raise ShapeError(
            f"batch_norm: the input {shape} has one value for each channel; expected more in training, since the variance of one "
            "is 0: pass a larger batch, or use eval()"
        )
    if not x.array.size:  # has no statistics
        if batches is not None and not mode.current.recomputes:
            batches.add_(1)
        return rounded(_batch_composed(x, w, b, running=None, momentum=None, **options), input)
    if not running or mode.current.recomputes:
        y = batch_normalized(x, w, b, running=(None, None, None), momentum=momentum, **options)
        if batches is not None and not mode.current.recomputes:
            batches.add_(1)
    else:
        counter = None if batches is None else batches.array.reshape(1)
        with _wide(*running.values()) as arrays:
            y = batch_normalized(x, w, b, running=(*arrays, counter), momentum=momentum, **options)
        if batches is not None:
            bump_version(batches)
    return rounded(y, input)


def _evaluated(x: Tensor, w: Any, b: Any, mean: Tensor, variance: Tensor, **options: Any) -> Tensor:
    """The norm by running statistics; by copies if backward needs them, because training may move them meanwhile."""
    dtype = accumulator(x.array.dtype)
    is_copied = is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, w, b))
    fixed = [
        cast(t.detach(), dtype=dtype) if is_copied or t.array.dtype != dtype else t.detach() for t in (mean, variance)
    ]
    return normalized_by(x, w, b, *fixed, **options)


@public(out=False)
def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """w (x - mean) / sqrt(variance + eps) + b of each channel (Ioffe and Szegedy 2015).

    Args:
        input: (n, channels, ...), floating.
        running_mean, running_var: (channels,), the statistics for evaluation; training moves them, in place, by ``momentum``
            towards the mean and the unbiased variance of the batch.  None in training keeps none.
        weight, bias: (channels,), or None.
        training: whether mean and (biased) variance are those of the batch, over n and the dimensions behind the channels.
        momentum: the share of the batch in the running statistics.
        eps: added to the variance.

    Returns:
        A tensor of the shape and dtype of the input.

    Raises:
        ShapeError: a parameter or statistic has not one number for each channel, or training has one value for each channel.
        DtypeError: the input is not floating, or the dtypes differ.
        ArgumentError: eps is negative, or 0 in training, or evaluation has no running statistics.
    """
    momentum, eps = as_number("batch_norm", "momentum", momentum), check_eps("batch_norm", eps)
    return normalize_batch(input, running_mean, running_var, weight, bias, training, momentum, eps)


def normalize_instances(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, use_input_stats: bool, momentum: float, eps: float,
    activation: str = "identity", alpha: float = 0.0,
) -> Tensor:  # fmt: skip
    """Instance norm, and the activation behind it, in one op; the other arguments are those of :func:`instance_norm`."""
    shape = tuple(wrap(input).array.shape)
    if len(shape) < 3:
        raise ShapeError(f"instance_norm: the input has shape {shape}; expected (batch, channels, ...), 3 dimensions or more")
    x, w, b = norm_operands("instance_norm", input, shape[1:2], weight=weight, bias=bias)
    named = {"running_mean": running_mean, "running_var": running_var}
    running = _check_running("instance_norm", x, {name: value for name, value in named.items() if value is not None})
    if len(running) == 1:
        raise ArgumentError(f"instance_norm: {next(iter(running))} alone; expected both running_mean and running_var, or none")
    options: dict[str, Any] = {"eps": eps, "activation": activation, "alpha": alpha}
    if not use_input_stats:
        if not running:
            raise ArgumentError(
                "instance_norm: use_input_stats=False without running_mean and running_var; pass both, or use_input_stats=True"
            )
        return rounded(_evaluated(x, w, b, *running.values(), **options), input)
    if math.prod(shape[2:]) == 1:
        raise ShapeError(
            f"instance_norm: the input {shape} has one value for each channel of an image; expected more, since the variance of "
            "one is 0"
        )
    layout: dict[str, Any] = {"shape": as_images(shape), "sizes": shape[1:2], "groups": shape[1]}
    y = normalized_rows(x, w, b, is_centred=True, function="instance_norm", **layout, **options)
    if running and not mode.current.recomputes and x.array.size:
        _move_averages(x.detach().reshape(*as_images(shape)), running["running_mean"], running["running_var"], momentum)
    return rounded(y, input)


@ignore_fp_errors
def _move_averages(x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
    """Move running statistics towards the averages over images of their means and unbiased variances."""
    with no_grad():
        if x.dtype != accumulator(x.dtype):
            x = cast(x, dtype=accumulator(x.dtype))
        variances, means = reductions.var_mean(x, 2)
        for running, of_images in ((running_mean, means), (running_var, variances)):
            running.copy_(reductions.mean(of_images, 0) * momentum + running * (1.0 - momentum))


@public(out=False)
def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """w (x - mean) / sqrt(variance + eps) + b of each channel of each image (Ulyanov, Vedaldi and Lempitsky 2016).

    Args:
        input: (n, channels, ...), floating.
        running_mean, running_var: (channels,), averages over images, which move as those of :func:`batch_norm`; None for none.
        weight, bias: (channels,), or None.
        use_input_stats: whether mean and (biased) variance are those of each image, or the running ones.
        momentum, eps: as of :func:`batch_norm`.

    Raises:
        ShapeError: a parameter or statistic has not one number for each channel, or an image has one value for each channel.
        DtypeError: the input is not floating, or the dtypes differ.
        ArgumentError: eps is negative, there are no running statistics to use, or only one of them.
    """
    momentum, eps = as_number("instance_norm", "momentum", momentum), check_eps("instance_norm", eps)
    return normalize_instances(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
