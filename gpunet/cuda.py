"""Functions of ``torch.cuda``: query, select and synchronize the GPUs of this machine."""

from gpunet.backend.gpus import *
from gpunet.launch.synchronize import *
