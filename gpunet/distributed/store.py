"""Where processes that MPI has not started find each other: the first one listens, and passes short texts on.

It is for the start and for notices of processes that wait; tensors and objects travel over NCCL.  A message is a line of JSON.
Whatever connects is no reason to trust it: a request that is none of ours ends its connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from gpunet.errors import ProcessError

_RETRY_EVERY = 0.1  # seconds between attempts to connect, while the first process may not listen yet
_GRACE = 5.0  # seconds beyond the time limit of an answer, and until the first process has closed its port
_MAX_LINE = 64 << 10  # bytes of a request
_MAX_NOTICES = 10_000  # that wait for a process, of which the last ones count
_MAX_TEXT = 200  # characters of a notice


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 128  # all processes connect at once

    def __init__(self, host: str, port: int, size: int) -> None:
        is_local = host in ("localhost", "127.0.0.1", "::1")
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = info[0]
        super().__init__((str(info[4][0]) if is_local else "", port), _Requests)
        self.size = size
        self.changed = threading.Condition()
        self.gathered: dict[str, dict[int, Any]] = defaultdict(dict)
        self.letters: dict[int, deque[Any]] = defaultdict(lambda: deque(maxlen=_MAX_NOTICES))
        self.is_closed = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a request that is none of ours."""

    def close(self) -> None:
        """Stop listening, and only then end the connections, whose ends the others wait for."""
        self.shutdown()
        self.server_close()
        self.is_closed.set()


class _Requests(socketserver.StreamRequestHandler):
    """One connection of a process."""

    server: _Server

    def handle(self) -> None:
        answers = {"gather": self._gather, "exchange": self._exchange}
        while len(line := self.rfile.readline(_MAX_LINE + 1)) <= _MAX_LINE and line:
            request = json.loads(line)
            answer = answers[request["do"]](request)
            self.wfile.write(json.dumps(answer).encode() + b"\n")
        if not line:
            self.server.is_closed.wait(_GRACE)

    def _rank(self, value: Any) -> int:
        if type(value) is not int or not 0 <= value < self.server.size:
            raise ProcessError("the request has no rank of a process")
        return value

    def _gather(self, request: dict[str, Any]) -> Any:
        """Wait until all have sent a value; return those that have, by rank, or None if the rank has sent one before."""
        rank, value, limit = self._rank(request["rank"]), request["value"], float(request["limit"])
        with self.server.changed:
            values = self.server.gathered[str(request["key"])]
            if rank in values:
                return None
            values[rank] = value
            self.server.changed.notify_all()
            self.server.changed.wait_for(lambda: len(values) == request["size"], limit)
            return {str(rank): value for rank, value in values.items()}

    def _exchange(self, request: dict[str, Any]) -> Any:
        """Keep notices for others; return those for this process."""
        rank = self._rank(request["rank"])
        letters = [(self._rank(to), [rank, _text(function), _text(activity)]) for to, (_, function, activity) in request["letters"]]
        with self.server.changed:
            for to, letter in letters:
                self.server.letters[to].append(letter)
            return [*self.server.letters.pop(rank, [])]


def _text(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and value.isprintable()):
        raise ProcessError("the request has a notice that is no text")
    return value if value is None else value[:_MAX_TEXT]


