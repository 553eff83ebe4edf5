"""Distributions of binary trials: Bernoulli, its continuous kin, Binomial, Geometric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy

from gpunet.autograd import Tensor, no_grad
from gpunet.distributions import constraints
from gpunet.distributions.constraints import Constraint
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import (
    as_parameters,
    clamp_probs,
    logits_to_probs,
    one_of,
    probs_to_logits,
    uniform,
)
from gpunet.errors import ArgumentError
from gpunet.launch.random import default_generator
from gpunet.ops.activations import softplus
from gpunet.ops.creation import arange, zeros_like
from gpunet.ops.elementwise import where
from gpunet.ops.incomplete_gamma import draw_on_host
from gpunet.ops.special_functions import lgamma

__all__ = ["Bernoulli", "Binomial", "ContinuousBernoulli", "Geometric"]


class _Binary(Distribution):
    """Base class: the probability of 1, as ``probs`` or as ``logits``, log(p / (1 - p))."""

    arg_constraints: ClassVar[dict[str, Constraint]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    _batched = {"_probs": 0, "_logits": 0}
    _probs: Tensor | None
    _logits: Tensor | None

    def _set(self, probs: Any, logits: Any) -> None:
        name = type(self).__name__
        one_of(name, probs, logits)
        self._probs = None if probs is None else as_parameters(name, probs=probs)[0]
        self._logits = None if logits is None else as_parameters(name, logits=logits)[0]

    @property
    def _given(self) -> Tensor:
        given = self._probs if self._logits is None else self._logits
        assert given is not None
        return given

    @property
    def param_shape(self) -> Any:
        return self._given.shape

    @property
    def probs(self) -> Tensor:
        if self._probs is None:
            self._probs = logits_to_probs(self._given, is_binary=True)
        return self._probs

    @property
    def logits(self) -> Tensor:
        if self._logits is None:
            self._logits = probs_to_logits(self._given, is_binary=True)
        return self._logits

    def _log_prob_of_trial(self, value: Tensor) -> Tensor:
        """value log(p) + (1 - value) log(1 - p)."""
        return value * self.logits - softplus(self.logits, threshold=1e4)  # the threshold of float64, and above


class Bernoulli(_Binary):
    """1 with probability p, else 0.

    Args:
        probs: p.
        logits: log(p / (1 - p)).
    """

    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._set(probs, logits)
        super().__init__(self._given.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return where(self.probs == 0.5, math.nan, (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return (uniform(self.probs, self._extended_shape(sample_shape)) < self.probs).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._log_prob_of_trial(value)

    def entropy(self) -> Tensor:
        return -self._log_prob_of_trial(self.probs)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = arange(2, dtype=self.probs.dtype, device=self.probs.device).reshape((2, *(1,) * len(self._batch_shape)))
        return values.expand((2, *self._batch_shape)) if expand else values


class Geometric(_Binary):
    """The number of failures before the first success, of trials with probability p above 0."""

    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._set(probs, logits)
        super().__init__(self._given.shape, (), validate_args)
        if self._validate_args and self._probs is not None:
            self._check("probs", self._probs, constraints.positive)

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            u = uniform(self.probs, self._extended_shape(sample_shape), is_open=True)
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        probs = where((self.probs == 1.0) & (value == 0.0), 0.0, self.probs)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return -self._log_prob_of_trial(self.probs) / self.probs


class Binomial(_Binary):
    """The number of successes among ``total_count`` trials with probability p."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval, "logits": constraints.real,
    }  # fmt: skip
    _batched = {"total_count": 0, "_probs": 0, "_logits": 0}
    has_enumerate_support = True

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set(probs, logits)
        self.total_count, given = as_parameters("Binomial", total_count=total_count, probs=self._given)
        self.total_count = self.total_count.to(given.dtype)
        if self._logits is None:
            self._probs = given
        else:
            self._logits = given
        super().__init__(given.shape, (), validate_args)

    @property
    def support(self) -> Constraint:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1.0) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = self._extended_shape(sample_shape)
            return draw_on_host(
                lambda random, p, n: random.binomial(n.astype(numpy.int64), p), self.probs.expand(shape),
                self.total_count.expand(shape), generator=default_generator,
            )  # fmt: skip

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        n = self.total_count
        combinations = lgamma(n + 1.0) - lgamma(value + 1.0) - lgamma(n - value + 1.0)
        return combinations + value * self.logits - n * softplus(self.logits, threshold=1e4)

    def entropy(self) -> Tensor:
        """By summation.

        Raises:
            NotImplementedError: the batch has different numbers of trials.
        """
        return -(self.log_prob(values := self.enumerate_support(False)).exp() * self.log_prob(values)).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        count = int(self.total_count.max().item())
        if int(self.total_count.min().item()) != count:
            raise NotImplementedError("Binomial: a batch with different total_count has no common support")
        values = arange(count + 1, dtype=self.probs.dtype, device=self.probs.device)
        values = values.reshape((count + 1, *(1,) * len(self._batch_shape)))
        return values.expand((count + 1, *self._batch_shape)) if expand else values


