"""Step time over batch size and over depth, with a fitted line: overhead plus time per row or layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from gpunet.tools.bench.cases import Case, Perceptron
from gpunet.tools.bench.measure import Measurement
from gpunet.tools.bench.report import TITLES

#: Each range spans two decades.
BATCHES = (16, 64, 256, 1024, 4096)
DEPTHS = (1, 4, 16, 64, 128)
#: Keys of the excluded variants: compiling each of these networks would take more than ten seconds.
WITHOUT = ("compile",)

Points = list[tuple[int, float, float]]


def cases() -> Iterator[tuple[str, int, Case]]:
    """(axis, size, case) for each batch size and depth."""
    for batch in BATCHES:
        yield "batch, 64-128-10", batch, Perceptron(f"batch {batch}", (64, 128, 10), batch)
    for depth in DEPTHS:
        yield "layers of 64, batch 128", depth, Perceptron(f"{depth} layers", (64,) * depth + (10,), 128)


def fit(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """(a, b) of seconds = a + b · n, by least squares of the relative errors."""
    n, t = numpy.asarray(sizes, float), numpy.asarray(seconds)
    (a, b), *_ = numpy.linalg.lstsq(numpy.stack([1 / t, n / t], 1), numpy.ones(len(t)))
    return float(a), float(b)


def series(measured: list[tuple[str, int, Measurement]]) -> dict[str, dict[str, Points]]:
    """Axis and kind -> contestant -> (size, seconds, seconds of the fitted line)."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for axis, size, measurement in measured:
        label = f"{axis}: {TITLES[measurement.kind]}"
        for name, entry in measurement.best().items():
            found.setdefault(label, {}).setdefault(name, []).append((size, entry.median))
    fitted: dict[str, dict[str, Points]] = {}
    for label, contestants in found.items():
        for name, points in contestants.items():
            a, b = fit([n for n, _ in points], [t for _, t in points]) if len(points) > 1 else (points[0][1], 0.0)
            fitted.setdefault(label, {})[name] = [(n, t, a + b * n) for n, t in points]
    return fitted


def lines(found: dict[str, dict[str, Points]]) -> Iterator[str]:
    """A table: constant and slope of each contestant, and its largest deviation from the line."""
    for label, contestants in found.items():
        yield label
        for name, points in contestants.items():
            a, b = fit([n for n, _, _ in points], [t for _, t, _ in points]) if len(points) > 1 else (0.0, 0.0)
            worst = max(abs(t / line - 1) for _, t, line in points)
            shown = ", ".join(f"{n}: {1e6 * t:,.0f}" for n, t, _ in points)
            yield f"  {name:24} {1e6 * a:8.1f} µs + {1e6 * b:8.3f} µs · n, deviation up to {100 * worst:.0f} %   ({shown})"
