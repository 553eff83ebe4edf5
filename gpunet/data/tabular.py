"""Data sets by name (digits, breast-cancer, diabetes), from a .csv, .parquet or .npz file, or of a data frame.

    data = load("digits")
    data = load("houses.csv", target="price")
    data = load(frame, target="price")

The target column and the task (classification or regression) are inferred if they are not given, and reported in
:attr:`TabularData.notes`. Invalid data raise :class:`~gpunet.errors.DataError` with file, line, column and value.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from gpunet.backend.dtypes import is_numeric, is_text
from gpunet.data.arrow import STREAM, read_parquet, table_of
from gpunet.data.columns import Column, Source, joined
from gpunet.data.csv_file import read_csv
from gpunet.data.table import Table, encode
from gpunet.data.targets import Targets, classes_of_arrays
from gpunet.errors import DataError, MissingDependencyError, shown

__all__ = ["BUILT_IN", "TabularData", "load"]

#: Built-in data set -> the scikit-learn function that loads it.
BUILT_IN = {"digits": "load_digits", "breast-cancer": "load_breast_cancer", "diabetes": "load_diabetes"}

#: Names that :func:`load` looks for in an .npz file.
FEATURE_KEYS = ("x", "X", "features", "data")
TARGET_KEYS = ("y", "Y", "target", "targets", "label", "labels")


@dataclass(frozen=True)
class TabularData:
    """Rows of features with their targets.

    A missing value of a column is NaN; :func:`standardise` puts the mean in its place.
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
    columns: tuple[Column, ...] = ()  # how the features of a table were made of its columns; else empty
    has_header: bool = True  # of a CSV file
    shape: tuple[int, ...] = ()  # of a sample before it became a row, such as (8, 8) of an image; () of a row

    def __len__(self) -> int:
        return len(self.features)


def load(
    source: Any, target: str | int | None = None, task: str = "auto", ignore: Sequence[str | int] = ()
) -> TabularData:
    """Load a data set.

    The columns of a table may be numbers (in CSV files also 1,234.5 and 12%, and 1234,5 between semicolons), true and false, dates,
    which become days since 1970, and text, which becomes a column of 0 and 1 for each of up to 20 values, or else the rank of the
    value.  A column with a missing value gets another one that says where.  Rows without a target, texts that are different in
    most rows, row numbers in a first column without a name, and columns of other types are left out.  :attr:`TabularData.notes`
    say all of this.

    Args:
        source: one of :data:`BUILT_IN`, the path of a .csv, .parquet or .npz file, or a data frame of pandas, polars or pyarrow.
        target: the column of the target, by name or by number (from 0; -1 is the last); for an .npz file the name of its
            array. Default: the last column, or the first array named like one of :data:`TARGET_KEYS`.
        task: "classification", "regression", or "auto" to infer it from the target.
        ignore: columns of a table to leave out, by name or number.

    Raises:
        DataError: the data are invalid; the message has the file, line, column and value.
        MissingDependencyError: built-in data sets need scikit-learn, Parquet files and data frames pyarrow.
    """
    if task not in ("auto", "classification", "regression"):
        raise DataError(f"task {task!r}; expected 'auto', 'classification' or 'regression'")
    if not isinstance(source, (str, os.PathLike)) or _suffix(source) in TABLES:
        return _from_table(source, target, task, ignore)
    name = str(source)
    suffix = _suffix(source)
    if ignore and (name in BUILT_IN or suffix == ".npz"):
        raise DataError(f"ignore {list(ignore)}: {name} has no columns to ignore, only a table has; remove it")
    if name in BUILT_IN:
        if target is not None:
            raise DataError(f"target {target!r}: the built-in data {name!r} have a fixed target; remove it")
        return _built_in(name, task)
    path = _existing(source, f"{', '.join(BUILT_IN)} or the path of a .csv, .parquet or .npz file")
    if suffix == ".npz":
        return _from_npz(path, target, task)
    raise DataError(f"{path}: unsupported file extension {suffix!r}; expected .csv, .parquet or .npz")


#: The extensions of tables.
TABLES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq")


def _suffix(source: str | os.PathLike[str]) -> str:
    return Path(source).suffix.lower()


def _existing(source: str | os.PathLike[str], expected: str) -> Path:
    """The path of a file.

    Args:
        source: the path.
        expected: instead, for the error message.

    Raises:
        DataError: there is none, or a folder.
    """
    path = Path(source)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; expected {expected}")
        exists = path.exists()
    except (OSError, ValueError) as error:  # such as a name that is too long, or contains a null character
        raise DataError(f"cannot read {str(source)!r}: {getattr(error, 'strerror', None) or error}") from None
    if not exists:
        if path.suffix:
            raise DataError(f"the file {str(source)!r} does not exist; expected {expected}")
        raise DataError(f"no data {str(source)!r}: expected {expected}")
    return path


