"""Parquet files, and the data frames of pandas, polars and others, through pyarrow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy

from gpunet.data.columns import Column, Source, describe, is_missing
from gpunet.data.table import Table
from gpunet.data.targets import Targets, classes_of_arrays, infer
from gpunet.errors import DataError, MissingDependencyError, shown

#: The method by which data frames hand on their columns without a copy: Arrow's PyCapsule interface.
STREAM = "__arrow_c_stream__"

#: Names of an index that pandas has written as a column.
_INDEX = re.compile(r"__index_level_\d+__")
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: The largest length of a string in the description of a Parquet file, and of a list in it.
_MAX_LENGTH = 1 << 24


@dataclass(frozen=True)
class ArrowTable(Table):
    """A table whose columns have types; see :class:`Table`.

    Text is read as the cells of a CSV file are, since many files have numbers and dates as text.
    """

    place: str
    data: Any  # pyarrow.Table
    types: tuple[Any, ...]  # of the columns
    row_numbers: Sequence[int]  # from 0
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        return list(self.data.column_names)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def rows(self) -> list[list[str]]:
        pyarrow = import_pyarrow()
        try:
            columns = [_texts(column) for column in self.data.columns]
        except pyarrow.ArrowInvalid as error:  # such as an unknown timezone
            raise DataError(f"{self.place}: {error}") from None
        return [list(row) for row in zip(*columns)]

    def is_missing(self, number: int) -> numpy.ndarray:
        column = self.data.column(number)
        kind = kind_of(self.types[number])
        if kind == "text":
            return numpy.array([is_missing(cell) for cell in _cells(column)], bool)
        return numpy.isnan(_floats(column)) if kind else numpy.asarray(column.is_null().to_numpy(), bool)

    def keep(self, is_kept: numpy.ndarray) -> ArrowTable:
        pyarrow = import_pyarrow()
        data, count = self.data, int(is_kept.sum())
        unread = [number for number, kind in enumerate(self.types) if not kind_of(kind)]  # some of these cannot be filtered
        data = data.select([number for number in range(len(self.types)) if number not in unread]).filter(pyarrow.array(is_kept))
        for number in unread:
            data = data.add_column(number, self.names[number], pyarrow.nulls(count))
        return replace(self, data=data, row_numbers=[*compress(self.row_numbers, is_kept)])

    def describe(self, number: int) -> Column:
        name, column = self.names[number], self.data.column(number)
        kind = kind_of(self.types[number])
        if kind == "text":
            return describe(name, _cells(column), self._source)
        if not kind:
            return Column(name, "ignored", reason=f"of the type {self.types[number]}")
        is_missing = self.is_missing(number)
        if is_missing.all():
            return Column(name, "ignored", reason="all values are missing")
        return Column(name, kind, {"number": "plain", "date": "iso"}.get(kind, ""), has_missing=bool(is_missing.any()))

    def encode(self, number: int, column: Column) -> numpy.ndarray:
        values = self.data.column(number)
        kind = kind_of(values.type)
        if kind == "text":
            return column.encode(_cells(values), self._source)
        if kind != column.kind and (kind, column.kind) != ("flag", "number"):
            if self.is_missing(number).all():  # pandas has NaN, as numbers, for text that is missing everywhere
                return column.encode([""] * len(self), self._source)
            raise DataError(
                f"{self.place}, column {shown(column.name)}: its type is {values.type}, but in training the column was "
                f"{_IN_WORDS[column.kind]}"
            )
        return column.spread(_floats(values), self._source)

    def targets(self, number: int, task: str) -> Targets:
        name, column = self.names[number], self.data.column(number)
        kind = kind_of(column.type)
        if kind == "text":
            return infer(_cells(column), self._source, name, task)
        if kind not in ("number", "flag"):
            raise DataError(
                f"{self.place}, target column {shown(name)}: its type is {column.type}; expected numbers, booleans or text"
            )
        is_float = not (kind == "flag" or import_pyarrow().types.is_integer(column.type))
        return classes_of_arrays(_floats(column) if is_float else column.to_numpy(), self._source, name, task)

    @property
    def _source(self) -> Source:
        return Source(self.place, self.row_numbers, "row")


_IN_WORDS = {
    "number": "a number", "flag": "true or false", "date": "a date", "category": "text", "code": "text", "ignored": "left out",
}  # fmt: skip


def import_pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingDependencyError(
            "Parquet files and data frames need pyarrow, which is not installed: pip install 'gpunet[parquet]'"
        ) from None
    return pyarrow


def open_parquet(path: Path) -> Any:
    """Open a Parquet file, as a pyarrow.parquet.ParquetFile.

    Raises:
        DataError: it is damaged.
        MissingDependencyError: pyarrow is not installed.
    """
    import_pyarrow()
    from pyarrow import parquet

    with refuse_damaged(path):
        return parquet.ParquetFile(path, thrift_string_size_limit=_MAX_LENGTH, thrift_container_size_limit=_MAX_LENGTH)


@contextmanager
def refuse_damaged(path: Path) -> Iterator[None]:
    """Turn the errors of reading a Parquet file into DataErrors."""
    try:
        yield
    except DataError:
        raise
    except (import_pyarrow().ArrowException, OSError, ValueError, OverflowError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} is damaged, or is no Parquet file: {text}") from None


def read_parquet(path: Path) -> ArrowTable:
    """Read a Parquet file.

    Raises:
        DataError: it is damaged, or has no columns.
        MissingDependencyError: pyarrow is not installed.
    """
    with open_parquet(path) as file, refuse_damaged(path):
        data = file.read()
        data.validate(full=True)
    return _table(str(path), data)


def table_of(frame: Any) -> ArrowTable:
    """The columns of a data frame: an object with Arrow's PyCapsule interface.

    Raises:
        DataError: it has no columns, or one with values of several types.
        MissingDependencyError: pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    place = f"the {type(frame).__name__}"
    try:
        is_pandas = type(frame).__module__.partition(".")[0] == "pandas"
        data = pyarrow.Table.from_pandas(frame, preserve_index=False) if is_pandas else pyarrow.table(frame)
    except (pyarrow.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{place}: {error}; expected a data frame whose columns have one type each") from None
    return _table(place, data)


def _table(place: str, data: Any) -> ArrowTable:
    left_out = [name for name in data.column_names if _INDEX.fullmatch(name)]
    data = data.drop_columns(left_out) if left_out else data
    pyarrow = import_pyarrow()
    types = pyarrow.types
    for number, column in enumerate(data.columns):
        value = column.type.value_type if types.is_dictionary(column.type) else None
        if value is not None and (kind_of(value) or types.is_string_view(value)):  # others cannot be cast, and are left out
            column = column.cast(value)
        if types.is_string_view(column.type):  # which has few functions
            column = column.cast(pyarrow.large_string())
        data = data.set_column(number, data.column_names[number], column)
    if not data.num_columns:
        raise DataError(f"{place} has no columns; expected feature columns and a target column")
    if not data.num_rows:
        raise DataError(f"{place} has no rows")
    notes = ("left out: the index of pandas",) * bool(left_out)
    return ArrowTable(place, data, tuple(data.schema.types), range(data.num_rows), notes)


def kind_of(kind: Any) -> str:
    """"number", "flag", "date" or "text" of an Arrow type; "" of one that does not become numbers."""
    types = import_pyarrow().types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_boolean(kind):
        return "flag"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "date"
    return "text" if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) else ""


