"""The source of a compiled step, and the module made of it.

The text holds sizes and offsets, but no address: those are in a table that the step is called with.  So the same step in
another process is the same text; it lies in the cache directory under a name that is its digest, and Numba keeps the
machine code beside it, for this kind of CPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gpunet.errors import MissingDependencyError
from gpunet.runtime.lower.compiled.forms import WORK, Form
from gpunet.runtime.lower.compiled.nests import Nest, Unit
from gpunet.runtime.lower.program import View
from gpunet.runtime.source import cache_directory

_log = logging.getLogger(__name__)
_HEADER = '"""A recorded training step."""\n\nfrom gpunet.runtime.lower.compiled.names import *\n'
_loading = threading.Lock()


class Writer:
    """Writes units down, part by part: a part is what is compiled between two calls of NumPy."""

    def __init__(self, place: Callable[[Any], Any]) -> None:
        self._place = place
        self._nests: dict[str, str] = {}  # body -> name: equal nests are one function
        self._table: dict[Any, int] = {}  # buffer, WORK or library function -> its number in the table of addresses
        self._parts: list[list[str]] = []
        self.open = False
        self.work = 0  # bytes

    def unit(self, unit: Unit, failure: int = 0) -> None:
        """Add a unit; the part returns ``failure`` where the unit's input is wrong."""
        if not self.open:
            self._parts.append([])
            self.open = True
        lines = self._parts[-1]
        if isinstance(unit, Nest):
            text, operands = unit.source("nest")
            name = self._nests.setdefault(text, f"nest{len(self._nests)}")
            lines.append(f"{name}({', '.join(map(self._address, operands))})")
            return
        assert isinstance(unit, Form)
        self.work = max(self.work, unit.work)
        for library in unit.lines:
            arguments = [self._argument(a) for a in library.arguments]
            called = f"call({', '.join((self._name((library.function, library.dtype.name)), *arguments))})"
            lines += [f"if {called}:", f"    return {failure}"] if failure else [called]

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
        nests = [f"@nest\n{text.replace('def nest(', f'def {name}(', 1)}" for text, name in self._nests.items()]
        parts = []
        for number, lines in enumerate(self._parts):
            used = {word for line in lines for word in line.replace("(", " ").replace(",", " ").replace(")", " ").split()}
            loads = [f"b{n} = load(pointer(table, i8), {n}, 0)" for n in self._table.values() if f"b{n}" in used]
            body = "".join(f"    {line}\n" for line in (*loads, *lines, "return 0"))
            parts.append(f"@part\ndef part{number}(table):\n{body}")
        return "\n\n".join((_HEADER, *nests, *parts))

    @property
    def buffers(self) -> list[int]:
        """Those whose addresses are in the table."""
        return [key for key in self._table if isinstance(key, int)]

    def table(self, keepers: dict[int, tuple[Any, int]], work: int) -> list[int]:
        """The addresses that the step is called with."""
        from gpunet.runtime.lower.compiled import loops

        result = []
        for key in self._table:
            if isinstance(key, tuple):
                result.append(loops.compiled(*key).address)
            else:
                result.append(work + -work % 64 if key == WORK else keepers[key][1])
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
    for path in sorted(Path(__file__).parent.glob("*.py")):  # what the text stands for
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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    return path
