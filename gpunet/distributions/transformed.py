"""Distributions made of others: transformed ones, batches read as events, mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.distributions import constraints
from gpunet.distributions.constraints import Constraint
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import sum_rightmost
from gpunet.distributions.transforms import ComposeTransform, Transform
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.index import gather
from gpunet.ops.norm import logsumexp
from gpunet.ops.softmax import log_softmax

__all__ = ["Independent", "MixtureSameFamily", "TransformedDistribution"]


class Independent(Distribution):
    """A distribution whose last ``reinterpreted_batch_ndims`` dimensions of the batch belong to the event.

    Raises:
        ShapeError: the batch has fewer dimensions.
    """

    _batched = {}

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        count, shape = reinterpreted_batch_ndims, (*base_distribution.batch_shape, *base_distribution.event_shape)
        if not 0 <= count <= len(base_distribution.batch_shape):
            raise ShapeError(
                f"Independent: reinterpreted_batch_ndims={count}, but the batch has shape {tuple(base_distribution.batch_shape)}; "
                f"expected 0 .. {len(base_distribution.batch_shape)}"
            )
        cut = len(base_distribution.batch_shape) - count
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = count
        super().__init__(shape[:cut], shape[cut:], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        base = self.base_dist.support
        return constraints.independent(base, self.reinterpreted_batch_ndims) if base is not None else None

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.base_dist = self.base_dist.expand((*batch_shape, *self._event_shape[: self.reinterpreted_batch_ndims]))
        return new

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


class TransformedDistribution(Distribution):
    """The distribution of ``transforms(X)`` for X of ``base_distribution``.

    Args:
        base_distribution: the distribution of X.
        transforms: a transform, or several, the first one first.
    """

    _batched = {}

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform], validate_args: bool | None = None
    ) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        for transform in self.transforms:
            if not isinstance(transform, Transform):
                raise ArgumentError(f"TransformedDistribution: transforms contains {transform!r}; expected Transforms")
        base = base_distribution
        shape = (*base.batch_shape, *base.event_shape)
        whole = ComposeTransform(self.transforms)
        if len(shape) < whole.domain.event_dim:
            raise ShapeError(
                f"TransformedDistribution: the base has shape {shape}; expected at least {whole.domain.event_dim} dimensions, "
                "which the transforms need"
            )
        forward = whole.forward_shape(shape)
        expanded = whole.inverse_shape(forward)
        if expanded != shape:
            base = base.expand(expanded[: len(expanded) - len(base.event_shape)])
        moved = whole.domain.event_dim - len(base.event_shape)
        self.base_dist: Any = Independent(base, moved) if moved > 0 else base
        event_dim = whole.codomain.event_dim + max(-moved, 0)
        cut = len(forward) - event_dim
        super().__init__(forward[:cut], forward[cut:], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        if not self.transforms:
            return self.base_dist.support
        found = self.transforms[-1].codomain
        extra = len(self._event_shape) - found.event_dim
        return constraints.independent(found, extra) if extra > 0 else found

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        whole = ComposeTransform(self.transforms)
        shape = whole.inverse_shape((*batch_shape, *self._event_shape))
        new.base_dist = self.base_dist.expand(shape[: len(shape) - len(self.base_dist.event_shape)])
        return new

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return self._transformed(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._transformed(self.base_dist.rsample(sample_shape))

    def _transformed(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        event_dim, y, total = len(self._event_shape), value, None
        for transform in reversed(self.transforms):
            x = transform._inv_call(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            term = sum_rightmost(transform.log_abs_det_jacobian(x, y), event_dim - transform.domain.event_dim)
            total = term if total is None else total + term
            y = x
        density = sum_rightmost(self.base_dist.log_prob(y), event_dim - len(self.base_dist.event_shape))
        return density if total is None else density - total

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        for transform in reversed(self.transforms):
            value = transform._inv_call(value)
        return self._turned(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self._transformed(self.base_dist.icdf(self._turned(value)))

    def _turned(self, probability: Tensor) -> Tensor:
        """1 - p if the transforms are decreasing."""
        direction = ComposeTransform(self.transforms).sign
        if isinstance(direction, Tensor):
            return direction * (probability - 0.5) + 0.5
        return probability if direction == 1 else 1.0 - probability

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist}, {self.transforms})"


class MixtureSameFamily(Distribution):
    """A mixture of the last dimension of the batch of ``component_distribution``, with the weights of a Categorical.

    Raises:
        ArgumentError: mixture_distribution is no Categorical.
        ShapeError: the batches do not fit together.
    """

    _batched = {}

    def __init__(
        self, mixture_distribution: Any, component_distribution: Distribution, validate_args: bool | None = None
    ) -> None:
        from gpunet.distributions.categorical import Categorical  # which is made of other files

        if not isinstance(mixture_distribution, Categorical):
            raise ArgumentError(f"MixtureSameFamily: mixture_distribution={mixture_distribution!r}; expected a Categorical")
        parts, weights = component_distribution.batch_shape, mixture_distribution.batch_shape
        count = mixture_distribution._num_events
        if not parts or parts[-1] != count or any(n not in (1, m) for m, n in zip(reversed(parts[:-1]), reversed(weights))):
            raise ShapeError(
                f"MixtureSameFamily: components of batch shape {tuple(parts)}, weights of {(*weights, count)}; expected the "
                "weights to broadcast to the components"
            )
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        super().__init__(parts[:-1], component_distribution.event_shape, validate_args)

    @property
    def mixture_distribution(self) -> Any:
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        return self._component_distribution

    @property
    def support(self) -> Constraint:
        return self._component_distribution.support

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._mixture_distribution = self._mixture_distribution.expand(batch_shape)
        new._component_distribution = self._component_distribution.expand((*batch_shape, self._num_component))
        return new

    @property
    def _num_component(self) -> int:
        return int(self._component_distribution.batch_shape[-1])

    def _weights(self) -> Tensor:
        """The weights, with dimensions of size 1 for the event."""
        probs = self._mixture_distribution.probs
        return probs.reshape((*probs.shape, *(1,) * len(self._event_shape)))

    def _sum(self, x: Tensor) -> Tensor:
        """The weighted sum over the components, in front of the event."""
        return (self._weights() * x).sum(-1 - len(self._event_shape))

    @property
    def mean(self) -> Tensor:
        return self._sum(self._component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        part = self._component_distribution
        difference = part.mean - self.mean.unsqueeze(-1 - len(self._event_shape))
        return self._sum(part.variance) + self._sum(difference * difference)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        density = self._component_distribution.log_prob(value.unsqueeze(-1 - len(self._event_shape)))
        return logsumexp(density + log_softmax(self._mixture_distribution.logits, -1), -1)

    def cdf(self, value: Tensor) -> Tensor:
        probability = self._component_distribution.cdf(value.unsqueeze(-1 - len(self._event_shape)))
        return (probability * self._mixture_distribution.probs).sum(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            dims, event = len(self._event_shape), tuple(self._event_shape)
            chosen = self._mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            drawn = self._component_distribution.sample(sample_shape)
            index = chosen.reshape((*chosen.shape, 1, *(1,) * dims)).expand((*chosen.shape, 1, *event))
            return gather(drawn, drawn.ndim - 1 - dims, index).squeeze(-1 - dims)

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self._mixture_distribution}, {self._component_distribution})"