def open_table(source: Any, wanted: Sequence[str] = (), has_header: bool | None = None) -> Table:
    """Read a table.

    Args:
        source: the path of a .csv or .parquet file, or a data frame of pandas, polars or pyarrow.
        wanted, has_header: see :func:`gpunet.data.csv_file.read_csv`.

    Raises:
        DataError: it cannot be read.
        MissingDependencyError: Parquet files and data frames need pyarrow.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, STREAM):
            raise DataError(f"data: got a {type(source).__name__}; expected a path, or a data frame of pandas, polars or pyarrow")
        return table_of(source)
    path = _existing(source, "the path of a .csv or .parquet file")
    return read_parquet(path) if _suffix(path) in (".parquet", ".pq") else read_csv(path, wanted, has_header)


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
    shape = tuple(bunch.images.shape[1:]) if "images" in bunch else ()
    return TabularData(name, fixed_task, features, bunch.target.astype(numpy.int64), feature_names, class_names, shape=shape)


def _from_table(source: Any, target: str | int | None, task: str, ignore: Sequence[str | int]) -> TabularData:
    table = open_table(source, [name for name in (target, *ignore) if isinstance(name, str)])
    place = table.place
    left_out = {table.find(column, "column to ignore") for column in ignore}
    rest = [i for i in range(len(table.names)) if i not in left_out]
    column = table.find(target, "target") if target is not None else rest[-1] if rest else -1
    if column in left_out or not rest:
        raise DataError(f"{place}: the target {shown(table.names[column])} is to be ignored; expected another column")
    if len(rest) < 2:
        raise DataError(f"{place}: only one column, {shown(table.names[column])}; expected feature columns and a target column")
    name = table.names[column]
    notes = [f"target: column {shown(name)}" + (" (the last one)" if target is None else "")]
    notes += table.notes
    has_target = ~table.is_missing(column)
    if not has_target.any():
        raise DataError(f"{place}, target column {shown(name)}: all values are missing; choose another column")
    if not has_target.all():
        notes.append(f"left out: {(~has_target).sum()} rows without a target")
        table = table.keep(has_target)
    numbers = [i for i in range(len(table.names)) if i != column]
    columns = [
        Column(table.names[i], "ignored", reason="as asked") if i in left_out else table.describe(i) for i in numbers
    ]
    features = encode(table, columns, numbers)
    if not features.shape[1]:
        reasons = "; ".join(f"{c.name}: {c.reason}" for c in columns)
        raise DataError(f"{place}: no column is left beside the target {shown(name)} ({reasons})")
    targets = table.targets(column, task)
    names = tuple(found for c in columns for found in c.names)
    stem = Path(source).stem if isinstance(source, (str, os.PathLike)) else type(source).__name__
    made = _dataset(stem, features, targets, names, (*notes, *_notes(columns)))
    return replace(made, target_name=name, columns=tuple(columns), has_header=table.has_header)


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
    name: str, features: numpy.ndarray, targets: Targets, feature_names: tuple[str, ...], notes: tuple[str, ...]
) -> TabularData:
    return TabularData(name, targets.task, features, targets.values, feature_names, targets.class_names, (*notes, targets.note))


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
        features, shape = numpy.concatenate([x_train, x_test]), parts[0].shape[1:]
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
        features, shape = _flat(path, arrays[feature_name], feature_name), arrays[feature_name].shape[1:]
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
    targets = classes_of_arrays(labels, Source(str(path), range(len(labels)), "row"), target_name, task)
    names = tuple(str(i) for i in range(features.shape[1]))
    return replace(_dataset(path.stem, features, targets, names, (note,)), held_out=held_out, shape=shape if len(shape) > 1 else ())


def _read_npz(path: Path) -> dict[str, numpy.ndarray]:
    try:
        with path.open("rb") as file:  # numpy.load(path) does not close a damaged file
            is_array, is_archive = file.read(6) == b"\x93NUMPY", zipfile.is_zipfile(file)
            if is_archive and not is_array:
                file.seek(0)
                with numpy.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"{path} is damaged: {error}; save it again with numpy.savez") from None
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for damaged files
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: {error}. Object arrays are not supported; save arrays of numbers or strings") from None
        raise DataError(f"{path} is damaged: {str(error)[:200]}; save it again with numpy.savez") from None
    if is_array:
        raise DataError(f"{path} is a single array (.npy); expected an .npz file with features and targets")
    if not is_archive:
        raise DataError(f"{path} is damaged, or not an .npz file; save it again with numpy.savez")
    if not all(isinstance(array, numpy.ndarray) for array in arrays.values()):
        raise DataError(f"{path} is damaged: a file in it is no array; save it again with numpy.savez")
    if not arrays:
        raise DataError(f"{path} contains no arrays")
    return arrays


def _find(path: Path, wanted: str | None, keys: tuple[str, ...], arrays: dict[str, Any], listed: str, role: str) -> str:
    """The name of the wanted array, or of the first one in ``keys``; ``role`` describes it in the error."""
    found = [key for key in ((wanted,) if wanted is not None else keys) if key in arrays]
    if not found:
        missing = f"no array {shown(wanted)}" if wanted is not None else f"no array of {role}, named {' or '.join(keys)}"
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
