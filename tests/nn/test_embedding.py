"""Embedding and EmbeddingBag against PyTorch's: states, padding, norms, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GpunetError, InPlaceError, OutOfRangeError, ShapeError
from tests.ops.test_ops import to_numpy

F = nn.functional
INDEX = numpy.array([[1, 4, 0], [4, 4, 2]])


def test_layer_trains_as_pytorchs(torch: Any, device: str) -> None:
    table = numpy.random.default_rng(0).normal(size=(5, 3))
    losses = []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        layer = library.nn.Embedding(5, 3, padding_idx=-1, dtype=library.float64, **place)
        layer.load_state_dict({"weight": library.tensor(table)})
        optimizer = library.optim.Adam(layer.parameters(), 0.1)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = (layer(library.tensor(INDEX, **place)) ** 2).sin().sum()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
        losses[-1] += layer.weight.flatten().tolist()
        assert repr(layer) == "Embedding(5, 3, padding_idx=4)"
    numpy.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}])
def test_the_first_of_equal_maxima_receives_the_gradient(options: dict[str, int], torch: Any, device: str) -> None:
    """Of bags as rows, and one after the other with empty ones between; a NaN is the maximum."""
    table = numpy.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [3.0, 2.0, 4.0], [0.0, 2.0, 4.0], [-1.0, -2.0, -3.0]])
    for index, offsets in (([[0, 1, 2], [2, 1, 3], [1, 1, 1]], None), ([1, 2, 4, 3, 0, 1], [0, 2, 2, 3, 6])):
        found = []
        for library, place in ((gpunet, {"device": device}), (torch, {})):
            weight = library.tensor(table, requires_grad=True, **place)
            starts = None if offsets is None else library.tensor(offsets, **place)
            y = library.nn.functional.embedding_bag(library.tensor(index, **place), weight, starts, mode="max", **options)
            (y * library.arange(1.0, 1.0 + y.numel(), **place).reshape(y.shape)).sum().backward()
            found.append([y.tolist(), weight.grad.tolist()])
        assert found[0] == found[1]
    y = F.embedding_bag(gpunet.tensor([[0, 1]], device=device), gpunet.tensor([[1.0], [math.nan]], device=device), mode="max")
    assert math.isnan(y.item())


def test_initial_values() -> None:
    gpunet.manual_seed(0)
    weight = nn.Embedding(1000, 8, padding_idx=3).weight
    assert abs(weight.mean().item()) < 0.03 and abs(weight.std().item() - 1) < 0.03 and weight[3].tolist() == [0.0] * 8
    table = gpunet.ones(4, 2)
    frozen, learned = nn.Embedding.from_pretrained(table), nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="sum")
    assert not frozen.weight.requires_grad and learned.weight.requires_grad and learned.mode == "sum"
    table += 1
    assert frozen.weight.tolist() == [[2.0, 2.0]] * 4


def test_rows_of_large_norm_are_scaled_in_place(torch: Any, device: str) -> None:
    table = numpy.random.default_rng(0).normal(size=(5, 3))
    for order in (2.0, 1.0):
        weights = []
        for library, place in ((gpunet, {"device": device}), (torch, {})):
            weight = library.tensor(table, requires_grad=True, **place)
            library.nn.functional.embedding(library.tensor(INDEX, **place), weight, max_norm=1.0, norm_type=order).sum().backward()
            weights += [weight.detach().tolist(), weight.grad.tolist()]
        numpy.testing.assert_allclose(weights[:2], weights[2:], rtol=1e-12)
    weight = gpunet.tensor(table, requires_grad=True, device=device)
    y = F.embedding(gpunet.tensor(INDEX, device=device), weight * weight)
    y.sum().backward()
    squared = (weight * weight).sum()
    F.embedding(gpunet.tensor(INDEX, device=device), weight, max_norm=0.1)
    with pytest.raises(InPlaceError):
        squared.backward()


def test_gradient_of_frequent_rows_is_summed_in_order(device: str) -> None:
    """Long runs of one row among short ones, on every path of the sum."""
    numbers = numpy.random.default_rng(0)
    index = numpy.concatenate([numpy.zeros(500, int), numbers.integers(0, 40, 200), numpy.ones(60, int)])
    numbers.shuffle(index)
    dy = numbers.normal(size=(760, 3)).astype("float32")
    weight = gpunet.zeros(40, 3, device=device).requires_grad_()
    F.embedding(gpunet.tensor(index, device=device), weight).backward(gpunet.tensor(dy, device=device))
    expected = numpy.zeros((40, 3), "float32")
    for row, values in zip(index, dy):
        expected[row] += values
    assert to_numpy(weight.grad).tobytes() == expected.tobytes()


OPTIONS: list[dict[str, Any]] = [
    {"padding_idx": 4}, {"scale_grad_by_freq": True}, {"padding_idx": -1, "scale_grad_by_freq": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_by_padding_and_frequency(options: dict[str, Any], torch: Any, device: str) -> None:
    """The first ones, and the second ones of a function of the rows: as PyTorch's, which has no second one of frequencies."""
    table, found = numpy.random.default_rng(0).normal(size=(5, 3)), []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        weight = library.tensor(table, requires_grad=True, **place)
        y = library.nn.functional.embedding(library.tensor(INDEX, **place), weight, **options)
        (dw,) = library.autograd.grad((y**3).sum(), weight, create_graph="scale_grad_by_freq" not in options)
        found.append([dw.tolist()])
        if "scale_grad_by_freq" not in options:
            (dw**2).sum().backward()
            found[-1].append(weight.grad.tolist())
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_empty_inputs(device: str) -> None:
    weight = gpunet.ones(4, 2, device=device).requires_grad_()
    y = F.embedding(gpunet.zeros(0, 3, dtype=gpunet.int64, device=device), weight)
    y.sum().backward()
    assert y.shape == (0, 3, 2) and weight.grad.tolist() == [[0.0, 0.0]] * 4
    index = gpunet.tensor([1, 2], dtype=gpunet.int32, device=device)
    bags = F.embedding_bag(index, weight, gpunet.tensor([0, 0, 2, 2], device=device))
    assert bags.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


