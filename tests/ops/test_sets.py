"""Functions whose results are places and counts of elements, on all devices against NumPy, and in captured steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError, OutOfRangeError, ShapeError
from tests.ops.test_ops import to_numpy

VALUES = numpy.array([[3, 1, 1], [0, 3, 1]])


def test_nonzero(device: str) -> None:
    x = gpunet.tensor(VALUES, device=device)
    assert to_numpy(x.nonzero()).tolist() == numpy.argwhere(VALUES).tolist() == to_numpy(gpunet.argwhere(x)).tolist()
    assert [to_numpy(i).tolist() for i in x.nonzero(as_tuple=True)] == [i.tolist() for i in numpy.nonzero(VALUES)]
    assert x[x.nonzero(as_tuple=True)].tolist() == VALUES[VALUES.nonzero()].tolist()
    assert gpunet.tensor(5, device=device).nonzero().shape == (1, 0)


def test_unique(device: str) -> None:
    x = gpunet.tensor(VALUES, device=device)
    found = x.unique(return_inverse=True, return_counts=True)
    assert [t.tolist() for t in found] == [[0, 1, 3], [[2, 1, 1], [0, 2, 1]], [1, 3, 2]]
    found = gpunet.tensor([[1, 2], [0, 5], [1, 2]], device=device).unique(return_inverse=True, dim=0)
    assert [t.tolist() for t in found] == [[[0, 5], [1, 2]], [1, 0, 1]]
    found = x.unique_consecutive(return_inverse=True, return_counts=True)
    assert [t.tolist() for t in found] == [[3, 1, 0, 3, 1], [[0, 1, 1], [2, 3, 4]], [1, 2, 1, 1, 1]]
    rows = gpunet.tensor([[1, 2], [1, 2], [0, 2]], device=device).unique_consecutive(return_counts=True, dim=0)
    assert [t.tolist() for t in rows] == [[[1, 2], [0, 2]], [2, 1]]


def test_sorted_sequences(device: str) -> None:
    edges, values = gpunet.tensor([1.0, 3.0, 3.0, 7.0], device=device), gpunet.tensor([[0.0, 3.0], [8.0, 1.0]], device=device)
    for right in (False, True):
        expected = numpy.searchsorted(to_numpy(edges), to_numpy(values), side="right" if right else "left").tolist()
        assert gpunet.searchsorted(edges, values, right=right).tolist() == expected
        assert gpunet.bucketize(values, edges, right=right).tolist() == expected
    rows = gpunet.searchsorted(gpunet.stack([edges, edges + 1]), values)
    assert rows.tolist() == [[0, 1], [3, 0]]
    assert gpunet.searchsorted(edges, 5, out_int32=True).dtype == gpunet.int32


@pytest.mark.parametrize("right", [False, True])
def test_rows_of_sorted_sequences(right: bool, device: str, torch: Any) -> None:
    """A NaN among the values belongs behind all numbers; one at the end of a sequence stops no search before it."""
    numbers = numpy.random.RandomState(0)
    edges = numpy.sort(numbers.randint(0, 9, (3, 4, 7)), -1).astype("float32")
    values = numbers.randint(-1, 11, (3, 4, 5)).astype("float32")
    values[0, 0, 0], edges[1, 1, -2:] = numpy.nan, numpy.nan
    found = gpunet.searchsorted(gpunet.tensor(edges), gpunet.tensor(values), right=right)
    assert found.tolist() == torch.searchsorted(torch.tensor(edges), torch.tensor(values), right=right).tolist()


def test_counts(device: str) -> None:
    index, weights = gpunet.tensor([1, 4, 1], device=device), gpunet.tensor([0.5, 1.0, 2.0], device=device)
    assert gpunet.bincount(index).tolist() == [0, 2, 0, 0, 1]
    assert gpunet.bincount(index, weights, minlength=6).tolist() == [0.0, 2.5, 0.0, 0.0, 1.0, 0.0]
    assert gpunet.isin(index, gpunet.tensor([4, 7], device=device)).tolist() == [False, True, False]
    repeated = gpunet.tensor([[1, 2], [3, 4]], device=device).repeat_interleave(gpunet.tensor([1, 2], device=device), 0)
    assert repeated.tolist() == [[1, 2], [3, 4], [3, 4]]
    assert gpunet.repeat_interleave(gpunet.tensor([2, 0, 1], device=device)).tolist() == [0, 0, 2]


def test_errors(device: str) -> None:
    x = gpunet.tensor([1, -2], device=device)
    with pytest.raises(OutOfRangeError, match="bincount: the number -2 is negative"):
        gpunet.bincount(x)
    with pytest.raises(ShapeError, match=r"bincount: 4611686018427387905 counts; expected at most"):
        gpunet.bincount(gpunet.tensor([2**62], device=device))
    with pytest.raises(ArgumentError, match="repeat_interleave: repeats contain -2"):
        x.repeat_interleave(x)
    with pytest.raises(ShapeError, match=r"repeat_interleave: .*expected one integer, or 2"):
        x.repeat_interleave(gpunet.tensor([1, 1, 1], device=device))


@pytest.mark.parametrize("function", [
    lambda x: x.nonzero(), lambda x: x.unique(), lambda x: x.unique_consecutive(), gpunet.bincount, gpunet.repeat_interleave,
])  # fmt: skip
def test_a_captured_step_names_what_depends_on_values(function: Callable[[Any], Any]) -> None:
    with pytest.raises(CaptureError, match="whose shape depends on values"):
        gpunet.capture(lambda x: function(x).sum())(gpunet.tensor([1, 2]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ends", [(), (-1, 1), (-0.3, 0.7), (0.5, 0.5)])
@pytest.mark.parametrize("bins", [1, 7, 40])
def test_histograms_are_those_of_torch(bins: int, ends: tuple[float, ...], dtype: str, device: str, torch: Any) -> None:
    """Of numbers of one or two decimals, many of which are at the ends of intervals."""
    x = numpy.random.default_rng(bins).normal(size=(20, 20)).round(2).astype(dtype)
    x[:2] = x[:2].round(1)
    found = gpunet.histc(gpunet.tensor(x, device=device), bins, *ends)
    assert found.dtype == gpunet.tensor(x).dtype
    assert to_numpy(found).tolist() == torch.histc(torch.tensor(x), bins, *ends).tolist()


def test_histograms_leave_nan_out_and_count_exactly(device: str) -> None:
    x = gpunet.tensor([1.0, numpy.nan, numpy.inf, 2.0, -0.5], device=device)
    assert to_numpy(x.histc(2, 0, 2)).tolist() == [0.0, 2.0]
    assert to_numpy(gpunet.zeros(0, device=device).histc(3)).tolist() == [0.0, 0.0, 0.0]
    assert to_numpy(gpunet.ones(3000, dtype=gpunet.float16, device=device).histc(1, 0, 1)).tolist() == [3000.0]
    with pytest.raises(ArgumentError, match="histc: the range is from nan to nan; expected min < max, and a finite difference"):
        x.histc(2)
    with pytest.raises(ArgumentError, match="histc: bins=0; expected 1 or more"):
        x.histc(0)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_modes_are_those_of_torch(dim: int, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).integers(0, 3, (5, 4, 6))
    for keepdim in (False, True):
        found, expected = gpunet.tensor(x, device=device).mode(dim, keepdim), torch.tensor(x).mode(dim, keepdim)
        assert to_numpy(found.values).tolist() == expected.values.tolist()
        assert to_numpy(found.indices).tolist() == expected.indices.tolist()
    with pytest.raises(OutOfRangeError, match="mode: dimension 1 of shape"):
        gpunet.zeros(2, 0, device=device).mode(1)


def test_a_nan_among_weights_of_observations_is_refused() -> None:
    with pytest.raises(ArgumentError, match="cov: weights from nan"):
        gpunet.cov(gpunet.ones(2), aweights=gpunet.tensor([numpy.nan, 1.0]))
