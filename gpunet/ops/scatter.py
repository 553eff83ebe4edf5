"""Write, add or reduce elements at indices; take elements at flat indices."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, primitive, wrap
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.autograd.data import convert_number
from gpunet.backend import devices
from gpunet.backend.dtypes import int64, is_boolean, is_floating, limits
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, broadcasts_to, cast, in_accumulator, zero_gradient
from gpunet.ops.compare import BOOL, eq
from gpunet.ops.convert import clone
from gpunet.ops.define import elementwise
from gpunet.ops.dims import normalize_dim, normalize_slice_dim
from gpunet.ops.elementwise import _add, _mul, clamp_min, maximum, minimum, where
from gpunet.ops.face import as_factor, as_integer, check_flag, public
from gpunet.ops.index import (
    ARRAY,
    _index,
    _unindex,
    _with_index,
    check_index_along,
    checked_indices,
    from_zero,
    gather_at,
    gather_index,
    index_with,
    normalize_index,
    split_index,
)
from gpunet.ops.index_launches import SITES, Site, flat_positions
from gpunet.ops.join import _cat
from gpunet.ops.reduce import _cumsum
from gpunet.ops.rounding import floor_divide
from gpunet.ops.shape import _expand, _reshape

__all__ = [
    "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "masked_scatter", "put", "scatter", "scatter_add",
    "scatter_reduce", "select_scatter", "slice_scatter", "take", "take_along_dim",
]  # fmt: skip


def write_at(x: Tensor, value: Any, index: tuple[Any, ...], site: Site) -> Tensor:
    """A copy of x with x[index] = value."""
    arrays, pattern = split_index(index)
    return _with_index(x, value, *arrays, pattern=pattern, site=site)


@in_accumulator
def _sum_at(x: Tensor, values: Tensor, index: tuple[Any, ...], site: Site) -> Tensor:
    """x with the values added at an index, which may repeat an element."""
    if is_boolean(x.dtype):
        raise DtypeError(f"{site.name} of a boolean tensor; convert it with .long() or .float() first")
    arrays, pattern = split_index(index)
    return _add(x, _unindex(values, *arrays, pattern=pattern, shape=x.array.shape, site=site))


def _same_dtype(function: str, name: str, value: Any, x: Tensor) -> Tensor:
    value = wrap(value, function)
    if value.dtype != x.dtype:
        raise DtypeError(f"{function}: {name} has dtype {value.dtype}, the tensor {x.dtype}; convert it with .to(x.dtype)")
    return value


# ---- along a dimension, an index for each element ---------------------------------------------------------------------------


def _scatter_arguments(
    function: str, x: Tensor, dim: Any, index: Any, src: Any, takes_number: bool = False
) -> tuple[Tensor, tuple[Any, ...], Any]:
    """The tensor, the index of the written elements and their values; all have the same number of dimensions, at least one.

    The index is () if it has no elements and does not fit: PyTorch takes it nevertheless.
    """
    index, at = checked_indices(index, function, x), normalize_dim(dim, x.ndim, function)
    x = x if x.ndim else _reshape(x, shape=(1,))
    index = index if index.ndim else _reshape(index, shape=(1,))
    shape, sizes = index.array.shape, index.array.shape
    if isinstance(src, Tensor) and (src.ndim or not takes_number):
        src = src if src.ndim else _reshape(src, shape=(1,))
        sizes = src.array.shape
    try:
        check_index_along(function, at, index, x)
        if len(sizes) != len(shape) or any(n > m for n, m in zip(shape, sizes)):
            raise ShapeError(f"{function}: index has shape {shape}, src {sizes}; expected at most the size of src")
    except ShapeError:
        if index.array.size:
            raise
        return x, (), src
    if sizes != shape:
        src = _index(src, pattern=tuple(slice(0, n) for n in shape))
    return x, gather_index(at, from_zero(index, at, x, SITES[function]), x), src


@elementwise("scatter", takes_complex=True)
def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """A copy with elements of ``src`` written at indices along ``dim``: for dim 0, ``out[index[i][j]][j] = src[i][j]``.

    Args:
        index: integers from 0, of at most the size of ``src``.
        src: a tensor of the dtype of ``input``, or a number for all elements.
        value: the number, by keyword.
        reduce: "add" or "multiply" what is written to what is there; None overwrites: of equal indices, one counts.

    Raises:
        ShapeError: the shapes do not fit.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: ``src`` has another dtype, or the index is not of an integer dtype.
    """
    if (src is None) == (value is None):
        raise ArgumentError("scatter: expected either src, a tensor or a number, or value=, a number")
    if reduce not in (None, "add", "multiply"):
        raise ArgumentError(f"scatter: reduce={reduce!r}; expected None, 'add' or 'multiply'")
    values = value if src is None else src
    if reduce == "multiply":
        refuse_complex("scatter with reduce='multiply'", (input,))
    if isinstance(values, Tensor) and values.ndim == 0 and src is None:
        values = values if values.dtype == input.dtype else cast(values, dtype=input.dtype)
    elif isinstance(values, Tensor) or devices.is_array(values):
        values = _same_dtype("scatter", "src", values, input)
    else:
        values = convert_number(values, input.dtype, "scatter", "value", rounds_to_inf=True)
    if reduce is not None:
        if not isinstance(values, Tensor) or src is None:
            values = _filled(values, checked_indices(index, "scatter", input), input)
        return _reduced_at("scatter", input, dim, index, values, {"add": "sum", "multiply": "prod"}[reduce], True)
    x, place, values = _scatter_arguments("scatter", input, dim, index, values, takes_number=src is None)
    return _reshape(write_at(x, values, place, SITES["scatter"]), shape=input.array.shape) if place else clone(input)


def _filled(value: Any, index: Tensor, x: Tensor) -> Tensor:
    """The value, a number or a 0-d tensor, in the shape of the index."""
    if not isinstance(value, Tensor):
        value = make_tensor(constant(devices.move(numpy.asarray(value, x.dtype), x.device)))
    return _expand("scatter", value, index.array.shape)


@elementwise("scatter_add", autocast="cuda: widest", takes_complex=True)
def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Tensor:
    """A copy with elements of ``src`` added at indices along ``dim``: for dim 0, ``out[index[i][j]][j] += src[i][j]``.

    Values of equal indices are added in a fixed order.  Arguments and errors as for :func:`scatter`.
    """
    return _reduced_at("scatter_add", input, dim, index, _same_dtype("scatter_add", "src", src, input), "sum", True)


@elementwise("scatter_reduce")
def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Tensor:
    """A copy with elements reduced to those of ``src`` that are written to them, see :func:`scatter`.

    Args:
        reduce: "sum", "prod", "mean", "amax" or "amin".
        include_self: reduce the element of ``input``, too.

    Raises:
        ArgumentError: ``reduce`` is none of these.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ArgumentError(f"scatter_reduce: reduce={reduce!r}; expected 'sum', 'prod', 'mean', 'amax' or 'amin'")
    check_flag("scatter_reduce", "include_self", include_self)
    src = _same_dtype("scatter_reduce", "src", src, input)
    return _reduced_at("scatter_reduce", input, dim, index, src, reduce, include_self)