WRONG: list[tuple[type[GpunetError], str, Callable[[Any, Any], Any]]] = [
    (DtypeError, "index of dtype float32", lambda i, w: F.embedding(w, w)),
    (DtypeError, "weight of dtype int64; expected a floating matrix", lambda i, w: F.embedding(i, i)),
    (ShapeError, r"weight has shape \(4,\)", lambda i, w: F.embedding(i, w[:, 0])),
    (ArgumentError, "padding_idx=4; expected -4 to 3", lambda i, w: F.embedding(i, w, 4)),
    (ArgumentError, "padding_idx=-5; expected -4 to 3", lambda i, w: nn.Embedding(4, 2, -5)),
    (ArgumentError, "mode='prod'; expected 'sum', 'mean' or 'max'", lambda i, w: F.embedding_bag(i, w, mode="prod")),
    (ArgumentError, "per_sample_weights with mode='mean'", lambda i, w: F.embedding_bag(i, w, per_sample_weights=w)),
    (ArgumentError, r"offsets with an input of shape \(1, 2\)", lambda i, w: F.embedding_bag(i, w, i)),
    (ArgumentError, r"input has shape \(2,\), offsets=None", lambda i, w: F.embedding_bag(i[0], w)),
    (ArgumentError, "scale_grad_by_freq with mode='max'",
     lambda i, w: F.embedding_bag(i, w, mode="max", scale_grad_by_freq=True)),
    (ShapeError, r"offsets has shape \(0,\)", lambda i, w: F.embedding_bag(i[0], w, i[0, :0])),
    (DtypeError, "index of dtype float32", lambda i, w: F.embedding_bag(i[0], w, w[0])),
    (ShapeError, r"per_sample_weights is float32 of shape \(4, 2\)",
     lambda i, w: F.embedding_bag(i, w, mode="sum", per_sample_weights=w)),
    (ShapeError, r"weight has shape \(4, 2\); expected \(3, 2\)", lambda i, w: nn.Embedding(3, 2, _weight=w)),
]  # fmt: skip


@pytest.mark.parametrize("error, match, call", WRONG, ids=[match for _, match, _ in WRONG])
def test_errors(error: type[GpunetError], match: str, call: Any, device: str) -> None:
    with pytest.raises(error, match=match):
        call(gpunet.tensor([[1, 2]], device=device), gpunet.ones(4, 2, device=device))


@pytest.mark.parametrize("offsets", [[1, 2], [0, 9], [-1, 2], [0, 3, 2]], ids=str)
def test_offsets_that_are_no_bags(offsets: list[int]) -> None:
    with pytest.raises(ArgumentError, match="expected ascending numbers from 0 to 5"):
        F.embedding_bag(gpunet.tensor([1, 2, 0, 3, 5]), gpunet.ones(6, 2), gpunet.tensor(offsets))


@pytest.mark.parametrize("mode", ["sum", "mean"])  # PyTorch's maximum takes what is behind the end into the last bag
def test_end_of_the_last_bag(mode: str, device: str, torch: Any) -> None:
    table, found = numpy.arange(12.0).reshape(6, 2), []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        weight = library.tensor(table, requires_grad=True, **place)
        index, offsets = (library.tensor(a, **place) for a in ([1, 2, 0, 3, 5], [0, 2, 5]))
        y = library.nn.functional.embedding_bag(index, weight, offsets, mode=mode, include_last_offset=True)
        y.sum().backward()
        found.append([y.tolist(), weight.grad.tolist()])
    assert found[0] == found[1]


@pytest.mark.parametrize("bad", [-1, 4])
def test_integers_out_of_range(bad: int, device: str) -> None:
    weight = gpunet.ones(4, 2, device=device).requires_grad_()

    def use() -> None:
        y = F.embedding(gpunet.tensor([1, bad], device=device), weight)
        y.sum().backward()
        y.tolist()

    with pytest.raises(OutOfRangeError, match=f"embedding: index {bad} is out of bounds for dimension 0 with size 4; expected 0"):
        use()


def test_max_norm_is_refused_in_the_words_of_the_function(device: str) -> None:
    index, weight = gpunet.tensor(INDEX, device=device), gpunet.ones(5, 3, device=device)
    for name in ("embedding", "embedding_bag"):
        with pytest.raises(ArgumentError, match=f"{name}: norm_type=nan; expected a number"):
            getattr(F, name)(index, weight, max_norm=1.0, norm_type=float("nan"))
        with pytest.raises(InPlaceError, match=f"{name} with max_norm, which changes the weight in place: .* share memory"):
            getattr(F, name)(index, weight[:1].expand(5, 3), max_norm=1.0)
