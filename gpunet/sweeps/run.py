"""``gpunet.sweep``: asks a sampler for trials, trains them as stacks, and keeps what is finished in a folder."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_boolean, is_floating, is_integer
from gpunet.backend.files import remove_leftovers, replacing
from gpunet.errors import ArgumentError, CheckpointError, DataError, MissingDependencyError, ProcessError, ShapeError
from gpunet.ops.creation import as_tensor
from gpunet.sweeps.ranges import Range, parse_ranges
from gpunet.sweeps.result import SweepResult
from gpunet.sweeps.samplers import make_sampler
from gpunet.sweeps.training import Outcome, Rows, Settings, divide, train_trials
from gpunet.train import checkpoint
from gpunet.train.lock import FolderLock

__all__ = ["sweep"]

CONFIG, TABLE, PICTURE, STACKS = "sweep.json", "trials.csv", "trials.png", "stacks"
OPTIONS = "options.json"  # that the command line was called with
#: Part of sweep.json: another number means that the files of a sweep have another form.
_VERSION = 1
Finished = tuple[list[Outcome], list[numpy.ndarray]]


class _Job(NamedTuple):
    """Trials that train as one stack: the number of the stack, the numbers of the trials, and their hyperparameters."""

    number: int
    trials: list[int]
    parameters: list[dict[str, Any]]


def sweep(
    x: Any, y: Any, ranges: Mapping[str, Any], *, task: str = "auto", trials: int = 64, sampler: str = "random", seed: int = 0,
    epochs: int = 30, held_out: Any = 0.2, patience: int | None = None, halving: int | None = None, stack_size: int = 64,
    jobs: int | str | None = 1, device: str = "cpu", capture: str = "auto", folder: str | os.PathLike[str] | None = None,
) -> SweepResult:  # fmt: skip
    """Train multilayer perceptrons with different hyperparameters, many as one.

        result = gpunet.sweep(x, y, {"lr": "1e-4:1e-1:log", "hidden": ["32", "64"]}, trials=64, folder="sweeps/digits")
        result.best, result.net()

    Trials of the same depth, activation, optimizer and batch size train as one stack (:class:`gpunet.nn.Stack`); all see the rows
    in the same order.  With a folder, each finished stack is written there, with trials.csv and trials.png at the end.  A sweep
    that was killed continues if it is called again with the same arguments: unfinished trials run again, and the sampler goes on as
    if it had not been interrupted.

    Args:
        x: (n, f) numbers; scale them beforehand.
        y: (n,) labels, or (n,) or (n, k) numbers.
        ranges: hyperparameter -> range, as :func:`gpunet.sweeps.ranges.parse_ranges` takes them: of lr, weight_decay, dropout,
            hidden (sizes such as "64,32"), activation, optimizer (adam, adamw, sgd), momentum, beta1, beta2, batch_size, seed.
        task: "classification", "regression", or "auto": a classification if the targets are no floating numbers.
        trials: how many; of "grid" the largest number.
        sampler: "grid", "random" or "optuna".
        seed: of sampler, split and order of the rows.
        epochs: passes over the rows.
        held_out: share of the rows for the losses by which trials are compared, or a pair (x, y) of such rows.
        patience: stop a trial after so many epochs without a lower loss.
        halving: keep the share 1 / halving of a stack's trials after 1, halving, halving^2, ... epochs.
        stack_size: the largest number of trials in one stack.
        jobs: processes of joblib that train stacks; None takes joblib's active backend, such as Dask's; "mpi" the processes that
            ``mpiexec`` has started, which all call this function and get the result.
        device: "cpu", "cuda", ... of the training.
        capture: the backend of the captured steps on the CPU: "auto", "numba" or "numpy".
        folder: new, empty, or that of the same sweep.

    Raises:
        ArgumentError, ShapeError, DataError: an argument is not valid, or the folder is that of another sweep, has other files,
            or cannot be written.
        MissingDependencyError: a package of the sampler, of joblib or of MPI is not installed.
        ProcessError: another process of MPI has failed.
        CheckpointError: a file in the folder is damaged, or another process uses the folder.
    """
    parsed = parse_ranges(ranges)
    trials, epochs, stack_size = _whole("trials", trials, 1), _whole("epochs", epochs, 1), _whole("stack_size", stack_size, 1)
    seed = _whole("seed", seed, 0)
    patience = None if patience is None else _whole("patience", patience, 1)
    halving = None if halving is None else _whole("halving", halving, 2)
    rows, classes = _rows_of(x, y, task, held_out, seed)
    outputs = rows.y.shape[1] if classes is None else len(classes)
    settings = Settings(outputs, epochs, patience, halving, seed, device, capture)
    config = {
        "version": _VERSION, "ranges": {name: [type(r).__name__, *r] for name, r in parsed.items()}, "trials": trials,
        "sampler": sampler, "seed": seed, "epochs": epochs, "patience": patience, "halving": halving, "stack_size": stack_size,
        "classes": None if classes is None else [str(label) for label in classes], "data": _digest(rows),
    }  # fmt: skip
    team = _team_of(jobs)
    store = _Store(None if folder is None else Path(folder), config)
    team.first(store.open)
    try:
        found = _run(parsed, rows, settings, config, team, store)
        result = SweepResult(parsed, found, rows.x.shape[1], outputs, classes)
        team.first(lambda: store.finish(result))
    finally:
        store.close()
    return result


def _whole(name: str, value: Any, low: int) -> int:
    """Return an argument that is a whole number of ``low`` or more.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, numpy.integer)) or value < low:
        raise ArgumentError(f"sweep: {name}={value!r}; expected a whole number of {low} or more")
    return int(value)


