"""Tensors and views with any strides, and copies in which a view is replaced: as_strided, as_strided_scatter, diagonal_scatter."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, method, primitive, wrap
from gpunet.backend import devices
from gpunet.errors import ArgumentError, OutOfRangeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.arrange import view_in_place
from gpunet.ops.broadcast import cast
from gpunet.ops.creation import allocate, creates, shape_of, zeros
from gpunet.ops.diagonal import _plane, _undiagonal
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, check_flag, public, sizes_of
from gpunet.ops.in_place import in_place
from gpunet.ops.index import index_select
from gpunet.ops.memory_methods import owner_of
from gpunet.ops.scatter import index_add

__all__ = ["as_strided", "as_strided_scatter", "diagonal_scatter", "empty_permuted", "empty_strided"]

#: Where the elements of a tensor lie in its memory: shape, strides and offset, in elements.
Geometry = tuple[tuple[int, ...], tuple[int, ...], int]


def _geometry(x: Tensor) -> Geometry:
    size = x.array.itemsize
    return tuple(x.array.shape), tuple(s // size for s in x.array.strides), owner_of(x.array)[1] // size


def _places(geometry: Geometry) -> numpy.ndarray:
    """The place in memory of each element."""
    shape, strides, offset = geometry
    place = numpy.full(shape, offset, numpy.int64)
    for dim, (n, stride) in enumerate(zip(shape, strides)):
        place += (stride * numpy.arange(n)).reshape((n,) + (1,) * (len(shape) - dim - 1))
    return place


def _on_device_of(x: Tensor, array: numpy.ndarray) -> Tensor:
    return make_tensor(constant(devices.move(array, x.device)))


@primitive(name="as_strided", view=True, takes_complex=True)
def _as_strided(x, *, own, wanted):
    owner, size = owner_of(x.array)[0], x.array.itemsize
    shape, strides, offset = wanted
    if 0 in shape:
        return x.array.reshape(-1)[:0].reshape(shape)
    return devices.strided_view(owner, offset * size, shape, tuple(s * size for s in strides), x.array.dtype)


def _as_strided_derivative(g, own, wanted):
    """The sum of the gradients at each place in memory; elements that share it get equal parts."""
    mine, theirs = _places(own), _places(wanted)
    size = int(max(mine.max(initial=0), theirs.max(initial=0))) + 1
    memory = index_add(zeros(size, dtype=g.dtype, device=g.device), 0, _on_device_of(g, theirs.reshape(-1)), g.reshape(-1))
    gradient = index_select(memory, 0, _on_device_of(g, mine.reshape(-1))).reshape(mine.shape)
    shared = numpy.bincount(mine.reshape(-1), minlength=1)
    return gradient / _on_device_of(g, shared[mine].astype("float32")) if shared.max() > 1 else gradient


_as_strided.derivatives(x=_as_strided_derivative)


def _wanted(function: str, x: Tensor, size: Any, stride: Any, storage_offset: Any) -> tuple[Geometry, Geometry]:
    own = _geometry(x)
    shape = sizes_of(function, (), size=size)
    strides = sizes_of(function, (), stride=stride)
    offset = own[2] if storage_offset is None else as_integer(function, "storage_offset", storage_offset)
    if len(shape) != len(strides):
        raise ShapeError(f"{function}: size={shape}, stride={strides}; expected equally many numbers")
    if min((*shape, *strides, offset), default=0) < 0:
        raise ArgumentError(f"{function}: size={shape}, stride={strides}, storage_offset={offset}; expected no negative number")
    end = offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1 if 0 not in shape else 0
    room = owner_of(x.array)[0].nbytes // x.array.itemsize
    if end > room:
        raise OutOfRangeError(f"{function}: size={shape}, stride={strides}, storage_offset={offset} end at element {end} of {room}")
    return own, (shape, strides, offset)


@public("as_strided", out=False, takes_complex=True)
def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory of ``input`` with these sizes and strides, in elements; its elements may overlap.

    Args:
        storage_offset: of its first element; None is that of ``input``.

    Raises:
        OutOfRangeError: the view would end behind the memory.
        ArgumentError: a negative number.
    """
    own, wanted = _wanted("as_strided", input, size, stride, storage_offset)
    return _as_strided(input, own=own, wanted=wanted)


view_in_place(as_strided, "as_strided_")


# ---- uninitialised tensors --------------------------------------------------------------------------------------------


def _empty(function: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, device: Any) -> Tensor:
    if len(shape) != len(strides):
        raise ShapeError(f"{function}: size={shape}, stride={strides}; expected equally many numbers")
    if min(strides, default=0) < 0:
        raise ArgumentError(f"{function}: stride={strides}; expected no negative number")
    count = 0 if 0 in shape else sum((n - 1) * step for n, step in zip(shape, strides)) + 1
    memory = allocate((count,), dtype, device).array
    if not count:
        return make_tensor(memory.reshape(shape))
    size = memory.itemsize
    return make_tensor(devices.strided_view(memory, 0, shape, tuple(step * size for step in strides), memory.dtype))


