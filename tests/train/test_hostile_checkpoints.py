"""Damaged and hostile checkpoints of a Trainer: a named error, at once, without much memory."""

from __future__ import annotations

import json
import resource
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.errors import GpunetError
from gpunet.train import Trainer, load

pytest.importorskip("safetensors")

BATCHES = [(gpunet.tensor(numpy.ones((4, 2))), gpunet.tensor([0, 1, 0, 1]))]
NUM_MUTANTS = 400
MAX_SECONDS, MAX_BYTES = 2.0, 32 << 20


def trainer(**options: Any) -> Trainer:
    gpunet.manual_seed(0)
    model = nn.Linear(2, 2).double()
    return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), progress=False, capture=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    trainer(folder=folder).fit(BATCHES, BATCHES, epochs=2)
    return (folder / "checkpoint.safetensors").read_bytes()


def mutate(whole: bytes, random: numpy.random.Generator) -> bytes:
    """Change, remove, insert, repeat or move bytes; most often in the header, which is more fragile."""
    header = 8 + int.from_bytes(whole[:8], "little")
    limit = header if random.random() < 0.7 else len(whole)
    start = int(random.integers(0, limit))
    length = int(random.choice([1, 2, 8, 100]))
    content = bytearray(whole)
    kind = random.integers(0, 6)
    if kind == 0:
        content[start] ^= 1 << int(random.integers(0, 8))
    elif kind == 1:
        del content[start : start + length]
    elif kind == 2:
        content[start:start] = random.bytes(length)
    elif kind == 3:
        content[start:start] = content[start : start + length]
    elif kind == 4:
        other = int(random.integers(0, limit))
        first, second = content[start : start + length], content[other : other + length]
        content[start : start + length], content[other : other + length] = second, first
    else:
        digits = [i for i in range(8, header) if chr(content[i]).isdigit()]
        content[digits[int(random.integers(0, len(digits)))]] = ord(str(random.integers(0, 10)))
    return bytes(content)


def test_mutated_checkpoints_are_named_errors(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(whole)
    expected = repr(load(path))
    random = numpy.random.default_rng(0)
    num_errors = 0
    for _ in range(NUM_MUTANTS):
        content = mutate(whole, random)
        path.write_bytes(content)
        start = time.perf_counter()
        tracemalloc.start()
        try:
            found = repr(load(path))
        except GpunetError as error:
            num_errors += str(path) in str(error)
        else:
            if found != expected:  # the name of our entry in the metadata has changed: tensors of any other library
                with pytest.raises(GpunetError, match="no checkpoint of a Trainer"):
                    trainer(folder=tmp_path, resume=True).fit(BATCHES, BATCHES, epochs=1)
                num_errors += 1
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MAX_BYTES and time.perf_counter() - start < MAX_SECONDS
    assert num_errors > 0.9 * NUM_MUTANTS


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE = {
    "long header": struct.pack("<Q", 2**63) + b"{",
    "deep header": with_header(b'{"a":' * 100_000),
    "deep structure": with_header({"__metadata__": {"gpunet": '{"structure":' + '{"list":[' * 50_000}}),
    "many dimensions": with_header({"a": {"dtype": "F32", "shape": [1] * 1000, "data_offsets": [0, 4]}}, bytes(4)),
    "huge and empty": with_header({"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
    "huge": with_header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(4)),
    "fractions": with_header({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4.0]}}, bytes(4)),
    "booleans": with_header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [False, 4]}}, bytes(4)),
    "negative": with_header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
    "three offsets": with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
    "unknown dtype": with_header({"a": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "no names": with_header({"a": None}),
    "list": with_header([1, 2]),
    "large number": with_header(b'{"a":' + b"9" * 5000 + b"}"),
    "not UTF-8": with_header(b'{"\xff": 1}'),
    "wrong structure": with_header({"__metadata__": {"gpunet": json.dumps({"structure": {"dict": [[[1], 2]]}})}}),
    "missing tensor": with_header({"__metadata__": {"gpunet": json.dumps({"structure": {"tensor": "a"}})}}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GpunetError, match=r"model\.safetensors"):
        load(path)
    with path.open("rb") as file, pytest.raises(GpunetError, match=r"model\.safetensors"):
        load(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_BYTES >> 10


STATES: dict[str, Any] = {
    "plain tensors": {"weight": gpunet.ones(2)},
    "another format": {"format": 99},
    "nothing in it": {"format": 1},
    "a list": [1, 2],
    "wrong kinds": {"format": 1, "weights": {"model": {}}, "stateful": 3, "counts": {}, "rows": [], "random": {}},
}


@pytest.mark.parametrize("name", STATES)
def test_files_that_are_no_checkpoint_of_a_trainer(name: str, tmp_path: Path) -> None:
    gpunet.save(STATES[name], tmp_path / "checkpoint.safetensors")
    with pytest.raises(GpunetError):
        trainer(folder=tmp_path, resume=True).fit(BATCHES, epochs=1)


def test_states_with_parts_exchanged(whole: bytes, tmp_path: Path) -> None:
    """Whole files, whose checksum is right, with parts of another type: a hostile writer knows the checksum, too."""
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(whole)
    state = load(path)
    others: list[Any] = [None, -1, "text", [], {}, gpunet.ones(3), [[1, 2]], 2**70]

    def places(value: Any, way: tuple[Any, ...] = ()) -> Any:
        yield way
        if isinstance(value, dict):
            for key, part in value.items():
                yield from places(part, (*way, key))

    random = numpy.random.default_rng(1)
    for way in places(state):
        if not way:
            continue
        path.write_bytes(whole)
        changed = load(path)
        part = changed
        for key in way[:-1]:
            part = part[key]
        part[way[-1]] = others[int(random.integers(0, len(others)))]
        gpunet.save(changed, path)
        try:
            trainer(folder=tmp_path, resume=True).fit(BATCHES, BATCHES, epochs=2)
        except GpunetError:
            pass
