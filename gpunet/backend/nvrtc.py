"""NVRTC, NVIDIA's run-time compiler, through ctypes: CUDA source in, machine code out.  It needs no card and no driver.

CuPy's own compiler is not used: it flushes float32 denormals and asks for CUDA's header directories.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpunet.backend import toolkit
from gpunet.errors import CompileError, GpunetError

_chosen: str | None = None


def set_library(path: str | os.PathLike[str] | None) -> None:
    """Use the NVRTC library at ``path`` from now on; ``None`` goes back to ``GPUNET_NVRTC``, else to looking for one."""
    global _chosen
    _chosen = None if path is None else os.fspath(path)
    load.cache_clear()


class CompilationError(GpunetError):
    """The source does not compile; the argument is NVRTC's log."""


class Program(NamedTuple):
    """What a compilation made."""

    cubin: bytes
    lowered: dict[str, str]  # mangled name of each name expression
    log: str


class Nvrtc:
    """A loaded NVRTC library."""

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self.path, self.version = path, (0, 0)
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, f"nvrtc{function}")(*arguments)
        if status:
            what = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(
                f"nvrtc{function} failed: {what} (NVRTC {self.version[0]}.{self.version[1]}, {self.path})"
            )

    def _bytes(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(size.value, 1))
        self._call(f"Get{what}", program, buffer)
        return buffer.raw[: size.value]

    @functools.cached_property
    def capabilities(self) -> tuple[int, ...]:
        """Compute capabilities that it compiles for, ascending: 75, 80, ..."""
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", numbers)
        return tuple(numbers)

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str]) -> Program:
        """Compile ``text``, called ``file`` in messages, with the specialisations that ``expressions`` name.

        Raises:
            CompilationError: it does not compile; the log is the argument.
        """
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), text.encode(), file.encode(), 0, None, None)
        try:
            for expression in expressions:
                self._call("AddNameExpression", program, expression.encode())
            array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            status = self._library.nvrtcCompileProgram(program, len(options), array)
            log = self._bytes("ProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
            if status:
                raise CompilationError(log or self._library.nvrtcGetErrorString(status).decode())
            lowered = {}
            for expression in expressions:
                name = ctypes.c_char_p()
                self._call("GetLoweredName", program, expression.encode(), ctypes.byref(name))
                lowered[expression] = (name.value or b"").decode()
            return Program(self._bytes("CUBIN", program), lowered, log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))


def _candidates() -> Iterator[str]:
    """Where NVRTC may be: paths and names for the system's loader, most wanted first."""
    asked = _chosen or os.environ.get("GPUNET_NVRTC")
    if asked:
        yield asked
        return
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # no pathfinder, or it found nothing
        from cuda.pathfinder import load_nvidia_dynamic_lib

        yield str(load_nvidia_dynamic_lib("nvrtc").abs_path)
    yield from map(str, toolkit.installed("*/lib/libnvrtc.so.*", "lib64/libnvrtc.so.*"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


@functools.cache
def load() -> Nvrtc:
    """The NVRTC library of this process: ``set_library``, ``GPUNET_NVRTC``, NVIDIA's wheels, CUDA's folders, the system.

    Raises:
        CompileError: there is none; the message says what to install.
    """
    tried = []
    for path in _candidates():
        try:
            return Nvrtc(ctypes.CDLL(path), path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
    raise CompileError(
        "CUDA kernels are compiled for the card at hand, but NVRTC is not installed: pip install 'gpunet[cuda13]' (or "
        "'gpunet[cuda12]'), or set GPUNET_NVRTC to the path of libnvrtc.so. Tried:\n  " + "\n  ".join(tried)
    )
