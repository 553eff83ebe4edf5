"""Indexing: views for integers and slices, gathers for index arrays, and the scatter-add that is their backward."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy

from gpunet.autograd import (
    COPY,
    FILL,
    Tensor,
    bump_version,
    contiguous,
    ignore_fp_errors,
    is_grad_enabled,
    make_tensor,
    method,
    primitive,
    wrap,
)
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.autograd.data import array_of_data, convert_number
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import category, complex_in_use, int32, int64, is_boolean, is_complex, uint8
from gpunet.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.shims import Shim
from gpunet.launch.tape import active, constant, graph_break
from gpunet.ops.broadcast import broadcast_shape, broadcast_to
from gpunet.ops.compare import compare
from gpunet.ops.define import elementwise
from gpunet.ops.dims import normalize_dim
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, public
from gpunet.ops.in_place import alias_of, assign_in_place, check_in_place
from gpunet.ops.index_launches import (
    GATHER,
    GETITEM,
    INDEX_SELECT,
    PUT,
    SETITEM,
    TAKE,
    Along,
    Resolved,
    Site,
    add_at,
    broadcast_index_shapes,
    elements_at,
    index_error,
    needs_kernels,
    pick,
    put,
    resolve,
    take,
    translate_index_error,
)
from gpunet.ops.shape import reshape

__all__ = ["gather", "index_select", "masked_select", "tril", "triu"]

def normalize_index(index: Any, x: Tensor) -> tuple[Any, ...]:
    """Convert an index to a tuple of Python numbers, slices, None, Ellipsis, and tensors on the device of x.

    Arrays become tensors: backward closes over the index, and the version of a tensor shows in-place changes.

    Raises:
        DtypeError: an item is of another type.
    """
    items = index if isinstance(index, tuple) else (index,)
    if isinstance(index, list) and not all(isinstance(item, (int, numpy.integer, numpy.bool_)) for item in index):
        raise DtypeError(
            f"index {index!r}: PyTorch reads such a list as a tuple; pass tuple(index) for an item per dimension, or "
            "tensor(index) for one index array"
        )
    return tuple([_normalize_item(item, x) for item in items])


def _normalize_item(item: Any, x: Tensor) -> Any:
    if item is None or item is Ellipsis or type(item) is int or type(item) is bool:
        return item
    if isinstance(item, slice):
        if {type(item.start), type(item.stop), type(item.step)} <= _BOUNDS and item.step != 0:
            return item
        return slice(*(None if n is None else as_integer("slice", name, n) for name, n in _bounds(item)))
    if isinstance(item, (list, tuple, range)):
        item = constant(numpy.asarray(item, numpy.int64 if not len(item) else None))
    if isinstance(item, Tensor) or devices.is_array(item):
        item = item if type(item) is Tensor else wrap(item, "index")
        dtype = item.array.dtype
        if dtype == int64:
            return _on_device_of(item, x)
        if not (is_boolean(dtype) or dtype in (int32, uint8)):
            raise DtypeError(f"index of dtype {dtype}; expected integers of 32 or 64 bits, booleans, slices, None or Ellipsis")
        if dtype == uint8:  # a mask, as in PyTorch
            item = compare("not_equal", item, 0)
        if is_boolean(item.dtype) and active.tape is not None:
            what = "indexing with a boolean mask, whose values determine the shape of the result,"
            graph_break(what, "use where(), or multiply by the mask")
        if is_boolean(item.dtype) and not item.ndim:
            return bool(item)
        return _on_device_of(item, x)
    if isinstance(item, numpy.bool_):
        return bool(item)
    if hasattr(item, "__index__"):
        return operator.index(item)
    raise DtypeError(f"index {item!r}; expected integers, booleans, slices, None or Ellipsis")


def _on_device_of(index: Tensor, x: Tensor) -> Tensor:
    if type(index.array) is type(x.array) is numpy.ndarray or index.device == x.device:
        return index
    return make_tensor(move_to_device(index.array, x.device, guarded=True))


_BOUNDS = {int, type(None)}


def _bounds(item: slice) -> Iterator[tuple[str, Any]]:
    if item.step is not None and item.step == 0:
        raise ArgumentError("slice: step=0; expected a nonzero integer")
    return zip(("start", "stop", "step"), (item.start, item.stop, item.step))


def _view(x: Tensor, index: tuple[Any, ...], site: Site) -> Array:
    """x.array[index] for an index without arrays, raising an OutOfRangeError or a ShapeError of ours.

    Without an Ellipsis, NumPy would return a scalar (a copy) if every dimension is indexed.
    """
    try:
        return x.array[index] if any(i is Ellipsis for i in index) else x.array[(*index, Ellipsis)]
    except IndexError as error:
        raise translate_index_error(error, site.name, x.array.shape) from None


def _resolve(array: Array, index: tuple[Any, ...], site: Site) -> Resolved:
    """Order an index with arrays for NumPy, or for CuPy if it has one mask only."""
    return resolve(array, index, site.name)


def _pick(source: Array, found: Resolved, site: Site, shape: tuple[int, ...]) -> Array:
    """The elements that index arrays pick, raising errors of ours; ``shape`` is the tensor's, for messages."""
    try:
        return elements_at(source, found.picks)
    except IndexError as error:
        raise _index_error(error, found, site, shape) from None


