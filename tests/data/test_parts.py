"""Parts of batches for several processes: together they are the batches, read once, whatever the loader reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    ShardedArrays,
    TensorDataset,
)
from gpunet.data.parts import Cut, cut_batches, is_divided, num_rows
from gpunet.errors import ArgumentError, ShapeError


class Squares(Dataset):
    def __init__(self, size: int) -> None:
        self.size, self.read = size, []  # type: ignore[var-annotated]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, int]:
        self.read.append(index)
        return index, index**2


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(11))


def cuts(size: int, shards: int) -> list[Cut]:
    count = shards // size
    return [Cut(shards, range(rank * count, (rank + 1) * count)) for rank in range(size)]


def test_bounds() -> None:
    for total in range(1, 40):
        for shards in (1, 2, 3, 4, 8):
            bounds = [bound for cut in cuts(shards, shards) for bound in cut.bounds(total)]
            assert bounds == Cut(shards, range(shards)).bounds(total)
            assert [bounds[0][0], bounds[-1][1]] == [0, total] and all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
            sizes = [end - first for first, end in bounds]
            assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)


def loaders(folder: Path) -> list[Any]:
    x = gpunet.arange(11)
    numpy.save(folder / "x.npy", x.numpy())
    numpy.save(folder / "y.npy", 2 * x.numpy())
    blocks = ShardedArrays(folder, block_size=3)
    shuffled = {"shuffle": True, "generator": gpunet.Generator(4)}
    return [
        lambda: DataLoader(TensorDataset(x, x * 2), 4, **{**shuffled, "generator": gpunet.Generator(4)}),
        lambda: DataLoader(Squares(11), 4, shuffle=True, generator=gpunet.Generator(4)),
        lambda: DataLoader(Squares(11), 4, shuffle=True, generator=gpunet.Generator(4), num_workers=2),
        lambda: DataLoader(Squares(11), batch_sampler=BatchSampler(SequentialSampler(range(11)), 4, False)),
        lambda: DataLoader(Stream(), 4), lambda: DataLoader(Stream(), 4, num_workers=1),
        lambda: [(x[:4], x[:4]), (x[4:], x[4:])],
        lambda: DataLoader(blocks, 4, **{**shuffled, "generator": gpunet.Generator(4)}),
    ]  # fmt: skip


def flat(batch: Any) -> list[Any]:
    return [t.tolist() for t in (batch if isinstance(batch, (list, tuple)) else [batch])]


@pytest.mark.parametrize("kind", range(8))
def test_parts_make_up_the_batches(kind: int, tmp_path: Path) -> None:
    make = loaders(tmp_path)[kind]
    expected = [flat(batch) for batch in make()]
    for size, shards in ((3, 3), (2, 4)):
        everything = [list(cut_batches(make(), cut)) for cut in cuts(size, shards)]
        for number, batch in enumerate(expected):
            parts = [each[number] for each in everything]
            assert {part.total for part in parts} == {len(batch[0])}
            rows = [flat(b) for part in parts for b in part.batches]
            assert [list(itertools.chain(*column)) for column in zip(*rows)] == batch
            shares = [share for part in parts for share in part.shares]
            assert [rows for _, rows in shares if rows] == [len(r[0]) for r in rows]
            assert all(part.is_full == (len(batch[0]) >= shards) for part in parts)
        assert all(len(each) == len(expected) for each in everything)


def test_only_the_own_rows_are_read_and_a_position_is_that_of_all() -> None:
    data = Squares(11)
    loader = DataLoader(data, 4, shuffle=True, generator=gpunet.Generator(4))
    cut = Cut(2, range(1, 2))
    iterator = loader.parts(cut)
    first = next(iterator)
    assert len(data.read) == 2 and first.shares == ((2, 2),)
    other = DataLoader(Squares(11), 4, shuffle=True, generator=gpunet.Generator(4))
    other.load_state_dict(loader.state_dict())
    assert [flat(p.batches[0]) for p in other.parts(Cut(2, range(1, 2)))] == [flat(p.batches[0]) for p in iterator]


def test_batches_that_cannot_be_cut_are_named() -> None:
    with pytest.raises(ShapeError, match=r"a batch has \(3, 1\), \(2,\); expected tensors of one first dimension"):
        num_rows((gpunet.ones(3, 1), gpunet.ones(2)))
    with pytest.raises(ArgumentError, match="in_order=False, but several processes must get parts of the same batches"):
        DataLoader(Squares(3), num_workers=1, in_order=False).parts(Cut(2, range(1)))


def test_a_distributed_sampler_that_does_not_pad_has_each_sample_once() -> None:
    samplers = [DistributedSampler(range(10), 4, rank, shuffle=True) for rank in range(4)]
    assert [len(s) for s in samplers] == [3, 3, 3, 3]
    for sampler in samplers:
        sampler.pads = False
    assert sorted(i for s in samplers for i in s) == [*range(10)] and [len(s) for s in samplers] == [3, 3, 2, 2]
    assert is_divided(DataLoader(range(10), 2, sampler=samplers[0])) and not is_divided(DataLoader(range(10), 2))
