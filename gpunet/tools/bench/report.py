"""The results as tables for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from gpunet.tools.bench.cases import Case
from gpunet.tools.bench.measure import Entry, Measurement

TITLES = {"forward": "forward", "backward": "forward + backward", "sgd": "step, SGD", "adam": "step, Adam"}
OURS, CAPTURED, BY_HAND = "gpunet eager", "gpunet captured", "NumPy by hand"


# ---- terminal ---------------------------------------------------------------------------------------------------------


def microseconds(seconds: float) -> str:
    """A time in microseconds with at least three significant digits."""
    value = seconds * 1e6
    return f"{value:,.1f}" if value < 99.95 else f"{value:,.0f}"


def spread(entry: Entry) -> str:
    """Half the interquartile range in percent of the median."""
    low, high = entry.quartiles
    return f"±{50 * (high - low) / entry.median:.0f}%"


def case_block(case: Case, measurements: list[Measurement], floors: dict[str, float]) -> Iterator[str]:
    """The lines of one case: one row per contestant, one column per kind.

    Column "x" is the time relative to gpunet eager: the median over rounds of the ratio within a round.
    """
    yield f"{case}, {case.parameters:,} parameters, {'mean squared error' if case.regression else 'cross-entropy'}"
    yield f"{'':24}" + "".join(f"{TITLES[m.kind]:>27}" for m in measurements) + f"{'first step':>12}"
    yield f"{'':24}" + f"{'µs':>12}{'':>7}{'x':>8}" * len(measurements) + f"{'s':>12}"
    names: dict[str, None] = {}
    for measurement in measurements:
        names.update(dict.fromkeys(entry.name for entry in measurement.entries))
    best = [m.best() for m in measurements]
    order = sorted(names, key=lambda n: best[-1][n].median if n in best[-1] else math.inf)
    for name in order:
        if not any(name in found for found in best):
            continue
        line = f"{name:24}"
        for found in best:
            if name in found:
                entry = found[name]
                ratio = f"{entry.ratio(found[OURS]):.2f}" if OURS in found else ""
                line += f"{microseconds(entry.median):>12} {spread(entry):>6}{ratio:>8}"
            else:
                line += f"{'–':>12}{'':>15}"
        last = next(found[name] for found in reversed(best) if name in found)
        yield line + f"{last.first_step:>12.2f}"
    if floors:
        yield f"{'roofline':24}" + "".join(f"{microseconds(floors[m.kind]):>12}{'':15}" for m in measurements)
        shares = [found.get(OURS) for found in best]
        cells = (
            f"{'–':>12}{'':15}" if e is None else f"{100 * floors[m.kind] / e.median:>11.0f}%{'':15}"
            for m, e in zip(measurements, shares)
        )
        yield f"{'  achieved, ' + OURS:24}" + "".join(cells)
    yield from problems(measurements)


def problems(measurements: list[Measurement]) -> Iterator[str]:
    """Contestants without times and the reason, each reason once."""
    reported: set[tuple[str, str]] = set()
    for measurement in measurements:
        for entry in measurement.entries:
            if entry.status != "ok" and (entry.name, entry.detail) not in reported:
                reported.add((entry.name, entry.detail))
                yield f"  {entry.name} ({entry.variant}), {TITLES[measurement.kind]}, {entry.status}: {entry.detail}"


def textbook(case: Case, measurements: list[Measurement], floors: dict[str, float]) -> Iterator[str]:
    """Compare measured backward / forward ratios with the expected one from the FLOPs, which are mainly those of products.

    Forward has one product per layer and backward two, except that the inputs of the first layer need no gradient.
    """
    by_kind = {m.kind: m.best() for m in measurements}
    if not {"forward", "backward"} <= by_kind.keys():
        return
    forward, both = case.flop("forward"), case.flop("backward")
    yield (
        f"  backward / forward by FLOPs of the matrix products: {(both - forward) / forward:.2f} (two products per layer "
        f"instead of one, except in the first layer); step / forward {both / forward:.2f}"
    )
    for name in by_kind["forward"]:
        if not all(name in found for found in by_kind.values()) or not name.startswith(("gpunet", "NumPy")):
            continue
        first = by_kind["forward"][name]
        back = by_kind["backward"][name].ratio(first) - 1
        steps = [f"{TITLES[k]} {found[name].ratio(first):.2f}" for k, found in by_kind.items() if k in ("sgd", "adam")]
        yield (
            f"  {name}: backward / forward {back:.2f}"
            + "".join(f", {s}" for s in steps)
            + _explanation(case, name, by_kind, floors)
        )
        if "adam" in by_kind:
            update = by_kind["adam"][name].ratio(first) - 1 - back
            if update > 0.25 * both / forward:
                yield f"    Adam takes {update:.2f} times the time of forward: it moves 28 bytes per parameter"


def against_by_hand(measurements: list[Measurement]) -> Iterator[str]:
    """Speed of the captured step relative to the hand-written one; above 1, the captured step is faster."""
    speeds = []
    for m in measurements:
        found = m.best()
        if {BY_HAND, CAPTURED} <= found.keys():
            speeds.append(f"{TITLES[m.kind]} {found[BY_HAND].ratio(found[CAPTURED]):.2f}")
    if speeds:
        yield f"  speed of {CAPTURED} relative to {BY_HAND}: {', '.join(speeds)}"


def _explanation(case: Case, name: str, by_kind: dict[str, dict[str, Entry]], floors: dict[str, float]) -> str:
    first, both = by_kind["forward"][name], by_kind["backward"][name]
    back, expected = both.ratio(first) - 1, (case.flop("backward") - case.flop("forward")) / case.flop("forward")
    busy = floors["backward"] / both.median if floors else 1.0
    if abs(back - expected) <= 0.25 * expected:
        return ": as expected from the FLOPs"
    if busy < 0.4:
        counts = case.launches("backward") - case.launches("forward"), case.launches("forward")
        return (
            f": matrix products take at most {100 * busy:.0f} % of the time, the rest is overhead per launch: {counts[0]} "
            f"launches in backward, {counts[1]} in forward{', and the autograd graph' * (name == OURS)}"
        )
    return ": the products of forward, dX and dW have different shapes and FLOP/s"


# ---- files ------------------------------------------------------------------------------------------------------------


def document(
    header: dict[str, Any], measurements: list[Measurement], ceilings: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Conditions and results as plain data that JSON can hold."""
    found = []
    for m in measurements:
        case = {
            "name": m.case.name,
            "network": str(m.case),
            "batch": m.case.batch,
            "parameters": m.case.parameters,
        }
        found.append(
            {
                "case": case,
                "kind": m.kind,
                "flop": m.case.flop(m.kind),
                "bytes": m.case.bytes(m.kind),
                "launches": m.case.launches(m.kind),
                "ceilings": ceilings.get(m.case.name, {}),
                "entries": [entry.as_json() for entry in m.entries],
            }
        )
    return {**header, "measurements": found}


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1) + "\n"


