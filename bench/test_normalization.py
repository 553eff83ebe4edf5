"""Norms beside PyTorch's eager ones in one run, forward and backward; bench/test_models.py times networks with norms.

pytest bench/test_normalization.py -s
"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from interleaved import compare

import gpunet

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
