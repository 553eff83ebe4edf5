"""``gpunet.cuda``: the GPUs of this machine, under the names of ``torch.cuda``."""

from gpunet.backend.gpus import *
from gpunet.launch.synchronize import *
