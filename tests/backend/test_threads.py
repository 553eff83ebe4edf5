"""Helper threads of captured steps: same bits with any number, concurrent steps, after a fork, at interpreter exit."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import threads
from gpunet.captured import CapturedStep, capture
from gpunet.captured.compiled import module, regions
from gpunet.errors import ArgumentError

F = nn.functional
compiled = pytest.mark.skipif(not module.available(), reason="Numba is not installed")


@pytest.fixture(autouse=True)
def _number_of_threads() -> Iterator[None]:
    before = threads._helpers.count
    yield
    threads._helpers.count = before


def training_step(model: Callable[[gpunet.Tensor], gpunet.Tensor], optimizer: gpunet.optim.Optimizer) -> CapturedStep:
    """Return a compiled training step with cross-entropy loss."""

    @capture(backend="numba")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step  # type: ignore[no-any-return]


def large_step(optimizer: str = "SGD", seed: int = 0) -> tuple[CapturedStep, list[Any], list[gpunet.Tensor]]:
    """Return a step whose products, elementwise loops and column sums are large enough for several threads."""
    gpunet.manual_seed(seed)
    model = nn.Sequential(nn.Linear(150, 500), nn.Tanh(), nn.Linear(500, 7))
    step = training_step(model, getattr(gpunet.optim, optimizer)(model.parameters(), lr=0.05))
    generator = numpy.random.default_rng(seed)
    x = gpunet.tensor(generator.normal(size=(250, 150)).astype("float32"))
    y = gpunet.tensor(generator.integers(0, 7, 250))
    return step, [x, y], list(model.parameters())


def trained(count: int, optimizer: str = "SGD") -> list[bytes]:
    gpunet.set_num_threads(count)
    step, data, parameters = large_step(optimizer)
    losses = [step(*data).numpy().tobytes() for _ in range(12)]
    assert step.recordings[0].lowering.source.count("run(table") > 4
    return [*losses, *(p.detach().numpy().tobytes() for p in parameters)]


@compiled
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_bits_do_not_depend_on_the_number_of_threads(optimizer: str) -> None:
    one = trained(1, optimizer)
    for count in (2, 3):
        assert trained(count, optimizer) == one


@compiled
def test_regions_compute_the_same_as_the_eager_step() -> None:
    step, data, parameters = large_step()
    before = [p.detach().numpy().copy() for p in parameters]
    losses = [step(*data).item() for _ in range(3)]
    found = [p.detach().numpy().copy() for p in parameters]
    with gpunet.no_grad():
        for p, values in zip(parameters, before, strict=True):
            p.copy_(gpunet.tensor(values))
    expected = [step.function(*data).item() for _ in range(3)]
    numpy.testing.assert_allclose(losses, expected, rtol=1e-5)
    for p, values in zip(parameters, found, strict=True):
        numpy.testing.assert_allclose(values, p.detach().numpy(), rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_and_sums_split_along_rows_and_columns(dtype: str) -> None:
    random = numpy.random.default_rng(3)
    shapes = [(3001, 21, 100), (40, 3001, 61), (999, 333, 77), (50, 260, 530)]
    arrays = [random.normal(size=s).astype(dtype) for m, n, k in shapes for s in ((m, k), (n, k))]

    @capture(backend="numba")
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        products = [p for a, b in zip(given[:-2:2], given[1:-2:2]) for p in (a @ b.T, (b @ a.T).T)]
        a, b = given[-2:]
        products.append(a.T.contiguous().T @ b.T.contiguous())  # deep enough that its first operand is transposed
        return [*products, (products[4] * 0.1).exp().sum(0), (products[2] * products[2]).sum(1)]

    tensors = [gpunet.tensor(a) for a in arrays]
    step(*tensors)
    gpunet.set_num_threads(2)
    found = [t.numpy() for t in step(*tensors)]
    products = [p for a, b in zip(arrays[:-2:2], arrays[1:-2:2]) for p in (a @ b.T, a @ b.T)]
    products.append(arrays[-2] @ arrays[-1].T)
    expected = [*products, numpy.exp(products[4] * 0.1).sum(0), (products[2] * products[2]).sum(1)]
    for a, b in zip(found, expected, strict=True):
        tolerance = (2e-5 if dtype == "float32" else 1e-11) * max(1.0, float(numpy.abs(b).max()))
        numpy.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    regions = step.recordings[0].lowering.source.partition("def do(")[2].partition("def run(")[0]
    assert "i8(21), i8(100), i8(21)" in regions  # a product split along its rows
    assert "i8(21), min(" in regions  # a product split along its columns
    assert regions.count("nest") >= 2


def closure_of(step: CapturedStep) -> dict[str, Any]:
    """Return the closure variables of the replay function."""
    replay: Any = step.recordings[0]._run
    return dict(zip(replay.__code__.co_freevars, (cell.cell_contents for cell in replay.__closure__)))


def team_of(step: CapturedStep) -> Any:
    return closure_of(step)["step_team"]


@compiled
def test_shared_functions_of_regions_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path))  # an empty cache
    step, data, _ = large_step()
    x, y = data
    step(x[:240], y[:240])
    generated = sys.modules[closure_of(step)["part0"].__module__]
    assert len(generated.run.signatures) == 1
    assert len(generated.do.signatures) == 1


@compiled
def test_helpers_take_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that never sleeps and is never dismissed takes a chunk eventually, even on a single core."""
    monkeypatch.setattr(regions, "SPINS", 1 << 62)
    monkeypatch.setattr(regions.Team, "_next_turn", lambda team: None)
    gpunet.set_num_threads(2)
    step, data, _ = large_step()
    step(*data)
    team = team_of(step)
    taken = 0
    for _ in range(10_000):
        step(*data)
        taken = int(team.state[8])  # in the last region
        if taken:
            break
    team.state[24] = 1  # go
    assert taken, "in ten thousand steps, the helper got no chunk"


