"""Distributions over classes: Categorical, OneHotCategorical, Multinomial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.distributions import constraints
from gpunet.distributions.constraints import Constraint
from gpunet.distributions.distribution import Distribution
from gpunet.distributions.parameters import epsilon, normalized_logits, one_of, probs_to_logits, uniform
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.creation import arange, eye, full
from gpunet.ops.elementwise import where
from gpunet.ops.index import gather
from gpunet.ops.one_hot import one_hot
from gpunet.ops.order import argmax
from gpunet.ops.reduce import cumsum
from gpunet.ops.softmax import softmax
from gpunet.ops.special_functions import lgamma

__all__ = ["Categorical", "Multinomial", "OneHotCategorical"]


class Categorical(Distribution):
    """The distribution of classes 0 .. n - 1, as int64.

    Args:
        probs: (..., n), of 0 or more; they are divided by their sum.
        logits: (..., n), the logarithms of such.

    Raises:
        ArgumentError: not exactly one of them is given, or it is out of range.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _batched = {"_probs": 1, "_logits": 1}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        name = type(self).__name__
        one_of(name, probs, logits)
        given = probs if probs is not None else logits
        if not isinstance(given, Tensor) or given.ndim < 1:
            raise ShapeError(f"{name}: {'probs' if probs is not None else 'logits'}={given!r}; expected a tensor (..., classes)")
        refuse_complex(name, [given])
        self._probs = None if probs is None else probs / probs.sum(-1, True)
        self._logits = None if logits is None else normalized_logits(logits)
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], (), validate_args)

    @property
    def probs(self) -> Tensor:
        if self._probs is None:
            self._probs = softmax(self._logits, -1)
        return self._probs

    @property
    def logits(self) -> Tensor:
        if self._logits is None:
            assert self._probs is not None
            self._logits = probs_to_logits(self._probs, is_binary=False)
        return self._logits

    @property
    def param_shape(self) -> Any:
        return (self._probs if self._logits is None else self._logits).shape  # type: ignore[union-attr]

    @property
    def support(self) -> Constraint:
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        return self._of_batch(math.nan)

    @property
    def variance(self) -> Tensor:
        return self._of_batch(math.nan)

    def _of_batch(self, value: float) -> Tensor:
        return full(tuple(self._batch_shape), value, dtype=self.probs.dtype, device=self.probs.device)

    @property
    def mode(self) -> Tensor:
        return argmax(self.probs, -1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return classes, by inverting the cumulative probabilities; int64."""
        with no_grad():
            return draw_classes(self.probs, self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return _at_classes(self.logits, value)

    def entropy(self) -> Tensor:
        return -(self.logits.clamp(min=_lowest(self.logits)) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = arange(self._num_events, device=self.probs.device)
        values = values.reshape((self._num_events, *(1,) * len(self._batch_shape)))
        return values.expand((self._num_events, *self._batch_shape)) if expand else values


def _lowest(x: Tensor) -> float:
    """The lowest finite number, so that a probability of 0 has an entropy of 0."""
    return -(2.0 - epsilon(x)) * 2.0 ** (15 if epsilon(x) > 1e-4 else 127 if epsilon(x) > 1e-10 else 1023)


def draw_classes(probs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw classes of ``shape``, (*sample_shape, *batch_shape), for probs (*batch_shape, n); int64."""
    ends = cumsum(probs, -1)
    below = uniform(probs, shape).unsqueeze(-1) * ends[..., -1:]
    # a class of probability 0 has the end of the class before it, and is passed over; rounding may reach the last end
    return (ends[..., :-1] <= below).sum(-1)


def _at_classes(table: Tensor, classes: Tensor) -> Tensor:
    """table (..., n) at classes (...), broadcast."""
    classes = classes.long().unsqueeze(-1)
    dims = max(classes.ndim, table.ndim)
    sizes = [
        max(a, b) if 0 not in (a, b) else 0
        for a, b in zip(_padded(classes.array.shape, dims), _padded(table.array.shape, dims))
    ]
    return gather(table.expand((*sizes[:-1], table.shape[-1])), -1, classes.expand((*sizes[:-1], 1))).squeeze(-1)


def _padded(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (1,) * (dims - len(shape)) + shape


class OneHotCategorical(Distribution):
    """The distribution of classes as one-hot vectors (..., n) of the dtype of the parameters; see :class:`Categorical`."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True
    _batched = {"_categorical": 0}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        one_of("OneHotCategorical", probs, logits)
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self._categorical.mode, self._event_shape[0]).to(self.probs.dtype)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self._event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._categorical.log_prob(argmax(value, -1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = self._event_shape[0]
        values = eye(n, dtype=self.probs.dtype, device=self.probs.device)
        values = values.reshape((n, *(1,) * len(self._batch_shape), n))
        return values.expand((n, *self._batch_shape, n)) if expand else values


class Multinomial(Distribution):
    """The number of draws of each class among ``total_count`` draws; see :class:`Categorical`.

    Raises:
        ArgumentError: total_count is no integer of 0 or more.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    _batched = {"_categorical": 0}

    def __init__(
        self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        if isinstance(total_count, bool) or not isinstance(total_count, int) or total_count < 0:
            raise ArgumentError(f"Multinomial: total_count={total_count!r}; expected one integer of 0 or more for the batch")
        one_of("Multinomial", probs, logits)
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        return self._categorical.param_shape

    @property
    def support(self) -> Constraint:
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(drawn, self._event_shape[0]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        terms = where((value == 0) & (self.logits == -math.inf), 0.0, self.logits)
        return lgamma(value.sum(-1) + 1.0) - lgamma(value + 1.0).sum(-1) + (terms * value).sum(-1)

    def entropy(self) -> Tensor:
        n, counts = self.total_count, arange(1, self.total_count + 1, dtype=self.probs.dtype, device=self.probs.device)
        counts = counts.reshape((n, *(1,) * (len(self._batch_shape) + 1)))
        each = lgamma(counts + 1.0)
        log_binomial = math.lgamma(n + 1) - each - lgamma(n + 1.0 - counts)
        probs = self.probs
        weights = (log_binomial + counts * self.logits + (n - counts) * (-probs).log1p()).exp()
        return n * self._categorical.entropy() - math.lgamma(n + 1) + (weights * each).sum((0, -1))
