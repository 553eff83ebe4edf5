"""Transforms of images, with the names of torchvision.transforms and its v2: of PIL images and tensors, with boxes and masks.

A tensor of more than three dimensions is a batch: it is transformed at once, on its device, also in captured steps, and each
sample has random numbers of its own.  They come from gpunet's default generator, so that a DataLoader keys those of a single
sample; within :class:`keyed` those of a batch are keyed by (seed, epoch, sample).
"""

from __future__ import annotations

from gpunet.vision.transforms import color, conversions, draws, functional, geometry, mixing, policies, transform
from gpunet.vision.transforms.color import *
from gpunet.vision.transforms.conversions import *
from gpunet.vision.transforms.draws import *
from gpunet.vision.transforms.functional import InterpolationMode
from gpunet.vision.transforms.geometry import *
from gpunet.vision.transforms.mixing import *
from gpunet.vision.transforms.policies import *
from gpunet.vision.transforms.transform import *

__all__ = [
    "InterpolationMode", "functional", *color.__all__, *conversions.__all__, *draws.__all__, *geometry.__all__, *mixing.__all__,
    *policies.__all__, *transform.__all__,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
