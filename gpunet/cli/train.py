"""Options of ``gpunet train``."""

from __future__ import annotations

import argparse
from typing import Any

from gpunet.cli.names import fill_in


def add_parser(subparsers: Any) -> None:
    """Add ``train`` and its options."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on data; without options, on handwritten digits",
        description="Train a multilayer perceptron, print loss and metrics of each epoch on training and held-out rows, and "
        "write a run folder: model.safetensors, metrics.jsonl, curves.png, config.json. The same seed gives the same bits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", default="digits", help="digits, breast-cancer, diabetes, or a .csv or .npz file")
    data.add_argument(
        "--target",
        default=argparse.SUPPRESS,
        help="column of the target in a CSV, by name or number (from 0; -1 is the last), or name of its array in an .npz "
        "(default: the last column; the array y)",
    )
    data.add_argument(
        "--ignore", action="append", default=argparse.SUPPRESS, metavar="COLUMN",
        help="a column of a CSV to leave out, by name or number; may be repeated",
    )  # fmt: skip
    data.add_argument("--task", default="auto", help="classification, regression, or auto: inferred from the target")
    data.add_argument("--test-size", type=float, default=0.2, help="fraction of the rows to hold out")
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", default="128,64", help="sizes of the hidden layers; '' for none")
    fill_in(parser, network.add_argument("--activation", default="relu", help="{}"), _activations)
    network.add_argument(
        "--dropout", type=float, default=0.3, help="probability of dropping a hidden output in training"
    )
    training = parser.add_argument_group("training")
    losses = training.add_argument("--loss", default=argparse.SUPPRESS, help="{} (default: cross_entropy or mse)")
    fill_in(parser, losses, _losses)
    training.add_argument("--optimizer", default="adam", help="adam, adamw, sgd (with momentum 0.9)")
    training.add_argument(
        "--lr", type=float, default=argparse.SUPPRESS, help="learning rate (default: 0.003, for sgd 0.05)"
    )
    training.add_argument(
        "--schedule",
        default="cosine",
        help="schedule of the learning rate: cosine (down to 0), step (times 0.1 after each third of the epochs), onecycle "
        "(up and down, per batch), constant",
    )
    training.add_argument(
        "--clip", type=float, default=argparse.SUPPRESS, help="clip the gradient norm to this value (default: no clipping)"
    )
    training.add_argument("--weight-decay", type=float, default=argparse.SUPPRESS, help="(default: 0, for adamw 0.01)")
    training.add_argument("--batch-size", type=int, default=32, help="rows per step")
    training.add_argument("--epochs", type=int, default=30, help="passes over the training rows")
    training.add_argument("--device", default="auto", help="auto (a GPU if CUDA is ready, else the CPU), cpu, cuda, cuda:N")
    training.add_argument(
        "--seed", type=int, default=0, help="seed of the split, the initial weights, the order and the dropout"
    )
    training.add_argument(
        "--weights",
        default=argparse.SUPPRESS,
        help="start from a checkpoint, such as model.safetensors of an earlier run",
    )
    training.add_argument(
        "--out", default=argparse.SUPPRESS,
        help="the run folder, new or empty (default: runs/<date>-<data>)",
    )  # fmt: skip


def _activations() -> str:
    from gpunet.train.network import ACTIVATIONS

    return ", ".join(ACTIVATIONS)


def _losses() -> str:
    from gpunet.train.network import LOSSES

    tasks = {"classification": "classification", "binary": "two classes", "regression": "regression"}
    by_task = {task: ", ".join(name for name, loss in LOSSES.items() if loss.task == task) for task in tasks}
    return "; ".join(f"{by_task[task]} for {tasks[task]}" for task in tasks)


def run(arguments: argparse.Namespace) -> int:
    """Train; see :func:`gpunet.tools.training_run.run`."""
    from gpunet.tools import training_run

    options = vars(arguments)
    names = training_run.Options.__dataclass_fields__
    return training_run.run(training_run.Options(**{name: options[name] for name in names if name in options}))
