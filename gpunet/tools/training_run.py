"""``gpunet train``: train a multilayer perceptron on a data set, print progress, and write a run folder."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

import gpunet
from gpunet import data, nn, optim
from gpunet.backend.devices import Device
from gpunet.data import DataLoader, Split, Standardisation, TabularData, TensorDataset
from gpunet.data.columns import Column
from gpunet.errors import ArgumentError
from gpunet.launch.random import Generator
from gpunet.train import LOSSES, OPTIMIZERS, SCHEDULES, EpochResult, RunFolder, fit, multilayer_perceptron
from gpunet.train.checkpoint import read_header, safetensors
from gpunet.train.network import ACTIVATIONS, choose, choose_loss

#: A matrix product with fewer multiplications than this is faster on one thread than on several.
SMALL_GEMM = 2**24

#: The exit code after Ctrl-C, as in shells.
_INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """The options of the command line; None selects the default of the data, the optimizer or the run folder."""

    data: str = "digits"
    target: str | None = None
    ignore: Sequence[str] = ()
    task: str = "auto"
    test_size: float = 0.2
    hidden: str = "128,64"
    activation: str = "relu"
    dropout: float = 0.3
    loss: str | None = None
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "cosine"
    clip: float | None = None
    weight_decay: float | None = None
    batch_size: int = 32
    epochs: int = 30
    device: str = "auto"
    seed: int = 0
    weights: str | None = None
    out: str | None = None


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


def run(options: Options) -> int:
    """Train, and write the run folder.

    Ctrl-C ends the training after the current step and keeps the model; a second Ctrl-C interrupts at once.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.

    Raises:
        ArgumentError, DataError: see :func:`prepare`.
        DeviceError: the device is not available.
        CheckpointError: the initial weights cannot be read.
        GpunetError: the training loss is no longer finite.
    """
    device = Device(options.device)
    setup = prepare(options)
    gpunet.manual_seed(options.seed)
    model = multilayer_perceptron(**setup.network, device=device)
    loss = LOSSES[setup.loss]()
    optimizer = _optimizer(setup, model)
    if options.weights is not None:
        model.load_state_dict(gpunet.train.load(options.weights, device))
    parts = [_tensors(setup, part, device) for part in (setup.split.train, setup.split.test)]
    order = _generator(options.seed, "order")
    train = DataLoader(TensorDataset(*parts[0]), options.batch_size, shuffle=True, generator=order)
    test = DataLoader(TensorDataset(*parts[1]), options.batch_size)
    schedule_choice = SCHEDULES[setup.schedule]
    schedule = schedule_choice.make(optimizer, options.epochs, len(train))
    with RunFolder(options.out, setup.dataset.name) as folder:
        folder.write_config(_config(options, setup, device))
        _print_setup(setup, model, device, folder)
        with (
            _stop_on_interrupt() as stop,
            _limit_blas_threads(setup, options.batch_size),
            _progress(options.epochs, train) as progress,
        ):

            def on_batch() -> bool:
                progress.advance()
                if schedule_choice.after == "batch":
                    schedule.step()
                return stop.is_set()

            start = time.perf_counter()
            for epoch in fit(
                model, loss, optimizer, train, test, epochs=options.epochs, task=setup.dataset.task,
                target_scale=setup.standardisation.target_scale, clip=options.clip, capture=True, on_batch=on_batch,
            ):  # fmt: skip
                progress.write(_epoch_line(epoch, options.epochs))
                folder.add_epoch(epoch)
                folder.save_model(model)
                if stop.is_set():
                    break
                if schedule_choice.after == "epoch":
                    schedule.step()
            seconds = time.perf_counter() - start
        interrupted = stop.is_set() and len(folder.epochs) < options.epochs
        if interrupted:
            folder.save_model(model)
        has_curves = folder.draw_curves()
    _print_result(folder, interrupted, has_curves, seconds)
    return _INTERRUPTED if interrupted else 0


# ---- before training ------------------------------------------------------------------------------------------------


def prepare(options: Options) -> Setup:
    """Check every option, then load and split the data and compute its mean and scale.

    Raises:
        ArgumentError: an option out of range; the message has its name, its value and what was expected.
        DataError: the data cannot be used.
    """
    safetensors()  # raises before training, rather than at the first checkpoint, if the package is missing
    hidden = _sizes(options.hidden)
    activation = choose("activation", options.activation, ACTIVATIONS)
    optimizer = choose("optimizer", options.optimizer, OPTIMIZERS)
    schedule = choose("schedule", options.schedule, SCHEDULES)
    choose("task", options.task, ("auto", "classification", "regression"))
    if options.loss is not None:
        choose("loss", options.loss, LOSSES)
    for name, value in (("epochs", options.epochs), ("batch-size", options.batch_size)):
        if value < 1:
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
    weight_decay = options.weight_decay
    if weight_decay is not None and not 0.0 <= weight_decay < math.inf:
        raise ArgumentError(f"--weight-decay {weight_decay}; expected zero or a positive number")

    dataset = data.load(options.data, options.target, options.task, options.ignore)
    loss = choose_loss(options.loss, dataset.task, len(dataset.class_names))
    split = data.split(dataset, options.test_size, _generator(options.seed, "split"))
    outputs = len(dataset.class_names) if loss == "cross_entropy" else 1
    network = {
        "inputs": dataset.features.shape[1], "hidden": hidden, "outputs": outputs,
        "activation": activation, "dropout": options.dropout,
    }  # fmt: skip
    standardisation = data.standardise(split.train)
    return Setup(dataset, split, standardisation, network, loss, optimizer, learning_rate, weight_decay, schedule)


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(
            f"--hidden {text!r}; expected positive integers separated by commas, such as 128,64"
        )
    return [int(part) for part in parts]


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
        "device": str(device),
        "task": dataset.task,
        "network": setup.network,
        "loss": setup.loss,
        "optimizer": setup.optimizer,
        "learning_rate": setup.learning_rate,
        "rows": {"train": len(setup.split.train), "test": len(setup.split.test)},
        "target": dataset.target_name,
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


# ---- while training -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, which is checked after each step, so that no step is interrupted half-way.

    A second Ctrl-C raises KeyboardInterrupt. Outside the main thread, Python cannot handle signals.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(signal_number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _limit_blas_threads(setup: Setup, batch_size: int) -> Iterator[None]:
    """Use one BLAS thread for small networks, where synchronisation takes longer than the product itself."""
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    largest = batch_size * max(a * b for a, b in itertools.pairwise(sizes))
    try:
        from threadpoolctl import threadpool_limits  # a dependency of scikit-learn
    except ImportError:
        yield
        return
    with threadpool_limits(1) if largest < SMALL_GEMM else contextlib.nullcontext():
        yield


class _Progress:
    """Progress of the training as plain lines, for a pipe or a log file."""

    def advance(self) -> None:
        """Count one step."""

    def write(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)


class _ProgressBar(_Progress):
    """Progress of the training as lines above a progress bar."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self) -> None:
        self.bar.update()

    def write(self, line: str) -> None:
        self.bar.write(line, file=sys.stdout)


