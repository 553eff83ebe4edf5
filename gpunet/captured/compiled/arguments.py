"""Arguments of a compiled step: arrays that it reads in place; the caller copies all others to the recording's buffers.

An array has the recorded dtype and shape, but its layout and address may differ, so the first part of the step checks
all arrays before it does anything else.  If it rejects one (not contiguous, or on memory that the step writes), it is
called again with a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_half
from gpunet.captured.compiled.library_calls import LibraryUnit, NumpyUnit
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.ir import Call, View, span, tree_leaves

#: Alignment in bytes of the arrays that NumPy and other libraries read.  NumPy allocates with it, and the bits of a
#: BLAS result may depend on it.
_ALIGNMENT = 16
_MAX_ARGUMENTS = 32  # that a step takes itself

WRITTEN_SPANS = "written spans"  # as a name in the table of addresses: :func:`written_spans`


class Argument(NamedTuple):
    """An array that the step is called with."""

    whole: View  # of the recording's buffer
    alignment: int  # in bytes, a power of 2, that reading in place needs


def select_arguments(
    units: Sequence[Unit], inputs: Mapping[int, bool], kept: Iterable[View], keepers: Mapping[int, tuple[Any, int]]
) -> list[Argument]:
    """The inputs whose arrays the step reads in place; the largest, if there are many.

    Args:
        inputs: buffer -> whether something outside the recording refers to its memory.
        kept: views that are read after the step.
        keepers: buffer -> the owner of its memory, and its address.
    """
    wholes = [View(n, 0, keepers[n][0].shape, keepers[n][0].strides, keepers[n][0].dtype) for n in inputs]
    copied = {v.buffer for u in units for v in u.writes} | {v.buffer for v in kept}
    copied |= {number for number, is_shared in inputs.items() if is_shared}
    read_by_numpy: set[int] = set()
    for unit in units:
        if isinstance(unit, LibraryUnit) and unit.checks_input:  # labels and indices must not change after the check
            copied |= {v.buffer for v in unit.reads}
        elif isinstance(unit, NumpyUnit):
            read_by_numpy |= {v.buffer for v in unit.reads}
            copied |= {whole.buffer for whole in wholes if not _reads_only_whole(unit.call, whole)}
    used = {v.buffer for u in units for v in u.reads}
    result = [
        Argument(whole, _ALIGNMENT if whole.buffer in read_by_numpy else whole.dtype.itemsize)
        for whole in wholes
        if whole.buffer in used - copied and keepers[whole.buffer][1] % _ALIGNMENT == 0
        and not is_half(whole.dtype)  # which Numba has not
    ]
    largest = sorted(result, key=lambda argument: -argument.whole.nbytes)[:_MAX_ARGUMENTS]
    return [argument for argument in result if argument in largest]


def _reads_only_whole(call: Call, whole: View) -> bool:
    """Whether a call reads a buffer only as a whole, as arguments of its own."""
    views = [v for v in tree_leaves((call.arguments, call.options)) if v.buffer == whole.buffer]
    arguments = (*call.arguments, *call.options.values())
    return len(views) == sum(isinstance(a, View) and a.is_all_of(whole) for a in arguments)


def written_spans(units: Sequence[Unit], place: Callable[[Any], Any], keepers: Mapping[int, tuple[Any, int]]) -> list[int]:
    """Number of memory spans that the step writes, then the start and end address of each."""
    arena, start = keepers[-1]
    spans = {-1: (start, start + arena.nbytes)}
    for buffer, low, high in (span(place(v)) for u in units for v in u.writes):
        if buffer >= 0:
            start = keepers[buffer][1]
            known = spans.get(buffer, (start + low, start + high))
            spans[buffer] = min(known[0], start + low), max(known[1], start + high)
    return [len(spans), *itertools.chain(*spans.values())]


def copy_rejected(mask: int, arrays: Sequence[numpy.ndarray], buffers: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """Copy each array whose bit is set to its buffer; return the arrays, with these buffers in their place."""
    result = list(arrays)
    for number, (buffer, array) in enumerate(zip(buffers, arrays)):
        if mask >> number & 1:
            buffer[...] = array
            result[number] = buffer
    return result
