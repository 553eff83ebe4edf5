"""Transforms of colours, blur, noise and erasing; boxes and masks stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.face import as_integer, as_number, as_probability
from gpunet.vision.images import is_pil
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms.draws import normal
from gpunet.vision.transforms.functional.geometry import select
from gpunet.vision.transforms.geometry import between, positive_range, random_part, symmetric
from gpunet.vision.transforms.transform import Frame, Transform
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

__all__ = [
    "ColorJitter", "GaussianBlur", "GaussianNoise", "Grayscale", "RandomAdjustSharpness", "RandomAutocontrast", "RandomEqualize",
    "RandomErasing", "RandomGrayscale", "RandomInvert", "RandomPosterize", "RandomSolarize",
]  # fmt: skip


class ColorJitter(Transform):
    """Random brightness, contrast, saturation and hue, in this order.

    Args:
        brightness, contrast, saturation: the range of factors, or a number v for max(0, 1 - v) to 1 + v; None or 0 for none.
        hue: the range of turns, within -0.5 to 0.5 of the circle of colours, or a number for -hue to hue.

    Raises:
        ArgumentError: a range that is none, or a hue outside of -0.5 to 0.5.
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0) -> None:
        given = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self._ranges: dict[str, tuple[float, float]] = {}
        for name, value in given.items():
            setattr(self, name, value)
            center, least = (0.0, None) if name == "hue" else (1.0, 0.0)
            found = symmetric("ColorJitter", name, 0 if value is None else value, center, least)
            if found != (center, center):
                self._ranges[name] = found
        low, high = self._ranges.get("hue", (0.0, 0.0))
        if low < -0.5 or high > 0.5:
            raise ArgumentError(f"ColorJitter: hue={hue!r}; expected numbers from -0.5 to 0.5")

    def draw(self, frame: Frame) -> dict[str, Any]:
        u = frame.uniform(4)
        return {name: between(u[:, n], *self._ranges[name]) for n, name in enumerate(_ADJUST) if name in self._ranges}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        for name, factor in params.items():
            inpt = _ADJUST[name](inpt, factor)
        return inpt


_ADJUST = {
    "brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation, "hue": F.adjust_hue,
}  # fmt: skip


class Grayscale(Transform):
    """The luminance of a colour image: 0.2989 R + 0.587 G + 0.114 B."""

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ArgumentError(f"Grayscale: num_output_channels={num_output_channels}; expected 1 or 3")
        self.num_output_channels = num_output_channels

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.rgb_to_grayscale(inpt, self.num_output_channels)


class RandomGrayscale(Transform):
    """The luminance in all channels, with probability ``p``."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = as_probability("RandomGrayscale", "p", p)

    def draw(self, frame: Frame) -> dict[str, Any]:
        return {"is_gray": frame.uniform()[:, 0] < self.p}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        is_gray = params["is_gray"]
        if isinstance(inpt, (BoundingBoxes, Mask)):
            return inpt
        if isinstance(inpt, Tensor) and inpt.ndim > 2 and inpt.shape[-3] not in (1, 3):
            raise ShapeError(f"RandomGrayscale: a tensor of shape {tuple(inpt.shape)}; expected 1 or 3 channels")
        if is_gray is False:
            return inpt
        if is_pil(inpt):
            return F.rgb_to_grayscale(inpt, 3 if len(inpt.getbands()) > 1 else 1)
        if inpt.ndim < 3:
            return inpt
        gray = F.rgb_to_grayscale(inpt, int(inpt.shape[-3]))
        return wrap(select(is_gray, gray, inpt), like=inpt)


class _RandomColor(Transform):
    """Base class: change the colours of an image with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_probability(self._name, "p", p)

    def draw(self, frame: Frame) -> dict[str, Any]:
        return {"is_changed": frame.uniform()[:, 0] < self.p}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        is_changed = params["is_changed"]
        if isinstance(inpt, (BoundingBoxes, Mask)) or is_changed is False:
            return inpt
        changed = self.change(inpt)
        return changed if is_pil(inpt) else wrap(select(is_changed, changed, inpt), like=inpt)

    def change(self, inpt: Any) -> Any:
        """The changed image."""
        raise NotImplementedError


class RandomInvert(_RandomColor):
    """1 - x, of integers the largest one minus x, with probability ``p``."""

    def change(self, inpt: Any) -> Any:
        return F.invert(inpt)


class RandomPosterize(_RandomColor):
    """Keep the highest ``bits`` bits of each channel, 0 to 8, with probability ``p``.

    Raises:
        ArgumentError: another number of bits.
    """

    def __init__(self, bits: int, p: float = 0.5) -> None:
        super().__init__(p)
        self.bits = as_integer("RandomPosterize", "bits", bits)
        if not 0 <= self.bits <= 8:
            raise ArgumentError(f"RandomPosterize: bits={bits!r}; expected 0 to 8")

    def change(self, inpt: Any) -> Any:
        return F.posterize(inpt, self.bits)


