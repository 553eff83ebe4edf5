"""Held-out splits, folds and standardisation.

:func:`split` uses gpunet's Philox generator, so a seed selects the same rows on every machine. Mean and scale are computed from
the training rows only, so that no information leaks from the held-out rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy

from gpunet.backend.dtypes import is_floating
from gpunet.data.tabular import TabularData
from gpunet.errors import ArgumentError, DataError, MissingDependencyError
from gpunet.launch.random import Generator
from gpunet.ops.random import randint, randperm

__all__ = ["Split", "Standardisation", "folds", "split", "standardise"]


@dataclass(frozen=True)
class Split:
    """A data set split into training and held-out rows."""

    train: TabularData
    test: TabularData


def split(dataset: TabularData, test_size: float = 0.2, generator: Generator | None = None) -> Split:
    """Hold out a random fraction of the rows, stratified by class.

    A data set with its own held-out rows keeps them.

    Args:
        dataset: the data set to split.
        test_size: fraction to hold out, between 0 and 1.
        generator: the generator of the random order; the default generator if None.

    Raises:
        ArgumentError: test_size is out of range.
        DataError: the data set has too few rows.
    """
    if not 0.0 < test_size < 1.0:
        raise ArgumentError(f"test_size={test_size}; expected a fraction between 0 and 1, such as 0.2")
    if dataset.held_out is not None:
        held_out = dataset.held_out
    else:
        order = randperm(len(dataset), device="cpu", generator=generator).numpy()
        held_out = numpy.zeros(len(dataset), bool)
        if dataset.task == "classification":
            for index in range(len(dataset.class_names)):
                members = order[dataset.targets[order] == index]
                held_out[members[: _num_held_out(len(members), test_size)]] = True
        else:
            held_out[order[: _num_held_out(len(order), test_size)]] = True
    if not held_out.any() or held_out.all():
        raise DataError(
            f"{dataset.name}: {len(dataset)} rows are too few to hold {test_size:.0%} out; expected a class with at least two rows"
        )
    return Split(_rows(dataset, ~held_out), _rows(dataset, held_out))


def folds(dataset: TabularData, count: int, generator: Generator | None = None) -> list[Split]:
    """Split into ``count`` parts of random rows, by scikit-learn, and hold each of them out once: k-fold cross-validation.

    The parts are stratified by class.

    Args:
        dataset: the data set to split.
        count: the number of parts.
        generator: the generator of the random order; the default generator if None.

    Raises:
        ArgumentError: the number is below 2.
        DataError: the data set has too few rows, fewer than ``count`` of each class, or held-out rows of its own.
        MissingDependencyError: scikit-learn is not installed.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ArgumentError(f"folds: {count!r} folds; expected 2 or more")
    if dataset.held_out is not None:
        raise DataError(f"{dataset.name}: the file has its own held-out rows; expected data without a split")
    try:
        from sklearn.model_selection import KFold, StratifiedKFold
    except ImportError:
        raise MissingDependencyError("folds need scikit-learn, which is not installed: pip install 'gpunet[train]'") from None
    num_rows = len(dataset)
    if dataset.task == "classification":
        num_rows = int(numpy.bincount(dataset.targets).max())
    if num_rows < count:
        of = " of a class" if dataset.task == "classification" else ""
        raise DataError(f"{dataset.name}: {num_rows} rows{of} are too few for {count} folds; expected {count} or more")
    seed = int(randint(2**31, (1,), device="cpu", generator=generator).item())
    kind = StratifiedKFold if dataset.task == "classification" else KFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a rare class, which not all folds have
        parts = [*kind(count, shuffle=True, random_state=seed).split(dataset.features, dataset.targets)]
    return [Split(_rows(dataset, train), _rows(dataset, test)) for train, test in parts]


def _num_held_out(count: int, test_size: float) -> int:
    """How many of ``count`` rows to hold out: at least one and at most all but one, and none of a single row."""
    return max(min(1, count - 1), min(count - 1, int(count * test_size + 0.5)))


def _rows(dataset: TabularData, which: numpy.ndarray) -> TabularData:
    return replace(dataset, features=dataset.features[which], targets=dataset.targets[which], held_out=None)


@dataclass(frozen=True)
class Standardisation:
    """The map x -> (x - mean) / scale of the features and, for regression, of the targets."""

    mean: numpy.ndarray  # (f,)
    scale: numpy.ndarray  # (f,)
    target_mean: float = 0.0
    target_scale: float = 1.0

    def features(self, features: numpy.ndarray) -> numpy.ndarray:
        """Standardise features; returns a C-contiguous float32 array, 0 where a value is missing (NaN)."""
        dtype = features.dtype if is_floating(features.dtype) else numpy.dtype("float64")
        shifted = (features - self.mean.astype(dtype)) / self.scale.astype(dtype)
        return numpy.ascontiguousarray(numpy.where(numpy.isnan(features), 0.0, shifted), numpy.float32)

    def targets(self, targets: numpy.ndarray) -> numpy.ndarray:
        """Standardise targets; returns float32. Class indices are returned unchanged."""
        if not is_floating(targets.dtype):
            return targets
        return ((targets - self.target_mean) / self.target_scale).astype(numpy.float32)


def standardise(train: TabularData) -> Standardisation:
    """Compute mean and standard deviation of the training rows, of the values that are not missing.

    A constant column gets scale 1 instead of 0, and becomes 0; so does one whose values are all missing in these rows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing
        mean = numpy.nan_to_num(numpy.nanmean(train.features, axis=0, dtype=numpy.float64))
        scale = numpy.nan_to_num(numpy.nanstd(train.features, axis=0, dtype=numpy.float64))
    scale[scale <= 1e-12 * numpy.abs(mean)] = 1.0
    if train.task == "classification":
        return Standardisation(mean, scale)
    spread = float(train.targets.std())
    return Standardisation(mean, scale, float(train.targets.mean()), spread if spread > 0.0 else 1.0)
