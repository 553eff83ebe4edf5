"""Training: the loop, checkpoints, run folders, and the network that the command line builds."""

from gpunet.train.checkpoint import load, load_metadata, save
from gpunet.train.fit import EpochResult, evaluate, fit
from gpunet.train.network import ACTIVATIONS, LOSSES, OPTIMIZERS, SCHEDULES, multilayer_perceptron
from gpunet.train.run_folder import RunFolder, load_run

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "EpochResult",
    "RunFolder",
    "evaluate",
    "fit",
    "load",
    "load_metadata",
    "load_run",
    "multilayer_perceptron",
    "save",
]
