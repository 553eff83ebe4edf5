"""Attention beside PyTorch's eager one in one run: whole training steps of a GPT, and attention alone, forward and backward.

pytest bench/test_attention.py -s
"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from interleaved import compare

import gpunet

WIDTH, HEADS, CONTEXT, BATCH, TOKENS = 128, 4, 64, 8, 65


def make_gpt(m: Any) -> Any:
    """Two blocks of 128 features and 4 heads, tied weights."""
    nn = m.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
            self.projection, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.first, self.second = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            n, positions, _ = x.shape
            parts = self.projection(self.norms[0](x)).split(WIDTH, dim=2)
            q, k, v = (part.view(n, positions, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.joined(y.transpose(1, 2).contiguous().view(n, positions, WIDTH))
            return x + self.second(nn.functional.gelu(self.first(self.norms[1](x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(TOKENS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks, self.norm = nn.ModuleList([Block(), Block()]), nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, TOKENS, bias=False)
            self.tokens.weight = self.head.weight

        def forward(self, index: Any) -> Any:
            x = self.tokens(index) + self.positions(m.arange(index.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return GPT()


def training_step(m: Any, model: Any) -> Any:
    random = numpy.random.default_rng(0)
    x, y = (m.tensor(random.integers(0, TOKENS, (BATCH, CONTEXT))) for _ in range(2))
    optimizer = m.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> Any:
        optimizer.zero_grad()
        loss = m.nn.functional.cross_entropy(model(x).view(-1, TOKENS), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_step(mode, benchmark):
    torch = pytest.importorskip("torch")
    mine, other = make_gpt(gpunet), make_gpt(torch)
    mine.load_state_dict({name: value.numpy().copy() for name, value in other.state_dict().items()})
    ours, theirs = training_step(gpunet, mine), training_step(torch, other)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for _ in range(5):
        numpy.testing.assert_allclose(ours().item(), theirs().item(), rtol=1e-4)
    compare(f"GPT {mode}", ours, theirs, benchmark)


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
