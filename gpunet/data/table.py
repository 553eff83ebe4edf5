"""Columns by name, of a CSV file (csv_file) or an Arrow table (arrow), and how they become numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from gpunet.data.columns import Column, joined
from gpunet.data.targets import Targets
from gpunet.errors import DataError, shown

__all__ = ["Table"]


class Table:
    """Base class of tables.

    Attributes:
        place: the file, or what else it is, for error messages.
        names: of the columns.
        has_header: whether a file names its columns.
        notes: sentences about the header and what was left out.
    """

    place: str
    names: list[str]
    has_header: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def find(self, wanted: str | int, role: str) -> int:
        """The number of a column.

        Args:
            wanted: its name, or its number from 0; -1 is the last.
            role: of the column, for error messages.

        Raises:
            DataError: there is no such column, or several of the name.
        """
        names = self.names
        if isinstance(wanted, str) and wanted in names:
            if names.count(wanted) > 1:
                count = names.count(wanted)
                raise DataError(f"{self.place}: {count} columns are named {shown(wanted)}; give the number of the {role} instead")
            return names.index(wanted)
        try:
            number = int(wanted)
        except ValueError:
            raise DataError(f"{self.place}: no column {shown(wanted)}; the columns are {joined(names)}") from None
        if not -len(names) <= number < len(names):
            raise DataError(f"{self.place}: no column number {number}; expected 0 to {len(names) - 1}: {joined(names)}")
        return number % len(names)

    def rows(self) -> list[list[str]]:
        """The cells as text, row by row."""
        raise NotImplementedError

    def is_missing(self, number: int) -> numpy.ndarray:
        """Whether the values of a column are missing: bool (n,)."""
        raise NotImplementedError

    def keep(self, is_kept: numpy.ndarray) -> Table:
        """The table with the rows where a bool array (n,) holds."""
        raise NotImplementedError

    def describe(self, number: int) -> Column:
        """How a column is encoded; see :func:`gpunet.data.columns.describe`."""
        raise NotImplementedError

    def encode(self, number: int, column: Column) -> numpy.ndarray:
        """The numbers of a column: float64 (n, len(column.names)), NaN where a value is missing.

        Raises:
            DataError: a value is not of the kind of the column.
        """
        raise NotImplementedError

    def targets(self, number: int, task: str) -> Targets:
        """The targets in a column without missing values; see :func:`gpunet.data.targets.infer`."""
        raise NotImplementedError


def encode(table: Table, columns: Sequence[Column], numbers: Sequence[int] | None = None) -> numpy.ndarray:
    """The features of the rows of a table: float64 (n, f), NaN where a value is missing.

    Args:
        table: the rows.
        columns: how to encode them.
        numbers: where each column stands in the table; if None, where the column of its name stands.

    Raises:
        DataError: the table lacks a column, or a value is not of the kind of its column.
    """
    parts = [numpy.empty((len(table), 0))]
    for i, column in enumerate(columns):
        if column.kind != "ignored":
            parts.append(table.encode(table.find(column.name, "column") if numbers is None else numbers[i], column))
    return numpy.concatenate(parts, axis=1)
