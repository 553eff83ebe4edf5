"""The base class of distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gpunet.autograd import Tensor, no_grad
from gpunet.autograd.size import Size
from gpunet.distributions.constraints import Constraint
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import active

__all__ = ["Distribution"]


class Distribution:
    """Base class of distributions: a batch of distributions (``batch_shape``), each of tensors of ``event_shape``.

    Args:
        batch_shape: the shape of the parameters without the dimensions of an event.
        event_shape: the shape of one draw.
        validate_args: check parameters, and the arguments of ``log_prob`` and ``cdf``; True by default.  A recorded step does not
            check, since a check reads values.

    Raises:
        ArgumentError: a parameter is out of range; the message has its name, a wrong value and what was expected.
    """

    has_rsample: ClassVar[bool] = False
    has_enumerate_support: ClassVar[bool] = False
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    support: Any = None
    #: Attributes with a value for each distribution of the batch -> their number of event dimensions, for :meth:`expand`.
    _batched: ClassVar[dict[str, int]] = {}
    _validates = True

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Set whether distributions check their arguments if ``validate_args`` is None."""
        if value not in (True, False):
            raise ArgumentError(f"set_default_validate_args: value={value!r}; expected True or False")
        Distribution._validates = bool(value)

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        self._validate_args = Distribution._validates if validate_args is None else bool(validate_args)
        if self._validate_args and active.tape is None:
            for name, constraint in self.arg_constraints.items():
                value = vars(self).get(name, vars(self).get(f"_{name}"))  # not yet computed probs or logits are None
                if isinstance(value, Tensor):
                    self._check(name, value, constraint)

    def _check(self, name: str, value: Tensor, constraint: Constraint) -> None:
        with no_grad():
            valid = constraint.check(value)
            if bool(valid.all()):
                return
            count = int((~valid).sum().item())
            wrong = value.detach()[~valid] if constraint.event_dim == 0 or valid.ndim else value.detach().reshape(1, *value.shape)
        raise ArgumentError(
            f"{type(self).__name__}: {name} has {count} wrong value{'s' * (count > 1)}, such as {wrong[0].tolist()}; expected "
            f"{constraint.description} (validate_args=False skips this check)"
        )

    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """Return the distribution with parameters expanded to ``batch_shape``; they share memory with this one's."""
        new = object.__new__(type(self)) if _instance is None else _instance
        vars(new).update(vars(self))
        for name, dims in self._batched.items():
            value = vars(self).get(name)
            if isinstance(value, Tensor):
                vars(new)[name] = value.expand((*batch_shape, *value.array.shape[value.ndim - dims :]))
            elif isinstance(value, Distribution):
                vars(new)[name] = value.expand(batch_shape)
        new._batch_shape = Size(batch_shape)
        return new

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws, of shape ``(*sample_shape, *batch_shape, *event_shape)``, without a gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return draws that are a differentiable function of the parameters.

        Raises:
            NotImplementedError: the distribution has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rsample(): its draws have no gradient; use sample()")

    def sample_n(self, n: int) -> Tensor:
        """Return n draws; ``sample((n,))`` is the newer spelling."""
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the density, or of the probability, at ``value``."""
        raise self._missing("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of values up to ``value``."""
        raise self._missing("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """Return the inverse of :meth:`cdf`."""
        raise self._missing("icdf")

    def entropy(self) -> Tensor:
        """Return the entropy, in nats."""
        raise self._missing("entropy")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values of a discrete distribution, along a new first dimension."""
        raise self._missing("enumerate_support")

    def _missing(self, name: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {name}()")

    @property
    def mean(self) -> Tensor:
        raise self._missing("mean")

    @property
    def mode(self) -> Tensor:
        raise self._missing("mode")

    @property
    def variance(self) -> Tensor:
        raise self._missing("variance")

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def perplexity(self) -> Tensor:
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> tuple[int, ...]:
        if isinstance(sample_shape, int):
            raise DtypeError(f"sample: sample_shape={sample_shape}; expected a tuple, such as ({sample_shape},)")
        return (*sample_shape, *self._batch_shape, *self._event_shape)

    def _validate_sample(self, value: Tensor) -> None:
        """Check an argument of ``log_prob`` or ``cdf``, if arguments are checked."""
        if not self._validate_args:
            return
        name = type(self).__name__
        if not isinstance(value, Tensor):
            raise DtypeError(f"{name}: value={value!r} has type {type(value).__name__}; expected a tensor")
        shape, expected = value.array.shape, (*self._batch_shape, *self._event_shape)
        dims = len(self._event_shape)
        fits = shape[len(shape) - dims :] == tuple(self._event_shape) and all(
            1 in (m, n) or m == n for m, n in zip(reversed(shape), reversed(expected))
        )
        if not fits:
            raise ShapeError(f"{name}: value has shape {shape}; expected one that broadcasts to (..., {str(expected)[1:]}")
        support = self.support
        if support is not None and active.tape is None:
            self._check("value", value, support)

    def __repr__(self) -> str:
        own = vars(self)
        shown = {n: own[n] if n in own else own[f"_{n}"] if f"_{n}" in own else getattr(self, n) for n in self.arg_constraints}
        parts = [
            f"{name}: {value if value.ndim == 0 else value.shape}" for name, value in shown.items() if isinstance(value, Tensor)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"
