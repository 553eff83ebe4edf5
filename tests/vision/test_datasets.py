"""Data sets of images from local files, and image files."""

from __future__ import annotations

import gzip
import pickle
import resource
from pathlib import Path

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DataError, ShapeError
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


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (4, 3072), dtype=numpy.uint8)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}))
    for content, message in (
        ({b"data": pixels}, "expected a dict with the key 'labels'"), ({b"labels": [0]}, "expected a dict with the key 'data'"),
        ([pixels], "expected a dict with the key 'data'"), ({b"data": pixels, b"labels": [0, 1]}, r"data \(4, 3072\), labels 2;"),
        ({b"data": pixels[:, :5], b"labels": [0] * 4}, r"data \(4, 5\)"), ({b"data": [1], b"labels": [0]}, "data list, labels 1;"),
        ({b"data": pixels, b"labels": [b"a"] * 4}, "as many labels"), ({b"data": pixels, b"labels": 4}, "labels int;"),
    ):  # fmt: skip
        (folder / "test_batch").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=f"test_batch: .*{message}"):
            datasets.CIFAR10(tmp_path, train=False)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": pixels, b"labels": [0] * 4}))
    for content, message in (({}, "expected a dict with the key 'label_names'"), ({b"label_names": 3}, "label_names is no list")):
        (folder / "batches.meta").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=f"batches.meta: .*{message}"):
            datasets.CIFAR10(tmp_path, train=False)
    for images, labels in (((5, 28, 28), (4,)), ((5, 28), (5,)), ((5, 28, 28), (5, 1))):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(numpy.zeros(images, "uint8")))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(numpy.zeros(labels, "uint8")))
        with pytest.raises(DataError, match=r"MNIST: .* has images of shape \(5, 28.* labels of shape \([45]"):
            datasets.MNIST(tmp_path)


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


def test_cifar_in_its_binary_version(tmp_path: Path) -> None:
    for folder, names, text, labels in (
        ("cifar-10-batches-bin", ["test_batch", *(f"data_batch_{i}" for i in range(1, 6))], "batches.meta.txt", 1),
        ("cifar-100-binary", ["train", "test"], "fine_label_names.txt", 2),
    ):
        (tmp_path / folder).mkdir()
        records = RANDOM.integers(0, 9, (3, labels + 3072), dtype=numpy.uint8)
        for name in names:
            (tmp_path / folder / f"{name}.bin").write_bytes(records.tobytes())
        (tmp_path / folder / text).write_text("cat\ndog\n\n")
        data = {1: datasets.CIFAR10, 2: datasets.CIFAR100}[labels](tmp_path, train=False)
        assert data.classes == ["cat", "dog"] and data.targets == records[:, labels - 1].tolist()
        assert (numpy.asarray(data[2][0]) == records[2, labels:].reshape(3, 32, 32).transpose(1, 2, 0)).all()
        (tmp_path / folder / f"{names[0]}.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch.bin: 9218 bytes; expected records of 3073 bytes"):
        datasets.CIFAR10(tmp_path, train=False)


@pytest.mark.parametrize("header", [
    b"\0\0\x08\x03" + b"\xff" * 12, b"\0\0\x08\x04" + (65536).to_bytes(4, "big") * 4, b"\0\0\x08\xff" + b"\0\0\0\x01" * 255,
    b"\0\0\x08\0", b"\0\0\x0d\x01\0\0\0\x01\0", b"", b"\x1f\x8b",
    gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12, mtime=0), gzip.compress(b"", mtime=0)[:9],
])  # fmt: skip
def test_headers_of_idx_files_that_claim_too_much(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: no file of the format IDX"):
        datasets.MNIST(tmp_path)


def test_a_validation_folder_takes_the_classes_of_training(tmp_path: Path) -> None:
    for path in ("train/ant", "train/bee", "train/cat", "valid/cat", "valid/bee"):
        (tmp_path / path).mkdir(parents=True)
        Image.new("L", (2, 3)).save(tmp_path / path / "0.png")
    train = datasets.ImageFolder(tmp_path / "train")
    assert datasets.ImageFolder(tmp_path / "valid").targets == [0, 1]  # on its own it counts its folders
    valid = datasets.ImageFolder(tmp_path / "valid", classes=train.classes)
    assert valid.targets == [1, 2] and valid.class_to_idx == train.class_to_idx and valid[0][0].mode == "RGB"
    with pytest.raises(DataError, match=r"has the folder 'cat'; expected one of classes=\['ant', 'bee'\]"):
        datasets.ImageFolder(tmp_path / "valid", classes=["ant", "bee"])
    texts = datasets.DatasetFolder(tmp_path / "valid", lambda path: Path(path).name, (".PNG",))
    assert texts[0] == ("0.png", 0)
    with pytest.raises(ArgumentError, match="either extensions or is_valid_file"):
        datasets.DatasetFolder(tmp_path, str)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_orientation_says(tmp_path: Path, orientation: int) -> None:
    upright = RANDOM.integers(0, 256, (4, 6, 3), dtype=numpy.uint8)
    # how a camera stores the picture, by the standard: the transposition that undoes each orientation
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: numpy.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: numpy.rot90(upright, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(numpy.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "0.png", exif=exif)
    assert (numpy.asarray(datasets.load_image(tmp_path / "0.png")) == upright).all()


def damaged_images(tmp_path: Path, count: int) -> tuple[int, int]:
    """Read files with changed bytes, most of them in their headers; return how many were images still, and how many were not."""
    random = numpy.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=numpy.uint8))
    originals = []
    for format in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"):
        picture.save(tmp_path / "a", format=format)
        originals.append((tmp_path / "a").read_bytes())
    read = refused = 0
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            end = min(len(data), 64) if random.random() < 0.8 else len(data)
            data[random.integers(end)] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        if random.random() < 0.2:
            del data[random.integers(len(data)) :]
        (tmp_path / "b").write_bytes(data)
        try:
            datasets.load_image(tmp_path / "b")
            read += 1
        except DataError:
            refused += 1
    return read, refused


def test_damaged_images_are_refused_by_name(tmp_path: Path) -> None:
    read, refused = damaged_images(tmp_path, 700)
    assert read > 50 and refused > 50


@pytest.mark.exhaustive
def test_ten_thousand_damaged_images_take_little_memory(tmp_path: Path) -> None:
    damaged_images(tmp_path, 70)  # Pillow's plugins
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damaged_images(tmp_path, 10_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_headers_that_claim_many_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 40000 40000 255 " + bytes(100))
    with pytest.raises(DataError, match=r"a.ppm: (no image|its header claims 40000 x 40000 pixels)"):
        datasets.load_image(tmp_path / "a.ppm")
    (tmp_path / "b.ppm").write_bytes(b"P6 4000 4000 255 " + bytes(100))
    with pytest.raises(DataError, match=r"b.ppm: its header claims 4000 x 4000 pixels in 117 bytes; it is damaged"):
        datasets.load_image(tmp_path / "b.ppm")
