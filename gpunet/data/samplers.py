"""Samplers: the order in which a DataLoader reads the samples of a data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.distributed.process_group import get_rank, get_world_size, is_initialized
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator
from gpunet.ops.random import rand, randint, random_keys

__all__ = [
    "BatchSampler", "DistributedSampler", "RandomSampler", "Sampler", "SequentialSampler", "SubsetRandomSampler",
    "WeightedRandomSampler",
]  # fmt: skip


class Sampler:
    """Base class: a subclass defines ``__iter__``, which yields indices (or lists of them), and mostly ``__len__``."""

    def __class_getitem__(cls, item: Any) -> type[Sampler]:
        return cls  # Sampler[int] in annotations and as a base class

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: define it, to yield indices")


class _OrderSampler(Sampler):
    """Base class of samplers whose whole order is drawn at once."""

    def draw_order(self) -> numpy.ndarray:
        """Return the int64 indices of one epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw_order().tolist())


def is_order_sampler(sampler: Any) -> bool:
    """Whether ``sampler.draw_order()`` has the indices that iterating over it yields."""
    return getattr(type(sampler), "__iter__", None) is _OrderSampler.__iter__


class SequentialSampler(_OrderSampler):
    """0, 1, 2, ... for the length of ``data_source``."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def draw_order(self) -> numpy.ndarray:
        return numpy.arange(len(self))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(_OrderSampler):
    """The indices of ``data_source`` in random order.

    Args:
        data_source: its length is what counts.
        replacement: draw each index independently, so that some repeat.
        num_samples: the number of indices, by default the length; without replacement more of them start another permutation.
        generator: the default generator if None.  That of a DataLoader is derived from its seed and the epoch.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Generator | None = None
    ) -> None:
        _check_flag("RandomSampler", "replacement", replacement)
        if num_samples is not None:
            _check_count("RandomSampler", "num_samples", num_samples)
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def draw_order(self) -> numpy.ndarray:
        size, count = len(self.data_source), self.num_samples
        if not size:
            return numpy.empty(0, numpy.int64)
        if self.replacement:
            return randint(size, (count,), generator=self.generator, device="cpu").numpy()
        drawn = [_permutation(size, self.generator) for _ in range(-(-count // size))]
        return numpy.concatenate(drawn)[:count] if drawn else numpy.empty(0, numpy.int64)

    def __len__(self) -> int:
        return self.num_samples


def _permutation(size: int, generator: Generator | None) -> numpy.ndarray:
    """Return ``randperm(size)``; NumPy sorts several times faster where the order of equal keys does not matter."""
    keys = random_keys(size, generator, "cpu").numpy()
    order = keys.argsort()
    in_order = keys[order]
    return keys.argsort(kind="stable") if (in_order[1:] == in_order[:-1]).any() else order


class SubsetRandomSampler(Sampler):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        return (self.indices[i] for i in _permutation(len(self.indices), self.generator).tolist())

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_OrderSampler):
    """Indices 0 .. len(weights) - 1, drawn with probabilities in proportion to ``weights``.

    Args:
        weights: nonnegative numbers, which need not sum to 1.
        num_samples: the number of indices to draw.
        replacement: whether an index may repeat.  Without it, samples are drawn one after the other from the remaining indices
            (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
        generator: the default generator if None.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Generator | None = None
    ) -> None:
        _check_count("WeightedRandomSampler", "num_samples", num_samples)
        _check_flag("WeightedRandomSampler", "replacement", replacement)
        self.weights = _float64(weights)
        if self.weights.ndim != 1:
            raise ArgumentError(f"WeightedRandomSampler: weights of shape {self.weights.shape}; expected one weight for each index")
        if not (numpy.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.any()):
            raise ArgumentError("WeightedRandomSampler: weights are negative, not finite, or all 0; expected probabilities")
        possible = int((self.weights > 0).sum())
        if not replacement and num_samples > possible:
            raise ArgumentError(
                f"WeightedRandomSampler: num_samples={num_samples} without replacement, but {possible} weights are above 0; "
                "pass replacement=True or fewer samples"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def draw_order(self) -> numpy.ndarray:
        count = self.num_samples if self.replacement else len(self.weights)
        uniform = rand(count, dtype="float64", generator=self.generator, device="cpu").numpy()
        if self.replacement:
            ends = numpy.cumsum(self.weights)
            return numpy.searchsorted(ends, uniform * ends[-1], side="right").clip(max=numpy.flatnonzero(self.weights)[-1])
        with numpy.errstate(divide="ignore"):
            arrival = -numpy.log1p(-uniform) / self.weights  # exponential times; 0 / 0 is NaN, which sorts last
        return numpy.argsort(arrival, kind="stable")[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


def _float64(weights: Any) -> numpy.ndarray:
    values = weights.tolist() if isinstance(weights, Tensor) else weights
    return numpy.array([float(w) for w in values] if not isinstance(values, numpy.ndarray) else values, numpy.float64)


class BatchSampler(Sampler):
    """Lists of ``batch_size`` indices of a sampler.

    Args:
        sampler: any iterable of indices.
        batch_size: 1 or more.
        drop_last: leave out a last batch of fewer indices.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        check_batch_size("BatchSampler", batch_size)
        _check_flag("BatchSampler", "drop_last", drop_last)
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        return num_batches(len(self.sampler), self.batch_size, self.drop_last)  # type: ignore[arg-type]


def num_batches(size: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of batches of ``size`` samples."""
    return size // batch_size if drop_last else -(-size // batch_size)


class DistributedSampler(_OrderSampler):
    """The share of one of several processes: every ``num_replicas``-th index of an order that all of them draw.

    ``set_epoch(epoch)`` before each epoch gives it another order.

    Args:
        dataset: its length is what counts.
        num_replicas: the number of processes; by default that of the process group (:mod:`gpunet.distributed`).
        rank: the number of this process, from 0; by default its rank in the group.
        shuffle: random order, the same in all processes.
        seed: of the order, the same in all processes.
        drop_last: leave out samples, so that all shares have the same length; otherwise samples repeat.

    Attributes:
        pads: whether samples repeat or are left out; if False each sample is in one share, and the lengths may differ by 1.

    Raises:
        ArgumentError: an argument is missing or out of range.
    """

    pads = True

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if (num_replicas is None or rank is None) and not is_initialized():
            raise ArgumentError(
                f"DistributedSampler: num_replicas={num_replicas}, rank={rank}, and there is no process group to ask; pass both, "
                "or call distributed.init_process_group() first"
            )
        num_replicas = get_world_size() if num_replicas is None else num_replicas
        rank = get_rank() if rank is None else rank
        check_process("DistributedSampler", num_replicas, rank)
        _check_flag("DistributedSampler", "shuffle", shuffle)
        _check_flag("DistributedSampler", "drop_last", drop_last)
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """The length of the share."""
        if not self.pads:
            return len(range(self.rank, len(self.dataset), self.num_replicas))
        exact = len(self.dataset) / self.num_replicas
        return math.floor(exact) if self.drop_last else math.ceil(exact)

    @property
    def total_size(self) -> int:
        return self.num_samples * self.num_replicas

    def draw_order(self) -> numpy.ndarray:
        size = len(self.dataset)
        order = _permutation(size, Generator(self.seed + self.epoch)) if self.shuffle else numpy.arange(size)
        return (numpy.resize(order, self.total_size) if self.pads else order)[self.rank :: self.num_replicas]

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of ``epoch`` from now on."""
        self.epoch = epoch


# ---- checks of arguments ----------------------------------------------------------------------------------------------


def is_count(value: Any, smallest: int) -> bool:
    """Whether a value is an integer of at least ``smallest``, and no bool."""
    return isinstance(value, (int, numpy.integer)) and not isinstance(value, bool) and int(value) >= smallest


def check_batch_size(function: str, value: Any) -> None:
    if not is_count(value, 1):
        raise ArgumentError(f"{function}: batch_size={value!r}; expected an integer of 1 or more")


def check_process(function: str, num_replicas: Any, rank: int) -> None:
    _check_count(function, "num_replicas", num_replicas)
    if not 0 <= rank < num_replicas:
        raise ArgumentError(f"{function}: rank={rank}; expected 0 .. {num_replicas - 1}")


def _check_count(function: str, name: str, value: Any) -> None:
    if not is_count(value, 1):
        raise ArgumentError(f"{function}: {name}={value!r}; expected an integer of 1 or more")


def _check_flag(function: str, name: str, value: Any) -> None:
    if not isinstance(value, (bool, numpy.bool_)):
        raise ArgumentError(f"{function}: {name}={value!r}; expected True or False")
