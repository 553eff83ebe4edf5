"""Data sets for the tests of loaders, at module level, so that spawned workers can import them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy

import gpunet
from gpunet.data import Dataset, IterableDataset, get_worker_info


class Augmented(Dataset):
    """Sample i is i and a draw from each of the three global generators."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return index, gpunet.rand(2, dtype=gpunet.float64), numpy.random.rand(3), random.random()  # noqa: NPY002


class Failing(Augmented):
    """Raises, dies or sleeps at index 5."""

    def __init__(self, how: str) -> None:
        super().__init__(12)
        self.how = how

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            if self.how == "raise":
                raise KeyError("no such file: 5.png")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                os._exit(3)
            if self.how == "sleep":
                time.sleep(60)
        return index


class Stream(IterableDataset):
    """0 .. size - 1 with a draw each, shared among workers."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(first, self.size, step):
            yield i, random.random()


class WorkerFacts(Augmented):
    """Sample i tells who made it."""

    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        assert info is not None
        device, from_init = str(gpunet.zeros(1).device), int(os.environ.get("FROM_INIT", -1))
        return info.id, info.num_workers, info.seed % 2**31, info.dataset is self, device, from_init


def announce(number: int) -> None:
    os.environ["FROM_INIT"] = str(number)


def fail(number: int) -> None:
    raise OSError(f"no disk for {number}")
