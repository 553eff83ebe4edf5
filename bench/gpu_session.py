"""Run all checks and benchmarks that need a GPU, from the source tree, in at most eight minutes.

    python3 bench/gpu_session.py                     all phases, the most important first
    python3 bench/gpu_session.py --phase steps       one phase, or several separated by commas
    python3 bench/gpu_session.py --dry               the code of every phase without a GPU, with tiny sizes

A dry session runs on "cuda" where the stand-in driver of tests/driver can be built, else on "emulated" or the CPU.

It needs Python, CuPy, NumPy and pytest, and uses PyTorch, JAX and compute-sanitizer if they are installed. Each phase is a
process with a time limit. It writes its results to disk row by row, so that a phase that crashes or is killed keeps them.
The results are bench/results/<date>-<gpu>.json and .txt, which should be committed; --out selects another folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the source tree, installed or not

TOTAL_SECONDS = 480.0
RESTART = 75  # exit status of a process in which CUDA no longer works; a new process continues

#: What a phase yields: key, value (a later row with the same key replaces it), and a line of text, or "".
Row = tuple[str, Any, str]


# ---- (a) the test suite -----------------------------------------------------------------------------------------------

SHARD = Path(__file__).resolve().with_name("shard.py")
#: Warnings are errors, except those that CuPy and PyTorch raise about each other.
_WARNINGS = "filterwarnings=error\nignore::Warning:cupy.*\nignore::Warning:torch.*"


def suite(dry: bool, done: set[str]) -> Iterator[Row]:
    """All tests that take a device, with --device cuda, in several processes."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    takes_device = re.compile(r"def \w+\([^)]*\b(device|gpu)\b|usefixtures\(\"gpu\"|available_devices\(\)|\"cuda\"", re.DOTALL)
    files = [f for f in files if takes_device.search(f.read_text(encoding="utf-8"))]  # importing the others takes time
    device, count = "cuda", min(12, max(1, (os.cpu_count() or 2) - 2))
    options = ["-q", "--tier", "all", "-m", "on_device", "--tb=short", "-p", "no:cacheprovider", "-o", _WARNINGS]
    if dry:
        device = "cuda" if _dry_device() == "cuda" else "cpu"
        count, files, options = 2, [ROOT / "tests" / "nn" / "test_nn.py"], [*options, "-k", "linear"]
    arguments = [*options, "--device", device, *(str(f.relative_to(ROOT)) for f in files)]
    reports: queue.Queue[Any] = queue.Queue()
    for number in range(count):
        threading.Thread(target=_run_shard, args=(number, count, arguments, reports), daemon=True).start()
    counts: dict[str, int] = {}
    codes: list[int] = []
    while len(codes) < count:
        found = reports.get()
        if isinstance(found, int):
            codes.append(found)
            continue
        outcome = found["outcome"]
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome in ("failed", "error"):
            last = (found["why"].strip().splitlines() or [""])[-1]
            yield found["test"], {"outcome": outcome, "why": found["why"]}, f"{outcome.upper()} {found['test']}: {last[:200]}"
        if sum(counts.values()) % 50 == 0:
            yield "counts", dict(counts), ""
    summary = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) or "no tests ran"
    yield "counts", dict(counts), ""
    yield "exit codes", sorted(codes), f"--device {device}: {summary}"
    if not set(codes) <= {0, 1, 5}:  # all passed, some failed, no tests in a shard
        raise RuntimeError(f"pytest ended with {codes}")


def _run_shard(number: int, count: int, arguments: list[str], reports: queue.Queue[Any]) -> None:
    """Run a shard of the tests, in a new process after each crash. Puts a dict per test, then the exit status."""
    done = 0
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    while True:
        command = [sys.executable, "-W", "ignore", str(SHARD), str(number), str(count), str(done), *arguments]
        running = None
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace", env=environment
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                found = json.loads(line)
                running = found["test"] if found["outcome"] is None else None
                if running is None:
                    done += 1
                    reports.put(found)
            code = process.wait()
        if running is not None:
            done += 1
            reports.put({"test": running, "outcome": "error", "why": f"the process ended with code {code}"})
        elif code != RESTART:
            reports.put(code)
            return


