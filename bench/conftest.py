"""Benchmarks: ``pytest bench``.  Figures are ratios against peers, interleaved round by round in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest


def interleaved(
    contestants: dict[str, Callable[[], object]], rounds: int = 60, calls: int = 50
) -> dict[str, list[float]]:
    """Seconds a call of each contestant: in every round each runs ``calls`` times, so a drift of the machine hits all.

    Each turn begins with as many calls that are not timed: the threads of the contestant before may still be spinning.
    """
    for run in contestants.values():
        for _ in range(3 * calls):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            for _ in range(calls):
                run()
            start = time.perf_counter()
            for _ in range(calls):
                run()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def table(seconds: dict[str, list[float]], ours: str) -> str:
    """Median and quartiles in µs, and the median over rounds of peer / ours (above 1: we are faster)."""
    lines = [f"{'':28} {'median µs':>10} {'quartiles':>15} {'peer/ours':>10}"]
    for name, values in seconds.items():
        low, middle, high = (q * 1e6 for q in statistics.quantiles(values, n=4))
        ratio = statistics.median(v / o for v, o in zip(values, seconds[ours]))
        lines.append(f"{name:28} {middle:10.1f} {low:7.1f}–{high:<7.1f} {ratio:10.2f}")
    return "\n".join(lines)


@pytest.fixture
def compare(benchmark, capsys):
    """Run contestants interleaved, print their table, and hand our own to pytest-benchmark."""

    def run(contestants: dict[str, Callable[[], object]], ours: str) -> dict[str, list[float]]:
        seconds = interleaved(contestants)
        with capsys.disabled():
            print("\n" + table(seconds, ours))
        for name, values in seconds.items():
            benchmark.extra_info[name] = statistics.median(values)
            benchmark.extra_info[f"{name} / ours"] = statistics.median(v / o for v, o in zip(values, seconds[ours]))
        benchmark.pedantic(contestants[ours], rounds=30, iterations=20)
        return seconds

    return run
