"""Concatenate and split tensors along a dimension."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import COPY, Tensor, primitive, wrap
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import result_dtype
from gpunet.ops.dims import normalize_dim, normalize_slice_dim
from gpunet.ops.face import as_integer, public, sizes_of
from gpunet.ops.index import _index
from gpunet.ops.shape import _reshape

__all__ = ["cat", "chunk", "split", "stack", "unbind"]


@primitive
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


@public()
def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Concatenate tensors along ``dim``.  Tensors of shape (0,) are skipped, as in PyTorch.

    Raises:
        ShapeError: the shapes differ in another dimension.
        ArgumentError: the list is empty.
    """
    parts = _operands("cat", tensors)
    example = next((x for x in parts if x.array.shape != (0,)), parts[0])
    at, first = normalize_slice_dim(dim, example, "cat"), example.array.shape
    for i, x in enumerate(parts):
        shape = x.array.shape
        if shape == (0,):
            parts[i] = _reshape(x, shape=(*first[:at], 0, *first[at + 1 :]))
        elif len(shape) != len(first) or any(a != b for i, (a, b) in enumerate(zip(shape, first)) if i != at):
            raise ShapeError(f"cat: shapes {first} and {shape} differ in a dimension other than {dim}")
    return _cat(*parts, dim=at, starts=(0, *itertools.accumulate(x.array.shape[at] for x in parts)))


@public()
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


def _pieces(x: Tensor, at: int, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Consecutive views of these sizes along dimension ``at``."""
    starts = [0, *itertools.accumulate(sizes)]
    return tuple(_index(x, pattern=_span(i, at, starts)) for i in range(len(sizes)))


@public("split", out=False, names={"tensor": "input", "split_size": "split_size_or_sections"})
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


@public("chunk", out=False)
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


@public("unbind", out=False)
def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, a tuple of views without that dimension."""
    at = normalize_slice_dim(dim, input, "unbind")
    return tuple(_index(input, pattern=(slice(None),) * at + (i,)) for i in range(input.array.shape[at]))
