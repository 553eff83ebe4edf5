"""Programs that test_parallel.py runs in several processes: ``mpiexec -n 3 python -m tests.train.parallel_programs NAME``."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import distributed, nn
from gpunet.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset
from gpunet.distributed import ProcessGroup
from gpunet.errors import ArgumentError, ProcessError
from gpunet.metrics import Accuracy, MeanSquaredError
from gpunet.train import Callback, Trainer

ROWS, FEATURES, CLASSES = 53, 6, 3


def arrays(rows: int = ROWS) -> tuple[Any, Any]:
    generator = numpy.random.default_rng(5)
    y = generator.integers(0, CLASSES, rows)
    return generator.normal(size=(rows, FEATURES)).astype("float32") + y[:, None].astype("float32"), y


def network(norm: bool = False, dropout: float = 0.5) -> nn.Module:
    gpunet.manual_seed(1)
    # 5 numbers a row: those of a share begin within a block of the random stream
    return nn.Sequential(
        nn.Linear(FEATURES, 5, bias=not norm),  # Adam would follow the rounding errors of its gradient, which is 0
        nn.BatchNorm1d(5) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, CLASSES),
    )  # fmt: skip


def run(alone: bool, *, norm: bool = False, rows: int = ROWS, data: str = "loader", epochs: int = 2, **options: Any) -> Any:
    """(history, weights) of a training, of this process alone or of all."""
    group = ProcessGroup.alone() if alone else None
    model = network(norm)
    x, y = arrays(rows)
    y[::4] = 0
    loss = nn.CrossEntropyLoss(weight=gpunet.tensor([0.5, 1.0, 2.0]), ignore_index=0 if not norm else -100)
    train: Any = DataLoader(
        TensorDataset(gpunet.tensor(x), gpunet.tensor(y)), 8, shuffle=True, drop_last=norm, num_workers=2 * (data == "workers")
    )
    if data == "list":
        train = [(gpunet.tensor(x[i : i + 8]), gpunet.tensor(y[i : i + 8])) for i in range(0, rows, 8)]
    if data == "iterable":
        train = DataLoader(Rows(x, y), 8)
    validation = DataLoader(TensorDataset(gpunet.tensor(x[:20]), gpunet.tensor(y[:20])), 7)
    optimizer = gpunet.optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(
        model, loss, optimizer, metrics={"accuracy": Accuracy("multiclass", num_classes=CLASSES)}, progress=False,
        process_group=group, **options,
    )  # fmt: skip
    history = trainer.fit(train, validation, epochs=epochs)
    return history, {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}


class Rows(IterableDataset):
    def __init__(self, x: Any, y: Any) -> None:
        self.rows = list(zip(x, y))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def figures(history: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def expect_alike(one: Any, other: Any) -> None:
    for a, b in zip(figures(one[0]), figures(other[0]), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert abs(a[name] - b[name]) < 1e-6, (name, a, b)
    for name, weights in one[1].items():
        numpy.testing.assert_allclose(weights, other[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


def same_bits(one: Any, other: Any) -> bool:
    return all(weights.tobytes() == other[1][name].tobytes() for name, weights in one[1].items()) and (
        repr(figures(one[0])) == repr(figures(other[0]))
    )


def sharing() -> None:
    """Shared batches give the figures and weights of one process, whatever they are read from, and the same bits at each run."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    cases: list[dict[str, Any]] = [
        {}, {"capture": False}, {"rows": 49}, {"accumulate": 3, "clip": 0.5}, {"norm": True}, {"data": "workers"},
        {"data": "list", "ema": 0.9}, {"data": "iterable"}, {"accumulate": 2, "callbacks": [Decay()], "epochs": 3},
        {"accumulate": 2, "rows": 49},  # the last window has rows in the first process alone
    ]  # fmt: skip
    for options in cases:
        shared = run(False, **options)
        expect_alike(shared, run(True, **options))
        parts = distributed.group.WORLD.gather_objects(shared[1], "test")  # type: ignore[attr-defined]
        assert all(part[name].tobytes() == shared[1][name].tobytes() for part in parts for name in part), options
    assert same_bits(run(False), run(False))
    assert (rank, size) == (distributed.get_rank(), distributed.get_world_size())


