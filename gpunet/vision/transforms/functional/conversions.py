"""Conversions between pictures, tensors and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_boolean, is_floating, limits, significand_bits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.creation import tensor
from gpunet.ops.face import as_number
from gpunet.vision.images import pixels_of, to_pil, to_tensor
from gpunet.vision.transforms import warp
from gpunet.vision.tv_tensors import BoundingBoxes, Image, Mask, wrap

__all__ = ["convert_image_dtype", "normalize", "pil_to_tensor", "to_dtype", "to_image", "to_pil_image", "to_tensor"]


def pil_to_tensor(pic: Any) -> Tensor:
    """A PIL image as a tensor (channels, height, width) of its own dtype."""
    return make_tensor(numpy.ascontiguousarray(pixels_of(pic, "PILToTensor").transpose(2, 0, 1)))


def to_image(inpt: Any) -> Image:
    """A PIL image, an array (height, width, channels) or a tensor as an :class:`Image`, of its own dtype."""
    return Image(inpt if isinstance(inpt, Tensor) else pil_to_tensor(inpt))


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """See :class:`gpunet.vision.transforms.ToPILImage`."""
    return to_pil(pic, mode)


def convert_image_dtype(image: Any, dtype: Any = "float32") -> Any:
    """A tensor in another dtype; the largest integer of an integer dtype is 1 of a floating one.

    Integers are divided or multiplied by a power of two.

    Raises:
        DtypeError: it is no tensor; or floating numbers cannot hold the integers of the dtype, such as float32 those of int32.
    """
    _check_tensor("convert_image_dtype", image)
    wanted, given = tensor(0, dtype=dtype).dtype, image.dtype
    if wanted == given:
        return image
    if is_floating(given) and is_floating(wanted):
        return wrap(image.to(wanted), like=image)
    if is_floating(given):
        x, (_, high) = warp.as_floating(image), limits(wanted)
        if high.bit_length() > significand_bits(x.dtype):
            way_out = "convert the image to float64 before" if high.bit_length() < 53 else "take a narrower integer dtype"
            raise DtypeError(f"convert_image_dtype: {given} cannot hold the integers of {wanted}, up to {high}; {way_out}")
        return wrap(warp.saturated(x * (high + 1.0 - 1e-3), wanted), like=image)
    if is_floating(wanted):
        x = image.double() if wanted.itemsize > 4 else warp.as_floating(image)
        return wrap((x / float(limits(given)[1])).to(wanted), like=image)
    bits = limits(wanted)[1].bit_length() - limits(given)[1].bit_length()
    x = image if is_boolean(given) else image.clamp(min=max(limits(given)[0], limits(wanted)[0]))
    return wrap(x.to(wanted) * 2**bits if bits > 0 else (x // 2**-bits).to(wanted), like=image)


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise DtypeError(f"{name}: got a {type(value).__name__}; expected a tensor: put ToImage() before it")


def to_dtype(inpt: Any, dtype: Any = "float32", scale: bool = False) -> Any:
    """A tensor in another dtype; with ``scale``, images as by :func:`convert_image_dtype`."""
    if scale and not isinstance(inpt, (BoundingBoxes, Mask)):
        return convert_image_dtype(inpt, dtype)
    _check_tensor("to_dtype", inpt)
    return wrap(inpt.to(tensor(0, dtype=dtype).dtype), like=inpt)


def check_normalization(mean: Any, std: Any) -> None:
    """Check the means and standard deviations of ``Normalize``.

    Raises:
        ArgumentError: they are no sequences of numbers, or a std is 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, (int, float, str)) or not hasattr(values, "__iter__"):
            raise ArgumentError(f"Normalize: {name}={values!r}; expected a sequence of one number for each channel")
        for value in values:
            as_number("Normalize", name, value)
    if 0 in [float(s) for s in std]:
        raise ArgumentError(f"Normalize: std={list(std)}; expected numbers other than 0")


def normalize(inpt: Any, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Any:
    """(channel - mean) / std of tensors (..., channels, height, width); boxes and masks stay as they are.

    Raises:
        DtypeError: it is no floating tensor.
        ShapeError: there are not as many means or stds as channels.
        ArgumentError: a std is 0.
    """
    if isinstance(inpt, (BoundingBoxes, Mask)):
        return inpt
    check_normalization(mean, std)
    if not isinstance(inpt, Tensor) or not inpt.is_floating_point():
        kind = f"a tensor of dtype {inpt.dtype}" if isinstance(inpt, Tensor) else f"a {type(inpt).__name__}"
        raise DtypeError(f"Normalize: got {kind}; expected a floating tensor: put ToTensor() before it")
    count = inpt.shape[-3] if inpt.ndim >= 3 else 0
    if len(mean) not in (1, count) or len(std) not in (1, count):
        raise ShapeError(
            f"Normalize: a tensor of shape {tuple(inpt.shape)}, {len(mean)} means and {len(std)} stds; expected one "
            "for each channel"
        )
    means, stds = (tensor(list(v), dtype=inpt.dtype, device=inpt.device).reshape(-1, 1, 1) for v in (mean, std))
    return inpt.sub_(means).div_(stds) if inplace else wrap((inpt - means) / stds, like=inpt)
