"""CUDA sources: find, splice, specialise, compile, cache and load them.

A ``.cu`` file in ``cuda_kernels/`` and the headers beside it are one text when they are compiled, so the compiler needs
no include path and a changed header is a changed source.  A specialisation is named by its C++ expression, such as
``linear_forward<float, 64, Relu>``; it is compiled at its first launch on a kind of card, and kept

* in memory, as a loaded function;
* on disk, as machine code in ``cache_directory()``, for the next process.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunet import device as devices
from gpunet.device import Device
from gpunet.errors import CompileError, LaunchError

_log = logging.getLogger(__name__)

#: Options of every compilation.  Denormals stay, divisions and roots round exactly: no fast math.
OPTIONS = ("--std=c++17",)

# ---- sources ----------------------------------------------------------------------------------------------------------

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def kernel_directory() -> Path:
    """The folder of the CUDA sources: inside the package in a wheel, at the top of the repository in a checkout.

    Raises:
        CompileError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cuda_kernels", package.parent / "cuda_kernels"):
        if folder.is_dir():
            return folder
    raise CompileError(f"cuda_kernels/ is neither in {package} nor beside it; reinstall gpunet")


def kernel_files() -> list[str]:
    """Names of the ``.cu`` files, sorted."""
    return sorted(path.name for path in kernel_directory().glob("*.cu"))


def spliced(file: str) -> str:
    """The text of a source with its headers in place of ``#include "..."``, each header once.

    ``#line`` directives keep the compiler's messages about the right file and line.

    Raises:
        CompileError: the file, or a header that it includes, is not there.
    """
    directory = kernel_directory()
    lines: list[str] = []
    _splice(directory, file, f"asked for {file!r}", {file}, lines)
    return "\n".join(lines) + "\n"


def _splice(directory: Path, file: str, asked: str, seen: set[str], lines: list[str]) -> None:
    try:
        text = (directory / file).read_text(encoding="utf-8")
    except OSError:
        raise CompileError(f"{asked}, but there is no such file in {directory}") from None
    lines.append(f'#line 1 "{file}"')
    for number, line in enumerate(text.splitlines(), 1):
        include = _INCLUDE.match(line)
        if include is None:
            lines.append(line)
            continue
        header = include[1]
        if header not in seen:
            seen.add(header)
            _splice(directory, header, f"{file}:{number} includes {header!r}", seen, lines)
        lines.append(f'#line {number + 1} "{file}"')


# ---- compilation ------------------------------------------------------------------------------------------------------


def nvrtc_version() -> tuple[int, int]:
    """Version of the NVRTC library that compiles.

    Raises:
        CompileError: NVRTC is not installed.
    """
    from gpunet.runtime import nvrtc  # not at the top: it brings ctypes in, which a CPU run does without

    return nvrtc.load().version


def architecture(capability: tuple[int, int]) -> str:
    """The architecture to compile for, for a card of this compute capability: (9, 0) is "sm_90a".

    A card newer than the compiler takes the newest code of its own major version that the compiler knows.

    Raises:
        CompileError: the compiler knows none.
    """
    from gpunet.runtime import nvrtc

    major, minor = capability
    known = [c for c in nvrtc.load().capabilities if c // 10 == major and c <= 10 * major + minor]
    if not known:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"NVRTC {version} does not compile for compute capability {major}.{minor}; install one that does: "
            "pip install 'gpunet[cuda13]' for capability 7.5 and up, 'gpunet[cuda12]' for older cards"
        )
    return f"sm_{known[-1]}" + ("a" if known[-1] in (90, 100) else "")


def compile_all(file: str, expressions: Sequence[str], architecture: str) -> tuple[bytes, dict[str, str], str]:
    """Compile specialisations of a source together: the machine code, the name of each in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expressions and the architecture, with NVRTC's log.
    """
    from gpunet.runtime import nvrtc

    try:
        return nvrtc.load().compile(spliced(file), file, expressions, (*OPTIONS, f"--gpu-architecture={architecture}"))
    except nvrtc.CompilationError as failure:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"{file} does not compile as {', '.join(expressions)} for {architecture} (NVRTC {version}):\n{failure}"
        ) from None


def compile(file: str, expression: str, architecture: str) -> tuple[bytes, str, str]:
    """Compile one specialisation: the machine code, its name in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expression and the architecture, with NVRTC's log.
    """
    cubin, lowered, log = compile_all(file, (expression,), architecture)
    return cubin, lowered[expression], log


