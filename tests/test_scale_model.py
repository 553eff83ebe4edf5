"""bench/scale_model.py: the tables of docs/scale.md are what it prints, and the model agrees with formulas worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet import distributed

ROOT = Path(__file__).resolve().parents[1]


def load() -> Any:
    specification = importlib.util.spec_from_file_location("scale_model", ROOT / "bench" / "scale_model.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["scale_model"] = module
    specification.loader.exec_module(module)
    return module


scale = load()


def test_the_page_has_the_tables_of_the_script() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    tables = page.partition(scale.BEGIN)[2].partition(scale.END)[0]
    assert tables == f"\n{scale.modelled()}\n", "docs/scale.md is out of date; run python bench/scale_model.py --write"


def test_the_page_states_the_constants() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for algorithm in ("ring", "tree"):
        for place in range(3):
            cells = ", ".join(f"{1e6 * scale.LATENCIES[algorithm, protocol][place]:g}" for protocol in scale.PAYLOAD)
            assert f"{algorithm} {cells} µs" in page
    assert f"{scale.NVLINK / 1e9:g} GB/s" in page and f"{scale.NETWORK / 1e9:g} GB/s" in page
    assert f"| {scale.EFFICIENCY:g} |" in page
    assert f"{scale.BFLOAT16 / 1e12:g} TFLOP/s" in page and f"{scale.BUCKET / 2**20:g} MiB" in page


def test_an_all_reduce_by_hand() -> None:
    ring = scale.all_reduce(8e6, 8, "ring", "Simple")
    assert ring.latency == pytest.approx(8.4e-6 + 14 * 3.4e-6)
    assert ring.transfer == pytest.approx(14 / 8 * 8e6 / (0.8 * 450e9))
    ring = scale.all_reduce(8e6, 64, "ring", "LL")
    assert ring.latency == pytest.approx(6.6e-6 + (126 - 16) * 0.6e-6 + 16 * 2.7e-6)
    assert ring.transfer == pytest.approx(126 / 64 * 8e6 / (0.8 * 0.5 * 400e9))
    tree = scale.all_reduce(8e6, 512, "tree", "LL128")
    assert tree.latency == pytest.approx(14e-6 + 14 * 1.25e-6 + 12 * 8.5e-6)
    assert tree.transfer == pytest.approx(16e6 / (0.8 * 120 / 128 * 400e9))
    assert scale.best(8, 512).how == "tree, LL" and scale.best(1e9, 8).how == "ring, Simple"


def test_buckets_are_hidden_by_backward() -> None:
    """All buckets but the last travel during backward, unless they take longer."""
    net = scale.Net("a", 25 * 2**20 // 4 * 4, 1.0, "")
    seconds, costs = scale.step(net, 8)
    assert len(costs) == 4 and seconds == pytest.approx(1.0 + costs[-1].seconds)
    fast = net._replace(seconds=1e-6)
    assert scale.step(fast, 8)[0] == pytest.approx(sum(cost.seconds for cost in costs), rel=1e-2)


def test_parameters_are_those_of_the_networks() -> None:
    model = gpunet.nn.Sequential(gpunet.nn.Linear(784, 512), gpunet.nn.Linear(512, 512), gpunet.nn.Linear(512, 10))
    assert scale.perceptron("784-512-512-10") == sum(p.numel() for p in model.parameters())
    assert scale.gpt_parameters(12, 768, 50257, 1024) == 124_439_808  # as others state it for GPT-2


def test_limit() -> None:
    count, why = scale.limit(scale.Net("tiny", 100, 20e-6, ""))
    assert (count, why) == (16, "latency") and scale.limit(scale.Net("slow", 100, 1.0, "")) == (None, "")
    seconds = [scale.step(scale.Net("tiny", 100, 20e-6, ""), n)[0] for n in (8, 16)]
    assert seconds[0] <= 40e-6 < seconds[1] and math.isclose(seconds[0], 20e-6 + scale.best(400, 8).seconds)


@pytest.mark.exhaustive
@pytest.mark.skipif(
    not distributed.is_mpi_available() or shutil.which("mpiexec", path=str(Path(sys.executable).parent)) is None,
    reason="MPI is not installed: pip install 'gpunet[mpi]'",
)
def test_measurements() -> None:
    text = scale.compare(2)
    assert text.startswith("2 processes: alpha ") and text.count("(fitted)") == 2 and "1 / beta" in text
    assert text.count("\n| ") == len(scale.SIZES) + 2
