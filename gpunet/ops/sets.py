"""Places of elements: nonzero ones, distinct ones, places in a sorted sequence, counts.

The shapes of most results depend on values: they break the graph of a captured step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices, dtypes
from gpunet.backend.dtypes import int32, int64, is_half
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import constant, graph_break_on_read
from gpunet.ops.broadcast import cast, result_dtype
from gpunet.ops.compare import BOOL
from gpunet.ops.dims import MAX_ELEMENTS, normalize_dim
from gpunet.ops.elementwise import clamp, where
from gpunet.ops.face import as_integer, as_number, public
from gpunet.ops.index import index_select
from gpunet.ops.join import cat
from gpunet.ops.reduce import check_floating
from gpunet.ops.scatter import index_add
from gpunet.ops.shape import _reshape

__all__ = [
    "argwhere", "bincount", "bucketize", "histc", "isin", "nonzero", "nonzero_static", "repeat_interleave", "searchsorted",
    "unique", "unique_consecutive",
]  # fmt: skip


# ---- nonzero elements -----------------------------------------------------------------------------------------------------------


def _places(function: str, x: Tensor) -> tuple[Tensor, ...]:
    """The indices of the nonzero elements: an int64 tensor for each dimension."""
    graph_break_on_read(f"{function}(), whose shape depends on values")
    array = x.array if x.ndim else x.array.reshape(1)
    return tuple(make_tensor(index) for index in devices.module(array).nonzero(array))


def _rows_of_places(function: str, x: Tensor) -> Tensor:
    places = _places(function, x)
    count = places[0].array.size
    if not x.ndim:
        return make_tensor(empty((count, 0), int64, x.array))
    xp = devices.module(x.array)
    return make_tensor(xp.stack([index.array for index in places], axis=1))


@public("nonzero")
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices (n, ndim) of the nonzero elements, int64; with ``as_tuple`` a vector for each dimension."""
    return _places("nonzero", input) if as_tuple else _rows_of_places("nonzero", input)


@public("argwhere", out=False)
def argwhere(input: Any) -> Tensor:
    """The indices (n, ndim) of the nonzero elements, int64."""
    return _rows_of_places("argwhere", input)


