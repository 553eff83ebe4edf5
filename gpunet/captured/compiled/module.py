"""The source of a compiled step, and the module made of it.

The text holds sizes and offsets, but no address: those are in a table that the step is called with.  So the same step in
another process is the same text; it lies in the cache directory under a name that is its digest, and Numba keeps the
machine code beside it, for this kind of CPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

from gpunet.backend.disk_cache import cache_directory, write_whole
from gpunet.captured.compiled import regions
from gpunet.captured.compiled.arguments import WRITTEN, Given
from gpunet.captured.compiled.library_calls import WORK, Form, Library
from gpunet.captured.compiled.nests import Nest, Unit
from gpunet.captured.ir import View
from gpunet.errors import MissingDependencyError

_log = logging.getLogger(__name__)
_HEADER = '"""A recorded training step."""\n\nfrom gpunet.captured.compiled.jit import *\n'
_loading = threading.Lock()


class Writer:
    """Writes units down, part by part: a part is what is compiled between two calls of NumPy."""

    def __init__(self, place: Callable[[Any], Any], given: Sequence[Given]) -> None:
        self._place, self._given = place, given
        self._nests: dict[str, str] = {}  # body -> name: equal nests are one function
        self._table: dict[Any, int] = {}  # buffer, WORK, library function or other name -> its number in the table of addresses
        self._parts: list[list[str]] = []
        self._threaded: set[int] = set()  # parts with regions
        self._regions: list[str] = []
        self.open = False
        self.work = 0  # bytes

    def begin(self, threaded: bool = False) -> None:
        """A part; with threads its large loops are regions."""
        if threaded:
            self._threaded.add(len(self._parts))
        self._parts.append([])
        self.open = True

    def unit(self, unit: Unit, failure: int = 0) -> None:
        """Add a unit; the part returns ``failure`` where the unit's input is wrong."""
        lines = self._parts[-1]
        threaded = len(self._parts) - 1 in self._threaded
        if isinstance(unit, Nest):
            division = regions.of_nest(unit) if threaded else None
            text, operands = unit.source("nest", division and division.along)
            name = self._nests.setdefault(text, f"nest{len(self._nests)}")
            arguments = [*map(self._address, operands)]
            if division is not None:
                stop = f"min({division.extent}, chunk * {division.step} + {division.step})"
                arguments += [f"chunk * {division.step}", stop]
            self._add(lines, f"{name}({', '.join(arguments)})", division)
            return
        assert isinstance(unit, Form)
        self.work = max(self.work, unit.work)
        for library in unit.lines:
            division = regions.of_library(library) if threaded else None
            arguments = [self._argument(a) for a in library.arguments]
            if division is not None:
                self._chunk(library, division, arguments)
            called = f"call({', '.join((self._name((library.function, library.dtype.name)), *arguments))})"
            if failure:
                lines += [f"if {called}:", f"    return {failure}"]
            else:
                self._add(lines, called, division)

    def _add(self, lines: list[str], text: str, division: regions.Division | None) -> None:
        """A line of a part, or a region of it."""
        if division is not None:
            state, yielded = self._name(regions.STATE), self._name(regions.YIELD)
            number = len(self._regions)
            self._regions.append(text)
            text = f"run(table, {state}, {yielded}, i8({number}), i8({division.chunks}))"  # as literals each would be compiled
        lines.append(text)

    @staticmethod
    def _chunk(library: Library, division: regions.Division, arguments: list[str]) -> None:
        """Let arguments of a library function be those of a chunk."""
        steps: Any = library.arguments
        size = library.dtype.itemsize
        if library.function == "transpose":
            moves, count = {0: steps[2] * size, 1: size}, 3
        elif division.along == "columns":
            moves, count = {0: size, 2: size}, 4
        else:
            moves, count = {0: steps[6] * size, 1: steps[7] * size}, 3
        for position, bytes in moves.items():
            arguments[position] += f" + chunk * {division.step * bytes}"
        arguments[count] = f"min({division.step}, {division.extent} - chunk * {division.step})"

    def end(self) -> None:
        """The next unit begins a new part."""
        self.open = False

    def _name(self, key: Any) -> str:
        return f"b{self._table.setdefault(key, len(self._table))}"

    def _address(self, view: Any) -> str:
        view = self._place(view)
        return f"{self._name(view.buffer)} + {view.offset}" if view.offset else self._name(view.buffer)

    def _argument(self, value: View | int | float | str) -> str:
        if isinstance(value, View):
            return self._address(value)
        return self._name(WORK) if value == WORK else f"f8({value!r})" if isinstance(value, float) else f"i8({value!r})"

    def text(self) -> str:
        """The source of the module."""
        texts = [f"@nest\n{text.replace('def nest(', f'def {name}(', 1)}" for text, name in self._nests.items()]
        if self._regions:
            cases = [f"    if region == {n}:\n{indent(self._body([line]), '    ')}" for n, line in enumerate(self._regions)]
            texts.append(f"@threaded\ndef do(table, region, chunk):\n    apart()\n{''.join(cases)}")
            texts.append(regions.SOURCE.strip() + "\n")
        several = len(self._parts) > 1
        for number, lines in enumerate(self._parts):
            threaded = number in self._threaded
            dismissed = [f"write({self._name(regions.STATE)}, -(1 << 62))"] if threaded and several else []
            body = self._body([*lines, *dismissed, "return 0"])
            given = [] if number else [f"given{n}" for n in range(len(self._given))]
            head = f"@{'threaded_' if threaded else ''}part({1 + len(given)})\ndef part{number}({', '.join(('table', *given))}):\n"
            texts.append(head + (self._body(self._taking(given)) if given else "") + body)
        return "\n\n".join((_HEADER, *texts))

    def _taking(self, names: list[str]) -> list[str]:
        """Lines that take arrays; the part returns a negative number, whose bits say which of them it cannot take."""
        lines = ["refused = 0"]
        for number, (name, (whole, alignment)) in enumerate(zip(names, self._given)):
            slot = int(self._name(whole.buffer)[1:])
            options = f", i8({alignment}), {self._name(WRITTEN)}" if alignment else ""
            taken = f"{'lend' if alignment else 'copy'}(table, i8({slot}), {name}, i8({whole.nbytes}){options})"
            lines.append(f"refused |= {taken} << {number}")
        return [*lines, "if refused:", "    return -refused"]

    def _body(self, lines: list[str]) -> str:
        """Lines of a function, behind what loads the addresses that they use."""
        used = {word for line in lines for word in line.replace("(", " ").replace(",", " ").replace(")", " ").split()}
        loads = [f"b{n} = load(pointer(table, i8), {n}, 0)" for n in self._table.values() if f"b{n}" in used]
        return "".join(f"    {line}\n" for line in (*loads, *lines))

    @property
    def buffers(self) -> list[int]:
        """Those whose addresses are in the table."""
        return [key for key in self._table if isinstance(key, int)]

    @property
    def threaded(self) -> bool:
        """Whether there are regions."""
        return bool(self._regions)

    def table(self, keepers: dict[int, tuple[Any, int]], known: dict[str, int]) -> list[int]:
        """The addresses that the step is called with; ``known`` are those of what has a name."""
        from gpunet.captured.compiled.jit import library

        result = []
        for key in self._table:
            if isinstance(key, tuple):
                result.append(library.compiled(*key).address)
            elif key == regions.YIELD:
                result.append(regions.yield_address())
            else:
                result.append(known[key] if isinstance(key, str) else keepers[key][1])
        return result


def available() -> bool:
    """Whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


def require() -> None:
    """Import Numba.

    Raises:
        MissingDependencyError: it is not installed, or does not import.
    """
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"capture(backend='numba') needs Numba, which does not import ({error}): pip install 'gpunet[jit]', or leave "
            "backend at 'auto'"
        ) from None


def load(text: str) -> ModuleType:
    """The module of a text: compiled, or from the cache on disk."""
    import numba

    digest = hashlib.sha256(text.encode())
    digest.update(f"{numba.__version__} {sys.version_info}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):  # what the text stands for
        digest.update(path.read_bytes())
    name = f"gpunet_step_{digest.hexdigest()[:32]}"
    with _loading:
        if name in sys.modules:
            return sys.modules[name]
        try:
            path = _written(cache_directory() / "numba" / f"{name}.py", text)
        except OSError as error:
            _log.warning("compiled steps cannot be kept in %s (%s)", cache_directory(), error)
            path = _written(Path(tempfile.mkdtemp(prefix="gpunet-")) / f"{name}.py", text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def _written(path: Path, text: str) -> Path:
    """A file of this text; one that is there stays as it is, since Numba's cache looks at its age."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text.encode())
    return path
