"""grid_sample and affine_grid: values and gradients against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from tests.ops.test_ops import to_numpy

F = gpunet.nn.functional


def results(module: Any, arrays: list[numpy.ndarray], options: dict[str, Any], device: Any = "cpu") -> list[numpy.ndarray]:
    """Output and gradients of either library."""
    tensors = [module.tensor(a, device=device, requires_grad=True) for a in arrays]
    y = module.nn.functional.grid_sample(*tensors, **options)
    y.backward(module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape)), device=device))
    return [t.detach().cpu().numpy() for t in (y, *(t.grad for t in tensors))]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_values_and_gradients_are_those_of_torch(dims: int, mode: str, padding: str, align: bool, device: str, torch: Any) -> None:
    if mode == "bicubic" and dims == 3:
        pytest.skip("of images only")
    generator = numpy.random.default_rng(0)
    x, grid = generator.normal(size=(2, 3, 5, 4, 3)[: dims + 2]), generator.uniform(-2.5, 2.5, size=(2, *(3, 6, 2)[:dims], dims))
    options = {"mode": mode, "padding_mode": padding, "align_corners": align}
    for mine, theirs in zip(results(gpunet, [x, grid], options, device), results(torch, [x, grid], options)):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def test_second_derivatives(torch: Any) -> None:
    """Against differences of the gradients of PyTorch, which has no second derivatives."""
    generator = numpy.random.default_rng(0)
    arrays = generator.normal(size=(1, 2, 4, 4)), generator.uniform(-0.9, 0.9, size=(1, 3, 3, 2))

    def gradients(module: Any, moved: Any) -> tuple[list[Any], list[Any]]:
        tensors = [module.tensor(a, requires_grad=True) for a in moved]
        grad = module.grad if module is gpunet else module.autograd.grad
        y = module.nn.functional.grid_sample(*tensors, align_corners=False)
        return tensors, grad((y * y).sum(), tensors, create_graph=module is gpunet)

    tensors, first = gradients(gpunet, arrays)
    second = [to_numpy(t) for t in gpunet.grad(sum((g * g).sum() for g in first), tensors)]
    step = 1e-6
    for place, array in enumerate(arrays):
        direction = generator.normal(size=array.shape)
        ends = []
        for sign in (1, -1):
            moved = [a + sign * step * direction if i == place else a for i, a in enumerate(arrays)]
            ends.append(sum(float((g * g).sum()) for g in gradients(torch, moved)[1]))
        numpy.testing.assert_allclose((second[place] * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior:UserWarning")
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 1), (2, 3, 4, 5, 2)])
@pytest.mark.parametrize("align", [False, True])
def test_affine_grid_is_that_of_torch(size: tuple[int, ...], align: bool, device: str, torch: Any) -> None:
    theta = numpy.random.default_rng(0).normal(size=(2, len(size) - 2, len(size) - 1))
    found = []
    for module, where in ((gpunet, device), (torch, "cpu")):
        t = module.tensor(theta, device=where, requires_grad=True)
        grid = module.nn.functional.affine_grid(t, size, align_corners=align)
        (grid * grid).sum().backward()
        found.append([a.detach().cpu().numpy() for a in (grid, t.grad)])
    for mine, theirs in zip(*found):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtypes(dtype: str, device: str) -> None:
    kind, generator = getattr(gpunet, dtype), numpy.random.default_rng(0)
    x, grid = (gpunet.tensor(generator.uniform(-1, 1, s), device=device).to(kind) for s in ((1, 2, 4, 4), (1, 3, 3, 2)))
    y, exact = F.grid_sample(x, grid), F.grid_sample(x.double(), grid.double())
    assert y.dtype == kind
    numpy.testing.assert_allclose(to_numpy(y.double()), to_numpy(exact), rtol=1e-3 if dtype == "float16" else 1e-5, atol=1e-3)


def test_a_captured_step_moves_an_image(device: str) -> None:
    def step(x: Any, theta: Any) -> Any:
        return F.grid_sample(x, F.affine_grid(theta, (1, 1, 5, 5)))

    captured, x = gpunet.capture(step), gpunet.rand(1, 1, 5, 5, device=device)
    for shift in (0.0, 0.4, 0.8):
        theta = gpunet.tensor([[[1.0, 0.0, shift], [0.0, 1.0, 0.0]]], device=device)
        numpy.testing.assert_allclose(to_numpy(captured(x, theta)), to_numpy(step(x, theta)), rtol=1e-5, atol=1e-6)
    assert len(captured.recordings) == 1


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_positions_that_are_nan_give_nan(mode: str, padding: str, device: str) -> None:
    grid = gpunet.tensor([[[[float("nan"), 0.0], [0.0, 0.0]]]], device=device)
    y = F.grid_sample(gpunet.ones(1, 1, 3, 3, device=device), grid, mode, padding)
    assert numpy.isnan(to_numpy(y)).reshape(-1).tolist() == [True, False]


REFUSED = (
    ((1, 1, 4, 4), (2, 3, 3, 2), {}, ShapeError, r"grid has shape \(2, 3, 3, 2\); expected \(1, ..., 2\)"),
    ((1, 1, 4, 4), (1, 3, 3, 3), {}, ShapeError, "grid has shape"), ((4, 4), (1, 3, 3, 2), {}, ShapeError, r"shape \(4, 4\)"),
    ((1, 1, 4, 4), (1, 3, 3, 2), {"mode": "linear"}, ArgumentError, "mode='linear'; expected one of 'bilinear'"),
    ((1, 1, 4, 4), (1, 3, 3, 2), {"padding_mode": "wrap"}, ArgumentError, "padding_mode='wrap'; expected one of 'zeros'"),
    ((1, 1, 4, 4, 4), (1, 3, 3, 3, 3), {"mode": "bicubic"}, ArgumentError, "mode='bicubic' with volumes"),
)  # fmt: skip


@pytest.mark.parametrize("x, grid, options, error, message", REFUSED)
def test_refusals(x: Any, grid: Any, options: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=f"^grid_sample: .*{message}"):
        F.grid_sample(gpunet.ones(*x), gpunet.ones(*grid), **options)


def test_refusals_of_dtypes_and_sizes() -> None:
    with pytest.raises(DtypeError, match="grid_sample: input of dtype float32, grid of float64"):
        F.grid_sample(gpunet.ones(1, 1, 2, 2), gpunet.ones(1, 2, 2, 2).double())
    for size, message in itertools.product(((1, 1, 2), (1, 1, 0, 2)), ("affine_grid: size=",)):
        with pytest.raises(ShapeError, match=message):
            F.affine_grid(gpunet.ones(1, 2, 3), size)
    with pytest.raises(ShapeError, match=r"affine_grid: theta has shape \(1, 2, 3\); expected \(2, 2, 3\)"):
        F.affine_grid(gpunet.ones(1, 2, 3), (2, 1, 4, 4))
