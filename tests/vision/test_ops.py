"""Boxes: values of plain formulas, gradients, suppression by brute force, and errors."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError, DtypeError, ShapeError
from gpunet.interop.torch_modules import torch_names
from gpunet.vision import ops


def draw(count: int, seed: int = 0, dtype: str = "float32") -> Any:
    """Boxes of integer corners from 0 to 12, so that overlaps and ties are frequent and exact; none is empty."""
    random = numpy.random.default_rng(seed)
    low = random.integers(0, 8, (count, 2))
    return numpy.concatenate([low, low + random.integers(1, 5, (count, 2))], 1).astype(dtype)


def overlap(a: Any, b: Any) -> tuple[float, float]:
    """The areas in both and in any of two boxes, by counting unit squares."""
    squares = [{(x, y) for x in range(int(c[0]), int(c[2])) for y in range(int(c[1]), int(c[3]))} for c in (a, b)]
    return len(squares[0] & squares[1]), len(squares[0] | squares[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int8"])
def test_box_iou_counts_squares(dtype: str, device: str) -> None:
    a, b = draw(7, 1, dtype), draw(9, 2, dtype)
    expected = numpy.array([[both / either for both, either in (overlap(p, q) for q in b)] for p in a])
    found = ops.box_iou(gpunet.tensor(a), gpunet.tensor(b))
    assert found.dtype == (gpunet.float64 if dtype == "float64" else gpunet.float32)
    numpy.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-6)
    numpy.testing.assert_array_equal(ops.box_area(gpunet.tensor(a)).cpu().numpy(), [overlap(p, p)[0] for p in a])


def test_generalized_distance_and_complete_iou(device: str) -> None:
    """Two unit squares, one empty square between them: the enclosing box is 3 x 1.  Then a flat box of the same center."""
    a, b = gpunet.tensor([[0.0, 0, 1, 1]]), gpunet.tensor([[2.0, 0, 3, 1], [-1, 0.25, 2, 0.75]])
    assert ops.generalized_box_iou(a, b)[0, 0].item() == pytest.approx(0 - 1 / 3)
    assert ops.distance_box_iou(a, b)[0, 0].item() == pytest.approx(0 - 4 / 10)
    iou = 0.5 / (1 + 1.5 - 0.5)
    v = 4 / math.pi**2 * (math.atan(6) - math.atan(1)) ** 2
    assert ops.distance_box_iou(a, b)[0, 1].item() == pytest.approx(iou)
    assert ops.complete_box_iou(a, b)[0, 1].item() == pytest.approx(iou - v * v / (1 - iou + v))


@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou", "distance_box_iou"])
def test_gradients_of_overlaps(name: str) -> None:
    a, b = (gpunet.tensor(draw(4, s, "float64") + 0.1 * s, requires_grad=True) for s in (3, 4))
    assert gpunet.autograd.gradcheck(getattr(ops, name), (a, b))


def test_the_factor_of_the_aspect_ratio_is_a_constant_of_gradients() -> None:
    a = gpunet.tensor([[0.0, 0, 2, 1]], requires_grad=True, dtype=gpunet.float64)
    b = gpunet.tensor([[0.0, 0, 2, 2]], dtype=gpunet.float64)
    ops.complete_box_iou(a, b, 0.0).sum().backward()
    gradient = a.grad.numpy()
    h = 1e-6
    iou, angle = 0.5, math.atan(2) - math.atan(1)
    v = 4 / math.pi**2 * angle**2
    alpha = v / (1 - iou + v)

    def value(height: float) -> float:  # alpha is that of height 1
        distance = ((2 - height) / 2) ** 2 / 8
        return height / 2 - distance - alpha * 4 / math.pi**2 * (math.atan(2 / height) - math.atan(1)) ** 2

    assert gradient[0, 3] == pytest.approx((value(1 + h) - value(1 - h)) / (2 * h), rel=1e-6)


def test_integers_do_not_wrap_around() -> None:
    boxes = gpunet.tensor([[200, 200, 100, 100], [100, 100, 200, 200]], dtype=gpunet.uint8)
    assert ops.box_convert(boxes[:1], "xywh", "xyxy").tolist() == [[200, 200, 300, 300]]
    assert ops.box_convert(boxes[1:], "xyxy", "cxcywh").tolist() == [[150, 150, 100, 100]]
    assert ops.box_area(gpunet.tensor([[0, 0, 100_000, 100_000]], dtype=gpunet.int32)).tolist() == [10**10]
    clipped = ops.clip_boxes_to_image(boxes, (300, 150))
    assert clipped.dtype == gpunet.uint8 and clipped.tolist() == [[150, 200, 100, 100], [100, 100, 150, 200]]
    assert ops.box_convert(boxes.half(), "xywh", "xyxy").dtype == gpunet.float16


# ---- selection --------------------------------------------------------------------------------------------------------


def suppressed(boxes: Any, scores: Any, threshold: float, groups: Any) -> list[int]:
    """Keep the best box, remove what overlaps it, and so on."""
    left, kept = sorted(range(len(boxes)), key=lambda i: -scores[i]), []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if groups[i] != groups[best] or not numpy.divide(*overlap(boxes[i], boxes[best])) > threshold]
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("count", [0, 1, 40, 600])
def test_nms_removes_what_overlaps_a_better_box(count: int, threshold: float) -> None:
    random = numpy.random.default_rng(count)
    boxes, scores, groups = draw(count, 5), random.integers(0, 30, count) / 32, random.integers(0, 3, count)  # ties
    arguments = gpunet.tensor(boxes), gpunet.tensor(scores.astype("float32"))
    found = ops.batched_nms(*arguments, gpunet.tensor(groups), threshold)
    assert found.dtype == gpunet.int64 and found.tolist() == suppressed(boxes, scores, threshold, groups)
    if count <= 40:
        assert ops.nms(*arguments, threshold).tolist() == suppressed(boxes, scores, threshold, numpy.zeros(count))


def test_nms_on_a_device(device: str) -> None:
    boxes = gpunet.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    kept = ops.nms(boxes, gpunet.tensor([0.1, 0.3, 0.2]), 0.5)
    assert kept.tolist() == [1, 2] and kept.device == boxes.device
    with pytest.raises(CaptureError, match=r"nms\(\), whose shape depends on values"):
        gpunet.capture(lambda x: ops.nms(x, x[:, 0], 0.5), fullgraph=True)(boxes)


def test_small_boxes_and_clipping(device: str) -> None:
    boxes = gpunet.tensor([[-1.0, 2, 3, 20], [4, 4, 5, 9], [0, 0, 2, 2]])
    assert ops.remove_small_boxes(boxes, 2).tolist() == [0, 2]
    assert ops.clip_boxes_to_image(boxes, (10, 4)).tolist() == [[0, 2, 3, 10], [4, 4, 4, 9], [0, 0, 2, 2]]
    assert ops.clip_boxes_to_image(boxes.reshape(3, 1, 4), (10, 4)).shape == (3, 1, 4)


@pytest.mark.parametrize("in_fmt", ops.FORMATS)
@pytest.mark.parametrize("out_fmt", ops.FORMATS)
def test_box_convert(in_fmt: str, out_fmt: str, device: str) -> None:
    forms = {"xyxy": [1.0, 2, 5, 4], "xywh": [1.0, 2, 4, 2], "cxcywh": [3.0, 3, 4, 2]}
    boxes = gpunet.tensor([[forms[in_fmt]]])
    assert ops.box_convert(boxes, in_fmt, out_fmt).tolist() == [[forms[out_fmt]]]
    assert boxes.tolist() == [[forms[in_fmt]]]


def test_masks_to_boxes(device: str) -> None:
    masks = gpunet.zeros(3, 6, 8)
    masks[0, 2, 3] = 1.0
    masks[1, 1:4, 2:8] = -1.0
    assert ops.masks_to_boxes(masks).tolist() == [[3, 2, 3, 2], [2, 1, 7, 3], [0, 0, 0, 0]]
    assert ops.masks_to_boxes(masks[:0]).shape == (0, 4)


# ---- names and errors -------------------------------------------------------------------------------------------------


def test_boxes_under_the_name_of_torchvision() -> None:
    with torch_names():
        import torchvision
        from torchvision.ops import nms
        from torchvision.ops.boxes import box_iou

        assert torchvision.ops is ops and nms is ops.nms and box_iou is ops.box_iou


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda b: ops.box_iou(b[0], b), ShapeError, r"box_iou: boxes1 has shape \(4,\); expected \(boxes, 4\)"),
        (lambda b: ops.box_iou(b, b[:, :3]), ShapeError, r"box_iou: boxes2 has shape \(3, 3\)"),
        (lambda b: ops.box_area(b > 1), DtypeError, "box_area: boxes has dtype bool; expected numbers"),
        (lambda b: ops.nms(b, b[:2, 0], 0.5), ShapeError, r"nms: scores has shape \(2,\); expected \(3,\) for 3 boxes"),
        (lambda b: ops.batched_nms(b, b[:, 0], b, 0.5), ShapeError, r"batched_nms: idxs has shape \(3, 4\)"),
        (lambda b: ops.nms(b, b[:, 0], 1.5), ArgumentError, "nms: iou_threshold=1.5; expected a probability"),
        (lambda b: ops.box_convert(b, "xyxy", "xxyy"), ArgumentError, "box_convert: out_fmt=.xxyy.; expected one of .xyxy."),
        (lambda b: ops.masks_to_boxes(b), ShapeError, r"masks_to_boxes: masks has shape \(3, 4\); expected \(masks"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.tensor(draw(3)))
