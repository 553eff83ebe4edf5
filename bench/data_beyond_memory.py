"""Time training on shards and on Parquet files beside the same rows in memory, which take turns in one run.

    python bench/data_beyond_memory.py [--mib 256] [--rounds 9] [--steps 50] [--batch-size 256] [--cold]

The network is 784-512-512-10 with Adam, captured.  A turn is a number of steps with their batches, and sometimes the start of an
epoch.  ``--cold`` drops the files from the page cache before each turn, which needs Linux; without it they may be cached, as those
of the epoch before are if memory has room.  Beside the wall time stands the processor time of all threads, which other load of the
machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the source tree, installed or not

import numpy

import gpunet
from gpunet import nn
from gpunet.data import DataLoader, ParquetDataset, ShardedArrays, TensorDataset

FEATURES, CLASSES = 784, 10
SHARD_ROWS = 8192  # 25 MiB


def write(folder: Path, count: int) -> tuple[Any, Any]:
    """Write the same rows as shards and as Parquet files, with row groups of 1 MiB; return them as they are in memory."""
    generator = numpy.random.default_rng(0)
    x, y = generator.random((count, FEATURES), numpy.float32), generator.integers(0, CLASSES, count)
    for number, start in enumerate(range(0, count, SHARD_ROWS)):
        rows = slice(start, start + SHARD_ROWS)
        numpy.save(folder / f"x-{number:03}.npy", x[rows])
        numpy.save(folder / f"y-{number:03}.npy", y[rows])
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return x, y
    pixels = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), FEATURES)
    table = pyarrow.table({"x": pixels, "y": y})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=334, compression="none", use_dictionary=False)
    return x, y


def drop_from_cache(folder: Path) -> None:
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training on data beyond memory.")
    parser.add_argument("--mib", type=int, default=256, help="size of the data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50, help="of a turn")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = write(folder, max(options.mib * 2**20 // (FEATURES * 4), SHARD_ROWS))
        data: dict[str, Any] = {"in memory": TensorDataset(gpunet.tensor(x), gpunet.tensor(y)), "shards": ShardedArrays(folder)}
        if (folder / "rows.parquet").exists():
            data["Parquet"] = ParquetDataset(folder, ["x"], "y")
        loaders = {name: DataLoader(rows, options.batch_size, shuffle=True, drop_last=True) for name, rows in data.items()}
        compare(loaders, options, folder)


def endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def compare(loaders: dict[str, DataLoader], options: argparse.Namespace, folder: Path) -> None:
    """Print the times of a step with each loader, and the speed relative to the first one, medians over rounds."""
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES))
    optimizer, criterion = gpunet.optim.Adam(model.parameters()), nn.CrossEntropyLoss()

    @gpunet.capture
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    batches = {name: endless(loader) for name, loader in loaders.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for number in range(options.rounds + 1):
        for name in [*loaders][:: 1 if number % 2 else -1]:
            if options.cold:
                drop_from_cache(folder)
            wall, processor = time.perf_counter(), time.process_time()
            for batch in itertools.islice(batches[name], options.steps):
                step(*batch)
            if number:  # the first one records the step
                passed = time.perf_counter() - wall, time.process_time() - processor
                times[name].append((passed[0] / options.steps, passed[1] / options.steps))
    first = next(iter(loaders))
    print(
        f"batches of {options.batch_size} rows, {options.steps} steps a turn, {options.rounds} rounds{', cold' * options.cold}; an "
        f"epoch has {len(loaders[first])} steps"
    )
    for name, found in times.items():
        for clock, (label, of_first, own) in enumerate(zip(("wall", "processor"), zip(*times[first]), zip(*found))):
            ratios = [a / b for a, b in zip(of_first, own)]
            print(
                f"{name if not clock else '':10} {label:9} {1e3 * statistics.median(own):8.3f} ms a step, speed "
                f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
