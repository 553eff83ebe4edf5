"""``gpunet train``: train a multilayer perceptron on data, and leave a run folder."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError

if TYPE_CHECKING:
    from gpunet import nn, optim
    from gpunet.data import Dataset, Split, Standardisation
    from gpunet.train import RunFolder

#: A GEMM of fewer multiplications than this is slower on several threads than on one.
SMALL_GEMM = 2**24


def add_parser(subparsers: Any) -> None:
    """Add ``train`` and its options."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on data; without options, on handwritten digits",
        description="Train a multilayer perceptron, show loss and accuracy of each epoch on training and held-out rows, and "
        "leave a run folder: model.safetensors, metrics.jsonl, curves.png, config.json.  The same seed gives the same bits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", default="digits", help="digits, breast-cancer, diabetes, or a .csv or .npz file")
    data.add_argument(
        "--target",
        default=argparse.SUPPRESS,
        help="the target's column in a CSV, by name or number (from 0; -1 is the last), or its array in an .npz "
        "(default: the last column; the array y)",
    )
    data.add_argument("--task", default="auto", help="classification, regression, or auto: inferred from the target")
    data.add_argument("--test-size", type=float, default=0.2, help="share of the rows that is held out")
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", default="128,64", help="sizes of the hidden layers; '' for none")
    network.add_argument(
        "--activation",
        default="relu",
        help="relu, leaky_relu, sigmoid, tanh, gelu, silu, elu, softplus, identity",
    )
    network.add_argument(
        "--dropout", type=float, default=0.3, help="share of the hidden outputs that is dropped in training"
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--loss",
        default=argparse.SUPPRESS,
        help="cross_entropy or, for two classes, bce; mse, mae, huber for regression (default: cross_entropy or mse)",
    )
    training.add_argument("--optimizer", default="adam", help="adam, adamw, sgd (with momentum 0.9)")
    training.add_argument(
        "--lr", type=float, default=argparse.SUPPRESS, help="learning rate (default: 0.003, for sgd 0.05)"
    )
    training.add_argument(
        "--schedule",
        default="cosine",
        help="learning rate: cosine (down to 0), step (a tenth after each third of the epochs), onecycle (up and down, "
        "batch by batch), constant",
    )
    training.add_argument(
        "--clip", type=float, default=argparse.SUPPRESS, help="scale larger gradients down to this norm (default: don't)"
    )
    training.add_argument("--weight-decay", type=float, default=argparse.SUPPRESS, help="(default: 0, for adamw 0.01)")
    training.add_argument("--batch-size", type=int, default=32, help="rows of a step")
    training.add_argument("--epochs", type=int, default=30, help="times through the training rows")
    training.add_argument("--device", default="auto", help="auto (CUDA where it is ready), cpu, cuda, cuda:N")
    training.add_argument(
        "--seed", type=int, default=0, help="of the split, the first weights, the order and the dropout"
    )
    training.add_argument(
        "--weights",
        default=argparse.SUPPRESS,
        help="start from a checkpoint, such as an earlier run's model.safetensors",
    )
    training.add_argument(
        "--out", default=argparse.SUPPRESS,
        help="the run folder, new or empty (default: runs/<date>-<data>)",
    )  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What the arguments come to, checked."""

    dataset: Dataset
    split: Split
    standardisation: Standardisation
    network: dict[str, Any]  # arguments of multilayer_perceptron
    loss: str
    optimizer: str
    learning_rate: float
    weight_decay: float | None
    schedule: str


def run(arguments: argparse.Namespace) -> int:
    """Train as the arguments say; the exit code."""
    import gpunet
    from gpunet.backend.devices import Device
    from gpunet.data import Batches
    from gpunet.launch.random import Generator
    from gpunet.train import LOSSES, SCHEDULES, RunFolder, fit, multilayer_perceptron

    device = Device(arguments.device)
    setup = prepare(arguments)
    gpunet.manual_seed(arguments.seed)
    model = multilayer_perceptron(**setup.network, device=device)
    loss = LOSSES[setup.loss].make()
    optimizer = _optimizer(setup, model)
    if "weights" in arguments:
        model.load_state_dict(gpunet.train.load(arguments.weights, device))
    parts = [_tensors(setup, part, device) for part in (setup.split.train, setup.split.test)]
    order = _stream(Generator, arguments.seed, "order")
    train = Batches(*parts[0], batch_size=arguments.batch_size, shuffle=True, generator=order)
    test = Batches(*parts[1], batch_size=arguments.batch_size)
    schedule_choice = SCHEDULES[setup.schedule]
    schedule = schedule_choice.make(optimizer, arguments.epochs, len(train))
    with RunFolder(getattr(arguments, "out", None), setup.dataset.name) as folder:
        folder.write_config(_config(arguments, setup, device))
        _introduce(setup, model, device, folder)
        with (
            _stop_on_interrupt() as stop,
            _few_threads(setup, arguments.batch_size),
            _progress(arguments.epochs, train) as bar,
        ):

            def on_batch() -> bool:
                bar.advance()
                if schedule_choice.after == "batch":
                    schedule.step()
                return stop.is_set()

            start = time.perf_counter()
            measured: Any = {
                "task": setup.dataset.task, "target_scale": setup.standardisation.target_scale,
                "clip": getattr(arguments, "clip", None), "capture": True,
            }  # fmt: skip
            for epoch in fit(
                model, loss, optimizer, train, test, epochs=arguments.epochs, on_batch=on_batch, **measured
            ):
                bar.write(_line(epoch, arguments.epochs))
                folder.add_epoch(epoch)
                folder.save_model(model)
                if stop.is_set():
                    break
                if schedule_choice.after == "epoch":
                    schedule.step()
            seconds = time.perf_counter() - start
        interrupted = stop.is_set() and len(folder.epochs) < arguments.epochs
        if interrupted:
            folder.save_model(model)
        drawn = folder.draw_curves()
    return _conclude(folder, interrupted, drawn, seconds)


# ---- before training ------------------------------------------------------------------------------------------------


def prepare(arguments: argparse.Namespace) -> Setup:
    """Check every option, and load, split and measure the data.

    Raises:
        ArgumentError: an option out of range; the message names it, its value and what was expected.
        DataError: data that cannot be used.
    """
    from gpunet import data
    from gpunet.launch.random import Generator
    from gpunet.train.checkpoint import read_header, safetensors
    from gpunet.train.network import ACTIVATIONS, LOSSES, OPTIMIZERS, SCHEDULES, choose, choose_loss

    safetensors()  # without it nothing could be kept: better said before training than after
    hidden = _sizes(arguments.hidden)
    activation = choose("activation", arguments.activation, ACTIVATIONS)
    optimizer = choose("optimizer", arguments.optimizer, OPTIMIZERS)
    schedule = choose("schedule", arguments.schedule, SCHEDULES)
    choose("task", arguments.task, ("auto", "classification", "regression"))
    if "loss" in arguments:
        choose("loss", arguments.loss, LOSSES)
    for name, smallest in (("epochs", 1), ("batch_size", 1)):
        if getattr(arguments, name) < smallest:
            raise ArgumentError(f"--{name.replace('_', '-')} {getattr(arguments, name)}; expected {smallest} or more")
    if not 0.0 <= arguments.dropout < 1.0:
        raise ArgumentError(f"--dropout {arguments.dropout}; expected a share from 0 to below 1")
    if "weights" in arguments:
        read_header(Path(arguments.weights))
    learning_rate = getattr(arguments, "lr", OPTIMIZERS[optimizer].learning_rate)
    if not (learning_rate > 0.0 and math.isfinite(learning_rate)):
        raise ArgumentError(f"--lr {learning_rate}; expected a positive number")
    if not getattr(arguments, "clip", 1.0) > 0.0:
        raise ArgumentError(f"--clip {arguments.clip}; expected a positive number")
    weight_decay = getattr(arguments, "weight_decay", None)
    if weight_decay is not None and not 0.0 <= weight_decay < math.inf:
        raise ArgumentError(f"--weight-decay {weight_decay}; expected zero or a positive number")

    dataset = data.load(arguments.data, getattr(arguments, "target", None), arguments.task)
    loss = choose_loss(getattr(arguments, "loss", None), dataset.task, len(dataset.class_names))
    split = data.split(dataset, arguments.test_size, _stream(Generator, arguments.seed, "split"))
    outputs = len(dataset.class_names) if loss == "cross_entropy" else 1
    network = {
        "inputs": dataset.features.shape[1], "hidden": hidden, "outputs": outputs,
        "activation": activation, "dropout": arguments.dropout,
    }  # fmt: skip
    standardisation = data.standardise(split.train)
    return Setup(dataset, split, standardisation, network, loss, optimizer, learning_rate, weight_decay, schedule)


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(
            f"--hidden {text!r}; expected whole numbers of 1 or more with commas between, such as 128,64"
        )
    return [int(part) for part in parts]


def _stream(make: Any, seed: int, name: str) -> Any:
    """A generator of its own for one purpose, so that the split does not depend on the network's size."""
    return make((seed ^ int.from_bytes(name.encode(), "big")) % 2**64)


