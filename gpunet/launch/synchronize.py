"""Waiting for launches."""

from __future__ import annotations

from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.tape import flush_pending

__all__ = ["synchronize"]


def synchronize(device: str | Device | None = None) -> None:
    """Wait until all launches on ``device`` (default: the default device) have finished.  Nothing to do on the CPU."""
    flush_pending("synchronize()")  # what a split step has not launched yet
    devices.synchronize(device)
