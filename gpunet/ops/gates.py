"""Activations with parameters that are tensors, drawn or halves of the input: composed of primitives."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend.dtypes import accumulator, is_floating, significand_bits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.random import Generator, default_generator, random_uniform
from gpunet.launch.tape import warn_user
from gpunet.ops.activations import leaky_relu, sigmoid
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.compare import eq
from gpunet.ops.creation import arange
from gpunet.ops.dims import normalize_dim, normalize_slice_dim
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, check_flag, public
from gpunet.ops.in_place import in_place
from gpunet.ops.join import split
from gpunet.ops.order import argmax
from gpunet.ops.random import generator_of
from gpunet.ops.softmax import softmax

__all__ = ["glu", "gumbel_softmax", "prelu", "rrelu", "rrelu_"]


@public("prelu", autocast="half")
def prelu(input: Any, weight: Any) -> Tensor:
    """x where x > 0, weight x elsewhere (He et al. 2015).

    Args:
        input: (n, c, ...), or 1-d and 0-d tensors, which have one channel.
        weight: () or (1,), or (c,) with a slope per channel.

    Raises:
        ShapeError: the weight has another shape.
        DtypeError: the dtypes differ, or are not floating.
    """
    weight = wrap(weight)
    if not is_floating(input.dtype) or weight.dtype != input.dtype:
        raise DtypeError(f"prelu: input has dtype {input.dtype}, weight {weight.dtype}; expected one floating dtype")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.array.size not in (1, channels):
        raise ShapeError(f"prelu: weight has shape {tuple(weight.shape)}; expected (1,) or ({channels},), a slope per channel")
    if weight.array.size > 1:
        weight = weight.reshape((-1, *(1,) * (input.ndim - 2)))
    return _prelu(input, weight.reshape(()) if weight.array.size == 1 else weight)


@in_accumulator
def _prelu(x, weight):
    return where(x > 0.0, 1.0, weight) * x  # no gradient multiplies an infinite weight by 0


def randomized(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, generator: Generator | None = None
) -> Tensor:
    """x where x > 0, r x elsewhere, with the r of :func:`rrelu`."""
    low, high = as_number("rrelu", "lower", lower), as_number("rrelu", "upper", upper)
    check_flag("rrelu", "training", training)
    chosen = generator_of("rrelu", generator)
    if not -math.inf < low <= high < math.inf:
        raise ArgumentError(f"rrelu: lower={low:g}, upper={high:g}; expected finite numbers, lower <= upper")
    if not is_floating(input.dtype):
        raise DtypeError(f"rrelu: a tensor of dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    if not training:
        return leaky_relu(input, (low + high) / 2)
    return cast(_prelu(input, _uniform(input, low, high, chosen)), dtype=input.dtype)


def _uniform(x: Tensor, low: float, high: float, generator: Generator = default_generator) -> Tensor:
    """Uniform random numbers of the shape of x, in the accumulator of its dtype."""
    dtype = accumulator(x.dtype)
    drawn = empty(x.array.shape, dtype, x.array)
    generator.fill(random_uniform, drawn, low=low, high=high, bits=significand_bits(dtype))
    return make_tensor(drawn)


randomized.__qualname__ = "rrelu_"  # Python's in messages
rrelu_ = in_place(randomized, "rrelu_")


@public(out=False)
def rrelu(
    input: Any, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, r x elsewhere, r uniform from lower to upper for each element if ``training``, else their mean.

    Raises:
        ArgumentError: lower is larger than upper, or one of them is not finite.
        DtypeError: an integer tensor.
    """
    return (rrelu_ if inplace else randomized)(input, lower, upper, training)


@public()
def glu(input: Any, dim: int = -1) -> Tensor:
    """a sigmoid(b) with the halves a and b of the input along ``dim`` (Dauphin et al. 2017).

    Raises:
        ShapeError: the size of ``dim`` is odd.
        DtypeError: an integer tensor.
    """
    if not is_floating(input.dtype):
        raise DtypeError(f"glu: a tensor of dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    axis = normalize_slice_dim(dim, input, "glu")
    if input.shape[axis] % 2:
        raise ShapeError(f"glu: dimension {axis} has size {input.shape[axis]}; expected an even number")
    return _glu(input, axis)


@in_accumulator
def _glu(x, axis):
    a, b = split(x, x.shape[axis] // 2, axis) if x.shape[axis] else (x, x)
    return a * sigmoid(b)


@public(out=False, names={"input": "logits"}, autocast="cuda: float32")
def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Softmax of (logits + Gumbel noise) / tau: a differentiable sample of a category (Jang et al. 2017).

    Args:
        logits: unnormalized logarithms of probabilities.
        tau: the temperature, positive.
        hard: return one-hot samples, whose gradient is that of the soft ones.
        eps: deprecated, has no effect.
        dim: the categories.

    Raises:
        ArgumentError: tau is not positive.
        DtypeError: an integer tensor.
    """
    if eps != 1e-10:
        warn_user("gumbel_softmax: eps is deprecated and has no effect")
    logits, tau = wrap(logits), as_number("gumbel_softmax", "tau", tau)
    if not tau > 0.0:
        raise ArgumentError(f"gumbel_softmax: tau={tau:g}; expected a positive number")
    if not is_floating(logits.dtype):
        raise DtypeError(f"gumbel_softmax: logits of dtype {logits.dtype}; expected a floating dtype")
    axis = normalize_dim(dim, logits.ndim, "gumbel_softmax")
    soft = _soft_sample(logits, tau, axis)
    if not hard or not logits.ndim:
        return soft
    numbers = arange(logits.shape[axis], device=logits.device).reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    one_hot = cast(eq(argmax(soft.detach(), axis, True), numbers), dtype=soft.dtype)
    return one_hot - soft.detach() + soft


@in_accumulator
def _soft_sample(logits, tau, axis):
    smallest = math.ldexp(1.0, -significand_bits(accumulator(logits.dtype)) - 1)  # below all numbers drawn but 0
    noise = -(-(_uniform(logits, 0.0, 1.0).clamp(smallest)).log()).log()
    return softmax((logits + noise) / tau, axis)
