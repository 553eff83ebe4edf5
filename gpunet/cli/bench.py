"""``gpunet bench``: training steps of named networks, gpunet's beside those of the libraries that are installed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gpunet.errors import ArgumentError


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="time training steps beside PyTorch, JAX and others that are installed",
        description="Time forward, backward and whole training steps of named networks: gpunet, the same written by hand in "
        "NumPy, and each peer that is installed, as its users would use it.  All in one run, in turns, on the same data and "
        "first weights; who does not compute the same losses is not timed.  Leaves JSON, a table and a picture.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--cases", default="*", metavar="NAMES", help="such as digits,mnist*; --list shows them")
    parser.add_argument("--peers", default="*", metavar="NAMES", help="such as torch,jax; gpunet always takes part")
    parser.add_argument(
        "--kinds", default=argparse.SUPPRESS, metavar="NAMES",
        help="of forward, backward, sgd, adam (default: all; with --scaling adam)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto (CUDA where it is ready)")
    parser.add_argument(
        "--rounds", type=int, default=argparse.SUPPRESS, help="turns of each contestant (default: 15; with --scaling 5)"
    )
    parser.add_argument(
        "--threads", type=int, default=argparse.SUPPRESS, help="of every contestant (default: each its own default)"
    )
    parser.add_argument(
        "--clock",
        default="wall",
        help="wall, or processor: the time of all threads together, for a machine that others use, too; with --threads 1",
    )
    parser.add_argument("--scaling", action="store_true", help="instead of the cases: over batch and depth")
    parser.add_argument(
        "--out", default=argparse.SUPPRESS, help="folder, new or empty, for the files (default: runs/<date>-bench)"
    )
    parser.add_argument("--list", action="store_true", help="show cases and peers, and measure nothing")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; the exit code is 1 where a contestant failed or disagreed.

    Raises:
        ArgumentError: a case, peer or kind that is not there, or a number out of range.
        DeviceError: the device is not there.
    """
    from gpunet.backend.devices import Device
    from gpunet.tools.bench import session
    from gpunet.tools.bench.cases import CASES, KINDS, select
    from gpunet.tools.bench.contestants import PEERS
    from gpunet.tools.bench.measure import CLOCKS, Settings

    chosen = session.Choice(
        [CASES[name] for name in select("cases", arguments.cases, CASES)],
        select("kinds", getattr(arguments, "kinds", "adam" if arguments.scaling else "*"), KINDS),
        [p for p in PEERS if p in ("gpunet", *select("peers", arguments.peers, PEERS))],
    )
    threads, rounds = getattr(arguments, "threads", None), getattr(arguments, "rounds", 5 if arguments.scaling else 15)
    for name, value in (("rounds", rounds), ("threads", threads)):
        if value is not None and value < 1:
            raise ArgumentError(f"--{name} {value}; expected 1 or more")
    if arguments.clock not in CLOCKS:
        raise ArgumentError(f"--clock {arguments.clock!r} is none of {', '.join(CLOCKS)}")
    device = str(Device(arguments.device))
    if arguments.clock == "processor" and (threads != 1 or device != "cpu"):
        raise ArgumentError(
            "--clock processor counts what all threads do, waiting in loops included: use it with --threads 1"
        )
    settings = Settings(rounds=rounds, device=device, threads=threads, clock=arguments.clock)
    if arguments.list:
        print("\n".join(session.listing(settings.device)))
        return 0
    progress = _Progress()
    return session.run(
        chosen,
        settings,
        getattr(arguments, "out", None),
        scaling=arguments.scaling,
        say=progress.say,
        show=progress.show,
    )


class _Progress:
    """Lines of the report on stdout; what is going on, on a terminal's last line."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def say(self, line: str) -> None:
        if self._live:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def show(self, line: str) -> None:
        self.say("")
        print(line, flush=True)
