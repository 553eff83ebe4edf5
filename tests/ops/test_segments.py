"""Reductions of segments, differences, distances of pairs, products of groups, fractional pooling, static places and hashes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from tests.ops.beside_torch import check_complex, check_values_and_gradients

F = gpunet.nn.functional
REDUCTIONS = ("sum", "mean", "max", "min", "prod")


def _lengths(library: Any, x: Any, numbers: Any) -> Any:
    return library.tensor(numbers, device=x.device)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("initial", [None, 0.5])
def test_segments(reduce: str, initial: float | None, torch: Any, device: str) -> None:
    calls: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
        (lambda t, x: t.segment_reduce(x, reduce, lengths=_lengths(t, x, [2, 1, 3]), initial=initial), (6, 2)),
        (lambda t, x: t.segment_reduce(x, reduce, offsets=_lengths(t, x, [0, 2, 5]), initial=initial), (5,)),
        (lambda t, x: t.segment_reduce(x, reduce, lengths=_lengths(t, x, [[1, 2], [3, 0]]), axis=1, initial=0.25), (2, 3, 2)),
    ]
    for call, shape in calls:
        check_values_and_gradients(call, (shape,), torch, device, 1e-10)


@pytest.mark.parametrize("offsets", [[1, 4], [0, 2], [3, 3, 4], [1, 1, 3]])
def test_offsets_leave_elements_out(offsets: list[int], torch: Any) -> None:
    numbers = [1.0, 2.0, 3.0, 4.0]
    expected = torch.segment_reduce(torch.tensor(numbers), "sum", offsets=torch.tensor(offsets))
    for unsafe in (False, True):
        found = gpunet.segment_reduce(gpunet.tensor(numbers), "sum", offsets=gpunet.tensor(offsets), unsafe=unsafe)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("initial", [0.0, 2.0, float("nan")])
def test_extremes_beside_the_initial_value(reduce: str, initial: float, torch: Any) -> None:
    """An element that equals the initial value has the whole gradient."""
    found, results = [], []
    for t in (gpunet, torch):
        x = t.tensor([[2.0, 0.0], [0.0, 0.0], [2.0, -1.0], [2.0, 3.0]], requires_grad=True)
        y = t.segment_reduce(x, reduce, lengths=t.tensor([2, 0, 2]), initial=initial)
        (y[0] * 3.0 + y[2] * 4.0).sum().backward()
        results.append(y.detach().numpy())
        found.append(x.grad.numpy())
    numpy.testing.assert_array_equal(*results)
    numpy.testing.assert_array_equal(*found)


def test_results_are_contiguous() -> None:
    x = gpunet.ones(2, 3)
    sums = gpunet.segment_reduce(x, "sum", lengths=gpunet.tensor([[2, 1], [0, 3]]), axis=1)
    assert sums.view(-1).tolist() == [2.0, 1.0, 0.0, 3.0]
    assert gpunet.gradient(x)[0].view(-1).tolist() == [0.0] * 6
    assert gpunet.linalg.eigvals(gpunet.eye(2).expand(3, 2, 2)).view(-1).shape == (6,)
    assert gpunet.linalg.eigh(gpunet.eye(2).expand(3, 2, 2)).eigenvalues.view(-1).shape == (6,)


def test_empty_segments_and_errors(torch: Any) -> None:
    x = numpy.arange(4.0)
    for reduce in REDUCTIONS:
        for options in ({}, {"initial": 2.0}):
            ours, theirs = (
                t.segment_reduce(t.tensor(x), reduce, lengths=t.tensor([2, 0, 1]), unsafe=True, **options) for t in (gpunet, torch)
            )
            numpy.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    lengths = gpunet.tensor([2, 1])
    for message, call in {
        "lengths=.2, 1. of an axis of size 4": lambda: gpunet.segment_reduce(x, "sum", lengths=lengths),
        "reduce='average'": lambda: gpunet.segment_reduce(x, "average", lengths=lengths),
        "expected lengths or offsets": lambda: gpunet.segment_reduce(x, "sum"),
        "data of dtype int64": lambda: gpunet.segment_reduce(x.astype(int), "sum", lengths=lengths),
        "lengths of dtype float32": lambda: gpunet.segment_reduce(x, "sum", lengths=lengths.float()),
    }.items():
        with pytest.raises((ArgumentError, ShapeError, DtypeError), match=f"segment_reduce: {message}"):
            call()


#: Calls whose values, gradients and second derivatives are PyTorch's.
CALLS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "gradient": (lambda t, x: t.gradient(x)[1], ((4, 5),)),
    "gradient of distances": (
        lambda t, x: t.cat([g.reshape(-1) for g in t.gradient(x, spacing=[0.5, 2.0], edge_order=2)]), ((4, 5),)
    ),
    "gradient of one distance": (lambda t, x: t.gradient(x, spacing=0.25, dim=0)[0], ((4, 5),)),
    "gradient of positions": (lambda t, x, p: t.gradient(x, spacing=(p.exp().cumsum(0),), dim=1)[0], ((4, 5), (5,))),
    "gradient of positions, order 2": (
        lambda t, x, p: t.gradient(x, spacing=(p.exp().cumsum(0),), dim=[0], edge_order=2)[0], ((4, 2), (4,))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_differences(name: str, torch: Any, device: str) -> None:
    call, shapes = CALLS[name]
    arrays = [numpy.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    check_complex(call, arrays, torch, device, 1e-9)


def test_refused_differences() -> None:
    with pytest.raises(DtypeError, match="gradient: the tensor has dtype uint8"):
        gpunet.gradient(gpunet.tensor([2, 5, 1], dtype=gpunet.uint8))
    x = gpunet.ones(2, 3)
    for message, options in {
        "edge_order=3": {"edge_order": 3}, "spacing=.1.0. for 2 dimensions": {"spacing": [1.0]},
        "expected 3 samples or more in dimension 0": {"edge_order": 2},
        "positions of shape .2,. for 3 samples": {"spacing": [gpunet.ones(2)], "dim": 1},
    }.items():  # fmt: skip
        with pytest.raises((ArgumentError, ShapeError), match=f"gradient: .*{message}"):
            gpunet.gradient(x, **options)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, float("inf")])
def test_pair_distances(p: float, torch: Any, device: str) -> None:
    check_values_and_gradients(lambda t, x: t.nn.functional.pdist(x, p), ((5, 3),), torch, device, 1e-9)


def test_refused_pair_distances() -> None:
    assert gpunet.pdist(gpunet.zeros(1, 3)).shape == (0,) and gpunet.pdist(gpunet.ones(3, 0)).tolist() == [0.0] * 3
    assert gpunet.pdist(gpunet.tensor([[0.0, 1.0], [0.0, 3.0]]), 0).tolist() == [1.0]
    with pytest.raises(ShapeError, match="pdist: the tensor has shape"):
        gpunet.pdist(gpunet.ones(3))
    with pytest.raises(ArgumentError, match="pdist: p=-1"):
        gpunet.pdist(gpunet.ones(3, 2), -1)


# ---- products of groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [((7, 4), (3, 4, 2)), ((3, 5, 4), (4, 7)), ((5, 7), (7, 2)), ((3, 5, 4), (3, 4, 2))])
def test_grouped_products(a: tuple[int, ...], b: tuple[int, ...], torch: Any, device: str) -> None:
    def call(t: Any, x: Any, y: Any) -> Any:
        offs = None if len(a) == len(b) == 3 else t.tensor([2, 5, 7], dtype=t.int32, device=x.device)
        return t.nn.functional.grouped_mm(x, y, offs=offs) if t is gpunet else _by_hand(t, x, y, offs)

    check_values_and_gradients(call, (a, b), torch, device, 1e-10)


def _by_hand(torch: Any, x: Any, y: Any, offs: Any) -> Any:
    if offs is None:
        return x @ y
    ends = [0, *offs.tolist()]
    spans = [slice(*pair) for pair in itertools.pairwise(ends)]
    if x.ndim == y.ndim:
        return torch.stack([x[:, s] @ y[s] for s in spans])
    if y.ndim == 3:
        return torch.cat([x[s] @ y[i] for i, s in enumerate(spans)])
    return torch.cat([x[i] @ y[:, s] for i, s in enumerate(spans)], 1)


def test_grouped_products_are_those_of_torch(torch: Any) -> None:
    a, b = numpy.random.default_rng(0).normal(size=(7, 16)).astype("float32"), numpy.random.default_rng(1).normal(size=(3, 16, 8))
    found = [
        t.nn.functional.grouped_mm(t.tensor(a), t.tensor(b.astype("float32")), offs=t.tensor([2, 2, 7], dtype=t.int32)).numpy()
        for t in (gpunet, torch)
    ]
    numpy.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)
    half, groups, offs = gpunet.ones(4, 8).bfloat16(), gpunet.ones(2, 8, 3).bfloat16(), gpunet.tensor([1, 3], dtype=gpunet.int32)
    assert F.grouped_mm(half, groups, offs=offs, out_dtype=gpunet.float32)[:, 0].tolist() == [8.0, 8.0, 8.0, 0.0]
    refused: dict[str, dict[str, Any]] = {"bias": {"bias": half}, "offs=None": {"offs": None}, "offs has": {"offs": offs.long()}}
    for message, options in refused.items():
        with pytest.raises((ArgumentError, DtypeError), match=f"grouped_mm: {message}"):
            F.grouped_mm(half, groups, **{"offs": offs} | options)


# ---- fractional pooling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("fractional_max_pool2d", (2, 3, 7, 9), {"kernel_size": (2, 3), "output_size": (3, 4)}),
        ("fractional_max_pool2d", (2, 3, 7, 9), {"kernel_size": 2, "output_ratio": (0.5, 0.5)}),
        ("fractional_max_pool2d", (3, 5, 5), {"kernel_size": 2, "output_size": (1, 3)}),
        ("fractional_max_pool3d", (1, 2, 6, 7, 5), {"kernel_size": 2, "output_size": (2, 3, 2)}),
        ("fractional_max_pool3d", (2, 6, 7, 5), {"kernel_size": (1, 2, 2), "output_ratio": (0.5, 0.6, 0.5)}),
    ],
)
def test_fractional_pooling(name: str, shape: tuple[int, ...], options: dict[str, Any], torch: Any, device: str) -> None:
    dims = int(name[-2])
    batch = shape[0] if len(shape) == dims + 2 else 1
    samples = numpy.random.default_rng(3).uniform(size=(batch, shape[-dims - 1], dims))

    def call(t: Any, x: Any, indices: bool = False) -> Any:
        drawn = t.tensor(samples, **({"device": x.device} if t is gpunet else {}))
        return getattr(t.nn.functional, name)(x, **options, return_indices=indices, _random_samples=drawn)

    check_values_and_gradients(call, (shape,), torch, device, 1e-12)
    x = numpy.random.default_rng(0).normal(size=shape)
    ours, theirs = call(gpunet, gpunet.tensor(x, device=device), True)[1], call(torch, torch.tensor(x), True)[1]
    numpy.testing.assert_array_equal(ours.cpu().numpy(), theirs.numpy())
    again = getattr(F, f"{name}_with_indices")(gpunet.tensor(x, device=device), **options)
    assert tuple(again[0].shape) == tuple(theirs.shape) and again[1].dtype == gpunet.int64


def test_refused_fractional_pooling() -> None:
    x = gpunet.ones(1, 1, 4, 4)
    for message, options in {
        "output_size=None, output_ratio=None": {}, "output_ratio=1.5": {"output_ratio": 1.5},
        "a result of .2, 3.": {"kernel_size": 4, "output_ratio": (0.5, 0.75)}, "a result of .5, 5.": {"output_size": 5},
        "_random_samples have shape": {"output_size": 2, "_random_samples": gpunet.ones(1, 1, 3)},
    }.items():  # fmt: skip
        with pytest.raises((ArgumentError, ShapeError), match=f"fractional_max_pool2d: .*{message}"):
            F.fractional_max_pool2d(x, **{"kernel_size": 2} | options)


# ---- places and hashes ------------------------------------------------------------------------------------------------


def test_static_places(torch: Any, device: str) -> None:
    x = numpy.array([[0.0, 2.0], [3.0, 0.0], [4.0, 5.0]])
    for size in (0, 2, 4, 6):
        ours = gpunet.nonzero_static(gpunet.tensor(x, device=device), size=size, fill_value=7)
        theirs = torch.nonzero_static(torch.tensor(x), size=size, fill_value=7)
        assert ours.tolist() == theirs.tolist() and tuple(ours.shape) == tuple(theirs.shape)
    with pytest.raises(ArgumentError, match="nonzero_static: size=-1"):
        gpunet.tensor(x).nonzero_static(size=-1)


def test_hashes(torch: Any, device: str) -> None:
    numbers = numpy.random.default_rng(0).normal(size=(3, 5, 2))
    for given in (numbers, (9 * numbers).astype("int32"), numbers > 0, numbers.astype("float32")):
        for options in ({}, {"dim": 1}, {"dim": (0, 2), "keepdim": True}):
            ours = gpunet.hash_tensor(gpunet.tensor(given, device=device), **options)
            theirs = torch.hash_tensor(torch.tensor(given), **options)
            assert ours.tolist() == theirs.tolist() and ours.dtype == gpunet.uint64
    with pytest.raises(ArgumentError, match="hash_tensor: mode=1"):
        gpunet.ones(2).hash_tensor(mode=1)
    with pytest.raises(ShapeError, match="hash_tensor: dimensions"):
        gpunet.ones(0).hash_tensor()