def _run(
    ranges: dict[str, Range], rows: Rows, settings: Settings, config: Mapping[str, Any], team: _Team, store: _Store
) -> list[tuple[dict[str, Any], Outcome, list[numpy.ndarray]]]:
    """Train all trials, in the sampler's rounds, without those that are finished."""
    chosen = make_sampler(config["sampler"], ranges, config["trials"], config["seed"])
    found: dict[int, tuple[dict[str, Any], Outcome, list[numpy.ndarray]]] = {}
    first_stack = 0
    while len(found) < chosen.num_trials:
        count = min(chosen.round_size, chosen.num_trials - len(found))
        asked = chosen.ask(count)
        jobs = _jobs_of(asked, len(found), first_stack, config["stack_size"])
        first_stack += len(jobs)
        finished = team.first(functools.partial(store.load, jobs))
        todo = [job for job in jobs if finished[job.number] is None]
        finished.update(team.run(todo, functools.partial(_run_job, rows=rows, settings=settings, folder=store.path)))
        for job in jobs:
            outcomes, weights = finished[job.number]
            for place, (trial, parameters) in enumerate(zip(job.trials, job.parameters)):
                found[trial] = (parameters, outcomes[place], [array[place] for array in weights])
        chosen.tell([found[trial][1].loss for trial in range(len(found) - count, len(found))])
    return [found[trial] for trial in range(len(found))]


def _jobs_of(asked: Sequence[dict[str, Any]], first_trial: int, first_stack: int, stack_size: int) -> list[_Job]:
    """Divide trials into stacks."""
    return [
        _Job(first_stack + number, [first_trial + place for place in part], [asked[place] for place in part])
        for number, part in enumerate(divide(asked, stack_size))
    ]


def _run_job(job: _Job, rows: Rows, settings: Settings, folder: Path | None) -> Finished:
    """Train a stack, and write what it became, if there is a folder."""
    outcomes, weights = train_trials(job.parameters, rows, settings)
    if folder is not None:
        stem = folder / STACKS / f"{job.number:05d}"
        checkpoint.save({str(number): as_tensor(array) for number, array in enumerate(weights)}, stem.with_suffix(".safetensors"))
        record = {"trials": job.trials, "parameters": job.parameters, "outcomes": [vars(outcome) for outcome in outcomes]}
        with replacing(stem.with_suffix(".json")) as temporary:  # last: it says that the stack is finished
            Path(temporary).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return outcomes, weights


# ---- data -----------------------------------------------------------------------------------------------------------------


