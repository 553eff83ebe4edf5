"""Mean average precision of detected boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import float64, int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import graph_break_on_read
from gpunet.metrics.checks import check_labels, check_numbers
from gpunet.metrics.metric import Metric
from gpunet.ops.creation import tensor, zeros
from gpunet.ops.face import check_flag
from gpunet.vision.ops import FORMATS, as_boxes, box_area, box_convert, intersection_and_union

__all__ = ["MeanAveragePrecision"]

#: From and up to which area an object has the size, in pixels.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
#: The recalls at which precisions are averaged, by the value of ``interpolation``; None for all.
RECALLS = {"coco": numpy.linspace(0, 1, 101), "voc_11": numpy.linspace(0, 1, 11), "voc_area": None}
_DETECTED = {"boxes": "boxes", "scores": "scores", "labels": "labels"}
_TRUE = {"boxes": "boxes", "labels": "labels", "iscrowd": "crowds", "area": "areas"}
#: The rows that are kept, by the first word of their names.
_GROUPS = (("detected", _DETECTED.values()), ("true", _TRUE.values()))


class MeanAveragePrecision(Metric):
    """The mean, over classes and IoU thresholds, of the average precision of detected boxes, as COCO and VOC define it.

        metric = gpunet.metrics.MeanAveragePrecision()
        metric.update(
            [{"boxes": tensor([[0.0, 0, 9, 9]]), "scores": tensor([0.8]), "labels": tensor([1])}],    # one dict for each image
            [{"boxes": tensor([[0.0, 0, 9, 8]]), "labels": tensor([1])}],
        )
        metric.compute()["map"]

    In each image the detections of a class, by descending score, take the true box of the largest IoU that is free, if the IoU
    reaches the threshold.  A detection that takes none is false; it does not count if it lies in a crowd, or if its area is out of
    range.  Boxes are kept on the device; matching runs on the host, in ``compute``.

    The figures are pycocotools'.  Among detections with equal scores, detections of earlier images count as higher; with such ties
    the order of images matters.

    Sources: Lin et al., Microsoft COCO (2014); Everingham et al., The PASCAL Visual Object Classes Challenge (2010).

    Args:
        box_format: "xyxy" (corners), "xywh" (left upper corner and size) or "cxcywh" (center and size).
        iou_thresholds: of a match; 0.5, 0.55 .. 0.95 by default.
        rec_thresholds: the recalls at which the precision is taken; by default ``interpolation`` selects them.
        max_detection_thresholds: so many detections of each class and image count, ascending; 1, 10, 100 by default.
            Precisions use the last number.
        class_metrics: also compute the figures of each class.
        interpolation: "coco": the precision at the recalls 0, 0.01 .. 1; "voc_11": at 0, 0.1 .. 1; "voc_area": the area below the
            whole curve.  At each recall it is the highest precision from there on.

    Raises:
        ArgumentError: an option is out of range.
    """

    def __init__(
        self, box_format: str = "xyxy", iou_thresholds: Sequence[float] | None = None,
        rec_thresholds: Sequence[float] | None = None, max_detection_thresholds: Sequence[int] | None = None,
        class_metrics: bool = False, *, interpolation: str = "coco",
    ) -> None:  # fmt: skip
        rows = [f"{prefix}_{name}" for prefix, names in _GROUPS for name in ("counts", *names)]
        super().__init__({}, tuple(rows))
        for name, value, allowed in (("box_format", box_format, FORMATS), ("interpolation", interpolation, tuple(RECALLS))):
            if value not in allowed:
                raise ArgumentError(f"{self._name}: {name}={value!r}; expected one of {', '.join(map(repr, allowed))}")
        check_flag(self._name, "class_metrics", class_metrics)
        self.box_format, self.interpolation, self.class_metrics = box_format, interpolation, class_metrics
        self.iou_thresholds = self._fractions("iou_thresholds", iou_thresholds, numpy.linspace(0.5, 0.95, 10).tolist())
        if not self.iou_thresholds:
            raise ArgumentError(f"{self._name}: iou_thresholds=[]; expected at least one")
        self.rec_thresholds = None if rec_thresholds is None else self._fractions("rec_thresholds", rec_thresholds, [])
        given = (1, 10, 100) if max_detection_thresholds is None else tuple(max_detection_thresholds)
        if not given or list(given) != sorted({*given}) or not all(isinstance(n, int) and n > 0 for n in given):
            expected = "ascending integers of 1 or more, such as [1, 10, 100]"
            raise ArgumentError(f"{self._name}: max_detection_thresholds={max_detection_thresholds!r}; expected {expected}")
        self.max_detection_thresholds = given

    def _fractions(self, name: str, values: Sequence[float] | None, default: list[float]) -> list[float]:
        found = default if values is None else [float(value) for value in values]
        if found != sorted({*found}) or not all(0 <= value <= 1 for value in found):
            raise ArgumentError(f"{self._name}: {name}={values!r}; expected ascending numbers from 0 to 1")
        return found

    # -- images
    def update(self, preds: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> None:
        """Add images.  Their boxes are kept, so that a captured step cannot contain it.

        Args:
            preds: for each image a dict of "boxes" (n, 4), "scores" (n,) and "labels", integers (n,).
            target: for each image a dict of "boxes" (m, 4), "labels" (m,), and optionally "iscrowd" (m,), 1 for a box around a
                crowd, in which detections do not count, and "area" (m,), which tells the size of an object instead of its box.

        Raises:
            DtypeError: an image is no dict, or labels are no integers.
            ArgumentError: a key is missing or unknown; a score or corner is NaN, or a box has x2 < x1 or y2 < y1.
            ShapeError: there are other numbers of images, boxes, scores or labels.
            LabelError: "iscrowd" is not 0 or 1.
        """
        if isinstance(preds, Mapping) or isinstance(target, Mapping):
            raise DtypeError(f"{self._name}: got the dict of one image; expected lists of dicts, one for each image")
        if len(preds) != len(target):
            raise ShapeError(f"{self._name}: preds has {len(preds)} images, target {len(target)}; expected equal numbers")
        read = [
            {**self._read("preds", n, p, _DETECTED, "detected"), **self._read("target", n, t, _TRUE, "true")}
            for n, (p, t) in enumerate(zip(preds, target))
        ]
        for rows in read:
            self._keep(**rows)

    def _read(self, argument: str, number: int, image: Any, names: dict[str, str], prefix: str) -> dict[str, Any]:
        """Check the boxes of an image; return the rows to keep."""
        place = f"{argument}[{number}]"
        if not isinstance(image, Mapping):
            raise DtypeError(f"{self._name}: {place} has type {type(image).__name__}; expected a dict of {', '.join(names)}")
        missing = [name for name in names if name not in image and name not in ("iscrowd", "area")]
        unknown = [name for name in image if name not in names]
        if missing or unknown:
            problem = f"lacks {missing}" if missing else f"has {unknown}"
            raise ArgumentError(f"{self._name}: {place} {problem}; expected the keys {[*names]}")
        given = dict(zip(image, self._take(**{f"{place}[{name!r}]": value for name, value in image.items()})))
        boxes, found = given["boxes"], {}
        boxes = boxes.reshape(0, 4) if not boxes.numel() else as_boxes(self._name, f"{place}['boxes']", boxes)
        count = len(boxes)
        for name, values in given.items():
            if name != "boxes" and tuple(values.shape) != (count,):
                shape = tuple(values.shape)
                raise ShapeError(f"{self._name}: {place}[{name!r}] has shape {shape}; expected ({count},) like the boxes")
        found["boxes"] = self._corners(f"{place}['boxes']", boxes.to(float64))
        no_rows = zeros(0, dtype=int64, device=boxes.device)
        labels = given["labels"] if count else no_rows
        if is_floating(labels.dtype):
            raise DtypeError(f"{self._name}: {place}['labels'] has dtype {labels.dtype}; expected integers")
        found["labels"] = labels.long()
        if "scores" in names:
            check_numbers(self._name, f"{place}['scores']", given["scores"])
            found["scores"] = given["scores"].to(float64)
        else:
            crowds = given.get("iscrowd", zeros(count, dtype=int64, device=boxes.device))
            found["iscrowd"] = check_labels(self._name, f"{place}['iscrowd']", crowds if count else no_rows, 2)
            areas = given.get("area", box_area(found["boxes"]))
            check_numbers(self._name, f"{place}['area']", areas, 0.0, math.inf, "areas of 0 or more")
            found["area"] = areas.to(float64)
        rows = {f"{prefix}_{names[name]}": values for name, values in found.items()}
        return {f"{prefix}_counts": tensor([count], device=boxes.device), **rows}

    def _corners(self, place: str, boxes: Any) -> Any:
        check_numbers(self._name, place, boxes)
        if self.box_format == "xyxy":
            check_numbers(self._name, f"the width or height of {place}", boxes[:, 2:] - boxes[:, :2], 0.0, math.inf, _CORNERS)
            return boxes
        check_numbers(self._name, f"the width or height of {place}", boxes[:, 2:], 0.0, math.inf, "numbers of 0 or more")
        return box_convert(boxes, self.box_format, "xyxy")

    # -- figures
    def compute(self) -> dict[str, Any]:
        """Return a dict of float64 tensors; -1 where there are no true boxes.

        Returns:
            "map" (over all thresholds), "map_50" and "map_75" (-1 if that is no threshold), "map_small", "map_medium", "map_large"
            (of objects of such areas); "mar_1" and so on (the mean of the largest recalls, with so many detections of an image),
            "mar_small", "mar_medium", "mar_large"; "classes", the labels that occur.  With ``class_metrics`` "map_per_class" and
            "mar_100_per_class" (100: the last of ``max_detection_thresholds``); without it these are -1.
        """
        graph_break_on_read(f"{self._name}.compute()")
        matches: dict[int, list[_Matches]] = {}
        for image in self._images():
            for label in {*image.labels.tolist(), *image.true_labels.tolist()}:
                matches.setdefault(label, []).append(self._match(image.of_class(label, self.max_detection_thresholds[-1])))
        classes = sorted(matches)
        last, num_limits = self.max_detection_thresholds[-1], len(self.max_detection_thresholds)
        shape = (len(classes), len(AREAS), len(self.iou_thresholds))
        precision, recall = numpy.full(shape, -1.0), numpy.full((num_limits, *shape), -1.0)
        for k, label in enumerate(classes):
            for a in range(len(AREAS)):
                for m, limit in enumerate(self.max_detection_thresholds):
                    found = self._curve([part.of_area(a, limit) for part in matches[label]])
                    if found is not None:
                        recall[m, k, a], precision[k, a] = found  # at the last limit in the end
        areas = list(AREAS)
        figures: dict[str, Any] = {"map": _mean(precision[:, 0])}
        for name, threshold in (("map_50", 0.5), ("map_75", 0.75)):
            place = [t for t, value in enumerate(self.iou_thresholds) if math.isclose(value, threshold)]
            figures[name] = _mean(precision[:, 0, place])
        figures |= {f"map_{name}": _mean(precision[:, areas.index(name)]) for name in areas[1:]}
        figures |= {f"mar_{limit}": _mean(recall[m, :, 0]) for m, limit in enumerate(self.max_detection_thresholds)}
        figures |= {f"mar_{name}": _mean(recall[-1, :, areas.index(name)]) for name in areas[1:]}
        for name, of_class in (("map_per_class", precision[:, 0]), (f"mar_{last}_per_class", recall[-1, :, 0])):
            figures[name] = [_mean(row) for row in of_class] if self.class_metrics else -1.0
        result: dict[str, Any] = {name: tensor(value, dtype=float64, device=self._device) for name, value in figures.items()}
        return result | {"classes": tensor(classes, dtype=int64, device=self._device)}

    def _images(self) -> list[_Image]:
        """The images, on the host."""
        if self._all("true_counts") is None:
            return []
        rows: dict[str, Any] = {}
        for prefix, names in (("detected", _DETECTED), ("true", _TRUE)):
            ends = numpy.cumsum(self._all(f"{prefix}_counts").cpu().numpy())[:-1]
            for name in names.values():
                rows[f"{prefix}_{name}"] = numpy.split(self._all(f"{prefix}_{name}").cpu().numpy(), ends)
        return [_Image(*parts) for parts in zip(*(rows[f"{p}_{n}"] for p, names in _GROUPS for n in names))]

    def _match(self, image: _Image) -> _Matches:
        """Match the detections of one class in one image, in each range of areas and at each threshold."""
        is_crowd = image.crowds.astype(bool)
        outside = [(image.areas < low) | (image.areas > high) for low, high in AREAS.values()]
        left_out = is_crowd | numpy.stack(outside)[:, None]  # (areas, 1, true boxes)
        needed = numpy.array(self.iou_thresholds)[:, None]
        free = numpy.ones((len(AREAS), len(needed), len(is_crowd)), bool)
        hits, others = (numpy.zeros((len(AREAS), len(needed), len(image.scores)), bool) for _ in range(2))
        sizes, overlaps = image.sizes_and_overlaps()
        for d, overlap in enumerate(overlaps if len(is_crowd) else ()):
            fits = (overlap >= needed) & (free | is_crowd)
            first, hits[..., d] = _best(numpy.where(fits & ~left_out, overlap, -1.0))
            second, others[..., d] = _best(numpy.where(fits & left_out, overlap, -1.0))
            taken = numpy.where(hits[..., d], first, second)[..., None] == numpy.arange(len(is_crowd))
            free &= ~(taken & (hits | others)[..., d, None])
        far = numpy.stack([(sizes < low) | (sizes > high) for low, high in AREAS.values()])[:, None]
        return _Matches(image.scores, hits, hits | ~(others | far), (~left_out).sum((1, 2)))

    def _curve(self, matches: list[_Matches]) -> tuple[Any, Any] | None:
        """Recall and average precision (thresholds,) of a class in all images; None without true boxes."""
        num_true = sum(part.num_true for part in matches)
        if not num_true:
            return None
        order = numpy.argsort(-numpy.concatenate([part.scores for part in matches]), kind="stable")
        hits, counts = (numpy.concatenate(parts, -1)[:, order] for parts in zip(*((p.hits, p.counts) for p in matches)))
        right, false = numpy.cumsum(hits & counts, -1), numpy.cumsum(~hits & counts, -1)
        recall = right / num_true
        precision = right / numpy.maximum(right + false, 1)
        best = numpy.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
        final = recall[:, -1] if len(order) else numpy.zeros(len(recall))
        return final, [self._average(r, p) for r, p in zip(recall, best)]

    def _average(self, recall: Any, precision: Any) -> float:
        """The average of a falling precision over recalls."""
        recalls = RECALLS[self.interpolation] if self.rec_thresholds is None else self.rec_thresholds
        if recalls is None:
            return float((numpy.diff(recall, prepend=0.0) * precision).sum())
        place = numpy.searchsorted(recall, recalls)
        return float(numpy.append(precision, 0.0)[place].mean())


_CORNERS = "boxes with x1 <= x2 and y1 <= y2; for other formats pass box_format"


class _Image(NamedTuple):
    """Detected and true boxes of an image, in the order of the rows kept."""

    boxes: numpy.ndarray
    scores: numpy.ndarray
    labels: numpy.ndarray
    true_boxes: numpy.ndarray
    true_labels: numpy.ndarray
    crowds: numpy.ndarray
    areas: numpy.ndarray

    def of_class(self, label: int, limit: int) -> _Image:
        """The boxes of a class, of detections the ``limit`` with the largest scores, in descending order."""
        [found], [true] = numpy.nonzero(self.labels == label), numpy.nonzero(self.true_labels == label)
        found = found[numpy.argsort(-self.scores[found], kind="stable")][:limit]
        return _Image(*(values[found] for values in self[:3]), *(values[true] for values in self[3:]))

    def sizes_and_overlaps(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The areas of the detections; the IoU of each with each true box, with a crowd the part of it that is in the crowd."""
        boxes, true = (tensor(values, device="cpu") for values in (self.boxes, self.true_boxes))
        both, union = (area.numpy() for area in intersection_and_union(boxes, true))
        sizes = box_area(boxes).numpy()
        over = numpy.where(self.crowds == 1, sizes[:, None], union)
        return sizes, numpy.divide(both, over, out=numpy.zeros_like(both), where=both > 0)


class _Matches(NamedTuple):
    """Which detections of a class in an image are right, and which count, (areas, thresholds, detections); best scores first."""

    scores: numpy.ndarray
    hits: numpy.ndarray
    counts: numpy.ndarray
    num_true: Any  # (areas,)

    def of_area(self, area: int, limit: int) -> _Matches:
        return _Matches(self.scores[:limit], self.hits[area, :, :limit], self.counts[area, :, :limit], self.num_true[area])


def _best(overlaps: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The place of the largest overlap of true boxes, the last if several are equal, and whether there is any."""
    place = overlaps.shape[-1] - 1 - overlaps[..., ::-1].argmax(-1)
    return place, numpy.take_along_axis(overlaps, place[..., None], -1)[..., 0] >= 0


def _mean(values: numpy.ndarray) -> float:
    """The mean of the values that are not -1; -1 if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
