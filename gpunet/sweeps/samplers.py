"""Samplers: which hyperparameters the trials of a sweep have.

A sampler is asked for trials and told their losses.  What it asks for follows from its seed and from what it was told, so a sweep
that is resumed asks anew and tells what is known: the stream goes on where it was.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.errors import ArgumentError, MissingDependencyError
from gpunet.sweeps.ranges import Choice, Range

#: The trials that Optuna is asked for at once, and that train together.
OPTUNA_ROUND = 16


class Sampler:
    """Base class of samplers.

    Attributes:
        num_trials: how many trials there are.
        round_size: how many are asked for before their losses are told.
    """

    num_trials: int
    round_size: int

    def ask(self, count: int) -> list[dict[str, Any]]:
        """Return the hyperparameters of the next ``count`` trials."""
        raise NotImplementedError

    def tell(self, losses: Sequence[float]) -> None:
        """Take the losses of the trials that were asked for last; NaN for one without."""


class GridSampler(Sampler):
    """All combinations; of an interval as many values as fit into ``trials``.

    Args:
        ranges: by hyperparameter.
        trials: the largest number of trials.
    """

    def __init__(self, ranges: dict[str, Range], trials: int) -> None:
        fixed = math.prod(len(r.values) for r in ranges.values() if isinstance(r, Choice))
        intervals = sum(not isinstance(r, Choice) for r in ranges.values())
        count = 1
        while intervals and fixed * (count + 1) ** intervals <= trials:
            count += 1
        self._rows = [
            dict(zip(ranges, values)) for values in itertools.product(*(of_range.grid(count) for of_range in ranges.values()))
        ]
        if len(self._rows) > trials:
            raise ArgumentError(
                f"sweep: the grid has {len(self._rows)} combinations, but trials={trials}; increase trials, or take fewer values "
                "or sampler='random'"
            )
        self.num_trials = self.round_size = len(self._rows)
        self._asked = 0

    def ask(self, count: int) -> list[dict[str, Any]]:
        self._asked += count
        return self._rows[self._asked - count : self._asked]


class RandomSampler(Sampler):
    """Values drawn independently.

    Args:
        ranges: by hyperparameter.
        trials: the number of trials.
        seed: of the draws.
    """

    def __init__(self, ranges: dict[str, Range], trials: int, seed: int) -> None:
        self._ranges, self._random = ranges, numpy.random.default_rng(seed)
        self.num_trials = self.round_size = trials

    def ask(self, count: int) -> list[dict[str, Any]]:
        return [{name: of_range.at(self._random.random()) for name, of_range in self._ranges.items()} for _ in range(count)]


class OptunaSampler(Sampler):
    """Optuna's tree-structured Parzen estimator, in rounds of ``OPTUNA_ROUND`` trials.

    Args:
        ranges: by hyperparameter.
        trials: the number of trials.
        seed: of the estimator.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """

    def __init__(self, ranges: dict[str, Range], trials: int, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingDependencyError("sampler='optuna' needs Optuna: pip install optuna", name="optuna") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed))
        self.num_trials, self.round_size = trials, min(OPTUNA_ROUND, trials)
        self._asked: list[Any] = []
        of = optuna.distributions
        self._distributions: dict[str, Any] = {
            name: of.CategoricalDistribution(r.values) if isinstance(r, Choice)
            else of.IntDistribution(int(r.low), int(r.high), log=r.is_log) if r.is_whole
            else of.FloatDistribution(r.low, r.high, log=r.is_log)
            for name, r in ranges.items()
        }  # fmt: skip

    def ask(self, count: int) -> list[dict[str, Any]]:
        self._asked = [self._study.ask(self._distributions) for _ in range(count)]
        return [dict(trial.params) for trial in self._asked]

    def tell(self, losses: Sequence[float]) -> None:
        for trial, loss in zip(self._asked, losses, strict=True):
            if math.isfinite(loss):
                self._study.tell(trial, loss)
            else:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)


def make_sampler(name: str, ranges: dict[str, Range], trials: int, seed: int) -> Sampler:
    """Make a sampler by its name: "grid", "random" or "optuna".

    Raises:
        ArgumentError: there is no such sampler.
        MissingDependencyError: see :class:`OptunaSampler`.
    """
    if name == "grid":
        return GridSampler(ranges, trials)
    if name == "random":
        return RandomSampler(ranges, trials, seed)
    if name == "optuna":
        return OptunaSampler(ranges, trials, seed)
    raise ArgumentError(f"sweep: sampler={name!r}; expected 'grid', 'random' or 'optuna'")
