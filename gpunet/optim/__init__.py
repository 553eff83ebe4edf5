"""Optimisers: one launch for all parameters of a group."""

from gpunet.optim.adam import Adam, AdamW
from gpunet.optim.optimizer import Optimizer
from gpunet.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
