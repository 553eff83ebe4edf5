"""Transforms of batches: random numbers for each sample, boxes and masks that follow, captured steps, mixing of samples."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError, DtypeError, GradientError, ShapeError
from gpunet.vision import ops
from gpunet.vision import transforms as T
from gpunet.vision import tv_tensors as tv
from gpunet.vision.transforms import functional as F
from gpunet.vision.transforms import warp
from gpunet.vision.transforms.mixing import symmetric_beta
from tests.vision import torchvision_values

BILINEAR = T.InterpolationMode.BILINEAR
RANDOM = numpy.random.default_rng(0)
#: Every random transform, and how it is called in the tests of all.
AUGMENTATIONS: dict[str, Any] = {
    "crop": T.RandomCrop(12, padding=3), "resized crop": T.RandomResizedCrop((10, 12)), "flips": T.Compose(
        [T.RandomHorizontalFlip(), T.RandomVerticalFlip()]
    ), "rotation": T.RandomRotation(40, BILINEAR), "affine": T.RandomAffine(30, (0.2, 0.1), (0.7, 1.3), (5, 10, -3, 3)),
    "perspective": T.RandomPerspective(p=0.7), "jitter": T.ColorJitter(0.4, 0.3, 0.5, 0.2), "gray": T.RandomGrayscale(0.5),
    "blur": T.GaussianBlur(3), "noise": T.GaussianNoise(), "erasing": T.RandomErasing(0.7, value="random"),
    "augment": T.RandAugment(magnitude=20), "apply": T.RandomApply([T.ColorJitter(0.4), T.RandomRotation(20)]),
    "choice": T.RandomChoice([T.RandomVerticalFlip(1.0), T.Lambda(lambda x: 1 - x), T.Identity()], p=[1, 2, 1]),
    "invert": T.RandomInvert(), "posterize": T.RandomPosterize(2), "solarize": T.RandomSolarize(0.4),
    "equalize": T.RandomEqualize(), "autocontrast": T.RandomAutocontrast(), "sharpness": T.RandomAdjustSharpness(1.7),
    "choices": T.Compose([
        T.RandomApply([T.ColorJitter(0.4), T.RandomChoice([T.RandomRotation(30), T.RandomAffine(0, (0.3, 0.3)), T.Identity()])]),
        T.RandomChoice([T.RandomHorizontalFlip(), T.RandomVerticalFlip()]), T.RandomCrop(9),
    ]),
}  # fmt: skip


def images(count: int = 6, height: int = 14, width: int = 16) -> gpunet.Tensor:
    return gpunet.tensor(numpy.random.default_rng(1).random((count, 3, height, width), dtype=numpy.float32))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_sample_of_a_batch_draws_its_own_numbers(name: str) -> None:
    x = images(1).expand(16, 3, 14, 16).contiguous()
    gpunet.manual_seed(0)
    found = AUGMENTATIONS[name](x)
    assert found.shape[0] == 16 and found.dtype == x.dtype and numpy.isfinite(found.numpy()).all()
    assert len({sample.numpy().tobytes() for sample in found}) > 1
    gpunet.manual_seed(0)
    assert (AUGMENTATIONS[name](x) == found).all()
    together = AUGMENTATIONS[name](x[None])[0]
    assert name in ("noise", "erasing") or (together == together[:1]).all()  # one number for all of them


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_keyed_samples_are_augmented_alike_in_any_batch(name: str) -> None:
    x = images(8)
    with T.keyed(gpunet.arange(8), epoch=3, seed=7):
        expected = AUGMENTATIONS[name](x)
    order = gpunet.tensor([5, 2, 7])
    with T.keyed(order, epoch=gpunet.tensor(3), seed=7):
        found = AUGMENTATIONS[name](x[order])
    numpy.testing.assert_allclose(found.numpy(), expected[order].numpy(), atol=1e-6)
    step = gpunet.capture(lambda x, index: alone(name, x, index))
    for n in range(8):
        difference = abs(alone(name, x[n], n).numpy() - expected[n].numpy())
        # the nearest pixel of a place in the middle between two depends on the rounding of the angle
        assert numpy.mean(difference > 2e-5) <= (0.05 if name == "augment" else 0)
        if "choice" in name or name == "apply":
            # compiled steps round differently, so a pixel may move
            captured = step(x[n], gpunet.tensor([n])).numpy()
            assert numpy.mean(abs(captured - expected[n].numpy()) > 1e-4) < 0.01
    others = []
    for epoch, seed in ((4, 7), (3, 8)):
        with T.keyed(gpunet.arange(8), epoch=epoch, seed=seed):
            others.append(AUGMENTATIONS[name](x))
    assert not (others[0] == expected).all() and not (others[1] == expected).all() and not (others[0] == others[1]).all()


def alone(name: str, x: Any, index: Any) -> Any:
    with T.keyed(index, epoch=3, seed=7):
        return AUGMENTATIONS[name](x)


def test_keyed_numbers_are_uniform_and_independent() -> None:
    with T.keyed(gpunet.arange(4000), seed=1):
        first, second = T.draws.uniform(4000, 3, "cpu").numpy(), T.draws.uniform(4000, 2, "cpu").numpy()
        z = T.draws.normal(4000, 5, "cpu").numpy()
    u = numpy.concatenate([first, second], 1).astype("float64")
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean(0) - 0.5).max() < 0.02 and abs(numpy.corrcoef(u.T) - numpy.eye(5)).max() < 0.06
    counts = numpy.histogram(u, 50, (0, 1))[0]
    assert ((counts - 400.0) ** 2 / 400).sum() < 90  # chi-square of 49 degrees of freedom
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03 and abs(numpy.corrcoef(u[1:, 0], u[:-1, 0])[0, 1]) < 0.06


def test_philox_has_the_words_of_its_authors() -> None:
    # the known answers of the library Random123 for philox2x32, 10 rounds
    for counter, key, expected in (
        ((0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)), ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ):  # fmt: skip
        words = [gpunet.tensor([w]) for w in (*counter, key)]
        assert tuple(w.item() for w in T.draws._philox(*words)) == expected


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.exhaustive)])
def test_captured_steps_draw_what_eager_ones_draw(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
    x = images(4)
    augment = T.Compose([AUGMENTATIONS[name] for name in ("flips", "affine", "resized crop", "jitter", "erasing", "apply")])
    step = gpunet.capture(lambda x, index: (augment(x), keyed_flip(x, index)), backend=backend)
    index = gpunet.tensor([4, 0, 9, 9])
    gpunet.manual_seed(3)
    found = [step(x, index) for _ in range(3)]
    assert len(step.recordings) == 1
    gpunet.manual_seed(3)
    for replayed in found:
        expected = (augment(x), keyed_flip(x, index))
        for a, b in zip(replayed, expected):
            assert numpy.mean(abs(a.numpy() - b.numpy()) > 1e-4) < 0.01  # compiled steps round differently, so a pixel may move


def keyed_flip(x: Any, index: Any) -> Any:
    with T.keyed(index, seed=5):
        return T.RandomHorizontalFlip()(x)


def test_keys_around_a_captured_step_are_refused() -> None:
    flip = T.RandomHorizontalFlip()
    step = gpunet.capture(lambda x: flip(x))
    x = images(2)
    step(x)
    with T.keyed(gpunet.arange(2)), pytest.raises(CaptureError, match=r"move `with keyed\(...\)` into the step"):
        step(x)


def test_captured_steps_keep_the_classes_of_arguments_and_results() -> None:
    boxes = tv.BoundingBoxes([[1.0, 2, 3, 4]], format="XYXY", canvas_size=(14, 16))
    crop = T.RandomCrop(10)
    step = gpunet.capture(lambda image, boxes: crop(image, boxes))
    for _ in range(3):
        image, moved = step(tv.Image(images(1)[0]), boxes)
        assert isinstance(image, tv.Image) and isinstance(moved, tv.BoundingBoxes) and moved.canvas_size == (10, 10)
        assert moved.max() <= 10
    assert len(step.recordings) == 1
    plain = gpunet.tensor(boxes.tolist())
    assert (step(images(1)[0], plain)[1] == plain).all() and len(step.recordings) == 2  # a tensor is no box
    assert (step(images(1)[0], plain)[1] == plain).all() and isinstance(step(tv.Image(images(1)[0]), boxes)[1], tv.BoundingBoxes)
    with pytest.raises(ShapeError, match="expected one size"):
        step(tv.Image(images(1)[0]), tv.BoundingBoxes(boxes, format="XYXY", canvas_size=(14, 17)))


def test_devices(device: str) -> None:
    augment = T.Compose([T.RandomAffine(20, interpolation=BILINEAR), T.RandomCrop(10), T.ColorJitter(0.3, 0.3, hue=0.1)])
    x, boxes = images(3), tv.BoundingBoxes([[[1.0, 2, 9, 9]]] * 3, format="XYXY", canvas_size=(14, 16))
    found = []
    for place in ("cpu", device):
        with T.keyed(gpunet.arange(3), seed=2):
            moved = tv.BoundingBoxes(boxes, format="XYXY", canvas_size=(14, 16), device=place)
            found.append(augment(tv.Image(x.to(place)), moved))
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a.cpu().numpy(), b.cpu().numpy(), atol=1e-4)


# ---- boxes and masks --------------------------------------------------------------------------------------------------

GEOMETRY = {
    "flips": AUGMENTATIONS["flips"], "crop": T.RandomCrop((20, 24), padding=4), "center": T.CenterCrop((20, 50)),
    "pad": T.Pad((1, 2, 3, 4)), "resize": T.Resize((60, 33)), "resized crop": T.RandomResizedCrop((30, 30)),
    "quarter turns": T.RandomChoice([T.RandomRotation((a, a)) for a in (0, 180)]),
    "shift": T.RandomAffine(0, (0.4, 0.4)), "scale": T.RandomAffine(0, scale=(0.5, 2.0)),
    "affine": T.RandomAffine(60, (0.1, 0.1), (0.7, 1.3), (10, 20, -10, 10)), "rotation": T.RandomRotation(180),
    "perspective": T.RandomPerspective(0.6, 1.0), "augment": T.RandAugment(magnitude=25),
    "some": T.RandomApply([T.RandomHorizontalFlip(1.0), T.RandomAffine(0, (0.3, 0.3))]),
}  # fmt: skip
#: Those that take rectangles to rectangles.
STRAIGHT = ("flips", "crop", "center", "pad", "resize", "resized crop", "quarter turns", "shift", "scale", "some")


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("format", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_surround_the_pixels_of_their_masks(name: str, format: str) -> None:
    """The box of a mask's pixels lies in the moved box, and is that box, up to a pixel, if rectangles stay rectangles."""
    height, width, count = 34, 40, 5
    random = numpy.random.default_rng(len(name))
    for _ in range(4):
        corners = numpy.stack([random.integers(0, n - 4, (8, count)) for n in (width, height)], -1)
        sizes = numpy.stack([random.integers(4, 20, (8, count)) for _ in range(2)], -1)
        boxes = numpy.concatenate([corners, numpy.minimum(corners + sizes, (width, height))], -1).astype("float32")
        rows, columns = numpy.arange(height)[:, None], numpy.arange(width)
        x1, y1, x2, y2 = (boxes[..., k, None, None] for k in range(4))
        masks = (rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)
        given = tv.BoundingBoxes(
            ops.box_convert(gpunet.tensor(boxes), "xyxy", format.lower()), format=format, canvas_size=(height, width)
        )
        sample = {"image": tv.Image(images(8, height, width)), "masks": tv.Mask(masks), "boxes": given, "labels": gpunet.arange(8)}
        found = GEOMETRY[name](sample)
        canvas = tuple(found["image"].shape[-2:])
        assert found["boxes"].format.name == format and found["boxes"].canvas_size == canvas == tuple(found["masks"].shape[-2:])
        assert found["masks"].dtype == gpunet.bool and found["labels"] is sample["labels"]
        moved = ops.box_convert(found["boxes"], format.lower(), "xyxy").numpy()
        assert moved.min() >= 0 and (moved[..., 2:] <= (canvas[1], canvas[0])).all() and (moved[..., 2:] >= moved[..., :2]).all()
        for box, mask in zip(moved.reshape(-1, 4), found["masks"].numpy().reshape(-1, *canvas)):
            if not mask.any():
                assert name not in STRAIGHT or min(box[2:] - box[:2]) < 1.5
                continue
            ys, xs = numpy.nonzero(mask)
            of_pixels = numpy.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (of_pixels[:2] >= box[:2] - 1.01).all() and (of_pixels[2:] <= box[2:] + 1.01).all()
            if name in STRAIGHT:
                numpy.testing.assert_allclose(of_pixels, box, atol=2.01 if name in ("resize", "resized crop", "scale") else 1.01)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_masks_take_the_nearest_pixel(dtype: str) -> None:
    levels = RANDOM.choice([1, 3, 200], (6, 14, 16)).astype(dtype)
    for transform in (
        T.RandomAffine(30, scale=(0.5, 2.0), interpolation=BILINEAR, fill=0.5), T.RandomRotation(45, BILINEAR),
        T.RandomPerspective(p=1.0), T.RandomResizedCrop(11), T.Resize((33, 21)), T.Resize(7, antialias=False),
        T.RandAugment(interpolation=BILINEAR),
    ):  # fmt: skip
        for image, mask in ((images(), levels), (images(1)[0], levels[:2])):
            found = transform(tv.Image(image), tv.Mask(mask))[1]
            assert found.dtype == gpunet.tensor(mask).dtype and {*found.flatten().tolist()} <= {0, 1, 3, 200}


