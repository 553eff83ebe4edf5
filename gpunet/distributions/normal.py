"""The normal distribution and what is made of it: log-normal, half-normal, multivariate normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.distributions import constraints
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import as_parameters, standard_normal
from gpunet.distributions.transformed import TransformedDistribution
from gpunet.distributions.transforms import AbsTransform, ExpTransform
from gpunet.distributions.triangular import cholesky, cholesky_of_inverse, inverse_lower, solve_lower
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.broadcast import broadcast_shape
from gpunet.ops.creation import zeros_like
from gpunet.ops.elementwise import erf, where
from gpunet.ops.error_functions import erfinv

__all__ = ["HalfNormal", "LogNormal", "MultivariateNormal", "Normal"]

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Normal(Distribution):
    """The normal distribution.

    Args:
        loc: the mean.
        scale: the standard deviation.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _batched = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = as_parameters("Normal", loc=loc, scale=scale)
        super().__init__(self.loc.shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale * self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = standard_normal(self.loc, self._extended_shape(sample_shape))
        return self.loc + noise * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return -0.5 * (z * z) - self.scale.log() - _HALF_LOG_TAU

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return 0.5 * (1.0 + erf((value - self.loc) / (self.scale * math.sqrt(2.0))))

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * (erfinv(2.0 * value - 1.0) * math.sqrt(2.0))

    def entropy(self) -> Tensor:
        return 0.5 + _HALF_LOG_TAU + self.scale.log()


class LogNormal(TransformedDistribution):
    """exp(X) of a normal X with mean ``loc`` and standard deviation ``scale``."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args)

    @property
    def loc(self) -> Tensor:
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale * self.scale).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale * self.scale).exp()

    @property
    def variance(self) -> Tensor:
        square = self.scale * self.scale
        return square.expm1() * (2.0 * self.loc + square).exp()

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc


class HalfNormal(TransformedDistribution):
    """|X| of a normal X with mean 0 and standard deviation ``scale``."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (scale,) = as_parameters("HalfNormal", scale=scale)
        super().__init__(Normal(zeros_like(scale), scale, validate_args), AbsTransform(), validate_args)

    @property
    def scale(self) -> Tensor:
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2.0 / math.pi)

    @property
    def mode(self) -> Tensor:
        return zeros_like(self.scale)

    @property
    def variance(self) -> Tensor:
        return self.scale * self.scale * (1.0 - 2.0 / math.pi)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2.0), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return 2.0 * self.base_dist.cdf(value) - 1.0

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf(0.5 * (value + 1.0))

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2.0)


class MultivariateNormal(Distribution):
    """The normal distribution of vectors, with exactly one of three matrices.

    Args:
        loc: (..., n), the mean.
        covariance_matrix: (..., n, n), positive definite.
        precision_matrix: (..., n, n), its inverse.
        scale_tril: (..., n, n), its lower Cholesky factor.

    Raises:
        ArgumentError: not exactly one matrix is given, or it is not of its kind.
        DtypeError: an argument is complex.
        ShapeError: the shapes do not fit together.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    _batched = {"loc": 1, "_scale_tril": 2, "_covariance_matrix": 2, "_precision_matrix": 2}

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        matrices = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        given = {name: value for name, value in matrices.items() if value is not None}
        if len(given) != 1:
            raise ArgumentError(
                f"MultivariateNormal: got {' and '.join(given) or 'no matrix'}; expected one of covariance_matrix, "
                "precision_matrix and scale_tril"
            )
        [(name, matrix)] = given.items()
        refuse_complex("MultivariateNormal", (loc, matrix))
        if loc.ndim < 1 or matrix.ndim < 2 or len({loc.shape[-1], *matrix.shape[-2:]}) > 1:
            raise ShapeError(
                f"MultivariateNormal: loc has shape {tuple(loc.shape)}, {name} {tuple(matrix.shape)}; expected (..., n) and "
                "(..., n, n)"
            )
        n = loc.shape[-1]
        batch_shape = broadcast_shape("MultivariateNormal", tuple(loc.shape[:-1]), tuple(matrix.shape[:-2]))
        self.loc = loc.expand((*batch_shape, n))
        matrix = matrix.expand((*batch_shape, n, n))
        self._scale_tril: Tensor | None = None
        self._covariance_matrix: Tensor | None = None
        self._precision_matrix: Tensor | None = None
        setattr(self, f"_{name}", matrix)
        super().__init__(batch_shape, (n,), validate_args)
        if name == "covariance_matrix":
            self._scale_tril = cholesky(matrix)
        elif name == "precision_matrix":
            self._scale_tril = cholesky_of_inverse(matrix)

    @property
    def scale_tril(self) -> Tensor:
        assert self._scale_tril is not None
        return self._scale_tril

    @property
    def covariance_matrix(self) -> Tensor:
        if self._covariance_matrix is None:
            self._covariance_matrix = self.scale_tril @ self.scale_tril.transpose(-2, -1)
        return self._covariance_matrix

    @property
    def precision_matrix(self) -> Tensor:
        if self._precision_matrix is None:
            inverse = inverse_lower(self.scale_tril)
            self._precision_matrix = inverse.transpose(-2, -1) @ inverse
        return self._precision_matrix

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.scale_tril * self.scale_tril).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = standard_normal(self.loc, self._extended_shape(sample_shape))
        return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        z = solve_lower(self.scale_tril, (value - self.loc).unsqueeze(-1)).squeeze(-1)
        return -0.5 * (z * z).sum(-1) - self._half_log_determinant() - self._event_shape[0] * _HALF_LOG_TAU

    def entropy(self) -> Tensor:
        return self._half_log_determinant() + self._event_shape[0] * (0.5 + _HALF_LOG_TAU)

    def _half_log_determinant(self) -> Tensor:
        """Half of the logarithm of the determinant of the covariance."""
        return constraints.diagonal(self.scale_tril).log().sum(-1)
