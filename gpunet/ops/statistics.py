"""Medians, quantiles, extremes by rank, sums without NaN, counts, covariances, distances."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import accumulator, is_boolean, is_floating, is_integer
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import active, constant
from gpunet.ops.arrange import roll
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.compare import compare, eq, isnan, ne
from gpunet.ops.dims import Dims, normalize_dim, reduced_dims
from gpunet.ops.elementwise import clamp_min, where
from gpunet.ops.face import as_integer, as_number, public
from gpunet.ops.index import gather
from gpunet.ops.matmul import _matmul
from gpunet.ops.norm import norm
from gpunet.ops.order import ValuesIndices, _argsort, _extreme, argmax
from gpunet.ops.reduce import _sum, check_floating, converted, promote_0d
from gpunet.ops.running import cummax
from gpunet.ops.shape import _reshape, squeeze, unsqueeze

__all__ = [
    "aminmax", "corrcoef", "count_nonzero", "cov", "dist", "kthvalue", "median", "mode", "msort", "nanmean", "nanmedian",
    "nanquantile", "nansum", "quantile",
]  # fmt: skip


# ---- medians and ranks --------------------------------------------------------------------------------------------------------


def _middle(xp: Any, out: Any, x: Any, *, skips_nan: bool) -> None:
    ascending = xp.sort(x.reshape(-1))  # NaN comes last
    count = ascending.size - (xp.isnan(ascending).sum() if skips_nan else 0)
    value = xp.take(ascending, xp.maximum(count - 1, 0) // 2)
    xp.copyto(out, value if skips_nan else xp.where(xp.isnan(ascending[-1]), ascending[-1], value))


MIDDLE = Shim("median", _middle, reads_values=True)


@primitive
def _median(x, *, skips_nan):
    """The lower median of all elements; equal elements share the gradient."""
    out = empty((), x.dtype, x.array)
    MIDDLE(out, x.array, skips_nan=skips_nan)
    return out


def _median_derivative(g, x, out):
    chosen = cast(eq(x, out) | (isnan(x) & isnan(out)), dtype=g.dtype)
    return chosen * (g / _sum(chosen, axes=tuple(range(x.ndim)), keepdim=False))


_median.derivatives(x=_median_derivative)


def _median_of(function: str, x: Tensor, dim: Any, keepdim: bool, skips_nan: bool) -> Any:
    if is_boolean(x.dtype):
        raise DtypeError(f"{function} of a boolean tensor; convert it with .long() or .float() first")
    if dim is not None:
        return _median_along(x, function, dim, keepdim, skips_nan)
    if keepdim:
        raise ArgumentError(f"{function}: keepdim=True needs dim=")
    if x.array.size:
        return _median(x, skips_nan=skips_nan)
    if not is_floating(x.dtype):
        raise OutOfRangeError(f"{function}: the tensor has shape {tuple(x.shape)}; expected at least one element")
    return _sum(x, axes=tuple(range(x.ndim)), keepdim=False) * math.nan


@promote_0d
def _median_along(x: Tensor, function: str, dim: Any, keepdim: bool, skips_nan: bool) -> ValuesIndices:
    at = normalize_dim(dim, x.ndim, function)
    size = x.array.shape[at]
    if not size:
        raise OutOfRangeError(f"{function}: dimension {dim} of shape {tuple(x.shape)} is empty; expected at least one element")
    order = _argsort(x.detach(), at, False)
    if skips_nan:
        counts = _sum(~isnan(x.detach()), axes=(at,), keepdim=True)
        indices = gather(order, at, clamp_min(counts - 1, 0) // 2)
    else:
        indices = order[(slice(None),) * at + (slice((size - 1) // 2, (size - 1) // 2 + 1),)]
        if is_floating(x.dtype):
            indices = where(isnan(x.detach()).any(at, True), argmax(x.detach(), at, True), indices)
    return _picked(x, at, indices, keepdim)


def _picked(x: Tensor, at: int, indices: Tensor, keepdim: bool) -> ValuesIndices:
    values = gather(x, at, indices)
    return ValuesIndices(values, indices) if keepdim else ValuesIndices(squeeze(values, at), squeeze(indices, at))


@public("median")
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) of the lower medians along ``dim``; NaN if there is one.

    Equal elements share the gradient of the median of all elements.

    Raises:
        OutOfRangeError: the dimension is empty.
    """
    return _median_of("median", input, dim, keepdim, skips_nan=False)


