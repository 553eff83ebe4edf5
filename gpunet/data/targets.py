"""Targets: classes or numbers?  Decided from the values, and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from gpunet.data.table import is_number
from gpunet.errors import DataError

#: Whole numbers with at most this many different values, of which some come twice, are taken for classes.
MOST_NUMBERED_CLASSES = 20


@dataclass(frozen=True)
class Targets:
    """Targets of one task."""

    task: str  # "classification" | "regression"
    values: numpy.ndarray  # (n,) int64 class numbers, or float64
    class_names: tuple[str, ...]
    note: str  # what was inferred and why


def infer(cells: Sequence[str], file: str, column: str, lines: Sequence[int], task: str = "auto") -> Targets:
    """The targets of a column of text cells.

    Raises:
        DataError: one class only, text among numbers, or more classes than could be learnt.
    """
    numeric = [is_number(cell) for cell in cells]
    where = f"{file}, target column {column!r}"
    if all(numeric):
        return classes_of_arrays(numpy.array([float(cell) for cell in cells]), file, column, task)
    if task == "regression" or 2 * sum(numeric) > len(cells):  # a typo in a column of numbers is no class
        row = numeric.index(False)
        raise DataError(
            f"{file}, line {lines[row]}, target column {column!r}: {cells[row]!r} is no number, as "
            f"{sum(numeric)} of {len(cells)} targets are; correct it"
        )
    return _classes(numpy.array(cells), where, "the target is text")


def classes_of_arrays(values: numpy.ndarray, file: str, column: str, task: str = "auto") -> Targets:
    """The targets of an array of numbers or of text.

    Raises:
        DataError: see :func:`infer`; or numbers that are not finite, or not whole where classes are asked for.
    """
    where = f"{file}, target {column!r}"
    if values.dtype.kind == "U":
        if task == "regression":
            raise DataError(f"{where}: text such as {str(values[0])!r}; expected numbers for regression")
        return _classes(values, where, "the target is text")
    if values.dtype.kind == "b":
        values = values.astype(numpy.int64)
    finite = numpy.isfinite(values)
    if not finite.all():
        row = int((~finite).argmax())
        raise DataError(f"{where}: row {row} is {values[row]}; expected a finite number")
    whole = bool((values == numpy.floor(values)).all())
    different = len(numpy.unique(values))
    if task == "classification" and not whole:
        row = int((values != numpy.floor(values)).argmax())
        raise DataError(f"{where}: row {row} is {values[row]}; expected whole numbers or text for classification")
    repeated = different < len(values) and different <= MOST_NUMBERED_CLASSES
    if task == "classification" or (task == "auto" and whole and repeated):
        return _classes(values.astype(numpy.int64), where, f"the target has {different} different whole numbers")
    if different < 2:
        raise DataError(f"{where}: every row has the value {values[0]:g}; there is nothing to learn")
    reason = "asked for" if task == "regression" else (
        f"the target has {different} different whole numbers" if whole else "the target has fractions"
    )  # fmt: skip
    return Targets("regression", values.astype(numpy.float64), (), f"regression: {reason}")


def _classes(values: numpy.ndarray, where: str, reason: str) -> Targets:
    names, numbers = numpy.unique(values, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{where}: one class only, {str(names[0])!r}, in all {len(values)} rows; expected two or more")
    most = Counter(numbers.tolist()).most_common(1)[0][1]
    if most == 1:
        raise DataError(
            f"{where}: {len(names)} different values in {len(values)} rows, such as {str(names[0])!r}: no class has two "
            "rows, so these look like names or identifiers; choose another column"
        )
    note = f"classification into {len(names)} classes: {reason}"
    return Targets("classification", numbers.reshape(-1).astype(numpy.int64), tuple(str(n) for n in names), note)
