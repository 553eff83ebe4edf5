"""Options of ``gpunet selftest``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``selftest`` and its options."""
    parser = subparsers.add_parser(
        "selftest",
        help="check every kernel on a device of this machine",
        description="Launch every specialisation of every kernel on odd sizes. The results are compared with a float64 "
        "computation, and a second launch must produce the same bits. The exit code is 1 if a kernel fails.",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (default: a GPU if CUDA is ready, else the CPU), cpu, cuda, cuda:N, emulated"
    )
    parser.add_argument(
        "--kernels", default="*", metavar="PATTERN", help="only kernels with matching names: 'linear_*,adam_step'"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check the kernels; see :func:`gpunet.tools.selftest.run`."""
    from gpunet.tools import selftest

    return selftest.run(arguments.device, arguments.kernels, as_json=arguments.json)
