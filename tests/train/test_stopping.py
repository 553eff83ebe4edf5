"""Early stopping, halving, and the best weights of single nets of a stack."""

from __future__ import annotations

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, ShapeError
from gpunet.train import StackStopping


def make(nets: int = 4) -> nn.Stack:
    return nn.Stack([nn.Sequential(nn.Linear(2, 1, bias=False)) for _ in range(nets)])


def set_weights(stack: nn.Stack, value: float) -> None:
    with gpunet.no_grad():
        next(stack.parameters()).fill_(value)


def test_patience_stops_a_net_and_its_best_weights_return() -> None:
    stack = make(2)
    stopping = StackStopping(stack, patience=2)
    losses = [[3.0, 3.0], [2.0, 4.0], [2.5, 3.5], [1.0, 0.0]]
    for epoch, of_epoch in enumerate(losses, 1):
        set_weights(stack, epoch)
        assert stopping.update(gpunet.tensor(of_epoch))
    assert stopping.reasons == ["", "patience"]
    assert stopping.epochs.tolist() == [4, 3]
    assert stopping.best.tolist() == [1.0, 3.0]
    assert stopping.best_epoch.tolist() == [4, 1]
    stopping.restore()
    assert next(stack.parameters())[:, 0, 0].tolist() == [4.0, 1.0]


def test_halving_keeps_the_best() -> None:
    stack = make(6)
    stopping = StackStopping(stack, halving=2, first=2)
    losses = numpy.array([5.0, 1.0, 4.0, 0.5, 3.0, 2.0])
    kept = []
    for _ in range(4):
        assert stopping.update(losses)
        kept.append(numpy.flatnonzero(stack.is_active()).tolist())
    assert kept == [[*range(6)], [1, 3, 5], [1, 3, 5], [1, 3]]
    assert stopping.reasons == ["halving", "", "halving", "", "halving", "halving"]


def test_a_loss_that_is_not_finite_stops_a_net() -> None:
    stack = make(2)
    stopping = StackStopping(stack)
    start = next(stack.parameters()).numpy(force=True).copy()
    assert stopping.update([numpy.nan, 1.0])
    assert not stopping.update([1.0, numpy.inf])
    assert stopping.reasons == ["not finite", "not finite"]
    assert stopping.best.tolist() == [numpy.inf, 1.0]
    set_weights(stack, 7.0)
    stopping.restore()
    numpy.testing.assert_array_equal(next(stack.parameters()).numpy(force=True), start)


def test_wrong_arguments() -> None:
    stack = make(2)
    for options in ({"patience": 0}, {"halving": 1}, {"first": 0}):
        with pytest.raises(ArgumentError, match=f"{next(iter(options))}="):
            StackStopping(stack, **options)
    with pytest.raises(ShapeError, match="one for each net"):
        StackStopping(stack).update([1.0])
