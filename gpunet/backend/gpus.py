"""What is known of the GPUs of this machine."""

from __future__ import annotations

from typing import Any

from gpunet.backend.devices import Device, cuda_status, cupy

__all__ = ["device_count", "get_device_capability", "get_device_name", "is_available"]


def is_available() -> bool:
    """Whether CUDA is ready: CuPy, a driver and a card are there."""
    return cuda_status().ready


def device_count() -> int:
    """The number of cards; 0 when CUDA is not ready."""
    return int(cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def _properties(device: str | Device | int) -> dict[str, Any]:
    index = device if isinstance(device, int) else Device(device).index
    properties: dict[str, Any] = cupy().cuda.runtime.getDeviceProperties(index)
    return properties


def get_device_name(device: str | Device | int = 0) -> str:
    """The name of a card.

    Raises:
        DeviceError: CUDA is not ready.
    """
    name = _properties(device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: str | Device | int = 0) -> tuple[int, int]:
    """The compute capability of a card, (9, 0) for Hopper.

    Raises:
        DeviceError: CUDA is not ready.
    """
    properties = _properties(device)
    return int(properties["major"]), int(properties["minor"])
