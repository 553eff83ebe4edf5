"""MixUp and CutMix: each sample of a batch is mixed with its neighbour, and so are the labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.arrange import roll
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_number, as_positive
from gpunet.ops.one_hot import one_hot
from gpunet.vision.transforms.geometry import below
from gpunet.vision.transforms.transform import Frame, Transform, chosen_of, frame_of, leaves_of, place_of, with_leaves
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, wrap

__all__ = ["CutMix", "MixUp"]

_QUANTILES = 4096


@functools.lru_cache(maxsize=16)
def _quantiles(alpha: float) -> numpy.ndarray:
    """x^e of Beta(alpha, alpha) at equidistant probabilities from 0 to 1/2, with e = min(alpha, 1), in which it is smooth at 0."""
    e = min(alpha, 1.0)
    edges = numpy.linspace(0, 0.5**e, 1 << 16)
    middle = ((edges[1:] + edges[:-1]) / 2) ** (1 / e)
    log_density = (alpha - 1) * numpy.log1p(-middle) + (alpha - e) * numpy.log(middle)  # of x^e
    mass = numpy.cumsum(numpy.exp(log_density - log_density.max()))
    shares = numpy.concatenate([[0.0], 0.5 * mass / mass[-1]])
    return numpy.interp(numpy.linspace(0, 0.5, _QUANTILES + 1), shares, edges).astype(numpy.float32)


def symmetric_beta(u: Any, alpha: float) -> Any:
    """Numbers u in [0, 1) as numbers of the distribution Beta(alpha, alpha): the quantile function, linear between its points."""
    table = make_tensor(constant(devices.move(_quantiles(alpha), u.device)))
    place = where(u < 0.5, u, 1 - u) * (2 * _QUANTILES)
    low = below(place * (1 / _QUANTILES), _QUANTILES)
    found = table[low] + (table[low + 1] - table[low]) * (place - low.to("float32"))
    x = found ** (1 / min(alpha, 1.0))
    return where(u < 0.5, x, 1 - x)


class _Mix(Transform):
    """Base class.

    Args:
        alpha: the share of a sample is drawn from Beta(alpha, alpha), for each sample by itself; 1 is uniform.
        num_classes: of labels that are integers; labels that are probabilities need none.
        labels_getter: "default" for the labels at the key "labels" or "label" of a dict, or else the first tensor (batch,) or
            (batch, classes) behind the images; a key; or a function of the sample that returns the labels.

    Raises:
        ArgumentError: alpha is not positive, or labels are integers and ``num_classes`` is None.
        ShapeError: a single sample, or labels of another number.
        DtypeError: boxes or masks, which cannot be mixed.
    """

    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None, labels_getter: Any = "default") -> None:
        self.alpha = as_number(self._name, "alpha", alpha)
        if not 0 < self.alpha <= 100:
            raise ArgumentError(f"{self._name}: alpha={alpha!r}; expected a positive number up to 100")
        self.num_classes = None if num_classes is None else as_positive(self._name, "num_classes", num_classes)
        self.labels_getter = labels_getter

    def forward(self, *inputs: Any) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        leaves = [*leaves_of(sample)]
        images = [n for n, is_chosen in enumerate(chosen_of(leaves)) if is_chosen]
        for n in images:
            if isinstance(leaves[n], (BoundingBoxes, Mask)):
                kind = type(leaves[n]).__name__
                raise DtypeError(f"{self._name}: the sample has {kind}; only images and labels of classes are mixed")
        if len(images) != 1 or not isinstance(leaves[images[0]], Tensor) or leaves[images[0]].ndim < 4:
            raise ShapeError(f"{self._name}: expected a sample with one batch of images (batch, channels, height, width)")
        batch = leaves[images[0]]
        labels = self._labels(sample, leaves, images[0])
        frame = frame_of(self._name, [batch])
        mixed, share = self.mix(batch, roll(batch, 1, 0), symmetric_beta(frame.uniform()[:, 0], self.alpha), frame)
        found = list(leaves)
        found[images[0]] = wrap(mixed, like=batch)
        if labels is not None:
            place = place_of(self._name, labels, leaves)
            found[place] = self._mixed_labels(labels, share, frame.samples)
        return with_leaves(sample, iter(found))

    def _labels(self, sample: Any, leaves: Sequence[Any], image: int) -> Any:
        getter = self.labels_getter
        if getter is None:
            return None
        if callable(getter):
            return getter(sample)
        if isinstance(sample, Mapping):
            for key in ("labels", "label") if getter == "default" else (getter,):
                if isinstance(sample.get(key), Tensor):
                    return sample[key]
        found = next((leaf for leaf in leaves[image + 1 :] if isinstance(leaf, Tensor) and leaf.ndim in (1, 2)), None)
        if found is None or getter != "default":
            raise ShapeError(f"{self._name}: found no labels in the sample; pass labels_getter, or labels_getter=None")
        return found

    def _mixed_labels(self, labels: Any, share: Any, samples: int) -> Tensor:
        if labels.shape[0] != samples:
            raise ShapeError(f"{self._name}: labels of shape {tuple(labels.shape)} for a batch of {samples} images")
        if not is_floating(labels.dtype):
            if self.num_classes is None:
                raise ArgumentError(f"{self._name}: labels of dtype {labels.dtype} become probabilities; pass num_classes")
            if labels.ndim != 1:
                raise ShapeError(f"{self._name}: integer labels of shape {tuple(labels.shape)}; expected ({samples},)")
            labels = one_hot(labels.to("int64"), self.num_classes).to("float32")
        weight = share.to(labels.dtype).reshape(-1, *(1,) * (labels.ndim - 1))
        return labels * weight + roll(labels, 1, 0) * (1 - weight)

    def mix(self, x: Any, other: Any, share: Any, frame: Frame) -> tuple[Any, Any]:
        """The mixed images, and the share (batch,) of ``x`` in them."""
        raise NotImplementedError


class MixUp(_Mix):
    """share x + (1 - share) neighbour, of images and labels (Zhang et al. 2017)."""

    def mix(self, x: Any, other: Any, share: Any, frame: Frame) -> tuple[Any, Any]:
        if not is_floating(x.dtype):
            raise DtypeError(f"MixUp: images of dtype {x.dtype}; expected a floating dtype: put ToDtype(..., scale=True) before it")
        weight = share.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return other + (x - other) * weight, share


class CutMix(_Mix):
    """A rectangle of the neighbour in each image (Yun et al. 2019); labels by the pixels that the image keeps.

    The rectangle has a share of 1 - share of the area, around a uniform center, and is cut off at the border.
    """

    def mix(self, x: Any, other: Any, share: Any, frame: Frame) -> tuple[Any, Any]:
        u, side = frame.uniform(2), 0.5 * (1 - share).sqrt()
        bounds = []
        for n, size in enumerate((frame.height, frame.width)):
            center, half = below(u[:, n], size), (side * size).to("int64")
            bounds.append(((center - half).clamp(min=0), (center + half).clamp(max=size)))
        (top, bottom), (left, right) = bounds
        kept = 1 - ((bottom - top) * (right - left)).to("float32") / (frame.height * frame.width)
        lead = (-1, *(1,) * (x.ndim - 3))
        is_row, is_column = (
            (place >= low.reshape(*lead, 1)) & (place < high.reshape(*lead, 1))
            for place, (low, high) in zip((arange(n, device=x.device) for n in (frame.height, frame.width)), bounds)
        )
        is_other = is_row.unsqueeze(-1) & is_column.unsqueeze(-2)
        return where(is_other, other, x), kept
