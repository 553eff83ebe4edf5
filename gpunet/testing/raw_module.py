"""RawModule: CuPy's class of this name on NumPy arrays, its kernels emulated and checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from gpunet import emulator
from gpunet.backend import compiler, cuda_sources
from gpunet.backend.devices import Device
from gpunet.backend.signature import DTYPES, Entry, as_scalar, find_entry
from gpunet.errors import ArgumentError, LaunchError


class RawModule:
    """A CUDA source whose kernels run on the CPU, on NumPy arrays, and are checked as they do.

    Races, accesses out of bounds, missing barriers, uninitialised shared memory and writes to ``const`` arrays raise an
    EmulationError with file and line.  Textures, ``get_global`` and compiled files are not there.

    Args:
        code: the source as text.
        path: the source as a file (CuPy's ``path`` is of a compiled file).
        options: ``-Dname=value`` and ``-Ifolder``; others say how machine code is made, and mean nothing here.
        name_expressions: the specialisations that ``get_function`` will be asked for.  CuPy needs them for templates; where
            they are given, others are refused, as there.
        check: False runs faster, and finds nothing.

    Launches follow an enclosing ``gpunet.emulator.check(schedule=...)``.

    Raises:
        ArgumentError: neither code nor path was given, or both.
        CompileError: the file or a header is not there.
    """

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
        check: bool = True,
    ) -> None:
        if (code is None) == (path is None):
            raise ArgumentError("RawModule: pass either code= or path=")
        given: str | Path = code if code is not None else Path(path or "")
        self.source = cuda_sources.splice(given, "raw_module.cu", options)
        self.name_expressions = name_expressions
        self.check = check

    def get_function(self, name: str) -> RawFunction:
        """The kernel of a name, ``"scale"``, or of a specialisation, ``"scale<float>"``.  It is compiled at its first launch.

        Raises:
            ArgumentError: the source has no such kernel, or it was not among ``name_expressions``.
        """
        entry = find_entry(self.source.text, self.source.name, name)
        if (entry.types or entry.values) and self.name_expressions is not None and name not in self.name_expressions:
            raise ArgumentError(
                f"{self.source.name}: {name!r} is not among name_expressions={list(self.name_expressions)}"
            )
        return RawFunction(self.source, entry, name, self.check)


class RawFunction:
    """A kernel of a :class:`RawModule`."""

    def __init__(self, text: cuda_sources.Source, entry: Entry, expression: str, check: bool) -> None:
        self.entry, self.name, self.check = entry, expression, check
        self._function = compiler.function(text, expression, Device("emulated"))

    def __repr__(self) -> str:
        return f"<RawFunction {self.name} of {self.entry}>"

    def __call__(
        self, grid: int | Sequence[int], block: int | Sequence[int], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        """Launch and wait.

        Args:
            grid: blocks, up to three extents.
            block: threads of a block, up to three extents.
            args: NumPy arrays for pointers, None for null, and scalars.  As with CuPy, a Python float is a C ``double``; a
                Python int is taken as the integer that the kernel declares.
            shared_mem: bytes of dynamic shared memory.

        Raises:
            LaunchError: a launch that a card would refuse, or arguments that are not the kernel's.
            EmulationError: what was found while it ran.
            CompileError: the source does not compile, or g++ is not installed.
        """
        declared = self.entry.parameters
        if len(args) != len(declared):
            raise LaunchError(f"launch of {self.name}: {len(args)} arguments; expected {len(declared)}: {self.entry}")
        arguments = [
            self._scalar(value, p.c_type, p.name) if not p.pointer else value for value, p in zip(args, declared)
        ]
        chosen = emulator.settings()._asdict()
        with emulator.check(chosen.pop("check") or self.check, **chosen):
            self._function(grid, block, arguments, shared_mem)

    def _scalar(self, value: Any, c_type: str, name: str) -> Any:
        dtype = DTYPES.get(c_type)
        if type(value) is bool:
            return numpy.bool_(value)
        if type(value) is float:
            if dtype == "float32":
                raise LaunchError(
                    f"launch of {self.name}: {name!r} is the Python float {value!r}, which is passed as a double; the kernel "
                    f"declares float: pass numpy.float32({value!r})"
                )
            return numpy.float64(value)
        if type(value) is int:
            if dtype is None or numpy.dtype(dtype).kind not in "iu":
                return numpy.int64(value)
            return as_scalar(value, dtype, f"launch of {self.name}: {name!r}")
        return value
