"""``gpunet sweep``: a sweep over multilayer perceptrons on a data set."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gpunet
from gpunet import data
from gpunet.backend.devices import Device
from gpunet.backend.files import replacing
from gpunet.errors import ArgumentError, CheckpointError
from gpunet.launch.random import Generator
from gpunet.sweeps import SweepResult
from gpunet.sweeps.ranges import PARAMETERS
from gpunet.sweeps.run import CONFIG, OPTIONS, create_folder
from gpunet.tools.training_options import read_options

#: The options beside the hyperparameters, with their defaults.
_DEFAULTS: dict[str, Any] = {
    "data": "digits", "target": None, "ignore": [], "task": "auto", "test_size": 0.2, "trials": 64, "sampler": "random",
    "epochs": 30, "patience": None, "halving": None, "seed": 0, "stack_size": 64, "jobs": "1", "device": "auto",
    "capture": "auto", "out": None,
}  # fmt: skip
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("trials", "epochs", "patience", "halving", "seed", "stack_size"), (int,)),
    "test_size": (int, float), "jobs": (int, str), "ignore": (list,),
}  # fmt: skip
#: The options of a resumed sweep that need not be those of its start.
_FREE = ("jobs",)
_SHOWN = 5  # trials that are printed


def run(given: Mapping[str, Any]) -> int:
    """Run a sweep, and print its best trials.

    Args:
        given: the options of the command line, "config" and "resume" among them.

    Returns:
        The exit code.

    Raises:
        ArgumentError, DataError, CheckpointError: an option or the data cannot be used.
    """
    options, folder = _options_of(dict(given))
    ranges = {name: options[_option_of(name)] for name in PARAMETERS if _option_of(name) in options}
    if not ranges:
        raise ArgumentError("gpunet sweep: no hyperparameter has a range; expected one or more, such as --lr 1e-4:1e-1:log")
    dataset = data.load(options["data"], options["target"], options["task"], options["ignore"])
    parts = data.split(dataset, options["test_size"], Generator(options["seed"]))
    scaled = data.standardise(parts.train)
    rows = [(scaled.features(part.features), scaled.targets(part.targets)) for part in (parts.train, parts.test)]
    if folder is None and options["out"] is None and options["jobs"] == "mpi":
        raise ArgumentError("--jobs mpi without --out; pass the folder that all processes write to")
    folder = folder or Path(options["out"] or _free_name(dataset.name))
    jobs = options["jobs"] if options["jobs"] == "mpi" else _count(options["jobs"])
    _keep_options(folder, options)
    result = gpunet.sweep(
        *rows[0], ranges, task=dataset.task, held_out=rows[1], device=str(Device(options["device"])), jobs=jobs, folder=folder,
        **{name: options[name] for name in (
            "trials", "sampler", "seed", "epochs", "patience", "halving", "stack_size", "capture"
        )},
    )  # fmt: skip
    if not _is_other_process(jobs):
        _print(result, folder, "accuracy" if dataset.task == "classification" else "R2")
    return 0


def _option_of(name: str) -> str:
    """The option of a hyperparameter; --seed is that of the sweep."""
    return "net_seed" if name == "seed" else name


def _options_of(given: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Return all options, and the folder of a sweep that is resumed, or None."""
    resumed, config = given.pop("resume", None), given.pop("config", None)
    if resumed is not None:
        if others := sorted(set(given) - {*_FREE} | ({"config"} if config is not None else set())):
            raise ArgumentError(
                f"--resume {resumed} with --{others[0].replace('_', '-')}; a resumed sweep has the options that it began with"
            )
        try:
            known = dict(json.loads((Path(resumed) / OPTIONS).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise CheckpointError(f"{resumed} is no folder of gpunet sweep ({error})") from None
        return {**known, **given}, Path(resumed)
    values = {} if config is None else {str(key).replace("-", "_"): value for key, value in read_options(config).items()}
    ranges = values.pop("ranges", {})  # they may stand in a table of their own
    if not isinstance(ranges, Mapping):
        raise ArgumentError(f"gpunet sweep: ranges = {ranges!r} in {config}; expected a table of hyperparameters")
    values = {**ranges, **values}
    values = {str(key).replace("-", "_"): value for key, value in values.items()} | given
    known_names = {*_DEFAULTS, *map(_option_of, PARAMETERS)}
    for name, value in values.items():
        if name not in known_names:
            raise ArgumentError(f"gpunet sweep: unknown option {name!r}; expected one of {', '.join(sorted(known_names))}")
        if name in _DEFAULTS and value is not None and (
            isinstance(value, bool) or not isinstance(value, _KINDS.get(name, (str,)))
        ):  # fmt: skip
            kinds = " or ".join(kind.__name__ for kind in _KINDS.get(name, (str,)))
            raise ArgumentError(f"gpunet sweep: {name} = {value!r}; expected {kinds}")
    return {**_DEFAULTS, **values}, None


def _count(jobs: Any) -> int:
    try:
        return int(jobs)
    except ValueError:
        raise ArgumentError(f"--jobs {jobs}; expected a number of processes, or mpi") from None


def _free_name(name: str) -> Path:
    stem = Path("sweeps") / f"{datetime.datetime.now(datetime.UTC):%Y%m%d}-{name}"
    numbered = [stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 10000))]
    return next(path for path in numbered if not path.exists())


def _keep_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write the options, for ``--resume``, into a folder in which no sweep has begun."""
    create_folder(folder)
    if (folder / CONFIG).exists():
        return
    with replacing(folder / OPTIONS) as temporary:
        kept = {name: value for name, value in options.items() if name not in (*_FREE, "out")}
        Path(temporary).write_text(json.dumps({"jobs": "1", **kept}, indent=2) + "\n", encoding="utf-8")


def _is_other_process(jobs: Any) -> bool:
    """Whether this is a process of MPI that does not print."""
    if jobs != "mpi":
        return False
    from mpi4py import MPI

    return bool(MPI.COMM_WORLD.Get_rank())


def _print(result: SweepResult, folder: Path, score: str) -> None:
    for trial in sorted(result.trials, key=lambda t: (t.loss, t.number))[:_SHOWN]:
        values = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in trial.parameters.items()}
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        print(f"trial {trial.number}: loss {trial.loss:.4f}, {score} {trial.score:.4f}, epoch {trial.best_epoch}  {shown}")
    print(f"{len(result.trials)} trials in {folder / 'trials.csv'}")
