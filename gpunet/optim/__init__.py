"""Optimizers, which update all parameters of a group in one launch, and learning-rate schedules."""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet.optim.adam import *
from gpunet.optim.optimizer import *
from gpunet.optim.sgd import *

if TYPE_CHECKING:
    from gpunet.optim import lr_scheduler


def __getattr__(name: str) -> Any:
    if name == "lr_scheduler":
        return importlib.import_module("gpunet.optim.lr_scheduler")
    raise AttributeError(f"module 'gpunet.optim' has no attribute {name!r}")
