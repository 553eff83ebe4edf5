"""Conversions between PIL images, arrays and tensors, and of dtypes and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.elementwise import where
from gpunet.vision.images import is_pil, to_tensor
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms.functional.conversions import check_normalization
from gpunet.vision.transforms.transform import Simple, Transform, chosen_of, leaves_of, place_of, with_leaves
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, TVTensor, wrap

__all__ = [
    "ClampBoundingBoxes", "ConvertBoundingBoxFormat", "ConvertImageDtype", "Normalize", "PILToTensor", "SanitizeBoundingBoxes",
    "ToDtype", "ToImage", "ToPILImage", "ToTensor",
]  # fmt: skip


def _are_pictures(leaves: Sequence[Any]) -> list[bool]:
    return [is_pil(leaf) or isinstance(leaf, numpy.ndarray) for leaf in leaves]


class ToTensor(Simple):
    """A PIL image or an array (height, width, channels) as a tensor (channels, height, width).

    Bytes become numbers from 0 to 1 of the default dtype.
    """

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        return _are_pictures(leaves)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        return to_tensor(inpt)


class PILToTensor(Simple):
    """A PIL image as a tensor (channels, height, width) of its own dtype."""

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        return [is_pil(leaf) for leaf in leaves]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        return F.pil_to_tensor(inpt)


class ToImage(Simple):
    """A PIL image, an array (height, width, channels) or a tensor as a :class:`gpunet.vision.tv_tensors.Image` of its own dtype."""

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        pictures = _are_pictures(leaves)
        return pictures if any(pictures) else chosen_of(leaves)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if isinstance(inpt, TVTensor) else F.to_image(inpt)


class ToPILImage(Simple):
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

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if isinstance(inpt, (BoundingBoxes, Mask)) else F.to_pil_image(inpt, self.mode)


class ConvertImageDtype(Simple):
    """A tensor in another dtype; the largest integer of an integer dtype is 1 of a floating one.

    Raises:
        DtypeError: it is no tensor, or the floating numbers cannot hold the integers.
    """

    def __init__(self, dtype: Any = "float32") -> None:
        self.dtype = dtype

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if isinstance(inpt, (BoundingBoxes, Mask)) else F.convert_image_dtype(inpt, self.dtype)


class ToDtype(Simple):
    """Tensors in another dtype.

    Args:
        dtype: of images; or a dict of dtypes by class, such as ``{Image: "float32", Mask: "int64", "others": None}``, in which
            None leaves a dtype as it is.
        scale: whether images are scaled to the range of the dtype; the largest integer is 1 of a floating dtype.

    Raises:
        DtypeError: the item is no tensor.
    """

    def __init__(self, dtype: Any, scale: bool = False) -> None:
        self.dtype, self.scale = dtype, scale

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        if not isinstance(self.dtype, Mapping):
            return chosen_of(leaves)
        return [isinstance(leaf, Tensor) for leaf in leaves]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Tensor):
            raise DtypeError(f"ToDtype: got a {type(inpt).__name__}; expected a tensor: put ToImage() before it")
        if isinstance(self.dtype, Mapping):
            kinds = [kind for kind in self.dtype if isinstance(kind, type) and isinstance(inpt, kind)]
            dtype = self.dtype[kinds[0]] if kinds else self.dtype.get("others")
        else:
            dtype = None if isinstance(inpt, (BoundingBoxes, Mask)) else self.dtype
        return inpt if dtype is None else F.to_dtype(inpt, dtype, self.scale)


class Normalize(Simple):
    """(channel - mean) / std of tensors (..., channels, height, width).

    Raises:
        ArgumentError: mean or std is no sequence of numbers, or a std is 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace
        check_normalization(mean, std)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.normalize(inpt, self.mean, self.std, self.inplace)


# ---- boxes ------------------------------------------------------------------------------------------------------------


class _OfBoxes(Simple):
    """Base class of transforms of boxes."""

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        return [isinstance(leaf, BoundingBoxes) for leaf in leaves]


