"""Packed and padded sequences, and parameters as vectors, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.nn.utils import rnn

X = numpy.random.default_rng(0).normal(size=(4, 5, 2))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_packing_and_back_are_torchs(batch_first: bool, enforce_sorted: bool, as_tensor: bool, device: str, torch: Any) -> None:
    lengths = [5, 4, 2, 1] if batch_first else [4, 3, 3, 2, 1]
    lengths = lengths if enforce_sorted else lengths[::-1]
    results = []
    for lib, options in ((gpunet, {"device": device}), (torch, {})):
        utils, x = lib.nn.utils.rnn, lib.tensor(X, requires_grad=True, **options)
        packed = utils.pack_padded_sequence(x, lib.tensor(lengths) if as_tensor else lengths, batch_first, enforce_sorted)
        padded, found = utils.pad_packed_sequence(packed, batch_first, -1.0, 7)
        (padded**3).sum().backward()
        # PyTorch's order of equal lengths is not stable, so the data are compared in a sorted batch only
        data = packed.data.detach().cpu().numpy() if enforce_sorted else numpy.sort(packed.data.detach().cpu().numpy(), None)
        results.append((data, packed.batch_sizes.numpy(), padded.detach().cpu().numpy(), found.numpy(), x.grad.cpu().numpy()))
        assert (packed.sorted_indices is None) == enforce_sorted
    for mine, theirs in zip(*results):
        numpy.testing.assert_allclose(mine, theirs)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_is_torchs(side: str, batch_first: bool, torch: Any) -> None:
    parts = [X[0, :k] for k in (2, 5, 3)]
    mine, theirs = (
        lib.nn.utils.rnn.pad_sequence([lib.tensor(p) for p in parts], batch_first, 2.0, side) for lib in (gpunet, torch)
    )
    numpy.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_sequences_come_back() -> None:
    parts = [gpunet.tensor(X[0, :k]) for k in (2, 5, 3)]
    packed = rnn.pack_sequence(parts, enforce_sorted=False)
    assert all((a == b).all() for a, b in zip(rnn.unpack_sequence(packed), parts, strict=True))
    padded = rnn.pad_sequence(parts, batch_first=True)
    assert all((a == b).all() for a, b in zip(rnn.unpad_sequence(padded, [2, 5, 3], batch_first=True), parts, strict=True))
    moved = packed.to(gpunet.float32)
    assert moved.data.dtype == gpunet.float32 and packed.float().half().double().data.dtype == gpunet.float64
    assert moved.batch_sizes is packed.batch_sizes and not packed.is_cuda


def test_a_captured_step_packs() -> None:
    @gpunet.capture
    def step(x: Any) -> Any:
        return rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [3, 1]))[0] * 2

    for seed in range(3):
        x = gpunet.tensor(numpy.random.default_rng(seed).normal(size=(3, 2)))
        assert step(x).tolist() == (x * 2 * gpunet.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])).tolist()


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], ArgumentError, r"lengths=\[1, 2\] are not sorted, longest first; pass enforce_sorted=False"),
        ([2], ShapeError, r"lengths=\[2\]; expected 2 lengths from 1 to 3"), ([2, 0], ShapeError, "expected 2 lengths from 1 to 3"),
        ([4, 1], ShapeError, "expected 2 lengths from 1 to 3"),
        ([1.0, 1.0], DtypeError, "expected a list or a 1-d tensor of integers"),
    ],
)  # fmt: skip
def test_errors_of_packing(lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"pack_padded_sequence: .*{message}"):
        rnn.pack_padded_sequence(gpunet.zeros(3, 2), lengths)


def test_errors_of_padding() -> None:
    packed = rnn.pack_padded_sequence(gpunet.zeros(3, 2), [3, 1])
    with pytest.raises(ArgumentError, match="total_length=2; expected at least 3, the longest length"):
        rnn.pad_packed_sequence(packed, total_length=2)
    with pytest.raises(ArgumentError, match="pad_sequence: no sequences"):
        rnn.pad_sequence([])
    with pytest.raises(ArgumentError, match="padding_side='top'"):
        rnn.pad_sequence([gpunet.ones(1)], padding_side="top")
    with pytest.raises(ArgumentError, match=r"use pack_padded_sequence\(\) or pack_sequence\(\)"):
        rnn.PackedSequence(gpunet.ones(1))


def test_parameters_as_a_vector() -> None:
    model = nn.Linear(2, 3)
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (9,) and vector.requires_grad and (vector[:6].reshape(3, 2) == model.weight).all()
    new = gpunet.arange(9.0)
    nn.utils.vector_to_parameters(new, model.parameters())
    assert model.weight.tolist() == [[0, 1], [2, 3], [4, 5]] and model.bias.tolist() == [6, 7, 8]  # type: ignore[union-attr]
    new[0] = 50.0
    assert model.weight[0, 0].item() == 50.0  # the memory is shared, as in PyTorch
    with pytest.raises(ShapeError, match=r"vec has shape \(8,\); expected \(9,\)"):
        nn.utils.vector_to_parameters(gpunet.ones(8), model.parameters())


def test_the_old_name_of_clip_grad_norm() -> None:
    p = gpunet.ones(2, requires_grad=True)
    (p * 3).sum().backward()
    with pytest.warns(FutureWarning, match="use nn.utils.clip_grad_norm_"):
        norm = nn.utils.clip_grad_norm([p], 1.0)
    assert norm.item() == pytest.approx(18**0.5) and p.grad.norm().item() == pytest.approx(1.0)  # type: ignore[union-attr]
