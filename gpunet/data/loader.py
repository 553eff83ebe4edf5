"""DataLoader: batches of a data set, in an order and with random numbers that depend only on (seed, epoch, index)."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from gpunet.backend.devices import CPU
from gpunet.data.block_sampler import BlockShuffleSampler
from gpunet.data.blocks import BlockDataset, block_rows
from gpunet.data.datasets import IterableDataset, tensor_rows
from gpunet.data.fetch import EXHAUSTED, Recipe, make_fetcher
from gpunet.data.parts import Cut, Parts, cut_rows, parts_of
from gpunet.data.picklable import check_picklable
from gpunet.data.randomness import Key, OwnRandomness
from gpunet.data.read_ahead import read_ahead
from gpunet.data.samplers import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    check_batch_size,
    is_count,
    is_order_sampler,
    num_batches,
)
from gpunet.data.workers import Job, StartEpoch, Task, WorkerPool, raise_failure
from gpunet.errors import ArgumentError, DeviceError, StateDictError
from gpunet.launch.random import Generator, default_generator
from gpunet.launch.tape import graph_break

__all__ = ["DataLoader"]

#: Attributes from which a loader makes its samplers and workers.
_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers", "num_workers")


class DataLoader:
    """Iterate over the batches of a data set, with PyTorch's arguments.

        for x, y in DataLoader(TensorDataset(features, labels), batch_size=64, shuffle=True):
            ...

    The order, and what ``__getitem__`` draws from the global generators of gpunet, NumPy and ``random``, follow from the seed of
    ``generator``, the number of the epoch (iterations begun since the generator was seeded) and the index of the sample alone.
    They do not depend on workers, batch size or prefetching, nor on random numbers drawn meanwhile, whose sequence goes on as if
    the loader had drawn none.  Of a TensorDataset, or a Subset of one, a batch is one gather for each tensor.

    Args:
        dataset: a :class:`Dataset`, any object with ``__getitem__`` and ``__len__``, or an :class:`IterableDataset`.
        batch_size: samples in a batch; None yields samples instead of batches.
        shuffle: a new random order in each epoch; of a :class:`BlockDataset` that of a :class:`BlockShuffleSampler`.
        sampler: the order: an iterable of indices; not with ``shuffle``.
        batch_sampler: an iterable of lists of indices, instead of batch_size, shuffle, sampler and drop_last.
        num_workers: processes that read samples; 0 reads them in the main process.  Workers make tensors on the CPU.
        collate_fn: joins a list of samples; :func:`default_collate` by default, :func:`default_convert` without batches.
        pin_memory, pin_memory_device: have no effect on values; copies to a GPU use pinned memory where they need it.
        drop_last: leave out a last batch of fewer samples.
        timeout: seconds to wait for a batch of the workers; 0 waits as long as they live.
        worker_init_fn: called with the number of the worker, in each worker, before its first sample.
        multiprocessing_context: "fork", "spawn", "forkserver" or a context of multiprocessing; Python's default if None.
        generator: its seed is that of the order and the samples; the default generator's if None.
        prefetch_factor: batches that each worker makes ahead; 2 by default.
        persistent_workers: keep the workers from one epoch to the next.
        in_order: yield batches in order; False yields those of workers as they come.

    Raises:
        ArgumentError: an argument is out of range or excludes another, or workers cannot pickle what they need.
        DeviceError: workers would read tensors on a GPU.
        WorkerError: (while iterating) a worker raised an exception, died, or exceeded ``timeout``.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        is_iterable = isinstance(dataset, IterableDataset)
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        _check_order(is_iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        for name, function in (("collate_fn", collate_fn), ("worker_init_fn", worker_init_fn)):
            if function is not None and not callable(function):
                raise ArgumentError(f"DataLoader: {name}={function!r}; expected a function or None")
        if generator is not None and not isinstance(generator, Generator):
            raise ArgumentError(f"DataLoader: generator={generator!r}; expected a gpunet.Generator or None")
        self.dataset = dataset
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.drop_last = drop_last
        self.sampler = sampler
        if batch_sampler is not None:
            self.batch_size = None
        else:
            self.batch_size = batch_size
            if sampler is None and not is_iterable:
                self.sampler = _default_sampler(dataset, bool(shuffle))
            if batch_size is not None and not is_iterable:
                batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)  # type: ignore[arg-type]
        self.batch_sampler = batch_sampler
        self.multiprocessing_context = _context(multiprocessing_context)
        if (in_blocks := block_rows(dataset)) is not None and (order := _block_sampler(self)) is not None:
            in_blocks[0].keep_blocks(order.blocks_needed(in_blocks[0]))
        self._recipe = Recipe(dataset, collate_fn, batch_size is not None, batch_size, drop_last)
        if num_workers:
            self._check_job()
        self._source = default_generator if generator is None else generator
        self._num_seedings = self._source.num_seedings
        self._key = Key(self._source.initial_seed(), self._source.next_substream())
        self._epoch = 0  # the number of the next iteration
        self._num_skipped = 0  # batches of it that load_state_dict() passes over
        self._current: _Position | None = None  # of the last iteration
        self._pool: WorkerPool | None = None
        self._is_made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and getattr(self, "_is_made", False):
            raise ArgumentError(f"DataLoader: {name} cannot be changed; make another DataLoader")
        super().__setattr__(name, value)

    def _check_job(self) -> None:
        method = self.multiprocessing_context.get_start_method()
        if method != "fork":
            arguments = {"dataset": self.dataset, "collate_fn": self.collate_fn, "worker_init_fn": self.worker_init_fn}
            check_picklable("DataLoader", method, **arguments)
        found = tensor_rows(self.dataset)
        for tensor in found[0] if found is not None else ():
            if tensor.device.type == "cuda":
                raise DeviceError(
                    f"DataLoader: num_workers={self.num_workers}, but the tensors of the data set are on {tensor.device}, which "
                    "other processes cannot read; pass num_workers=0, which makes each batch there by one gather"
                )

    def __len__(self) -> int:
        """The number of batches of an epoch; of an IterableDataset, as far as its own length says it."""
        if isinstance(self.dataset, IterableDataset):
            size = len(self.dataset)  # type: ignore[arg-type]
            return size if self.batch_size is None else num_batches(size, self.batch_size, self.drop_last)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(None)

    def parts(self, cut: Cut) -> Iterator[Any]:
        """Iterate over the batches, of which only the own shards are read: yield a :class:`gpunet.data.parts.Parts` for each.

        Raises:
            ArgumentError: workers yield batches as they come (``in_order=False``).
        """
        if self.num_workers and not self.in_order:
            raise ArgumentError("DataLoader: in_order=False, but several processes must get parts of the same batches; remove it")
        return self._iterate(cut)

    def _iterate(self, cut: Cut | None) -> Iterator[Any]:
        if self._source.num_seedings != self._num_seedings:
            self._num_seedings = self._source.num_seedings
            self._key = self._key._replace(seed=self._source.initial_seed())
            self._epoch = self._num_skipped = 0
        self._current = _Position(self._epoch, self._num_skipped, self._sampler_state())
        self._epoch, self._num_skipped = self._epoch + 1, 0
        return _Iteration(self, self._key, self._current, cut)

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the seed, the epoch, and the number of batches that the last iteration has yielded.

        Raises:
            ArgumentError: the batches come in no fixed order (``in_order=False``).
        """
        if self.num_workers and not self.in_order:
            raise ArgumentError("DataLoader.state_dict: in_order=False, so the batches yielded so far do not tell which come next")
        current = self._current
        epoch, count, sampler = self._epoch, self._num_skipped, self._sampler_state()
        if current is not None and not current.is_finished:
            epoch, count, sampler = current.epoch, current.num_yielded, current.sampler_state
        return {"seed": self._key.seed, "substream": self._key.substream, "epoch": epoch, "batches": count, "sampler": sampler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a position: the next iteration yields the batches that the saved one had still to yield.

        Samples by index are passed over without reading them; an IterableDataset is read up to the position.

        Raises:
            StateDictError: the state is not one of a DataLoader with samplers of the same kind.
        """
        expected = {"seed", "substream", "epoch", "batches", "sampler"}
        if not isinstance(state_dict, dict) or state_dict.keys() != expected:
            raise StateDictError(f"DataLoader.load_state_dict: expected a dict of {sorted(expected)}, as state_dict() returns it")
        found = self._sampler_state()
        if [item[0] for item in state_dict["sampler"]] != [item[0] for item in found]:
            raise StateDictError(
                f"DataLoader.load_state_dict: the state has {[item[0] for item in state_dict['sampler']]} of its samplers, this "
                f"loader {[item[0] for item in found]}; make it with the same samplers"
            )
        self._key = Key(int(state_dict["seed"]), int(state_dict["substream"]))
        self._num_seedings = self._source.num_seedings
        self._epoch, self._num_skipped = int(state_dict["epoch"]), int(state_dict["batches"])
        self._current = None
        for (kind, sampler), (_, *value) in zip(self._stateful_samplers(), state_dict["sampler"]):
            if kind == "generator":
                sampler.generator.set_position(*value)
            elif kind == "blocks":
                state, batch_size = value
                is_other_size = batch_size != getattr(self.batch_sampler, "batch_size", 1)
                if sampler.load_state_dict(state, self._epoch, self._num_skipped * batch_size, is_other_size):
                    self._num_skipped = 0
            else:
                sampler.set_epoch(*value)

    def _stateful_samplers(self) -> list[tuple[str, Any]]:
        """The samplers with state of their own: a generator of theirs, or an epoch that the user sets."""
        samplers = [self.batch_sampler, getattr(self.batch_sampler, "sampler", None), self.sampler]
        found: list[tuple[str, Any]] = []
        for sampler in dict.fromkeys(s for s in samplers if s is not None and type(s).__hash__ is not None):
            if isinstance(sampler, BlockShuffleSampler):
                found.append(("blocks", sampler))
            elif isinstance(getattr(sampler, "generator", None), Generator):
                found.append(("generator", sampler))
            elif callable(getattr(sampler, "set_epoch", None)) and isinstance(getattr(sampler, "epoch", None), int):
                found.append(("epoch", sampler))
        return found

    def _sampler_state(self) -> list[list[Any]]:
        states: list[list[Any]] = []
        for kind, sampler in self._stateful_samplers():
            if kind == "blocks":
                states.append([kind, sampler.state_dict(), getattr(self.batch_sampler, "batch_size", 1)])
            else:
                states.append([kind, *sampler.generator.position()] if kind == "generator" else [kind, sampler.epoch])
        return states

    def _workers(self, key: Key) -> WorkerPool:
        """The workers of an iteration: new ones, or those of the last one."""
        if self._pool is not None and self._pool.is_open:
            return self._pool
        job = Job(self._recipe, self.num_workers, key, self.worker_init_fn)
        pool = WorkerPool(job, self.multiprocessing_context, self.timeout)
        if self.persistent_workers:
            self._pool = pool
        return pool


