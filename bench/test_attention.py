"""Attention forward and backward beside PyTorch's eager one in one run.

pytest bench/test_attention.py -s
"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from interleaved import compare

import gpunet


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["all keys", "causal"])
@pytest.mark.parametrize("shape", [(8, 4, 64, 32), (2, 8, 512, 64)], ids=str)
def test_attention(shape, is_causal, mode, benchmark):
    torch = pytest.importorskip("torch")
    random = numpy.random.default_rng(0)
    *arrays, dy = (random.normal(size=shape).astype("float32") for _ in range(4))

    def make(m: Any) -> Any:
        inputs, upstream = [m.tensor(array).requires_grad_() for array in arrays], m.tensor(dy)

        def step() -> Any:
            for tensor in inputs:
                tensor.grad = None
            m.nn.functional.scaled_dot_product_attention(*inputs, is_causal=is_causal).backward(upstream)
            return [tensor.grad for tensor in inputs]

        return step

    ours, theirs = make(gpunet), make(torch)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for mine, other in zip(ours(), theirs()):
        numpy.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-3, atol=1e-4)
    compare(f"attention {shape}{' causal' * is_causal} {mode}", ours, theirs, benchmark)
