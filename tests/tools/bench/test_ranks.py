"""``gpunet bench --ranks``: data-parallel steps in several processes."""

from __future__ import annotations

import math

import pytest

from gpunet.tools.bench import ranks
from tests.distributed.test_distributed import needs_mpi


def test_table() -> None:
    times = {
        "gpunet": {
            "parallel": [0.010, 0.012, 0.011], "alone": [0.0099, 0.0088, 0.0111], "waited": [0.1, 0.05, 0.2], "processor": [0.007],
        },
        "torch": {"parallel": [0.02], "alone": [0.015], "waited": [math.nan], "processor": [0.008]},
    }  # fmt: skip
    table = [line.split() for line in ranks.lines(2, times)[2:]]
    assert table == [
        ["gpunet", "11.00", "ms", "9.90", "ms", "10.0", "%", "10.0", "%", "7.00", "ms"],
        ["torch", "(gloo)", "20.00", "ms", "15.00", "ms", "25.0", "%", "8.00", "ms"],
    ]


@needs_mpi
@pytest.mark.exhaustive
def test_two_processes_have_the_losses_of_pytorch() -> None:
    pytest.importorskip("torch")
    found = ranks.measure(2, 1, ["gpunet", "torch"])  # raises if the losses differ
    assert all(len(times) == 1 for library in found.values() for times in library.values())
    assert 0.0 <= found["gpunet"]["waited"][0] < 1.0
