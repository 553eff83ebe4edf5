"""Whole training steps of the named networks with Adam, eager and captured, beside PyTorch's eager ones in one run.

pytest bench/test_models.py -s

``gpunet bench --kinds adam`` compares them with torch.compile and JAX, too.
"""

from __future__ import annotations

import pytest

from gpunet.tools.bench import report
from gpunet.tools.bench.measure import Bench, Settings
from gpunet.tools.bench.networks import NETWORKS
from gpunet.tools.bench.peers import ours


@pytest.mark.parametrize("name", NETWORKS)
def test_step(name, benchmark):
    pytest.importorskip("torch")
    network = NETWORKS[name]
    with Bench(["gpunet", "torch"], Settings(rounds=9, without=("compile",))) as bench:
        [measurement] = bench.measure(network, ["adam"])
    print("\n" + "\n".join(report.case_block(network, [measurement], {})))
    failed = [e for e in measurement.entries if e.status in ("failed", "disagrees")]
    assert not failed, failed
    found = measurement.best()
    theirs = found["torch eager"]
    for label, entry in found.items():
        benchmark.extra_info[label] = entry.median
        benchmark.extra_info[f"torch eager / {label}"] = theirs.ratio(entry)
    runner = ours.make(network, "adam", "eager", "cpu")
    benchmark.pedantic(runner.step, args=runner.batches[0], rounds=5, iterations=2)
