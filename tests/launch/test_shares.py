"""Random numbers of shares: processes that have rows of a batch draw what one process draws for these rows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.launch.random import default_generator
from gpunet.nn import functional as F

BOUNDS = (0, 3, 5, 9)  # of rows


def drawn(x: Any) -> list[Any]:
    """Numbers of several kinds for the rows of x (rows, 5): some draws begin within a block of the stream."""
    return [
        F.dropout(x, 0.4), gpunet.rand_like(x), F.dropout1d(x.reshape(-1, 5, 1), 0.5), gpunet.randn(x.shape[0]),
        F.alpha_dropout(x, 0.3), gpunet.bernoulli(gpunet.full(x.shape, 0.5)), F.dropout(x[:, :4].repeat(1, 4), 0.4),
        gpunet.randint(100, x.shape),
    ]  # fmt: skip


@pytest.mark.parametrize("is_captured", [False, True])
def test_shares_have_the_numbers_of_the_whole_batch(is_captured: bool, device: str) -> None:
    x = gpunet.ones(BOUNDS[-1], 5)
    gpunet.manual_seed(3)
    expected = [[a.cpu().numpy() for a in drawn(x)] for _ in range(3)]
    position = default_generator.position(x.device)
    parts = []
    for first, end in itertools.pairwise(BOUNDS):

        def step(x: Any, first: int = first, rows: int = end - first) -> list[Any]:
            with default_generator.sharing(first, rows, BOUNDS[-1]):
                return drawn(x)

        run = gpunet.capture(step) if is_captured else step
        gpunet.manual_seed(3)
        parts.append([[a.cpu().numpy() for a in run(x[first:end])] for _ in range(3)])
        assert default_generator.position(x.device) == position
    for number, batch in enumerate(expected):
        for kind, whole in enumerate(batch):
            numpy.testing.assert_array_equal(numpy.concatenate([part[number][kind] for part in parts]), whole, err_msg=str(kind))


def test_gradients_of_dropout_in_a_share_have_its_numbers(device: str) -> None:
    x = gpunet.ones(4, 3, requires_grad=True)
    for shape in ((4, 3), (4, 16)):
        x = gpunet.ones(*shape, requires_grad=True)
        with default_generator.sharing(2, 4, 8):
            y = F.dropout(x, 0.5)
            y.sum().backward()
        assert x.grad is not None and (x.grad == y).all()
