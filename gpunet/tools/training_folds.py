"""``gpunet train --folds K``: a run for each of K parts of the rows, which is held out.

The folder contains a run folder for each fold, fold-1 to fold-K, and folds.json with the options and, at the end, the figures.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy

import gpunet
from gpunet.backend.devices import Device
from gpunet.distributed.agreement import on_first
from gpunet.distributed.process_group import launched_group
from gpunet.errors import CheckpointError
from gpunet.tools import training_run
from gpunet.tools.training_options import Options, of_run
from gpunet.train.run_folder import CONFIG, FOLDS, RunFolder, new_folder, read_json


def run(options: Options) -> int:
    """Train, all folds if the options say so; see :func:`gpunet.tools.training_run.run`."""
    if options.folds is None or options.fold is not None:
        return training_run.run(options)
    setup = training_run.prepare(options)
    training_run.make_parts(options, setup, Device(options.device))  # raises before there is a folder
    path = on_first(launched_group(), lambda: str(new_folder(options.out, setup.dataset.name)), "gpunet train")
    with training_run.hold(path) as folder:
        _write(folder, options)
        return _train(options, folder)


def resume(path: str) -> int:
    """Continue a run, or the runs of all folds; see :func:`gpunet.tools.training_run.resume`.

    Raises:
        CheckpointError: the folder is not one of a run or of folds.
    """
    if not on_first(launched_group(), (Path(path) / FOLDS).exists, "gpunet train"):
        return training_run.resume(path)
    options = of_run(on_first(launched_group(), lambda: read_json(Path(path), FOLDS), "gpunet train"), path)
    if options.folds is None:
        raise CheckpointError(f"{Path(path) / FOLDS} is damaged: it has no number of folds")
    with training_run.hold(path) as folder:
        return _train(options, folder)


def _train(options: Options, folder: RunFolder) -> int:
    """Train the folds, or what is left of them; return the exit code."""
    assert options.folds is not None
    paths = [folder.path / f"fold-{number}" for number in range(1, options.folds + 1)]
    for number, path in enumerate(paths, 1):
        _say(f"---- fold {number} of {options.folds}")
        if on_first(launched_group(), (path / CONFIG).exists, "gpunet train"):
            code = training_run.resume(str(path))
        else:
            code = training_run.run(replace(options, fold=number, out=str(path)))
        if code:
            _say(f"continue all folds with: gpunet train --resume {os.path.relpath(folder.path)}")
            return code
    if not training_run.is_first():
        return 0
    rows = [_best(path) for path in paths]
    figures = {name: [row[name] for row in rows] for name in rows[0] if name.startswith("val_")}
    _write(folder, options, figures)
    for name, values in figures.items():
        known = numpy.array([math.nan if value is None else value for value in values])
        shown = ", ".join(f"{value:.4f}" for value in known)
        print(f"held-out {training_run.label(name)}: {known.mean():.4f} ± {known.std(ddof=1):.4f} over the folds ({shown})")
    print(f"run folders of the folds: {os.path.relpath(folder.path)}", flush=True)
    return 0


def _say(text: str) -> None:
    if training_run.is_first():
        print(text, flush=True)


def _write(folder: RunFolder, options: Options, figures: dict[str, Any] | None = None) -> None:
    if not training_run.is_first():
        return
    given = {name: value for name, value in asdict(options).items() if value is not None}
    folder.write_config({"gpunet": gpunet.__version__, "options": given, **({"figures": figures} if figures else {})}, FOLDS)


def _best(path: Path) -> dict[str, Any]:
    """The figures of the epoch with the lowest held-out loss of a run."""
    file = path / training_run.METRICS
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return min(rows, key=lambda row: math.inf if row["val_loss"] is None else row["val_loss"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged, or was not written by gpunet train ({error!r})") from None
