"""Optimizers, which update all parameters of a group in one launch, learning-rate schedules, and averages of weights."""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet.optim import (
    adadelta,
    adagrad,
    adam,
    adamax,
    asgd,
    lbfgs,
    lion,
    muon,
    nadam,
    optimizer,
    radam,
    rmsprop,
    rprop,
    sgd,
    stacked,
)
from gpunet.optim.adadelta import *
from gpunet.optim.adagrad import *
from gpunet.optim.adam import *
from gpunet.optim.adamax import *
from gpunet.optim.asgd import *
from gpunet.optim.lbfgs import *
from gpunet.optim.lion import *
from gpunet.optim.muon import *
from gpunet.optim.nadam import *
from gpunet.optim.optimizer import *
from gpunet.optim.radam import *
from gpunet.optim.rmsprop import *
from gpunet.optim.rprop import *
from gpunet.optim.sgd import *
from gpunet.optim.stacked import *

if TYPE_CHECKING:
    from gpunet.optim import lr_scheduler, swa_utils

_SUBMODULES = ("lr_scheduler", "swa_utils")
__all__ = [*_SUBMODULES]
for _module in (adadelta, adagrad, adam, adamax, asgd, lbfgs, lion, muon, nadam, optimizer, radam, rmsprop, rprop, sgd, stacked):
    __all__ += _module.__all__


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"gpunet.optim.{name}")
    raise AttributeError(f"module 'gpunet.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
