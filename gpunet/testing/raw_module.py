"""RawModule: the interface of ``cupy.RawModule`` on NumPy arrays, with emulated and checked kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from gpunet import emulator
from gpunet.backend import compiler, cuda_sources
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import is_integer
from gpunet.backend.signature import DTYPES, Entry, as_scalar, find_entry
from gpunet.errors import ArgumentError, LaunchError


class RawModule:
    """A CUDA source whose kernels run on the CPU, on NumPy arrays, and are checked while they run.

    Races, accesses out of bounds, missing barriers, uninitialised shared memory and writes to ``const`` arrays raise an
    EmulationError with file and line.  Textures, ``get_global`` and compiled modules are not supported.

    An enclosing ``gpunet.emulator.check(schedule=...)`` applies to launches.

    Args:
        code: the source as text.
        path: the path of a source file (in CuPy, ``path`` is a compiled file).
        options: ``-Dname=value`` and ``-Ifolder``; other options only affect machine code and are ignored.
        name_expressions: the specialisations that ``get_function`` may return, as in CuPy; None allows all.
        check: False runs faster, without checks.

    Raises:
        ArgumentError: neither or both of code and path were given.
        CompileError: the file or a header does not exist.
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
        text_or_path: str | Path = code if code is not None else Path(path or "")
        self.source = cuda_sources.splice(text_or_path, "raw_module.cu", options)
        self.name_expressions = name_expressions
        self.check = check

    def get_function(self, name: str) -> RawFunction:
        """Return a kernel ("scale") or a specialisation ("scale<float>").  It is compiled at its first launch.

        Raises:
            ArgumentError: the source has no such kernel, or ``name`` is not in ``name_expressions``.
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
        """Launch the kernel and wait until it has finished.

        Args:
            grid: number of blocks, up to three extents.
            block: number of threads per block, up to three extents.
            args: NumPy arrays for pointers (None for null), and scalars.  As in CuPy, a Python float is passed as a
                ``double``; a Python int is passed as the integer type that the kernel declares.
            shared_mem: bytes of dynamic shared memory.

        Raises:
            LaunchError: a GPU would reject the launch, or the arguments do not match the kernel's parameters.
            EmulationError: the emulator found a bug while the kernel ran.
            CompileError: the source does not compile, or g++ is not installed.
        """
        declared = self.entry.parameters
        if len(args) != len(declared):
            raise LaunchError(f"launch of {self.name}: {len(args)} arguments; expected {len(declared)}: {self.entry}")
        arguments = [
            self._scalar(value, p.c_type, p.name) if not p.pointer else value for value, p in zip(args, declared)
        ]
        settings = emulator.settings()._asdict()
        with emulator.check(settings.pop("check") or self.check, **settings):
            self._function(grid, block, arguments, shared_mem)

    def _scalar(self, value: Any, c_type: str, name: str) -> Any:
        dtype = DTYPES.get(c_type)
        if type(value) is bool:
            return numpy.bool_(value)
        if type(value) is float:
            if dtype == "float32":
                raise LaunchError(
                    f"launch of {self.name}: argument {name!r} is the Python float {value!r}, which is passed as a double, but "
                    f"the kernel declares float; pass numpy.float32({value!r})"
                )
            return numpy.float64(value)
        if type(value) is int:
            if dtype is None or not is_integer(numpy.dtype(dtype)):
                return numpy.int64(value)
            return as_scalar(value, dtype, f"launch of {self.name}: argument {name!r}")
        return value
