"""Indexing: views for integers and slices, gathers for index arrays, and the scatter-add that is their backward."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import COPY, FILL, Tensor, bump_version, contiguous, is_grad_enabled, method, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.shims import Shim
from gpunet.launch.tape import active, constant, flush_pending, graph_break
from gpunet.ops.broadcast import unbroadcast
from gpunet.ops.dims import normalize_dim
from gpunet.ops.elementwise import where
from gpunet.ops.in_place import alias_of, assign_in_place, check_in_place

__all__ = ["gather", "index_select", "masked_select", "tril", "triu"]

TAKE = Shim("take", lambda xp, out, x, *, index: xp.copyto(out, x[index]))
PUT = Shim("put", lambda xp, out, value, *, index: out.__setitem__(index, value))
ORDER = Shim("argsort", lambda xp, out, x: xp.copyto(out, xp.argsort(x, kind="stable")))
POSITIONS = Shim(
    "positions",
    lambda xp, out, *, index, shape: xp.copyto(out, xp.arange(math.prod(shape)).reshape(shape)[index].reshape(-1)),
)


def _normalize_index(index: Any, x: Tensor) -> tuple[Any, ...]:
    """Convert an index to a tuple of Python numbers, slices, None, Ellipsis, and tensors on the device of x.

    Arrays become tensors: backward closes over the index, and the version of a tensor shows in-place changes.
    """
    items = index if isinstance(index, tuple) else (index,)
    normalized = []
    for item in items:
        if isinstance(item, (list, range)):
            item = constant(numpy.asarray(item, numpy.int64 if not len(item) else None))
        if isinstance(item, Tensor) or devices.is_array(item):
            if item.dtype.kind not in "iub":
                raise DtypeError(f"index of dtype {item.dtype}; expected integers, booleans, slices, None or Ellipsis")
            if item.dtype.kind == "b" and active.tape is not None:
                what = "indexing with a boolean mask, whose values determine the shape of the result,"
                way_out = "use where(), or multiply by the mask"
                graph_break(what, way_out, item.array if isinstance(item, Tensor) else item)
            item = wrap(item)
            item = item if item.device == x.device else Tensor(move_to_device(item.array, x.device))
        elif isinstance(item, (float, str)):
            raise DtypeError(f"index {item!r}; expected integers, booleans, slices, None or Ellipsis")
        normalized.append(item)
    return tuple(normalized)


def _index_arrays(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index with arrays in place of tensors, as NumPy and CuPy accept it."""
    return tuple(item.array if isinstance(item, Tensor) else item for item in index)


def _getitem_checked(x: Tensor, index: tuple[Any, ...]) -> Array:
    """x.array[index], raising a ShapeError that names index and shape."""
    for item in index:
        if isinstance(item, Tensor):
            flush_pending("checking the range of an index that the step computes", item.array)
    try:
        return _getitem_array(x.array, _index_arrays(index))
    except IndexError as error:
        raise ShapeError(f"index {index} is invalid for a tensor of shape {x.shape}: {error}") from None


def _is_view(index: tuple[Any, ...]) -> bool:
    # True and False are ints, but x[True] is a copy
    return all(
        (isinstance(i, (int, numpy.integer, slice)) and i is not True and i is not False) or i is None or i is Ellipsis
        for i in index
    )


def _getitem_array(array: Array, index: tuple[Any, ...]) -> Array:
    """array[index] as an array: without an Ellipsis, NumPy returns a scalar (a copy) if every dimension is indexed."""
    return array[index] if not _is_view(index) or any(i is Ellipsis for i in index) else array[(*index, Ellipsis)]


@primitive(name="indexing", view=True)
def _index(x, *, index):
    """x[index]: a view for integers and slices, a copy for index arrays."""
    source = x.shape
    if _is_view(index):
        return _getitem_checked(x, index), lambda g: _unindex(g, index=index, shape=source)
    picked = _getitem_checked(x, index)  # only for its shape; a tape replays the launch below
    out = empty(picked.shape, x.dtype, x.array)
    TAKE(out, x.array, index=_index_arrays(index))
    return out, lambda g: _unindex(g, index=index, shape=source)


@primitive(name="indexing")
def _unindex(g, *, index, shape):
    """Zeros of ``shape`` with g added at ``index``: the gradient of indexing."""
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    if _is_view(index):
        COPY(_getitem_array(out, index), g.array)
    else:
        add_at(out, g.array, _index_arrays(index))
    return out, lambda h: _index(h, index=index)


def add_at(out: Array, values: Array, index: tuple[Any, ...]) -> None:
    """out[index] += values, where ``index`` may repeat an element; the order of summation is fixed.

    A stable argsort of the flat positions lets one thread sum the values of an element in their original order.
    """
    # all launches, so that a replay recomputes the positions when the indices (argmax, labels) have changed
    positions, order, ascending = (empty((values.size,), numpy.dtype("int64"), out) for _ in range(3))
    POSITIONS(positions, index=index, shape=out.shape)
    ORDER(order, positions)
    TAKE(ascending, positions, index=order)
    scatter_add(out.reshape(-1), contiguous(values).reshape(-1), ascending, order)


