"""Sweeps: their trials, files, resumption and processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.errors import ArgumentError, CheckpointError, DataError, ShapeError
from gpunet.sweeps import SweepResult, run
from gpunet.sweeps.training import train_trials

F = nn.functional
RANGES = {"lr": "1e-3:1e-1:log", "hidden": ["4", "6", "3,5"], "dropout": [0.0, 0.2], "optimizer": ["adam", "sgd"]}
OPTIONS: dict[str, Any] = {"trials": 8, "epochs": 3, "seed": 1, "capture": "numpy", "stack_size": 3}


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training; one test draws."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(SweepResult, "plot", lambda *_: None)


def digits() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(120, 4)).astype("float32")
    return x, numpy.array(["low", "high"])[(x[:, 0] * x[:, 1] > 0).astype(int)]


def sweep(folder: Path | None = None, **options: Any) -> SweepResult:
    return gpunet.sweep(*digits(), RANGES, **{**OPTIONS, **options}, folder=folder)


def assert_same(found: SweepResult, expected: SweepResult) -> None:
    assert [replace(t, seconds=0.0) for t in found.trials] == [replace(t, seconds=0.0) for t in expected.trials]
    for trial in (0, 5):
        for p, q in zip(found.net(trial).parameters(), expected.net(trial).parameters()):
            numpy.testing.assert_array_equal(p.numpy(force=True), q.numpy(force=True))


def test_trials_are_those_of_single_nets() -> None:
    """A trial trains as an ordinary net with an ordinary optimizer in the same order of the rows."""
    x, y = digits()
    labels = (y == "low").astype(numpy.int64)  # of the sorted classes
    result = gpunet.sweep(
        x[:90], labels[:90], {"lr": [0.01, 0.03], "hidden": ["4", "7"]}, sampler="grid", epochs=2, capture="numpy",
        held_out=(x[90:], labels[90:]),
    )  # fmt: skip
    assert [t.parameters["hidden"] for t in result.trials] == ["4", "7", "4", "7"]
    for trial in result.trials:
        gpunet.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, int(trial.parameters["hidden"])), nn.ReLU(), nn.Linear(int(trial.parameters["hidden"]), 2))
        optimizer = optim.Adam(net.parameters(), lr=trial.parameters["lr"])

        def step(inputs: Any, targets: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            return loss

        gpunet.manual_seed(0)
        epoch = gpunet.capture(step, backend="numpy").epoch(gpunet.tensor(x[:90]), gpunet.tensor(labels[:90]), batch_size=32)
        losses = []
        for _ in range(2):
            epoch()
            losses.append(F.cross_entropy(net(gpunet.tensor(x[90:])), gpunet.tensor(labels[90:])).item())
        numpy.testing.assert_allclose(trial.loss, min(losses), rtol=1e-3)
        assert trial.best_epoch == 1 + int(numpy.argmin(losses))


def test_table_picture_and_nets(tmp_path: Path) -> None:
    state = gpunet.get_rng_state()
    result = sweep(tmp_path / "sweep")
    assert (gpunet.get_rng_state() == state).all()
    with (tmp_path / "sweep" / "trials.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["trial"]) for row in rows] == [*range(8)]
    assert [float(row["lr"]) for row in rows] == [t.parameters["lr"] for t in result.trials]
    assert [float(row["loss"]) for row in rows] == [t.loss for t in result.trials]
    if _has("matplotlib"):
        assert (tmp_path / "sweep" / "trials.png").read_bytes()[:4] == b"\x89PNG"
    assert result.best.loss == min(t.loss for t in result.trials)
    assert result.classes.tolist() == ["high", "low"]
    x, y = digits()
    held_out = numpy.random.default_rng(1).permutation(120)[:24]
    for trial in (result.trials[0], result.best):
        outputs = result.net(trial.number)(gpunet.tensor(x[held_out]))
        labels = gpunet.tensor((y[held_out] == "low").astype("int64"))
        numpy.testing.assert_allclose(F.cross_entropy(outputs, labels).item(), trial.loss, rtol=1e-5)
        assert (outputs.argmax(1) == labels).float().mean().item() == pytest.approx(trial.score)
    alone = result.ensemble(1)
    mean, spread = alone(gpunet.tensor(x[:5]))
    numpy.testing.assert_allclose(
        mean.numpy(force=True), result.net()(gpunet.tensor(x[:5])).softmax(1).numpy(force=True), rtol=1e-5
    )
    assert (spread == 0).all()
    with pytest.raises(ArgumentError, match="count=50"):
        result.ensemble(50)
    with pytest.raises(ArgumentError, match="no trial 8"):
        result.net(8)


def test_regression() -> None:
    x, _ = digits()
    target = (x[:, :2] * [1.0, -2.0]).astype("float32")
    result = gpunet.sweep(x, target, {"lr": [1e-4, 3e-2], "batch_size": 8}, sampler="grid", epochs=30, capture="numpy")
    assert result.classes is None
    assert result.best.parameters["lr"] == 3e-2
    assert result.best.score > 0.9 > result.trials[0].score
    mean, _ = result.ensemble(2)(gpunet.tensor(x[:3]))
    nets = [result.net(number)(gpunet.tensor(x[:3])).numpy(force=True) for number in range(2)]
    numpy.testing.assert_allclose(mean.numpy(force=True), numpy.mean(nets, 0), rtol=1e-5)


def test_early_stopping_and_halving() -> None:
    result = sweep(epochs=9, halving=3, patience=2, stack_size=12)
    reasons = {t.reason for t in result.trials}
    assert "halving" in reasons
    stopped = [t for t in result.trials if t.reason == "halving"]
    assert all(t.epochs in (1, 3, 9) for t in stopped)


def test_a_trial_that_diverges_is_stopped() -> None:
    x, y = digits()
    ranges = {"lr": [1e30, 0.01], "optimizer": "sgd"}
    result = gpunet.sweep(x, y, ranges, sampler="grid", epochs=3, capture="numpy")
    assert result.trials[0].reason == "not finite"
    alone = gpunet.sweep(x, y, {**ranges, "lr": [0.01]}, sampler="grid", epochs=3, capture="numpy")
    assert result.trials[1].loss == alone.trials[0].loss == result.best.loss


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_a_killed_sweep_goes_on(sampler: str, tmp_path: Path, monkeypatch: Any) -> None:
    if sampler == "optuna":
        pytest.importorskip("optuna")
    options = {"sampler": sampler, "trials": 8 if sampler == "random" else 20}
    expected = sweep(**options)
    trained: list[Any] = []

    def killed(trials: Any, *arguments: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(trials)
        return train_trials(trials, *arguments)

    monkeypatch.setattr(run, "train_trials", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, **options)
    assert len([*(tmp_path / "stacks").glob("*.json")]) == 2
    assert not (tmp_path / "trials.csv").exists()
    (tmp_path / "stacks" / "00002.safetensors").write_bytes(b"half")  # as of a process that was killed before the record
    again: list[Any] = []
    monkeypatch.setattr(run, "train_trials", lambda trials, *rest: again.append(trials) or train_trials(trials, *rest))
    assert_same(sweep(tmp_path, **options), expected)
    assert not [trials for trials in again if trials in trained], "finished stacks are not trained again"
    again.clear()
    assert_same(sweep(tmp_path, **options), expected)
    assert not again


def test_folders_of_other_sweeps(tmp_path: Path) -> None:
    sweep(tmp_path / "a", trials=2, epochs=1)
    with pytest.raises(ArgumentError, match="a sweep of trials = 2, not 3"):
        sweep(tmp_path / "a", trials=3, epochs=1)
    x, y = digits()
    with pytest.raises(ArgumentError, match="a sweep of other data"):
        gpunet.sweep(x + 1, y, RANGES, **{**OPTIONS, "trials": 2, "epochs": 1}, folder=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("")
    with pytest.raises(ArgumentError, match=r"has notes\.txt, but no sweep"):
        sweep(tmp_path / "b")
    assert os.listdir(tmp_path / "b") == ["notes.txt"]
    with pytest.raises(ArgumentError, match=r"cannot write the folder .*notes\.txt: "):
        sweep(tmp_path / "b" / "notes.txt")
    (tmp_path / "a" / "sweep.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        sweep(tmp_path / "a", trials=2, epochs=1)
    sweep(tmp_path / "c", trials=2, epochs=1)
    record = tmp_path / "c" / "stacks" / "00000.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "trials": [7]}))
    with pytest.raises(CheckpointError, match="other trials than the sampler drew"):
        sweep(tmp_path / "c", trials=2, epochs=1)
    record.write_text(json.dumps({**json.loads(record.read_text()), "trials": [0], "outcomes": [{}]}))
    with pytest.raises(CheckpointError, match="are damaged"):
        sweep(tmp_path / "c", trials=2, epochs=1)


def test_wrong_arguments() -> None:
    x, y = digits()
    for options, error, message in (
        ({"trials": 0}, ArgumentError, "trials=0"),
        ({"halving": 1}, ArgumentError, "halving=1"),
        ({"held_out": 0.0}, ArgumentError, "held_out=0.0"),
        ({"task": "ranking"}, ArgumentError, "task='ranking'"),
        ({"jobs": 0}, ArgumentError, "jobs=0"),
        ({"jobs": "two"}, ArgumentError, "jobs='two'"),
        ({"jobs": 1.5}, ArgumentError, "jobs=1.5"),
        ({"trials": 2.5}, ArgumentError, "trials=2.5; expected a whole number of 1 or more"),
        ({"epochs": "3"}, ArgumentError, "epochs='3'"),
        ({"patience": 0}, ArgumentError, "patience=0"),
        ({"seed": -1}, ArgumentError, "seed=-1; expected a whole number of 0 or more"),
        ({"held_out": "a"}, ArgumentError, "held_out='a'"),
        ({"held_out": numpy.nan}, ArgumentError, "held_out=nan"),
        ({"held_out": (x,)}, ArgumentError, "held_out has 1 items"),
        ({"held_out": (x[:0], y[:0])}, ShapeError, "held_out has shapes"),
        ({"held_out": (x, y[:5])}, ShapeError, "held_out has shapes"),
        ({"held_out": (x, numpy.array(["other"] * len(x)))}, DataError, "label 'other'"),
    ):
        with pytest.raises(error, match=message):
            gpunet.sweep(x, y, RANGES, **options)
    with pytest.raises(ShapeError, match=r"x has shape \(120, 4\), y \(5,\)"):
        gpunet.sweep(x, y[:5], RANGES)
    with pytest.raises(ShapeError, match=r"expected numbers \(n, f\)"):
        gpunet.sweep(x[0], y, RANGES)
    with pytest.raises(DataError, match="not finite"):
        gpunet.sweep(numpy.full_like(x, numpy.nan), y, RANGES)
    with pytest.raises(DataError, match="expected numbers of a regression"):
        gpunet.sweep(x, y.astype(str), RANGES, task="regression")
    with pytest.raises(DataError, match="labels of one type"):
        gpunet.sweep(x, numpy.array([1, "a"] * 60, object), RANGES)


# ---- processes ------------------------------------------------------------------------------------------------------------


def _has(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def test_processes_of_joblib(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    expected = sweep()
    with joblib.parallel_config(backend="threading"):
        assert_same(sweep(tmp_path, jobs=None), expected)


@pytest.mark.exhaustive
def test_several_processes(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    expected = sweep()
    assert_same(sweep(tmp_path, jobs=2), expected)


@pytest.mark.exhaustive
def test_dask() -> None:
    distributed = pytest.importorskip("distributed")
    joblib = pytest.importorskip("joblib")
    expected = sweep()
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None), joblib.parallel_config(backend="dask"):
        assert_same(sweep(jobs=None), expected)


SCRIPT = textwrap.dedent("""
    import sys
    from tests.sweeps.test_sweep import assert_same, sweep
    result = sweep(sys.argv[1], jobs="mpi" if "mpi" in sys.argv else 1)
    assert_same(result, sweep())
    print("same")
""")


@pytest.mark.exhaustive
@pytest.mark.skipif(not _has("mpi4py") or shutil.which("mpiexec", path=str(Path(sys.executable).parent)) is None, reason="no MPI")
def test_processes_of_mpi(tmp_path: Path) -> None:
    launcher = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    command = [launcher, "-n", "2", sys.executable, "-c", SCRIPT, str(tmp_path / "sweep"), "mpi"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.stdout.count("same") == 2, found.stderr
    assert (tmp_path / "sweep" / "trials.csv").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    command[-2] = str(tmp_path / "other")  # both processes end
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode != 0
    assert "ArgumentError: sweep: folder" in found.stderr and "ProcessError: sweep: rank 0 stopped with" in found.stderr


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_process_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = [sys.executable, "-c", SCRIPT.replace("result = sweep(", "result = sweep(epochs=200, folder="), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not [*folder.glob("stacks/*.json")]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "trials.csv").exists()
    assert_same(sweep(folder, epochs=200), sweep(epochs=200))