def _reduced_at(
    function: str, input: Tensor, dim: Any, index: Any, src: Tensor, reduce: str, include_self: bool
) -> Tensor:
    x, place, src = _scatter_arguments(function, input, dim, index, src)
    if not place:
        return clone(input)
    return _reshape(_reduced(x, src, place, SITES[function], reduce, include_self), shape=input.array.shape)


def _reduced(x: Tensor, src: Tensor, place: tuple[Any, ...], site: Site, reduce: str, include_self: bool) -> Tensor:
    """x with its elements at ``place`` reduced to those of src."""
    if not include_self:
        x = write_at(x, _identity(reduce, x.dtype), place, site)
    if reduce == "sum":
        return _sum_at(x, src, place, site)
    if reduce == "mean":
        return _mean_at(x, src, place, site, include_self)
    return _reduced_runs(x, src, place, site, reduce)


def _identity(reduce: str, dtype: numpy.dtype[Any]) -> Any:
    """The number that does not change a result."""
    if reduce in ("sum", "mean"):
        return convert_number(0, dtype, reduce)
    if reduce == "prod":
        return convert_number(1, dtype, reduce)
    bound = limits(dtype)[0 if reduce == "amax" else 1]
    return bound if not is_floating(dtype) else -math.inf if reduce == "amax" else math.inf


