"""Options of ``gpunet port``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``port`` and its options."""
    parser = subparsers.add_parser(
        "port",
        help="list what a PyTorch script needs and gpunet lacks",
        description="Read scripts that are written for PyTorch, without running them, and print by line which names and\n"
        "keywords gpunet does not have. The exit code is 1 if something is missing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scripts", metavar="SCRIPT", nargs="+", help="a .py or .ipynb file")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; see :func:`gpunet.interop.port.read_script`."""
    from gpunet.interop.port import read_script

    total = 0
    for script in arguments.scripts:
        report = read_script(script)
        for finding in report.findings:
            print(finding)
        total += len(report.findings)
        names = sorted({finding.name for finding in report.findings})
        print(f"{script}: {report.uses} uses of torch, {len(names)} names missing" + (f": {', '.join(names)}" if names else ""))
    return 1 if total else 0
