"""Cases of the elementwise losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from gpunet.launch.facts import Cost, num_bytes
from gpunet.ops.cases.case import Samples, off_kinks, unaligned
from gpunet.ops.losses import ELEMENTWISE_LOSSES, MAX_BLOCKS, REDUCTIONS, elementwise_loss


def loss_arrays(s: Samples, reduction: str, dx: tuple[int, ...], samples: tuple[int, ...]) -> list[Any]:
    """Blank arrays value, dx, factor, partials, ticket; ``dx`` and ``samples`` are shapes."""
    reduced = reduction != "none"
    return [
        s.blank(1) if reduced else s.blank(*samples),
        s.blank(*dx),
        s.accumulators.blank(1) if reduction == "mean" else None,
        s.accumulators.blank(2 * MAX_BLOCKS) if reduced else None,
        s.blank(1, dtype="uint32") if reduced else None,
    ]


def value_and_gradient(torch: Any, loss: Callable[..., Any], x: Any, y: Any) -> Callable[[], object]:
    """A loss of PyTorch and its gradient."""
    x = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(loss(x, y), x)


def _operands(s: Samples, loss: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """x and y in the domain of a loss; one element of each loss of the difference is a tie, and one probability is 0."""
    x, y = 2 * s.normal(*shape), s.normal(*shape)
    if loss == "absolute":  # its derivative jumps at a tie; the cases "ties" below test that alone
        y[x == y] += s.dtype.type(1)
    elif loss in ("squared", "huber"):
        y.reshape(-1)[1:2] = x.reshape(-1)[1:2]
    elif loss in ("soft_margin", "hinge_embedding"):
        x, y = off_kinks(x), numpy.where(y < 0, -1, 1).astype(s.dtype)
    elif loss != "kl_divergence_of_logs":
        y = s.positive(*shape) / 2
        y.reshape(-1)[1:2] = 0
    if loss in ("cross_entropy_of_probabilities", "poisson"):
        x = s.positive(*shape) / s.dtype.type(2.5)
    return x, y


@elementwise_loss.cases("edge")
def _(s: Samples) -> Iterator[Any]:
    shapes = ((1,), (2, 3), (7, 63), (300, 129), (0, 7))
    for loss, reduction, shape in itertools.product(ELEMENTWISE_LOSSES, REDUCTIONS, shapes):
        x, y = _operands(s, loss, shape)
        options = {"loss": loss, "reduction": reduction, "delta": 0.5}
        yield f"{loss} {reduction} {shape}", [*loss_arrays(s, reduction, shape, shape), x, y], options
    for reduction in REDUCTIONS:
        ties, options = s.normal(3), {"loss": "absolute", "reduction": reduction, "delta": 0.5}
        yield f"absolute {reduction} ties", [*loss_arrays(s, reduction, (3,), (3,)), ties, ties.copy()], options
    options = {"loss": "squared", "reduction": "mean", "delta": 0.0}
    arrays = [*loss_arrays(s, "mean", (5003,), (5003,)), s.normal(5003), s.normal(5003)]
    yield "squared mean (5003,) by 2 blocks", arrays, options, 2
    arrays = [*loss_arrays(s, "none", (300,), (300,)), s.normal(300), s.normal(300)]
    yield from unaligned("squared none (300,)", arrays, {**options, "reduction": "none"})


@elementwise_loss.cases("representative")
def _(s: Samples) -> Iterator[Any]:
    count = s.width**2
    for loss in ELEMENTWISE_LOSSES:
        arrays = [*loss_arrays(s, "mean", (count,), (count,)), *_operands(s, loss, (count,))]
        yield f"({count},)", arrays, {"loss": loss, "reduction": "mean", "delta": 0.5}


@elementwise_loss.cases("bench")
def _(s: Samples) -> Iterator[Any]:
    n = s.width
    arrays = [*loss_arrays(s, "mean", (n, n), (n,)), s.normal(n, n), s.normal(n, n)]
    yield f"squared mean ({n}, {n})", arrays, {"loss": "squared", "reduction": "mean", "delta": 0.5}


@elementwise_loss.cost
def _(value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    return Cost(3 * x.size, num_bytes(value, dx, factor, x, y))  # the loss, its derivative, the sum


@elementwise_loss.equivalent
def _(torch, value, dx, factor, partials, ticket, x, y, *, loss, reduction, delta):
    return value_and_gradient(torch, torch.nn.functional.mse_loss, x, y)
