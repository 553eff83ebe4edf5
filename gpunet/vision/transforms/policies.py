"""RandAugment: a few random transforms of one strength (Cubuk et al. 2019)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_boolean, is_floating, limits
from gpunet.errors import ArgumentError
from gpunet.launch.tape import active
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer
from gpunet.vision.images import is_pil
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.functional import InterpolationMode
from gpunet.vision.transforms.functional.geometry import select, warped
from gpunet.vision.transforms.functional.inputs import NEAREST, as_mode, fill_for, size_of
from gpunet.vision.transforms.geometry import below
from gpunet.vision.transforms.transform import Frame, Transform
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

__all__ = ["RandAugment"]

#: The operations; those of the geometry first.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_FIRST_COLOR = _NUMBER["Brightness"]
_SHIFTS = ("TranslateX", "TranslateY", "ShearX", "ShearY")


class RandAugment(Transform):
    """Apply ``num_ops`` of 14 operations, drawn for each sample by itself, with the strength ``magnitude``.

    Of a batch each sample has its own operations.  On the CPU, samples with the same operation are computed together; on a GPU and
    in captured steps, all operations of the geometry are one affine map with numbers of its own for each sample, those of colours
    are computed for all samples, and each sample takes its own.  Boxes and masks follow the geometry.

    Args:
        num_ops: operations in a row.
        magnitude: from 0 to num_magnitude_bins - 1.
        num_magnitude_bins: the number of strengths.
        interpolation, fill: see :func:`gpunet.vision.transforms.functional.affine`.

    Raises:
        ArgumentError: a negative number of operations, or a magnitude out of range.
    """

    def __init__(
        self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31, interpolation: Any = InterpolationMode.NEAREST,
        fill: Any = None,
    ) -> None:  # fmt: skip
        self.num_ops = as_integer("RandAugment", "num_ops", num_ops)
        self.magnitude = as_integer("RandAugment", "magnitude", magnitude)
        self.num_magnitude_bins = as_integer("RandAugment", "num_magnitude_bins", num_magnitude_bins)
        if self.num_ops < 0 or not 0 <= self.magnitude < self.num_magnitude_bins:
            raise ArgumentError(
                f"RandAugment: num_ops={num_ops}, magnitude={magnitude}; expected 0 or more, and 0 to {self.num_magnitude_bins - 1}"
            )
        self.interpolation, self.fill = as_mode("RandAugment", interpolation), fill

    def draw(self, frame: Frame) -> dict[str, Any]:
        if not self.num_ops:
            return {}
        u = frame.uniform(2 * self.num_ops)
        return {"op": below(u[:, : self.num_ops], len(OPERATIONS)), "is_negative": u[:, self.num_ops :] < 0.5}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        op: Any = params.get("op")
        is_negative: Any = params.get("is_negative")
        if isinstance(op, Tensor) and _is_on_host(inpt, op):
            return wrap(make_tensor(self._of_groups(inpt, op.array, is_negative.array)), like=inpt)
        for n in range(self.num_ops):
            if isinstance(op, Tensor):
                inpt = self._of_batch(inpt, op[:, n], where(is_negative[:, n], -1.0, 1.0))
            else:
                inpt = self._of_one(inpt, OPERATIONS[op[n]], -1.0 if is_negative[n] else 1.0)
        return inpt

    def _of_groups(self, inpt: Any, op: numpy.ndarray, is_negative: numpy.ndarray) -> numpy.ndarray:
        """A batch on the host, samples of one operation together; ``op`` and ``is_negative`` are (batch, num_ops)."""
        op = numpy.where((op >= _FIRST_COLOR) & isinstance(inpt, Mask), 0, op)
        kinds = 2 * op + (is_negative & (op < _FIRST_COLOR))  # of the geometry each sign is a kind
        sample, result = numpy.arange(len(op)), inpt.array  # the sample in each row
        source, other = numpy.empty(result.shape, result.dtype), numpy.empty(result.shape, result.dtype)
        for n in range(self.num_ops):
            order = numpy.argsort(kinds[sample, n], kind="stable")
            sample = sample[order]
            result.take(order, axis=0, out=source, mode="clip")
            result = other
            ends = numpy.searchsorted(kinds[sample, n], numpy.arange(2 * len(OPERATIONS) + 1)).tolist()
            parts = [slice(start, end) for start, end in itertools.pairwise(ends)]
            result[: ends[2]] = source[: ends[2]]  # the identity
            moved = [(parts[kind], OPERATIONS[kind // 2], -1.0 if kind % 2 else 1.0) for kind in range(2, 2 * _FIRST_COLOR)]
            self._move(result, source, [part for part in moved if part[0].start < part[0].stop], inpt)
            for number in range(_FIRST_COLOR, len(OPERATIONS)):
                part = parts[2 * number]
                if part.start < part.stop:
                    sign = make_tensor(numpy.where(is_negative[sample[part], n], -1.0, 1.0).astype(numpy.float32))
                    result[part] = self._colored(make_tensor(source[part]), OPERATIONS[number], sign).array
        result.take(numpy.argsort(sample), axis=0, out=source, mode="clip")
        return source

    def _move(self, result: numpy.ndarray, source: numpy.ndarray, parts: Sequence[tuple[slice, str, float]], inpt: Any) -> None:
        """Apply operations of the geometry to parts of ``source``, which follow each other: (rows, operation, sign)."""
        if not parts:
            return
        size = size_of(inpt, "RandAugment")
        if self.interpolation not in NEAREST and not isinstance(inpt, Mask) and not is_boolean(source.dtype):
            for part, name, sign in parts:
                result[part] = self._of_one(make_tensor(source[part]), name, sign).array
            return
        first, last = parts[0][0].start, parts[-1][0].stop
        planes = make_tensor(source[first:last].reshape(last - first, -1, *size))
        nearest = warp.NearestPixels("RandAugment", planes, fill_for(self.fill, inpt))
        moved = result[first:last].reshape(planes.shape)
        for part, name, sign in parts:
            rows = slice(part.start - first, part.stop - first)
            nearest.write(moved[rows], rows, self._map(name, sign, size))

    def _strength(self, name: str, size: tuple[int, int]) -> float:
        """The number of an operation: degrees, pixels, a change of a factor, bits, or a share of the range."""
        share = self.magnitude / max(self.num_magnitude_bins - 1, 1)
        if name in ("ShearX", "ShearY"):
            return 0.3 * share
        if name in ("TranslateX", "TranslateY"):
            return float(int(150.0 / 331.0 * size[name == "TranslateX"] * share))
        return {"Rotate": 30.0 * share, "Posterize": 8 - round(4 * share), "Solarize": 1 - share}.get(name, 0.9 * share)

    def _map(self, name: str, sign: float, size: tuple[int, int]) -> warp.Map:
        """The map of an operation of the geometry."""
        strength = sign * self._strength(name, size)
        angle = math.radians(strength) if name == "Rotate" else 0.0
        return _affine(size, (math.sin(angle), math.cos(angle)), *(strength if name == other else 0.0 for other in _SHIFTS))

    def _of_batch(self, inpt: Any, op: Tensor, sign: Tensor) -> Any:
        size = size_of(inpt, "RandAugment")
        strengths = [self._strength(name, size) for name in OPERATIONS]

        def signed(name: str) -> Any:
            return where(op == _NUMBER[name], sign * strengths[_NUMBER[name]], 0.0)

        angle = signed("Rotate") * (math.pi / 180)
        forward = _affine(size, (angle.sin(), angle.cos()), *(signed(name) for name in _SHIFTS))
        inpt = warped("RandAugment", inpt, forward, size, self.interpolation, self.fill)
        if isinstance(inpt, (BoundingBoxes, Mask)):
            return inpt
        for name in OPERATIONS[_FIRST_COLOR:]:
            changed = self._colored(inpt, name, sign)
            inpt = wrap(select(op == _NUMBER[name], changed, inpt), like=inpt)
        return inpt

    def _colored(self, inpt: Any, name: str, sign: Any) -> Any:
        strength = self._strength(name, (0, 0))
        if name == "Posterize":
            return F.posterize(inpt, strength)
        if name == "Solarize":
            is_unit = isinstance(inpt, Tensor) and is_floating(inpt.dtype)
            top = 1.0 if is_unit else 255.0 if is_pil(inpt) else float(limits(inpt.dtype)[1])
            return F.solarize(inpt, strength * top)
        if name in ("AutoContrast", "Equalize"):
            return F.autocontrast(inpt) if name == "AutoContrast" else F.equalize(inpt)
        adjust = {
            "Brightness": F.adjust_brightness, "Color": F.adjust_saturation, "Contrast": F.adjust_contrast,
            "Sharpness": F.adjust_sharpness,
        }[name]  # fmt: skip
        return adjust(inpt, 1 + sign * strength)

    def _of_one(self, inpt: Any, name: str, sign: float) -> Any:
        if name == "Identity":
            return inpt
        if _NUMBER[name] < _FIRST_COLOR:
            size = size_of(inpt, "RandAugment")
            return warped("RandAugment", inpt, self._map(name, sign, size), size, self.interpolation, self.fill)
        return inpt if isinstance(inpt, (BoundingBoxes, Mask)) else self._colored(inpt, name, sign)


def _affine(size: tuple[int, int], sin_cos: Any, x: Any, y: Any, tan_x: Any, tan_y: Any) -> warp.Map:
    """Rotate counterclockwise about the center, or translate, or shear by tangents, of which at most one is not 0."""
    height, width = size
    sin, cos = sin_cos
    a, b, c, d = cos, sin + tan_x, tan_y - sin, cos
    cx, cy = width / 2, height / 2
    return (a, b, cx + x - a * cx - b * cy), (c, d, cy + y - c * cx - d * cy), (0.0, 0.0, 1.0)


def _is_on_host(inpt: Any, op: Tensor) -> bool:
    """Whether the operations of a batch can be read without a wait, do not change in a replay, and need no gradients."""
    is_batch = isinstance(inpt, Tensor) and not isinstance(inpt, BoundingBoxes) and inpt.ndim > 2 and len(inpt) == len(op)
    return is_batch and type(inpt.array) is numpy.ndarray and inpt.numel() > 0 and active.tape is None and not inpt.requires_grad
