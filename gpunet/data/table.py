"""CSV files with numbers in the feature columns and numbers or text in the target column.

The first row is a header if it contains no number; otherwise the columns are named 0, 1, 2, ... The delimiter is the most
frequent of comma, semicolon and tab in the first line.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy

from gpunet.errors import DataError

#: Cells that stand for a missing value, in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})


@dataclass(frozen=True)
class Table:
    """A CSV file with the target column separated from the features."""

    features: numpy.ndarray  # (n, f) float64
    feature_names: list[str]
    targets: list[str]  # unparsed cells
    target_name: str
    lines: list[int]  # line number of each row


def is_number(cell: str) -> bool:
    """Whether a cell contains a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_csv(path: Path, target: str | int | None = None) -> Table:
    """Read a CSV file.

    Args:
        path: the file.
        target: name or number of the target column (from 0; -1 is the last); the last column if None.

    Raises:
        DataError: the file is empty, not text or ragged, the target is unknown, or a feature is not a number; the message
            has the file, line, column and value.
    """
    rows, lines = _read_rows(path)
    first = rows[0]
    has_header = not any(is_number(cell) for cell in first) or (isinstance(target, str) and target in first)
    names = first if has_header else [str(i) for i in range(len(first))]
    if has_header:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise DataError(f"{path}: no rows below the header ({', '.join(names)})")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells; expected {len(names)}, as in "
                f"{'the header' if has_header else 'the first line'} ({_joined(names)})"
            )
    column = _target_column(path, target, names)
    if len(names) < 2:
        raise DataError(f"{path}: only one column, {names[0]!r}; expected feature columns and a target column")
    feature_columns = [index for index in range(len(names)) if index != column]
    try:
        features = numpy.array([[float(row[index]) for index in feature_columns] for row in rows])
        is_valid = bool(numpy.isfinite(features).all())
    except ValueError:
        is_valid = False
    if not is_valid:
        raise _bad_cell(path, rows, lines, names, feature_columns)
    targets = [row[column] for row in rows]
    missing = [line for cell, line in zip(targets, lines, strict=True) if cell.lower() in MISSING]
    if missing:
        raise DataError(
            f"{path}, line {missing[0]}, target column {names[column]!r}: the value is missing "
            f"(in {len(missing)} of {len(rows)} rows); remove these rows"
        )
    return Table(features, [names[index] for index in feature_columns], targets, names[column], lines)


def _read_rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """Rows of stripped cells without blank lines, and the line number on which each row ends."""
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
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it again as UTF-8 CSV") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; expected comma-separated values") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path} is empty; expected a header and rows of numbers")
    return rows, lines


def _target_column(path: Path, target: str | int | None, names: list[str]) -> int:
    if target is None:
        return len(names) - 1
    if isinstance(target, str) and target in names:
        if names.count(target) > 1:
            raise DataError(
                f"{path}: {names.count(target)} columns are named {target!r}; give the number of the column instead"
            )
        return names.index(target)
    try:
        number = int(target)
    except ValueError:
        raise DataError(f"{path}: no column {target!r}; the columns are {_joined(names)}") from None
    if not -len(names) <= number < len(names):
        raise DataError(f"{path}: no column number {number}; expected 0 to {len(names) - 1}: {_joined(names)}")
    return number % len(names)


def _bad_cell(
    path: Path, rows: list[list[str]], lines: list[int], names: list[str], feature_columns: list[int]
) -> DataError:
    """The error for the first feature that is not a finite number."""
    missing = [
        (line, index) for row, line in zip(rows, lines, strict=True) for index in feature_columns
        if row[index].lower() in MISSING
    ]  # fmt: skip
    for row, line in zip(rows, lines, strict=True):
        for index in feature_columns:
            cell, place = row[index], f"{path}, line {line}, column {names[index]!r}"
            if cell.lower() in MISSING:
                return DataError(
                    f"{place}: the value is missing ({cell!r}; {len(missing)} in the file); expected a number: fill in the "
                    "missing values, or remove their rows or columns"
                )
            if not is_number(cell):
                num_text = sum(not is_number(other[index]) for other in rows)
                return DataError(
                    f"{place}: {cell!r} is not a number ({num_text} of {len(rows)} rows have text in this column); correct "
                    "it, remove the column, or encode it as numbers (categories as one column of 0 and 1 each)"
                )
            if not numpy.isfinite(float(cell)):
                return DataError(f"{place}: {cell!r} is not finite; expected a finite number")
    raise AssertionError("every cell is a finite number")


def _joined(names: list[str]) -> str:
    if len(names) <= 30:
        return ", ".join(names)
    return ", ".join(names[:30]) + f", ... ({len(names)} in all)"
