"""Running extremes, logarithms of cumulative sums and distances of all pairs, against PyTorch's: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from tests.ops.test_ops import to_numpy

nan, inf = float("nan"), float("inf")


def values_and_gradients(library: Any, function: Any, *arrays: numpy.ndarray, **place: Any) -> list[numpy.ndarray]:
    inputs = [library.tensor(a, **place).requires_grad_() for a in arrays]
    y = function(library, *inputs)
    weights = library.arange(1.0, 1.0 + y.numel(), dtype=y.dtype, **place).reshape(y.shape)
    gradients = library.autograd.grad((y * weights).sum(), inputs, create_graph=True)
    second = library.autograd.grad((gradients[0] * gradients[0]).sum(), inputs, allow_unused=True, materialize_grads=True)
    return [to_numpy(t) if library is gpunet else t.detach().numpy() for t in (y, *gradients, *second)]


@pytest.mark.parametrize("function", ["cummax", "cummin"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_running_extremes(function: str, dtype: str, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).integers(-3, 4, (5, 9)).astype(dtype)
    if dtype == "float64":
        x[0, 3], x[1, 2], x[1, 6], x[2, 4], x[3, 1] = nan, nan, nan, inf, -inf
    for shape, dim in (((5, 9), 0), ((5, 9), -1), ((45,), 0), ((5, 3, 3), 1), ((5, 0), 1), ((), 0)):
        array = x.reshape(-1)[: int(numpy.prod(shape))].reshape(shape)
        mine = getattr(gpunet.tensor(array, device=device), function)(dim)
        theirs = getattr(torch.tensor(array), function)(dim)
        for a, b in zip(mine, theirs, strict=True):
            numpy.testing.assert_array_equal(to_numpy(a), b.numpy())


@pytest.mark.parametrize("function", ["cummax", "cummin"])
def test_gradients_of_running_extremes(function: str, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).integers(-3, 4, (4, 7)).astype("float64")
    call = lambda library, x: getattr(library, function)(x * x + x, 1).values  # noqa: E731
    for a, b in zip(values_and_gradients(gpunet, call, x, device=device), values_and_gradients(torch, call, x), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_logcumsumexp(dim: int, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(5, 11)) * 30.0
    call = lambda library, x: library.logcumsumexp(x, dim)  # noqa: E731
    for a, b in zip(values_and_gradients(gpunet, call, x, device=device), values_and_gradients(torch, call, x), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for special in ([-1000.0, 0.0, 1000.0], [-inf, -inf, 1.0], [1.0, inf, 2.0], [nan, 1.0, 2.0]):
        found = to_numpy(gpunet.tensor(special, device=device).logcumsumexp(0))
        numpy.testing.assert_allclose(found, torch.tensor(special).logcumsumexp(0).numpy(), rtol=1e-6)


def test_results_are_new_memory(device: str) -> None:
    x = gpunet.ones(2, 1, device=device)
    for dim in (0, 1):
        for result in (x.logcumsumexp(dim), *x.cummax(dim)):
            result.zero_()
    assert x.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, inf])
def test_cdist(p: float, device: str, torch: Any) -> None:
    random = numpy.random.default_rng(0)
    for a, b in (((4, 3), (5, 3)), ((2, 4, 3), (1, 6, 3)), ((0, 3), (2, 3)), ((2, 0), (3, 0))):
        x, y = random.normal(size=a), random.normal(size=b)
        mine = gpunet.cdist(gpunet.tensor(x, device=device), gpunet.tensor(y, device=device), p)
        numpy.testing.assert_allclose(to_numpy(mine), torch.cdist(torch.tensor(x), torch.tensor(y), p).numpy(), rtol=1e-12)
    arrays = random.normal(size=(2, 4, 3)), random.normal(size=(2, 5, 3))
    results = []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        inputs = [library.tensor(array, **place).requires_grad_() for array in arrays]
        library.cdist(*inputs, p=p).square().sum().backward()
        results.append([t.grad.cpu().numpy() for t in inputs])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_euclidean_distances_by_a_product(mode: str, device: str, torch: Any) -> None:
    x, y = numpy.random.default_rng(0).normal(size=(2, 30, 4))
    mine = gpunet.cdist(gpunet.tensor(x, device=device), gpunet.tensor(y, device=device), compute_mode=mode)
    numpy.testing.assert_allclose(to_numpy(mine), torch.cdist(torch.tensor(x), torch.tensor(y)).numpy(), rtol=1e-12)


def test_errors_say_what_is_expected() -> None:
    x = gpunet.ones(2, 3)
    with pytest.raises(ArgumentError, match="cdist: p=-1.0; expected zero or a positive number"):
        gpunet.cdist(x, x, -1)
    with pytest.raises(ArgumentError, match="cdist: compute_mode='mm'; expected one of"):
        gpunet.cdist(x, x, compute_mode="mm")
    with pytest.raises(ShapeError, match=r"cdist: x1 has shape \(2, 3\), x2 \(3, 2\)"):
        gpunet.cdist(x, x.T)
    with pytest.raises(DtypeError, match="logcumsumexp: the tensor has dtype int64"):
        x.long().logcumsumexp(0)
