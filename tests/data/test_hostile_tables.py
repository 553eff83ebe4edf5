"""Damaged tables and files of options are read, or refused by an error that names the file, at once and without much memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from gpunet.errors import ArgumentError, DataError
from gpunet.tools.training_options import combined
from tests.data import mutate_tables

MAX_BYTES = 32 << 20


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", mutate_tables.KINDS)
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path, counts = tmp_path / f"file.{kind}", Counter[str]()
    tracemalloc.start()
    try:
        for content in mutate_tables.mutated(kind, 300, 1):
            counts[mutate_tables.read(kind, path, content)] += 1
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    assert counts["refused"] > 100 and counts["read"] > 0


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", mutate_tables.KINDS)
def test_many_mutated_files(kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    for content in mutate_tables.mutated(kind, 10_000, 2):
        mutate_tables.read(kind, tmp_path / f"file.{kind}", content)


@pytest.mark.parametrize(
    "text",
    ["epochs = " + "9" * 5000, "ignore = " + "[" * 5000, "x" * 200_000 + " = 1", 'data = ["' + "x" * 200_000 + '"]', "a = \ud800"],
    ids=["long number", "deep list", "long name", "long text", "surrogate"],
)
def test_hostile_options(text: str, tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ArgumentError, match=r"--config .*options\.toml") as caught:
        combined({}, str(path))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# " + "x" * 200_000 + "\na,b\n1,2\n3,4.5\n", ""),
        ("a,y\n" + "1" * 5000 + ",1\n2,2\n", "inf is not finite"),
        ("a,y\n1," + "1" * 5000 + "\n2,2\n", "line 2, target 'y': inf is not finite"),
        ("a" * 100_000 + ",y\n1,2\n", "every row has the value 2"),
        ("x" * 200_000, "field larger than field limit"),
    ],
    ids=["long comment", "long number", "long target", "long name", "long cell"],
)
def test_hostile_csv(text: str, message: str, tmp_path: Path) -> None:
    from gpunet.data import load

    path = tmp_path / "file.csv"
    path.write_text(text)
    if not message:
        assert len(load(path)) == 2
        return
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2000
