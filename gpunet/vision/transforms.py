"""Transforms of images, with torchvision's names: of PIL images, and of tensors (..., channels, height, width).

Random numbers come from gpunet's default generator, so that a DataLoader keys them by the sample.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating, limits
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.creation import tensor
from gpunet.ops.face import as_probability
from gpunet.ops.interpolate import interpolate
from gpunet.ops.pad import pad
from gpunet.ops.random import rand, randint, randperm
from gpunet.vision.images import is_pil, pillow, pixels_of, to_pil, to_tensor

__all__ = [
    "CenterCrop", "Compose", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Lambda", "Normalize", "PILToTensor", "Pad",
    "RandomApply", "RandomChoice", "RandomCrop", "RandomHorizontalFlip", "RandomOrder", "RandomResizedCrop", "RandomVerticalFlip",
    "Resize", "ToPILImage", "ToTensor",
]  # fmt: skip


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


class _Transform:
    """Base class: a function of an image, whose arguments are printed."""

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items() if not name.startswith("_"))
        return f"{type(self).__name__}({options})"

    def __call__(self, img: Any) -> Any:
        return self.forward(img)

    def forward(self, img: Any) -> Any:
        raise NotImplementedError


def _random() -> float:
    return rand(1, device="cpu").item()


def _random_integer(high: int) -> int:
    return int(randint(0, high, (1,), device="cpu").item())


def _size_of(img: Any, name: str) -> tuple[int, int]:
    """The height and width of an image."""
    if is_pil(img):
        return img.height, img.width
    if isinstance(img, Tensor) and img.ndim >= 2:
        return int(img.shape[-2]), int(img.shape[-1])
    raise DtypeError(f"{name}: got a {type(img).__name__}; expected a PIL image, or a tensor (..., height, width)")


def _pair(name: str, value: Any) -> tuple[int, int]:
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(items) not in (1, 2) or not all(isinstance(n, int) and n > 0 for n in items):
        raise ArgumentError(f"{name}: size={value!r}; expected a positive integer, or (height, width)")
    return items[0], items[-1]


def _crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """A part of an image; what lies outside of it is 0."""
    if is_pil(img):
        return img.crop((left, top, left + width, top + height))
    rows, columns = _size_of(img, "crop")
    border = (max(0, -left), max(0, left + width - columns), max(0, -top), max(0, top + height - rows))
    if any(border):
        img, top, left = pad(img, border), max(0, top), max(0, left)
    return img[..., top : top + height, left : left + width]


class Compose(_Transform):
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def forward(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform!r}" for transform in self.transforms)
        return f"Compose({lines}\n)"


class Lambda(_Transform):
    """Apply a function."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise DtypeError(f"Lambda: got a {type(lambd).__name__}; expected a function")
        self.lambd = lambd

    def forward(self, img: Any) -> Any:
        return self.lambd(img)


# ---- conversions ------------------------------------------------------------------------------------------------------


class ToTensor(_Transform):
    """A PIL image or an array (height, width, channels) as a tensor (channels, height, width).

    Bytes become numbers from 0 to 1 of the default dtype.
    """

    def forward(self, img: Any) -> Tensor:
        return to_tensor(img)


class PILToTensor(_Transform):
    """A PIL image as a tensor (channels, height, width) of its own dtype."""

    def forward(self, img: Any) -> Tensor:
        return make_tensor(numpy.ascontiguousarray(pixels_of(img, "PILToTensor").transpose(2, 0, 1)))


