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

    def __init__(self, processes: list[Any], failures: Any) -> None:
        self.processes, self._failures = processes, failures

    def pids(self) -> list[int]:
        """The identifiers of the processes."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the processes; return whether all have ended.  If one fails, the others are stopped.

        Raises:
            ProcessError: a process failed; the message has its number and traceback.
        """
        waiting = {process.sentinel: rank for rank, process in enumerate(self.processes)}
        while waiting:
            ended = multiprocessing.connection.wait(list(waiting), timeout)
            if not ended:
                return False
            for sentinel in ended:
                rank = waiting.pop(sentinel)
                self.processes[rank].join()
                code = self.processes[rank].exitcode
                if code != 0:
                    for process in self.processes:
                        process.terminate()
                    text = self._failures.recv() if self._failures.poll() else f"exit code {code}"
                    raise ProcessError(f"process {rank} of spawn() failed: {text}")
        return True


def _run(function: Callable[..., Any], rank: int, args: tuple[Any, ...], failures: Any) -> None:
    try:
        function(rank, *args)
    except BaseException:
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
    received, sent = context.Pipe(duplex=False)
    processes: list[Any] = []
    for rank in range(nprocs):
        process: Any = context.Process(target=_run, args=(fn, rank, args, sent), daemon=daemon)  # type: ignore[attr-defined]
        process.start()
        processes.append(process)
    found = ProcessContext(processes, received)
    if not join:
        return found
    found.join()
    return None
