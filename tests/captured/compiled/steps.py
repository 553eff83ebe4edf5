"""Compiled steps that several test files run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

import gpunet
from gpunet import nn
from gpunet.captured import CapturedStep, capture


def training_step(model: Callable[[gpunet.Tensor], gpunet.Tensor], optimizer: gpunet.optim.Optimizer) -> CapturedStep:
    """A compiled training step with cross-entropy."""

    @capture(backend="numba")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step  # type: ignore[no-any-return]


def large_step(optimizer: str = "SGD", seed: int = 0) -> tuple[CapturedStep, list[Any], list[gpunet.Tensor]]:
    """A step large enough for threads, with products, elementwise loops and column sums; its data; its parameters."""
    gpunet.manual_seed(seed)
    model = nn.Sequential(nn.Linear(150, 500), nn.Tanh(), nn.Linear(500, 7))
    step = training_step(model, getattr(gpunet.optim, optimizer)(model.parameters(), lr=0.05))
    generator = numpy.random.default_rng(seed)
    x = gpunet.tensor(generator.normal(size=(250, 150)).astype("float32"))
    y = gpunet.tensor(generator.integers(0, 7, 250))
    return step, [x, y], list(model.parameters())
