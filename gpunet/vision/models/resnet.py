"""Residual networks: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016.

The stride of a bottleneck is in its 3 x 3 convolution, as in torchvision.  The wider variants are those of Xie et al. 2017
(ResNeXt) and of Zagoruyko and Komodakis 2016 (Wide ResNet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.vision.models.initialization import initialize_convolutions
from gpunet.vision.models.pretrained import refuse_weights

__all__ = [
    "ResNet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip

#: Makes the norm of a number of channels.
NormLayer = Callable[[int], nn.Module]


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution of 3 x 3 that keeps the size for stride 1."""
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of 1 x 1."""
    return nn.Conv2d(in_planes, out_planes, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3, and the input added to their result.

    Args:
        inplanes, planes: channels of the input and of the result.
        stride: of the first convolution.
        downsample: what makes the input as large as the result; None if it is.
        groups, base_width, dilation: for :class:`Bottleneck` alone; here 1, 64 and 1.
        norm_layer: BatchNorm2d if None.

    Raises:
        ArgumentError: ``groups``, ``base_width`` or ``dilation`` has another value.
    """

    expansion = 1

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, groups: int = 1,
        base_width: int = 64, dilation: int = 1, norm_layer: NormLayer | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (groups, base_width, dilation) != (1, 64, 1):
            given = f"groups={groups}, base_width={base_width}, dilation={dilation}"
            raise ArgumentError(f"BasicBlock: {given}; expected 1, 64 and 1; networks of Bottleneck take others, such as resnet50")
        norm = norm_layer or nn.BatchNorm2d
        self.conv1, self.bn1 = conv3x3(inplanes, planes, stride), norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = conv3x3(planes, planes), norm(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + identity)
        return result


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1, and the input added to their result, which has 4 * ``planes`` channels.

    Args:
        inplanes: channels of the input.
        planes: channels of the inner convolutions, times ``base_width`` / 64 * ``groups``.
        stride, groups, dilation: of the inner convolution.
        downsample: what makes the input as large as the result; None if it is.
        norm_layer: BatchNorm2d if None.
    """

    expansion = 4

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, groups: int = 1,
        base_width: int = 64, dilation: int = 1, norm_layer: NormLayer | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1, self.bn1 = conv1x1(inplanes, width), norm(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride, groups, dilation), norm(width)
        self.conv3, self.bn3 = conv1x1(width, planes * self.expansion), norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        result: Tensor = self.relu(out + identity)
        return result


class ResNet(nn.Module):
    """A residual network for large images: a convolution of 7 x 7, four stages of blocks, their mean and a linear layer.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        layers: blocks of each of the four stages.
        num_classes: size of the result.
        zero_init_residual: whether the last norm of each block starts at 0, so that each block starts as the identity.
        groups, width_per_group: of the inner convolutions of bottlenecks.
        replace_stride_with_dilation: for stages 2 to 4, whether they dilate instead of halving the image.
        norm_layer: makes the norm of a number of channels; BatchNorm2d if None.

    Raises:
        ArgumentError: ``layers`` or ``replace_stride_with_dilation`` has another length, or ``block`` does not take an argument.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], layers: Sequence[int], num_classes: int = 1000,
        zero_init_residual: bool = False, groups: int = 1, width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None, norm_layer: NormLayer | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        dilates = (False, False, False) if replace_stride_with_dilation is None else tuple(replace_stride_with_dilation)
        if len(layers) != 4:
            raise ArgumentError(f"ResNet: layers={layers!r}; expected 4 numbers of blocks, one for each stage")
        if len(dilates) != 3:
            raise ArgumentError(
                f"ResNet: replace_stride_with_dilation={replace_stride_with_dilation!r}; expected None, or 3 booleans for stages "
                "2 to 4"
            )
        self._norm_layer: NormLayer = norm_layer or nn.BatchNorm2d
        self.groups, self.base_width = groups, width_per_group
        self.inplanes, self.dilation = 64, 1
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], 2, dilates[0])
        self.layer3 = self._make_layer(block, 256, layers[2], 2, dilates[1])
        self.layer4 = self._make_layer(block, 512, layers[3], 2, dilates[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialize_convolutions(self)
        if zero_init_residual:
            for module in self.modules():
                last = getattr(module, "bn3" if isinstance(module, Bottleneck) else "bn2", None)
                if isinstance(module, (BasicBlock, Bottleneck)) and getattr(last, "weight", None) is not None:
                    init.zeros_(last.weight)  # type: ignore[union-attr]

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        norm, previous_dilation, out_planes = self._norm_layer, self.dilation, planes * block.expansion
        if dilate:
            self.dilation, stride = self.dilation * stride, 1
        downsample = None
        if stride != 1 or self.inplanes != out_planes:
            downsample = nn.Sequential(conv1x1(self.inplanes, out_planes, stride), norm(out_planes))
        width = (self.groups, self.base_width)
        layers = [block(self.inplanes, planes, stride, downsample, *width, previous_dilation, norm)]
        self.inplanes = out_planes
        layers += [block(out_planes, planes, 1, None, *width, self.dilation, norm) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, height, width) -> logits (n, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _resnet(
    function: str, block: type[BasicBlock | Bottleneck], layers: Sequence[int], weights: Any, options: dict[str, Any], **fixed: int
) -> ResNet:
    """Build a network; ``fixed`` are the options that its name states.

    Raises:
        ArgumentError: weights are asked for, or an option differs from what the name states.
    """
    refuse_weights(function, weights, options)
    for name, value in fixed.items():
        if options.setdefault(name, value) != value:
            raise ArgumentError(f"{function}: {name}={options[name]!r}; expected {value}, or call ResNet")
    return ResNet(block, layers, **options)


def resnet18(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-18 (see :class:`ResNet`), 11.7 million parameters."""
    return _resnet("resnet18", BasicBlock, [2, 2, 2, 2], weights, kwargs)


def resnet34(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-34 (see :class:`ResNet`), 21.8 million parameters."""
    return _resnet("resnet34", BasicBlock, [3, 4, 6, 3], weights, kwargs)


def resnet50(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-50 (see :class:`ResNet`), 25.6 million parameters."""
    return _resnet("resnet50", Bottleneck, [3, 4, 6, 3], weights, kwargs)


def resnet101(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-101 (see :class:`ResNet`), 44.5 million parameters."""
    return _resnet("resnet101", Bottleneck, [3, 4, 23, 3], weights, kwargs)


def resnet152(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-152 (see :class:`ResNet`), 60.2 million parameters."""
    return _resnet("resnet152", Bottleneck, [3, 8, 36, 3], weights, kwargs)


def resnext50_32x4d(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNeXt-50 with 32 groups of width 4 (see :class:`ResNet`), 25.0 million parameters."""
    return _resnet("resnext50_32x4d", Bottleneck, [3, 4, 6, 3], weights, kwargs, groups=32, width_per_group=4)


def resnext101_32x8d(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNeXt-101 with 32 groups of width 8 (see :class:`ResNet`), 88.8 million parameters."""
    return _resnet("resnext101_32x8d", Bottleneck, [3, 4, 23, 3], weights, kwargs, groups=32, width_per_group=8)


def resnext101_64x4d(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNeXt-101 with 64 groups of width 4 (see :class:`ResNet`), 83.5 million parameters."""
    return _resnet("resnext101_64x4d", Bottleneck, [3, 4, 23, 3], weights, kwargs, groups=64, width_per_group=4)


def wide_resnet50_2(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-50 whose inner convolutions are twice as wide (see :class:`ResNet`), 68.9 million parameters."""
    return _resnet("wide_resnet50_2", Bottleneck, [3, 4, 6, 3], weights, kwargs, width_per_group=128)


def wide_resnet101_2(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-101 whose inner convolutions are twice as wide (see :class:`ResNet`), 126.9 million parameters."""
    return _resnet("wide_resnet101_2", Bottleneck, [3, 4, 23, 3], weights, kwargs, width_per_group=128)
