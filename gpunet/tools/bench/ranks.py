"""``gpunet bench --ranks N``: data-parallel training steps in N processes on this machine, beside PyTorch's over gloo.

All processes of both libraries live during the whole run, and the libraries take turns.  What communication costs is the difference
between the step of DistributedDataParallel and that of the bare module on the same rows, in the same processes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy

from gpunet.errors import ArgumentError, MissingDependencyError
from gpunet.tools.bench.worker import THREAD_VARIABLES

SIZES, BATCH, LEARNING_RATE = (784, 512, 512, 10), 1024, 1e-3

#: Seconds of a step of DistributedDataParallel and of the bare module; the share of the former that passes in waiting; and the CPU
#: time of the former in the first process, which other load on the machine hardly changes.
COLUMNS = ("parallel", "alone", "waited", "processor")

_TURN = 0.5  # seconds
_COMPARED = 5  # steps whose losses are compared


# ---- in the processes ---------------------------------------------------------------------------------------------------


def serve(library: str) -> None:
    """Answer requests of the parent, which the first process reads from stdin: "KIND STEPS"."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    contestant = _Gpunet() if library == "gpunet" else _Torch()
    while request := contestant.next_request():
        kind, count = request.split()
        contestant.wait_for_all()
        waited, processor, start = contestant.waited(), time.process_time(), time.perf_counter()
        for _ in range(int(count)):
            loss = contestant.steps[kind]()
        answer = {"loss": float(loss), "seconds": (time.perf_counter() - start) / int(count)}
        answer["processor"] = (time.process_time() - processor) / int(count)
        answer["waited"] = (contestant.waited() - waited) / int(count)
        if contestant.rank == 0:
            print(json.dumps(answer), file=answers, flush=True)


