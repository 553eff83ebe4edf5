"""Indexing: views for numbers and slices, gathers for arrays, and the scatter that takes gradients back."""

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
from gpunet.ops.broadcast import fit
from gpunet.ops.dims import normal_dim
from gpunet.ops.elementwise import where
from gpunet.ops.in_place import alias_of, check_in_place, replace

__all__ = ["gather", "index_select", "masked_select", "tril", "triu"]

TAKE = Shim("take", lambda xp, out, x, *, index: xp.copyto(out, x[index]))
PUT = Shim("put", lambda xp, out, value, *, index: out.__setitem__(index, value))
ORDER = Shim("argsort", lambda xp, out, x: xp.copyto(out, xp.argsort(x, kind="stable")))
POSITIONS = Shim(
    "positions",
    lambda xp, out, *, index, shape: xp.copyto(out, xp.arange(math.prod(shape)).reshape(shape)[index].reshape(-1)),
)


def _plain_index(index: Any, x: Tensor) -> tuple[Any, ...]:
    """An index of Python numbers, slices and tensors on the tensor's device.

    Tensors, not arrays, so that the rules that close over the index notice when it is changed.
    """
    items = index if isinstance(index, tuple) else (index,)
    plain = []
    for item in items:
        if isinstance(item, (list, range)):
            item = constant(numpy.asarray(item, numpy.int64 if not len(item) else None))
        if isinstance(item, Tensor) or devices.is_array(item):
            if item.dtype.kind not in "iub":
                raise DtypeError(f"index of dtype {item.dtype}; expected integers, booleans, slices, None or ...")
            if item.dtype.kind == "b" and active.tape is not None:
                what = "indexing with booleans, whose result has as many elements as are true,"
                graph_break(what, "use where() or a product", item.array if isinstance(item, Tensor) else item)
            item = wrap(item)
            item = item if item.device == x.device else Tensor(move_to_device(item.array, x.device))
        elif isinstance(item, (float, str)):
            raise DtypeError(f"index {item!r}; expected integers, booleans, slices, None or ...")
        plain.append(item)
    return tuple(plain)


