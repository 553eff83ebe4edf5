"""Initial parameters that several networks share."""

from __future__ import annotations

from gpunet import nn
from gpunet.nn import init


def initialize_convolutions(model: nn.Module) -> None:
    """Draw the weights of convolutions by He et al. 2015 (fan out)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def initialize_layers(model: nn.Module) -> None:
    """Draw the weights of convolutions by He et al. 2015 (fan out) and those of linear layers from N(0, 0.01^2); biases are 0."""
    initialize_convolutions(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, 0, 0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            init.zeros_(module.bias)
