"""How long a process waits for others: until the time limit, unless they have said that they do something that takes long."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.distributed import waiting
from gpunet.distributed.waiting import Limits, Watch


class Clock:
    """A module ``time`` whose time is set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Mail:
    """The communicator of one of two processes."""

    def __init__(self, rank: int, boxes: list[list[Any]]) -> None:
        self.rank, self.boxes = rank, boxes

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.boxes)

    def isend(self, value: Any, other: int) -> Any:
        self.boxes[other].append(value)
        return self

    def Test(self) -> bool:
        return True

    def iprobe(self) -> bool:
        return bool(self.boxes[self.rank])

    def recv(self) -> Any:
        return self.boxes[self.rank].pop(0)

    def Abort(self, status: int) -> None:
        raise SystemExit(status)


def wait(watch: Watch, clock: Clock, first: int, last: int, on_gpu: bool = False) -> int:
    """Let a process wait up to a second, or until the watch stops all; return the second."""
    for second in range(first, last + 1):
        clock.now += 1.0
        try:
            watch.tell("all_reduce", float(second), on_gpu)
        except SystemExit:
            return second
    return last


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(waiting, "time", found := Clock())
    return found


def pair() -> tuple[Watch, Watch]:
    boxes: list[list[Any]] = [[], []]
    limits = Limits(25.0, 600.0, 600.0)
    return Watch(Mail(0, boxes), limits), Watch(Mail(1, boxes), limits)


def test_a_silent_process_is_waited_for_up_to_the_limit(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait(pair()[0], clock, 1, 100) == 26
    assert "rank 0 has waited 26 s in all_reduce for rank 1, which does not answer; all are stopped" in capsys.readouterr().err


def test_a_process_that_compiles_is_waited_for(clock: Clock) -> None:
    """The limit begins when it has compiled."""
    one, other = pair()
    other.announce("compiling a step")
    assert wait(one, clock, 1, 60) == 60
    other.announce(None)
    assert wait(one, clock, 61, 100) == 87  # it is heard at second 61


def test_a_process_that_compiles_for_ever_is_not_waited_for(clock: Clock) -> None:
    one, other = pair()
    other.announce("compiling a step")
    assert 600 < wait(one, clock, 1, 1000) < 630


def test_a_silent_process_is_waited_for_longer_where_a_gpu_works(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert wait(pair()[0], clock, 1, 1000, on_gpu=True) == 601
    assert "rank 0 has waited 601 s in all_reduce for rank 1, which does not answer" in capsys.readouterr().err


def test_where_all_wait_for_their_gpus_nothing_is_stopped(clock: Clock) -> None:
    one, other = pair()
    for second in range(1, 1000):
        clock.now += 0.5
        one.tell("all_reduce", float(second), on_gpu=True)
        clock.now += 0.5
        other.tell("all_reduce", float(second), on_gpu=True)
