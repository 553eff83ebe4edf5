"""DataLoader: order, random numbers and batches do not depend on workers, batch size or position; failures of workers."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
)
from gpunet.errors import ArgumentError, CaptureError, OutOfRangeError, StateDictError, WorkerError
from gpunet.launch.random import Generator
from tests.data.samples_for_loaders import Augmented, Failing, Stream, WorkerFacts, announce, fail


@pytest.fixture(autouse=True)
def no_process_or_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert multiprocessing.active_children() == []
    assert threading.active_count() <= before


def plain(batch: Any) -> Any:
    """A batch as nested lists with the bits of its numbers."""
    if isinstance(batch, gpunet.Tensor):
        return str(batch.dtype), str(batch.device), batch.cpu().numpy().tobytes()
    return [plain(item) for item in batch] if isinstance(batch, (list, tuple)) else batch


def epochs(loader: DataLoader, count: int = 2) -> list[Any]:
    return [[plain(batch) for batch in loader] for _ in range(count)]


def rows(loader: Any) -> list[Any]:
    """The samples, without their batches."""
    return [[plain(column[i]) for column in batch] for batch in loader for i in range(len(batch[0]))]


def make(dataset: Any, num_workers: int = 0, **options: Any) -> DataLoader:
    return DataLoader(dataset, num_workers=num_workers, generator=Generator(7), **options)


# ---- order and random numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_neither_order_nor_bits(num_workers: int) -> None:
    expected = epochs(make(Augmented(23), batch_size=4, shuffle=True))
    assert epochs(make(Augmented(23), num_workers, batch_size=4, shuffle=True)) == expected
    assert expected[0] != expected[1] and len(expected[0]) == 6
    persistent = make(Augmented(23), num_workers, batch_size=4, shuffle=True, persistent_workers=True, prefetch_factor=5)
    assert epochs(persistent) == expected
    persistent._pool.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_started_processes_make_the_same_batches(method: str) -> None:
    expected = epochs(make(Augmented(9), batch_size=4, shuffle=True), 1)
    assert epochs(make(Augmented(9), 2, batch_size=4, shuffle=True, multiprocessing_context=method), 1) == expected


def test_samples_do_not_depend_on_the_batch_size_or_on_draws_in_between() -> None:
    expected = rows(make(Augmented(12), batch_size=4, shuffle=True))
    loader, found = make(Augmented(12), batch_size=5, shuffle=True), []
    validation = DataLoader(Augmented(5), batch_size=2, shuffle=True)
    for batch in loader:
        found += rows([batch])
        gpunet.randn(3), numpy.random.rand(), random.random()  # noqa: NPY002
        epochs(validation, 1)
    assert found == expected


def test_ranks_together_draw_what_one_process_draws() -> None:
    expected = {row[0]: row for row in rows(make(Augmented(12), batch_size=3))}
    for rank in range(3):
        found = rows(make(Augmented(12), sampler=DistributedSampler(Augmented(12), 3, rank), batch_size=2))
        assert len(found) == 4 and all(expected[row[0]] == row for row in found)


def test_draws_of_the_main_process_go_on_as_without_a_loader() -> None:
    def draw() -> Any:
        return gpunet.rand(2).tolist(), numpy.random.rand(2).tolist(), random.random()  # noqa: NPY002

    def seed() -> None:
        gpunet.manual_seed(3), numpy.random.seed(3), random.seed(3)  # noqa: NPY002

    seed()
    loader = DataLoader(Augmented(6), batch_size=2, shuffle=True)
    stream = DataLoader(Stream(6), batch_size=2)
    expected = [draw() for _ in range(6)]
    seed()
    assert [draw() for _ in zip(loader, stream)] + [draw() for _ in range(3)] == expected


def test_the_seed_decides_the_order() -> None:
    gpunet.manual_seed(1)
    loader = DataLoader(Augmented(50), batch_size=5, shuffle=True)
    first = epochs(loader)
    assert epochs(loader) != first
    gpunet.manual_seed(1)
    assert epochs(loader) == first  # epochs count from the seeding on
    gpunet.manual_seed(2)
    assert epochs(loader) != first
    gpunet.manual_seed(1)
    a, b = (DataLoader(Augmented(50), batch_size=50, shuffle=True) for _ in range(2))
    assert epochs(a, 1) != epochs(b, 1)  # two loaders are not shuffled alike
    same = [epochs(DataLoader(Augmented(50), batch_size=5, shuffle=True, generator=Generator(4))) for _ in range(2)]
    assert same[0] == same[1]


def test_no_two_samples_share_a_numpy_seed() -> None:
    found = [row[2] for loader in [make(Augmented(40), 2, batch_size=3)] for _ in range(2) for row in rows(loader)]
    assert len({str(row) for row in found}) == 80


class DrawsIndices:
    """A sampler of a user's, which draws from NumPy."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(7):
            yield int(numpy.random.randint(30))  # noqa: NPY002

    def __len__(self) -> int:
        return 7


