"""Mean average precision has pycocotools' figures, VOC's areas and those of examples; wrong boxes are refused."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError, DtypeError, LabelError, ShapeError
from gpunet.metrics import MeanAveragePrecision
from gpunet.metrics.detection import AREAS
from tests.metrics.table import assert_equal, on_device
from tests.metrics.table import images as draw_images

#: The keys of an image, and those of pycocotools.
KEYS = {"scores": "score", "labels": "category_id", "iscrowd": "iscrowd", "area": "area"}
Image = tuple[dict[str, Any], dict[str, Any]]

#: Kinds of random sets: the largest side of a box in pixels, and how often a true box is a crowd.
KINDS = {"small": (8, 0.1), "large": (150, 0.1), "flat": (4, 0.1), "crowd": (8, 0.5), "mixed": (60, 0.1)}


def draw(seed: int) -> tuple[list[Image], tuple[int, ...]]:
    """Images with detections near true boxes, and limits of detections.

    Corners are integers, so that ties of IoU and of areas are exact.  In half of the images scores are ties; some images have no
    true boxes or no detections; "flat" has boxes of area 0; "mixed" has areas that are not those of the boxes.
    """
    random = numpy.random.default_rng(seed)
    kind = [*KINDS][seed % len(KINDS)]
    side, share = KINDS[kind]
    images = []
    for _ in range(random.integers(1, 6)):
        m, n = random.integers(0, 7), random.integers(0, 14)

        def boxes(count: int) -> Any:
            low = random.integers(0, side, (count, 2))
            return numpy.concatenate([low, low + random.integers(kind != "flat", side, (count, 2))], 1).astype("float64")

        true, found, labels, own = boxes(m), boxes(n), random.integers(0, 3, m), random.integers(0, 4, n)
        if m:
            near, nearest = random.random(n) < 0.7, random.integers(0, m, n)
            moved = true[nearest] + random.integers(-1, 2, (n, 4)) * (random.random((n, 1)) < 0.5)
            found = numpy.where(near[:, None], moved, found)
            own = numpy.where(random.random(n) < 0.8, labels[nearest], own)
        found[:, 2:] = numpy.maximum(found[:, 2:], found[:, :2])
        scores = random.integers(0, 6, n) / 8 if random.random() < 0.5 else random.random(n)
        area = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1]) * (random.random(m) if kind == "mixed" else 1)
        crowds = (random.random(m) < share).astype("int64")
        images.append(
            ({"boxes": found, "scores": scores, "labels": own}, {"boxes": true, "labels": labels, "iscrowd": crowds, "area": area})
        )
    return images, [(1, 10, 100), (1, 2, 3), (5,)][seed % 3]


def figures(images: list[Image], limits: tuple[int, ...] = (1, 10, 100), **options: Any) -> dict[str, Any]:
    metric = MeanAveragePrecision(max_detection_thresholds=limits, **options)
    preds, target = [[on_device([part])[0] for part in parts] for parts in zip(*images)] or ([], [])
    metric.update(preds, target)
    return {name: value.tolist() for name, value in metric.compute().items()}


def coco_figures(images: list[Image], limits: tuple[int, ...]) -> dict[str, float]:
    """The figures of pycocotools; its ``summarize`` would print -1 for most of them unless 100 is among the limits."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotations(part: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number, image in enumerate(images):
            for k, (x1, y1, x2, y2) in enumerate(image[part]["boxes"].tolist()):
                item = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                own = {key: image[part][name][k].item() for name, key in KEYS.items() if name in image[part]}
                found.append({**item, **own, "id": len(found) + 1, "image_id": number})
        return found

    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for part in (1, 0):
            data = COCO()
            data.dataset = {
                "images": [{"id": number} for number in range(len(images))],
                "categories": [{"id": label} for label in range(4)],
                "annotations": annotations(part),
            }
            data.createIndex()
            sets.append(data)
        run = COCOeval(*sets, "bbox")
        run.params.maxDets = [*limits]
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"], run.eval["recall"]

    def mean(values: Any) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    found = {"map": mean(precision[..., 0, -1]), "map_50": mean(precision[0, ..., 0, -1]), "map_75": mean(precision[5, ..., 0, -1])}
    for a, name in enumerate(AREAS):
        if name != "all":
            found |= {f"map_{name}": mean(precision[..., a, -1]), f"mar_{name}": mean(recall[..., a, -1])}
    return found | {f"mar_{limit}": mean(recall[..., 0, m]) for m, limit in enumerate(limits)}


def test_random_sets_have_the_figures_of_pycocotools() -> None:
    pytest.importorskip("pycocotools")
    seen: dict[str, list[float]] = {}
    for seed in range(200):
        images, limits = draw(seed)
        found = figures(images, limits)
        for name, value in coco_figures(images, limits).items():
            assert abs(found[name] - value) <= 1e-6, (seed, name, found[name], value)
            seen.setdefault(name, []).append(value)
    for name, values in seen.items():  # all figures have values between 0 and 1 in many sets
        assert sum(0 < value < 1 for value in values) >= (20 if "large" not in name else 10), name


