"""MultiheadAttention and the Transformer modules beside PyTorch's: results, weights, gradients, state, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError

L, S, N, E = 5, 7, 3, 8
RANDOM = numpy.random.default_rng(0)


def pair(torch: Any, make: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Modules of both libraries in float64 with the same parameters."""
    other, mine = make(torch.nn, torch.float64), make(nn, gpunet.float64)
    state = {name: 0.3 * RANDOM.normal(size=tuple(value.shape)) for name, value in other.state_dict().items()}
    assert [*state] == [*mine.state_dict()]
    other.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    mine.load_state_dict(state)
    return mine, other


def check(
    torch: Any, mine: Any, other: Any, arrays: list[numpy.ndarray], call: Callable[..., Any] | None = None, **options: Any
) -> None:
    """Compare results, and gradients of inputs and parameters."""
    found = []
    for library, module in ((gpunet, mine), (torch, other)):
        inputs = [library.tensor(array).requires_grad_() for array in arrays]
        given = {k: library.tensor(v) if isinstance(v, numpy.ndarray) else v for k, v in options.items()}
        result = (call or (lambda m, *x, **o: m(*x, **o)))(module, *inputs, **given)
        results = [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]
        loss = sum((y * y.cos()).sum() for y in results)
        gradients = library.autograd.grad(loss, [*inputs, *module.parameters()], allow_unused=True)
        found.append([None if x is None else x.detach().numpy() for x in (*results, *gradients)])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape
            numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def causal(size: int) -> numpy.ndarray:
    return numpy.triu(numpy.full((size, size), -numpy.inf), 1)