class Decay(Callback):
    """Changes a number that a recorded step relies on, so that the end of a window is recorded anew, and its start is not."""

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> bool:
        trainer.optimizer.param_groups[0]["weight_decay"] = 0.01 * row["epoch"]
        return False


class Interrupted(Dataset):
    """Rows, of which one is followed by Ctrl-C when it is read first."""

    def __init__(self) -> None:
        self.x, self.y = arrays(48)
        self.last: int | None = 39

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        if index == self.last:
            self.last = None
            signal.raise_signal(signal.SIGINT)
        return self.x[index], self.y[index]


def resumed() -> None:
    """A window that one process has begun is ended by several, with the same figures."""
    found = []
    for group in (ProcessGroup.alone(), None):
        data = Interrupted()
        with tempfile.TemporaryDirectory() as folder:
            for process_group in (ProcessGroup.alone(), group):
                model = network(dropout=0.0)
                trainer = Trainer(
                    model, nn.CrossEntropyLoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False, accumulate=3,
                    process_group=process_group,
                )  # fmt: skip
                if data.last is None:
                    trainer.load(f"{folder}/checkpoint.safetensors")
                history = trainer.fit(DataLoader(data, 8), epochs=2)
                if history.ending == "interrupted":
                    assert (trainer.step, trainer._num_batches) == (1, 5)
                    trainer.save(f"{folder}/checkpoint.safetensors")
        assert history.ending == "finished"
        found.append((history, {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}))
    expect_alike(*found)


def bits() -> None:
    """With deterministic=True the bits are those of one process."""
    for options in ({"rows": 49}, {"accumulate": 2, "clip": 0.5, "ema": 0.9}):
        assert same_bits(run(False, deterministic=True, **options), run(True, deterministic=True, **options)), options


