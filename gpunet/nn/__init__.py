"""Modules, losses and initial values."""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet.nn import functional, init
from gpunet.nn.activation import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from gpunet.nn.layers import Dropout, Flatten, Identity, Linear, ModuleList, Sequential, Unflatten
from gpunet.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from gpunet.nn.module import Module, Parameter

if TYPE_CHECKING:
    from gpunet.nn import utils

__all__ = [
    "ELU",
    "GELU",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "Unflatten",
    "functional",
    "init",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name == "utils":
        return importlib.import_module("gpunet.nn.utils")
    raise AttributeError(f"module 'gpunet.nn' has no attribute {name!r}")
