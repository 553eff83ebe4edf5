"""bench/gpu_session.py without a GPU: every phase runs dry, is ended at its time limit, and keeps its results."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.tools.bench import ceilings

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "bench" / "gpu_session.py"


def load() -> Any:
    specification = importlib.util.spec_from_file_location("gpu_session", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


session = load()


def read_results(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("*.json")
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".txt").read_text(encoding="utf-8")
    return results


@pytest.mark.parametrize("name", session.PHASES)
def test_phase_runs_dry(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.PHASES, name, session.PHASES[name]._replace(seconds=600.0))  # the machine may be busy
    monkeypatch.setattr(session, "TOTAL_SECONDS", 600.0)
    code = session.main(["--dry", "--phase", name, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0, out
    phase = read_results(tmp_path)["phases"][name]
    assert phase["complete"]
    assert phase["lines"]
    failed = [key for key, row in phase["rows"].items() if isinstance(row, dict) and row.get("error")]
    if name == "kernels":
        failed = [key for key, row in phase["rows"].items() if isinstance(row, dict) and not row["passed"]]
    assert not failed, out
    if name == "suite":
        assert phase["rows"]["counts"].get("passed", 0) > 1
        assert set(phase["rows"]["exit codes"]) <= {0, 5}  # a shard may have no tests
    if name == "sanitizer":
        assert phase["rows"]["emulator"] == 0


def test_time_limits_add_up_to_at_most_eight_minutes() -> None:
    assert sum(phase.seconds for phase in session.PHASES.values()) <= session.TOTAL_SECONDS == 480.0


def test_without_a_gpu_it_exits_with_a_message(tmp_path: Path) -> None:
    if gpunet.cuda_status().ready:
        pytest.skip("a GPU is available")
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert "no card to measure on" in done.stdout
    assert not list(tmp_path.iterdir())


def use_phase(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run phases from a copy of the script in which ``source`` redefines a phase."""
    script = folder / "session.py"
    text = SCRIPT.read_text(encoding="utf-8").replace("class Phase(NamedTuple)", source + "class Phase(NamedTuple)")
    script.write_text(text, encoding="utf-8")
    monkeypatch.setattr(session, "__file__", str(script))


def test_hanging_phase_is_ended_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phase starts a child process, yields a row, and hangs."""
    hanging = (
        "def ceilings(dry, done):\n"
        '    """Hangs."""\n'
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    yield 'child', child.pid, 'first row'\n"
        "    time.sleep(600)\n\n\n"
    )
    use_phase(hanging, tmp_path, monkeypatch)
    monkeypatch.setattr(session, "ROOT", ROOT)

    class Impatient(subprocess.Popen):  # type: ignore[type-arg]
        """Times out as soon as a row has been written."""

        def wait(self, timeout: float | None = None) -> int:
            while timeout is not None and self.poll() is None:
                if (tmp_path / "ceilings.json").exists():
                    raise subprocess.TimeoutExpired(self.args, timeout)
                time.sleep(0.02)
            return super().wait()

    monkeypatch.setattr(session, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": Impatient}))
    result = session.watch_phase("ceilings", True, 600.0, tmp_path)
    assert result["timed_out"]
    assert not result["complete"]
    assert result["lines"] == ["first row"]
    try:
        child = os.pidfd_open(result["rows"]["child"])
    except ProcessLookupError:
        return  # it has ended and was reaped
    assert select.select([child], [], [], 60.0)[0]  # ready when it has ended
    os.close(child)


def test_phase_that_raises_keeps_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "session.py"
    text = SCRIPT.read_text(encoding="utf-8").replace(
        "    if dry:\n        found = measured", "    1 / 0\n    if dry:\n        found = measured"
    )
    broken.write_text(text, encoding="utf-8")
    monkeypatch.setattr(session, "__file__", str(broken))
    result = session.watch_phase("ceilings", True, 600.0, tmp_path)
    assert not result["complete"]
    assert "ZeroDivisionError" in "\n".join(session.describe("ceilings", result))


def test_unknown_phase_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        session.main(["--phase", "stepz"])
    assert "stepz; expected some of suite, kernels" in capsys.readouterr().err


TESTS = """
import os, pytest
@pytest.mark.parametrize("number", range(50))
def test_some(number, tmp_path_factory):
    if number == 10:
        assert number == 11, "ten"
    if number == 30:
        os.abort()
    if number == 33:
        pytest.skip()
    if number == 41:  # as if the GPU no longer answered
        import sys, types
        runtime = types.SimpleNamespace(deviceSynchronize=lambda: 1 / 0)
        sys.modules["cupy"] = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
        assert False