MASKS: dict[str, tuple[Any, Any]] = {  # attn_mask and key_padding_mask; True is ignored
    "none": (None, None),
    "positions": (numpy.arange(L * S).reshape(L, S) % 5 == 4, None),
    "heads": (numpy.arange(2 * N * L * S).reshape(2 * N, L, S) % 7 == 6, None),
    "added": (RANDOM.normal(size=(L, S)), None),
    "padding": (None, numpy.arange(S) >= numpy.array([[7], [5], [4]])),
    "padding, positions": (numpy.arange(L * S).reshape(L, S) % 5 == 4, numpy.arange(S) >= numpy.array([[7], [5], [4]])),
    "added padding": (RANDOM.normal(size=(L, S)), RANDOM.normal(size=(N, S))),
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("batch_first, options", [
    (False, {}), (True, {}), (False, {"bias": False}), (True, {"add_bias_kv": True}), (False, {"add_zero_attn": True}),
    (True, {"add_bias_kv": True, "add_zero_attn": True}), (False, {"kdim": 6, "vdim": 5}), (True, {"kdim": 6, "vdim": 8}),
    (False, {"kdim": 6, "vdim": 5, "bias": False, "add_bias_kv": True}),
])  # fmt: skip
def test_attention_is_that_of_pytorch(batch_first: bool, options: dict[str, Any], masks: str, torch: Any) -> None:
    mine, other = pair(torch, lambda m, d: m.MultiheadAttention(E, 2, batch_first=batch_first, dtype=d, **options))
    sizes = ((L, E), (S, options.get("kdim", E)), (S, options.get("vdim", E)))
    arrays = [RANDOM.normal(size=(N, *size) if batch_first else (size[0], N, size[1])) for size in sizes]
    given = {name: mask for name, mask in zip(("attn_mask", "key_padding_mask"), MASKS[masks]) if mask is not None}
    for need_weights, average in ((True, True), (True, False), (False, True)):
        check(torch, mine, other, arrays, need_weights=need_weights, average_attn_weights=average, **given)


@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_that_are_one_tensor_and_inputs_without_a_batch(batch_first: bool, torch: Any) -> None:
    mine, other = pair(torch, lambda m, d: m.MultiheadAttention(E, 4, batch_first=batch_first, dtype=d))
    x = RANDOM.normal(size=(L, L, E))
    check(torch, mine, other, [x], lambda m, x, **o: m(x, x, x, **o))
    check(torch, mine, other, [x], lambda m, x, **o: m(x, x, x, **o), attn_mask=causal(L), is_causal=True, need_weights=False)
    check(torch, mine, other, [x, x[:, :, ::-1].copy()], lambda m, x, y: m(x, y, y))
    check(torch, mine, other, [x[0], x[1], x[2]], key_padding_mask=numpy.arange(L) > 3)
    check(torch, mine, other, [x[0]], lambda m, x: m(x, x, x, need_weights=False))


def test_static_keys_and_values(torch: Any) -> None:
    arrays = {"q": RANDOM.normal(size=(L, N, E)), "k": RANDOM.normal(size=(N * 2, S, 4)), "v": RANDOM.normal(size=(N * 2, S, 4)),
              "w": RANDOM.normal(size=(3 * E, E)), "o": RANDOM.normal(size=(E, E))}  # fmt: skip
    found = []
    for library in (gpunet, torch):
        t = {name: library.tensor(value) for name, value in arrays.items()}
        found.append(library.nn.functional.multi_head_attention_forward(
            t["q"], t["q"], t["q"], E, 2, t["w"], None, None, None, False, 0.0, t["o"], None, static_k=t["k"], static_v=t["v"]
        ))  # fmt: skip
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
def test_queries_whose_keys_are_all_ignored(need_weights: bool) -> None:
    """Zero weights and finite gradients; PyTorch gives NaN."""
    layer = nn.MultiheadAttention(E, 2, batch_first=True)
    x = gpunet.randn(N, L, E).requires_grad_()
    y, weights = layer(x, x, x, key_padding_mask=numpy.array([[True] * L, [False] * L, [False] * L]), need_weights=need_weights)
    gradients = gpunet.grad(y.square().sum(), [x, *layer.parameters()])
    assert all(g.isfinite().all() for g in (y, *gradients))
    assert (y[0] == layer.out_proj.bias).all()
    assert weights is None or ((weights[0] == 0).all() and weights[1].sum().item() == pytest.approx(L, rel=1e-5))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padding", [False, True])
def test_autocast(need_weights: bool, padding: bool, torch: Any) -> None:
    """Inputs and masks of float32 and bfloat16 together, to some units in the last place of bfloat16, 2^-8."""
    mine, other = pair(torch, lambda m, d: m.MultiheadAttention(E, 2, add_bias_kv=True, dtype=d))
    x, mask, weights = RANDOM.normal(size=(L, N, E)), RANDOM.normal(size=(L, L)), RANDOM.normal(size=(N, L))
    for given, of_mask in (("float32", "float32"), ("bfloat16", "float32"), ("float32", "bfloat16")):
        found = []
        for library, module in ((gpunet, mine.float()), (torch, other.float())):
            query = library.tensor(x).to(getattr(library, given))
            masks = [library.tensor(a).to(getattr(library, of_mask)) for a in (mask, weights)]
            with library.autocast("cpu", dtype=library.bfloat16):
                y, w = module(query, query, query, masks[1] if padding else None, need_weights, masks[0])
            assert y.dtype == library.bfloat16 and (w is None) == (not need_weights)
            found.append(y.detach().float().numpy())
        numpy.testing.assert_allclose(*found, atol=3e-2)


def test_masks_of_two_kinds_warn() -> None:
    layer, x = nn.MultiheadAttention(E, 2), gpunet.randn(L, N, E)
    with pytest.warns(UserWarning, match="mismatched key_padding_mask and attn_mask") as caught:
        mixed = layer(x, x, x, gpunet.zeros(N, L, dtype=bool), attn_mask=gpunet.zeros(L, L))[0]
    assert caught[0].filename == __file__
    numpy.testing.assert_allclose(mixed.detach().numpy(), layer(x, x, x)[0].detach().numpy(), atol=1e-6)


def test_initial_parameters_are_those_of_pytorch(torch: Any) -> None:
    for options in ({"add_bias_kv": True}, {"kdim": 64, "vdim": 32, "add_bias_kv": True}):
        mine, other = nn.MultiheadAttention(128, 4, **options), torch.nn.MultiheadAttention(128, 4, **options)
        for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.25), name


@pytest.mark.parametrize("batch_first, norm_first, bias, activation", [
    (False, False, True, "relu"), (True, False, False, "gelu"), (False, True, False, "relu"), (True, True, True, "gelu"),
])  # fmt: skip
def test_transformers_are_those_of_pytorch(batch_first: bool, norm_first: bool, bias: bool, activation: str, torch: Any) -> None:
    options = {"dropout": 0.0, "batch_first": batch_first, "norm_first": norm_first, "bias": bias, "activation": activation}
    x, memory = RANDOM.normal(size=(4, 4, E)), RANDOM.normal(size=(4, 4, E))
    hidden, padding = numpy.triu(numpy.ones((4, 4), bool), 1), numpy.array([[False, False, False, True]] * 4)

    mine, other = pair(torch, lambda m, d: m.TransformerEncoderLayer(E, 2, 16, dtype=d, **options))
    check(torch, mine, other, [x])
    check(torch, mine, other, [x], src_mask=hidden, src_key_padding_mask=padding)
    mine, other = pair(torch, lambda m, d: m.TransformerDecoderLayer(E, 2, 16, dtype=d, **options))
    check(torch, mine, other, [x, memory], tgt_mask=causal(4), tgt_is_causal=True)
    check(torch, mine, other, [x, memory], memory_mask=hidden, memory_key_padding_mask=padding, tgt_key_padding_mask=padding)

    def make(m: Any, d: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's, of nested tensors
            return m.Transformer(E, 2, 2, 1, 16, dtype=d, **options)

    mine, other = pair(torch, make)
    check(torch, mine, other, [x, memory], tgt_mask=causal(4), src_key_padding_mask=padding, memory_key_padding_mask=padding)
    check(torch, mine, other, [x[0], memory[0]])


def test_dropout_of_a_layer_is_off_in_evaluation() -> None:
    layer, x = nn.TransformerEncoderLayer(E, 2, 16, dropout=0.5), gpunet.randn(L, N, E)
    assert (layer(x) != layer(x)).any()
    layer.eval()
    assert (layer(x) == layer(x)).all()


def test_copies_of_a_layer_have_their_own_parameters() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 2, 16, activation=gpunet.tanh), 2)
    first, second = (layer.linear1.weight for layer in encoder.layers)
    assert first is not second and (first == second).all()
    assert len({id(p) for p in encoder.parameters()}) == 24


