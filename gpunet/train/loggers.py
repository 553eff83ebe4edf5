"""Write the figures of each epoch to a file: JSON lines, CSV, or TensorBoard's events."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpunet.errors import CheckpointError
from gpunet.train.callbacks import Callback

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

__all__ = ["CSVLogger", "JSONLinesLogger", "TensorBoardLogger"]


class _FileLogger(Callback):
    """A line for each epoch, flushed at once.  A resumed run starts with the lines of the epochs before.

    Args:
        path: the file, which is replaced.
    """

    only_first = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None

    def on_start(self, trainer: Trainer) -> None:
        try:
            self._file = self.path.open("w", encoding="utf-8", newline="")
            for row in trainer.history:
                self._write(self._file, row)
        except OSError as error:
            raise self._failure(error) from None

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            self._write(self._file, row)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None

    def on_end(self, trainer: Trainer) -> None:
        if self._file is not None:
            self._file.close()

    def _failure(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"cannot write the figures to {self.path}: {error.strerror or error}")

    def _write(self, file: TextIO, row: dict[str, Any]) -> None:
        raise NotImplementedError


class JSONLinesLogger(_FileLogger):
    """Write a JSON object per line for each epoch.  A figure that is NaN or infinite is null, because JSON lacks them."""

    def _write(self, file: TextIO, row: dict[str, Any]) -> None:
        numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        file.write(json.dumps(numbers, allow_nan=False) + "\n")


class CSVLogger(_FileLogger):
    """Write a line of CSV for each epoch, below a header."""

    def _write(self, file: TextIO, row: dict[str, Any]) -> None:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


class TensorBoardLogger(Callback):
    """Write the figures as curves for ``tensorboard --logdir``, over the optimizer steps.

    Args:
        log_dir: see :class:`gpunet.utils.tensorboard.SummaryWriter`.

    Raises:
        MissingDependencyError: the package tensorboard is not installed.
    """

    def __init__(self, log_dir: Any = None) -> None:
        from gpunet.train.summary_writer import SummaryWriter

        self.writer = SummaryWriter(log_dir)

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.writer.add_scalar(name.replace("_", "/", 1), value, row["step"])
        self.writer.flush()

    def on_end(self, trainer: Trainer) -> None:
        self.writer.close()