@dataclass
class _Position:
    """Where an iteration is.  It outlives the iteration, which a loader does not refer to: its workers end with it."""

    epoch: int
    num_yielded: int
    sampler_state: list[list[Any]]  # at the start of the epoch
    is_finished: bool = False


class _Iteration:
    """One pass over the batches."""

    def __init__(self, loader: DataLoader, key: Key, position: _Position, cut: Cut | None) -> None:
        self._position = position
        self._loader = loader
        epoch, num_skipped = position.epoch, position.num_yielded
        cut_by_index = cut if loader.batch_sampler is not None else None
        if loader.num_workers:
            if cut_by_index is not None:
                self._batches: Iterator[Any] = _parts_from_workers(loader, key, epoch, num_skipped, cut_by_index)
            else:
                self._batches = _from_workers(loader, key, epoch, num_skipped)
            next(self._batches)  # start the workers, which then read while the caller does something else
        elif isinstance(loader.dataset, IterableDataset):
            self._batches = _in_a_row(loader, key, epoch, num_skipped)
        elif cut_by_index is not None:
            self._batches = _parts_by_index(loader, key, epoch, num_skipped, cut_by_index)
        else:
            self._batches = _by_index(loader, key, epoch, num_skipped)
        if cut is not None and cut_by_index is None:
            self._batches = map(functools.partial(cut_rows, cut=cut), self._batches)

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> Any:
        graph_break("reading a batch from a DataLoader", "read it outside of the step, and pass it to the step")
        try:
            batch = next(self._batches)
        except StopIteration:
            self._position.is_finished = True
            raise
        self._position.num_yielded += 1
        return batch

    def __len__(self) -> int:
        return len(self._loader)