def _index_error(error: IndexError, found: Resolved, site: Site, shape: tuple[int, ...]) -> Exception:
    """Return our error for an IndexError of NumPy or CuPy about the index arrays of a view."""
    broadcast_index_shapes([(int(devices.module(a).sum(a)),) if is_boolean(a.dtype) else a.shape for a in found.arrays], site.name)
    return translate_index_error(error, site.name, shape, (*range(found.before), *found.dims))


def _on_gpu(x: Array, index: tuple[Any, ...]) -> bool:
    """Whether our kernels index ``x``, since the values of index arrays are not read."""
    return type(x) is not numpy.ndarray and needs_kernels(index)


def _is_view(index: tuple[Any, ...]) -> bool:
    return not any(isinstance(item, (Tensor, bool, Along)) for item in index)  # x[True] is a copy


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


@primitive(name="indexing", view=True, takes_complex=True)
def _index(x, *arrays, pattern, site=GETITEM):
    """x[index]: a view for integers and slices, a copy for index arrays.  ``site`` is the user's function, for messages."""
    index = _joined(pattern, arrays)
    if _is_view(index):
        return _view(x, index, site)
    if _on_gpu(x.array, index):
        return take(x.array, index, site)
    found = _resolve(x.array, index, site)
    source = found.view.of(x.array)
    picked = _pick(source, found, site, x.array.shape)
    if active.tape is None:
        return contiguous(picked)
    out = empty(picked.shape, x.dtype, x.array)  # a tape replays the launch
    TAKE(out, source, index=found.picks)
    return out


@primitive(name="indexing", takes_complex=True)
def _unindex(g, *arrays, pattern, shape, site=GETITEM):
    """Zeros of ``shape`` with g added at the index: the gradient of indexing."""
    index = _joined(pattern, arrays)
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    if _is_view(index):
        COPY(out[index] if any(i is Ellipsis for i in index) else out[(*index, Ellipsis)], g.array)
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
    """x[index] in PyTorch's order: integers, slices, None, Ellipsis, integer or boolean tensors and arrays.

    A number selects before index arrays pick: ``x[0, :, index]`` is ``x[0][:, index]``.

    Raises:
        OutOfRangeError: an index is out of range.  On a GPU, index arrays are checked there: the elements are NaN (0 or
            False), and the error is raised when the host next reads a value or synchronizes.
        ShapeError: there are more indices than dimensions.
        DtypeError: an index has another type.
    """
    return index_with(x, normalize_index(index, x))


def _assign(array: Array, value: Any, index: tuple[Any, ...], site: Site = SETITEM) -> None:
    """array[index] = value, on behalf of the function ``site``."""
    if complex_in_use and not is_complex(array.dtype):
        refuse_complex(site.name, (value,))
    value = value.array if isinstance(value, Tensor) else value
    if _is_view(index):
        PUT(array, value, index=index)
    elif _on_gpu(array, index):
        put(array, value, index, site)
    else:
        found = _resolve(array, index, site)
        try:
            PUT(found.view.of(array), value, index=found.picks)
        except IndexError as error:
            raise _index_error(error, found, site, array.shape) from None


@primitive(name="assignment to an index", takes_complex=True)
def _with_index(x, value, *arrays, pattern, site=SETITEM):
    """A copy of x with x[index] = value."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    _assign(out, value, _joined(pattern, arrays), site)
    return out


_with_index.derivatives(
    x=lambda g, arrays, pattern, site: _with_index(g, 0, *arrays, pattern=pattern, site=site),
    value=lambda g, arrays, pattern, site: _index(g, *arrays, pattern=pattern, site=site),
)


@method("__setitem__")
@ignore_fp_errors
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, in place; differentiable with respect to x and value.

    Raises:
        ShapeError: the value cannot be broadcast to x[index].
        OutOfRangeError: an index is out of range.  On a GPU, index arrays are checked there: nothing is written at the
            index, and the error is raised when the host next reads a value or synchronizes.
        GradientError: x is a leaf that requires grad (assign under no_grad()).
    """
    index, name = normalize_index(index, x), SETITEM.name
    check_in_place(x, (value,), name)
    shape = _indexed_shape(x, index)
    value = _assigned_value(value, x, shape, not _is_view(index))
    if is_grad_enabled() and (x._requires_grad or (isinstance(value, Tensor) and value._requires_grad)):
        arrays, pattern = split_index(index)
        assign_in_place(x, _with_index(alias_of(x), value, *arrays, pattern=pattern), name)
    elif 0 not in shape:
        _assign(x.array, value, index)
        bump_version(x)


