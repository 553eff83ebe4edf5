"""Functions of ``torch.cuda.random``: seeds and states of random numbers on GPUs."""

from gpunet.ops.random_gpu import *
from gpunet.ops.random_gpu import __all__ as __all__