def _by_index(loader: DataLoader, key: Key, epoch: int, num_skipped: int) -> Iterator[Any]:
    """The batches of a data set that is read by index, in this process."""
    fetcher = make_fetcher(loader._recipe, None)
    fetcher.start(key, epoch)
    if fetcher.gathers and _has_order(loader):
        order, size = _draw_order(loader, key, epoch)
        return fetcher.batches(order[num_skipped * size :], size)
    indices = _indices(loader, key, epoch, num_skipped)
    if fetcher.reads_blocks:
        return itertools.starmap(fetcher.batch_of, read_ahead(fetcher.read, indices))
    return map(fetcher.fetch, indices)


def _parts_by_index(loader: DataLoader, key: Key, epoch: int, num_skipped: int, cut: Cut) -> Iterator[Parts]:
    """The own shards of the batches of a data set that is read by index, in this process."""
    fetcher = make_fetcher(loader._recipe, None)
    fetcher.start(key, epoch)
    fetch = fetcher.read if fetcher.reads_blocks else fetcher.fetch

    def read(index: list[int]) -> Parts:
        return parts_of(len(index), cut, lambda first, end: fetch(index[first:end]))

    indices = _indices(loader, key, epoch, num_skipped)
    if fetcher.reads_blocks:
        for parts in read_ahead(read, indices):
            yield parts._replace(batches=[fetcher.batch_of(*batch) for batch in parts.batches])
    else:
        yield from map(read, indices)