def _indexed_shape(x: Tensor, index: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of x[index]."""
    if _is_view(index):
        return _view(x, index, SETITEM).shape
    if _on_gpu(x.array, index):
        return pick(x.array, index, SETITEM).shape
    found = _resolve(x.array, index, SETITEM)
    source = found.view.of(x.array)
    if active.tape is not None or any(is_boolean(item.dtype) for item in found.arrays):
        return _pick(source, found, SETITEM, x.array.shape).shape
    if not source.size:  # NumPy checks no index if it assigns nothing
        for item, dim in zip(found.arrays, found.dims):
            if item.size and dim >= 0 and not x.array.shape[dim]:
                raise index_error(SETITEM.name, int(item.reshape(-1)[0]), dim, 0)
    picked = broadcast_index_shapes([item.shape for item in found.arrays], SETITEM.name)
    return (*source.shape[: found.before], *picked, *source.shape[found.before + len(found.arrays) :])


def _assigned_value(value: Any, x: Tensor, shape: tuple[int, ...], has_arrays: bool) -> Any:
    """The value to assign to x[index], of ``shape``: a number, or a tensor on the device of x that broadcasts to it."""
    name = SETITEM.name
    if isinstance(value, (list, tuple, range)):
        value = make_tensor(constant(devices.move(array_of_data(value, x.dtype, name), x.device)))
    elif devices.is_array(value):
        value = wrap(value, name)
    if not isinstance(value, Tensor):
        return convert_number(value, x.dtype, name)
    if value.device != x.device:
        if value.ndim:
            raise DeviceError(f"{name}: the value is on {value.device}, the tensor on {x.device}; move it with .to(x.device)")
        value = value.to(x.device)
    if (has_arrays or is_complex(value.dtype)) and category(value.dtype) > category(x.dtype):
        raise DtypeError(f"{name}: the value has dtype {value.dtype}, the tensor {x.dtype}; convert it with .to(x.dtype)")
    extra = max(value.ndim - len(shape), 0)
    if value.array.shape[:extra] == (1,) * extra:  # PyTorch drops leading dimensions of one element
        value = reshape(value, value.array.shape[extra:]) if extra else value
    if not broadcasts_to(value.array.shape, shape):
        raise ShapeError(f"{name}: value has shape {value.shape}; expected a shape that broadcasts to {tuple(shape)}")
    return value


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` broadcasts to ``target``."""
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(target)))


def _check_indices(index: numpy.ndarray, dim: int, size: int, name: str) -> None:
    for value in (numpy.min(index), numpy.max(index)) if index.size else ():
        if not 0 <= value < size:
            raise index_error(name, int(value), dim, size, wraps=False)


def _copy_checked(xp: Any, out: Array, index: Array, *, dim: int, size: int, name: str) -> None:
    _check_indices(index, dim, size, name)
    xp.copyto(out, index)


CHECKED_COPY = Shim("check indices", _copy_checked, reads_values=True)


def from_zero(index: Tensor, dim: int, x: Tensor, site: Site) -> Tensor:
    """Check indices that start at 0 on the CPU, where NumPy would count negative ones from the end; kernels check them on a GPU.

    Returns:
        The index; in a recorded step a copy, which each replay checks.
    """
    if type(x.array) is not numpy.ndarray:
        return index
    size = x.array.shape[dim]
    if active.tape is None:
        _check_indices(index.array, dim, size, site.name)
        return index
    checked = empty(index.array.shape, index.array.dtype, index.array)
    CHECKED_COPY(checked, index.array, dim=dim, size=size, name=site.name)
    return make_tensor(checked)


