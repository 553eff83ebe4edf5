"""Damage ONNX files at random, and load them: ``python -m tests.interop.mutate_onnx --count 10000``.

Each file must be loaded, or refused by a FormatError.  The longest time and the memory are printed.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

import gpunet
import gpunet.onnx
from gpunet.errors import FormatError
from tests.interop.layers_to_export import NETWORKS, ROWS, arguments

Random = numpy.random.Generator
_SEEDS = (
    "Linear of sequences", "BatchNorm2d", "LSTM deep", "MaxPool2d ceil", "TransformerEncoderLayer", "U-Net", "functions", "GPT",
)  # fmt: skip


def sources() -> list[bytes]:
    """Files of some models."""
    gpunet.manual_seed(0)
    found = []
    for name in _SEEDS:
        case = {**ROWS, **NETWORKS}[name]
        found.append(gpunet.onnx.export(case.make(), arguments(case), verify=False).SerializeToString())
    return found


# ---- of bytes -----------------------------------------------------------------------------------------------------------


def flip(content: bytearray, r: Random) -> None:
    for _ in range(int(r.integers(1, 9))):
        content[r.integers(len(content))] = r.integers(256)


def cut(content: bytearray, r: Random) -> None:
    start = int(r.integers(len(content)))
    del content[start : start + int(r.integers(1, 1 + len(content) // 4))]


def truncate(content: bytearray, r: Random) -> None:
    del content[int(r.integers(len(content))) :]


def repeat(content: bytearray, r: Random) -> None:
    start, at = r.integers(len(content), size=2)
    content[at:at] = content[start : start + r.integers(1, 200)]


def enlarge(content: bytearray, r: Random) -> None:
    """A huge variable-length integer, such as a length or a size."""
    at = r.integers(len(content))
    content[at : at + 1] = bytes([0xFF] * int(r.integers(1, 10)) + [int(r.integers(128))])


def noise(content: bytearray, r: Random) -> None:
    content[:] = r.bytes(int(r.integers(0, 2000)))


# ---- of fields ----------------------------------------------------------------------------------------------------------


def fields(content: bytearray, r: Random) -> None:
    """Other numbers and names in the fields of the graph."""
    import onnx

    model = onnx.load_from_string(bytes(content))
    graph = model.graph
    for _ in range(int(r.integers(1, 4))):
        node = graph.node[r.integers(len(graph.node))]
        change = r.integers(10)
        wild = int(r.choice([-1, 0, 1, 7, 2**31, 2**62, -(2**62)]))
        if change == 0 and len(node.input):
            node.input[r.integers(len(node.input))] = str(r.choice(["", "nothing", "input", *graph.node[-1].output]))
        elif change == 1:
            node.op_type = str(r.choice(["Conv", "Loop", "", "Reshape", "LSTM", "Concat", "\0"]))
        elif change == 2 and node.attribute:
            attribute = node.attribute[r.integers(len(node.attribute))]
            attribute.i, attribute.f = wild, float(wild)
            if attribute.ints:
                attribute.ints[r.integers(len(attribute.ints))] = wild
        elif change == 3 and node.attribute:
            attribute = node.attribute[r.integers(len(node.attribute))]
            attribute.type = r.choice([1, 2, 3, 4, 5, 6, 7, 8])
        elif change == 4 and graph.initializer:
            tensor = graph.initializer[r.integers(len(graph.initializer))]
            tensor.dims.append(wild)
        elif change == 5 and graph.initializer:
            tensor = graph.initializer[r.integers(len(graph.initializer))]
            tensor.data_type = int(r.integers(0, 25))
        elif change == 6 and graph.initializer:
            tensor = graph.initializer[r.integers(len(graph.initializer))]
            tensor.data_location = 1
        elif change == 7:
            del graph.node[r.integers(len(graph.node))]
            if not graph.node:
                break
        elif change == 8 and len(node.output):
            node.output[0] = graph.node[0].output[0]
        else:
            model.opset_import[0].version = wild
    content[:] = model.SerializeToString()


MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (flip, cut, truncate, repeat, enlarge, noise, fields, fields)


def mutated(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damaged files."""
    r = numpy.random.default_rng(seed)
    for number in range(count):
        content = bytearray(files[r.integers(len(files))])
        MUTATIONS[number % len(MUTATIONS)](content, r)
        yield bytes(content)


def load(content: bytes) -> str:
    """Load a file; return what happened."""
    try:
        gpunet.onnx.load(content)
    except FormatError:
        return "refused"
    return "loaded"


def peak() -> int:
    """The largest resident memory of this process in KiB, since the last :func:`forget_peak`."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = sources()
    for content in files:
        assert load(content) == "loaded"
    counts, longest, cases = Counter[str](), 0.0, [*mutated(files, arguments.count, arguments.seed)]
    forget_peak()
    before = peak()
    for content in cases:
        start = time.perf_counter()
        counts[load(content)] += 1
        longest = max(longest, time.perf_counter() - start)
    print(f"{dict(counts)}, at most {1000 * longest:.0f} ms and {(peak() - before) / 1024:.1f} MB more")


if __name__ == "__main__":
    main()