SAMPLERS: dict[str, Any] = {
    "random": lambda d: {"sampler": RandomSampler(d, replacement=True, num_samples=11), "batch_size": 3},
    "its own generator": lambda d: {"sampler": RandomSampler(d, generator=Generator(5)), "batch_size": 4},
    "subset": lambda d: {"sampler": SubsetRandomSampler([3, 1, 4, 15, 9]), "batch_size": 2},
    "weighted": lambda d: {"sampler": WeightedRandomSampler([1.0] * 15, 9), "batch_size": 2, "drop_last": True},
    "user": lambda d: {"sampler": DrawsIndices(), "batch_size": 2},
    "batch sampler": lambda d: {"batch_sampler": BatchSampler(RandomSampler(d), 4, True)},
    "list of batches": lambda d: {"batch_sampler": [[1, 2], [3], [5, 6, 7]]},
    "samples": lambda d: {"batch_size": None, "shuffle": True},
    "distributed": lambda d: {"sampler": DistributedSampler(d, 2, 1), "batch_size": 3},
    "sequential": lambda d: {"batch_size": 4},
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_resume_after_every_batch(kind: str, num_workers: int) -> None:
    def loader() -> DataLoader:
        return make(Augmented(30), num_workers, **SAMPLERS[kind](Augmented(30)))

    first, second = epochs(loader())
    assert epochs(make(Augmented(30), **SAMPLERS[kind](Augmented(30)))) == [first, second]
    step = 1 if num_workers == 0 else max(1, len(first) // 2)  # each position starts processes
    for position in range(0, len(first) + 1, step):
        interrupted = loader()
        iterator = iter(interrupted)
        seen = [plain(next(iterator)) for _ in range(position)]
        state = interrupted.state_dict()
        del iterator
        assert seen == first[:position]
        resumed = loader()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert epochs(resumed) == [first[position:], second], position


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_resume_an_iterable_data_set_after_every_batch(num_workers: int) -> None:
    def loader() -> DataLoader:
        return make(Stream(20), num_workers, batch_size=3)

    first, second = epochs(loader())
    assert sorted(i for batch in loader() for i in batch[0].tolist()) == list(range(20))
    assert first != second
    for position in range(len(first) + 1):
        interrupted = loader()
        iterator = iter(interrupted)
        for _ in range(position):
            next(iterator)
        state = interrupted.state_dict()
        del iterator
        resumed = loader()
        resumed.load_state_dict(state)
        assert epochs(resumed) == [first[position:], second], position


def test_resume_with_other_workers_and_through_a_file(tmp_path: Any) -> None:
    generator = Generator(7)
    assert generator.next_substream() == 0  # as of another loader
    loader = DataLoader(Augmented(20), num_workers=2, batch_size=3, shuffle=True, generator=generator)
    expected = epochs(loader)
    generator.manual_seed(7)
    for number, _ in enumerate(loader):
        if number == 3:
            gpunet.save(loader.state_dict(), tmp_path / "state.safetensors")
            break
    resumed = DataLoader(Augmented(20), batch_size=3, shuffle=True)
    resumed.load_state_dict(gpunet.load(tmp_path / "state.safetensors"))
    assert epochs(resumed) == [expected[0][4:], expected[1]]
    assert resumed.state_dict()["epoch"] == 2


def test_states_of_other_loaders_are_refused() -> None:
    with pytest.raises(StateDictError, match=r"expected a dict of \['batches', 'epoch'"):
        make(Augmented(3)).load_state_dict({"epoch": 1})
    state = make(Augmented(3), sampler=RandomSampler(Augmented(3), generator=Generator(1))).state_dict()
    with pytest.raises(StateDictError, match=r"the state has \['generator'\] of its samplers, this loader \[\]"):
        make(Augmented(3)).load_state_dict(state)
    with pytest.raises(ArgumentError, match="in_order=False"):
        make(Augmented(3), 1, in_order=False).state_dict()


# ---- tensors in memory ------------------------------------------------------------------------------------------------


class OneByOne(Dataset):
    """The samples of a data set without the batched path."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("part", ["all", "subset", "split of a subset"])
def test_batches_of_tensors_are_gathered(part: str, num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset: Any = TensorDataset(gpunet.randn(40, 3), gpunet.arange(40), gpunet.rand(40, dtype=gpunet.float64) > 0.5)
    if part != "all":
        dataset = Subset(dataset, [*range(39, 4, -1)])
    if part == "split of a subset":
        dataset = random_split(dataset, [0.75, 0.25])[0]
    expected = epochs(make(OneByOne(dataset), batch_size=8, shuffle=True))
    calls: list[int] = []
    if num_workers == 0:
        monkeypatch.setattr("gpunet.data.fetch.MapFetcher._sample", lambda self, index: calls.append(index))
    assert epochs(make(dataset, num_workers, batch_size=8, shuffle=True)) == expected
    assert calls == []


def test_gathered_batches_on_devices(device: str) -> None:
    x = gpunet.arange(10).reshape(10, 1)
    loader = DataLoader(TensorDataset(x, x.reshape(10) * 2), batch_size=4, shuffle=True, generator=Generator(5))
    found = [(a.tolist(), b.tolist()) for a, b in loader]
    assert all(a.device == x.device for a, _ in loader)
    assert sorted(i for _, b in found for i in b) == [*range(0, 20, 2)]
    assert [len(b) for _, b in found] == [4, 4, 2] and len(loader) == 3
    with gpunet.device("cpu"):
        on_cpu = TensorDataset(gpunet.arange(10).reshape(10, 1))
    expected = [a.tolist() for (a,) in DataLoader(on_cpu, batch_size=4, shuffle=True, generator=Generator(5))]
    assert [a for a, _ in found] == expected  # the same order on all devices


def test_samples_are_made_on_the_cpu(device: str) -> None:
    for num_workers in (0, 1) if device != "cuda" else (0,):
        found = epochs(make(Augmented(6), num_workers, batch_size=3), 1)
        assert {item[1] for item in found[0][0]} == {"cpu"}


def test_a_batch_is_no_view_of_the_data() -> None:
    x = gpunet.zeros(6, 2)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=3):
        batch += 1
    assert x.sum().item() == 0


def test_gradients_flow_to_the_data() -> None:
    x = gpunet.zeros(4, 2, requires_grad=True)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=3):
        batch.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1, 1]] * 4


def test_an_index_out_of_range_is_named() -> None:
    data = TensorDataset(gpunet.zeros(4))
    with pytest.raises(OutOfRangeError, match=r"index 9; expected -4 \.\. 3"):
        list(DataLoader(data, sampler=[1, 9]))


def test_a_class_that_overrides_a_sample_is_not_gathered() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return tuple(2 * t for t in super().__getitem__(index))

    [(batch,)] = DataLoader(Doubled(gpunet.arange(3)), batch_size=3)
    assert batch.tolist() == [0, 2, 4]


def test_getitems_reads_a_batch() -> None:
    class Batched(Augmented):
        def __getitems__(self, indices: list[int]) -> list[int]:
            assert all(type(i) is int for i in indices)
            return [10 * i for i in indices]

    assert [b.tolist() for b in DataLoader(Batched(5), batch_size=2)] == [[0, 10], [20, 30], [40]]
    [found] = DataLoader(StackDataset(a=Batched(3), b=[5, 6, 7]), batch_size=3)
    assert {name: value.tolist() for name, value in found.items()} == {"a": [0, 10, 20], "b": [5, 6, 7]}


# ---- workers ----------------------------------------------------------------------------------------------------------


def test_workers_know_who_they_are() -> None:
    assert get_worker_info() is None
    loader = make(WorkerFacts(8), 2, batch_size=2, worker_init_fn=announce)
    found = [[column[0] if isinstance(column, tuple) else column.tolist()[0] for column in batch] for batch in loader]
    assert [row[0] for row in found] == [0, 1, 0, 1]
    assert len({row[2] for row in found}) == 2
    assert {tuple(row[1:2] + row[3:5]) for row in found} == {(2, True, "cpu")}
    assert all(row[0] == row[5] for row in found)


def test_an_exception_in_a_worker_names_it_and_shows_its_traceback() -> None:
    loader = make(Failing("raise"), 2, batch_size=2)
    with pytest.raises(WorkerError, match="KeyError: 'no such file: 5.png'\nin worker 0:") as caught:
        list(loader)
    assert "samples_for_loaders.py" in str(caught.value) and "in __getitem__" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(KeyError):
        list(make(Failing("raise"), batch_size=2))


@pytest.mark.parametrize(("how", "message"), [("kill", "was killed by SIGKILL"), ("exit", "exited with status 3")])
def test_a_dead_worker_is_noticed(how: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match=rf"worker 0 \(pid \d+\) {message}, without sending its batch"):
        list(make(Failing(how), 2, batch_size=2))
    assert time.monotonic() - start < 5


def test_a_slow_worker_exceeds_the_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"no batch from worker 0 \(pid \d+\) within timeout=0\.5 seconds"):
        list(make(Failing("sleep"), 2, batch_size=2, timeout=0.5))
    assert time.monotonic() - start < 5


def test_a_failing_init_function_is_named() -> None:
    with pytest.raises(WorkerError, match="OSError: no disk for 0\nin worker 0:"):
        list(make(Augmented(4), 1, worker_init_fn=fail))


def test_persistent_workers_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make(Augmented(12), 2, batch_size=3, persistent_workers=True)
    expected = epochs(make(Augmented(12), batch_size=3), 4)
    pids = []
    for number in range(4):
        iterator = iter(loader)
        pids.append(sorted(child.pid for child in multiprocessing.active_children()))
        found = [plain(next(iterator)) for _ in range(2 if number == 1 else 4)]  # the second pass is given up
        assert found == expected[number][: len(found)]
    assert pids.count(pids[0]) == 4
    loader._pool.close()


def test_persistent_workers_end_with_their_loader() -> None:
    loader = make(Augmented(12), 2, batch_size=3, persistent_workers=True)
    next(iter(loader))
    assert len(multiprocessing.active_children()) == 2
    del loader


def test_batches_out_of_order_are_all_there() -> None:
    loader = make(Augmented(12), 3, batch_size=1, in_order=False)
    assert sorted(batch[0].item() for batch in loader) == [*range(12)]


def test_large_batches_pass_through() -> None:
    x = gpunet.randn(64, 50_000)
    found = [batch for (batch,) in make(TensorDataset(x), 2, batch_size=16)]
    assert gpunet.equal(gpunet.cat(found), x)
    found[0] += 1  # it is writable


def test_arrays_that_a_data_set_reuses_arrive_as_they_were() -> None:
    class Reusing(Augmented):
        buffer = numpy.zeros(100_000)

        def __getitem__(self, index: int) -> Any:
            self.buffer[:] = index
            return self.buffer

    assert [sample[0].item() for sample in make(Reusing(20), 1, batch_size=None, prefetch_factor=8)] == [*range(20)]


class HasLock(Augmented):
    def __init__(self) -> None:
        super().__init__(3)
        self.options = {"lock": threading.Lock()}


class HasTransform(Augmented):
    def __init__(self) -> None:
        super().__init__(3)
        self.inner = Augmented(2)
        self.inner.transform = lambda x: x  # type: ignore[attr-defined]


def test_a_spawned_worker_cannot_get_what_cannot_be_pickled() -> None:
    options: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "spawn"}
    with pytest.raises(ArgumentError, match=r"dataset\.options\['lock'\] cannot be pickled: lock \("):
        DataLoader(HasLock(), **options)
    with pytest.raises(ArgumentError, match=r"dataset\.inner\.transform cannot be pickled: .*<lambda>, defined in .*:\d+"):
        DataLoader(HasTransform(), **options)
    with pytest.raises(ArgumentError, match="'spawn', which pickles what they need, and collate_fn cannot be pickled"):
        DataLoader(Augmented(3), collate_fn=lambda samples: samples, **options)
    assert len([*make(HasTransform(), 1)]) == 3  # forked


def test_workers_end_when_the_main_process_is_killed(tmp_path: Any) -> None:
    import subprocess
    import sys

    code = (
        "import os, sys, multiprocessing\nfrom gpunet.data import DataLoader\n"
        "from tests.data.samples_for_loaders import Augmented\n"
        "it = iter(DataLoader(Augmented(100), num_workers=2)); next(it)\n"
        "print(*[p.pid for p in multiprocessing.active_children()], flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10

    def is_running(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- arguments --------------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size=0; expected an integer of 1 or more"),
    ({"num_workers": -1}, "num_workers=-1"),
    ({"num_workers": 1, "timeout": -1}, "timeout=-1; expected seconds"),
    ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor=0"),
    ({"prefetch_factor": 2}, "prefetch_factor=2 is about workers, and num_workers=0"),
    ({"persistent_workers": True}, "persistent_workers=True is about workers"),
    ({"timeout": 3}, "timeout=3 is about workers"),
    ({"multiprocessing_context": "fork"}, "multiprocessing_context='fork' is about workers"),
    ({"num_workers": 1, "multiprocessing_context": "thread"}, "multiprocessing_context='thread'; expected fork, spawn"),
    ({"shuffle": True, "sampler": [1]}, "sampler and shuffle=True; expected one of them"),
    ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler excludes batch_size"),
    ({"batch_sampler": [[1]], "drop_last": True}, "batch_sampler excludes"),
    ({"batch_size": None, "drop_last": True}, "batch_size=None yields samples"),
    ({"collate_fn": 3}, "collate_fn=3; expected a function"),
    ({"generator": 3}, "generator=3; expected a gpunet.Generator"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"DataLoader: {message}"):
        DataLoader(Augmented(3), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}])
def test_an_iterable_data_set_has_its_own_order(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="an IterableDataset has its own order"):
        DataLoader(Stream(3), **options)
    assert len(list(DataLoader(Stream(3), shuffle=False))) == 3


def test_attributes_cannot_change_afterwards() -> None:
    loader = DataLoader(Augmented(3), batch_size=2)
    with pytest.raises(ArgumentError, match="batch_size cannot be changed; make another DataLoader"):
        loader.batch_size = 3
    assert (len(loader), len(DataLoader(Augmented(3), batch_size=2, drop_last=True))) == (2, 1)


def test_a_captured_step_reads_no_batch() -> None:
    loader = DataLoader(TensorDataset(gpunet.zeros(4)), batch_size=2)
    batches = iter(loader)
    with pytest.raises(CaptureError, match="reading a batch from a DataLoader cannot be captured"):
        gpunet.capture(lambda: next(batches)[0].sum())()


def test_attributes_are_those_of_pytorch(torch: Any) -> None:
    theirs = torch.utils.data.DataLoader([1, 2, 3], num_workers=1)
    ours = DataLoader(Augmented(3), num_workers=1)
    names = {n for n in vars(theirs) if not n.startswith("_")} | {"multiprocessing_context"}
    assert [n for n in names if not hasattr(ours, n)] == []
