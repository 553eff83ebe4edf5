"""Parquet files and data frames: the same numbers as of a CSV file with the same rows, and errors with row and column."""

from __future__ import annotations

import datetime
import decimal
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.data import load
from gpunet.data.arrow import table_of
from gpunet.data.columns import Column
from gpunet.errors import DataError, MissingDependencyError

pyarrow = pytest.importorskip("pyarrow")
from pyarrow.parquet import write_table  # noqa: E402

COLUMNS: dict[str, Any] = {
    "weight": [1.5, None, 3.25, 4.0, 0.1, 7.0],
    "count": [1, 2, 3, 4, 5, 2**53],
    "ringed": [True, False, True, False, True, True],
    "seen": [datetime.date(2009, 11, d) for d in (1, 2, 3, 4, 5, 6)],
    "colour": ["red", "blue", None, "red", "green", "red"],
    "price": ["1,234.50", "999", "12,000", "7", "8", "9"],
    "species": ["Gentoo", "Adelie", "Gentoo", None, "Adelie", "Adelie"],
}
CSV = """\
weight,count,ringed,seen,colour,price,species
1.5,1,true,2009-11-01,red,"1,234.50",Gentoo
,2,false,2009-11-02,blue,999,Adelie
3.25,3,true,2009-11-03,,"12,000",Gentoo
4.0,4,false,2009-11-04,red,7,
0.1,5,true,2009-11-05,green,8,Adelie
7.0,9007199254740992,true,2009-11-06,red,9,Adelie
"""


def parquet(path: Path, columns: Any, **options: Any) -> Path:
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
    write_table(table, path, **options)
    return path


def as_pandas(path: Path) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(COLUMNS, index=[5, 3, 4, 9, 8, 7])


