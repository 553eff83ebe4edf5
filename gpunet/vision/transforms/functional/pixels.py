"""Functions that change pixels and leave boxes and masks as they are: colours, blur, noise, erasing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_floating, is_half, limits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import active
from gpunet.ops.activations import hardtanh
from gpunet.ops.creation import arange, full, tensor, zeros
from gpunet.ops.elementwise import exp, maximum, minimum, where
from gpunet.ops.face import as_number
from gpunet.ops.join import stack
from gpunet.ops.order import amax, amin
from gpunet.ops.rounding import floor
from gpunet.ops.scatter import index_add
from gpunet.vision.images import is_pil
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.draws import normal
from gpunet.vision.transforms.functional.geometry import pad
from gpunet.vision.transforms.functional.inputs import Number, on_pixels

__all__ = [
    "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation", "adjust_sharpness", "autocontrast", "equalize",
    "erase", "gaussian_blur", "gaussian_noise", "invert", "posterize", "rgb_to_grayscale", "solarize", "to_grayscale",
]  # fmt: skip


def _on_unit(name: str, inpt: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function of floating numbers in 0 .. 1 to an image; integers are scaled before, and rounded after it."""

    def apply(x: Tensor) -> Tensor:
        dtype = x.dtype
        if is_floating(dtype):
            return function(x.float()).to(dtype) if is_half(dtype) else function(x)
        top = float(limits(dtype)[1])
        return warp.saturated((function(warp.as_floating(x) * (1 / top)) * top).round(), dtype)

    return on_pixels(name, inpt, apply)


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
        result = x.clone()
        result[..., 1:-1, 1:-1] = _blended(x[..., 1:-1, 1:-1], smooth, _entry(sharpness_factor, x))
        return result

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

    return on_pixels("Grayscale", inpt, gray_of)


to_grayscale = rgb_to_grayscale


def invert(inpt: Any) -> Any:
    """1 - x; of integers the largest one minus x."""
    return on_pixels("invert", inpt, lambda x: 1 - x if is_floating(x.dtype) else int(limits(x.dtype)[1]) - x)


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

    return on_pixels("posterize", inpt, reduced)


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
        is_flat = high == low
        return _unit((x - where(is_flat, 0.0, low)) / where(is_flat, 1.0, high - low))

    return _on_unit("autocontrast", inpt, stretched)


def equalize(inpt: Any) -> Any:
    """Make the 256 levels of each channel equally frequent, as Pillow's ImageOps.equalize.

    Numbers below 0 count as 0, and those above 1 as 1.
    """

    def equalized(x: Any) -> Any:
        levels = (_unit(x) * 255.999).to("int64").reshape(-1, x.shape[-2] * x.shape[-1])
        first = (256 * arange(len(levels), device=x.device)).reshape(-1, 1)
        places = levels + first  # in a vector of the tables of all channels
        counts = _counts(places)
        sums = counts.cumsum(1)
        last = amax(levels, 1, True)
        step = floor((levels.shape[1] - counts.gather(1, last)) / 255)
        table = hardtanh(floor((sums - counts + floor(step / 2)) / step.clamp(min=1.0)), 0.0, 255.0)
        table = where(step == 0, arange(256, dtype="float32", device=x.device), table)
        return ((table / 255).to(x.dtype).reshape(-1)[places.reshape(-1)]).reshape(x.shape)

    return _on_unit("equalize", inpt, equalized)


def _counts(places: Tensor) -> Any:
    """How often each of 256 levels occurs in each row of int64 (rows, n), whose levels begin with 256 row: float32 (rows, 256)."""
    rows = len(places)
    if type(places.array) is numpy.ndarray and active.tape is None:  # many times as fast as sums at indices
        return make_tensor(numpy.bincount(numpy.ravel(places.array), minlength=256 * rows).reshape(rows, 256).astype(numpy.float32))
    ones = full((places.numel(),), 1.0, device=places.device)
    return index_add(zeros(256 * rows, device=places.device), 0, places.reshape(-1), ones).reshape(rows, 256)


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

    result = on_pixels("erase", inpt, erased)
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
