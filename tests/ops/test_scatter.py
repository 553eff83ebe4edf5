"""Functions that reduce elements at indices: those that read values, so that no captured step can hold them, and errors."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from tests.ops.test_ops import to_numpy

INDEX = [[2, 0, 2], [1, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce_is_that_of_torch(reduce: str, include_self: bool, device: str, torch: Any) -> None:
    """Values and gradients, with zeros and equal numbers; elements that are left out tie with others in PyTorch."""
    generator = numpy.random.default_rng(0)
    arrays = [generator.integers(-2, 3, shape).astype("float64") for shape in ((3, 4), (3, 3))]
    arrays[0] += 0.0 if include_self else 0.5
    found = []
    for module, options in ((gpunet, {"device": device}), (torch, {})):
        x, v = (module.tensor(a, requires_grad=True, **options) for a in arrays)
        out = x.scatter_reduce(1, module.tensor(INDEX, **options), v, reduce, include_self=include_self)
        gradients = module.autograd.grad((out**3).sum(), [x, v])
        found.append([out, *gradients])
    for mine, theirs in zip(*found):
        numpy.testing.assert_allclose(to_numpy(mine), theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:index_reduce")  # PyTorch's API may change
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_index_reduce_is_that_of_torch(dim: int, reduce: str, include_self: bool, device: str, torch: Any) -> None:
    generator = numpy.random.default_rng(0)
    x, index = generator.normal(size=(4, 3, 5)), generator.integers(0, 3, 6)
    arrays, found = (x, numpy.moveaxis(generator.normal(size=(6, *numpy.delete(x.shape, dim))), 0, dim)), []
    for module, options in ((gpunet, {"device": device}), (torch, {})):
        a, v = (module.tensor(array, requires_grad=True, **options) for array in arrays)
        out = a.index_reduce(dim, module.tensor(index, **options), v, reduce, include_self=include_self)
        changed = module.tensor(x, **options).index_reduce_(dim, module.tensor(index, **options), v.detach(), reduce)
        found.append([out, changed, *module.autograd.grad((out**3).sum(), [a, v])])
    for mine, theirs in zip(*found):
        numpy.testing.assert_allclose(to_numpy(mine), theirs.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8"])
def test_integers_are_added_exactly(dtype: str, device: str) -> None:
    """Sums of the dtype, which wrap around, also of numbers that no floating dtype holds."""
    generator = numpy.random.default_rng(1)
    limits = numpy.iinfo(dtype)
    values = generator.integers(limits.min, limits.max, 40, dtype, endpoint=True)
    index = generator.integers(0, 5, 40)
    expected = numpy.ones(5, dtype)
    numpy.add.at(expected, index, values)
    x = gpunet.ones(5, dtype=dtype, device=device)
    found = x.index_add(0, gpunet.tensor(index, device=device), gpunet.tensor(values, device=device))
    assert to_numpy(found).tolist() == expected.tolist()
    multiplied = gpunet.full((2,), 3, device=device).scatter_(0, gpunet.tensor([0, 0], device=device), 5, reduce="multiply")
    assert to_numpy(multiplied).tolist() == [75, 3]


def test_errors_name_the_function(device: str) -> None:
    x, index = gpunet.zeros(3, 4, device=device), gpunet.tensor([[0, 4]], device=device)
    for call in (lambda: x.scatter(1, index, 1.0), lambda: x.scatter_add(1, index, x), lambda: x.index_fill(1, index[0], 0.0)):
        with pytest.raises(OutOfRangeError, match=r"^(scatter|scatter_add|index_fill): index 4 is out of bounds for dimension 1"):
            call().tolist()
    with pytest.raises(ShapeError, match=r"scatter: index has shape \(1, 2\), src \(1, 1\); expected at most the size of src"):
        x.scatter(1, index, x[:1, :1])
    with pytest.raises(DtypeError, match="index_add: source has dtype float64, the tensor float32"):
        x.index_add(0, index[0, :1], x[:1].double())
    with pytest.raises(DtypeError, match="index_add: alpha=.*0.5"):
        x.long().index_add(0, index[0, :1], x[:1].long(), alpha=gpunet.tensor(0.5))
    with pytest.raises(DtypeError, match="slice_scatter: step=None; expected an integer"):
        x.slice_scatter(x, step=None)
    with pytest.raises(ArgumentError, match=r"index_reduce: reduce='sum'; expected 'prod', .*\(index_add sums\)"):
        x.index_reduce(0, index[0, :1], x[:1], "sum")
    with pytest.raises(OutOfRangeError, match="index_reduce: index 4 is out of bounds for dimension 1"):
        x.index_reduce(1, index[0], x[:, :2], "prod").tolist()
    with pytest.raises(OutOfRangeError, match="masked_scatter: index 2 is out of bounds"):
        gpunet.zeros(4, device=device).masked_scatter(gpunet.ones(4, device=device) > 0, gpunet.ones(2, device=device)).tolist()


@pytest.mark.parametrize("reduce", ["amax", "amin", "prod"])
def test_reduction_of_long_runs_in_captured_steps(reduce: str, device: str, torch: Any) -> None:
    """Memory does not grow with the number of values of an element, and no value is read."""
    numbers = numpy.random.default_rng(0)
    index = numpy.concatenate([numpy.zeros(70, int), numbers.integers(1, 4, 9)])
    values = numbers.uniform(0.8, 1.2, (2, 79))

    places = gpunet.tensor(index, device=device)

    @gpunet.capture
    def step(x: Any, src: Any) -> Any:
        x, src = (x * 1).requires_grad_(), (src * 1).requires_grad_()
        y = x.scatter_reduce(0, places, src, reduce)
        return y, *gpunet.autograd.grad(y.sum(), [x, src])

    for source in values:
        x, theirs = numpy.ones(5), torch.ones(5, dtype=torch.float64, requires_grad=True)
        found = step(gpunet.tensor(x, device=device), gpunet.tensor(source, device=device))
        src = torch.tensor(source, requires_grad=True)
        y = theirs.scatter_reduce(0, torch.tensor(index), src, reduce)
        expected = [y, *torch.autograd.grad(y.sum(), [theirs, src])]
        for a, b in zip(found, expected):
            numpy.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["amax", "amin", "prod"])
def test_reductions_keep_the_sign_of_zero(reduce: str, include_self: bool, device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        x, src = module.tensor([-0.0, -0.0, 1.0, -2.0], **place), module.tensor([-0.0, -0.0, 3.0, 0.0], **place)
        index = module.tensor([0, 0, 2, 3], **place)
        results.append(x.scatter_reduce(0, index, src, reduce, include_self=include_self).cpu().numpy())
    numpy.testing.assert_array_equal(*results)
    numpy.testing.assert_array_equal(*map(numpy.signbit, results))
