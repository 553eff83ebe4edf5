"""The number of threads of captured steps, and the helper threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import gpunet
from gpunet.backend import threads
from gpunet.errors import ArgumentError


@pytest.fixture(autouse=True)
def _keep_number_of_threads() -> Iterator[None]:
    before = threads._helpers.count
    yield
    threads._helpers.count = before


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.setenv("GPUNET_NUM_THREADS", "5")
    assert gpunet.get_num_threads() == 5
    gpunet.set_num_threads(2)
    assert gpunet.get_num_threads() == 2
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.delenv("GPUNET_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert gpunet.get_num_threads() == threads.available_cores()


@pytest.mark.parametrize("setting, expected", [("1", 1), ("1,4", 1), (str(1 << 20), None), ("0", None), ("many", None)])
def test_openmps_number_of_threads_counts(setting: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.delenv("GPUNET_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert gpunet.get_num_threads() == (expected or threads.available_cores())


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many"])
def test_invalid_number_of_threads(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=f"set_num_threads: {wrong!r} threads; expected a positive whole number"):
        gpunet.set_num_threads(wrong)
    monkeypatch.setattr(threads._helpers, "count", None)
    monkeypatch.setenv("GPUNET_NUM_THREADS", str(wrong))
    with pytest.raises(ArgumentError, match="GPUNET_NUM_THREADS"):
        gpunet.get_num_threads()


def test_helpers_survive_work_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    helpers = threads._Helpers()  # a pool of its own: a single thread runs both

    def fail() -> None:
        raise ValueError("planted")

    helpers.offer(fail, 1)
    helpers.offer(done.set, 1)
    assert done.wait(30)
    assert "planted" in caplog.text
    helpers.stop()
