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


@pytest.mark.parametrize("size", [(4, 5), (14, 20)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_tensors_without_antialiasing_are_interpolated_as_by_torch(size: Any, dtype: str, torch: Any) -> None:
    pixels = PIXELS.transpose(2, 0, 1).astype(dtype)
    for mode, antialias in (("NEAREST", True), ("NEAREST_EXACT", True), ("BILINEAR", False), ("BICUBIC", None)):
        found = T.Resize(size, T.InterpolationMode[mode], antialias=antialias)(gpunet.tensor(pixels))
        expected = torch.nn.functional.interpolate(
            torch.tensor(pixels.astype("float64"))[None], size, mode=T.InterpolationMode[mode].value,
            align_corners=None if "NEAREST" in mode else False,
        )[0].numpy()  # fmt: skip
        expected = expected.round().clip(0, 255) if dtype == "uint8" else expected
        assert found.dtype == gpunet.tensor(pixels).dtype
        # 255 in float32 has an error of 2e-5, and cubics sum 16 products
        numpy.testing.assert_allclose(found.numpy(), expected, rtol=1e-12 if dtype == "float64" else 1e-5, atol=1e-4)
    assert T.Resize(size, 0)(gpunet.tensor(pixels)).tolist() == T.Resize(size, T.InterpolationMode.NEAREST)(
        gpunet.tensor(pixels)
    ).tolist()


def test_the_nearest_pixels_of_pictures_are_those_of_nearest_exact() -> None:
    for mode in (T.InterpolationMode.NEAREST, T.InterpolationMode.NEAREST_EXACT, 0):
        found = T.PILToTensor()(T.Resize((4, 13), mode)(picture()))
        assert found.tolist() == T.Resize((4, 13), T.InterpolationMode.NEAREST_EXACT)(T.PILToTensor()(picture())).tolist()
    crop = T.RandomResizedCrop((4, 5), scale=(1.0, 1.0), ratio=(9 / 7, 9 / 7), antialias=False)
    x = T.ToTensor()(picture())
    numpy.testing.assert_array_equal(crop(x).numpy(), T.Resize((4, 5), antialias=False)(x).numpy())
    for wrong in ("bilinear", 6, True):
        with pytest.raises(ArgumentError, match=f"Resize: interpolation={wrong!r}; expected an InterpolationMode"):
            T.Resize(4, wrong)
    with pytest.raises(ArgumentError, match="interpolation=InterpolationMode.BOX of a tensor without antialiasing"):
        T.Resize(4, T.InterpolationMode.BOX, antialias=False)(x)


@pytest.mark.parametrize(
    ("dtype", "channels", "mode", "expected"),
    [
        ("uint8", 1, None, "L"), ("uint8", 2, None, "LA"), ("uint8", 3, "YCbCr", "YCbCr"), ("uint8", 3, "HSV", "HSV"),
        ("uint8", 4, "CMYK", "CMYK"), ("uint8", 4, None, "RGBA"), ("int16", 1, None, "I;16"), ("int32", 1, "I", "I"),
        ("float32", 1, "F", "F"),
    ],
)  # fmt: skip
def test_a_mode_says_what_the_channels_are(dtype: str, channels: int, mode: str | None, expected: str) -> None:
    pixels = (numpy.random.default_rng(0).random((5, 4, channels)) * 200).astype(dtype)
    for given in (gpunet.tensor(pixels.transpose(2, 0, 1)), pixels):
        found = T.ToPILImage(mode)(given)
        assert found.mode == expected and numpy.asarray(found).reshape(pixels.shape).tolist() == pixels.tolist()


def test_images_that_no_mode_has() -> None:
    x = gpunet.zeros(3, 4, 5)
    for mode, given in (("L", x), ("RGBA", x), ("RGB", x[:1])):
        with pytest.raises(ArgumentError, match=f"ToPILImage: mode='{mode}' of . channels of uint8; expected"):
            T.ToPILImage(mode)(given)
    for image, mode in ((x.long(), None), (x, "F"), (x[:1].double(), "F"), (x.int(), None)):
        with pytest.raises(DtypeError, match="ToPILImage: . channels of dtype .*; expected uint8, or int16, int32"):
            T.ToPILImage(mode)(image)


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
