"""Functions of ``torch.linalg``."""

from gpunet.errors import LinAlgError as LinAlgError
from gpunet.ops.linalg import *
