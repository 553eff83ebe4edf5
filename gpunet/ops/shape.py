"""Change the shape or the order of dimensions; results are views where the strides allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import ADD, COPY, FILL, Tensor, contiguous, make_tensor, method, primitive
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, as_dtype
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import graph_break
from gpunet.ops.broadcast import broadcast_to as broadcast
from gpunet.ops.broadcast import sum_to
from gpunet.ops.dims import normalize_dim, normalize_dims, resolved_sizes
from gpunet.ops.face import as_integer, public, sizes_of

__all__ = [
    "broadcast_to", "flatten", "flip", "permute", "reshape", "squeeze", "swapaxes", "t", "transpose", "unflatten", "unsqueeze",
]  # fmt: skip


# ---- views ------------------------------------------------------------------------------------------------------------


@primitive(view=True, takes_scale=True, takes_complex=True)
def alias(x):
    """An alias of x: an identity node in the graph."""
    return x.array


alias.derivatives(x=lambda g: g)

_BYTE = numpy.zeros(1, numpy.int8)


def reshaped_view(array: Array, shape: tuple[int, ...]) -> Array | None:
    """The array in another shape without a copy, or None if its strides do not allow it."""
    if array.flags.c_contiguous:
        return array.reshape(shape)
    on_cpu = isinstance(array, numpy.ndarray)
    # for CuPy an array of the same strides, which is never read: only NumPy's reshape can refuse to copy
    probe = array if on_cpu else numpy.lib.stride_tricks.as_strided(_BYTE, array.shape, array.strides)
    try:
        found = probe.reshape(shape, copy=False)
    except ValueError:
        return None
    return found if on_cpu else array.reshape(shape)


@primitive(view=True, takes_scale=True, takes_complex=True)
def _reshape(x, *, shape):
    view = reshaped_view(x.array, shape)
    return contiguous(x.array).reshape(shape) if view is None else view


_reshape.derivatives(x=lambda g, x_shape: _reshape(g, shape=x_shape))


@public("reshape", out=False, takes_complex=True)
def reshape(input: Any, *sizes: Any, shape: Sequence[int] | None = None) -> Tensor:
    """The elements in another shape; one size may be -1.  A view if the strides allow it, else a copy.

    Raises:
        ShapeError: the number of elements differs.
    """
    return _reshape(input, shape=_new_shape("reshape", input, sizes_of("reshape", sizes, shape=shape)))


def _new_shape(function: str, x: Tensor, sizes: tuple[int, ...]) -> tuple[int, ...]:
    count = x.array.size
    if math.prod(sizes) == count and min(sizes, default=0) >= 0:
        return sizes
    return resolved_sizes(function, sizes, count, f"the {count} elements of shape {x.array.shape}")


@public("view", out=False, takes_complex=True)
def view(input: Any, *sizes: Any, size: Sequence[int] | None = None, dtype: Any = None) -> Tensor:
    """view(2, -1): the same memory in another shape.  view(dtype): the same bytes as numbers of another dtype.

    Raises:
        ShapeError: the number of elements differs, or the strides need a copy.
    """
    first: Any = sizes[0] if len(sizes) == 1 else None
    if isinstance(first, (numpy.dtype, type)):
        sizes, dtype = (), first
    if dtype is not None:
        if sizes or size is not None:
            raise ArgumentError(f"view: got sizes and dtype={dtype!r}; pass one of them")
        return _reinterpreted(input, as_dtype(dtype))
    new = _new_shape("view", input, sizes_of("view", sizes, size=size))
    if not input.array.flags.c_contiguous and reshaped_view(input.array, new) is None:
        raise ShapeError(
            f"view: shape {tuple(input.shape)} with strides of {input.array.strides} bytes cannot be seen as {new} without a "
            "copy: use reshape()"
        )
    return _reshape(input, shape=new)


def _reinterpreted(x: Tensor, dtype: numpy.dtype[Any]) -> Tensor:
    """The bytes of x as numbers of ``dtype``, outside of the graph; the last dimension holds the same number of bytes."""
    array = x.array
    graph_break("view(dtype)", "use .to(dtype), which converts the numbers")
    if dtype.itemsize != array.itemsize:
        if not array.ndim or not (array.flags.c_contiguous or array.strides[-1] == array.itemsize):
            raise ShapeError(
                f"view: {array.dtype} of shape {array.shape} as {dtype}: the last dimension must be contiguous; use .contiguous()"
            )
        if array.shape[-1] * array.itemsize % dtype.itemsize:
            raise ShapeError(
                f"view: {array.dtype} of shape {array.shape} as {dtype}: the last dimension has {array.shape[-1]} elements of "
                f"{array.itemsize} bytes; expected a multiple of {dtype.itemsize} bytes"
            )
    result = make_tensor(array.view(dtype))
    result._version, result._view_version = x._version, x._version[0]
    return result


def _shape_of(function: str, other: Any) -> tuple[int, ...]:
    if not isinstance(other, Tensor):
        raise DtypeError(f"{function}: other={other!r}; expected a tensor")
    return other.array.shape


@method("view_as")
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """:func:`view` in the shape of ``other``."""
    return view(input, _shape_of("view_as", other))


@method("reshape_as")
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """:func:`reshape` to the shape of ``other``."""
    return reshape(input, _shape_of("reshape_as", other))


@public("flatten", out=False, takes_complex=True)
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Flatten the dimensions start_dim .. end_dim into one."""
    shape = input.array.shape
    start = normalize_dim(start_dim, len(shape), "flatten", "start_dim")
    end = normalize_dim(end_dim, len(shape), "flatten", "end_dim")
    if start > end:
        raise ArgumentError(f"flatten: start_dim={start_dim}, end_dim={end_dim}; expected start_dim <= end_dim")
    return _reshape(input, shape=(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@public("unflatten", out=False, takes_complex=True)
def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split dimension ``dim`` into dimensions of the given sizes; one may be -1.

    Raises:
        ShapeError: the product of the sizes is not the size of the dimension.
    """
    shape = input.array.shape
    at = normalize_dim(dim, len(shape), "unflatten")
    count = shape[at] if shape else 1
    given = sizes_of("unflatten", (), sizes=sizes)
    if not given:
        raise ShapeError(f"unflatten: sizes={sizes!r} is empty; expected at least one size: use squeeze() to drop a dimension")
    new = resolved_sizes("unflatten", given, count, f"dimension {dim} of size {count}")
    return _reshape(input, shape=(*shape[:at], *new, *shape[at + 1 :]))


@primitive(view=True, takes_scale=True, takes_complex=True)
def _permute(x, *, dims):
    return x.array.transpose(dims)


_permute.derivatives(x=lambda g, dims: _permute(g, dims=tuple(sorted(range(len(dims)), key=dims.__getitem__))))


@public("permute", out=False, takes_complex=True)
def permute(input: Any, *order: Any, dims: Sequence[int] | None = None) -> Tensor:
    """A view with the dimensions in another order.

    Raises:
        ShapeError: ``dims`` does not contain each dimension once.
    """
    given = sizes_of("permute", order, dims=dims)
    if len(given) != input.ndim:
        raise ShapeError(f"permute: dims={given}; expected each of the {input.ndim} dimensions of {tuple(input.shape)} once")
    return _permute(input, dims=normalize_dims(given, input.ndim, "permute", "dims"))


@public("transpose", out=False, takes_complex=True)
def transpose(input: Any, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    ndim = input.ndim
    return _swapped(input, normalize_dim(dim0, ndim, "transpose", "dim0"), normalize_dim(dim1, ndim, "transpose", "dim1"))


@public("swapaxes", out=False, takes_complex=True)
def swapaxes(input: Any, axis0: int, axis1: int) -> Tensor:
    """:func:`transpose` under NumPy's name."""
    ndim = input.ndim
    return _swapped(input, normalize_dim(axis0, ndim, "swapaxes", "axis0"), normalize_dim(axis1, ndim, "swapaxes", "axis1"))


def _swapped(x: Tensor, first: int, second: int) -> Tensor:
    order = list(range(x.array.ndim))
    if order:
        order[first], order[second] = second, first
    return _permute(x, dims=tuple(order))


@public("t", out=False, takes_complex=True)
def t(input: Any) -> Tensor:
    """The transpose of a matrix; a 0-d or 1-d tensor is returned as it is.

    Raises:
        ShapeError: the tensor has more than two dimensions.
    """
    if input.ndim > 2:
        raise ShapeError(f"t: the tensor has shape {tuple(input.shape)}; expected at most 2 dimensions: use .mT or .permute()")
    return _reversed(input)


def _reversed(x: Tensor) -> Tensor:
    return _permute(x, dims=tuple(range(x.array.ndim))[::-1])


def _matrix_transpose(x: Tensor) -> Tensor:
    ndim = x.array.ndim
    if ndim < 2:
        raise ShapeError(f"mT: the tensor has shape {tuple(x.shape)}; expected at least 2 dimensions")
    return _swapped(x, ndim - 2, ndim - 1)


Tensor.T = property(_reversed, doc="The dimensions reversed.")  # type: ignore[assignment]
Tensor.mT = property(_matrix_transpose, doc="The last two dimensions exchanged.")  # type: ignore[assignment]


@public("expand", out=False, takes_complex=True)
def expand(input: Any, *sizes: Any, size: Sequence[int] | None = None, implicit: bool = False) -> Tensor:
    """A view that repeats dimensions of size 1; -1 keeps a size.

    Args:
        implicit: has no effect, as in PyTorch.

    Raises:
        ShapeError: the size of a dimension is neither 1 nor the requested size.
    """
    return _expand("expand", input, sizes_of("expand", sizes, size=size))


def _expand(function: str, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    shape = x.array.shape
    lead = len(sizes) - len(shape)
    new = tuple(shape[i - lead] if s == -1 and i >= lead else s for i, s in enumerate(sizes))
    if lead < 0 or any(s < 0 for s in new) or any(n not in (1, s) for n, s in zip(shape, new[lead:])):
        raise ShapeError(f"{function}: shape {shape} cannot be expanded to {sizes}: only dimensions of size 1 can be repeated")
    if math.prod(new) == x.array.size:  # nothing is repeated: a view that can be written
        return _reshape(x, shape=new)
    return broadcast(x, shape=new)


@public("broadcast_to", out=False, takes_complex=True)
def broadcast_to(input: Any, *sizes: Any, size: Sequence[int] | None = None) -> Tensor:
    """A view that repeats dimensions of size 1; -1 keeps a size."""
    return _expand("broadcast_to", input, sizes_of("broadcast_to", sizes, size=size))


@method("expand_as")
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``input`` expanded to the shape of ``other``."""
    return _expand("expand_as", input, _shape_of("expand_as", other))


@public("squeeze", out=False, takes_complex=True)
def squeeze(input: Any, *each: Any, dim: Any = None) -> Tensor:
    """Remove the dimensions of size 1: all, or those in ``dim``: squeeze(0, 2), squeeze((0, 2)) or squeeze(dim=(0, 2))."""
    shape = input.array.shape
    if each:
        if dim is not None:
            raise ArgumentError(f"squeeze: got dim={dim!r} beside {each}; pass one of them")
        dim = each if len(each) > 1 else each[0]
    drop = range(len(shape)) if dim is None else normalize_dims(dim, len(shape), "squeeze")
    return _reshape(input, shape=tuple([n for i, n in enumerate(shape) if n != 1 or i not in drop]))


@public("unsqueeze", out=False, takes_complex=True)
def unsqueeze(input: Any, dim: int) -> Tensor:
    """Insert a dimension of size 1 at ``dim``."""
    shape = input.array.shape
    at = normalize_dim(dim, len(shape) + 1, "unsqueeze")
    return _reshape(input, shape=(*shape[:at], 1, *shape[at:]))


@primitive(view=True, takes_complex=True)
def _unfold(x, *, dim, size, step):
    array = x.array
    shape, strides = array.shape, array.strides
    count = (shape[dim] - size) // step + 1
    windows = (*shape[:dim], count, *shape[dim + 1 :], size)
    return devices.as_strided(array, windows, (*strides[:dim], strides[dim] * step, *strides[dim + 1 :], strides[dim]))


@primitive(name="unfold", takes_complex=True)
def _fold(g, *, dim, size, step, length):
    """The sum of windows at their places along a dimension of this length: the transpose of :func:`_unfold`."""
    windows, count = g.array, g.array.shape[dim]
    total = empty((*windows.shape[:dim], length, *windows.shape[dim + 1 : -1]), accumulator(windows.dtype), windows)
    FILL(total, value=0)
    before = (slice(None),) * dim
    if count < size:  # the fewer launches
        for number in range(count):
            target = total[(*before, slice(number * step, number * step + size))]
            ADD(target, target, devices.module(windows).moveaxis(windows[(*before, number)], -1, dim))
    else:
        for number in range(size):
            target = total[(*before, slice(number, number + step * (count - 1) + 1, step))]
            ADD(target, target, windows[..., number])
    if total.dtype == windows.dtype:
        return total
    out = empty(total.shape, windows.dtype, windows)
    COPY(out, total)
    return out


_unfold.derivatives(x=lambda g, x_shape, dim, size, step: _fold(g, dim=dim, size=size, step=step, length=x_shape[dim]))
_fold.derivatives(g=lambda g, dim, size, step: _unfold(g, dim=dim, size=size, step=step))


@method("unfold")
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of ``size`` elements along a dimension, each ``step`` elements behind the one before.

    Returns:
        The shape of ``input`` with the number of windows, (n - size) // step + 1, instead of n, and ``size`` as a new last
        dimension.

    Raises:
        ArgumentError: ``size`` is negative, or ``step`` is not positive.
        ShapeError: ``size`` is more than the dimension has.
    """
    dim = normalize_dim(dimension, input.ndim, "unfold", "dimension")
    size, step = as_integer("unfold", "size", size), as_integer("unfold", "step", step)
    if size < 0 or step < 1:
        raise ArgumentError(f"unfold: size={size}, step={step}; expected a size of 0 or more and a step of 1 or more")
    length = input.array.shape[dim] if input.ndim else 1
    if size > length:
        raise ShapeError(
            f"unfold: size={size} for dimension {dim} of size {length} of shape {tuple(input.shape)}; expected at most {length}"
        )
    if not input.ndim:
        return _unfold(_reshape(input, shape=(1,)), dim=0, size=size, step=step)[0]
    return _unfold(input, dim=dim, size=size, step=step)


# ---- copies -----------------------------------------------------------------------------------------------------------


@primitive(takes_complex=True)
def _flip(x, *, dims):
    index = (..., *(slice(None, None, -1) if i in dims else slice(None) for i in range(x.ndim)))
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array[index])  # the Ellipsis keeps a 0-d array: x[()] would be a NumPy scalar
    return out


_flip.derivatives(x=lambda g, dims: _flip(g, dims=dims))


@public("flip", out=False, takes_complex=True)
def flip(input: Any, *order: Any, dims: Sequence[int] | None = None) -> Tensor:
    """A copy with the order of elements along ``dims`` reversed."""
    return _flip(input, dims=normalize_dims(sizes_of("flip", order, dims=dims), input.ndim, "flip", "dims"))


def _interleaved(first, second):
    return tuple(n for pair in zip(first, second) for n in pair)


@primitive(takes_complex=True)
def _repeat(x, *, repeats):
    padded = (1,) * (len(repeats) - x.ndim) + x.array.shape
    out = empty(tuple(r * n for r, n in zip(repeats, padded)), x.dtype, x.array)
    wide = _interleaved(repeats, padded)
    single = reshaped_view(x.array, _interleaved((1,) * len(padded), padded))  # inserts dimensions of size 1: never a copy
    COPY(out.reshape(wide), devices.module(x.array).broadcast_to(single, wide))
    return out


def _repeat_derivative(g, x_shape, repeats):
    padded = (1,) * (len(repeats) - len(x_shape)) + x_shape
    wide = _reshape(g, shape=_interleaved(repeats, padded))
    return _reshape(sum_to(wide, shape=_interleaved((1,) * len(padded), padded)), shape=x_shape)


_repeat.derivatives(x=_repeat_derivative)


@public("repeat", out=False, takes_complex=True)
def repeat(input: Any, *times: Any, repeats: Sequence[int] | None = None) -> Tensor:
    """The tensor repeated along each dimension, like numpy.tile.

    Raises:
        ShapeError: there are fewer numbers than dimensions, or one is negative.
    """
    given = sizes_of("repeat", times, repeats=repeats)
    if len(given) < input.ndim or any(n < 0 for n in given):
        raise ShapeError(f"repeat: repeats={given} for shape {tuple(input.shape)}; expected at least {input.ndim} numbers >= 0")
    return _repeat(input, repeats=given)