def _arrays(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """An index as NumPy and CuPy take it."""
    return tuple(item.array if isinstance(item, Tensor) else item for item in index)


def _checked(x: Tensor, index: tuple[Any, ...]) -> Array:
    """x[index] with errors that name the shapes."""
    for item in index:
        if isinstance(item, Tensor):
            flush_pending("an index that the step computes, whose range is checked,", item.array)
    try:
        return _look(x.array, _arrays(index))
    except IndexError as error:
        raise ShapeError(f"index {index} does not fit a tensor of shape {x.shape}: {error}") from None


def _is_view(index: tuple[Any, ...]) -> bool:
    return all(isinstance(i, (int, numpy.integer, slice)) or i is None or i is Ellipsis for i in index)


def _look(array: Array, index: tuple[Any, ...]) -> Array:
    """array[index], an array also where all dimensions are named: NumPy alone would make it a number of its own."""
    return array[index] if not _is_view(index) or any(i is Ellipsis for i in index) else array[(*index, Ellipsis)]


@primitive(view=True)
def _index(x, *, index):
    """x[index]: a view for numbers and slices, a copy for arrays."""
    source = x.shape
    if _is_view(index):
        return _checked(x, index), lambda g: _unindex(g, index=index, shape=source)
    picked = _checked(x, index)  # looked at once for its shape, then launched, so that a tape can repeat it
    out = empty(picked.shape, x.dtype, x.array)
    TAKE(out, x.array, index=_arrays(index))
    return out, lambda g: _unindex(g, index=index, shape=source)


@primitive
def _unindex(g, *, index, shape):
    """Zeros of ``shape`` with g added at ``index``: what indexing does to a gradient."""
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    if _is_view(index):
        COPY(_look(out, index), g.array)
    else:
        add_rows(out, g.array, _arrays(index))
    return out, lambda h: _index(h, index=index)


def add_rows(out: Array, values: Array, index: tuple[Any, ...]) -> None:
    """out[index] += values where an element may be named several times, in a fixed order.

    The flat positions are sorted (stably), so that each element is summed by one thread from its first name to its last.
    """
    # launches, not plain calls: a recorded step finds the positions anew when the indices change (argmax, labels)
    positions, order, ascending = (empty((values.size,), numpy.dtype("int64"), out) for _ in range(3))
    POSITIONS(positions, index=index, shape=out.shape)
    ORDER(order, positions)
    TAKE(ascending, positions, index=order)
    scatter_add(out.reshape(-1), contiguous(values).reshape(-1), ascending, order)


@kernel("scatter.cu", outputs=1, types={"positions": "int64", "order": "int64"})
def scatter_add(out, values, positions, order):
    """out[positions[j]] += values[order[j]], one position's terms in the order of j; positions are sorted.

    out (n,), values, positions, order (m,).
    """
    numpy.add.at(out, positions, values[order])


@scatter_add.geometry
def _(out, values, positions, order):
    return Geometry(ceil_div(values.size, 256), 256, (numpy.int64(values.size),))


@method("__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] with NumPy's rules: numbers, slices, None, ..., integer and boolean tensors or arrays.

    Raises:
        ShapeError: an index out of range, or too many.
        DtypeError: an index that is no index.
    """
    return _index(x, index=_plain_index(index, x))


@primitive
def _with_index(x, value, *, index):
    """A copy of x in which x[index] is value."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    shape, dtype = (value.shape, value.dtype) if isinstance(value, Tensor) else ((), x.dtype)
    PUT(out, value.array if isinstance(value, Tensor) else value, index=_arrays(index))

    def value_rule(g):
        return fit(_index(g, index=index), (shape, dtype))

    return out, lambda g: _with_index(g, 0, index=index), value_rule


@method("__setitem__")
def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, in place; the gradient follows both.

    Raises:
        ShapeError: the value does not fit.
        GradientError: x is a leaf that requires grad (do it under no_grad()).
    """
    index = _plain_index(index, x)
    check_in_place(x, (value,), "x[...] = value")
    picked = _checked(x, index)
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
                f"x[...] = value: value of shape {value.shape} does not fit the place of shape {picked.shape}"
            )
    if is_grad_enabled() and (x._requires_grad or (isinstance(value, Tensor) and value._requires_grad)):
        replace(x, _with_index(alias_of(x), value, index=index), "x[...] = value")
    else:
        PUT(x.array, value.array if isinstance(value, Tensor) else value, index=_arrays(index))
        bump_version(x)


def _gather_index(dim: int, index: Tensor) -> tuple[Any, ...]:
    """The index that picks along ``dim`` with ``index`` and stays in place along all other dimensions."""
    xp = devices.module(index.array)
    grid: list[Any] = [
        xp.arange(n).reshape((1,) * i + (n,) + (1,) * (index.ndim - i - 1)) for i, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


@method("gather")
def gather(x: Tensor, dim: int, index: Any) -> Tensor:
    """out[i][j] = x[index[i][j]][j] for dim 0, and so on: one element for each of the index.

    Raises:
        ShapeError: another number of dimensions.
        DtypeError: indices that are not integers.
    """
    index = wrap(index)
    if index.ndim != x.ndim:
        raise ShapeError(f"gather: index has shape {index.shape}, the tensor {x.shape}; expected as many dimensions")
    if index.dtype.kind not in "iu":
        raise DtypeError(f"gather: index of dtype {index.dtype}; expected integers")
    return _index(x, index=_gather_index(normal_dim(dim, x.ndim, "gather"), index))


@method("index_select")
def index_select(x: Tensor, dim: int, index: Any) -> Tensor:
    """The slices along ``dim`` that a vector of integers names."""
    at = normal_dim(dim, x.ndim, "index_select")
    return getitem(x, (slice(None),) * at + (index,))


@method("masked_select")
def masked_select(x: Tensor, mask: Any) -> Tensor:
    """The elements where a boolean mask holds, as a vector."""
    return getitem(x, mask)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"{'tril' if lower else 'triu'} of a tensor of shape {x.shape}; expected a matrix, or a stack of them")
    xp = devices.module(x.array)
    rows, columns = xp.arange(x.shape[-2])[:, None], xp.arange(x.shape[-1])[None, :]
    keep = columns <= rows + diagonal if lower else columns >= rows + diagonal
    return where(Tensor(constant(xp.broadcast_to(keep, x.shape))), x, 0.0 if x.is_floating_point() else 0)


@method("tril")
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, zero above."""
    return _triangle(x, diagonal, True)


@method("triu")
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, zero below."""
    return _triangle(x, diagonal, False)
