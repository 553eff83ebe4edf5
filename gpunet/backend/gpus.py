"""The GPUs of this machine: which is the current one, their names, compute capabilities and architectures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gpunet.backend import devices
from gpunet.backend.devices import Device, cuda_status, cupy, current_gpu, set_current_gpu
from gpunet.errors import DeviceError

__all__ = [
    "can_device_access_peer", "current_accelerator", "current_device", "device", "device_count", "device_of", "get_arch_list",
    "get_device_capability", "get_device_name", "get_device_properties", "get_gencode_flags", "has_half", "has_magma", "init",
    "is_available", "is_bf16_supported", "is_initialized", "is_tf32_supported", "set_device", "synchronize",
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


def gpu_of(device: Any) -> Device:
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
    index: int = gpu_of(None).index
    return index


def set_device(device: str | Device | int) -> None:
    """Let "cuda" mean this GPU in this thread; a negative number does nothing.

    Raises:
        DeviceError: the GPU does not exist, or CUDA is not ready.
    """
    if not isinstance(device, int) or device >= 0:
        set_current_gpu(gpu_of(device).index)


def synchronize(device: str | Device | int | None = None) -> None:
    """Wait until all launches on a GPU have finished, on all its streams; return immediately where CUDA is not ready.

    Args:
        device: the current GPU if None.
    """
    chosen = Device("auto" if device is None else device)
    devices.synchronize(chosen)
    if chosen.type == "cuda":
        cupy().cuda.Device(chosen.index).synchronize()


class device:
    """Context manager: "cuda" means this GPU inside the block.  None, or a negative number, does nothing."""

    def __init__(self, device: str | Device | int | None) -> None:
        self.idx = -1 if device is None or (isinstance(device, int) and device < 0) else int(gpu_of(device).index)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = current_gpu()
        if self.idx >= 0:
            set_current_gpu(self.idx)

    def __exit__(self, *exception: object) -> None:
        set_current_gpu(self.prev_idx)


class device_of(device):
    """Context manager: "cuda" means the GPU of a tensor inside the block; a tensor on the CPU does nothing."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else -1)


# ---- properties -------------------------------------------------------------------------------------------------------


def _properties(device: Any) -> dict[str, Any]:
    properties: dict[str, Any] = cupy().cuda.runtime.getDeviceProperties(gpu_of(device).index)
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


def uuid_of(gpu: Device) -> str:
    """Return the identifier of a GPU, as nvidia-smi shows it."""
    digits = bytes(_properties(gpu)["uuid"]).hex()
    return "GPU-" + "-".join(digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Return whether the current GPU computes with bfloat16; the kernels store it on every GPU.

    Args:
        including_emulation: count GPUs without instructions for it, on which it is converted.
    """
    return is_available() and (including_emulation or get_device_capability() >= (8, 0))


# ---- versions and architectures -----------------------------------------------------------------------------------------


def cuda_version() -> str | None:
    """Return the version of the CUDA runtime that CuPy uses, such as "12.4"; None if CUDA is not ready."""
    if not is_available():
        return None
    version = int(cupy().cuda.runtime.runtimeGetVersion())
    return f"{version // 1000}.{version % 1000 // 10}"


#: The kernels have versions for half precision; MAGMA is not used.
has_half, has_magma = True, False


def is_tf32_supported() -> bool:
    """Return whether the current GPU multiplies matrices of TF32."""
    return is_available() and get_device_capability() >= (8, 0)


def get_arch_list() -> list[str]:
    """Return the architectures of the GPUs of this machine, for which kernels are compiled when they are first launched."""
    numbers = sorted({get_device_capability(index) for index in range(device_count())})
    return [f"sm_{major}{minor}" for major, minor in numbers]


def get_gencode_flags() -> str:
    """Return the flags of nvcc for :func:`get_arch_list`."""
    return " ".join(f"-gencode compute=compute_{name[3:]},code={name}" for name in get_arch_list())


def can_device_access_peer(device: str | Device | int, peer_device: str | Device | int) -> bool:
    """Return whether a GPU can read the memory of another one directly.

    Raises:
        DeviceError: one of them does not exist, or is no GPU.
    """
    first, second = gpu_of(device).index, gpu_of(peer_device).index
    return first != second and bool(cupy().cuda.runtime.deviceCanAccessPeer(first, second))