def _rows_of(x: Any, y: Any, task: str, held_out: Any, seed: int) -> tuple[Rows, numpy.ndarray | None]:
    """Return the rows, and the classes or None."""
    if task not in ("auto", "classification", "regression"):
        raise ArgumentError(f"sweep: task={task!r}; expected 'auto', 'classification' or 'regression'")
    inputs, targets = _inputs_of(x, "x"), _as_array(y)
    if len(targets) != len(inputs) or targets.ndim not in (1, 2) or not len(inputs):
        raise ShapeError(f"sweep: x has shape {inputs.shape}, y {targets.shape}; expected (n, f) and (n,) or (n, k)")
    is_classification = task == "classification" or (task == "auto" and not is_floating(targets.dtype))
    if is_classification and targets.ndim != 1:
        raise ShapeError(f"sweep: y has shape {targets.shape}; expected labels (n,) of a classification")
    if isinstance(held_out, (tuple, list)):
        if len(held_out) != 2:
            raise ArgumentError(f"sweep: held_out has {len(held_out)} items; expected a share of the rows, or a pair (x, y)")
        other_x, other_y = _inputs_of(held_out[0], "held_out[0]"), _as_array(held_out[1])
        if other_x.shape[1:] != inputs.shape[1:] or other_y.shape[1:] != targets.shape[1:] or not 0 < len(other_x) == len(other_y):
            raise ShapeError(
                f"sweep: held_out has shapes {other_x.shape} and {other_y.shape}; expected rows such as those of x "
                f"{inputs.shape} and y {targets.shape}"
            )
    else:
        share = held_out if isinstance(held_out, (int, float, numpy.number)) else math.nan
        count = round(float(share) * len(inputs)) if 0.0 < share < 1.0 else 0
        if not 0 < count < len(inputs):
            raise ArgumentError(f"sweep: held_out={held_out!r} of {len(inputs)} rows; expected a share with rows on both sides")
        order = numpy.random.default_rng(seed).permutation(len(inputs))
        other_x, other_y = inputs[order[:count]], targets[order[:count]]
        inputs, targets = inputs[order[count:]], targets[order[count:]]
    if not is_classification:
        for target in (targets, other_y):
            if not _is_number(target):
                raise DataError(f"sweep: y has the dtype {target.dtype}; expected numbers of a regression")
        parts = [target.astype(numpy.float32).reshape(len(target), -1) for target in (targets, other_y)]
        if not all(numpy.isfinite(part).all() for part in parts):
            raise DataError("sweep: y has numbers that are not finite")
        return Rows(inputs, parts[0], other_x, parts[1]), None
    try:
        classes = numpy.unique(targets)
    except TypeError as error:
        raise DataError(f"sweep: the labels cannot be sorted ({error}); expected labels of one type") from None
    if len(unknown := numpy.setdiff1d(other_y, classes)):
        raise DataError(f"sweep: the held-out rows have the label {str(unknown[0])!r}, which no training row has")
    return Rows(inputs, numpy.searchsorted(classes, targets), other_x, numpy.searchsorted(classes, other_y)), classes


def _as_array(values: Any) -> numpy.ndarray:
    return numpy.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def _inputs_of(values: Any, name: str) -> numpy.ndarray:
    array = _as_array(values)
    if array.ndim != 2 or not _is_number(array) or not array.shape[1]:
        raise ShapeError(f"sweep: {name} has shape {array.shape} and dtype {array.dtype}; expected numbers (n, f)")
    array = numpy.ascontiguousarray(array, numpy.float32)
    if not numpy.isfinite(array).all():
        raise DataError(f"sweep: {name} has numbers that are not finite")
    return array


def _is_number(array: numpy.ndarray) -> bool:
    return any(of_kind(array.dtype) for of_kind in (is_floating, is_integer, is_boolean))


def _digest(rows: Rows) -> str:
    digest = hashlib.sha256()
    for array in rows:
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(numpy.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- files ----------------------------------------------------------------------------------------------------------------


def create_folder(path: Path) -> None:
    """Create the folder of a sweep, or check that it is empty or has a sweep.

    Raises:
        ArgumentError: it has other files, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise ArgumentError(f"sweep: cannot write the folder {path}: {error.strerror or error}; choose another folder") from None
    others = sorted({*names} - {STACKS, OPTIONS})
    if others and CONFIG not in others:
        raise ArgumentError(f"sweep: folder {path} has {others[0]}, but no sweep; expected a new or empty folder")


class _Store:
    """The folder of a sweep, if it has one, held while the sweep runs.

    Args:
        path: of the folder, or None.
        config: what makes the sweep another one.
    """

    def __init__(self, path: Path | None, config: dict[str, Any]) -> None:
        self.path, self._config = path, json.loads(json.dumps(config))
        self._lock: FolderLock | None = None

    def open(self) -> None:
        """Create the folder, or check that it has this sweep, and hold it."""
        if self.path is None:
            return
        create_folder(self.path)
        self._lock = FolderLock(self.path)
        self._lock.__enter__()
        try:
            self._check_config()
            (self.path / STACKS).mkdir(exist_ok=True)
            for folder in (self.path, self.path / STACKS):
                remove_leftovers(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes have the folder, if this one holds it."""
        if self._lock is not None:
            self._lock.__exit__()

    def _check_config(self) -> None:
        assert self.path is not None
        file = self.path / CONFIG
        if not file.exists():
            with replacing(file) as temporary:
                Path(temporary).write_text(json.dumps(self._config, indent=2) + "\n", encoding="utf-8")
            return
        known = _read_json(file)
        for key, value in self._config.items():
            if known.get(key) != value:
                what = "other data" if key == "data" else f"{key} = {known.get(key)!r}, not {value!r}"
                raise ArgumentError(
                    f"sweep: folder {self.path} has a sweep of {what}. Continue it with its arguments, or choose another folder"
                )

    def load(self, jobs: Sequence[_Job]) -> dict[int, Finished | None]:
        """Return what stacks became, by their numbers; None for one that is not finished.

        Raises:
            CheckpointError: the files are damaged, or those of another sweep.
        """
        return {job.number: self._load(job) for job in jobs}

    def _load(self, job: _Job) -> Finished | None:
        if self.path is None:
            return None
        stem = self.path / STACKS / f"{job.number:05d}"
        if not stem.with_suffix(".json").exists():
            return None
        record = _read_json(stem.with_suffix(".json"))
        if record.get("trials") != job.trials or record.get("parameters") != json.loads(json.dumps(job.parameters)):
            raise CheckpointError(f"{stem}.json has other trials than the sampler drew; start the sweep in a new folder")
        weights = checkpoint.load(stem.with_suffix(".safetensors"))
        try:
            outcomes = [Outcome(**outcome) for outcome in record["outcomes"]]
            return outcomes, [weights[str(number)].numpy() for number in range(len(weights))]
        except (KeyError, TypeError):
            raise CheckpointError(f"{stem}.json or the weights beside it are damaged; start the sweep in a new folder") from None

    def finish(self, result: SweepResult) -> None:
        """Write table and picture; without matplotlib there is no picture."""
        if self.path is None:
            return
        result.write_table(self.path / TABLE)
        try:
            result.plot(self.path / PICTURE)
        except MissingDependencyError:
            pass


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start the sweep in a new folder") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not of a sweep; start the sweep in a new folder")
    return found


