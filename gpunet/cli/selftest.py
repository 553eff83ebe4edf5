"""``gpunet selftest``: every kernel on this machine's device, against float64, twice for the bits."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from gpunet.backend.devices import Device, cuda_status
from gpunet.backend.gpus import get_device_name


def add_parser(subparsers: Any) -> None:
    """Add ``selftest`` and its options."""
    parser = subparsers.add_parser(
        "selftest",
        help="check every kernel on this machine's card",
        description="Launch every kernel in all its specialisations on odd sizes: the results are compared with a "
        "computation in float64, and a second launch must leave the same bits. The exit code is 1 when a kernel fails.",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (default: the card when ready), cpu, cuda, cuda:N, emulated"
    )
    parser.add_argument(
        "--kernels", default="*", metavar="PATTERN", help="only those with such names: 'linear_*,adam_step'"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the table, row by row as the kernels are checked.

    Returns:
        0 when all kernels pass, else 1.

    Raises:
        DeviceError: the device is not there.
        ArgumentError: no kernel matches the pattern.
    """
    from gpunet.tools import selftest

    where = Device(arguments.device)
    kernels = selftest.chosen(arguments.kernels)
    note = ""
    if arguments.device == "auto" and where.type == "cpu":
        note = f"no card is ready ({cuda_status().detail}), so the NumPy twins are checked"
    if not arguments.json:
        print(f"device {where}{_name(where)}" + f"; {note}" * bool(note))
        print("error: the largest, in units of eps, against float64", end="\n\n")
        print(selftest.HEADER, flush=True)
    rows = []
    for kernel in kernels:
        rows.append(selftest.check_kernel(kernel, where))
        if not arguments.json:
            print(selftest.describe(rows[-1]), flush=True)
    failed = [row.kernel for row in rows if not row.passed]
    if arguments.json:
        found = [
            row._asdict() | {"error": row.error if math.isfinite(row.error) else None, "passed": row.passed}
            for row in rows
        ]
        print(json.dumps({"device": str(where), "note": note, "passed": not failed, "kernels": found}, indent=2))
    else:
        launches = sum(row.launches for row in rows)
        verdict = f"{len(failed)} FAILED: {', '.join(failed)}" if failed else "all ok"
        print(f"\n{len(rows)} kernels, {launches} launches: {verdict}")
    return 1 if failed else 0


def _name(where: Device) -> str:
    """What the card is called."""
    return f" ({get_device_name(where)})" if where.type == "cuda" else ""
