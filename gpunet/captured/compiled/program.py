"""A compiled step as a program: calls of compiled functions, and their arguments, in an array of 64-bit words.

A function is compiled once for all steps, takes the address of its arguments, and returns an int64 (see ``entries``).  A part of
a program is what lies between two calls of NumPy; ``interpreter`` runs it.  So a new step compiles only functions that no step
before it has had.

    call        function, address of its arguments, number of chunks or 0, number of arguments or number of the check
    argument    of a call without chunks: the value
                of one with chunks: value, increment for each chunk, limit; the function gets min(value + chunk increment, limit)
    part        address of its first call, number of calls, state of the helper threads, address of ``sched_yield``, whether
                helpers leave at the end, address of the first array, address of the first call of all
    array       of those that the step is called with: number of bytes, alignment, address of ``written_spans``, address of the
                last one, number of words with its address, and for each of those words where it is and the offset that it adds
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.captured.compiled import entries, regions
from gpunet.captured.compiled.arguments import WRITTEN_SPANS, Argument
from gpunet.captured.compiled.entries import NestEntry
from gpunet.captured.compiled.library_calls import SCRATCH, LibraryCall, LibraryUnit
from gpunet.captured.compiled.nests import Nest, Unit
from gpunet.captured.ir import View

_NO_LIMIT = (1 << 63) - 1


class Word(NamedTuple):
    """An argument of a call: a number, or an address in a buffer; in a chunk ``min(value + chunk increment, limit)``."""

    value: int | float = 0
    buffer: int | str | None = None  # the number of a buffer, or SCRATCH: its address is added
    increment: int = 0
    limit: int = _NO_LIMIT

    def __str__(self) -> str:
        text = str(self.value) if self.buffer is None else f"{self.buffer} + {self.value}" if self.value else str(self.buffer)
        text += f" + {self.increment} chunk" if self.increment else ""
        return text if self.limit == _NO_LIMIT else f"min({text}, {self.limit})"


class _Call(NamedTuple):
    entry: Any
    arguments: list[Word]
    chunks: int
    check: int

    def __str__(self) -> str:
        text = f"{self.entry.name}({', '.join(map(str, self.arguments))})"
        return f"{text}  # in {self.chunks} chunks" if self.chunks else text


class Program:
    """The calls of a step, part by part.

    Args:
        place: maps a view, or a nest's operand, to the memory plan.
        arguments: the arrays that the step is called with.

    Attributes:
        checked: units that check their input.
        scratch_bytes: scratch memory that the step needs.
        has_regions: whether helper threads may take part.
    """

    def __init__(self, place: Callable[[Any], Any], arguments: Sequence[Argument]) -> None:
        self._place, self._arguments = place, arguments
        self._parts: list[tuple[list[_Call], bool]] = []  # and whether it has regions
        self.checked: list[LibraryUnit] = []
        self.scratch_bytes = 0
        self.has_regions = False

    def add_part(self, units: Sequence[Unit], is_threaded: bool) -> int:
        """Add a part; return its number.  If ``is_threaded``, its large loops become regions, calls in chunks.

        The part returns the number of the unit, counted from 1 in ``checked``, that finds its input invalid; else 0.
        """
        calls: list[_Call] = []
        for unit in units:
            if isinstance(unit, Nest):
                calls.append(self._call_of_nest(unit, is_threaded))
            else:
                assert isinstance(unit, LibraryUnit)
                self.scratch_bytes = max(self.scratch_bytes, unit.scratch_bytes)
                if unit.checks_input:
                    self.checked.append(unit)
                calls += [self._call_of_library(unit, call, is_threaded) for call in unit.library_calls]
        self._parts.append((calls, is_threaded))
        self.has_regions |= any(call.chunks for call in calls)
        return len(self._parts) - 1

    def _call_of_nest(self, nest: Nest, is_threaded: bool) -> _Call:
        division = regions.divide_nest(nest) if is_threaded else None
        text, operands, sizes = nest.source(division and division.along)
        words = [*map(self._address, operands), *map(Word, sizes)]
        if division is not None:
            words += _bounds(division)
        return _Call(NestEntry(text), words, division.num_chunks if division else 0, 0)

    def _call_of_library(self, unit: LibraryUnit, call: LibraryCall, is_threaded: bool) -> _Call:
        division = regions.divide_library_call(call) if is_threaded else None
        words = [self._address(a) if isinstance(a, (View, str)) else Word(a) for a in call.arguments]
        if division is not None:
            _restrict_to_chunk(call, division, words)
        return _Call(call.entry, words, division.num_chunks if division else 0, len(self.checked) if unit.checks_input else 0)

    def _address(self, view: Any) -> Word:
        if view == SCRATCH:
            return Word(0, SCRATCH)
        view = self._place(view)
        return Word(view.offset, view.buffer)

    def text(self) -> str:
        """The program, with the sources of its nests, to be read."""
        calls = [call for of_part, _ in self._parts for call in of_part]
        nests = {call.entry.name: call.entry.text for call in calls if isinstance(call.entry, NestEntry)}
        texts = [text.replace("def nest(", f"def {name}(", 1) for name, text in nests.items()]
        for number, (of_part, _) in enumerate(self._parts):
            texts.append(f"def part{number}():\n" + "".join(f"    {call}\n" for call in of_part))
        return "\n\n".join(texts)

    @property
    def buffers(self) -> set[int]:
        """The buffers whose addresses are in the program."""
        words = [word for calls, _ in self._parts for call in calls for word in call.arguments]
        return {word.buffer for word in words if isinstance(word.buffer, int)}

    def build(self, addresses: Callable[[int | str], int], state: int) -> tuple[numpy.ndarray, list[int]]:
        """Compile the functions and write the program.

        Args:
            addresses: returns the address of a buffer, of SCRATCH, or of WRITTEN_SPANS.
            state: the address of the state of the helper threads.

        Returns:
            The words, which begin with the calls, and the addresses of the parts.
        """
        calls = [call for of_part, _ in self._parts for call in of_part]
        functions = entries.addresses([call.entry for call in calls])
        words, relative = [0] * (4 * len(calls)), []  # places of words that become addresses of words
        uses: dict[Any, list[tuple[int, int]]] = {a.whole.buffer: [] for a in self._arguments}
        for number, (call, function) in enumerate(zip(calls, functions)):
            of_check = len(call.arguments) if call.chunks else call.check
            words[4 * number : 4 * number + 4] = function, len(words), call.chunks, of_check
            relative.append(4 * number + 1)
            for word in call.arguments:
                value = _bits(word.value)
                if word.buffer in uses:
                    uses[word.buffer].append((len(words), value))
                elif word.buffer is not None:
                    value += addresses(word.buffer)
                words += [value, word.increment, word.limit] if call.chunks else [value]
        arrays = len(words)
        for whole, alignment in self._arguments:
            words += [whole.nbytes, alignment, addresses(WRITTEN_SPANS), 0, len(uses[whole.buffer])]
            for place, offset in uses[whole.buffer]:
                relative.append(len(words))
                words += [place, offset]
        parts, first = [], 0
        for of_part, is_threaded in self._parts:
            must_leave = is_threaded and len(self._parts) > 1  # a NumPy call follows
            parts.append(len(words))
            relative += [len(words), len(words) + 5, len(words) + 6]
            words += [4 * first, len(of_part), state, regions.yield_address(), must_leave, arrays, 0]
            first += len(of_part)
        result = numpy.array(words, numpy.int64)
        start = result.ctypes.data
        result[relative] = start + 8 * result[relative]
        return result, [start + 8 * place for place in parts]


def _bits(value: int | float) -> int:
    """A number as a word: the bits of a float as an integer."""
    return value if isinstance(value, int) else struct.unpack("<q", struct.pack("<d", value))[0]


def _bounds(division: regions.Division) -> list[Word]:
    """The first element of a chunk, and the end of its elements."""
    return [Word(0, None, division.step), Word(division.step, None, division.step, division.extent)]


def _restrict_to_chunk(call: LibraryCall, division: regions.Division, words: list[Word]) -> None:
    """Change the arguments of a library call to those of one chunk."""
    values: Any = call.arguments
    itemsize = call.dtype.itemsize
    if division.along == "items":
        words[call.num_arrays : call.num_arrays + 2] = _bounds(division)
        return
    if call.function == "transpose":
        strides, count = {0: values[2] * itemsize, 1: itemsize}, 3
    elif division.along == "columns":
        strides, count = {0: itemsize, 2: itemsize}, 4
    else:
        strides, count = {0: values[6] * itemsize, 1: values[7] * itemsize}, 3
    for position, stride in strides.items():
        words[position] = words[position]._replace(increment=division.step * stride)
    words[count] = Word(division.extent, None, -division.step, division.step)
