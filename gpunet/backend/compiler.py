"""The CUDA compiler: compiles, caches and loads template specialisations of kernels.

A specialisation is named by its C++ expression, such as ``linear_forward<float, 64, Relu>``.  It is compiled at its first
launch on a GPU architecture and cached

* in memory, as a loaded function, on a GPU a ``cupy.RawKernel``;
* on disk, as machine code (a cubin) in ``cache_directory()`` with the kernel's mangled name beside it, for the next process.
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
from gpunet.backend.disk_cache import cache_directory, keep
from gpunet.backend.files import write_whole
from gpunet.backend.long_work import long_work
from gpunet.backend.parameter_sizes import check_sizes, parameter_sizes
from gpunet.errors import CompileError, DeviceError, LaunchError

_log = logging.getLogger(__name__)

#: Options of every compilation.  No fast math: denormals are kept, divisions and square roots are correctly rounded.
OPTIONS = ("--std=c++17",)

# ---- compilation ------------------------------------------------------------------------------------------------------


def nvrtc_version() -> tuple[int, int]:
    """Return the version of the NVRTC library in use.

    Raises:
        CompileError: NVRTC is not installed.
    """
    from gpunet.backend import nvrtc  # imported here because it imports ctypes, which a CPU run does not need

    return nvrtc.load().version


def architecture(capability: tuple[int, int]) -> str:
    """Return the architecture to compile for on a GPU of this compute capability: (9, 0) gives "sm_90a".

    If the GPU is newer than the compiler, this is the newest architecture of the GPU's major version that NVRTC supports.

    Raises:
        CompileError: NVRTC supports no architecture of this major version.
    """
    from gpunet.backend import nvrtc

    major, minor = capability
    known = [c for c in nvrtc.load().capabilities if c // 10 == major and c <= 10 * major + minor]
    if not known:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"NVRTC {version} does not compile for compute capability {major}.{minor}; install one that does: "
            "pip install 'gpunet[cuda13]' for capability 7.5 and up, 'gpunet[cuda12]' for older GPUs"
        )
    return f"sm_{known[-1]}" + ("a" if known[-1] in (90, 100) else "")


def compile_all(file: str | Path | Source, expressions: Sequence[str], architecture: str) -> tuple[bytes, dict[str, str], str]:
    """Compile several specialisations of a source into one cubin.

    Returns:
        The cubin, the mangled name of each expression, and NVRTC's log.

    Raises:
        CompileError: with the source, the expressions, the architecture and NVRTC's log.
    """
    from gpunet.backend import nvrtc

    text, name = spliced(file), name_of(file)
    try:
        options = (*OPTIONS, *toolkit.options(text, name), f"--gpu-architecture={architecture}")
        with long_work("compiling a kernel"):
            return nvrtc.load().compile(text, name, expressions, options)
    except nvrtc.CompilationError as failure:
        version = ".".join(map(str, nvrtc_version()))
        raise CompileError(
            f"{name} does not compile as {', '.join(expressions)} for {architecture} (NVRTC {version}):\n{failure}"
        ) from None


def compile(file: str | Path | Source, expression: str, architecture: str) -> tuple[bytes, str, str]:
    """Compile one specialisation.

    Returns:
        The cubin, the mangled name of the kernel in it, and NVRTC's log.

    Raises:
        CompileError: with the source, the expression, the architecture and NVRTC's log.
    """
    cubin, lowered, log = compile_all(file, (expression,), architecture)
    return cubin, lowered[expression], log


def compiled(file: str | Path | Source, expression: str, architecture: str) -> tuple[Path, str]:
    """Return the file with the cubin of a specialisation, and the kernel's mangled name; from the disk cache or by compiling.

    A damaged cache entry is compiled again.  If the cache cannot be written, a warning is logged once, and the file is a
    temporary one that lives as long as the process.

    Raises:
        CompileError: the source does not compile, or NVRTC is not installed.
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


