"""ParquetDataset: columns of Parquet files as rows of numbers, of which a row group is read at a time, through pyarrow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import as_dtype, is_floating
from gpunet.data.arrow import import_pyarrow, kind_of, open_parquet, refuse_damaged
from gpunet.data.blocks import BlockDataset, Field, files_of
from gpunet.data.columns import joined
from gpunet.errors import ArgumentError, DataError, shown

__all__ = ["ParquetDataset"]

#: Files that stay open.
_MAX_OPEN = 8
_LARGEST_TARGET = numpy.iinfo(numpy.int64).max


class ParquetDataset(BlockDataset):
    """Columns of Parquet files, of which parts are in memory: for more data than memory has room for.

        train = ParquetDataset("train", columns=["age", "income"], target="bought")
        loader = DataLoader(train, batch_size=64, shuffle=True)

    Sample i is (features, target), or (features,) without a target: the i-th values of the columns behind each other, which are
    numbers, booleans as 0 and 1, or lists of a fixed size of these.  Row groups are the blocks; of these only the named columns are
    read.  The names, types and missing values of all files are checked at once, as far as their footers have them.

    Args:
        source: a .parquet file, a folder of them, or a list of paths.
        columns: the names of the features; by default all columns but the target.
        target: the name of the target.
        dtype: of the features, and of a target of floating-point numbers; targets of integers and booleans are int64.

    Raises:
        DataError: a file is missing, damaged, or does not fit; the message has the file and the column.
        ArgumentError: an argument is out of range.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(
        self, source: Any, columns: Sequence[str] | None = None, target: str | None = None, dtype: Any = "float32"
    ) -> None:  # fmt: skip
        import_pyarrow()
        floats = as_dtype(dtype)
        if not is_floating(floats):
            raise ArgumentError(f"ParquetDataset: dtype={dtype!r}; expected a floating dtype, such as 'float32'")
        if isinstance(columns, str):
            raise ArgumentError(f"ParquetDataset: columns={columns!r}; expected a list of names")
        columns = None if columns is None else [*columns]
        if columns is not None and target in columns:
            raise ArgumentError(f"ParquetDataset: columns={columns!r} has the target {target!r}; remove it from the features")
        self._paths = files_of("ParquetDataset", source, (".parquet", ".pq"))
        self._columns: list[_Column] = []
        self._target: list[_Column] = []
        self._groups: list[tuple[int, int]] = []  # of each row group: the file, and its number there
        sizes = []
        for number, path in enumerate(self._paths):
            with open_parquet(path) as file, refuse_damaged(path):
                schema, metadata = file.schema_arrow, file.metadata
            if not number:
                names = [name for name in schema.names if name != target] if columns is None else columns
                self._columns = [_describe(path, schema, name) for name in names]
                self._target = [_describe(path, schema, target)] if target is not None else []
                if not self._columns:
                    raise DataError(f"{path} has no columns beside the target; expected columns of numbers")
            for column in (*self._columns, *self._target):
                if (other := _describe(path, schema, column.name)) != column:
                    raise DataError(
                        f"{path}, column {shown(column.name)}: its type is {other.type}, but {column.type} in {self._paths[0]}; "
                        "expected the same in all files"
                    )
                _refuse_missing(path, metadata, column.name)
            self._groups += [(number, group) for group in range(metadata.num_row_groups)]
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        fields = [Field((sum(column.width for column in self._columns),), floats)]
        for column in self._target:
            fields.append(Field((column.width,) if column.is_list else (), numpy.dtype("int64") if column.is_exact else floats))
        super().__init__(fields, numpy.array([(i, 0, size) for i, size in enumerate(sizes)], numpy.int64).reshape(-1, 3))
        if not len(self):
            raise DataError(f"{self._paths[0]}: there are no rows, also in the other files")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features: those of the columns, with an index in lists."""
        return tuple(
            f"{column.name}[{i}]" if column.is_list else column.name for column in self._columns for i in range(column.width)
        )

    def _forget(self) -> None:
        super()._forget()
        self._open = functools.lru_cache(_MAX_OPEN)(open_parquet)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_open"]
        return state

    def fill(self, arrays: list[numpy.ndarray], source: int, start: int, stop: int) -> None:
        number, group = self._groups[source]
        path, columns = self._paths[number], [*self._columns, *self._target]
        place = f"{path}, row group {group}"
        with refuse_damaged(path):
            table = self._open(path).read_row_group(group, columns=[column.name for column in columns])
            if table.num_rows < stop:
                raise DataError(f"{place} has {table.num_rows} rows, but had {stop} or more before; do not change files")
            at = 0
            for column in self._columns:
                values = _values(place, table.column(column.name).slice(start, stop - start), column)
                arrays[0][:, at : at + column.width] = values
                at += column.width
            for array, column in zip(arrays[1:], self._target):
                values = _values(place, table.column(column.name).slice(start, stop - start), column)
                if column.is_exact and values.size and values.max() > _LARGEST_TARGET:
                    raise DataError(
                        f"{place}, column {shown(column.name)}: {values.max()} is greater than {_LARGEST_TARGET}, the largest "
                        "int64, which targets of integers are; write smaller codes, or cast the column to floating-point numbers"
                    )
                array[...] = values.reshape(array.shape)


class _Column(NamedTuple):
    """A column of numbers, or of lists of ``width`` numbers."""

    name: str
    type: str
    width: int
    is_list: bool
    is_exact: bool  # integers or booleans


def _describe(path: Path, schema: Any, name: str) -> _Column:
    """Describe a column.

    Raises:
        DataError: there is none of the name, or it has no numbers.
    """
    if schema.names.count(name) != 1:
        count = schema.names.count(name) or "no"
        raise DataError(f"{path}: {count} columns {shown(name)}; the columns are {joined(schema.names)}")
    kind, types = schema.field(name).type, import_pyarrow().types
    is_list = types.is_fixed_size_list(kind)
    value = kind.value_type if is_list else kind
    if kind_of(value) not in ("number", "flag"):
        way_out = "pass the columns= to read"
        if kind_of(value) == "text":
            way_out += ", or encode text as integers before; data.load(path) encodes text, and reads the whole file"
        elif types.is_list(kind) or types.is_large_list(kind):
            way_out = "cast it to a list of a fixed size, pyarrow.list_(pyarrow.float32(), size), before the file is written"
        raise DataError(f"{path}, column {shown(name)}: its type is {kind}; expected numbers or booleans: {way_out}")
    is_exact = types.is_integer(value) or types.is_boolean(value)
    return _Column(name, str(kind), kind.list_size if is_list else 1, is_list, is_exact)


def _refuse_missing(path: Path, metadata: Any, name: str) -> None:
    """Refuse missing values that the statistics of the file tell of; others are refused when they are read."""
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for number in range(part.num_columns):
            column = part.column(number)
            if column.path_in_schema == name:
                found = column.statistics
                if found is not None and found.has_null_count and found.null_count:
                    raise _missing(f"{path}, row group {group}", name, found.null_count)


def _missing(place: str, name: str, count: int) -> DataError:
    return DataError(f"{place}, column {shown(name)}: {count} values are missing; fill them in, or leave out their rows")


def _values(place: str, column: Any, described: _Column) -> numpy.ndarray:
    """The numbers of a column, (n, width).

    Raises:
        DataError: values are missing.
    """
    if column.null_count:
        raise _missing(place, described.name, column.null_count)
    values = column.combine_chunks()
    if described.is_list:
        values = values.flatten()
        if values.null_count:
            raise _missing(place, described.name, values.null_count)
    if import_pyarrow().types.is_decimal(values.type):
        values = values.cast(import_pyarrow().float64())
    return numpy.asarray(values.to_numpy(zero_copy_only=False)).reshape(-1, described.width)

