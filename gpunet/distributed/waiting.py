"""Waiting for other processes: without keeping a core busy, and not for ever.

A process that waits for more than a second tells the others each second which function it waits in.  At the time limit, those that
have told nothing are the ones that all wait for; they are named, and all processes are stopped.  A process that compiles, or reads
or writes a checkpoint, tells so before (see :mod:`gpunet.backend.long_work`), and the time limit begins when it has done it.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any, NamedTuple

from gpunet.errors import ArgumentError

DEFAULT_LIMIT = 25.0  # seconds
DEFAULT_LIMIT_ON_GPU = 600.0  # of a wait for a GPU, which may have long work of its own; and for processes to start
_SPIN = 2e-4  # seconds of waiting without sleep, which are shorter than the least sleep of most systems
_NOTICE_EVERY = 1.0  # seconds
_SILENCE = 5.0  # seconds without a notice after which a process counts as not waiting
_LONGEST = 600.0  # seconds for which a process may say that it does something that takes long
_GRACE = 1.0  # seconds between the message and the stop, in which the others print theirs


class Limits(NamedTuple):
    """Seconds that a process waits for others."""

    host: float  # in functions that wait for nothing else
    gpu: float  # for collectives on its GPU, and for what the GPU does besides
    start: float  # until all processes are there


def limits_of(timeout: Any) -> Limits:
    """The time limits: ``timeout`` (a timedelta or a number), or GPUNET_DISTRIBUTED_TIMEOUT, for all; or the defaults.

    Raises:
        ArgumentError: it is no positive number.
    """
    source, value = "init_process_group: timeout", timeout
    if timeout is None:
        source, value = "GPUNET_DISTRIBUTED_TIMEOUT", os.environ.get("GPUNET_DISTRIBUTED_TIMEOUT")
    if value is None:
        return Limits(DEFAULT_LIMIT, DEFAULT_LIMIT_ON_GPU, DEFAULT_LIMIT_ON_GPU)
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0.0:
        raise ArgumentError(f"{source}={value!r}; expected a timedelta, or a positive number of seconds")
    return Limits(seconds, seconds, seconds)


class Watch:
    """The notices of the processes that wait.

    Args:
        communicator: of all processes, for notices alone: mpi4py's, or a store.
        limits: after which a process that waits stops all.
    """

    def __init__(self, communicator: Any, limits: Limits) -> None:
        self.communicator, self.limits, self._rank = communicator, limits, communicator.Get_rank()
        self._heard: dict[int, tuple[float, str]] = {}  # when a process told last, and the function that it waits in
        self._busy: dict[int, float] = {}  # since when a process does something that takes long
        self._last_busy = 0.0  # when one was known to
        self._sent: list[Any] = []
        self._next = 0.0

    def announce(self, activity: str | None) -> None:
        """Tell the others that this process begins something that takes long, None when it has done it."""
        self._send(None, activity)
        self._receive(time.monotonic())

    def _send(self, function: str | None, activity: str | None) -> None:
        rank, size = self._rank, self.communicator.Get_size()
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self.communicator.isend((rank, function, activity), other) for other in range(size) if other != rank]

    def _receive(self, now: float) -> None:
        while self.communicator.iprobe():
            source, function, activity = self.communicator.recv()
            if function is not None:
                self._heard[source] = now, function
            elif activity is not None:
                self._busy[source] = now
            else:
                self._busy.pop(source, None)
                self._last_busy = now
        if any(now - since < _LONGEST for since in self._busy.values()):
            self._last_busy = now

    def tell(self, function: str, waited: float, on_gpu: bool = False) -> None:
        """Tell the others, at most once a second, that this process waits; stop all at the time limit.

        Where all wait for their GPUs, these may have long work, and nothing is stopped.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _NOTICE_EVERY
        self._send(function, None)
        self._receive(now)
        limit = self.limits.gpu if on_gpu else self.limits.host
        if min(waited, now - self._last_busy) > limit:
            rank, size = self._rank, self.communicator.Get_size()
            silent = [q for q in range(size) if q != rank and now - self._heard.get(q, (-_SILENCE, ""))[0] > _SILENCE]
            elsewhere = [f"rank {q} in {f}" for q, (_, f) in sorted(self._heard.items()) if q not in silent and f != function]
            if silent or elsewhere or not on_gpu:
                self._stop(function, waited, silent, elsewhere)

    def _stop(self, function: str, waited: float, silent: list[int], elsewhere: list[str]) -> None:
        for_whom = "for other processes, which call other functions"
        if silent:
            for_whom = f"for rank {', '.join(map(str, silent))}, which {'do' if len(silent) > 1 else 'does'} not answer"
        also = f"; {', '.join(elsewhere)}" if elsewhere else ""
        print(
            f"gpunet: rank {self._rank} has waited {waited:.0f} s in {function} {for_whom}{also}; all are stopped. Where one may "
            "take longer, pass init_process_group(timeout=...) or set GPUNET_DISTRIBUTED_TIMEOUT, in seconds",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        time.sleep(_GRACE)
        self.communicator.Abort(1)


def wait_for(request: Any, watch: Watch | None, function: str, on_gpu: bool = False) -> float:
    """Wait until a request of mpi4py is complete, None for one that is; return the seconds.

    Args:
        watch: which names processes that do not answer, if any.
        function: that the user called.
        on_gpu: whether it is a request of a GPU.
    """
    if request is None:
        return 0.0
    start = time.perf_counter()
    while not request.Test():
        waited = time.perf_counter() - start
        if waited > _SPIN:
            time.sleep(5e-5 if waited < 0.05 else 1e-3)
            if waited > _NOTICE_EVERY and watch is not None:
                watch.tell(function, waited, on_gpu)
    return time.perf_counter() - start
