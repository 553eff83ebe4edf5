"""Concatenate and split tensors along a dimension."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import COPY, Tensor, primitive, wrap
from gpunet.backend.dtypes import int64
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.arrange import atleast_1d, atleast_2d, atleast_3d
from gpunet.ops.broadcast import result_dtype
from gpunet.ops.dims import normalize_dim, normalize_slice_dim
from gpunet.ops.face import as_integer, public, sizes_of
from gpunet.ops.index import _index
from gpunet.ops.shape import _reshape

__all__ = [
    "cat", "chunk", "column_stack", "concat", "concatenate", "dsplit", "dstack", "hsplit", "hstack", "narrow", "row_stack",
    "select", "split", "stack", "tensor_split", "unbind", "vsplit", "vstack",
]  # fmt: skip


@primitive(takes_complex=True)
def _cat(*tensors, dim, starts):
    """Concatenate; input i begins at ``starts[i]`` along ``dim``."""
    shape = list(tensors[0].array.shape)
    shape[dim] = starts[-1]
    out = empty(tuple(shape), result_dtype(*tensors), tensors[0].array)
    for position, x in enumerate(tensors):
        COPY(out[_span(position, dim, starts)], x.array)
    return out


def _span(position, dim, starts):
    return (slice(None),) * dim + (slice(starts[position], starts[position + 1]),)


_cat.derivatives(tensors=lambda g, position, dim, starts: _index(g, pattern=_span(position, dim, starts)))


def _operands(function: str, tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise DtypeError(f"{function}: tensors has type {type(tensors).__name__}; expected a list or tuple of tensors")
    if not tensors:
        raise ArgumentError(f"{function}: got no tensors; expected at least one")
    return [wrap(x) for x in tensors]


@public(takes_complex=True)
def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Concatenate tensors along ``dim``.  Tensors of shape (0,) are skipped, as in PyTorch.

    Raises:
        ShapeError: the shapes differ in another dimension.
        ArgumentError: the list is empty.
    """
    return _joined("cat", tensors, dim)


def _joined(function: str, tensors: Any, dim: Any) -> Tensor:
    parts = _operands(function, tensors)
    example = next((x for x in parts if x.array.shape != (0,)), parts[0])
    at, first = normalize_slice_dim(dim, example, function), example.array.shape
    for i, x in enumerate(parts):
        shape = x.array.shape
        if shape == (0,):
            parts[i] = _reshape(x, shape=(*first[:at], 0, *first[at + 1 :]))
        elif len(shape) != len(first) or any(a != b for i, (a, b) in enumerate(zip(shape, first)) if i != at):
            raise ShapeError(f"{function}: shapes {first} and {shape} differ in a dimension other than {dim}")
    return _cat(*parts, dim=at, starts=(0, *itertools.accumulate(x.array.shape[at] for x in parts)))


@public(takes_complex=True)
def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Stack tensors of the same shape along a new dimension ``dim``.

    Raises:
        ShapeError: the shapes differ.
        ArgumentError: the list is empty.
    """
    parts = _operands("stack", tensors)
    shape = parts[0].array.shape
    for x in parts[1:]:
        if x.array.shape != shape:
            raise ShapeError(f"stack: shapes {shape} and {x.array.shape} differ; expected tensors of the same shape")
    at = normalize_dim(dim, len(shape) + 1, "stack")
    return _cat(*(_reshape(x, shape=(*shape[:at], 1, *shape[at:])) for x in parts), dim=at, starts=(*range(len(parts) + 1),))


@public(takes_complex=True)
def concat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """:func:`cat` under another name."""
    return _joined("concat", tensors, dim)


@public(takes_complex=True)
def concatenate(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """:func:`cat` under NumPy's name."""
    return _joined("concatenate", tensors, dim)


@public(takes_complex=True)
def hstack(tensors: Sequence[Any]) -> Tensor:
    """Concatenate along dimension 1, vectors and numbers along dimension 0."""
    parts = atleast_1d(_operands("hstack", tensors))
    return _joined("hstack", parts, 0 if parts[0].ndim == 1 else 1)


