"""Constraints: the sets of numbers that parameters and samples of distributions are from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_boolean, is_integer

__all__ = [
    "Constraint", "boolean", "dependent", "dependent_property", "greater_than", "greater_than_eq", "half_open_interval",
    "independent", "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky", "lower_triangular", "multinomial",
    "nonnegative", "nonnegative_integer", "one_hot", "positive", "positive_definite", "positive_integer", "real", "real_vector",
    "simplex", "square", "symmetric", "unit_interval",
]  # fmt: skip


class Constraint:
    """A set of values.

    Args:
        description: the values, for messages: "expected " and this.
        holds: whether each value is in the set: a function of a tensor, which returns booleans without the event dimensions.
        event_dim: the number of last dimensions that form one value.
        is_discrete: whether the set is one of integers.
    """

    def __init__(
        self, description: str, holds: Callable[[Tensor], Tensor], event_dim: int = 0, is_discrete: bool = False
    ) -> None:
        self.description = description
        self._holds = holds
        self.event_dim = event_dim
        self.is_discrete = is_discrete

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is in the set, as booleans."""
        return self._holds(value)

    def __repr__(self) -> str:
        return f"Constraint({self.description})"


def _is_integral(x: Tensor) -> Tensor:
    return x == x if is_integer(x.dtype) or is_boolean(x.dtype) else x % 1 == 0


def _last(x: Tensor, count: int = 1) -> Tensor:
    """Whether all elements of the last dimensions hold."""
    return x.reshape(*x.shape[: x.ndim - count], -1).all(-1) if count else x


real = Constraint("real numbers", lambda x: x == x)  # not NaN
boolean = Constraint("0 or 1", lambda x: (x == 0) | (x == 1), is_discrete=True)
positive = Constraint("numbers above 0", lambda x: x > 0)
nonnegative = Constraint("numbers of 0 or more", lambda x: x >= 0)
unit_interval = Constraint("numbers from 0 to 1", lambda x: (x >= 0) & (x <= 1))
nonnegative_integer = Constraint("integers of 0 or more", lambda x: _is_integral(x) & (x >= 0), is_discrete=True)
positive_integer = Constraint("integers of 1 or more", lambda x: _is_integral(x) & (x >= 1), is_discrete=True)
real_vector = Constraint("vectors of real numbers", lambda x: _last(x == x), 1)
simplex = Constraint(
    "vectors of numbers of 0 or more with sum 1", lambda x: _last(x >= 0) & ((x.sum(-1) - 1).abs() < 1e-6), 1
)
one_hot = Constraint(
    "vectors with a 1 and else 0", lambda x: _last((x == 0) | (x == 1)) & (x.sum(-1) == 1), 1, is_discrete=True
)
square = Constraint("square matrices", lambda x: _last(x == x, 2) & (x.shape[-1] == x.shape[-2]), 2)
symmetric = Constraint("symmetric matrices", lambda x: _is_symmetric(x), 2)
lower_triangular = Constraint("lower triangular matrices", lambda x: _last(x.tril() == x, 2), 2)
lower_cholesky = Constraint(
    "lower triangular matrices with a diagonal above 0", lambda x: _last(x.tril() == x, 2) & _last(diagonal(x) > 0), 2
)
positive_definite = Constraint("positive definite matrices", lambda x: _is_positive_definite(x), 2)
dependent = Constraint("values that depend on other parameters", lambda x: x == x)
dependent_property = property  # of a support that depends on parameters


def is_dependent(constraint: Constraint) -> bool:
    """Whether the set depends on other parameters, so that it cannot be checked."""
    return constraint is dependent


def diagonal(matrices: Tensor) -> Tensor:
    """The diagonals (..., n) of matrices (..., n, n)."""
    n = matrices.shape[-1]
    return matrices.reshape(*matrices.shape[:-2], n * n)[..., :: n + 1]


def _is_symmetric(x: Tensor) -> Tensor:
    return _last((x - x.transpose(-1, -2)).abs() <= 1e-6 * (1.0 + x.abs()), 2)


def _is_positive_definite(x: Tensor) -> Tensor:
    from gpunet.distributions.triangular import cholesky  # which needs diagonal()

    pivots = diagonal(cholesky(x))  # of other matrices, NaN from the first pivot on that is not positive
    return _is_symmetric(x) & _last(pivots > 0)


def interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    text = f"numbers from {_text(lower_bound)} to {_text(upper_bound)}"
    return Constraint(text, lambda x: (x >= lower_bound) & (x <= upper_bound))


def half_open_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    text = f"numbers from {_text(lower_bound)} to below {_text(upper_bound)}"
    return Constraint(text, lambda x: (x >= lower_bound) & (x < upper_bound))


def greater_than(lower_bound: Any) -> Constraint:
    return Constraint(f"numbers above {_text(lower_bound)}", lambda x: x > lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    return Constraint(f"numbers of at least {_text(lower_bound)}", lambda x: x >= lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    return Constraint(f"numbers below {_text(upper_bound)}", lambda x: x < upper_bound)


def integer_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    text = f"integers from {_text(lower_bound)} to {_text(upper_bound)}"
    return Constraint(text, lambda x: _is_integral(x) & (x >= lower_bound) & (x <= upper_bound), is_discrete=True)


def multinomial(upper_bound: int) -> Constraint:
    return Constraint(
        f"vectors of integers of 0 or more with sum {upper_bound}",
        lambda x: _last(_is_integral(x) & (x >= 0)) & (x.sum(-1) == upper_bound), 1, is_discrete=True,
    )  # fmt: skip


def independent(base_constraint: Constraint, reinterpreted_batch_ndims: int) -> Constraint:
    """The constraint for each element of the last dimensions."""
    return Constraint(
        base_constraint.description, lambda x: _last(base_constraint.check(x), reinterpreted_batch_ndims),
        base_constraint.event_dim + reinterpreted_batch_ndims, base_constraint.is_discrete,
    )  # fmt: skip


def _text(bound: Any) -> str:
    return str(bound) if not isinstance(bound, Tensor) else f"{bound.item()}" if bound.ndim == 0 else "the bounds"
