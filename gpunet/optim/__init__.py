"""Optimisers: one launch for all parameters of a group."""

from gpunet.optim.optimizer import Optimizer
from gpunet.optim.sgd import SGD
from gpunet.optim.adam import Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
