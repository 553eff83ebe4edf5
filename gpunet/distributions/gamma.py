"""The gamma distribution and what is made of it: Beta, Dirichlet, Chi2, Student's t; and the Poisson distribution.

NumPy draws on the CPU, seeded by gpunet's generator; gradients of draws in a concentration are implicit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.distributions import constraints
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import as_parameters, standard_normal, tiny, xlogy
from gpunet.errors import ShapeError
from gpunet.launch.random import default_generator
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import where
from gpunet.ops.incomplete_gamma import draw_on_host, reparameterized_gamma
from gpunet.ops.join import stack
from gpunet.ops.special_functions import digamma, lgamma

__all__ = ["Beta", "Chi2", "Dirichlet", "Gamma", "Poisson", "StudentT"]


def draw_gamma(concentration: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draws of the gamma distribution with rate 1, differentiable in the concentration."""
    concentration = concentration.expand(shape)
    drawn = draw_on_host(lambda random, a: random.standard_gamma(a), concentration.detach(), generator=default_generator)
    return reparameterized_gamma(concentration, drawn.clamp(min=tiny(drawn)))


class Gamma(Distribution):
    """The gamma distribution, with density in proportion to x^(concentration - 1) exp(-rate x)."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched = {"concentration": 0, "rate": 0}

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = as_parameters(type(self).__name__, concentration=concentration, rate=rate)
        super().__init__(self.concentration.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return (self.concentration - 1.0).clamp(min=0.0) / self.rate

    @property
    def variance(self) -> Tensor:
        return self.concentration / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return draw_gamma(self.concentration, self._extended_shape(sample_shape)) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a, rate = self.concentration, self.rate
        return xlogy(a, rate) + xlogy(a - 1.0, value) - rate * value - lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1.0 - a) * digamma(a)


class Chi2(Gamma):
    """The chi-squared distribution with ``df`` degrees of freedom."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (df,) = as_parameters("Chi2", df=df)
        super().__init__(0.5 * df, 0.5, validate_args)
        if self._validate_args:
            self._check("df", df, constraints.positive)

    @property
    def df(self) -> Tensor:
        return 2.0 * self.concentration


class Dirichlet(Distribution):
    """The distribution of vectors of probabilities with density in proportion to the product of x_i^(concentration_i - 1).

    Args:
        concentration: (..., n), above 0.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    _batched = {"concentration": 1}

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        (self.concentration,) = as_parameters("Dirichlet", concentration=concentration)
        if self.concentration.ndim < 1:
            raise ShapeError(f"Dirichlet: concentration={concentration}; expected a tensor (..., n)")
        super().__init__(self.concentration.shape[:-1], self.concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        a = (self.concentration - 1.0).clamp(min=0.0)
        mode = a / a.sum(-1, True)
        # all corners have an infinite density; as in PyTorch, the mode is the first one
        is_corner = (self.concentration < 1.0).all(-1, True)
        corner = (arange(a.shape[-1], device=a.device) == 0).to(a.dtype)
        return where(is_corner, corner, mode)

    @property
    def variance(self) -> Tensor:
        a, total = self.concentration, self.concentration.sum(-1, True)
        return a * (total - a) / (total * total * (total + 1.0))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = draw_gamma(self.concentration, self._extended_shape(sample_shape))
        return drawn / drawn.sum(-1, True)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a = self.concentration
        return xlogy(a - 1.0, value).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, total, n = self.concentration, self.concentration.sum(-1), self.concentration.shape[-1]
        return lgamma(a).sum(-1) - lgamma(total) - (n - total) * digamma(total) - ((a - 1.0) * digamma(a)).sum(-1)


class Beta(Distribution):
    """The distribution of numbers from 0 to 1 with density in proportion to x^(concentration1 - 1) (1 - x)^(concentration0 - 1)."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    _batched = {"concentration1": 0, "concentration0": 0}

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = as_parameters(
            "Beta", concentration1=concentration1, concentration0=concentration0
        )
        super().__init__(self.concentration1.shape, (), validate_args)

    def _dirichlet(self) -> Dirichlet:
        return Dirichlet(stack([self.concentration1, self.concentration0], -1), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return self._dirichlet().mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1.0))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._dirichlet().rsample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        return xlogy(a - 1.0, value) + xlogy(b - 1.0, 1.0 - value) + lgamma(a + b) - lgamma(a) - lgamma(b)

    def entropy(self) -> Tensor:
        return self._dirichlet().entropy()


class StudentT(Distribution):
    """Student's t distribution with ``df`` degrees of freedom, moved by loc and scaled by scale."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _batched = {"df": 0, "loc": 0, "scale": 0}

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = as_parameters("StudentT", df=df, loc=loc, scale=scale)
        super().__init__(self.df.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return where(self.df > 1.0, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        is_finite = self.df > 2.0
        df = where(is_finite, self.df, 3.0)
        variance = where(is_finite, self.scale * self.scale * df / (df - 2.0), math.inf)
        return where(self.df > 1.0, variance, math.nan)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        chi2 = 2.0 * draw_gamma(0.5 * self.df, shape)
        return self.loc + self.scale * (standard_normal(self.loc, shape) * (self.df / chi2).sqrt())

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        z, half = (value - self.loc) / self.scale, 0.5 * self.df
        normalization = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + lgamma(half) - lgamma(half + 0.5)
        return -(half + 0.5) * (z * z / self.df).log1p() - normalization

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        log_beta = lgamma(half) + 0.5 * math.log(math.pi) - lgamma(half + 0.5)
        return self.scale.log() + (half + 0.5) * (digamma(half + 0.5) - digamma(half)) + 0.5 * self.df.log() + log_beta


class Poisson(Distribution):
    """The Poisson distribution with mean ``rate``."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer
    _batched = {"rate": 0}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = as_parameters("Poisson", rate=rate)
        super().__init__(self.rate.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            rate = self.rate.expand(self._extended_shape(sample_shape))
            return draw_on_host(lambda random, mean: random.poisson(mean), rate, generator=default_generator)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return xlogy(value, self.rate) - self.rate - lgamma(value + 1.0)
