"""Targets: whether they are classes or numbers, inferred from their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from gpunet.backend.dtypes import is_boolean, is_integer, is_text
from gpunet.data.columns import NUMBERS, Source, is_number, number_format, refuse_unread_numbers
from gpunet.errors import DataError, shown

#: Integer targets with at most this many different values are inferred to be classes, if a value occurs twice.
MAX_INFERRED_CLASSES = 20


@dataclass(frozen=True)
class Targets:
    """The targets with their task."""

    task: str  # "classification" | "regression"
    values: numpy.ndarray  # (n,) int64 class indices, or float64 for regression
    class_names: tuple[str, ...]
    note: str  # the inferred task and the reason


def infer(cells: Sequence[str], source: Source, column: str, task: str = "auto") -> Targets:
    """Parse the cells of a target column.

    Args:
        cells: the cells as text.
        source: where they come from.
        column: its name, for error messages.
        task: "classification", "regression", or "auto".

    Raises:
        DataError: all rows have the same class, every row has its own class, text is mixed with numbers, or the numbers have
            separators or currency signs.
    """
    numeric = [is_number(cell) for cell in cells]
    place = f"{source.place}, target column {shown(column)}"
    form = number_format(column, cells, source)
    if form:
        return classes_of_arrays(_exact(cells, form), source, column, task)
    refuse_unread_numbers(place, cells)
    if task == "regression" or 2 * sum(numeric) > len(cells):  # text in a column of numbers is a typo
        row = numeric.index(False)
        raise DataError(
            f"{source.row(row)}, target column {shown(column)}: {shown(cells[row])} is not a number, but "
            f"{sum(numeric)} of {len(cells)} targets are; correct it"
        )
    return _classes(numpy.array(cells), place, "the target is text")


def _exact(cells: Sequence[str], form: str) -> numpy.ndarray:
    """Numbers of cells: integers where all are, so that neighbours above 2^53 stay different."""
    if all(len(cell) < _MAX_DIGITS and _INTEGER.fullmatch(cell) for cell in cells):
        integers = [int(cell) for cell in cells]
        for dtype in (numpy.int64, numpy.uint64):
            limits = numpy.iinfo(dtype)
            if limits.min <= min(integers) and max(integers) <= limits.max:
                return numpy.array(integers, dtype)
    return numpy.array([NUMBERS[form](cell) for cell in cells])


_INTEGER = re.compile(r"[+-]?\d+")
_MAX_DIGITS = 1000  # of integers that are compared with the limits of int64; Python refuses to read several thousands


def classes_of_arrays(values: numpy.ndarray, source: Source, column: str, task: str = "auto") -> Targets:
    """Parse an array of numbers or strings; for the arguments see :func:`infer`.

    Raises:
        DataError: see :func:`infer`; or the numbers are not finite, or not integers for classification.
    """
    place = f"{source.place}, target {shown(column)}"
    if is_text(values.dtype):
        if task == "regression":
            raise DataError(f"{place}: text such as {shown(str(values[0]))}; expected numbers for regression")
        return _classes(values, place, "the target is text")
    if is_boolean(values.dtype):
        values = values.astype(numpy.int64)
    finite = numpy.isfinite(values)
    if not finite.all():
        row = int((~finite).argmax())
        raise DataError(f"{source.row(row)}, target {shown(column)}: {values[row]} is not finite; expected a finite number")
    has_integers = bool((values == numpy.floor(values)).all())
    num_values = len(numpy.unique(values))
    if task == "classification" and not has_integers:
        row = int((values != numpy.floor(values)).argmax())
        raise DataError(
            f"{source.row(row)}, target {shown(column)}: {values[row]} is no integer; expected integers or text for classification"
        )
    has_repeats = num_values < len(values) and num_values <= MAX_INFERRED_CLASSES
    if task == "classification" or (task == "auto" and has_integers and has_repeats):
        labels = values if is_integer(values.dtype) or numpy.abs(values).max() >= 2.0**63 else values.astype(numpy.int64)
        return _classes(labels, place, f"the target has {num_values} different integers")
    if num_values < 2:
        raise DataError(f"{place}: every row has the value {values[0]:g}; expected different values")
    reason = "requested" if task == "regression" else (
        f"the target has {num_values} different integers" if has_integers else "the target has fractional values"
    )  # fmt: skip
    return Targets("regression", values.astype(numpy.float64), (), f"regression: {reason}")


def _classes(values: numpy.ndarray, place: str, reason: str) -> Targets:
    names, indices = numpy.unique(values, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{place}: only one class, {shown(str(names[0]))}, in all {len(values)} rows; expected two or more")
    largest_class = Counter(indices.tolist()).most_common(1)[0][1]
    if largest_class == 1:
        raise DataError(
            f"{place}: {len(names)} different values in {len(values)} rows, such as {shown(str(names[0]))}: no value occurs "
            "twice, so this column seems to contain identifiers; choose another one"
        )
    note = f"classification into {len(names)} classes: {reason}"
    return Targets("classification", indices.reshape(-1).astype(numpy.int64), tuple(str(n) for n in names), note)