def gather_index(dim: int, index: Tensor, x: Tensor) -> tuple[Any, ...]:
    """An index tuple for x[...] that equals gather: ``index`` along ``dim``, an open grid of aranges elsewhere."""
    if type(x.array) is not numpy.ndarray:
        return Along(dim), index
    grid: list[Any] = [
        constant(numpy.arange(n)).reshape((1,) * i + (n,) + (1,) * (index.ndim - i - 1)) for i, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


@public("gather", takes_complex=True)
def gather(input: Tensor, dim: int, index: Any, *, sparse_grad: bool = False) -> Tensor:
    """Pick one element of input per element of ``index``: for dim 0, ``out[i][j] = input[index[i][j]][j]``.

    Args:
        index: indices from 0, int32 or int64; its shape is that of the result.
        sparse_grad: accepted as in PyTorch; the gradient has the same values, and is dense.

    Raises:
        ShapeError: index and input have different numbers of dimensions, or the index is larger in another dimension.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: the index is not of an integer dtype.
    """
    if sparse_grad is not True and sparse_grad is not False:
        raise DtypeError(f"gather: sparse_grad={sparse_grad!r}; expected True or False")
    index = checked_indices(index, "gather", input)
    shape, sizes = index.array.shape, input.array.shape
    dim = normalize_dim(dim, input.ndim, "gather")
    if not index.array.size and len(shape) != len(sizes):
        return reshape(reshape(input, -1)[:0], shape)
    check_index_along("gather", dim, index, input)
    if not (shape and sizes):
        return reshape(gather(reshape(input, -1), 0, reshape(index, -1)), shape)
    return gather_at(input, dim, from_zero(index, dim, input, GATHER), GATHER)


def check_index_along(function: str, dim: int, index: Tensor, x: Tensor) -> None:
    """Raise a ShapeError unless an index along ``dim`` has as many dimensions as x, and fits in all others."""
    shape, sizes = index.array.shape, x.array.shape
    if max(len(shape), 1) != max(len(sizes), 1):
        raise ShapeError(f"{function}: index has shape {shape}, the tensor {sizes}; expected the same number of dimensions")
    if any(n > m for d, (n, m) in enumerate(zip(shape, sizes)) if d != dim):
        raise ShapeError(
            f"{function}: index has shape {shape}, the tensor {sizes}; expected at most the tensor's size in every dimension "
            f"except {dim}"
        )


def gather_at(x: Tensor, dim: int, index: Tensor, site: Site) -> Tensor:
    """:func:`gather` of checked arguments, on behalf of the function ``site``."""
    return index_with(x, gather_index(dim, index, x), site)


def checked_indices(index: Any, function: str, x: Tensor) -> Tensor:
    """An index array as a tensor on the device of x.

    Raises:
        DtypeError: it is not of an integer dtype.
    """
    index = wrap(index, function)
    if index.array.dtype != int64 and index.array.dtype != int32:
        raise DtypeError(f"{function}: index of dtype {index.dtype}; expected int32 or int64")
    return _on_device_of(index, x)


@public("index_select", takes_complex=True)
def index_select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The slices of input along ``dim`` at the integers of a 1-d index, from 0.

    Raises:
        ShapeError: the index has more than one dimension.
        OutOfRangeError: an index is out of range; on a GPU as for x[index].
        DtypeError: the index is not of an integer dtype.
    """
    at, index = normalize_dim(dim, input.ndim, "index_select"), checked_indices(index, "index_select", input)
    if index.ndim > 1:
        raise ShapeError(f"index_select: index has shape {index.shape}; expected one dimension")
    if not input.ndim and index.array.size != 1:
        raise ShapeError(f"index_select: {index.array.size} indices for a tensor without dimensions; expected one")
    if not input.ndim:
        return reshape(index_select(reshape(input, 1), 0, index), ())
    index = from_zero(reshape(index, -1), at, input, INDEX_SELECT)
    return index_with(input, (slice(None),) * at + (index,), INDEX_SELECT)


@public("masked_select", takes_complex=True)
def masked_select(input: Tensor, mask: Any) -> Tensor:
    """The elements where the boolean ``mask`` is true, as a 1-d tensor; input and mask broadcast.

    Raises:
        DtypeError: the mask is not boolean.
        ShapeError: the shapes do not broadcast.
    """
    mask = wrap(mask, "masked_select")
    if not is_boolean(mask.dtype):
        raise DtypeError(f"masked_select: mask of dtype {mask.dtype}; expected booleans, such as input > 0")
    shape = broadcast_shape("masked_select", input.array.shape, mask.array.shape) or (1,)
    return getitem(broadcast_to(input, shape=shape), broadcast_to(mask, shape=shape))


def _triangle(x: Tensor, diagonal: Any, name: str) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"{name}: the tensor has shape {x.shape}; expected a matrix or a batch of matrices")
    xp, reach = devices.module(x.array), sum(x.array.shape[-2:]) + 1
    diagonal = max(-reach, min(as_integer(name, "diagonal", diagonal), reach))
    keep = xp.tri(*x.array.shape[-2:], diagonal if name == "tril" else diagonal - 1, dtype=bool)
    keep = keep if name == "tril" else xp.logical_not(keep)
    zero = convert_number(0, x.dtype, name)
    return where(make_tensor(constant(xp.broadcast_to(keep, x.array.shape))), x, zero)


@elementwise("tril", takes_complex=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions; elements above ``diagonal`` are zero."""
    return _triangle(input, diagonal, "tril")


@elementwise("triu", takes_complex=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions; elements below ``diagonal`` are zero."""
    return _triangle(input, diagonal, "triu")