class Divided:
    """Batches of one process, as many as its rank says."""

    num_replicas = 3

    def __init__(self, rank: int) -> None:
        self.batches = [(gpunet.ones(rank + 2, 1), gpunet.full((rank + 2, 1), float(k))) for k in range(rank)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Epochs(Callback):
    def __init__(self, sampler: Any, stops_at: int) -> None:
        self.sampler, self.seen, self.stops_at = sampler, [], stops_at  # type: ignore[var-annotated]

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> bool:
        self.seen.append(getattr(self.sampler, "epoch", None))
        return distributed.get_rank() == 1 and row["epoch"] == self.stops_at


def divided() -> None:
    """Data that each process has for itself: uneven numbers of batches, samplers that pad; a callback that stops one process."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    trainer = Trainer(model, nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False)
    history = trainer.fit(Divided(rank), epochs=1)  # type: ignore[arg-type]
    # step 1: ranks 1 and 2 have 3 and 4 rows of target 0; step 2: rank 2 has 4 rows of target 1
    assert history["train_loss"] == [pytest.approx(4 / 11)] and trainer.step == 2
    assert model.weight.item() == pytest.approx(0.2) and model.bias.item() == pytest.approx(0.2)

    x = gpunet.arange(10.0).reshape(10, 1)
    data = TensorDataset(x, x)
    sampler = DistributedSampler(data, shuffle=True)
    callback = Epochs(sampler, 2)
    trainer = Trainer(
        model, nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=1e-9), progress=False, callbacks=[callback],
        metrics={"error": MeanSquaredError()},
    )  # fmt: skip
    validation = DataLoader(data, 2, sampler=DistributedSampler(data, shuffle=False))
    history = trainer.fit(DataLoader(data, 2, sampler=sampler), validation, epochs=5)
    assert (history.ending, callback.seen, len(history)) == ("stopped", [0, 1], 2)
    expected = float(((0.2 * x.numpy() + 0.2 - x.numpy()) ** 2).mean())
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5) and len(validation.sampler) == -(-10 // size)  # type: ignore[arg-type]
    assert history["val_error"][0] == pytest.approx(expected, rel=1e-5)


class Plain:
    """A metric that cannot be merged."""

    def reset(self) -> None: ...

    def update(self, output: Any, target: Any) -> None: ...

    def compute(self) -> float:
        return 0.0


def refused() -> None:
    rank = distributed.get_rank()
    with pytest.raises(ArgumentError, match="the metric 'plain' is a Plain without merge_state"):
        Trainer(model := network(), nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), metrics={"plain": Plain()})
    with pytest.raises(ArgumentError, match="changes its buffer '1.running_mean' with each shard"):
        run(False, norm=True, deterministic=True)
    with pytest.raises(ArgumentError, match="deterministic=3; expected a bool or a power of two"):
        run(False, deterministic=3)
    with pytest.raises(ArgumentError, match="deterministic=1 makes 1 shards of a batch, for 2 processes"):
        run(False, deterministic=1)
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    trainer = Trainer(model, nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False)
    with pytest.raises(ArgumentError, match="a batch of 1 rows has none for some of the processes, but batch norm needs some"):
        trainer.fit([(gpunet.ones(1, 1), gpunet.ones(1, 2))], epochs=1)

    def fit(model: nn.Module, **options: Any) -> None:
        trainer = Trainer(model, nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False, **options)
        trainer.fit([(gpunet.ones(4, 2), gpunet.ones(4, 1))], epochs=1)

    for found, options in (
        (r"'model.1.weight' is \(1, 4\) of float32 in rank 1, \(1, 3\) of float32 in rank 0", {}),
        ("the option accumulate is 2 in rank 1, 1 in rank 0", {"accumulate": 1 + rank}),
    ):
        gpunet.manual_seed(0)
        width = 3 if options else 3 + rank
        with pytest.raises(ProcessError, match=found):
            fit(nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1)), **options)
    gpunet.manual_seed(0)
    loader = DataLoader(TensorDataset(gpunet.ones(4, 2), gpunet.ones(4, 1)), 2, shuffle=True, generator=gpunet.Generator(rank))
    model = nn.Linear(2, 1)
    with pytest.raises(ProcessError, match=r"the seed of the data 'train' is \[1\] in rank 1, \[0\] in rank 0"):
        Trainer(model, nn.MSELoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False).fit(loader, epochs=1)
    version, gpunet.__version__ = gpunet.__version__, "0.0" if rank else gpunet.__version__
    gpunet.manual_seed(0)
    with pytest.raises(ProcessError, match="the version of gpunet is 0.0 in rank 1"):
        fit(nn.Linear(2, 1))
    gpunet.__version__ = version
    gpunet.manual_seed(rank)
    with pytest.raises(ProcessError, match="fit: the processes differ: the seed is 1 in rank 1, 0 in rank 0; start all processes"):
        fit(nn.Linear(2, 1))


def unseeded() -> None:
    """Where no process has seeded, all have the weights, the order and the random numbers of the first one."""
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.Dropout(0.5), nn.Linear(5, CLASSES))
    model[2].register_forward_hook(lambda module, args, output: output + gpunet.randn(1, 7)[:, :CLASSES])  # not for each row
    x, y = arrays()
    loader = DataLoader(TensorDataset(gpunet.tensor(x), gpunet.tensor(y)), 8, shuffle=True)
    trainer = Trainer(model, nn.CrossEntropyLoss(), gpunet.optim.SGD(model.parameters(), lr=0.1), progress=False)
    trainer.fit(loader, epochs=1)
    weights = distributed.group.WORLD.gather_objects([p.detach().numpy() for p in model.parameters()], "test")  # type: ignore[attr-defined]
    states = distributed.group.WORLD.gather_objects([loader.state_dict(), gpunet.rand(1).item()], "test")  # type: ignore[attr-defined]
    assert all(a.tobytes() == b.tobytes() for each in weights for a, b in zip(each, weights[0]))
    assert all(state == states[0] for state in states)


if __name__ == "__main__":
    if sys.argv[1] != "bits":  # whose Trainer joins the processes by itself
        distributed.init_process_group()
    globals()[sys.argv[1]]()
    print("passed")
