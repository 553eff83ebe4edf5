"""PyTorch's ``utils.checkpoint``."""

from gpunet.autograd.checkpoint import checkpoint, checkpoint_sequential
from gpunet.ops.random_gpu import get_device_states, set_device_states

__all__ = ["checkpoint", "checkpoint_sequential", "get_device_states", "set_device_states"]
