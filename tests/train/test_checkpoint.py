"""Checkpoints: round trips, and error messages for files that cannot be read or written."""

from __future__ import annotations

import io
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.errors import ArgumentError, CheckpointError, DtypeError
from gpunet.train import load, load_metadata, save

pytest.importorskip("safetensors")


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_state_dict_round_trip(path: Path, device: str) -> None:
    first, second = model(), model()
    save(first.state_dict(), path)
    found = load(path, device)
    assert sorted(found) == sorted(first.state_dict())
    second.load_state_dict(found)
    x = gpunet.randn(5, 3)
    assert (first(x) == second(x)).all()
    assert str(found["0.weight"].device) == str(gpunet.device(device))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "bool"])
def test_dtypes_and_shapes(path: Path, dtype: str) -> None:
    state = {
        f"s{i}": gpunet.tensor(numpy.ones(shape, dtype)) for i, shape in enumerate([(), (0,), (0, 3), (2, 3), (1,)])
    }
    state["strided"] = gpunet.tensor(numpy.arange(6).reshape(2, 3).astype(dtype)).T
    save(state, path)
    for name, value in load(path).items():
        assert value.dtype == state[name].dtype
        numpy.testing.assert_array_equal(value.numpy(), state[name].numpy())


def test_training_continues_from_a_nested_state(path: Path) -> None:
    x, y = gpunet.randn(8, 3), gpunet.randn(8, 2)

    def step(net: nn.Module, optimizer: optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()

    first = model()
    first_optimizer = optim.AdamW(first.parameters(), lr=0.01)
    step(first, first_optimizer)
    state = {"model": first.state_dict(), "optimizer": first_optimizer.state_dict(), "epoch": 3, "best": None}
    save(state, path)

    second = model()
    second_optimizer = optim.AdamW(second.parameters(), lr=0.5)
    found = load(path)
    second.load_state_dict(found["model"])
    second_optimizer.load_state_dict(found["optimizer"])
    assert found["epoch"] == 3
    assert found["best"] is None
    for _ in range(3):
        step(first, first_optimizer)
        step(second, second_optimizer)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    "state",
    [
        {"a": [1, 2.5, "text", None, True], "b": (1, (2, [])), 3: {"x": {}}},
        [numpy.float32(1.5), numpy.int64(2)],
        {"key.with.dots": [gpunet.tensor([1.0])], "key": {"with": {"dots": [gpunet.tensor([2.0])]}}},
        7,
        {},
    ],
    ids=["plain", "numpy scalars", "dots", "number", "empty"],
)
def test_plain_data_round_trip(path: Path, state: Any) -> None:
    save(state, path)
    assert repr(load(path)) == repr(state).replace("np.float32(1.5)", "1.5").replace("np.int64(2)", "2")


def test_infinity_is_kept(path: Path) -> None:
    save({"best": math.inf}, path)
    assert load(path) == {"best": math.inf}


def test_same_state_gives_same_bytes(path: Path) -> None:
    state = model().state_dict()
    save(state, path, metadata={"b": 1, "a": [2]})
    first = path.read_bytes()
    save(state, path, metadata={"a": [2], "b": 1})
    assert path.read_bytes() == first
    assert load_metadata(path) == {"a": [2], "b": 1}


def test_pytorch_reads_and_writes_the_files(path: Path, torch: Any) -> None:
    from safetensors.torch import load_file, save_file

    ours, theirs = model(), torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    save(ours.state_dict(), path)
    theirs.load_state_dict(load_file(path))
    x = numpy.ones((2, 3), numpy.float32)
    numpy.testing.assert_allclose(ours(x).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-5)
    save_file(theirs.state_dict(), path)
    ours.load_state_dict(load(path))
    assert load_metadata(path) == {}


# ---- files that cannot be read --------------------------------------------------------------------------------------


