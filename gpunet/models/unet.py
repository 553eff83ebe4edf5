"""U-Net: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.

The convolutions pad, so that the result has the size of the image, and batch norm follows each of them.
"""

from __future__ import annotations

from gpunet import nn
from gpunet.autograd import Tensor
from gpunet.errors import ShapeError
from gpunet.ops.face import as_positive
from gpunet.ops.join import cat

__all__ = ["UNet"]


def _double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """A network from images to images: it halves them ``depth`` times, and doubles them beside what it had on the way down.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the result, such as one logit for each class and pixel.
        width: channels at full size; each level below has twice as many.
        depth: how often the image is halved.

    Attributes:
        down: the convolutions on the way down, from full size on.
        bottom: those at the smallest size.
        up: the transposed convolutions that double the image, from the smallest size on.
        across: the convolutions of the doubled image and what the way down had at this size.
        head: a convolution of 1 x 1.

    Raises:
        ArgumentError: ``width`` or ``depth`` is not positive.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.width, self.depth = as_positive("UNet", "width", width), as_positive("UNet", "depth", depth)
        widths = [self.width << level for level in range(self.depth + 1)]
        self.down = nn.ModuleList(_double_convolution(*pair) for pair in zip([in_channels, *widths], widths[:-1]))
        self.bottom = _double_convolution(*widths[-2:])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * channels, channels, 2, stride=2) for channels in widths[-2::-1])
        self.across = nn.ModuleList(_double_convolution(2 * channels, channels) for channels in widths[-2::-1])
        self.head = nn.Conv2d(self.width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, in_channels, height, width) -> (n, num_classes, height, width).

        Raises:
            ShapeError: height or width is not a multiple of 2 ** depth.
        """
        factor = 1 << self.depth
        if x.ndim != 4 or x.shape[2] % factor or x.shape[3] % factor:
            raise ShapeError(
                f"UNet: an input of shape {tuple(x.shape)}; expected (n, {self.in_channels}, height, width) with multiples of "
                f"{factor} = 2 ** depth; pad the images by nn.functional.pad, or take a smaller depth"
            )
        levels = []
        for convolutions in self.down:
            x = convolutions(x)
            levels.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for double, convolutions, level in zip(self.up, self.across, reversed(levels)):
            x = convolutions(cat([level, double(x)], 1))
        result: Tensor = self.head(x)
        return result
