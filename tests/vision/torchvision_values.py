"""Values of torchvision's functions, stored because torchvision is not among the tests' requirements.

``python -m tests.vision.torchvision_values`` writes torchvision_values.json again, where torchvision is installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy

FILE = Path(__file__).with_suffix(".json")
_CORNERS = [[0, 0], [6, 0], [6, 5], [0, 5]], [[1, 1], [5, 0], [6, 4], [0, 5]]
#: The function, and its arguments behind the image.
CASES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("affine", (20.0, [3, -2], 1.2, [5.0, 3.0])), ("rotate", (-40.0,)), ("adjust_brightness", (1.3,)), ("adjust_contrast", (1.7,)),
    ("adjust_hue", (-0.3,)), ("adjust_saturation", (0.2,)), ("adjust_sharpness", (1.7,)), ("gaussian_blur", ([5, 3], [1.2, 0.7])),
    ("autocontrast", ()), ("equalize", ()), ("posterize", (3,)), ("solarize", (0.4,)), ("invert", ()), ("perspective", _CORNERS),
    ("rgb_to_grayscale", (1,)), ("horizontal_flip", ()), ("pad", ([1, 2], None, "reflect")), ("center_crop", ([4, 9],)),
    ("erase", (1, 2, 3, 2, 0.5)),
)  # fmt: skip
#: Conversions with scale=True: number, its dtype, dtype of the result.
CONVERSIONS = (
    (1.0, "float32", "uint8"), (0.3, "float32", "int16"), (0.7, "float64", "int32"), (200, "uint8", "int16"),
    (300, "int16", "uint8"), (200, "uint8", "int64"), (2**31 - 1, "int32", "uint8"), (200, "uint8", "float32"),
    (300, "int16", "float64"),
)  # fmt: skip


def pixels() -> numpy.ndarray:
    """An image (3, 6, 7), in a batch, of different numbers in 0 .. 1."""
    order = numpy.arange(3 * 6 * 7) * 53 % 126
    return (order.reshape(1, 3, 6, 7) / 125).astype("float32")


def main() -> None:
    import torch
    from torchvision.transforms.v2 import functional as V

    x = torch.tensor(pixels())
    found = {}
    for name, arguments in CASES:
        given = [torch.tensor(a) if name == "erase" and isinstance(a, float) else a for a in arguments]
        found[name] = numpy.round(getattr(V, name)(x, *given).numpy().astype(float), 6).tolist()
    scaled = [
        V.to_dtype(torch.full((1, 1, 1), value, dtype=getattr(torch, given)), getattr(torch, wanted), scale=True).item()
        for value, given, wanted in CONVERSIONS
    ]
    FILE.write_text(json.dumps({"functions": found, "conversions": scaled}) + "\n")


if __name__ == "__main__":
    main()
