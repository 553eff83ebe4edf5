"""Loaded kernel libraries: entry point, parameters, variables, and the source line of a code address."""

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
    """A parameter of the kernel.  Layout of ``emulator::Parameter`` in cuda_on_cpu.h."""

    _fields_ = [
        ("bytes", ctypes.c_int),
        ("kind", ctypes.c_char),
        ("pointer", ctypes.c_char),
        ("constant", ctypes.c_char),
        ("element_bytes", ctypes.c_ubyte),
    ]


class Variable(NamedTuple):
    """A variable of a loaded library."""

    name: str
    address: int
    bytes: int
    kind: str  # "shared", "constant" or "global"
    function: str  # the function that contains it; "" at namespace scope


@functools.cache
def runtime(cache: Path) -> ctypes.CDLL:
    """Load the emulator's runtime, once per process, with global symbols, which the kernels' libraries use."""
    library = ctypes.CDLL(str(compiler.runtime(cache)), mode=ctypes.RTLD_GLOBAL)
    library.emulator_dynamic_shared.restype = ctypes.c_void_p
    return library


_SYMBOL = re.compile(r"^(local )?([0-9a-f]+) \S* *.{0,6} [OF] (\S+)\t([0-9a-f]+) +(?:\.hidden )?(.*)$")
#: Lines in these files are not part of the user's source.
_INTERNAL_FILES = ("export:", "cuda_on_cpu.h:", "intrinsics.h:", "conversions.h:", "half.h:", "cuda_fp16.", "cuda_bf16.")
_INTERNAL_SYMBOL = re.compile(r"^(_|completed\.|emulator)")


class SymbolTable:
    """Variables and source lines of a loaded library, located by the address of one of its symbols."""

    def __init__(self, path: Path, symbol: str, address: int) -> None:
        self.path = path
        symbols = path.with_suffix(".symbols").read_text().splitlines()
        parsed = [match.groups() for match in map(_SYMBOL.match, symbols) if match]
        self.base = address - next(int(at, 16) for _, at, _, _, name in parsed if name == symbol)
        self.variables = [
            _variable(name, self.base + int(at, 16), int(size, 16), section, bool(local))
            for local, at, section, size, name in parsed
            if section in (".bss", ".data", ".rodata") and int(size, 16) and not _INTERNAL_SYMBOL.match(name)
        ]

    def lines(self, offsets: Sequence[int]) -> list[list[str]]:
        """Return for each code address its source line "file:line", followed by the lines of the inlined calls to it."""
        done = subprocess.run(
            ["addr2line", "-a", "-i", "-e", str(self.path)],
            # these are return addresses, which may belong to the line after the call
            input="\n".join(hex(offset - 1) for offset in offsets), capture_output=True, text=True,
        )  # fmt: skip
        parts = re.split(r"^0x[0-9a-f]+\n", done.stdout, flags=re.MULTILINE)[1:]
        all_lines = [[os.path.basename(line.split(" ")[0]) for line in part.splitlines()] for part in parts]
        return [
            [line for line in dict.fromkeys(lines) if "?" not in line and not line.startswith(_INTERNAL_FILES)] or [hex(offset)]
            for offset, lines in zip(offsets, all_lines)
        ]

    def line(self, offset: int) -> str:
        """Return the source line of a code address as text, with the calls that lead there."""
        line, *calls = self.lines([offset])[0]
        return line + (f" (called at {', '.join(calls)})" if calls else "")

    def explain(self, text: str) -> str:
        """Replace each code address, written as @0x12ab, by its source line."""
        return re.sub(r"@(0x[0-9a-f]+)", lambda match: self.line(int(match[1], 16)), text)


class Library(SymbolTable):
    """The loaded library of one specialisation."""

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
    """Describe a symbol.  Function-local variables, such as "void gemm<float, 64>(int)::tile", are shared memory."""
    kind = "constant" if section == ".rodata" else "shared" if local else "global"
    scope, _, last = name.rpartition("::")
    words = re.findall(r"\w+", re.split(r"[<(]", scope)[0])
    return Variable(last, address, bytes, kind, words[-1] if local and words else "")