def test_missing(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*model\.safetensors: the file does not exist"):
        load(path)


def test_truncated_at_any_length(path: Path) -> None:
    save(model().state_dict(), path)
    whole = path.read_bytes()
    for length in [*range(20), *range(20, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is (empty|truncated)"):
            load(path)


def test_file_longer_than_its_header_says(path: Path) -> None:
    save(model().state_dict(), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and so on", "torch.save"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94.", "a pickle"),
        (b"\x89HDF\r\n\x1a\n and so on", "HDF5"),
        (b"this is only text", "not a safetensors file"),
        (struct.pack("<Q", 5) + b"{nope", "damaged"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors file"),
        (struct.pack("<Q", 10) + b'{"a": 123}', "damaged"),
        (b"short", "truncated"),
    ],
)
def test_other_formats(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_folder(tmp_path: Path, path: Path) -> None:
    save(model().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"is a folder.*did you mean model\.safetensors"):
        load(tmp_path)


def test_dtype_that_numpy_lacks(path: Path, torch: Any) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2, dtype=torch.float8_e5m2)}, path)
    with pytest.raises(CheckpointError, match="cannot read"):
        load(path)


# ---- files that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [model, {"a": object()}, {"a": {(1, 2): 3}}, {"a": numpy.array(["text"])}])
def test_invalid_states(path: Path, state: Any) -> None:
    with pytest.raises(ArgumentError, match="save: .*; expected"):
        save(state, path)
    assert not path.exists()


def test_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save({}, tmp_path / "file" / "model.safetensors")


def test_failed_save_keeps_the_previous_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save({"a": gpunet.ones(3)}, path)

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        monkeypatch.setattr(os, function, fail)
        with pytest.raises(CheckpointError, match="No space left"):
            save({"a": gpunet.zeros(3)}, path)
        monkeypatch.undo()
        assert load(path)["a"].tolist() == [1.0, 1.0, 1.0]
        assert list(path.parent.iterdir()) == [path]


