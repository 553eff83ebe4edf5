"""Writes the source of a compiled step: the functions of its loop nests, its regions, and its parts.

A part is the code between two NumPy calls.  The source has sizes and offsets, but no addresses: those are in a table
that the step is called with.  So the same step has the same source in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import indent
from typing import Any

from gpunet.captured.compiled import regions
from gpunet.captured.compiled.arguments import WRITTEN_SPANS, Argument
from gpunet.captured.compiled.entries import Entry, compiled
from gpunet.captured.compiled.expressions import TYPE_NAMES
from gpunet.captured.compiled.library_calls import SCRATCH, LibraryCall, LibraryUnit
from gpunet.captured.compiled.nests import Nest, Unit
from gpunet.captured.ir import View

_HEADER = '"""A recorded training step."""\n\nfrom gpunet.captured.compiled.jit import *\n'


class Writer:
    """Writes the units of a step, part by part.

    Args:
        place: maps a view, or a nest's operand, to the memory plan.
        arguments: the arrays that the step is called with.

    Attributes:
        checked: units that check their input.
        regions: the line of each region.
        scratch_bytes: scratch memory that the step needs.
    """

    def __init__(self, place: Callable[[Any], Any], arguments: Sequence[Argument]) -> None:
        self._place, self._arguments = place, arguments
        self._nests: dict[str, str] = {}  # source -> name: equal nests share a function
        self._table: dict[Any, int] = {}  # buffer, Entry or other name -> index in the table
        self._parts: list[tuple[list[str], bool]] = []  # the lines of a part, and whether it has regions
        self.regions: list[str] = []
        self.checked: list[LibraryUnit] = []
        self.scratch_bytes = 0

    def add_part(self, units: Sequence[Unit], is_threaded: bool) -> str:
        """Add a part; return its name.  If ``is_threaded``, its large loops become regions.

        The part returns the number of the unit, counted from 1 in ``checked``, that finds its input invalid; else 0.
        """
        lines: list[str] = []
        for unit in units:
            self._add(unit, lines, is_threaded)
        self._parts.append((lines, is_threaded))
        return f"part{len(self._parts) - 1}"

    def _add(self, unit: Unit, lines: list[str], is_threaded: bool) -> None:
        if isinstance(unit, Nest):
            division = regions.divide_nest(unit) if is_threaded else None
            text, operands = unit.source("nest", division and division.along)
            name = self._nests.setdefault(text, f"nest{len(self._nests)}")
            arguments = [*map(self._address, operands)]
            if division is not None:
                stop = f"min({division.extent}, chunk * {division.step} + {division.step})"
                arguments += [f"chunk * {division.step}", stop]
            self._add_line(lines, f"{name}({', '.join(arguments)})", division)
            return
        assert isinstance(unit, LibraryUnit)
        self.scratch_bytes = max(self.scratch_bytes, unit.scratch_bytes)
        if unit.checks_input:
            self.checked.append(unit)
        for call in unit.library_calls:
            division = regions.divide_library_call(call) if is_threaded else None
            arguments = [self._argument(a) for a in call.arguments]
            if division is not None:
                self._restrict_to_chunk(call, division, arguments)
            text = f"call_address({', '.join((self._name(call.entry), *arguments))})"
            if unit.checks_input:
                lines += [f"if {text}:", f"    return {len(self.checked)}"]
            else:
                self._add_line(lines, text, division)

    def _add_line(self, lines: list[str], text: str, division: regions.Division | None) -> None:
        """Add a line to a part, as a region if it is divided."""
        if division is not None:
            addresses = ", ".join(map(self._name, (regions.STATE, regions.RUN_CHUNK, regions.YIELD)))
            number = len(self.regions)
            self.regions.append(text)
            # i8(...): Numba would compile run_region anew for each literal
            text = f"run_region(table, {addresses}, i8({number}), i8({division.num_chunks}))"
        lines.append(text)

    @staticmethod
    def _restrict_to_chunk(call: LibraryCall, division: regions.Division, arguments: list[str]) -> None:
        """Change the arguments of a library call to those of one chunk."""
        values: Any = call.arguments
        itemsize = call.dtype.itemsize
        if division.along == "items":
            first = call.num_arrays
            arguments[first] = f"chunk * {division.step}"
            arguments[first + 1] = f"min({division.extent}, chunk * {division.step} + {division.step})"
            return
        if call.function == "transpose":
            strides, count = {0: values[2] * itemsize, 1: itemsize}, 3
        elif division.along == "columns":
            strides, count = {0: itemsize, 2: itemsize}, 4
        else:
            strides, count = {0: values[6] * itemsize, 1: values[7] * itemsize}, 3
        for position, stride in strides.items():
            arguments[position] += f" + chunk * {division.step * stride}"
        arguments[count] = f"min({division.step}, {division.extent} - chunk * {division.step})"

    def _name(self, key: Any) -> str:
        return f"b{self._table.setdefault(key, len(self._table))}"

    def _address(self, view: Any) -> str:
        view = self._place(view)
        return f"{self._name(view.buffer)} + {view.offset}" if view.offset else self._name(view.buffer)

    def _argument(self, value: View | int | float | str) -> str:
        if isinstance(value, View):
            return self._address(value)
        return self._name(SCRATCH) if value == SCRATCH else f"f8({value!r})" if isinstance(value, float) else f"i8({value!r})"

    def text(self) -> str:
        """The source of the module."""
        texts = [f"@jit_helper\n{text.replace('def nest(', f'def {name}(', 1)}" for text, name in self._nests.items()]
        if self.regions:
            cases = [f"    if region == {n}:\n{indent(self._body([line]), '    ')}" for n, line in enumerate(self.regions)]
            head = '@c_function("int64(int64, int64, int64)")\ndef run_chunk(table, region, chunk):\n'
            texts.append(f"{head}{''.join(cases)}    return 0\n")
            texts.append(regions.SOURCE.strip() + "\n")
        for number, (lines, is_threaded) in enumerate(self._parts):
            if is_threaded and len(self._parts) > 1:  # a NumPy call follows: dismiss the helpers
                lines = [*lines, f"atomic_store({self._name(regions.STATE)}, -(1 << 62))"]
            body = self._body([*lines, "return 0"])
            names = [] if number else [f"argument{n}" for n in range(len(self._arguments))]
            arrays = [f"({TYPE_NAMES[a.whole.dtype]}, {len(a.whole.shape)})" for _, a in zip(names, self._arguments)]
            decorator = f"@{'threaded_' if is_threaded else ''}part({', '.join(('1', *arrays))})"
            head = f"{decorator}\ndef part{number}({', '.join(('table', *names))}):\n"
            texts.append(head + (self._body(self._accept_arguments(names)) if names else "") + body)
        return "\n\n".join((_HEADER, *texts))

    def _accept_arguments(self, names: list[str]) -> list[str]:
        """Lines that put arrays into the table; if they reject any, the part returns minus the bit mask of those."""
        lines = ["rejected = 0"]
        for number, (name, (whole, alignment)) in enumerate(zip(names, self._arguments)):
            slot = int(self._name(whole.buffer)[1:])
            options = f"i8({whole.nbytes}), i8({alignment}), {self._name(WRITTEN_SPANS)}"
            lines.append(f"rejected |= borrow_argument(table, i8({slot}), {name}, {options}) << {number}")
        return [*lines, "if rejected:", "    return -rejected"]

    def _body(self, lines: list[str]) -> str:
        """Lines of a function, after loads of the addresses that they use."""
        used = {word for line in lines for word in line.replace("(", " ").replace(",", " ").replace(")", " ").split()}
        loads = [f"b{n} = load(pointer(table, i8), {n}, 0)" for n in self._table.values() if f"b{n}" in used]
        return "".join(f"    {line}\n" for line in (*loads, *lines))

    @property
    def buffers(self) -> list[int]:
        """The buffers whose addresses are in the table."""
        return [key for key in self._table if isinstance(key, int)]

    def table(self, keepers: dict[int, tuple[Any, int]], named: dict[str, int]) -> list[int]:
        """The table of addresses.

        Args:
            keepers: buffer -> the owner of its memory, and its address.
            named: name -> address.
        """
        result = []
        for key in self._table:
            if isinstance(key, Entry):
                result.append(compiled(key).address)
            elif key == regions.YIELD:
                result.append(regions.yield_address())
            else:
                result.append(named[key] if isinstance(key, str) else keepers[key][1])
        return result
