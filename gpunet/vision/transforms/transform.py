"""The base class of transforms, and transforms made of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gpunet.autograd import Tensor
from gpunet.backend.devices import CPU
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import active
from gpunet.ops.creation import tensor
from gpunet.ops.face import as_number, as_probability
from gpunet.ops.random import randperm
from gpunet.vision.images import is_pil
from gpunet.vision.transforms.draws import branch, is_keyed, uniform
from gpunet.vision.transforms.functional.geometry import select
from gpunet.vision.transforms.functional.inputs import size_of
from gpunet.vision.tv_tensors import BoundingBoxes, Mask, TVTensor, wrap

__all__ = ["Compose", "Identity", "Lambda", "RandomApply", "RandomChoice", "RandomOrder", "Transform"]


# ---- samples ----------------------------------------------------------------------------------------------------------


def leaves_of(sample: Any) -> Iterator[Any]:
    """The items of a sample: of nested dicts, lists and tuples."""
    if isinstance(sample, Mapping):
        for value in sample.values():
            yield from leaves_of(value)
    elif isinstance(sample, (list, tuple)):
        for value in sample:
            yield from leaves_of(value)
    else:
        yield sample


def with_leaves(sample: Any, leaves: Iterator[Any]) -> Any:
    """The sample with other items."""
    if isinstance(sample, Mapping):
        return {key: with_leaves(value, leaves) for key, value in sample.items()}
    if isinstance(sample, (list, tuple)):
        items = [with_leaves(value, leaves) for value in sample]
        return type(sample)(*items) if hasattr(sample, "_fields") else type(sample)(items)
    return next(leaves)


def place_of(name: str, labels: Any, leaves: Sequence[Any]) -> int:
    """The place of what a ``labels_getter`` has returned among the items of a sample.

    Raises:
        ArgumentError: it is no tensor of the sample.
    """
    for n, leaf in enumerate(leaves):
        if leaf is labels and isinstance(leaf, Tensor):
            return n
    kind = f"a tensor of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
    raise ArgumentError(
        f"{name}: labels_getter returned {kind} that is no item of the sample; expected a tensor of the sample itself: convert "
        "labels before this transform"
    )


def _is_image(leaf: Any) -> bool:
    return is_pil(leaf) or (isinstance(leaf, Tensor) and not isinstance(leaf, (BoundingBoxes, Mask)))


def chosen_of(leaves: Sequence[Any]) -> list[bool]:
    """Which items of a sample are images, masks and boxes.

    These are PIL images and objects of :mod:`gpunet.vision.tv_tensors`; without an image among them the first tensor is one, so
    that labels may be tensors.
    """
    chosen = [is_pil(leaf) or isinstance(leaf, TVTensor) for leaf in leaves]
    if not any(chosen[n] and _is_image(leaf) for n, leaf in enumerate(leaves)):
        first = next((n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and not isinstance(leaf, TVTensor)), None)
        if first is not None:
            chosen[first] = True
    return chosen


class Frame(NamedTuple):
    """What a transform needs to know of a sample, or of a batch of samples, to draw its random numbers.

    Attributes:
        samples: in the batch; 1 for a single sample.
        height, width: of the images.
        device: on which the numbers are drawn.
        is_single: whether the parameters become Python numbers: of a single sample, outside of captured steps.
    """

    samples: int
    height: int
    width: int
    device: Any
    is_single: bool

    def uniform(self, count: int = 1) -> Any:
        """Numbers in [0, 1): (samples, count)."""
        return uniform(self.samples, count, self.device)


def _batch_of(leaf: Any) -> int | None:
    """The number of samples of a batch; None of a single sample, and of what may be either."""
    if is_pil(leaf):
        return None
    least = 3 if isinstance(leaf, BoundingBoxes) else 4
    return int(leaf.shape[0]) if leaf.ndim >= least else None


def frame_of(name: str, leaves: Sequence[Any]) -> Frame:
    """The frame that all images, masks and boxes share.

    Raises:
        DtypeError: there are none.
        ShapeError: their sizes or batches differ.
    """
    first = next((leaf for leaf in leaves if _is_image(leaf)), leaves[0])
    size, samples = size_of(first, name), _batch_of(first)
    for leaf in leaves:
        if size_of(leaf, name) != size:
            height, width = size_of(leaf, name)
            raise ShapeError(
                f"{name}: {_kind(first)} of {size[0]} x {size[1]} and {_kind(leaf)} of {height} x {width}; expected one size"
            )
        if leaf is first or is_pil(leaf):
            continue
        count = _batch_of(leaf) if samples is None or leaf.ndim != 3 else int(leaf.shape[0])
        if count != samples:
            expected = "a single sample" if samples is None else f"a batch of {samples}"
            raise ShapeError(f"{name}: {_kind(leaf)} of shape {tuple(leaf.shape)} beside {expected}; expected the same batch")
    is_single = samples is None and active.tape is None
    device = CPU if is_single or is_pil(first) else first.device
    return Frame(1 if samples is None else samples, *size, device, is_single)


def _kind(leaf: Any) -> str:
    """What an item is, with an article."""
    if isinstance(leaf, BoundingBoxes):
        return "BoundingBoxes"
    name = "PIL image" if is_pil(leaf) else type(leaf).__name__
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


# ---- transforms -------------------------------------------------------------------------------------------------------


class Transform:
    """Base class: a function of a sample, whose arguments are printed.

    A sample is an image, or nested dicts, lists and tuples of images, boxes, masks and all else, which stays as it is.  If there
    is no PIL image, nor an :class:`gpunet.vision.tv_tensors.Image`, the first tensor is the image.  A tensor of more than three
    dimensions is a batch, of which each sample gets random numbers of its own; ``images[None]`` gives all the same.

    A subclass defines ``transform(inpt, params)``, and if it is random ``draw(frame)``, or torchvision's
    ``make_params(flat_inputs)``.
    """

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items() if not name.startswith("_"))
        return f"{type(self).__name__}({options})"

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def forward(self, *inputs: Any) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        leaves = [*leaves_of(sample)]
        chosen = [True] if len(leaves) == 1 and not isinstance(sample, (Mapping, list, tuple)) else chosen_of(leaves)
        if not any(chosen):
            raise DtypeError(
                f"{self._name}: a sample without images, masks and boxes; expected a PIL image, or a tensor (..., height, width)"
            )
        params = self._params([leaf for leaf, is_chosen in zip(leaves, chosen) if is_chosen])
        found = [self.transform(leaf, params) if is_chosen else leaf for leaf, is_chosen in zip(leaves, chosen)]
        return with_leaves(sample, iter(found))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _params(self, leaves: Sequence[Any]) -> dict[str, Any]:
        if (make_params := getattr(self, "make_params", None)) is not None:
            return make_params(leaves)
        frame = frame_of(self._name, leaves)
        params = self.draw(frame)
        if frame.is_single:
            return {k: v.tolist()[0] if isinstance(v, Tensor) else v for k, v in params.items()}
        return params

    def draw(self, frame: Frame) -> dict[str, Any]:
        """The random parameters of each sample, as tensors (samples, ...); of a single sample they become Python numbers."""
        return {}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The result for an image, a mask or boxes."""
        raise NotImplementedError