@functools.cache
def max_parameter_bytes(device: Device) -> int:
    """Return how many bytes of parameters a kernel may have on a device.

    Raises:
        CompileError: NVRTC is not installed.
    """
    if device.type != "cuda":
        return _LARGE_PARAMETERS
    cuda = devices.cupy().cuda
    major, minor = nvrtc_version()
    cuda_version = min(int(cuda.runtime.driverGetVersion()), 1000 * major + 10 * minor)
    return _parameter_bytes(cuda_version, int(cuda.Device(device.index).compute_capability))


@functools.cache
def max_shared_bytes(device: Device) -> int:
    """Return how many bytes of shared memory a block may have on a device; on "emulated" those of compute capability 9.0."""
    if device.type != "cuda":
        return _EMULATED_SHARED
    return int(devices.cupy().cuda.Device(device.index).attributes["MaxSharedMemoryPerBlockOptin"])


_EMULATED_SHARED = 227 << 10
_SMALL_PARAMETERS, _LARGE_PARAMETERS = 4096, 32764


def _parameter_bytes(cuda_version: int, capability: int) -> int:
    """The bytes of parameters that CUDA takes; versions as 12010 for 12.1, capabilities as 70 for 7.0."""
    return _LARGE_PARAMETERS if cuda_version >= 12010 and capability >= 70 else _SMALL_PARAMETERS


# ---- loading ----------------------------------------------------------------------------------------------------------

#: ``function(grid, block, arguments, shared)`` launches on the current stream of the function's device.
Function = Callable[..., None]

Loader = Callable[[str | Path | Source, str, Device], Function]

_loaders: dict[str, Loader] = {}
_functions: dict[tuple[str | Path | Source, str, str, int], Function] = {}
_lock = threading.Lock()
_DEFAULT_SHARED_LIMIT = 48 << 10  # bytes of shared memory, static and dynamic, a launch may use without raising the attribute


def register_loader(device_type: str, loader: Loader) -> None:
    """Register ``loader(file, expression, device)`` to load functions for a device type such as "emulated"."""
    _loaders[device_type] = loader


def _find_loader(device: Device) -> Loader:
    if device.type not in _loaders:
        raise DeviceError(f"device '{device.type}' has no loader: import gpunet.emulator")
    return _loaders[device.type]


def function(file: str | Path | Source, expression: str, device: Device) -> Function:
    """Return the loaded function of a specialisation on a CUDA or "emulated" device; the first call compiles and loads it.

    Raises:
        CompileError: the source does not compile, or NVRTC (g++ for "emulated") is not installed.
        DeviceError: CUDA is not ready, or the device type has no loader.
    """
    key = (file, expression, device.type, device.index)
    found = _functions.get(key)
    if found is None:
        with _lock:
            found = _functions.get(key)
            if found is None:
                found = _functions[key] = _find_loader(device)(file, expression, device)
    return found


def _load(file: str | Path | Source, expression: str, device: Device) -> Function:
    cupy, index = devices.cupy(), device.index
    cuda = cupy.cuda
    gpu = cuda.Device(index)
    capability = gpu.compute_capability  # "90", "120"
    path, name = compiled(file, expression, architecture((int(capability[:-1]), int(capability[-1]))))
    with gpu:
        loaded = cupy.RawModule(path=str(path)).get_function(name)
        max_shared = _DEFAULT_SHARED_LIMIT - loaded.shared_size_bytes
        unchecked = parameter_sizes(loaded.kernel.ptr)
    get_current_device = cuda.runtime.getDevice

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
        nonlocal max_shared, unchecked
        if get_current_device() != index:
            with gpu:
                launch(grid, block, arguments, shared)
            return
        if 0 in grid or 0 in block:  # CuPy would replace an extent of 0 by 1
            raise LaunchError(f"launch of {expression}: grid {grid}, block {block}; expected extents from 1 up")
        if unchecked is not None:  # of one kernel, all launches have the same types of arguments
            check_sizes(expression, unchecked, arguments)
            unchecked = None
        if shared > max_shared:
            loaded.max_dynamic_shared_size_bytes = max_shared = shared
        loaded(grid, block, arguments, shared_mem=shared)

    return launch


register_loader("cuda", _load)
