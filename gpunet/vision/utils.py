"""Grids of images, and image files."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import DtypeError, ShapeError
from gpunet.ops.creation import full
from gpunet.ops.join import stack
from gpunet.vision.images import to_pil

__all__ = ["make_grid", "save_image"]


@no_grad()
def make_grid(
    tensor: Any, nrow: int = 8, padding: int = 2, normalize: bool = False, value_range: tuple[float, float] | None = None,
    scale_each: bool = False, pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """Put images into one image.

    Args:
        tensor: (images, channels, height, width), a list of images, or one image; without channels or with one, it is gray.
        nrow: images in a row.
        padding: pixels between them.
        normalize: shift and scale the numbers to 0 .. 1: from ``value_range``, by default from the smallest to the largest.
        scale_each: do so for each image.
        pad_value: the number between the images.

    Returns:
        (channels, height, width) with three channels.

    Raises:
        DtypeError: no tensor, nor a list of tensors.
        ShapeError: the tensor has another number of dimensions.
    """
    images: Any = stack(list(tensor)) if isinstance(tensor, (list, tuple)) else tensor
    if not isinstance(images, Tensor):
        raise DtypeError(f"make_grid: got a {type(tensor).__name__}; expected a tensor, or a list of tensors")
    if images.ndim not in (2, 3, 4):
        raise ShapeError(f"make_grid: a tensor of shape {tuple(images.shape)}; expected (images, channels, height, width)")
    images = images.reshape(*(1,) * (4 - images.ndim), *images.shape)
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if normalize:
        images = stack([_normalized(i, value_range) for i in images]) if scale_each else _normalized(images, value_range)
    count, channels, height, width = images.shape
    if count == 1:
        return images[0].clone()
    columns = min(nrow, count)
    rows = math.ceil(count / columns)
    size = (channels, rows * (height + padding) + padding, columns * (width + padding) + padding)
    grid = full(size, float(pad_value), dtype=images.dtype, device=images.device)
    for number in range(count):
        top, left = (number // columns) * (height + padding) + padding, (number % columns) * (width + padding) + padding
        grid[:, top : top + height, left : left + width] = images[number]
    return grid


def _normalized(images: Any, value_range: tuple[float, float] | None) -> Any:
    low, high = value_range if value_range is not None else (float(images.min()), float(images.max()))
    return (images.clamp(low, high) - low) / max(high - low, 1e-5)


def save_image(tensor: Any, fp: Any, format: str | None = None, **kwargs: Any) -> None:
    """Save images as one image file; the numbers 0 .. 1 become 0 .. 255.

    Args:
        tensor, kwargs: as in :func:`make_grid`.
        fp: a path, or a file.
        format: such as "png"; by default the ending of the path.
    """
    grid: Any = make_grid(tensor, **kwargs)
    to_pil((grid * 255 + 0.5).clamp(0, 255).to("uint8")).save(fp, format=format)
