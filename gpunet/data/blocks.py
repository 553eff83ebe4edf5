"""The base of data sets that are larger than memory: rows in blocks, of which those that are in use are kept in memory."""

from __future__ import annotations

import copy
import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_numeric
from gpunet.data.datasets import Dataset, base_and_rows
from gpunet.errors import ArgumentError, DataError, OutOfRangeError, ShapeError, shown

__all__ = ["BlockDataset"]

#: The default of the window of a BlockShuffleSampler: at most so many blocks, and at most so many bytes.
MAX_WINDOW, MAX_WINDOW_BYTES = 64, 2**28


class Field(NamedTuple):
    """An array of the data set: the shape and the dtype of its rows."""

    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]


class BlockDataset(Dataset):
    """Base class of :class:`ShardedArrays` and :class:`ParquetDataset`: rows on a disk, read in blocks of consecutive rows.

    Sample i is the tuple of the i-th rows of all arrays, as of a TensorDataset.  A DataLoader with ``num_workers=0``
    gathers batches in a thread, while the step before runs.

    Args:
        fields: the arrays.
        blocks: int64 (k, 3): the source (a file or a part of it) of each block, and the first and the last row there, plus 1.

    Attributes:
        block_starts: int64 (k + 1,): the first row of each block in the data set, and the number of rows.
        num_kept: blocks in memory; a DataLoader with a :class:`BlockShuffleSampler` raises it to what the window needs.
    """

    def __init__(self, fields: Sequence[Field], blocks: numpy.ndarray) -> None:
        self.fields = tuple(fields)
        self._set_blocks(blocks)
        self._transforms: tuple[Callable[..., Sequence[numpy.ndarray]], ...] = ()
        self.num_kept = 2  # that a batch of consecutive rows touches
        self._start()

    def _set_blocks(self, blocks: numpy.ndarray) -> None:
        self._blocks = blocks[blocks[:, 2] > blocks[:, 1]]
        counts = self._blocks[:, 2] - self._blocks[:, 1]
        self.block_starts = numpy.concatenate([[0], numpy.cumsum(counts)])
        self._depth = int(counts.max(initial=0))

    def _start(self) -> None:
        """Begin in a process, without blocks in memory."""
        self._process = os.getpid()
        self._lock = threading.Lock()  # of a thread that reads ahead, and other ones
        self._forget()

    def _own_lock(self) -> threading.Lock:
        """The lock of this process; of a fork it is another one, since a thread of its parent may have held that of the parent."""
        if self._process != os.getpid():
            self._start()
        return self._lock

    def _forget(self) -> None:
        """Drop the blocks in memory."""
        self._buffers: list[numpy.ndarray] | None = None
        self._clock = 0

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_process", "_lock", "_buffers", "_slots", "_kept", "_used")
        return {name: value for name, value in self.__dict__.items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return int(self.block_starts[-1])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        rows = self.read_rows(numpy.array([operator.index(index)]))
        return tuple(make_tensor(array.reshape(array.shape[1:])) for array in rows)

    @property
    def block_bytes(self) -> int:
        """The bytes of the largest block in memory."""
        return self._depth * sum(field.dtype.itemsize * int(numpy.prod(field.shape, dtype=numpy.int64)) for field in self.fields)

    @property
    def window(self) -> int:
        """The default window of a :class:`BlockShuffleSampler`: 64 blocks, or fewer of up to 256 MiB together."""
        return max(1, min(MAX_WINDOW, MAX_WINDOW_BYTES // max(self.block_bytes, 1)))

    def keep_blocks(self, count: int) -> None:
        """Keep at least so many blocks in memory, or all."""
        count = min(count, len(self._blocks))
        with self._own_lock():
            if count > self.num_kept:
                self.num_kept = count
                self._forget()

    def hold_out(self, fraction: float) -> tuple[Self, Self]:
        """Split off the last rows of each block, ``fraction`` of all rows; return the rest and these rows.

        Both are read in blocks, unlike the parts of ``random_split``.

        Raises:
            ArgumentError: the fraction is not between 0 and 1, or leaves a part without rows.
        """
        if not 0.0 < fraction < 1.0:
            raise ArgumentError(f"hold_out: fraction={fraction!r}; expected a number between 0 and 1, such as 0.2")
        counts = numpy.diff(numpy.round(self.block_starts * fraction).astype(numpy.int64))
        source, start, stop = self._blocks.T
        parts = []
        for first, last in ((start, stop - counts), (stop - counts, stop)):
            part = copy.copy(self)
            part._set_blocks(numpy.stack([source, first, last], 1))
            if not len(part):
                raise ArgumentError(f"hold_out: fraction={fraction!r} of {len(self)} rows leaves a part without rows")
            parts.append(part)
        return parts[0], parts[1]

    def with_transform(self, function: Callable[..., Sequence[numpy.ndarray]]) -> Self:
        """Return the data set with the arrays that ``function`` makes of the arrays of any number of rows.

            images = ShardedArrays("train").with_transform(lambda x, y: (x.astype("float32") / 255, y))

        A thread calls it, while the step before runs; so it must not draw from the global generators.

        Raises:
            ArgumentError: it is no function.
        """
        if not callable(function):
            raise ArgumentError(f"with_transform: {shown(function)}; expected a function of arrays")
        found = copy.copy(self)
        found._transforms = (*self._transforms, function)
        return found

    def read_rows(self, rows: numpy.ndarray) -> list[numpy.ndarray]:
        """Return the rows at indices, int64 (n,), of each array: (n, ...).

        Raises:
            DataError: a file has changed, or cannot be read.
            OutOfRangeError: an index is out of range.
            ArgumentError: a transform returns something else than numbers.
            ShapeError: a transform returns another number of rows.
        """
        size = len(self)
        if rows.size and not (-size <= rows.min() and rows.max() < size):
            wrong = rows[(rows < -size) | (rows >= size)][0]
            raise OutOfRangeError(f"{type(self).__name__}: index {wrong}; expected {-size} .. {size - 1}")
        rows = numpy.where(rows < 0, rows + size, rows)
        blocks = numpy.searchsorted(self.block_starts, rows, side="right") - 1
        with self._own_lock():
            self._allocate()
            arrays = self._gather(blocks, rows - self.block_starts[blocks])
        for transform in self._transforms:
            arrays = _arrays_of(transform(*arrays), len(rows))
        return arrays

    def _allocate(self) -> None:
        if self._buffers is None:
            size = self.num_kept * self._depth
            self._buffers = [numpy.empty((size, *field.shape), field.dtype) for field in self.fields]
            self._slots = numpy.full(len(self._blocks), -1)  # of each block: where it is kept
            self._kept = numpy.full(self.num_kept, -1)  # the block in each slot
            self._used = numpy.zeros(self.num_kept, numpy.int64)  # the time when each slot was used last
            self._clock = 0

    def _gather(self, blocks: numpy.ndarray, places: numpy.ndarray) -> list[numpy.ndarray]:
        """Gather rows at places in blocks, which are read unless they are kept, instead of those used least recently."""
        assert self._buffers is not None
        slots = self._slots[blocks]
        self._clock += 1
        self._used[slots[slots >= 0]] = self._clock
        if (is_missing := slots < 0).any():
            missing = [*dict.fromkeys(blocks[is_missing].tolist())]
            if len(missing) > (self._used < self._clock).sum():
                return self._gather_from_many(blocks, places)
            for number in missing:
                self._load(number)
            slots = self._slots[blocks]
        places = slots * self._depth + places
        return [numpy.take(buffer, places, 0) for buffer in self._buffers]

    def _load(self, number: int) -> None:
        assert self._buffers is not None
        slot = int(self._used.argmin())
        if self._kept[slot] >= 0:
            self._slots[self._kept[slot]], self._kept[slot] = -1, -1
        source, start, stop = self._blocks[number].tolist()
        first = slot * self._depth
        self.fill([buffer[first : first + stop - start] for buffer in self._buffers], source, start, stop)
        self._slots[number], self._kept[slot], self._used[slot] = slot, number, self._clock

    def _gather_from_many(self, blocks: numpy.ndarray, places: numpy.ndarray) -> list[numpy.ndarray]:
        """Gather from more blocks than can be kept, so many at a time."""
        result = [numpy.empty((len(blocks), *field.shape), field.dtype) for field in self.fields]
        distinct = iter(sorted(dict.fromkeys(blocks.tolist()), key=lambda number: self._slots[number] < 0))  # kept ones first
        while group := [*itertools.islice(distinct, self.num_kept)]:
            where = numpy.isin(blocks, group).nonzero()[0]
            for array, part in zip(result, self._gather(blocks[where], places[where])):
                array[where] = part
        return result

    def fill(self, arrays: list[numpy.ndarray], source: int, start: int, stop: int) -> None:
        """Read rows of a source into arrays."""
        raise NotImplementedError


def _arrays_of(result: Any, count: int) -> list[numpy.ndarray]:
    """Return what a transform made of ``count`` rows as arrays; see :meth:`BlockDataset.read_rows`."""
    if not isinstance(result, (tuple, list)):
        raise ArgumentError(f"with_transform: the function returns a {type(result).__name__}; expected a tuple of arrays")
    arrays = [*map(numpy.asarray, result)]
    for array in arrays:
        if not is_numeric(array.dtype):
            raise ArgumentError(f"with_transform: the function returns an array of {array.dtype}; expected numbers")
    if any(array.shape[:1] != (count,) for array in arrays):
        shapes = [array.shape for array in arrays]
        raise ShapeError(
            f"with_transform: the function returns arrays of shapes {shapes} for {count} rows; expected a row for each"
        )
    return arrays


def block_rows(dataset: Any) -> tuple[BlockDataset, numpy.ndarray | None] | None:
    """Return the BlockDataset behind a data set, and which of its rows the samples are (None: all); None for other data sets.

    Its class reads samples as BlockDataset does.
    """
    base, rows = base_and_rows(dataset)
    kind = type(base)
    if isinstance(base, BlockDataset) and kind.__getitem__ is BlockDataset.__getitem__ and not hasattr(base, "__getitems__"):
        return base, rows
    return None


def files_of(name: str, source: Any, suffixes: Sequence[str]) -> list[Path]:
    """The files of a data set in blocks.

    Args:
        name: of its class, for messages.
        source: a folder, a path, or several paths.
        suffixes: of the files of a folder, the usual one first.

    Raises:
        DataError: there are no files, or ``source`` is of another kind.
    """
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source)
        if not folder.is_dir():
            return [folder]
        if not (paths := sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)):
            others = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
            raise DataError(f"{folder}: the folder has no {suffixes[0]} file{f'; it has {others}' if others else ''}")
        return paths
    paths = [*source] if isinstance(source, Iterable) else []
    if not paths or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise DataError(f"{name}: {shown(source)}; expected a folder, or paths of {suffixes[0]} files")
    return [*map(Path, paths)]
