"""Time functions that take turns in one run, so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from gpunet.tools.bench.measure import SETTLE

ROUNDS = 25


def times(*steps: Callable[[], Any], seconds: float = 0.1) -> list[list[float]]:
    """Seconds per step of each function in each round; in a round they take turns."""
    for step in steps:
        step()
    found: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS):
        for of_step, step in zip(found, steps):
            time.sleep(SETTLE)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                step()
                count += 1
            of_step.append((time.perf_counter() - start) / count)
    return found


def compare(label: str, ours: Callable[[], Any], theirs: Callable[[], Any], benchmark: Any) -> float:
    """Print the times of a step beside PyTorch's eager one, and return PyTorch's time / ours, the median over rounds."""
    of_ours, of_theirs = times(ours, theirs)
    ratio = statistics.median(b / a for a, b in zip(of_ours, of_theirs))
    print(f"\n{label}: {1e3 * statistics.median(of_ours):.3f} ms, PyTorch eager {1e3 * statistics.median(of_theirs):.3f} ms; "
          f"speed relative to PyTorch {ratio:.2f}")
    benchmark.extra_info["speed relative to PyTorch"] = ratio
    benchmark.pedantic(ours, rounds=5)
    return ratio
