"""LeNet: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998."""

from __future__ import annotations

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.nn import functional

__all__ = ["LeNet"]


class LeNet(nn.Module):
    """Two convolutions and three linear layers, with ReLU and max pooling: 61,706 parameters.

    Args:
        num_classes: size of the result.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, in_channels, 28, 28) -> logits (n, num_classes)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2).flatten(1)
        x = functional.relu(self.fc2(functional.relu(self.fc1(x))))
        logits: Tensor = self.fc3(x)
        return logits