# ---- (b) every kernel -------------------------------------------------------------------------------------------------


def kernels(dry: bool, done: set[str]) -> Iterator[Row]:
    """gpunet selftest: every kernel on odd sizes with poisoned outputs, compared with float64 and between two launches."""
    from gpunet.backend.devices import Device
    from gpunet.launch.random import random_advance, random_bernoulli
    from gpunet.tools import selftest

    device = Device(_dry_device() if dry else "cuda")
    if not done:
        yield "header", str(device), selftest.HEADER
    for kernel in [random_advance, random_bernoulli] if dry else selftest.select_kernels():
        if kernel.name in done:
            continue
        try:
            row = selftest.check_kernel(kernel, device)
        except Exception as error:  # the driver raises several types
            yield kernel.name, {"passed": False, "error": repr(error)}, f"{kernel.name:<32}{type(error).__name__}: {error}"
            _restart_if_cuda_failed()
            continue
        found = row._asdict() | {"passed": row.passed, "error": row.error if row.error < float("inf") else None}
        yield kernel.name, found, selftest.describe(row)


def cuda_works() -> bool:
    """Whether CUDA still works in this process; True if it was not used.

    After an access out of bounds every later CUDA call in the process fails.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return True
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except Exception:  # a corrupted context raises many types
        return False
    return True


def _restart_if_cuda_failed() -> None:
    """Exit, so that a new process continues, if CUDA no longer works in this one."""
    if not cuda_works():
        raise SystemExit(RESTART)


def _dry_device() -> str:
    from gpunet import emulator
    from tests import driver

    if driver.available()[0]:
        return "cuda"
    return "emulated" if emulator.available() else "cpu"


# ---- (c) ceilings -----------------------------------------------------------------------------------------------------


def ceilings(dry: bool, done: set[str]) -> Iterator[Row]:
    """Limits of the GPU: copies of three sizes, matrix products in three precisions, latencies of graph node and launch."""
    from gpunet.tools.bench import ceilings as measured

    if dry and _dry_device() != "cuda":
        found = measured.measure("cpu", 1e5, size=64)
        yield "cpu", found, f"CPU: {found['gemm'] / 1e9:.1f} GFLOP/s, {found['bandwidth'] / 1e9:.1f} GB/s"
        return
    for footprint in (1e5,) if dry else (1e6, 3e7, 2e9):
        rate = measured.cuda_bandwidth(footprint)
        yield f"copy {footprint:.0e}", rate, f"copy, {footprint / 1e6:,.0f} MB read and written: {rate / 1e9:,.0f} GB/s"
    for name, seconds in measured.graph_latency().items():
        label = {"node": "empty graph node", "launch": "launch, host time"}[name]
        yield name, seconds, f"{label}: {1e6 * seconds:.2f} µs"
    for precision in ("float32", "tf32", "bfloat16"):
        for size in (64,) if dry else (512, 1024, 4096, 8192):
            try:
                rate = measured.gemm_rate(precision, size)
            except Exception as error:
                yield f"{precision} {size}", None, f"{precision} matrix product: {error}"
                break
            yield f"{precision} {size}", rate, f"{precision} matrix product, {size}³: {rate / 1e12:,.1f} TFLOP/s"


# ---- (d) kernels beside cuBLAS and PyTorch ----------------------------------------------------------------------------


def compare(dry: bool, done: set[str]) -> Iterator[Row]:
    """Every kernel, beside its equivalent in PyTorch (matrix products by cuBLAS)."""
    from gpunet.backend import devices
    from gpunet.launch.kernel import KERNELS
    from gpunet.launch.random import random_uniform
    from gpunet.ops.special import erf_forward
    from gpunet.tools.bench import ceilings as measured
    from gpunet.tools.bench import kernels as bench

    device = devices.Device(_dry_device() if dry else "cuda")
    timed: Callable[[Callable[[], object]], float] = measured.cuda_seconds if device.type == "cuda" else measured.best_seconds
    if not done:
        yield "header", None, f"{'kernel':34}{'launch':38}{'µs':>10}{'':>16}{'torch µs':>10}{'torch/ours':>11}"
    for width in (16,) if dry else (4096, 1024, 512):
        for kernel in (erf_forward, random_uniform) if dry else KERNELS.values():
            name = kernel.name
            if f"{name} {width}" in done:
                continue
            try:
                (launch,) = bench.launches(device, width, [kernel])
                if width < 4096 and not dry and not launch.is_compute_bound:
                    continue
                ours = timed(launch)
                theirs = launch.in_pytorch("cpu" if dry else "cuda")
                other = timed(theirs) if theirs is not None else None
            except Exception as error:
                yield f"{name} {width}", {"error": repr(error)}, f"{name:34}{type(error).__name__}: {error}"
                _restart_if_cuda_failed()
                continue
            amount, unit = launch.rate(ours)
            rate = f"{amount:,.0f} {unit}"
            found = {"label": launch.label, "seconds": ours, "torch": other, **launch.cost._asdict()}
            beside = f"{1e6 * other:>10.1f}{other / ours:>11.2f}" if other else f"{'–':>10}"
            yield f"{name} {width}", found, f"{name:34}{launch.label[:36]:38}{1e6 * ours:>10.1f}{rate:>16}{beside}"


# ---- (e) training steps -----------------------------------------------------------------------------------------------


def steps(dry: bool, done: set[str]) -> Iterator[Row]:
    """gpunet bench on the GPU: eager and captured steps beside PyTorch (eager, compiled, CUDA graph) and JAX."""
    from gpunet.tools.bench import report, session
    from gpunet.tools.bench.ceilings import floor, measure
    from gpunet.tools.bench.contestants import PEERS
    from gpunet.tools.bench.measure import Bench, Settings
    from gpunet.tools.bench.networks import CASES
    from gpunet.tools.bench.worker import WorkerError

    settings = Settings(rounds=9, device="cuda:0", timeout=60.0)
    peers = [p for p in ("gpunet", "torch", "jax") if PEERS[p].installed]
    if dry:
        on_cuda = _dry_device() == "cuda"
        settings = Settings(rounds=2, turn=1e-3, device="cuda:0" if on_cuda else "cpu")
        peers = ["gpunet"] if on_cuda else ["gpunet", "numpy"]
    names = ("tiny",) if dry else ("digits", "mnist", "mnist-large-batch", "wide", "tiny", "tabular", "deep")
    # torch.compile takes longer than everything else, so it runs last, in a second comparison with the others
    plans = [(["adam"], names, ("compile",)), (["adam"], names[:4], ()), (["forward", "backward", "sgd"], names, ("compile",))]
    yield "header", session.header(settings, []), ""  # no import times: each would take three processes
    with Bench(peers, settings) as bench:
        for kinds, chosen, settings.without in plans[:1] if dry else plans:
            for case in (CASES[name] for name in chosen):
                measurements = bench.measure(case, kinds)
                floors: dict[str, float] = {}
                try:
                    moved = case.bytes(kinds[-1])
                    found = measure(settings.device, moved, size=64) if dry else bench.ceilings(moved)
                    floors = {k: floor(case.flop(k), case.bytes(k), case.launches(k), found) for k in kinds}
                except WorkerError as error:
                    found = {"error": str(error)}
                data = report.document({}, measurements, {case.name: found})["measurements"]
                lines = [*report.case_block(case, measurements, floors), *report.textbook(case, measurements, floors)]
                key = f"{case.name} {'+'.join(kinds)}" + " with torch.compile" * (not settings.without)
                yield key, data, "\n".join([*lines, ""])


# ---- (f) compute-sanitizer --------------------------------------------------------------------------------------------


def sanitizer(dry: bool, done: set[str]) -> Iterator[Row]:
    """compute-sanitizer's memcheck and racecheck of a few training steps; dry: the emulator's checks."""
    device = _dry_device() if dry else "cuda"
    script = [sys.executable, str(Path(__file__).resolve()), "--small-run", device]
    if dry:
        if device == "cuda":
            script[1:1] = ["-m", "tests.driver", "--check"]
        environment = {**os.environ, "GPUNET_EMULATOR_CHECK": "1"}
        done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        yield "emulator", done.returncode, f"checks of the emulator: code {done.returncode} {done.stderr[-300:]}".rstrip()
        return
    homes = [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(name)]
    homes += sorted(Path("/usr/local").glob("cuda*"))
    tools = [p for home in homes for p in home.glob("*/compute-sanitizer") if p.is_file()]
    tool = shutil.which("compute-sanitizer") or next(map(str, tools), None)
    if tool is None:
        yield "missing", None, "compute-sanitizer is not installed; it is part of the CUDA toolkit"
        return
    for kind in ("memcheck", "racecheck"):
        command = [tool, "--tool", kind, "--error-exitcode", "9", "--target-processes", "all", *script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        output = done.stdout + done.stderr
        summary = [line for line in output.splitlines() if "SUMMARY" in line] or output.strip().splitlines()[-1:]
        found = {"code": done.returncode, "output": output[-4000:]}
        yield kind, found, f"{kind}: code {done.returncode}; {' '.join(summary)}"


def small_run(device: str) -> None:
    """Three training steps of a small network with dropout, cross-entropy and Adam, for compute-sanitizer."""
    import gpunet
    from gpunet import nn

    if device == "cuda":  # without a pool, each array is a separate allocation, so accesses beyond its end are detected
        gpunet.backend.devices.cupy().cuda.set_allocator(None)
    gpunet.manual_seed(0)
    gpunet.set_default_device(device)
    model = nn.Sequential(nn.Linear(13, 33), nn.GELU(), nn.Dropout(0.5), nn.Linear(33, 7))
    optimizer = gpunet.optim.Adam(model.parameters(), lr=1e-2)
    x, y = gpunet.randn(67, 13), gpunet.randint(0, 7, (67,))
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    gpunet.synchronize()
    print(f"loss {loss.item():.4f}")


# ---- the session ------------------------------------------------------------------------------------------------------


class Phase(NamedTuple):
    run: Callable[[bool, set[str]], Iterator[Row]]  # arguments: dry; keys that an earlier process of the phase yielded
    seconds: float  # time limit


PHASES = {
    "suite": Phase(suite, 140.0),
    "kernels": Phase(kernels, 80.0),
    "ceilings": Phase(ceilings, 30.0),
    "compare": Phase(compare, 50.0),
    "steps": Phase(steps, 130.0),
    "sanitizer": Phase(sanitizer, 50.0),
}


def save(path: Path, found: Any) -> None:
    """Write a file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(found if isinstance(found, str) else json.dumps(found, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def run_phase(name: str, dry: bool, path: Path) -> int:
    """Run a phase in this process, and save every row at once, after the rows of an earlier process."""
    if dry and _dry_device() == "cuda":
        from tests import driver

        driver.install()  # in the process of the phase, and those that it starts
    found: dict[str, Any] = {"rows": {}, "lines": [], "complete": False}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for key, value, line in PHASES[name].run(dry, set(found["rows"])):
        found["rows"][key] = value
        if line:
            found["lines"].append(line)
            print(line, flush=True)
        save(path, found)
    found["complete"] = True
    save(path, found)
    return 0


def watch_phase(name: str, dry: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a phase in a new process group, kill the group at the time limit, and return the saved results."""
    path, log = folder / f"{name}.json", folder / f"{name}.log"
    command = [sys.executable, "-u", str(Path(__file__).resolve()), "--inner", name, str(path)] + ["--dry"] * dry
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    start, timed_out, code = time.monotonic(), False, RESTART
    with log.open("wb") as output:
        while code == RESTART and not timed_out:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
            )
            try:
                process.wait(max(0.0, start + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)  # also kills processes that the phase left running
                except ProcessLookupError:
                    pass
                code = process.wait()
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {"rows": {}, "lines": [], "complete": False}
    found |= {"seconds": time.monotonic() - start, "code": code, "timed_out": timed_out}
    if not found["complete"]:
        found["output"] = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    return found


def session(names: list[str], dry: bool, out: Path | None) -> int:
    """Run phases, print and save their results; returns 0 if all are complete, else 1."""
    import gpunet
    from gpunet.tools import info

    status = gpunet.cuda_status()
    if not status.ready and not dry:
        print(f"CUDA is not ready: {status.detail}. {status.advice}. (--dry runs the code of every phase without a GPU)")
        return 0
    end = time.monotonic() + TOTAL_SECONDS
    gpu = None if dry else info.gpu()
    head = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": info.commit(),
        "gpunet": gpunet.__version__,
        "gpu": gpu,
        "cpu": info.cpu(),
        "python": sys.version.split()[0],
        "versions": info.versions(("numpy", "torch", "jax", "pytest", "cupy-cuda13x", "cupy-cuda12x", "cupy")),
        "dry": dry,
    }
    label = re.sub(r"[^a-z0-9]+", "-", (gpu["name"] if gpu else "dry").lower()).strip("-")
    results = out or (Path(tempfile.mkdtemp(prefix="gpu-session-")) if dry else ROOT / "bench" / "results")
    results.mkdir(parents=True, exist_ok=True)
    stem = results / f"{head['date'].replace(':', '')[:15]}-{label}"
    text = [
        f"gpunet {head['gpunet']}, commit {head['commit']}, {head['date']}",
        json.dumps(head["gpu"] or head["cpu"]),
    ]
    text.append(", ".join(f"{n} {v}" for n, v in head["versions"].items() if v))
    print("\n".join(text), flush=True)
    phases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=f"{stem.name}-", dir=results) as work:  # kept if the session is killed
        for name in names:
            seconds = min(PHASES[name].seconds, end - time.monotonic())
            if seconds < 1.0:
                phases[name] = {"rows": {}, "lines": [], "complete": False, "skipped": "no time left"}
            else:
                phases[name] = watch_phase(name, dry, seconds, Path(work))
            text += describe(name, phases[name])
            print("\n".join(describe(name, phases[name])), flush=True)
            save(stem.with_suffix(".json"), {**head, "phases": phases})
            save(stem.with_suffix(".txt"), "\n".join(text) + "\n")
    print(f"\nresults: {stem.with_suffix('.json')} and .txt")
    return 0 if all(phase["complete"] for phase in phases.values()) else 1


def describe(name: str, found: dict[str, Any]) -> list[str]:
    """The lines of a phase below its title."""
    state = "complete" if found["complete"] else found.get("skipped") or "NOT COMPLETE"
    if found.get("timed_out"):
        state += ", killed at the time limit"
    lines = [
        "",
        f"== {name}: {PHASES[name].run.__doc__}",
        f"== {state}, {found.get('seconds', 0.0):.0f} s",
        *found["lines"],
    ]
    return lines + ([found["output"]] if "output" in found else [])


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", default=",".join(PHASES), help="some of " + ", ".join(PHASES))
    parser.add_argument("--dry", action="store_true", help="run the code of every phase without a GPU, with tiny sizes")
    parser.add_argument("--out", type=Path, help="folder of the results (default: bench/results; with --dry a temporary folder)")
    parser.add_argument("--inner", nargs=2, metavar=("PHASE", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--small-run", metavar="DEVICE", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.small_run:
        small_run(parsed.small_run)
        return 0
    if parsed.inner:
        return run_phase(parsed.inner[0], parsed.dry, Path(parsed.inner[1]))
    names = [name.strip() for name in parsed.phase.split(",")]
    if unknown := [name for name in names if name not in PHASES]:
        parser.error(f"--phase {', '.join(unknown)}; expected some of {', '.join(PHASES)}")
    return session(names, parsed.dry, parsed.out)


if __name__ == "__main__":
    sys.exit(main())
