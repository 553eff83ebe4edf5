"""Methods that fill a tensor with random numbers: normal_, uniform_, exponential_, ..."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

from gpunet.autograd import Tensor
from gpunet.backend import dtypes
from gpunet.errors import ArgumentError, OutOfRangeError
from gpunet.launch.random import Generator, random_integers
from gpunet.ops.creation import allocate, number_of
from gpunet.ops.face import as_integer, public
from gpunet.ops.fill import assign
from gpunet.ops.in_place import check_in_place
from gpunet.ops.random import bernoulli, exponential_samples, generator_of, nonnegative, normal_samples, uniform_samples

F = TypeVar("F", bound=Callable[..., Any])


def _fills(function: F) -> F:
    """Decorator of a method that overwrites a tensor with samples, which the function returns."""
    name = function.__name__

    @functools.wraps(function)
    def call(input: Tensor, *args: Any, **options: Any) -> Tensor:
        check_in_place(input, (), name)
        return assign(input, function(input, *args, **options), name)

    return call  # type: ignore[return-value]


def _like(input: Tensor, function: str, draw: Callable[..., Tensor], generator: Any, *options: float) -> Any:
    """Samples with the shape, dtype and device of ``input``."""
    return draw(function, input.array.shape, input.dtype, input.device, generator, *options)


@public("normal_", out=False, takes_complex=True)
@_fills
def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with samples of the normal distribution.

    Raises:
        ArgumentError: std is negative.
        DtypeError: the tensor is not floating.
    """
    mean, std = float(number_of("normal_", "mean", mean)), nonnegative("normal_", "std", std)
    return _like(input, "normal_", normal_samples, generator, mean, std)


@public("uniform_", out=False, names={"from": "low", "to": "high"}, takes_complex=True)
@_fills
def uniform_(input: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with samples of the uniform distribution on [low, high); PyTorch's names are ``from`` and ``to``.

    Raises:
        ArgumentError: low > high, or a bound is not finite.
        DtypeError: the tensor is not floating.
    """
    low, high = (float(number_of("uniform_", name, value)) for name, value in (("from", low), ("to", high)))
    if not low <= high or not math.isfinite(high - low):
        raise ArgumentError(f"uniform_: from={low}, to={high}; expected finite numbers, from <= to")
    return _like(input, "uniform_", uniform_samples, generator, low, high)


@public("exponential_", out=False)
@_fills
def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with samples of the exponential distribution with rate ``lambd``: lambd exp(-lambd x).

    Raises:
        ArgumentError: lambd is not positive.
        DtypeError: the tensor is not floating.
    """
    rate = float(number_of("exponential_", "lambd", lambd))
    if not rate > 0.0:
        raise ArgumentError(f"exponential_: lambd={rate}; expected more than 0")
    return _like(input, "exponential_", exponential_samples, generator, rate)


@public("log_normal_", out=False)
@_fills
def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with exp(z), z of the normal distribution with this mean and standard deviation.

    Raises:
        ArgumentError: std is not positive.
        DtypeError: the tensor is not floating.
    """
    mean, std = float(number_of("log_normal_", "mean", mean)), float(number_of("log_normal_", "std", std))
    if not std > 0.0:
        raise ArgumentError(f"log_normal_: std={std}; expected more than 0")
    return _like(input, "log_normal_", normal_samples, generator, mean, std).exp()


@public("cauchy_", out=False)
@_fills
def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with samples of the Cauchy distribution: median + sigma tan(pi (u - 1/2)).

    Raises:
        ArgumentError: sigma is not positive.
        DtypeError: the tensor is not floating.
    """
    median, sigma = float(number_of("cauchy_", "median", median)), float(number_of("cauchy_", "sigma", sigma))
    if not sigma > 0.0:
        raise ArgumentError(f"cauchy_: sigma={sigma}; expected more than 0")
    half = math.pi / 2
    drawn = _like(input, "cauchy_", uniform_samples, generator, -half, half)
    return drawn.tan() * sigma + median


@public("geometric_", out=False)
@_fills
def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with the number of trials until the first success, 1 or more; ``p`` is the probability of one.

    The ceiling of an exponentially distributed number is distributed geometrically.

    Raises:
        ArgumentError: p is not between 0 and 1.
    """
    p = float(number_of("geometric_", "p", p))
    if not 0.0 < p < 1.0:
        raise ArgumentError(f"geometric_: p={p}; expected a probability between 0 and 1")
    drawn: Any = exponential_samples("geometric_", input.array.shape, dtypes.float64, input.device, generator, -math.log1p(-p))
    return drawn.ceil().clamp(min=1.0)


@public("random_", out=False, names={"from": "low", "to": "high"})
@_fills
def random_(input: Tensor, low: int | None = None, high: Any = ..., *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with uniform random integers: ``random_()``, ``random_(to)`` or ``random_(from, to)``, ``to`` excluded.

    Without bounds, and with ``to=None``, up to the largest number of an integer dtype, or up to 2^n, n the bits of a floating
    dtype's significand.

    Raises:
        ArgumentError: the range is empty.
        OutOfRangeError: the dtype cannot hold it.
    """
    dtype = input.dtype
    if high is ...:  # one bound, or none
        low, high = 0, low
    smallest, largest = _integer_limits(dtype)
    start = as_integer("random_", "from", 0 if low is None else low)
    stop = largest + 1 if high is None else as_integer("random_", "to", high)
    if not start < stop:
        raise ArgumentError(f"random_: from={start}, to={stop}; expected from < to")
    if stop - start == 2**64:
        raise ArgumentError(f"random_: from={start} without to; expected fewer than 2^64 integers: pass to={largest}")
    for bound in (start, stop - 1):
        if not smallest <= bound <= largest:
            raise OutOfRangeError(f"random_: {bound} does not fit into {dtype}; expected {smallest} .. {largest}")
    drawn = allocate(input.array.shape, dtypes.int64, input.device)
    generator_of("random_", generator).fill(random_integers, drawn.array, low=start, high=stop)
    return drawn


def _integer_limits(dtype: Any) -> tuple[int, int]:
    """The integers that random_ draws, all of which the dtype holds."""
    if dtypes.is_floating(dtype):
        count = 2 ** dtypes.significand_bits(dtype)
        return -count, count
    if dtypes.is_boolean(dtype):
        return 0, 1
    smallest, largest = dtypes.limits(dtype)
    return int(smallest), int(largest)


@public("bernoulli_", out=False)
@_fills
def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill the tensor with zeros and ones: 1 with probability ``p``, a number or a tensor that broadcasts.

    Raises:
        ArgumentError: a probability is not between 0 and 1.
    """
    if isinstance(p, Tensor) and p.ndim:
        drawn = bernoulli(p.detach().expand(input.array.shape), generator=generator)
    else:
        drawn = bernoulli(input.detach(), number_of("bernoulli_", "p", p), generator=generator)
    return drawn
