"""Data sets: samples by index (:class:`Dataset`) or in a row (:class:`IterableDataset`), and sets made of others."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.random import Generator
from gpunet.launch.tape import warn_user
from gpunet.ops.random import randperm

__all__ = [
    "ChainDataset", "ConcatDataset", "Dataset", "IterableDataset", "StackDataset", "Subset", "TensorDataset", "random_split",
]  # fmt: skip


class Dataset:
    """Base class of data sets whose samples are read by index: a subclass defines ``__getitem__`` and mostly ``__len__``.

    A subclass may define ``__getitems__(indices)``, which returns the list of the samples of a batch.
    """

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__: define it, to return the sample at an index")

    def __class_getitem__(cls, item: Any) -> type[Dataset]:
        return cls  # Dataset[tuple[Tensor, Tensor]] in annotations and as a base class

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """Base class of data sets whose samples come in a row: a subclass defines ``__iter__``.

    With several workers each of them iterates over its own copy; ``__iter__`` asks :func:`get_worker_info` for its share.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: define it, to yield the samples")

    def __add__(self, other: Dataset) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset):
    """The rows of tensors: sample i is the tuple of the i-th rows.  A DataLoader reads a batch by one gather for each tensor.

    Args:
        tensors: of the same size in their first dimension.

    Raises:
        ShapeError: the sizes differ.
        DtypeError: an argument is no tensor.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ArgumentError("TensorDataset: no tensors; expected at least one")
        for number, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise DtypeError(
                    f"TensorDataset: argument {number} has type {type(tensor).__name__}; expected a tensor: use gpunet.tensor(...)"
                )
        if any(t.ndim == 0 for t in tensors) or len({len(t) for t in tensors}) > 1:
            shapes = [tuple(t.shape) for t in tensors]
            raise ShapeError(f"TensorDataset: tensors of shapes {shapes}; expected the same number of rows")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class StackDataset(Dataset):
    """Several data sets side by side: sample i is the tuple, or with keywords the dict, of their i-th samples.

    Raises:
        ShapeError: the lengths differ.
        ArgumentError: no data sets, or positional and keyword arguments together.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ArgumentError(f"StackDataset: {len(args)} positional and {len(kwargs)} keyword arguments; expected one kind")
        self.datasets: Any = args or kwargs
        lengths = [len(dataset) for dataset in (args or kwargs.values())]
        if len(set(lengths)) > 1:
            raise ShapeError(f"StackDataset: data sets of lengths {lengths}; expected the same length")
        self._length = lengths[0]

    def __getitem__(self, index: Any) -> Any:
        return self._joined(lambda dataset: dataset[index])

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        columns = self._joined(lambda dataset: _samples(dataset, indices))
        if isinstance(columns, dict):
            return [dict(zip(columns, row)) for row in zip(*columns.values())]
        return list(zip(*columns))

    def _joined(self, read: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: read(dataset) for name, dataset in self.datasets.items()}
        return tuple(read(dataset) for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


def _samples(dataset: Any, indices: list[Any]) -> list[Any]:
    if callable(getattr(dataset, "__getitems__", None)):
        return list(dataset.__getitems__(indices))
    return [dataset[index] for index in indices]


class ConcatDataset(Dataset):
    """Data sets one after the other.

    Raises:
        ArgumentError: no data sets, or an IterableDataset among them (see :class:`ChainDataset`).
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset: no data sets; expected at least one")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise ArgumentError("ConcatDataset: an IterableDataset has no samples by index; use ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, idx: int) -> Any:
        at = idx + len(self) if idx < 0 else idx
        if not 0 <= at < len(self):
            raise OutOfRangeError(f"ConcatDataset: index {idx}; expected {-len(self)} .. {len(self) - 1}")
        number = bisect.bisect_right(self.cumulative_sizes, at)
        return self.datasets[number][at - (self.cumulative_sizes[number - 1] if number else 0)]


class ChainDataset(IterableDataset):
    """The samples of several IterableDatasets, one data set after the other.

    Raises:
        ArgumentError: a data set is no IterableDataset.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise ArgumentError(f"ChainDataset: a {type(dataset).__name__}; expected IterableDatasets (else use ConcatDataset)")

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)


class Subset(Dataset):
    """The samples of a data set at ``indices``."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, list):
            return self.dataset[[self.indices[i] for i in idx]]
        return self.dataset[self.indices[idx]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
    """Split a data set into random subsets that do not overlap.

    Args:
        dataset: the data set, with a length.
        lengths: the numbers of samples, whose sum is ``len(dataset)``; or fractions that sum to 1.  A part then gets
            ``floor(fraction * len(dataset))`` samples, and the first parts one more each, until all are distributed.
        generator: the generator of the order; the default generator if None.

    Raises:
        ArgumentError: a fraction is not in 0 .. 1, or the lengths do not sum to that of the data set.
    """
    size, total = len(dataset), sum(lengths)
    if math.isclose(total, 1) and total <= 1:
        for number, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ArgumentError(f"random_split: lengths[{number}]={fraction}; expected a fraction from 0 to 1")
        counts = [math.floor(size * fraction) for fraction in lengths]
        for i in range(size - sum(counts)):
            counts[i % len(counts)] += 1
        for number, count in enumerate(counts):
            if count == 0:
                warn_user(f"random_split: part {number} of {list(lengths)} of {size} samples is empty")
    else:
        counts = list(lengths)  # type: ignore[arg-type]
        if sum(counts) != size:
            raise ArgumentError(
                f"random_split: lengths={list(lengths)} sum to {total}; expected {size}, the length of the data set, or fractions "
                "that sum to 1"
            )
    order = randperm(size, generator=generator, device="cpu").tolist()
    ends = itertools.accumulate(counts)
    return [Subset(dataset, order[end - count : end]) for count, end in zip(counts, ends)]


def base_and_rows(dataset: Any) -> tuple[Any, numpy.ndarray | None]:
    """Return the data set behind Subsets at integers, and which of its rows the samples are (None: all).

    The classes of these Subsets read samples as Subset does.
    """
    rows: numpy.ndarray | None = None
    while getattr(type(dataset), "__getitem__", None) is Subset.__getitem__ and not hasattr(dataset, "__getitems__"):
        indices = dataset.indices.cpu().numpy() if isinstance(dataset.indices, Tensor) else numpy.asarray(dataset.indices)
        if indices.ndim != 1 or not numpy.issubdtype(indices.dtype, numpy.integer):
            break
        rows, dataset = (indices if rows is None else indices[rows]), dataset.dataset
    return dataset, rows


def tensor_rows(dataset: Any) -> tuple[tuple[Tensor, ...], numpy.ndarray | None] | None:
    """Return the tensors behind a data set, and which of their rows the samples are (None: all); None for other data sets.

    These are a TensorDataset, and Subsets of one at integers, whose classes read samples as these do.
    """
    base, rows = base_and_rows(dataset)
    if getattr(type(base), "__getitem__", None) is TensorDataset.__getitem__ and not hasattr(base, "__getitems__"):
        return base.tensors, rows
    return None