@pytest.mark.parametrize("options", [
    {}, {"num_ops": 3, "magnitude": 25, "fill": (0.1, 0.2, 0.3)}, {"interpolation": BILINEAR, "fill": 0.5}, {"num_ops": 0},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_rand_augment_changes_each_sample_as_if_it_were_alone(options: Any, dtype: str) -> None:
    """Also in another batch, bit for bit; also masks, whose levels stay."""
    augment, count = T.RandAugment(**options), 40
    x = images(count) if dtype == "float32" else (images(count) * 255).to("uint8")
    masks = tv.Mask((images(count)[:, :1] * 3).to("int64"))
    index = gpunet.arange(count)
    with T.keyed(index, seed=5):
        found, levels = augment(tv.Image(x), masks)
    assert found.dtype == x.dtype and {*levels.flatten().tolist()} <= {0, 1, 2}
    order = gpunet.tensor(numpy.random.default_rng(3).permutation(count)[:17])
    with T.keyed(index[order], seed=5):
        other, other_levels = augment(tv.Image(x[order]), tv.Mask(masks[order]))
    assert (other == found[order]).all() and (other_levels == levels[order]).all()
    for n in range(count):
        with T.keyed(n, seed=5):
            alone, level = augment(tv.Image(x[n]), tv.Mask(masks[n]))
        numpy.testing.assert_allclose(alone.numpy(), found[n].numpy(), atol=1e-6 if dtype == "float32" else 1)
        assert (level == levels[n]).all()
    step = gpunet.capture(lambda x, index: keyed_result(augment, x, index))
    numpy.testing.assert_allclose(step(x, index).numpy(), found.numpy(), atol=1e-5 if dtype == "float32" else 1)


def test_equalized_images_are_cut_off_at_0_and_1() -> None:
    x = images(2)
    wide = 2 * x - 0.5
    numpy.testing.assert_array_equal(F.equalize(wide).numpy(), F.equalize(wide.clamp(0, 1)).numpy())


def test_places_of_large_images_are_not_kept() -> None:
    cache = warp._cached_nearest_pixels
    cache.cache_clear()
    augment = T.RandAugment()
    with T.keyed(gpunet.arange(8), seed=5):
        augment(gpunet.zeros(8, 1, 512, 513, dtype="uint8"))
    assert cache.cache_info().currsize == 0
    with T.keyed(gpunet.arange(8), seed=5):
        augment(gpunet.zeros(8, 1, 8, 8, dtype="uint8"))
    assert cache.cache_info().currsize > 0


def keyed_result(augment: Any, x: Any, index: Any) -> Any:
    with T.keyed(index, seed=5):
        return augment(x)


def test_a_sample_is_any_structure_and_its_first_tensor_an_image_if_nothing_says_more() -> None:
    x, mask = images(2), tv.Mask(numpy.ones((2, 14, 16), bool))
    labels = gpunet.tensor([1, 2])
    flip = T.RandomHorizontalFlip(1.0)
    image, label = flip(x, labels)
    assert (image == x.flip(-1)).all() and label is labels
    found = flip({"a": [tv.Image(x), x], "b": (mask, "text")})
    assert (found["a"][0] == x.flip(-1)).all() and found["a"][1] is x
    assert found["b"][1] == "text" and isinstance(found["b"][0], tv.Mask) and isinstance(flip(mask), tv.Mask)
    assert flip(tv.BoundingBoxes([[0, 1, 2, 3]], format="XYXY", canvas_size=(9, 9))).tolist() == [[7, 1, 9, 3]]
    with pytest.raises(DtypeError, match="RandomHorizontalFlip: a sample without images"):
        flip(["text", 3])
    with pytest.raises(ShapeError, match="an Image of 14 x 16 and a Mask of 5 x 5; expected one size"):
        flip(tv.Image(x), tv.Mask(numpy.ones((2, 5, 5))))
    with pytest.raises(ShapeError, match=r"BoundingBoxes of shape \(1, 4\) beside a batch of 2"):
        flip(tv.Image(x), tv.BoundingBoxes([[0, 1, 2, 3]], format="XYXY", canvas_size=(14, 16)))


def test_transforms_of_users() -> None:
    class Shifted(T.Transform):
        def draw(self, frame: Any) -> dict[str, Any]:
            return {"shift": frame.uniform()[:, 0]}

        def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
            shift = params["shift"]
            return inpt + (shift.reshape(-1, 1, 1, 1) if isinstance(shift, gpunet.Tensor) else shift)

    class OfTorchvision(T.Transform):
        def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
            return {"factor": len(flat_inputs)}

        def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
            return inpt * params["factor"]

    x = images(2)
    shifts = (Shifted()(x) - x).mean((1, 2, 3)).tolist()
    assert shifts[0] != pytest.approx(shifts[1]) and isinstance(Shifted()(x[0]), gpunet.Tensor)
    assert (OfTorchvision()(tv.Image(x), tv.Image(x))[1] == 2 * x).all()


def test_small_boxes_are_dropped_with_their_labels_and_masks() -> None:
    boxes = tv.BoundingBoxes([[0.0, 0, 5, 5], [3, 3, 3, 8], [1, 1, 9, 9]], format="XYXY", canvas_size=(10, 10))
    masks, labels = tv.Mask(numpy.arange(300).reshape(3, 10, 10)), gpunet.tensor([7, 8, 9])
    sample = {"image": tv.Image(gpunet.zeros(3, 10, 10)), "boxes": boxes, "labels": labels, "masks": masks}
    found = T.SanitizeBoundingBoxes()(sample)
    assert found["labels"].tolist() == [7, 9] and found["boxes"].shape == (2, 4) and (found["masks"] == masks[[0, 2]]).all()
    batch = {
        "image": tv.Image(gpunet.zeros(2, 3, 10, 10)), "boxes": tv.wrap(gpunet.stack([boxes, boxes]), like=boxes),
        "labels": gpunet.stack([labels, labels]), "masks": tv.Mask(gpunet.stack([masks, masks])),
    }  # fmt: skip
    step = gpunet.capture(T.SanitizeBoundingBoxes(ignore_index=-1).forward)
    for found in (T.SanitizeBoundingBoxes(ignore_index=-1)(batch), step(batch)):
        assert found["labels"].tolist() == [[7, -1, 9]] * 2 and found["valid"].tolist() == [[True, False, True]] * 2
        assert found["boxes"][:, 1].tolist() == [[0] * 4] * 2 and not found["masks"][:, 1].any() and found["masks"][:, 2].any()
    for wrong in (gpunet.arange(2), gpunet.arange(4)):
        with pytest.raises(ShapeError, match=r"labels of shape \(\d,\) for boxes of shape \(3,\)"):
            T.SanitizeBoundingBoxes()({**sample, "labels": wrong})
    with pytest.raises(ShapeError, match="a sample with 0 BoundingBoxes"):
        T.SanitizeBoundingBoxes()({"image": sample["image"]})


def test_boxes_outside_of_the_image_are_dropped() -> None:
    corners = [[0.0, 0, 16, 14], [-1, 2, 5, 6], [3, 4, 17, 9], [3, 4, 9, 15], [30, 30, 40, 40]]
    for dtype in ("float32", "int64"):
        for format in ("XYXY", "XYWH", "CXCYWH"):
            values = ops.box_convert(gpunet.tensor(corners) * 2, "xyxy", format.lower())
            boxes = tv.BoundingBoxes(values, format=format, canvas_size=(28, 32), dtype=dtype)
            assert F.sanitize_bounding_boxes(boxes)[1].tolist() == [True, False, False, False, False]
    gpunet.manual_seed(0)
    given = ops.box_convert(gpunet.rand(500, 4) * 9 + 3, "xyxy", "xyxy")
    for dtype in ("float32", "float16", "int32"):
        boxes = tv.BoundingBoxes(given, format="CXCYWH", canvas_size=(12, 13), dtype=dtype)
        assert F.sanitize_bounding_boxes(F.clamp_bounding_boxes(boxes), 0, 0)[1].all()  # although their corners are rounded


def test_labels_of_boxes_are_found_or_missed() -> None:
    image, labels = gpunet.zeros(3, 10, 10), gpunet.tensor([7, 8, 9])
    boxes = tv.BoundingBoxes([[0.0, 0, 5, 5], [3, 3, 3, 8], [1, 1, 9, 9]], format="XYXY", canvas_size=(10, 10))
    sanitize = T.SanitizeBoundingBoxes()
    assert sanitize(image, boxes, labels)[2].tolist() == [7, 9]
    assert sanitize(image, {"gt_labels": labels, "boxes": boxes})[1]["gt_labels"].tolist() == [7, 9]
    assert sanitize(boxes).shape == (2, 4)
    target = {"boxes": boxes, "classes": labels}
    for sample in ({"image": image, **target}, (image, boxes), (image, target)):
        with pytest.raises(ArgumentError, match="could not infer where the labels are .*labels_getter=None"):
            sanitize(sample)
        assert T.SanitizeBoundingBoxes(labels_getter=None)(sample) is not None
    assert T.SanitizeBoundingBoxes(labels_getter="classes")({"boxes": boxes, "classes": labels})["classes"].tolist() == [7, 9]
    with pytest.raises(ArgumentError, match=r"labels_getter returned a tensor of shape \(3,\) that is no item of the sample"):
        T.SanitizeBoundingBoxes(labels_getter=lambda sample: sample[1] + 1)((boxes, labels))


def test_wrappers() -> None:
    boxes = tv.BoundingBoxes([1, 2, 3, 4], format="xywh", canvas_size=(5, 6), dtype="int32")
    assert boxes.shape == (1, 4) and boxes.format is tv.BoundingBoxFormat.XYWH and type(boxes + 1) is gpunet.Tensor
    assert "format=XYWH, canvas_size=(5, 6)" in repr(boxes)
    assert F.convert_bounding_box_format(boxes, "XYXY").tolist() == [[1, 2, 4, 6]]
    assert F.clamp_bounding_boxes(F.convert_bounding_box_format(boxes, "XYXY")).tolist() == [[1, 2, 4, 5]]
    for arguments, error in (
        (([[1, 2, 3]], "XYXY", (5, 5)), ShapeError), (([[1, 2, 3, 4]], "YX", (5, 5)), ArgumentError),
        (([[1, 2, 3, 4]], "XYXY", 5), ArgumentError), (([[True] * 4], "XYXY", (5, 5)), DtypeError),
    ):  # fmt: skip
        with pytest.raises(error, match="BoundingBoxes: "):
            tv.BoundingBoxes(arguments[0], format=arguments[1], canvas_size=arguments[2])
    with pytest.raises(GradientError, match=r"Image: the tensor requires a gradient.*data.detach\(\)"):
        tv.Image(gpunet.ones(3, 4, 4, requires_grad=True))
    with pytest.raises(ShapeError, match=r"Mask: data has shape \(3,\)"):
        tv.Mask([1, 2, 3])


@pytest.mark.parametrize("kind", [tv.Image, tv.Mask, tv.BoundingBoxes])
def test_copies_and_conversions_keep_the_class(kind: Any) -> None:
    options = {"format": "XYWH", "canvas_size": (14, 16)} if kind is tv.BoundingBoxes else {}
    given = kind(gpunet.arange(12, dtype="float32").reshape(1, 3, 4), **options)
    for found in (
        copy.deepcopy(given), copy.copy(given), pickle.loads(pickle.dumps(given)), given.clone(), given.detach(), given.double(),
        given.to("int32"), given.to(device="cpu", dtype="float64", copy=True), given.cpu(), given.long(), given.requires_grad_(),
        given.clone().detach(), copy.deepcopy(given), given.detach().half(),
    ):  # fmt: skip
        assert type(found) is kind and found._facts() == given._facts() and found.tolist() == given.tolist()
        assert kind is not tv.BoundingBoxes or (found.format.name, found.canvas_size) == ("XYWH", (14, 16))
    assert copy.deepcopy(given).requires_grad and pickle.loads(pickle.dumps(given)).requires_grad
    (given.clone().double() * 2).sum().backward()
    assert given.grad is not None and (given.grad == 2).all()
    assert type(given.detach() * 2) is type(given.detach().bool() | True) is gpunet.Tensor


class SamplesWithBoxes:
    """Samples that a worker process sends."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        boxes = tv.BoundingBoxes([[0.0, 1, 2 + index, 3]], format="XYXY", canvas_size=(9, 9))
        return {"image": tv.Image(gpunet.zeros(3, 9, 9)), "boxes": boxes, "mask": tv.Mask(gpunet.zeros(1, 9, 9))}


def test_boxes_of_worker_processes() -> None:
    loader = gpunet.data.DataLoader(SamplesWithBoxes(), batch_size=2, num_workers=1, collate_fn=list)
    flip = T.RandomHorizontalFlip(1.0)
    found = [flip(sample)["boxes"] for batch in loader for sample in batch]
    assert [boxes.tolist() for boxes in found] == [[[7 - index, 1, 9, 3]] for index in range(4)]


# ---- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", [T.InterpolationMode.NEAREST, BILINEAR])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
def test_affine_maps_are_those_of_a_plain_loop(interpolation: Any, dtype: str) -> None:
    x = images(2, 9, 11)
    x = (x * 255).round().to(dtype) if dtype == "uint8" else x.to(dtype)
    angle, scale, shear = [20.0, -70.0], [1.2, 0.8], ([5.0, 0.0], [-3.0, 8.0])
    given = [gpunet.tensor(v) for v in (angle, scale, *shear)]
    fill = 7.0 if dtype == "uint8" else 0.25
    found = F.affine(x, given[0], (gpunet.tensor([2.0, 0.0]), 1.0), given[1], (given[2], given[3]), interpolation, fill)
    for n in range(2):
        radians = numpy.radians([angle[n], shear[0][n], shear[1][n]])
        turn = numpy.array([[numpy.cos(radians[0]), -numpy.sin(radians[0])], [numpy.sin(radians[0]), numpy.cos(radians[0])]])
        linear = scale[n] * turn @ [[1, 0], [-numpy.tan(radians[2]), 1]] @ [[1, -numpy.tan(radians[1])], [0, 1]]
        center = numpy.array([5.5, 4.5])
        for row, column in itertools.product(range(9), range(11)):
            place = numpy.linalg.solve(linear, [column + 0.5, row + 0.5] - center - [[2.0, 1.0], [0.0, 1.0]][n]) + center - 0.5
            low = numpy.floor(place + 0.5 if interpolation is not BILINEAR else place).astype(int)
            part = place - low if interpolation is BILINEAR else numpy.zeros(2)
            value = 0.0
            for dy, dx in itertools.product((0, 1), (0, 1)):
                weight = (part[0] if dx else 1 - part[0]) * (part[1] if dy else 1 - part[1])
                i, j = low[1] + dy, low[0] + dx
                value = value + weight * (x[n, :, i, j].numpy().astype(float) if 0 <= i < 9 and 0 <= j < 11 else fill)
            tolerance = {"float32": 1e-5, "uint8": 0.51, "float16": 1e-3}[dtype]
            numpy.testing.assert_allclose(found[n, :, row, column].numpy().astype(float), value, atol=tolerance)


def test_batched_numbers_give_what_single_numbers_give() -> None:
    x = images(3)
    numbers = gpunet.tensor([0.3, 1.0, 1.6])
    for function in (
        F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_sharpness, lambda x, v: F.adjust_hue(x, v * 0.3),
        lambda x, v: F.rotate(x, v * 30, BILINEAR), lambda x, v: F.gaussian_blur(x, 5, v), lambda x, v: F.solarize(x, v * 0.5),
        lambda x, v: F.posterize(x, (v * 2).round() if isinstance(v, gpunet.Tensor) else round(v * 2)),
    ):  # fmt: skip
        alone = gpunet.stack([function(x[n], numbers[n].item()) for n in range(3)])
        numpy.testing.assert_allclose(function(x, numbers).numpy(), alone.numpy(), atol=2e-5)
    top, left, height, width = (gpunet.tensor(v) for v in ([0, 2, 5], [3, 0, 1], [14, 6, 9], [5, 16, 15]))
    for mode, antialias in ((BILINEAR, True), (BILINEAR, False), (T.InterpolationMode.NEAREST_EXACT, True)):
        found = F.resized_crop(x, top, left, height, width, (7, 20), mode, antialias)
        for n in range(3):
            place = [int(v[n]) for v in (top, left, height, width)]
            alone = F.resized_crop(x[n], *place, (7, 20), mode, antialias)
            numpy.testing.assert_allclose(found[n].numpy(), alone.numpy(), atol=1e-5)
    for tops, lefts in (([-2, 0, 9], [1, -3, 12]), ([100, -100, 2], [0, 3, 40])):
        found = F.crop(x, gpunet.tensor(tops), gpunet.tensor(lefts), 8, 9)
        assert all((found[n] == F.crop(x[n], tops[n], lefts[n], 8, 9)).all() for n in range(3))
    weights = images(3)[..., :8, :9]
    leaf = images(3).requires_grad_()
    (F.crop(leaf, gpunet.tensor([0, 3, 6]), gpunet.tensor([7, 1, 0]), 8, 9) * weights).sum().backward()
    expected = numpy.zeros((3, 3, 14, 16), "float32")
    for n, (i, j) in enumerate(((0, 7), (3, 1), (6, 0))):
        expected[n, :, i : i + 8, j : j + 9] = weights[n].numpy()
    assert leaf.grad is not None and (leaf.grad.numpy() == expected).all()
    with pytest.raises(ShapeError, match=r"numbers for 2 samples, but a tensor of shape \(3, 3, 14, 16\)"):
        F.rotate(x, gpunet.tensor([1.0, 2.0]))


@pytest.mark.parametrize("filter", ["BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"])
@pytest.mark.parametrize("size", [(5, 40), (31, 9), (64, 64), (1, 1)])
def test_resized_bytes_are_those_of_pillow_13(filter: str, size: tuple[int, int]) -> None:
    """Bit for bit, also of black and white pixels, whose overshoots show rounding and the order of the passes."""
    pil = pytest.importorskip("PIL")
    if int(pil.__version__.partition(".")[0]) < 13:
        pytest.skip("older versions of Pillow have another order of the passes")
    image, random = pytest.importorskip("PIL.Image"), numpy.random.default_rng(sum(size))
    resize = T.Resize(size, T.InterpolationMode[filter])
    for height, width in random.integers(1, 90, (12, 2)):
        pixels = (random.random((height, width)) < 0.5).astype(numpy.uint8) * 255
        expected = numpy.asarray(resize(image.fromarray(pixels)))
        numpy.testing.assert_array_equal(resize(gpunet.tensor(pixels[None])).numpy()[0], expected)


@pytest.mark.parametrize("filter", ["BILINEAR", "BICUBIC", "LANCZOS", "BOX", "HAMMING"])
@pytest.mark.parametrize("size", [(7, 5), (40, 50), (9, 30), (20, 6)])
def test_resized_tensors_are_those_of_pillow(filter: str, size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = numpy.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=numpy.uint8)
    resize = T.Resize(size, T.InterpolationMode[filter])
    expected = numpy.asarray(resize(image.fromarray(pixels))).astype(int)
    x = gpunet.tensor(pixels.transpose(2, 0, 1))
    assert abs(resize(x).numpy().transpose(1, 2, 0).astype(int) - expected).max() <= 1
    if filter == "BILINEAR":  # floating numbers are not cut off between the passes, as Pillow cuts overshoots of bytes
        assert abs(resize(x.float() / 255).numpy().transpose(1, 2, 0) * 255 - expected).max() <= 1.01
    step = gpunet.capture(resize.forward)
    assert (step(x) == resize(x)).all()


def test_pictures_take_every_transform() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = numpy.random.default_rng(0).integers(0, 256, (14, 16, 3), dtype=numpy.uint8)
    for name, augment in AUGMENTATIONS.items():
        if name in ("erasing", "choice"):
            continue
        for seed in range(3):
            gpunet.manual_seed(seed)
            of_picture = T.PILToTensor()(augment(image.fromarray(pixels)))
            gpunet.manual_seed(seed)
            of_tensor = augment(T.PILToTensor()(image.fromarray(pixels)))
            difference = abs(of_picture.numpy().astype(int) - of_tensor.numpy().astype(int))
            assert of_picture.shape == of_tensor.shape and numpy.mean(difference > 1) == 0, name
    palette = image.fromarray(pixels).convert("P")
    assert T.RandomRotation(10)(palette).mode == "RGB" and T.RandomRotation(10)(image.fromarray(pixels[:, :, 0] > 99)).mode == "1"


def test_dtypes() -> None:
    x = (images(2) * 255).round().to("uint8")
    half = T.ToDtype("float32", scale=True)(x)
    assert half.dtype == gpunet.float32 and half.max() <= 1
    given = tv.BoundingBoxes([[[1, 2, 3, 4]]] * 2, format="XYXY", canvas_size=(14, 16))
    convert = T.ToDtype({tv.Image: "float64", tv.Mask: "int64", "others": None}, scale=True)
    image, mask, boxes = convert(tv.Image(x), tv.Mask(numpy.ones((2, 14, 16), bool)), given)
    assert (image.dtype, mask.dtype, boxes.dtype) == (gpunet.float64, gpunet.int64, gpunet.int64)
    for name in ("affine", "jitter", "blur", "noise", "resized crop", "augment"):
        found = AUGMENTATIONS[name](x)
        assert found.dtype == gpunet.uint8 and found.max() > 100


def test_conversions_scale_and_saturate() -> None:
    for value, given, wanted, expected in (
        (1, "float16", "uint8", 255), (1.0, "float64", "int32", 2**31 - 1), (2.0, "float32", "int16", 2**15 - 1),
        (300, "int16", "uint8", 2), (-300, "int16", "uint8", 0), (255, "uint8", "int16", 255 * 2**7), (200, "uint8", "bool", True),
        (255, "uint8", "int64", 255 * 2**55), (-3, "int8", "int16", -3 * 2**8), (2**31 - 1, "int32", "uint8", 255),
        (2**31 - 1, "int32", "float16", 1.0), (2**63 - 1, "int64", "float32", 1.0), (255, "uint8", "float64", 1.0),
    ):  # fmt: skip
        for convert in (T.ConvertImageDtype(wanted), T.ToDtype(wanted, scale=True)):
            found = convert(gpunet.full((1, 2, 2), value, dtype=given))
            assert found.dtype.name == wanted and found.flatten()[0].item() == expected, (value, given, wanted)
    for given, wanted, way_out in (
        ("float32", "int64", "narrower"), ("float64", "int64", "narrower"), ("float32", "int32", "to float64"),
        ("float16", "int32", "to float64"),
    ):  # fmt: skip
        with pytest.raises(DtypeError, match=f"{given} cannot hold the integers of {wanted}, up to .*{way_out}"):
            F.convert_image_dtype(gpunet.ones(1, 2, 2, dtype=given), wanted)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint32"])
def test_white_stays_white(dtype: str) -> None:
    top = int(numpy.iinfo(dtype).max)
    white = gpunet.tensor(numpy.full((1, 3, 5, 5), top, dtype))
    place = [gpunet.tensor([v]) for v in (0, 0, 5, 5)]
    for function in (
        lambda x: F.adjust_brightness(x, 1.0), lambda x: F.rotate(x, 0.0, BILINEAR), lambda x: F.resize(x, (7, 3)),
        lambda x: F.resize(x, (7, 3), antialias=False), F.rgb_to_grayscale, lambda x: F.resized_crop(x, *place, (6, 6)),
    ):  # fmt: skip
        found = function(white)
        assert found.dtype == white.dtype and found.min().item() >= top * (1 - 2e-4)  # the luminance has weights of 0.9999 together


def test_what_is_erased_takes_the_values_of_channels_or_a_patch() -> None:
    for shape in ((1, 6, 7), (6, 7), (3, 6, 7), (2, 3, 6, 7)):
        channels = shape[-3] if len(shape) > 2 else 1
        x = gpunet.zeros(*shape)
        for value in (2.0, (3.0,), tuple(range(1, channels + 1))):
            assert T.RandomErasing(1.0, value=value)(x).shape == shape
        patch = gpunet.arange(channels * 6).reshape(channels, 2, 3).float() + 1
        for part in (patch, patch[:1], patch[0], patch[0, 1]):
            expected = numpy.zeros(shape, "float32")
            expected[..., 1:3, 4:7] = part.numpy() if channels > 1 or len(shape) > 2 or part.ndim < 3 else part[0].numpy()
            assert (F.erase(x, 1, 4, 2, 3, part).numpy() == expected).all()
        for wrong in ((1.0, 2.0), (1.0, 2.0, 3.0, 4.0)):
            with pytest.raises(ShapeError, match=rf"RandomErasing: value=.* for an image of {channels} channels"):
                T.RandomErasing(1.0, value=wrong)(x)
            with pytest.raises(ShapeError, match=rf"erase: v=.* for an image of {channels} channels"):
                F.erase(x, 1, 4, 2, 3, wrong)
        with pytest.raises(ShapeError, match=r"erase: v has shape \(5, 2\); expected one that broadcasts"):
            F.erase(x, 1, 4, 2, 3, gpunet.ones(5, 2))


def test_ranges_that_are_none() -> None:
    x = images()
    for wrong, message in (
        (lambda: T.RandomRotation(-3), "degrees=-3"), (lambda: T.RandomRotation((3, 1)), "degrees=\\(3, 1\\)"),
        (lambda: T.RandomAffine(0, (2, 0)), "translate=\\(2, 0\\)"), (lambda: T.RandomAffine(0, scale=(0, 1)), "scale"),
        (lambda: T.RandomAffine(0, shear=(1, 2, 3)), "shear"), (lambda: T.ColorJitter(hue=0.7), "hue=0.7"),
        (lambda: T.ColorJitter(-1), "brightness=-1"), (lambda: T.GaussianBlur(4), "kernel_size=4"),
        (lambda: T.RandomPosterize(9), "bits=9"), (lambda: T.RandomAdjustSharpness(-1), "sharpness_factor=-1"),
        (lambda: T.MixUp(alpha=0), "alpha"), (lambda: T.GaussianBlur(3, 0), "sigma"),
        (lambda: T.RandomErasing(value="x"), "value='x'"), (lambda: T.RandAugment(2, 31), "31"),
        (lambda: T.RandomPerspective(2), "distortion_scale=2"), (lambda: T.RandomChoice([], []), "RandomChoice"),
        (lambda: F.rotate(x, gpunet.zeros(6), expand=True), "expand=True"), (lambda: F.adjust_hue(x, 1), "hue_factor=1"),
        (lambda: F.affine(x, 0, (0, 0), 1, 0, T.InterpolationMode.BICUBIC), "BICUBIC"), (lambda: T.Pad((1, 2, 3)), "padding"),
        (lambda: F.adjust_contrast(x, -1), "contrast_factor=-1"), (lambda: T.RandomResizedCrop(3, scale=(0, 1)), "scale"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=message):
            wrong()
    with pytest.raises(ShapeError, match="channels"):
        T.ColorJitter(0.5, 0.5, 0.5)(gpunet.ones(2, 5, 8, 8))
    with pytest.raises(ShapeError, match="fill"):
        T.RandomRotation(5, fill=(1, 2))(images())
    with T.keyed(gpunet.arange(3)), pytest.raises(ShapeError, match="keyed: 3 indices for a batch of 6 samples"):
        T.RandomHorizontalFlip()(images())
    with T.keyed(gpunet.arange(6)), pytest.raises(ArgumentError, match="RandomOrder"):
        T.RandomOrder([T.Identity()])(images())


def test_messages_name_the_function_and_its_argument() -> None:
    x = images(2)
    image = pytest.importorskip("PIL.Image").fromarray(numpy.zeros((4, 5, 3), "uint8"))
    points = [[0, 0], [9, 0], [9, 9], [0, 9]]
    for wrong, error, message in (
        (lambda: F.affine(x, 0, (0, 0), 0.0, 0), ArgumentError, r"affine: scale=0.0; expected a positive number"),
        (lambda: F.affine(x, 0, (0, 0), 1.0, 90.0), ArgumentError, r"affine: shear=90.0"),
        (lambda: F.affine(x, 0, 3, 1.0, 0.0), ArgumentError, r"affine: translate=3"),
        (lambda: F.affine(x, 0, (0, 0), 1.0, (1, 2, 3)), ArgumentError, r"affine: shear=\(1, 2, 3\)"),
        (lambda: T.Normalize(0.5, 0.5), ArgumentError, r"Normalize: mean=0.5; expected a sequence"),
        (lambda: F.normalize(x, (0.5,), 0.5), ArgumentError, r"Normalize: std=0.5; expected a sequence"),
        (lambda: T.RandomAffine(10, translate=0.1), ArgumentError, r"RandomAffine: translate=0.1; expected two"),
        (lambda: T.RandomAffine(10, scale=0.1), ArgumentError, r"RandomAffine: scale=0.1; expected two positive"),
        (lambda: T.RandomErasing(scale=0.1), ArgumentError, r"RandomErasing: scale=0.1; expected two positive"),
        (lambda: T.RandomErasing(ratio=(0, 1)), ArgumentError, r"RandomErasing: ratio=\(0, 1\); expected two positive"),
        (lambda: T.RandomResizedCrop(8, scale=0.5), ArgumentError, r"RandomResizedCrop: scale=0.5; expected two positive"),
        (lambda: T.ConvertImageDtype()(image), DtypeError, r"convert_image_dtype: got a Image; expected a tensor: put ToImage"),
        (lambda: F.convert_image_dtype(numpy.ones((2, 2))), DtypeError, r"convert_image_dtype: got a ndarray"),
        (lambda: F.to_dtype(image), DtypeError, r"to_dtype: got a Image"),
        (lambda: T.Pad(-1, padding_mode="reflect"), ArgumentError, r"Pad: padding=-1 with padding_mode='reflect'; expected 0"),
        (lambda: F.pad(x, -1, padding_mode="edge"), ArgumentError, r"pad: padding=-1 with padding_mode='edge'"),
        (lambda: T.Pad(0.5), ArgumentError, r"Pad: padding=0.5; expected 1, 2 or 4 integers"),
        (lambda: F.perspective(x, points[:3], points), ShapeError, r"perspective: startpoints=.*; expected four points"),
        (lambda: F.perspective(x, points, gpunet.ones(2, 3, 2)), ShapeError, r"perspective: endpoints="),
        (lambda: F.perspective(x, [[0, 0], [1, 1], [2, 2], [3, 3]], points), ArgumentError, r"no three are on a line"),
        (lambda: T.Resize(5, max_size=0)(x), ArgumentError, r"Resize: max_size=0"),
        (lambda: F.resize(x, (0, 5)), ArgumentError, r"Resize: size=\(0, 5\)"),
        (lambda: F.resize(x[..., :0], 5), ShapeError, r"Resize: an image of 14 x 0 has no pixels"),
        (lambda: F.adjust_hue(x[:, :2], 0.1), ShapeError, r"adjust_hue: an image of shape \(2, 2, 14, 16\); expected 1 or 3"),
        (lambda: F.adjust_contrast(x[:, :2], 0.1), ShapeError, r"adjust_contrast: an image of shape"),
        (lambda: F.adjust_saturation(x[:, :2], 0.1), ShapeError, r"adjust_saturation: an image of shape"),
        (lambda: T.RandomRotation(5, fill=(1, 2))(x), ShapeError, r"rotate: fill=\(1, 2\) for an image of 3 channels"),
        (lambda: F.pad(x, 1, fill=(1, 2)), ShapeError, r"pad: fill=\(1, 2\) for an image of 3 channels"),
        (lambda: F.rotate(x, gpunet.ones(3)), ShapeError, r"rotate: numbers for 3 samples"),
        (lambda: F.crop(x, gpunet.arange(3), gpunet.arange(3), 2, 2), ShapeError, r"crop: numbers for 3 samples"),
        (lambda: T.RandomGrayscale(0.0)(gpunet.ones(4, 5, 5)), ShapeError, r"RandomGrayscale: a tensor of shape \(4, 5, 5\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            wrong()
    plane = gpunet.rand(5, 6)
    assert all((T.RandomGrayscale(p)(plane) == plane).all() for p in (0.0, 1.0))
    assert T.Resize(5, max_size=6)(gpunet.ones(3, 1, 100)).shape == (3, 1, 6)
    assert T.Pad(-1)(x).shape == (2, 3, 12, 14)


@pytest.mark.parametrize("name", GEOMETRY)
def test_images_without_objects(name: str) -> None:
    for lead, planes in (((), 0), ((2,), 0), ((0,), 2)):
        for dtype in ("float32", "uint8"):
            sample = {
                "image": tv.Image(gpunet.rand(*lead, 3, 34, 40)),
                "masks": tv.Mask(gpunet.zeros(*lead, planes, 34, 40, dtype=dtype)),
                "boxes": tv.BoundingBoxes(gpunet.zeros(*lead, planes, 4), format="XYXY", canvas_size=(34, 40)),
            }  # fmt: skip
            found = GEOMETRY[name](sample)
            assert found["masks"].shape == (*lead, planes, *found["image"].shape[-2:]) and found["masks"].dtype.name == dtype
            assert found["boxes"].shape == (*lead, planes, 4)
    assert T.Resize(7, antialias=False)(tv.Mask(gpunet.zeros(0, 9, 9))).shape == (0, 7, 7)


# ---- mixing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    u = numpy.linspace(0.001, 0.499, 499)
    found = symmetric_beta(gpunet.tensor(u.astype("float32")), alpha).numpy()
    numpy.testing.assert_allclose(stats.beta(alpha, alpha).cdf(found), u, atol=2e-3)
    numpy.testing.assert_allclose(symmetric_beta(gpunet.tensor((1 - u).astype("float32")), alpha).numpy(), 1 - found, atol=1e-5)


def test_mixup_mixes_images_and_labels_by_one_share() -> None:
    gpunet.manual_seed(0)
    x = gpunet.eye(4).reshape(4, 4, 1, 1).expand(4, 4, 3, 3)
    mixed, labels = T.MixUp(num_classes=4)(x, gpunet.arange(4))
    assert labels.dtype == gpunet.float32 and (mixed[:, :, 0, 0] == labels).all()
    numpy.testing.assert_allclose(labels.sum(1).numpy(), 1, rtol=1e-6)
    assert len({round(v, 5) for v in labels.diag().tolist()}) == 4
    assert all(labels[n, n] + labels[n, n - 1] > 0.999 for n in range(4))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_counts_pixels(alpha: float) -> None:
    gpunet.manual_seed(0)
    x = gpunet.arange(32).reshape(32, 1, 1, 1).expand(32, 1, 7, 9).to("uint8")
    target = {"images": tv.Image(x), "labels": gpunet.nn.functional.one_hot(gpunet.arange(32), 32).float(), "name": "a"}
    step = gpunet.capture(T.CutMix(alpha=alpha).forward)
    shares = set()
    for mix in (T.CutMix(alpha=alpha), step, step):
        found = mix(target)
        for n in range(32):
            kept = (found["images"][n] == n).float().mean().item()
            assert found["labels"][n, n].item() == pytest.approx(kept, abs=1e-6)
            assert found["labels"][n, n - 1].item() == pytest.approx(1 - kept, abs=1e-6)
            shares.add(round(kept, 4))
    assert len(shares) > 10


@pytest.mark.parametrize("mix", [T.MixUp(), T.CutMix()])
def test_labels_of_any_number_of_dimensions_are_mixed(mix: Any) -> None:
    for shape in ((4,), (4, 3), (4, 3, 2)):
        labels = gpunet.rand(*shape)
        found = mix({"image": images(4), "labels": labels})["labels"]
        assert found.shape == shape and found.dtype == gpunet.float32 and not (found == labels).all()


def test_samples_that_cannot_be_mixed() -> None:
    x, labels = images(4), gpunet.arange(4)
    for sample, error, message in (
        ((x[0], labels), ShapeError, "one batch of images"), ((x, labels[:3]), ShapeError, "labels of shape"),
        ((x, "text"), ShapeError, "found no labels"),
        ((tv.Image(x), tv.Mask(gpunet.ones(4, 14, 16)), labels), DtypeError, "has Mask"),
        (((x * 255).to("uint8"), labels), DtypeError, "MixUp: images of dtype uint8"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            T.MixUp(num_classes=4)(*sample)
    with pytest.raises(ArgumentError, match=r"MixUp: labels_getter returned a tensor of shape \(4,\) that is no item"):
        T.MixUp(num_classes=4, labels_getter=lambda sample: sample[1].float().long())(x, labels)
    with pytest.raises(ArgumentError, match="pass num_classes"):
        T.CutMix()(x, labels)


# ---- torchvision ------------------------------------------------------------------------------------------------------


def test_functions_of_torchvision() -> None:
    expected = json.loads(torchvision_values.FILE.read_text())
    x = gpunet.tensor(torchvision_values.pixels())
    for name, arguments in torchvision_values.CASES:
        found = getattr(F, name)(x, *arguments).numpy()
        numpy.testing.assert_allclose(found, expected["functions"][name], atol=2e-5, err_msg=name)
    for (value, given, wanted), result in zip(torchvision_values.CONVERSIONS, expected["conversions"], strict=True):
        found = F.to_dtype(gpunet.full((1, 1, 1), value, dtype=given), wanted, scale=True)
        assert found.dtype.name == wanted and found.item() == pytest.approx(result, rel=1e-6)
