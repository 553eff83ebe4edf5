"""Wait for launches to finish."""

from __future__ import annotations

from gpunet.backend import devices
from gpunet.backend.devices import Device

__all__ = ["synchronize"]


def synchronize(device: str | Device | None = None) -> None:
    """Wait until all launches on ``device`` have finished; on the CPU, return immediately.

    Args:
        device: the default device if None.
    """
    devices.synchronize(device)