def as_polars(path: Path) -> Any:
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def with_categories(path: Path) -> Any:
    frame = as_pandas(path)
    return frame.assign(colour=frame["colour"].astype("category"), seen=frame["seen"].astype("datetime64[ns]"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: parquet(path, COLUMNS), lambda path: parquet(path, COLUMNS, compression="zstd", use_dictionary=False),
        lambda path: pyarrow.table(COLUMNS), as_pandas, as_polars, with_categories,
    ],
    ids=["Parquet", "Parquet without dictionaries", "pyarrow", "pandas", "polars", "pandas with categories"],
)  # fmt: skip
def test_the_same_numbers_as_of_csv(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "birds.csv"
    path.write_text(CSV)
    expected, found = load(path), load(make(tmp_path / "birds.parquet"))
    numpy.testing.assert_array_equal(found.features, expected.features)
    assert found.targets.tolist() == expected.targets.tolist() == [1, 0, 1, 0, 0]
    assert found.columns == expected.columns and found.feature_names == expected.feature_names
    assert found.class_names == ("Adelie", "Gentoo") and found.target_name == "species"
    assert found.notes == expected.notes


@pytest.mark.parametrize(("values", "numbers"), [
    (pyarrow.array([decimal.Decimal("1.25"), decimal.Decimal("-2.50"), None]), [1.25, -2.5, numpy.nan]),
    (pyarrow.array(numpy.array([1.5, numpy.nan, 2.5], numpy.float16)), [1.5, numpy.nan, 2.5]),
    (pyarrow.array([2**64 - 1, 0, 1], pyarrow.uint64()), [2.0**64, 0, 1]),
    (pyarrow.array([0, 1, None], pyarrow.int8()), [0, 1, numpy.nan]),
    (pyarrow.array([86_400_000_000_000, 0, None], pyarrow.timestamp("ns", "Europe/Berlin")), [1, 0, numpy.nan]),
    (pyarrow.array([86_400 * 10**9, 0, 43_200], pyarrow.timestamp("s")), [1e9, 0, 0.5]),
    (pyarrow.array([86_400_000, 0, None], pyarrow.date64()), [1, 0, numpy.nan]),
    (pyarrow.array([True, None, False]), [1, numpy.nan, 0]),
    (pyarrow.array(["u", "x", "u"]).dictionary_encode(), [1, 0, 1]),
    (pyarrow.array(["7", "08", "9"], pyarrow.large_string()), [7, 8, 9]),
    (pyarrow.array([[7], [8], [9]]), None),
    (pyarrow.array([b"7", b"8", b"9"]), None),
    (pyarrow.array([7, 8, 9], pyarrow.duration("s")), None),
    (pyarrow.nulls(3), None),
    (pyarrow.DictionaryArray.from_arrays([0, 1, 0], pyarrow.array([[7], [8]])), None),
    (pyarrow.array([None, None, float("nan")], pyarrow.float64()), None),
], ids=lambda v: str(getattr(v, "type", "")))  # fmt: skip
def test_types_of_columns(values: Any, numbers: list[float] | None) -> None:
    data = load(pyarrow.table({"a": [1, 2, 3], "b": values, "y": [0.5, 1.5, 2.5]}))
    assert data.features[:, 0].tolist() == [1, 2, 3]
    if numbers is None:
        assert data.feature_names == ("a",) and "left out: b (" in data.notes[1]
    else:
        numpy.testing.assert_array_equal(data.features[:, 1], numbers)


def test_integer_targets_are_exact() -> None:
    labels = pyarrow.array([2**63, 2**63 + 1] * 3, pyarrow.uint64())
    assert load(pyarrow.table({"a": range(6), "y": labels})).class_names == ("9223372036854775808", "9223372036854775809")
    assert load(pyarrow.table({"a": range(4), "y": [True, False] * 2})).task == "classification"
    assert load(pyarrow.table({"a": range(4), "y": [0.5, None, 1.5, float("nan")]})).targets.tolist() == [0.5, 1.5]


def test_the_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    frame = pytest.importorskip("pandas").DataFrame({"x": [1, 2, 3], "y": [0.5, 1.5, 2.5]}, index=[7, 8, 10])
    frame.to_parquet(tmp_path / "frame.parquet")
    data = load(tmp_path / "frame.parquet")
    assert data.feature_names == ("x",) and "left out: the index of pandas" in data.notes
    assert load(frame).feature_names == ("x",)


@pytest.mark.parametrize(("columns", "message"), [
    ({"a": [1.0, float("inf")], "y": [1, 2]}, "birds.parquet, row 1, column 'a': inf is not finite"),
    ({"a": [1.0, 2.0], "y": pyarrow.array([1, 2], pyarrow.date32())}, "target column 'y': its type is date32.*expected numbers"),
    ({"a": ["1", "2", "x"] + ["4"] * 20, "y": range(23)}, "row 2, column 'a': 'x' is not a number"),
    ({"y": [1, 2]}, "only one column, 'y'"),
    ({"a": pyarrow.array([], pyarrow.int64()), "y": pyarrow.array([], pyarrow.int64())}, "has no rows"),
])  # fmt: skip
def test_invalid_tables(columns: Any, message: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "birds.parquet", columns)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("values", "targets", "message"), [
    ([1.0, 2.0, float("inf")], [None, 1.5, 2.5], "the Table, row 2, column 'a': inf is not finite"),
    (["1", "2", "x"] + ["4"] * 20, [None, None, *range(21)], "row 2, column 'a': 'x' is not a number"),
    ([1, 2, 3], [None, 0.5, float("inf")], "the Table, row 2, target 'y': inf is not finite"),
])  # fmt: skip
def test_errors_have_the_row_of_the_table_although_others_are_left_out(values: Any, targets: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(pyarrow.table({"a": values, "y": targets}))


def test_rows_as_text() -> None:
    def texts(values: Any) -> list[str]:
        return [text for [text] in table_of(pyarrow.table({"a": values})).rows()]

    for values, expected in [
        (pyarrow.array([0.1, None, 1e20], pyarrow.float32()), ["0.1", "", "1e+20"]),
        (pyarrow.array([0.1, 2**53], pyarrow.float64()), ["0.1", "9007199254740992.0"]),
        (pyarrow.array(["u", None]).dictionary_encode(), ["u", ""]),
        (pyarrow.array([7], pyarrow.duration("s")), ["7"]),
        (pyarrow.array([datetime.date(2020, 1, 2)]), ["2020-01-02"]),
    ]:
        assert texts(values) == expected
    assert texts(pyarrow.array([(1, 2, 3)], pyarrow.month_day_nano_interval()))[0].startswith("MonthDayNano(")
    with pytest.raises(DataError, match="the Table: .*Nowhere/Land"):
        texts(pyarrow.array([5], pyarrow.timestamp("s", "Nowhere/Land")))


def test_text_that_is_missing_everywhere() -> None:
    column = Column("colour", "category", categories=("blue", "red"))
    for values in (pyarrow.array([float("nan"), None]), pyarrow.nulls(2), pyarrow.nulls(2, pyarrow.string())):
        assert table_of(pyarrow.table({"colour": values})).encode(0, column).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(DataError, match="its type is double, but in training the column was text"):
        table_of(pyarrow.table({"colour": [None, 1.5]})).encode(0, column)


def test_sources_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "birds.parquet"
    for content in (b"", b"PAR1", b"a,b\n1,2\n", parquet(tmp_path / "whole.parquet", COLUMNS).read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"birds\.parquet is damaged, or is no Parquet file: "):
            load(path)
    with pytest.raises(DataError, match="the file 'nothing.parquet' does not exist; expected the path of a .csv or .parquet file"):
        load("nothing.parquet")
    with pytest.raises(DataError, match=r"data: got a list; expected a path, or a data frame of pandas, polars or pyarrow"):
        load([1, 2])
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="the DataFrame: .*expected a data frame whose columns have one type each"):
        load(pandas.DataFrame({"a": [1, "x", {}], "y": [1, 2, 3]}))
    with pytest.raises(DataError, match="the Series"):
        load(pandas.Series([1, 2, 3]))


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"need pyarrow, which is not installed: pip install 'gpunet\[parquet\]'"):
        load(tmp_path / "a.parquet")
