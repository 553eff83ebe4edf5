"""The eager training step of small networks (forward, loss, backward, update), beside one written by hand in NumPy.

pytest bench/test_eager_step.py -s
"""

from __future__ import annotations

import pytest

from gpunet.tools.bench import report
from gpunet.tools.bench.measure import Bench, Settings
from gpunet.tools.bench.networks import CASES
from gpunet.tools.bench.peers import ours


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("case", ["tiny", "digits"])
def test_eager_step(case, kind, benchmark):
    with Bench(["gpunet", "numpy"], Settings(rounds=9)) as bench:
        measurements = bench.measure(CASES[case], [kind])
    print("\n" + "\n".join(report.case_block(CASES[case], measurements, {})))
    [measurement] = measurements
    failed = [e for e in measurement.entries if e.status in ("failed", "disagrees")]
    assert not failed, failed
    found = measurement.best()
    for name, entry in found.items():
        benchmark.extra_info[name] = entry.median
        benchmark.extra_info[f"{name} / gpunet eager"] = entry.ratio(found["gpunet eager"])
    runner = ours.make(CASES[case], kind, "eager", "cpu")
    benchmark.pedantic(runner.step, args=runner.batches[0], rounds=30, iterations=20)
