"""Data sets in blocks: batches, blocks in memory, threads that read ahead, held-out rows, workers, training with checkpoints."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.data import BlockDataset, BlockShuffleSampler, DataLoader, RandomSampler, Subset
from gpunet.data.blocks import Field
from gpunet.errors import ArgumentError, DataError, OutOfRangeError, ShapeError
from gpunet.launch.random import Generator
from gpunet.train.callbacks import Callback


class Counted(BlockDataset):
    """Row i is (i, 2 i) and i, in blocks of 8 rows and, at the end, of fewer; counts how often each block is read."""

    def __init__(self, size: int, block_size: int = 8) -> None:
        blocks = [(number, 0, min(block_size, size - start)) for number, start in enumerate(range(0, size, block_size))]
        super().__init__([Field((2,), numpy.dtype("float32")), Field((), numpy.dtype("int64"))], numpy.array(blocks))
        self.block_size = block_size
        self.reads: Counter[int] = Counter()
        self.threads: set[str] = set()
        self.broken: int | None = None

    def fill(self, arrays: list[numpy.ndarray], source: int, start: int, stop: int) -> None:
        if source == self.broken:
            raise DataError(f"block {source} is damaged")
        self.reads[source] += 1
        self.threads.add(threading.current_thread().name)
        rows = source * self.block_size + numpy.arange(start, stop)
        arrays[0][...] = numpy.stack([rows, 2 * rows], 1)
        arrays[1][...] = rows


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


def rows(loader: Any) -> list[int]:
    found = []
    for x, y in loader:
        assert (x.numpy() == numpy.stack([y.numpy(), 2 * y.numpy()], 1)).all() and x.dtype == gpunet.float32
        found += y.tolist()
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 8, 30, 300])
def test_each_block_is_read_once_in_an_epoch(batch_size: int) -> None:
    data = Counted(203)
    loader = DataLoader(data, batch_size, sampler=BlockShuffleSampler(data, window=3))
    for epoch in (1, 2):
        assert sorted(rows(loader)) == [*range(203)]
        assert {*data.reads.values()} == {epoch} or batch_size > 24  # than the window
    assert data._buffers is not None and len(data._buffers[0]) == 5 * 8  # the window, and two blocks


def test_no_more_blocks_are_kept_than_there_are() -> None:
    data = Counted(20)
    assert sorted(rows(DataLoader(data, 5, shuffle=True))) == [*range(20)]
    assert data.num_kept == 3 and {*data.reads.values()} == {1}


@pytest.mark.parametrize("batch_size", [3, 8, 20])
def test_in_a_row_each_block_is_read_once(batch_size: int) -> None:
    data = Counted(203)
    assert rows(DataLoader(data, batch_size)) == [*range(203)]
    assert batch_size > 8 or {*data.reads.values()} == {1}


def test_a_sampler_without_blocks_has_the_right_rows() -> None:
    data = Counted(203)
    assert sorted(rows(DataLoader(data, 20, sampler=RandomSampler(data)))) == [*range(203)]
    assert rows(DataLoader(data, 4, sampler=[-1, 5, 5, 200, 0])) == [202, 5, 5, 200, 0]


def test_shuffle_takes_the_sampler_of_blocks() -> None:
    data = Counted(100)
    loader = DataLoader(data, 10, shuffle=True, generator=Generator(4))
    assert isinstance(loader.sampler, BlockShuffleSampler)
    first, second = rows(loader), rows(loader)
    assert first != second and sorted(first) == sorted(second) == [*range(100)]
    assert first == rows(DataLoader(Counted(100), 25, shuffle=True, generator=Generator(4)))
    assert first != rows(DataLoader(Counted(100), 10, shuffle=True, generator=Generator(5)))


def test_a_sampler_of_another_data_set_and_of_a_subset() -> None:
    data = Counted(203)
    halves = data.with_transform(lambda x, y: (x, y))
    assert sorted(rows(DataLoader(halves, 5, sampler=BlockShuffleSampler(data, window=6)))) == [*range(203)]
    assert {*halves.reads.values()} == {1}
    data = Counted(203)
    part = Subset(data, range(100, 180))
    assert sorted(rows(DataLoader(part, 5, sampler=BlockShuffleSampler(part, 16, 2)))) == [*range(100, 180)]
    assert sum(data.reads.values()) <= 11 + 5  # blocks that two runs of 16 rows share are read twice at most


def test_blocks_of_another_size() -> None:
    data = Counted(203)
    sampler = BlockShuffleSampler(data, block_size=20, window=2)
    assert sorted(rows(DataLoader(data, 5, sampler=sampler))) == [*range(203)]
    assert max(data.reads.values()) <= 2  # those that two blocks of the sampler share


def test_samples_by_index() -> None:
    data = Counted(20)
    assert data[3][0].tolist() == [3.0, 6.0] and data[-1][1].item() == 19 and data[numpy.int64(4)][1].shape == ()
    with pytest.raises(OutOfRangeError, match=r"Counted: index 20; expected -20 \.\. 19"):
        data[20]
    with pytest.raises(OutOfRangeError, match=r"the sampler's index -21"):
        rows(DataLoader(data, 2, sampler=[1, -21]))
    for wrong in (1.7, "1", [1]):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            next(iter(DataLoader(data, 2, sampler=[0, wrong])))


def test_a_thread_reads_ahead() -> None:
    data = Counted(200)
    iterator = iter(DataLoader(data, 8))
    next(iterator)
    assert not {name for name in data.threads if not name.startswith("read ahead")}
    while sum(data.reads.values()) < 5:  # without a further batch
        pass
    del iterator


def test_an_error_in_the_thread_reaches_the_caller() -> None:
    data = Counted(80)
    data.broken = 4
    with pytest.raises(DataError, match="block 4 is damaged"):
        rows(DataLoader(data, 8))
    data.broken = None
    assert rows(DataLoader(data, 8)) == [*range(80)]


def test_subsets_and_functions_of_samples() -> None:
    data = Counted(50)
    assert rows(DataLoader(Subset(data, range(10, 40)), 7)) == [*range(10, 40)]
    assert data.threads and not any(name == "MainThread" for name in data.threads)
    assert [y for _, y in DataLoader(data, None)] == [*range(50)]
    sums = [*DataLoader(data, 10, collate_fn=lambda samples: sum(y.item() for _, y in samples))]
    assert sums == [45, 145, 245, 345, 445]


class Labelled(Counted):
    def __getitem__(self, index: Any) -> Any:
        return "label", index


def test_a_transform_converts_rows() -> None:
    data = Counted(20)
    halves = data.with_transform(lambda x, y: (x.astype("float64") / 2, y)).with_transform(lambda x, y: (x, y, y + 1))
    [(x, y, z), _] = DataLoader(halves, 10)
    assert x.dtype == gpunet.float64 and (x[:, 1] == y).all() and (z == y + 1).all()
    assert halves[3][0].tolist() == [1.5, 3.0] and len(data[3]) == 2 and len(halves.hold_out(0.5)[1][0]) == 3
    for wrong in (lambda x, y: (x[:1], y), lambda x, y: (x, 3)):
        with pytest.raises(ShapeError, match="with_transform: the function returns arrays of shapes .* for 10 rows"):
            next(iter(DataLoader(data.with_transform(wrong), 10)))
    with pytest.raises(ArgumentError, match="the function returns a ndarray; expected a tuple of arrays"):
        next(iter(DataLoader(data.with_transform(lambda x, y: x), 2)))  # as many rows as columns
    with pytest.raises(ArgumentError, match="the function returns an array of <U21; expected numbers"):
        data.with_transform(lambda x, y: (x, y.astype(str)))[0]
    with pytest.raises(ArgumentError, match="with_transform: 3; expected a function"):
        data.with_transform(3)  # type: ignore[arg-type]


def test_a_subclass_reads_its_samples() -> None:
    [[names, y]] = DataLoader(Labelled(3), 3, sampler=[0, 1, 2], collate_fn=lambda samples: [*zip(*samples)])
    assert names == ("label",) * 3


def test_workers() -> None:
    data = Counted(60)
    rows(DataLoader(data, 8))
    loader = DataLoader(data, 8, shuffle=True, num_workers=2, generator=Generator(4))
    assert rows(loader) == rows(DataLoader(Counted(60), 8, shuffle=True, generator=Generator(4)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_fork_does_not_wait_for_a_thread_of_its_parent() -> None:
    """The thread that reads ahead has the lock while the process forks."""
    data, is_reading, may_go_on = Counted(80), threading.Event(), threading.Event()

    def fill(*arguments: Any) -> None:
        is_reading.set()
        may_go_on.wait()
        Counted.fill(data, *arguments)

    data.fill = fill  # type: ignore[method-assign]
    iterator = iter(DataLoader(data, 8))
    reading = threading.Thread(target=next, args=(iterator,))
    reading.start()
    is_reading.wait()
    child = os.fork()
    if not child:
        data.fill = functools.partial(Counted.fill, data)  # type: ignore[method-assign]
        signal.alarm(20)  # ends a child that waits
        os._exit(data[3][1].item())
    status = os.waitpid(child, 0)[1]
    may_go_on.set()
    reading.join()
    assert os.waitstatus_to_exitcode(status) == 3
    assert rows(iterator) == [*range(8, 80)]


def test_pickled_data_have_no_blocks_in_memory() -> None:
    data = Counted(100_000, 10_000)
    data[0]
    assert len(pickle.dumps(data)) < 3000
    assert pickle.loads(pickle.dumps(data))[99_999][1].item() == 99_999


@pytest.mark.parametrize("block_size, fraction", [(8, 0.25), (1, 0.2), (64, 0.1)])
def test_held_out_rows(block_size: int, fraction: float) -> None:
    data = Counted(203, block_size)
    rest, held_out = data.hold_out(fraction)
    assert abs(len(held_out) - fraction * 203) < 1
    found = rows(DataLoader(rest, 9)), rows(DataLoader(held_out, 9))
    assert sorted([*found[0], *found[1]]) == [*range(203)]
    assert sorted(rows(DataLoader(rest, 9, shuffle=True))) == found[0]
    for wrong in (0.0, 1.0, 1e-6):
        with pytest.raises(ArgumentError, match="hold_out: fraction="):
            data.hold_out(wrong)


def test_the_window_depends_on_memory() -> None:
    assert Counted(100).window == 64
    large = Counted(2**26, 2**22)  # 16 + 8 bytes a row
    assert large.block_bytes == 2**22 * 16 and large.window == 4


# ---- training -----------------------------------------------------------------------------------------------------------


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Any) -> bool:
        return bool(trainer.step == self.step)


def train(folder: Path, resume: bool = False, callbacks: Any = ()) -> list[bytes]:
    gpunet.manual_seed(1)
    model = nn.Linear(2, 4)
    optimizer = gpunet.optim.SGD(model.parameters(), lr=1e-5)

    def loss(output: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(output, target % 4)

    data = Counted(203)
    gpunet.fit(
        model, loss, optimizer, DataLoader(data, 10, shuffle=True), DataLoader(data.hold_out(0.2)[1], 50), epochs=3,
        folder=folder, resume=resume, callbacks=callbacks, progress=False, capture=False,
    )  # fmt: skip
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def test_training_resumes_within_an_epoch(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "stopped", callbacks=[Stop(29)])
    assert train(tmp_path / "stopped", resume=True) == whole
