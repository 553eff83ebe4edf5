"""What data-parallel training costs on many GPUs, by a model; and the model beside measurements of MPI on this machine.

    python bench/scale_model.py             print the tables of docs/scale.md, which are all modelled
    python bench/scale_model.py --write     write them there, after a change of the model or of docs/performance.md
    python bench/scale_model.py --measure   time all-reduce with 2 and 4 processes here, fit the model, and compare (half a minute)

docs/scale.md states the model.  Tests compare its tables with what this script prints.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the source tree, installed or not

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- modelled tables: begin -->\n", "<!-- modelled tables: end -->\n"

#: Data sheets: H200 SXM (NVLink: 900 GB/s in both directions; dense bfloat16), ConnectX-7 (400 Gb/s), DGX H200 (8 of each).
NVLINK, NETWORK, GPUS_PER_NODE = 450e9, 50e9, 8  # bytes/s of a GPU and direction
BFLOAT16 = 989e12  # FLOP/s
#: An assumption: the share of these bandwidths that a large all-reduce gets.
EFFICIENCY = 0.8
#: NCCL's table of latencies, src/graph/tuning.cc: seconds of a launch, of a step over NVLink, and over the network.
LATENCIES = {
    ("ring", "LL"): (6.6e-6, 0.6e-6, 2.7e-6), ("tree", "LL"): (6.8e-6, 0.6e-6, 5.0e-6),
    ("ring", "LL128"): (14.0e-6, 1.9e-6, 4.0e-6), ("tree", "LL128"): (14.0e-6, 1.25e-6, 8.5e-6),
    ("ring", "Simple"): (8.4e-6, 3.4e-6, 14.0e-6), ("tree", "Simple"): (8.4e-6, 4.0e-6, 14.0e-6),
}  # fmt: skip
#: The share of the bytes of a protocol that are data: half of 8 bytes, 120 of 128, all.
PAYLOAD = {"LL": 1 / 2, "LL128": 120 / 128, "Simple": 1.0}
BUCKET = 25 * 2**20  # bytes of gradients that travel together
BACKWARD = 2 / 3  # of a step
COUNTS = (8, 64, 512)
MAX_COUNT = 2**16


class Net(NamedTuple):
    """A network: its parameters, and the time of a step on one GPU."""

    name: str
    parameters: int
    seconds: float
    source: str  # of the time


def nets() -> list[Net]:
    """The networks of the tables; times of perceptrons are those that docs/performance.md predicts."""
    predicted = predicted_steps()
    found = [
        Net(name, perceptron(name.partition(",")[0]), predicted[name], "docs/performance.md")
        for name in (
            "784-512-512-10, batch 64", "784-512-512-10, batch 256", "784-512-512-10, batch 1024", "2048-2048-2048, batch 512",
        )
    ]  # fmt: skip
    images, tokens = 64, 8 * 1024
    resnet = 3 * 2 * 4.09e9 * images  # multiply-adds of torchvision's documentation, at 224 x 224
    gpt = gpt_parameters(12, 768, 50257, 1024)
    flops = 6 * gpt * tokens + 12 * 12 * 768 * 1024 * tokens  # with attention; Kaplan et al. 2020, Chowdhery et al. 2022
    return [
        *found,
        Net("ResNet-50, 64 images", 25_557_032, resnet / (0.15 * BFLOAT16), "15 % of bfloat16"),
        Net("GPT, 12 blocks of 768, 8 x 1024 tokens", gpt, flops / (0.4 * BFLOAT16), "40 % of bfloat16"),
    ]


def perceptron(name: str) -> int:
    """The parameters of a multilayer perceptron such as "784-128-10"."""
    return sum(i * o + o for i, o in itertools.pairwise(map(int, name.split("-"))))


def gpt_parameters(blocks: int, width: int, vocabulary: int, tokens: int) -> int:
    """The parameters of GPT-2, whose last layer is the embedding."""
    return (vocabulary + tokens) * width + blocks * (12 * width * width + 13 * width) + 2 * width


def predicted_steps() -> dict[str, float]:
    """The seconds of the steps that docs/performance.md predicts, by their names."""
    from gpunet.tools.performance_page import page_path, parse

    rows = parse(page_path().read_text(encoding="utf-8"))[1]["Predicted times"]
    return {row[0]: float(row[3]) * 1e-6 for row in rows}


# ---- the model ----------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """The time of an all-reduce: what does not depend on its bytes, and what does."""

    latency: float
    transfer: float
    how: str = ""

    @property
    def seconds(self) -> float:
        return self.latency + self.transfer


def all_reduce(num_bytes: float, count: int, algorithm: str, protocol: str) -> Cost:
    """An all-reduce over GPUs, of which 8 are a node."""
    launch, inside, outside = LATENCIES[algorithm, protocol]
    nodes = max(count // GPUS_PER_NODE, 1)
    bandwidth = EFFICIENCY * PAYLOAD[protocol] * (NVLINK if nodes == 1 else min(NVLINK, GPUS_PER_NODE * NETWORK))
    if algorithm == "ring":
        over_network = 2 * nodes if nodes > 1 else 0
        latency = launch + (2 * (count - 1) - over_network) * inside + over_network * outside
        return Cost(latency, 2 * (count - 1) / count * num_bytes / bandwidth, f"{algorithm}, {protocol}")
    latency = launch + 2 * ((count // nodes - 1) * inside + math.ceil(math.log2(nodes)) * outside)
    return Cost(latency, 2 * num_bytes / bandwidth, f"{algorithm}, {protocol}")


def best(num_bytes: float, count: int, algorithms: Sequence[str] = ("ring", "tree")) -> Cost:
    """The fastest all-reduce of some algorithms."""
    found = (all_reduce(num_bytes, count, *key) for key in LATENCIES if key[0] in algorithms)
    return min(found, key=lambda cost: cost.seconds)


def buckets_of(net: Net) -> list[float]:
    """The bytes of each bucket of the gradients, in float32."""
    total = 4 * net.parameters
    number = math.ceil(total / BUCKET)
    return [total / number] * number


def step(net: Net, count: int) -> tuple[float, list[Cost]]:
    """The time of a step on so many GPUs, and the all-reduce of each bucket.

    The gradients of a bucket are ready at a regular distance in backward, which is the last two thirds of the step; a bucket leaves
    when it is ready and the one before has arrived.
    """
    costs = [best(size, count) for size in buckets_of(net)]
    end = 0.0
    for number, cost in enumerate(costs, 1):
        ready = net.seconds * (1 - BACKWARD + BACKWARD * number / len(costs))
        end = max(end, ready) + cost.seconds
    return end, costs


def limit(net: Net, share: float = 0.5) -> tuple[int | None, str]:
    """The smallest power of two of GPUs whose efficiency is below ``share``, and what takes most of the communication there."""
    for count in (2**exponent for exponent in range(3, int(math.log2(MAX_COUNT)) + 1)):
        seconds, costs = step(net, count)
        if net.seconds / seconds < share:
            latency, transfer = sum(cost.latency for cost in costs), sum(cost.transfer for cost in costs)
            return count, "latency" if latency > transfer else "bandwidth"
    return None, ""


# ---- the tables ---------------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_us(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f}"


def reduce_rows() -> Iterator[Sequence[str]]:
    seen = set()
    for net in nets():
        name = net.name.partition(",")[0]
        if name in seen:
            continue
        seen.add(name)
        size = 4 * net.parameters
        for count in COUNTS:
            ring, tree = best(size, count, ["ring"]), best(size, count, ["tree"])
            yield [
                name, f"{size / 1e6:,.1f}", str(count), f"{2 * (count - 1) / count * size / 1e6:,.1f}",
                f"{in_us(ring.seconds)} ({ring.how.partition(', ')[2]})", f"{in_us(tree.seconds)} ({tree.how.partition(', ')[2]})",
                f"{min(ring, tree, key=lambda cost: cost.seconds).latency / min(ring.seconds, tree.seconds):.0%}",
            ]  # fmt: skip


def step_rows() -> Iterator[Sequence[str]]:
    for net in nets():
        cells = []
        for count in COUNTS:
            seconds, _ = step(net, count)
            cells.append(f"{in_us(seconds)} ({net.seconds / seconds:.0%})")
        where, why = limit(net)
        end = f"{where:,} GPUs: {why}" if where else f"above {MAX_COUNT:,}"
        yield [net.name, f"{in_us(net.seconds)} ({net.source})", *cells, end]


def strong_rows() -> Iterator[Sequence[str]]:
    """A batch of 1024 that more GPUs share."""
    by_batch = {int(net.name.rpartition(" ")[2]): net for net in nets() if net.name.startswith("784")}
    alone = by_batch[1024].seconds
    for batch, net in sorted(by_batch.items(), reverse=True):
        count = 1024 // batch
        cost = best(4 * net.parameters, count) if count > 1 else Cost(0.0, 0.0)
        total = net.seconds + cost.seconds
        yield [str(count), str(batch), in_us(net.seconds), in_us(cost.seconds), in_us(total), f"{alone / total:.2f}"]


def modelled() -> str:
    """The tables of docs/scale.md."""
    reduces = ("net", "gradients, MB", "GPUs", "sent by each, MB", "ring, µs", "tree, µs", "latency's share of the faster")
    steps = ("net, rows on each GPU", "step alone, µs", *(f"{count} GPUs, µs" for count in COUNTS), "below 50 % at")
    strong = ("GPUs", "rows on each", "step alone, µs", "all-reduce, µs", "step, µs", "speedup")
    return "\n".join(
        [
            "### All-reduce of the gradients (modelled)\n", table(reduces, reduce_rows()),
            "### Steps with the same batch on each GPU (modelled)\n", table(steps, step_rows()),
            "### 784-512-512-10 with a batch of 1024 that GPUs share (modelled)\n", table(strong, strong_rows()),
        ]
    )  # fmt: skip


# ---- measurements -------------------------------------------------------------------------------------------------------

SIZES = [8, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22]  # bytes
FITTED = (2**14, 2**22)  # MPI sends smaller messages in another way, without asking the receiver first
SECONDS, REPEATS = 12.0, 10


def measure() -> None:
    """Time all-reduce in the processes that mpiexec started; the first one prints the fastest and their number by size, as JSON.

    The sizes take turns.  The fastest is what processes reach that other load does not keep waiting.  They wait in short sleeps:
    if they share cores, one that waits in a loop keeps the core from the one that it waits for.
    """
    import numpy
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    arrays = {size: numpy.ones(size // 4, numpy.float32) for size in SIZES}
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    start = time.perf_counter()
    while world.bcast(time.perf_counter() - start < SECONDS):
        for size, array in arrays.items():
            array[:] = 0.0
            for _ in range(REPEATS):
                before = time.perf_counter()
                request = world.Iallreduce(MPI.IN_PLACE, array)
                while not request.Test():
                    time.sleep(1e-6)
                found[size].append(time.perf_counter() - before)
    fastest = {size: (world.allreduce(min(values), MPI.MAX), len(values)) for size, values in found.items()}
    if world.Get_rank() == 0:
        print(json.dumps(fastest))


def compare(count: int) -> str:
    """Fit the model to a small and a large message of so many processes here, and compare it with all."""
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        sys.exit("mpiexec is not installed: pip install 'gpunet[mpi]'")
    command = [mpiexec, "-n", str(count), sys.executable, str(Path(__file__).resolve()), "--worker"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = {int(size): values for size, values in json.loads(done.stdout).items()}
    measured = {size: seconds for size, (seconds, _) in found.items()}
    small, large = FITTED
    steps, share = 2 * math.log2(count), 2 * (count - 1) / count
    beta = (measured[large] - measured[small]) / (share * (large - small))
    alpha = (measured[small] - share * small * beta) / steps
    rows = []
    for size in SIZES:
        predicted = alpha * steps + share * size * beta
        fitted = " (fitted)" * (size in FITTED)
        rows.append(
            [f"{size:,}", str(found[size][1]), f"{1e6 * measured[size]:,.1f}", f"{1e6 * predicted:,.1f}{fitted}",
             f"{predicted / measured[size]:.2f}"]
        )  # fmt: skip
    return (
        f"{count} processes: alpha {1e6 * alpha:.2f} µs, 1 / beta {1e-9 / beta:.2f} GB/s (fitted to measurements)\n\n"
        + table(("bytes", "times", "fastest measured, µs", "modelled, µs", "modelled / measured"), iter(rows))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Model data-parallel training on many GPUs.")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    parser.add_argument("--measure", action="store_true", help="compare the model with MPI on this machine")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure()
    elif options.measure:
        for count in (2, 4):
            print(compare(count), flush=True)
    elif options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{modelled()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    else:
        print(modelled())


if __name__ == "__main__":
    main()
