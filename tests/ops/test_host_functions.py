"""Methods that call Python's functions, conditions and loops as functions, and random counts."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, ShapeError


def test_functions_of_each_element(torch: Any) -> None:
    for kind in ("float32", "float64", "int64", "bool"):
        found = []
        for t in (gpunet, torch):
            x, y = (t.tensor(v).to(getattr(t, kind)) for v in ([[1.5, 2.0], [3.0, 0.0]], [[2.0], [5.0]]))
            y = y.expand(2, 2)
            x.apply_(lambda v: v + 1)
            x.map_(y, lambda a, b: a * b)
            x.map2_(y, y, lambda a, b, c: a + b - c)
            found.append(x.tolist())
        assert found[0] == found[1]
    base = gpunet.zeros(4)
    base[::2].apply_(lambda v: v + 2.0)
    assert base.tolist() == [2.0, 0.0, 2.0, 0.0]


def test_refused_functions(device: str) -> None:
    x = gpunet.ones(2, device=device)
    if device != "cpu":
        with pytest.raises(DeviceError, match="apply_ on a tensor on"):
            x.apply_(abs)
        return
    with pytest.raises(GradientError, match="apply_ on a tensor that requires grad"):
        gpunet.ones(2, requires_grad=True).apply_(abs)
    with pytest.raises(DtypeError, match="map_: got a list"):
        x.map_([1.0, 2.0], max)
    with pytest.raises(ShapeError, match="map_: a tensor of shape"):
        x.map_(gpunet.ones(3), max)
    with pytest.raises(DtypeError, match="apply_: callable has type int"):
        x.apply_(3)


def test_conditions_and_loops(device: str) -> None:
    x = gpunet.tensor([2.0], device=device, requires_grad=True)
    y = gpunet.cond(x.sum() > 1, lambda v: v * 3, lambda v: v, (x,))
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [3.0]
    assert gpunet.cond(False, lambda: 1, lambda: 2) == 2
    count, total = gpunet.while_loop(lambda i, s: i < 4, lambda i, s: (i + 1, s + i), (gpunet.tensor(0), gpunet.tensor(0)))
    assert (count.item(), total.item()) == (4, 6)
    with pytest.raises(ArgumentError, match="while_loop: body_fn returned 1 values for 2"):
        gpunet.while_loop(lambda i, s: i < 4, lambda i, s: i, (gpunet.tensor(0), gpunet.tensor(0)))
    with pytest.raises(ArgumentError, match=r"cond: pred has shape \(2,\)"):
        gpunet.cond(gpunet.ones(2), abs, abs)
    with pytest.raises(DtypeError, match="cond: pred has type str"):
        gpunet.cond("yes", abs, abs)


def test_random_counts(device: str) -> None:
    gpunet.manual_seed(0)
    means = gpunet.tensor([0.0, 0.5, 4.0, 30.0], device=device).expand(5000, 4)
    drawn = gpunet.poisson(means)
    assert drawn.device == device and (drawn == drawn.floor()).all() and drawn[:, 0].sum() == 0
    numpy.testing.assert_allclose(drawn.mean(0).cpu().numpy(), [0.0, 0.5, 4.0, 30.0], atol=0.4)
    numpy.testing.assert_allclose(drawn.var(0).cpu().numpy(), [0.0, 0.5, 4.0, 30.0], rtol=0.15)
    trials = gpunet.binomial(gpunet.full((5000, 1), 10.0, device=device), gpunet.tensor([0.0, 0.3, 1.0], device=device))
    numpy.testing.assert_allclose(trials.mean(0).cpu().numpy(), [0.0, 3.0, 10.0], atol=0.1)
    first, second = (gpunet.poisson(means, gpunet.Generator().manual_seed(1)) for _ in range(2))
    assert (first == second).all()
    rate = gpunet.tensor([2.0], requires_grad=True)
    gpunet.poisson(rate).backward()
    assert rate.grad is not None and rate.grad.item() == 0.0
    chance = gpunet.tensor([0.5], requires_grad=True)
    gpunet.binomial(gpunet.tensor([3.0]), chance).backward()
    assert chance.grad is not None and chance.grad.item() == 0.0


def test_refused_counts() -> None:
    with pytest.raises(ArgumentError, match="poisson: input has the element .*; expected numbers from 0 to 9.2e"):
        gpunet.poisson(gpunet.tensor([3e38]))
    with pytest.raises(ArgumentError, match="binomial: count has an element"):
        gpunet.binomial(gpunet.tensor([gpunet.inf]), gpunet.tensor([0.5]))
    with pytest.raises(DtypeError, match="binomial: count of float64, prob of float32; expected one dtype"):
        gpunet.binomial(gpunet.ones(2, dtype=gpunet.float64), gpunet.ones(2))
    with pytest.raises(ArgumentError, match="poisson: input has the element -1.0"):
        gpunet.poisson(gpunet.tensor([-1.0]))
    with pytest.raises(DtypeError, match="poisson: input has dtype int64"):
        gpunet.poisson(gpunet.tensor([1]))
    with pytest.raises(ArgumentError, match="binomial: prob has an element that is not from 0 to 1"):
        gpunet.binomial(gpunet.ones(1), gpunet.tensor([1.5]))
