"""Damage ONNX files at random, and load them: ``python -m tests.interop.mutate_onnx --count 10000``.

Each file must be loaded, or refused by a FormatError.  The longest time and the memory are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import gpunet
import gpunet.onnx
from gpunet.errors import FormatError
from tests import damage
from tests.damage import Random
from tests.interop.layers_to_export import NETWORKS, ROWS, arguments

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


def mutated(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damaged files."""
    return damage.mutated(files, count, seed, (*damage.OF_BYTES, fields, fields))


def load(content: bytes) -> str:
    """Load a file; return what happened."""
    try:
        gpunet.onnx.load(content)
    except FormatError:
        return "refused"
    return "loaded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = sources()
    for content in files:
        assert load(content) == "loaded"
    print(damage.measured(load, mutated(files, arguments.count, arguments.seed)))


if __name__ == "__main__":
    main()
