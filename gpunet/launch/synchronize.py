"""Waiting for launches."""

from __future__ import annotations

from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.tape import settle

__all__ = ["synchronize"]


def synchronize(device: str | Device | None = None) -> None:
    """Wait until all launches on ``device`` (default: the default device) have finished.  Nothing to do on the CPU."""
    settle("synchronize()")  # what a split step has not launched yet
    devices.synchronize(device)
