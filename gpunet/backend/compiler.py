"""The CUDA compiler: specialisations of kernels, compiled, cached and loaded.

A specialisation is named by its C++ expression, such as ``linear_forward<float, 64, Relu>``; it is compiled at its first
launch on a kind of card, and kept

* in memory, as a loaded function, on a GPU a ``cupy.RawKernel``;
* on disk, as machine code in ``cache_directory()`` with the function's name beside it, for the next process.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunet.backend import devices, toolkit
from gpunet.backend.cuda_sources import Source, name_of, spliced
from gpunet.backend.devices import Device
from gpunet.backend.disk_cache import cache_directory, keep, write_whole
from gpunet.errors import CompileError, LaunchError

_log = logging.getLogger(__name__)

#: Options of every compilation.  Denormals stay, divisions and roots round exactly: no fast math.
OPTIONS = ("--std=c++17",)

# ---- compilation ------------------------------------------------------------------------------------------------------


def nvrtc_version() -> tuple[int, int]:
    """Version of the NVRTC library that compiles.

    Raises:
        CompileError: NVRTC is not installed.
    """
    from gpunet.backend import nvrtc  # not at the top: it brings ctypes in, which a CPU run does without

    return nvrtc.load().version


def architecture(capability: tuple[int, int]) -> str:
    """The architecture to compile for, for a card of this compute capability: (9, 0) is "sm_90a".

    A card newer than the compiler takes the newest code of its own major version that the compiler knows.

    Raises:
        CompileError: the compiler knows none.
    """
    from gpunet.backend import nvrtc

    major, minor = capability
    known = [c for c in nvrtc.load().capabilities if c // 10 == major and c <= 10 * major + minor]
    if not known:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"NVRTC {version} does not compile for compute capability {major}.{minor}; install one that does: "
            "pip install 'gpunet[cuda13]' for capability 7.5 and up, 'gpunet[cuda12]' for older cards"
        )
    return f"sm_{known[-1]}" + ("a" if known[-1] in (90, 100) else "")


def compile_all(file: str | Path | Source, expressions: Sequence[str], architecture: str) -> tuple[bytes, dict[str, str], str]:
    """Compile specialisations of a source together: the machine code, the name of each in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expressions and the architecture, with NVRTC's log.
    """
    from gpunet.backend import nvrtc

    text, name = spliced(file), name_of(file)
    try:
        options = (*OPTIONS, *toolkit.options(text, name), f"--gpu-architecture={architecture}")
        return nvrtc.load().compile(text, name, expressions, options)
    except nvrtc.CompilationError as failure:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"{name} does not compile as {', '.join(expressions)} for {architecture} (NVRTC {version}):\n{failure}"
        ) from None


def compile(file: str | Path | Source, expression: str, architecture: str) -> tuple[bytes, str, str]:
    """Compile one specialisation: the machine code, its name in it, NVRTC's log.

    Raises:
        CompileError: naming the source, the expression and the architecture, with NVRTC's log.
    """
    cubin, lowered, log = compile_all(file, (expression,), architecture)
    return cubin, lowered[expression], log


def compiled(file: str | Path | Source, expression: str, architecture: str) -> tuple[Path, str]:
    """The file with the machine code of a specialisation, and its name in it: kept ones if they are whole, else compiled.

    If the cache cannot be written, that is logged once, and the file is a temporary one that lives as long as the process.

    Raises:
        CompileError: it does not compile, or NVRTC is not installed.
    """
    import hashlib

    text = spliced(file)
    parts = (text, expression, architecture, *OPTIONS, *toolkit.options(text, name_of(file)), repr(nvrtc_version()))
    path = cache_directory() / (hashlib.sha256("\0".join(parts).encode()).hexdigest() + ".cubin")
    name = _kept_name(path)
    if name is not None:
        return path, name
    cubin, name, log = compile(file, expression, architecture)
    if log:
        _log.debug("%s: %s", expression, log)
    # the name last: without it, or with another digest in it, the machine code counts as not there
    if not (keep(path, cubin) and keep(path.with_suffix(".name"), f"{_digest(name, cubin)}\n{name}".encode())):
        path = _temporary_folder() / path.name
        write_whole(path, cubin)
    return path, name


def _kept_name(path: Path) -> str | None:
    """The name that is kept beside a file of machine code; None if one of them is missing or damaged."""
    try:
        digest, _, name = path.with_suffix(".name").read_text(encoding="utf-8", errors="replace").partition("\n")
        cubin = path.read_bytes()
    except OSError:
        return None
    if _digest(name, cubin) == digest:
        return name
    _log.warning("%s is damaged; compiling it again", path)
    return None


def _digest(name: str, cubin: bytes) -> str:
    import hashlib

    return hashlib.sha256(name.encode() + b"\n" + cubin).hexdigest()


@functools.cache
def _temporary_folder() -> Path:
    """A folder that lives as long as the process."""
    import atexit
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix="gpunet-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


# ---- loading ----------------------------------------------------------------------------------------------------------

#: ``function(grid, block, arguments, shared)`` launches on the current stream of the function's device.
Function = Callable[..., None]

Loader = Callable[[str | Path | Source, str, Device], Function]

_loaders: dict[str, Loader] = {}
_functions: dict[tuple[str | Path | Source, str, str, int], Function] = {}
_lock = threading.Lock()
_UNASKED_SHARED = 48 << 10  # bytes of shared memory, static and dynamic, that a launch may use without an attribute


def register_loader(device_type: str, loader: Loader) -> None:
    """Load the functions of a type of device, such as "emulated", by ``loader(file, expression, device)``."""
    _loaders[device_type] = loader


def function(file: str | Path | Source, expression: str, device: Device) -> Function:
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
                found = _functions[key] = _loaders[device.type](file, expression, device)
    return found


def _load(file: str | Path | Source, expression: str, device: Device) -> Function:
    cupy, index = devices.cupy(), device.index
    cuda = cupy.cuda
    card = cuda.Device(index)
    capability = card.compute_capability  # "90", "120"
    path, name = compiled(file, expression, architecture((int(capability[:-1]), int(capability[-1]))))
    with card:
        loaded = cupy.RawModule(path=str(path)).get_function(name)
        most_shared = _UNASKED_SHARED - loaded.shared_size_bytes
    current = cuda.runtime.getDevice

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
        nonlocal most_shared
        if current() != index:
            with card:
                launch(grid, block, arguments, shared)
            return
        if 0 in grid or 0 in block:  # CuPy would launch one block of one thread instead
            raise LaunchError(f"launch of {expression}: grid {grid}, block {block}; expected extents from 1 on")
        if shared > most_shared:
            loaded.max_dynamic_shared_size_bytes = most_shared = shared
        loaded(grid, block, arguments, shared_mem=shared)

    return launch


register_loader("cuda", _load)
