"""Images as PIL images, as arrays (height, width, channels) and as tensors (channels, height, width)."""

from __future__ import annotations

import sys
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, make_tensor
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, MissingDependencyError, ShapeError


def pillow() -> Any:
    """The module PIL.Image.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("images need the package Pillow: pip install pillow") from None
    return Image


def is_pil(image: Any) -> bool:
    """Whether ``image`` is a PIL image."""
    module = sys.modules.get("PIL.Image")  # without it there are no images of it
    return module is not None and isinstance(image, module.Image)


def pixels_of(image: Any, function: str) -> numpy.ndarray:
    """A PIL image, or an array (height, width) or (height, width, channels), as an array (height, width, channels).

    Raises:
        DtypeError: it is something else.
        ShapeError: an array has another number of dimensions.
    """
    if is_pil(image):
        array = numpy.array(image, numpy.uint8 if image.mode == "1" else None)
        array = array * 255 if image.mode == "1" else array
    elif isinstance(image, numpy.ndarray):
        array = image
    else:
        raise DtypeError(f"{function}: got a {type(image).__name__}; expected a PIL image or a NumPy array")
    if array.ndim not in (2, 3):
        raise ShapeError(f"{function}: an array of shape {array.shape}; expected (height, width) or (height, width, channels)")
    return array[:, :, None] if array.ndim == 2 else array


def to_tensor(image: Any) -> Tensor:
    """The pixels of an image as a tensor (channels, height, width); bytes become numbers from 0 to 1, of the default dtype."""
    array = numpy.ascontiguousarray(pixels_of(image, "ToTensor").transpose(2, 0, 1))
    if array.dtype == numpy.uint8:
        array = array.astype(get_default_dtype()) / get_default_dtype().type(255)
    return make_tensor(array)


#: The modes of images of bytes by their number of channels, the default first.
_MODES_OF_BYTES = {1: ("L",), 2: ("LA",), 3: ("RGB", "YCbCr", "HSV"), 4: ("RGBA", "CMYK", "RGBX")}
_MODES_OF_ONE_CHANNEL = {"int16": ("I;16" if sys.byteorder == "little" else "I;16B",), "int32": ("I",), "float32": ("F",)}


def to_pil(image: Any, mode: str | None = None) -> Any:
    """A tensor (channels, height, width) or (height, width), or an array (height, width, channels), as a PIL image.

    Floating numbers of a tensor from 0 to 1 become bytes, unless the mode is "F".

    Args:
        mode: what the channels are, see :class:`gpunet.vision.transforms.ToPILImage`.

    Raises:
        ArgumentError: no such image has the mode.
        DtypeError, ShapeError: it is no image.
    """
    if isinstance(image, Tensor):
        array = devices.to_host(image.detach().array)
        if array.ndim not in (2, 3):
            raise ShapeError(f"ToPILImage: a tensor of shape {tuple(image.shape)}; expected (channels, height, width)")
        if image.is_floating_point() and mode != "F":
            array = (array * 255).astype(numpy.uint8)
        array = array[:, :, None] if array.ndim == 2 else array.transpose(1, 2, 0)
    else:
        array = pixels_of(image, "ToPILImage")
    height, width, channels = array.shape
    if channels not in _MODES_OF_BYTES:
        raise ShapeError(f"ToPILImage: an image of {channels} channels; expected 1 to 4")
    modes = _MODES_OF_BYTES[channels] if array.dtype == numpy.uint8 else _MODES_OF_ONE_CHANNEL.get(array.dtype.name, ())
    if not modes or (channels > 1 and array.dtype != numpy.uint8):
        raise DtypeError(
            f"ToPILImage: {channels} channels of dtype {array.dtype}; expected uint8, or int16, int32 or float32 of one channel"
        )
    if mode not in (None, *modes):
        raise ArgumentError(
            f"ToPILImage: mode={mode!r} of {channels} channels of {array.dtype}; expected {' or '.join(map(repr, modes))}"
        )
    return pillow().frombytes(mode or modes[0], (width, height), numpy.ascontiguousarray(array).tobytes())