class ContinuousBernoulli(_Binary):
    """Numbers from 0 to 1 with a density in proportion to p^x (1 - p)^(1 - x).

    Args:
        probs: p.
        logits: log(p / (1 - p)).
        lims: between them, where the normalization is 0 / 0 at p = 1/2, Taylor series are computed.

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders" (2019).
    """

    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501), validate_args: bool | None = None
    ) -> None:
        if not 0.0 < lims[0] < 0.5 < lims[1] < 1.0:
            raise ArgumentError(f"ContinuousBernoulli: lims={lims}; expected numbers around 1/2 within 0 and 1")
        self._set(probs, logits)
        self._lims = lims
        super().__init__(self._given.shape, (), validate_args)
        if self._probs is not None:
            self._probs = clamp_probs(self._probs)

    def _near_half(self) -> tuple[Tensor, Tensor]:
        """Whether p is near 1/2, and p with a value away from it where it is."""
        is_near = (self.probs > self._lims[0]) & (self.probs <= self._lims[1])
        return is_near, where(is_near, self._lims[0], self.probs)

    def _log_normalization(self) -> Tensor:
        is_near, p = self._near_half()
        exact = (((-p).log1p() - p.log()).abs()).log() - where(p <= 0.5, (-2.0 * where(p <= 0.5, p, 0.0)).log1p(),
                                                               (2.0 * where(p >= 0.5, p, 1.0) - 1.0).log())  # fmt: skip
        square = (self.probs - 0.5) * (self.probs - 0.5)
        return where(is_near, math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * square) * square, exact)

    @property
    def mean(self) -> Tensor:
        is_near, p = self._near_half()
        x = self.probs - 0.5
        exact = p / (2.0 * p - 1.0) + 1.0 / ((-p).log1p() - p.log())
        return where(is_near, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * (x * x)) * x, exact)

    @property
    def variance(self) -> Tensor:
        is_near, p = self._near_half()
        square = (self.probs - 0.5) * (self.probs - 0.5)
        exact = p * (p - 1.0) / (1.0 - 2.0 * p) ** 2 + 1.0 / ((-p).log1p() - p.log()) ** 2
        return where(is_near, 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * square) * square, exact)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(uniform(self.probs, self._extended_shape(sample_shape), is_open=True))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._log_prob_of_trial(value) + self._log_normalization()

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        is_near, p = self._near_half()
        exact = (p**value * (1.0 - p) ** (1.0 - value) + p - 1.0) / (2.0 * p - 1.0)
        inside = where(is_near, value, exact)
        return where(value <= 0.0, 0.0, where(value >= 1.0, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        is_near, p = self._near_half()
        exact = ((-p + value * (2.0 * p - 1.0)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return where(is_near, value, exact)

    def entropy(self) -> Tensor:
        log_odds = (-self.probs).log1p() - self.probs.log()
        return self.mean * log_odds - self._log_normalization() - (-self.probs).log1p()