@public("nonzero_static")
def nonzero_static(input: Any, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` rows of :func:`nonzero`; where there are fewer, rows of ``fill_value``: (size, ndim).

    Raises:
        ArgumentError: size is negative.
    """
    count, fill = as_integer("nonzero_static", "size", size), as_integer("nonzero_static", "fill_value", fill_value)
    if count < 0:
        raise ArgumentError(f"nonzero_static: size={count}; expected 0 or more")
    rows = _rows_of_places("nonzero_static", input)[:count]
    missing = rows.new_full((count - len(rows), input.ndim), fill)
    return cat([rows, missing]) if len(missing) else rows


# ---- distinct elements --------------------------------------------------------------------------------------------------------


def _distinct_dim(function: str, x: Tensor, dim: Any) -> int:
    """The dimension whose slices are compared."""
    if not x.ndim or 0 in x.array.shape:
        raise ShapeError(f"{function}: dim={dim} of a tensor of shape {tuple(x.shape)}; expected one with elements")
    return normalize_dim(dim, x.ndim, function)


def _selected(parts: list[Tensor], flags: tuple[bool, bool]) -> Any:
    """The first tensor, and those of the others that are asked for."""
    found = [parts[0], *(x for x, flag in zip(parts[1:], flags) if flag)]
    return found[0] if len(found) == 1 else tuple(found)


@public("unique", out=False)
def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The distinct elements, ascending, or along ``dim`` the distinct slices, in lexicographic order.

    Args:
        sorted: has no effect: the elements are always sorted.
        return_inverse: also return the place of each element, or slice, in the result; int64.
        return_counts: also return how often each occurs; int64.

    Returns:
        The elements, or a tuple of them, the places and the counts.
    """
    graph_break_on_read("unique(), whose shape depends on values")
    array = (cast(input.detach(), dtype=dtypes.float32) if is_half(input.dtype) else input.detach()).array
    axis = None if dim is None else _distinct_dim("unique", input, dim)
    xp = devices.module(array)
    array = array if array.ndim else array.reshape(1)
    values, inverse, counts = xp.unique(array, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    result = make_tensor(values)
    shape = input.array.shape if dim is None else (array.shape[axis or 0],)
    parts = [result if result.dtype == input.dtype else cast(result, dtype=input.dtype)]
    parts += [make_tensor(x.reshape(s)) for x, s in ((inverse, shape), (counts, counts.shape))]
    return _selected(parts, (return_inverse, return_counts))


@public("unique_consecutive", out=False)
def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements, or the slices along ``dim``, without those that equal the one before.

    Args:
        return_inverse: also return the place of each element, or slice, in the result; int64.
        return_counts: also return how many equal ones each stands for; int64.
    """
    graph_break_on_read("unique_consecutive(), whose shape depends on values")
    x = input.detach()
    x = x if dim is not None else _reshape(x, shape=(x.array.size,))
    at = 0 if dim is None else _distinct_dim("unique_consecutive", x, dim)
    size = x.array.shape[at]
    before = (slice(None),) * at
    differs = x[(*before, slice(1, None))] != x[(*before, slice(0, -1))] if size else x != x
    rest = tuple(d for d in range(x.ndim) if d != at)
    is_new = differs.any(rest) if rest else differs
    first = make_tensor(empty((min(size, 1),), BOOL, x.array)).fill_(True)
    starts = _cat_flags(first, is_new)
    places = _places("unique_consecutive", starts)[0]
    values = index_select(x, at, places)
    inverse = starts.cumsum(0) - 1
    ends = _appended(places, size)
    counts = ends[1:] - ends[:-1]
    shape = input.array.shape if dim is None else (size,)
    return _selected([values, _reshape(inverse, shape=shape), counts], (return_inverse, return_counts))


def _cat_flags(first: Tensor, rest: Tensor) -> Tensor:
    xp = devices.module(first.array)
    return make_tensor(xp.concatenate([first.array, rest.array]))


def _appended(places: Tensor, size: int) -> Tensor:
    xp = devices.module(places.array)
    return make_tensor(xp.concatenate([places.array, xp.asarray([size])]))


@public(out=False, names={"element": "elements", "test_element": "test_elements"})
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is among ``test_elements``: a boolean tensor of the shape of ``elements``.

    Args:
        assume_unique: has no effect on the result.
        invert: whether it is not.
    """
    x, tested = wrap(elements, "isin"), wrap(test_elements, "isin")
    dtype = result_dtype(x, tested)
    dtype = dtypes.accumulator(dtype)
    x, tested = (v.detach() if v.dtype == dtype else cast(v.detach(), dtype=dtype) for v in (x, tested))
    out = empty(x.array.shape, BOOL, x.array)
    ISIN(out, x.array, tested.array, invert=invert)
    return make_tensor(out)


ISIN = Shim("isin", lambda xp, out, x, tested, *, invert: xp.copyto(out, xp.isin(x, tested, invert=invert)), reads_values=True)


# ---- sorted sequences -----------------------------------------------------------------------------------------------------------


def _search(xp: Any, out: Any, sequence: Any, values: Any, *, side: str) -> None:
    if sequence.ndim == 1:
        xp.copyto(out, xp.searchsorted(sequence, values, side=side))
        return
    size = sequence.shape[-1]
    low, high = xp.zeros(values.shape, out.dtype), xp.full(values.shape, size, out.dtype)
    for _ in range(size.bit_length()):  # all rows at once, as far as the last
        middle = (low + high) // 2
        found = xp.take_along_axis(sequence, xp.minimum(middle, size - 1), -1)
        is_before = ~(found >= values if side == "left" else found > values) & (low < high)
        low, high = xp.where(is_before, middle + 1, low), xp.where(is_before, high, middle)
    xp.copyto(out, low)


SEARCH = Shim("searchsorted", _search, reads_values=True)


def _searched(function: str, sequence: Tensor, values: Any, out_int32: bool, side: str) -> Tensor:
    is_number = not isinstance(values, Tensor) and not devices.is_array(values) and not isinstance(values, (list, tuple))
    x = wrap(values, function)
    if is_number or x.device != sequence.device:
        x = x.to(sequence.device)
    rows = sequence.array.shape[:-1]
    if sequence.ndim > 1 and (x.ndim != sequence.ndim or x.array.shape[:-1] != rows):
        raise ShapeError(
            f"{function}: the sequence has shape {tuple(sequence.shape)}, the values {tuple(x.shape)}; expected a vector, or equal "
            "dimensions but for the last"
        )
    dtype = dtypes.accumulator(result_dtype(sequence, x))
    arrays = [(v.detach() if v.dtype == dtype else cast(v.detach(), dtype=dtype)).array for v in (sequence, x)]
    out = empty(x.array.shape, int64, x.array)
    SEARCH(out, *arrays, side=side)
    return cast(make_tensor(out), dtype=int32) if out_int32 else make_tensor(out)


@public()
def searchsorted(
    sorted_sequence: Any, input: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None, sorter: Any = None
) -> Tensor:  # fmt: skip
    """The indices at which values would be inserted to keep sequences sorted, int64.

    Args:
        sorted_sequence: a vector, or (..., n) with the leading dimensions of ``input``.
        input: the values, (..., m), or a number.
        out_int32: return int32.
        right: behind equal elements, not before them.
        side: "left" or "right", the same.
        sorter: the indices that sort ``sorted_sequence``, if it is not sorted.

    Raises:
        ShapeError: the leading dimensions differ.
    """
    sequence = wrap(sorted_sequence, "searchsorted")
    if not sequence.ndim:
        raise ShapeError("searchsorted: sorted_sequence has no dimensions; expected at least one")
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ArgumentError(f"searchsorted: side={side!r}, right={right}; expected 'left' or 'right', or right alone")
    if sorter is not None:
        if wrap(sorter).shape != sequence.shape:
            raise ShapeError(f"searchsorted: sorter has shape {tuple(wrap(sorter).shape)}; expected {tuple(sequence.shape)}")
        sequence = sequence.gather(-1, sorter)
    return _searched("searchsorted", sequence, input, out_int32, "right" if right or side == "right" else "left")


@public()
def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket of each value, between sorted ``boundaries``; int64.

    Args:
        boundaries: a vector.
        out_int32: return int32.
        right: a value that equals a boundary is in the bucket behind it.

    Raises:
        ShapeError: ``boundaries`` is no vector.
    """
    edges = wrap(boundaries, "bucketize")
    if edges.ndim != 1:
        raise ShapeError(f"bucketize: boundaries has shape {tuple(edges.shape)}; expected a vector")
    return _searched("bucketize", edges, input, out_int32, "right" if right else "left")


# ---- counts -------------------------------------------------------------------------------------------------------------------


@public("bincount", out=False)
def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 occurs in a vector of integers, int64; with ``weights``, the sums of their weights.

    Args:
        weights: of the shape of ``input``; float32 ones give float32, others float64.
        minlength: the least number of counts.

    Raises:
        ShapeError: the tensor is no vector, the weights have another shape, or a number is too large to count up to it.
        DtypeError: the tensor is not of integers.
        OutOfRangeError: a number is negative.
    """
    graph_break_on_read("bincount(), whose shape depends on values")
    least = as_integer("bincount", "minlength", minlength)
    if input.ndim != 1:
        raise ShapeError(f"bincount: the tensor has shape {tuple(input.shape)}; expected a vector")
    if not dtypes.is_integer(input.dtype):
        raise DtypeError(f"bincount: the tensor has dtype {input.dtype}; expected integers")
    if least < 0:
        raise ArgumentError(f"bincount: minlength={least}; expected 0 or more")
    index = input if input.dtype == int64 else cast(input, dtype=int64)
    size = least
    if input.array.size:
        if (low := int(index.min().item())) < 0:
            raise OutOfRangeError(f"bincount: the number {low} is negative; expected numbers from 0")
        size = max(least, int(index.max().item()) + 1)
    if size > MAX_ELEMENTS:
        raise ShapeError(f"bincount: {size} counts; expected at most {MAX_ELEMENTS}")
    values = None if weights is None else wrap(weights, "bincount").detach()
    if values is None or not input.array.size:
        values = make_tensor(empty(input.array.shape, int64, input.array)).fill_(1)
    else:
        if values.shape != input.shape:
            raise ShapeError(f"bincount: weights have shape {tuple(values.shape)}; expected {tuple(input.shape)}")
        values = values if values.dtype in dtypes.NATIVE else cast(values, dtype=dtypes.float64)
    return index_add(make_tensor(empty((size,), values.dtype, input.array)).fill_(0), 0, index, values)


@public("histc")
def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements are in each of ``bins`` equal intervals from ``min`` to ``max``, in the dtype of ``input``.

    The last interval contains ``max``.  Elements outside, and NaN, are not counted.

    Args:
        min, max: if they are equal, they are the least and the greatest element; if these are equal, too, 1 less and 1 more.

    Returns:
        (bins,), without a graph.

    Raises:
        DtypeError: the tensor is not floating.
        ArgumentError: ``bins`` is not positive, ``max`` is less than ``min``, or an end is not finite.
    """
    count, low, high = as_integer("histc", "bins", bins), as_number("histc", "min", min), as_number("histc", "max", max)
    x = check_floating(input, "histc").detach().reshape(-1)
    x = cast(x, dtype=dtypes.accumulator(x.dtype)) if is_half(x.dtype) else x
    if count < 1:
        raise ArgumentError(f"histc: bins={count}; expected 1 or more")
    if low == high and x.array.size:
        low, high = x.min().item(), x.max().item()
    if low == high:
        low, high = low - 1, high + 1
    with numpy.errstate(over="ignore", invalid="ignore"):
        width = float(numpy.subtract(high, low, dtype=x.dtype))
    if not (low < high and math.isfinite(width)):
        raise ArgumentError(
            f"histc: the range is from {low} to {high}; expected min < max, and a finite difference: pass min= and max="
        )
    is_inside = (x >= low) & (x <= high)
    place = where(is_inside, (x - low) * count / width, 0)  # rounded as PyTorch rounds it
    counts = make_tensor(empty((count,), int64, x.array)).fill_(0)
    counts = index_add(counts, 0, clamp(cast(place, dtype=int64), 0, count - 1), cast(is_inside, dtype=int64))
    return cast(counts, dtype=input.dtype)


@public(out=False, takes_complex=True)
def repeat_interleave(input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element, or each slice along ``dim``, repeated in place; repeat_interleave(repeats) repeats the numbers 0, 1, ...

    Args:
        repeats: a number, or a vector of one for each slice.
        dim: None flattens the tensor.
        output_size: the sum of the repeats, so that the host need not read them.

    Raises:
        ShapeError: there are not as many repeats as slices.
        ArgumentError: a number is negative, or ``output_size`` is not the sum.
    """
    if repeats is not None:
        return _repeated(input, repeats, dim, output_size=output_size)
    if input.ndim != 1 or not dtypes.is_integer(input.dtype):
        raise ShapeError(
            f"repeat_interleave: {input.dtype} repeats of shape {tuple(input.shape)}; expected a vector of integers"
        )
    return _repeated_places(input, input.array.size, output_size)


def _repeated(input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    name = "repeat_interleave"
    x = _reshape(input, shape=(input.array.size,)) if dim is None else input
    if not x.ndim:
        raise ShapeError(f"{name}: dim={dim} for a tensor without dimensions; expected at least one")
    at = normalize_dim(0 if dim is None else dim, x.ndim, name)
    output_size = None if output_size is None else as_integer(name, "output_size", output_size)
    size = x.array.shape[at]
    if not isinstance(repeats, Tensor):
        count = as_integer(name, "repeats", repeats)
        if count < 0:
            raise ArgumentError(f"{name}: repeats={count}; expected 0 or more")
        index = make_tensor(constant(devices.move(numpy.repeat(numpy.arange(size), count), x.device)))
        if output_size is not None and output_size != size * count:
            raise ArgumentError(f"{name}: output_size={output_size}; expected {size * count}, the sum of the repeats")
        return index_select(x, at, index)
    if repeats.ndim > 1 or repeats.array.size not in (1, size) or not dtypes.is_integer(repeats.dtype):
        raise ShapeError(
            f"{name}: repeats have shape {tuple(repeats.shape)} and dtype {repeats.dtype}; expected one integer, or {size}"
        )
    return index_select(x, at, _repeated_places(repeats, size, output_size))


# the method needs repeats: x.repeat_interleave() does not repeat numbers
_repeated.__name__ = _repeated.__qualname__ = "repeat_interleave"
public("repeat_interleave", out=False, takes_complex=True)(_repeated)


def _repeated_places(repeats: Tensor, size: int, output_size: Any) -> Tensor:
    """The numbers 0 .. size - 1, each repeated as often as ``repeats`` says."""
    graph_break_on_read("repeat_interleave() with a tensor of repeats, whose shape depends on values")
    counts = devices.to_host(repeats.array).reshape(-1)
    if counts.size and counts.min() < 0:
        raise ArgumentError(f"repeat_interleave: repeats contain {counts.min()}; expected 0 or more")
    counts = numpy.broadcast_to(counts, (size,))
    if output_size is not None and output_size != counts.sum():
        raise ArgumentError(f"repeat_interleave: output_size={output_size}; expected {counts.sum()}, the sum of the repeats")
    return make_tensor(constant(devices.move(numpy.repeat(numpy.arange(size), counts), repeats.device)))