@public(takes_complex=True)
def vstack(tensors: Sequence[Any]) -> Tensor:
    """Concatenate along dimension 0; vectors are rows."""
    return _joined("vstack", atleast_2d(_operands("vstack", tensors)), 0)


@public(takes_complex=True)
def row_stack(tensors: Sequence[Any]) -> Tensor:
    """:func:`vstack` under another name."""
    return _joined("row_stack", atleast_2d(_operands("row_stack", tensors)), 0)


@public(takes_complex=True)
def dstack(tensors: Sequence[Any]) -> Tensor:
    """Concatenate along dimension 2; matrices get a third dimension of size 1, vectors and numbers also a first one."""
    return _joined("dstack", atleast_3d(_operands("dstack", tensors)), 2)


@public(takes_complex=True)
def column_stack(tensors: Sequence[Any]) -> Tensor:
    """Concatenate along dimension 1; vectors and numbers are columns."""
    parts = _operands("column_stack", tensors)
    columns = [_reshape(x, shape=(x.array.size, 1)) if x.ndim < 2 else x for x in parts]
    return _joined("column_stack", columns, 1)


# ---- views --------------------------------------------------------------------------------------------------------------


def _pieces(x: Tensor, at: int, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Consecutive views of these sizes along dimension ``at``."""
    starts = [0, *itertools.accumulate(sizes)]
    return tuple(_index(x, pattern=_span(i, at, starts)) for i in range(len(sizes)))


@public("split", out=False, names={"tensor": "input", "split_size": "split_size_or_sections"}, takes_complex=True)
def split(input: Any, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Split into views along ``dim``: of one size (the last may be smaller), or of a list of sizes.

    Raises:
        ShapeError: the sizes do not add up to the size of ``dim``.
        ArgumentError: a size is negative, or 0 for a dimension that is not empty.
    """
    at = normalize_slice_dim(dim, input, "split")
    total = input.array.shape[at]
    if isinstance(split_size_or_sections, (tuple, list)):
        sizes = list(sizes_of("split", (), split_size_or_sections=split_size_or_sections))
        if min(sizes, default=0) < 0:
            raise ArgumentError(f"split: sizes {sizes}; expected numbers >= 0")
        if sum(sizes) != total:
            raise ShapeError(f"split: sizes {sizes} add up to {sum(sizes)}; dimension {dim} of {input.array.shape} has {total}")
        return _pieces(input, at, sizes)
    size = as_integer("split", "split_size", split_size_or_sections)
    if size < 0 or (size == 0 and total):
        raise ArgumentError(f"split: split_size={size}; expected a positive number")
    return _pieces(input, at, [min(size, total - start) for start in range(0, total, size or 1)] or [0])


@public("chunk", out=False, takes_complex=True)
def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Split into at most ``chunks`` views of equal size along ``dim``; the last may be smaller.

    Raises:
        ArgumentError: ``chunks`` is not positive.
    """
    at, chunks = normalize_slice_dim(dim, input, "chunk"), as_integer("chunk", "chunks", chunks)
    if chunks <= 0:
        raise ArgumentError(f"chunk: chunks={chunks}; expected a positive number")
    total = input.array.shape[at]
    size = -(-total // chunks)
    return _pieces(input, at, [min(size, total - start) for start in range(0, total, size)] if size else [0] * chunks)


@public("unbind", out=False, takes_complex=True)
def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, a tuple of views without that dimension."""
    at = normalize_slice_dim(dim, input, "unbind")
    return tuple(_index(input, pattern=(slice(None),) * at + (i,)) for i in range(input.array.shape[at]))


def _boundaries(function: str, x: Tensor, at: int, given: Any) -> list[int]:
    """The indices at which tensor_split() splits, for a number of sections or for a sequence of indices."""
    total = x.array.shape[at]
    if isinstance(given, Tensor):
        if given.ndim > 1 or given.dtype != int64:
            raise ShapeError(
                f"{function}: tensor_indices_or_sections has shape {tuple(given.shape)} and dtype {given.dtype}; expected an int64 "
                "tensor of at most one dimension"
            )
        given = given.tolist()
    if isinstance(given, (tuple, list)):
        indices = list(sizes_of(function, (), indices=given))
        return [min(i + total if i < 0 else i, total) if i >= -total else 0 for i in indices]
    sections = as_integer(function, "sections", given)
    if sections < 1:
        raise ArgumentError(f"{function}: sections={sections}; expected a positive number")
    size, larger = divmod(total, sections)
    return [*itertools.accumulate(size + (i < larger) for i in range(sections - 1))]


def _split_at(function: str, x: Tensor, at: int, given: Any) -> tuple[Tensor, ...]:
    bounds = [0, *_boundaries(function, x, at, given), x.array.shape[at]]
    before = (slice(None),) * at
    return tuple(_index(x, pattern=(*before, slice(low, max(low, high)))) for low, high in itertools.pairwise(bounds))


_NAMES = dict.fromkeys(("sections", "indices", "tensor_indices_or_sections"), "indices_or_sections")


@public("tensor_split", out=False, names=_NAMES, takes_complex=True)
def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Split into views along ``dim``, into a number of sections whose sizes differ by 1 at most, or at indices.

    Raises:
        ArgumentError: the number of sections is not positive.
    """
    return _split_at("tensor_split", input, normalize_slice_dim(dim, input, "tensor_split"), indices_or_sections)


def _split_along(name: str, dim: int) -> Any:
    def function(input: Any, *args: Any, indices_or_sections: Any = None) -> tuple[Tensor, ...]:
        if len(args) + (indices_or_sections is not None) == 0:
            raise ArgumentError(f"{name}: indices_or_sections is missing; expected a number of sections, or indices")
        given = indices_or_sections if not args else args[0] if len(args) == 1 else args
        if input.ndim < (least := {"hsplit": 1, "vsplit": 2, "dsplit": 3}[name]):
            raise ShapeError(f"{name}: the tensor has shape {tuple(input.shape)}; expected at least {least} dimensions")
        at = min(dim, input.ndim - 1)
        size = input.array.shape[at]
        if not isinstance(given, (tuple, list)) and size % max(as_integer(name, "sections", given), 1):
            raise ShapeError(f"{name}: {size} elements along dimension {at} cannot be split into {given} equal parts")
        return _split_at(name, input, at, given)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Split into views along dimension {dim}, into a number of equal sections, or at a sequence of indices."
    return public(name, out=False, names=_NAMES, takes_complex=True)(function)


hsplit = _split_along("hsplit", 1)
vsplit = _split_along("vsplit", 0)
dsplit = _split_along("dsplit", 2)


@public("narrow", out=False, takes_complex=True)
def narrow(input: Any, dim: int, start: Any, length: int) -> Tensor:
    """A view of ``length`` elements along ``dim``, beginning at ``start``, an integer or a 0-d integer tensor.

    Raises:
        OutOfRangeError: they are not all in the dimension.
        ShapeError: ``start`` has dimensions.
    """
    at = normalize_slice_dim(dim, input, "narrow")
    if isinstance(start, Tensor) and start.ndim:
        raise ShapeError(f"narrow: start has shape {tuple(start.shape)}; expected an integer or a 0-d integer tensor")
    size, first, count = input.array.shape[at], as_integer("narrow", "start", start), as_integer("narrow", "length", length)
    begin = first + size if first < 0 else first
    if count < 0 or not 0 <= begin <= size - count:
        raise OutOfRangeError(f"narrow: start={first}, length={count} for dimension {dim} of size {size}; expected a part of it")
    return _index(input, pattern=(slice(None),) * at + (slice(begin, begin + count),))


@public("select", out=False, takes_complex=True)
def select(input: Any, dim: int, index: int) -> Tensor:
    """A view of the slice ``index`` along ``dim``, without that dimension.

    Raises:
        OutOfRangeError: the index is out of range.
    """
    at, number = normalize_slice_dim(dim, input, "select"), as_integer("select", "index", index)
    size = input.array.shape[at]
    if not -size <= number < size:
        raise OutOfRangeError(f"select: index={number} for dimension {dim} of size {size}; expected {-size} .. {size - 1}")
    return _index(input, pattern=(slice(None),) * at + (number,))