class Store:
    """The connection of a process to the first one, which listens.

    Args:
        host, port: where the first process listens.
        rank, size: of this process, and of all.
        limit: seconds that a process waits for the others.

    Raises:
        ProcessError: the first process does not listen, or its port is taken.
    """

    def __init__(self, host: str, port: int, rank: int, size: int, limit: float) -> None:
        self.rank, self.size, self._limit, self._place = rank, size, limit, f"{host}:{port}"
        self._server: _Server | None = None
        if rank == 0:
            try:
                self._server = _Server(host, port, size)
            except OSError as error:
                raise ProcessError(
                    f"init_process_group: rank 0 cannot listen at {self._place} ({error.strerror or error}); set MASTER_PORT to a "
                    "free port, and MASTER_ADDR to this machine, alike in all processes"
                ) from error
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="gpunet-store").start()
        self._socket = self._connect(host, port)
        self._socket.settimeout(limit + _GRACE)
        self._file = self._socket.makefile("rwb")
        self._lock = threading.Lock()
        self._letters: list[Any] = []
        self._outgoing: list[tuple[int, Any]] = []

    def _connect(self, host: str, port: int) -> socket.socket:
        end = time.monotonic() + self._limit
        while True:
            try:
                found = socket.create_connection((host, port), timeout=max(1.0, end - time.monotonic()))
                if found.getsockname() != found.getpeername():
                    return found
                found.close()  # where nobody listens yet, a port of this machine may connect to itself
                reason = "nobody listens"
            except OSError as error:
                reason = str(error)
            if time.monotonic() > end:
                raise ProcessError(
                    f"init_process_group: rank {self.rank} found no rank 0 at {self._place} within {self._limit:.0f} s "
                    f"({reason}); MASTER_ADDR must be the machine of rank 0, and MASTER_PORT a port that is open there"
                )
            time.sleep(_RETRY_EVERY)

    def _ask(self, **request: Any) -> Any:
        """Send a request; return the answer.

        Raises:
            ProcessError: the first process does not answer.
        """
        line = b""
        cause: Exception | None = None
        with self._lock:
            try:
                self._file.write(json.dumps(request).encode() + b"\n")
                self._file.flush()
                line = self._file.readline()
            except (OSError, ValueError) as error:  # ValueError: the connection was closed here
                cause = error
            if not line:
                self._socket.close()  # else a late answer would be taken for that to another request
                with contextlib.suppress(OSError):
                    self._file.close()
        if not line:
            why = "it has closed the connection" if cause is None else cause
            raise ProcessError(f"rank 0, which listens at {self._place}, does not answer ({why}); it may have failed") from cause
        return json.loads(line)

    def gather(self, key: str, ranks: Sequence[int], value: Any) -> list[Any]:
        """Return the values that these ranks pass with a key, each once.

        Raises:
            ProcessError: some do not within the time limit; the message has their ranks.
        """
        found = self._ask(do="gather", key=key, rank=self.rank, size=len(ranks), value=value, limit=self._limit)
        if found is None:
            raise ProcessError(
                f"init_process_group: another process has rank {self.rank}, too; set RANK, or pass rank=, from 0 to "
                f"{self.size - 1}, a different one in each of the {self.size} processes"
            )
        missing = [rank for rank in ranks if str(rank) not in found]
        if missing:
            raise ProcessError(
                f"init_process_group: rank {self.rank} has waited {self._limit:.0f} s for rank "
                f"{', '.join(map(str, missing))}; start all {self.size} processes, or pass timeout= where it takes longer"
            )
        return [found[str(rank)] for rank in ranks]

    def close(self) -> None:
        """End the connection, and stop listening."""
        with contextlib.suppress(OSError):  # the first process has gone before it read all
            self._file.close()
        self._socket.close()
        if self._server is not None:
            self._server.close()

    # -- as the communicator of a Watch
    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.size

    def isend(self, value: tuple[Any, ...], other: int) -> Store:
        """Send a notice with the next :meth:`iprobe`."""
        self._outgoing.append((other, value))
        return self

    def Test(self) -> bool:
        """Whether what was sent needs no more attention."""
        return True

    def iprobe(self) -> bool:
        """Send what :meth:`isend` was given; return whether something was sent to this process."""
        letters, self._outgoing = self._outgoing, []
        if letters or not self._letters:
            with contextlib.suppress(ProcessError):  # the first process has gone: nobody can be told
                self._letters += self._ask(do="exchange", rank=self.rank, letters=letters)
        return bool(self._letters)

    def recv(self) -> Any:
        return self._letters.pop(0)

    def Abort(self, status: int) -> None:
        """End this process; its launcher, or their time limits, end the others."""
        sys.stdout.flush()
        os._exit(status)

    def Free(self) -> None:
        """End the connection of a process whose others do so, too; later the port can be used anew."""
        if self._server is None:
            with contextlib.suppress(OSError, ValueError):
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.settimeout(_GRACE)
                self._file.read()  # ends when the first process listens no longer
        self.close()
