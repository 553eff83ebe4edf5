"""Embedding: rows of a table by integers; sums, means and maxima of bags of them."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import FILL, Tensor, fused, make_tensor, no_grad, wrap
from gpunet.autograd.op import Composite, observers
from gpunet.backend import devices
from gpunet.backend.dtypes import accumulator, int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import active, constant
from gpunet.ops.broadcast import cast
from gpunet.ops.compare import compare, isnan
from gpunet.ops.creation import arange, full, ones, zeros
from gpunet.ops.elementwise import clamp, clamp_min, where
from gpunet.ops.face import as_integer, as_number, check_flag
from gpunet.ops.in_place import refuse_shared_memory
from gpunet.ops.index import checked_indices, from_zero, gather, index_select, index_with, setitem
from gpunet.ops.index_launches import EMBEDDING, EMBEDDING_BAG, add_at_rows, row_positions, take_rows
from gpunet.ops.join import cat
from gpunet.ops.linalg import vector_norm
from gpunet.ops.scatter import index_add, scatter_reduce
from gpunet.ops.sets import searchsorted

__all__ = ["embedding", "embedding_bag"]

DIVIDE, MAXIMUM = Ufunc("divide"), Ufunc("maximum")
#: positions without those of a row: -1 adds nowhere
LEAVE_OUT = Shim("leave out", lambda xp, out, positions, *, row: xp.copyto(out, xp.where(positions == row, -1, positions)))


def _embedding_composed(weight, index, *, rows, padding, by_frequency):
    y = index_with(weight, (index,), EMBEDDING)
    if padding is not None:
        y = where(compare("equal", index, padding).unsqueeze(-1), y.detach(), y)
    if by_frequency:
        places = index.reshape(-1)
        counts = index_add(_zeros((rows,), weight), 0, places, _ones(places.array.size, weight))
        y = y.detach() + (y - y.detach()) / index_with(counts, (index,), EMBEDDING).unsqueeze(-1)
    return y


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return zeros(shape, dtype=like.dtype, device=like.device)


def _ones(count: int, like: Tensor) -> Tensor:
    return ones(count, dtype=like.dtype, device=like.device)


@fused(composed=_embedding_composed, name="embedding")
def embedding_rows(weight, index, *, rows, padding, by_frequency, need):
    """weight[index].  weight (rows, columns), index of any shape -> (*index.shape, columns).

    Args:
        padding: the row that receives no gradient, or None.
        by_frequency: divide the gradient of a row by the number of its places in ``index``.
    """
    positions = row_positions(index, rows, EMBEDDING)
    y = empty((*index.shape, weight.shape[1]), weight.dtype, weight)
    take_rows(y, weight, positions)
    return y, (positions,)


@embedding_rows.backward
def _(saved, dy, *, rows, padding, by_frequency, need):
    (positions,) = saved
    columns = dy.array.shape[-1]
    if padding is not None:
        kept = empty(positions.shape, int64, positions)
        LEAVE_OUT(kept, positions, row=padding)
        positions = kept
    dw = empty((rows, columns), dy.array.dtype, positions)
    FILL(dw, value=0)
    add_at_rows(dw, dy.array.reshape(positions.size, columns), positions)
    if by_frequency:
        dtype = accumulator(dw.dtype)
        counts, ones = empty((rows, 1), dtype, dw), empty((positions.size, 1), dtype, dw)
        FILL(counts, value=0)
        FILL(ones, value=1)
        add_at_rows(counts, ones, positions)
        MAXIMUM(counts, counts, 1)
        DIVIDE(dw, dw, counts)
    return dw, None


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of ``weight`` at the integers of ``input``.  input (...), weight (rows, columns) -> (..., columns).

    The gradient of a row is the sum over its places in ``input``, in a fixed order.

    Args:
        input: integers from 0 to rows - 1.
        padding_idx: a row that receives no gradient; -1 is the last one.
        max_norm: scale rows of a larger norm to this one, **in place**, before they are taken.
        norm_type: the order of that norm.
        scale_grad_by_freq: divide the gradient of a row by the number of its places.
        sparse: accepted as in PyTorch; the gradient has the same values, and is dense.

    Raises:
        DtypeError: the input is not of an integer dtype, or the weight not floating.
        ShapeError: the weight is no matrix.
        OutOfRangeError: an integer is out of range; on a GPU as for x[index].
        ArgumentError: ``padding_idx`` is out of range, or ``norm_type`` is NaN.
        InPlaceError: ``max_norm`` is given, and elements of the weight share memory.
    """
    weight, index, padding = checked_table("embedding", EMBEDDING, input, weight, padding_idx, scale_grad_by_freq, sparse)
    if max_norm is not None:
        limit_norms("embedding", weight, index, max_norm, norm_type)
    return embedding_rows(weight, index, rows=weight.shape[0], padding=padding, by_frequency=scale_grad_by_freq)