@public("nanmedian")
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """:func:`median` of the numbers that are not NaN; NaN if there is none."""
    return _median_of("nanmedian", input, dim, keepdim, skips_nan=True)


@promote_0d
def _kth(x: Tensor, k: int, dim: Any, keepdim: bool) -> ValuesIndices:
    at = normalize_dim(dim, x.ndim, "kthvalue")
    if not 1 <= k <= x.array.shape[at]:
        raise OutOfRangeError(f"kthvalue: k={k}; expected 1 .. {x.array.shape[at]}, the size of dimension {dim}")
    return _picked(x, at, _argsort(x.detach(), at, False)[(slice(None),) * at + (slice(k - 1, k),)], keepdim)


@public("kthvalue")
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The k-th smallest elements along ``dim``, from 1: (values, indices); NaN counts as the largest.

    Raises:
        OutOfRangeError: k is 0 or larger than the dimension.
    """
    found: ValuesIndices = _kth(input, as_integer("kthvalue", "k", k), dim, keepdim)
    return found


@promote_0d
def _mode_along(x: Tensor, dim: Any, keepdim: bool) -> ValuesIndices:
    at = normalize_dim(dim, x.ndim, "mode")
    size = x.array.shape[at]
    if not size:
        raise OutOfRangeError(f"mode: dimension {dim} of shape {tuple(x.shape)} is empty; expected at least one element")
    order = _argsort(x.detach(), at, False)
    ascending = gather(x.detach(), at, order)
    place = make_tensor(constant(devices.move(numpy.arange(size), x.device))).reshape(-1, *[1] * (x.ndim - 1 - at))
    is_first = ne(ascending, roll(ascending, 1, at)) | eq(place, 0)
    lengths = place - cummax(where(is_first, place, 0), at).values  # of the runs of equal elements so far, less one
    return _picked(x, at, gather(order, at, argmax(lengths, at, True)), keepdim)


@public("mode")
def mode(input: Any, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The most frequent elements along ``dim``: (values, indices), the least of equally frequent ones, at its last place.

    PyTorch leaves open which place it returns.  NaN equals no element.

    Raises:
        OutOfRangeError: the dimension is empty.
    """
    found: ValuesIndices = _mode_along(input, dim, keepdim)
    return found


@public("msort")
def msort(input: Any) -> Tensor:
    """The elements sorted along the first dimension, ascending."""
    if not input.ndim:
        raise ShapeError("msort: the tensor has no dimensions; expected at least one")
    return gather(input, 0, _argsort(input.detach(), 0, False))


# ---- quantiles ----------------------------------------------------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile_of(
    function: str, input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: Any, skips_nan: bool
) -> Tensor:  # fmt: skip
    x = check_floating(input, function)
    if interpolation not in _INTERPOLATIONS:
        raise ArgumentError(f"{function}: interpolation={interpolation!r}; expected one of {', '.join(_INTERPOLATIONS)}")
    fractions = _fractions(function, q, x)
    whole = dim is None
    lines = _reshape(x, shape=(x.array.size,)) if whole or not x.ndim else x
    at = 0 if whole else normalize_dim(dim, x.ndim, function)
    if not x.array.size:
        raise OutOfRangeError(f"{function}: the tensor has shape {tuple(x.shape)}; expected at least one element")
    found: Tensor = in_accumulator(_between)(
        lines, at=at, q=fractions, interpolation=interpolation, skips_nan=skips_nan
    )
    if keepdim:
        kept = (1,) * x.ndim if whole else tuple([1 if d == at else n for d, n in enumerate(x.array.shape)])
        found = _reshape(found, shape=(found.array.shape[0], *kept))
    return squeeze(found, 0) if fractions.ndim == 0 or not (isinstance(q, Tensor) and q.ndim) else found


def _fractions(function: str, q: Any, x: Tensor) -> Tensor:
    if isinstance(q, Tensor):
        if q.ndim > 1 or q.dtype != x.dtype:
            raise DtypeError(f"{function}: q is {q.dtype} of shape {tuple(q.shape)}; expected a number, or a vector of {x.dtype}")
        fractions = _reshape(q.detach(), shape=(q.array.size,))
        read = active.tape is None and fractions.array.size and x.device.type == "cpu"
        low, high = (float(fractions.min()), float(fractions.max())) if read else (0.0, 1.0)
    else:
        if isinstance(q, bool) or not isinstance(q, (int, float, numpy.number)):
            raise DtypeError(f"{function}: q={q!r} has type {type(q).__name__}; expected a number or a tensor")
        low = high = float(q)
        fractions = make_tensor(constant(devices.move(numpy.array([low], accumulator(x.dtype)), x.device)))
    if not (low >= 0.0 and high <= 1.0):
        raise ArgumentError(f"{function}: q={q!r}; expected numbers from 0 to 1")
    return fractions