@kernel("scatter.cu", outputs=1, types={"positions": "int64", "order": "int64"})
def scatter_add(out, values, positions, order):
    """out[positions[j]] += values[order[j]], summed in the order of j for equal positions.

    out (n,); values, positions (sorted), order (m,).
    """
    numpy.add.at(out, positions, values[order])


@scatter_add.geometry
def _(out, values, positions, order):
    return Geometry(ceil_div(values.size, 256), 256, (numpy.int64(values.size),))


@method("__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] by NumPy's rules: integers, slices, None, Ellipsis, integer or boolean tensors and arrays.

    Raises:
        ShapeError: an index is out of range, or there are more indices than dimensions.
        DtypeError: an index has another type.
    """
    return _index(x, index=_normalize_index(index, x))


@primitive(name="assignment to an index")
def _with_index(x, value, *, index):
    """A copy of x with x[index] = value."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    shape, dtype = (value.shape, value.dtype) if isinstance(value, Tensor) else ((), x.dtype)
    PUT(out, value.array if isinstance(value, Tensor) else value, index=_index_arrays(index))

    def value_rule(g):
        return unbroadcast(_index(g, index=index), (shape, dtype))

    return out, lambda g: _with_index(g, 0, index=index), value_rule


@method("__setitem__")
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, in place; differentiable with respect to x and value.

    Raises:
        ShapeError: the value cannot be broadcast to x[index].
        GradientError: x is a leaf that requires grad (assign under no_grad()).
    """
    index = _normalize_index(index, x)
    check_in_place(x, (value,), "x[index] = value")
    picked = _getitem_checked(x, index)
    if devices.is_array(value):
        value = Tensor(value)
    if isinstance(value, (list, tuple)):
        value = Tensor(constant(devices.move(numpy.asarray(value, x.dtype), x.device)))
    if isinstance(value, Tensor):
        try:
            fits = numpy.broadcast_shapes(value.shape, picked.shape) == picked.shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                f"x[index] = value: value has shape {value.shape}; expected a shape that broadcasts to {picked.shape}"
            )
    if is_grad_enabled() and (x._requires_grad or (isinstance(value, Tensor) and value._requires_grad)):
        assign_in_place(x, _with_index(alias_of(x), value, index=index), "x[index] = value")
    else:
        PUT(x.array, value.array if isinstance(value, Tensor) else value, index=_index_arrays(index))
        bump_version(x)


def _gather_index(dim: int, index: Tensor) -> tuple[Any, ...]:
    """An index tuple for x[...] that equals gather: ``index`` along ``dim``, an open grid of aranges elsewhere."""
    xp = devices.module(index.array)
    grid: list[Any] = [
        xp.arange(n).reshape((1,) * i + (n,) + (1,) * (index.ndim - i - 1)) for i, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


@method("gather")
def gather(x: Tensor, dim: int, index: Any) -> Tensor:
    """Pick one element of x per element of ``index``: for dim 0, out[i][j] = x[index[i][j]][j].

    Raises:
        ShapeError: index and x have different numbers of dimensions.
        DtypeError: the index is not of an integer dtype.
    """
    index = wrap(index)
    if index.ndim != x.ndim:
        raise ShapeError(
            f"gather: index has shape {index.shape}, the tensor {x.shape}; expected the same number of dimensions"
        )
    if index.dtype.kind not in "iu":
        raise DtypeError(f"gather: index of dtype {index.dtype}; expected integers")
    return _index(x, index=_gather_index(normalize_dim(dim, x.ndim, "gather"), index))


@method("index_select")
def index_select(x: Tensor, dim: int, index: Any) -> Tensor:
    """The slices of x along ``dim`` at the integers of a 1-d index."""
    at = normalize_dim(dim, x.ndim, "index_select")
    return getitem(x, (slice(None),) * at + (index,))


@method("masked_select")
def masked_select(x: Tensor, mask: Any) -> Tensor:
    """The elements where the boolean ``mask`` is true, as a 1-d tensor."""
    return getitem(x, mask)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        name = "tril" if lower else "triu"
        raise ShapeError(f"{name}: the tensor has shape {x.shape}; expected a matrix or a batch of matrices")
    xp = devices.module(x.array)
    rows, columns = xp.arange(x.shape[-2])[:, None], xp.arange(x.shape[-1])[None, :]
    keep = columns <= rows + diagonal if lower else columns >= rows + diagonal
    return where(Tensor(constant(xp.broadcast_to(keep, x.shape))), x, 0.0 if x.is_floating_point() else 0)


@method("tril")
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions; elements above ``diagonal`` are zero."""
    return _triangle(x, diagonal, True)


@method("triu")
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions; elements below ``diagonal`` are zero."""
    return _triangle(x, diagonal, False)
