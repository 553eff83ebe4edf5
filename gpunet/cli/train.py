"""Options of ``gpunet train``."""

from __future__ import annotations

import argparse
from typing import Any

from gpunet.cli.names import fill_in
from gpunet.errors import ArgumentError
from gpunet.tools.training_options import Options, combined


def add_parser(subparsers: Any) -> None:
    """Add ``train`` and its options.  Those that are not given are absent: a TOML file or the defaults have them."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on data; without options, on handwritten digits",
        description="Train a multilayer perceptron, print loss and metrics of each epoch on training and held-out rows, and "
        "write a run folder: model.safetensors (the weights of the epoch with the lowest held-out loss), checkpoint.safetensors, "
        "metrics.jsonl, curves.png, config.json. The same seed gives the same bits, also of a run that was killed and resumed. "
        "Under mpiexec -n N the processes share each batch.",
        argument_default=argparse.SUPPRESS,
    )
    data = parser.add_argument_group("data")
    sources = _text(
        "digits, breast-cancer, diabetes, a .csv, .parquet or .npz file, or a folder of .npy shards or .parquet files, which is "
        "read in parts",
        "data",
    )
    data.add_argument("source", metavar="DATA", nargs="?", help=sources)
    data.add_argument("--data", help="the same")
    data.add_argument(
        "--target",
        help="column of the target in a table, by name or number (from 0; -1 is the last), or name of its array in an .npz "
        "(default: the last column; the array y)",
    )
    data.add_argument(
        "--ignore", action="append", metavar="COLUMN", help="a column of a table to leave out, by name or number; may be repeated"
    )
    data.add_argument("--task", help=_text("classification, regression, or auto: inferred from the target", "task"))
    data.add_argument("--test-size", type=float, help=_text("fraction of the rows to hold out", "test_size"))
    data.add_argument(
        "--folds", type=int, metavar="K",
        help="train K networks, each with another of K parts of the rows held out, instead of --test-size; the run folder has a "
        "folder for each, and folds.json with their figures",
    )
    data.add_argument("--fold", type=int, metavar="N", help="train that of fold N alone, from 1")
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", help=_text("sizes of the hidden layers; '' for none", "hidden"))
    fill_in(parser, network.add_argument("--activation", help=_text("{}", "activation")), _activations)
    network.add_argument("--dropout", type=float, help=_text("probability of dropping a hidden output in training", "dropout"))
    training = parser.add_argument_group("training")
    fill_in(parser, training.add_argument("--loss", help="{} (default: cross_entropy or mse)"), _losses)
    training.add_argument("--optimizer", help=_text("adam, adamw, sgd (with momentum 0.9)", "optimizer"))
    training.add_argument("--lr", type=float, help="learning rate (default: 0.003, for sgd 0.05)")
    training.add_argument(
        "--schedule",
        help=_text(
            "schedule of the learning rate: cosine (down to 0), step (times 0.1 after each third of the epochs), onecycle "
            "(up and down, per step), constant",
            "schedule",
        ),
    )
    training.add_argument("--clip", type=float, help="clip the gradient norm to this value (default: no clipping)")
    training.add_argument("--weight-decay", type=float, help="(default: 0, for adamw 0.01)")
    training.add_argument("--batch-size", type=int, help=_text("rows per batch", "batch_size"))
    training.add_argument("--accumulate", type=int, help=_text("batches per step", "accumulate"))
    training.add_argument(
        "--precision", help=_text("float32, or bfloat16 or float16 (with loss scaling) where it is enough", "precision")
    )
    training.add_argument("--ema", type=float, help="decay of a moving average of the weights, such as 0.999 (default: none)")
    training.add_argument("--epochs", type=int, help=_text("passes over the training rows", "epochs"))
    training.add_argument("--patience", type=int, help="stop after so many epochs without a lower held-out loss (default: never)")
    training.add_argument("--device", help=_text("auto (a GPU if CUDA is ready, else the CPU), cpu, cuda, cuda:N", "device"))
    training.add_argument(
        "--seed", type=int, help=_text("seed of the split, the initial weights, the order and the dropout", "seed")
    )
    training.add_argument(
        "--deterministic", action="store_true",
        help="the same bits for 1, 2 and 4 processes: each batch is computed in four shards, whose gradients are added in a tree",
    )
    training.add_argument("--weights", help="start from a checkpoint, such as model.safetensors of an earlier run")
    run = parser.add_argument_group("run")
    run.add_argument("--out", help="the run folder, new or empty (default: runs/<date>-<data>)")
    run.add_argument(
        "--report", action="store_true",
        help="write report.html, one page with curves, confusion matrix or errors, gradient flow and wrong examples; recording the "
        "gradient flow may change the last bits of the results",
    )
    run.add_argument(
        "--save-every", type=int, metavar="STEPS", help="write a checkpoint after so many steps, too, not only after each epoch"
    )
    run.add_argument(
        "--config", metavar="FILE", help="a TOML file with these options, such as batch-size = 64; the command line wins"
    )
    run.add_argument(
        "--resume", metavar="RUN_FOLDER", help="continue a run that was interrupted or killed, with its options; stands alone"
    )


def _text(text: str, option: str) -> str:
    return f"{text} (default: {getattr(Options, option)})"


def _activations() -> str:
    from gpunet.train.network import ACTIVATIONS

    return ", ".join(ACTIVATIONS)


def _losses() -> str:
    from gpunet.train.network import LOSSES

    tasks = {"classification": "classification", "binary": "two classes", "regression": "regression"}
    by_task = {task: ", ".join(name for name, loss in LOSSES.items() if loss.task == task) for task in tasks}
    return "; ".join(f"{by_task[task]} for {tasks[task]}" for task in tasks)


def run(arguments: argparse.Namespace) -> int:
    """Train; see :mod:`gpunet.tools.training_run` and :mod:`gpunet.tools.training_folds`."""
    given = {name: value for name, value in vars(arguments).items() if name not in ("command", "run")}
    if (source := given.pop("source", None)) is not None:
        if "data" in given:
            raise ArgumentError(f"gpunet train {source} --data {given['data']}; expected one of the two")
        given["data"] = source
    config, folder = given.pop("config", None), given.pop("resume", None)
    others = ["config"] * (config is not None) + [*given]
    if folder is not None and others:
        raise ArgumentError(
            f"--resume {folder} with --{others[0].replace('_', '-')}; a resumed run has the options of its config.json. Start "
            f"a new run from its weights with --weights {folder}/model.safetensors"
        )
    options = combined(given, config) if folder is None else None
    from gpunet.tools import training_folds

    return training_folds.resume(folder) if options is None else training_folds.run(options)
