"""A compiled kernel in this process: its entry, its parameters, its shared arrays, and which line an address is."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpunet.emulator import compiler


class Parameter(ctypes.Structure):
    """As ``emulator::Parameter`` in cuda_on_cpu.h: what the kernel declares."""

    _fields_ = [
        ("bytes", ctypes.c_int),
        ("kind", ctypes.c_char),
        ("pointer", ctypes.c_char),
        ("constant", ctypes.c_char),
        ("element_bytes", ctypes.c_ubyte),
    ]


class Variable(NamedTuple):
    """A variable of the library in memory."""

    name: str
    address: int
    bytes: int
    kind: str  # "shared", "constant" or "global"
    function: str  # that it belongs to, "" at namespace scope


@functools.cache
def runtime(cache: Path) -> ctypes.CDLL:
    """The runtime, once a process; kernels find its functions in the global namespace."""
    library = ctypes.CDLL(str(compiler.runtime(cache)), mode=ctypes.RTLD_GLOBAL)
    library.emulator_dynamic_shared.restype = ctypes.c_void_p
    return library


_SYMBOL = re.compile(r"^(local )?([0-9a-f]+) \S* *.{0,6} [OF] (\S+)\t([0-9a-f]+) +(?:\.hidden )?(.*)$")
_OWN = ("export:", "cuda_on_cpu.h:", "intrinsics.h:", "half.h:", "cuda_fp16.", "cuda_bf16.")
_NOT_OF_THE_SOURCE = re.compile(r"^(_|completed\.|emulator)")


class SymbolTable:
    """Variables and source lines of a loaded library, of which one symbol's address is known."""

    def __init__(self, path: Path, symbol: str, address: int) -> None:
        self.path = path
        symbols = path.with_suffix(".symbols").read_text().splitlines()
        found = [match.groups() for match in map(_SYMBOL.match, symbols) if match]
        self.base = address - next(int(at, 16) for _, at, _, _, name in found if name == symbol)
        self.variables = [
            _variable(name, self.base + int(at, 16), int(size, 16), section, bool(local))
            for local, at, section, size, name in found
            if section in (".bss", ".data", ".rodata") and int(size, 16) and not _NOT_OF_THE_SOURCE.match(name)
        ]

    def lines(self, offsets: Sequence[int]) -> list[list[str]]:
        """The source lines of several addresses at once: for each the line itself, then the calls that led there."""
        asked = subprocess.run(
            ["addr2line", "-a", "-i", "-e", str(self.path)],
            # the address after a call is the next line's
            input="\n".join(hex(offset - 1) for offset in offsets), capture_output=True, text=True,
        )  # fmt: skip
        parts = re.split(r"^0x[0-9a-f]+\n", asked.stdout, flags=re.MULTILINE)[1:]
        found = [[os.path.basename(line.split(" ")[0]) for line in part.splitlines()] for part in parts]
        return [
            [line for line in dict.fromkeys(lines) if "?" not in line and not line.startswith(_OWN)] or [hex(offset)]
            for offset, lines in zip(offsets, found)
        ]

    def line(self, offset: int) -> str:
        """The source lines of an address in words."""
        line, *calls = self.lines([offset])[0]
        return line + (f" (called at {', '.join(calls)})" if calls else "")

    def explain(self, text: str) -> str:
        """``text`` with source lines in place of @0x12ab."""
        return re.sub(r"@(0x[0-9a-f]+)", lambda match: self.line(int(match[1], 16)), text)


class Library(SymbolTable):
    """One specialisation, loaded."""

    def __init__(self, path: Path, cache: Path) -> None:
        self.runtime = runtime(cache)
        self._library = ctypes.CDLL(str(path))
        self.entry = ctypes.cast(self._library.emulator_entry_0, ctypes.c_void_p).value or 0
        super().__init__(path, "emulator_entry_0", self.entry)
        count = self._library.emulator_parameters_0(None)
        parameters = (Parameter * max(count, 1))()
        self._library.emulator_parameters_0(parameters)
        self.parameters = list(parameters)[:count]
        self.cluster = tuple((ctypes.c_uint * 3).in_dll(self._library, "emulator_cluster_0"))


def _variable(name: str, address: int, bytes: int, section: str, local: bool) -> Variable:
    """A variable of the symbol table; a function's own is shared memory: "void gemm<float, 64>(int)::shared"."""
    kind = "constant" if section == ".rodata" else "shared" if local else "global"
    scope, _, last = name.rpartition("::")
    words = re.findall(r"\w+", re.split(r"[<(]", scope)[0])
    return Variable(last, address, bytes, kind, words[-1] if local and words else "")