# ---- the cache on disk ------------------------------------------------------------------------------------------------

_chosen_cache: Path | None = None
_cache_complained = False


def set_cache_directory(path: str | os.PathLike[str] | None) -> None:
    """Keep machine code in ``path`` from now on; ``None`` goes back to ``GPUNET_CACHE_DIR`` or the default."""
    global _chosen_cache
    _chosen_cache = None if path is None else Path(path)


def cache_directory() -> Path:
    """Where machine code is kept: ``set_cache_directory``, else ``GPUNET_CACHE_DIR``, else ``~/.cache/gpunet``."""
    if _chosen_cache is not None:
        return _chosen_cache
    asked = os.environ.get("GPUNET_CACHE_DIR")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~"), ".cache")) / "gpunet"


def compiled(file: str, expression: str, architecture: str) -> tuple[bytes, str]:
    """Machine code and name of a specialisation: from the disk if it is there and whole, else compiled and kept.

    A cache that cannot be written costs a warning, once, and the next process a compilation.

    Raises:
        CompileError: it does not compile, or NVRTC is not installed.
    """
    import hashlib

    parts = (spliced(file), expression, architecture, *OPTIONS, repr(nvrtc_version()))
    path = cache_directory() / (hashlib.sha256("\0".join(parts).encode()).hexdigest() + ".cubin")
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        pass
    else:
        if hashlib.sha256(content).hexdigest().encode() == digest:
            name, _, cubin = content.partition(b"\n")
            return cubin, name.decode()
        _log.warning("%s is damaged; compiling %s again", path, expression)
    cubin, lowered, log = compile(file, expression, architecture)
    if log:
        _log.debug("%s: %s", expression, log)
    content = lowered.encode() + b"\n" + cubin
    _keep(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return cubin, lowered


def _keep(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all."""
    import tempfile

    global _cache_complained
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=path.stem[:16], suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except OSError as error:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)
        if not _cache_complained:
            _cache_complained = True
            _log.warning(
                "compiled kernels cannot be kept in %s (%s), so every process compiles them again; "
                "set GPUNET_CACHE_DIR to a folder that can be written",
                path.parent,
                error,
            )


# ---- loading ----------------------------------------------------------------------------------------------------------

#: ``function(grid, block, arguments, shared)`` launches on the current stream of the function's device.
Function = Callable[..., None]

_functions: dict[tuple[str, str, str, int], Function] = {}
_lock = threading.Lock()
_STATIC_SHARED_LIMIT = 48 << 10  # bytes of shared memory that need no asking


def function(file: str, expression: str, device: Device) -> Function:
    """The loaded function of a specialisation on a card, or on the device "emulated"; compiled at the first call.

    Raises:
        CompileError: it does not compile, or NVRTC (for "emulated" g++) is not installed.
        DeviceError: CUDA is not ready.
    """
    key = (file, expression, device.type, device.index)
    found = _functions.get(key)
    if found is None:
        with _lock:
            found = _functions.get(key)
            if found is None:
                found = _emulated(file, expression) if device.type == "emulated" else _load(file, expression, device.index)
                _functions[key] = found
    return found


def _emulated(file: str, expression: str) -> Function:
    from gpunet import emulator  # brings ctypes and subprocess in, which a CPU run does without

    return emulator.Function(spliced(file), file, expression, cache_directory() / "emulator")


def _load(file: str, expression: str, index: int) -> Function:
    cuda = devices.cupy().cuda
    card = cuda.Device(index)
    capability = card.compute_capability  # "90", "120"
    cubin, name = compiled(file, expression, architecture((int(capability[:-1]), int(capability[-1]))))
    with card:
        module = cuda.Module()
        module.load(cubin)
        loaded = module.get_function(name)
    current = cuda.runtime.getDevice
    most_shared = _STATIC_SHARED_LIMIT

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
        nonlocal most_shared
        if current() != index:
            with card:
                launch(grid, block, arguments, shared)
            return
        if 0 in grid or 0 in block:  # CuPy would launch one block of one thread instead
            raise LaunchError(f"launch of {expression}: grid {grid}, block {block}; expected extents from 1 on")
        if shared > most_shared:
            cuda.driver.funcSetAttribute(
                loaded.ptr, cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared
            )
            most_shared = shared
        loaded(grid, block, arguments, shared)

    return launch
