"""Neural network modules, losses, parameter initialization and gradient clipping, with PyTorch's names."""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet.nn import (
    activation,
    adaptive_softmax,
    attention,
    containers,
    convolution,
    embedding,
    fold,
    functional,
    init,
    layers,
    loss,
    module,
    normalization,
    padding,
    parallel,
    pooling,
    recurrence,
    stack,
    transformer,
    upsampling,
)
from gpunet.nn.activation import *
from gpunet.nn.adaptive_softmax import *
from gpunet.nn.attention import *
from gpunet.nn.containers import *
from gpunet.nn.convolution import *
from gpunet.nn.embedding import *
from gpunet.nn.fold import *
from gpunet.nn.layers import *
from gpunet.nn.loss import *
from gpunet.nn.module import *
from gpunet.nn.normalization import *
from gpunet.nn.padding import *
from gpunet.nn.parallel import DataParallel
from gpunet.nn.pooling import *
from gpunet.nn.recurrence import *
from gpunet.nn.stack import *
from gpunet.nn.transformer import *
from gpunet.nn.upsampling import *

if TYPE_CHECKING:
    from gpunet.nn import parameter, utils

__all__ = ["functional", "init", "parameter", "utils"]
__all__ += activation.__all__
__all__ += adaptive_softmax.__all__
__all__ += attention.__all__
__all__ += containers.__all__
__all__ += convolution.__all__
__all__ += embedding.__all__
__all__ += fold.__all__
__all__ += layers.__all__
__all__ += loss.__all__
__all__ += module.__all__
__all__ += normalization.__all__
__all__ += padding.__all__
__all__ += ["DataParallel"]
__all__ += pooling.__all__
__all__ += recurrence.__all__
__all__ += stack.__all__
__all__ += transformer.__all__
__all__ += upsampling.__all__


def __getattr__(name: str) -> Any:
    if name in ("parameter", "utils"):
        return importlib.import_module(f"gpunet.nn.{name}")
    if name == "modules":  # PyTorch's package of all modules
        return importlib.import_module("gpunet.nn")
    raise AttributeError(f"module 'gpunet.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
