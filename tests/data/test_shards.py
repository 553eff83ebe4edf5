"""ShardedArrays: values, the order of files, refused files, and training in less memory than the data have."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.data import DataLoader, RandomSampler, ShardedArrays
from gpunet.errors import ArgumentError, DataError
from gpunet.launch.random import Generator

LENGTHS = (50, 73, 1, 0, 40)


def write(folder: Path, lengths: Any = LENGTHS, dtype: str = "float32") -> Path:
    """Write shards whose row i is (i, i / 2, -i) and i."""
    start = 0
    for number, length in enumerate(lengths):
        rows = numpy.arange(start, start + length)
        numpy.save(folder / f"x-{number:03}.npy", numpy.stack([rows, rows / 2, -rows], 1).astype(dtype))
        numpy.save(folder / f"y-{number:03}.npy", rows)
        start += length
    return folder


def values(loader: Any) -> list[int]:
    found = []
    for x, y in loader:
        rows = y.numpy()
        assert (x.numpy() == numpy.stack([rows, rows / 2, -rows], 1)).all()
        found += y.tolist()
    return found


@pytest.mark.parametrize("block_size", [None, 1, 16, 1000])
def test_batches_have_the_rows_of_the_files(tmp_path: Path, block_size: int | None) -> None:
    data = ShardedArrays(write(tmp_path), block_size=block_size)
    assert len(data) == 164 and data.array_names == ("x", "y")
    assert values(DataLoader(data, 10)) == [*range(164)]
    assert sorted(values(DataLoader(data, 10, shuffle=True))) == [*range(164)]
    assert sorted(values(DataLoader(data, 100, sampler=RandomSampler(data)))) == [*range(164)]
    assert data[51][0].tolist() == [51.0, 25.5, -51.0] and data[-1][1].item() == 163
    assert sorted([*values(DataLoader(data.hold_out(0.3)[0], 9)), *values(DataLoader(data.hold_out(0.3)[1], 9))]) == [*range(164)]
    copied = pickle.loads(pickle.dumps(data))
    assert values(DataLoader(copied, 30)) == [*range(164)]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int16", "bool", "complex64"])
def test_dtypes_stay(tmp_path: Path, dtype: str) -> None:
    array = numpy.arange(24).reshape(4, 2, 3).astype(dtype)
    numpy.save(tmp_path / "images.npy", array)
    [[batch]] = DataLoader(ShardedArrays(tmp_path / "images.npy"), 4)
    assert batch.numpy().dtype == dtype and (batch.numpy() == array).all()


def test_names_and_numbers_of_files(tmp_path: Path) -> None:
    for name in ("label", "images", "weight"):
        for number in (10, 9, 1):
            numpy.save(tmp_path / f"{name}_{number}-of-10.npy", numpy.full(number, number))
    (tmp_path / "README.md").write_text("about the data")
    data = ShardedArrays(tmp_path)
    assert data.array_names == ("images", "weight", "label")
    assert [y.item() for *_, y in data] == [1] + [9] * 9 + [10] * 10  # by number, not by text
    assert ShardedArrays(tmp_path, arrays=["label", "images"]).array_names == ("label", "images")
    numpy.save(tmp_path / "mean.npy", numpy.zeros(3))
    assert ShardedArrays(tmp_path, arrays=["images"]).array_names == ("images",)
    paths = sorted(tmp_path.glob("images*"))
    assert len(ShardedArrays(paths)) == 20 and len(ShardedArrays(str(paths[0]))) == 1
    files = {"a": paths, "b": sorted(tmp_path.glob("label*"))}
    assert ShardedArrays(files).array_names == ("a", "b")


def spoil(folder: Path, how: str) -> None:
    file = folder / "y-001.npy"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "longer":
        file.write_bytes(file.read_bytes() + b"abc")
    elif how == "header":
        file.write_bytes(file.read_bytes().replace(b"'descr'", b"'descr:"))
    elif how == "no array":
        file.write_bytes(b"<html>")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "absent":
        file.unlink()
    elif how == "archive":
        numpy.savez(folder / "z-001.npz", x=numpy.zeros(3))
    elif how == "fewer rows":
        numpy.save(file, numpy.arange(72))
    elif how == "dtype":
        numpy.save(file, numpy.arange(73.0))
    elif how == "shape":
        numpy.save(file, numpy.zeros((73, 2), int))
    elif how == "objects":
        numpy.save(file, numpy.array([None] * 73), allow_pickle=True)
    elif how == "text":
        numpy.save(file, numpy.array(["a"] * 73))
    elif how == "big-endian":
        numpy.save(file, numpy.arange(73).astype(">i8"))
    elif how == "Fortran":
        numpy.save(folder / "x-001.npy", numpy.asfortranarray(numpy.zeros((73, 3), "float32")))
    elif how == "number":
        numpy.save(file, numpy.float32(3.0))
    elif how == "twice":
        numpy.save(folder / "y-1.npy", numpy.arange(73))
    elif how == "no rows":
        write(folder, [0] * 5)
    elif how == "folder":
        file.unlink()
        file.mkdir()


@pytest.mark.parametrize(
    "how, match",
    [
        ("truncated", r"y-001\.npy is truncated: it has 709 bytes; expected 712 for int64 \(73,\)"),
        ("longer", r"y-001\.npy is damaged: it has 715 bytes; expected 712"),
        ("header", r"y-001\.npy is damaged: .*numpy\.save"),
        ("no array", r"y-001\.npy is damaged, or no \.npy file: it begins with b'<html>'"),
        ("empty", r"y-001\.npy is damaged, or no \.npy file: it begins with b''"),
        ("absent", r"x-001\.npy: there is no file of the array 'y' with its number"),
        ("archive", r"z-001\.npz is an \.npz file, .*numpy\.save"),
        ("fewer rows", r"y-001\.npy has 72 rows, but .*x-001\.npy has 73"),
        ("dtype", r"y-001\.npy has rows of float64 \(\), but .*y-000\.npy has rows of int64 \(\)"),
        ("shape", r"y-001\.npy has rows of int64 \(2,\), but .*y-000\.npy has rows of int64 \(\)"),
        ("objects", r"y-001\.npy contains object; expected numbers"), ("text", r"y-001\.npy contains <U1; expected numbers"),
        ("big-endian", r"y-001\.npy contains >i8; expected numbers in the byte order"),
        ("Fortran", r"x-001\.npy is in Fortran's order.*numpy\.ascontiguousarray"),
        ("number", r"y-001\.npy contains a single number"), ("twice", r"y-1\.npy: .*y-001\.npy has the same array and number"),
        ("no rows", r"x-000\.npy: there are no rows"), ("folder", r"cannot read .*y-001\.npy: Is a directory"),
    ],
)  # fmt: skip
def test_refused_files(tmp_path: Path, how: str, match: str) -> None:
    spoil(write(tmp_path), how)
    with pytest.raises(DataError, match=match):
        ShardedArrays(sorted(tmp_path.glob("*-001.np?")) if how == "archive" else tmp_path)


def test_an_npz_file_alone_is_refused(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "data.npz", x=numpy.zeros(3))
    with pytest.raises(DataError, match=r"data\.npz is an \.npz file"):
        ShardedArrays(tmp_path)


@pytest.mark.parametrize(
    "source, match",
    [
        ([], r"ShardedArrays: \[\]; expected a folder"), (3, "ShardedArrays: 3; expected a folder"), ({}, "no arrays"),
        ({"a": ["x.npy"], "b": ["y.npy", "z.npy"]}, "1 of 'a', 2 of 'b'; expected the same number"),
        ("no such folder", "cannot read no such folder: No such file or directory"),
    ],
)  # fmt: skip
def test_refused_sources(source: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        ShardedArrays(source)


def test_refused_arguments(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for options in ({"block_size": 0}, {"arrays": ["x", "z"]}, {"arrays": "x"}):
        with pytest.raises(ArgumentError, match="ShardedArrays: "):
            ShardedArrays(folder, **options)  # type: ignore[arg-type]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "data.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"inner: the folder has no \.npy file; it has data\.csv"):
        ShardedArrays(tmp_path / "inner")


def test_a_file_that_changes_afterwards_is_named(tmp_path: Path) -> None:
    data = ShardedArrays(write(tmp_path))
    spoil(tmp_path, "truncated")
    with pytest.raises(DataError, match=r"y-001\.npy has 709 bytes, but had 712 before"):
        values(DataLoader(data, 10, generator=Generator(1)))
    spoil(tmp_path, "absent")
    with pytest.raises(DataError, match=r"y-001\.npy cannot be read any more: No such file"):
        values(DataLoader(ShardedArrays(sorted(tmp_path.glob("*-000.npy"))), 10)), values(DataLoader(data, 10))


def test_deleted_data_free_their_memory_at_once(tmp_path: Path) -> None:
    data = ShardedArrays(write(tmp_path))
    assert values(DataLoader(data, 10)) == [*range(164)]
    gone = weakref.ref(data)
    gc.disable()
    del data
    is_gone = gone() is None
    gc.enable()
    assert is_gone


# ---- memory -------------------------------------------------------------------------------------------------------------

#: Trains in a process whose whole address space is limited, to which maps of files count, too.
PROGRAM = """
import re, resource, sys
from pathlib import Path
import numpy
import gpunet
from gpunet import nn
from gpunet.data import DataLoader, ShardedArrays, TensorDataset
folder, limit, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if how == "shards":
    data = ShardedArrays(folder)
