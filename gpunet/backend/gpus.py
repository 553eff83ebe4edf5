"""The GPUs of this machine: their number, names and compute capabilities."""

from __future__ import annotations

from typing import Any

from gpunet.backend.devices import Device, cuda_status, cupy
from gpunet.errors import DeviceError

__all__ = ["device_count", "get_device_capability", "get_device_name", "is_available"]


def is_available() -> bool:
    """Return whether CUDA is ready: CuPy, a driver and a GPU are present."""
    return cuda_status().ready


def device_count() -> int:
    """Return the number of GPUs; 0 if CUDA is not ready."""
    return int(cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def _properties(device: str | Device | int | None) -> dict[str, Any]:
    gpu = Device(0 if device is None else device)
    if gpu.type != "cuda":
        raise DeviceError(f"device {gpu}: expected a GPU, such as 'cuda:0'")
    properties: dict[str, Any] = cupy().cuda.runtime.getDeviceProperties(gpu.index)
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
