"""Processes by the names of ``torch.multiprocessing``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpunet import multiprocessing
from gpunet.errors import ArgumentError, ProcessError


def write(rank: int, folder: str) -> None:
    Path(folder, str(rank)).write_text(str(os.getpid()))


def fail(rank: int) -> None:
    if rank == 1:
        raise ValueError("the second")


def test_spawn(tmp_path: Path) -> None:
    multiprocessing.spawn(write, (str(tmp_path),), nprocs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]
    context = multiprocessing.spawn(write, (str(tmp_path),), nprocs=1, join=False, start_method="fork")
    assert context is not None and len(context.pids()) == 1 and context.join()


def test_failure_names_the_process() -> None:
    with pytest.raises(ProcessError, match=r"(?s)process 1 of spawn\(\) failed: .*ValueError: the second"):
        multiprocessing.spawn(fail, nprocs=2, start_method="fork")
    with pytest.raises(ArgumentError, match="nprocs=0"):
        multiprocessing.spawn(fail, nprocs=0)


def exits(rank: int) -> None:
    sys.exit(0)


def fail_with_much_text(rank: int) -> None:
    raise ValueError("x" * 300_000)


def test_exit_and_long_messages() -> None:
    multiprocessing.spawn(exits, nprocs=2, start_method="fork")
    with pytest.raises(ProcessError, match=r"process 0 of spawn\(\) failed"):
        multiprocessing.spawn(fail_with_much_text, nprocs=1, start_method="fork")
