"""Wait for launches to finish."""

from __future__ import annotations

from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.tape import flush_pending

__all__ = ["synchronize"]


def synchronize(device: str | Device | None = None) -> None:
    """Wait until all launches on ``device`` have finished; on the CPU, return immediately.

    Args:
        device: the default device if None.
    """
    flush_pending("synchronize()")  # run the recorded launches of a split step first
    devices.synchronize(device)