class Simple(Transform):
    """Base class of transforms without random numbers: ``transform(inpt, {})`` of what ``takes`` holds for."""

    def forward(self, *inputs: Any) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        if not isinstance(sample, (Mapping, list, tuple)):
            return self.transform(sample, {})
        leaves = [*leaves_of(sample)]
        found = [self.transform(leaf, {}) if is_chosen else leaf for leaf, is_chosen in zip(leaves, self.takes(leaves))]
        return with_leaves(sample, iter(found))

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        return chosen_of(leaves)


class Identity(Simple):
    """Change nothing."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt


class Lambda(Simple):
    """Apply a function, to each item of a sample.

    Args:
        lambd: the function.
        types: classes of items that it is applied to; all by default.
    """

    def __init__(self, lambd: Callable[[Any], Any], *types: type) -> None:
        if not callable(lambd):
            raise DtypeError(f"Lambda: got a {type(lambd).__name__}; expected a function")
        self.lambd, self.types = lambd, types or (object,)

    def takes(self, leaves: Sequence[Any]) -> list[bool]:
        return [isinstance(leaf, self.types) for leaf in leaves]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self.lambd(inpt) if isinstance(inpt, self.types) else inpt


class Compose(Transform):
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def forward(self, *inputs: Any) -> Any:
        found: Any = inputs
        for transform in self.transforms:
            result = transform(*found)
            found = result if len(inputs) > 1 else (result,)
        return found if len(inputs) > 1 else found[0]

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform!r}" for transform in self.transforms)
        return f"Compose({lines}\n)"


class _Choice(Transform):
    """Base class of transforms that choose among others.

    Of a batch, or in a captured step, all of them are computed, and each sample takes the result that it has drawn, so that the
    results must agree in shape.
    """

    def _choose(self, inputs: tuple[Any, ...], options: Sequence[Callable[..., Any]], draw: Callable[[Any], Any]) -> Any:
        """One of the results of ``options``; ``draw`` makes numbers of options of numbers in [0, 1), (samples,)."""
        sample = inputs[0] if len(inputs) == 1 else inputs
        leaves = [*leaves_of(sample)]
        found = [leaf for leaf, is_chosen in zip(leaves, chosen_of(leaves)) if is_chosen]
        frame = frame_of(self._name, found) if found else Frame(1, 0, 0, CPU, True)
        number = draw(frame.uniform()[:, 0])
        if frame.is_single:
            chosen = int(number.item())
            with branch(chosen):
                return options[chosen](*inputs)
        results = []
        for n, option in enumerate(options):
            with branch(n):
                results.append([*leaves_of(option(*inputs))])
        return with_leaves(sample, (self._mixed(number, items) for items in zip(*results, strict=True)))

    def _mixed(self, number: Tensor, items: Sequence[Any]) -> Any:
        """Of each sample the item of the option with its number."""
        total = items[0]
        if not isinstance(total, Tensor) or all(item is total for item in items):
            return total
        for n, item in enumerate(items[1:], 1):
            if item.shape != total.shape or item.dtype != total.dtype:
                raise ShapeError(
                    f"{self._name}: results of shape {tuple(total.shape)} ({total.dtype}) and {tuple(item.shape)} ({item.dtype}); "
                    "expected the same for all samples of a batch"
                )
            total = wrap(select(number == n, item, total), like=total)
        return total


class RandomApply(_Choice):
    """Apply all of the transforms with probability ``p``, or none; of a batch to each sample by itself."""

    def __init__(self, transforms: Sequence[Callable[..., Any]], p: float = 0.5) -> None:
        self.transforms, self.p = transforms, as_probability("RandomApply", "p", p)

    def forward(self, *inputs: Any) -> Any:
        return self._choose(inputs, (Identity(), Compose(self.transforms)), lambda u: (u < self.p).to("int64"))


class RandomChoice(_Choice):
    """Apply one of the transforms; of a batch to each sample its own.

    Args:
        transforms: the transforms.
        p: their probabilities, or numbers in proportion to them; equal ones by default.

    Raises:
        ArgumentError: there are no transforms, or not as many nonnegative numbers with a positive sum.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], p: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(transforms) if p is None else [as_number("RandomChoice", "p", w) for w in p]
        if not weights or len(weights) != len(transforms) or min(weights) < 0 or not sum(weights) > 0:
            raise ArgumentError(f"RandomChoice: p={p!r} for {len(transforms)} transforms; expected a probability for each of them")
        self.transforms, self.p = transforms, p
        self._ends = [sum(weights[: n + 1]) / sum(weights) for n in range(len(weights))]

    def forward(self, *inputs: Any) -> Any:
        return self._choose(inputs, self.transforms, lambda u: chosen_by(u, self._ends))


def chosen_by(u: Any, ends: Sequence[float]) -> Any:
    """The number of the first of the ascending ``ends`` that is above u (samples,), int64."""
    inner = tensor(ends[:-1], dtype="float32", device=u.device)
    return (u.reshape(-1, 1) >= inner).to("int64").sum(1)


class RandomOrder(Transform):
    """Apply the transforms in a random order, which is one for the whole batch, and read on the host."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def forward(self, *inputs: Any) -> Any:
        count = len(self.transforms)
        if is_keyed():
            raise ArgumentError("RandomOrder: its order is one for the batch, and cannot be keyed by sample; use RandomChoice")
        return Compose([self.transforms[i] for i in randperm(count, device="cpu").tolist()])(*inputs)
