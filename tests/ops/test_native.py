"""PyTorch's native forms of layers and losses, recurrent layers as functions, and their refusals, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from tests.ops.beside_torch import check_complex, check_values_and_gradients


def _places(library: Any, like: Any, *numbers: int) -> Any:
    return library.tensor(numbers, device=like.device)


Call = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]
#: Calls of a library and tensors of these shapes, whose results, gradients and second derivatives are PyTorch's.
CALLS: dict[str, Call] = {
    "layer_norm": (lambda t, x, w, b: t.layer_norm(x, (3,), w, b, 1e-3, False), ((2, 4, 3), (3,), (3,))),
    "rms_norm": (lambda t, x, w: t.rms_norm(x, (3,), w, 1e-3), ((2, 3), (3,))),
    "group_norm": (lambda t, x, w, b: t.group_norm(x, 2, w, b, 1e-3, True), ((2, 4, 3), (4,), (4,))),
    "batch_norm": (
        lambda t, x, w, b: t.batch_norm(x, w, b, t.zeros_like(w), t.ones_like(w), True, 0.1, 1e-3, True), ((5, 3), (3,), (3,))
    ),
    "instance_norm": (lambda t, x, w, b: t.instance_norm(x, w, b, None, None, True, 0.1, 1e-3, False), ((2, 3, 4), (3,), (3,))),
    "native_layer_norm": (lambda t, x, w, b: t.native_layer_norm(x, (2, 3), w, b, 1e-3)[0], ((4, 2, 3), (2, 3), (2, 3))),
    "native_group_norm": (lambda t, x, w, b: t.native_group_norm(x, w, b, 2, 4, 3, 2, 1e-3)[0], ((2, 4, 3), (4,), (4,))),
    "native_batch_norm": (
        lambda t, x, w, b: t.native_batch_norm(x, w, b, t.zeros_like(w), t.ones_like(w), True, 0.1, 1e-3)[0], ((5, 3), (3,), (3,))
    ),
    "embedding": (lambda t, w: t.embedding(w, t.tensor([[1, 0], [3, 1]], device=w.device), 3), ((4, 2),)),
    "constant_pad_nd": (lambda t, x: t.constant_pad_nd(x, (1, 2, -1, 0), 2.5), ((3, 2),)),
    "convolution": (
        lambda t, x, w, b: t.convolution(x, w, b, (2,), (1, 0), (1,), False, (0, 0), 2), ((1, 4, 5, 6), (2, 2, 2, 3), (2,))
    ),
    "convolution transposed": (lambda t, x, w: t.convolution(x, w, None, [2], [1], [1], True, [1], 1), ((2, 3, 4), (3, 2, 3))),
    "conv_tbc": (lambda t, x, w, b: t.conv_tbc(x, w, b, 1), ((5, 2, 3), (3, 3, 4), (4,))),
    "bilinear": (lambda t, x, y, w, b: t.bilinear(x, y, w, b), ((2, 3), (2, 2), (4, 3, 2), (4,))),
    "max_pool1d": (lambda t, x: t.max_pool1d(x, 2, 1, 0, 2), ((2, 3, 7),)),
    "max_pool2d": (lambda t, x: t.max_pool2d(x, (2, 3)), ((2, 3, 4, 6),)),
    "max_pool3d": (lambda t, x: t.max_pool3d(x, 2, 2, 1, 1, True), ((1, 2, 3, 4, 5),)),
    "max_pool1d_with_indices": (lambda t, x: t.max_pool1d_with_indices(x, 2)[0], ((2, 3, 7),)),
    "adaptive_max_pool1d": (lambda t, x: t.adaptive_max_pool1d(x, 3)[0], ((2, 3, 7),)),
    "grid_sampler": (lambda t, x, g: t.grid_sampler(x, g.tanh(), 0, 1, False), ((1, 2, 3, 4), (1, 2, 3, 2))),
    "grid_sampler_2d": (lambda t, x: t.grid_sampler_2d(x, x.detach()[:, :, :, :2] / 9, 0, 0, True), ((1, 2, 3, 4),)),
    "affine_grid_generator": (lambda t, x: t.affine_grid_generator(x, (2, 3, 4, 5), True), ((2, 2, 3),)),
    "rrelu": (lambda t, x: t.rrelu(x, 0.2, 0.6, False), ((3, 4),)),
    "binary_cross_entropy_with_logits": (
        lambda t, x: t.binary_cross_entropy_with_logits(x, x.detach().sigmoid(), x.detach().exp(), None, 1), ((3, 2),)
    ),
    "cosine_embedding_loss": (
        lambda t, x, y: t.cosine_embedding_loss(x, y, t.tensor([1, -1, 1], device=x.device), 0.1, 2), ((3, 4), (3, 4))
    ),
    "hinge_embedding_loss": (lambda t, x: t.hinge_embedding_loss(x, x.detach().sign(), 0.5, 1), ((3, 2),)),
    "kl_div": (lambda t, x: t.kl_div(x, x.detach(), 2, log_target=True), ((3, 2),)),
    "margin_ranking_loss": (lambda t, x, y: t.margin_ranking_loss(x, y, x.detach().sign(), 0.3, 1), ((3, 2), (3, 2))),
    "poisson_nll_loss": (lambda t, x: t.poisson_nll_loss(x, x.detach().exp(), True, True, 1e-6, 1), ((3, 2),)),
    "triplet_margin_loss": (lambda t, x, y, z: t.triplet_margin_loss(x, y, z, 1.0, 2.0, 1e-6, True, 2), ((3, 4),) * 3),
    "rnn_tanh_cell": (lambda t, *x: t.rnn_tanh_cell(*x), ((2, 3), (2, 4), (4, 3), (4, 4), (4,), (4,))),
    "rnn_relu_cell": (lambda t, *x: t.rnn_relu_cell(*x), ((2, 3), (2, 4), (4, 3), (4, 4), (4,), (4,))),
    "gru_cell": (lambda t, *x: t.gru_cell(*x), ((2, 3), (2, 4), (12, 3), (12, 4), (12,), (12,))),
    "lstm_cell": (
        lambda t, x, h, c, *w: t.cat(t.lstm_cell(x, (h, c), *w), 1), ((2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,))
    ),
    "gru": (
        lambda t, x, h, *w: t.cat([r.reshape(-1) for r in t.gru(x, h, w, True, 1, 0.0, True, False, True)]),
        ((2, 3, 2), (1, 2, 2), (6, 2), (6, 2), (6,), (6,)),
    ),
    "lstm of two directions": (
        lambda t, x, h, c, *w: t.cat([r.reshape(-1) for r in t.lstm(x, (h, c), w, False, 1, 0.0, False, True, False)]),
        ((3, 2, 2), (2, 2, 3), (2, 2, 3), (12, 2), (12, 3), (12, 2), (12, 3)),
    ),
    "packed rnn_tanh of two layers": (
        lambda t, x, h, *w: t.rnn_tanh(x, t.tensor([2, 1]), h, w, False, 2, 0.0, False, False)[0],
        ((3, 2), (2, 2, 2), (2, 2), (2, 2), (2, 2), (2, 2)),
    ),
    "lstm with projection": (
        lambda t, x, h, c, *w: t.lstm(x, (h, c), w, False, 1, 0.0, False, False, False)[0],
        ((3, 2, 2), (1, 2, 2), (1, 2, 3), (12, 2), (12, 2), (2, 3)),
    ),
}  # fmt: skip
#: Calls whose second derivative PyTorch has not, or has another one.
FIRST_DERIVATIVE: dict[str, Call] = {
    "embedding_bag": (
        lambda t, w: t.embedding_bag(w, _places(t, w, 1, 0, 3, 2, 2), _places(t, w, 0, 2, 2), False, 1)[0], ((4, 2),)
    ),
    "embedding_bag of maxima": (
        lambda t, w: t.embedding_bag(w, _places(t, w, 1, 0, 3, 2), _places(t, w, 0, 2), mode=2)[0], ((4, 2),)
    ),
    "grid_sampler_3d": (lambda t, x, g: t.grid_sampler_3d(x, g.tanh(), 0, 2, True), ((1, 2, 3, 2, 4), (1, 2, 2, 3, 3))),
    "ctc_loss": (
        lambda t, x: t.ctc_loss(x.log_softmax(-1), t.tensor([[1, 2], [2, 1]]), (5, 4), (2, 1), 0, 2), ((5, 2, 3),)
    ),
    "cosine_embedding_loss of short vectors": (  # the constant in its norms has float32
        lambda t, x, y: t.cosine_embedding_loss(x * 1e-9, y, t.tensor([-1, -1, -1], device=x.device)), ((3, 4), (3, 4))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_values_and_derivatives(name: str, torch: Any, device: str) -> None:
    call, shapes = CALLS[name]
    arrays = [numpy.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    check_complex(call, arrays, torch, device, 1e-8)


@pytest.mark.parametrize("name", FIRST_DERIVATIVE)
def test_values_and_gradients(name: str, torch: Any, device: str) -> None:
    call, shapes = FIRST_DERIVATIVE[name]
    check_values_and_gradients(call, shapes, torch, device, 1e-9)


def test_statistics_are_those_of_torch(torch: Any, device: str) -> None:
    x = numpy.random.default_rng(0).normal(size=(2, 4, 3))
    calls: list[Callable[..., Any]] = [
        lambda t, v: t.native_layer_norm(v, (4, 3), None, None, 1e-3),
        lambda t, v: t.native_group_norm(v, None, None, 2, 4, 3, 2, 1e-3),
        lambda t, v: t.native_batch_norm(v, None, None, None, None, True, 0.1, 1e-3),
    ]  # fmt: skip
    for call in calls:
        ours, theirs = call(gpunet, gpunet.tensor(x, device=device)), call(torch, torch.tensor(x))
        for mine, other in zip(ours, theirs, strict=True):
            numpy.testing.assert_allclose(mine.cpu().numpy(), other.numpy(), rtol=1e-11)
    evaluated = gpunet.native_batch_norm(
        gpunet.tensor(x[0], device=device), None, None, gpunet.zeros(3, dtype=gpunet.float64, device=device),
        gpunet.ones(3, dtype=gpunet.float64, device=device), False, 0.1, 0.0,
    )  # fmt: skip
    numpy.testing.assert_array_equal(evaluated[0].cpu().numpy(), x[0])
    assert [tuple(t.shape) for t in evaluated[1:]] == [(0,), (0,)]


def test_running_statistics_move(torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(5, 3))
    found = []
    for t in (gpunet, torch):
        mean, var = t.zeros(3, dtype=t.float64), t.ones(3, dtype=t.float64)
        t.batch_norm(t.tensor(x), None, None, mean, var, True, 0.3, 1e-5, True)
        found.append([mean.numpy(), var.numpy()])
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@pytest.mark.parametrize("name", ["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"])
def test_dropout(name: str, device: str) -> None:
    """Which elements are zeroed is random; that channels are, and the scale, is not."""
    gpunet.manual_seed(0)
    x = gpunet.ones(50, 20, 4, device=device)
    drop, in_place = getattr(gpunet, name), getattr(gpunet, f"{name}_")
    y = drop(x, 0.25, True)
    values = numpy.unique(y.cpu().numpy())
    assert len(values) == 2 and (y.cpu().numpy() == y.cpu().numpy()[..., :1]).all() == name.startswith("feature")
    kept = (y == values.max() if "alpha" not in name else y > 0).float().mean().item()
    assert abs(kept - 0.75) < 0.04
    assert (drop(x, 0.25, False) == x).all() and (drop(x, 0.0, True) == x).all()
    assert in_place(x, 0.5, True) is x and not (x == 1.0).all()
    with pytest.raises(ArgumentError, match=f"{name}: p=1.5"):
        drop(x, 1.5, True)
    if name.startswith("feature"):
        with pytest.raises(ShapeError, match=f"{name}: the input has shape"):
            drop(gpunet.ones(3), 0.5, True)


def test_native_dropout(device: str) -> None:
    gpunet.manual_seed(0)
    x = gpunet.ones(40, 50, device=device, requires_grad=True)
    y, mask = gpunet.native_dropout(x, 0.25, None)
    assert mask.dtype == gpunet.bool and abs(mask.float().mean().item() - 0.75) < 0.05
    numpy.testing.assert_allclose(y.detach().cpu().numpy(), mask.cpu().numpy() / 0.75, rtol=1e-6)
    y.sum().backward()
    assert (x.grad == y.detach()).all()
    same, every = gpunet.native_dropout(x, 0.25, False)
    assert (same == x).all() and every.all() and same is not x


def test_embedding_bag_tells_the_bags(torch: Any) -> None:
    table = numpy.random.default_rng(0).normal(size=(4, 2))
    for mode in (1, 2):
        found = []
        for t in (gpunet, torch):
            index, offsets = t.tensor([1, 0, 3, 2, 2]), t.tensor([0, 2, 2])
            found.append([r.numpy() for r in t.embedding_bag(t.tensor(table), index, offsets, False, mode, False, None, False, 2)])
        for mine, other in zip(*found, strict=True):
            numpy.testing.assert_allclose(mine, other)
    sums = gpunet.embedding_bag(gpunet.tensor(table), gpunet.tensor([1, 0, 3]), gpunet.tensor([0, 1]))
    assert sums[1].tolist() == [0, 1, 1] and sums[2].tolist() == [1, 2]


def test_embedding_renorm(torch: Any) -> None:
    table = numpy.random.default_rng(0).normal(size=(4, 2)) * 3
    ours, theirs = gpunet.tensor(table), torch.tensor(table)
    assert gpunet.embedding_renorm_(ours, gpunet.tensor([1, 3]), 1.0, 2.0) is ours
    torch.embedding_renorm_(theirs, torch.tensor([1, 3]), 1.0, 2.0)
    numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)
    with pytest.raises(GradientError, match="embedding_renorm_ changes a leaf tensor that requires grad"):
        gpunet.embedding_renorm_(ours.requires_grad_(), gpunet.tensor([1]), 1.0, 2.0)


def test_rrelu_draws_from_its_generator() -> None:
    x = gpunet.full((1000,), -1.0)
    first, second = (gpunet.rrelu(x, 0.2, 0.6, True, gpunet.Generator().manual_seed(3)) for _ in range(2))
    assert (first == second).all() and -first.max().item() >= 0.2 and -first.min().item() < 0.6
    assert not (gpunet.rrelu(x, 0.2, 0.6, True) == first).all()


def test_channel_shuffle(torch: Any) -> None:
    x = numpy.arange(12.0).reshape(1, 4, 3)
    ours, theirs = (t.native_channel_shuffle(t.tensor(x), 2) for t in (gpunet, torch))
    numpy.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(ShapeError, match="native_channel_shuffle: the input"):
        gpunet.native_channel_shuffle(x, 3)


def test_reductions_are_numbers_and_0_by_default() -> None:
    x, y = gpunet.zeros(2, 3), gpunet.ones(2, 3)
    assert gpunet.kl_div(x, y).shape == (2, 3) and gpunet.hinge_embedding_loss(x, y, 1.0, 2).shape == ()
    with pytest.raises(ArgumentError, match=r"kl_div: reduction=3; expected one of 0 \(none\), 1 \(mean\), 2 \(sum\)"):
        gpunet.kl_div(x, y, 3)
    with pytest.raises(ArgumentError, match=r"grid_sampler: interpolation_mode=4"):
        gpunet.grid_sampler(gpunet.ones(1, 1, 2, 2), gpunet.zeros(1, 1, 1, 2), 4, 0, False)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ShapeError, r"gru_cell: w_ih has shape \(2, 3\); expected \(6, 3\)", lambda x: gpunet.gru_cell(x, x[:, :2], x, x)),
        (ArgumentError, r"lstm_cell: hx has type Tensor; expected the pair \(h, c\)", lambda x: gpunet.lstm_cell(x, x, x, x)),
        (DtypeError, "gru: params has type int", lambda x: gpunet.gru(x, x, 3, True, 1, 0.0, True, False, False)),
        (ArgumentError, "gru: 3 params for num_layers=1", lambda x: gpunet.gru(x, x, [x] * 3, True, 1, 0.0, True, False, False)),
        (ArgumentError, "rnn_tanh: got hx, input, num_layers; expected input", lambda x: gpunet.rnn_tanh(x, hx=x, num_layers=1)),
        (DtypeError, "constant_pad_nd: value is None", lambda x: gpunet.constant_pad_nd(x, (1, 1), None)),
        (ShapeError, "convolution: weight has shape", lambda x: gpunet.convolution(x, x, None, 1, 0, 1, False, 0, 1)),
        (ShapeError, "native_group_norm: the input has shape", lambda x: gpunet.native_group_norm(x, None, None, 1, 1, 1, 1, 0.1)),
    ],
)
def test_refusals(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.ones(2, 3))


def _recurrent(t: Any, name: str, bias: bool) -> tuple[Any, Any]:
    """The state and the weights of one layer of 3 features and 4 units for two sequences."""
    rows = {"lstm": 16, "gru": 12, "rnn_tanh": 4}[name]
    state = t.ones(1, 2, 4)
    weights = [t.full((rows, 3), 0.1), t.full((rows, 4), -0.2), *([t.ones(rows)] * 2 if bias else [])]
    return [state, state * 0.5] if name == "lstm" else state, weights


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_tell_packed_sequences(name: str, bias: bool, torch: Any) -> None:
    results = []
    for t in (gpunet, torch):
        state, weights = _recurrent(t, name, bias)
        rest = (weights, bias, 1, 0.0, False, False)
        packed = getattr(t, name)(t.ones(5, 3), t.tensor([2, 2, 1]), state, *rest)
        results.append([y.numpy() for y in (*packed, *getattr(t, name)(t.ones(3, 2, 3), state, *rest, False))])
    for mine, theirs in zip(*results):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "rows", "error", "message"),
    [
        ([2, 2], 5, ShapeError, r"gru: batch_sizes=\[2, 2\] for 5 rows; expected descending numbers"),
        ([1, 2, 2], 5, ShapeError, "expected descending numbers"),
        ([], 0, DtypeError, "gru: batch_sizes has dtype float32"),
        ([1, 1], 2, ShapeError, "gru: the states are those of 2 sequences, the input has 1"),
        ([[2]], 2, ShapeError, "gru: batch_sizes has shape"),
    ],
)
def test_refused_packed_sequences(sizes: Any, rows: int, error: type[Exception], message: str) -> None:
    state, weights = _recurrent(gpunet, "gru", True)
    with pytest.raises(error, match=message):
        gpunet.gru(gpunet.ones(rows, 3), gpunet.tensor(sizes), state, weights, True, 1, 0.0, False, False)
    with pytest.raises(ShapeError, match="the states are those of 2 sequences, the input has 3"):
        gpunet.gru(gpunet.ones(2, 3, 3), state, weights, True, 1, 0.0, False, False, False)
