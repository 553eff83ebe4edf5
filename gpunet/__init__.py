"""gpunet trains neural networks on NVIDIA GPUs through fused CUDA kernels, and on the CPU through NumPy.

import gpunet

w = gpunet.tensor([2.0], requires_grad=True)
x = gpunet.tensor([3.0])
loss = (w * x - 10.0) ** 2
loss.backward()
w.grad                      # tensor([-24.])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpunet import autograd, cuda, data, emulator, nn, ops, optim, testing, tools, train
    from gpunet.autograd.backward import *
    from gpunet.autograd.mode import *
    from gpunet.autograd.tensor import *
    from gpunet.backend.devices import *
    from gpunet.backend.dtypes import *
    from gpunet.backend.threads import *
    from gpunet.captured.step import *
    from gpunet.launch.random import *
    from gpunet.launch.synchronize import *
    from gpunet.ops.activations import relu, sigmoid, tanh
    from gpunet.ops.compare import *
    from gpunet.ops.creation import *
    from gpunet.ops.custom import *
    from gpunet.ops.elementwise import *
    from gpunet.ops.index import *
    from gpunet.ops.join import *
    from gpunet.ops.matmul import *
    from gpunet.ops.reduce import *
    from gpunet.ops.shape import *
    from gpunet.ops.softmax import *
    from gpunet.train.checkpoint import *

__version__ = "0.1.0"

#: Modules whose ``__all__`` is handed on, in the order in which a name is looked for: what is light comes first.
_MODULES = (
    "backend.dtypes", "backend.devices", "backend.threads", "autograd.tensor", "autograd.mode", "autograd.backward",
    "launch.random", "launch.synchronize", "ops.creation", "ops.elementwise", "ops.activations", "ops.compare",
    "ops.index", "ops.join", "ops.matmul", "ops.reduce", "ops.shape", "ops.softmax", "ops.custom", "captured.step",
    "train.checkpoint",
)  # fmt: skip
#: Of these modules only the names that PyTorch has at its root: the others are in nn.functional.
_ONLY = {"ops.activations": ("relu", "sigmoid", "tanh")}
#: Rooms, and faces under PyTorch's names of modules.
_ROOMS = ("autograd", "backend", "captured", "cuda", "data", "emulator", "nn", "ops", "optim", "testing", "tools", "train")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"gpunet.{name}")
    if name == "__all__":
        return __dir__()
    if not name.startswith("_"):
        importlib.import_module("gpunet.ops")  # attaches the methods of Tensor
        for path in _MODULES:
            module = importlib.import_module(f"gpunet.{path}")
            if name in _ONLY.get(path, module.__all__):
                globals()[name] = found = getattr(module, name)
                return found
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")


def __dir__() -> list[str]:
    names = {"__version__", *_ROOMS}
    for path in _MODULES:
        names.update(_ONLY.get(path, importlib.import_module(f"gpunet.{path}").__all__))
    return sorted(names)
