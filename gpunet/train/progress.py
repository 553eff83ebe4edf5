"""Progress of the training: a line for each epoch, and on a terminal a bar below."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from gpunet.train.callbacks import Callback

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

_REFRESH = 0.25  # seconds between two states of the bar

#: The name of a data set in a line.
_NAMES = {"val": "held-out"}


class Progress(Callback):
    """Print the figures of each epoch, the rows per second and the time left.

    On a terminal, with the package rich, a bar below the lines moves with the steps; into a pipe go plain lines.
    """

    only_first = True

    def on_start(self, trainer: Trainer) -> None:
        self._start, self._first_step, self._rows = time.perf_counter(), trainer.step, trainer.num_rows
        self._epoch_start, self._drawn = self._start, 0.0
        self._bar = _bar(trainer.num_steps, trainer.step)

    def on_step(self, trainer: Trainer) -> None:
        if self._bar is not None and (now := time.perf_counter()) - self._drawn > _REFRESH:
            self._drawn = now
            bar, task = self._bar
            bar.update(task, completed=trainer.step)

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        now = time.perf_counter()
        rate = (trainer.num_rows - self._rows) / max(now - self._epoch_start, 1e-9)
        self._epoch_start, self._rows = now, trainer.num_rows
        line = f"{describe_row(row, trainer.num_epochs)}  {rate:,.0f} rows/s{self._time_left(trainer, now)}"
        if self._bar is None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            bar, task = self._bar
            bar.update(task, completed=trainer.step)
            bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar[0].stop()

    def _time_left(self, trainer: Trainer, now: float) -> str:
        done = trainer.step - self._first_step
        if trainer.num_steps is None or not done or trainer.num_steps <= trainer.step:
            return ""
        return f", {_duration((now - self._start) / done * (trainer.num_steps - trainer.step))} left"


def describe_row(row: dict[str, Any], num_epochs: int | None) -> str:
    """The figures of an epoch as a line: "epoch 1/9  train: loss 0.1234  held-out: loss 0.2345 accuracy 0.9876"."""
    of = "" if num_epochs is None else f"/{num_epochs}"
    parts: dict[str, list[str]] = {}
    for key, value in row.items():
        part, underline, name = key.partition("_")
        if underline:
            parts.setdefault(_NAMES.get(part, part), []).append(f"{'R²' if name == 'r2' else name} {value:.4f}")
    figures = "  ".join(f"{part}: {' '.join(values)}" for part, values in parts.items())
    return f"epoch {row['epoch']:{len(str(num_epochs or ''))}d}{of}  {figures}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return f"{minutes} min" if minutes < 100 else f"{hours} h"


def _bar(num_steps: int | None, step: int) -> tuple[Any, Any] | None:
    """A bar of rich and its task; None without a terminal or without rich."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        return None
    bar = Progress("step", MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), transient=True)
    task = bar.add_task("", total=num_steps, completed=step)
    bar.start()
    return bar, task