class ToPILImage(_Transform):
    """A tensor (channels, height, width), or an array (height, width, channels), as a PIL image.

    Args:
        mode: the mode of the image, which says what the channels are; nothing is converted.  None takes "L", "LA", "RGB" or
            "RGBA" for bytes, "I;16" for int16, "I" for int32, and "F" for an array of float32.

    Raises:
        ArgumentError: no such image has the mode.
        DtypeError: no image has numbers of the dtype.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def forward(self, img: Any) -> Any:
        return to_pil(img, self.mode)


class ConvertImageDtype(_Transform):
    """A tensor in another dtype; between integers and floating numbers, the largest integer is 1."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def forward(self, img: Any) -> Any:
        wanted = tensor(0, dtype=self.dtype).dtype
        if is_floating(img.dtype) == is_floating(wanted):
            return img.to(wanted)
        largest = float(limits(img.dtype if is_floating(wanted) else wanted)[1])
        return img.to(wanted) / largest if is_floating(wanted) else (img * (largest + 1.0 - 1e-3)).to(wanted)


class Normalize(_Transform):
    """(channel - mean) / std of tensors (..., channels, height, width).

    Raises:
        ArgumentError: a std is 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace
        if 0 in [float(s) for s in std]:
            raise ArgumentError(f"Normalize: std={list(std)}; expected numbers other than 0")

    def forward(self, img: Any) -> Any:
        if not isinstance(img, Tensor) or not img.is_floating_point():
            kind = f"a tensor of dtype {img.dtype}" if isinstance(img, Tensor) else f"a {type(img).__name__}"
            raise DtypeError(f"Normalize: got {kind}; expected a floating tensor: put ToTensor() before it")
        count = img.shape[-3] if img.ndim >= 3 else 0
        if len(self.mean) not in (1, count) or len(self.std) not in (1, count):
            raise ShapeError(
                f"Normalize: a tensor of shape {tuple(img.shape)}, {len(self.mean)} means and {len(self.std)} stds; expected one "
                "for each channel"
            )
        mean, std = (tensor(list(v), dtype=img.dtype, device=img.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return img.sub_(mean).div_(std) if self.inplace else (img - mean) / std


class Grayscale(_Transform):
    """The luminance of a colour image: 0.2989 R + 0.587 G + 0.114 B."""

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ArgumentError(f"Grayscale: num_output_channels={num_output_channels}; expected 1 or 3")
        self.num_output_channels = num_output_channels

    def forward(self, img: Any) -> Any:
        if is_pil(img):
            gray = img.convert("L")
            return gray if self.num_output_channels == 1 else pillow().merge("RGB", (gray,) * 3)
        red, green, blue = (img[..., channel, :, :] for channel in range(3))
        gray = (red * 0.2989 + green * 0.587 + blue * 0.114).to(img.dtype)[..., None, :, :]
        return gray if self.num_output_channels == 1 else gray.expand(*img.shape)


# ---- sizes ------------------------------------------------------------------------------------------------------------


class Resize(_Transform):
    """Resize an image.

    Args:
        size: (height, width), or the length of the shorter side.
        interpolation: an :class:`InterpolationMode`, or Pillow's number.  NEAREST of a tensor is :func:`interpolate`'s "nearest",
            which differs from that of images; NEAREST_EXACT is the same for both.
        max_size: for one number, the most that the longer side may have.
        antialias: whether tensors are resized as Pillow resizes images, in float32 on the CPU, without a gradient; else by
            :func:`interpolate`.  Images always are, and the nearest element needs none.

    Raises:
        ArgumentError: the size, the mode, or a mode without antialiasing that only Pillow has.
    """

    def __init__(
        self, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None, antialias: bool | None = True
    ) -> None:
        _pair("Resize", size)
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = _interpolation("Resize", interpolation)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, (tuple, list)) and len(self.size) == 2:
            return self.size[0], self.size[1]
        short, long = min(height, width), max(height, width)
        side = _pair("Resize", self.size)[0]
        new_long = int(side * long / short)
        if self.max_size is not None and new_long > self.max_size:
            side, new_long = int(self.max_size * side / new_long), self.max_size
        return (side, new_long) if height <= width else (new_long, side)

    def forward(self, img: Any) -> Any:
        target = self._target(*_size_of(img, "Resize"))
        return _resize(img, target, self.interpolation, self.antialias)


def _interpolation(name: str, value: Any) -> InterpolationMode:
    """An argument as a mode of interpolation."""
    mode = _PILLOW_MODES.get(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(mode, InterpolationMode):
        raise ArgumentError(f"{name}: interpolation={value!r}; expected an InterpolationMode, or Pillow's number 0 .. 5")
    return mode


def _resize(img: Any, size: tuple[int, int], mode: InterpolationMode, antialias: bool | None) -> Any:
    if _size_of(img, "Resize") == size:
        return img
    is_nearest = mode in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT)
    if not is_pil(img) and (is_nearest or not antialias):
        return _interpolated(img, size, mode)
    image = pillow()
    kind = image.NEAREST if is_nearest else getattr(image, mode.name)
    if is_pil(img):
        return img.resize(size[::-1], kind)
    array = devices.to_host(img.detach().array)
    planes = array.reshape(-1, *array.shape[-2:]).astype(numpy.float32)
    resized = numpy.stack([numpy.asarray(image.fromarray(plane).resize(size[::-1], kind)) for plane in planes])
    if not is_floating(img.dtype):
        resized = numpy.clip(numpy.rint(resized), *limits(img.dtype))
    return tensor(resized.reshape(*array.shape[:-2], *size), dtype=img.dtype, device=img.device)


def _interpolated(img: Tensor, size: tuple[int, int], mode: InterpolationMode) -> Tensor:
    """A tensor (..., height, width) resized without antialiasing; integers are rounded."""
    is_nearest = mode in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT)
    if not is_nearest and mode not in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        raise ArgumentError(f"Resize: interpolation={mode} of a tensor without antialiasing; pass antialias=True, or BILINEAR")
    images = img.reshape(1, -1, *img.shape[-2:])
    if is_nearest:
        resized = interpolate(images, size, mode=mode.value)
    elif is_floating(img.dtype):
        resized = interpolate(images, size, mode=mode.value, align_corners=False)
    else:
        resized = interpolate(images.float(), size, mode=mode.value, align_corners=False)
        resized = resized.round().clamp(*limits(img.dtype)).to(img.dtype)
    return resized.reshape(*img.shape[:-2], *size)


class Pad(_Transform):
    """A border around an image.

    Args:
        padding: its width, or (left and right, top and bottom), or (left, top, right, bottom).
        fill: the number in it.
        padding_mode: "constant", "edge", "reflect" or "symmetric".
    """

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ArgumentError(f"Pad: padding_mode={padding_mode!r}; expected 'constant', 'edge', 'reflect' or 'symmetric'")
        items = (padding,) if isinstance(padding, int) else tuple(padding)
        if len(items) not in (1, 2, 4):
            raise ArgumentError(f"Pad: padding={padding!r}; expected 1, 2 or 4 integers")
        self._sides = items * 4 if len(items) == 1 else items * 2 if len(items) == 2 else items

    def forward(self, img: Any) -> Any:
        left, top, right, bottom = self._sides
        array = numpy.asarray(img) if is_pil(img) else devices.to_host(img.detach().array)
        at = 0 if is_pil(img) else array.ndim - 2
        widths = [(0, 0)] * array.ndim
        widths[at : at + 2] = [(top, bottom), (left, right)]
        options: dict[str, Any] = {"constant_values": self.fill} if self.padding_mode == "constant" else {}
        padded = numpy.pad(array, widths, mode=self.padding_mode, **options)  # type: ignore[call-overload]
        return pillow().fromarray(padded) if is_pil(img) else tensor(padded, device=img.device)


class CenterCrop(_Transform):
    """The middle of an image; a smaller image gets a border of zeros."""

    def __init__(self, size: Any) -> None:
        self.size = _pair("CenterCrop", size)

    def forward(self, img: Any) -> Any:
        (height, width), (rows, columns) = self.size, _size_of(img, "CenterCrop")
        return _crop(img, _middle(rows, height), _middle(columns, width), height, width)


def _middle(length: int, size: int) -> int:
    """Where the middle part of this size begins; a border around a smaller image is wider below and to the right."""
    return round((length - size) / 2.0) if length >= size else -((size - length) // 2)


class RandomCrop(_Transform):
    """A part of an image at a random place.

    Args:
        size: (height, width), or both.
        padding: of the border that the image gets before, as in :class:`Pad`; None for none.
        pad_if_needed: give a smaller image a border.
        fill, padding_mode: of the border.

    Raises:
        ShapeError: the image is smaller than the part.
    """

    def __init__(
        self, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0, padding_mode: str = "constant"
    ) -> None:
        self.size, self.padding, self.pad_if_needed = _pair("RandomCrop", size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    def forward(self, img: Any) -> Any:
        if self.padding is not None:
            img = Pad(self.padding, self.fill, self.padding_mode)(img)
        height, width = self.size
        rows, columns = _size_of(img, "RandomCrop")
        if self.pad_if_needed and (columns < width or rows < height):
            img = Pad((max(0, width - columns), max(0, height - rows)), self.fill, self.padding_mode)(img)
            rows, columns = _size_of(img, "RandomCrop")
        if rows < height or columns < width:
            raise ShapeError(f"RandomCrop: an image of {rows} x {columns} for size={self.size}; pass pad_if_needed=True")
        return _crop(img, _random_integer(rows - height + 1), _random_integer(columns - width + 1), height, width)


class RandomResizedCrop(_Transform):
    """A random part of an image, resized.

    Args:
        size: (height, width) of the result, or both.
        scale: the range of the share of the image's area.
        ratio: the range of width / height.
        interpolation, antialias: as in :class:`Resize`.
    """

    def __init__(
        self, size: Any, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True,
    ) -> None:  # fmt: skip
        self.size, self.scale, self.ratio = _pair("RandomResizedCrop", size), scale, ratio
        self.interpolation, self.antialias = _interpolation("RandomResizedCrop", interpolation), antialias

    def _place(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = rows * columns * (self.scale[0] + (self.scale[1] - self.scale[0]) * _random())
            ratio = math.exp(low + (high - low) * _random())
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= columns and 0 < height <= rows:
                return _random_integer(rows - height + 1), _random_integer(columns - width + 1), height, width
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width, height = min(columns, round(rows * ratio)), min(rows, round(columns / ratio))
        return (rows - height) // 2, (columns - width) // 2, height, width

    def forward(self, img: Any) -> Any:
        place = self._place(*_size_of(img, "RandomResizedCrop"))
        return _resize(_crop(img, *place), self.size, self.interpolation, self.antialias)


# ---- random choices ---------------------------------------------------------------------------------------------------


class RandomHorizontalFlip(_Transform):
    """Exchange left and right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_probability(type(self).__name__, "p", p)

    def forward(self, img: Any) -> Any:
        if _random() >= self.p:
            return img
        return img.transpose(pillow().FLIP_LEFT_RIGHT) if is_pil(img) else img.flip(-1)


class RandomVerticalFlip(_Transform):
    """Exchange top and bottom with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_probability(type(self).__name__, "p", p)

    def forward(self, img: Any) -> Any:
        if _random() >= self.p:
            return img
        return img.transpose(pillow().FLIP_TOP_BOTTOM) if is_pil(img) else img.flip(-2)


class RandomApply(_Transform):
    """Apply all of the transforms with probability ``p``, or none."""

    def __init__(self, transforms: Sequence[Callable[..., Any]], p: float = 0.5) -> None:
        self.transforms, self.p = transforms, as_probability("RandomApply", "p", p)

    def forward(self, img: Any) -> Any:
        return img if _random() >= self.p else Compose(self.transforms)(img)


class RandomChoice(_Transform):
    """Apply one of the transforms."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def forward(self, img: Any) -> Any:
        return self.transforms[_random_integer(len(self.transforms))](img)


class RandomOrder(_Transform):
    """Apply the transforms in a random order."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def forward(self, img: Any) -> Any:
        return Compose([self.transforms[i] for i in randperm(len(self.transforms), device="cpu").tolist()])(img)
