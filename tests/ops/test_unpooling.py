"""Max unpooling and power-average pooling beside PyTorch's, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GpunetError, OutOfRangeError, ShapeError

F = nn.functional
SHAPE = (2, 3, 8, 6, 4)
X = numpy.random.default_rng(0).normal(size=SHAPE)


def gradients(library: Any, y: Any, x: Any) -> list[numpy.ndarray]:
    """The result, the gradient of a sum of cubes, and the gradient of the sum of its squares."""
    grad = library.grad if library is gpunet else library.autograd.grad
    (first,) = grad((y**3).sum(), [x], create_graph=True)
    (second,) = grad((first * first).sum(), [x])
    return [t.detach().cpu().numpy() for t in (y, first, second)]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("numbers", [(2,), (2, 2), (3, 2, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("has_batch", [True, False])
def test_max_unpool(dims: int, numbers: tuple[int, ...], has_batch: bool, device: str, torch: Any) -> None:
    found = []
    array = X[(..., *(0,) * (3 - dims))] if has_batch else X[(0, ..., *(0,) * (3 - dims))]
    for library, place in ((gpunet, device), (torch, "cpu")):
        x = library.tensor(array, device=place, requires_grad=True)
        pool = getattr(library.nn, f"MaxPool{dims}d")(*numbers, return_indices=True)
        unpool = getattr(library.nn, f"MaxUnpool{dims}d")(*numbers)
        results = [repr(unpool), *gradients(library, unpool(*pool(x), output_size=x.shape[-dims:]), x)]
        function = getattr(library.nn.functional, f"max_unpool{dims}d")
        is_covered = numbers in ((2,), (2, 2))  # by the windows; else a place may lie outside of the usual size
        size = None if is_covered else x.shape if has_batch else x.shape[1:]
        found.append([*results, *gradients(library, function(*pool(x), *numbers, output_size=size), x)])
    assert found[0][0] == found[1][0]
    for mine, theirs in zip(found[0][1:], found[1][1:], strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 2, "ceil_mode": True}], ids=str)
@pytest.mark.parametrize("norm_type", [1, 2.0, 3, -1.5])
def test_lp_pool(dims: int, options: dict[str, Any], norm_type: float, device: str, torch: Any) -> None:
    found = []
    for library, place in ((gpunet, device), (torch, "cpu")):
        x = library.tensor(numpy.abs(X[(..., *(0,) * (3 - dims))]), device=place, requires_grad=True)
        module = getattr(library.nn, f"LPPool{dims}d")(norm_type, 3, **options)
        y = getattr(library.nn.functional, f"lp_pool{dims}d")(x, norm_type, 3, **options)
        found.append([repr(module), *gradients(library, module(x), x), *gradients(library, y, x)])
    assert found[0][0] == found[1][0]
    for mine, theirs in zip(found[0][1:], found[1][1:], strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize("norm_type", [1, 2, 3.0])
def test_lp_pool_of_zeros_has_the_gradient_zero(norm_type: float, torch: Any) -> None:
    found = []
    for library in (gpunet, torch):
        x = library.tensor([[[0.0, 0.0, 3.0, 1.0, 2.0, 0.0]]], requires_grad=True)
        y = library.nn.functional.lp_pool1d(x, norm_type, 2)
        y.sum().backward()
        found.append([*y.detach().flatten().tolist(), *x.grad.flatten().tolist()])
    numpy.testing.assert_allclose(*found, rtol=1e-6)  # float32


def test_a_place_out_of_range(device: str) -> None:
    x, places = gpunet.ones(1, 1, 2, 2, device=device), gpunet.tensor([[[[0, 3], [16, 5]]]], device=device)
    with pytest.raises(OutOfRangeError, match=r"max_unpool2d: index 16 is out of bounds .* with size 16; expected 0 .. 15"):
        F.max_unpool2d(x, places, 2).tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, i: F.max_unpool2d(x, i[0], 2), ShapeError, r"max_unpool2d: indices has shape \(1, 2, 2\); expected that of"),
        (lambda x, i: F.max_unpool2d(x, x, 2), DtypeError, "max_unpool2d: indices has dtype float32; expected int64"),
        (lambda x, i: F.max_unpool2d(i, i, 2), DtypeError, "max_unpool2d: the input has dtype int64; expected a floating dtype"),
        (lambda x, i: F.max_unpool2d(x, i, 2, output_size=(6, 4)), ArgumentError,
         r"max_unpool2d: output_size=\(6, 4\); expected sizes from \(3, 3\) to \(5, 5\)"),
        (lambda x, i: F.max_unpool2d(x, i, 2, output_size=(4,)), ArgumentError, "expected 2 sizes, or 4 with batch and channels"),
        (lambda x, i: F.max_unpool1d(x, i, 2), ShapeError, "max_unpool1d: the input has shape"),
        (lambda x, i: F.max_unpool2d(x, i, 1, 1, 2), ShapeError, "expected 1 or more: pass less padding"),
        (lambda x, i: F.lp_pool2d(x, 0, 2), ArgumentError, "lp_pool2d: norm_type=0; expected another number"),
        (lambda x, i: F.lp_pool2d(x, 2, 5), ShapeError, "lp_pool2d: windows of kernel_size=5"),
        (lambda x, i: F.lp_pool1d(x, 2, 2), ShapeError, "lp_pool1d: the input has shape"),
    ],
)  # fmt: skip
def test_refusals(call: Callable[[Any, Any], Any], error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.ones(1, 1, 2, 2), gpunet.zeros(1, 1, 2, 2, dtype=int))
