"""Options of ``gpunet sweep``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``sweep`` and its options.  Those that are not given are absent: a TOML file or the defaults have them."""
    parser = subparsers.add_parser(
        "sweep",
        help="train many networks with different hyperparameters as one",
        description="Train multilayer perceptrons with different hyperparameters, many as one, and write a folder: trials.csv, "
        "trials.png, the weights of all nets. A hyperparameter has one value or more (--hidden 32 64 64,32), or an interval: "
        "--lr 1e-4:1e-1:log, --batch-size 16:64:int. The same seed gives the same trials, also of a sweep that was killed and "
        "resumed.",
        argument_default=argparse.SUPPRESS,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="digits, breast-cancer, diabetes, or a .csv, .parquet or .npz file (default: digits)")
    data.add_argument("--target", help="column of the target in a table, by name or number, or name of its array in an .npz")
    data.add_argument("--ignore", action="append", metavar="COLUMN", help="a column of a table to leave out; may be repeated")
    data.add_argument("--task", help="classification, regression, or auto: inferred from the target (default: auto)")
    data.add_argument("--test-size", type=float, help="fraction of the rows by whose loss trials are compared (default: 0.2)")
    ranges = parser.add_argument_group("hyperparameters: values, or an interval")
    for name, text in (
        ("lr", "learning rate (default: 0.003, for sgd 0.05)"),
        ("weight-decay", "(default: 0, for adamw 0.01)"),
        ("dropout", "probability of dropping a hidden output (default: 0)"),
        ("hidden", "sizes of the hidden layers, such as 64,32 (default: 64)"),
        ("activation", "activations by name (default: relu)"),
        ("optimizer", "adam, adamw, sgd (default: adam)"),
        ("momentum", "of sgd (default: 0.9)"),
        ("beta1", "of adam and adamw (default: 0.9)"),
        ("beta2", "of adam and adamw (default: 0.999)"),
        ("batch-size", "rows per batch (default: 32)"),
        ("net-seed", "seed of the initial weights and the dropout (default: 0)"),
    ):
        ranges.add_argument(f"--{name}", nargs="+", metavar="VALUE", help=text)
    search = parser.add_argument_group("search")
    search.add_argument("--trials", type=int, help="how many; of a grid the largest number (default: 64)")
    search.add_argument("--sampler", help="grid, random or optuna (default: random)")
    search.add_argument("--epochs", type=int, help="passes over the training rows (default: 30)")
    search.add_argument("--patience", type=int, help="stop a trial after so many epochs without a lower loss (default: never)")
    search.add_argument(
        "--halving", type=int, metavar="N", help="keep the best 1/N of a stack after 1, N, N^2, ... epochs (default: keep all)"
    )
    search.add_argument("--seed", type=int, help="seed of the sampler, the split and the order of the rows (default: 0)")
    run = parser.add_argument_group("run")
    run.add_argument("--stack-size", type=int, help="the largest number of networks in one stack (default: 64)")
    run.add_argument("--jobs", help="processes that train stacks, or mpi under mpiexec (default: 1)")
    run.add_argument("--device", help="auto (a GPU if CUDA is ready, else the CPU), cpu, cuda, cuda:N (default: auto)")
    run.add_argument("--capture", help="how steps run on the CPU: auto, numba or numpy (default: auto)")
    run.add_argument("--out", help="the folder, new or empty (default: sweeps/<date>-<data>)")
    run.add_argument("--config", metavar="FILE", help="a TOML file with these options; the command line wins")
    run.add_argument(
        "--resume", metavar="FOLDER", help="continue a sweep that was killed, with its options; only --jobs may stand beside it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run a sweep; see :func:`gpunet.tools.sweep_run.run`."""
    given = {name: value for name, value in vars(arguments).items() if name not in ("command", "run")}
    from gpunet.tools import sweep_run

    return sweep_run.run(given)
