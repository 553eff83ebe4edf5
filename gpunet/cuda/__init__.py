"""Functions of ``torch.cuda``: query and select the GPUs of this machine, streams, events, memory, random numbers."""

import importlib as _importlib

from gpunet.autograd.gpu_tensor_types import *
from gpunet.backend.gpus import *
from gpunet.backend.gpus import is_available
from gpunet.backend.streams import *
from gpunet.launch.synchronize import *
from gpunet.ops.random_gpu import *


def __getattr__(name: str) -> object:
    if name == "amp":  # imported when it is first used
        return _importlib.import_module("gpunet.cuda.amp")
    if name == "_initialized":  # which scripts read instead of calling the function
        return is_available()
    raise AttributeError(f"module 'gpunet.cuda' has no attribute {name!r}")
