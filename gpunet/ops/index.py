"""Indexing: views for integers and slices, gathers for index arrays, and the scatter-add that is their backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import COPY, FILL, Tensor, bump_version, is_grad_enabled, method, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_integer
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.tape import active, constant, graph_break
from gpunet.ops.dims import normalize_dim
from gpunet.ops.elementwise import where
from gpunet.ops.in_place import alias_of, assign_in_place, check_in_place
from gpunet.ops.index_launches import (
    GATHER,
    GETITEM,
    INDEX_SELECT,
    PUT,
    SETITEM,
    TAKE,
    Along,
    Site,
    add_at,
    has_index_arrays,
    index_arrays,
    pick,
    put,
    take,
    translate_index_error,
)

__all__ = ["gather", "index_select", "masked_select", "tril", "triu"]

def normalize_index(index: Any, x: Tensor) -> tuple[Any, ...]:
    """Convert an index to a tuple of Python numbers, slices, None, Ellipsis, and tensors on the device of x.

    Arrays become tensors: backward closes over the index, and the version of a tensor shows in-place changes.
    """
    items = index if isinstance(index, tuple) else (index,)
    normalized = []
    for item in items:
        if isinstance(item, (list, range)):
            item = constant(numpy.asarray(item, numpy.int64 if not len(item) else None))
        if isinstance(item, Tensor) or devices.is_array(item):
            if not (is_boolean(item.dtype) or is_integer(item.dtype)):
                raise DtypeError(f"index of dtype {item.dtype}; expected integers, booleans, slices, None or Ellipsis")
            if is_boolean(item.dtype) and active.tape is not None:
                what = "indexing with a boolean mask, whose values determine the shape of the result,"
                way_out = "use where(), or multiply by the mask"
                graph_break(what, way_out, item.array if isinstance(item, Tensor) else item)
            item = wrap(item)
            item = item if item.device == x.device else Tensor(move_to_device(item.array, x.device, guarded=True))
        elif isinstance(item, (float, str)):
            raise DtypeError(f"index {item!r}; expected integers, booleans, slices, None or Ellipsis")
        normalized.append(item)
    return tuple(normalized)


def _getitem_checked(x: Tensor, index: tuple[Any, ...], site: Site) -> Array:
    """x.array[index], raising an OutOfRangeError or a ShapeError of ours."""
    try:
        return _getitem_array(x.array, index_arrays(index))
    except IndexError as error:
        raise translate_index_error(error, site.name, x.shape) from None


def _on_gpu(x: Array, index: tuple[Any, ...]) -> bool:
    """Whether our kernels index ``x``, since the values of index arrays are not read."""
    return type(x) is not numpy.ndarray and has_index_arrays(index)


def _is_view(index: tuple[Any, ...]) -> bool:
    # True and False are ints, but x[True] is a copy
    return all(
        (isinstance(i, (int, numpy.integer, slice)) and i is not True and i is not False) or i is None or i is Ellipsis
        for i in index
    )


def _getitem_array(array: Array, index: tuple[Any, ...]) -> Array:
    """array[index] as an array: without an Ellipsis, NumPy returns a scalar (a copy) if every dimension is indexed."""
    if not _is_view(index):
        return devices.take(array, index)
    return array[index] if any(i is Ellipsis for i in index) else array[(*index, Ellipsis)]


#: stands in a pattern for an index array, which is an input of the op
ARRAY = object()


def split_index(index: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...]]:
    """Split an index into its arrays and its pattern: numbers, slices, None, Ellipsis, and ``ARRAY`` for an array."""
    arrays = [item for item in index if isinstance(item, Tensor) or devices.is_array(item)]
    return arrays, tuple([ARRAY if isinstance(i, Tensor) or devices.is_array(i) else i for i in index]) if arrays else index


def _joined(pattern: tuple[Any, ...], arrays: Sequence[Tensor]) -> tuple[Any, ...]:
    """The index of a pattern and its arrays."""
    remaining = iter(arrays)
    return tuple([next(remaining) if item is ARRAY else item for item in pattern])


@primitive(name="indexing", view=True)
def _index(x, *arrays, pattern, site=GETITEM):
    """x[index]: a view for integers and slices, a copy for index arrays.  ``site`` is the user's function, for messages."""
    index = _joined(pattern, arrays)
    if _is_view(index):
        return _getitem_checked(x, index, site)
    if _on_gpu(x.array, index):
        return take(x.array, index, site)
    picked = _getitem_checked(x, index, site)  # only for its shape; a tape replays the launch below
    out = empty(picked.shape, x.dtype, x.array)
    TAKE(out, x.array, index=index_arrays(index))
    return out


@primitive(name="indexing")
def _unindex(g, *arrays, pattern, shape, site=GETITEM):
    """Zeros of ``shape`` with g added at the index: the gradient of indexing."""
    index = _joined(pattern, arrays)
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    if _is_view(index):
        COPY(_getitem_array(out, index), g.array)
    else:
        add_at(out, g.array, index, site)
    return out


_index.derivatives(
    x=lambda g, arrays, x_shape, pattern, site: _unindex(g, *arrays, pattern=pattern, shape=x_shape, site=site)
)
_unindex.derivatives(g=lambda g, arrays, pattern, site: _index(g, *arrays, pattern=pattern, site=site))


def index_with(x: Tensor, index: tuple[Any, ...], site: Site = GETITEM) -> Tensor:
    """x[index] of a normalized index, on behalf of the function ``site``."""
    arrays, pattern = split_index(index)
    return _index(x, *arrays, pattern=pattern, site=site)