class RandomSolarize(_RandomColor):
    """Invert the numbers at and above ``threshold``, which is in the range of the dtype, with probability ``p``."""

    def __init__(self, threshold: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.threshold = as_number("RandomSolarize", "threshold", threshold)

    def change(self, inpt: Any) -> Any:
        return F.solarize(inpt, self.threshold)


class RandomAdjustSharpness(_RandomColor):
    """Multiply the distance from a smoothed image by ``sharpness_factor``, 0 or more, with probability ``p``.

    Raises:
        ArgumentError: a negative factor.
    """

    def __init__(self, sharpness_factor: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.sharpness_factor = as_number("RandomAdjustSharpness", "sharpness_factor", sharpness_factor)
        if not self.sharpness_factor >= 0:
            raise ArgumentError(f"RandomAdjustSharpness: sharpness_factor={sharpness_factor!r}; expected 0 or more")

    def change(self, inpt: Any) -> Any:
        return F.adjust_sharpness(inpt, self.sharpness_factor)


class RandomAutocontrast(_RandomColor):
    """Stretch each channel so that its smallest number is 0 and its largest one 1, with probability ``p``."""

    def change(self, inpt: Any) -> Any:
        return F.autocontrast(inpt)


class RandomEqualize(_RandomColor):
    """Make the 256 levels of each channel equally frequent, with probability ``p``."""

    def change(self, inpt: Any) -> Any:
        return F.equalize(inpt)


class GaussianBlur(Transform):
    """Blur by a Gaussian with a random standard deviation.

    Args:
        kernel_size: odd numbers of pixels, (along x, along y) or one for both.
        sigma: the range of standard deviations in pixels, or one number.

    Raises:
        ArgumentError: an even or nonpositive size, or a nonpositive sigma.
    """

    def __init__(self, kernel_size: Any, sigma: Any = (0.1, 2.0)) -> None:
        sizes = tuple(kernel_size) if isinstance(kernel_size, (tuple, list)) else (kernel_size,)
        if len(sizes) not in (1, 2) or not all(isinstance(n, int) and n > 0 and n % 2 for n in sizes):
            raise ArgumentError(f"GaussianBlur: kernel_size={kernel_size!r}; expected one or two positive odd integers")
        items = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma, sigma)
        self.kernel_size, self.sigma = kernel_size, symmetric("GaussianBlur", "sigma", items)
        if self.sigma[0] <= 0:
            raise ArgumentError(f"GaussianBlur: sigma={sigma!r}; expected positive numbers")

    def draw(self, frame: Frame) -> dict[str, Any]:
        return {"sigma": between(frame.uniform()[:, 0], *self.sigma)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.gaussian_blur(inpt, self.kernel_size, params["sigma"])


class GaussianNoise(Transform):
    """Add normal numbers; see :func:`gpunet.vision.transforms.functional.gaussian_noise`."""

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, clip: bool = True) -> None:
        if as_number("GaussianNoise", "sigma", sigma) < 0:
            raise ArgumentError(f"GaussianNoise: sigma={sigma}; expected 0 or more")
        self.mean, self.sigma, self.clip = mean, sigma, clip

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.gaussian_noise(inpt, self.mean, self.sigma, self.clip)


class RandomErasing(Transform):
    """Erase a rectangle with probability ``p``.

    Args:
        p: the probability.
        scale: the range of the rectangle's share of the area.
        ratio: the range of its height / width.
        value: what is written: a number, one number for each channel, or "random" for normal numbers.
        inplace: write into the tensor itself.

    Raises:
        ArgumentError: a range that is none, or another value.
        ShapeError: (of an image) there are not as many values as channels.
    """

    def __init__(
        self, p: float = 0.5, scale: Sequence[float] = (0.02, 0.33), ratio: Sequence[float] = (0.3, 3.3), value: Any = 0.0,
        inplace: bool = False,
    ) -> None:  # fmt: skip
        self.p, self.scale, self.ratio = as_probability("RandomErasing", "p", p), scale, ratio
        for name, pair in (("scale", scale), ("ratio", ratio)):
            positive_range("RandomErasing", name, pair)
        is_sequence = isinstance(value, (tuple, list)) and all(isinstance(v, (int, float)) for v in value)
        if not (isinstance(value, (int, float)) or is_sequence or value == "random"):
            raise ArgumentError(f"RandomErasing: value={value!r}; expected a number, one for each channel, or 'random'")
        self.value, self.inplace = value, inplace

    def draw(self, frame: Frame) -> dict[str, Any]:
        is_erased = (frame.uniform()[:, 0] < self.p).to("int64")
        place = random_part(frame, self.scale, (1 / self.ratio[1], 1 / self.ratio[0]), 10, takes_whole=False)
        return {**place, "height": place["height"] * is_erased}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, (BoundingBoxes, Mask)):
            return inpt
        place = (params["top"], params["left"], params["height"], params["width"])
        return F.erase(inpt, *place, self._written(inpt), self.inplace)

    def _written(self, inpt: Any) -> Any:
        if isinstance(self.value, (tuple, list)):
            channels = len(inpt.getbands()) if is_pil(inpt) else inpt.shape[-3] if inpt.ndim > 2 else 1
            if len(self.value) not in (1, channels):
                raise ShapeError(
                    f"RandomErasing: value={self.value!r} for an image of {channels} channels; expected a number, or one for each "
                    "channel"
                )
            return list(self.value)
        if self.value != "random":
            return float(self.value)
        if not isinstance(inpt, Tensor):
            raise ArgumentError("RandomErasing: value='random' of a PIL image; put ToTensor() before it")
        samples = inpt.shape[0] if inpt.ndim > 3 else 1
        return normal(samples, inpt.numel() // max(samples, 1), inpt.device).reshape(inpt.shape)
