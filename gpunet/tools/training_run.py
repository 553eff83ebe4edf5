"""``gpunet train``: train a multilayer perceptron on a data set, print progress, and write a run folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy

import gpunet
from gpunet import data, metrics, nn, optim
from gpunet.backend.devices import Device
from gpunet.backend.threads import available_cores
from gpunet.data import DataLoader, Split, Standardisation, TabularData, TensorDataset
from gpunet.data.columns import Column
from gpunet.diagnose import GradientFlow
from gpunet.distributed.agreement import on_first
from gpunet.distributed.process_group import launched_group
from gpunet.errors import ArgumentError, DataError, MissingDependencyError
from gpunet.launch.random import Generator
from gpunet.tools import training_blocks
from gpunet.tools.training_blocks import BlockRows
from gpunet.tools.training_options import Options, of_run
from gpunet.tools.training_report import REPORT, Run, write_report
from gpunet.train.callbacks import Callback
from gpunet.train.checkpoint import read_header, safetensors
from gpunet.train.drawing import subplots
from gpunet.train.history import History
from gpunet.train.loggers import JSONLinesLogger
from gpunet.train.network import ACTIVATIONS, LOSSES, OPTIMIZERS, SCHEDULES, choose, choose_loss, multilayer_perceptron
from gpunet.train.run_folder import RunFolder, load_run, new_folder, read_config
from gpunet.train.trainer import PRECISIONS, Trainer

METRICS, CURVES = "metrics.jsonl", "curves.png"

RECORDED_STEPS = 100  # of which a report shows the gradient flow

EVALUATION_ROWS = 8192  # in a batch, since no residuals are kept for backward

#: A matrix product with fewer multiplications than this is faster on one thread than on several.
SMALL_GEMM = 2**24

#: The exit code after Ctrl-C, as in shells.
_INTERRUPTED = 130


@dataclass(frozen=True)
class Setup:
    """The checked options, with the data loaded and split."""

    dataset: TabularData
    split: Split
    standardisation: Standardisation
    network: dict[str, Any]  # arguments of multilayer_perceptron
    loss: str
    optimizer: str
    learning_rate: float
    weight_decay: float | None
    schedule: str
    precision: str
    blocks: BlockRows | None = None  # the rows of a folder, instead of those of dataset and split

    @property
    def num_rows(self) -> tuple[int, int]:
        """The numbers of training and of held-out rows."""
        parts = (self.split.train, self.split.test) if self.blocks is None else (self.blocks.train, self.blocks.test)
        return len(parts[0]), len(parts[1])

    @property
    def digest(self) -> str:
        """A hash by which a resumed run finds that its data have changed."""
        return fingerprint(self.dataset) if self.blocks is None else self.blocks.digest


def run(options: Options) -> int:
    """Train, and write a new run folder.

    Ctrl-C ends the training after the current step and keeps its state; a second Ctrl-C interrupts at once.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.

    Raises:
        ArgumentError, DataError: see :func:`prepare`.
        DeviceError: the device is not available.
        CheckpointError: the initial weights cannot be read, or a checkpoint cannot be written.
        GpunetError: the training loss is no longer finite.
    """
    device = Device(options.device)
    setup = prepare(options)
    parts = make_parts(options, setup, device)
    path = on_first(launched_group(), lambda: str(new_folder(options.out, setup.dataset.name)), "gpunet train")
    with hold(path) as folder:
        if is_first():
            folder.write_config(_config(options, setup, device))
        return _train(options, setup, parts, folder)


def is_first() -> bool:
    """Whether this process writes and prints: of those that train together the first one does."""
    return launched_group().rank() == 0


@contextlib.contextmanager
def hold(path: str | os.PathLike[str]) -> Iterator[RunFolder]:
    """Hold a run folder, in the first one of the processes that train together."""
    with contextlib.ExitStack() as stack:
        folder = RunFolder(path)
        on_first(launched_group(), lambda: stack.enter_context(folder) and None, "gpunet train")
        yield folder


def resume(path: str) -> int:
    """Continue the run in a folder, from its last checkpoint, with its options; see :func:`run`.

    Raises:
        CheckpointError: the folder is not one of a run, is in use by another process, or a file is damaged.
        DataError: the data have changed.
    """
    config = on_first(launched_group(), lambda: read_config(path), "gpunet train")
    options = of_run(config, path)
    device = Device(config.get("device", options.device))
    with hold(path) as folder:
        setup = prepare(options)
        if config.get("data") != setup.digest:
            raise DataError(f"{path}: the data {options.data} have changed since the run began; start a new run")
        return _train(options, setup, make_parts(options, setup, device), folder)


class Parts(NamedTuple):
    """What is trained, and on which data."""

    model: nn.Sequential
    optimizer: optim.Optimizer
    train: DataLoader
    evaluation: dict[str, DataLoader]


def make_parts(options: Options, setup: Setup, device: Any) -> Parts:
    """Make the network and the loaders.

    Raises:
        CheckpointError: the initial weights cannot be read.
        StateDictError: they do not fit the network.
    """
    gpunet.manual_seed(options.seed)
    model = multilayer_perceptron(**setup.network, device=device)
    if options.weights is not None:
        model.load_state_dict(gpunet.train.load(options.weights, device))
    data_sets: list[Any]
    if setup.blocks is None:
        data_sets = [TensorDataset(*_tensors(setup, part, device)) for part in (setup.split.train, setup.split.test)]
        evaluation = {name: DataLoader(part, EVALUATION_ROWS) for name, part in zip(("train", "val"), data_sets)}
    else:
        data_sets = setup.blocks.data_sets(setup.loss)
        evaluation = {"val": DataLoader(data_sets[1], setup.blocks.evaluation_rows(EVALUATION_ROWS))}
    train = DataLoader(data_sets[0], options.batch_size, shuffle=True, generator=_generator(options.seed, "order"))
    return Parts(model, _optimizer(setup, model), train, evaluation)


def _train(options: Options, setup: Setup, parts: Parts, folder: RunFolder) -> int:
    schedule = SCHEDULES[setup.schedule]
    callbacks: list[Callback] = [JSONLinesLogger(folder.path / METRICS)]
    if options.report:
        num_steps = options.epochs * math.ceil(len(parts.train) / options.accumulate)
        callbacks.append(GradientFlow(parts.model, every=max(1, num_steps // RECORDED_STEPS)))
    trainer = Trainer(
        parts.model, LOSSES[setup.loss](), parts.optimizer,
        metrics=_metrics_of(setup), accumulate=options.accumulate, clip=options.clip,
        precision=setup.precision, schedule=schedule.make, schedule_per=schedule.per, ema=options.ema, patience=options.patience,
        callbacks=callbacks, folder=folder, save_every=options.save_every, resume=True,
        class_names=setup.dataset.class_names, deterministic=options.deterministic,
    )  # fmt: skip
    group = launched_group()
    own = f"rank {group.rank()} is process {os.getpid()} of {platform.node()}"
    processes = group.gather_objects(own, "gpunet train")
    if is_first():
        _print_setup(setup, parts.model, folder, processes)
    num_epochs = _num_lines(folder.path / METRICS)
    start = time.perf_counter()
    with _limit_blas_threads(setup, options.batch_size):
        history = trainer.fit(parts.train, parts.evaluation, epochs=options.epochs)
    seconds = time.perf_counter() - start
    if not is_first():
        return _INTERRUPTED if history.ending == "interrupted" else 0
    _print_result(history, folder, _draw_curves(history, folder), seconds)
    if options.report and (len(history) > num_epochs or not (folder.path / REPORT).exists()):  # of a complete run it stays
        _write_report(options, setup, history, callbacks[-1], folder)
    return _INTERRUPTED if history.ending == "interrupted" else 0


def _num_lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def _draw_curves(history: History, folder: RunFolder) -> bool:
    """Draw the figures over the epochs; return False if there is no epoch or no matplotlib."""
    if not history.rows:
        return False
    try:
        history.plot(folder.path / CURVES)
    except MissingDependencyError:
        return False
    return True


def _write_report(options: Options, setup: Setup, history: History, flow: Any, folder: RunFolder) -> None:
    given = {name: value for name, value in asdict(options).items() if value != getattr(Options, name) and name != "report"}
    run = Run(setup.dataset.name, given, setup.loss, setup.split, setup.standardisation, history, flow)
    write_report(folder.path / REPORT, run, load_run(folder.path)[0])
    print(f"report: {os.path.relpath(folder.path / REPORT)}", flush=True)


# ---- before training ------------------------------------------------------------------------------------------------


def prepare(options: Options) -> Setup:
    """Check every option, then load and split the data and compute its mean and scale.

    Raises:
        ArgumentError: an option out of range; the message has its name, its value and what was expected.
        DataError: the data cannot be used.
    """
    safetensors()  # raises before training, rather than at the first checkpoint, if the package is missing
    if options.report:
        subplots(1)  # alike
    hidden = _sizes(options.hidden)
    activation = choose("activation", options.activation, ACTIVATIONS)
    optimizer = choose("optimizer", options.optimizer, OPTIMIZERS)
    schedule = choose("schedule", options.schedule, SCHEDULES)
    choose("task", options.task, ("auto", "classification", "regression"))
    if options.loss is not None:
        choose("loss", options.loss, LOSSES)
    precision = choose("precision", options.precision, PRECISIONS)
    if options.folds is not None and options.folds < 2:
        raise ArgumentError(f"--folds {options.folds}; expected 2 or more")
    if options.fold is not None and not 1 <= options.fold <= (options.folds or 0):
        raise ArgumentError(f"--fold {options.fold}; expected 1 to {options.folds}" if options.folds else "--fold needs --folds")
    if options.folds is not None and options.test_size != Options.test_size:
        raise ArgumentError(f"--test-size {options.test_size} with --folds {options.folds}; expected one of the two")
    counts = {
        "epochs": options.epochs, "batch-size": options.batch_size, "accumulate": options.accumulate, "patience": options.patience,
        "save-every": options.save_every,
    }  # fmt: skip
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ArgumentError(f"--{name} {value}; expected 1 or more")
    if not 0.0 <= options.dropout < 1.0:
        raise ArgumentError(f"--dropout {options.dropout}; expected a probability from 0 to below 1")
    if options.weights is not None:
        read_header(Path(options.weights))
    learning_rate = options.lr if options.lr is not None else OPTIMIZERS[optimizer].learning_rate
    if not (learning_rate > 0.0 and math.isfinite(learning_rate)):
        raise ArgumentError(f"--lr {learning_rate}; expected a positive number")
    if options.clip is not None and not options.clip > 0.0:
        raise ArgumentError(f"--clip {options.clip}; expected a positive number")
    if options.ema is not None and not 0.0 <= options.ema < 1.0:
        raise ArgumentError(f"--ema {options.ema}; expected a decay from 0 to below 1, such as 0.999")
    weight_decay = options.weight_decay
    if weight_decay is not None and not 0.0 <= weight_decay < math.inf:
        raise ArgumentError(f"--weight-decay {weight_decay}; expected zero or a positive number")

    blocks = training_blocks.load(options) if os.path.isdir(options.data) else None
    if blocks is None:
        dataset = data.load(options.data, options.target, options.task, options.ignore)
        _refuse_equal_names(options.data, dataset)
        split = of_split(dataset, options.test_size, options.seed, options.folds, options.fold)
    else:
        dataset, split = blocks.description, blocks.split
    loss = choose_loss(options.loss, dataset.task, len(dataset.class_names))
    outputs = len(dataset.class_names) if loss == "cross_entropy" else 1
    network = {
        "inputs": dataset.features.shape[1], "hidden": hidden, "outputs": outputs,
        "activation": activation, "dropout": options.dropout,
    }  # fmt: skip
    standardisation = data.standardise(split.train) if blocks is None else blocks.standardisation
    return Setup(
        dataset, split, standardisation, network, loss, optimizer, learning_rate, weight_decay, schedule, precision, blocks
    )


def _refuse_equal_names(path: str, dataset: TabularData) -> None:
    """Refuse a column that ``gpunet predict`` could not find by its name.

    Raises:
        DataError: another column has the name of a column that is used.
    """
    names = [*[column.name for column in dataset.columns], dataset.target_name]
    for column in dataset.columns:
        if column.kind != "ignored" and names.count(column.name) > 1:
            raise DataError(f"{path}: {names.count(column.name)} columns are named {column.name!r}; rename them")


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(
            f"--hidden {text!r}; expected positive integers separated by commas, such as 128,64"
        )
    return [int(part) for part in parts]


def of_split(
    dataset: TabularData, test_size: float = Options.test_size, seed: int = Options.seed, folds: int | None = None,
    fold: int | None = None,
) -> Split:  # fmt: skip
    """The split of a run with these options: of the first fold if they say none."""
    generator = _generator(seed, "split")
    return data.split(dataset, test_size, generator) if folds is None else data.folds(dataset, folds, generator)[(fold or 1) - 1]


def _generator(seed: int, purpose: str) -> Generator:
    """A separate generator for one purpose, so that the split does not depend on the size of the network."""
    return Generator((seed ^ int.from_bytes(purpose.encode(), "big")) % 2**64)


def _optimizer(setup: Setup, model: nn.Module) -> optim.Optimizer:
    choice = OPTIMIZERS[setup.optimizer]
    options = dict(choice.options)
    if setup.weight_decay is not None:
        options["weight_decay"] = setup.weight_decay
    return choice.make(model.parameters(), lr=setup.learning_rate, **options)


def _tensors(setup: Setup, part: TabularData, device: Any) -> tuple[Any, Any]:
    """Standardised inputs (n, f) and targets, (n,) for cross-entropy or else (n, 1), on the device."""
    targets = setup.standardisation.targets(part.targets)
    if setup.loss != "cross_entropy":
        targets = targets.astype(numpy.float32).reshape(-1, 1)
    return (
        gpunet.tensor(setup.standardisation.features(part.features), device=device),
        gpunet.tensor(targets, device=device),
    )


def _config(options: Options, setup: Setup, device: Any) -> dict[str, Any]:
    """The content of config.json; ``load_run`` reads "network", and ``predict`` "columns" and "standardisation"."""
    dataset, standardisation = setup.dataset, setup.standardisation
    columns = dataset.columns or [Column(name, "number", "plain") for name in dataset.feature_names]
    return {
        "gpunet": gpunet.__version__,
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "device": str(device) if ":" in options.device else device.type,  # another number in each process
        "data": setup.digest,
        "task": dataset.task,
        "network": setup.network,
        "loss": setup.loss,
        "optimizer": setup.optimizer,
        "learning_rate": setup.learning_rate,
        "rows": dict(zip(("train", "test"), setup.num_rows)),
        "target": dataset.target_name,
        "has_header": dataset.has_header if dataset.columns else None,
        "columns": [column.as_json() for column in columns],
        "features": list(dataset.feature_names),
        "classes": list(dataset.class_names),
        "standardisation": {
            "mean": standardisation.mean.tolist(),
            "scale": standardisation.scale.tolist(),
            "target_mean": standardisation.target_mean,
            "target_scale": standardisation.target_scale,
        },
    }


@contextlib.contextmanager
def _limit_blas_threads(setup: Setup, batch_size: int) -> Iterator[None]:
    """Use one BLAS thread for small networks, where synchronisation takes longer than the product itself.

    Several processes share out the cores.
    """
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    largest = batch_size * max(a * b for a, b in itertools.pairwise(sizes))
    try:
        from threadpoolctl import threadpool_limits  # a dependency of scikit-learn
    except ImportError:
        yield
        return
    size = launched_group().size()
    limit = 1 if largest < SMALL_GEMM else max(1, available_cores() // size) if size > 1 else None
    with threadpool_limits(limit):
        yield


def fingerprint(dataset: TabularData) -> str:
    """A hash of the rows, by which a resumed run finds that its data have changed."""
    digest = hashlib.sha256(numpy.ascontiguousarray(dataset.features).tobytes())
    digest.update(numpy.ascontiguousarray(dataset.targets).tobytes())
    return digest.hexdigest()


# ---- output ---------------------------------------------------------------------------------------------------------


class _ErrorInUnits(metrics.MeanAbsoluteError):
    """The mean absolute error of standardised targets, in their unit."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def compute(self) -> Any:
        return super().compute() * self.unit


