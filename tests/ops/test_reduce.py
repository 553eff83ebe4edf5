"""Values of reductions, extremes, sorting and norms: overloads, dtypes, empty dimensions, gradients at zeros."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError

F = gpunet.nn.functional
inf, nan = math.inf, math.nan


def t(values: Any, dtype: Any = None) -> gpunet.Tensor:
    return gpunet.tensor(values, dtype=dtype)


def a() -> gpunet.Tensor:
    return t([[1.0, 2.0, 4.0], [3.0, 3.0, 9.0]])


def check(result: Any, expected: Any) -> None:
    if isinstance(result, tuple):
        for pair in zip(result, expected, strict=True):
            check(*pair)
        return
    wanted = numpy.asarray(expected)
    assert result.shape == wanted.shape
    numpy.testing.assert_allclose(result.detach().cpu().numpy(), wanted, rtol=1e-5)


VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    # var, std: the second positional argument is unbiased
    "var(0, False)": (lambda: a().var(0, False), [1, 0.25, 6.25]),
    "var(1, True)": (lambda: a().var(1, True), [7 / 3, 12]),
    "var(1, False, True)": (lambda: a().var(1, False, True), [[14 / 9], [8]]),
    "var(False)": (lambda: t([1.0, 2, 4]).var(False), 14 / 9),
    "std(False)": (lambda: t([1.0, 2, 4]).std(False), math.sqrt(14 / 9)),
    "var(unbiased=False)": (lambda: gpunet.var(a(), 0, unbiased=False), [1, 0.25, 6.25]),
    "var(correction=)": (lambda: a().var(0, correction=0.5, keepdim=True), [[4 / 3, 1 / 3, 25 / 3]]),
    "var of one element": (lambda: t([1.0]).var(), nan),
    "var of fewer than the correction": (lambda: t([1.0, 2.0]).var(correction=3), inf),
    "var of nothing": (lambda: gpunet.zeros(0).var(correction=-3), nan),
    "var_mean": (lambda: gpunet.var_mean(a(), 1, False), ([14 / 9, 8], [7 / 3, 5])),
    "std_mean": (lambda: gpunet.std_mean(t([1.0, 2, 4]), correction=0), (math.sqrt(14 / 9), 7 / 3)),
    # an empty dim means all dimensions; any and all test each element
    "sum(dim=())": (lambda: a().sum(dim=()), 22),
    "mean(())": (lambda: a().mean(()), 22 / 6),
    "amax(())": (lambda: a().amax(()), 9),
    "amin(dim=[])": (lambda: a().amin(dim=[]), 1),
    "norm(2, ())": (lambda: t([[3.0], [4.0]]).norm(2, ()), 5),
    "logsumexp(())": (lambda: t([[0.0], [0.0]]).logsumexp(()), math.log(2)),
    "any(dim=())": (lambda: t([[0.0, 2.0]]).any(dim=()), [[False, True]]),
    "all((0, 1))": (lambda: t([[1.0, 2.0]]).all((0, 1)), True),
    # extremes
    "argmax(keepdim=True)": (lambda: a().argmax(keepdim=True), [[5]]),
    "argmin(keepdim=True)": (lambda: a().argmin(None, True), [[0]]),
    "argmax of a number": (lambda: t(2.0).argmax(0, True), 0),
    "max(a, b)": (lambda: gpunet.max(t([1, 5]), t([3, 2])), [3, 5]),
    "max(other=)": (lambda: gpunet.max(t([1, 5]), other=t([3, 2])), [3, 5]),
    "min(x2=)": (lambda: t([1, 5]).min(other=t([3, 2])), [1, 2]),
    "max(dim=tensor)": (lambda: a().max(dim=t(1)), ([4, 9], [2, 2])),
    "min(tensor, keepdim=)": (lambda: a().min(t(1), keepdim=False), ([1, 3], [0, 0])),
    "max(0, True)": (lambda: a().max(0, True), ([[3, 3, 9]], [[1, 1, 1]])),
    "max over another empty dimension": (lambda: gpunet.zeros(0, 3).max(1), (numpy.zeros(0), numpy.zeros(0))),
    "argmax over another empty dimension": (lambda: gpunet.zeros(0, 3).argmax(1, True), numpy.zeros((0, 1))),
    # sorting
    "topk by position": (lambda: a().topk(2, 1, True, True), ([[4, 2], [9, 3]], [[2, 1], [2, 0]])),
    "topk(sorted=False)": (lambda: t([1, 3, 2]).topk(1, sorted=False), ([3], [1])),
    "sort(stable=)": (lambda: t([2, 1, 2]).sort(stable=True, descending=True), ([2, 2, 1], [0, 2, 1])),
    "argsort(stable=)": (lambda: t([2, 1, 2]).argsort(stable=True), [1, 0, 2]),
    # norms
    "norm(p=None)": (lambda: t([3.0, 4.0]).norm(None), 5),
    "norm(p=0)": (lambda: t([3.0, 0.0, nan]).norm(0), 2),
    "norm(p=-1)": (lambda: t([1.0, 2.0]).norm(-1), 2 / 3),
    "norm(p=-1) with a zero": (lambda: t([1.0, 0.0]).norm(-1), 0),
    "norm(p=-inf)": (lambda: t([-3.0, 2.0]).norm(-inf), 2),
    "norm(p=0.5)": (lambda: t([1.0, 4.0, 0.0]).norm(0.5), 9),
    "norm(dtype=)": (lambda: t([3, 4]).norm(dtype=gpunet.float64), 5),
    # no elements
    "logsumexp of nothing": (lambda: gpunet.logsumexp(gpunet.zeros(0, 3), 0), [-inf] * 3),
    "logsumexp of integers": (lambda: t([0, 0]).logsumexp(0), math.log(2)),
    "norm of nothing": (lambda: gpunet.zeros(0, 2).norm(2, 0), [0, 0]),
    "prod of nothing": (lambda: gpunet.zeros(0, 2).prod(0), [1, 1]),
    # halves: no overflow on the way
    "mean of halves": (lambda: gpunet.full((4,), 60000.0, dtype="float16").mean(), 60000),
    "sum of empty halves": (lambda: gpunet.zeros(2, 0, 3, dtype="float16").sum(-1, keepdim=True), numpy.zeros((2, 0, 1))),
    # softmax
    "softmax(input=)": (lambda: gpunet.softmax(input=t([[0.0, 0.0]]), dim=1), [[0.5, 0.5]]),
    "softmax of integers(dtype=)": (lambda: gpunet.softmax(t([1, 1]), 0, gpunet.float64), [0.5, 0.5]),
}


@pytest.mark.parametrize("name", VALUES)
def test_value(name: str, device: str) -> None:
    call, expected = VALUES[name]
    check(call(), expected)


DTYPES: dict[str, tuple[Callable[[], Any], str]] = {
    "sum(dtype=int32)": (lambda: a().sum(dtype=gpunet.int32), "int32"),
    "sum(dtype=bool)": (lambda: a().sum(0, dtype=gpunet.bool), "bool"),
    "sum of uint8": (lambda: t([1], "uint8").sum(), "int64"),
    "mean(dtype=)": (lambda: t([1, 2]).mean(dtype=gpunet.float64), "float64"),
    "prod(dtype=)": (lambda: t([3, 1]).prod(dtype=gpunet.float32), "float32"),
    "cumsum(dtype=)": (lambda: a().cumsum(0, dtype=gpunet.int32), "int32"),
    "cumsum of booleans": (lambda: t([True]).cumsum(0), "int64"),
    "all of uint8": (lambda: t([1], "uint8").all(), "uint8"),
    "any of uint8": (lambda: t([1], "uint8").any(0), "uint8"),
    "all of floats": (lambda: a().all(), "bool"),
    "std of halves": (lambda: gpunet.zeros(3, dtype="float16").std(), "float16"),
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtype(name: str, device: str) -> None:
    call, expected = DTYPES[name]
    assert call().dtype == expected


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "keepdim is no number": (lambda: a().sum(0, 1), DtypeError, "sum: keepdim=1 has type int; expected True or False"),
    "dim=True": (lambda: a().sum(True), DtypeError, "sum: dim=True has type bool; expected an integer"),
    "var(dim=True)": (lambda: a().var(dim=True), DtypeError, "var: dim=True"),
    "correction and unbiased": (lambda: a().var(0, unbiased=True, correction=0), ArgumentError, "pass one"),
    "correction of text": (lambda: a().var(0, correction="q"), DtypeError, "correction='q' has type str"),
    "var of integers": (lambda: t([1, 2]).var(), DtypeError, r"var: .*int64.*\.float\(\)"),
    "mean(dtype=int64)": (lambda: a().mean(dtype=gpunet.int64), DtypeError, "mean: .*int64"),
    "max of a number over dim 5": (lambda: t(3.0).max(dim=5), OutOfRangeError, "max: dim=5"),
    "max over a floating dim": (lambda: a().max(dim=t(1.0)), DtypeError, "max: dim=.* has type Tensor"),
    "max over text": (lambda: t(3.0).min(dim="q"), DtypeError, "min: dim='q'"),
    "max(keepdim=True)": (lambda: a().max(keepdim=True), ArgumentError, "keepdim=True needs dim="),
    "max over nothing": (lambda: gpunet.zeros(0, 3).max(0), OutOfRangeError, r"max: .*\(0, 3\)"),
    "axis and dim": (lambda: a().sum(dim=0, axis=1), ArgumentError, "both dim= and axis="),
    "topk(True)": (lambda: a().topk(True), DtypeError, "topk: k=True"),
    "topk(-1)": (lambda: a().topk(-1), OutOfRangeError, "k=-1"),
    "norm of integers": (lambda: t([1, 2]).norm(), DtypeError, r"norm: .*int64.*\.float\(\)"),
    "largest of nothing": (lambda: gpunet.zeros(0).norm(inf), ShapeError, r"norm: p=inf .*\(0,\)"),
    "_stacklevel": (lambda: gpunet.softmax(a(), 0, _stacklevel=None), DtypeError, "softmax: _stacklevel=None"),
    "softmax(dtype=int64)": (lambda: a().softmax(0, gpunet.int64), DtypeError, "softmax: .*int64"),
    "out of another dtype": (lambda: gpunet.sum(a(), 0, out=t([1])), (DtypeError, ShapeError), "sum: out"),
    "indices of another dtype": (
        lambda: gpunet.max(a(), 0, out=(gpunet.zeros(3), t([0, 0, 0], "int32"))), DtypeError, "max: .*int32; expected int64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str, device: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_results_are_written_to_out(device: str) -> None:
    values, indices = gpunet.zeros(2), gpunet.zeros(2, dtype=gpunet.int64)
    found = gpunet.max(a(), 1, out=(values, indices))
    assert found.values is values and values.tolist() == [4.0, 9.0] and indices.tolist() == [2, 2]
    total = gpunet.zeros(3)
    assert gpunet.sum(a(), 0, out=total) is total and total.tolist() == [4.0, 5.0, 13.0]


def test_extreme_of_a_number_is_no_alias_of_it(device: str) -> None:
    x = t(3.0)
    x.max(0).values.fill_(5.0)
    assert x.item() == 3.0


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin"])
def test_gradient_of_an_extreme_at_nan_is_that_of_torch(name: str, device: str, torch: Any) -> None:
    grads = []
    for library in (gpunet, torch):
        x = library.tensor([nan, 1.0, nan, -inf], requires_grad=True)
        getattr(x, name)().backward()
        grads.append(x.grad.tolist())
    numpy.testing.assert_array_equal(*grads)


@pytest.mark.parametrize("p", [inf, -inf])
def test_gradient_of_a_norm_of_infinite_order_at_nan_is_that_of_torch(p: float, device: str, torch: Any) -> None:
    grads = []
    for library in (gpunet, torch):
        x = library.tensor([nan, 1.0, -0.0, -2.0], requires_grad=True)
        library.norm(x, p).backward()
        grads.append(x.grad.tolist())
    numpy.testing.assert_array_equal(*grads)


def test_softmax_without_dim_warns_and_takes_the_dimension_of_torch(device: str) -> None:
    for shape, dim in (((3,), 0), ((2, 3), 1), ((2, 3, 2), 0), ((), 0), ((1, 2, 1, 2), 1)):
        x = gpunet.randn(shape)
        for name in ("softmax", "log_softmax"):
            with pytest.warns(UserWarning, match=f"{name}: .*dim={dim}") as seen:
                found = getattr(F, name)(x)
            assert seen[0].filename == __file__
            check(found, getattr(x, name)(dim).tolist())


# ---- gradients --------------------------------------------------------------------------------------------------------


def test_gradient_of_std_is_0_where_nothing_varies(device: str) -> None:
    x = t([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]).requires_grad_()
    x.std(dim=1).sum().backward()
    check(x.grad, [[0, 0, 0], [-0.5, 0, 0.5]])
    x.grad = None
    x[0].std().backward()
    check(x.grad, [[0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_second_derivative_of_prod_with_zeros(zeros: int, count: int, device: str) -> None:
    values = [0.0 if i < zeros else float(i + 2) for i in range(count)]
    x = t(values, "float64").requires_grad_()
    weights = t([1.0, -2.0, 3.0, 0.5, 4.0][:count], "float64")
    (first,) = gpunet.grad(x.prod(), x, create_graph=True)
    without = lambda *left_out: math.prod(v for i, v in enumerate(values) if i not in left_out)  # noqa: E731
    check(first, [without(i) for i in range(count)])
    if count > 1:
        (first * weights).sum().backward()
        check(x.grad, [sum(weights[i].item() * without(i, j) for i in range(count) if i != j) for j in range(count)])


def test_case_of_prod_with_one_zero(device: str) -> None:
    x = t([2.0, 3.0, 0.0]).requires_grad_()
    (first,) = gpunet.grad(x.prod(), x, create_graph=True)
    first.sum().backward()
    check(x.grad, [3, 2, 5])


def test_gradient_of_logsumexp_beside_an_infinite_element(device: str) -> None:
    x = t([[inf, 1.0], [-inf, 1.0]]).requires_grad_()
    x.logsumexp(1).sum().backward()
    check(x.grad, [[nan, 0], [0, 1]])


def test_gradient_of_var_beside_an_infinite_element(device: str) -> None:
    x = t([1.0, inf]).requires_grad_()
    x.var().backward()
    check(x.grad, [-inf, nan])


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, -1, inf, -inf])
def test_gradient_of_norm_at_zeros_is_that_of_torch(p: float, device: str, torch: Any) -> None:
    for values in ([0.0, 3.0, -4.0], [0.0, 0.0], [1.0, -2.0]):
        x, theirs = t(values, "float64").requires_grad_(), torch.tensor(values, dtype=torch.float64, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x.norm(p).backward()
            theirs.norm(p).backward()
        check(x.grad, [0.0] * len(values) if theirs.grad is None else theirs.grad.numpy())


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_gradient_of_a_quantile_beside_nan_is_that_of_torch(interpolation: str, device: str, torch: Any) -> None:
    found = []
    for library in (gpunet, torch):
        x = library.tensor([[1.0, math.nan, 3.0], [3.0, 1.0, 2.0]], requires_grad=True)
        y = library.quantile(x, library.tensor([0.25, 0.5]), dim=1, interpolation=interpolation)
        y.sum().backward()
        found.append(str([y.tolist(), x.grad.tolist()]))
    assert found[0] == found[1]
