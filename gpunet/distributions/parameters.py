"""Parameters of distributions: numbers and tensors of one dtype, device and shape; probabilities and their logits."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, wrap
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.ops.activations import sigmoid
from gpunet.ops.broadcast import broadcast_shape
from gpunet.ops.creation import tensor
from gpunet.ops.elementwise import where
from gpunet.ops.norm import logsumexp
from gpunet.ops.random import rand, randn
from gpunet.ops.softmax import softmax


def as_parameters(name: str, **values: Any) -> list[Tensor]:
    """Return numbers and tensors as floating tensors of one shape, on the device of the tensors.

    Args:
        name: of the distribution, for messages.
        values: the parameters by name.

    Raises:
        DtypeError: a value is neither a number nor a tensor, or is complex.
        ShapeError: the shapes cannot be broadcast together.
    """
    tensors: dict[str, Any] = {}
    for key, value in values.items():
        if devices.is_array(value):
            value = wrap(value, name)
        if not isinstance(value, (Tensor, bool, int, float, numpy.number)):
            raise DtypeError(f"{name}: {key}={value!r} has type {type(value).__name__}; expected a number or a tensor")
        refuse_complex(name, [value])
        tensors[key] = value
    first = next((t for t in tensors.values() if isinstance(t, Tensor) and is_floating(t.dtype)), None)
    dtype = get_default_dtype() if first is None else first.dtype
    placed = next((t for t in tensors.values() if isinstance(t, Tensor)), None)
    device = None if placed is None else placed.device
    found = [
        (t if is_floating(t.dtype) else t.to(dtype)) if isinstance(t, Tensor) else tensor(float(t), dtype=dtype, device=device)
        for t in tensors.values()
    ]
    shape = broadcast_shape(name, *(t.array.shape for t in found))
    return [t if t.array.shape == shape else t.expand(shape) for t in found]


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Check that exactly one of probs and logits is given."""
    if (probs is None) == (logits is None):
        given = "neither" if probs is None else "both"
        raise ArgumentError(f"{name}: {given} of probs and logits; expected one of them")


def epsilon(x: Tensor) -> float:
    """The distance from 1 to the next number of the dtype."""
    return float(numpy.finfo(x.dtype).eps)


def tiny(x: Tensor) -> float:
    """The smallest normal number of the dtype."""
    return float(numpy.finfo(x.dtype).tiny)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities away from 0 and 1, by the distance from 1 to the next number, as in PyTorch."""
    return probs.clamp(epsilon(probs), 1.0 - epsilon(probs))


def probs_to_logits(probs: Tensor, is_binary: bool) -> Tensor:
    """log(p), or log(p / (1 - p)) if ``is_binary``."""
    inside = clamp_probs(probs)
    return inside.log() - (-inside).log1p() if is_binary else inside.log()


def logits_to_probs(logits: Tensor, is_binary: bool) -> Tensor:
    return sigmoid(logits) if is_binary else softmax(logits, -1)


def normalized_logits(logits: Tensor) -> Tensor:
    """Logits minus the logarithm of the sum of their exponentials along the last dimension."""
    return logits - logsumexp(logits, -1, True)


def xlogy(x: Tensor, y: Tensor) -> Tensor:
    """x log(y), 0 where x is 0 and log(y) is not finite."""
    is_zero = (x == 0) & ((y <= 0) | (y == math.inf))
    return where(is_zero, 0.0, x * where(is_zero, 1.0, y).log())


def sum_rightmost(x: Tensor, count: int) -> Tensor:
    """The sum over the last ``count`` dimensions."""
    return x.sum(tuple(range(-count, 0))) if count else x


def standard_normal(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of the dtype and on the device of a parameter."""
    return randn(size=shape, dtype=like.dtype, device=like.device)


def uniform(like: Tensor, shape: tuple[int, ...], is_open: bool = False) -> Tensor:
    """Uniform numbers in [0, 1) of the dtype and on the device of a parameter; ``is_open``: without 0."""
    numbers = rand(size=shape, dtype=like.dtype, device=like.device)
    return numbers.clamp(min=tiny(like)) if is_open else numbers
