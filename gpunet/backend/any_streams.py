"""Streams and events by the names that PyTorch has for all devices: ``torch.Stream`` and ``torch.Event``."""

from __future__ import annotations

from typing import Any

from gpunet.backend import devices, streams
from gpunet.backend.devices import Device
from gpunet.backend.streams import Stream as Stream

__all__ = ["Event", "Stream"]


class Event(streams.Event):
    """:class:`gpunet.cuda.Event` with the device in front.

    Args:
        device: the device whose streams record the event; the GPU, if there is one, or the CPU if None.
        enable_timing, blocking, interprocess: as of :class:`gpunet.cuda.Event`.
    """

    def __init__(
        self, device: Any = None, *, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        super().__init__(enable_timing, blocking, interprocess)
        usual = Device("cuda") if devices.cuda_status().ready else devices.CPU
        self.device = usual if device is None else Device(device)