def _data(rank: int, size: int) -> tuple[numpy.ndarray, numpy.ndarray, list[numpy.ndarray]]:
    """The rows of a process, and the initial weights and biases."""
    generator = numpy.random.default_rng(0)
    x, y = generator.normal(size=(BATCH, SIZES[0])).astype(numpy.float32), generator.integers(0, SIZES[-1], BATCH)
    parameters: list[numpy.ndarray] = []
    for inputs, outputs in itertools.pairwise(SIZES):
        bound = inputs**-0.5
        parameters.append(generator.uniform(-bound, bound, (outputs, inputs)).astype(numpy.float32))
        parameters.append(generator.uniform(-bound, bound, outputs).astype(numpy.float32))
    own = slice(BATCH * rank // size, BATCH * (rank + 1) // size)
    return x[own], y[own], parameters


def _network(library: Any, parameters: list[numpy.ndarray]) -> Any:
    """The perceptron in gpunet or PyTorch."""
    layers: list[Any] = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        layers += [library.nn.ReLU()] * (number > 0) + [library.nn.Linear(inputs, outputs)]
    model = library.nn.Sequential(*layers)
    with library.no_grad():
        for p, value in zip(model.parameters(), parameters, strict=True):
            p.copy_(library.tensor(value))
    return model


class _Gpunet:
    def __init__(self) -> None:
        import gpunet
        from gpunet import distributed
        from gpunet.nn.parallel import DistributedDataParallel

        distributed.init_process_group(timeout=3600.0)
        self.group: Any = distributed.group.WORLD
        self.rank = distributed.get_rank()
        x, y, parameters = _data(self.rank, distributed.get_world_size())
        inputs, labels = gpunet.tensor(x), gpunet.tensor(y)

        def make(model: Any) -> Any:
            optimizer = gpunet.optim.Adam(model.parameters(), lr=LEARNING_RATE)

            @gpunet.capture
            def step(x: Any, y: Any) -> Any:
                optimizer.zero_grad()
                loss = gpunet.nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss

            return lambda: step(inputs, labels).item()

        network = _network(gpunet, parameters)
        self.steps = {"parallel": make(DistributedDataParallel(network)), "alone": make(_network(gpunet, parameters))}

    def next_request(self) -> str:
        line = sys.stdin.readline() if self.rank == 0 else ""
        return str(self.group.broadcast_object(line, 0, "bench")).strip()

    def wait_for_all(self) -> None:
        self.group.complete(self.group.communicator.Ibarrier(), "bench")

    def waited(self) -> float:
        return float(self.group.waited)


class _Torch:
    def __init__(self) -> None:
        import torch
        from torch import distributed
        from torch.nn.parallel import DistributedDataParallel

        torch.set_num_threads(1)
        distributed.init_process_group("gloo")
        self._distributed = distributed
        self.rank = distributed.get_rank()
        x, y, parameters = _data(self.rank, distributed.get_world_size())
        inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

        def make(model: Any) -> Any:
            optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

            def step() -> float:
                optimizer.zero_grad(set_to_none=True)
                loss = torch.nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
                return float(loss.item())

            return step

        network = DistributedDataParallel(_network(torch, parameters), gradient_as_bucket_view=True)
        self.steps = {"parallel": make(network), "alone": make(_network(torch, parameters))}

    def next_request(self) -> str:
        return sys.stdin.readline().strip()

    def wait_for_all(self) -> None:
        self._distributed.barrier()

    def waited(self) -> float:
        return float("nan")  # PyTorch does not tell


# ---- in the parent ------------------------------------------------------------------------------------------------------


class _Job:
    """The processes of a library, as a context manager."""

    def __init__(self, library: str, count: int) -> None:
        self.library = library
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        start = f"from gpunet.tools.bench.ranks import serve; serve({library!r})"
        command = [sys.executable, "-W", "ignore", "-c", start]
        self._processes: list[subprocess.Popen[str]] = []
        if library == "gpunet":
            self._start([_mpiexec(), "-n", str(count), *command], environment)
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        for rank in range(count):
            self._start(command, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        self._processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def ask(self, kind: str, steps: int) -> dict[str, float]:
        """Let all processes run steps; return the answer of the first one."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{kind} {steps}\n")
            process.stdin.flush()
        assert self._processes[0].stdout is not None
        line = self._processes[0].stdout.readline()
        if not line:
            raise MissingDependencyError(f"bench: the processes of {self.library} have ended; see their messages above")
        return dict(json.loads(line))


def _mpiexec() -> str:
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise MissingDependencyError("bench: --ranks needs mpiexec, which is not installed: pip install 'gpunet[mpi]'")
    return found


def measure(count: int, rounds: int, libraries: list[str]) -> dict[str, dict[str, Any]]:
    """Times of each library, a list with a number for each round: see :data:`COLUMNS`.

    Raises:
        ArgumentError: the losses of the libraries differ.
        MissingDependencyError: MPI is not installed, or the processes of a library end.
    """
    found: dict[str, dict[str, Any]] = {library: {name: [] for name in COLUMNS} for library in libraries}
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(_Job(library, count)) for library in libraries]
        losses = [job.ask("parallel", _COMPARED)["loss"] for job in jobs]
        if max(losses) - min(losses) > 1e-4:
            raise ArgumentError(f"bench: the losses after {_COMPARED} steps differ: {dict(zip(libraries, losses))}")
        steps = max(2, round(_TURN / jobs[0].ask("parallel", 5)["seconds"]))
        for _ in range(rounds):
            for kind in ("alone", "parallel"):
                for job in jobs:
                    answer = job.ask(kind, steps)
                    found[job.library][kind].append(answer["seconds"])
                    if kind == "parallel":
                        found[job.library]["waited"].append(answer["waited"] / answer["seconds"])
                        found[job.library]["processor"].append(answer["processor"])
    return found


def lines(count: int, found: dict[str, dict[str, Any]]) -> list[str]:
    """The table of :func:`measure`."""
    shown = [
        f"{'-'.join(map(str, SIZES))}, batch {BATCH} shared by {count} processes, one thread each, Adam; medians of "
        f"{len(next(iter(found.values()))['alone'])} rounds",
        f"{'':16}{'step':>10}{'bare module':>14}{'communication':>16}{'waiting':>10}{'CPU time':>12}",
    ]
    for library, times in found.items():
        parallel, alone, waited, processor = (float(numpy.median(times[name])) for name in COLUMNS)
        name = "torch (gloo)" if library == "torch" else library
        waiting = "" if waited != waited else f"{100 * waited:8.1f} %"
        shown.append(
            f"{name:16}{1e3 * parallel:7.2f} ms{1e3 * alone:11.2f} ms{100 * (1 - alone / parallel):14.1f} %{waiting:>10}"
            f"{1e3 * processor:9.2f} ms"
        )
    return shown
