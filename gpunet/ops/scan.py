"""Products, differences and integrals along a dimension."""

from __future__ import annotations

import itertools
from typing import Any

from gpunet.autograd import Tensor, get_default_dtype, primitive, wrap
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import broadcast_shape, cast, in_accumulator
from gpunet.ops.compare import compare
from gpunet.ops.convert import clone
from gpunet.ops.define import elementwise
from gpunet.ops.dims import normalize_dim
from gpunet.ops.face import as_integer, as_number, public
from gpunet.ops.index import _index
from gpunet.ops.join import cat
from gpunet.ops.pad import _pad_constant
from gpunet.ops.reduce import _sum, _total_dtype, converted, promote_0d
from gpunet.ops.shape import _expand, _reshape

__all__ = ["cumprod", "cumulative_trapezoid", "diff", "trapezoid", "trapz"]

CUMPROD = Shim("cumprod", lambda xp, out, x, *, axis: xp.cumprod(x, axis=axis, out=out))


@primitive
def _cumprod(x, *, axis, dtype=None):
    out = empty(x.array.shape, _total_dtype(x, dtype), x.array)
    CUMPROD(out, x.array, axis=axis)
    return out


def _shifted(x, axis, steps, value):
    """x[i + steps] at i, and ``value`` beyond the ends."""
    widths = tuple([(-steps, steps) if d == axis else (0, 0) for d in range(x.ndim)])
    return _pad_constant(x, widths=widths, value=value)


def _cumprod_derivative(g, x, axis):
    """The product before an element, times the sum s[i] = g[i] + x[i + 1] s[i + 1] of those behind it: no division by zeros.

    The recurrence is evaluated by doubling, in log2(n) steps.
    """
    factor, total = _shifted(x, axis, 1, 0), g
    for steps in itertools.takewhile(lambda n: n < x.array.shape[axis], (2**k for k in range(63))):
        total = total + factor * _shifted(total, axis, steps, 0)
        factor = factor * _shifted(factor, axis, steps, 0)
    return _shifted(_cumprod(x, axis=axis), axis, -1, 1) * total


_cumprod.derivatives(x=_cumprod_derivative)


@elementwise("cumprod", autocast="cuda: float32")
@promote_0d
def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """The cumulative product along ``dim``; an integer or boolean tensor gives int64.

    Args:
        dtype: convert the tensor first.
    """
    return _cumprod(converted(input, dtype), axis=normalize_dim(dim, input.ndim, "cumprod"), dtype=dtype)


def _ends(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """(x[1:], x[:-1]) along a dimension."""
    before = (slice(None),) * at
    return _index(x, pattern=(*before, slice(1, None))), _index(x, pattern=(*before, slice(0, -1)))


@public("diff", takes_complex=True)
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """The n-th differences of neighbours along ``dim``; of booleans, whether they differ.

    Args:
        prepend, append: tensors that stand before and behind the elements.

    Raises:
        ShapeError: the tensor has no dimensions, or what stands before or behind it has other sizes along the others.
        ArgumentError: n is negative.
    """
    count = as_integer("diff", "n", n)
    if not input.ndim:
        raise ShapeError("diff: the tensor has no dimensions; expected at least one")
    if count < 0:
        raise ArgumentError(f"diff: n={count}; expected 0 or more")
    at = normalize_dim(dim, input.ndim, "diff")
    parts = [wrap(x, "diff") for x in (prepend, input, append) if x is not None]
    shape = input.array.shape
    for x in parts:
        if x.ndim != input.ndim or x.array.shape != (*shape[:at], x.array.shape[at], *shape[at + 1 :]):
            raise ShapeError(
                f"diff: prepend or append has shape {tuple(x.shape)}; expected that of the input, {tuple(input.shape)}, but for "
                f"dimension {at}"
            )
    if count == 0:
        return clone(input)
    x = cat(parts, at) if len(parts) > 1 else input
    for _ in range(min(count, x.array.shape[at])):
        x = _difference(x, at)
    return x


def _difference(x: Tensor, at: int) -> Tensor:
    later, earlier = _ends(x, at)
    return compare("not_equal", later, earlier) if x.dtype == bool else later - earlier


def _areas(function: str, y: Tensor, x: Any, dx: Any, dim: Any) -> tuple[Tensor, int]:
    """The areas of the trapezoids along a dimension, and that dimension."""
    if not y.ndim or is_boolean(y.dtype):
        raise DtypeError(f"{function}: y has shape {tuple(y.shape)} and dtype {y.dtype}; expected numbers along a dimension")
    at = normalize_dim(dim, y.ndim, function)
    later, earlier = _ends(y, at)
    if isinstance(dx, bool):
        raise DtypeError(f"{function}: dx={dx}; expected a number")
    if x is None:
        return (later + earlier) * (0.5 * (1.0 if dx is None else as_number(function, "dx", dx))), at
    if dx is not None:
        raise ArgumentError(f"{function}: got both x and dx={dx!r}; pass one of them")
    x = wrap(x, function)
    if x.ndim == 1:
        x = _reshape(x, shape=(x.array.size,) + (1,) * (y.ndim - at - 1))
        x = _reshape(x, shape=(1,) * (y.ndim - x.ndim) + x.array.shape)
    x = _expand(function, x, (1,) * (y.ndim - x.ndim) + x.array.shape) if x.ndim < y.ndim else x
    if x.ndim != y.ndim or x.array.shape[at] != y.array.shape[at]:
        raise ShapeError(f"{function}: y has shape {tuple(y.shape)}, x {tuple(x.shape)}; expected equal sizes along dim={dim}")
    broadcast_shape(function, y.array.shape, x.array.shape)
    right, left = _ends(x, at)
    return (later + earlier) * (right - left) * 0.5, at


def _trapezoid(function: str, y: Any, x: Any, dx: Any, dim: Any, is_cumulative: bool = False) -> Tensor:
    def integral(y: Tensor, x: Any) -> Tensor:
        y = y if is_floating(y.dtype) or is_boolean(y.dtype) else cast(y, dtype=get_default_dtype())
        areas, at = _areas(function, y, x, dx, dim)
        return areas.cumsum(at) if is_cumulative else _sum(areas, axes=(at,), keepdim=False)

    places = None if x is None else wrap(x, function)
    if places is not None and not places.ndim:
        places = _reshape(places, shape=(1,))  # promoted as a vector
    found: Tensor = in_accumulator(integral)(wrap(y, function), places)
    return found


@public(out=False)
def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along ``dim`` by the trapezoidal rule.

    Args:
        x: the places of the values, a vector or a tensor that broadcasts to y; without it they have the distance ``dx``, 1 by
            default.

    Raises:
        ShapeError: x and y have different sizes along the dimension.
    """
    return _trapezoid("trapezoid", y, x, dx, dim)


@public(out=False)
def trapz(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """:func:`trapezoid` under NumPy's older name."""
    return _trapezoid("trapz", y, x, dx, dim)


@public(out=False)
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The cumulative sums of the areas that :func:`trapezoid` adds; one element less along ``dim``."""
    return _trapezoid("cumulative_trapezoid", y, x, dx, dim, is_cumulative=True)
