"""Functions of ``torch.cuda``: query and select the GPUs of this machine, streams, events, memory, random numbers."""

import importlib as _importlib

from gpunet.autograd.gpu_tensor_types import *
from gpunet.backend.gpu_memory import *
from gpunet.backend.gpu_sensors import *
from gpunet.backend.gpus import *
from gpunet.backend.gpus import is_available
from gpunet.backend.streams import *
from gpunet.errors import OutOfMemoryError as OutOfMemoryError
from gpunet.ops.random_gpu import *

_SUBMODULES = ("amp", "memory", "random", "streams")  # imported when they are first used


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return _importlib.import_module(f"gpunet.cuda.{name}")
    if name == "_initialized":  # which scripts read instead of calling the function
        return is_available()
    raise AttributeError(f"module 'gpunet.cuda' has no attribute {name!r}")