def markdown(header: dict[str, Any], measurements: list[Measurement]) -> str:
    """A Markdown table of step times in µs, one row per case and one column per contestant, and the machine."""
    kind = preferred(measurements)
    chosen = [m for m in measurements if m.kind == kind]
    names: dict[str, None] = {}
    for m in chosen:
        names.update(dict.fromkeys(m.best()))
    lines = ["| " + " | ".join(["µs", *names]) + " |", "|---" + "|---:" * len(names) + "|"]
    for m in chosen:
        found = m.best()
        fastest = min(entry.median for entry in found.values()) if found else 0.0
        cells = []
        for name in names:
            text = microseconds(found[name].median) if name in found else "–"
            cells.append(f"**{text}**" if name in found and found[name].median == fastest else text)
        lines.append("| " + " | ".join([str(m.case), *cells]) + " |")
    return "\n".join([f"{TITLES[kind]}, median; `gpunet bench`; {machine_line(header)}.", "", *lines, ""])


def preferred(measurements: list[Measurement]) -> str:
    """The kind that a single table or plot shows: the first measured one of adam, sgd, backward, forward."""
    kinds = {m.kind for m in measurements}
    return next(k for k in ("adam", "sgd", "backward", "forward") if k in kinds)


def machine_line(header: dict[str, Any]) -> str:
    """Machine, versions, threads and commit in one line."""
    machine, versions = header["machine"], header["versions"]
    parts = [f"{machine['cpu']['model']}, {machine['cpu']['usable cores']} cores"]
    if machine.get("gpu") and header["settings"]["device"] != "cpu":
        parts.insert(0, machine["gpu"]["name"])
    shown = ("numpy", "torch", "jax")
    parts.append(", ".join(f"{name} {versions[name]}" for name in shown if versions.get(name)))
    threads = header["settings"]["threads"]
    parts.append("default threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}")
    if header["settings"]["clock"] == "processor":
        parts.append("CPU time")
    parts.append(f"commit {header['commit'][:10]}" if header["commit"] else f"gpunet {header['gpunet']}")
    return "; ".join(parts)
