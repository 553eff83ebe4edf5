"""Options of ``gpunet info``."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``info`` and its options."""
    parser = subparsers.add_parser(
        "info",
        help="versions, CPU, BLAS, GPU, driver, kernel cache, and what to install",
        description="Show the versions, devices and libraries that gpunet finds on this machine, and how to install the "
        "missing ones.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts about this machine. The exit code is always 0."""
    from gpunet.tools import info

    facts = info.collect()
    print(json.dumps(facts, indent=2) if arguments.json else "\n".join(info.lines(facts)))
    return 0