@compiled
def test_dropped_step_frees_its_memory_at_once() -> None:
    gpunet.set_num_threads(1)
    step, data, _ = large_step()
    step(*data)
    team = weakref.ref(team_of(step))
    gc.collect()
    gc.disable()
    try:
        del step
        assert team() is None
    finally:
        gc.enable()


@compiled
def test_small_step_is_one_function_without_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(threads, "offer", fail)
    gpunet.set_num_threads(4)
    weight = gpunet.ones(32, 64)
    step = capture(lambda x: F.relu(F.linear(x, weight)).sum(), backend="numba")
    x = gpunet.ones(64, 64)
    assert [step(x).item() for _ in range(3)] == [64.0 * 64 * 32] * 3
    source = step.recordings[0].lowering.source
    assert source.count("def part") == 1
    assert "step_team" not in source
    assert "run(" not in source


@compiled
def test_two_steps_in_two_threads() -> None:
    gpunet.set_num_threads(3)
    expected = [trained_alone(seed) for seed in (1, 2)]
    found: dict[int, list[float]] = {}

    def work(seed: int) -> None:
        found[seed] = trained_alone(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[1], found[2]] == expected


_building = threading.Lock()  # initialisation uses the global random generator


def trained_alone(seed: int, steps: int = 30) -> list[float]:
    with _building:
        step, data, _ = large_step(seed=seed)
    return [step(*data).item() for _ in range(steps)]


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_and_at_the_end_of_the_process() -> None:
    """Fork while helpers wait: parent and child compute the same and exit cleanly."""
    code = (
        "import os, gpunet, warnings; from tests.backend import test_threads as t; warnings.simplefilter('ignore')\n"
        "t.regions.Team._next_turn = lambda team: None  # always use helpers, whatever the measured times\n"
        "gpunet.set_num_threads(3); step, data, _ = t.large_step()\n"
        "for _ in range(20): step(*data)\n"
        "child = os.fork()\n"
        "losses = [step(*data).item() for _ in range(20)]\n"
        "os.write(1, f'{losses[-1]} {len(t.threads._helpers._threads)}\\n'.encode())\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    parent, child = (line.split() for line in done.stdout.splitlines())
    assert parent == child
    assert parent[1] == "2"


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.setenv("GPUNET_NUM_THREADS", "5")
    assert gpunet.get_num_threads() == 5
    gpunet.set_num_threads(2)
    assert gpunet.get_num_threads() == 2
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.delenv("GPUNET_NUM_THREADS")
    assert gpunet.get_num_threads() == threads.available_cores()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many"])
def test_invalid_number_of_threads(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=f"set_num_threads: {wrong!r} threads; expected a positive whole number"):
        gpunet.set_num_threads(wrong)
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.setenv("GPUNET_NUM_THREADS", str(wrong))
    with pytest.raises(ArgumentError, match="GPUNET_NUM_THREADS"):
        gpunet.get_num_threads()


def test_helpers_outlive_work_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    helpers = threads._Helpers()  # a new pool, so that one thread must do both

    def fail() -> None:
        raise ValueError("planted")

    helpers.offer(fail, 1)
    helpers.offer(done.set, 1)
    assert done.wait(30)
    assert "planted" in caplog.text
    helpers.stop()


@compiled
def test_step_works_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example if a container limits threads, or during interpreter shutdown."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", threads._Helpers())
    gpunet.set_num_threads(3)
    step, data, _ = large_step()
    monkeypatch.setattr(threading.Thread, "start", fail)
    expected = trained_alone(0, 3)
    assert [step(*data).item() for _ in range(3)] == expected
    assert not threads._helpers._threads


def test_measured_times_decide_whether_threads_help(monkeypatch: pytest.MonkeyPatch) -> None:
    now, team = 0.0, regions.Team()
    monkeypatch.setattr(regions, "time", SimpleNamespace(perf_counter=lambda: now))

    def steps(count: int, with_helpers: float, alone: float = 0.6e-4) -> list[bool]:
        """Run ``count`` steps that take the given seconds; return for each whether it used helpers."""
        nonlocal now
        used = []
        for _ in range(count):
            team.begin()
            used.append(not team._gone[0])
            now += with_helpers if used[-1] else alone
            team.end()
        return used

    trial = ([True] * 64 + [False] * 64) * 3
    assert steps(384 + 7681, 0.3e-4) == trial + [True] * 7681
    assert steps(384, 0.59e-4) == trial, "a second trial, in which helpers gain too little"
    assert steps(769, 0.3e-4) == [False] * 769
    assert steps(384 + 7681, 0.3e-4) == trial + [True] * 7681, "the next trial comes soon"
    assert steps(6 + 121, 0.01, 0.02) == [True, False] * 3 + [True] * 121, "long steps need a shorter trial"


def test_slow_steps_with_helpers_count_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now, team, count = 0.0, regions.Team(), 0
    monkeypatch.setattr(regions, "time", SimpleNamespace(perf_counter=lambda: now))
    for _ in range(384):
        team.begin()
        count += not team._gone[0]
        helped = 3e-3 if count % 50 == 0 else 0.3e-4  # mostly twice as fast, but sometimes the helper's core is busy
        now += 0.6e-4 if team._gone[0] else helped
        team.end()
    team.begin()
    assert team._gone[0]
