"""bench/gpu_session.py without a GPU: every phase runs, is killed at its time limit, and keeps its results."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet.tools.bench import ceilings
from tests import driver

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


#: phase -> whether its results are of "cuda", on the stand-in driver.
_IS_ON_CUDA: dict[str, Callable[[Any], bool]] = {
    "suite": lambda phase: phase["lines"][-1].startswith("--device cuda"),
    "kernels": lambda phase: phase["rows"]["header"] == "cuda:0",
    "ceilings": lambda phase: phase["rows"]["node"] > 0,
    "compare": lambda phase: len(phase["rows"]) > 1,
    "steps": lambda phase: phase["rows"]["header"]["settings"]["device"] == "cuda:0",
    "sanitizer": lambda phase: True,
}


@pytest.mark.parametrize("name", session.PHASES)
def test_phase_runs_dry(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.PHASES, name, session.PHASES[name]._replace(seconds=600.0))  # enough for a busy machine
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
    if driver.available()[0]:
        assert _IS_ON_CUDA[name](phase), phase["lines"]
    if name == "suite":
        assert phase["rows"]["counts"].get("passed", 0) > 1
        assert set(phase["rows"]["exit codes"]) <= {0, 5}  # a shard may have no tests
    if name == "sanitizer":
        assert phase["rows"]["emulator"] == 0


def test_time_limits_add_up_to_at_most_eight_minutes() -> None:
    assert sum(phase.seconds for phase in session.PHASES.values()) <= session.TOTAL_SECONDS == 480.0


def test_without_a_gpu_it_reports_that_cuda_is_not_ready(tmp_path: Path) -> None:
    if gpunet.cuda_status().ready:
        pytest.skip("CUDA is ready")
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert "CUDA is not ready" in done.stdout
    assert not list(tmp_path.iterdir())


def use_phase(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run phases from a copy of the script in which ``source`` overrides the definition of a phase."""
    script = folder / "session.py"
    text = SCRIPT.read_text(encoding="utf-8").replace("class Phase(NamedTuple)", source + "class Phase(NamedTuple)")
    script.write_text(text, encoding="utf-8")
    monkeypatch.setattr(session, "__file__", str(script))


def test_hanging_phase_is_killed_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phase starts a child process, yields, and then hangs."""
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
        """Times out as soon as a row has been saved."""

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
    assert select.select([child], [], [], 60.0)[0]  # becomes readable when the child has ended
    os.close(child)


def test_failing_phase_keeps_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "session.py"
    text = SCRIPT.read_text(encoding="utf-8").replace(
        "    if dry and _dry_device() != ", "    1 / 0\n    if dry and _dry_device() != "
    )
    broken.write_text(text, encoding="utf-8")
    monkeypatch.setattr(session, "__file__", str(broken))
    result = session.watch_phase("ceilings", True, 600.0, tmp_path)
    assert not result["complete"]
    assert "ZeroDivisionError" in "\n".join(session.describe("ceilings", result))


def test_unknown_phase(capsys: pytest.CaptureFixture[str]) -> None:
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
    if number == 41:  # as if CUDA no longer worked
        import sys, types
        runtime = types.SimpleNamespace(deviceSynchronize=lambda: 1 / 0)
        sys.modules["cupy"] = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
        assert False
"""


def test_shards_report_every_test_once_despite_crashes(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(TESTS, encoding="utf-8")
    outcomes: dict[str, str] = {}
    why: dict[str, str] = {}
    for number in range(2):
        reports: queue.Queue[Any] = queue.Queue()
        session._run_shard(number, 2, ["-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tests)], reports)
        *found, code = reports.queue
        assert code in (0, 1)
        for each in found:
            assert each["test"] not in outcomes
            outcomes[each["test"]], why[each["test"].rpartition("[")[2]] = each["outcome"], each["why"]
    assert len(outcomes) == 50
    of = {name.rpartition("[")[2]: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    assert of == {"10]": "failed", "30]": "error", "33]": "skipped", "41]": "failed"}
    assert "AssertionError: ten" in why["10]"]
    assert "the process ended with code -6" in why["30]"]
    assert "no longer works" in why["41]"]


def test_phase_continues_in_a_new_process_after_a_cuda_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---- the code for a GPU -----------------------------------------------------------------------------------------------


def test_bandwidth_and_gemm_rate_of_a_gpu(gpu: str) -> None:
    assert ceilings.cuda_bandwidth(1e5) > 0
    assert ceilings.gemm_rate("float32", 64) > 0


def test_latency_of_a_gpu(gpu: str) -> None:
    found = ceilings.graph_latency()
    assert set(found) == {"node", "launch"}
    assert all(seconds > 0 for seconds in found.values())
