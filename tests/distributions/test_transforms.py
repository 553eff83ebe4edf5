"""Transforms and transformed distributions beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    Normal,
    TransformedDistribution,
    constraints,
)
from gpunet.errors import ArgumentError, ShapeError

X = [[0.3, -1.2, 0.8], [1.5, 0.1, -0.4]]
POSITIVE = [[0.3, 1.2, 0.8], [1.5, 0.1, 0.4]]

#: Name -> a function of (library.distributions, tensor) that makes the transform, and its argument.
TRANSFORMS: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "exp": (lambda d, t: d.ExpTransform(), X),
    "affine": (lambda d, t: d.AffineTransform(t([0.1, 0.2, 0.3]), t([2.0, -0.5, 1.5])), X),
    "affine of numbers": (lambda d, t: d.AffineTransform(1.0, -2.0), X),
    "affine of events": (lambda d, t: d.AffineTransform(t(1.0), t([2.0, -0.5, 1.5]), event_dim=1), X),
    "power": (lambda d, t: d.PowerTransform(t(1.7)), POSITIVE),
    "sigmoid": (lambda d, t: d.SigmoidTransform(), X),
    "softplus": (lambda d, t: d.SoftplusTransform(), X),
    "tanh": (lambda d, t: d.TanhTransform(), X),
    "stick breaking": (lambda d, t: d.StickBreakingTransform(), X),
    "composed": (lambda d, t: d.ComposeTransform([d.AffineTransform(0.5, t(2.0)), d.SigmoidTransform(), d.ExpTransform()]), X),
    "composed of events": (lambda d, t: d.ComposeTransform([d.StickBreakingTransform(), d.AffineTransform(0.0, t(2.0))]), X),
    "identity": (lambda d, t: d.identity_transform, X),
    "independent": (lambda d, t: d.IndependentTransform(d.ExpTransform(), 1), X),
    "reshape": (lambda d, t: d.ReshapeTransform((2, 3), (6,)), X),
    "inverse": (lambda d, t: d.ExpTransform().inv, POSITIVE),
    "inverse of composed": (lambda d, t: d.ComposeTransform([d.ExpTransform(), d.AffineTransform(0.0, t(2.0))]).inv, POSITIVE),
    "stack": (lambda d, t: d.StackTransform([d.ExpTransform(), d.SigmoidTransform(), d.TanhTransform()], dim=1), X),
    "cat": (lambda d, t: d.CatTransform([d.ExpTransform(), d.SigmoidTransform()], dim=-1, lengths=[1, 2]), X),
    "cdf": (lambda d, t: d.CumulativeDistributionTransform(d.Normal(t(0.1), t(1.5))), X),
    "softmax": (lambda d, t: d.transforms.SoftmaxTransform(), X),
    "abs": (lambda d, t: d.AbsTransform(), X),
    "lower cholesky": (lambda d, t: d.LowerCholeskyTransform(), [[1.0, 0.0, 0.0], [0.2, -0.5, 0.0], [0.3, 0.1, 0.4]]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str, torch: Any) -> None:
    make, given = TRANSFORMS[name]
    found = []
    for library in (gpunet, torch):
        tensor = lambda value, library=library: library.tensor(value, dtype=library.float64)  # noqa: E731
        transform = make(library.distributions, tensor)
        x = tensor(given).requires_grad_()
        y = transform(x)
        back = transform.inv(y)
        results = [y, back]
        try:
            results.append(transform.log_abs_det_jacobian(x, y))
            (results[-1].sum() + (y * y).sum()).backward()
            results.append(x.grad)
        except NotImplementedError:
            results.append(None)
        found.append([None if r is None else r.detach().numpy() for r in results])
        found[-1] += [transform.domain.event_dim, transform.codomain.event_dim] if name not in ("stack", "cat") else []
        if name not in ("stack", "cat"):
            found[-1] += [tuple(transform.forward_shape(x.shape)), tuple(transform.inverse_shape(tuple(y.shape)))]
    for ours, theirs in zip(*found):
        if ours is None or theirs is None:
            assert ours is theirs
        else:
            numpy.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_transformed_distributions(torch: Any) -> None:
    def compute(m: Any) -> list[Any]:
        d, tensor = m.distributions, lambda value: m.tensor(value, dtype=m.float64)
        base = d.Normal(tensor([0.1, 0.2, 0.3]), tensor([1.0, 2.0, 0.5]))
        unit, steps = d.Uniform(tensor(0.0), tensor(1.0)), [d.SigmoidTransform().inv, d.AffineTransform(0.5, 2.0)]
        logistic = d.TransformedDistribution(unit, steps)
        decreasing = d.TransformedDistribution(base, [d.AffineTransform(1.0, -2.0), d.ExpTransform()])
        simplex = d.TransformedDistribution(base, d.StickBreakingTransform())
        reshaped = d.TransformedDistribution(d.Normal(tensor(X), tensor(1.0)), d.ReshapeTransform((2, 3), (6,)))
        one_flow = d.TransformedDistribution(d.Normal(tensor(0.0), tensor(1.0)), d.TanhTransform(cache_size=1))
        p = tensor([0.2, 0.5, 0.7])
        return [
            logistic.log_prob(tensor([0.3, -1.0])), logistic.cdf(tensor([0.3, -1.0])), logistic.icdf(p),
            decreasing.log_prob(tensor(POSITIVE)), decreasing.cdf(tensor(POSITIVE)), decreasing.icdf(p),
            simplex.log_prob(tensor([0.1, 0.2, 0.3, 0.4])), simplex.expand((5,)).log_prob(tensor([0.1, 0.2, 0.3, 0.4])),
            reshaped.log_prob(tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])), one_flow.log_prob(tensor(0.5)),
            tensor([float(n) for k in (logistic, decreasing, simplex, reshaped) for n in (*k.batch_shape, -1, *k.event_shape)]),
        ]  # fmt: skip

    for ours, theirs in zip(compute(gpunet), compute(torch)):
        assert ours.shape == tuple(theirs.shape)
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9)


def test_a_cache_keeps_the_argument() -> None:
    transform = ComposeTransform([AffineTransform(0.0, 3.0), ExpTransform()], cache_size=1)
    x = gpunet.tensor([0.1])
    y = transform(x)
    assert transform.inv(y) is not y
    cached = ExpTransform(cache_size=1)
    y = cached(x)
    assert cached.inv(y) is x and cached(x) is y
    assert ExpTransform().with_cache(1)._cache_size == 1


def test_gradients_flow_through_a_flow() -> None:
    scale = gpunet.tensor(2.0, requires_grad=True)
    flow = TransformedDistribution(Normal(0.0, 1.0), [AffineTransform(0.0, scale)])
    flow.log_prob(gpunet.tensor(1.0)).backward()
    assert scale.grad is not None and scale.grad.item() == pytest.approx(1.0 / 8.0 - 0.5)
    assert flow.rsample((3,)).requires_grad and not flow.sample((3,)).requires_grad


def test_wrong_arguments() -> None:
    with pytest.raises(ArgumentError, match="transforms contains 3; expected Transforms"):
        TransformedDistribution(Normal(0.0, 1.0), [3])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="ExpTransform: cache_size=2; expected 0 or 1"):
        ExpTransform(cache_size=2)
    with pytest.raises(ShapeError, match="have different sizes"):
        gpunet.distributions.ReshapeTransform((2,), (3,))
    with pytest.raises(ShapeError, match="expected at least 1 dimensions"):
        TransformedDistribution(Normal(0.0, 1.0), gpunet.distributions.StickBreakingTransform())


CONSTRAINTS = [
    "boolean", "greater_than", "greater_than_eq", "half_open_interval", "integer_interval", "interval", "less_than", "nonnegative",
    "nonnegative_integer", "positive", "positive_integer", "real", "unit_interval",
]  # fmt: skip
VECTORS = ["real_vector", "simplex", "one_hot", "lower_cholesky", "lower_triangular", "positive_definite", "symmetric", "square"]


@pytest.mark.parametrize("name", CONSTRAINTS + VECTORS)
def test_constraints(name: str, torch: Any) -> None:
    bounds: dict[str, tuple[int, ...]] = {
        "greater_than": (1,), "greater_than_eq": (1,), "less_than": (1,), "half_open_interval": (0, 2),
        "integer_interval": (0, 2), "interval": (0, 2),
    }  # fmt: skip
    symmetric = [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    matrices = [[[2.0, 0.0], [0.5, 1.0]], *symmetric, [[0.4, 0.6]] * 2]
    x = matrices if name in VECTORS else [-1.0, 0.0, 0.5, 1.0, 2.0, 2.5, float("nan")]
    if name == "positive_definite":  # PyTorch looks no further if one matrix of the batch is not symmetric
        x = matrices[1:3]
    found = []
    for library, module in ((gpunet, constraints), (torch, torch.distributions.constraints)):
        constraint = getattr(module, name)
        constraint = constraint(*bounds[name]) if name in bounds else constraint
        found.append([constraint.check(library.tensor(x)).tolist(), constraint.event_dim, constraint.is_discrete])
    assert found[0] == found[1]
