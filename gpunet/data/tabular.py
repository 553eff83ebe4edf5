"""Data sets by name (digits, breast-cancer, diabetes) or from a .csv or .npz file.

    data = load("digits")
    data = load("houses.csv", target="price")

The target column and the task (classification or regression) are inferred if they are not given, and reported in
:attr:`TabularData.notes`. Invalid data raise :class:`~gpunet.errors.DataError` with file, line, column and value.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy

from gpunet.backend.dtypes import is_numeric, is_text
from gpunet.data.columns import Column, describe, is_missing, joined
from gpunet.data.table import Table, read_csv
from gpunet.data.targets import Targets, classes_of_arrays, infer
from gpunet.errors import DataError, MissingDependencyError

__all__ = ["BUILT_IN", "TabularData", "load"]

#: Built-in data set -> the scikit-learn function that loads it.
BUILT_IN = {"digits": "load_digits", "breast-cancer": "load_breast_cancer", "diabetes": "load_diabetes"}

#: Names that :func:`load` looks for in an .npz file.
FEATURE_KEYS = ("x", "X", "features", "data")
TARGET_KEYS = ("y", "Y", "target", "targets", "label", "labels")


@dataclass(frozen=True)
class TabularData:
    """Rows of features with their targets.

    A missing value of a CSV file is NaN; :func:`standardise` puts the mean in its place.
    """

    name: str
    task: str  # "classification" | "regression"
    features: numpy.ndarray  # (n, f) float32 or float64
    targets: numpy.ndarray  # (n,) int64 class indices, or float64 for regression
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...] = ()  # empty for regression
    notes: tuple[str, ...] = ()  # messages about inferred properties
    held_out: numpy.ndarray | None = None  # (n,) bool: the test rows of a file with its own split
    target_name: str = "target"
    columns: tuple[Column, ...] = ()  # how the features of a CSV file were made of its columns; else empty
    has_header: bool = True  # of a CSV file

    def __len__(self) -> int:
        return len(self.features)


def load(
    source: str | Path, target: str | int | None = None, task: str = "auto", ignore: Sequence[str | int] = ()
) -> TabularData:
    """Load a data set.

    The columns of a CSV file may be numbers (also 1,234.5 and 12%, and 1234,5 between semicolons), true and false, dates, which
    become days since 1970, and text, which becomes a column of 0 and 1 for each of up to 20 values, or else the rank of the value.
    A column with a missing value gets another one that says where.  Rows without a target, texts that are different in most rows,
    and row numbers in a first column without a name are left out.  :attr:`TabularData.notes` say all of this.

    Args:
        source: one of :data:`BUILT_IN`, or the path of a .csv or .npz file.
        target: the column of the target, by name or by number (from 0; -1 is the last); for an .npz file the name of its
            array. Default: the last column, or the first array named like one of :data:`TARGET_KEYS`.
        task: "classification", "regression", or "auto" to infer it from the target.
        ignore: columns of a CSV file to leave out, by name or number.

    Raises:
        DataError: the data are invalid; the message has the file, line, column and value.
        MissingDependencyError: built-in data sets need scikit-learn.
    """
    if task not in ("auto", "classification", "regression"):
        raise DataError(f"task {task!r}; expected 'auto', 'classification' or 'regression'")
    name = str(source)
    suffix = Path(source).suffix.lower()
    if ignore and (name in BUILT_IN or suffix == ".npz"):
        raise DataError(f"ignore {list(ignore)}: {name} has no columns to ignore, only a CSV file has; remove it")
    if name in BUILT_IN:
        if target is not None:
            raise DataError(f"target {target!r}: the built-in data {name!r} have a fixed target; remove it")
        return _built_in(name, task)
    path = Path(source)
    if not path.exists():
        raise DataError(f"no data {name!r}: expected {', '.join(BUILT_IN)} or the path of a .csv or .npz file")
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a .csv or .npz file")
    if suffix == ".npz":
        return _from_npz(path, target, task)
    if suffix in (".csv", ".tsv", ".txt", ".data"):
        return _from_csv(path, target, task, ignore)
    raise DataError(f"{path}: unsupported file extension {suffix!r}; expected .csv or .npz")


def _built_in(name: str, task: str) -> TabularData:
    try:
        from sklearn import datasets as sklearn_datasets
    except ImportError:
        raise MissingDependencyError(
            f"the data {name!r} are part of scikit-learn, which is not installed: pip install 'gpunet[train]'"
        ) from None
    bunch = getattr(sklearn_datasets, BUILT_IN[name])()
    features = numpy.ascontiguousarray(bunch.data, numpy.float32)
    fixed_task = "regression" if name == "diabetes" else "classification"
    if task not in ("auto", fixed_task):
        raise DataError(f"task {task!r}: the built-in data {name!r} are for {fixed_task}")
    feature_names = tuple(str(n) for n in bunch.feature_names)
    if fixed_task == "regression":
        return TabularData(name, fixed_task, features, bunch.target.astype(numpy.float64), feature_names)
    class_names = tuple(str(n) for n in bunch.target_names)
    return TabularData(name, fixed_task, features, bunch.target.astype(numpy.int64), feature_names, class_names)


def _from_csv(path: Path, target: str | int | None, task: str, ignore: Sequence[str | int]) -> TabularData:
    table = read_csv(path, [name for name in (target, *ignore) if isinstance(name, str)])
    left_out = {table.find(column, "column to ignore") for column in ignore}
    rest = [i for i in range(len(table.names)) if i not in left_out]
    column = table.find(target, "target") if target is not None else rest[-1] if rest else -1
    if column in left_out or not rest:
        raise DataError(f"{path}: the target {table.names[column]!r} is to be ignored; expected another column")
    if len(rest) < 2:
        raise DataError(f"{path}: only one column, {table.names[column]!r}; expected feature columns and a target column")
    name, notes = table.names[column], [f"target: column {table.names[column]!r}" + (" (the last one)" if target is None else "")]
    notes += table.notes
    has_target = [not is_missing(cell) for cell in table.cells(column)]
    if not any(has_target):
        raise DataError(f"{path}, target column {name!r}: all values are missing; choose another column")
    if not all(has_target):
        notes.append(f"left out: {has_target.count(False)} rows without a target")
        table = replace(table, rows=[*compress(table.rows, has_target)], lines=[*compress(table.lines, has_target)])
    numbers = [i for i in range(len(table.names)) if i != column]
    columns = [
        Column(table.names[i], "ignored", reason="as asked") if i in left_out
        else describe(table.names[i], table.cells(i), str(path), table.lines, table.delimiter)
        for i in numbers
    ]  # fmt: skip
    features = encode(table, columns, numbers)
    if not features.shape[1]:
        reasons = "; ".join(f"{c.name}: {c.reason}" for c in columns)
        raise DataError(f"{path}: no column is left beside the target {name!r} ({reasons})")
    targets = infer(table.cells(column), str(path), name, table.lines, task, table.delimiter)
    names = tuple(found for c in columns for found in c.names)
    made = _dataset(path, features, targets, names, (*notes, *_notes(columns)))
    return replace(made, target_name=name, columns=tuple(columns), has_header=table.has_header)


def encode(table: Table, columns: Sequence[Column], numbers: Sequence[int] | None = None) -> numpy.ndarray:
    """The features (n, f) of the rows of a table: float64, NaN where a value is missing.

    Args:
        table: the rows.
        columns: how to encode them.
        numbers: where each column stands in the table; if None, where the column of its name stands.

    Raises:
        DataError: the table lacks a column, or a cell is not of the kind of its column.
    """
    parts = [numpy.empty((len(table.rows), 0))]
    for i, column in enumerate(columns):
        if column.kind != "ignored":
            number = table.find(column.name, "column") if numbers is None else numbers[i]
            parts.append(column.encode(table.cells(number), table.lines, str(table.path)))
    return numpy.concatenate(parts, axis=1)


def _notes(columns: Sequence[Column]) -> list[str]:
    """Sentences about the columns that are not plain numbers."""
    kinds = {
        "flag": "as 0 and 1", "date": "as days since 1970", "category": "a column of 0 and 1 for each value",
        "code": "text as the rank of its value",
    }  # fmt: skip
    notes = []
    for kind, meaning in kinds.items():
        found = [c for c in columns if c.kind == kind]
        if found:
            counts = [f"{c.name} ({len(c.categories)} values)" if c.categories else c.name for c in found]
            notes.append(f"{meaning}: {joined(counts)}")
    for form in ("thousands", "decimal comma", "decimal comma, points between thousands", "percentage"):
        found = [c for c in columns if c.format == form]
        if found:
            notes.append(f"numbers with {form}: {joined([c.name for c in found])}")
    found = [c for c in columns if c.format == "decimal point"]
    if found:
        advice = "if it separates thousands, write the numbers without it"
        notes.append(f"numbers with a decimal point: {joined([c.name for c in found])}; {advice}")
    missing = [c.name for c in columns if c.has_missing]
    if missing:
        notes.append(f"missing values, the mean instead, and a column that says where: {joined(missing)}")
    notes += [f"left out: {c.name} ({c.reason})" for c in columns if c.kind == "ignored"]
    return notes


def _dataset(
    path: Path,
    features: numpy.ndarray,
    targets: Targets,
    feature_names: tuple[str, ...],
    notes: tuple[str, ...],
    held_out: numpy.ndarray | None = None,
) -> TabularData:
    notes = (*notes, targets.note)
    return TabularData(
        path.stem, targets.task, features, targets.values, feature_names, targets.class_names, notes, held_out
    )


# ---- .npz -----------------------------------------------------------------------------------------------------------


def _from_npz(path: Path, target: str | int | None, task: str) -> TabularData:
    arrays = _read_npz(path)
    listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    lower = {name.lower(): name for name in arrays}
    if target is None and {"x_train", "y_train", "x_test", "y_test"} <= lower.keys():
        parts = [arrays[lower[name]] for name in ("x_train", "x_test", "y_train", "y_test")]
        x_train, x_test = (_flat(path, array, "x_train or x_test") for array in parts[:2])
        if x_train.shape[1] != x_test.shape[1]:
            raise DataError(
                f"{path}: x_train has {x_train.shape[1]} features per row, but x_test {x_test.shape[1]}; expected the same number"
            )
        features = numpy.concatenate([x_train, x_test])
        labels = numpy.concatenate([_one_column(path, a, "y_train or y_test") for a in parts[2:]])
        held_out = numpy.arange(len(features)) >= len(x_train)
        target_name, note = "y_train", "split of the file: x_train, x_test"
    else:
        if isinstance(target, int):
            raise DataError(f"{path}: target {target}; expected the name of an array; the file contains {listed}")
        target_name = _find(path, target, TARGET_KEYS, arrays, listed, "targets")
        others = {name: array for name, array in arrays.items() if name != target_name}
        if len(others) == 1:
            feature_name = next(iter(others))
        else:
            feature_name = _find(path, None, FEATURE_KEYS, others, listed, "features")
        features = _flat(path, arrays[feature_name], feature_name)
        labels = _one_column(path, arrays[target_name], target_name)
        held_out, note = None, f"features: array {feature_name!r}, target: array {target_name!r}"
    if len(features) != len(labels):
        raise DataError(f"{path}: {len(features)} rows of features, but {len(labels)} targets; expected the same number")
    if not len(features):
        raise DataError(f"{path}: the arrays have no rows")
    bad = ~numpy.isfinite(features).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        column = int((~numpy.isfinite(features[row])).argmax())
        raise DataError(
            f"{path}: row {row}, column {column} of the features is {features[row, column]} ({int(bad.sum())} rows contain NaN or "
            "infinity); fill in these values or remove the rows"
        )
    targets = classes_of_arrays(labels, str(path), target_name, task)
    names = tuple(str(i) for i in range(features.shape[1]))
    return _dataset(path, features, targets, names, (note,), held_out)


def _read_npz(path: Path) -> dict[str, numpy.ndarray]:
    try:
        with path.open("rb") as file:  # numpy.load(path) does not close a damaged file
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} is a single array (.npy); expected an .npz file with features and targets")
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path} is damaged, or not an .npz file; save it again with numpy.savez")
            file.seek(0)
            with numpy.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; save it again with numpy.savez") from None
    except ValueError as error:  # an array of Python objects, which needs pickle; also DataError from above
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {error}. Object arrays are not supported; save arrays of numbers or strings") from None
    if not arrays:
        raise DataError(f"{path} contains no arrays")
    return arrays


def _find(path: Path, wanted: str | None, keys: tuple[str, ...], arrays: dict[str, Any], listed: str, role: str) -> str:
    """The name of the wanted array, or of the first one in ``keys``; ``role`` describes it in the error."""
    found = [key for key in ((wanted,) if wanted is not None else keys) if key in arrays]
    if not found:
        missing = f"no array {wanted!r}" if wanted is not None else f"no array of {role}, named {' or '.join(keys)}"
        raise DataError(f"{path}: {missing}; the file contains {listed}")
    return str(found[0])


def _flat(path: Path, array: numpy.ndarray, name: str) -> numpy.ndarray:
    """Reshape (n, ...) to (n, f), as float32 or float64."""
    if array.ndim < 2 or not is_numeric(array.dtype):
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}; expected numbers, (rows, features)"
        )
    dtype = numpy.float32 if array.dtype.itemsize <= 2 or array.dtype == numpy.float32 else numpy.float64
    return numpy.ascontiguousarray(array.reshape(len(array), math.prod(array.shape[1:])), dtype)


def _one_column(path: Path, array: numpy.ndarray, name: str) -> numpy.ndarray:
    """Reshape (n, 1) or (n,) to (n,)."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not (is_numeric(array.dtype) or is_text(array.dtype)):
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}; expected one target per row"
        )
    return array
