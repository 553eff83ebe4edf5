"""What ``torch.accelerator`` tells of GPUs in another way than ``torch.cuda``."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.backend import dtypes, gpus
from gpunet.backend.devices import Device, cupy
from gpunet.backend.gpus import is_available


class device_index(gpus.device):
    """Context manager: "cuda" means the GPU of this number inside the block; None does nothing."""

    def __init__(self, device: int | None, /) -> None:
        super().__init__(device)


def get_device_capability(device: str | Device | int | None = None, /) -> dict[str, Any]:
    """Return ``{"supported_dtypes": ...}``: the dtypes of tensors on a GPU.

    Raises:
        DeviceError: CUDA is not ready, or the device is no GPU.
    """
    gpus.get_device_capability(device)
    names = [name for name in (*dtypes.C_TYPES, *dtypes.COMPLEX) if name != "bfloat16"]
    found = {numpy.dtype(name) for name in names}
    return {"supported_dtypes": found | ({dtypes.as_dtype("bfloat16")} if dtypes.has_bfloat16() else set())}


def empty_host_cache() -> None:
    """Free the memory of CuPy's pool of pinned memory that is not in use; do nothing if CUDA is not ready."""
    if is_available():
        cupy().get_default_pinned_memory_pool().free_all_blocks()