@creates
def empty_strided(size: Any, stride: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An uninitialised tensor with these strides, in elements; its elements may overlap.

    Raises:
        ShapeError: there are not as many strides as sizes, or a size is negative.
        ArgumentError: a stride is negative.
    """
    return _empty("empty_strided", shape_of("empty_strided", (), size), sizes_of("empty_strided", (), stride=stride), dtype, device)


@creates
def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An uninitialised tensor whose dimensions lie in memory in the order ``physical_layout``, without gaps.

    Raises:
        ArgumentError: ``physical_layout`` does not contain each dimension once.
        ShapeError: a size is negative.
    """
    shape = shape_of("empty_permuted", (), size)
    order = sizes_of("empty_permuted", (), physical_layout=physical_layout)
    if sorted(order) != list(range(len(shape))):
        raise ArgumentError(f"empty_permuted: physical_layout={order}; expected each of the {len(shape)} dimensions once")
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= shape[dim]
    return _empty("empty_permuted", shape, tuple(strides), dtype, device)


@method("new_empty_strided")
def new_empty_strided(self: Tensor, size: Any, stride: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
    """:func:`empty_strided` with the dtype and device of the tensor by default."""
    of = self.dtype if dtype is None else dtype
    return empty_strided(size, stride, dtype=of, device=self.device if device is None else device, **options)


@public("as_strided_scatter", out=False, takes_complex=True)
def as_strided_scatter(input: Any, src: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy with ``src`` in the place of the view :func:`as_strided`.

    Raises:
        ShapeError: ``src`` does not have the shape of the view.
        ArgumentError: a stride is 0: elements of ``src`` would go to one place.
        OutOfRangeError, ArgumentError: as of :func:`as_strided`.
    """
    own, wanted = _wanted("as_strided_scatter", input, size, stride, storage_offset)
    if any(step == 0 and n > 1 for n, step in zip(*wanted[:2])) and 0 not in wanted[0]:
        raise ArgumentError(
            f"as_strided_scatter: size={wanted[0]}, stride={wanted[1]}: elements of src go to one place; expected strides above 0"
        )
    src = wrap(src, "as_strided_scatter")
    if tuple(src.shape) != wanted[0]:
        raise ShapeError(f"as_strided_scatter: src has shape {tuple(src.shape)}; expected {wanted[0]}")
    mine, theirs = _places(own), _places(wanted).reshape(-1)
    element = numpy.full(int(max(mine.max(initial=0), theirs.max(initial=0))) + 1, -1)
    element[theirs] = numpy.arange(theirs.size)
    chosen = element[mine]
    if theirs.size:
        taken = index_select(src.reshape(-1), 0, _on_device_of(input, numpy.maximum(chosen, 0).reshape(-1))).reshape(mine.shape)
    else:
        taken = src.sum()  # which no place takes: for the gradient of src, which is empty
    return where(_on_device_of(input, chosen >= 0), cast(taken, dtype=input.dtype) if taken.dtype != input.dtype else taken, input)


@public("diagonal_scatter", takes_complex=True)
def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with ``src`` as the diagonal of the matrices in two dimensions (see :func:`diagonal`).

    Raises:
        ShapeError: ``src`` does not have the shape of the diagonal.
        ArgumentError: the dimensions are the same.
    """
    first, second = _plane("diagonal_scatter", input.ndim, dim1, dim2)
    shift, src = as_integer("diagonal_scatter", "offset", offset), wrap(src, "diagonal_scatter")
    expected = tuple(input.detach().diagonal(shift, first, second).shape)
    if tuple(src.shape) != expected:
        raise ShapeError(f"diagonal_scatter: src has shape {tuple(src.shape)}; expected {expected}")
    src = src if src.dtype == input.dtype else cast(src, dtype=input.dtype)
    placed = _undiagonal(src, shape=tuple(input.shape), offset=shift, dim1=first, dim2=second)
    mask = _on_device_of(input, numpy.ones(expected, bool))
    return where(_undiagonal(mask, shape=tuple(input.shape), offset=shift, dim1=first, dim2=second), placed, input)


def _fill_diagonal(input: Any, fill_value: Any, wrap: bool = False) -> Tensor:
    check_flag("fill_diagonal_", "wrap", wrap)
    shape = tuple(input.shape)
    if len(shape) < 2:
        raise ShapeError(f"fill_diagonal_: the tensor has shape {shape}; expected at least two dimensions")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ShapeError(f"fill_diagonal_: the tensor has shape {shape}; expected equal sizes of more than two dimensions")
    mask = numpy.zeros(shape, bool)
    numpy.fill_diagonal(mask, True, wrap=wrap)
    return input.masked_fill(_on_device_of(input, mask), fill_value)


_fill_diagonal.__name__ = _fill_diagonal.__qualname__ = "fill_diagonal"
method("fill_diagonal_")(in_place(_fill_diagonal, "fill_diagonal_"))
