"""ParquetDataset: values by column and row group, columns that are not read, refused files and columns."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.data import DataLoader, ParquetDataset
from gpunet.errors import ArgumentError, DataError, MissingDependencyError

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def table(start: int, count: int, **changes: Any) -> Any:
    rows = numpy.arange(start, start + count)
    columns = {
        "a": rows.astype("float64"), "b": rows % 2 == 0, "text": [f"row {i}" for i in rows],
        "pixels": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numpy.repeat(rows, 3), pyarrow.int16()), 3),
        "y": rows.astype("int32"), **changes,
    }  # fmt: skip
    return pyarrow.table({name: column for name, column in columns.items() if column is not None})


def write(folder: Path, **changes: Any) -> Path:
    """Write files of 30, 0 and 25 rows in row groups of up to 8."""
    for number, (start, count) in enumerate([(0, 30), (30, 0), (30, 25)]):
        parquet.write_table(table(start, count, **(changes if number == 2 else {})), folder / f"{number}.parquet", row_group_size=8)
    return folder


COLUMNS = ["b", "pixels", "a"]


def values(loader: Any) -> list[int]:
    found = []
    for x, y in loader:
        rows = y.numpy()
        assert (x.numpy() == numpy.stack([rows % 2 == 0, rows, rows, rows, rows], 1)).all()
        assert x.numpy().dtype == "float32" and rows.dtype == "int64"
        found += y.tolist()
    return found


def test_batches_have_the_named_columns(tmp_path: Path) -> None:
    data = ParquetDataset(write(tmp_path), COLUMNS, "y")
    assert len(data) == 55 and data.feature_names == ("b", "pixels[0]", "pixels[1]", "pixels[2]", "a")
    assert data.block_starts.tolist() == [0, 8, 16, 24, 30, 38, 46, 54, 55]
    assert values(DataLoader(data, 10)) == [*range(55)]
    assert sorted(values(DataLoader(data, 10, shuffle=True))) == [*range(55)]
    assert data[31][0].tolist() == [0.0, 31.0, 31.0, 31.0, 31.0] and data[-1][1].item() == 54
    rest, held_out = data.hold_out(0.2)
    assert sorted([*values(DataLoader(rest, 9)), *values(DataLoader(held_out, 9))]) == [*range(55)]
    assert values(DataLoader(pickle.loads(pickle.dumps(data)), 30)) == [*range(55)]
    paths = sorted(tmp_path.iterdir())
    assert values(DataLoader(ParquetDataset(paths[2], COLUMNS, "y"), 30)) == [*range(30, 55)]
    assert values(DataLoader(ParquetDataset(paths[::2], COLUMNS, "y"), 30)) == [*range(55)]


def test_only_the_named_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = parquet.ParquetFile.read_row_group

    def read_row_group(self: Any, i: int, columns: Any = None, **options: Any) -> Any:
        read.append((i, columns))
        return original(self, i, columns=columns, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", read_row_group)
    data = ParquetDataset(write(tmp_path), ["a"], "y")
    assert read == []
    for _ in DataLoader(data, 5, shuffle=True):
        pass
    assert len(read) == 8 and all(columns == ["a", "y"] for _, columns in read)


@pytest.mark.parametrize(
    "column, dtype, shape",
    [
        (numpy.arange(6, dtype="uint8"), "int64", (6,)), (numpy.arange(6) % 2 == 0, "int64", (6,)),
        (numpy.arange(6, dtype="float32"), "float64", (6,)), (numpy.arange(6, dtype="float16"), "float64", (6,)),
        (pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numpy.arange(6.0)), 1), "float64", (6, 1)),
        (pyarrow.array([*range(6)], pyarrow.decimal128(5, 1)), "float64", (6,)),
    ],
)  # fmt: skip
def test_dtypes(tmp_path: Path, column: Any, dtype: str, shape: tuple[int, ...]) -> None:
    parquet.write_table(pyarrow.table({"z": column, "x": column}), tmp_path / "data.pq")
    [(x, y)] = DataLoader(ParquetDataset(tmp_path, target="z", dtype="float64"), 6)
    assert y.numpy().dtype == dtype and y.shape == shape
    assert x.numpy().dtype == "float64" and x.shape == (6, 1)
    expected = [1, 0, 1, 0, 1, 0] if str(column.dtype if isinstance(column, numpy.ndarray) else "") == "bool" else [*range(6)]
    assert x.reshape(6).tolist() == y.reshape(6).tolist() == expected
    assert len(ParquetDataset(tmp_path, ["x"])[0]) == 1


@pytest.mark.parametrize(
    "changes, options, match",
    [
        ({"a": None}, {}, r"2\.parquet: no columns 'a'; the columns are"),
        ({"a": numpy.arange(25)}, {}, r"2\.parquet, column 'a': its type is int64, but double in .*0\.parquet; expected the same"),
        ({"y": pyarrow.array([None, *range(24)], pyarrow.int32())}, {}, r"2\.parquet, row group 0, column 'y': 1 values are"),
        ({}, {"columns": ["a", "text"]}, r"0\.parquet, column 'text': its type is string; expected numbers or boo.*data\.load"),
        ({}, {"columns": ["z"]}, r"0\.parquet: no columns 'z'; the columns are a, b, text"),
        ({}, {"columns": None, "target": "text"}, r"column 'text': its type is string"),
        ({}, {"columns": []}, r"0\.parquet has no columns beside the target"),
    ],
)  # fmt: skip
def test_refused_columns(tmp_path: Path, changes: Any, options: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        ParquetDataset(write(tmp_path, **changes), **{"columns": ["a", "b"], "target": "y", **options})


def test_targets_beyond_int64_are_refused(tmp_path: Path) -> None:
    codes = pyarrow.array([3, 2**63 - 1, 2**63], pyarrow.uint64())
    parquet.write_table(pyarrow.table({"x": [0.0, 1.0, 2.0], "y": codes}), tmp_path / "data.parquet")
    rows = ParquetDataset(tmp_path / "data.parquet", target="y")
    with pytest.raises(DataError, match=r"column 'y': 9223372036854775808 is greater than 9223372036854775807"):
        rows[2]
    parquet.write_table(pyarrow.table({"x": [0.0, 1.0], "y": codes[:2]}), tmp_path / "data.parquet")
    assert ParquetDataset(tmp_path / "data.parquet", target="y")[1][1].item() == 2**63 - 1


def test_lists_of_any_size_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"x": [[1.0], [2.0, 3.0]]}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"column 'x': its type is list<.*>; expected numbers .*: cast it to a list of a fixed"):
        ParquetDataset(tmp_path)


def test_missing_values_without_statistics_are_found_when_they_are_read(tmp_path: Path) -> None:
    column = pyarrow.array([1.0, None, 3.0])
    inner = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array([1.0, 2.0, None]), 1)
    for name, values in (("x", column), ("z", inner)):
        parquet.write_table(pyarrow.table({name: values}), tmp_path / f"{name}.parquet", write_statistics=False)
        data = ParquetDataset(tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=rf"{name}\.parquet, row group 0, column '{name}': 1 values are missing"):
            data[0]


@pytest.mark.parametrize("how", ["truncated", "no Parquet", "empty", "absent"])
def test_damaged_files_are_refused(tmp_path: Path, how: str) -> None:
    file = write(tmp_path) / "2.parquet"
    text = {"truncated": file.read_bytes()[:-20], "no Parquet": b"a,b\n1,2\n", "empty": b""}
    if how == "absent":
        file.unlink()
    else:
        file.write_bytes(text[how])
    with pytest.raises(DataError, match=r"2\.parquet is damaged, or is no Parquet file: "):
        ParquetDataset([tmp_path / "0.parquet", file], ["a"], "y")


def test_a_damaged_row_group_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path) / "0.parquet"
    parquet.write_table(table(0, 3000), file, row_group_size=1000)
    metadata = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    content = bytearray(file.read_bytes())
    start = metadata.dictionary_page_offset or metadata.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)
    data = ParquetDataset(file, ["a"], "y")
    assert data[999][1].item() == 999
    with pytest.raises(DataError, match=r"0\.parquet is damaged"):
        data[1000]


def test_a_file_with_fewer_rows_afterwards_is_refused(tmp_path: Path) -> None:
    data = ParquetDataset(write(tmp_path), ["a"], "y")
    parquet.write_table(table(0, 3), tmp_path / "0.parquet")
    with pytest.raises(DataError, match=r"0\.parquet, row group 0 has 3 rows, but had 8 or more before"):
        data[0]


@pytest.mark.parametrize(
    "options, match",
    [({"dtype": "int64"}, "dtype='int64'; expected a floating dtype"), ({"columns": "a"}, "columns='a'; expected a list of names"),
     ({"columns": ["a", "y"], "target": "y"}, r"columns=\['a', 'y'\] has the target 'y'; remove it")],
)  # fmt: skip
def test_refused_arguments(tmp_path: Path, options: Any, match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        ParquetDataset(write(tmp_path), **options)


def test_without_rows_or_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder has no .parquet file"):
        ParquetDataset(tmp_path)
    parquet.write_table(table(0, 0), tmp_path / "0.parquet")
    with pytest.raises(DataError, match=r"0\.parquet: there are no rows"):
        ParquetDataset(tmp_path, ["a"])


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gpunet\[parquet\]'"):
        ParquetDataset("data.parquet")
