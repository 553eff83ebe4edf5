"""The store of processes that MPI has not started: gathering of values, notices, and errors that name who is missing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest

from gpunet.distributed import store as store_module
from gpunet.distributed import waiting
from gpunet.distributed.store import Store
from gpunet.distributed.waiting import Limits, Watch
from gpunet.errors import ProcessError
from tests.distributed.test_nccl import free_port
from tests.distributed.test_waiting import Clock

SIZE = 3


@pytest.fixture
def stores() -> Iterator[list[Store]]:
    port = free_port()
    with ExitStack() as stack:
        found = [Store("127.0.0.1", port, rank, SIZE, 30.0) for rank in range(SIZE)]
        for store in found:
            stack.callback(store.close)  # the first one at last
        yield found


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each function returns, called at once."""
    found: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        found[number] = calls[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_values_are_gathered_by_rank(stores: list[Store]) -> None:
    for key, ranks in (("all", (0, 1, 2)), ("pair", (2, 0))):
        found = in_threads([partial(stores[rank].gather, key, ranks, [rank, "é"]) for rank in ranks])
        assert found == [[[rank, "é"] for rank in ranks]] * len(ranks)


def test_missing_ranks_are_named(stores: list[Store]) -> None:
    stores[1]._limit = 0.05
    with pytest.raises(ProcessError, match=r"rank 1 has waited 0 s for rank 0, 2; start all 3 processes, or pass timeout="):
        stores[1].gather("all", range(SIZE), None)


def test_a_first_process_that_does_not_listen_is_named() -> None:
    port = free_port()
    with pytest.raises(ProcessError, match=rf"rank 1 found no rank 0 at 127\.0\.0\.1:{port} within 0 s"):
        Store("127.0.0.1", port, 1, 2, 0.05)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ProcessError, match=rf"rank 0 cannot listen at 127\.0\.0\.1:{port} \(.*in use.*\); set MASTER_PORT"):
            Store("127.0.0.1", port, 0, 2, 1.0)


def test_a_first_process_that_has_gone_is_named(stores: list[Store]) -> None:
    stores[0].close()
    with suppress(OSError):  # closed already if it was still to be accepted
        stores[1]._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ProcessError, match=r"rank 0, which listens at 127\.0\.0\.1:\d+, does not answer"):
        stores[1].gather("all", range(SIZE), None)
    assert not stores[1].iprobe()


def test_the_silent_process_is_named_over_the_store(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    monkeypatch.setattr(Store, "Abort", lambda self, status: (_ for _ in ()).throw(SystemExit(status)))
    one, other = (Watch(stores[rank], Limits(25.0, 30.0, 30.0)) for rank in (0, 1))

    def wait() -> None:
        for second in range(1, 100):
            clock.now += 1.0
            other.tell("a collective on a GPU", float(second), on_gpu=True)
            one.tell("a collective on a GPU", float(second), on_gpu=True)

    with pytest.raises(SystemExit):
        wait()
    assert "has waited 31 s in a collective on a GPU for rank 2, which does not answer; all are" in capsys.readouterr().err


def test_two_processes_with_one_rank_are_named(stores: list[Store]) -> None:
    stores[2].rank = 1
    for store in stores[:2]:
        store._limit = 0.05
    with pytest.raises(ProcessError, match=r"rank 0 has waited 0 s for rank 1, 2"):
        stores[0].gather("all", range(SIZE), None)
    with pytest.raises(ProcessError, match=r"rank 1 has waited 0 s for rank 2"):
        stores[1].gather("all", range(SIZE), None)
    with pytest.raises(ProcessError, match=r"another process has rank 1, too; set RANK, or pass rank=, from 0 to 2, a different"):
        stores[2].gather("all", range(SIZE), None)


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n", b"\xff\xfe\n", b"7\n", b"{}\n", b'{"do": "_class__"}\n',
        b'{"do": ["gather"]}\n', b"[" * 60_000 + b"\n",
        b'{"do": "gather", "key": "all", "rank": 7, "size": 3, "value": 0, "limit": 1}\n',
        b'{"do": "gather", "key": "all", "rank": 2, "size": 3, "value": 0, "limit": "x"}\n',
        b'{"do": "exchange", "rank": 0, "letters": [[1, "ab"]]}\n',
        b'{"do": "exchange", "rank": 0, "letters": [[1, [0, "\\u001b[2J", null]]]}\n',
        b'{"do": "exchange", "rank": -1, "letters": []}\n', b"x" * (1 << 20),
    ],
)  # fmt: skip
def test_requests_of_strangers_end_their_connection(
    stores: list[Store], line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", int(stores[0]._place.split(":")[1]))) as stranger, suppress(OSError):
        stranger.settimeout(10.0)
        stranger.sendall(line)
        assert stranger.recv(100) == b""
    assert not stores[1].iprobe()
    assert in_threads([partial(store.gather, "all", range(SIZE), 0) for store in stores]) == [[0] * SIZE] * SIZE
    assert capfd.readouterr().err == ""


def test_a_wait_costs_one_request_for_all_notices(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    ask = Store._ask
    monkeypatch.setattr(Store, "_ask", lambda self, **request: calls.append(request) or ask(self, **request))
    Watch(stores[1], Limits(25.0, 30.0, 30.0)).tell("all_reduce", 1.0)
    assert len(calls) == 1
    assert stores[0].iprobe() and stores[0].recv() == [1, "all_reduce", None] and not stores[0].iprobe()


def test_a_port_is_used_anew() -> None:
    """The first process may be the last one to leave: the others must not meet at its old port."""
    port = free_port()

    def run(rank: int) -> list[Any]:
        store = Store("127.0.0.1", port, rank, 2, 10.0)
        first = store.gather("all", range(2), [1, rank])
        if rank == 0:
            time.sleep(0.3)
        store.Free()
        store = Store("127.0.0.1", port, rank, 2, 10.0)
        second = store.gather("all", range(2), [2, rank])
        store.Free()
        return [first, second]

    assert in_threads([partial(run, 0), partial(run, 1)]) == [[[[1, 0], [1, 1]], [[2, 0], [2, 1]]]] * 2


def test_a_port_that_connects_to_itself_is_not_the_first_process() -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.connect(own.getsockname())
        calls = [own]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_module.socket, "create_connection", lambda *a, **k: calls.pop())
            with pytest.raises((ProcessError, IndexError)):
                Store("127.0.0.1", free_port(), 1, 2, 0.0)
        assert own.fileno() == -1
