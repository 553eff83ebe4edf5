"""The CUDA compiler: specialisations of kernels, compiled, cached and loaded.

A specialisation is named by its C++ expression, such as ``linear_forward<float, 64, Relu>``; it is compiled at its first
launch on a kind of card, and kept

* in memory, as a loaded function;
* on disk, as machine code in ``cache_directory()``, for the next process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunet.backend import devices, toolkit
from gpunet.backend.cuda_sources import Source, name_of, spliced
from gpunet.backend.devices import Device
from gpunet.backend.disk_cache import cache_directory, keep
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


def compiled(file: str | Path | Source, expression: str, architecture: str) -> tuple[bytes, str]:
    """Machine code and name of a specialisation: from the disk if it is there and whole, else compiled and kept.

    A cache that cannot be written costs a warning, once, and the next process a compilation.

    Raises:
        CompileError: it does not compile, or NVRTC is not installed.
    """
    import hashlib

    text = spliced(file)
    parts = (text, expression, architecture, *OPTIONS, *toolkit.options(text, name_of(file)), repr(nvrtc_version()))
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
    keep(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return cubin, lowered



# ---- loading ----------------------------------------------------------------------------------------------------------

#: ``function(grid, block, arguments, shared)`` launches on the current stream of the function's device.
Function = Callable[..., None]

Loader = Callable[[str | Path | Source, str, Device], Function]

_loaders: dict[str, Loader] = {}
_functions: dict[tuple[str | Path | Source, str, str, int], Function] = {}
_lock = threading.Lock()
_STATIC_SHARED_LIMIT = 48 << 10  # bytes of shared memory that need no asking


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
    cuda, index = devices.cupy().cuda, device.index
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


register_loader("cuda", _load)
