"""Convolution and pooling of images, forward and backward, beside PyTorch's in one run.

conv2d has 3 x 3 filters, 32 -> 32 channels, on 32 images of 32 x 32; the transposed one has 4 x 4 filters and stride 2 on images of
16 x 16.  Pooling has windows of 2 x 2 on 64 images of 32 channels and 28 x 28.

pytest bench/test_convolution.py -s
"""

from __future__ import annotations

import numpy
import pytest
from interleaved import compare

import gpunet


def _gradients(torch, function, arrays):
    """A step that returns the gradients of a function's tensors for a given gradient of its result, the last array."""
    *tensors, dy = (torch.tensor(a) for a in arrays)
    for t in tensors:
        t.requires_grad_()

    def step():
        for t in tensors:
            t.grad = None
        function(torch.nn.functional, *tensors).backward(dy)
        return [t.grad for t in tensors]

    return step


def _compare(mode, benchmark, function, *shapes):
    """Time a step beside PyTorch's; ``shapes`` are those of the tensors and of the result."""
    torch = pytest.importorskip("torch")
    random = numpy.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for shape in shapes]
    ours, theirs = _gradients(gpunet, function, arrays), _gradients(torch, function, arrays)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for mine, other in zip(ours(), theirs()):
        numpy.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-3, atol=1e-2)  # sums of up to 32768 products
    compare(mode, ours, theirs, benchmark)


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_conv2d(mode, benchmark):
    images = (32, 32, 32, 32)
    _compare(mode, benchmark, lambda f, x, w, b: f.conv2d(x, w, b, padding=1), images, (32, 32, 3, 3), (32,), images)


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_conv_transpose2d(mode, benchmark):
    shapes = ((32, 32, 16, 16), (32, 32, 4, 4), (32,), (32, 32, 32, 32))
    _compare(mode, benchmark, lambda f, x, w, b: f.conv_transpose2d(x, w, b, 2, 1), *shapes)


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("function", ["max_pool2d", "avg_pool2d"])
def test_pooling(function, mode, benchmark):
    _compare(mode, benchmark, lambda f, x: getattr(f, function)(x, 2), (64, 32, 28, 28), (64, 32, 14, 14))


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_bilinear_interpolation(mode, benchmark):
    shapes = ((64, 32, 28, 28), (64, 32, 56, 56))
    _compare(mode, benchmark, lambda f, x: f.interpolate(x, scale_factor=2, mode="bilinear"), *shapes)
