"""Distributions with a closed quantile function: Uniform, Exponential, Laplace, Cauchy, Gumbel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.distributions import constraints
from gpunet.distributions.constraints import Constraint
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import as_parameters, epsilon, uniform
from gpunet.errors import ArgumentError
from gpunet.launch.tape import active
from gpunet.ops.creation import full_like, zeros_like
from gpunet.ops.elementwise import where
from gpunet.ops.rounding import sign

__all__ = ["Cauchy", "Exponential", "Gumbel", "Laplace", "Uniform"]

_EULER = 0.57721566490153286061


class Uniform(Distribution):
    """The uniform distribution on [low, high).

    Raises:
        ArgumentError: low is not below high.
    """

    arg_constraints = {"low": constraints.real, "high": constraints.real}
    has_rsample = True
    _batched = {"low": 0, "high": 0}

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = as_parameters("Uniform", low=low, high=high)
        super().__init__(self.low.shape, (), validate_args)
        if self._validate_args and active.tape is None and not bool((self.low.detach() < self.high.detach()).all()):
            raise ArgumentError(f"Uniform: low={low}, high={high}; expected low < high (validate_args=False skips this check)")

    @property
    def support(self) -> Constraint:
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        return 0.5 * (self.low + self.high)

    @property
    def mode(self) -> Tensor:
        return full_like(self.high, math.nan)

    @property
    def stddev(self) -> Tensor:
        return (self.high - self.low) / math.sqrt(12.0)

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low) ** 2 / 12.0

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.low + uniform(self.low, self._extended_shape(sample_shape)) * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        inside = (self.low <= value) & (value < self.high)
        return where(inside, -(self.high - self.low).log(), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class Exponential(Distribution):
    """The exponential distribution, with mean 1 / rate."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched = {"rate": 0}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = as_parameters("Exponential", rate=rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.rate

    @property
    def mode(self) -> Tensor:
        return zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        return 1.0 / self.rate

    @property
    def variance(self) -> Tensor:
        return 1.0 / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(uniform(self.rate, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return -(-self.rate * value).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return -(-value).log1p() / self.rate

    def entropy(self) -> Tensor:
        return 1.0 - self.rate.log()


class _LocationScale(Distribution):
    """Base class of distributions of loc + scale * Z."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _batched = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = as_parameters(type(self).__name__, loc=loc, scale=scale)
        super().__init__(self.loc.shape, (), validate_args)

    @property
    def mode(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = uniform(self.loc, self._extended_shape(sample_shape), is_open=True)
        return self.icdf(u.clamp(max=1.0 - epsilon(u)))

    def _standard(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return (value - self.loc) / self.scale


class Laplace(_LocationScale):
    """The Laplace distribution, with density exp(-|value - loc| / scale) / (2 scale)."""

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return math.sqrt(2.0) * self.scale

    @property
    def variance(self) -> Tensor:
        return 2.0 * self.scale * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        return -(2.0 * self.scale).log() - self._standard(value).abs()

    def cdf(self, value: Tensor) -> Tensor:
        z = self._standard(value)
        return 0.5 - 0.5 * sign(z) * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        term = value - 0.5
        return self.loc - self.scale * sign(term) * (-2.0 * term.abs()).log1p()

    def entropy(self) -> Tensor:
        return 1.0 + (2.0 * self.scale).log()


class Cauchy(_LocationScale):
    """The Cauchy distribution; ``scale`` is half its width at half its maximum.  It has no mean."""

    @property
    def mean(self) -> Tensor:
        return full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        return full_like(self.loc, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        z = self._standard(value)
        return -math.log(math.pi) - self.scale.log() - (z * z).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return self._standard(value).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        return math.log(4.0 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The Gumbel distribution, of the largest of many draws: loc - scale * log(-log(U)) for a uniform U."""

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * _EULER

    @property
    def stddev(self) -> Tensor:
        return math.pi / math.sqrt(6.0) * self.scale

    @property
    def variance(self) -> Tensor:
        return math.pi**2 / 6.0 * self.scale * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        z = self._standard(value)
        return -(z + (-z).exp()) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return (-(-self._standard(value)).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1.0 + _EULER)
