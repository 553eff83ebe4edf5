"""Running extremes and logarithms of sums along a dimension, in log2(n) launches of each op: scans by doubling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError
from gpunet.ops.arithmetic import logaddexp
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.compare import compare, isnan
from gpunet.ops.convert import clone
from gpunet.ops.creation import arange
from gpunet.ops.dims import normalize_dim
from gpunet.ops.elementwise import where
from gpunet.ops.face import public
from gpunet.ops.index import gather
from gpunet.ops.join import cat
from gpunet.ops.order import ValuesIndices
from gpunet.ops.reduce import promote_0d

__all__ = ["cummax", "cummin", "logcumsumexp"]


def _steps(size: int) -> Iterator[int]:
    """1, 2, 4, ... below ``size``."""
    step = 1
    while step < size:
        yield step
        step *= 2


def _combined(x: Tensor, at: int, step: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """combine(x[i - step], x[i]) at i, and x[i] at the first ``step`` places."""
    rest = x.shape[at] - step
    return cat([x.narrow(at, 0, step), combine(x.narrow(at, 0, rest), x.narrow(at, step, rest))], at)


@promote_0d
def _running_extreme(x: Tensor, function: str, comparison: str, dim: int) -> ValuesIndices:
    """The elements that are not worse than all before them; of equal ones and of several nan the last."""
    at = normalize_dim(dim, x.ndim, function)
    with no_grad():
        shape = [-1 if d == at else 1 for d in range(x.ndim)]
        values, indices = x.detach(), arange(x.shape[at], device=x.device).reshape(shape).expand(x.shape)
        for step in _steps(x.shape[at]):
            rest = x.shape[at] - step
            earlier, later = values.narrow(at, 0, rest), values.narrow(at, step, rest)
            is_later = isnan(later) | (compare(comparison, later, earlier) & ~isnan(earlier))
            values, indices = (
                _combined(t, at, step, lambda a, b, is_later=is_later: where(is_later, b, a))  # type: ignore[misc]
                for t in (values, indices)
            )
    return ValuesIndices(gather(x, at, indices), indices.contiguous())


@public("cummax")
def cummax(input: Any, dim: int) -> ValuesIndices:
    """The maximum of the elements up to each one along ``dim``, and its index, int64; nan is the maximum.

    Returns:
        ``(values, indices)`` in the shape of ``input``; of equal maxima the last one counts, which receives the gradient.
    """
    return _running_extreme(input, "cummax", "greater_equal", dim)


@public("cummin")
def cummin(input: Any, dim: int) -> ValuesIndices:
    """The minimum of the elements up to each one along ``dim``, and its index, as :func:`cummax`."""
    return _running_extreme(input, "cummin", "less_equal", dim)


@public("logcumsumexp")
def logcumsumexp(input: Any, dim: int) -> Tensor:
    """The logarithm of the cumulative sum of e^x along ``dim``, without overflow.

    Raises:
        DtypeError: the tensor is not floating.
    """
    if not is_floating(input.dtype):
        raise DtypeError(f"logcumsumexp: the tensor has dtype {input.dtype}; expected a floating one, as from .float()")
    return _logcumsumexp(input, dim)


@in_accumulator
@promote_0d
def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    at = normalize_dim(dim, x.ndim, "logcumsumexp")
    if x.shape[at] < 2:
        return clone(x)
    for step in _steps(x.shape[at]):
        x = _combined(x, at, step, logaddexp)
    return x