def _metrics_of(setup: Setup) -> dict[str, metrics.Metric]:
    if setup.dataset.task == "regression":
        return {"r2": metrics.R2Score(), "mae": _ErrorInUnits(setup.standardisation.target_scale)}
    is_binary = setup.loss != "cross_entropy"
    classes = len(setup.dataset.class_names)
    if is_binary:
        return {"accuracy": metrics.Accuracy("binary", from_logits=True)}
    return {"accuracy": metrics.Accuracy("multiclass", num_classes=classes)}


def label(name: str) -> str:
    """How a figure of the held-out rows, such as "val_r2", is printed."""
    return "R²" if name == "val_r2" else name.removeprefix("val_")


def _print_setup(setup: Setup, model: nn.Sequential, folder: RunFolder, processes: list[str]) -> None:
    dataset = setup.dataset
    kind = f"{len(dataset.class_names)} classes" if dataset.class_names else "regression"
    print(
        f"data: {dataset.name}, {setup.num_rows[0]} training rows, {setup.num_rows[1]} held out, "
        f"{dataset.features.shape[1]} features, {kind}"
    )
    for note in dataset.notes:
        print(f"      {note}")
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    parameters = [*model.parameters()]
    count = sum(p.array.size for p in parameters)
    print(f"network: {'-'.join(map(str, sizes))}, {setup.network['activation']}, {count} parameters, on {parameters[0].device}")
    rate = f"learning rate {setup.learning_rate:g}"
    if len(processes) > 1:  # a launcher names a process that died by its number
        print(f"processes: {len(processes)} share each batch; {', '.join(processes)}", flush=True)
    print(f"training: {setup.loss}, {setup.optimizer}, {rate}; run folder: {folder.path}", flush=True)


def _print_result(history: History, folder: RunFolder, has_curves: bool, seconds: float) -> None:
    relative = os.path.relpath(folder.path)
    if history.ending == "interrupted":
        print(f"interrupted in epoch {len(history) + 1}. Continue with: gpunet train --resume {relative}")
    if (best := history.best) is not None:
        name = next(key for key in best if key.startswith("val_") and key != "val_loss")
        figure = f"held-out {label(name)} {best[name]:.4f}"
        chosen = "" if best is history.rows[-1] else f" (of epoch {best['epoch']}, which has the lowest held-out loss)"
        stopped = f", {len(history) - best['epoch']} without a lower loss" if history.ending == "early" else ""
        print(f"{figure} after {len(history)} epochs{stopped}{chosen}, {seconds:.1f} s")
        if not has_curves:
            print("no curves.png: matplotlib is not installed (pip install 'gpunet[train]')")
    print(f"run folder: {relative}", flush=True)
