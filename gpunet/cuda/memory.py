"""Functions of ``torch.cuda.memory``: what is in use of the memory of GPUs."""

from gpunet.backend.gpu_memory import *
from gpunet.backend.gpu_memory import __all__ as __all__