@method("__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] by NumPy's rules: integers, slices, None, Ellipsis, integer or boolean tensors and arrays.

    Raises:
        OutOfRangeError: an index is out of range.  On a GPU, index arrays are checked there: the elements are NaN (0 or
            False), and the error is raised when the host next reads a value or synchronizes.
        ShapeError: there are more indices than dimensions.
        DtypeError: an index has another type.
    """
    return index_with(x, normalize_index(index, x))


def _assign(array: Array, value: Any, index: tuple[Any, ...]) -> None:
    """array[index] = value."""
    value = value.array if isinstance(value, Tensor) else value
    if _on_gpu(array, index):
        put(array, value, index, SETITEM)
    else:
        PUT(array, value, index=index_arrays(index))


@primitive(name="assignment to an index")
def _with_index(x, value, *arrays, pattern):
    """A copy of x with x[index] = value."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    _assign(out, value, _joined(pattern, arrays))
    return out


_with_index.derivatives(
    x=lambda g, arrays, pattern: _with_index(g, 0, *arrays, pattern=pattern),
    value=lambda g, arrays, pattern: _index(g, *arrays, pattern=pattern, site=SETITEM),
)


@method("__setitem__")
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, in place; differentiable with respect to x and value.

    Raises:
        ShapeError: the value cannot be broadcast to x[index].
        OutOfRangeError: an index is out of range.  On a GPU, index arrays are checked there: nothing is written at the
            index, and the error is raised when the host next reads a value or synchronizes.
        GradientError: x is a leaf that requires grad (assign under no_grad()).
    """
    index = normalize_index(index, x)
    check_in_place(x, (value,), "x[index] = value")
    shape = (pick(x.array, index, SETITEM) if _on_gpu(x.array, index) else _getitem_checked(x, index, SETITEM)).shape
    if devices.is_array(value):
        value = Tensor(value)
    if isinstance(value, (list, tuple)):
        value = Tensor(constant(devices.move(numpy.asarray(value, x.dtype), x.device)))
    if isinstance(value, Tensor):
        try:
            fits = numpy.broadcast_shapes(value.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                f"x[index] = value: value has shape {value.shape}; expected a shape that broadcasts to {shape}"
            )
    if is_grad_enabled() and (x._requires_grad or (isinstance(value, Tensor) and value._requires_grad)):
        arrays, pattern = split_index(index)
        assign_in_place(x, _with_index(alias_of(x), value, *arrays, pattern=pattern), "x[index] = value")
    else:
        _assign(x.array, value, index)
        bump_version(x)


def _gather_index(dim: int, index: Tensor, x: Tensor) -> tuple[Any, ...]:
    """An index tuple for x[...] that equals gather: ``index`` along ``dim``, an open grid of aranges elsewhere."""
    if type(x.array) is not numpy.ndarray or type(index.array) is not numpy.ndarray:
        (index,) = normalize_index(index, x)
        if type(x.array) is not numpy.ndarray:
            return Along(dim), index
    grid: list[Any] = [
        constant(numpy.arange(n)).reshape((1,) * i + (n,) + (1,) * (index.ndim - i - 1)) for i, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


@method("gather")
def gather(x: Tensor, dim: int, index: Any) -> Tensor:
    """Pick one element of x per element of ``index``: for dim 0, out[i][j] = x[index[i][j]][j].

    Raises:
        ShapeError: index and x have different numbers of dimensions, or the index is larger than x in another dimension.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: the index is not of an integer dtype.
    """
    return gather_at(x, dim, index, GATHER)


def gather_at(x: Tensor, dim: int, index: Any, site: Site) -> Tensor:
    """:func:`gather` on behalf of the function ``site``."""
    index = wrap(index)
    if index.ndim != x.ndim:
        raise ShapeError(
            f"gather: index has shape {index.shape}, the tensor {x.shape}; expected the same number of dimensions"
        )
    if not is_integer(index.dtype):
        raise DtypeError(f"gather: index of dtype {index.dtype}; expected integers")
    return index_with(x, _gather_index(normalize_dim(dim, x.ndim, "gather"), index, x), site)


@method("index_select")
def index_select(x: Tensor, dim: int, index: Any) -> Tensor:
    """The slices of x along ``dim`` at the integers of a 1-d index."""
    at = normalize_dim(dim, x.ndim, "index_select")
    return index_with(x, normalize_index((slice(None),) * at + (index,), x), INDEX_SELECT)


@method("masked_select")
def masked_select(x: Tensor, mask: Any) -> Tensor:
    """The elements where the boolean ``mask`` is true, as a 1-d tensor."""
    return getitem(x, mask)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        name = "tril" if lower else "triu"
        raise ShapeError(f"{name}: the tensor has shape {x.shape}; expected a matrix or a batch of matrices")
    xp = devices.module(x.array)
    keep = xp.tri(*x.shape[-2:], diagonal if lower else diagonal - 1, dtype=bool)
    keep = keep if lower else xp.logical_not(keep)
    return where(Tensor(constant(xp.broadcast_to(keep, x.shape))), x, 0.0 if x.is_floating_point() else 0)


@method("tril")
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions; elements above ``diagonal`` are zero."""
    return _triangle(x, diagonal, True)


@method("triu")
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions; elements below ``diagonal`` are zero."""
    return _triangle(x, diagonal, False)