def _mean_at(x: Tensor, src: Tensor, place: tuple[Any, ...], site: Site, include_self: bool) -> Tensor:
    ones = cast(eq(src.detach(), src.detach()), dtype=x.dtype) * 0 + 1
    counts = _sum_at(zero_gradient(x.detach()), ones, place, site)
    counts = counts + 1 if include_self else clamp_min(counts, 1)
    total = _sum_at(x, src, place, site)
    return total / counts if is_floating(x.dtype) else floor_divide(total, counts)


def _combined(values: Tensor, positions: Tensor, combine: Any) -> tuple[Tensor, Tensor]:
    """Combine the values of equal positions, which are sorted; the last value of each run is the result.

    After k rounds a value has taken up those of the 2^k - 1 places before it that belong to its run.

    Returns:
        The values, and which are last of their runs.
    """
    count, shift = positions.array.size, 1
    while shift < count:
        is_same = eq(positions[shift:], positions[:-shift])
        values = _cat(values[:shift], where(is_same, combine(values[:-shift], values[shift:]), values[shift:]), dim=0,
                      starts=(0, shift, count))  # fmt: skip
        shift *= 2
    ones = positions[:1] == positions[:1]
    return values, _cat(positions[1:] != positions[:-1], ones, dim=0, starts=(0, count - 1, count)) if count > 1 else ones


def _reduced_runs(x: Tensor, src: Tensor, place: tuple[Any, ...], site: Site, reduce: str) -> Tensor:
    """Reduce the elements of x with those of src that are written to them: a product, a maximum or a minimum."""
    size, count = x.array.size, src.array.size
    if not count:
        return write_at(x, src, place, site)
    flat, values = _reshape(x, shape=(size,)), _reshape(src, shape=(count,))
    positions = make_tensor(flat_positions(x.array, count, place, site))
    if reduce == "prod":
        result = _written_runs(flat, values, positions, _mul)
        result = result if result.dtype == x.dtype else cast(result, dtype=x.dtype)  # a product of integers is one of int64
    else:
        result = _extreme_at(flat, values, positions, name=reduce)
    return _reshape(result, shape=x.array.shape)


def _written_runs(x: Tensor, values: Tensor, positions: Tensor, combine: Any) -> Tensor:
    """x (size,) combined with the values at positions (count,)."""
    order = positions.argsort(stable=True)
    ascending = _index(positions, order, pattern=(ARRAY,))
    totals, is_last = _combined(_index(values, order, pattern=(ARRAY,)), ascending, combine)
    totals = combine(_index(x, ascending, pattern=(ARRAY,)), totals)
    # the number of the total of each place, from 1, or 0: a total is read there, because adding it to 0 would lose the sign of -0.0
    numbers = make_tensor(constant(devices.move(numpy.arange(1, positions.array.size + 1), x.device)))
    nowhere = cast(zero_gradient(x.detach()), dtype=int64)
    chosen = _sum_at(nowhere, where(is_last, numbers, 0), (ascending,), SITES["scatter_reduce"])
    return where(chosen > 0, _index(totals, clamp_min(chosen - 1, 0), pattern=(ARRAY,)), x)


@primitive(name="scatter_reduce")
def _extreme_at(x, values, positions, *, name):
    """x (size,) with x[positions[j]] = the greatest or least of it and values[j]; NaN wins."""
    combine = maximum if name == "amax" else minimum
    return _written_runs(x.detach(), values.detach(), positions, combine).array


