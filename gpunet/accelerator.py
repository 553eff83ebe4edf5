"""Functions of ``torch.accelerator``: the GPUs of this machine."""

from types import ModuleType as _ModuleType

import gpunet.cpu as _cpu
import gpunet.cuda as _cuda
from gpunet.backend.accelerators import device_index, empty_host_cache, get_device_capability
from gpunet.backend.gpu_memory import (
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    memory_allocated,
    memory_reserved,
    memory_stats,
    reset_accumulated_memory_stats,
    reset_peak_memory_stats,
)
from gpunet.backend.gpu_memory import mem_get_info as get_memory_info
from gpunet.backend.gpus import current_accelerator, device_count, is_available, synchronize
from gpunet.backend.gpus import current_device as current_device_idx
from gpunet.backend.gpus import current_device as current_device_index
from gpunet.backend.gpus import set_device as set_device_idx
from gpunet.backend.gpus import set_device as set_device_index
from gpunet.backend.streams import current_stream, set_stream


def get_device_module(device: object = None) -> _ModuleType:
    """Return ``gpunet.cuda`` or ``gpunet.cpu``: the module of a device, by default of the GPU, if there is one.

    Raises:
        DeviceError: there is no such device.
    """
    from gpunet.backend.devices import Device

    chosen = current_accelerator() or "cpu" if device is None else device
    return _cuda if Device(chosen).type == "cuda" else _cpu  # type: ignore[arg-type]