def _cells(column: Any) -> list[str]:
    return ["" if value is None else value.strip() for value in column.to_pylist()]


def _texts(column: Any) -> list[str]:
    """Values as text, "" where they are missing.

    Raises:
        pyarrow.ArrowInvalid: the timezone of a timestamp is unknown.
    """
    pyarrow = import_pyarrow()
    types, kind = pyarrow.types, column.type
    if types.is_temporal(kind) and not types.is_interval(kind):
        column = column.cast(pyarrow.string())
    values = column.to_pylist()
    if types.is_float16(kind) or types.is_float32(kind):  # with the digits of their precision
        return ["" if value is None else str(kind.to_pandas_dtype()(value)) for value in values]
    return ["" if value is None else str(value) for value in values]


def _floats(column: Any) -> numpy.ndarray:
    """Numbers, booleans as 0 and 1, or dates as days since 1970: float64 (n,), NaN where a value is missing."""
    pyarrow = import_pyarrow()
    kind, per_day = column.type, 1.0
    if pyarrow.types.is_timestamp(kind):
        column, per_day = column.cast(pyarrow.int64()), 86400.0 * _UNITS[kind.unit]
    elif pyarrow.types.is_date64(kind):
        column, per_day = column.cast(pyarrow.int64()), 86400.0 * 1000
    elif pyarrow.types.is_date32(kind):
        column = column.cast(pyarrow.int32())
    return numpy.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(), numpy.float64) / per_day
