"""The folder of a training run: model.safetensors, metrics.jsonl, curves.png, config.json.

A run never overwrites another. The default folder is ``runs/<date>-<data>``, followed by -2, -3, ... if it exists. A folder
that the user gives must be new or empty.
"""

from __future__ import annotations

import datetime
import json
import os
import uuid
from pathlib import Path
from typing import Any

from gpunet.errors import ArgumentError, CheckpointError, MissingDependencyError
from gpunet.nn import Sequential
from gpunet.train import checkpoint
from gpunet.train.fit import EpochResult
from gpunet.train.network import multilayer_perceptron

__all__ = ["RunFolder", "load_run"]

MODEL, METRICS, CURVES, CONFIG = "model.safetensors", "metrics.jsonl", "curves.png", "config.json"


class RunFolder:
    """A new run folder, as a context manager that keeps the metrics file open.

    Args:
        out: path of the folder; ``runs/<date>-<data>`` if None.
        data: name of the data, for the default path.

    Raises:
        ArgumentError: the folder cannot be created or written to, or is not empty.
    """

    def __init__(self, out: str | os.PathLike[str] | None, data: str = "run") -> None:
        self.epochs: list[EpochResult] = []
        self.path = new_folder(out, data)
        try:
            self._metrics = (self.path / METRICS).open("w", encoding="utf-8")
        except OSError as error:
            raise _not_writable(self.path, error) from None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._metrics.close()

    @property
    def model(self) -> Path:
        """Path of the checkpoint."""
        return self.path / MODEL

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration as indented JSON."""
        (self.path / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def save_model(self, model: Sequential) -> None:
        """Write the checkpoint, replacing an earlier one."""
        checkpoint.save(model.state_dict(), self.model)

    def add_epoch(self, epoch: EpochResult) -> None:
        """Append a line of metrics and flush it to disk."""
        self.epochs.append(epoch)
        self._metrics.write(json.dumps(epoch.as_line()) + "\n")
        self._metrics.flush()

    def draw_curves(self) -> bool:
        """Draw loss and metric over the epochs; return False if there is no epoch or no matplotlib."""
        if not self.epochs:
            return False
        try:
            draw_curves(self.epochs, self.path / CURVES)
        except MissingDependencyError:
            return False
        return True


def new_folder(out: str | os.PathLike[str] | None, data: str) -> Path:
    """Create the folder of a run: ``out``, which must be new or empty, or ``runs/<date>-<data>`` if it is None.

    Raises:
        ArgumentError: the folder cannot be created or written to, or is not empty.
    """
    return _create_default(data) if out is None else _create(Path(out))


def _create_default(data: str) -> Path:
    date = datetime.date.today().isoformat()
    for number in range(1, 10_000):
        path = Path("runs") / (f"{date}-{data}" + (f"-{number}" if number > 1 else ""))
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            if not Path("runs").is_dir():
                raise _not_writable(Path("runs"), error) from None
            continue  # another run has it, possibly one that has just started
        except OSError as error:
            raise _not_writable(path, error) from None
        return path
    raise ArgumentError(f"runs/ already has 9999 runs of {data} from {date}; choose a folder with --out")


def _create(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        present = sorted(entry.name for entry in path.iterdir())
        probe = path / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error) from None
    if present:
        raise ArgumentError(
            f"the run folder {path} is not empty (it contains {', '.join(present[:4])}{', ...' if len(present) > 4 else ''}); a "
            "run never overwrites another: choose a new folder with --out"
        )
    return path


def _not_writable(path: Path, error: OSError) -> ArgumentError:
    return ArgumentError(
        f"cannot write the run folder {path}: {error.strerror or error}; choose a writable folder with --out"
    )


def draw_curves(epochs: list[EpochResult], path: Path) -> None:
    """Plot loss and the first metric over the epochs, training and held-out, as a PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise MissingDependencyError(
            "drawing curves needs matplotlib, which is not installed: pip install 'gpunet[train]'"
        ) from None
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")  # without pyplot: no window, no global state
    FigureCanvasAgg(figure)
    numbers = [epoch.number for epoch in epochs]
    names = list(epochs[0].train)[:2]
    for axes, name in zip(figure.subplots(1, 2), names, strict=True):
        for label, part in (("training", "train"), ("held-out", "test")):
            values = [getattr(epoch, part).get(name) for epoch in epochs]
            if None not in values:
                axes.plot(numbers, values, label=label, marker="o" if len(epochs) == 1 else None)
        axes.set_xlabel("epoch")
        axes.set_title("R²" if name == "r2" else name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def load_run(path: str | os.PathLike[str], device: Any = "cpu") -> tuple[Sequential, dict[str, Any]]:
    """Load the network of a run folder, in evaluation mode, and its configuration.

    New inputs must be standardised with the mean and scale in ``config["standardisation"]``.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        description = config["network"]
        model = multilayer_perceptron(**description, device=device)
    except OSError as error:
        raise CheckpointError(f"{folder} is not a run folder: cannot read {CONFIG} ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG} is damaged, or was not written by gpunet train ({error!r})") from None
    model.load_state_dict(checkpoint.load(folder / MODEL, device))
    return model.eval(), config
