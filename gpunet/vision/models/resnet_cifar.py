"""Residual networks for small images: He et al. 2016, section 4.2; shortcuts without parameters (option A)."""

from __future__ import annotations

from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn import functional
from gpunet.ops.face import as_integer, as_positive
from gpunet.vision.models.initialization import initialize_convolutions
from gpunet.vision.models.resnet import NormLayer, conv3x3

__all__ = ["CifarResNet", "resnet20", "resnet32", "resnet44", "resnet56"]


class CifarBlock(nn.Module):
    """Two convolutions of 3 x 3, and their input added to the result.

    If the result is larger, every second pixel of the input is taken, and channels of 0 are put around its own.

    Args:
        inplanes, planes: channels of the input and of the result.
        stride: of the first convolution.
        norm_layer: makes the norm of a number of channels.
        shortcut: False for a plain network, which adds nothing.
    """

    def __init__(self, inplanes: int, planes: int, stride: int, norm_layer: NormLayer, shortcut: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inplanes, planes, stride), norm_layer(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes), norm_layer(planes)
        self.stride, self.shortcut = stride, shortcut
        self.new_channels = planes - inplanes

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self._identity(x) if self.shortcut else out)

    def _identity(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        below = self.new_channels // 2
        return functional.pad(x, (0, 0, 0, 0, below, self.new_channels - below)) if self.new_channels else x


class CifarResNet(nn.Module):
    """A residual network for small images: a convolution, three stages of blocks, their mean and a linear layer.

    Args:
        depth: number of layers with weights, 6 n + 2 for n blocks in each stage.
        num_classes: size of the result.
        in_channels: channels of the images.
        width: channels of the first stage; the second has twice, the third four times as many.
        norm_layer: makes the norm of a number of channels; BatchNorm2d if None, nn.Identity for no norm.
        shortcuts: False for the plain network of the paper, whose blocks do not add their input.

    Raises:
        ArgumentError: ``depth`` is not 6 n + 2, or ``width`` is not positive.
    """

    def __init__(
        self, depth: int, num_classes: int = 10, in_channels: int = 3, width: int = 16, norm_layer: NormLayer | None = None,
        shortcuts: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        depth, width = as_integer("CifarResNet", "depth", depth), as_positive("CifarResNet", "width", width)
        if depth < 8 or depth % 6 != 2:
            raise ArgumentError(f"CifarResNet: depth={depth}; expected 6 n + 2 for n blocks in each stage: 8, 14, 20, 32, ...")
        norm: NormLayer = norm_layer or nn.BatchNorm2d
        self.conv1, self.bn1 = conv3x3(in_channels, width), norm(width)
        stages: list[nn.Module] = []
        channels = width
        for stage in range(3):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(CifarBlock(channels, width << stage, 2 if stage and block == 0 else 1, norm, shortcuts))
                channels = width << stage
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, in_channels, height, width) -> logits (n, num_classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))
        return logits


def resnet20(**kwargs: Any) -> CifarResNet:
    """ResNet-20 for small images (see :class:`CifarResNet`), 0.27 million parameters."""
    return CifarResNet(20, **kwargs)


def resnet32(**kwargs: Any) -> CifarResNet:
    """ResNet-32 for small images (see :class:`CifarResNet`), 0.46 million parameters."""
    return CifarResNet(32, **kwargs)


def resnet44(**kwargs: Any) -> CifarResNet:
    """ResNet-44 for small images (see :class:`CifarResNet`), 0.66 million parameters."""
    return CifarResNet(44, **kwargs)


def resnet56(**kwargs: Any) -> CifarResNet:
    """ResNet-56 for small images (see :class:`CifarResNet`), 0.85 million parameters."""
    return CifarResNet(56, **kwargs)
