"""Functions of ``torch.accelerator``: the GPUs of this machine."""

from gpunet.backend.gpus import current_accelerator, device_count, empty_cache, is_available
from gpunet.backend.gpus import current_device as current_device_idx
from gpunet.backend.gpus import current_device as current_device_index
from gpunet.backend.gpus import set_device as set_device_idx
from gpunet.backend.gpus import set_device as set_device_index
from gpunet.backend.streams import current_stream
from gpunet.launch.synchronize import synchronize
