"""``gpunet bench``: check the options, measure case after case, write the files."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gpunet
from gpunet.backend.devices import Device
from gpunet.backend.files import write_whole
from gpunet.errors import ArgumentError, MissingDependencyError
from gpunet.tools import info
from gpunet.tools.bench import picture, ranks, report, scaling
from gpunet.tools.bench.cases import KINDS, Case, select
from gpunet.tools.bench.ceilings import floor
from gpunet.tools.bench.contestants import PEERS
from gpunet.tools.bench.measure import CLOCKS, Bench, Measurement, Settings, Write, import_seconds
from gpunet.tools.bench.networks import CASES
from gpunet.tools.bench.worker import THREAD_VARIABLES, WorkerError
from gpunet.train.run_folder import new_folder

_DISTRIBUTIONS = (
    "numpy", "torch", "jax", "jaxlib", "tinygrad", "thinc", "scikit-learn", "numba", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
_VARIABLES = (*THREAD_VARIABLES, "OPENBLAS_CORETYPE", "XLA_FLAGS", "GPUNET_DEVICE", "CC", "DEV", "CUDA_VISIBLE_DEVICES")


# ---- options ----------------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """The options of the command line; None selects the default."""

    cases: str = "*"
    peers: str = "*"
    kinds: str | None = None
    device: str = "cpu"
    rounds: int | None = None
    threads: int | None = None
    clock: str = "wall"
    scaling: bool = False
    ranks: int | None = None
    out: str | None = None
    list: bool = False


class Choice(NamedTuple):
    """The cases, kinds and peers to measure."""

    cases: list[Case]
    kinds: list[str]
    peers: list[str]


def check_options(options: Options) -> tuple[Choice, Settings]:
    """The choice and the settings that the options describe.

    Raises:
        ArgumentError: an unknown case, peer, kind or clock, or a number out of range.
        DeviceError: the device is not available.
    """
    kinds = options.kinds if options.kinds is not None else "adam" if options.scaling else "*"
    choice = Choice(
        [CASES[name] for name in select("cases", options.cases, CASES)],
        select("kinds", kinds, KINDS),
        [p for p in PEERS if p in ("gpunet", *select("peers", options.peers, PEERS))],
    )
    rounds = options.rounds if options.rounds is not None else 5 if options.scaling else 15
    for name, value in (("rounds", rounds), ("threads", options.threads)):
        if value is not None and value < 1:
            raise ArgumentError(f"--{name} {value}; expected 1 or more")
    if options.clock not in CLOCKS:
        raise ArgumentError(f"unknown --clock {options.clock!r}; expected one of {', '.join(CLOCKS)}")
    device = str(Device(options.device))
    if options.clock == "processor" and (options.threads != 1 or device != "cpu"):
        raise ArgumentError(
            "--clock processor sums the CPU time of all threads, including busy waiting: use it with --threads 1, on the CPU"
        )
    return choice, Settings(rounds=rounds, device=device, threads=options.threads, clock=options.clock)


def run_command(options: Options) -> int:
    """Measure, or list with ``options.list``, and return the exit code; see :func:`run`.

    Raises:
        ArgumentError, DeviceError: see :func:`check_options`.
    """
    choice, settings = check_options(options)
    if options.list:
        print("\n".join(listing(settings.device)))
        return 0
    terminal = _Terminal()
    if options.ranks is not None:
        return _run_ranks(options.ranks, choice, settings, options.out, terminal.write)
    return run(
        choice,
        settings,
        options.out,
        scaling=options.scaling,
        progress=terminal.progress,
        write=terminal.write,
    )


def _run_ranks(count: int, choice: Choice, settings: Settings, out: str | os.PathLike[str] | None, write: Write) -> int:
    """Measure data-parallel steps in ``count`` processes, print the table and write the times."""
    if count < 1:
        raise ArgumentError(f"--ranks {count}; expected 1 or more")
    libraries: list[str] = [p for p in ("gpunet", "torch") if p in choice.peers and PEERS[p].installed]
    found = ranks.measure(count, settings.rounds, libraries)
    table = ranks.lines(count, found)
    write("\n".join(table))
    folder = new_folder(out, "bench")
    content = {**header(settings, libraries), "ranks": count, "times": found, "table": table}
    (folder / "ranks.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


class _Terminal:
    """Writes the report to stdout, and the current activity to the last line of a terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def progress(self, line: str) -> None:
        if self._is_terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def write(self, line: str) -> None:
        self.progress("")
        print(line, flush=True)


def listing(device: str) -> Iterator[str]:
    """Lines that list the cases, the kinds, and the peers with the commands that install them."""
    yield "cases"
    yield from (f"  {case}, {case.parameters:,} parameters" for case in CASES.values())
    yield f"kinds\n  {', '.join(KINDS)}"
    yield "peers"
    for name, peer in PEERS.items():
        variants = ", ".join(dict.fromkeys(v.name for v in peer.on(device))) or f"not on {device}"
        yield f"  {name:10} {variants}" if peer.installed else f"  {name:10} is not installed: {peer.install}"


# ---- a run ------------------------------------------------------------------------------------------------------------


