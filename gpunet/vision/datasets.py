"""Data sets of images from local files, with torchvision's names: nothing is downloaded."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from gpunet.data.datasets import Dataset
from gpunet.errors import ArgumentError, DataError, OutOfRangeError
from gpunet.ops.creation import from_numpy
from gpunet.vision.images import pillow, to_pil

__all__ = [
    "CIFAR10", "CIFAR100", "KMNIST", "MNIST", "DatasetFolder", "FakeData", "FashionMNIST", "ImageFolder", "VisionDataset",
    "load_image",
]  # fmt: skip

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


#: The most that one byte of a compressed file can become: the limit of deflate.
_MOST_COMPRESSED = 1032


def _read_idx(path: Path) -> numpy.ndarray:
    """The array in a file of the format IDX, which may be compressed by gzip.

    Raises:
        DataError: the file has another format, is damaged, or its header claims more than the file can hold.
    """
    wrong = DataError(f"{path}: no file of the format IDX with bytes, or it is cut off")
    size = path.stat().st_size
    with path.open("rb") as raw:
        is_compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            file: Any = gzip.GzipFile(fileobj=raw) if is_compressed else raw
            head = file.read(4)
            dims = head[3] if len(head) == 4 and head[:3] == b"\0\0\x08" else 0
            lengths = file.read(4 * dims)
            shape = tuple(int.from_bytes(lengths[4 * i : 4 * i + 4], "big") for i in range(dims))
            count = math.prod(shape)
            if not 1 <= dims <= 4 or len(lengths) < 4 * dims or count > size * (_MOST_COMPRESSED if is_compressed else 1):
                raise wrong
            data = file.read(count + 1)
        except (OSError, EOFError, zlib.error):
            raise wrong from None
    if len(data) != count:
        raise wrong
    return numpy.frombuffer(data, numpy.uint8).reshape(shape).copy()


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
        DataError: the files are not there, or do not belong together.
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
        images, labels = self._read(f"{prefix}-images-idx3-ubyte"), self._read(f"{prefix}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{type(self).__name__}: {root} has images of shape {images.shape} in {prefix}-images-idx3-ubyte and labels of "
                f"shape {labels.shape} in {prefix}-labels-idx1-ubyte; expected (images, height, width) and (images,)"
            )
        self.data = from_numpy(images)
        self.targets = from_numpy(labels.astype(numpy.int64))

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
    """Photographs of ten classes: 50000 training and 10000 test images of 32 x 32.

    Args:
        root: the folder that has the folder of the "python version", cifar-10-batches-py, or of the "binary version",
            cifar-10-batches-bin.
        train: the training images, or the test images.
        download: has no effect: the files must be there.

    Attributes:
        data: a NumPy array, uint8 (images, 32, 32, 3).
        targets: a list of integers.

    Raises:
        DataError: the files are not there, or damaged.
    """

    base_folder, binary_folder = "cifar-10-batches-py", "cifar-10-batches-bin"
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    _training: tuple[str, ...] = tuple(f"data_batch_{i}" for i in range(1, 6))
    _test: tuple[str, ...] = ("test_batch",)
    _meta, _labels, _names = "batches.meta", b"labels", b"label_names"
    _text, _num_labels = "batches.meta.txt", 1  # of the binary version; the last byte of labels counts

    def __init__(
        self, root: Any, train: bool = True, transform: Transform = None, target_transform: Transform = None, download: bool = False
    ) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train = train
        files = self._training if train else self._test
        is_binary = not (Path(root) / self.base_folder).is_dir() and (Path(root) / self.binary_folder).is_dir()
        pixels, labels, self.classes = self._binary(files) if is_binary else self._pickled(files)
        self.data = numpy.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        self.targets = [int(label) for of_file in labels for label in of_file]
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}

    def _pickled(self, names: Sequence[str]) -> tuple[list[Any], list[Any], list[str]]:
        """The pixels and labels of each file, and the names of the classes."""
        pixels, labels = [], []
        for name in names:
            of_data, of_labels = self._entries(name, b"data", self._labels)
            is_array = isinstance(of_data, numpy.ndarray) and of_data.dtype == numpy.uint8 and of_data.shape[1:] == (3072,)
            is_list = isinstance(of_labels, list) and all(isinstance(label, int) for label in of_labels)
            if not is_array or not is_list or len(of_data) != len(of_labels):
                shape = of_data.shape if isinstance(of_data, numpy.ndarray) else type(of_data).__name__
                count = len(of_labels) if isinstance(of_labels, list) else type(of_labels).__name__
                raise DataError(
                    f"{self._file(name)}: data {shape}, labels {count}; expected bytes (images, 3072), and as many labels"
                )
            pixels.append(of_data)
            labels.append(of_labels)
        classes = self._entries(self._meta, self._names)[0]
        if not isinstance(classes, list) or not all(isinstance(name, bytes) for name in classes):
            raise DataError(f"{self._file(self._meta)}: {self._names.decode()} is no list of names")
        return pixels, labels, [name.decode(errors="replace") for name in classes]

    def _binary(self, names: Sequence[str]) -> tuple[list[Any], list[Any], list[str]]:
        """The same of the binary version: records of labels and 3072 bytes of pixels."""
        folder = Path(self.root) / self.binary_folder
        classes = (folder / self._text).read_text().split() if (folder / self._text).is_file() else []
        pixels, labels = [], []
        for name in names:
            file = folder / f"{name}.bin"
            if not file.is_file():
                raise _missing(type(self).__name__, folder, file.name, self.address)
            records = numpy.fromfile(file, numpy.uint8)
            if not records.size or records.size % (self._num_labels + 3072):
                raise DataError(f"{file}: {records.size} bytes; expected records of {self._num_labels + 3072} bytes")
            records = records.reshape(-1, self._num_labels + 3072)
            pixels.append(records[:, self._num_labels :])
            labels.append(records[:, self._num_labels - 1])
        return pixels, labels, classes

    def _file(self, name: str) -> Path:
        return Path(self.root) / self.base_folder / name

    def _entries(self, name: str, *keys: bytes) -> list[Any]:
        """The entries of the dict in a file.

        Raises:
            DataError: the file has no dict with these keys.
        """
        found = self._read(name)
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise DataError(
                    f"{self._file(name)}: no file of {type(self).__name__}; expected a dict with the key {key.decode()!r}"
                )
        return [found[key] for key in keys]

    def _read(self, name: str) -> Any:
        file = self._file(name)
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
    """Photographs of a hundred classes: 50000 training and 10000 test images of 32 x 32.

    They are in ``root/cifar-100-python``, or in the binary version in ``root/cifar-100-binary``.
    """

    base_folder, binary_folder = "cifar-100-python", "cifar-100-binary"
    _training, _test = ("train",), ("test",)
    _meta, _labels, _names = "meta", b"fine_labels", b"fine_label_names"
    _text, _num_labels = "fine_label_names.txt", 2


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


class DatasetFolder(VisionDataset):
    """Files in folders, one for each class: ``root/class/name.png``.

    Args:
        root: the folder.
        loader: reads a file.
        extensions: the endings of files that are read; or
        is_valid_file: tells whether a file is read.
        allow_empty: whether a class may have no files.
        classes: the names of the classes in their order, such as ``classes=train.classes`` of a validation folder, in which a class
            may then have no folder; by default the sorted names of the folders.

    Attributes:
        classes: the names of the classes.
        samples: a list of (path, class index).

    Raises:
        DataError: there are no folders, no files in one, or a folder that is not among ``classes``.
    """

    def __init__(
        self, root: Any, loader: Callable[[str], Any], extensions: Sequence[str] | None = None, transform: Transform = None,
        target_transform: Transform = None, is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False,
        *, classes: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, None, transform, target_transform)
        name = type(self).__name__
        if (extensions is None) == (is_valid_file is None):
            raise ArgumentError(f"{name}: expected either extensions or is_valid_file")
        folder = Path(root)
        found = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if not found:
            raise DataError(f"{name}: {folder} has no folders; expected one for each class")
        if classes is not None and (unknown := sorted({*found} - {*classes})):
            raise DataError(f"{name}: {folder} has the folder {unknown[0]!r}; expected one of classes={list(classes)}")
        self.classes = found if classes is None else list(classes)
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.loader, self.extensions = loader, extensions
        endings = tuple(e.lower() for e in extensions or ())
        takes = is_valid_file or (lambda path: path.lower().endswith(endings))
        self.samples: list[tuple[str, int]] = []
        for kind in found:
            files = [str(p) for p in sorted((folder / kind).rglob("*")) if p.is_file() and takes(str(p))]
            if not files and not allow_empty:
                raise DataError(f"{name}: {folder / kind} has no {self._items}; remove it, or pass allow_empty=True")
            self.samples += [(path, self.class_to_idx[kind]) for path in files]
        self.samples.sort(key=lambda sample: sample[1])  # stable: by class, then by path
        self.targets = [index for _, index in self.samples]

    _items = "files"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._sample(self.loader(path), target)


class ImageFolder(DatasetFolder):
    """Images in folders, one for each class: ``root/class/name.png``.

    Args:
        root: the folder.
        loader: reads a file; by default a PIL image in RGB, turned as its EXIF orientation says.
        is_valid_file: tells whether a file is read; by default the usual endings of images.
        allow_empty: whether a class may have no images.
        classes: see :class:`DatasetFolder`.

    Attributes:
        classes: the names of the classes.
        samples: a list of (path, class index).

    Raises:
        DataError: there are no folders, no images in one, or a folder not among ``classes``; a file is damaged (on reading).
    """

    endings = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
    _items = "images"

    def __init__(
        self, root: Any, transform: Transform = None, target_transform: Transform = None,
        loader: Callable[[str], Any] | None = None, is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False,
        *, classes: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        endings = self.endings if is_valid_file is None else None
        super().__init__(
            root, loader or load_image, endings, transform, target_transform, is_valid_file, allow_empty, classes=classes
        )
        self.imgs = self.samples


#: Pixels up to which a header is believed, and pixels that a byte of a file may stand for beyond that.
_BELIEVED_PIXELS, _PIXELS_OF_A_BYTE = 2**23, 500


def load_image(path: Any) -> Any:
    """The PIL image in RGB in a file, turned as its EXIF orientation says.

    Raises:
        DataError: the file is no image, is damaged, or claims to have far more pixels than its bytes can hold.
    """
    image_module = pillow()
    from PIL import ImageOps

    size = Path(path).stat().st_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of large images
            with image_module.open(path) as image:
                width, height = image.size
                if width * height > max(_BELIEVED_PIXELS, _PIXELS_OF_A_BYTE * size):
                    raise DataError(f"{path}: its header claims {width} x {height} pixels in {size} bytes; it is damaged")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return image.convert("RGB") if image.mode != "RGB" else image.copy()
    except DataError:
        raise
    except Exception as error:  # whatever the plugins of Pillow raise
        raise DataError(f"{path}: no image, or it is damaged ({type(error).__name__}: {error})") from None
