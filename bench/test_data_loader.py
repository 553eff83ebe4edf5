"""The time of a batch of tensors in memory: gpunet's DataLoader beside PyTorch's, on equal arrays and in turns.

pytest bench/test_data_loader.py -s
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

import gpunet
from gpunet.data import DataLoader, Subset, TensorDataset

ROWS, FEATURES, ROUNDS = 16_384, 32, 9


def seconds_per_batch(loader: Any) -> float:
    """The time of an epoch, with its order and without a step, divided by the number of batches."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - start) / len(loader)


@pytest.mark.parametrize("part", ["all rows", "subset"])
@pytest.mark.parametrize("batch_size", [32, 64, 256])
def test_data_loader(batch_size: int, part: str, benchmark: Any, capsys: Any) -> None:
    torch = pytest.importorskip("torch")
    x, y = gpunet.randn(ROWS, FEATURES), gpunet.randint(10, (ROWS,))
    ours: Any = TensorDataset(x, y)
    theirs: Any = torch.utils.data.TensorDataset(torch.from_numpy(x.numpy()), torch.from_numpy(y.numpy()))
    if part == "subset":
        rows = range(1, ROWS, 2)
        ours, theirs = Subset(ours, rows), torch.utils.data.Subset(theirs, rows)
    loader = DataLoader(ours, batch_size, shuffle=True)
    peer = torch.utils.data.DataLoader(theirs, batch_size, shuffle=True)
    seconds_per_batch(loader), seconds_per_batch(peer)
    pairs = [(seconds_per_batch(loader), seconds_per_batch(peer)) for _ in range(ROUNDS)]
    mine, torchs = (statistics.median(values) * 1e6 for values in zip(*pairs))
    ratio = statistics.median(b / a for a, b in pairs)
    with capsys.disabled():
        print(f"\n{part}, batches of {batch_size}: gpunet {mine:.1f} µs, PyTorch {torchs:.1f} µs a batch: {ratio:.1f} times")
    benchmark.extra_info["PyTorch / gpunet"] = ratio
    benchmark.pedantic(seconds_per_batch, args=(loader,), rounds=3, iterations=1)
