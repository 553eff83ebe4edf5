"""Boxes: overlaps, non-maximum suppression, formats, with torchvision's names.

A box is (x1, y1, x2, y2): its left upper and its right lower corner.  Overlaps have gradients; selections of boxes have none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, no_grad, wrap
from gpunet.backend.dtypes import is_boolean, is_floating, is_half, is_numeric
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.creation import arange, tensor, zeros
from gpunet.ops.elementwise import atan, maximum, minimum, where
from gpunet.ops.face import as_probability
from gpunet.ops.join import stack
from gpunet.ops.order import amax

__all__ = [
    "batched_nms", "box_area", "box_convert", "box_iou", "clip_boxes_to_image", "complete_box_iou", "distance_box_iou",
    "generalized_box_iou", "masks_to_boxes", "nms", "remove_small_boxes",
]  # fmt: skip

FORMATS = ("xyxy", "xywh", "cxcywh")
#: Boxes whose overlaps with all others are computed at once.
BLOCK = 256


def as_boxes(function: str, name: str, value: Any, ndim: int | None = 2) -> Tensor:
    """Return boxes as a tensor that differences and products of lengths fit into: halves become float32, integers int64.

    Raises:
        ShapeError: the shape is not (n, 4), or with ``ndim=None`` (..., 4).
        DtypeError: they are no numbers.
    """
    boxes: Any = wrap(value, function)
    if not is_numeric(boxes.dtype) or is_boolean(boxes.dtype):
        raise DtypeError(f"{function}: {name} has dtype {boxes.dtype}; expected numbers")
    if not boxes.ndim or boxes.shape[-1] != 4 or (ndim is not None and boxes.ndim != ndim):
        expected = "(boxes, 4)" if ndim is not None else "(..., 4)"
        raise ShapeError(f"{function}: {name} has shape {tuple(boxes.shape)}; expected {expected}: the corners x1, y1, x2, y2")
    if is_half(boxes.dtype):
        return boxes.float()
    return boxes if is_floating(boxes.dtype) else boxes.long()


def box_area(boxes: Any) -> Tensor:
    """The areas of boxes (..., 4): (...).

    Raises:
        ShapeError: another shape.
    """
    return _area(as_boxes("box_area", "boxes", boxes, None))


def _area(boxes: Any) -> Any:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection_and_union(boxes1: Any, boxes2: Any) -> tuple[Any, Any]:
    """The areas, (n, m), of the intersection and of the union of each box of ``boxes1`` (n, 4) with each of ``boxes2`` (m, 4)."""
    low = maximum(boxes1[:, None, :2], boxes2[:, :2])
    high = minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    size = (high - low).clamp(min=0)
    both = size[..., 0] * size[..., 1]
    return both, _area(boxes1)[:, None] + _area(boxes2) - both


def _pair(function: str, boxes1: Any, boxes2: Any) -> tuple[Any, Any]:
    return as_boxes(function, "boxes1", boxes1), as_boxes(function, "boxes2", boxes2)


def box_iou(boxes1: Any, boxes2: Any) -> Tensor:
    """Intersection over union (n, m) of each box of ``boxes1`` (n, 4) with each of ``boxes2`` (m, 4).

    Raises:
        ShapeError: another shape.
    """
    both, union = intersection_and_union(*_pair("box_iou", boxes1, boxes2))
    return both / union


def generalized_box_iou(boxes1: Any, boxes2: Any) -> Tensor:
    """IoU - (area of the enclosing box - union) / area of the enclosing box, (n, m), from -1 to 1.

    Source: Rezatofighi et al., Generalized Intersection over Union (2019).  Arguments and errors as of :func:`box_iou`.
    """
    a, b = _pair("generalized_box_iou", boxes1, boxes2)
    both, union = intersection_and_union(a, b)
    width, height = _enclosing(a, b)
    area = width * height
    return both / union - (area - union) / area


def _enclosing(boxes1: Any, boxes2: Any) -> tuple[Any, Any]:
    """Width and height (n, m) of the smallest boxes that contain two boxes."""
    low = minimum(boxes1[:, None, :2], boxes2[:, :2])
    high = maximum(boxes1[:, None, 2:], boxes2[:, 2:])
    size = (high - low).clamp(min=0)
    return size[..., 0], size[..., 1]


def distance_box_iou(boxes1: Any, boxes2: Any, eps: float = 1e-7) -> Tensor:
    """IoU - (distance of the centers / diagonal of the enclosing box)^2, (n, m).

    Source: Zheng et al., Distance-IoU Loss (2020).

    Args:
        boxes1, boxes2: (n, 4), (m, 4).
        eps: added to the squared diagonal.

    Raises:
        ShapeError: another shape.
    """
    return _distance_iou(*_pair("distance_box_iou", boxes1, boxes2), eps)[0]


def _distance_iou(boxes1: Any, boxes2: Any, eps: float) -> tuple[Any, Any]:
    both, union = intersection_and_union(boxes1, boxes2)
    width, height = _enclosing(boxes1, boxes2)
    offset = (boxes1[:, None, :2] + boxes1[:, None, 2:] - boxes2[:, :2] - boxes2[:, 2:]) / 2
    iou = both / union
    return iou - (offset**2).sum(-1) / (width**2 + height**2 + eps), iou


def complete_box_iou(boxes1: Any, boxes2: Any, eps: float = 1e-7) -> Tensor:
    """:func:`distance_box_iou` - alpha v, where v compares the aspect ratios and alpha = v / (1 - IoU + v), a constant.

    Source: Zheng et al., Distance-IoU Loss (2020).  Arguments and errors as of :func:`distance_box_iou`.
    """
    a, b = _pair("complete_box_iou", boxes1, boxes2)
    value, iou = _distance_iou(a, b, eps)
    angle_a, angle_b = (atan((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])) for boxes in (a, b))
    v = 4 / math.pi**2 * (angle_a[:, None] - angle_b) ** 2
    alpha = (v / (1 - iou + v + eps)).detach()
    return value - alpha * v


# ---- selection --------------------------------------------------------------------------------------------------------


def nms(boxes: Any, scores: Any, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: remove each box that overlaps a box of a higher score by more than ``iou_threshold``.

    It runs on the host.  Among equal scores the first counts as the highest.

    Args:
        boxes: (n, 4).
        scores: (n,).
        iou_threshold: from 0 to 1.

    Returns:
        The indices of the boxes that are kept, int64, by descending score.

    Raises:
        ShapeError: another shape.
        ArgumentError: the threshold is not in [0, 1].
    """
    return _suppress("nms", boxes, scores, None, iou_threshold)


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Tensor:
    """:func:`nms` among the boxes with the same number in ``idxs`` (n,), such as their class."""
    return _suppress("batched_nms", boxes, scores, idxs, iou_threshold)


