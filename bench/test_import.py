"""The import time of gpunet compared with NumPy's, in new processes.

pytest bench/test_import.py
"""

from __future__ import annotations

import statistics

from gpunet.tools.bench.measure import import_seconds


def test_import(benchmark, capsys):
    pairs = [(import_seconds("numpy", 1), import_seconds("gpunet", 1)) for _ in range(11)]
    numpy_alone, with_gpunet = (statistics.median(values) * 1e3 for values in zip(*pairs))
    extra = statistics.median(ours - theirs for theirs, ours in pairs) * 1e3
    with capsys.disabled():
        print(
            f"\nimport numpy {numpy_alone:.0f} ms, import gpunet {with_gpunet:.0f} ms: {extra:.0f} ms more (target: 50)"
        )
    benchmark.extra_info["milliseconds beside numpy"] = extra
    benchmark.pedantic(import_seconds, args=("gpunet", 1), rounds=3, iterations=1)
