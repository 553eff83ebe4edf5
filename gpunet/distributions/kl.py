"""Kullback-Leibler divergences, by the types of the two distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.distributions.binary import Bernoulli, Binomial, ContinuousBernoulli, Geometric
from gpunet.distributions.categorical import Categorical, OneHotCategorical
from gpunet.distributions.constraints import diagonal
from gpunet.distributions.continuous import Cauchy, Exponential, Gumbel, Laplace, Uniform
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.gamma import Beta, Dirichlet, Gamma, Poisson
from gpunet.distributions.normal import HalfNormal, MultivariateNormal, Normal
from gpunet.distributions.parameters import sum_rightmost, xlogy
from gpunet.distributions.transformed import Independent, TransformedDistribution
from gpunet.distributions.triangular import solve_lower
from gpunet.errors import ArgumentError
from gpunet.ops.activations import softplus
from gpunet.ops.creation import full_like
from gpunet.ops.elementwise import where
from gpunet.ops.special_functions import digamma, lgamma

__all__ = ["kl_divergence", "register_kl"]

_EULER = 0.57721566490153286061
_RULES: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Any], Any]:
    """Decorator of the function of (p, q) that computes the divergence of two types, and of their subclasses.

    Raises:
        ArgumentError: an argument is no class of distributions.
    """
    for name, value in (("type_p", type_p), ("type_q", type_q)):
        if not (isinstance(value, type) and issubclass(value, Distribution)):
            raise ArgumentError(f"register_kl: {name}={value!r}; expected a subclass of Distribution")

    def decorate(function: Any) -> Any:
        _RULES[type_p, type_q] = function
        return function

    return decorate


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of q from p, the integral of p log(p / q), of shape ``batch_shape``.

    Raises:
        NotImplementedError: no rule is known for the two types; :func:`register_kl` adds one.
    """
    classes_p, classes_q = type(p).__mro__, type(q).__mro__
    found = [(a, b) for a, b in _RULES if a in classes_p and b in classes_q]
    if not found:
        raise NotImplementedError(
            f"kl_divergence: no rule for {type(p).__name__} and {type(q).__name__}; add one with register_kl"
        )
    closest = min(found, key=lambda pair: classes_p.index(pair[0]) + classes_q.index(pair[1]))
    return _RULES[closest](p, q)


def _infinite(p: Any, q: Any) -> Tensor:
    """The divergence of a q whose support does not contain that of p."""
    like = p.mean + q.mean
    return full_like(like, math.inf)


# ---- one type ---------------------------------------------------------------------------------------------------------


@register_kl(Bernoulli, Bernoulli)
def _(p: Bernoulli, q: Bernoulli) -> Tensor:
    t1 = p.probs * (softplus(-q.logits, threshold=1e4) - softplus(-p.logits, threshold=1e4))
    t2 = (1.0 - p.probs) * (softplus(q.logits, threshold=1e4) - softplus(p.logits, threshold=1e4))
    t1 = where(q.probs == 0, math.inf, t1)
    t1 = where(p.probs == 0, 0.0, t1)
    t2 = where(q.probs == 1, math.inf, t2)
    return t1 + where(p.probs == 1, 0.0, t2)


@register_kl(Binomial, Binomial)
def _(p: Binomial, q: Binomial) -> Tensor:
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("kl_divergence: of Binomials where q has more trials than p is not known")
    divergence = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return where(p.total_count > q.total_count, math.inf, divergence)


@register_kl(Categorical, Categorical)
def _(p: Any, q: Any) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    t = where(q.probs == 0, math.inf, t)
    return where(p.probs == 0, 0.0, t).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return kl_divergence(p._categorical, q._categorical)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    t1 = p.mean * (p.logits - q.logits)
    t2 = p._log_normalization() + (-p.probs).log1p()
    return t1 + t2 - q._log_normalization() - (-q.probs).log1p()


