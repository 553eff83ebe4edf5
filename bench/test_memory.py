"""Peak memory of whole training steps with Adam: gpunet eager and captured beside PyTorch's eager, each in a process of its own.

pytest bench/test_memory.py -s
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Prints the growth of resident memory, in MiB, at the peak of the first two steps and at that of the next three: with the
#: optimizer's state, without libraries and weights.
SCRIPT = """
import importlib, re, sys
from gpunet.tools.bench.networks import CASES
peer, variant, name = sys.argv[1:]
make = importlib.import_module(f"gpunet.tools.bench.peers.{peer}").make

def steps(case):
    runner = make(case, "adam", variant, "cpu")
    yield
    for part in (runner.batches[:2], runner.batches[2:5]):
        for batch in part:
            runner.read(runner.step(*batch))
        yield

def memory(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

[*steps(CASES["tiny"])]  # loads what is imported at the first step, and then the libraries of products and convolutions
m = importlib.import_module({"ours": "gpunet", "pytorch": "torch"}[peer])
m.ones(256, 64) @ m.ones(64, 256), m.nn.functional.conv2d(m.ones(8, 16, 16, 16), m.ones(16, 16, 3, 3))
measured = steps(CASES[name])
next(measured)
before = memory("VmRSS")
for _ in range(2):
    open("/proc/self/clear_refs", "w").write("5")  # resets the peak
    next(measured)
    print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize("name", ["resnet", "gpt", "vgg", "lstm"])
def test_peak(name):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs the peak of resident memory, which Linux can reset")
    pytest.importorskip("torch")
    found = {}
    for label, peer, variant in (
        ("gpunet eager", "ours", "eager"), ("gpunet captured", "ours", "numpy"), ("torch eager", "pytorch", "fused"),
    ):  # fmt: skip
        done = subprocess.run([sys.executable, "-c", SCRIPT, peer, variant, name], capture_output=True, text=True, check=True)
        found[label] = [float(peak) for peak in done.stdout.split()]
    print(f"\n{name}, MiB, first and later steps: " + ", ".join(f"{key} {a:.1f} {b:.1f}" for key, (a, b) in found.items()))
