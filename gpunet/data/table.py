"""CSV files: numbers in the feature columns, anything in the target column.

A first row without a single number is the header; otherwise the columns are called 0, 1, 2, ...  The delimiter is the
one of comma, semicolon and tab that the first line has most of.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy

from gpunet.errors import DataError

#: Cells that stand for "not known", in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})


@dataclass(frozen=True)
class Table:
    """A CSV file whose target column is apart."""

    features: numpy.ndarray  # (n, f) float64
    feature_names: list[str]
    targets: list[str]  # cells, not yet looked at
    target_name: str
    lines: list[int]  # the file's line of each row


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_csv(path: Path, target: str | int | None = None) -> Table:
    """Read a CSV file.

    Args:
        path: the file.
        target: the target column's name or number (from 0; -1 is the last), the last column when None.

    Raises:
        DataError: empty, not text, ragged, an unknown target, or cells that are no numbers; with file, line, column and
            value.
    """
    rows, lines = _read_rows(path)
    first = rows[0]
    header = not any(is_number(cell) for cell in first) or (isinstance(target, str) and target in first)
    names = first if header else [str(i) for i in range(len(first))]
    if header:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise DataError(f"{path}: a header ({', '.join(names)}) and no rows below it")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells; expected {len(names)}, as in "
                f"{'the header' if header else 'the first line'} ({_shown(names)})"
            )
    column = _target_column(path, target, names)
    if len(names) < 2:
        raise DataError(f"{path}: one column, {names[0]!r}; expected features beside the target")
    feature_columns = [index for index in range(len(names)) if index != column]
    try:
        features = numpy.array([[float(row[index]) for index in feature_columns] for row in rows])
        readable = bool(numpy.isfinite(features).all())
    except ValueError:
        readable = False
    if not readable:
        raise _bad_cell(path, rows, lines, names, feature_columns)
    targets = [row[column] for row in rows]
    missing = [line for cell, line in zip(targets, lines, strict=True) if cell.lower() in MISSING]
    if missing:
        raise DataError(
            f"{path}, line {missing[0]}, target column {names[column]!r}: the value is missing "
            f"({len(missing)} of {len(rows)} rows have none); remove those rows"
        )
    return Table(features, [names[index] for index in feature_columns], targets, names[column], lines)


def _read_rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """Rows of stripped cells, blank lines left out, and the line of the file that each ends on."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.readline()
            delimiter = max(",;\t", key=start.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}. Save it again as UTF-8 CSV") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; expected comma-separated values") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path} is empty; expected a header and rows of numbers")
    return rows, lines


def _target_column(path: Path, target: str | int | None, names: list[str]) -> int:
    if target is None:
        return len(names) - 1
    if isinstance(target, str) and target in names:
        if names.count(target) > 1:
            raise DataError(
                f"{path}: {names.count(target)} columns are called {target!r}; give the target's number instead"
            )
        return names.index(target)
    try:
        number = int(target)
    except ValueError:
        raise DataError(f"{path}: no column {target!r}; its columns are: {_shown(names)}") from None
    if not -len(names) <= number < len(names):
        raise DataError(f"{path}: no column number {number}; expected 0 to {len(names) - 1}: {_shown(names)}")
    return number % len(names)


def _bad_cell(
    path: Path, rows: list[list[str]], lines: list[int], names: list[str], feature_columns: list[int]
) -> DataError:
    """The error about the first cell that is no finite number."""
    missing = [
        (line, index) for row, line in zip(rows, lines, strict=True) for index in feature_columns
        if row[index].lower() in MISSING
    ]  # fmt: skip
    for row, line in zip(rows, lines, strict=True):
        for index in feature_columns:
            cell, where = row[index], f"{path}, line {line}, column {names[index]!r}"
            if cell.lower() in MISSING:
                return DataError(
                    f"{where}: the value is missing ({cell!r}; {len(missing)} in the file); expected a number: fill them "
                    "in, or remove those rows or columns"
                )
            if not is_number(cell):
                texts = sum(not is_number(other[index]) for other in rows)
                return DataError(
                    f"{where}: {cell!r} is no number ({texts} of {len(rows)} rows have text there); correct it, or replace "
                    "the column by numbers (for categories: a column of 0 and 1 for each), or remove it"
                )
            if not numpy.isfinite(float(cell)):
                return DataError(f"{where}: {cell!r} is not finite; expected a finite number")
    raise AssertionError("every cell is a finite number")


def _shown(names: list[str]) -> str:
    if len(names) <= 30:
        return ", ".join(names)
    return ", ".join(names[:30]) + f", ... ({len(names)} in all)"