def header(settings: Settings, peers: list[str]) -> dict[str, Any]:
    """The conditions of a run: machine, versions, commit, settings, import times."""
    return {
        "gpunet": gpunet.__version__,
        "commit": info.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": info.cpu(),
            "blas": info.blas(),
            "gpu": info.gpu() if settings.device.startswith("cuda") else None,
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        },
        "versions": info.versions(_DISTRIBUTIONS),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "settings": {
            "device": settings.device,
            "rounds": settings.rounds,
            "turn_seconds": settings.turn,
            "threads": settings.threads,
            "clock": settings.clock,
        },
        "peers": {
            name: {"import_seconds": import_seconds(PEERS[name].package), "install": PEERS[name].install}
            for name in peers
        },
    }


def run(
    choice: Choice,
    settings: Settings,
    out: str | os.PathLike[str] | None,
    *,
    scaling: bool,
    progress: Write,
    write: Write,
) -> int:
    """Measure the choice and write the files.

    Args:
        choice: the cases, kinds and peers.
        settings: how to measure.
        out: the folder of the files, new or empty; ``runs/<date>-bench`` if None.
        scaling: measure over batch size and depth, instead of the cases.
        progress: called with a line about the current activity.
        write: called with each line of the report.

    Returns:
        The exit code: 1 if a contestant failed or disagreed, else 0.

    Raises:
        ArgumentError: the folder cannot be used.
    """
    on_device = [name for name in choice.peers if PEERS[name].on(settings.device)]
    installed = [name for name in on_device if PEERS[name].installed]
    folder = new_folder(out, "bench")
    progress("imports")
    head = header(settings, installed)
    write(report.machine_line(head))
    write("seconds to import: " + ", ".join(f"{n} {p['import_seconds'] or 0:.2f}" for n, p in head["peers"].items()))
    for name in on_device:
        if name not in installed:
            write(f"{name} is not installed: {PEERS[name].install}")
    if scaling:
        settings = replace(settings, without=(*settings.without, *_excluded_from_scaling(settings, installed, write)))
    with Bench(installed, settings) as bench:
        measure = _measure_scaling if scaling else _measure_cases
        measurements = measure(bench, choice, head, folder, progress, write)
    write(f"\nwritten to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return int(any(e.status in ("failed", "disagrees") for m in measurements for e in m.entries))


def _measure_cases(
    bench: Bench, choice: Choice, head: dict[str, Any], folder: Path, progress: Write, write: Write
) -> list[Measurement]:
    measurements: list[Measurement] = []
    ceilings: dict[str, dict[str, float]] = {}
    floors: dict[tuple[str, str], float] = {}
    text: list[str] = [report.machine_line(head)]

    def write_and_keep(line: str) -> None:
        text.append(line)
        write(line)

    for case in choice.cases:
        try:
            found = bench.ceilings(case.bytes(choice.kinds[-1]))
        except WorkerError as error:
            found = {}
            write_and_keep(f"\nno roofline: {error}")
        ceilings[case.name] = found
        of_case = bench.measure(case, choice.kinds, progress)
        for kind in choice.kinds:
            if found:
                work = case.flop(kind), case.bytes(kind), case.launches(kind)
                floors[case.name, kind] = floor(*work, found)
        measurements += of_case
        of_kind = {kind: floors[case.name, kind] for kind in choice.kinds if found}
        write_and_keep("")
        for line in itertools.chain(
            report.case_block(case, of_case, of_kind),
            report.against_by_hand(of_case),
            report.textbook(case, of_case, of_kind),
            _ceiling_lines(found),
        ):
            write_and_keep(line)
        # written after each case, so that an interrupted run keeps its results
        write_whole(folder / "bench.json", report.as_json(report.document(head, measurements, ceilings)))
        write_whole(folder / "bench.txt", "\n".join(text) + "\n")
        write_whole(folder / "bench.md", report.markdown(head, measurements))
    _draw(lambda: picture.draw(folder / "bench.png", head, measurements, floors), write)
    return measurements


def _ceiling_lines(ceilings: dict[str, float]) -> Iterator[str]:
    if ceilings:
        latency = f", {1e6 * ceilings['node']:.2f} µs per graph node" if "node" in ceilings else ""
        yield (
            f"  ceilings: matrix products {ceilings['gemm'] / 1e9:,.0f} GFLOP/s, memory at this size "
            f"{ceilings['bandwidth'] / 1e9:,.0f} GB/s{latency}"
        )


def _excluded_from_scaling(settings: Settings, peers: list[str], write: Write) -> tuple[str, ...]:
    for variant in (v for peer in peers for v in PEERS[peer].on(settings.device) if v.key in scaling.WITHOUT):
        write(f"{variant.name} is excluded: it would recompile for every network")
    return scaling.WITHOUT


def _measure_scaling(
    bench: Bench, choice: Choice, head: dict[str, Any], folder: Path, progress: Write, write: Write
) -> list[Measurement]:
    measured = [
        (axis, size, m) for axis, size, case in scaling.cases() for m in bench.measure(case, choice.kinds, progress)
    ]
    found = scaling.series(measured)
    for line in scaling.lines(found):
        write(line)
    measurements = [m for _, _, m in measured]
    for line in report.problems(measurements):
        write(line)
    write_whole(folder / "scaling.json", report.as_json({**report.document(head, measurements, {}), "series": found}))
    _draw(lambda: picture.draw_scaling(folder / "scaling.png", head, found), write)
    return measurements


def _draw(draw: Any, write: Write) -> None:
    try:
        draw()
    except MissingDependencyError as error:
        write(f"no plot: {error}")