class ClampBoundingBoxes(_OfBoxes):
    """Move the corners of boxes into the image."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.clamp_bounding_boxes(inpt)


class ConvertBoundingBoxFormat(_OfBoxes):
    """Boxes in another format: "XYXY", "XYWH" or "CXCYWH"."""

    def __init__(self, format: Any) -> None:
        self.format = format

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.convert_bounding_box_format(inpt, self.format)


class SanitizeBoundingBoxes(Transform):
    """Drop boxes that are too small or have a corner outside of the image, together with their labels and masks.

    Of a batch, whose shapes are fixed, none is dropped: boxes and masks become 0, labels ``ignore_index``, which cross-entropy
    leaves out.  In a sample that is a dict, the key "valid" then says which are left, bool (batch, boxes).

    Args:
        min_size: the least width and height of a box.
        min_area: the least area.
        labels_getter: "default" for the labels at the key "labels" or "label" of a dict in the sample, or else at a key that has
            "label" in it, or else for the first tensor (boxes,) of a tuple or list; None for none; a key; or a function of the
            sample that returns a tensor (boxes,) of it, or a tuple of them.
        ignore_index: the label of an invalid box of a batch.

    Raises:
        ShapeError: the sample has no boxes, boxes more than once, or labels or masks of another number.
        ArgumentError: the labels are not found, or ``labels_getter`` returns what is no item of the sample.
    """

    def __init__(
        self, min_size: float = 1.0, min_area: float = 1.0, labels_getter: Any = "default", ignore_index: int = -100
    ) -> None:
        if min_size < 0 or min_area < 0:
            raise ArgumentError(f"SanitizeBoundingBoxes: min_size={min_size}, min_area={min_area}; expected 0 or more")
        self.min_size, self.min_area, self.labels_getter, self.ignore_index = min_size, min_area, labels_getter, ignore_index

    def forward(self, *inputs: Any) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        leaves = [*leaves_of(sample)]
        boxes = [leaf for leaf in leaves if isinstance(leaf, BoundingBoxes)]
        if len(boxes) != 1:
            raise ShapeError(f"SanitizeBoundingBoxes: a sample with {len(boxes)} BoundingBoxes; expected one")
        left, is_valid = F.sanitize_bounding_boxes(boxes[0], self.min_size, self.min_area)
        labels = self._labels(sample, is_valid.shape)
        found = []
        for leaf in leaves:
            is_label = any(leaf is label for label in labels)
            if leaf is boxes[0]:
                found.append(left)
            elif is_label or (isinstance(leaf, Mask) and leaf.ndim > is_valid.ndim + 1):
                found.append(self._left(leaf, is_valid, is_label))
            else:
                found.append(leaf)
        result = with_leaves(sample, iter(found))
        if is_valid.ndim > 1 and isinstance(result, dict):
            result["valid"] = is_valid & result["valid"] if isinstance(result.get("valid"), Tensor) else is_valid
        return result

    def _left(self, item: Tensor, is_valid: Tensor, is_label: bool) -> Any:
        """The labels or masks of the boxes that are left."""
        if item.shape[: is_valid.ndim] != is_valid.shape:
            raise ShapeError(
                f"SanitizeBoundingBoxes: {'labels' if is_label else 'masks'} of shape {tuple(item.shape)} for boxes of shape "
                f"{tuple(is_valid.shape)}; expected one for each box"
            )
        if is_valid.ndim == 1:
            return wrap(item[is_valid], like=item)
        other = self.ignore_index if is_label else 0
        condition = is_valid.reshape(*is_valid.shape, *(1,) * (item.ndim - is_valid.ndim))
        return wrap(where(condition, item, other).to(item.dtype), like=item)

    def _labels(self, sample: Any, shape: Sequence[int]) -> list[Any]:
        """The labels of boxes of this shape without the last dimension."""
        getter = self.labels_getter
        if getter is None:
            return []
        if callable(getter):
            found = getter(sample)
            found = [*found] if isinstance(found, (tuple, list)) else [found]
            leaves = [*leaves_of(sample)]
            return [leaves[place_of("SanitizeBoundingBoxes", labels, leaves)] for labels in found]
        dicts = [*_dicts_of(sample)]
        keys = [getter]
        if getter == "default":
            keys = ["labels", "label", *(key for d in dicts for key in d if isinstance(key, str) and "label" in key.lower())]
        found = [d[key] for key in keys for d in dicts if isinstance(d.get(key), Tensor)][:1]
        if not found and getter != "default":
            raise ShapeError(f"SanitizeBoundingBoxes: no tensor at the key labels_getter={getter!r} of the sample")
        if not found and isinstance(sample, (Mapping, list, tuple)):
            leaves = [*leaves_of(sample)]
            images = [leaf for leaf, is_chosen in zip(leaves, chosen_of(leaves)) if is_chosen]
            found = [
                item for item in _items_of_sequences(sample)
                if isinstance(item, Tensor) and item.shape == shape and not any(item is image for image in images)
            ][:1]  # fmt: skip
            if not found:
                raise ArgumentError(
                    "SanitizeBoundingBoxes: could not infer where the labels are in the sample; pass labels_getter, a key or a "
                    "function of the sample, or labels_getter=None if it has none"
                )
        return found


def _items_of_sequences(sample: Any) -> Any:
    """The items of nested lists and tuples; those of dicts are none."""
    if isinstance(sample, (list, tuple)):
        for value in sample:
            yield from _items_of_sequences(value)
    elif not isinstance(sample, Mapping):
        yield sample


def _dicts_of(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        yield sample
    for value in sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, (list, tuple)) else ():
        yield from _dicts_of(value)
