"""Data sets of images from local files, and image files."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy
import pytest

import gpunet
from gpunet.errors import DataError, ShapeError
from gpunet.utils.data import DataLoader
from gpunet.vision import datasets, transforms, utils

Image = pytest.importorskip("PIL.Image")
RANDOM = numpy.random.default_rng(0)


def idx(array: numpy.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def test_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = RANDOM.integers(0, 256, (5, 28, 28), dtype=numpy.uint8), numpy.array([3, 1, 4, 1, 5], numpy.uint8)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    data = datasets.MNIST(tmp_path, train=True, transform=transforms.ToTensor(), download=True)
    assert len(data) == 5 and data.targets.tolist() == labels.tolist() and data.class_to_idx["7 - seven"] == 7
    image, label = data[2]
    assert label == 4 and (image.numpy() == images[2] / numpy.float32(255)).all()
    batch, targets = next(iter(DataLoader(data, batch_size=3)))
    assert batch.shape == (3, 1, 28, 28) and targets.tolist() == [3, 1, 4]
    with pytest.raises(DataError, match=r"MNIST: .*raw has no t10k-images-idx3-ubyte; download the files from https"):
        datasets.MNIST(tmp_path, train=False)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images)[:-1])
    with pytest.raises(DataError, match=r"IDX with bytes, or it is cut off"):
        datasets.MNIST(tmp_path)
    with pytest.raises(DataError, match=r"FashionMNIST"):
        datasets.FashionMNIST(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = RANDOM.integers(0, 256, (4, 3072), dtype=numpy.uint8)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [0, 1, 2, 1]}, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog", b"frog"]}, protocol))
    data = datasets.CIFAR10(tmp_path)
    assert len(data) == 20 and data.data.shape == (20, 32, 32, 3) and data.classes == ["cat", "dog", "frog"]
    image, label = data[1]
    assert label == 1 and (numpy.asarray(image) == pixels[1].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    assert len(datasets.CIFAR10(tmp_path, train=False)) == 4


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(DataError, match=r"test_batch: no file of CIFAR10, or it is damaged \(os.system\)"):
        datasets.CIFAR10(tmp_path, train=False)
    assert not (tmp_path / "hacked").exists()


def test_fake_data() -> None:
    data = datasets.FakeData(3, (3, 4, 5), 7, transform=transforms.ToTensor())
    image, label = data[1]
    assert len(data) == 3 and image.shape == (3, 4, 5) and 0 <= label < 7 and (data[1][0] == image).all()
    assert len(list(data)) == 3


def test_image_folder(tmp_path: Path) -> None:
    for name, count in (("b", 2), ("a", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.fromarray(RANDOM.integers(0, 256, (4, 4, 3), dtype=numpy.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "b" / "notes.txt").write_text("no image")
    data = datasets.ImageFolder(tmp_path, transform=transforms.ToTensor(), target_transform=lambda label: label + 10)
    assert data.classes == ["a", "b"] and data.targets == [0, 1, 1] and [label for _, label in data] == [10, 11, 11]
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"c has no images"):
        datasets.ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"has no folders"):
        datasets.ImageFolder(tmp_path / "c")


def test_grid(tmp_path: Path) -> None:
    images = gpunet.arange(5).reshape(5, 1, 1, 1).float().expand(5, 1, 2, 3) + 1
    grid = utils.make_grid(images, nrow=3, padding=1, pad_value=9)
    assert grid.shape == (3, 2 * 3 + 1, 3 * 4 + 1)
    assert grid[0, 1:3, 1:4].tolist() == [[1.0] * 3] * 2 and grid[2, 4:6, 5:8].tolist() == [[5.0] * 3] * 2
    assert grid[0, 0].tolist() == [9.0] * 13 and grid[0, 4:6, 9:12].tolist() == [[9.0] * 3] * 2
    assert utils.make_grid(images, normalize=True, padding=0)[0, 0, ::3].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert utils.make_grid(gpunet.rand(2, 3)).shape == (3, 2, 3) and utils.make_grid([images[0], images[1]]).shape == (3, 6, 12)
    with pytest.raises(ShapeError, match=r"make_grid: a tensor of shape \(1,\)"):
        utils.make_grid(gpunet.ones(1))
    utils.save_image(images / 5, tmp_path / "grid.png", nrow=5, padding=0)
    assert numpy.asarray(Image.open(tmp_path / "grid.png"))[0, ::3, 0].tolist() == [51, 102, 153, 204, 255]
