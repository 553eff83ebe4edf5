"""The process of one peer: it builds contestants and times their steps on request.

Each peer has its own process, so that its threads and crashes do not affect the others. Requests and answers are lines of
JSON over stdin and a duplicate of stdout; output that a peer prints to stdout is redirected to stderr.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpunet.errors import GpunetError, MissingDependencyError
from gpunet.tools.bench.cases import Case, Perceptron, Runner
from gpunet.tools.bench.networks import NETWORKS

#: Number of first steps whose losses are compared.
COMPARED_STEPS = 6

#: Variables that set the number of threads: of gpunet, OpenMP, OpenBLAS, MKL, tinygrad and XLA.
THREAD_VARIABLES = (
    "GPUNET_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUM_CPU_THREADS", "NPROC",
)  # fmt: skip

_ROOT = Path(__file__).resolve().parents[3]
_START = (
    "import sys; root = sys.argv[1]; sys.path.insert(0, root); import gpunet; sys.path.remove(root); "
    "from gpunet.tools.bench.worker import main; main()"
)


class WorkerError(GpunetError, RuntimeError):
    """The process of a peer reported an error, did not answer in time, or has ended."""

    missing = False  # whether the cause is a package that is not installed


def case_request(case: Case) -> dict[str, Any]:
    """A case as JSON: a perceptron by its sizes, another network by its name."""
    return asdict(case) if isinstance(case, Perceptron) else {"name": case.name}


def _requested(request: dict[str, Any]) -> Case:
    return Perceptron(**request | {"sizes": tuple(request["sizes"])}) if "sizes" in request else NETWORKS[request["name"]]


# ---- in the process ---------------------------------------------------------------------------------------------------


class _Session:
    """The contestants of a worker, and its requests as methods."""

    def __init__(self, module: str, device: str) -> None:
        self.make = importlib.import_module(f"gpunet.tools.bench.peers.{module}").make
        self.device = device
        self.runners: dict[int, tuple[Runner, Any]] = {}

    def build(self, number: int, case: dict[str, Any], kind: str, variant: str) -> dict[str, Any]:
        """Build a contestant and run its first steps."""
        start = time.perf_counter()
        runner = self.make(_requested(case), kind, variant, self.device)
        batches = itertools.cycle(runner.batches)
        losses, first = [], 0.0
        for _ in range(COMPARED_STEPS):
            losses.append(runner.read(runner.step(*next(batches))))
            first = first or time.perf_counter() - start
        self.runners[number] = runner, batches
        finite = [loss if math.isfinite(loss) else None for loss in losses]
        return {"first_step": first, "losses": finite, "notes": runner.notes, "threads": _threads()}

    def time(self, number: int, steps: int, untimed: int) -> dict[str, Any]:
        """Seconds of ``steps`` steps by both clocks; the loss is read once after the last."""
        runner, batches = self.runners[number]
        step = runner.step
        if untimed:
            for _ in range(untimed):
                handle = step(*next(batches))
            runner.read(handle)
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            handle = step(*next(batches))
        loss = runner.read(handle)
        return {
            "wall": time.perf_counter() - start,
            "processor": time.process_time() - processor,
            "loss": loss if math.isfinite(loss) else None,
        }

    def ceilings(self, footprint: float, clock: str) -> dict[str, Any]:
        """Limits of the device, with the BLAS and the threads of this process."""
        from gpunet.tools.bench import ceilings

        return ceilings.measure(self.device, footprint, clock)

    def gemm(self, through: str, clock: str) -> dict[str, Any]:
        """FLOP/s of a large matrix product through the peer's own BLAS."""
        from gpunet.tools.bench import ceilings

        return {"rate": ceilings.cpu_gemm(through, clock)}

    def drop(self, number: int) -> dict[str, Any]:
        """Delete a contestant."""
        self.runners.pop(number, None)
        return {}


def _threads() -> list[str]:
    """Thread pools of this process that threadpoolctl finds."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()]


def main() -> None:
    """Answer requests until stdin ends. Arguments: folder of the package, module of the peer, device."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if session is None:
                session = _Session(*sys.argv[2:])
            answer = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # a peer may raise any exception; the parent reports it
            text = " ".join(str(error).split())
            answer = {"error": text if isinstance(error, GpunetError) else f"{type(error).__name__}: {text}"[:500]}
            answer["missing"] = isinstance(error, MissingDependencyError)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


# ---- in the parent ----------------------------------------------------------------------------------------------------


class Worker:
    """The process of a peer, as a context manager in the parent."""

    def __init__(self, module: str, device: str, threads: int | None = None) -> None:
        self.name = module
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process runs
        environment = dict(os.environ)
        if threads is not None:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _START, str(_ROOT), module, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env=environment,
        )  # fmt: skip
        self._received = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process: close its stdin so that it can shut down its own children; kill it after 5 s."""
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, do: str, timeout: float = 300.0, **request: Any) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises:
            WorkerError: the peer raised, took longer than ``timeout`` seconds (and was killed), or has ended.
        """
        if not self.alive:
            raise WorkerError(f"the process of {self.name} has ended{self._last_words()}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"the process of {self.name} has ended{self._last_words()}") from None
        answer: dict[str, Any] = json.loads(self._line(do, timeout))
        if "error" in answer:
            failure = WorkerError(answer["error"])
            failure.missing = answer["missing"]
            raise failure
        return answer

    def _line(self, do: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        end, descriptor = time.monotonic() + timeout, self._process.stdout.fileno()
        while b"\n" not in self._received:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._process.kill()
                raise WorkerError(f"{self.name} did not {do} within {timeout:.0f} s")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise WorkerError(f"the process of {self.name} has ended{self._last_words()}")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" with code {self._process.returncode}" + (f": {lines[-1][:300]}" if lines else "")
