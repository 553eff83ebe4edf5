"""Import time beside NumPy's own, each in a fresh process.

pytest bench/test_import.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    done = subprocess.run([sys.executable, "-c", TIMED.format(module)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_import(benchmark, capsys):
    pairs = [(seconds("numpy"), seconds("gpunet")) for _ in range(11)]
    numpy_alone, with_gpunet = (statistics.median(values) * 1e3 for values in zip(*pairs))
    extra = statistics.median(ours - theirs for theirs, ours in pairs) * 1e3
    with capsys.disabled():
        print(
            f"\nimport numpy {numpy_alone:.0f} ms, import gpunet {with_gpunet:.0f} ms: {extra:.0f} ms more (target 50)"
        )
    benchmark.extra_info["milliseconds beside numpy"] = extra
    benchmark.pedantic(seconds, args=("gpunet",), rounds=3, iterations=1)
