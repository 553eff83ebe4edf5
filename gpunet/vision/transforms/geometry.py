"""Transforms of the geometry: flips, crops, sizes, and affine and perspective maps.  Boxes and masks follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.creation import tensor
from gpunet.ops.elementwise import minimum, where
from gpunet.ops.face import as_number, as_probability
from gpunet.ops.join import stack
from gpunet.ops.rounding import floor
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.functional import InterpolationMode
from gpunet.vision.transforms.functional.geometry import (
    PADDING_MODES,
    crop_inside,
    flipped,
    resized,
    sides_of,
    target_size,
    warped,
)
from gpunet.vision.transforms.functional.inputs import as_mode, as_pair, size_of
from gpunet.vision.transforms.transform import Frame, Transform

__all__ = [
    "CenterCrop", "Pad", "RandomAffine", "RandomCrop", "RandomHorizontalFlip", "RandomPerspective", "RandomResizedCrop",
    "RandomRotation", "RandomVerticalFlip", "Resize",
]  # fmt: skip


def between(u: Any, low: float, high: float) -> Any:
    """Numbers in [0, 1) as numbers from ``low`` to ``high``."""
    return low + (high - low) * u


def below(u: Any, count: Any) -> Any:
    """Numbers in [0, 1) as integers from 0, below ``count``, int64."""
    found = floor(u * count).to("int64")
    return minimum(found, count - 1)  # u * count may be rounded up


def symmetric(function: str, name: str, value: Any, center: float = 0.0, least: float | None = None) -> tuple[float, float]:
    """A range: of a number v, from center - v to center + v; or two numbers in order.

    Raises:
        ArgumentError: a negative number, no two numbers in order, or one below ``least``.
    """
    if isinstance(value, (tuple, list)):
        items = tuple(as_number(function, name, v) for v in value)
    else:
        number = as_number(function, name, value)
        items = (center - number, center + number) if number >= 0 else ()
        items = (max(items[0], least), items[1]) if items and least is not None else items
    if len(items) != 2 or not items[0] <= items[1] or (least is not None and items[0] < least):
        raise ArgumentError(f"{function}: {name}={value!r}; expected a number of 0 or more, or two numbers in order")
    return items[0], items[1]


def positive_range(function: str, name: str, value: Any) -> tuple[float, float]:
    """Two positive numbers in order.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(value, (tuple, list)) or symmetric(function, name, value)[0] <= 0:
        raise ArgumentError(f"{function}: {name}={value!r}; expected two positive numbers in order")
    return symmetric(function, name, value)


class Resize(Transform):
    """Resize an image.

    Args:
        size: (height, width), or the length of the shorter side.
        interpolation: an :class:`InterpolationMode`, or Pillow's number.  NEAREST of a tensor is :func:`interpolate`'s "nearest",
            which differs from that of images; NEAREST_EXACT is the same for both.  Masks take the nearest pixel.
        max_size: for one number, the most that the longer side may have.
        antialias: whether tensors are resized as Pillow resizes images; else by :func:`interpolate`.  PIL images always are, and
            the nearest element needs none.

    Raises:
        ArgumentError: the size, the mode, or a mode without antialiasing that only Pillow has.
    """

    def __init__(
        self, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None, antialias: bool | None = True
    ) -> None:
        as_pair("Resize", size)
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = as_mode("Resize", interpolation)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = target_size(self.size, self.max_size, *size_of(inpt, "Resize"))
        return resized(inpt, size, self.interpolation, self.antialias)


class Pad(Transform):
    """A border around an image.

    Args:
        padding: its width, or (left and right, top and bottom), or (left, top, right, bottom).
        fill: see :func:`gpunet.vision.transforms.functional.fill_for`.
        padding_mode: "constant", "edge", "reflect" or "symmetric".
    """

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode
        if padding_mode not in PADDING_MODES:
            raise ArgumentError(f"Pad: padding_mode={padding_mode!r}; expected 'constant', 'edge', 'reflect' or 'symmetric'")
        sides_of("Pad", padding, padding_mode)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.pad(inpt, self.padding, self.fill, self.padding_mode)


class CenterCrop(Transform):
    """The middle of an image; a smaller image gets a border of zeros."""

    def __init__(self, size: Any) -> None:
        self.size = as_pair("CenterCrop", size)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.center_crop(inpt, self.size)