@contextlib.contextmanager
def _progress(epochs: int, train: Any) -> Iterator[_Progress]:
    """A progress bar on a terminal if tqdm is installed, else plain lines."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield _Progress()
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _Progress()
        return
    with tqdm(total=epochs * len(train), unit="step", leave=False, dynamic_ncols=True) as bar:
        yield _ProgressBar(bar)


# ---- output ---------------------------------------------------------------------------------------------------------


def _print_setup(setup: Setup, model: nn.Module, device: Any, folder: RunFolder) -> None:
    dataset = setup.dataset
    kind = f"{len(dataset.class_names)} classes" if dataset.class_names else "regression"
    print(
        f"data: {dataset.name}, {len(setup.split.train)} training rows, {len(setup.split.test)} held out, "
        f"{dataset.features.shape[1]} features, {kind}"
    )
    for note in dataset.notes:
        print(f"      {note}")
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    count = sum(p.array.size for p in model.parameters())
    print(f"network: {'-'.join(map(str, sizes))}, {setup.network['activation']}, {count} parameters, on {device}")
    rate = f"learning rate {setup.learning_rate:g}"
    print(f"training: {setup.loss}, {setup.optimizer}, {rate}; run folder: {folder.path}", flush=True)


def _metrics(values: dict[str, float]) -> str:
    return " ".join(f"{'R²' if name == 'r2' else name} {value:.4f}" for name, value in values.items())


def _epoch_line(epoch: EpochResult, epochs: int) -> str:
    number = f"{epoch.number:{len(str(epochs))}d}"
    return f"epoch {number}/{epochs}  train: {_metrics(epoch.train)}  held-out: {_metrics(epoch.test)}"


def _print_result(folder: RunFolder, interrupted: bool, has_curves: bool, seconds: float) -> None:
    if interrupted:
        print(
            f"interrupted in epoch {len(folder.epochs) + 1}; the model was saved to {folder.model}. Continue from it with "
            f"--weights {folder.model}"
        )
    if folder.epochs:
        name, value = list(folder.epochs[-1].test.items())[1]
        print(f"held-out {'R²' if name == 'r2' else name} {value:.4f} after {len(folder.epochs)} epochs, {seconds:.1f} s")
    if folder.epochs and not has_curves:
        print("no curves.png: matplotlib is not installed (pip install 'gpunet[train]')")
    print(f"run folder: {os.path.relpath(folder.path)}", flush=True)
