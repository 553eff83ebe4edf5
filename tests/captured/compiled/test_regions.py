"""Parallel regions of compiled steps: the same bits with any number of threads, forks, two steps at once, trials."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import threads
from gpunet.captured import CapturedStep, capture
from gpunet.captured.compiled import module, regions
from tests.captured.compiled.steps import large_step

F = nn.functional
needs_numba = pytest.mark.skipif(not module.available(), reason="Numba is not installed")


@pytest.fixture(autouse=True)
def _keep_number_of_threads() -> Iterator[None]:
    before = threads._helpers.count
    yield
    threads._helpers.count = before


def train(num_threads: int, optimizer: str = "SGD") -> list[bytes]:
    gpunet.set_num_threads(num_threads)
    step, data, parameters = large_step(optimizer)
    losses = [step(*data).numpy().tobytes() for _ in range(12)]
    assert step.recordings[0].lowering.source.count(" chunks\n") > 4
    return [*losses, *(p.detach().numpy().tobytes() for p in parameters)]


@needs_numba
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_bits_do_not_depend_on_the_number_of_threads(optimizer: str) -> None:
    expected = train(1, optimizer)
    for num_threads in (2, 3):
        assert train(num_threads, optimizer) == expected


@needs_numba
def test_regions_agree_with_eager() -> None:
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


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_and_sums_in_chunks_of_rows_and_columns(dtype: str) -> None:
    random = numpy.random.default_rng(3)
    shapes = [(3001, 21, 100), (40, 3001, 61), (999, 333, 77), (50, 260, 530)]
    arrays = [random.normal(size=s).astype(dtype) for m, n, k in shapes for s in ((m, k), (n, k))]

    @capture(backend="numba")
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        products = [p for a, b in zip(given[:-2:2], given[1:-2:2]) for p in (a @ b.T, (b @ a.T).T)]
        a, b = given[-2:]
        products.append(a.T.contiguous().T @ b.T.contiguous())  # deep enough to transpose its first operand
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
    chunks = [line for line in step.recordings[0].lowering.source.splitlines() if line.endswith(" chunks")]
    assert any("21, 100, 21" in line for line in chunks)  # a product in chunks of rows
    assert any("21, min(" in line for line in chunks)  # a product in chunks of columns
    assert sum("nest" in line for line in chunks) >= 2


def constants_of(step: CapturedStep) -> dict[str, Any]:
    """The constants of a step's replay function."""
    replay: Any = step.recordings[0]._run
    return dict(zip(replay.__code__.co_freevars, (cell.cell_contents for cell in replay.__closure__)))


def team_of(step: CapturedStep) -> Any:
    return constants_of(step)["step_team"]


@needs_numba
def test_a_step_of_other_sizes_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions are those of the first one, with other arguments."""

    def of_width(width: int) -> Any:
        step = capture(lambda x, y: (F.relu(x * 2.0 + y), (x + y).sum(0)), backend="numba")
        x, y = gpunet.randn(128, width), gpunet.randn(128, width)
        found, total = step(x, y)
        numpy.testing.assert_allclose(found.numpy(), numpy.maximum(x.numpy() * 2 + y.numpy(), 0))
        numpy.testing.assert_allclose(total.numpy(), (x + y).numpy().sum(0, dtype="float64"), rtol=1e-4, atol=1e-4)

    of_width(80)
    before = {name for name in sys.modules if name.startswith("gpunet_")}
    monkeypatch.setattr(module, "_write", None)  # writes the source of what is not compiled
    of_width(112)
    assert {name for name in sys.modules if name.startswith("gpunet_")} == before


@needs_numba
def test_helpers_run_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that neither sleeps nor is dismissed runs a chunk sooner or later, even on a single core."""
    monkeypatch.setattr(regions, "MAX_SPINS", 1 << 62)
    monkeypatch.setattr(regions.Team, "_next_turn", lambda team: None)
    gpunet.set_num_threads(2)
    step, data, _ = large_step()
    step(*data)
    team = team_of(step)
    finished = 0
    for _ in range(10_000):
        step(*data)
        finished = int(team.state[8])  # chunks of the last region that helpers ran
        if finished:
            break
    team.state[24] = 1  # dismiss the helper
    assert finished, "the helper ran no chunk in 10,000 steps"


@needs_numba
def test_a_deleted_step_frees_its_memory_at_once() -> None:
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


@needs_numba
def test_a_small_step_is_one_function_and_wakes_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert " chunks" not in source


@needs_numba
def test_two_steps_in_two_threads() -> None:
    gpunet.set_num_threads(3)
    expected = [losses_of(seed) for seed in (1, 2)]
    found: dict[int, list[float]] = {}

    def work(seed: int) -> None:
        found[seed] = losses_of(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[1], found[2]] == expected


_initialising = threading.Lock()  # the generator of initial weights is global


def losses_of(seed: int, num_steps: int = 30) -> list[float]:
    with _initialising:
        step, data, _ = large_step(seed=seed)
    return [step(*data).item() for _ in range(num_steps)]


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_and_exit_while_helpers_wait() -> None:
    """In a process of its own, forked while helpers wait: parent and child compute the same, and both exit."""
    code = (
        "import os, gpunet, warnings; from tests.captured.compiled import test_regions as t; warnings.simplefilter('ignore')\n"
        "t.regions.Team._next_turn = lambda team: None  # no trials: helpers always take part\n"
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


@needs_numba
def test_a_step_runs_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example because a container limits threads, or the process is exiting."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", threads._Helpers())
    gpunet.set_num_threads(3)
    step, data, _ = large_step()
    monkeypatch.setattr(threading.Thread, "start", fail)
    expected = losses_of(0, 3)
    assert [step(*data).item() for _ in range(3)] == expected
    assert not threads._helpers._threads


def test_trials_decide_whether_helpers_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now, team = 0.0, regions.Team()
    monkeypatch.setattr(regions, "time", SimpleNamespace(perf_counter=lambda: now))

    def steps(count: int, with_helpers: float, alone: float = 0.6e-4) -> list[bool]:
        """Whether helpers take part in each of ``count`` steps; a step takes ``with_helpers`` or ``alone`` seconds."""
        nonlocal now
        has_helpers = []
        for _ in range(count):
            team.begin()
            has_helpers.append(not team._is_alone[0])
            now += with_helpers if has_helpers[-1] else alone
            team.end()
        return has_helpers

    trial = ([True] * 64 + [False] * 64) * 3
    assert steps(384 + 7681, 0.3e-4) == trial + [True] * 7681
    assert steps(384, 0.59e-4) == trial, "a second trial, in which helpers gain too little"
    assert steps(769, 0.3e-4) == [False] * 769
    assert steps(384 + 7681, 0.3e-4) == trial + [True] * 7681, "after a loss the next trial comes soon"
    assert steps(6 + 121, 0.01, 0.02) == [True, False] * 3 + [True] * 121, "a trial of long steps is shorter"


def test_trials_count_steps_that_wait_for_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    now, team, count = 0.0, regions.Team(), 0
    monkeypatch.setattr(regions, "time", SimpleNamespace(perf_counter=lambda: now))
    for _ in range(384):
        team.begin()
        count += not team._is_alone[0]
        helped = 3e-3 if count % 50 == 0 else 0.3e-4  # mostly twice as fast, but sometimes its core is taken away
        now += 0.6e-4 if team._is_alone[0] else helped
        team.end()
    team.begin()
    assert team._is_alone[0]
