"""The process of one peer: it builds contestants and times their steps, as its parent asks.

A process each, so that nobody's threads spin into another's turn, and nobody's crash is another's.  Requests and answers
are lines of JSON over stdin and a copy of stdout; whatever a peer prints goes to stderr.
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
from pathlib import Path
from typing import Any

from gpunet.errors import GpunetError, MissingDependencyError
from gpunet.tools.bench.cases import Case, Runner

#: Steps whose losses are compared.
COMPARED_STEPS = 6

#: By which the number of threads is set, all at once: OpenMP's, those of two BLAS, tinygrad's, XLA's.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUM_CPU_THREADS", "NPROC")

_ROOT = Path(__file__).resolve().parents[3]
_START = (
    "import sys; root = sys.argv[1]; sys.path.insert(0, root); import gpunet; sys.path.remove(root); "
    "from gpunet.tools.bench.worker import main; main()"
)


class WorkerError(GpunetError, RuntimeError):
    """A peer's process that answers with an error, not in time, or no more."""

    missing = False  # the error was that something is not installed


# ---- in the process ---------------------------------------------------------------------------------------------------


class _Session:
    """What a worker holds."""

    def __init__(self, module: str, device: str) -> None:
        self.make = importlib.import_module(f"gpunet.tools.bench.peers.{module}").make
        self.device = device
        self.runners: dict[int, tuple[Runner, Any]] = {}

    def build(self, number: int, case: dict[str, Any], kind: str, variant: str) -> dict[str, Any]:
        """Make a contestant and take its first steps."""
        start = time.perf_counter()
        runner = self.make(Case(**case | {"sizes": tuple(case["sizes"])}), kind, variant, self.device)
        batches = itertools.cycle(runner.batches)
        losses, first = [], 0.0
        for _ in range(COMPARED_STEPS):
            losses.append(runner.read(runner.step(*next(batches))))
            first = first or time.perf_counter() - start
        self.runners[number] = runner, batches
        finite = [loss if math.isfinite(loss) else None for loss in losses]
        return {"first_step": first, "losses": finite, "notes": runner.notes, "threads": _threads()}

    def time(self, number: int, steps: int, untimed: int) -> dict[str, Any]:
        """Seconds of some steps by both clocks, the loss read once behind the last."""
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
        """What the device can do, with this process's BLAS and threads."""
        from gpunet.tools.bench import ceilings

        return ceilings.measure(self.device, footprint, clock)

    def gemm(self, through: str, clock: str) -> dict[str, Any]:
        """The rate of a large product through the peer's own BLAS."""
        from gpunet.tools.bench import ceilings

        return {"rate": ceilings.cpu_gemm(through, clock)}

    def drop(self, number: int) -> dict[str, Any]:
        """Forget a contestant."""
        self.runners.pop(number, None)
        return {}


def _threads() -> list[str]:
    """Thread pools of this process, as far as threadpoolctl tells."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()]


def main() -> None:
    """Serve until stdin ends.  Arguments: the package's root, the peer's module, the device."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if session is None:
                session = _Session(*sys.argv[2:])
            answer = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # of a peer, of any kind: the parent reports it
            text = " ".join(str(error).split())
            answer = {"error": text if isinstance(error, GpunetError) else f"{type(error).__name__}: {text}"[:500]}
            answer["missing"] = isinstance(error, MissingDependencyError)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


# ---- in the parent ----------------------------------------------------------------------------------------------------


class Worker:
    """A peer's process, seen from the parent.  Use it in a ``with`` statement."""

    def __init__(self, module: str, device: str, threads: int | None = None) -> None:
        self.name = module
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
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
        """End the process: by the end of its input, so that it can end what it started itself, else by force."""
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
        """One request, one answer.

        Raises:
            WorkerError: the peer raised, was not done in ``timeout`` seconds (and is then ended), or has died.
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