def _parts_from_workers(loader: DataLoader, key: Key, epoch: int, num_skipped: int, cut: Cut) -> Iterator[Any]:
    """The own shards of the batches, each a task of the workers; the first item is None, and means that they have been started."""
    batches, tasks = itertools.tee(_indices(loader, key, epoch, num_skipped))
    shards = (index[first:end] for index in tasks for first, end in cut.bounds(len(index)) if end > first)
    read = _from_workers(loader, key, epoch, num_skipped, shards)
    try:
        yield next(read)
        for index in batches:
            yield parts_of(len(index), cut, lambda first, end: next(read))
    finally:
        read.close()  # type: ignore[attr-defined]


def _in_a_row(loader: DataLoader, key: Key, epoch: int, num_skipped: int) -> Iterator[Any]:
    """The batches of an iterable data set, in this process."""
    fetcher = make_fetcher(loader._recipe, None)
    fetcher.start(key, epoch)
    for _ in range(num_skipped):
        fetcher.fetch(is_discarded=True)
    while (batch := fetcher.fetch()) is not EXHAUSTED:
        yield batch


def _has_order(loader: DataLoader) -> bool:
    """Whether the indices of all batches can be drawn at once; samplers of users are iterated over."""
    sampler = loader.batch_sampler
    return type(sampler) is BatchSampler and is_order_sampler(sampler.sampler)


def _block_sampler(loader: DataLoader) -> BlockShuffleSampler | None:
    """The BlockShuffleSampler whose indices are the batches of a loader, or the samples without batches."""
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    if type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return sampler if getattr(type(sampler), "__iter__", None) is BlockShuffleSampler.__iter__ else None