def _shares(x: Tensor, values: Tensor, positions: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which elements of x and which values are the result, and by how many the gradient of each element is divided."""
    of_x = cast(eq(x.detach(), out.detach()), dtype=x.dtype)
    of_values = cast(eq(values.detach(), _index(out.detach(), positions, pattern=(ARRAY,))), dtype=x.dtype)
    return of_x, of_values, _sum_at(of_x, of_values, (positions,), SITES["scatter_reduce"])


def _gradient_of_x(g, x, values, positions, out):
    of_x, _, number = _shares(x, values, positions, out)
    return g / number * of_x


def _gradient_of_values(g, x, values, positions, out):
    _, of_values, number = _shares(x, values, positions, out)
    return _index(g / number, positions, pattern=(ARRAY,)) * of_values


_extreme_at.derivatives(x=_gradient_of_x, values=_gradient_of_values)


# ---- along a dimension, an index for each slice -----------------------------------------------------------------------------


def _slices(function: str, x: Tensor, dim: Any, index: Any) -> tuple[Tensor, tuple[Any, ...], tuple[int, ...]]:
    """The tensor with at least one dimension, the index of its slices, and their shape."""
    at, index = normalize_dim(dim, x.ndim, function), checked_indices(index, function, x)
    if index.ndim > 1:
        raise ShapeError(f"{function}: index has shape {tuple(index.shape)}; expected one dimension")
    x = x if x.ndim else _reshape(x, shape=(1,))
    index = _reshape(index, shape=(index.array.size,))
    if not SITES[function].wraps:
        index = from_zero(index, at, x, SITES[function])
    shape = x.array.shape
    return x, (slice(None),) * at + (index,), (*shape[:at], index.array.size, *shape[at + 1 :])


def _slice_values(function: str, name: str, value: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    value = _same_dtype(function, name, value, x)
    own = value.array.shape
    if own != shape and (own or (1,)) != shape:
        raise ShapeError(f"{function}: {name} has shape {own}; expected {shape}, the slices of the index")
    return _reshape(value, shape=shape)


@elementwise("index_add", takes_complex=True)
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Tensor:
    """A copy with slices of ``source`` added to those at the integers of a 1-d index, times ``alpha``.

    Slices of equal indices are added in a fixed order.

    Raises:
        ShapeError: ``source`` does not have the shape of the slices.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: ``source`` has another dtype, or the index is not of an integer dtype.
    """
    x, place, shape = _slices("index_add", input, dim, index)
    values = _slice_values("index_add", "source", source, x, shape)
    factor = as_factor("index_add", "alpha", alpha, x.dtype)
    values = values if factor == 1 else _mul(values, factor)
    return _reshape(_sum_at(x, values, place, SITES["index_add"]), shape=input.array.shape)


@elementwise("index_reduce")
def index_reduce(input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Tensor:
    """A copy with its slices at the integers of a 1-d index reduced to those of ``source``; errors as for :func:`index_add`.

    Args:
        reduce: "prod", "mean", "amax" or "amin".
        include_self: reduce the slice of ``input``, too.

    Raises:
        ArgumentError: ``reduce`` is none of these.
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise ArgumentError(f"index_reduce: reduce={reduce!r}; expected 'prod', 'mean', 'amax' or 'amin' (index_add sums)")
    check_flag("index_reduce", "include_self", include_self)
    x, place, shape = _slices("index_reduce", input, dim, index)
    if wrap(source).ndim != input.ndim:
        raise ShapeError(
            f"index_reduce: source has shape {tuple(wrap(source).shape)}, the tensor {tuple(input.shape)}; expected one number of "
            "dimensions"
        )
    values, at = _slice_values("index_reduce", "source", source, x, shape), len(place) - 1
    of_slices = _reshape(place[at], shape=(shape[at], *[1] * (x.ndim - 1 - at)))
    place = gather_index(at, _expand("index_reduce", of_slices, shape), x)  # of each element
    return _reshape(_reduced(x, values, place, SITES["index_reduce"], reduce, include_self), shape=input.array.shape)


@elementwise("index_copy", autocast="cpu: widest", takes_complex=True)
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Tensor:
    """A copy with slices of ``source`` written to those at the integers of a 1-d index; errors as for :func:`index_add`."""
    x, place, shape = _slices("index_copy", input, dim, index)
    values = _slice_values("index_copy", "source", source, x, shape)
    return _reshape(write_at(x, values, place, SITES["index_copy"]), shape=input.array.shape)


@elementwise("index_fill", takes_complex=True)
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Tensor:
    """A copy with ``value``, a number or a 0-d tensor, in the slices at the integers of a 1-d index; negative ones count back.

    Raises:
        ShapeError: the value has dimensions.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
    """
    x, place, _ = _slices("index_fill", input, dim, index)
    nowhere = make_tensor(empty(x.array.shape, BOOL, x.array)).fill_(False)
    chosen = write_at(nowhere, True, place, SITES["index_fill"])
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(f"index_fill: value has shape {tuple(value.shape)}; expected a number or a 0-d tensor")
        value = value if value.dtype == x.dtype else cast(value, dtype=x.dtype)
    else:
        value = convert_number(value, x.dtype, "index_fill", "value", rounds_to_inf=True)
    return _reshape(where(chosen, value, x), shape=input.array.shape)


# ---- flat indices -----------------------------------------------------------------------------------------------------------


@public("take", takes_complex=True)
def take(input: Any, index: Any) -> Tensor:
    """The elements at indices of the flattened tensor, in the shape of ``index``; negative ones count back.

    Raises:
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: the index is not int64 or int32.
    """
    index = checked_indices(index, "take", input)
    flat = _reshape(input, shape=(input.array.size,))
    picked = index_with(flat, (_reshape(index, shape=(index.array.size,)),), SITES["take"])
    return _reshape(picked, shape=index.array.shape)


@elementwise("put", takes_complex=True)
def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Tensor:
    """A copy with elements of ``source`` written, or added, at indices of the flattened tensor; negative ones count back.

    Raises:
        ShapeError: index and source have different numbers of elements.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
    """
    check_flag("put", "accumulate", accumulate)
    index, source = checked_indices(index, "put", input), _same_dtype("put", "source", source, input)
    count = index.array.size
    if source.array.size != count:
        raise ShapeError(f"put: index has {count} elements, source {source.array.size}; expected equally many")
    flat, values = _reshape(input, shape=(input.array.size,)), _reshape(source, shape=(count,))
    place = (_reshape(index, shape=(count,)),)
    result = (_sum_at if accumulate else write_at)(flat, values, place, SITES["put"])
    return _reshape(result, shape=input.array.shape)


@public("take_along_dim", takes_complex=True)
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """:func:`gpunet.gather` with an index that broadcasts against the tensor; without ``dim`` of the flattened tensor.

    Raises:
        ShapeError: input and indices have different numbers of dimensions, or do not broadcast.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
    """
    indices = checked_indices(indices, "take_along_dim", input)
    if dim is None:
        input, indices, dim = _reshape(input, shape=(input.array.size,)), _reshape(indices, shape=(indices.array.size,)), 0
    at = normalize_slice_dim(dim, input, "take_along_dim")
    if indices.ndim != input.ndim:
        raise ShapeError(
            f"take_along_dim: indices have shape {tuple(indices.shape)}, the tensor {tuple(input.shape)}; expected the same number "
            "of dimensions"
        )
    sizes, own = list(input.array.shape), list(indices.array.shape)
    length, count = sizes[at], own[at]
    sizes[at] = own[at] = 1
    shape = list(broadcast_shape("take_along_dim", tuple(sizes), tuple(own)))
    x = _expand("take_along_dim", input, (*shape[:at], length, *shape[at + 1 :]))
    index = _expand("take_along_dim", indices, (*shape[:at], count, *shape[at + 1 :]))
    site = SITES["take_along_dim"]
    return gather_at(x, at, from_zero(index, at, x, site), site)


# ---- masks, indices of any kind, slices -------------------------------------------------------------------------------------


@elementwise("masked_scatter", takes_complex=True)
def masked_scatter(input: Any, mask: Any, source: Any) -> Tensor:
    """A copy with the elements where ``mask`` is true replaced by those of ``source``, in their order.

    Args:
        mask: boolean, broadcast against the tensor.
        source: has at least as many elements as the mask is true for, and the dtype of ``input``.

    Raises:
        OutOfRangeError: ``source`` has too few elements; on a GPU as for x[index].
        DtypeError: the mask is not boolean, or ``source`` has another dtype.
    """
    mask, source = wrap(mask, "masked_scatter"), _same_dtype("masked_scatter", "source", source, input)
    if not is_boolean(mask.dtype):
        raise DtypeError(f"masked_scatter: mask of dtype {mask.dtype}; expected booleans, such as input > 0")
    shape = broadcast_shape("masked_scatter", input.array.shape, mask.array.shape)
    x, chosen = broadcast_to(input, shape=shape), broadcast_to(mask, shape=shape)
    flat, count = _reshape(source, shape=(source.array.size,)), source.array.size
    if not count:  # something to read where the mask is false; each true element is out of range
        flat = _cat(flat, make_tensor(empty((1,), input.dtype, input.array)).fill_(0), dim=0, starts=(0, 0, 1))
    numbers = _cumsum(_reshape(chosen, shape=(chosen.array.size,)), axis=0, reverse=False) - (1 if count else 0)
    values = index_with(flat, (where(chosen.reshape(-1), numbers, 0),), SITES["masked_scatter"])
    return where(chosen, _reshape(values, shape=shape), x)


@elementwise("index_put", autocast="cuda: widest", takes_complex=True)
def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """A copy with x[indices] = values, or with the values added there.

    Args:
        indices: a tuple of index tensors, integers from -size or booleans; they index the first dimensions.
        values: a tensor of the dtype of ``input`` that broadcasts to x[indices].

    Raises:
        ShapeError: the values do not broadcast to x[indices].
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
    """
    check_flag("index_put", "accumulate", accumulate)
    if not isinstance(indices, (tuple, list)):
        raise DtypeError(f"index_put: indices has type {type(indices).__name__}; expected a tuple of tensors")
    for item in indices:
        if item is not None and not isinstance(item, Tensor):
            raise DtypeError(f"index_put: an index has type {type(item).__name__}; expected a tensor, or None for all")
    values = _same_dtype("index_put", "values", values, input)
    place = normalize_index(tuple([slice(None) if item is None else item for item in indices]), input)
    shape = index_with(input.detach(), place, SITES["index_put"]).array.shape
    if not broadcasts_to(values.array.shape, shape):
        raise ShapeError(f"index_put: values have shape {tuple(values.shape)}; expected one that broadcasts to {shape}")
    if not accumulate:
        return write_at(input, values, place, SITES["index_put"])
    return _sum_at(input, broadcast_to(values, shape=shape), place, SITES["index_put"])


@public("select_scatter", takes_complex=True)
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Tensor:
    """A copy with ``src`` as the slice ``index`` along ``dim``.

    Raises:
        ShapeError: ``src`` does not have the shape of the slice.
        OutOfRangeError: the index is out of range.
    """
    at, number = normalize_slice_dim(dim, input, "select_scatter"), as_integer("select_scatter", "index", index)
    src = wrap(src, "select_scatter")
    shape = input.array.shape
    if not -shape[at] <= number < shape[at]:
        raise OutOfRangeError(f"select_scatter: index={number} for dimension {dim} of size {shape[at]}; expected one of it")
    if src.array.shape != shape[:at] + shape[at + 1 :]:
        raise ShapeError(f"select_scatter: src has shape {tuple(src.shape)}; expected {shape[:at] + shape[at + 1 :]}")
    return _with_index(input, src, pattern=(slice(None),) * at + (number,))


@public("slice_scatter", takes_complex=True)
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy with ``src`` as the slice start:end:step along ``dim``.

    Raises:
        ShapeError: ``src`` does not have the shape of the slice.
        ArgumentError: the step is not positive.
    """
    at, src = normalize_slice_dim(dim, input, "slice_scatter"), wrap(src, "slice_scatter")
    first, last = (None if n is None else as_integer("slice_scatter", name, n) for name, n in (("start", start), ("end", end)))
    by = as_integer("slice_scatter", "step", step)
    if by < 1:
        raise ArgumentError(f"slice_scatter: step={step}; expected a positive number")
    shape = input.array.shape
    expected = (*shape[:at], len(range(*slice(first, last, by).indices(shape[at]))), *shape[at + 1 :])
    if src.array.shape != expected:
        raise ShapeError(f"slice_scatter: src has shape {tuple(src.shape)}; expected {expected}")
    return _with_index(input, src, pattern=(slice(None),) * at + (slice(first, last, by),))
