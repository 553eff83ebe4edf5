"""Views with strides, replaced views, windows, histograms, renorm and their kin, beside PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, OutOfRangeError, ShapeError
from tests.ops.beside_torch import check_values_and_gradients

#: Calls of a library and tensors of these shapes, whose results and gradients are PyTorch's.
CALLS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "as_strided": (lambda t, x: x.as_strided((3, 2), (2, 1), 1), ((2, 4),)),
    "as_strided overlapping": (lambda t, x: t.as_strided(x, (4, 3), (1, 1)), ((6,),)),
    "as_strided of an expanded": (lambda t, x: (x * 1.0).expand(3, 2).as_strided((2, 2), (0, 1)), ((1, 2),)),
    "as_strided of a slice": (lambda t, x: (x * 1.0)[:, 1:].as_strided((2, 3), (3, 1)), ((2, 4),)),
    "as_strided_scatter": (lambda t, x, y: t.as_strided_scatter(x.detach(), y, (2, 2), (3, 1), 1) + x * 0.0, ((3, 4), (2, 2))),
    "diagonal_scatter": (lambda t, x, y: x.diagonal_scatter(y, 1, 2, 0), ((3, 2, 4), (2, 2))),
    "fill_diagonal_": (lambda t, x: (x * 1.0).fill_diagonal_(5.0, wrap=True), ((7, 3),)),
    "renorm": (lambda t, x: x.renorm(2, 1, 0.7), ((3, 2, 4),)),
    "renorm 1": (lambda t, x: t.renorm(x, 1, 0, 1.5), ((3, 2),)),
    "frexp": (lambda t, x: t.frexp(x).mantissa, ((3, 4),)),
    "adjoint": (lambda t, x: t.adjoint(x) @ x.mH.adjoint(), ((2, 3, 3),)),
    "H": (lambda t, x: x.H * 1.0, ((2, 3),)),
    "sum_to_size": (lambda t, x: x.sum_to_size(1, 3), ((4, 2, 3),)),
    "split_with_sizes": (lambda t, x: x.split_with_sizes([1, 3])[1], ((4, 2),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(name: str, torch: Any, device: str) -> None:
    call, shapes = CALLS[name]
    check_values_and_gradients(call, shapes, torch, device, 1e-10)


WINDOWS = ("bartlett", "blackman", "hamming", "hann", "kaiser")


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str, torch: Any) -> None:
    for length in (0, 1, 2, 7, 16):
        for periodic in (True, False):
            ours, theirs = (getattr(t, f"{name}_window")(length, periodic, dtype=t.float64) for t in (gpunet, torch))
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, atol=1e-15)
    numpy.testing.assert_allclose(gpunet.kaiser_window(9, True, 4.0), torch.kaiser_window(9, True, 4.0), rtol=2e-6)


def test_ranges(torch: Any) -> None:
    for options in ({}, {"dtype": "int32"}, {"dtype": "float64"}):
        for call in (lambda t, o: t.logspace(-1, 3, 7, **o), lambda t, o: t.logspace(0, 4, 5, 2.0, **o)):
            ours, theirs = (call(t, {k: getattr(t, v) for k, v in options.items()}) for t in (gpunet, torch))
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    with pytest.warns(UserWarning, match="deprecated"):
        assert gpunet.range(1, 4).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert gpunet.scalar_tensor(2).dtype == gpunet.float32


def test_histograms(torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(40, 2))
    w = numpy.random.default_rng(1).random(80)
    for call in (
        lambda t, x, w: t.histogram(x, 7), lambda t, x, w: x.histogram(5, range=(-1.0, 2.0)),
        lambda t, x, w: t.histogram(x.reshape(-1), t.tensor([-2.0, 0.0, 0.5, 3.0], dtype=t.float64), weight=w, density=True),
        lambda t, x, w: t.histogramdd(x, [3, 4], weight=w[:40]), lambda t, x, w: t.histogramdd(x, 3, range=[-1.0, 1.0, -2.0, 2.0]),
    ):  # fmt: skip
        (ours, our_edges), (theirs, their_edges) = (call(t, t.tensor(x), t.tensor(w)) for t in (gpunet, torch))
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)
        for a, b in zip(our_edges, their_edges):
            numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    with pytest.raises(ArgumentError, match="the range is from -inf"):
        gpunet.histogram(gpunet.tensor([-math.inf, 1.0]), 3)
    with pytest.raises(ArgumentError, match="monotonically increasing"):
        gpunet.histogram(gpunet.zeros(2), gpunet.tensor([1.0, 0.0]))


def test_places() -> None:
    x = gpunet.arange(24).reshape(2, 3, 4)
    rows, columns, depth = gpunet.unravel_index(gpunet.tensor([0, 17, 23]), (2, 3, 4))
    assert x[rows, columns, depth].tolist() == [0, 17, 23]
    assert gpunet.broadcast_shapes((2, 1), 3, (1, 1, 1)) == (1, 2, 3)
    assert gpunet.is_same_size(x, x) and not x.is_same_size(x[0])


def test_refusals() -> None:
    x = gpunet.zeros(4)
    with pytest.raises(OutOfRangeError, match="end at element 5 of 4"):
        x.as_strided((2, 2), (2, 2))
    with pytest.raises(ArgumentError, match="no negative number"):
        x.as_strided((2,), (-1,))
    with pytest.raises(ShapeError, match=r"src has shape \(2,\); expected \(3,\)"):
        gpunet.diagonal_scatter(gpunet.zeros(3, 3), gpunet.ones(2))
    with pytest.raises(ShapeError, match="at least two dimensions"):
        x.fill_diagonal_(1.0)
    with pytest.raises(ShapeError, match="broadcast"):
        gpunet.broadcast_shapes((2,), (3,))


def test_gradient_of_what_as_strided_scatter_keeps() -> None:
    x = gpunet.ones(2, 3, requires_grad=True)
    gpunet.as_strided_scatter(x, gpunet.zeros(2), (2,), (2,), 1).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]


def test_as_strided_is_a_view() -> None:
    x = gpunet.zeros(6)
    x.as_strided((2, 2), (3, 1)).fill_(1.0)
    assert x.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert x.as_strided_((2, 3), (3, 1)).shape == (2, 3)
