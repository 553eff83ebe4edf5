"""Data sets of images from local files, with torchvision's names: nothing is downloaded."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from gpunet.data.datasets import Dataset
from gpunet.errors import DataError, OutOfRangeError
from gpunet.ops.creation import from_numpy
from gpunet.vision.images import pillow, to_pil

__all__ = ["CIFAR10", "CIFAR100", "KMNIST", "MNIST", "FakeData", "FashionMNIST", "ImageFolder", "VisionDataset"]

Transform = Callable[[Any], Any] | None


class VisionDataset(Dataset):
    """Base class: samples are (image, target), changed by transforms.

    Args:
        root: the folder of the files.
        transforms: of (image, target); or
        transform: of the image, and
        target_transform: of the target.
    """

    def __init__(
        self, root: Any = None, transforms: Callable[..., Any] | None = None, transform: Transform = None,
        target_transform: Transform = None,
    ) -> None:  # fmt: skip
        self.root, self.transforms = root, transforms
        self.transform, self.target_transform = transform, target_transform

    def _sample(self, image: Any, target: Any) -> tuple[Any, Any]:
        if self.transforms is not None:
            return self.transforms(image, target)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


def _missing(kind: str, folder: Path, files: str, address: str) -> DataError:
    return DataError(
        f"{kind}: {folder} has no {files}; download the files from {address} and put them there (gpunet downloads nothing)"
    )


def _read_idx(path: Path) -> numpy.ndarray:
    """The array in a file of the format IDX, which may be compressed by gzip.

    Raises:
        DataError: the file has another format.
    """
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    dims = data[3] if len(data) > 3 else 0
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims))
    if data[:3] != b"\x00\x00\x08" or len(data) != 4 + 4 * dims + int(numpy.prod(shape)):
        raise DataError(f"{path}: no file of the format IDX with bytes, or it is cut off")
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * dims).reshape(shape).copy()


class MNIST(VisionDataset):
    """Handwritten digits: 60000 training and 10000 test images of 28 x 28, from ``root/MNIST/raw``.

    Args:
        root: the folder that has the folder MNIST; the files may stand in it directly, too, and may be compressed (.gz).
        train: the training images, or the test images.
        download: has no effect: the files must be there.

    Attributes:
        data: uint8 (images, 28, 28).
        targets: int64 (images,).

    Raises:
        DataError: the files are not there.
    """

    classes: Sequence[str] = (
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    )  # fmt: skip
    address = "https://ossci-datasets.s3.amazonaws.com/mnist/"

    def __init__(
        self, root: Any, train: bool = True, transform: Transform = None, target_transform: Transform = None, download: bool = False
    ) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train = train
        prefix = "train" if train else "t10k"
        self.data = from_numpy(self._read(f"{prefix}-images-idx3-ubyte"))
        self.targets = from_numpy(self._read(f"{prefix}-labels-idx1-ubyte").astype(numpy.int64))

    def _read(self, name: str) -> numpy.ndarray:
        folder = Path(self.root) / type(self).__name__ / "raw"
        for place in (folder, Path(self.root) / type(self).__name__, Path(self.root)):
            for file in (place / name, place / f"{name}.gz"):
                if file.is_file():
                    return _read_idx(file)
        raise _missing(type(self).__name__, folder, name, self.address)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self._sample(pillow().fromarray(self.data.array[int(index)]), int(self.targets.array[int(index)]))


class FashionMNIST(MNIST):
    """Articles of clothing: 60000 training and 10000 test images of 28 x 28, from ``root/FashionMNIST/raw``."""

    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    address = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


class KMNIST(MNIST):
    """Handwritten Japanese characters: 60000 training and 10000 test images of 28 x 28, from ``root/KMNIST/raw``."""

    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    address = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"


class _ArraysUnpickler(pickle.Unpickler):
    """Reads lists, dicts, bytes and NumPy arrays, and calls nothing else: a file cannot run code."""

    _ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"), ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


class CIFAR10(VisionDataset):
    """Photographs of ten classes: 50000 training and 10000 test images of 32 x 32, from ``root/cifar-10-batches-py``.

    Args:
        root: the folder that has the folder of the "python version".
        train: the training images, or the test images.
        download: has no effect: the files must be there.

    Attributes:
        data: a NumPy array, uint8 (images, 32, 32, 3).
        targets: a list of integers.

    Raises:
        DataError: the files are not there, or damaged.
    """

    base_folder = "cifar-10-batches-py"
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    _training: tuple[str, ...] = tuple(f"data_batch_{i}" for i in range(1, 6))
    _test: tuple[str, ...] = ("test_batch",)
    _meta, _labels, _names = "batches.meta", b"labels", b"label_names"

    def __init__(
        self, root: Any, train: bool = True, transform: Transform = None, target_transform: Transform = None, download: bool = False
    ) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train = train
        batches = [self._read(name) for name in (self._training if train else self._test)]
        self.data = numpy.concatenate([b[b"data"] for b in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        self.targets = [int(label) for b in batches for label in b[self._labels]]
        self.classes = [name.decode() for name in self._read(self._meta)[self._names]]
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}

    def _read(self, name: str) -> Any:
        file = Path(self.root) / self.base_folder / name
        if not file.is_file():
            raise _missing(type(self).__name__, file.parent, name, self.address)
        try:
            return _ArraysUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        except Exception as error:
            raise DataError(f"{file}: no file of {type(self).__name__}, or it is damaged ({error})") from None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self._sample(pillow().fromarray(self.data[int(index)]), self.targets[int(index)])


class CIFAR100(CIFAR10):
    """Photographs of a hundred classes: 50000 training and 10000 test images of 32 x 32, from ``root/cifar-100-python``."""

    base_folder = "cifar-100-python"
    _training, _test = ("train",), ("test",)
    _meta, _labels, _names = "meta", b"fine_labels", b"fine_label_names"


class FakeData(VisionDataset):
    """Images of random pixels, for tests: image and class follow from the index.

    Args:
        size: the number of images.
        image_size: (channels, height, width).
        num_classes: the number of classes.
        random_offset: added to the index.
    """

    def __init__(
        self, size: int = 1000, image_size: tuple[int, int, int] = (3, 224, 224), num_classes: int = 10,
        transform: Transform = None, target_transform: Transform = None, random_offset: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(None, None, transform, target_transform)
        self.size, self.image_size, self.num_classes, self.random_offset = size, image_size, num_classes, random_offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        if not 0 <= index < self.size:
            raise OutOfRangeError(f"FakeData: index {index} of {self.size} images")
        random = numpy.random.default_rng(int(index) + self.random_offset)
        image = random.normal(size=self.image_size).astype(numpy.float32)
        return self._sample(to_pil(from_numpy(image)), int(random.integers(self.num_classes)))


class ImageFolder(VisionDataset):
    """Images in folders, one for each class: ``root/class/name.png``.

    Args:
        root: the folder.
        loader: reads a file; a PIL image in RGB by default.
        is_valid_file: tells whether a file is read; by default the usual endings of images.
        allow_empty: whether a class may have no images.

    Attributes:
        classes: the names of the folders, sorted.
        samples: a list of (path, class index).

    Raises:
        DataError: there are no folders, or no images in one.
    """

    endings = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

    def __init__(
        self, root: Any, transform: Transform = None, target_transform: Transform = None,
        loader: Callable[[str], Any] | None = None, is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(root, None, transform, target_transform)
        folder = Path(root)
        self.classes = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if not self.classes:
            raise DataError(f"ImageFolder: {folder} has no folders; expected one for each class")
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.loader = loader or _load_rgb
        is_image = is_valid_file or (lambda path: path.lower().endswith(self.endings))
        self.samples: list[tuple[str, int]] = []
        for name, index in self.class_to_idx.items():
            found = [str(p) for p in sorted((folder / name).rglob("*")) if p.is_file() and is_image(str(p))]
            if not found and not allow_empty:
                raise DataError(f"ImageFolder: {folder / name} has no images; remove it, or pass allow_empty=True")
            self.samples += [(path, index) for path in found]
        self.imgs, self.targets = self.samples, [index for _, index in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._sample(self.loader(path), target)


def _load_rgb(path: str) -> Any:
    with pillow().open(path) as image:
        return image.convert("RGB")
