"""Options of ``gpunet bench``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="time training steps beside PyTorch, JAX and other installed libraries",
        description="Time forward, backward and whole training steps of named networks: gpunet, the same network written by "
        "hand in NumPy, and each installed peer, used as its documentation recommends. All contestants run in the same "
        "session, in turns, on the same data and initial weights; peers whose losses differ are excluded. Writes JSON, a "
        "table and a plot.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--cases", default="*", metavar="NAMES", help="networks, such as digits,mnist*; see --list")
    parser.add_argument("--peers", default="*", metavar="NAMES", help="libraries, such as torch,jax; gpunet always runs")
    parser.add_argument(
        "--kinds", default=argparse.SUPPRESS, metavar="NAMES",
        help="some of forward, backward, sgd, adam (default: all; with --scaling adam)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto (a GPU if CUDA is ready, else the CPU)")
    parser.add_argument(
        "--rounds", type=int, default=argparse.SUPPRESS, help="turns of each contestant (default: 15; with --scaling 5)"
    )
    parser.add_argument(
        "--threads", type=int, default=argparse.SUPPRESS, help="threads of each contestant (default: its own default)"
    )
    parser.add_argument(
        "--clock",
        default="wall",
        help="wall, or processor: the CPU time of all threads, for a machine with other load; needs --threads 1",
    )
    parser.add_argument("--scaling", action="store_true", help="time over batch size and depth, instead of the cases")
    parser.add_argument(
        "--ranks", type=int, default=argparse.SUPPRESS, metavar="N",
        help="time data-parallel steps of a perceptron in N processes, instead of the cases: the share of a step that passes in "
        "communication, beside PyTorch's DistributedDataParallel over gloo",
    )  # fmt: skip
    parser.add_argument(
        "--out", default=argparse.SUPPRESS, help="folder for the files, new or empty (default: runs/<date>-bench)"
    )
    parser.add_argument("--list", action="store_true", help="list cases and peers, and measure nothing")


def run(arguments: argparse.Namespace) -> int:
    """Measure or list; see :func:`gpunet.tools.bench.session.run_command`."""
    from gpunet.tools.bench import session

    options = vars(arguments)
    return session.run_command(session.Options(**{k: options[k] for k in session.Options._fields if k in options}))