class RandomCrop(Transform):
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
        self.size, self.padding, self.pad_if_needed = as_pair("RandomCrop", size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode
        self._sides = (0, 0, 0, 0) if padding is None else sides_of("RandomCrop", padding, padding_mode)

    def draw(self, frame: Frame) -> dict[str, Any]:
        left, top, right, bottom = self._sides
        (height, width), rows, columns = self.size, frame.height + top + bottom, frame.width + left + right
        if self.pad_if_needed:
            across, down = max(0, width - columns), max(0, height - rows)
            left, top, right, bottom = left + across, top + down, right + across, bottom + down
            rows, columns = rows + 2 * down, columns + 2 * across
        if rows < height or columns < width:
            raise ShapeError(f"RandomCrop: an image of {rows} x {columns} for size={self.size}; pass pad_if_needed=True")
        u = frame.uniform(2)
        return {
            "top": below(u[:, 0], rows - height + 1), "left": below(u[:, 1], columns - width + 1),
            "sides": (left, top, right, bottom),
        }  # fmt: skip

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if any(params["sides"]):
            inpt = F.pad(inpt, params["sides"], self.fill, self.padding_mode)
        return crop_inside(inpt, params["top"], params["left"], *self.size)


class RandomResizedCrop(Transform):
    """A random part of an image, resized.

    Args:
        size: (height, width) of the result, or both.
        scale: the range of the share of the image's area.
        ratio: the range of width / height.
        interpolation, antialias: as in :class:`Resize`; of a batch NEAREST or BILINEAR.
    """

    _tries = 10

    def __init__(
        self, size: Any, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True,
    ) -> None:  # fmt: skip
        self.size, self.scale, self.ratio = as_pair("RandomResizedCrop", size), scale, ratio
        self.interpolation, self.antialias = as_mode("RandomResizedCrop", interpolation), antialias
        for name, value in (("scale", scale), ("ratio", ratio)):
            positive_range("RandomResizedCrop", name, value)

    def draw(self, frame: Frame) -> dict[str, Any]:
        return random_part(frame, self.scale, self.ratio, self._tries, takes_whole=True)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        place = (params["top"], params["left"], params["height"], params["width"])
        return F.resized_crop(inpt, *place, self.size, self.interpolation, self.antialias)


def random_part(frame: Frame, scale: Sequence[float], ratio: Sequence[float], tries: int, takes_whole: bool) -> dict[str, Any]:
    """A random part of each image: top, left, height and width, int64 (samples,).

    Args:
        scale: the range of the share of the area.
        ratio: the range of width / height, whose logarithm is uniform.
        tries: as many parts are drawn, of which the first one counts that fits into the image.
        takes_whole: if none fits, take the largest part in the middle whose ratio is in the range; else nothing.
    """
    rows, columns = frame.height, frame.width
    u = frame.uniform(2 * tries + 2)
    area = rows * columns * between(u[:, :tries], *scale)
    aspect = between(u[:, tries : 2 * tries], math.log(ratio[0]), math.log(ratio[1])).exp()
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= columns) & (heights > 0) & (heights <= rows)
    first = fits.to("int64").argmax(1, keepdim=True)
    width, height = (v.gather(1, first)[:, 0].to("int64") for v in (widths, heights))
    fits = fits.any(1)
    if takes_whole:
        nearest = min(max(columns / rows, ratio[0]), ratio[1])
        whole_width, whole_height = min(columns, round(rows * nearest)), min(rows, round(columns / nearest))
    else:
        whole_width = whole_height = 0
    width, height = where(fits, width, whole_width), where(fits, height, whole_height)
    top = where(fits, below(u[:, -2], rows - height + 1), (rows - whole_height) // 2)
    left = where(fits, below(u[:, -1], columns - width + 1), (columns - whole_width) // 2)
    return {"top": top, "left": left, "height": height, "width": width}


class _RandomFlip(Transform):
    """Base class: exchange the sides along a dimension with probability ``p``."""

    _dim = -1

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_probability(type(self).__name__, "p", p)

    def draw(self, frame: Frame) -> dict[str, Any]:
        return {"is_flipped": frame.uniform()[:, 0] < self.p}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return flipped(self._name, inpt, self._dim, params["is_flipped"])


class RandomHorizontalFlip(_RandomFlip):
    """Exchange left and right with probability ``p``."""


class RandomVerticalFlip(_RandomFlip):
    """Exchange top and bottom with probability ``p``."""

    _dim = -2


class RandomRotation(Transform):
    """Rotate by a random angle, counterclockwise.

    Args:
        degrees: the range of angles, or a number for -degrees to degrees.
        interpolation, expand, center, fill: see :func:`gpunet.vision.transforms.functional.rotate`; ``expand`` is of single images.
    """

    def __init__(
        self, degrees: Any, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False, center: Any = None, fill: Any = 0
    ) -> None:
        self.degrees = symmetric("RandomRotation", "degrees", degrees)
        self.interpolation, self.expand = as_mode("RandomRotation", interpolation), expand
        self.center, self.fill = center, fill

    def draw(self, frame: Frame) -> dict[str, Any]:
        return {"angle": between(frame.uniform()[:, 0], *self.degrees)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.rotate(inpt, params["angle"], self.interpolation, self.expand, self.center, self.fill)


class RandomAffine(Transform):
    """Rotate, translate, scale and shear at random.

    Args:
        degrees: the range of angles, clockwise, or a number for -degrees to degrees.
        translate: the largest shifts (across, down) as shares of width and height; they are whole pixels.  None for none.
        scale: the range of factors; None for 1.
        shear: the range of angles along x, a number for -shear to shear, or two ranges in one tuple, along x and along y.
        interpolation, fill, center: see :func:`gpunet.vision.transforms.functional.affine`.

    Raises:
        ArgumentError: a range that is none, a share outside of 0 .. 1, or a scale that is not positive.
    """

    def __init__(
        self, degrees: Any, translate: Sequence[float] | None = None, scale: Sequence[float] | None = None, shear: Any = None,
        interpolation: Any = InterpolationMode.NEAREST, fill: Any = 0, center: Any = None,
    ) -> None:  # fmt: skip
        self.degrees = symmetric("RandomAffine", "degrees", degrees)
        self.translate, self.scale, self.shear = translate, scale, shear
        self.interpolation, self.fill, self.center = as_mode("RandomAffine", interpolation), fill, center
        items = translate if isinstance(translate, (tuple, list)) else (translate,)
        shares = [] if translate is None else [as_number("RandomAffine", "translate", item) for item in items]
        if translate is not None and not (len(shares) == 2 and all(0 <= share <= 1 for share in shares)):
            raise ArgumentError(f"RandomAffine: translate={translate!r}; expected two shares from 0 to 1")
        if scale is not None:
            positive_range("RandomAffine", "scale", scale)
        is_double = isinstance(shear, (tuple, list)) and len(shear) == 4
        ranges = (shear[:2], shear[2:]) if is_double else (0.0 if shear is None else shear, 0.0)
        self._shears = tuple(symmetric("RandomAffine", "shear", r) for r in ranges)

    def draw(self, frame: Frame) -> dict[str, Any]:
        u = frame.uniform(6)
        share = self.translate or (0.0, 0.0)
        shifts = [
            between(u[:, n], -size * s, size * s).round() if s else 0.0
            for n, (size, s) in enumerate(((frame.width, share[0]), (frame.height, share[1])), 1)
        ]
        shears = [between(u[:, n], *s) if s != (0.0, 0.0) else 0.0 for n, s in enumerate(self._shears, 4)]
        return {
            "angle": between(u[:, 0], *self.degrees), "x": shifts[0], "y": shifts[1],
            "scale": 1.0 if self.scale is None else between(u[:, 3], *self.scale), "shear_x": shears[0], "shear_y": shears[1],
        }  # fmt: skip

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        translate, shear = (params["x"], params["y"]), (params["shear_x"], params["shear_y"])
        return F.affine(inpt, params["angle"], translate, params["scale"], shear, self.interpolation, self.fill, self.center)


class RandomPerspective(Transform):
    """A random perspective with probability ``p``: each corner moves inwards.

    Args:
        distortion_scale: the largest shift, as a share of half of width and height.
        p: the probability.
        interpolation, fill: see :func:`gpunet.vision.transforms.functional.perspective`.

    Raises:
        ArgumentError: a share outside of 0 .. 1.
    """

    def __init__(
        self, distortion_scale: float = 0.5, p: float = 0.5, interpolation: Any = InterpolationMode.BILINEAR, fill: Any = 0
    ) -> None:
        self.distortion_scale = as_number("RandomPerspective", "distortion_scale", distortion_scale)
        if not 0 <= self.distortion_scale <= 1:
            raise ArgumentError(f"RandomPerspective: distortion_scale={distortion_scale!r}; expected a share from 0 to 1")
        self.p = as_probability("RandomPerspective", "p", p)
        self.interpolation, self.fill = as_mode("RandomPerspective", interpolation), fill

    def draw(self, frame: Frame) -> dict[str, Any]:
        height, width = frame.height, frame.width
        u = frame.uniform(9)
        most_x, most_y = int(self.distortion_scale * (width // 2)), int(self.distortion_scale * (height // 2))
        points = []
        for n, (x, y, sign_x, sign_y) in enumerate(
            ((0, 0, 1, 1), (width - 1, 0, -1, 1), (width - 1, height - 1, -1, -1), (0, height - 1, 1, -1))
        ):
            dx, dy = (floor(u[:, 2 * n + k] * (most + 1)).clamp(max=most) for k, most in enumerate((most_x, most_y)))
            points += [x + sign_x * dx, y + sign_y * dy]
        is_applied = u[:, 8:] < self.p
        end = where(is_applied, stack(points, 1), tensor(_corners(height, width), device=u.device).reshape(1, 8))
        return {"endpoints": end.reshape(-1, 4, 2)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        start: Any = _corners(*size_of(inpt, "RandomPerspective"))
        end = params["endpoints"]
        if isinstance(end, Tensor):
            start = tensor(start, device=end.device).reshape(1, 4, 2)
        else:
            start = [start[n : n + 2] for n in (0, 2, 4, 6)]
            if end == start:
                return inpt
        forward = warp.perspective_map(start, end)
        return warped(self._name, inpt, forward, size_of(inpt, self._name), self.interpolation, self.fill)


def _corners(height: int, width: int) -> list[float]:
    """x and y of the first and last pixels, in the order of :func:`gpunet.vision.transforms.functional.perspective`."""
    x, y = float(width - 1), float(height - 1)
    return [0.0, 0.0, x, 0.0, x, y, 0.0, y]
