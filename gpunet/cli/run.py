"""Options of ``gpunet run``."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``run`` and its options."""
    parser = subparsers.add_parser(
        "run",
        help="run a script that is written for PyTorch, unchanged",
        description="Run a Python script or a notebook that imports torch: in its process torch is gpunet, torchvision is\n"
        "gpunet.vision, and torch.utils.tensorboard writes by the package tensorboard. 'gpunet port' says before\n"
        "which names are missing.",
        epilog="example:\n  gpunet run train.py --epochs 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", metavar="SCRIPT", help="a .py or .ipynb file")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="arguments of the script")


def run(arguments: argparse.Namespace) -> int:
    """Run the script; see :func:`gpunet.interop.run_script.run_script`."""
    from gpunet.distributed.process_group import stop_others
    from gpunet.interop.run_script import run_script, traceback_of_script

    try:
        run_script(arguments.script, arguments.arguments)
    except SystemExit as ended:
        if ended.code not in (None, 0):
            stop_others()
        raise
    except Exception as error:
        lines = traceback_of_script(error, arguments.script)
        if lines is None:  # an error of the command, not of the script
            raise
        print(lines, end="", file=sys.stderr)
        stop_others()
        return 1
    return 0
