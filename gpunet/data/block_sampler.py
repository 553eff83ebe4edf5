"""BlockShuffleSampler: a random order of rows in blocks that reads each block once, and needs few blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy

from gpunet.data.blocks import BlockDataset
from gpunet.data.randomness import Key
from gpunet.data.samplers import Sampler, _check_count, _check_flag, check_process
from gpunet.distributed.process_group import get_rank, get_world_size, is_initialized
from gpunet.errors import ArgumentError
from gpunet.launch.random import default_generator

__all__ = ["BlockShuffleSampler"]


class _Piece(NamedTuple):
    """Positions start .. stop - 1 in the order of one of several processes."""

    num_replicas: int
    rank: int
    start: int
    stop: int


class BlockShuffleSampler(Sampler):
    """A random order of the rows of a data set that is read in blocks of consecutive rows.

    The blocks come in random order.  Each deals its rows, in random order, to ``window`` consecutive steps, and a step yields the
    rows that it got from ``window`` blocks, in random order.  So the rows of a block are spread over a window of blocks, which is
    all that memory has to hold, and each block is read once.  If the window has all blocks, it is a random permutation.

    Of several processes each has a part of the blocks, other ones in each epoch.  A DataLoader says which epoch it is, unless
    ``set_epoch`` has been called.  It resumes in the middle of an epoch, also with another number of processes or another batch
    size: the rows that are left are divided among the processes.

    Args:
        data_source: a :class:`BlockDataset`, or any data set with a length, which needs ``block_size``.
        block_size: rows of a block; by default the blocks are those of the data set.
        window: blocks among which rows are mixed; by default as the data set says, else 16.
        num_replicas: the number of processes; by default that of the process group, or 1 without one.
        rank: the number of this process, from 0; by default its rank in the group.
        seed: of the order, the same in all processes; None is that of the DataLoader if there is one process, else 0.
        drop_last: with several processes: leave out rows, so that all parts have the same length; otherwise a row repeats.

    Raises:
        ArgumentError: an argument is missing or out of range.
    """

    def __init__(
        self, data_source: Sized, block_size: int | None = None, window: int | None = None, num_replicas: int | None = None,
        rank: int | None = None, seed: int | None = None, drop_last: bool = False,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if (num_replicas is None) != (rank is None) and not is_initialized():
            raise ArgumentError(f"{name}: num_replicas={num_replicas}, rank={rank}, without a process group; pass both or neither")
        if num_replicas is None:
            num_replicas = get_world_size() if is_initialized() else 1
        if rank is None:
            rank = get_rank() if is_initialized() else 0
        check_process(name, num_replicas, rank)
        self.num_replicas, self.rank = num_replicas, rank
        for argument, value in (("block_size", block_size), ("window", window)):
            if value is not None:
                _check_count(name, argument, value)
        _check_flag(name, "drop_last", drop_last)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ArgumentError(f"{name}: seed={seed!r}; expected an integer or None")
        if block_size is None and not isinstance(data_source, BlockDataset):
            raise ArgumentError(
                f"{name}: a {type(data_source).__name__} has no blocks of its own; pass block_size=, the rows of a block"
            )
        self.data_source, self.block_size, self.drop_last = data_source, block_size, drop_last
        self.window = int(getattr(data_source, "window", 16)) if window is None else window
        self.seed = 0 if seed is None and self.num_replicas > 1 else seed
        self.epoch: int | None = None
        self._resumed: tuple[int, int | None, list[list[int]]] | None = None  # the epoch, its seed, and see _shares

    def __len__(self) -> int:
        """The rows of this process in an epoch."""
        size = len(self.data_source)
        return size // self.num_replicas if self.drop_last else -(-size // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        for chunk in self.chunks():
            yield from chunk.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of ``epoch`` from now on, whatever a DataLoader says."""
        self.epoch = epoch

    def chunks(self, start: int = 0, epoch: int = 0, key: Key | None = None) -> Iterator[numpy.ndarray]:
        """Yield the indices from position ``start`` on, int64 (n,), some at a time.

        Args:
            start: how many to leave out; nothing of them is drawn.
            epoch: the number of the epoch, without ``set_epoch``.
            key: of a DataLoader, for ``seed=None``.
        """
        epoch = epoch if self.epoch is None else self.epoch
        seed = self.seed
        history: list[list[int]] = []
        if self._resumed is not None and self._resumed[0] == epoch:
            _, seed, history = self._resumed
        if seed is not None or key is None:
            key = Key(default_generator.initial_seed() if seed is None else seed, 0)
        starts = self._block_starts()
        shares = _shares(int(starts[-1]), [*history, [self.num_replicas, 0]], self.drop_last)
        share, longest = shares[self.rank], max(map(_length, shares))
        if _length(share) < longest:
            share = share + next(first for part in (share, *shares) if (first := _cut(part, 0, 1)))
        for piece in _cut(share, start, longest):
            order = _Order(starts, self.window, key, epoch, piece.num_replicas, piece.rank)
            yield from order.chunks(piece.start, piece.stop)

    def batches(self, batch_size: int, drop_last: bool, num_skipped: int, epoch: int, key: Key) -> Iterator[numpy.ndarray]:
        """Yield the indices cut into batches; see :meth:`chunks`."""
        rest = numpy.empty(0, numpy.int64)
        for chunk in self.chunks(num_skipped * batch_size, epoch, key):
            rest = numpy.concatenate([rest, chunk])
            end = len(rest) // batch_size * batch_size
            yield from (rest[i : i + batch_size] for i in range(0, end, batch_size))
            rest = rest[end:]
        if len(rest) and not drop_last:
            yield rest

    def blocks_needed(self, dataset: BlockDataset) -> int:
        """How many blocks of a data set this order needs in memory: those of the window, and of a batch of up to two blocks."""
        starts, blocks = self._block_starts(), dataset.block_starts
        if starts[-1] == blocks[-1]:
            touched = numpy.searchsorted(blocks, starts[1:]) - numpy.searchsorted(blocks, starts[:-1], side="right") + 1
            return (self.window + 2) * int(touched.max())
        longest, usual = numpy.diff(starts).max(), len(dataset) / (len(blocks) - 1)
        return (self.window + 2) * (int(longest / usual) + 2)  # of a subset

    def _block_starts(self) -> numpy.ndarray:
        if isinstance(self.data_source, BlockDataset) and self.block_size is None:
            return self.data_source.block_starts
        size = len(self.data_source)
        return numpy.append(numpy.arange(0, size, self.block_size), size)

    # -- resuming
    def state_dict(self) -> dict[str, Any]:
        """Return what decides the order."""
        resumed = None if self._resumed is None else [self._resumed[0], self._resumed[1], [*self._resumed[2]]]
        return {"num_replicas": self.num_replicas, "seed": self.seed, "epoch": self.epoch, "resumed": resumed}

    def load_state_dict(self, state: dict[str, Any], epoch: int, num_taken: int, is_other_size: bool = False) -> bool:
        """Continue the order of a :meth:`state_dict`; return whether that of this epoch begins with the rows that are left.

        That is so if the number of processes or the size of batches is another one; else the order is that of the saved sampler.

        Args:
            state: of :meth:`state_dict`.
            epoch: the number of the epoch in the DataLoader.
            num_taken: rows that each of the processes has taken in this epoch.
            is_other_size: whether batches have another size.
        """
        self.epoch = state["epoch"]
        epoch = epoch if self.epoch is None else self.epoch
        resumed = None if state["resumed"] is None else (*state["resumed"][:2], [*state["resumed"][2]])
        seed, history = (state["seed"], []) if resumed is None or resumed[0] != epoch else resumed[1:]
        is_other_count = state["num_replicas"] != self.num_replicas
        begins_anew = bool(num_taken) and (is_other_count or is_other_size)
        if begins_anew:
            resumed = epoch, seed, [*history, [state["num_replicas"], num_taken]]
        if not is_other_count:
            self.seed = state["seed"]
        self._resumed = resumed
        return begins_anew


