"""NVRTC, NVIDIA's run-time compiler, called through ctypes.  It needs neither a GPU nor a driver.

CuPy's compiler is not used because it flushes float32 denormals to zero and needs CUDA's header directories.
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
    """Use the NVRTC library at ``path`` from now on; ``None`` goes back to ``GPUNET_NVRTC`` or the default search."""
    global _chosen
    _chosen = None if path is None else os.fspath(path)
    load.cache_clear()


class CompilationError(GpunetError):
    """The source does not compile; the message is NVRTC's log."""


class Program(NamedTuple):
    """The result of a compilation."""

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
            error = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(
                f"nvrtc{function} failed: {error} (NVRTC {self.version[0]}.{self.version[1]}, {self.path})"
            )

    def _get_bytes(self, name: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(size.value, 1))
        self._call(f"Get{name}", program, buffer)
        return buffer.raw[: size.value]

    @functools.cached_property
    def capabilities(self) -> tuple[int, ...]:
        """The compute capabilities that NVRTC compiles for, ascending: 75, 80, ..."""
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", numbers)
        return tuple(numbers)

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str]) -> Program:
        """Compile CUDA source.

        Args:
            text: the source.
            file: the name of the source in messages.
            expressions: the specialisations to instantiate, such as "scale<float>".
            options: command-line options of NVRTC.

        Raises:
            CompilationError: the source does not compile.
        """
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), text.encode(), file.encode(), 0, None, None)
        try:
            for expression in expressions:
                self._call("AddNameExpression", program, expression.encode())
            array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            status = self._library.nvrtcCompileProgram(program, len(options), array)
            log = self._get_bytes("ProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
            if status:
                raise CompilationError(log or self._library.nvrtcGetErrorString(status).decode())
            lowered = {}
            for expression in expressions:
                name = ctypes.c_char_p()
                self._call("GetLoweredName", program, expression.encode(), ctypes.byref(name))
                lowered[expression] = (name.value or b"").decode()
            return Program(self._get_bytes("CUBIN", program), lowered, log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))


def _candidates() -> Iterator[str]:
    """Yield the places to look for NVRTC, in order of preference: paths, then names for the system's loader."""
    requested = _chosen or os.environ.get("GPUNET_NVRTC")
    if requested:
        yield requested
        return
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # no pathfinder, or it found nothing
        from cuda.pathfinder import load_nvidia_dynamic_lib

        yield str(load_nvidia_dynamic_lib("nvrtc").abs_path)
    yield from map(str, toolkit.installed("*/lib/libnvrtc.so.*", "lib64/libnvrtc.so.*"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


@functools.cache
def load() -> Nvrtc:
    """Load NVRTC: from ``set_library``, ``GPUNET_NVRTC``, NVIDIA's wheels, a CUDA toolkit, or the system's library path.

    Raises:
        CompileError: NVRTC is not installed; the message says what to install.
    """
    tried = []
    for path in _candidates():
        try:
            return Nvrtc(ctypes.CDLL(path), path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
    raise CompileError(
        "CUDA kernels are compiled at run time, but NVRTC is not installed: pip install 'gpunet[cuda13]' (or "
        "'gpunet[cuda12]'), or set GPUNET_NVRTC to the path of libnvrtc.so. Tried:\n  " + "\n  ".join(tried)
    )
