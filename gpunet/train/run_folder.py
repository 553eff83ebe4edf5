"""The folder of a training run: config.json, checkpoint.safetensors, model.safetensors, metrics.jsonl, curves.png.

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

from gpunet.backend.files import leftovers, remove_leftovers, replacing
from gpunet.errors import ArgumentError, CheckpointError
from gpunet.nn import Sequential
from gpunet.train import checkpoint
from gpunet.train.lock import LOCK, FolderLock
from gpunet.train.network import multilayer_perceptron

__all__ = ["RunFolder", "load_run"]

MODEL, CHECKPOINT, CONFIG = "model.safetensors", "checkpoint.safetensors", "config.json"
#: Describes a folder that contains the run folders of folds.
FOLDS = "folds.json"


class RunFolder:
    """A run folder that this process holds, as a context manager.

        checkpoint.safetensors   the state of the training, to resume it
        model.safetensors        the weights to use: the best so far

    Each file is replaced when its successor is complete, so that a process that is killed at any moment leaves files that can be
    loaded.

    Args:
        path: the folder, which exists.

    Raises:
        CheckpointError: (on entering) another process holds the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = FolderLock(self.path)

    def __enter__(self) -> RunFolder:
        self._lock.__enter__()
        remove_leftovers(self.path)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.__exit__(*exception)

    @property
    def is_held(self) -> bool:
        """Whether the folder was entered."""
        return self._lock.is_held

    @property
    def model(self) -> Path:
        """Path of the weights to use."""
        return self.path / MODEL

    @property
    def checkpoint(self) -> Path:
        """Path of the state of the training."""
        return self.path / CHECKPOINT

    def write_config(self, config: dict[str, Any], name: str = CONFIG) -> None:
        """Write the configuration as indented JSON."""
        with replacing(self.path / name) as temporary:
            Path(temporary).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def save_model(self, weights: dict[str, Any]) -> None:
        """Write the weights to use, replacing earlier ones."""
        checkpoint.save(weights, self.model)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state of the training, replacing an earlier one."""
        checkpoint.save(state, self.checkpoint)


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the configuration in a run folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    if (Path(path) / FOLDS).exists():
        raise CheckpointError(f"{path} contains the run folders of folds; expected one of them, such as {Path(path) / 'fold-1'}")
    return read_json(Path(path), CONFIG)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object that ``gpunet train`` has written into a folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    file = folder / name
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is not a run folder: cannot read {name} ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged, or was not written by gpunet train ({error!r})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is damaged, or was not written by gpunet train: it holds no JSON object")
    return config


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
        unused = {path / LOCK, *leftovers(path)}  # of a run that was killed at its very beginning
        present = sorted(entry.name for entry in path.iterdir() if entry not in unused)
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


def load_run(path: str | os.PathLike[str], device: Any = "cpu") -> tuple[Sequential, dict[str, Any]]:
    """Load the network of a run folder, in evaluation mode, and its configuration.

    New inputs must be standardised with the mean and scale in ``config["standardisation"]``.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    config = read_config(path)
    try:
        model = multilayer_perceptron(**config["network"], device=device)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{Path(path) / CONFIG} is damaged, or was not written by gpunet train ({error!r})") from None
    model.load_state_dict(checkpoint.load(Path(path) / MODEL, device))
    return model.eval(), config