elif how == "in memory":
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    data = TensorDataset(*(gpunet.tensor(numpy.concatenate([numpy.load(f) for f in sorted(folder.glob(n))])) for n in ("x*", "y*")))
else:
    print(1024 * int(re.search("VmSize: *([0-9]+)", Path("/proc/self/status").read_text().replace(chr(9), " "))[1]))
    sys.exit()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
model = nn.Linear(4096, 4)
optimizer = gpunet.optim.SGD(model.parameters(), lr=1e-4)
loader = DataLoader(data, 64, shuffle=True)
history = gpunet.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=1, progress=False, capture=False)
print(history["train_loss"][0])
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the address space")
def test_training_in_a_third_of_the_memory_of_the_data(tmp_path: Path) -> None:
    """A process trains on shards whose size is three times its limit, within which it cannot read them all."""

    def run(how: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(limit), how]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    limit = int(run("imports alone").stdout) + 192 * 2**20  # of which 66 MiB are the window, 48 those of OpenBLAS
    generator = numpy.random.default_rng(0)
    centers = generator.normal(size=(4, 4096)).astype("float32")
    noise = generator.standard_normal((512, 4096), "float32")
    size = number = 0
    while size <= 3 * limit:
        labels = generator.integers(0, 4, 512)
        numpy.save(tmp_path / f"x-{number:03}.npy", 0.1 * centers[labels] + numpy.roll(noise, number, 1))
        numpy.save(tmp_path / f"y-{number:03}.npy", labels)
        size += sum((tmp_path / f"{name}-{number:03}.npy").stat().st_size for name in "xy")
        number += 1
    done = run("shards", limit)
    assert done.returncode == 0, done.stderr
    assert 0.5 < float(done.stdout) < 1.35  # log(4) is 1.386
    failed = run("in memory", limit)
    assert failed.returncode != 0 and "MemoryError" in failed.stderr
