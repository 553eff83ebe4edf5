"""The command ``gpunet``: parses options, runs the subcommand, and turns errors into one line and an exit code.

A subcommand is a module of this package with ``add_parser(subparsers)`` and ``run(arguments) -> int``. ``run`` imports the
tool it needs, so that ``gpunet --help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import gpunet
from gpunet.errors import GpunetError

SUBCOMMANDS = ("train", "sweep", "predict", "export", "run", "port", "bench", "explain", "info", "selftest", "check-kernel")

#: Exit codes for an error that the user can correct, and for Ctrl-C (as in shells).
ERROR, INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="gpunet",
        description="Train neural networks on NVIDIA GPUs with fused CUDA kernels, and on the CPU with NumPy.",
        epilog="'gpunet train' without options trains a network on handwritten digits; 'gpunet SUBCOMMAND --help' lists "
        "the options.",
    )
    parser.add_argument("--version", action="version", version=f"gpunet {gpunet.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        module = importlib.import_module(f"gpunet.cli.{name.replace('-', '_')}")
        module.add_parser(subparsers)
        subparsers.choices[name].set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Errors are printed to stderr as one line."""
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except BrokenPipeError:  # the reader of the pipe has ended, such as head; devnull avoids a second error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except GpunetError as error:
        print(f"gpunet: error: {' '.join(str(error).split())}", file=sys.stderr)
    except OSError as error:
        print(f"gpunet: error: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("gpunet: interrupted", file=sys.stderr)
        _stop_others()
        return INTERRUPTED
    _stop_others()
    return ERROR


def _stop_others() -> None:
    """Stop the processes that a subcommand has joined."""
    joined = sys.modules.get("gpunet.distributed.process_group")
    if joined is not None:
        joined.stop_others()
