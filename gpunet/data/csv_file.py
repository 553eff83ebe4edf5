"""CSV files as they are: the rows of text, and which column is the target.

Lines above the first row that begin with # are comments, and below it those that do not have its number of cells; but the last one
above it is the header if it has its number of cells, and the first row is none.  The delimiter is the most frequent of comma,
semicolon, tab and | in the first row, or white space if it has none of these.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy

from gpunet.data.columns import Column, Source, describe, is_missing, is_number, joined
from gpunet.data.table import Table
from gpunet.data.targets import Targets, infer
from gpunet.errors import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}


@dataclass(frozen=True)
class CSVTable(Table):
    """The cells of a CSV file, stripped, without blank lines; see :class:`Table`."""

    place: str
    names: list[str]
    cells: list[list[str]]  # of each row
    lines: list[int]  # line number of each row
    delimiter: str
    has_header: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self) -> list[list[str]]:
        return self.cells

    def is_missing(self, number: int) -> numpy.ndarray:
        return numpy.array([is_missing(row[number]) for row in self.cells], bool)

    def keep(self, is_kept: numpy.ndarray) -> CSVTable:
        return replace(self, cells=[*compress(self.cells, is_kept)], lines=[*compress(self.lines, is_kept)])

    def describe(self, number: int) -> Column:
        return describe(self.names[number], self._column(number), self._source)

    def encode(self, number: int, column: Column) -> numpy.ndarray:
        return column.encode(self._column(number), self._source)

    def targets(self, number: int, task: str) -> Targets:
        return infer(self._column(number), self._source, self.names[number], task)

    def _column(self, number: int) -> list[str]:
        return [row[number] for row in self.cells]

    @property
    def _source(self) -> Source:
        return Source(self.place, self.lines, delimiter=self.delimiter)


def read_csv(path: Path, wanted: Sequence[str] = (), has_header: bool | None = None) -> CSVTable:
    """Read a CSV file.

    The first row is a header if none of its cells is a number, if it has a name of ``wanted``, or if most of its cells are text
    above columns of numbers.  Without a header, columns are named 0, 1, 2, ...  Row numbers (different integers in a first column
    without a name) are left out.

    Args:
        path: of the file.
        wanted: names of columns that are used.  One that may be the number of a column tells nothing about the header.
        has_header: whether there is a header, as known from the training; None to find out.

    Raises:
        DataError: the file is empty, not text, or ragged; the message has file and line.
    """
    rows, lines, delimiter, comment = _read_rows(path)
    first, notes, is_known = rows[0], [], has_header is not None
    if has_header is not False:
        is_header = _has_name_of(wanted, first) or _is_header(first, rows[1:])
        if not is_header and len(comment) == len(first) > 1:
            rows, lines, first, is_header = [comment, *rows], [0, *lines], comment, True
        has_header = bool(has_header) or is_header
    if not has_header:
        notes.append(f"no header found: the columns are named 0 to {len(first) - 1}")
    names = [name or str(i) for i, name in enumerate(first)] if has_header else [str(i) for i in range(len(first))]
    if has_header:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise DataError(f"{path}: no rows below the header ({', '.join(names)})")
    if has_header and all(len(row) == len(names) + 1 for row in rows) and _are_row_numbers([row[0] for row in rows]):
        rows = [row[1:] for row in rows]  # as R writes them
        notes.append(_ROW_NUMBERS)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            place = "the header" if has_header else "the first line"
            raise DataError(f"{path}, line {line}: {len(row)} cells; expected {len(names)}, as in {place} ({joined(names)})")
    is_needed = is_known and names[0] in wanted  # not left out in training
    if has_header and not first[0] and not is_needed and _are_row_numbers([row[0] for row in rows]):  # as pandas writes them
        names, rows = names[1:], [row[1:] for row in rows]
        notes.append(_ROW_NUMBERS)
    return CSVTable(str(path), names, rows, lines, delimiter, has_header, tuple(notes))


_ROW_NUMBERS = "left out: the first column, which has no name and different integers (row numbers)"


def _has_name_of(wanted: Sequence[str], first: list[str]) -> bool:
    """Whether a row has a wanted name that is not the number of a column."""
    numbers = {str(i) for i in range(-len(first), len(first))}
    return any(name in first for name in wanted if name not in numbers)


def _is_header(first: list[str], rows: list[list[str]]) -> bool:
    texts = [i for i, cell in enumerate(first) if not is_number(cell)]
    if len(texts) == len(first):
        return True
    above_numbers = [i for i in texts if all(is_number(row[i]) or is_missing(row[i]) for row in rows if i < len(row))]
    return bool(rows) and 2 * len(above_numbers) > len(first)


def _are_row_numbers(cells: list[str]) -> bool:
    return all(cell.isdecimal() for cell in cells) and len(set(cells)) == len(cells)


def _read_rows(path: Path) -> tuple[list[list[str]], list[int], str, list[str]]:
    """Rows of stripped cells without blank lines and comments.

    Returns:
        The rows, the line number on which each ends, the delimiter, and the cells of the last comment above the first row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it again as UTF-8 CSV") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    every = list(io.StringIO(text, newline=""))
    num_comments = sum(1 for _ in itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), every))
    kept = ["\n"] * num_comments + every[num_comments:]  # so that lines keep their numbers
    delimiter = _delimiter(every[num_comments : num_comments + 2])
    if delimiter == " ":
        kept = [" ".join(line.split()) + "\n" for line in kept]
    last = next((line for line in reversed(every[:num_comments]) if line.strip()), "")
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(kept, delimiter=delimiter)
    try:
        for row in reader:
            is_comment = rows and row and row[0].startswith("#") and len(row) != len(rows[0])
            if any(cell.strip() for cell in row) and not is_comment:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        name = DELIMITERS.get(delimiter, "white space")
        raise DataError(f"{path}, line {reader.line_num}: {error}; expected values separated by {name}") from None
    if not rows:
        raise DataError(f"{path} is empty; expected a header and rows of numbers")
    return rows, lines, delimiter, _cells_of_comment(last, delimiter)


def _cells_of_comment(line: str, delimiter: str) -> list[str]:
    """The cells of a line that begins with #, which is the name of the first one if nothing else is."""
    text = " ".join(line.removeprefix("#").split()) if delimiter == " " else line.removeprefix("#")
    try:
        cells = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return []
    return [cells[0] or "#", *cells[1:]] if cells else []


def _delimiter(lines: list[str]) -> str:
    """The delimiter of the first of these lines, of a file's first rows."""
    first, *second = [re.sub(r'"[^"]*"', "x", line) for line in lines] or [""]
    found = max(DELIMITERS, key=first.count)
    has_columns = len(first.split()) > 1 and all(len(line.split()) == len(first.split()) for line in second)
    return " " if found not in first and has_columns else found
