"""Random counts, of the Poisson and the binomial distribution: drawn on the CPU, the same numbers for all devices."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, ignore_fp_errors, is_grad_enabled, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.ops.broadcast import broadcast_shape
from gpunet.ops.compare import compare
from gpunet.ops.elementwise import where
from gpunet.ops.face import public
from gpunet.ops.incomplete_gamma import draw_on_host
from gpunet.ops.random import generator_of
from gpunet.ops.reduce import converted

__all__ = ["binomial", "poisson"]

#: Above it NumPy draws no counts, which are int64.
_MAX_COUNT = 9.2e18


@public(out=False)
@ignore_fp_errors
def poisson(input: Any, generator: Any = None) -> Tensor:
    """Samples of Poisson distributions whose means are the elements of ``input``, of its dtype; their gradient is 0.

    Raises:
        ArgumentError: a mean is negative, or more than 9.2e18.
        DtypeError: the tensor is not floating.
    """
    _check_floating("poisson", input=input)
    means = devices.to_host(input.detach().array).astype(numpy.float64)
    fits = (means >= 0.0) & (means <= _MAX_COUNT)
    if not fits.all():
        raise ArgumentError(f"poisson: input has the element {means[~fits][0]}; expected numbers from 0 to {_MAX_COUNT}")
    drawn = draw_on_host(lambda random, mean: random.poisson(mean), input.detach(), generator=generator_of("poisson", generator))
    return _with_zero_gradient(drawn, input)


@ignore_fp_errors
def binomial(count: Any, prob: Any, generator: Any = None) -> Tensor:
    """How many of ``count`` trials succeed with the probability ``prob``, which broadcast; of the dtype of ``count``.

    Args:
        count: floating numbers of trials; fractions are cut.
        prob: probabilities.

    Raises:
        ArgumentError: a number of trials is not from 0 to 9.2e18, or a probability not from 0 to 1.
        DtypeError: the tensors are not of one floating dtype.
    """
    trials, probability = wrap(count, "binomial"), wrap(prob, "binomial")
    _check_floating("binomial", count=trials, prob=probability)
    if trials.dtype != probability.dtype:
        raise DtypeError(f"binomial: count of {trials.dtype}, prob of {probability.dtype}; expected one dtype")
    shape = broadcast_shape("binomial", trials.array.shape, probability.array.shape)
    for name, x, most in (("count", trials, _MAX_COUNT), ("prob", probability, 1.0)):
        values = devices.to_host(x.detach().array)
        if not ((values >= 0) & (values <= most)).all():
            raise ArgumentError(f"binomial: {name} has an element that is not from 0 to {most}")
    drawn = draw_on_host(
        lambda random, n, p: random.binomial(n.astype(numpy.int64), p), trials.detach().expand(shape),
        probability.detach().expand(shape), generator=generator_of("binomial", generator),
    )  # fmt: skip
    return _with_zero_gradient(drawn, trials, probability)


def _check_floating(function: str, **tensors: Tensor) -> None:
    for name, x in tensors.items():
        if not is_floating(x.dtype):
            raise DtypeError(f"{function}: {name} has dtype {x.dtype}; expected a floating dtype: convert it with .float()")


def _with_zero_gradient(drawn: Tensor, *parameters: Tensor) -> Tensor:
    """The samples, with a graph in which the parameters receive 0."""
    for parameter in parameters:
        if parameter.requires_grad and is_grad_enabled():
            drawn = where(compare("equal", drawn, drawn), drawn, converted(parameter, drawn.dtype))
    return drawn
