"""Arguments of the functions: images, sizes, modes and fill values."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.errors import ArgumentError, DtypeError
from gpunet.vision.images import is_pil, pixels_of, to_pil
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

__all__ = ["InterpolationMode", "get_size"]

Number = Any  # a number, or a tensor (batch,)


class InterpolationMode(enum.Enum):
    """How a resized image is computed."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


#: Pillow's numbers of the modes.
_PILLOW_MODES = {mode: InterpolationMode(name) for mode, name in enumerate(
    ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
)}  # fmt: skip
NEAREST = (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT)


def as_mode(function: str, value: Any) -> InterpolationMode:
    """An argument as a mode of interpolation.

    Raises:
        ArgumentError: it is none.
    """
    mode = _PILLOW_MODES.get(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(mode, InterpolationMode):
        raise ArgumentError(f"{function}: interpolation={value!r}; expected an InterpolationMode, or Pillow's number 0 .. 5")
    return mode


def as_pair(function: str, value: Any) -> tuple[int, int]:
    """A size as (height, width).

    Raises:
        ArgumentError: it is none.
    """
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(items) not in (1, 2) or not all(isinstance(n, int) and n > 0 for n in items):
        raise ArgumentError(f"{function}: size={value!r}; expected a positive integer, or (height, width)")
    return items[0], items[-1]


def size_of(inpt: Any, function: str) -> tuple[int, int]:
    """The height and width of an image, a mask, or the image of boxes.

    Raises:
        DtypeError: it is none of them.
    """
    if is_pil(inpt):
        return inpt.height, inpt.width
    if isinstance(inpt, BoundingBoxes):
        return inpt.canvas_size
    if isinstance(inpt, Tensor) and inpt.ndim >= 2:
        return int(inpt.shape[-2]), int(inpt.shape[-1])
    raise DtypeError(f"{function}: got a {type(inpt).__name__}; expected a PIL image, or a tensor (..., height, width)")


def get_size(inpt: Any) -> list[int]:
    """[height, width] of an image, a mask, or the image of boxes."""
    return [*size_of(inpt, "get_size")]


def fill_for(fill: Any, inpt: Any) -> Any:
    """The number, or numbers of the channels, that fill what comes from outside of the image.

    Args:
        fill: a number, a sequence of one number per channel, None for 0, or a dict of these by class, such as ``{Mask: 255}``.
            What is no dict holds for images; masks get 0.
    """
    if isinstance(fill, dict):
        found = next((value for kind, value in fill.items() if isinstance(kind, type) and isinstance(inpt, kind)), None)
        found = fill.get("others") if found is None else found
    else:
        found = None if isinstance(inpt, Mask) else fill
    return 0 if found is None else found


def through_tensor(inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The result of a function of tensors for a PIL image, as a PIL image of the same mode."""
    mode = inpt.mode
    source = inpt.convert("RGB") if mode == "P" else inpt
    x = make_tensor(numpy.ascontiguousarray(pixels_of(source, "transform").transpose(2, 0, 1)))
    result = function(x)
    if result.shape[-3] != x.shape[-3]:
        return to_pil(result)
    return to_pil(result).convert("1") if mode == "1" else to_pil(result, source.mode)


def on_pixels(name: str, inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function of tensors (..., channels, height, width) to an image; boxes and masks stay as they are."""
    if is_pil(inpt):
        return through_tensor(inpt, function)
    if isinstance(inpt, (BoundingBoxes, Mask)):
        return inpt
    size_of(inpt, name)
    if inpt.ndim == 2:
        return function(inpt.unsqueeze(0)).squeeze(0)
    return wrap(function(inpt), like=inpt)