def boxes_of_one_class(found: list[list[float]], true: list[list[float]]) -> list[Image]:
    """One image; scores descend."""
    labels = [numpy.zeros(len(boxes), numpy.int64) for boxes in (found, true)]
    crowds, area = numpy.zeros(len(true), numpy.int64), numpy.full(len(true), 100.0)
    pred = {"boxes": numpy.array(found), "scores": numpy.linspace(0.9, 0.1, len(found)), "labels": labels[0]}
    return [(pred, {"boxes": numpy.array(true), "labels": labels[1], "iscrowd": crowds, "area": area})]


def test_a_detection_takes_the_last_of_equal_true_boxes() -> None:
    """The first detection overlaps both true boxes by 9/11, the second is the first true box."""
    images = boxes_of_one_class([[1, 0, 11, 10], [0, 0, 10, 10]], [[0, 0, 10, 10], [2, 0, 12, 10]])
    found = figures(images)
    assert found["mar_100"] == pytest.approx((7 * 1 + 3 * 0.5) / 10)  # up to 0.8 both are found, the second at all thresholds
    pytest.importorskip("pycocotools")
    for name, value in coco_figures(images, (1, 10, 100)).items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    images = boxes_of_one_class([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    assert figures(images, iou_thresholds=[1.0])["map"] == pytest.approx(1)


def test_order_of_images_without_ties() -> None:
    preds, target = draw_images(numpy.random.default_rng(0), 30)
    images = list(zip(preds, target))
    assert_equal(figures(images[::-1]), figures(images))


def test_figures_on_a_device(device: str) -> None:
    images, limits = draw(4)
    expected = figures(images, limits)
    metric = MeanAveragePrecision(max_detection_thresholds=limits)
    for pred, true in images:
        metric.update(on_device([pred]), on_device([true]))
    found = metric.compute()
    assert {name: value.tolist() for name, value in found.items()} == expected
    assert found["map"].device == gpunet.tensor(0.0).device


# ---- examples ---------------------------------------------------------------------------------------------------------


def one_image(hits: list[bool], num_true: int, **more: Any) -> list[Image]:
    """Detections by descending score, each on a true box of its own or on none."""
    true = numpy.array([[20.0 * k, 0, 20 * k + 10, 10] for k in range(num_true)]).reshape(-1, 4)
    found, free = [], list(true)
    for hit in hits:
        found.append(free.pop(0) if hit else numpy.array([0.0, 50, 10, 60]))
    scores, ones = numpy.linspace(0.9, 0.1, len(hits)), numpy.ones(len(hits), numpy.int64)
    target = {"boxes": true, "labels": numpy.ones(num_true, numpy.int64), **more}
    return [({"boxes": numpy.array(found).reshape(-1, 4), "scores": scores, "labels": ones}, target)]


#: The precision at recalls of 1/4, 1/2, 3/4 is 1, 2/3, 3/5; the fourth object is not found.
CURVE = one_image([True, False, True, False, True], 4)


@pytest.mark.parametrize(
    "interpolation, expected",
    [
        ("voc_area", (1 + 2 / 3 + 3 / 5) / 4),
        ("voc_11", (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11),  # recalls 0, 0.1, 0.2; 0.3, 0.4, 0.5; 0.6, 0.7
        ("coco", (26 * 1 + 25 * 2 / 3 + 25 * 3 / 5) / 101),
    ],
)
def test_interpolations(interpolation: str, expected: float) -> None:
    assert figures(CURVE, interpolation=interpolation, iou_thresholds=[0.5])["map"] == pytest.approx(expected, abs=1e-12)


def test_recalls_that_are_chosen() -> None:
    assert figures(CURVE, rec_thresholds=[0.0, 0.5, 1.0])["map"] == pytest.approx((1 + 2 / 3) / 3)


def test_formats_of_boxes() -> None:
    [(pred, true)] = CURVE
    for name, convert in {
        "xywh": lambda b: numpy.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1),
        "cxcywh": lambda b: numpy.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
    }.items():
        images = [({**pred, "boxes": convert(pred["boxes"])}, {**true, "boxes": convert(true["boxes"])})]
        assert figures(images, box_format=name) == figures(CURVE)


def test_figures_of_classes() -> None:
    images = draw(0)[0]
    found = figures(images, class_metrics=True)
    assert found["classes"] == sorted({int(label) for image in images for part in image for label in part["labels"]})
    present = [value for value in found["map_per_class"] if value != -1]
    assert numpy.mean(present) == pytest.approx(found["map"])
    for label, value in zip(found["classes"], found["map_per_class"]):
        part = [
            tuple({k: v[p["labels"] == label] for k, v in p.items()} for p in image) for image in images
        ]
        assert figures(part)["map"] == pytest.approx(value)  # type: ignore[arg-type]
    assert figures(images)["map_per_class"] == figures(images)["mar_100_per_class"] == -1


def test_no_images_and_no_true_boxes() -> None:
    assert figures([])["map"] == -1
    assert figures(one_image([False], 0))["map"] == -1
    assert figures(one_image([], 2))["map"] == 0
    assert figures([({"boxes": numpy.zeros(0), "scores": numpy.zeros(0), "labels": numpy.zeros(0)}, CURVE[0][1])])["mar_100"] == 0


# ---- errors -----------------------------------------------------------------------------------------------------------


def changed(part: int, **values: Any) -> Callable[[MeanAveragePrecision], None]:
    def update(metric: MeanAveragePrecision) -> None:
        image = [dict(p) for p in CURVE[0]]
        for name, value in values.items():
            image[part][name] = numpy.asarray(value)
        metric.update(on_device([image[0]]), on_device([image[1]]))
        gpunet.synchronize()

    return update


BOXES = CURVE[0][1]["boxes"]


@pytest.mark.parametrize(
    "update, error, message",
    [
        (changed(1, boxes=BOXES[:, [2, 1, 0, 3]]), ArgumentError,
         r"the width or height of target\[0\]\['boxes'\] has -10 at position 0; expected boxes with x1 <= x2 and y1 <= y2; for"),
        (changed(1, boxes=BOXES * numpy.nan), ArgumentError, r"target\[0\]\['boxes'\] has nan at position 0; expected a number"),
        (changed(1, boxes=BOXES[:, :3]), ShapeError, r"target\[0\]\['boxes'\] has shape \(4, 3\); expected \(boxes, 4\)"),
        (changed(1, labels=[1]), ShapeError, r"target\[0\]\['labels'\] has shape \(1,\); expected \(4,\) like the boxes"),
        (changed(1, labels=[1.0] * 4), DtypeError, r"target\[0\]\['labels'\] has dtype float64; expected integers"),
        (changed(1, iscrowd=[0, 1, 2, 0]), LabelError, r"target\[0\]\['iscrowd'\] has the label 2 at position 2; expected 0 .. 1"),
        (changed(1, area=[1, 1, -1, 1]), ArgumentError, r"target\[0\]\['area'\] has -1 at position 2; expected areas of 0 or more"),
        (changed(0, scores=[0.1, numpy.nan, 0, 0, 0]), ArgumentError, r"preds\[0\]\['scores'\] has nan at position 1"),
        (changed(0, masks=[]), ArgumentError, r"preds\[0\] has \['masks'\]; expected the keys \['boxes', 'scores', 'labels'\]"),
        (lambda m: m.update([{}], [{}]), ArgumentError, r"preds\[0\] lacks \['boxes', 'scores', 'labels'\]; expected the keys"),
        (lambda m: m.update([{}], []), ShapeError, "preds has 1 images, target 0; expected equal numbers"),
        (lambda m: m.update({}, {}), DtypeError, "got the dict of one image; expected lists of dicts"),
        (lambda m: m.update([3], [3]), DtypeError, r"preds\[0\] has type int; expected a dict of boxes, scores, labels"),
    ],
)  # fmt: skip
def test_errors_of_images(update: Any, error: type[Exception], message: str, device: str) -> None:
    metric = MeanAveragePrecision()
    with pytest.raises(error, match=message):
        update(metric)
    if device == "cpu":
        assert metric.state_dict() == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"box_format": "xxyy"}, "MeanAveragePrecision: box_format='xxyy'; expected one of 'xyxy', 'xywh', 'cxcywh'"),
        ({"interpolation": "voc"}, "interpolation='voc'; expected one of 'coco', 'voc_11', 'voc_area'"),
        ({"iou_thresholds": [0.5, 1.5]}, r"iou_thresholds=\[0.5, 1.5\]; expected ascending numbers from 0 to 1"),
        ({"iou_thresholds": []}, r"iou_thresholds=\[\]; expected at least one"),
        ({"max_detection_thresholds": [10, 1]}, r"max_detection_thresholds=\[10, 1\]; expected ascending integers of 1 or more"),
    ],
)
def test_errors_of_options(options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        MeanAveragePrecision(**options)


def test_captured_step() -> None:
    metric = MeanAveragePrecision()
    image = CURVE[0]
    step = gpunet.capture(lambda x: metric.update(on_device([image[0]]), on_device([image[1]])), fullgraph=True)
    with pytest.raises(CaptureError, match=r"MeanAveragePrecision.update\(\), which keeps rows"):
        step(gpunet.ones(1))
