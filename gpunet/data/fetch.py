"""Read the samples of a batch and join them: the same in the main process and in a worker."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.data.blocks import BlockDataset, block_rows
from gpunet.data.collate import default_collate, default_convert
from gpunet.data.datasets import IterableDataset, tensor_rows
from gpunet.data.randomness import Key, OwnRandomness, preserved_globals, seed_globals
from gpunet.errors import OutOfRangeError


class Recipe(NamedTuple):
    """How a loader makes batches; a worker gets it as it is."""

    dataset: Any
    collate_fn: Callable[[Any], Any] | None  # None: the default
    is_batched: bool
    batch_size: int | None  # of an iterable data set
    drop_last: bool

    def collate(self, samples: Any) -> Any:
        function = self.collate_fn or (default_collate if self.is_batched else default_convert)
        return function(samples)


EXHAUSTED = object()  # stands for a batch if an iterable data set has no more samples


class MapFetcher:
    """Batches of a data set that is read by index.

    Args:
        recipe: the data set, and how to join samples.
        is_worker: the global generators need not be preserved.
    """

    def __init__(self, recipe: Recipe, is_worker: bool) -> None:
        self._recipe = recipe
        self._is_worker = is_worker
        self._tensors: tuple[Tensor, ...] | None = None
        self._blocks: BlockDataset | None = None
        self._joins_arrays = recipe.is_batched and recipe.collate_fn in (None, default_collate)
        if self._joins_arrays and (found := tensor_rows(recipe.dataset)) is not None:
            self._tensors, self._rows = found
        if recipe.is_batched and (in_blocks := block_rows(recipe.dataset)) is not None:
            self._blocks, self._rows = in_blocks

    @property
    def gathers(self) -> bool:
        """Whether a batch is a gather of tensors, which takes an array of indices and no Python per sample."""
        return self._tensors is not None

    @property
    def reads_blocks(self) -> bool:
        """Whether a batch is made by :meth:`read`, which a thread may call, and then :meth:`batch_of`."""
        return self._blocks is not None

    def read(self, index: Any) -> tuple[Any, list[numpy.ndarray]]:
        """Return a list or an array of indices, and their rows of a data set in blocks."""
        assert self._blocks is not None
        numbers = index if isinstance(index, numpy.ndarray) else [*map(operator.index, index)]  # no fractions
        return index, self._blocks.read_rows(self._found_rows(numpy.asarray(numbers, numpy.int64)))

    def batch_of(self, index: Any, arrays: list[numpy.ndarray]) -> Any:
        """Return the batch of the result of :meth:`read`."""
        if self._joins_arrays:
            return [*map(make_tensor, arrays)]
        with nullcontext() if self._is_worker else preserved_globals(), devices.CPU:
            self._seed_for(index[0])
            return self._recipe.collate([tuple(make_tensor(numpy.asarray(a[i])) for a in arrays) for i in range(len(index))])

    def start(self, key: Key, epoch: int) -> None:
        """Begin an epoch."""
        self._key, self._epoch = key, epoch

    def batches(self, order: numpy.ndarray, batch_size: int) -> Iterator[Any]:
        """Yield the batches of an order at once, whose indices go to each device once: see ``gathers``."""
        assert self._tensors is not None
        rows = self._found_rows(order)
        placed = {device: devices.move(rows, device) for device in {tensor.device for tensor in self._tensors}}
        tensors = [(tensor, placed[tensor.device]) for tensor in self._tensors]
        for start in range(0, len(order), batch_size):
            yield [_gather(tensor, rows[start : start + batch_size]) for tensor, rows in tensors]

    def _found_rows(self, order: numpy.ndarray) -> numpy.ndarray:
        """The rows of the tensors or blocks at these indices of the data set."""
        size = len(self._recipe.dataset)
        if order.size and not (-size <= order.min() and order.max() < size):
            wrong = order[(order < -size) | (order >= size)][0]
            raise OutOfRangeError(f"DataLoader: the sampler's index {wrong}; expected {-size} .. {size - 1}, as the data set has")
        return order if self._rows is None else self._rows[order]

    def fetch(self, index: Any) -> Any:
        """Return the batch of a list or an array of indices; without batches, the sample at an index."""
        recipe = self._recipe
        if self._tensors is not None and (isinstance(index, numpy.ndarray) or all(type(i) is int for i in index)):
            return next(self.batches(numpy.asarray(index, numpy.int64), max(len(index), 1)))
        if self._blocks is not None:
            return self.batch_of(*self.read(index))
        dataset = recipe.dataset
        with nullcontext() if self._is_worker else preserved_globals(), devices.CPU:
            if not recipe.is_batched:
                samples = self._sample(index)
            elif callable(getattr(dataset, "__getitems__", None)):
                indices = index.tolist() if isinstance(index, numpy.ndarray) else index
                self._seed_for(indices[0])
                samples = dataset.__getitems__(indices)
            else:
                samples = [self._sample(i) for i in (index.tolist() if isinstance(index, numpy.ndarray) else index)]
            return recipe.collate(samples)

    def _sample(self, index: Any) -> Any:
        self._seed_for(index)
        return self._recipe.dataset[index]

    def _seed_for(self, index: Any) -> None:
        name = operator.index(index) if hasattr(index, "__index__") else index  # numpy.int64(3) is 3
        seed_globals(self._key.digest("sample", self._epoch, name))


def _gather(tensor: Tensor, rows: Array) -> Tensor:
    """The rows of a tensor, which are in range; on the CPU without the checks of indexing."""
    if type(tensor.array) is numpy.ndarray and not tensor.requires_grad:
        return make_tensor(numpy.take(tensor.array, rows, 0))
    return tensor[make_tensor(rows)]


class IterableFetcher:
    """Batches of an iterable data set, or of the share of it that a worker iterates over."""

    def __init__(self, recipe: Recipe, worker: int) -> None:
        self._recipe = recipe
        self._worker = worker

    def start(self, key: Key, epoch: int) -> None:
        """Begin an epoch: iterate from the start."""
        self._random = OwnRandomness(key.digest("iterable", epoch, self._worker))
        with self._random, devices.CPU:
            self._samples = iter(self._recipe.dataset)

    def fetch(self, is_discarded: bool = False) -> Any:
        """Return the next batch, or without batches the next sample; EXHAUSTED if there are no more samples.

        Args:
            is_discarded: read the samples, but return None.
        """
        recipe, count = self._recipe, self._recipe.batch_size if self._recipe.is_batched else 1
        with self._random, devices.CPU:
            samples = list(itertools.islice(self._samples, count))
            if not samples or (recipe.drop_last and len(samples) != count):
                return EXHAUSTED
            if is_discarded:
                return None
            return recipe.collate(samples if recipe.is_batched else samples[0])


def make_fetcher(recipe: Recipe, worker: int | None) -> Any:
    """Return the fetcher of a worker, or of the main process (None)."""
    if isinstance(recipe.dataset, IterableDataset):
        return IterableFetcher(recipe, -1 if worker is None else worker)
    return MapFetcher(recipe, worker is not None)
