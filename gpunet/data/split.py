"""Held-out splits and standardisation.

The split draws from our Philox, so a seed gives the same rows everywhere.  Mean and scale come from the training part
alone: what is held out has no say in anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy

from gpunet.data.datasets import Dataset
from gpunet.errors import ArgumentError, DataError
from gpunet.launch.random import Generator
from gpunet.ops.creation import randperm

__all__ = ["Split", "Standardisation", "split", "standardise"]


@dataclass(frozen=True)
class Split:
    """A data set in two parts."""

    train: Dataset
    test: Dataset


def split(dataset: Dataset, test_size: float = 0.2, generator: Generator | None = None) -> Split:
    """Hold a share of the rows out; of each class the same share.

    A file that brings its own held-out rows keeps them.

    Args:
        dataset: what to split.
        test_size: share that is held out, between 0 and 1.
        generator: where the random order comes from; the default generator when None.

    Raises:
        ArgumentError: test_size is no share.
        DataError: too few rows to hold any out.
    """
    if not 0.0 < test_size < 1.0:
        raise ArgumentError(f"test_size={test_size}; expected a share between 0 and 1, such as 0.2")
    if dataset.held_out is not None:
        held_out = dataset.held_out
    else:
        order = randperm(len(dataset), device="cpu", generator=generator).numpy()
        held_out = numpy.zeros(len(dataset), bool)
        if dataset.task == "classification":
            for number in range(len(dataset.class_names)):
                members = order[dataset.targets[order] == number]
                held_out[members[: _share(len(members), test_size)]] = True
        else:
            held_out[order[: _share(len(order), test_size)]] = True
    if not held_out.any() or held_out.all():
        raise DataError(
            f"{dataset.name}: {len(dataset)} rows are too few to hold {test_size:.0%} out; expected at least two rows of a class"
        )
    return Split(_rows(dataset, ~held_out), _rows(dataset, held_out))


def _share(count: int, share: float) -> int:
    """How many of ``count`` rows to hold out: at least one and not all, where there are two."""
    return max(min(1, count - 1), min(count - 1, int(count * share + 0.5)))


def _rows(dataset: Dataset, which: numpy.ndarray) -> Dataset:
    return replace(dataset, features=dataset.features[which], targets=dataset.targets[which], held_out=None)


@dataclass(frozen=True)
class Standardisation:
    """x → (x - mean) / scale, for features and, in regression, targets."""

    mean: numpy.ndarray  # (f,)
    scale: numpy.ndarray  # (f,)
    target_mean: float = 0.0
    target_scale: float = 1.0

    def features(self, features: numpy.ndarray) -> numpy.ndarray:
        """Standardised features, float32 and C-contiguous."""
        dtype = features.dtype if features.dtype.kind == "f" else numpy.dtype("float64")
        shifted = (features - self.mean.astype(dtype)) / self.scale.astype(dtype)
        return numpy.ascontiguousarray(shifted, numpy.float32)

    def targets(self, targets: numpy.ndarray) -> numpy.ndarray:
        """Standardised targets, float32; class numbers stay."""
        if targets.dtype.kind != "f":
            return targets
        return ((targets - self.target_mean) / self.target_scale).astype(numpy.float32)


def standardise(train: Dataset) -> Standardisation:
    """Mean and scale of a training part.  A constant column has scale 1: it becomes 0.

    The scale is the standard deviation.
    """
    mean = train.features.mean(axis=0, dtype=numpy.float64)
    scale = train.features.std(axis=0, dtype=numpy.float64)
    scale[scale <= 1e-12 * numpy.abs(mean)] = 1.0
    if train.task == "classification":
        return Standardisation(mean, scale)
    spread = float(train.targets.std())
    return Standardisation(mean, scale, float(train.targets.mean()), spread if spread > 0.0 else 1.0)
