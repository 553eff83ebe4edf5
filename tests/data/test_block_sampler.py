"""BlockShuffleSampler: every row once, few blocks at a time, the same order from any position and for any division of processes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from gpunet.data import BlockShuffleSampler, DataLoader, TensorDataset
from gpunet.data.randomness import Key
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator
from gpunet.ops.creation import arange


def order(size: int, epoch: int = 0, start: int = 0, **options: Any) -> numpy.ndarray:
    options = {"block_size": 10, "window": 4, "seed": 3, **options}
    chunks = BlockShuffleSampler(range(size), **options).chunks(start, epoch)
    return numpy.concatenate([numpy.empty(0, numpy.int64), *chunks])


@pytest.mark.parametrize("window", [1, 2, 4, 40])
@pytest.mark.parametrize("size, block_size", [(1, 10), (10, 10), (95, 10), (100, 1), (237, 16)])
def test_every_row_comes_once(size: int, block_size: int, window: int) -> None:
    found = order(size, block_size=block_size, window=window)
    assert found.dtype == numpy.int64 and sorted(found.tolist()) == [*range(size)]


@pytest.mark.parametrize("window", [1, 4, 9])
def test_a_window_of_blocks_is_enough(window: int) -> None:
    blocks = order(1000, window=window) // 10
    places = [numpy.flatnonzero(blocks == number) for number in range(100)]
    is_open = [sum(place[0] <= at <= place[-1] for place in places) for at in range(1000)]
    assert max(is_open) == window


def test_a_window_of_all_blocks_is_a_random_permutation() -> None:
    """Neighbours are as often of one block, and a row is as often in each half, as in a random permutation."""
    orders = numpy.stack([order(100, epoch, window=10) for epoch in range(100)])
    same = (orders[:, 1:] // 10 == orders[:, :-1] // 10).mean()
    assert abs(same - 9 / 99) < 0.01
    assert abs((orders.argsort(axis=1)[:, 7] < 50).mean() - 0.5) < 0.2


@pytest.mark.parametrize("window", [1, 3])
def test_in_a_smaller_window_a_row_is_still_in_any_place(window: int) -> None:
    places = numpy.stack([order(100, epoch, window=window) for epoch in range(100)]).argsort(axis=1)
    for row in (0, 7, 99):
        assert abs(places[:, row].mean() - 49.5) < 4 * 28.9 / 10
        assert abs((places[:, row] < 25).mean() - 0.25) < 0.2


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert (order(300) == order(300)).all()
    assert (order(300, epoch=1) != order(300)).any()
    assert (order(300, seed=4) != order(300)).any()
    sampler = BlockShuffleSampler(range(300), 10, 4, seed=3)
    assert [*sampler] == order(300).tolist()
    sampler.set_epoch(5)
    assert [*sampler] == order(300, epoch=5).tolist()
    assert order(20, window=2, block_size=4)[:6].tolist() == [16, 19, 17, 18, 3, 0]  # on all machines


@pytest.mark.parametrize("start", [0, 1, 37, 120, 299, 300])
def test_from_any_position(start: int) -> None:
    assert (order(300, start=start) == order(300)[start:]).all()


def parts(size: int, count: int, **options: Any) -> list[list[int]]:
    return [order(size, num_replicas=count, rank=rank, **options).tolist() for rank in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_processes_have_parts_of_one_length(count: int) -> None:
    found = parts(301, count)
    assert {len(part) for part in found} == {-(-301 // count)} == {len(BlockShuffleSampler(range(301), 10, 4, count, 0))}
    assert set(itertools.chain(*found)) == {*range(301)}
    whole = parts(301, count, drop_last=True)
    sampler = BlockShuffleSampler(range(301), 10, 4, count, 0, drop_last=True)
    assert {len(part) for part in whole} == {301 // count} == {len(sampler)}
    assert len({*itertools.chain(*whole)}) == 301 // count * count


def test_a_process_reads_its_own_blocks() -> None:
    found = [{row // 10 for row in part} for part in parts(1000, 4)]
    assert sum(map(len, found)) <= 100 + 4  # each process shares at most two blocks, and one for a row that repeats
    others = [{row // 10 for row in part} for part in parts(1000, 4, epoch=1)]
    assert found[0] != others[0]


def test_the_process_is_that_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_initialized", True), ("get_rank", 2), ("get_world_size", 3)):
        monkeypatch.setattr(f"gpunet.data.block_sampler.{name}", lambda value=value: value)
    assert [*BlockShuffleSampler(range(50), 10, 4)] == [*BlockShuffleSampler(range(50), 10, 4, 3, 2)]
    assert [*BlockShuffleSampler(range(50), 10, 4, rank=0)] == [*BlockShuffleSampler(range(50), 10, 4, 3, 0)]
    assert BlockShuffleSampler(range(50), 10, 4).seed == 0  # whatever seeds the processes have


def test_more_processes_than_rows() -> None:
    assert sorted(part for [part] in parts(2, 3)) in ([0, 0, 1], [0, 1, 1])
    assert parts(2, 3, drop_last=True) == [[], [], []]


# ---- resuming -----------------------------------------------------------------------------------------------------------


def resumed(state: dict[str, Any], taken: int, count: int, size: int, **options: Any) -> list[BlockShuffleSampler]:
    samplers = [BlockShuffleSampler(range(size), 10, 4, count, rank, 3, **options) for rank in range(count)]
    assert all(sampler.load_state_dict(state, 6, taken) for sampler in samplers)
    return samplers


def rows(sampler: BlockShuffleSampler, epoch: int = 6) -> list[int]:
    return [row for chunk in sampler.chunks(epoch=epoch) for row in chunk.tolist()]


@pytest.mark.parametrize("before, after", [(1, 2), (2, 1), (4, 3), (2, 4)])
def test_another_number_of_processes_takes_the_rows_that_are_left(before: int, after: int) -> None:
    size, taken = 240, 23
    first = [BlockShuffleSampler(range(size), 10, 4, before, rank, 3) for rank in range(before)]
    seen = [row for sampler in first for row in rows(sampler)[:taken]]
    samplers = resumed(first[0].state_dict(), taken, after, size)
    left = [rows(sampler) for sampler in samplers]
    assert len({*map(len, left)}) == 1
    assert {*itertools.chain(*left)} == {*range(size)} - {*seen}
    assert sum(map(len, left)) - (size - len(seen)) < after  # as few rows repeat as possible
    assert sorted(itertools.chain(*(rows(sampler, 7)[: size // after] for sampler in samplers))) == [*range(size)]
    # once more, with a third number
    again = [row for part in left for row in part[:10]]
    final = [rows(sampler) for sampler in resumed(samplers[0].state_dict(), 10, 5, size)]
    assert {*itertools.chain(*final)} >= {*range(size)} - {*seen} - {*again}
    assert len({*map(len, final)}) == 1 and sum(map(len, final)) - len({*itertools.chain(*final)}) < 5 + after


def test_the_same_number_of_processes_goes_on() -> None:
    sampler = BlockShuffleSampler(range(100), 10, 4, 2, 1, seed=9)
    state = sampler.state_dict()
    other = BlockShuffleSampler(range(100), 10, 4, 2, 1)
    assert other.load_state_dict(state, 6, 30) is False
    assert rows(other) == rows(sampler)


# ---- with a DataLoader --------------------------------------------------------------------------------------------------


def loader(batch_size: int = 8, **options: Any) -> DataLoader:
    data = TensorDataset(arange(100))
    sampler = BlockShuffleSampler(data, block_size=10, **options)
    return DataLoader(data, batch_size, sampler=sampler, generator=Generator(11))


def values(batches: Any) -> list[list[int]]:
    return [x.tolist() for (x,) in batches]


def joined(batches: list[list[int]]) -> list[int]:
    return [*itertools.chain(*batches)]


def test_each_epoch_of_a_loader_has_another_order() -> None:
    first, second = values(made := loader()), values(made)
    assert first != second and sorted(joined(first)) == sorted(joined(second)) == [*range(100)]
    assert first == values(loader()) and len(made) == len(first) == 13
    assert joined(first) == [*itertools.chain(*BlockShuffleSampler(range(100), 10).chunks(key=Key(11, 0)))]
    assert values(loader(seed=5)) == values(loader(seed=5)) != first


def test_a_loader_resumes() -> None:
    whole = [values(made := loader()), values(made)]
    begun = loader()
    values(begun)
    iterator = iter(begun)
    for _ in range(5):
        next(iterator)
    state = begun.state_dict()
    other = loader()
    other.load_state_dict(state)
    assert values(other) == whole[1][5:] == values(iterator)
    assert values(other) == values(begun)


def test_a_loader_resumes_with_another_number_of_processes() -> None:
    begun = [loader(num_replicas=2, rank=rank) for rank in range(2)]
    iterators = [iter(one) for one in begun]
    seen = [value for iterator in iterators for _ in range(3) for value in next(iterator)[0].tolist()]
    other = loader()
    other.load_state_dict(begun[0].state_dict())
    iterator = iter(other)
    first = next(iterator)[0].tolist()
    again = loader()
    again.load_state_dict(other.state_dict())
    assert values(again) == (rest := values(iterator))
    assert sorted([*seen, *first, *joined(rest)]) == [*range(100)]
    assert sorted(joined(values(other))) == [*range(100)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_loader_resumes_with_another_batch_size(count: int) -> None:
    options = [{"num_replicas": count, "rank": rank, "seed": 4} for rank in range(count)]
    begun = [loader(**one) for one in options]
    iterators = [iter(one) for one in begun]
    seen = [value for iterator in iterators for _ in range(3) for value in next(iterator)[0].tolist()]
    others = [loader(5, **one) for one in options]
    for other in others:
        other.load_state_dict(begun[0].state_dict())
    rest = [joined(values(other)) for other in others]
    assert sorted([*seen, *itertools.chain(*rest)]) == [*range(100)]
    assert count > 1 or rest == [joined(values(iterators[0]))]
    assert [joined(values(other)) for other in others] == [joined(values(one)) for one in begun]


def test_samples_without_batches() -> None:
    data = TensorDataset(arange(30))
    made = DataLoader(data, None, sampler=BlockShuffleSampler(data, 5, 2), generator=Generator(2))
    first, second = [x.item() for (x,) in made], [x.item() for (x,) in made]
    assert first != second and sorted(first) == sorted(second) == [*range(30)]


@pytest.mark.parametrize(
    "options, match",
    [
        ({"block_size": None}, "a range has no blocks of its own; pass block_size="),
        ({"block_size": 0}, "block_size=0"), ({"window": 0}, "window=0"), ({"seed": 1.5}, "seed=1.5"),
        ({"num_replicas": 2}, "num_replicas=2, rank=None"), ({"num_replicas": 2, "rank": 2}, r"rank=2; expected 0 \.\. 1"),
        ({"drop_last": 1}, "drop_last=1"),
    ],
)  # fmt: skip
def test_wrong_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        BlockShuffleSampler(range(10), **{"block_size": 5, **options})
