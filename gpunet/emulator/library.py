"""A compiled kernel in this process: its entry, its parameters, its shared arrays, and which line an address is."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
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


@functools.cache
def runtime(cache: Path) -> ctypes.CDLL:
    """The runtime, once a process; kernels find its functions in the global namespace."""
    library = ctypes.CDLL(str(compiler.runtime(cache)), mode=ctypes.RTLD_GLOBAL)
    library.emulator_dynamic_shared.restype = ctypes.c_void_p
    return library


_SYMBOL = re.compile(r"^([0-9a-f]+) \S* *.{0,6} [OF] (\S+)\t([0-9a-f]+) +(?:\.hidden )?(.*)$")
_LOCAL = re.compile(r"\)(?: const)?::(\w+)$")
_OWN = ("export:", "cuda_on_cpu.h:", "intrinsics.h:", "half.h:", "cuda_fp16.", "cuda_bf16.")
_NOT_OF_THE_SOURCE = re.compile(r"^(_|completed\.|emulator)")


class Library:
    """One specialisation, loaded."""

    def __init__(self, path: Path, cache: Path) -> None:
        self.path = path
        self.runtime = runtime(cache)
        self._library = ctypes.CDLL(str(path))
        self.entry = ctypes.cast(self._library.emulator_entry, ctypes.c_void_p).value or 0
        count = self._library.emulator_parameters(None)
        parameters = (Parameter * max(count, 1))()
        self._library.emulator_parameters(parameters)
        self.parameters = list(parameters)[:count]
        self.cluster = tuple((ctypes.c_uint * 3).in_dll(self._library, "emulator_cluster"))
        symbols = path.with_suffix(".symbols").read_text().splitlines()
        found = [match.groups() for match in map(_SYMBOL.match, symbols) if match]
        self.base = self.entry - next(int(at, 16) for at, _, _, name in found if name == "emulator_entry")
        self.variables = [
            Variable(name.rpartition("::")[2], self.base + int(at, 16), int(size, 16), _kind(section, name))
            for at, section, size, name in found
            if section in (".bss", ".data", ".rodata") and int(size, 16) and not _NOT_OF_THE_SOURCE.match(name)
        ]

    def line(self, offset: int) -> str:
        """The source lines of an address, as addr2line knows them: the line itself, then the calls that led there."""
        asked = subprocess.run(
            # the address after a call is the next line's
            ["addr2line", "-i", "-e", str(self.path), hex(offset - 1)], capture_output=True, text=True
        )  # fmt: skip
        lines = [os.path.basename(line.split(" ")[0]) for line in asked.stdout.splitlines()]
        lines = [line for line in dict.fromkeys(lines) if "?" not in line and not line.startswith(_OWN)]
        if not lines:
            return hex(offset)
        return lines[0] + (f" (called at {', '.join(lines[1:])})" if lines[1:] else "")

    def explain(self, text: str) -> str:
        """``text`` with source lines in place of @0x12ab."""
        return re.sub(r"@(0x[0-9a-f]+)", lambda match: self.line(int(match[1], 16)), text)


def _kind(section: str, name: str) -> str:
    if section == ".rodata":
        return "constant"
    return "shared" if _LOCAL.search(name) else "global"
