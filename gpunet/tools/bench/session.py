"""One run of ``gpunet bench``: the header, case after case, the files."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gpunet
from gpunet.errors import MissingDependencyError
from gpunet.tools import machine
from gpunet.tools.bench import picture, report, scaling
from gpunet.tools.bench.cases import CASES, KINDS, Case
from gpunet.tools.bench.ceilings import floor
from gpunet.tools.bench.contestants import PEERS
from gpunet.tools.bench.measure import Bench, Measurement, Say, Settings, import_seconds
from gpunet.tools.bench.worker import THREAD_VARIABLES, WorkerError
from gpunet.train.run_folder import new_folder

_DISTRIBUTIONS = (
    "numpy", "torch", "jax", "jaxlib", "tinygrad", "thinc", "scikit-learn", "numba", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
_VARIABLES = (*THREAD_VARIABLES, "OPENBLAS_CORETYPE", "XLA_FLAGS", "GPUNET_DEVICE", "CC", "DEV", "CUDA_VISIBLE_DEVICES")


class Choice(NamedTuple):
    """What to measure."""

    cases: list[Case]
    kinds: list[str]
    peers: list[str]


def listing(device: str) -> Iterator[str]:
    """Cases, kinds and peers, and what to install."""
    yield "cases"
    yield from (f"  {case}, {case.parameters:,} parameters" for case in CASES.values())
    yield f"kinds\n  {', '.join(KINDS)}"
    yield "peers"
    for name, peer in PEERS.items():
        variants = ", ".join(dict.fromkeys(v.name for v in peer.on(device))) or f"not on {device}"
        yield f"  {name:10} {variants}" if peer.installed else f"  {name:10} is not installed: {peer.install}"


def header(settings: Settings, peers: list[str]) -> dict[str, Any]:
    """Everything about the run but its figures: machine, versions, commit, settings, imports."""
    return {
        "gpunet": gpunet.__version__,
        "commit": machine.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": machine.cpu(),
            "blas": machine.blas(),
            "card": machine.card() if settings.device.startswith("cuda") else None,
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        },
        "versions": machine.versions(_DISTRIBUTIONS),
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
    choice: Choice, settings: Settings, out: str | os.PathLike[str] | None, *, scaling: bool, say: Say, show: Say
) -> int:
    """Measure, show, and write the files into ``out``.  Returns 1 where a contestant failed or disagreed, else 0.

    Raises:
        ArgumentError: the folder cannot be used.
    """
    taking_part = [name for name in choice.peers if PEERS[name].on(settings.device)]
    present = [name for name in taking_part if PEERS[name].installed]
    folder = new_folder(out, "bench")
    say("imports")
    head = header(settings, present)
    show(report.machine_line(head))
    show("seconds to import: " + ", ".join(f"{n} {p['import_seconds'] or 0:.2f}" for n, p in head["peers"].items()))
    for name in taking_part:
        if name not in present:
            show(f"{name} is not installed: {PEERS[name].install}")
    if scaling:
        settings = replace(settings, without=(*settings.without, *_scaling_without(settings, present, show)))
    with Bench(present, settings) as bench:
        measure = _scaling if scaling else _cases
        measurements = measure(bench, choice, head, folder, say, show)
    show(f"\nwritten to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return int(any(e.status in ("failed", "disagrees") for m in measurements for e in m.entries))


def _cases(bench: Bench, choice: Choice, head: dict[str, Any], folder: Path, say: Say, show: Say) -> list[Measurement]:
    measurements: list[Measurement] = []
    ceilings: dict[str, dict[str, float]] = {}
    floors: dict[tuple[str, str], float] = {}
    text: list[str] = [report.machine_line(head)]

    def tell(line: str) -> None:
        text.append(line)
        show(line)

    for case in choice.cases:
        try:
            found = bench.ceilings(case.bytes(choice.kinds[-1]))
        except WorkerError as error:
            found = {}
            tell(f"\nno roofline: {error}")
        ceilings[case.name] = found
        of_case = bench.measure(case, choice.kinds, say)
        for kind in choice.kinds:
            if found:
                work = case.flop(kind), case.bytes(kind), report.launches(case, kind)
                floors[case.name, kind] = floor(*work, found)
        measurements += of_case
        of_kind = {kind: floors[case.name, kind] for kind in choice.kinds if found}
        tell("")
        for line in itertools.chain(
            report.case_block(case, of_case, of_kind),
            report.against_by_hand(of_case),
            report.textbook(case, of_case, of_kind),
            _rates(found),
        ):
            tell(line)
        # after each case, so that an interrupted run leaves what it has
        report.write(folder / "bench.json", report.as_json(report.document(head, measurements, ceilings)))
        report.write(folder / "bench.txt", "\n".join(text) + "\n")
        report.write(folder / "bench.md", report.markdown(head, measurements))
    _draw(lambda: picture.draw(folder / "bench.png", head, measurements, floors), show)
    return measurements


def _rates(ceilings: dict[str, float]) -> Iterator[str]:
    if ceilings:
        latency = f", {1e6 * ceilings['node']:.2f} µs a graph node" if "node" in ceilings else ""
        yield (
            f"  ceilings: products {ceilings['gemm'] / 1e9:,.0f} GFLOP/s, memory at this size "
            f"{ceilings['bandwidth'] / 1e9:,.0f} GB/s{latency}"
        )


def _scaling_without(settings: Settings, peers: list[str], show: Say) -> tuple[str, ...]:
    for variant in (v for peer in peers for v in PEERS[peer].on(settings.device) if v.key in scaling.WITHOUT):
        show(f"{variant.name} is left out: it would compile each of the networks anew")
    return scaling.WITHOUT


def _scaling(
    bench: Bench, choice: Choice, head: dict[str, Any], folder: Path, say: Say, show: Say
) -> list[Measurement]:
    measured = [(what, size, m) for what, size, case in scaling.cases() for m in bench.measure(case, choice.kinds, say)]
    found = scaling.series(measured)
    for line in scaling.lines(found):
        show(line)
    measurements = [m for _, _, m in measured]
    for line in report.problems(measurements):
        show(line)
    report.write(folder / "scaling.json", report.as_json({**report.document(head, measurements, {}), "series": found}))
    _draw(lambda: picture.draw_scaling(folder / "scaling.png", head, found), show)
    return measurements


def _draw(draw: Any, show: Say) -> None:
    try:
        draw()
    except MissingDependencyError as error:
        show(f"no picture: {error}")
