"""How the time of a step grows with the batch and with the depth: linearly, once it is more than the calls."""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from gpunet.tools.bench.cases import Case
from gpunet.tools.bench.measure import Measurement
from gpunet.tools.bench.report import TITLES

#: More than two decades of each.
BATCHES = (16, 64, 256, 1024, 4096)
DEPTHS = (1, 4, 16, 64, 128)
#: Variants, by their key, that take no part: each of so many networks would be compiled for some ten seconds and more.
WITHOUT = ("compile",)

Points = list[tuple[int, float, float]]


def cases(least: int = 0) -> Iterator[tuple[str, int, Case]]:
    """(what grows, its size, the case).  ``least``: only so many of each, for a try."""
    for batch in BATCHES[:least] if least else BATCHES:
        yield "batch, 64-128-10", batch, Case(f"batch {batch}", (64, 128, 10), batch)
    for depth in DEPTHS[:least] if least else DEPTHS:
        yield "layers of 64, batch 128", depth, Case(f"{depth} layers", (64,) * depth + (10,), 128)


def fit(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """(a, b) of seconds = a + b n, by least squares of the relative errors."""
    n, t = numpy.asarray(sizes, float), numpy.asarray(seconds)
    (a, b), *_ = numpy.linalg.lstsq(numpy.stack([1 / t, n / t], 1), numpy.ones(len(t)))
    return float(a), float(b)


def series(measured: list[tuple[str, int, Measurement]]) -> dict[str, dict[str, Points]]:
    """What grows, and what was timed -> contestant -> (size, seconds, seconds of the fitted line)."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for growing, size, measurement in measured:
        what = f"{growing}: {TITLES[measurement.kind]}"
        for name, entry in measurement.best().items():
            found.setdefault(what, {}).setdefault(name, []).append((size, entry.median))
    fitted: dict[str, dict[str, Points]] = {}
    for what, contestants in found.items():
        for name, points in contestants.items():
            a, b = fit([n for n, _ in points], [t for _, t in points]) if len(points) > 1 else (points[0][1], 0.0)
            fitted.setdefault(what, {})[name] = [(n, t, a + b * n) for n, t in points]
    return fitted


def lines(found: dict[str, dict[str, Points]]) -> Iterator[str]:
    """A table: each contestant's constant and slope, and how far it is from the line at worst."""
    for what, contestants in found.items():
        yield what
        for name, points in contestants.items():
            a, b = fit([n for n, _, _ in points], [t for _, t, _ in points]) if len(points) > 1 else (0.0, 0.0)
            worst = max(abs(t / line - 1) for _, t, line in points)
            shown = ", ".join(f"{n}: {1e6 * t:,.0f}" for n, t, _ in points)
            yield f"  {name:24} {1e6 * a:8.1f} µs + {1e6 * b:8.3f} µs · n, at most {100 * worst:.0f} % off   ({shown})"
