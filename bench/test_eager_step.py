"""The eager training step of a small net: forward, loss, backward, Adam; against PyTorch's in all its forms.

pytest bench/test_eager_step.py
"""

from __future__ import annotations

import numpy
import pytest

import gpunet

SIZES, BATCH = (64, 128, 10), 64


def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return generator.standard_normal((BATCH, SIZES[0]), numpy.float32), generator.integers(0, SIZES[-1], BATCH)


def gpunet_step():
    gpunet.manual_seed(0)
    model = gpunet.nn.Sequential(
        gpunet.nn.Linear(SIZES[0], SIZES[1]), gpunet.nn.ReLU(), gpunet.nn.Linear(SIZES[1], SIZES[2])
    )
    optimizer = gpunet.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = gpunet.nn.CrossEntropyLoss()
    x, y = map(gpunet.tensor, data())

    def step():
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_step(torch, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(SIZES[0], SIZES[1]), torch.nn.ReLU(), torch.nn.Linear(SIZES[1], SIZES[2])
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)
    loss_function = torch.nn.CrossEntropyLoss()
    x, y = map(torch.from_numpy, data())

    def step():
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_eager_step(compare):
    torch = pytest.importorskip("torch")
    contestants = {
        "gpunet eager": gpunet_step(),
        "torch eager (default)": torch_step(torch),
        "torch eager (foreach)": torch_step(torch, foreach=True),
        "torch eager (fused)": torch_step(torch, fused=True),
    }
    compare(contestants, "gpunet eager")
    losses = {name: step().item() for name, step in contestants.items()}
    assert all(loss < 1.0 for loss in losses.values()), f"a contestant does not learn: {losses}"