def _between(x: Tensor, *, at: int, q: Tensor, interpolation: str, skips_nan: bool) -> Tensor:
    """The quantiles along a dimension, (number of q, the other dimensions)."""
    ascending = gather(x, at, _argsort(x.detach(), at, False)).movedim(at, 0)
    missing = isnan(ascending.detach())
    size = ascending.array.shape[0]
    column = _reshape(q if q.dtype == x.dtype else cast(q, dtype=x.dtype), shape=(q.array.size,) + (1,) * (x.ndim - 1))
    if skips_nan:
        last = clamp_min(_sum(~missing, axes=(0,), keepdim=True) - 1, 0)
        ranks = column * cast(last, dtype=x.dtype)
    else:
        ranks = where(missing.any(0, True), size - 1.0, column * (size - 1))  # NaN is sorted last, and receives the gradient
    if interpolation != "linear" and interpolation != "midpoint":
        ranks = {"lower": ranks.floor, "higher": ranks.ceil, "nearest": ranks.round}[interpolation]()
    low = ranks.floor()
    weight = ranks - low if interpolation == "linear" else cast(compare("greater", ranks, low), dtype=x.dtype) * 0.5
    below = gather(ascending, 0, low.long())
    result = below
    if interpolation in ("linear", "midpoint"):
        result = below.lerp(gather(ascending, 0, ranks.ceil().long()), weight)
    return result


@public("quantile", autocast="cpu: float32")
def quantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
    """The quantiles along ``dim``, None being all elements; NaN where there is one.

    Args:
        q: a number from 0 to 1, or a vector of them, which gives a first dimension.
        interpolation: between the neighbours of a quantile: "linear", "lower", "higher", "midpoint" or "nearest".

    Raises:
        ArgumentError: q is not between 0 and 1, or the interpolation is unknown.
        DtypeError: the tensor is not floating, or q has another dtype.
    """
    return _quantile_of("quantile", input, q, dim, keepdim, interpolation, skips_nan=False)


@public("nanquantile", autocast="cpu: float32")
def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """:func:`quantile` of the numbers that are not NaN; NaN if there is none."""
    return _quantile_of("nanquantile", input, q, dim, keepdim, interpolation, skips_nan=True)


# ---- reductions ---------------------------------------------------------------------------------------------------------------


class MinMax(NamedTuple):
    """Return type of aminmax."""

    min: Tensor
    max: Tensor


@public("aminmax")
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(minimum, maximum) of all elements, or along ``dim``; tied elements share the gradient equally."""
    axes = tuple(range(input.ndim)) if dim is None else (normalize_dim(dim, input.ndim, "aminmax"),) if input.ndim else ()
    if dim is not None:
        normalize_dim(dim, input.ndim, "aminmax")
    return MinMax(*(_extreme(input, name=name, axes=axes, keepdim=keepdim) for name in ("amin", "amax")))


@public("count_nonzero", out=False, takes_complex=True)
def count_nonzero(input: Any, dim: Dims = None) -> Tensor:
    """The number of nonzero elements over ``dim`` (None: all dimensions); int64."""
    return _sum(compare("not_equal", input.detach(), 0), axes=reduced_dims(input, dim, "count_nonzero"), keepdim=False)


@public("nansum")
def nansum(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim`` of the numbers that are not NaN; an integer or boolean tensor gives int64.

    Args:
        dtype: convert the tensor first.
    """
    x = converted(input, dtype)
    x = where(isnan(x), 0.0, x) if is_floating(x.dtype) else x
    return _sum(x, axes=reduced_dims(x, dim, "nansum"), keepdim=keepdim, dtype=dtype)


