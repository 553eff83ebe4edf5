"""Transforms of images, on PIL images and on tensors alike."""

from __future__ import annotations

import functools
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.vision import transforms as T

Image = pytest.importorskip("PIL.Image")
PIXELS = numpy.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=numpy.uint8)


def picture() -> Any:
    return Image.fromarray(PIXELS)


def test_conversions() -> None:
    x = T.ToTensor()(picture())
    assert x.shape == (3, 7, 9) and x.dtype == gpunet.float32
    numpy.testing.assert_array_equal(x.numpy(), PIXELS.transpose(2, 0, 1).astype("float32") / numpy.float32(255))
    assert T.ToTensor()(PIXELS).tolist() == x.tolist() and T.ToTensor()(PIXELS.astype("float64")).dtype == gpunet.float64
    assert T.PILToTensor()(picture()).dtype == gpunet.uint8
    assert numpy.asarray(T.ToPILImage()(x)).tolist() == PIXELS.tolist()
    gray = T.ToTensor()(Image.fromarray(PIXELS[:, :, 0]))
    assert gray.shape == (1, 7, 9) and T.ToPILImage()(gray).mode == "L"
    assert set(T.ToTensor()(Image.fromarray(PIXELS[:, :, 0] > 100)).flatten().tolist()) == {0.0, 1.0}
    assert T.ConvertImageDtype(gpunet.uint8)(x).tolist() == PIXELS.transpose(2, 0, 1).tolist()


def test_normalize() -> None:
    x, mean, std = T.ToTensor()(picture()), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    expected = (x.numpy() - numpy.array(mean, "f")[:, None, None]) / numpy.array(std, "f")[:, None, None]
    numpy.testing.assert_allclose(T.Normalize(mean, std)(x).numpy(), expected, rtol=1e-6)
    assert T.Normalize(mean, std, inplace=True)(x) is x
    with pytest.raises(DtypeError, match=r"Normalize: got a Image; expected a floating tensor: put ToTensor\(\)"):
        T.Normalize(mean, std)(picture())
    with pytest.raises(ShapeError, match=r"2 means and 3 stds"):
        T.Normalize((0.5, 0.5), std)(x)
    with pytest.raises(ArgumentError, match=r"std=\[0, 1, 1\]"):
        T.Normalize(mean, (0, 1, 1))


@pytest.mark.parametrize("size", [(4, 5), 5, (14, 18)])
def test_resize(size: Any) -> None:
    rows, columns = size if isinstance(size, tuple) else (5, 6)
    resized = T.Resize(size)(picture())
    assert (resized.height, resized.width) == (rows, columns)
    found = T.Resize(size)(T.PILToTensor()(picture()))
    difference = found.numpy().astype(int) - T.PILToTensor()(resized).numpy().astype(int)
    assert found.dtype == gpunet.uint8 and abs(difference).max() <= 1  # Pillow rounds the rows before the columns
    assert T.Resize(5, max_size=5)(picture()).width == 5


@pytest.mark.parametrize("name", ["CenterCrop", "RandomCrop", "Pad", "RandomHorizontalFlip", "RandomVerticalFlip", "Grayscale"])
@pytest.mark.parametrize("seed", range(4))
def test_pictures_and_tensors_are_changed_alike(name: str, seed: int) -> None:
    transform = {
        "CenterCrop": T.CenterCrop((5, 12)), "RandomCrop": T.RandomCrop(6, padding=2), "Pad": T.Pad((1, 2), padding_mode="reflect"),
        "RandomHorizontalFlip": T.RandomHorizontalFlip(), "RandomVerticalFlip": T.RandomVerticalFlip(),
        "Grayscale": T.Grayscale(),
    }[name]  # fmt: skip
    gpunet.manual_seed(seed)
    of_picture = T.PILToTensor()(transform(picture()))
    gpunet.manual_seed(seed)
    of_tensor = transform(T.PILToTensor()(picture()))
    assert of_picture.shape == of_tensor.shape
    assert abs(of_picture.numpy().astype(int) - of_tensor.numpy().astype(int)).max() <= (1 if name == "Grayscale" else 0)


def test_random_crops_reach_every_place() -> None:
    gpunet.manual_seed(0)
    x = gpunet.arange(12).reshape(1, 3, 4)
    found = {T.RandomCrop(2)(x)[0, 0, 0].item() for _ in range(100)}
    assert found == {0, 1, 2, 4, 5, 6}
    with pytest.raises(ShapeError, match=r"RandomCrop: an image of 3 x 4 for size=\(5, 5\)"):
        T.RandomCrop(5)(x)
    assert T.RandomCrop(5, pad_if_needed=True)(x).shape == (1, 5, 5)


def test_random_resized_crop() -> None:
    gpunet.manual_seed(0)
    assert {T.RandomResizedCrop(4)(picture()).size for _ in range(5)} == {(4, 4)}
    wide = T.RandomResizedCrop((2, 3), scale=(1.0, 1.0), ratio=(9.0, 9.0))  # no such part: the middle
    assert wide(T.PILToTensor()(picture())).shape == (3, 2, 3)


def test_choices() -> None:
    gpunet.manual_seed(0)
    double, add = T.Lambda(lambda x: x * 2), T.Lambda(lambda x: x + 1)
    assert T.Compose([double, add])(3) == 7
    assert {T.RandomApply([double], 0.5)(1) for _ in range(30)} == {1, 2}
    assert {T.RandomChoice([double, add])(5) for _ in range(30)} == {10, 6}
    assert {T.RandomOrder([double, add])(5) for _ in range(30)} == {11, 12}
    assert all(T.RandomHorizontalFlip(p)(gpunet.arange(3)[None])[0, 0].item() == 2 * p for p in (0, 1))
    for wrong in (functools.partial(T.RandomHorizontalFlip, 1.5), functools.partial(T.RandomApply, [], -1)):
        with pytest.raises(ArgumentError, match="expected a probability"):
            wrong()
    with pytest.raises(ArgumentError, match=r"CenterCrop: size=0"):
        T.CenterCrop(0)
    with pytest.raises(DtypeError, match=r"Resize: got a ndarray; expected a PIL image, or a tensor"):
        T.Resize(3)(PIXELS)
    assert repr(T.Compose([T.CenterCrop(3)])) == "Compose(\n    CenterCrop(size=(3, 3))\n)"
