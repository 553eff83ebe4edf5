"""Tests of a CUDA kernel that need no GPU."""

from pathlib import Path

import numpy
from rms_norm import rms_norm

import gpunet

SOURCE = Path(__file__).with_name("rms_norm.cu")


def test_op():
    rms_norm.check(gpunet.randn(3, 200), eps=1e-6)  # compares kernel and twin, and backward with finite differences


def test_kernel_by_itself(emulated_module):
    x = numpy.random.default_rng(0).normal(size=(3, 200)).astype(numpy.float32)
    y, r = numpy.empty_like(x), numpy.empty(3, numpy.float32)
    kernel = emulated_module(SOURCE).get_function("rms_norm<float>")
    kernel((3,), (128,), (y, r, x, 200, 1e-6))
    numpy.testing.assert_allclose((y * y).mean(1), 1.0, rtol=1e-4)