def checked_table(
    function: str, site: Any, input: Any, weight: Any, padding_idx: Any, by_frequency: Any, sparse: Any
) -> tuple[Tensor, Tensor, int | None]:
    """The checked weight, the checked indices as int64, and the padding row."""
    weight = wrap(weight, function)
    if not is_floating(weight.dtype):
        raise DtypeError(f"{function}: weight of dtype {weight.dtype}; expected a floating matrix, and integers as input")
    if weight.ndim != 2:
        raise ShapeError(f"{function}: weight has shape {tuple(weight.shape)}; expected (rows, columns)")
    check_flag(function, "scale_grad_by_freq", by_frequency)
    check_flag(function, "sparse", sparse)
    rows = weight.shape[0]
    if padding_idx is not None:
        padding_idx = as_integer(function, "padding_idx", padding_idx)
        if not -rows <= padding_idx < rows:
            raise ArgumentError(f"{function}: padding_idx={padding_idx}; expected {-rows} to {rows - 1}, a row of the weight")
        padding_idx %= rows
    index = checked_indices(input, function, weight)
    index = index if index.dtype == int64 else cast(index, dtype=int64)
    return weight, from_zero(index, 0, weight, site), padding_idx


def limit_norms(function: str, weight: Tensor, index: Tensor, max_norm: Any, norm_type: Any) -> None:
    """Scale the rows at the index to a norm of at most ``max_norm``, in place; 1e-7 is PyTorch's."""
    max_norm, norm_type = as_number(function, "max_norm", max_norm), as_number(function, "norm_type", norm_type)
    if math.isnan(norm_type):
        raise ArgumentError(f"{function}: norm_type=nan; expected a number, inf or -inf")
    refuse_shared_memory(weight.array, f"{function} with max_norm, which changes the weight in place")
    with no_grad():
        places = index.reshape(-1)
        rows = index_with(weight.detach(), (places,), EMBEDDING)
        norms = vector_norm(rows, norm_type, -1, keepdim=True)
        factors = where(compare("greater", norms, max_norm), max_norm / (norms + 1e-7), 1.0)
        setitem(weight, (places,), rows * factors)


def embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the rows of each bag of integers; 0 for an empty bag.  -> (bags, columns)

    Args:
        input: integers (bags, n), or a vector with the bags one after the other.
        offsets: for a vector, where each bag begins: ascending integers from 0, which are checked on the CPU.
        mode: "sum", "mean" or "max".
        per_sample_weights: in the shape of ``input``, a factor of each row; for "sum" alone.
        include_last_offset: the last of ``offsets`` is the end of the last bag; what is behind it does not count.
        padding_idx: a row that does not count.
        weight, max_norm, norm_type, scale_grad_by_freq, sparse: as in :func:`embedding`.

    Raises:
        ArgumentError: an argument is unknown, or contradicts another.
        ShapeError: ``input``, ``offsets`` or ``per_sample_weights`` has a shape that does not fit.
        DtypeError, OutOfRangeError: as :func:`embedding`.
    """
    name = "embedding_bag"
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError(f"{name}: mode={mode!r}; expected 'sum', 'mean' or 'max'")
    if scale_grad_by_freq and mode == "max":
        raise ArgumentError(f"{name}: scale_grad_by_freq with mode='max'; expected mode='sum' or 'mean'")
    if per_sample_weights is not None and mode != "sum":
        raise ArgumentError(f"{name}: per_sample_weights with mode={mode!r}; expected mode='sum'")
    weight, index, padding = checked_table(name, EMBEDDING_BAG, input, weight, padding_idx, scale_grad_by_freq, sparse)
    check_flag(name, "include_last_offset", include_last_offset)
    bags, bag_of = bags_of(index, offsets, include_last_offset)
    if max_norm is not None:
        limit_norms(name, weight, index, max_norm, norm_type)
    places = index.reshape(-1)
    rows = embedding_rows(weight, places, rows=weight.shape[0], padding=padding, by_frequency=scale_grad_by_freq)
    if per_sample_weights is not None:
        factors = wrap(per_sample_weights, name)
        if factors.shape != index.shape or factors.dtype != weight.dtype:
            raise ShapeError(
                f"{name}: per_sample_weights is {factors.dtype} of shape {tuple(factors.shape)}; expected {weight.dtype} of "
                f"{tuple(index.shape)}, one for each integer of the input"
            )
        rows = rows * factors.reshape(-1, 1)
    if padding is not None:  # one more bag takes the padding
        bag_of = where(compare("equal", places, padding), bags, bag_of)
    if mode == "max":
        found = _maxima(rows, bag_of, bags)
        return _noted(found, weight, index, per_sample_weights, mode, padding)
    found = index_add(_zeros((bags + 1, weight.shape[1]), weight), 0, bag_of, rows)[:bags]
    if mode == "mean":
        counts = index_add(_zeros((bags + 1,), weight), 0, bag_of, _ones(places.array.size, weight))
        found = found / clamp_min(counts[:bags], 1.0).unsqueeze(-1)
    return _noted(found, weight, index, per_sample_weights, mode, padding)


#: What exports see of bags of equal length, instead of additions at computed places.
EQUAL_BAGS = Composite("embedding_bag")


def _noted(found: Tensor, weight: Tensor, index: Tensor, factors: Any, mode: str, padding: int | None) -> Tensor:
    if observers and index.ndim == 2:
        EQUAL_BAGS.notify((weight, index, factors), {"mode": mode, "padding": padding}, found)
    return found


def _maxima(rows: Tensor, bag_of: Tensor, bags: int) -> Tensor:
    """The maxima of each bag, 0 of an empty one; of equal elements, the first one receives the gradient, as in PyTorch."""
    return gather(cat([rows, _zeros((1, rows.shape[1]), rows)]), 0, first_maxima(rows, bag_of, bags))


def first_maxima(rows: Tensor, bag_of: Tensor, bags: int) -> Tensor:
    """The place of the first maximum of each bag (bags, columns), the number of rows for an empty one."""
    count, columns = rows.shape
    with no_grad():
        index, values = bag_of.unsqueeze(-1).expand(count, columns), rows.detach()
        maxima = scatter_reduce(_zeros((bags + 1, columns), rows), 0, index, values, "amax", include_self=False)
        is_found = compare("equal", values, index_select(maxima, 0, bag_of)) | isnan(values)
        numbers = arange(count, device=rows.device).unsqueeze(-1)
        first = full((bags + 1, columns), count, device=rows.device)
        return scatter_reduce(first, 0, index, where(is_found, numbers, count), "amin")[:bags]


def bags_of(index: Tensor, offsets: Any, has_end: bool) -> tuple[int, Tensor]:
    """The number of bags, and for each integer of the flattened input that of its bag."""
    shape = tuple(index.shape)
    if len(shape) == 2:
        if offsets is not None:
            raise ArgumentError(f"embedding_bag: offsets with an input of shape {shape}; expected a vector, or no offsets")
        numbers = numpy.repeat(numpy.arange(shape[0]), shape[1])
        return shape[0], make_tensor(constant(devices.move(numbers, index.device)))
    if len(shape) != 1 or offsets is None:
        raise ArgumentError(
            f"embedding_bag: input has shape {shape}, offsets={offsets!r}; expected (bags, n), or a vector and offsets"
        )
    starts = checked_indices(offsets, "embedding_bag", index)
    if starts.ndim != 1 or starts.array.size <= has_end:
        raise ShapeError(f"embedding_bag: offsets has shape {tuple(starts.shape)}; expected a vector with a number for each bag")
    if type(starts.array) is numpy.ndarray and active.tape is None:
        found = devices.to_host(starts.array).tolist()
        if found[0] != 0 or found[-1] > shape[0] or found != sorted(found):
            raise ArgumentError(f"embedding_bag: offsets={found}; expected ascending numbers from 0 to {shape[0]}")
    bags = starts.shape[0] - has_end
    places = make_tensor(constant(devices.move(numpy.arange(shape[0]), index.device)))
    return bags, clamp(searchsorted(starts, places, right=True) - 1, 0, bags)  # what is behind the end belongs to no bag
