"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError
from gpunet.vision.models.initialization import initialize_layers
from gpunet.vision.models.pretrained import refuse_weights
from gpunet.vision.models.resnet import NormLayer

__all__ = ["MobileNetV2", "mobilenet_v2"]

#: Expansion, channels, number of blocks and first stride: table 2 of the paper.
SETTING = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def _make_divisible(channels: float, divisor: int) -> int:
    """The multiple of ``divisor`` next to a number of channels, at least ``divisor`` and at least 90 % of the number."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def _convolution(
    in_channels: int, out_channels: int, kernel: int, norm: NormLayer, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size for stride 1, norm and ReLU6."""
    window = (kernel, stride, (kernel - 1) // 2)
    convolution = nn.Conv2d(in_channels, out_channels, *window, groups=groups, bias=False)
    return nn.Sequential(convolution, norm(out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """A convolution of 1 x 1 to more channels, a depthwise one of 3 x 3, and one of 1 x 1 to ``oup`` channels.

    Args:
        inp, oup: channels of the input and of the result; if they agree and the stride is 1, the input is added.
        stride: of the depthwise convolution, 1 or 2.
        expand_ratio: channels of the depthwise convolution by those of the input; if 1, the first convolution is left out.
        norm_layer: makes the norm of a number of channels; BatchNorm2d if None.

    Raises:
        ArgumentError: another stride.
    """

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int, norm_layer: NormLayer | None = None) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ArgumentError(f"InvertedResidual: stride={stride}; expected 1 or 2")
        norm: NormLayer = norm_layer or nn.BatchNorm2d
        hidden = round(inp * expand_ratio)
        layers: list[nn.Module] = [] if expand_ratio == 1 else [_convolution(inp, hidden, 1, norm)]
        layers += [_convolution(hidden, hidden, 3, norm, stride, groups=hidden), nn.Conv2d(hidden, oup, 1, bias=False), norm(oup)]
        self.conv = nn.Sequential(*layers)
        self.stride, self.use_res_connect, self.out_channels = stride, stride == 1 and inp == oup, oup

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.use_res_connect else out


class MobileNetV2(nn.Module):
    """Inverted residuals between two convolutions, their mean, dropout and a linear layer; 3.5 million parameters.

    Args:
        num_classes: size of the result.
        width_mult: multiplies all numbers of channels.
        inverted_residual_setting: rows of expansion, channels, number of blocks and first stride; those of the paper if None.
        round_nearest: numbers of channels are multiples of it.
        block: called as :class:`InvertedResidual`, which it is if None.
        norm_layer: makes the norm of a number of channels; BatchNorm2d if None.
        dropout: probability of dropout before the linear layer.

    Raises:
        ArgumentError: a row of ``inverted_residual_setting`` does not have 4 numbers, or there is none.
    """

    def __init__(
        self, num_classes: int = 1000, width_mult: float = 1.0, inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8, block: Callable[..., nn.Module] | None = None, norm_layer: NormLayer | None = None,
        dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        make: Callable[..., nn.Module] = block or InvertedResidual
        norm: NormLayer = norm_layer or nn.BatchNorm2d
        setting = SETTING if inverted_residual_setting is None else inverted_residual_setting
        if not setting or any(len(row) != 4 for row in setting):
            raise ArgumentError(
                f"MobileNetV2: inverted_residual_setting={inverted_residual_setting!r}; expected rows of 4 numbers: expansion, "
                "channels, number of blocks, first stride"
            )
        channels = _make_divisible(32 * width_mult, round_nearest)
        self.last_channel = _make_divisible(1280 * max(1.0, width_mult), round_nearest)
        features: list[nn.Module] = [_convolution(3, channels, 3, norm, stride=2)]
        for expansion, base, count, first_stride in setting:
            wanted = _make_divisible(base * width_mult, round_nearest)
            for number in range(count):
                stride = first_stride if number == 0 else 1
                features.append(make(channels, wanted, stride, expand_ratio=expansion, norm_layer=norm))
                channels = wanted
        self.features = nn.Sequential(*features, _convolution(channels, self.last_channel, 1, norm))
        self.classifier = nn.Sequential(nn.Dropout(p=dropout), nn.Linear(self.last_channel, num_classes))
        initialize_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, height, width) -> logits (n, num_classes)."""
        logits: Tensor = self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1)).flatten(1))
        return logits


def mobilenet_v2(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> MobileNetV2:
    """:class:`MobileNetV2`.

    Raises:
        ArgumentError: ``weights`` is not None.
    """
    refuse_weights("mobilenet_v2", weights, kwargs)
    return MobileNetV2(**kwargs)
