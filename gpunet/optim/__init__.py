"""Optimisers: one launch for all parameters of a group; schedules of their learning rates."""

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
