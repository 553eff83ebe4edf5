"""Functional forms, with the names of torchvision.transforms.v2.functional.

They take PIL images, tensors, and the classes of :mod:`gpunet.vision.tv_tensors`: geometry moves boxes and masks too, boxes are
clamped to the image, masks take the nearest pixel; colours leave both as they are.  Of a tensor of more than three dimensions the
first is the batch, and numbers, such as an angle, may be tensors (batch,): one for each sample.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_boolean, is_floating, is_half, limits, significand_bits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.activations import hardtanh
from gpunet.ops.creation import arange, tensor, zeros
from gpunet.ops.elementwise import exp, maximum, minimum, where
from gpunet.ops.face import as_number, as_positive
from gpunet.ops.interpolate import interpolate
from gpunet.ops.join import cat, stack
from gpunet.ops.order import amax, amin
from gpunet.ops.rounding import floor
from gpunet.ops.scatter import scatter_add
from gpunet.vision.images import is_pil, pillow, pixels_of, to_pil, to_tensor
from gpunet.vision.ops import box_convert
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.draws import normal
from gpunet.vision.transforms.warp import Batch, Map, on_axes, shift_and_scale
from gpunet.vision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, Mask, wrap

__all__ = [
    "InterpolationMode", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation", "adjust_sharpness", "affine",
    "autocontrast", "center_crop", "clamp_bounding_boxes", "convert_bounding_box_format", "convert_image_dtype", "crop", "equalize",
    "erase", "gaussian_blur", "gaussian_noise", "get_size", "hflip", "horizontal_flip", "invert", "normalize", "pad", "perspective",
    "pil_to_tensor", "posterize", "resize", "resized_crop", "rgb_to_grayscale", "rotate", "sanitize_bounding_boxes", "solarize",
    "to_dtype", "to_grayscale", "to_image", "to_pil_image", "to_tensor", "vertical_flip", "vflip",
]  # fmt: skip

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


def _through_tensor(inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The result of a function of tensors for a PIL image, as a PIL image of the same mode."""
    mode = inpt.mode
    source = inpt.convert("RGB") if mode == "P" else inpt
    x = make_tensor(numpy.ascontiguousarray(pixels_of(source, "transform").transpose(2, 0, 1)))
    result = function(x)
    if result.shape[-3] != x.shape[-3]:
        return to_pil(result)
    return to_pil(result).convert("1") if mode == "1" else to_pil(result, source.mode)


