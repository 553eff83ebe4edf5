"""Start several processes that run one function, as ``torch.multiprocessing.spawn``."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import traceback
from collections.abc import Callable
from typing import Any

from gpunet.errors import ArgumentError, ProcessError

__all__ = ["ProcessContext", "spawn"]


class ProcessContext:
    """The processes of :func:`spawn`."""

    def __init__(self, processes: list[Any], failures: list[Any]) -> None:
        self.processes = processes
        self._failures = dict(enumerate(failures))  # by rank, a pipe that receives a traceback

    def pids(self) -> list[int]:
        """The identifiers of the processes."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the processes; return whether all have ended.  If one fails, the others are stopped.

        Raises:
            ProcessError: a process failed; the message has its number and traceback.
        """
        while self._failures:
            ranks = {pipe: rank for rank, pipe in self._failures.items()}
            ready = multiprocessing.connection.wait(list(ranks), timeout)
            if not ready:
                return False
            for pipe in ready:
                self._end(ranks[pipe])
        return True

    def _end(self, rank: int) -> None:
        """Take note of the end of a process: its pipe has a traceback, or is closed."""
        pipe, process = self._failures.pop(rank), self.processes[rank]
        try:
            failure = pipe.recv()
        except EOFError:
            failure = ""
        process.join()
        if failure or process.exitcode != 0:
            for other in self.processes:
                other.terminate()
                other.join()
            raise ProcessError(f"process {rank} of spawn() failed: {failure or f'exit code {process.exitcode}'}")


def _run(function: Callable[..., Any], rank: int, args: tuple[Any, ...], failures: Any) -> None:
    try:
        function(rank, *args)
    except Exception:
        failures.send(traceback.format_exc())
        raise SystemExit(1) from None


def spawn(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:  # fmt: skip
    """Call ``fn(rank, *args)`` in ``nprocs`` new processes, rank from 0.

    Args:
        fn: a function of a module, which the processes import.
        join: wait for them; False returns a :class:`ProcessContext`.
        daemon: stop them when this process ends.

    Raises:
        ArgumentError: nprocs is below 1.
        ProcessError: a process failed.
    """
    if nprocs < 1:
        raise ArgumentError(f"spawn: nprocs={nprocs}; expected 1 or more")
    context = multiprocessing.get_context(start_method)
    processes: list[Any] = []
    failures: list[Any] = []
    for rank in range(nprocs):
        received, sent = context.Pipe(duplex=False)
        process: Any = context.Process(target=_run, args=(fn, rank, args, sent), daemon=daemon)  # type: ignore[attr-defined]
        process.start()
        sent.close()  # so that the end of the process closes the pipe
        processes.append(process)
        failures.append(received)
    found = ProcessContext(processes, failures)
    if not join:
        return found
    found.join()
    return None