@no_grad()
def _suppress(function: str, boxes: Any, scores: Any, groups: Any, iou_threshold: float) -> Tensor:
    graph_break_on_read(f"{function}(), whose shape depends on values")
    threshold = as_probability(function, "iou_threshold", iou_threshold)
    boxes, given = as_boxes(function, "boxes", boxes), wrap(scores, function)
    device, count = boxes.device, len(boxes)
    for name, values in (("scores", given), ("idxs", given if groups is None else wrap(groups, function))):
        if tuple(values.shape) != (count,):
            raise ShapeError(f"{function}: {name} has shape {tuple(values.shape)}; expected ({count},) for {count} boxes")
    order = given.cpu().argsort(descending=True, stable=True)
    boxes = boxes.cpu()[order]
    boxes = boxes if is_floating(boxes.dtype) else boxes.float()
    of_group = None if groups is None else wrap(groups).cpu()[order].numpy()
    alive = numpy.ones(count, bool)
    for start in range(0, count, BLOCK):
        overlaps = (box_iou(boxes[start : start + BLOCK], boxes[start:]) > threshold).numpy()
        for row, overlap in enumerate(overlaps, start):
            if alive[row]:
                if of_group is not None:
                    overlap = overlap & (of_group[start:] == of_group[row])
                alive[row + 1 :] &= ~overlap[row + 1 - start :]
    return order[tensor(alive, device="cpu")].to(device)


def remove_small_boxes(boxes: Any, min_size: float) -> Tensor:
    """The indices, int64, of the boxes (n, 4) whose sides are both at least ``min_size``.

    Raises:
        ShapeError: another shape.
    """
    boxes = as_boxes("remove_small_boxes", "boxes", boxes)
    is_large = ((boxes[:, 2:] - boxes[:, :2]) >= min_size).all(1)
    return is_large.nonzero()[:, 0]


def clip_boxes_to_image(boxes: Any, size: tuple[int, int]) -> Tensor:
    """Move the corners of boxes (..., 4) into an image of ``size`` (height, width).

    Raises:
        ShapeError: another shape.
    """
    given = wrap(boxes, "clip_boxes_to_image")
    boxes = as_boxes("clip_boxes_to_image", "boxes", given, None)
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return stack([x, y], -1).reshape(boxes.shape).to(given.dtype)


# ---- formats ----------------------------------------------------------------------------------------------------------


def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Tensor:
    """Convert boxes (..., 4) between formats; of integers int64.

    Args:
        boxes: the boxes.
        in_fmt, out_fmt: "xyxy" (two corners), "xywh" (left upper corner, width, height) or "cxcywh" (center, width, height).

    Raises:
        ArgumentError: another format.
        ShapeError: another shape.
    """
    for name, value in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if value not in FORMATS:
            raise ArgumentError(f"box_convert: {name}={value!r}; expected one of {', '.join(map(repr, FORMATS))}")
    given = wrap(boxes, "box_convert")
    boxes = as_boxes("box_convert", "boxes", given, None)
    boxes = given if is_half(given.dtype) else boxes
    if in_fmt == out_fmt:
        return boxes.clone()
    a, b, c, d = boxes.unbind(-1)
    if in_fmt == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif in_fmt == "cxcywh":
        a, b, c, d = a - 0.5 * c, b - 0.5 * d, a + 0.5 * c, b + 0.5 * d
    if out_fmt == "xywh":
        a, b, c, d = a, b, c - a, d - b
    elif out_fmt == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return stack([a, b, c, d], -1)


@no_grad()
def masks_to_boxes(masks: Any) -> Tensor:
    """The boxes (n, 4) around the nonzero pixels of masks (n, height, width): their first and last columns and rows, float32.

    A mask without nonzero pixels gives zeros.

    Raises:
        ShapeError: another shape.
    """
    masks = wrap(masks, "masks_to_boxes")
    if masks.ndim != 3:
        raise ShapeError(f"masks_to_boxes: masks has shape {tuple(masks.shape)}; expected (masks, height, width)")
    if not masks.numel():
        return zeros(len(masks), 4, device=masks.device)
    is_inside: Any = masks != 0
    sides = []
    for line in (is_inside.any(1), is_inside.any(2)):  # columns, rows
        place = arange(line.shape[1], device=masks.device)
        sides.append((line.to("int64").argmax(1), amax(where(line, place, 0), 1)))
    (x1, x2), (y1, y2) = sides
    return stack([x1, y1, x2, y2], 1).float()
