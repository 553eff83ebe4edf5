"""Functions of ``torch.linalg``."""

from gpunet.errors import LinAlgError as LinAlgError
from gpunet.ops.eigen import *
from gpunet.ops.ldl import *
from gpunet.ops.linalg import *
from gpunet.ops.matrix_exp import *
from gpunet.ops.matrix_functions import *
