"""Functions of ``torch.cuda``: query and select the GPUs of this machine, streams, events, memory, random numbers."""

from gpunet.autograd.gpu_tensor_types import *
from gpunet.backend.gpus import *
from gpunet.backend.streams import *
from gpunet.launch.synchronize import *
from gpunet.ops.random_gpu import *
