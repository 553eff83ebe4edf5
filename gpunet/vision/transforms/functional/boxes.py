"""Functions of bounding boxes."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_floating, significand_bits
from gpunet.ops.elementwise import where
from gpunet.vision.ops import box_convert
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.warp import shift_and_scale
from gpunet.vision.tv_tensors import BoundingBoxes, BoundingBoxFormat, wrap

__all__ = ["clamp_bounding_boxes", "convert_bounding_box_format", "sanitize_bounding_boxes"]


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
