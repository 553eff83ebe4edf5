"""Functions that move pixels, and boxes and masks with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, as_positive
from gpunet.ops.interpolate import interpolate
from gpunet.vision.images import is_pil, pillow
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.functional.inputs import (
    NEAREST,
    InterpolationMode,
    Number,
    as_mode,
    as_pair,
    fill_for,
    size_of,
    through_tensor,
)
from gpunet.vision.transforms.warp import Batch, Map, on_axes, shift_and_scale
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

__all__ = [
    "affine", "center_crop", "crop", "hflip", "horizontal_flip", "pad", "perspective", "resize", "resized_crop", "rotate",
    "vertical_flip", "vflip",
]  # fmt: skip


def warped(name: str, inpt: Any, forward: Map, size: tuple[int, int], interpolation: Any, fill: Any) -> Any:
    """An image, a mask or boxes, mapped into ``size``."""
    mode = as_mode(name, interpolation)
    if mode not in (*NEAREST, InterpolationMode.BILINEAR):
        raise ArgumentError(f"{name}: interpolation={mode}; expected NEAREST or BILINEAR")
    if isinstance(inpt, BoundingBoxes):
        return warp.move_boxes(inpt, forward, size)
    if is_pil(inpt):
        return through_tensor(inpt, lambda x: _warp_planes(name, x, forward, size, mode, fill_for(fill, inpt)))
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
        return through_tensor(inpt, lambda x: pad(x, padding, fill, padding_mode))
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
