"""What diagnosis costs: training steps with diagnose.AnomalyFinder and with diagnose.GradientFlow beside the same steps without.

pytest bench/test_diagnose.py -s
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

import gpunet
from bench.interleaved import times
from gpunet import diagnose, nn, optim
from gpunet.nn import functional as F
from gpunet.vision.models import LeNet

DEVICE = "cuda" if gpunet.cuda.is_available() else "cpu"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "784-512-512-10, batch 128": (
        lambda: nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)), (128, 784),
    ),
    "LeNet, batch 64": (LeNet, (64, 1, 28, 28)),
}  # fmt: skip


def make(network: str, is_captured: bool, watch: Callable[[Any, Any], Any] | None, stack: ExitStack) -> Callable[[], Any]:
    """A training step, and the call behind it of what watches it."""
    gpunet.manual_seed(0)
    build, shape = NETWORKS[network]
    model = build().to(DEVICE)
    optimizer = optim.Adam(model.parameters(), lr=1e-4)
    x, y = gpunet.randn(*shape, device=DEVICE), gpunet.zeros(shape[0], dtype=gpunet.int64, device=DEVICE)
    watching = None if watch is None else stack.enter_context(watch(model, optimizer))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = gpunet.capture(step, backend="numpy") if is_captured else step

    def watched() -> None:
        run(x, y)
        if watching is not None:
            watching.step()

    return watched


@pytest.mark.parametrize("is_captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("network", NETWORKS)
def test_cost(network: str, is_captured: bool, benchmark: Any) -> None:
    watches: dict[str, Callable[[Any, Any], Any] | None] = {
        "without": None,
        "AnomalyFinder": lambda model, optimizer: diagnose.AnomalyFinder(model, optimizer),
        "GradientFlow, every step": lambda model, optimizer: diagnose.GradientFlow(model),
        "GradientFlow, every 50th": lambda model, optimizer: diagnose.GradientFlow(model, every=50),
    }
    with ExitStack() as stack:
        steps = [make(network, is_captured, watch, stack) for watch in watches.values()]
        found = times(*steps, seconds=0.15)
        benchmark.pedantic(steps[1], rounds=5)
    print(f"\n{network}, {'captured' if is_captured else 'eager'}: {1e3 * statistics.median(found[0]):.3f} ms without")
    for name, seconds in [*zip(watches, found)][1:]:
        share = statistics.median(b / a for a, b in zip(found[0], seconds)) - 1.0
        print(f"    {name}: {share:+.1%}")
        benchmark.extra_info[name] = share
