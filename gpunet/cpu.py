"""Functions of ``torch.cpu``."""

from gpunet.backend.cpu import *
from gpunet.backend.cpu import __all__ as __all__