def test_causal_mask_of_the_transformer() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=gpunet.float64)
    assert mask.dtype == gpunet.float64
    numpy.testing.assert_array_equal(mask.numpy(), causal(3))


def test_a_captured_encoder_trains_as_an_eager_one(backend: str) -> None:
    steps = []
    x = gpunet.randn(N, 6, E)
    first = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, batch_first=True, activation="gelu"), 2)
    second = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, batch_first=True, activation="gelu"), 2)
    second.load_state_dict(first.state_dict())
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    for model in (first, second):
        optimizer = gpunet.optim.Adam(model.parameters(), lr=0.01)

        def step(model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (model(x, mask, is_causal=True) - x.flip(0)).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        steps.append(step)
    captured = gpunet.capture(steps[1], backend=backend)
    for _ in range(5):
        assert captured().item() == pytest.approx(steps[0]().item(), rel=1e-4)


_X = gpunet.zeros(L, N, E)
_LAYER = nn.MultiheadAttention(E, 2)


@pytest.mark.parametrize("error, text, call", [
    (ArgumentError, "MultiheadAttention: embed_dim=8, num_heads=3; expected a positive multiple",
     lambda: nn.MultiheadAttention(8, 3)),
    (ArgumentError, "MultiheadAttention: dropout=2.0; expected a probability", lambda: nn.MultiheadAttention(8, 2, 2.0)),
    (ShapeError, "MultiheadAttention: query has shape (5, 3, 4); expected 8 features",
     lambda: _LAYER(_X[..., :4], _X, _X)),
    (ShapeError, "expected three dimensions each", lambda: _LAYER(_X[0, 0], _X, _X)),
    (ShapeError, "expected key and value of the same positions", lambda: _LAYER(_X, _X, _X[:4])),
    (ShapeError, "expected the same batch size", lambda: _LAYER(_X, _X[:, :2], _X[:, :2])),
    (ShapeError, "MultiheadAttention: attn_mask has shape (5, 4); expected (5, 5) or (6, 5, 5)",
     lambda: _LAYER(_X, _X, _X, attn_mask=gpunet.zeros(5, 4))),
    (ShapeError, "key_padding_mask has shape (5, 3); expected (3, 5)", lambda: _LAYER(_X, _X, _X, gpunet.zeros(5, 3))),
    (DtypeError, "attn_mask has dtype int64; expected bool (True is ignored here; in scaled_dot_product_attention, True attends)",
     lambda: _LAYER(_X, _X, _X, attn_mask=gpunet.zeros(5, 5).long())),
    (ArgumentError, "MultiheadAttention: is_causal=True without attn_mask", lambda: _LAYER(_X, _X, _X, is_causal=True)),
    (ArgumentError, "TransformerEncoderLayer: activation='tanh'; expected 'relu', 'gelu'",
     lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh")),
    (ShapeError, "Transformer: src (5, 3, 8) and tgt (5, 2, 8); expected the same batch size",
     lambda: nn.Transformer(8, 2, 1, 1, 16)(_X, _X[:, :2])),
    (ShapeError, "expected d_model=16 features", lambda: nn.Transformer(16, 2, 1, 1, 16)(_X, _X)),
    (ArgumentError, "TransformerEncoder: num_layers=-1", lambda: nn.TransformerEncoder(_LAYER, -1)),
    (ArgumentError, "expected bias_k and bias_v, or neither", lambda: nn.functional.multi_head_attention_forward(
        _X, _X, _X, 8, 2, gpunet.zeros(24, 8), None, gpunet.zeros(1, 1, 8), None, False, 0.0, gpunet.zeros(8, 8), None)),
    (ArgumentError, "use_separate_proj_weight=True; expected q_proj_weight", lambda: nn.functional.multi_head_attention_forward(
        _X, _X, _X, 8, 2, None, None, None, None, False, 0.0, gpunet.zeros(8, 8), None, use_separate_proj_weight=True)),
])  # fmt: skip
def test_refusals(error: type[GpunetError], text: str, call: Any) -> None:
    with pytest.raises(error) as found:
        call()
    assert text in str(found.value)
