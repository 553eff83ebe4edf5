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
        reduce: "sum", "mean", "max", "min" or "prod"; the mean of an empty segment is NaN, and so is the gradient of a
            maximum or minimum that is NaN.
        lengths: of the segments, integers (..., segments), with the dimensions of ``data`` before the axis; read on the CPU.
        indices: not supported, as in PyTorch.
        offsets: instead of lengths where each segment begins, and at the end where the last one ends, (..., segments + 1); elements
            before the first and behind the last one are left out.
        axis: the last dimension of ``lengths``.
        unsafe: let elements behind the last segment of ``lengths`` be left out.
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
    if not isinstance(reduce, str) or reduce not in _REDUCTIONS:
        raise ArgumentError(f"segment_reduce: reduce={reduce!r}; expected one of {', '.join(map(repr, _REDUCTIONS))}")
    if indices is not None or (lengths is None) == (offsets is None):
        raise ArgumentError("segment_reduce: expected lengths or offsets, one of them, and no indices")
    if not is_floating(x.dtype):
        raise DtypeError(f"segment_reduce: data of dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    at = normalize_slice_dim(axis, x, "segment_reduce")
    edges = _edges(x, lengths, offsets, at, unsafe)
    start = None if initial is None else as_number("segment_reduce", "initial", initial)
    return _reduced(x, make_tensor(constant(devices.move(_segments(edges, x.shape[at]), x.device))),
                    make_tensor(constant(devices.move(numpy.diff(edges), x.device))), reduce, at, start)  # fmt: skip


def _edges(x: Tensor, lengths: Any, offsets: Any, at: int, unsafe: bool) -> numpy.ndarray:
    """Where the segments begin, and where the last one ends, (..., segments + 1) on the CPU."""
    name = "offsets" if lengths is None else "lengths"
    given = wrap(offsets if lengths is None else lengths, "segment_reduce")
    if not is_integer(given.dtype):
        raise DtypeError(f"segment_reduce: {name} of dtype {given.dtype}; expected integers")
    if given.ndim != at + 1 or tuple(given.shape[:-1]) != tuple(x.shape[:at]):
        raise ShapeError(
            f"segment_reduce: {name} have shape {tuple(given.shape)}, data {tuple(x.shape)}; expected "
            f"({', '.join([*map(str, x.shape[:at]), 'segments'])}) for axis={at}"
        )
    values, size = numpy.array(given.tolist(), numpy.int64).reshape(given.shape), x.shape[at]
    if values.shape[-1] <= (lengths is None):
        raise ShapeError(f"segment_reduce: {name} have shape {values.shape}; expected one segment or more")
    if lengths is None:
        if values.min(initial=0) < 0 or values.max(initial=0) > size or (numpy.diff(values) < 0).any():
            raise ShapeError(
                f"segment_reduce: offsets={values.tolist()} of an axis of size {size}; expected ascending numbers of 0 to {size}"
            )
        return values
    total = values.sum(-1)
    if values.min(initial=0) < 0 or (total > size).any() or (not unsafe and (total != size).any()):
        raise ShapeError(f"segment_reduce: lengths={values.tolist()} of an axis of size {size}; expected numbers that add up to it")
    return numpy.concatenate([numpy.zeros((*values.shape[:-1], 1), numpy.int64), numpy.cumsum(values, -1)], -1)


def _segments(edges: numpy.ndarray, size: int) -> numpy.ndarray:
    """For each element of the axis its segment; those in none have the number of segments."""
    segments = edges.shape[-1] - 1
    found = numpy.full((math.prod(edges.shape[:-1]), size), segments)
    for row, bounds in zip(found, edges.reshape(-1, segments + 1)):
        row[bounds[0] : bounds[-1]] = numpy.repeat(numpy.arange(segments), numpy.diff(bounds))
    return found.reshape(*edges.shape[:-1], size)


@in_accumulator
def _reduced(x: Tensor, segment: Tensor, counts: Tensor, reduce: str, at: int, initial: float | None) -> Tensor:
    word, usual = _REDUCTIONS[reduce]
    shape = tuple(x.shape)
    trailing = (1,) * (x.ndim - at - 1)
    index = segment.reshape(*segment.shape, *trailing).expand(shape)
    out_shape = (*shape[:at], counts.shape[-1] + 1, *shape[at + 1 :])
    is_extreme = word in ("amax", "amin")
    base = full(out_shape, usual if initial is None or is_extreme else initial, dtype=x.dtype, device=x.device)
    found = scatter_reduce(base, at, index, x, word, include_self=not is_extreme).narrow(at, 0, counts.shape[-1]).contiguous()
    if is_extreme and initial is not None:  # elements that equal it share the gradient among themselves
        is_kept = found >= initial if reduce == "max" else found <= initial
        return where(is_kept | found.isnan(), found, initial)
    if reduce != "mean":
        return found
    number = counts.reshape(*counts.shape, *trailing)
    return where(number > 0, found / number.clamp(min=1), math.nan if initial is None else initial)
