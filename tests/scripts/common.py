"""What the scripts share: initial weights and random numbers from NumPy, so that both libraries begin alike, and the losses."""

import numpy
import torch

RANDOM = numpy.random.RandomState(0)
LOSSES = []


def normal(*shape):
    """Standard normal numbers, the same in every library."""
    return torch.tensor(RANDOM.randn(*shape), dtype=torch.get_default_dtype())


def initialize(module, scale=0.5):
    """Set all parameters to normal numbers."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * normal(*parameter.shape))


def report(loss):
    """Keep a loss for the end."""
    LOSSES.append(loss.item())


def finish():
    """Print the losses."""
    assert len(LOSSES) == 20
    for loss in LOSSES:
        print(repr(loss))


def begin():
    """Compute in float64, from the same random numbers in each run."""
    RANDOM.seed(0)
    del LOSSES[:]
    torch.set_default_dtype(torch.float64)