@register_kl(Geometric, Geometric)
def _(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Beta, Beta)
def _(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    normalization = lgamma(c) + lgamma(d) + lgamma(a + b) - lgamma(c + d) - lgamma(a) - lgamma(b)
    return normalization + (a - c) * digamma(a) + (b - d) * digamma(b) + (c + d - a - b) * digamma(a + b)


@register_kl(Dirichlet, Dirichlet)
def _(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    normalization = lgamma(total) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
    return normalization + ((a - b) * (digamma(a) - digamma(total).unsqueeze(-1))).sum(-1)


@register_kl(Gamma, Gamma)
def _(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return b * (p.rate / q.rate).log() + lgamma(b) - lgamma(a) + (a - b) * digamma(a) + (q.rate - p.rate) * (a / p.rate)


@register_kl(Exponential, Exponential)
def _(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1.0


@register_kl(Poisson, Poisson)
def _(p: Poisson, q: Poisson) -> Tensor:
    return xlogy(p.rate, p.rate) - xlogy(p.rate, q.rate) - (p.rate - q.rate)


@register_kl(Normal, Normal)
def _(p: Normal, q: Normal) -> Tensor:
    ratio, shift = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return 0.5 * (ratio * ratio + shift * shift - 1.0) - ratio.log()


@register_kl(HalfNormal, HalfNormal)
def _(p: HalfNormal, q: HalfNormal) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(MultivariateNormal, MultivariateNormal)
def _(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ArgumentError(f"kl_divergence: event shapes {tuple(p.event_shape)} and {tuple(q.event_shape)}; expected the same")
    n = p.event_shape[0]
    half_log = diagonal(q.scale_tril).log().sum(-1) - diagonal(p.scale_tril).log().sum(-1)
    ratio = solve_lower(q.scale_tril, p.scale_tril + 0.0 * q.scale_tril)
    shift = solve_lower(q.scale_tril, (q.loc - p.loc).unsqueeze(-1)).squeeze(-1)
    return half_log + 0.5 * ((ratio * ratio).sum((-2, -1)) + (shift * shift).sum(-1) - n)


@register_kl(Laplace, Laplace)
def _(p: Laplace, q: Laplace) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1.0


@register_kl(Gumbel, Gumbel)
def _(p: Gumbel, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    shift1, shift2 = q.loc / q.scale, p.loc / q.scale
    return -ratio.log() - shift1 + shift2 + ratio * _EULER + (shift1 - shift2 + lgamma(1.0 + ratio)).exp() - (1.0 + _EULER)


@register_kl(Cauchy, Cauchy)
def _(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2).log() - (4.0 * p.scale * q.scale).log()


@register_kl(Uniform, Uniform)
def _(p: Uniform, q: Uniform) -> Tensor:
    divergence = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, divergence)


@register_kl(Independent, Independent)
def _(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: of two Independents of different reinterpreted_batch_ndims is not known")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    same = len(p.transforms) == len(q.transforms) and all(
        type(a) is type(b) and _settings(a) == _settings(b) for a, b in zip(p.transforms, q.transforms)
    )
    if not same or p.event_shape != q.event_shape:
        raise NotImplementedError("kl_divergence: of two transformed distributions is known for the same transforms only")
    return kl_divergence(p.base_dist, q.base_dist)


def _settings(transform: Any) -> dict[str, Any]:
    """What tells two transforms of a class apart; tensors by identity."""
    settings = {name: value for name, value in vars(transform).items() if not name.startswith("_cache")}
    return {name: id(value) if isinstance(value, Tensor) else value for name, value in settings.items()}


# ---- two types --------------------------------------------------------------------------------------------------------


@register_kl(Bernoulli, Poisson)
def _(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Exponential, Gamma)
def _(p: Exponential, q: Gamma) -> Tensor:
    ratio = q.rate / p.rate
    return -q.concentration * ratio.log() + ratio + lgamma(q.concentration) + q.concentration * _EULER - (1.0 + _EULER)


@register_kl(Gamma, Exponential)
def _(p: Gamma, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


@register_kl(Exponential, Normal)
def _(p: Exponential, q: Normal) -> Tensor:
    variance, rate_square = q.variance, p.rate * p.rate
    t1 = 0.5 * (rate_square * variance * (2.0 * math.pi)).log()
    return t1 - 1.0 + (1.0 / rate_square - q.loc / p.rate + 0.5 * q.loc * q.loc) / variance


@register_kl(Gamma, Normal)
def _(p: Gamma, q: Normal) -> Tensor:
    variance, beta_square, a = q.variance, p.rate * p.rate, p.concentration
    t1 = 0.5 * (beta_square * variance * (2.0 * math.pi)).log() - a - lgamma(a)
    t3 = a * (a + 1.0) * 0.5 / beta_square - q.loc * a / p.rate + 0.5 * q.loc * q.loc
    return t1 + (a - 1.0) * digamma(a) + t3 / variance


@register_kl(Laplace, Normal)
def _(p: Laplace, q: Normal) -> Tensor:
    variance = q.variance
    ratio = p.scale * p.scale / variance
    t1 = 0.5 * (2.0 * ratio / math.pi).log()
    return -t1 + ratio + (0.5 * p.loc * p.loc - p.loc * q.loc + 0.5 * q.loc * q.loc) / variance - 1.0


@register_kl(Normal, Gumbel)
def _(p: Normal, q: Gumbel) -> Tensor:
    shift, ratio = (p.loc - q.loc) / q.scale, p.scale / q.scale
    return -ratio.log() + shift + (-shift + 0.5 * ratio * ratio).exp() - 0.5 * (1.0 + math.log(2.0 * math.pi))


@register_kl(Normal, Laplace)
def _(p: Normal, q: Laplace) -> Tensor:
    difference = p.loc - q.loc
    z = difference / p.scale
    expected = math.sqrt(2.0 / math.pi) * p.scale * (-0.5 * z * z).exp() + difference * (math.sqrt(0.5) * z).erf()
    return -(p.scale / q.scale).log() + expected / q.scale - (0.5 + 0.5 * math.log(0.5 * math.pi))


@register_kl(Uniform, Normal)
def _(p: Uniform, q: Normal) -> Tensor:
    width, middle = p.high - p.low, 0.5 * (p.high + p.low) - q.loc
    return (math.sqrt(2.0 * math.pi) * q.scale / width).log() + (middle * middle + width * width / 12.0) / (2.0 * q.variance)


@register_kl(Uniform, Exponential)
def _(p: Uniform, q: Exponential) -> Tensor:
    divergence = q.rate * (p.high + p.low) / 2.0 - ((p.high - p.low) * q.rate).log()
    return where(p.low < 0.0, math.inf, divergence)


@register_kl(Uniform, Beta)
def _(p: Uniform, q: Beta) -> Tensor:
    c1, c0, divergence = q.concentration1, q.concentration0, -p.entropy()
    divergence = divergence - (c1 - 1.0) * _mean_log(p.low, p.high) - (c0 - 1.0) * _mean_log(1.0 - p.high, 1.0 - p.low)
    return where(_exceeds_unit(p), math.inf, divergence + lgamma(c1) + lgamma(c0) - lgamma(c1 + c0))


@register_kl(Uniform, Gamma)
def _(p: Uniform, q: Gamma) -> Tensor:
    c, mean_log = q.concentration, _mean_log(p.low, p.high)
    divergence = lgamma(c) - c * q.rate.log() - (c - 1.0) * mean_log + q.rate * p.mean - p.entropy()
    return where(p.low < 0.0, math.inf, divergence)


@register_kl(Uniform, Gumbel)
def _(p: Uniform, q: Gumbel) -> Tensor:
    width, low, high = (p.high - p.low) / q.scale, (p.low - q.loc) / q.scale, (p.high - q.loc) / q.scale
    return 0.5 * (low + high) - width.log() + ((-low).exp() - (-high).exp()) / width


@register_kl(Uniform, ContinuousBernoulli)
def _(p: Uniform, q: ContinuousBernoulli) -> Tensor:
    return where(_exceeds_unit(p), math.inf, _from_continuous_bernoulli(p, q))


def _mean_log(low: Tensor, high: Tensor) -> Tensor:
    """The mean of log x for x uniform between two numbers from 0."""
    return (xlogy(high, high) - xlogy(low, low)) / (high - low) - 1.0


def _exceeds_unit(p: Uniform) -> Tensor:
    return (p.low < 0.0) | (p.high > 1.0)


@register_kl(Exponential, Gumbel)
def _(p: Exponential, q: Gumbel) -> Tensor:
    product, shift = p.rate * q.scale, q.loc / q.scale
    return product.log() - 1.0 - shift + shift.exp() * product / (product + 1.0) + 1.0 / product


@register_kl(Gamma, Gumbel)
def _(p: Gamma, q: Gumbel) -> Tensor:
    product, shift, a = p.rate * q.scale, q.loc / q.scale, p.concentration
    return product.log() - p.entropy() - p.rate.log() + a / product - shift + shift.exp() * (1.0 + 1.0 / product) ** -a


@register_kl(Gumbel, Normal)
def _(p: Gumbel, q: Normal) -> Tensor:
    ratio, distance = p.scale / q.scale, p.loc + p.scale * _EULER - q.loc
    square = distance * distance / q.variance + ratio * ratio * (math.pi**2 / 6.0)
    return 0.5 * square - (ratio / math.sqrt(2.0 * math.pi)).log() - (_EULER + 1.0)


@register_kl(Beta, ContinuousBernoulli)
def _from_continuous_bernoulli(p: Any, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - p.mean * q.logits - (-q.probs).log1p() - q._log_normalization()


@register_kl(Beta, Exponential)
@register_kl(ContinuousBernoulli, Exponential)
def _(p: Any, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


@register_kl(Beta, Gamma)
def _(p: Beta, q: Gamma) -> Tensor:
    c, mean_log = q.concentration, digamma(p.concentration1) - digamma(p.concentration1 + p.concentration0)
    return -p.entropy() + lgamma(c) - c * q.rate.log() - (c - 1.0) * mean_log + q.rate * p.mean


@register_kl(Beta, Uniform)
@register_kl(ContinuousBernoulli, Uniform)
def _(p: Any, q: Uniform) -> Tensor:
    return where((q.low > 0.0) | (q.high < 1.0), math.inf, (q.high - q.low).log() - p.entropy())


@register_kl(Beta, Normal)
@register_kl(ContinuousBernoulli, Normal)
def _(p: Any, q: Normal) -> Tensor:
    variance, distance = q.variance, p.mean - q.loc
    return -p.entropy() + 0.5 * (variance * (2.0 * math.pi)).log() + 0.5 * (p.variance + distance * distance) / variance


for _p, _qs in {
    Exponential: (Beta, ContinuousBernoulli, Uniform), Gamma: (Beta, ContinuousBernoulli, Uniform),
    Gumbel: (Beta, ContinuousBernoulli, Exponential, Gamma, Uniform),
    Laplace: (Beta, ContinuousBernoulli, Exponential, Gamma, Uniform),
    Normal: (Beta, ContinuousBernoulli, Exponential, Gamma, Uniform), Poisson: (Bernoulli, Binomial),
}.items():  # fmt: skip
    for _q in _qs:
        register_kl(_p, _q)(_infinite)