@public("nanmean")
def nanmean(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim`` of the numbers that are not NaN; NaN if there is none."""
    x = check_floating(converted(check_floating(input, "nanmean"), dtype), "nanmean")
    axes = reduced_dims(x, dim, "nanmean")
    return in_accumulator(_mean_without_nan)(x, axes, keepdim)


def _mean_without_nan(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    missing = isnan(x.detach())
    return _sum(where(missing, 0.0, x), axes=axes, keepdim=keepdim) / _sum(~missing, axes=axes, keepdim=keepdim)


# ---- covariances, distances ---------------------------------------------------------------------------------------------------


def _covariance(x: Tensor, weights: Tensor | None, scale: Tensor | None, correction: int) -> Tensor:
    """The covariance matrix of x (variables, observations); ``scale`` is the share of the weights that is no frequency."""
    total: Any = x.array.shape[1] if weights is None else _sum(weights, axes=(0,), keepdim=False)
    mean = _sum(x if weights is None else x * weights, axes=(1,), keepdim=True) / total
    centred = x - mean
    product = _matmul(centred if weights is None else centred * weights, centred.mT)
    less: Any = correction
    if scale is not None and weights is not None:
        less = _sum(weights * scale, axes=(0,), keepdim=False) * correction / total
    factor = total - less
    return product / (clamp_min(factor, 0) if isinstance(factor, Tensor) else max(factor, 0))


def _observations(function: str, x: Tensor) -> Tensor:
    if x.ndim > 2:
        raise ShapeError(f"{function}: the tensor has shape {tuple(x.shape)}; expected (variables, observations)")
    if is_boolean(x.dtype):
        raise DtypeError(f"{function} of a boolean tensor; convert it with .float() first")
    x = x if is_floating(x.dtype) else x * 1.0
    return _reshape(x, shape=x.array.shape if x.ndim == 2 else (1, x.array.size))


@public("cov", out=False, autocast="half")
def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """The covariance matrix of variables, the rows of ``input``, over observations, its columns.

    Args:
        correction: is subtracted from the number of observations.
        fweights: how often each observation counts; integers.
        aweights: the weights of observations; floating.

    Raises:
        ShapeError: the tensor has more than two dimensions, or the weights are no vector of the observations.
    """
    x, less = _observations("cov", input), as_integer("cov", "correction", correction)
    count = x.array.shape[1]
    frequencies, scale = (None if w is None else wrap(w, "cov") for w in (fweights, aweights))
    for w in (frequencies, scale):
        if w is not None and w.array.shape != (count,):
            raise ShapeError(f"cov: weights have shape {tuple(w.shape)}; expected ({count},), the number of observations")
        if w is not None and active.tape is None and w.array.size and w.device.type == "cpu":
            if not float(w.min()) >= 0 or float(w.max()) == 0:  # NaN as well
                raise ArgumentError(f"cov: weights from {float(w.min())} to {float(w.max())}; expected numbers >= 0, not all 0")
    if frequencies is not None and not is_integer(frequencies.dtype):
        raise DtypeError(f"cov: fweights has dtype {frequencies.dtype}; expected integers")
    if scale is not None and not is_floating(scale.dtype):
        raise DtypeError(f"cov: aweights has dtype {scale.dtype}; expected a floating dtype")
    if count == 0 and (frequencies is not None or scale is not None):
        raise ShapeError("cov: no observation for the weights; expected at least one")
    frequencies = None if frequencies is None else cast(frequencies, dtype=x.dtype)
    weights = scale if frequencies is None else frequencies if scale is None else frequencies * scale
    result: Tensor = in_accumulator(_covariance)(x, weights, scale, less)
    return result if result.array.size > 1 else squeeze(result)


@public("corrcoef", out=False, autocast="half")
def corrcoef(input: Any) -> Tensor:
    """The correlation matrix of variables, the rows of ``input``, over observations, its columns; limited to [-1, 1].

    Raises:
        ShapeError: the tensor has more than two dimensions.
    """
    x = _observations("corrcoef", input)
    result: Tensor = in_accumulator(_correlation)(x)
    return result if result.array.size > 1 else squeeze(result)


def _correlation(x: Tensor) -> Tensor:
    covariance = _covariance(x, None, None, 1)
    deviation = covariance.diagonal().sqrt()
    return (covariance / unsqueeze(deviation, 1) / deviation).clamp(-1.0, 1.0)


@public("dist", out=False, autocast="cuda: float32", takes_complex=True)
def dist(input: Any, other: Any, p: float = 2) -> Tensor:
    """The p-norm of input - other, as one vector; the tensors broadcast."""
    order = as_number("dist", "p", p)
    return in_accumulator(lambda a, b: norm(a - b, order))(input, wrap(other, "dist"))