def _optimizer(setup: Setup, model: nn.Module) -> optim.Optimizer:
    from gpunet.train import OPTIMIZERS

    choice = OPTIMIZERS[setup.optimizer]
    options = dict(choice.options)
    if setup.weight_decay is not None:
        options["weight_decay"] = setup.weight_decay
    return choice.make(model.parameters(), lr=setup.learning_rate, **options)


def _tensors(setup: Setup, part: Dataset, device: Any) -> tuple[Any, Any]:
    """Inputs and targets on the device, in the shape that the loss takes."""
    import numpy

    import gpunet

    targets = setup.standardisation.targets(part.targets)
    if setup.loss != "cross_entropy":
        targets = targets.astype(numpy.float32).reshape(-1, 1)
    return (
        gpunet.tensor(setup.standardisation.features(part.features), device=device),
        gpunet.tensor(targets, device=device),
    )


def _config(arguments: argparse.Namespace, setup: Setup, device: Any) -> dict[str, Any]:
    import gpunet

    dataset, standardisation = setup.dataset, setup.standardisation
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "command")}
    return {
        "gpunet": gpunet.__version__,
        "options": options,
        "device": str(device),
        "task": dataset.task,
        "network": setup.network,
        "loss": setup.loss,
        "optimizer": setup.optimizer,
        "learning_rate": setup.learning_rate,
        "rows": {"train": len(setup.split.train), "test": len(setup.split.test)},
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
    """Ctrl-C sets an event, looked at after each step, so that the weights are those of a whole step.

    A second Ctrl-C interrupts at once.
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
def _few_threads(setup: Setup, batch_size: int) -> Iterator[None]:
    """One BLAS thread for small networks: several would wait for each other longer than they compute."""
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    largest = batch_size * max(a * b for a, b in itertools.pairwise(sizes))
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        yield
        return
    with threadpool_limits(1) if largest < SMALL_GEMM else contextlib.nullcontext():
        yield


class Lines:
    """Plain lines: what a pipe or a log file gets."""

    def advance(self) -> None:
        """One step further."""

    def write(self, line: str) -> None:
        print(line, flush=True)


class Bar(Lines):
    """Lines above a progress bar."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self) -> None:
        self.bar.update()

    def write(self, line: str) -> None:
        self.bar.write(line, file=sys.stdout)


@contextlib.contextmanager
def _progress(epochs: int, train: Any) -> Iterator[Lines]:
    """A progress bar on a terminal, plain lines elsewhere."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield Lines()
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield Lines()
        return
    with tqdm(total=epochs * len(train), unit="step", leave=False, dynamic_ncols=True) as bar:
        yield Bar(bar)


# ---- what is said ---------------------------------------------------------------------------------------------------


def _introduce(setup: Setup, model: nn.Module, device: Any, folder: RunFolder) -> None:
    dataset = setup.dataset
    kind = f"{len(dataset.class_names)} classes" if dataset.class_names else "regression"
    print(
        f"data: {dataset.name}, {len(setup.split.train)} rows to learn from, {len(setup.split.test)} held out, "
        f"{dataset.features.shape[1]} features, {kind}"
    )
    for note in dataset.notes:
        print(f"      {note}")
    sizes = [setup.network["inputs"], *setup.network["hidden"], setup.network["outputs"]]
    count = sum(p.array.size for p in model.parameters())
    print(f"network: {'-'.join(map(str, sizes))}, {setup.network['activation']}, {count} parameters, on {device}")
    rate = f"learning rate {setup.learning_rate:g}"
    print(f"training: {setup.loss}, {setup.optimizer}, {rate}; run folder: {folder.path}", flush=True)


def _figures(values: dict[str, float]) -> str:
    return " ".join(f"{'R²' if name == 'r2' else name} {value:.4f}" for name, value in values.items())


def _line(epoch: Any, epochs: int) -> str:
    number = f"{epoch.number:{len(str(epochs))}d}"
    return f"epoch {number}/{epochs}  train: {_figures(epoch.train)}  held-out: {_figures(epoch.test)}"


def _conclude(folder: RunFolder, interrupted: bool, drawn: bool, seconds: float) -> int:
    if interrupted:
        print(
            f"interrupted in epoch {len(folder.epochs) + 1}; the model so far is in {folder.model}. Go on from it with "
            f"--weights {folder.model}"
        )
    if folder.epochs:
        name, value = list(folder.epochs[-1].test.items())[1]
        figure = f"held-out {'R²' if name == 'r2' else name} {value:.4f}"
        print(f"{figure} after {len(folder.epochs)} epochs, {seconds:.1f} s")
    if folder.epochs and not drawn:
        print("no curves.png: matplotlib is not installed (pip install 'gpunet[train]')")
    print(f"run folder: {os.path.relpath(folder.path)}", flush=True)
    return 130 if interrupted else 0
