"""The result of a sweep: trials, their table and picture, and the trained nets."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from gpunet.autograd import no_grad
from gpunet.backend.devices import Device
from gpunet.backend.files import replacing
from gpunet.data.randomness import preserved_globals
from gpunet.errors import ArgumentError
from gpunet.nn import Ensemble, Sequential, Stack
from gpunet.ops.creation import as_tensor
from gpunet.sweeps.ranges import Interval, Range
from gpunet.sweeps.training import Outcome, build_net, shared_by_stack
from gpunet.train.drawing import subplots

__all__ = ["SweepResult", "Trial"]


@dataclass(frozen=True)
class Trial(Outcome):
    """A trial of a sweep, with its outcome.

    Attributes:
        number: from 0, in the order of the sampler.
        parameters: its hyperparameters.
    """

    number: int
    parameters: dict[str, Any]


class SweepResult:
    """The trials of a sweep, and their nets.

    Attributes:
        trials: in the order of the sampler.
        best: the trial of the lowest held-out loss.
        classes: the labels of a classification, sorted; None of a regression.
    """

    def __init__(
        self, ranges: dict[str, Range], rows: Sequence[tuple[dict[str, Any], Outcome, list[numpy.ndarray]]], inputs: int,
        outputs: int, classes: numpy.ndarray | None,
    ) -> None:  # fmt: skip
        self._ranges, self._inputs, self._outputs, self.classes = ranges, inputs, outputs, classes
        self.trials = [
            Trial(**vars(outcome), number=number, parameters=parameters) for number, (parameters, outcome, _) in enumerate(rows)
        ]
        self._weights = [weights for _, _, weights in rows]
        self.best = min(self.trials, key=lambda trial: (not math.isfinite(trial.loss), trial.loss, trial.number))

    def net(self, number: int | None = None, device: Any = "cpu") -> Sequential:
        """Return the net of a trial, by default of the best one, with the weights of its best epoch, in evaluation mode.

        Raises:
            ArgumentError: there is no such trial.
        """
        number = self.best.number if number is None else number
        if not 0 <= number < len(self.trials):
            raise ArgumentError(f"SweepResult: no trial {number}; expected a number from 0 to {len(self.trials) - 1}")
        with preserved_globals():
            net = build_net(self.trials[number].parameters, self._inputs, self._outputs)
        load_weights(net, self._weights[number])
        return net.to(Device(device)).eval()

    def ensemble(self, count: int, device: Any = "cpu") -> Ensemble:
        """Return the ``count`` best nets that can be one stack with the best one, as an ensemble (of a classifier's probabilities).

        Raises:
            ArgumentError: there are not so many.
        """
        kind = shared_by_stack(self.best.parameters)
        fitting = [t for t in self.trials if math.isfinite(t.loss) and shared_by_stack(t.parameters) == kind]
        if not 1 <= count <= len(fitting):
            raise ArgumentError(
                f"SweepResult.ensemble: count={count}; expected a number from 1 to {len(fitting)}, the trials of the depth, "
                "activation, optimizer and batch size of the best one"
            )
        chosen = sorted(fitting, key=lambda trial: (trial.loss, trial.number))[:count]
        nets = Stack([self.net(trial.number, device) for trial in chosen], seeds=range(count))
        ensemble: Ensemble = Ensemble(nets, probabilities=self.classes is not None).eval()
        return ensemble

    def write_table(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV with a row for each trial, in their order."""
        names = [*self._ranges]
        with replacing(Path(path)) as temporary, Path(temporary).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["trial", *names, "loss", "score", "epochs", "best_epoch", "stopped_by", "seconds"])
            for t in self.trials:
                values = [_text(t.parameters[name]) for name in names]
                outcome = repr(t.loss), repr(t.score), t.epochs, t.best_epoch, t.reason, f"{t.seconds:.3f}"
                writer.writerow([t.number, *values, *outcome])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the held-out loss over each hyperparameter, as a PNG, PDF or SVG.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        finite = [trial for trial in self.trials if math.isfinite(trial.loss)]
        figure, axes = subplots(len(self._ranges))
        for place, (name, of_range) in zip(axes, self._ranges.items()):
            values = [trial.parameters[name] for trial in finite]
            if any(isinstance(value, str) for value in values):
                values = [str(value) for value in values]
            place.scatter(values, [trial.loss for trial in finite], s=14, alpha=0.7)
            if self.best in finite:
                best = self.best.parameters[name]
                place.scatter([str(best) if isinstance(values[0], str) else best], [self.best.loss], s=40, marker="*", color="C1")
            if isinstance(of_range, Interval) and of_range.is_log:
                place.set_xscale("log")
            if finite and min(trial.loss for trial in finite) > 0.0:
                place.set_yscale("log")
            place.set_xlabel(name)
        axes[0].set_ylabel("held-out loss")
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=120)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_text(value)}" for name, value in self.best.parameters.items())
        return f"SweepResult({len(self.trials)} trials; best: trial {self.best.number}, {shown}, loss {self.best.loss:.4g})"


@no_grad()
def load_weights(net: Sequential, weights: Sequence[numpy.ndarray]) -> None:
    """Copy the parameters of a net of a stack, which may be padded by zeros."""
    for parameter, array in zip(net.parameters(), weights, strict=True):
        parameter.copy_(as_tensor(array[tuple(slice(0, extent) for extent in parameter.shape)]))


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
