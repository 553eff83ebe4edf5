"""Random fills, choices by weight, and the states of generators."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GradientError, OutOfRangeError, ShapeError
from gpunet.launch.random import Generator

COUNT = 20000
FILLS = {
    "normal_": lambda x: x.normal_(2.0, 0.5), "uniform_": lambda x: x.uniform_(-1.0, 3.0),
    "exponential_": lambda x: x.exponential_(2.0), "log_normal_": lambda x: x.log_normal_(0.5, 0.25),
    "cauchy_": lambda x: x.cauchy_(1.0, 2.0), "geometric_": lambda x: x.geometric_(0.3),
    "random_": lambda x: x.random_(3, 9), "bernoulli_": lambda x: x.bernoulli_(0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", FILLS)
def test_fills_have_their_distributions(name: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    gpunet.manual_seed(5)
    x = gpunet.empty(COUNT, dtype="float64")
    assert FILLS[name](x) is x
    continuous = {
        "normal_": stats.norm(2.0, 0.5), "uniform_": stats.uniform(-1.0, 4.0), "exponential_": stats.expon(scale=0.5),
        "log_normal_": stats.lognorm(0.25, scale=math.exp(0.5)), "cauchy_": stats.cauchy(1.0, 2.0),
    }  # fmt: skip
    if name in continuous:
        assert stats.kstest(x.numpy(), continuous[name].cdf).pvalue > 1e-3
        return
    distribution = {"geometric_": stats.geom(0.3), "random_": stats.randint(3, 9), "bernoulli_": stats.bernoulli(0.3)}[name]
    values = numpy.unique(x.numpy())
    assert set(values) <= set(range(int(distribution.ppf(1e-12)), int(distribution.ppf(1 - 1e-9)) + 1))
    values = values[distribution.pmf(values) * COUNT > 5]
    expected, found = distribution.pmf(values) * COUNT, numpy.array([(x.numpy() == v).sum() for v in values])
    assert ((found - expected) ** 2 / expected).sum() < stats.chi2(len(values)).ppf(1 - 1e-3)


@pytest.mark.parametrize("name", ["normal_", "uniform_", "exponential_", "random_"])
def test_fills_have_the_same_bits_on_every_device(name: str, device: str) -> None:
    found = []
    for where in ("cpu", device):
        gpunet.manual_seed(3)
        found.append([FILLS[name](gpunet.empty(7, 5, dtype=d, device=where)).tolist() for d in ("float32", "float64")])
    assert found[0] == found[1]


def test_bounds_of_random_integers() -> None:
    assert gpunet.zeros(100, dtype="uint8").random_().tolist() != [0] * 100
    x = gpunet.zeros(1000).random_()
    assert 2**22 < x.max().item() <= 2**24 and x.min().item() >= 0
    assert set(gpunet.zeros(100, dtype="int64").random_(2).tolist()) == {0, 1}
    assert set(gpunet.zeros(100, dtype="bool").random_().tolist()) == {False, True}
    assert gpunet.zeros(100, dtype="int32").random_(5, None).max().item() > 2**24
    assert gpunet.zeros(9, dtype="int64", device="emulated").random_().min().item() >= 0
    with pytest.raises(ArgumentError, match=r"fewer than 2\^64 integers"):
        gpunet.zeros(1, dtype="int64").random_(-(2**63), None)
    with pytest.raises(OutOfRangeError, match=r"random_: 999 does not fit into uint8"):
        gpunet.zeros(1, dtype="uint8").random_(1000)
    with pytest.raises(ArgumentError, match=r"random_: from=5, to=5"):
        gpunet.zeros(1).random_(5, 5)


def test_fills_of_views_and_leaves() -> None:
    x = gpunet.zeros(4, 6)
    x[:, ::2].uniform_(**{"from": 1.0, "to": 2.0})
    assert (x[:, ::2] >= 1.0).all() and (x[:, 1::2] == 0.0).all()
    w = gpunet.zeros(3, requires_grad=True)
    with pytest.raises(GradientError, match=r"normal_ changes a leaf tensor"):
        w.normal_()
    w.data.normal_(0, 0.02)
    assert w.abs().sum() > 0
    y = w * 2
    y.uniform_()
    y.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.normal_(0, -1), ArgumentError, r"normal_: std=-1.0; expected 0 or more"),
        (lambda x: x.uniform_(1, 0), ArgumentError, r"uniform_: from=1.0, to=0.0"),
        (lambda x: x.exponential_(0), ArgumentError, r"exponential_: lambd=0.0"),
        (lambda x: x.geometric_(1.0), ArgumentError, r"geometric_: p=1.0"),
        (lambda x: x.cauchy_(0, 0), ArgumentError, r"cauchy_: sigma=0.0"),
        (lambda x: x.log_normal_(0, 0), ArgumentError, r"log_normal_: std=0.0"),
        (lambda x: x.long().normal_(), DtypeError, r"normal_: dtype=int64"),
        (lambda x: x.bernoulli_(2.0), ArgumentError, r"p=2.0"),
        (lambda x: gpunet.normal(x, x - 5), ArgumentError, r"normal: std contains -4.0"),
        (lambda x: gpunet.normal(x, x * math.nan), ArgumentError, r"normal: std contains nan"),
        (lambda x: gpunet.normal(x.long(), x), DtypeError, r"normal: dtype=int64; expected a floating or complex dtype"),
        (lambda x: gpunet.normal(x, 1.0, (2,)), ArgumentError, r"normal: size beside a tensor"),
    ],
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.ones(3))


def test_normal_of_tensors() -> None:
    gpunet.manual_seed(0)
    x = gpunet.normal(gpunet.tensor([0.0, 100.0]), gpunet.tensor([[0.0], [1.0]]))
    assert x.shape == (2, 2) and x[0].tolist() == [0.0, 100.0] and abs(x[1, 1].item() - 100.0) < 5
    mean = gpunet.ones(1, dtype=gpunet.float16)
    assert gpunet.normal(mean, gpunet.ones(3)).dtype == gpunet.float16 and gpunet.normal(0.0, mean).dtype == gpunet.float16
    assert gpunet.normal(5.0, 0.0, (3,)).tolist() == [5.0] * 3
    assert gpunet.randint_like(gpunet.ones(3), 2, 3).tolist() == [2.0] * 3


# ---- multinomial ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "replacement"), [(1, False), (1, True), (3, False), (50, True)])
def test_multinomial(count: int, replacement: bool, device: str) -> None:
    weights = numpy.array([[0.1, 0.0, 3.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    found = []
    for where in ("cpu", device):
        gpunet.manual_seed(2)
        found.append(gpunet.tensor(weights, dtype="float32", device=where).multinomial(count, replacement).tolist())
    assert found[0] == found[1]
    rows = numpy.array(found[0])
    assert rows.shape == (2, count) and 1 not in rows[0] and 4 not in rows[1]
    if not replacement:
        assert all(len(set(row)) == count for row in rows.tolist())


@pytest.mark.parametrize("count", [1, 30])
def test_multinomial_draws_in_proportion_to_weights(count: int) -> None:
    gpunet.manual_seed(0)
    weights = gpunet.tensor([1.0, 2.0, 3.0, 0.0, 4.0])
    drawn = weights.expand(30000 // count, 5).multinomial(count, replacement=True).numpy().ravel()
    found, expected = numpy.bincount(drawn, minlength=5), numpy.array([3000.0, 6000.0, 9000.0, 0.0, 12000.0])
    assert found[3] == 0 and ((found - expected) ** 2 / numpy.maximum(expected, 1)).sum() < 18.5  # chi2 of 4, 0.1 %


def test_order_without_replacement_follows_the_weights() -> None:
    """The first drawn is index i with probability w_i / sum."""
    gpunet.manual_seed(0)
    first = gpunet.tensor([1.0, 3.0]).expand(20000, 2).multinomial(2).numpy()[:, 0]
    assert abs(first.mean() - 0.75) < 0.015


@pytest.mark.parametrize(
    ("weights", "options", "error", "message"),
    [
        ([1.0, -1.0], {}, ArgumentError, r"weights from -1.0 to 1.0"),
        ([1.0, math.nan], {}, ArgumentError, r"weights from nan"),
        ([1.0, math.inf], {}, ArgumentError, r"to inf"),
        ([0.0, 0.0], {}, ArgumentError, r"a row has 0 positive weights; expected at least 1"),
        ([1.0, 0.0], {"num_samples": 2}, ArgumentError, r"a row has 1 positive weights; expected at least 2"),
        ([1.0, 1.0], {"num_samples": 3}, ArgumentError, r"num_samples=3 of 2 weights.*replacement=True"),
        ([1.0], {"num_samples": 0}, ArgumentError, r"num_samples=0; expected 1 or more"),
        ([[[1.0]]], {}, ShapeError, r"shape \(1, 1, 1\)"),
        ([], {"replacement": True}, ArgumentError, r"expected at least one weight"),
    ],
)
def test_wrong_weights(weights: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gpunet.tensor(weights).multinomial(**{"num_samples": 1} | options)


def test_multinomial_of_integers_is_refused() -> None:
    with pytest.raises(DtypeError, match=r"weights of dtype int64"):
        gpunet.ones(3, dtype="int64").multinomial(1)


def test_captured_step_draws_anew(device: str) -> None:
    weights = gpunet.ones(1000)

    @gpunet.capture
    def step() -> Any:
        return weights.multinomial(1), weights.multinomial(2, True), weights * 0 + gpunet.empty(1000).normal_()

    gpunet.manual_seed(1)
    found = [[t.tolist() for t in step()] for _ in range(3)]
    gpunet.manual_seed(1)
    for drawn in found:
        again = [weights.multinomial(1), weights.multinomial(2, True), gpunet.empty(1000).normal_()]
        assert drawn == [t.tolist() for t in again]


# ---- states -----------------------------------------------------------------------------------------------------------


def test_state_of_the_default_generator() -> None:
    state = gpunet.get_rng_state()
    assert state.dtype == gpunet.uint8
    first = gpunet.rand(5).tolist()
    gpunet.set_rng_state(state)
    assert gpunet.rand(5).tolist() == first
    with pytest.raises(ShapeError, match=r"set_rng_state: got a tensor of shape \(3,\), float32"):
        gpunet.set_rng_state(gpunet.zeros(3))
    with gpunet.random.fork_rng():
        gpunet.manual_seed(0)
        gpunet.rand(3)
    gpunet.set_rng_state(state)
    with gpunet.random.fork_rng():
        gpunet.rand(100)
    assert gpunet.rand(5).tolist() == first
    seed = gpunet.seed()
    assert gpunet.initial_seed() == seed


def test_state_of_a_generator() -> None:
    a, b = Generator(1), Generator(2)
    gpunet.rand(3, generator=a)
    b.set_state(a.get_state())
    assert gpunet.rand(3, generator=a).tolist() == gpunet.rand(3, generator=b).tolist()
