"""RandAugment: a few random transforms of one strength (Cubuk et al. 2019)."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating, limits
from gpunet.errors import ArgumentError
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer
from gpunet.vision.images import is_pil
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms.functional import InterpolationMode
from gpunet.vision.transforms.functional.geometry import select, warped
from gpunet.vision.transforms.functional.inputs import as_mode, size_of
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


class RandAugment(Transform):
    """Apply ``num_ops`` of 14 operations, drawn for each sample by itself, with the strength ``magnitude``.

    Of a batch each sample has its own operations.  All operations of the geometry are one affine map with numbers of its own for
    each sample; those of colours are computed for all samples, and each sample takes its own.  Boxes and masks follow the geometry.

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
        for n in range(self.num_ops):
            if isinstance(params["op"], Tensor):
                inpt = self._of_batch(inpt, params["op"][:, n], where(params["is_negative"][:, n], -1.0, 1.0))
            else:
                inpt = self._of_one(inpt, OPERATIONS[params["op"][n]], -1.0 if params["is_negative"][n] else 1.0)
        return inpt

    def _strength(self, name: str, size: tuple[int, int]) -> float:
        """The number of an operation: degrees, pixels, a change of a factor, bits, or a share of the range."""
        share = self.magnitude / max(self.num_magnitude_bins - 1, 1)
        if name in ("ShearX", "ShearY"):
            return 0.3 * share
        if name in ("TranslateX", "TranslateY"):
            return float(int(150.0 / 331.0 * size[name == "TranslateX"] * share))
        return {"Rotate": 30.0 * share, "Posterize": 8 - round(4 * share), "Solarize": 1 - share}.get(name, 0.9 * share)

    def _affine(self, inpt: Any, angle: Any, x: Any, y: Any, tan_x: Any, tan_y: Any) -> Any:
        """Rotate counterclockwise, or shear by tangents, or translate, of which at most one is not 0."""
        height, width = size = size_of(inpt, "RandAugment")
        cos, sin = (angle.cos(), angle.sin()) if isinstance(angle, Tensor) else (1.0, 0.0)
        a, b, c, d = cos, sin + tan_x, tan_y - sin, cos
        cx, cy = width / 2, height / 2
        forward = ((a, b, cx + x - a * cx - b * cy), (c, d, cy + y - c * cx - d * cy), (0.0, 0.0, 1.0))
        return warped("RandAugment", inpt, forward, size, self.interpolation, self.fill)

    def _of_batch(self, inpt: Any, op: Tensor, sign: Tensor) -> Any:
        size = size_of(inpt, "RandAugment")
        strengths = [self._strength(name, size) for name in OPERATIONS]

        def signed(name: str) -> Any:
            return where(op == _NUMBER[name], sign * strengths[_NUMBER[name]], 0.0)

        numbers = (signed(name) for name in ("TranslateX", "TranslateY", "ShearX", "ShearY"))
        inpt = self._affine(inpt, signed("Rotate") * (math.pi / 180), *numbers)
        if isinstance(inpt, (BoundingBoxes, Mask)):
            return inpt
        for name in OPERATIONS[_NUMBER["Brightness"] :]:
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
        if _NUMBER[name] < _NUMBER["Brightness"]:
            strength = sign * self._strength(name, size_of(inpt, "RandAugment"))
            if name == "Rotate":
                return F.rotate(inpt, strength, self.interpolation, fill=self.fill)
            return self._affine(inpt, 0.0, *(strength if name == other else 0.0 for other in (
                "TranslateX", "TranslateY", "ShearX", "ShearY"
            )))  # fmt: skip
        return inpt if isinstance(inpt, (BoundingBoxes, Mask)) else self._colored(inpt, name, sign)