# ---- processes ------------------------------------------------------------------------------------------------------------


class _Team:
    """The processes that train stacks: here, this one."""

    def first(self, work: Callable[[], Any]) -> Any:
        """Call ``work`` in the first process only, which reads and writes what concerns all; return its result in all."""
        return work()

    def run(self, jobs: list[_Job], train: functools.partial[Finished]) -> dict[int, Finished]:
        """Train stacks; return what they became, by their numbers, in all processes."""
        return {job.number: train(job) for job in jobs}


class _JoblibTeam(_Team):
    """Processes of joblib.

    Args:
        count: of processes; None for those of joblib's active backend.
    """

    def __init__(self, count: int | None) -> None:
        try:
            import joblib
        except ImportError:
            raise MissingDependencyError("sweep: jobs needs joblib: pip install joblib", name="joblib") from None
        self._joblib, self._count = joblib, count

    def run(self, jobs: list[_Job], train: functools.partial[Finished]) -> dict[int, Finished]:
        results = self._joblib.Parallel(n_jobs=self._count)(self._joblib.delayed(train)(job) for job in jobs)
        return {job.number: result for job, result in zip(jobs, results, strict=True)}


class _MpiTeam(_Team):
    """The processes of MPI: the i-th of n takes every n-th stack, from the i-th on."""

    def __init__(self) -> None:
        try:
            from mpi4py import MPI
        except ImportError:
            message = "sweep: jobs='mpi' needs mpi4py and MPI: pip install 'gpunet[mpi]'"
            raise MissingDependencyError(message, name="mpi4py") from None
        self._world = MPI.COMM_WORLD

    def first(self, work: Callable[[], Any]) -> Any:
        return self._together(work if self._world.Get_rank() == 0 else lambda: None)[0]

    def run(self, jobs: list[_Job], train: functools.partial[Finished]) -> dict[int, Finished]:
        mine = jobs[self._world.Get_rank() :: self._world.Get_size()]
        parts = self._together(lambda: {job.number: train(job) for job in mine})
        return {number: finished for part in parts for number, finished in part.items()}

    def _together(self, work: Callable[[], Any]) -> list[Any]:
        """Return what ``work`` returns in each process.

        Raises:
            ProcessError: it fails in another process; in that one, its error.
        """
        value, failure = None, None
        try:
            value = work()
        except Exception as error:
            failure = error
        found = self._world.allgather((value, failure and f"{type(failure).__name__}: {failure}"))
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(found):
            if message is not None:
                raise ProcessError(f"sweep: rank {rank} stopped with {message}")
        return [value for value, _ in found]


def _team_of(jobs: int | str | None) -> _Team:
    if jobs == "mpi":
        return _MpiTeam()
    if jobs == 1:
        return _Team()
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ArgumentError(f"sweep: jobs={jobs!r}; expected 1 or more, None for joblib's active backend, or 'mpi'")
    return _JoblibTeam(jobs)


