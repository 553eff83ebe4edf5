"""Norms beside PyTorch's eager ones in one run: whole training steps with Adam, and single layers forward and backward.

pytest bench/test_normalization.py -s
"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from interleaved import compare

import gpunet


def batch_norm_mlp(m: Any) -> Any:
    """784-256-256-10 with batch norm and ReLU."""
    nn = m.nn
    return nn.Sequential(
        nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10)
    )


def residual_mlp(m: Any) -> Any:
    """784-256, four residual blocks of layer norm, 256-256, GELU, 256-256, and 256-10."""
    nn = m.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first, self.second = nn.LayerNorm(256), nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: Any) -> Any:
            return x + self.second(nn.functional.gelu(self.first(self.norm(x))))

    return nn.Sequential(nn.Linear(784, 256), *(Block() for _ in range(4)), nn.LayerNorm(256), nn.Linear(256, 10))


def training_step(m: Any, model: Any, rows: int) -> Any:
    random = numpy.random.default_rng(0)
    x, y = m.tensor(random.normal(size=(rows, 784)).astype("float32")), m.tensor(random.integers(0, 10, rows))
    optimizer = m.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> Any:
        optimizer.zero_grad()
        loss = m.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("make, rows", [(batch_norm_mlp, 128), (residual_mlp, 64)], ids=["batch norm", "residual"])
def test_step(make, rows, mode, benchmark):
    torch = pytest.importorskip("torch")
    mine, other = make(gpunet), make(torch)
    mine.load_state_dict({name: value.numpy() for name, value in other.state_dict().items()})
    ours, theirs = training_step(gpunet, mine, rows), training_step(torch, other, rows)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for _ in range(5):
        numpy.testing.assert_allclose(ours().item(), theirs().item(), rtol=1e-4)
    compare(f"{make.__name__} {mode}", ours, theirs, benchmark)


LAYERS = {
    "batch norm of features": (lambda nn: nn.BatchNorm1d(256), (128, 256)),
    "batch norm of images": (lambda nn: nn.BatchNorm2d(64), (32, 64, 16, 16)),
    "layer norm": (lambda nn: nn.LayerNorm(256), (512, 256)),
    "root mean square norm": (lambda nn: nn.RMSNorm(256), (512, 256)),
    "group norm": (lambda nn: nn.GroupNorm(8, 64), (32, 64, 16, 16)),
    "instance norm": (lambda nn: nn.InstanceNorm2d(64, affine=True), (32, 64, 16, 16)),
}


def layer_step(m: Any, layer: Any, x: numpy.ndarray, dy: numpy.ndarray) -> Any:
    """A step that returns the gradients of the input and the parameters for a given gradient of the result."""
    inputs = [m.tensor(x).requires_grad_(), *layer.parameters()]
    upstream = m.tensor(dy)

    def step() -> Any:
        for tensor in inputs:
            tensor.grad = None
        layer(inputs[0]).backward(upstream)
        return [tensor.grad for tensor in inputs]

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, mode, benchmark):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    random = numpy.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for _ in range(2)]
    ours, theirs = layer_step(gpunet, make(gpunet.nn), *arrays), layer_step(torch, make(torch.nn), *arrays)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for mine, other in zip(ours(), theirs()):
        numpy.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-3, atol=1e-3)
    compare(f"{name} {shape} {mode}", ours, theirs, benchmark)
