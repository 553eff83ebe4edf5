"""conv2d with 3 x 3 filters, 32 -> 32 channels, on 32 images of 32 x 32, forward and backward, beside PyTorch's in one run.

pytest bench/test_convolution.py -s
"""

from __future__ import annotations

import numpy
import pytest
from interleaved import compare

import gpunet


def _step(torch, arrays):
    """A step that returns the gradients of x, w and b for a given gradient of the result."""
    x, w, b, dy = (torch.tensor(a) for a in arrays)
    for t in (x, w, b):
        t.requires_grad_()

    def step():
        x.grad = w.grad = b.grad = None
        torch.nn.functional.conv2d(x, w, b, padding=1).backward(dy)
        return x.grad, w.grad, b.grad

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_conv2d(mode, benchmark):
    torch = pytest.importorskip("torch")
    random = numpy.random.default_rng(0)
    shapes = ((32, 32, 32, 32), (32, 32, 3, 3), (32,), (32, 32, 32, 32))
    arrays = [random.normal(size=shape).astype("float32") for shape in shapes]
    ours, theirs = _step(gpunet, arrays), _step(torch, arrays)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for mine, other in zip(ours(), theirs()):
        numpy.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-3, atol=1e-2)  # sums of up to 32768 products
    compare(mode, ours, theirs, benchmark)
