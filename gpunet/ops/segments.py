"""Reductions of segments of a dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.creation import full
from gpunet.ops.dims import normalize_slice_dim
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, check_flag
from gpunet.ops.scatter import scatter_reduce

__all__ = ["segment_reduce"]

#: PyTorch's word -> the reduction of scatter_reduce, and the value of an empty segment.
_REDUCTIONS = {
    "sum": ("sum", 0.0), "mean": ("sum", 0.0), "max": ("amax", -math.inf), "min": ("amin", math.inf), "prod": ("prod", 1.0),
}  # fmt: skip


def segment_reduce(
    data: Any, reduce: str, *, lengths: Any = None, indices: Any = None, offsets: Any = None, axis: int = 0, unsafe: bool = False,
    initial: Any = None,
) -> Tensor:  # fmt: skip
    """Reduce the segments of a dimension, which lie one behind the other.

    Args:
        data: floating.
        reduce: "sum", "mean", "max", "min" or "prod"; the mean of an empty segment is NaN.
        lengths: of the segments, integers (..., segments), with the dimensions of ``data`` before the axis; read on the CPU.
        indices: not supported, as in PyTorch.
        offsets: instead of lengths where each segment begins, and at the end where the last one ends, (..., segments + 1).
        axis: the last dimension of ``lengths``.
        unsafe: let elements behind the last segment be left out.
        initial: reduced, too; the result of empty segments.

    Returns:
        ``data`` with the number of segments as the size of the axis.

    Raises:
        ArgumentError: an unknown word, or neither or both of lengths and offsets.
        ShapeError: the segments do not fit the axis.
        DtypeError: the data are not floating, or the lengths no integers.
    """
    x = wrap(data, "segment_reduce")
    check_flag("segment_reduce", "unsafe", unsafe)
    if reduce not in _REDUCTIONS:
        raise ArgumentError(f"segment_reduce: reduce={reduce!r}; expected one of {', '.join(map(repr, _REDUCTIONS))}")
    if indices is not None or (lengths is None) == (offsets is None):
        raise ArgumentError("segment_reduce: expected lengths or offsets, one of them, and no indices")
    if not is_floating(x.dtype):
        raise DtypeError(f"segment_reduce: data of dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    at = normalize_slice_dim(axis, x, "segment_reduce")
    counts = _lengths(x, lengths, offsets, at, unsafe)
    start = None if initial is None else as_number("segment_reduce", "initial", initial)
    return _reduced(x, make_tensor(constant(devices.move(_segments(counts, x.shape[at]), x.device))),
                    make_tensor(constant(devices.move(counts, x.device))), reduce, at, start)  # fmt: skip


def _lengths(x: Tensor, lengths: Any, offsets: Any, at: int, unsafe: bool) -> numpy.ndarray:
    """The lengths (..., segments) on the CPU."""
    given = wrap(offsets if lengths is None else lengths, "segment_reduce")
    if not is_integer(given.dtype):
        raise DtypeError(f"segment_reduce: lengths of dtype {given.dtype}; expected integers")
    if given.ndim != at + 1 or tuple(given.shape[:-1]) != tuple(x.shape[:at]):
        raise ShapeError(
            f"segment_reduce: lengths have shape {tuple(given.shape)}, data {tuple(x.shape)}; expected "
            f"({', '.join([*map(str, x.shape[:at]), 'segments'])}) for axis={at}"
        )
    values = numpy.array(given.tolist(), numpy.int64).reshape(given.shape)
    counts = numpy.diff(values, axis=-1) if lengths is None else values
    size, total = x.shape[at], counts.sum(-1)
    if counts.min(initial=0) < 0 or (total > size).any() or (not unsafe and (total != size).any()):
        raise ShapeError(f"segment_reduce: lengths={counts.tolist()} of an axis of size {size}; expected numbers that add up to it")
    return counts


def _segments(counts: numpy.ndarray, size: int) -> numpy.ndarray:
    """For each element of the axis its segment; those behind the last one have the number of segments."""
    segments = counts.shape[-1]
    rows = counts.reshape(-1, segments)
    found = numpy.full((len(rows), size), segments)
    for row, lengths in zip(found, rows):
        row[: lengths.sum()] = numpy.repeat(numpy.arange(segments), lengths)
    return found.reshape(*counts.shape[:-1], size)


@in_accumulator
def _reduced(x: Tensor, segment: Tensor, counts: Tensor, reduce: str, at: int, initial: float | None) -> Tensor:
    word, usual = _REDUCTIONS[reduce]
    shape = tuple(x.shape)
    trailing = (1,) * (x.ndim - at - 1)
    index = segment.reshape(*segment.shape, *trailing).expand(shape)
    out_shape = (*shape[:at], counts.shape[-1] + 1, *shape[at + 1 :])
    base = full(out_shape, usual if initial is None else initial, dtype=x.dtype, device=x.device)
    found = scatter_reduce(base, at, index, x, word).narrow(at, 0, counts.shape[-1])
    if reduce != "mean":
        return found
    number = counts.reshape(*counts.shape, *trailing)
    return where(number > 0, found / number.clamp(min=1), math.nan if initial is None else initial)
