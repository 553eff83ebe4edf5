"""Optimizers, which update all parameters of a group in one launch, and learning-rate schedules."""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet.optim import adam, optimizer, sgd
from gpunet.optim.adam import *
from gpunet.optim.optimizer import *
from gpunet.optim.sgd import *

if TYPE_CHECKING:
    from gpunet.optim import lr_scheduler

__all__ = ["lr_scheduler"]
__all__ += adam.__all__
__all__ += optimizer.__all__
__all__ += sgd.__all__


def __getattr__(name: str) -> Any:
    if name == "lr_scheduler":
        return importlib.import_module("gpunet.optim.lr_scheduler")
    raise AttributeError(f"module 'gpunet.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
