"""``gpunet train FOLDER``: rows that are read in blocks, from .npy shards or Parquet files, since they are larger than memory.

One pass over the rows finds mean and scale of the features, and the classes; then each epoch reads them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy

from gpunet.backend.dtypes import is_complex
from gpunet.data import BlockDataset, ParquetDataset, ShardedArrays, Split, Standardisation, TabularData
from gpunet.data.arrow import open_parquet, refuse_damaged
from gpunet.data.columns import Source, joined
from gpunet.data.shards import array_names
from gpunet.data.tabular import FEATURE_KEYS, TARGET_KEYS
from gpunet.data.targets import MAX_INFERRED_CLASSES, classes_of_arrays
from gpunet.errors import ArgumentError, DataError
from gpunet.tools.training_options import Options

#: The bytes of a batch to evaluate on.
_EVALUATION_BYTES = 2**24


@dataclass(frozen=True)
class BlockRows:
    """The rows of a folder, divided and described.

    Attributes:
        description: what is known of all rows, without rows.
        split: the same for the training and the held-out rows.
        standardisation: of the training rows.
        digest: by which a resumed run finds that its data have changed.
    """

    train: BlockDataset
    test: BlockDataset
    description: TabularData
    classes: numpy.ndarray  # in order
    standardisation: Standardisation
    digest: str

    @property
    def split(self) -> Split:
        return Split(self.description, self.description)

    def data_sets(self, loss: str) -> list[BlockDataset]:
        """The training and the held-out rows: standardised features (n, f), and targets, (n,) for cross-entropy or else (n, 1)."""

        def convert(x: numpy.ndarray, y: numpy.ndarray) -> list[numpy.ndarray]:
            features = self.standardisation.features(x.reshape(len(x), -1))
            if self.description.task == "classification":
                targets = numpy.searchsorted(self.classes, y)
            else:
                targets = self.standardisation.targets(y.astype(numpy.float64))
            return [features, targets if loss == "cross_entropy" else targets.astype(numpy.float32).reshape(-1, 1)]

        return [self.train.with_transform(convert), self.test.with_transform(convert)]

    def evaluation_rows(self, most: int) -> int:
        """Rows of a batch to evaluate on, which is small enough to have several of them in memory."""
        return max(1, min(most, _EVALUATION_BYTES // (4 * self.description.features.shape[1])))


def load(options: Options) -> BlockRows:
    """Open the files of the folder that the options name, and read them once.

    Raises:
        ArgumentError: an option needs all rows in memory.
        DataError: the files cannot be used.
    """
    unsupported = {"folds": options.folds, "fold": options.fold, "report": options.report}
    for name, value in unsupported.items():
        if value:
            raise ArgumentError(f"--{name}: {options.data} is a folder, whose rows are not all in memory; expected a file")
    folder = Path(options.data)
    data, names, target = _open(folder, options)
    train, test = data.hold_out(options.test_size)
    mean, scale, values = _statistics(folder, train, test, options.task)
    source = Source(str(folder), range(2 * len(values)), "value")
    inferred = classes_of_arrays(numpy.repeat(values, 2), source, target, options.task)  # twice: a value may be a class
    classes = numpy.unique(values)
    is_regression = inferred.task == "regression"
    moments = (float(mean[-1]), float(scale[-1]) or 1.0) if is_regression else (0.0, 1.0)
    standardisation = Standardisation(mean[:-1], _nonzero(mean[:-1], scale[:-1]), *moments)
    note = inferred.note
    if is_regression and options.task == "auto":  # of the values that are known
        note = f"regression: the target has fractions, or more than {MAX_INFERRED_CLASSES} values"
    num_blocks = len(data.block_starts) - 1
    blocks = f"read in {num_blocks} blocks, of which {min(data.window, num_blocks)} at a time are mixed"
    empty = numpy.empty((0, len(mean) - 1), numpy.float32)
    description = TabularData(
        folder.resolve().name, inferred.task, empty, empty[:, 0], names, inferred.class_names, (f"target: {target}", blocks, note),
        target_name=target,
    )  # fmt: skip
    digest = hashlib.sha256(repr((len(train), len(test), data.fields)).encode())
    for array in (mean, scale, classes):
        digest.update(array.tobytes())
    return BlockRows(train, test, description, classes, standardisation, digest.hexdigest())


def _nonzero(mean: numpy.ndarray, scale: numpy.ndarray) -> numpy.ndarray:
    """Scales without those of constant columns, which become 1; see :func:`gpunet.data.standardise`."""
    return numpy.where(scale <= 1e-12 * numpy.abs(mean), 1.0, scale)


def _open(folder: Path, options: Options) -> tuple[BlockDataset, tuple[str, ...], str]:
    """The data set of (features, target), the names of the features, and that of the target."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".parquet", ".pq"))
    if files:
        with open_parquet(files[0]) as file, refuse_damaged(files[0]):
            names = file.schema_arrow.names
        left_out = [*options.ignore]
        for name in (*left_out, *([options.target] if options.target is not None else [])):
            if name not in names:
                raise DataError(f"{files[0]}: no column {name!r}; the columns are {joined(names)}")
        rest = [name for name in names if name not in left_out]
        target = options.target if options.target is not None else rest[-1] if rest else ""
        table = ParquetDataset(folder, [name for name in rest if name != target], target)
        if table.fields[1].shape:
            raise DataError(f"{files[0]}: the target column {target!r} has lists; expected a number in each row")
        return table, table.feature_names, target
    if options.ignore:
        raise DataError(f"ignore {list(options.ignore)}: {folder} has no columns to ignore, only a table has; remove it")
    names = array_names(folder)
    target = options.target if options.target is not None else next((name for name in names if name in TARGET_KEYS), "")
    others = [name for name in names if name != target]
    features = others if len(others) == 1 else [name for name in others if name in FEATURE_KEYS][:1]
    if target not in names or not features:
        found = ", ".join(f"{name}-*.npy" for name in names)
        expected = "features such as x-000.npy and targets such as y-000.npy, or --target NAME"
        raise DataError(f"{folder} has {found}; expected {expected}")
    shards = ShardedArrays(folder, [*features, target])
    shape = shards.fields[1].shape
    if is_complex(shards.fields[0].dtype) or numpy.prod(shape, dtype=int) != 1:
        raise DataError(f"{folder}: rows of {features[0]} are {shards.fields[0]}, of {target} {shards.fields[1]}; expected numbers")
    if shape:
        shards = shards.with_transform(lambda x, y: (x, y.reshape(-1)))
    return shards, tuple(str(i) for i in range(int(numpy.prod(shards.fields[0].shape)))), target