def _draw_order(loader: DataLoader, key: Key, epoch: int) -> tuple[numpy.ndarray, int]:
    """The indices of all batches, and how many a batch has."""
    sampler: Any = loader.batch_sampler
    with OwnRandomness(key.digest("order", epoch)):
        order = sampler.sampler.draw_order()
    size = sampler.batch_size
    return order[: len(order) // size * size] if sampler.drop_last else order, size


def _indices(loader: DataLoader, key: Key, epoch: int, num_skipped: int) -> Iterator[Any]:
    """The list or array of indices of each batch; without batches, the indices."""
    if _has_order(loader):
        order, size = _draw_order(loader, key, epoch)
        yield from (order[start : start + size] for start in range(num_skipped * size, len(order), size))
        return
    if (in_blocks := _block_sampler(loader)) is not None:
        batches: Any = loader.batch_sampler
        if batches is None:
            for chunk in in_blocks.chunks(num_skipped, epoch, key):
                yield from chunk.tolist()
        else:
            yield from in_blocks.batches(batches.batch_size, batches.drop_last, num_skipped, epoch, key)
        return
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    own = OwnRandomness(key.digest("order", epoch))
    with own, CPU:
        iterator = itertools.islice(iter(sampler), num_skipped, None)  # type: ignore[arg-type]
    while True:
        with own, CPU:
            index = next(iterator, _END)
        if index is _END:
            return
        yield index


_END = object()
_iterations = itertools.count()


def _from_workers(
    loader: DataLoader, key: Key, epoch: int, num_skipped: int, indices: Iterator[Any] | None = None
) -> Iterator[Any]:
    """The batches that workers make, of these indices or all; the first item is None, and means that they have been started."""
    pool, iteration, is_iterable = loader._workers(key), next(_iterations), isinstance(loader.dataset, IterableDataset)
    remaining: Iterator[Task]
    if is_iterable:
        remaining = (Task(iteration, number, is_discarded=number < num_skipped) for number in itertools.count())
    else:
        batches = _indices(loader, key, epoch, num_skipped) if indices is None else indices
        remaining = (Task(iteration, number, index) for number, index in enumerate(batches))
    active = list(range(loader.num_workers))  # workers that have samples; an exhausted one leaves
    turn = itertools.cycle(range(loader.num_workers))
    pending: dict[int, int] = {}  # the number of a task -> the worker that has it, in the order of the tasks
    num_discarded = num_skipped if is_iterable else 0  # batches of them still to come

    def assign() -> None:
        worker = next((w for w in itertools.islice(turn, loader.num_workers) if w in active), None)
        task = None if worker is None else next(remaining, None)
        if task is not None and worker is not None:
            pending[task.number] = worker
            pool.send(worker, task)

    try:
        for worker in active:
            pool.send(worker, StartEpoch(key, epoch))
        for _ in range(loader.num_workers * (loader.prefetch_factor or 1)):
            assign()
        yield None
        while pending:
            wanted = next(iter(pending))
            numbers = [pending[wanted]] if loader.in_order else sorted(set(pending.values()))
            result = pool.receive(numbers)
            if result.task.iteration != iteration:
                continue  # of an iteration that was given up, with persistent workers
            worker = pending.pop(result.task.number)
            if result.failure is not None:
                raise_failure(result.failure, worker)
            if result.is_exhausted:
                if worker in active:
                    active.remove(worker)
                assign()
                continue
            assign()
            if num_discarded:
                num_discarded -= 1
                continue
            yield result.batch
    finally:
        if not loader.persistent_workers:
            pool.close()


def _default_sampler(dataset: Any, shuffle: bool) -> Any:
    if not shuffle:
        return SequentialSampler(dataset)
    if isinstance(dataset, BlockDataset):
        return BlockShuffleSampler(dataset, num_replicas=1, rank=0)  # all rows, as of other data sets
    return RandomSampler(dataset)


# ---- checks of arguments ----------------------------------------------------------------------------------------------


def _check_workers(num_workers: Any, timeout: Any, prefetch_factor: Any, persistent_workers: Any, context: Any) -> None:
    if not is_count(num_workers, 0):
        raise ArgumentError(f"DataLoader: num_workers={num_workers!r}; expected an integer of 0 or more")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < math.inf:
        raise ArgumentError(f"DataLoader: timeout={timeout!r}; expected seconds, or 0 for no limit")
    if prefetch_factor is not None and not is_count(prefetch_factor, 1):
        raise ArgumentError(f"DataLoader: prefetch_factor={prefetch_factor!r}; expected an integer of 1 or more, or None")
    if num_workers == 0:
        given = {"timeout": timeout, "prefetch_factor": prefetch_factor, "persistent_workers": persistent_workers}
        for name, value in {**given, "multiprocessing_context": context}.items():
            if value:
                raise ArgumentError(f"DataLoader: {name}={value!r} is about workers, and num_workers=0; remove it or use workers")


def _check_order(is_iterable: bool, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: Any) -> None:
    if batch_size is not None:
        check_batch_size("DataLoader", batch_size)
    if is_iterable:
        for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if value is not None:
                raise ArgumentError(f"DataLoader: {name}={value!r}, but an IterableDataset has its own order; shuffle in __iter__")
    if sampler is not None and shuffle:
        raise ArgumentError("DataLoader: sampler and shuffle=True; expected one of them")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ArgumentError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last; remove them")
    if batch_size is None and drop_last:
        raise ArgumentError("DataLoader: batch_size=None yields samples, and drop_last=True drops a batch; remove one of them")


def _context(value: Any) -> Any:
    if value is None or isinstance(value, str):
        try:
            return multiprocessing.get_context(value)
        except ValueError:
            methods = ", ".join(multiprocessing.get_all_start_methods())
            raise ArgumentError(f"DataLoader: multiprocessing_context={value!r}; expected {methods}") from None
    if not hasattr(value, "get_start_method"):
        raise ArgumentError(f"DataLoader: multiprocessing_context={value!r}; expected a context of multiprocessing, or its name")
    return value