def test_permissions_equal_those_of_a_new_file(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    save({"a": gpunet.ones(1)}, path)
    assert path.stat().st_mode == plain.stat().st_mode


# ---- call forms of PyTorch ------------------------------------------------------------------------------------------


def test_file_objects(path: Path, device: str) -> None:
    state = {"step": 3, "model": model().state_dict(), "best": None}
    memory = io.BytesIO()
    memory.write(b"before")
    save(state, memory)
    save({"second": gpunet.ones(2)}, memory)
    memory.seek(6)
    found = load(memory)
    assert found["step"] == 3 and list(found["model"]) == list(state["model"])
    assert (found["model"]["0.weight"] == state["model"]["0.weight"].cpu()).all()
    assert load(memory)["second"].tolist() == [1.0, 1.0]  # a file object is read from its position on
    with path.open("wb") as file:
        save(state, file)
    with path.open("rb") as file:
        assert load(file)["step"] == 3
    assert load(path)["step"] == load(str(path))["step"] == 3


def test_file_objects_that_cannot_be_used(path: Path) -> None:
    memory = io.BytesIO()
    save(model().state_dict(), memory)
    with pytest.raises(CheckpointError, match=r"is empty.*seek\(0\)"):
        load(memory)
    for length in (5, 20, len(memory.getvalue()) - 1):
        with pytest.raises(CheckpointError, match="truncated"):
            load(io.BytesIO(memory.getvalue()[:length]))
    with pytest.raises(CheckpointError, match="torch.save"):
        load(io.BytesIO(b"PK\x03\x04 and so on"))
    with path.open("w") as file, pytest.raises(ArgumentError, match="mode 'wb'"):
        save({}, file)
    path.write_text("text of a file")
    with path.open() as file, pytest.raises(ArgumentError, match="mode 'rb'"):
        load(file)
    for call in (lambda: save({}, 3), lambda: load(3)):
        with pytest.raises(DtypeError, match="f=3 has type int; expected a path or a file object"):
            call()


def test_keywords(path: Path, device: str) -> None:
    save(obj={"a": gpunet.ones(2)}, f=path, pickle_protocol=4)
    for options in (
        {"weights_only": True}, {"weights_only": False}, {"mmap": True}, {"map_location": "cpu"}, {"encoding": "latin1"},
        {"map_location": gpunet.device("cpu")}, {"map_location": lambda storage, location: storage},
        {"map_location": lambda storage, location: None}, {"map_location": {"cuda:0": "cpu"}},
    ):  # fmt: skip
        found = load(f=path, **options)["a"]
        assert found.tolist() == [1.0, 1.0] and str(found.device) == "cpu"
    for location in (device, {"cpu": device}, lambda storage, location: storage.to(device)):
        assert str(load(path, location)["a"].device) == str(gpunet.device(device))
    with pytest.raises(ArgumentError, match="got map_locaton=, which is no argument"):
        load(path, map_locaton="cpu")
    with pytest.raises(DtypeError, match="map_location returned 3"):
        load(path, lambda storage, location: 3)


def test_names_that_the_format_reserves(path: Path) -> None:
    state = {"__metadata__": gpunet.ones(1), "a": {"__metadata__": gpunet.zeros(1)}, "": gpunet.ones(2)}
    save(state, path)
    assert repr(load(path)) == repr(state)
    save({"__metadata__": gpunet.ones(1)}, path)
    assert load(path)["__metadata__"].item() == 1.0


def test_bfloat16(path: Path, device: str, torch: Any) -> None:
    from safetensors.torch import load_file, save_file

    values = torch.tensor([[1.0, -2.5], [3e38, float("inf")]], dtype=torch.bfloat16)
    save_file({"b": torch.ones(1), "a": values, "c": torch.ones(3, dtype=torch.bool)}, path)
    found = load(path, device)["a"]
    assert found.dtype == gpunet.bfloat16 and found.float().tolist() == values.float().tolist()
    save({"a": found, "f": gpunet.ones(3, dtype="float16")}, path)
    assert (load_file(path)["a"] == values).all() and load(path)["a"].dtype == gpunet.bfloat16
    memory = io.BytesIO()
    save([found], memory)
    memory.seek(0)
    assert load(memory)[0].dtype == gpunet.bfloat16
    layer = nn.Linear(2, 2)
    layer.load_state_dict({"weight": load(path)["a"], "bias": gpunet.zeros(2)})
    assert layer.weight.dtype == gpunet.float32 and layer.weight[0].tolist() == [1.0, -2.5]


def test_the_order_of_names_and_requires_grad_are_kept(path: Path) -> None:
    state = {name: gpunet.ones(1, dtype=dtype) for name, dtype in (("z", "float32"), ("a", "float64"), ("m", "int8"))}
    save(state, path)
    assert list(load(path)) == ["z", "a", "m"]
    save({"w": nn.Parameter(gpunet.ones(2)), "x": gpunet.ones(2)}, path)
    found = load(path)
    assert found["w"].requires_grad and found["w"].is_leaf and not found["x"].requires_grad
    save(gpunet.ones(2, requires_grad=True), path)
    assert load(path).requires_grad


def test_arrays_that_do_not_fill_the_file(path: Path) -> None:
    """The places of the tensors follow each other, without gaps or overlaps."""
    def write(**entries: Any) -> None:
        header = json.dumps({n: {"dtype": d, "shape": s, "data_offsets": o} for n, (d, s, o) in entries.items()}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(max(o[1] for _, _, o in entries.values())))

    write(b=("F32", [1], [4, 8]), a=("F32", [1], [0, 4]))
    assert list(load(path)) == ["b", "a"]
    for entries in (
        {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [8, 12])}, {"a": ("F32", [2], [0, 4])},
        {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [2, 6])},
    ):  # fmt: skip
        write(**entries)
        with pytest.raises(CheckpointError, match="damaged: the place of '[ab]' does not match"):
            load(path)
    write(a=("F32", [-1], [0, 4]))
    with pytest.raises(CheckpointError, match="header is not valid"):
        load(path)
