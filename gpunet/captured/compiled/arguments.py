"""Arrays that a compiled step is called with: read where they lie, or copied to the recording's buffers by the step itself.

They have the recorded dtype and shape, but anything else about them may differ, so the step's first part looks at them before
anything is done.  One that it cannot take (not contiguous, or on memory that the step writes) it hands back, and is called
again with a copy.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.captured.compiled.library_calls import Form, Opaque
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.ir import Call, View, tree_leaves
from gpunet.captured.merge import span

#: Where an array's address and its flags are in the array object, in bytes: NumPy's binary interface, as extension modules
#: know it, behind CPython's head of an object.
DATA, FLAGS = 16, 64
CONTIGUOUS, ALIGNED = 0x1, 0x100  # of the flags
#: What NumPy and other libraries are given starts at such addresses, as all that NumPy allocates: their bits may depend on it.
_ALIGNMENT = 16
_MOST = 32

WRITTEN = "written"  # as a name in the table of addresses: where the spans of what is written are


class Given(NamedTuple):
    """A buffer that each call brings an array for."""

    whole: View
    alignment: int  # in bytes, a power of 2, of an array that is read where it lies; 0 where it is copied


def taken(
    units: Sequence[Unit], inputs: Mapping[int, tuple[View, bool]], kept: Iterable[View], keepers: Mapping[int, tuple[Any, int]]
) -> list[Given]:
    """Of which inputs the step takes the arrays itself: the largest, if there are many.

    Args:
        inputs: by buffer, the whole one and whether somebody else sees its memory.
        kept: views that are read after the step.
        keepers: what keeps the memory of a buffer, and its address.
    """
    copied = {v.buffer for u in units for v in u.writes} | {v.buffer for v in kept}
    copied |= {number for number, (_, seen) in inputs.items() if seen}
    by_numpy: set[int] = set()
    for unit in units:
        if isinstance(unit, Form) and unit.checks:  # labels and indices must not change once they were looked at
            copied |= {v.buffer for v in unit.reads}
        elif isinstance(unit, Opaque):
            by_numpy |= {v.buffer for v in unit.reads}
            copied |= {number for number, (whole, _) in inputs.items() if not _only_as(whole, unit.call)}
    used = {v.buffer for u in units for v in u.reads}
    result = [
        Given(whole, 0 if number in copied else _ALIGNMENT if number in by_numpy else 1)
        for number, (whole, _) in inputs.items()
        if number in used and keepers[number][1] % _ALIGNMENT == 0
    ]
    largest = sorted(result, key=lambda given: -given.whole.nbytes)[:_MOST]
    return [given for given in result if given in largest] if _layout_is_known() else []


def _only_as(whole: View, call: Call) -> bool:
    """Whether a call takes nothing of a buffer but the whole of it, as an argument."""
    views = [v for v in tree_leaves((call.arguments, call.options)) if v.buffer == whole.buffer]
    arguments = (*call.arguments, *call.options.values())
    return len(views) == sum(isinstance(a, View) and a.is_all_of(whole) for a in arguments)


@functools.cache
def _layout_is_known() -> bool:
    """Whether array objects are as :data:`DATA` and :data:`FLAGS` say."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != DATA:
        return False
    array = numpy.zeros((2, 3))
    return all(
        ctypes.c_int64.from_address(id(a) + DATA).value == a.ctypes.data
        and ctypes.c_int32.from_address(id(a) + FLAGS).value == a.flags.num
        for a in (array, array[1:], array.T)
    )


def written_spans(units: Sequence[Unit], place: Callable[[Any], Any], keepers: Mapping[int, tuple[Any, int]]) -> list[int]:
    """How many spans of memory the step writes, and for each from which address to which."""
    arena, start = keepers[-1]
    spans = {-1: (start, start + arena.nbytes)}
    for buffer, low, high in (span(place(v)) for u in units for v in u.writes):
        if buffer >= 0:
            start = keepers[buffer][1]
            before = spans.get(buffer, (start + low, start + high))
            spans[buffer] = min(before[0], start + low), max(before[1], start + high)
    return [len(spans), *itertools.chain(*spans.values())]


def copier(buffers: Sequence[numpy.ndarray]) -> Callable[[int, Sequence[numpy.ndarray]], list[numpy.ndarray]]:
    """A function that puts copies, in the buffers, in the place of those arrays whose bits are set in a number."""

    def copied(which: int, arrays: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
        result = list(arrays)
        for number, (buffer, array) in enumerate(zip(buffers, arrays)):
            if which >> number & 1:
                buffer[...] = array
                result[number] = buffer
        return result

    return copied