def _on_pixels(name: str, inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function of tensors (..., channels, height, width) to an image; boxes and masks stay as they are."""
    if is_pil(inpt):
        return _through_tensor(inpt, function)
    if isinstance(inpt, (BoundingBoxes, Mask)):
        return inpt
    size_of(inpt, name)
    if inpt.ndim == 2:
        return function(inpt.unsqueeze(0)).squeeze(0)
    return wrap(function(inpt), like=inpt)


# ---- geometry ---------------------------------------------------------------------------------------------------------


def warped(name: str, inpt: Any, forward: Map, size: tuple[int, int], interpolation: Any, fill: Any) -> Any:
    """An image, a mask or boxes, mapped into ``size``."""
    mode = as_mode(name, interpolation)
    if mode not in (*NEAREST, InterpolationMode.BILINEAR):
        raise ArgumentError(f"{name}: interpolation={mode}; expected NEAREST or BILINEAR")
    if isinstance(inpt, BoundingBoxes):
        return warp.move_boxes(inpt, forward, size)
    if is_pil(inpt):
        return _through_tensor(inpt, lambda x: _warp_planes(name, x, forward, size, mode, fill_for(fill, inpt)))
    size_of(inpt, name)
    return wrap(_warp_planes(name, inpt, forward, size, mode, fill_for(fill, inpt)), like=inpt)


def _warp_planes(
    name: str, x: Tensor, forward: Map, size: tuple[int, int], mode: InterpolationMode, fill: Any
) -> Tensor:
    batch = Batch.of(name, x, warp.samples_of(*(entry for row in forward for entry in row)))
    is_nearest = mode in NEAREST or is_boolean(x.dtype) or isinstance(x, Mask)
    return batch.restore(warp.warp(name, batch.planes, forward, size, is_nearest, fill))


def _center(name: str, inpt: Any, center: Any) -> tuple[float, float]:
    height, width = size_of(inpt, name)
    if center is None:
        return width / 2, height / 2
    x, y = center
    return float(x), float(y)


def affine(
    inpt: Any, angle: Number, translate: Sequence[Number], scale: Number, shear: Any,
    interpolation: Any = InterpolationMode.NEAREST, fill: Any = None, center: Any = None,
) -> Any:  # fmt: skip
    """Rotate, translate, scale and shear about the center.

    Args:
        inpt: an image, a mask or boxes.
        angle: in degrees, clockwise.
        translate: (x, y) in pixels.
        scale: a factor.
        shear: degrees along x, or (along x, along y).
        interpolation: NEAREST or BILINEAR; masks take the nearest pixel.
        fill: see :func:`fill_for`.
        center: (x, y) in pixels from the left upper corner; the image's center by default.

    Raises:
        ArgumentError: a scale that is not positive, a shear of 90 degrees, or not one or two shears, or two shifts.
    """
    if not isinstance(scale, Tensor) and not as_number("affine", "scale", scale) > 0:
        raise ArgumentError(f"affine: scale={scale}; expected a positive number")
    if not isinstance(translate, (tuple, list)) or len(translate) != 2:
        raise ArgumentError(f"affine: translate={translate!r}; expected two numbers of pixels, (x, y)")
    shears = tuple(shear) if isinstance(shear, (tuple, list)) else (shear, 0.0)
    shears = shears if len(shears) != 1 else (shears[0], 0.0)
    if len(shears) != 2:
        raise ArgumentError(f"affine: shear={shear!r}; expected degrees along x, or (along x, along y)")
    if any(not isinstance(s, Tensor) and abs(math.cos(math.radians(as_number("affine", "shear", s)))) < 1e-6 for s in shears):
        raise ArgumentError(f"affine: shear={shear!r}; expected degrees between -90 and 90")
    forward = warp.affine_map(angle, translate, scale, shears, _center("affine", inpt, center))
    return warped("affine", inpt, forward, size_of(inpt, "affine"), interpolation, fill)


def rotate(
    inpt: Any, angle: Number, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False, center: Any = None,
    fill: Any = None,
) -> Any:  # fmt: skip
    """Rotate counterclockwise by ``angle`` degrees; arguments as of :func:`affine`.

    Args:
        expand: make the result as large as the rotated image; then the angle is a number, and ``center`` has no effect.

    Raises:
        ArgumentError: ``expand`` with an angle for each sample.
    """
    height, width = size_of(inpt, "rotate")
    if not expand:
        forward = warp.affine_map(-angle, (0.0, 0.0), 1.0, (0.0, 0.0), _center("rotate", inpt, center))
        return warped("rotate", inpt, forward, (height, width), interpolation, fill)
    if isinstance(angle, Tensor):
        raise ArgumentError("rotate: expand=True with a tensor of angles, whose images would differ in size; pass one number")
    (a, b, _), (c, d, _), _ = warp.affine_map(-angle, (0.0, 0.0), 1.0, (0.0, 0.0), (0.0, 0.0))
    if angle % 90:
        new_width = _whole_pixels(width / 2, (abs(a) * width + abs(b) * height) / 2)
        new_height = _whole_pixels(height / 2, (abs(c) * width + abs(d) * height) / 2)
    else:
        new_height, new_width = (width, height) if angle % 180 else (height, width)
    shift = ((new_width - width) / 2, (new_height - height) / 2)
    forward = warp.affine_map(-angle, shift, 1.0, (0.0, 0.0), (width / 2, height / 2))
    return warped("rotate", inpt, forward, (new_height, new_width), interpolation, fill)


def _whole_pixels(center: float, half: float) -> int:
    """The number of pixels that the line of ``half`` to both sides of ``center`` touches by more than a thousandth."""
    return math.ceil(center + half - 1e-3) - math.floor(center - half + 1e-3)


def perspective(
    inpt: Any, startpoints: Any, endpoints: Any, interpolation: Any = InterpolationMode.BILINEAR, fill: Any = None
) -> Any:
    """The perspective that takes four points to four points.

    Args:
        inpt, interpolation, fill: as of :func:`affine`.
        startpoints, endpoints: (x, y) of the left upper, right upper, right lower and left lower point; or tensors (batch, 4, 2).
    """
    forward = warp.perspective_map(startpoints, endpoints)
    return warped("perspective", inpt, forward, size_of(inpt, "perspective"), interpolation, fill)


def flipped(name: str, inpt: Any, dim: int, is_flipped: Any) -> Any:
    """An image, a mask or boxes with dimension ``dim``, -1 or -2, reversed where ``is_flipped``, a bool or (batch,), holds."""
    height, width = size_of(inpt, name)
    if not isinstance(is_flipped, Tensor) and not is_flipped:
        return inpt
    if is_pil(inpt):
        return inpt.transpose(pillow().FLIP_LEFT_RIGHT if dim == -1 else pillow().FLIP_TOP_BOTTOM)
    if isinstance(inpt, BoundingBoxes):
        forward = shift_and_scale(width, 0.0, -1.0) if dim == -1 else shift_and_scale(0.0, height, 1.0, -1.0)
        forward = warp.applied(is_flipped, forward) if isinstance(is_flipped, Tensor) else forward
        return warp.move_boxes(inpt, forward, (height, width))
    return wrap(select(is_flipped, inpt.flip(dim), inpt), like=inpt)


def select(condition: Any, yes: Any, no: Any) -> Any:
    """``yes`` for the samples where ``condition``, a bool or a tensor (batch,), holds, else ``no``."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return where(on_axes(condition, yes.ndim - 1), yes, no)


def horizontal_flip(inpt: Any) -> Any:
    """Exchange left and right."""
    return flipped("horizontal_flip", inpt, -1, True)


def vertical_flip(inpt: Any) -> Any:
    """Exchange top and bottom."""
    return flipped("vertical_flip", inpt, -2, True)


hflip, vflip = horizontal_flip, vertical_flip


def crop(inpt: Any, top: Number, left: Number, height: int, width: int) -> Any:
    """A part of an image; what lies outside of it is 0.

    Args:
        top, left: integers, or int64 tensors (batch,).
        height, width: of the part.
    """
    size = (height, width)
    if is_pil(inpt):
        return inpt.crop((left, top, left + width, top + height))
    rows, columns = size_of(inpt, "crop")
    if isinstance(inpt, BoundingBoxes):
        return warp.move_boxes(inpt, shift_and_scale(-left, -top), size)
    if not isinstance(top, Tensor):
        border = (max(0, -left), max(0, left + width - columns), max(0, -top), max(0, top + height - rows))
        x = inpt
        if any(border):
            x, top, left = warp.bordered("crop", inpt, border, 0), max(0, top), max(0, left)
        return wrap(x[..., top : top + height, left : left + width], like=inpt)
    batch = Batch.of("crop", inpt, len(top))
    # parts far outside see the border only, which is as large as a part
    border = (width, width, height, height)
    top, left = top.clamp(-height, rows) + height, left.clamp(-width, columns) + width
    border_of = warp.bordered("crop", batch.planes, border, 0)
    return wrap(batch.restore(warp.cut(border_of, top, left, height, width)), like=inpt)


def crop_inside(inpt: Any, top: Number, left: Number, height: int, width: int) -> Any:
    """:func:`crop` of a part that lies in the image."""
    if is_pil(inpt) or isinstance(inpt, BoundingBoxes) or not isinstance(top, Tensor):
        return crop(inpt, top, left, height, width)
    batch = Batch.of("crop", inpt, len(top))
    return wrap(batch.restore(warp.cut(batch.planes, top, left, height, width)), like=inpt)


def center_crop(inpt: Any, output_size: Any) -> Any:
    """The middle of an image; a smaller image gets a border of zeros."""
    (height, width), (rows, columns) = as_pair("center_crop", output_size), size_of(inpt, "center_crop")
    return crop(inpt, _middle(rows, height), _middle(columns, width), height, width)


def _middle(length: int, size: int) -> int:
    """Where the middle part of this size begins; a border around a smaller image is wider below and to the right."""
    return round((length - size) / 2.0) if length >= size else -((size - length) // 2)


PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


def sides_of(function: str, padding: Any, padding_mode: str = "constant") -> tuple[int, int, int, int]:
    """A padding as (left, top, right, bottom).

    Raises:
        ArgumentError: it is not 1, 2 or 4 integers; or a negative one, which cuts off, with another mode than "constant".
    """
    items = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,)
    if len(items) not in (1, 2, 4) or not all(isinstance(n, int) for n in items):
        raise ArgumentError(f"{function}: padding={padding!r}; expected 1, 2 or 4 integers")
    if padding_mode != "constant" and min(items) < 0:
        raise ArgumentError(f"{function}: padding={padding!r} with padding_mode={padding_mode!r}; expected 0 or more")
    left, top, right, bottom = items * 4 if len(items) == 1 else items * 2 if len(items) == 2 else items
    return left, top, right, bottom


def pad(inpt: Any, padding: Any, fill: Any = None, padding_mode: str = "constant") -> Any:
    """A border around an image.

    Args:
        inpt: an image, a mask or boxes.
        padding: its width, or (left and right, top and bottom), or (left, top, right, bottom).
        fill: see :func:`fill_for`.
        padding_mode: "constant", "edge", "reflect" or "symmetric"; boxes move alike.

    Raises:
        ArgumentError: another padding or mode.
    """
    left, top, right, bottom = sides_of("pad", padding, padding_mode)
    if padding_mode not in PADDING_MODES:
        raise ArgumentError(f"pad: padding_mode={padding_mode!r}; expected 'constant', 'edge', 'reflect' or 'symmetric'")
    height, width = size_of(inpt, "pad")
    if isinstance(inpt, BoundingBoxes):
        return warp.move_boxes(inpt, shift_and_scale(left, top), (top + height + bottom, left + width + right))
    if is_pil(inpt):
        return _through_tensor(inpt, lambda x: pad(x, padding, fill, padding_mode))
    if padding_mode == "constant":
        return wrap(warp.bordered("pad", inpt, (left, right, top, bottom), fill_for(fill, inpt)), like=inpt)
    x = inpt
    for dim, n, widths in ((-2, height, (top, bottom)), (-1, width, (left, right))):
        if any(widths):
            x = warp.with_border(x, dim, (padding_mode, *widths, n))
    return wrap(x, like=inpt)


def resize(
    inpt: Any, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:  # fmt: skip
    """Resize an image, a mask or the canvas of boxes; see :class:`gpunet.vision.transforms.Resize`."""
    mode = as_mode("resize", interpolation)
    return resized(inpt, target_size(size, max_size, *size_of(inpt, "Resize")), mode, antialias)


def target_size(size: Any, max_size: int | None, height: int, width: int) -> tuple[int, int]:
    """The (height, width) that ``Resize`` gives an image."""
    side, other = as_pair("Resize", size)
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return side, other
    if max_size is not None:
        as_positive("Resize", "max_size", max_size)
    short, long = min(height, width), max(height, width)
    if not short:
        raise ShapeError(f"Resize: an image of {height} x {width} has no pixels; expected one with pixels")
    new_long = int(side * long / short)
    if max_size is not None and new_long > max_size:
        side, new_long = max(1, int(max_size * side / new_long)), max_size
    return (side, new_long) if height <= width else (new_long, side)


def resized(inpt: Any, size: tuple[int, int], mode: InterpolationMode, antialias: bool | None) -> Any:
    rows, columns = size_of(inpt, "Resize")
    if (rows, columns) == size:
        return inpt
    if is_pil(inpt):
        return inpt.resize(size[::-1], pillow().NEAREST if mode in NEAREST else getattr(pillow(), mode.name))
    if isinstance(inpt, BoundingBoxes):
        return warp.move_boxes(inpt, shift_and_scale(0.0, 0.0, size[1] / columns, size[0] / rows), size)
    if isinstance(inpt, Mask) and mode not in NEAREST:
        mode = InterpolationMode.NEAREST
    if mode in NEAREST or not antialias:
        return wrap(_interpolated(inpt, size, mode), like=inpt)
    return wrap(warp.resize_like_pillow(inpt, size, mode.value), like=inpt)


def _interpolated(img: Tensor, size: tuple[int, int], mode: InterpolationMode) -> Tensor:
    """A tensor (..., height, width) resized without antialiasing; integers are rounded."""
    if mode not in (*NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        raise ArgumentError(f"Resize: interpolation={mode} of a tensor without antialiasing; pass antialias=True, or BILINEAR")
    images = img.reshape(-1, 1, *img.shape[-2:])
    if mode in NEAREST:
        resized = interpolate(images.to("uint8") if is_boolean(img.dtype) else images, size, mode=mode.value).to(img.dtype)
    elif is_floating(img.dtype):
        resized = interpolate(images, size, mode=mode.value, align_corners=False)
    else:
        resized = interpolate(warp.as_floating(images), size, mode=mode.value, align_corners=False)
        resized = warp.saturated(resized.round(), img.dtype)
    return resized.reshape(*img.shape[:-2], *size)


def resized_crop(
    inpt: Any, top: Number, left: Number, height: Number, width: Number, size: Any,
    interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True,
) -> Any:  # fmt: skip
    """A part of an image, resized to ``size``; the part's place may be tensors (batch,), for modes NEAREST and BILINEAR."""
    mode, wanted = as_mode("resized_crop", interpolation), as_pair("resized_crop", size)
    if not isinstance(top, Tensor):
        return resized(crop(inpt, top, left, height, width), wanted, mode, antialias)
    if mode not in (*NEAREST, InterpolationMode.BILINEAR):
        raise ArgumentError(f"resized_crop: interpolation={mode} of a batch; expected NEAREST or BILINEAR")
    top, left, height, width = (v.to("float32") for v in (top, left, height, width))
    if isinstance(inpt, BoundingBoxes):
        scale_y, scale_x = wanted[0] / height, wanted[1] / width
        return warp.move_boxes(inpt, shift_and_scale(-left * scale_x, -top * scale_y, scale_x, scale_y), wanted)
    size_of(inpt, "resized_crop")
    batch = Batch.of("resized_crop", inpt, len(top))
    is_nearest = mode in NEAREST or isinstance(inpt, Mask) or is_boolean(inpt.dtype)
    found = warp.resize_parts(batch.planes, top, left, height, width, wanted, is_nearest, bool(antialias))
    return wrap(batch.restore(found), like=inpt)


# ---- colours ----------------------------------------------------------------------------------------------------------


def _on_unit(name: str, inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function of floating numbers in 0 .. 1 to an image; integers are scaled before, and rounded after it."""

    def apply(x: Tensor) -> Tensor:
        dtype = x.dtype
        if is_floating(dtype):
            return function(x.float()).to(dtype) if is_half(dtype) else function(x)
        top = float(limits(dtype)[1])
        return warp.saturated((function(warp.as_floating(x) * (1 / top)) * top).round(), dtype)

    return _on_pixels(name, inpt, apply)


def _unit(x: Any) -> Any:
    return hardtanh(x, 0.0, 1.0)


def _entry(value: Number, x: Tensor) -> Any:
    """A number, or a number for each sample that broadcasts with images."""
    return value.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) if isinstance(value, Tensor) else value


def _check_factor(name: str, argument: str, value: Number) -> None:
    if not isinstance(value, Tensor) and not as_number(name, argument, value) >= 0:
        raise ArgumentError(f"{name}: {argument}={value}; expected 0 or more")


def _check_colours(name: str, x: Tensor) -> None:
    if x.shape[-3] != 3:
        raise ShapeError(f"{name}: an image of shape {tuple(x.shape)}; expected 1 or 3 channels, whose colours are known")


def _luminance(name: str, x: Any) -> Any:
    """0.2989 R + 0.587 G + 0.114 B, with one channel; of one channel itself."""
    if x.shape[-3] == 1:
        return x
    _check_colours(name, x)
    r, g, b = (x[..., c : c + 1, :, :] for c in range(3))
    return 0.2989 * r + 0.587 * g + 0.114 * b


def _blended(x: Any, other: Any, factor: Any) -> Any:
    """other + factor (x - other), within 0 .. 1."""
    return _unit(other + (x - other) * factor)


def adjust_brightness(inpt: Any, brightness_factor: Number) -> Any:
    """Multiply by a factor of 0 or more."""
    _check_factor("adjust_brightness", "brightness_factor", brightness_factor)
    return _on_unit("adjust_brightness", inpt, lambda x: _unit(x * _entry(brightness_factor, x)))


def adjust_contrast(inpt: Any, contrast_factor: Number) -> Any:
    """Multiply the distance from the mean luminance of the image by a factor of 0 or more."""
    _check_factor("adjust_contrast", "contrast_factor", contrast_factor)

    def adjusted(x: Any) -> Any:
        return _blended(x, _luminance("adjust_contrast", x).mean((-3, -2, -1), keepdim=True), _entry(contrast_factor, x))

    return _on_unit("adjust_contrast", inpt, adjusted)


def adjust_saturation(inpt: Any, saturation_factor: Number) -> Any:
    """Multiply the distance from the luminance of the pixel by a factor of 0 or more."""
    _check_factor("adjust_saturation", "saturation_factor", saturation_factor)

    def adjusted(x: Any) -> Any:
        return x if x.shape[-3] == 1 else _blended(x, _luminance("adjust_saturation", x), _entry(saturation_factor, x))

    return _on_unit("adjust_saturation", inpt, adjusted)


def adjust_hue(inpt: Any, hue_factor: Number) -> Any:
    """Turn the hue by a part of the circle of colours, from -0.5 to 0.5.

    Raises:
        ArgumentError: another number.
    """
    if not isinstance(hue_factor, Tensor) and not -0.5 <= as_number("adjust_hue", "hue_factor", hue_factor) <= 0.5:
        raise ArgumentError(f"adjust_hue: hue_factor={hue_factor}; expected a number from -0.5 to 0.5")
    return _on_unit("adjust_hue", inpt, lambda x: _turned(x, _entry(hue_factor, x)))


def _turned(x: Any, part: Any) -> Any:
    """The hue of HSV moved by a part of the circle.

    With v the largest and v - c the smallest channel, and the hue in sixths of the circle, a channel whose own colour is d sixths
    away is v - c clamp(d - 1, 0, 1).
    """
    if x.shape[-3] == 1:
        return x
    _check_colours("adjust_hue", x)
    r, g, b = x.unbind(-3)
    v, low = maximum(maximum(r, g), b), minimum(minimum(r, g), b)
    c = v - low
    safe = 1 / (c + (c == 0).to(x.dtype))
    # the sector of the largest channel, from 0, 2 and 4 for red, green and blue
    is_r, is_g = v == r, v == g
    hue = where(is_r, (g - b) * safe, where(is_g, (b - r) * safe + 2, (r - g) * safe + 4))
    hue = hue + (6 * part.squeeze(-3) if isinstance(part, Tensor) else 6 * part)
    channels = []
    for center in (0, 2, 4):
        distance = hue - center  # from -7 to 9: on the circle, from the channel's own colour
        distance = (distance - 6 * floor(distance * (1 / 6) + 0.5)).abs()
        channels.append(v - c * hardtanh(distance - 1, 0.0, 1.0))
    return stack(channels, -3)


def adjust_sharpness(inpt: Any, sharpness_factor: Number) -> Any:
    """Multiply the distance from a smoothed image by a factor of 0 or more: 0 smoothes, 1 changes nothing."""
    _check_factor("adjust_sharpness", "sharpness_factor", sharpness_factor)

    def sharpened(x: Any) -> Any:
        if min(x.shape[-2:]) < 3:
            return x
        rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
        around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        smooth = (around + 4 * x[..., 1:-1, 1:-1]) / 13
        inner = _blended(x[..., 1:-1, 1:-1], smooth, _entry(sharpness_factor, x))
        middle = cat([x[..., 1:-1, :1], inner, x[..., 1:-1, -1:]], -1)
        return cat([x[..., :1, :], middle, x[..., -1:, :]], -2)

    return _on_unit("adjust_sharpness", inpt, sharpened)


def rgb_to_grayscale(inpt: Any, num_output_channels: int = 1) -> Any:
    """The luminance 0.2989 R + 0.587 G + 0.114 B, in one or three equal channels.

    Raises:
        ArgumentError: another number of channels.
    """
    if num_output_channels not in (1, 3):
        raise ArgumentError(f"Grayscale: num_output_channels={num_output_channels}; expected 1 or 3")
    if is_pil(inpt):
        gray = inpt.convert("L")
        return gray if num_output_channels == 1 else gray.convert("RGB")

    def gray_of(x: Any) -> Any:
        if x.ndim < 3 or x.shape[-3] not in (1, 3):
            raise ShapeError(f"Grayscale: a tensor of shape {tuple(x.shape)}; expected 1 or 3 channels")
        gray = _luminance("Grayscale", warp.as_floating(x))
        gray = warp.saturated(gray if is_floating(x.dtype) else gray.round(), x.dtype)
        return gray if num_output_channels == 1 else gray.expand(*x.shape[:-3], 3, *x.shape[-2:])

    return _on_pixels("Grayscale", inpt, gray_of)


to_grayscale = rgb_to_grayscale


def invert(inpt: Any) -> Any:
    """1 - x; of integers the largest one minus x."""
    return _on_pixels("invert", inpt, lambda x: 1 - x if is_floating(x.dtype) else int(limits(x.dtype)[1]) - x)


def posterize(inpt: Any, bits: Number) -> Any:
    """Keep the highest ``bits`` bits of uint8, 0 to 8; of floating numbers 2^bits levels.

    Raises:
        DtypeError: other integers.
    """

    def reduced(x: Any) -> Any:
        if is_floating(x.dtype):
            levels = _power_of_two(_entry(bits, x))
            return minimum(floor(x * levels), levels - 1) / levels
        if x.dtype != numpy.uint8:
            raise DtypeError(f"posterize: an image of dtype {x.dtype}; expected uint8, or a floating dtype")
        step = _power_of_two(8 - _entry(bits, x.float()))
        return (floor(x.float() / step) * step).to(x.dtype)

    return _on_pixels("posterize", inpt, reduced)


def _power_of_two(exponent: Any) -> Any:
    return exp(exponent * math.log(2)).round() if isinstance(exponent, Tensor) else 2.0**exponent


def solarize(inpt: Any, threshold: Number) -> Any:
    """Invert the numbers at and above a threshold, which is in the range of the dtype."""

    def solarized(x: Any) -> Any:
        limit = _entry(threshold, x)
        if not is_floating(inpt_dtype):
            limit = limit / float(limits(inpt_dtype)[1])
        return where(x >= limit, 1 - x, x)

    inpt_dtype = inpt.dtype if isinstance(inpt, Tensor) else numpy.dtype("uint8")
    return _on_unit("solarize", inpt, solarized)


def autocontrast(inpt: Any) -> Any:
    """Stretch each channel so that its smallest number is 0 and its largest one 1."""

    def stretched(x: Any) -> Any:
        low, high = amin(x, (-2, -1), True), amax(x, (-2, -1), True)
        span = high - low
        is_flat = span == 0
        return where(is_flat, x, _unit((x - low) / where(is_flat, 1.0, span)))

    return _on_unit("autocontrast", inpt, stretched)


def equalize(inpt: Any) -> Any:
    """Make the 256 levels of each channel equally frequent, as Pillow's ImageOps.equalize."""

    def equalized(x: Any) -> Any:
        levels = (x * 255.999).to("int64").reshape(-1, x.shape[-2] * x.shape[-1])
        counts = scatter_add(zeros(len(levels), 256, device=x.device), 1, levels, (levels * 0 + 1).to("float32"))
        sums = counts.cumsum(1)
        last = levels.max(1, keepdim=True)[0]
        step = floor((levels.shape[1] - counts.gather(1, last)) / 255)
        table = hardtanh(floor((sums - counts + floor(step / 2)) / step.clamp(min=1.0)), 0.0, 255.0)
        table = where(step == 0, arange(256, dtype="float32", device=x.device), table)
        return (table.gather(1, levels) / 255).reshape(x.shape).to(x.dtype)

    return _on_unit("equalize", inpt, equalized)


def gaussian_blur(inpt: Any, kernel_size: Any, sigma: Any = None) -> Any:
    """Convolve with a Gaussian; at the border the image is reflected.

    Args:
        inpt: an image.
        kernel_size: odd numbers of pixels, (along x, along y) or one for both.
        sigma: standard deviations (along x, along y) or one for both, or a tensor (batch,); by default
            0.3 ((kernel_size - 1) / 2 - 1) + 0.8.

    Raises:
        ArgumentError: an even or nonpositive size, or a nonpositive sigma.
    """
    sizes = tuple(kernel_size) if isinstance(kernel_size, (tuple, list)) else (kernel_size, kernel_size)
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 and n % 2 for n in sizes):
        raise ArgumentError(f"gaussian_blur: kernel_size={kernel_size!r}; expected one or two positive odd integers")
    sigmas = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma, sigma)
    sigmas = sigmas * 2 if len(sigmas) == 1 else sigmas
    sigmas = tuple(0.3 * ((n - 1) / 2 - 1) + 0.8 if s is None else s for n, s in zip(sizes, sigmas))
    if not all(isinstance(s, Tensor) or as_number("gaussian_blur", "sigma", s) > 0 for s in sigmas):
        raise ArgumentError(f"gaussian_blur: sigma={sigma!r}; expected positive numbers")

    def blurred(x: Any) -> Any:
        for dim, n, s in ((-1, sizes[0], sigmas[0]), (-2, sizes[1], sigmas[1])):
            half = n // 2
            if half >= x.shape[dim]:
                raise ShapeError(
                    f"gaussian_blur: kernel_size={kernel_size!r} for an image of shape {tuple(x.shape)}; expected less than twice "
                    "its size"
                )
            weights = [_gaussian(k, s) for k in range(half + 1)]
            total = weights[0] + 2 * sum(weights[1:]) if half else weights[0]
            padded = pad(x, (half, 0) if dim == -1 else (0, half), padding_mode="reflect") if half else x
            length = x.shape[dim]
            result = padded.narrow(dim, half, length) * _entry(weights[0] / total, x)
            for k in range(1, half + 1):
                both = padded.narrow(dim, half - k, length) + padded.narrow(dim, half + k, length)
                result = result + both * _entry(weights[k] / total, x)
            x = result
        return x

    return _on_unit("gaussian_blur", inpt, blurred)


def _gaussian(distance: int, sigma: Number) -> Any:
    exponent = -0.5 * (distance / sigma) ** 2
    return exp(exponent) if isinstance(exponent, Tensor) else math.exp(exponent)


def gaussian_noise(inpt: Any, mean: float = 0.0, sigma: float = 0.1, clip: bool = True) -> Any:
    """Add normal numbers to each element.

    Args:
        inpt: an image of numbers in 0 .. 1, or of integers, whose largest number counts as 1.
        mean, sigma: of the noise.
        clip: keep the result within 0 .. 1; of integers it always is.

    Raises:
        ArgumentError: a negative sigma.
    """
    if as_number("gaussian_noise", "sigma", sigma) < 0:
        raise ArgumentError(f"gaussian_noise: sigma={sigma}; expected 0 or more")

    def noisy(x: Any) -> Any:
        samples = x.shape[0] if x.ndim > 3 else 1
        noise = normal(samples, x.numel() // max(samples, 1), x.device).reshape(x.shape).to(x.dtype)
        result = x + (noise * sigma + mean)
        return _unit(result) if clip or (isinstance(inpt, Tensor) and not is_floating(inpt.dtype)) or is_pil(inpt) else result

    return _on_unit("gaussian_noise", inpt, noisy)


def erase(inpt: Any, i: Number, j: Number, h: Number, w: Number, v: Any, inplace: bool = False) -> Any:
    """Write ``v`` into the rectangle of h x w pixels at row i and column j, each a number or a tensor (batch,).

    Args:
        inpt: an image.
        v: a number, one for each channel, a tensor that broadcasts with the image, or if i, j, h and w are numbers one that
            broadcasts with the rectangle, such as (channels, h, w).
        inplace: write into the tensor itself.

    Raises:
        ShapeError: ``v`` has another shape.
    """

    def erased(x: Any) -> Any:
        rows, columns = (arange(n, device=x.device) for n in x.shape[-2:])
        is_row, is_column = (
            _is_within(place, _lead(first, x), _lead(count, x)) for place, first, count in ((rows, i, h), (columns, j, w))
        )
        is_erased = is_row.unsqueeze(-1) & is_column.unsqueeze(-2)
        value = _written(v, x, (i, j, h, w))
        return where(is_erased, value.to(x.dtype) if isinstance(value, Tensor) else value, x).to(x.dtype)

    result = _on_pixels("erase", inpt, erased)
    return inpt.copy_(result) if inplace and isinstance(inpt, Tensor) else result


def _written(v: Any, x: Tensor, place: tuple[Number, ...]) -> Any:
    """What is written into a rectangle (top, left, height, width), as a number or a tensor that broadcasts with the image."""
    channels = x.shape[-3]
    if isinstance(v, (tuple, list)):
        if len(v) not in (1, channels):
            raise ShapeError(f"erase: v={v!r} for an image of {channels} channels; expected a number, or one for each channel")
        return tensor(list(v), device=x.device).reshape(-1, 1, 1)
    if not isinstance(v, Tensor) or _broadcasts(v.shape, x.shape):
        return v
    if not any(isinstance(number, Tensor) for number in place):
        top, left, height, width = place
        v = v.reshape(*(1,) * (2 - v.ndim), *v.shape)
        if _broadcasts(v.shape, (*x.shape[:-2], height, width)):
            row, column = (
                (arange(n, device=x.device) - first).clamp(0, size - 1)
                for n, first, size in zip(x.shape[-2:], (top, left), v.shape[-2:])
            )
            return v.to(x.device)[..., row.reshape(-1, 1), column]
    raise ShapeError(
        f"erase: v has shape {tuple(v.shape)}; expected one that broadcasts with the image, {tuple(x.shape)}, or with the rectangle"
    )


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether a tensor of the first shape can be expanded to the second one."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to)))


def _lead(value: Number, x: Tensor) -> Any:
    return value.reshape(-1, *(1,) * (x.ndim - 2)) if isinstance(value, Tensor) else value


def _is_within(place: Tensor, first: Any, count: Any) -> Tensor:
    return (place >= first) & (place < first + count)


# ---- conversions ------------------------------------------------------------------------------------------------------


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


# ---- boxes ------------------------------------------------------------------------------------------------------------


def clamp_bounding_boxes(inpt: BoundingBoxes) -> BoundingBoxes:
    """Move the corners of boxes into the image."""
    return warp.move_boxes(inpt, shift_and_scale(0.0, 0.0), inpt.canvas_size)


def convert_bounding_box_format(inpt: BoundingBoxes, new_format: Any) -> BoundingBoxes:
    """Boxes in another format."""
    name = new_format.value if isinstance(new_format, BoundingBoxFormat) else str(new_format).lower()
    return wrap(box_convert(inpt, inpt.format.value, name).to(inpt.dtype), like=inpt, format=name.upper())


def _rounding_of_corners(boxes: BoundingBoxes) -> float:
    """By how many pixels the corners of boxes that touch the border of the image may be rounded to the outside."""
    if boxes.format is BoundingBoxFormat.XYXY:
        return 0.0
    return max(boxes.canvas_size) * 2.0 ** (3 - significand_bits(boxes.dtype)) if is_floating(boxes.dtype) else 1.0


def sanitize_bounding_boxes(
    bounding_boxes: BoundingBoxes, min_size: float = 1.0, min_area: float = 1.0
) -> tuple[BoundingBoxes, Tensor]:
    """Drop the boxes of an image whose sides or area are too small, or that have a corner outside of the image.

    Args:
        bounding_boxes: (boxes, 4), or (batch, boxes, 4), of which none is dropped, but boxes become 0.
        min_size: the least width and height.
        min_area: the least area.

    Returns:
        The boxes that are left, and which they are, bool (boxes,) or (batch, boxes).
    """
    corners: Any = box_convert(bounding_boxes, bounding_boxes.format.value, "xyxy")
    x1, y1, x2, y2 = corners.unbind(-1)
    width, height = x2 - x1, y2 - y1
    is_valid = (width >= min_size) & (height >= min_size) & (width * height >= min_area)
    rows, columns = bounding_boxes.canvas_size
    slack = _rounding_of_corners(bounding_boxes)
    is_valid = is_valid & (x1 >= -slack) & (y1 >= -slack) & (x2 <= columns + slack) & (y2 <= rows + slack)
    if bounding_boxes.ndim > 2:
        return wrap(where(is_valid.unsqueeze(-1), bounding_boxes, 0), like=bounding_boxes), is_valid
    return wrap(bounding_boxes[is_valid], like=bounding_boxes), is_valid