# ---- parts of processes -------------------------------------------------------------------------------------------------


def _end(size: int, count: int, rank: int) -> int:
    """Where the part of a process starts, and that of the one before it ends."""
    return size * rank // count


def _length(share: Sequence[_Piece]) -> int:
    return sum(piece.stop - piece.start for piece in share)


def _cut(share: Sequence[_Piece], low: int, high: int) -> list[_Piece]:
    """Positions low .. high - 1 of pieces behind each other."""
    found, at = [], 0
    for piece in share:
        size = piece.stop - piece.start
        first, last = max(low - at, 0), min(high - at, size)
        if first < last:
            found.append(piece._replace(start=piece.start + first, stop=piece.start + last))
        at += size
    return found


def _shares(size: int, history: Sequence[Sequence[int]], drop_last: bool) -> list[list[_Piece]]:
    """What each process reads in the rest of an epoch.

    Args:
        size: rows of the data set.
        history: of the epoch so far: each number of processes, and how many rows each of them has taken.
        drop_last: whether all shares have the length of the shortest.
    """
    shares: list[list[_Piece]] = []
    for step, (count, _) in enumerate(history):
        if step:
            taken = history[step - 1][1]
            left = [piece for share in shares for piece in _cut(share, taken, size)]
            total = _length(left)
            shares = [_cut(left, _end(total, count, rank), _end(total, count, rank + 1)) for rank in range(count)]
        else:
            total = size
            lengths = (_end(size, count, rank + 1) - _end(size, count, rank) for rank in range(count))
            shares = [[_Piece(count, rank, 0, length)] for rank, length in enumerate(lengths)]
        if drop_last:
            shares = [_cut(share, 0, total // count) for share in shares]
    return shares


# ---- the order of a process ---------------------------------------------------------------------------------------------


class _Order:
    """The order of the rows of one of several processes: steps, each of which takes rows of a window of blocks.

    Args:
        starts: the first row of each block, and the number of rows.
        window: blocks among which rows are mixed.
        key, epoch: the origin of the random numbers.
        num_replicas, rank: the process.
    """

    def __init__(self, starts: numpy.ndarray, window: int, key: Key, epoch: int, num_replicas: int, rank: int) -> None:
        self._key, self._path = key, (epoch, num_replicas, rank)
        order = _drawn_order(len(starts) - 1, key.seed_of("blocks", epoch))
        sizes = (starts[1:] - starts[:-1])[order]
        before = numpy.cumsum(sizes) - sizes  # rows in earlier blocks
        size = int(starts[-1])
        first = numpy.maximum(_end(size, num_replicas, rank) - before, 0)
        last = numpy.minimum(_end(size, num_replicas, rank + 1) - before, sizes)
        is_read = first < last
        self._sizes = (last - first)[is_read]
        self._blocks = [*zip((starts[:-1][order] + first)[is_read].tolist(), self._sizes.tolist())]  # first row, rows
        self._window = min(window, max(len(self._sizes), 1))
        self._rows: dict[int, numpy.ndarray] = {}  # of the blocks of the window, in random order

    def _step_sizes(self) -> numpy.ndarray:
        window, sizes = self._window, self._sizes
        numbers, steps = numpy.arange(len(sizes)), numpy.zeros(max(len(sizes) - window + 1, 0), numpy.int64)
        for deal in range(window):
            step = numpy.clip(numbers + deal, window - 1, len(sizes) - 1) - (window - 1)
            numpy.add.at(steps, step, sizes * (deal + 1) // window - sizes * deal // window)
        return steps

    def chunks(self, start: int, stop: int) -> Iterator[numpy.ndarray]:
        """Yield the indices at positions start .. stop - 1, a step at a time."""
        ends = numpy.cumsum(self._step_sizes())
        step = int(numpy.searchsorted(ends, start, side="right"))
        while start < stop:
            rows = self._step(step)
            at = int(ends[step]) - len(rows)
            yield rows[start - at : stop - at]
            start, step = int(ends[step]), step + 1

    def _step(self, step: int) -> numpy.ndarray:
        """The rows of a step; the first and the last one have what would belong to steps before and behind them."""
        window, last = self._window, step + self._window - 1  # the last block
        is_first, is_final = step == 0, last == len(self._blocks) - 1
        parts = []
        for block in range(step, last + 1):
            first, size = self._blocks[block]
            if (rows := self._rows.get(block)) is None:
                rows = self._rows[block] = first + _drawn_order(size, self._key.seed_of("rows", *self._path, block))
            low = 0 if is_first else size * (last - block) // window
            parts.append(rows[low : size if is_final else size * (last - block + 1) // window])
        self._rows.pop(step, None)
        dealt = numpy.concatenate(parts)
        return dealt[_drawn_order(len(dealt), self._key.seed_of("step", *self._path, step))]


def _drawn_order(size: int, seed: int) -> numpy.ndarray:
    """A permutation of 0 .. size - 1, int64, from the raw numbers of NumPy's Philox, which are the same in all its versions."""
    return numpy.random.Philox(key=seed).random_raw(size).argsort(kind="stable")