"""


def test_shards_report_every_test_once_even_if_their_process_dies(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(TESTS, encoding="utf-8")
    outcomes: dict[str, str] = {}
    why: dict[str, str] = {}
    for number in range(2):
        told: queue.Queue[Any] = queue.Queue()
        session._part(number, 2, ["-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tests)], told)
        *found, code = told.queue
        assert code in (0, 1)
        for each in found:
            assert each["test"] not in outcomes
            outcomes[each["test"]], why[each["test"].rpartition("[")[2]] = each["outcome"], each["why"]
    assert len(outcomes) == 50
    of = {name.rpartition("[")[2]: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    assert of == {"10]": "failed", "30]": "error", "33]": "skipped", "41]": "failed"}
    assert "AssertionError: ten" in why["10]"]
    assert "its process ended with code -6" in why["30]"]
    assert "no longer answers" in why["41]"]


def test_phase_restarts_in_a_new_process_after_the_gpu_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = (
        "def ceilings(dry, done):\n"
        '    """Dies."""\n'
        "    for key in ('a', 'b', 'c'):\n"
        "        if key not in done:\n"
        "            yield key, os.getpid(), key\n"
        "            if key == 'b':\n"
        "                raise SystemExit(RESTART)\n\n\n"
    )
    use_phase(dying, tmp_path, monkeypatch)
    result = session.watch_phase("ceilings", True, 600.0, tmp_path)
    assert result["complete"]
    assert result["lines"] == ["a", "b", "c"]
    assert result["rows"]["a"] == result["rows"]["b"] != result["rows"]["c"]


# ---- the code for a GPU, on a stand-in for CuPy -----------------------------------------------------------------------


class Event:
    """Stands in for cupy.cuda.Event."""

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        assert self.at


class Graph:
    """Stands in for cupy.cuda.Graph."""

    def __init__(self) -> None:
        self.launches = 0

    def upload(self, stream: Any = None) -> None:
        assert stream is not None

    def launch(self, stream: Any = None) -> None:
        self.launches += 1


class Stream:
    """Stands in for cupy.cuda.Stream; ``capturing`` lists the launches during a capture."""

    ptr = 1
    capturing: list[Any] | None = None

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking, "capture needs a non-blocking stream"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def synchronize(self) -> None:
        assert Stream.capturing is None, "synchronising is an error during capture"

    def begin_capture(self, mode: Any = None) -> None:
        Stream.capturing = []

    def end_capture(self) -> Graph:
        assert len(Stream.capturing or ()) == ceilings._LAUNCHES
        Stream.capturing = None
        return Graph()


class Module:
    """Stands in for cupy.cuda.Module."""

    def load(self, cubin: bytes) -> None:
        assert cubin[:4] == b"\x7fELF"

    def get_function(self, name: str) -> Any:
        assert "nothing" in name

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0) -> None:
            if Stream.capturing is not None:
                Stream.capturing.append(grid)

        return launch


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    cuda = SimpleNamespace(
        Device=lambda index=0: SimpleNamespace(compute_capability="90"),
        Event=Event,
        Module=Module,
        Stream=Stream,
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        get_elapsed_time=lambda start, end: 1e3 * (end.at - start.at),
    )
    names = ("asarray", "empty_like", "copyto", "matmul")
    stand_in = SimpleNamespace(cuda=cuda, **{name: getattr(numpy, name) for name in names})
    monkeypatch.setattr(devices, "cupy", lambda: stand_in)
    return stand_in


def test_bandwidth_and_products_on_a_gpu(fake_gpu: Any) -> None:
    assert ceilings.cuda_bandwidth(1e5) > 0
    assert ceilings.gemm_rate("float32", 64) > 0
    with pytest.raises(gpunet.errors.DeviceError, match="no cuBLAS for products in bfloat16"):
        ceilings.gemm_rate("bfloat16", 64)


def test_latency_on_a_gpu(fake_gpu: Any) -> None:
    from gpunet.backend import compiler
    from gpunet.errors import CompileError

    try:
        compiler.nvrtc_version()
    except CompileError:
        pytest.skip("NVRTC is not installed")
    found = ceilings.graph_latency()
    assert set(found) == {"node", "launch"}
    assert all(seconds > 0 for seconds in found.values())
