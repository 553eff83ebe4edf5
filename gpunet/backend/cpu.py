"""The CPU by the names that ``torch.cuda`` has for GPUs: there is one, its launches are synchronous, and it needs no selection."""

from __future__ import annotations

from typing import Any

from gpunet.backend.devices import CPU, Device
from gpunet.backend.streams import Stream, StreamContext, stream
from gpunet.errors import ArgumentError

__all__ = [
    "Stream", "StreamContext", "current_device", "current_stream", "device_count", "is_available", "is_initialized", "set_device",
    "stream", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Return True."""
    return True


def is_initialized() -> bool:
    """Return True."""
    return True


def device_count() -> int:
    """Return 1."""
    return 1


def current_device() -> str:
    """Return "cpu"."""
    return "cpu"


def set_device(device: Any) -> None:
    """Do nothing.

    Raises:
        ArgumentError: it is another device than the CPU.
    """
    if Device(device) != CPU:
        raise ArgumentError(f"cpu.set_device({device!r}): expected 'cpu'")


def current_stream(device: Any = None) -> Stream:
    """Return a stream on which launches are synchronous."""
    return Stream("cpu")


def synchronize(device: Any = None) -> None:
    """Do nothing: launches on the CPU are synchronous."""
