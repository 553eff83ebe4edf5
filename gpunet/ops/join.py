"""Concatenate and split tensors along a dimension."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, method, primitive, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import result_dtype
from gpunet.ops.dims import normalize_slice_dim
from gpunet.ops.index import _index
from gpunet.ops.shape import unsqueeze

__all__ = ["cat", "chunk", "split", "stack", "unbind"]


@primitive
def _cat(*tensors, dim, starts):
    """Concatenate; input i begins at ``starts[i]`` along ``dim``."""
    shape = list(tensors[0].shape)
    shape[dim] = starts[-1]
    out = empty(tuple(shape), result_dtype(*tensors), tensors[0].array)
    for position, x in enumerate(tensors):
        COPY(out[_span(position, dim, starts)], x.array)
    return out


def _span(position, dim, starts):
    return (slice(None),) * dim + (slice(starts[position], starts[position + 1]),)


_cat.derivatives(tensors=lambda g, position, dim, starts: _index(g, pattern=_span(position, dim, starts)))


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Concatenate tensors along ``dim``.

    Raises:
        ShapeError: the shapes differ in another dimension.
        ArgumentError: the list is empty.
    """
    if not tensors:
        raise ArgumentError("cat: got no tensors; expected at least one")
    parts = [wrap(x) for x in tensors]
    at = normalize_slice_dim(dim, parts[0], "cat")
    for x in parts[1:]:
        if x.ndim != parts[0].ndim or any(a != b for i, (a, b) in enumerate(zip(x.shape, parts[0].shape)) if i != at):
            raise ShapeError(f"cat: shapes {parts[0].shape} and {x.shape} differ in a dimension other than {dim}")
    starts = (0, *itertools.accumulate(x.shape[at] for x in parts))
    return _cat(*parts, dim=at, starts=starts)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Stack tensors of the same shape along a new dimension ``dim``.

    Raises:
        ShapeError: the shapes differ.
    """
    parts = [wrap(x) for x in tensors]
    for x in parts[1:]:
        if x.shape != parts[0].shape:
            raise ShapeError(f"stack: shapes {parts[0].shape} and {x.shape} differ; expected tensors of the same shape")
    return cat([unsqueeze(x, dim) for x in parts], dim)


@method("split")
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Split into views along ``dim``: of size ``split_size`` (the last may be smaller), or of a list of sizes.

    Raises:
        ShapeError: the sizes do not add up to the size of ``dim``.
    """
    at = normalize_slice_dim(dim, x, "split")
    total = x.shape[at]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ArgumentError(f"split: split_size={split_size}; expected a positive number")
        sizes = [min(split_size, total - start) for start in range(0, total, split_size)] or [0]
    else:
        sizes = list(split_size)
        if sum(sizes) != total:
            raise ShapeError(f"split: sizes {sizes} add up to {sum(sizes)}; dimension {dim} of {x.shape} has {total}")
    ends = numpy.cumsum(sizes).tolist()
    return tuple(_index(x, pattern=(slice(None),) * at + (slice(end - n, end),)) for n, end in zip(sizes, ends))


@method("chunk")
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Split into at most ``chunks`` views of equal size along ``dim``; the last may be smaller."""
    if chunks <= 0:
        raise ArgumentError(f"chunk: chunks={chunks}; expected a positive number")
    return split(x, max(1, -(-x.shape[normalize_slice_dim(dim, x, "chunk")] // chunks)), dim)


@method("unbind")
def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, a tuple of views without that dimension."""
    at = normalize_slice_dim(dim, x, "unbind")
    return tuple(_index(x, pattern=(slice(None),) * at + (i,)) for i in range(x.shape[at]))
