"""unfold and fold, and their layers: values and gradients against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, GpunetError, ShapeError

F = nn.functional


def results(module: Any, name: str, x: numpy.ndarray, arguments: Any, device: Any = "cpu") -> list[numpy.ndarray]:
    """Output, gradient and the gradient of the sum of its squares, of either library."""
    tensor = module.tensor(x, device=device, requires_grad=True)
    y = getattr(module.nn.functional, name)(tensor, *arguments)
    weight = module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape)), device=device)
    grad = module.grad if module is gpunet else module.autograd.grad
    (first,) = grad((y * weight + y * y).sum(), [tensor], create_graph=True)
    (second,) = grad((first * first).sum(), [tensor])
    return [t.detach().cpu().numpy() for t in (y, first, second)]


def compare(name: str, x: numpy.ndarray, arguments: Any, device: Any, torch: Any) -> None:
    for mine, theirs in zip(results(gpunet, name, x, arguments, device), results(torch, name, x, arguments)):
        assert mine.shape == theirs.shape
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


WINDOWS = tuple(itertools.product((2, (3, 1)), (1, (2, 1)), (0, (1, 2)), (1, (1, 3))))  # kernel_size, dilation, padding, stride


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_unfold_and_fold_are_those_of_torch(windows: Any, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(2, 3, 7, 6))
    compare("unfold", x, windows, device, torch)
    columns = torch.nn.functional.unfold(torch.tensor(x), *windows).numpy()
    compare("fold", numpy.random.default_rng(2).normal(size=columns.shape), ((7, 6), *windows), device, torch)
    compare("fold", columns[0], ((7, 6), *windows), device, torch)
    compare("unfold", x[0], windows, device, torch)


@pytest.mark.parametrize("function, shape, arguments, error, message", [
    ("unfold", (4, 4), (2,), ShapeError, r"the input has shape \(4, 4\)"), ("unfold", (1, 1, 2, 2), (3,), ShapeError, "that fit"),
    ("unfold", (1, 1, 4, 4), (0,), ArgumentError, "kernel_size=0"), ("fold", (1, 5, 4), ((3, 3), 2), ShapeError, "multiple of 4"),
    ("fold", (1, 4, 5), ((3, 3), 2), ShapeError, r"shape \(1, 4, 5\)"), ("fold", (1, 4, 4), (0, 2), ArgumentError, "output_size=0"),
])  # fmt: skip
def test_refusals(function: str, shape: Any, arguments: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=f"^{function}: .*{message}"):
        getattr(F, function)(gpunet.ones(*shape), *arguments)


@pytest.mark.parametrize("name, arguments, shape", [
    ("Unfold", (3, 1, 1, 2), (2, 3, 6, 6)), ("Fold", ((6, 6), 2, 1, 0, 2), (2, 8, 9)),
])  # fmt: skip
def test_layers_are_those_of_torch(name: str, arguments: Any, shape: Any, torch: Any) -> None:
    mine, theirs = (getattr(m.nn, name)(*arguments) for m in (gpunet, torch))
    x = numpy.random.default_rng(0).normal(size=shape)
    assert repr(mine) == repr(theirs)
    numpy.testing.assert_allclose(mine(gpunet.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), rtol=1e-12)