def _statistics(
    folder: Path, train: BlockDataset, test: BlockDataset, task: str
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:  # fmt: skip
    """Mean and standard deviation of the training rows, of each feature and then of the target, and the values of the target.

    Of many values only those of the first rows are returned, unless the task is classification.
    """
    count, mean, squares = 0, numpy.zeros(0), numpy.zeros(0)
    values = numpy.zeros(0)
    for is_train, x, y in _blocks(train, test):
        if not numpy.isfinite(x).all() or not numpy.isfinite(y).all():
            raise DataError(f"{folder}: there are rows with NaN or infinity; fill in these values, or leave the rows out")
        if task == "classification" or len(values) <= MAX_INFERRED_CLASSES:
            values = numpy.unique(y) if not len(values) else numpy.union1d(values, y)
        if not is_train:
            continue
        rows = numpy.column_stack([x, y]).astype(numpy.float64)
        new_mean = rows.mean(0)
        if not count:
            mean, squares = numpy.zeros_like(new_mean), numpy.zeros_like(new_mean)
        total = count + len(rows)
        difference = new_mean - mean  # the update of Chan, Golub and LeVeque, "Updating formulae", 1979
        squares = squares + ((rows - new_mean) ** 2).sum(0) + difference**2 * (count * len(rows) / total)
        mean = mean + difference * (len(rows) / total)
        count = total
    return mean, numpy.sqrt(squares / count), values


def _blocks(train: BlockDataset, test: BlockDataset) -> Iterator[tuple[bool, numpy.ndarray, numpy.ndarray]]:
    """Yield of each block whether it has training rows, which come first, or held-out rows; its features (n, f); its targets."""
    for part in (train, test):
        for first, last in zip(part.block_starts[:-1], part.block_starts[1:]):
            x, y = part.read_rows(numpy.arange(first, last))
            yield part is train, x.reshape(len(x), -1), y
