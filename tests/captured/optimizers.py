"""Optimizers for tests of captured steps: given parameters, each makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpunet

OPTIMIZERS: dict[str, Callable[[Any], gpunet.optim.Optimizer]] = {
    "sgd": lambda p: gpunet.optim.SGD(p, lr=0.1),
    "momentum": lambda p: gpunet.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "nesterov": lambda p: gpunet.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda p: gpunet.optim.Adam(p, lr=0.01, weight_decay=1e-3),
    "amsgrad": lambda p: gpunet.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: gpunet.optim.AdamW(p, lr=0.01),
    "adamax": lambda p: gpunet.optim.Adamax(p, lr=0.01, weight_decay=1e-3),
    "nadam": lambda p: gpunet.optim.NAdam(p, lr=0.01, weight_decay=1e-3, decoupled_weight_decay=True),
    "radam": lambda p: gpunet.optim.RAdam(p, lr=0.01, weight_decay=1e-3),
    "rmsprop": lambda p: gpunet.optim.RMSprop(p, lr=0.002, momentum=0.5, centered=True, eps=1e-3),
    "adagrad": lambda p: gpunet.optim.Adagrad(p, lr=0.02, lr_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: gpunet.optim.Adadelta(p, lr=0.5, weight_decay=1e-3),
    "asgd": lambda p: gpunet.optim.ASGD(p, lr=0.1, t0=20, lambd=1e-3),
    "rprop": lambda p: gpunet.optim.Rprop(p, lr=1e-3, step_sizes=(1e-6, 1e-2)),
    "lion": lambda p: gpunet.optim.Lion(p, lr=1e-3, weight_decay=0.1),
    "muon": lambda p: gpunet.optim.Muon([x for x in p if x.ndim == 2], lr=0.01),
}
