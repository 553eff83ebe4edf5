"""The GPUs of this machine: which is the current one, their names, compute capabilities and memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gpunet.backend.devices import Device, cuda_status, cupy, current_gpu, set_current_gpu
from gpunet.errors import DeviceError

__all__ = [
    "current_accelerator", "current_device", "device", "device_count", "empty_cache", "get_device_capability", "get_device_name",
    "get_device_properties", "init", "ipc_collect", "is_available", "is_bf16_supported", "is_initialized",
    "max_memory_allocated", "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved",
    "reset_max_memory_allocated", "reset_peak_memory_stats", "set_device",
]  # fmt: skip


def is_available() -> bool:
    """Return whether CUDA is ready: CuPy, a driver and a GPU are present."""
    return cuda_status().ready


def device_count() -> int:
    """Return the number of GPUs; 0 if CUDA is not ready."""
    return int(cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def is_initialized() -> bool:
    """Return whether CUDA is ready; it needs no initialisation."""
    return is_available()


def init() -> None:
    """Raise a DeviceError unless CUDA is ready; it needs no initialisation."""
    cupy()


def current_accelerator(check_available: bool = False) -> Device | None:
    """Return the device "cuda" if CUDA is ready, else None."""
    return Device("cuda") if is_available() else None


# ---- the current GPU --------------------------------------------------------------------------------------------------


def _gpu(device: Any) -> Device:
    """A GPU: the current one if ``device`` is None.

    Raises:
        DeviceError: it does not exist, or is no GPU.
    """
    gpu = Device("cuda" if device is None else device)
    if gpu.type != "cuda":
        raise DeviceError(f"device {gpu}: expected a GPU, such as 'cuda:0'")
    return gpu


def current_device() -> int:
    """Return the index of the GPU that "cuda" means in this thread.

    Raises:
        DeviceError: CUDA is not ready.
    """
    index: int = _gpu(None).index
    return index


def set_device(device: str | Device | int) -> None:
    """Let "cuda" mean this GPU in this thread; a negative number does nothing.

    Raises:
        DeviceError: the GPU does not exist, or CUDA is not ready.
    """
    if not isinstance(device, int) or device >= 0:
        set_current_gpu(_gpu(device).index)


class device:
    """Context manager: "cuda" means this GPU inside the block.  None, or a negative number, does nothing."""

    def __init__(self, device: str | Device | int | None) -> None:
        self.idx = -1 if device is None or (isinstance(device, int) and device < 0) else int(_gpu(device).index)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = current_gpu()
        if self.idx >= 0:
            set_current_gpu(self.idx)

    def __exit__(self, *exception: object) -> None:
        set_current_gpu(self.prev_idx)


# ---- properties -------------------------------------------------------------------------------------------------------


def _properties(device: Any) -> dict[str, Any]:
    properties: dict[str, Any] = cupy().cuda.runtime.getDeviceProperties(_gpu(device).index)
    return properties


def get_device_name(device: str | Device | int | None = None) -> str:
    """Return the name of a GPU.

    Raises:
        DeviceError: CUDA is not ready.
    """
    name = _properties(device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: str | Device | int | None = None) -> tuple[int, int]:
    """Return the compute capability of a GPU, such as (9, 0) for Hopper.

    Raises:
        DeviceError: CUDA is not ready.
    """
    properties = _properties(device)
    return int(properties["major"]), int(properties["minor"])


def get_device_properties(device: str | Device | int | None = None) -> SimpleNamespace:
    """Return name, major, minor, total_memory (bytes), multi_processor_count and warp_size of a GPU.

    Raises:
        DeviceError: CUDA is not ready.
    """
    found = _properties(device)
    return SimpleNamespace(
        name=get_device_name(device), major=int(found["major"]), minor=int(found["minor"]),
        total_memory=int(found["totalGlobalMem"]), multi_processor_count=int(found["multiProcessorCount"]),
        warp_size=int(found["warpSize"]),
    )  # fmt: skip


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Return whether the current GPU computes with bfloat16; the kernels store it on every GPU.

    Args:
        including_emulation: count GPUs without instructions for it, on which it is converted.
    """
    return is_available() and (including_emulation or get_device_capability() >= (8, 0))


# ---- memory -----------------------------------------------------------------------------------------------------------


def _pool(device: Any) -> tuple[Any, Any]:
    """A context with the GPU as the current one, and CuPy's pool of its memory."""
    return cupy().cuda.Device(_gpu(device).index), cupy().get_default_memory_pool()


def memory_allocated(device: str | Device | int | None = None) -> int:
    """Return the bytes of all arrays on a GPU; 0 if CUDA is not ready."""
    if not is_available():
        return 0
    context, pool = _pool(device)
    with context:
        return int(pool.used_bytes())


def memory_reserved(device: str | Device | int | None = None) -> int:
    """Return the bytes that CuPy's memory pool holds on a GPU, in use or not; 0 if CUDA is not ready."""
    if not is_available():
        return 0
    context, pool = _pool(device)
    with context:
        return int(pool.total_bytes())


def max_memory_allocated(device: str | Device | int | None = None) -> int:
    """Return :func:`memory_reserved`: the pool keeps what was in use at the peak since :func:`reset_peak_memory_stats`.

    It is a bound from above of the peak of :func:`memory_allocated`, which is not recorded.
    """
    return memory_reserved(device)


def max_memory_reserved(device: str | Device | int | None = None) -> int:
    """Return :func:`memory_reserved`: the pool grows until :func:`empty_cache`."""
    return memory_reserved(device)


def reset_peak_memory_stats(device: str | Device | int | None = None) -> None:
    """Begin a new peak of :func:`max_memory_allocated`: free the memory of the pool that is not in use."""
    if is_available():
        context, pool = _pool(device)
        with context:
            pool.free_all_blocks()


reset_max_memory_allocated = reset_peak_memory_stats


def empty_cache() -> None:
    """Free the memory of CuPy's pools that is not in use; do nothing if CUDA is not ready."""
    if is_available():
        for index in range(device_count()):
            with cupy().cuda.Device(index):
                cupy().get_default_memory_pool().free_all_blocks()
        cupy().get_default_pinned_memory_pool().free_all_blocks()


def ipc_collect() -> None:
    """Do nothing: no memory is shared with other processes."""


def mem_get_info(device: str | Device | int | None = None) -> tuple[int, int]:
    """Return (free, total) memory of a GPU in bytes, as the driver sees it.

    Raises:
        DeviceError: CUDA is not ready.
    """
    with cupy().cuda.Device(_gpu(device).index):
        free, total = cupy().cuda.runtime.memGetInfo()
    return int(free), int(total)


def cuda_version() -> str | None:
    """Return the version of the CUDA runtime that CuPy uses, such as "12.4"; None if CUDA is not ready."""
    if not is_available():
        return None
    version = int(cupy().cuda.runtime.runtimeGetVersion())
    return f"{version // 1000}.{version % 1000 // 10}"
