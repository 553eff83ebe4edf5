"""PyTorch's ``utils.checkpoint``."""

from gpunet.autograd.checkpoint import *
from gpunet.autograd.checkpoint import __all__ as __all__
