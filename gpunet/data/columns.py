"""Columns of a table as numbers: how each column of a file is encoded, decided once and applied to other files.

    column = describe("species", ["Adelie", "Gentoo", "Adelie"], Source("birds.csv", [2, 3, 4]))
    column.names                                         # ("species=Adelie", "species=Gentoo")
    column.encode(["Gentoo"], Source("new.csv", [2]))    # [[0., 1.]]
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy

from gpunet.errors import MAX_SHOWN, DataError, shown

__all__ = ["Column", "Source", "describe"]

#: Cells that stand for a missing value, in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "nat", "none", "null", "?"})
#: A text with at most this many different values becomes a column of 0 and 1 for each.
MAX_ONE_HOT = 20

_FLAGS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 0,500 has a decimal comma
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")
_INTEGER = re.compile(r"[+-]?\d+")
_UNREAD_NUMBER = re.compile(r"[+-]?[$€£¥]?\s?[+-]?\d+([\s'’.,]\d{3})*([.,]\d+)?\s?[$€£¥]?")
_DATES = ("%Y/%m/%d", "%d.%m.%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d%b%Y", "%b %d %Y", "%b-%d-%Y", "%b %d, %Y", "%B %d, %Y")
_SLASHED = ("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y")
_TIMES = ("", " %H:%M", " %H:%M:%S")


def joined(names: Sequence[str]) -> str:
    """Names for a message, of many the first ones, and of long ones their start."""
    first = ", ".join(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..." for name in names[:30])
    return first if len(names) <= 30 else f"{first}, ... ({len(names)} in all)"


def is_missing(cell: str) -> bool:
    """Whether a cell stands for a missing value."""
    return cell.lower() in MISSING


def is_number(cell: str) -> bool:
    """Whether a cell contains a number."""
    try:
        _plain(cell)
    except ValueError:
        return False
    return True


def _plain(cell: str) -> float:
    if "_" in cell:  # which Python takes between digits
        raise ValueError
    return float(cell)


def _without_commas(cell: str) -> float:
    return _plain(cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell)


def _with_decimal_comma(cell: str) -> float:
    return _plain(cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell)


def _without_points(cell: str) -> float:
    return _with_decimal_comma(cell.replace(".", "") if _POINT_THOUSANDS.fullmatch(cell) else cell)


def _percentage(cell: str) -> float:
    return _plain(cell[:-1]) / 100 if cell.endswith("%") else _plain(cell)


#: Format of a number -> how to read it.
NUMBERS: dict[str, Callable[[str], float]] = {
    "plain": _plain, "thousands": _without_commas, "decimal comma": _with_decimal_comma, "percentage": _percentage,
    "decimal comma, points between thousands": _without_points, "decimal point": _plain,
}  # fmt: skip


class Source(NamedTuple):
    """Where cells come from, for error messages.

    Attributes:
        place: the file, or what else it is.
        lines: the number of each row.
        unit: what they count.
        delimiter: of the file; where it is a comma, numbers have no decimal comma that could be one between thousands.
    """

    place: str
    lines: Sequence[int] = ()
    unit: str = "line"
    delimiter: str = ","

    def row(self, number: int) -> str:
        """The place of a row."""
        return f"{self.place}, {self.unit} {self.lines[number]}"


@dataclass(frozen=True)
class Column:
    """A column of a file, and the numbers that it becomes.

    Attributes:
        name: of the column in the file.
        kind: "number"; "flag", 0 or 1; "date", the days since 1970; "category", a column of 0 and 1 for each value; "code", the
            rank of the value; or "ignored", no numbers.
        format: of a number, a key of ``NUMBERS``; of a date, what ``strptime`` takes, or "iso".
        categories: the values of a category or code, sorted.
        has_missing: whether values are missing, so that a column of 0 and 1 says where.
        reason: why the column is ignored.
    """

    name: str
    kind: str
    format: str = ""
    categories: tuple[str, ...] = ()
    has_missing: bool = False
    reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers of a row."""
        if self.kind == "ignored":
            return ()
        if self.kind == "category":
            return tuple(f"{self.name}={value}" for value in self.categories)
        return (self.name, f"{self.name} is missing") if self.has_missing else (self.name,)

    def encode(self, cells: Sequence[str], source: Source) -> numpy.ndarray:
        """The numbers (n, len(names)) of cells: float64, NaN where the value is missing.

        Raises:
            DataError: a cell is not of the kind of the column.
        """
        if self.kind == "ignored":
            return numpy.empty((len(cells), 0))
        ranks = {value: rank for rank, value in enumerate(self.categories)}
        values = numpy.array([self._value(cell, ranks, row, source) for row, cell in enumerate(cells)], numpy.float64)
        return self.spread(values, source)

    def spread(self, values: numpy.ndarray, source: Source) -> numpy.ndarray:
        """The numbers (n, len(names)) of the values (n,) of a column, which are ranks of a category.

        Raises:
            DataError: a value is infinite.
        """
        is_infinite = numpy.isinf(values)
        if is_infinite.any():
            row = int(is_infinite.argmax())
            raise DataError(f"{source.row(row)}, column {shown(self.name)}: {values[row]} is not finite; expected a finite number")
        if self.kind == "category":
            return (values[:, None] == numpy.arange(len(self.categories))).astype(numpy.float64)
        return numpy.stack([values, numpy.isnan(values)], 1) if self.has_missing else values[:, None]

    def _value(self, cell: str, ranks: dict[str, int], row: int, source: Source) -> float:
        if is_missing(cell):
            return numpy.nan
        if ranks:
            if cell not in ranks:
                known = joined(self.categories)
                raise DataError(
                    f"{source.row(row)}, column {shown(self.name)}: {shown(cell)} did not occur in training; expected {known}, or "
                    "an empty cell"
                )
            return float(ranks[cell])
        try:
            return _READERS[self.kind](cell, self.format)
        except (ValueError, KeyError, OverflowError):
            raise DataError(
                f"{source.row(row)}, column {shown(self.name)}: {shown(cell)} is no {self.kind}, but the column was one in training"
            ) from None

    def as_json(self) -> dict[str, Any]:
        """The attributes that differ from their defaults, as JSON holds them."""
        return {key: value for key, value in asdict(self).items() if value or key in ("name", "kind")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Column:
        """The inverse of :meth:`as_json`."""
        return cls(**{**values, "categories": tuple(values.get("categories", ()))})


def _days(cell: str, form: str) -> float:
    """Days since the start of 1970."""
    found = datetime.datetime.fromisoformat(cell) if form == "iso" else datetime.datetime.strptime(cell, form)
    return (found.replace(tzinfo=found.tzinfo or datetime.UTC) - _EPOCH).total_seconds() / 86400


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_READERS: dict[str, Callable[[str, str], float]] = {
    "number": lambda cell, form: NUMBERS[form](cell), "flag": lambda cell, form: _FLAGS[cell.lower()], "date": _days,
}  # fmt: skip


def describe(name: str, cells: Sequence[str], source: Source) -> Column:
    """Decide how a column of a file is encoded.

    A column of numbers, flags (true and false, yes and no) or dates has no other cells but missing ones.  A text of few different
    values is a category, of many a code; where nearly every row has its own text, or all rows the same value, it is ignored.

    Args:
        name: of the column.
        cells: of all rows.
        source: where they come from.

    Raises:
        DataError: text stands among numbers, so that it seems to be an error; a comma may separate thousands or decimals; the first
            part of dates may be the day or the month; or the numbers of a column have separators or a currency sign.
    """
    present = [cell for cell in cells if not is_missing(cell)]
    has_missing = len(present) < len(cells)
    if not present:
        return Column(name, "ignored", reason="all values are missing")
    found = number_format(name, present, source)
    if found:
        return Column(name, "number", found, has_missing=has_missing)
    values = sorted(set(present))
    if {value.lower() for value in values} <= _FLAGS.keys():
        return Column(name, "flag", has_missing=has_missing)
    form = _date_format(name, values, source)
    if form:
        return Column(name, "date", form, has_missing=has_missing)
    refuse_unread_numbers(f"{source.place}, column {shown(name)}", present)
    _refuse_typo(name, cells, source)
    if len(values) == 1 and not has_missing:
        return Column(name, "ignored", reason="all rows have the same text")
    if len(values) <= MAX_ONE_HOT:
        return Column(name, "category", categories=tuple(values))
    if 2 * len(values) > len(present):
        return Column(name, "ignored", reason=f"text with {len(values)} different values in {len(cells)} rows")
    return Column(name, "code", categories=tuple(values), has_missing=has_missing)


def number_format(name: str, cells: Sequence[str], source: Source) -> str:
    """The key of ``NUMBERS`` by which all cells are numbers; "" if there is none.  For the arguments see :func:`describe`."""
    odd = [cell for cell in cells if not is_number(cell)]
    if not odd:
        has_points = [cell for cell in cells if not _INTEGER.fullmatch(cell)]
        may_be_thousands = has_points and all(_POINT_THOUSANDS.fullmatch(cell) for cell in has_points)
        return "decimal point" if source.delimiter == ";" and may_be_thousands else "plain"
    if all(cell.endswith("%") and is_number(cell[:-1]) for cell in odd):
        return "percentage"
    has_thousands, has_decimals = (all(form.fullmatch(cell) for cell in odd) for form in (_THOUSANDS, _DECIMAL_COMMA))
    if not has_thousands and any(map(_POINT_THOUSANDS.fullmatch, odd)):
        forms = (_POINT_THOUSANDS, _DECIMAL_COMMA, _INTEGER)
        fits = all(any(form.fullmatch(cell) for form in forms) for cell in cells)
        return "decimal comma, points between thousands" if fits else ""
    if not (has_thousands and has_decimals):
        return "thousands" if has_thousands else "decimal comma" if has_decimals else ""
    if source.delimiter == ",":
        return "thousands"
    raise DataError(
        f"{source.place}, column {shown(name)}: the comma in {shown(odd[0])} may separate thousands or decimals, and no other "
        "value tells; write the numbers without it, or with a point"
    )


def refuse_unread_numbers(place: str, cells: Sequence[str]) -> None:
    """Refuse a column of numbers in a form that is not read, which would become classes.

    Raises:
        DataError: all cells are numbers with separators or currency signs.
    """
    if all(map(_UNREAD_NUMBER.fullmatch, cells)):
        odd = next(cell for cell in cells if not is_number(cell))
        raise DataError(
            f"{place}: {shown(odd)} seems to be a number; write the numbers without currency signs, and without separators"
        )


def _date_format(name: str, values: Sequence[str], source: Source) -> str:
    """The format of dates by which all values can be read; "" if there is none.

    Raises:
        DataError: day and month may be swapped.
    """
    if not any(character.isdigit() for character in values[0]):
        return ""
    fits = [form for form in ("iso", *(d + t for d in (*_DATES, *_SLASHED) for t in _TIMES)) if _can_read(values, form)]
    is_ambiguous = fits and fits[0].startswith("%m/%d") and fits[0].replace("%m/%d", "%d/%m") in fits
    if is_ambiguous:
        raise DataError(
            f"{source.place}, column {shown(name)}: {shown(values[0])} may begin with the month or the day, and no other value "
            "tells; write the dates as year-month-day"
        )
    return fits[0] if fits else ""


def _can_read(values: Sequence[str], form: str) -> bool:
    try:
        for value in values:
            _days(value, form)
    except ValueError:
        return False
    return True


def _refuse_typo(name: str, cells: Sequence[str], source: Source) -> None:
    """Refuse a column of numbers with a text, or with text in less than a tenth of the rows."""
    present = [row for row, cell in enumerate(cells) if not is_missing(cell)]
    texts = [row for row in present if not is_number(cells[row])]
    if len(texts) > max(1, len(present) // 10) or len(texts) == len(present):
        return
    row = texts[0]
    raise DataError(
        f"{source.row(row)}, column {shown(name)}: {shown(cells[row])} is not a number ({len(texts)} of {len(present)} values are "
        f"text); correct it, leave the cell empty, or leave the column out (--ignore {shown(name)})"
    )
