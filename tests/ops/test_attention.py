"""scaled_dot_product_attention: values and gradients beside PyTorch, hidden rows, strides, dropout, captured steps, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy
import pytest

import gpunet
from gpunet.backend.dtypes import has_bfloat16
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from gpunet.launch.tape import Tape, record

attention = gpunet.nn.functional.scaled_dot_product_attention


class Call(NamedTuple):
    """Shapes of query, key and value, options, and the shape of a mask."""

    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any] = MappingProxyType({})
    mask: tuple[int, ...] | None = None
    is_boolean: bool = False

    def arrays(self) -> tuple[list[numpy.ndarray], Any]:
        generator = numpy.random.default_rng(0)
        arrays = [generator.normal(size=shape) for shape in self.shapes]
        if self.mask is None:
            return arrays, None
        return arrays, generator.random(self.mask) < 0.8 if self.is_boolean else generator.normal(size=self.mask)


def _calls() -> Iterator[Call]:
    # 130 and 300 queries are several blocks of the twin, also with fewer and with more keys
    for n, m, d, e in ((5, 7, 3, 4), (130, 200, 8, 8), (300, 300, 4, 4), (300, 150, 4, 4), (150, 300, 4, 6), (1, 1, 1, 1)):
        heads = ((2, 3, n, d), (2, 3, m, d), (2, 3, m, e))
        groups = ((2, 6, n, d), (2, 3, m, d), (2, 3, m, e))
        yield Call(heads)
        yield Call(heads, {"is_causal": True})
        yield Call(heads, {"scale": 0.3}, (3, n, m))
        yield Call(heads, {}, (n, m), True)
        yield Call(heads, {}, (2, 1, 1, m), True)
        yield Call(groups, {"enable_gqa": True}, (6, n, m))
        yield Call(groups, {"enable_gqa": True, "is_causal": True})
    yield Call(((5, 3), (7, 3), (7, 4)))
    yield Call(((3, 5, 3), (3, 7, 3), (3, 7, 4)), {}, (5, 7), True)
    yield Call(((2, 1, 3, 5, 2), (2, 2, 1, 7, 2), (7, 4)), {}, (2, 1, 1, 5, 7))
    yield Call(((2, 2, 3, 5, 2), (2, 2, 3, 7, 2), (2, 2, 3, 7, 2)), {}, (1, 7))
    yield Call(((40, 8, 70, 4), (40, 8, 70, 4), (40, 8, 70, 4)), {"is_causal": True})  # several chunks of batches


CALLS = [*_calls()]


def results(library: Any, call: Call, dtype: str, second: bool = True) -> list[numpy.ndarray]:
    """The result, its gradients, and gradients of the sum of their squares."""
    arrays, mask = call.arrays()
    kind = getattr(library, dtype)
    tensors = [library.tensor(a).to(kind).requires_grad_() for a in arrays]
    given = None if mask is None else library.tensor(mask) if mask.dtype == bool else library.tensor(mask).to(kind)
    grad = library.autograd.grad
    y = library.nn.functional.scaled_dot_product_attention(*tensors, given, **call.options)
    weight = library.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape))).to(kind)
    found = [y, *grad((y * weight).sum(), tensors, retain_graph=True)]
    if second:
        first = grad((y * weight).sum(), tensors, create_graph=True)
        found += grad(sum((g * g).sum() for g in first), tensors)
    return [x.detach().to(library.float64).numpy() for x in found]


@pytest.fixture
def math_backend(torch: Any) -> Iterator[Any]:
    """PyTorch's composition: its fused kernels have no second derivatives."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield torch


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_values_gradients_and_second_derivatives_are_those_of_pytorch(call: Call, math_backend: Any) -> None:
    for mine, other in zip(results(gpunet, call, "float64"), results(math_backend, call, "float64"), strict=True):
        numpy.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("call", CALLS[::3], ids=str)
def test_float32(call: Call, math_backend: Any) -> None:
    for mine, other in zip(results(gpunet, call, "float32"), results(math_backend, call, "float64"), strict=True):
        numpy.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * (1 + numpy.abs(other).max(initial=0)))


@pytest.mark.parametrize("dtype, eps", [("float16", 2**-11), ("bfloat16", 2**-8)])
@pytest.mark.parametrize("call", CALLS[:7], ids=str)
def test_halves_are_rounded_once(call: Call, dtype: str, eps: float) -> None:
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("needs ml_dtypes")
    arrays, mask = call.arrays()
    masks = (mask if mask.dtype == bool else gpunet.tensor(mask).to(dtype),) if mask is not None else ()
    halves = [gpunet.tensor(a).to(dtype) for a in arrays]
    y = attention(*halves, *masks, **call.options)
    wide = [m if isinstance(m, numpy.ndarray) else m.double() for m in masks]
    exact = attention(*(x.double() for x in halves), *wide, **call.options).numpy()
    assert (numpy.abs(y.double().numpy() - exact) <= eps * numpy.abs(exact) + 1e-6).all()


@pytest.mark.parametrize("is_boolean", [True, False])
def test_rows_without_a_key_are_zero_with_finite_gradients(is_boolean: bool) -> None:
    shown = numpy.ones((5, 7), bool)
    shown[[0, 3]] = False
    mask = shown if is_boolean else numpy.where(shown, 0.0, -numpy.inf).astype(numpy.float32)
    tensors = [gpunet.randn(2, n, 4).requires_grad_() for n in (5, 7, 7)]
    y = attention(*tensors, mask)
    assert (y[:, [0, 3]] == 0).all() and (y[:, [1, 2, 4]] != 0).all()
    fused = gpunet.grad(y.sum(), tensors, retain_graph=True)
    first = gpunet.grad(y.square().sum(), tensors, create_graph=True)
    second = gpunet.grad(sum(g.square().sum() for g in first), tensors)
    for gradient in (*fused, *first, *second):
        assert gradient.isfinite().all()
    assert (first[0][:, [0, 3]] == 0).all()


@pytest.mark.parametrize("shapes, expected", [
    (((0, 2, 5, 3),) * 3, (0, 2, 5, 3)), (((2, 0, 5, 3),) * 3, (2, 0, 5, 3)), (((2, 0, 3), (2, 4, 3), (2, 4, 3)), (2, 0, 3)),
    (((2, 5, 3), (2, 0, 3), (2, 0, 3)), (2, 5, 3)), (((2, 5, 0), (2, 4, 0), (2, 4, 3)), (2, 5, 3)),
])  # fmt: skip
def test_empty_tensors(shapes: Any, expected: tuple[int, ...]) -> None:
    tensors = [gpunet.ones(*shape).requires_grad_() for shape in shapes]
    y = attention(*tensors)
    gradients = gpunet.grad(y.sum(), tensors)
    assert y.shape == expected and [g.shape for g in gradients] == [*shapes]
    assert (y == (0 if shapes[1][-2] == 0 else 1)).all()  # without keys 0, else the mean of the values


def test_large_scores_do_not_overflow() -> None:
    q, k, v = gpunet.tensor([[1e4]]), gpunet.tensor([[1e4], [-1e4]]), gpunet.tensor([[1.0], [2.0]])
    assert attention(q, k, v).item() == 1.0
    assert attention(-q, k, v).item() == 2.0


def test_a_mask_that_requires_a_gradient_gets_it(torch: Any) -> None:
    call = Call(((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)), {}, (3, 5, 7))
    gradients = []
    for library in (gpunet, torch):
        arrays, mask = call.arrays()
        bias = library.tensor(mask).requires_grad_()
        y = library.nn.functional.scaled_dot_product_attention(*map(library.tensor, arrays), bias)
        gradients.append(library.autograd.grad(y.cos().sum(), bias)[0].numpy())
    numpy.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-12)


def heads_of(projection: gpunet.Tensor) -> list[gpunet.Tensor]:
    """Query, key and value (n, heads, positions, features) of a projection (n, positions, 3, heads, features)."""
    return [projection.permute(2, 0, 3, 1, 4)[i] for i in range(3)]


def test_heads_of_a_projection_are_not_copied_and_scores_are_not_stored() -> None:
    projection = gpunet.randn(2, 300, 3, 4, 8).requires_grad_()
    q, k, v = heads_of(projection)
    tape = Tape()
    with record(tape):
        y = attention(q, k, v, is_causal=True)
        forward = [launch.kernel.name for launch in tape.launches]
        gradients = gpunet.grad(y, [q, k, v], gpunet.ones_like(y))
    assert forward == ["attention_forward"]
    assert [launch.kernel.name for launch in tape.launches][-2:] == ["attention_delta", "attention_backward"]
    arrays = [a for launch in tape.launches for a in launch.arrays if a is not None]
    assert max(a.size for a in arrays) < 300 * 300
    assert y.transpose(1, 2).is_contiguous(), "the layout of the projection, so that the heads are joined without a copy"
    assert all(g.shape == q.shape for g in gradients)


def test_strided_heads_give_the_results_of_contiguous_ones() -> None:
    projection = gpunet.randn(2, 150, 3, 4, 8, dtype=gpunet.float64)
    strided = [x.detach().requires_grad_() for x in heads_of(projection)]
    copies = [x.detach().contiguous().requires_grad_() for x in strided]
    reversed_columns = [x.detach().flip(-1).requires_grad_() for x in copies]  # the last dimension is not adjacent
    for other in (copies, reversed_columns):
        y, expected = attention(*other), attention(*strided)
        if other is reversed_columns:
            expected = expected.flip(-1)
        numpy.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
        mine = gpunet.grad((y * y).sum(), other)
        for g, of_strided in zip(mine, gpunet.grad((expected * expected).sum(), strided)):
            if other is reversed_columns:
                g = g.flip(-1)
            numpy.testing.assert_allclose(g.numpy(), of_strided.numpy(), rtol=1e-9, atol=1e-12)


def test_dropout_draws_a_mask_of_the_weights() -> None:
    gpunet.manual_seed(0)
    q, k, v = (gpunet.randn(4, 8, 32, 8) for _ in range(3))
    kept = attention(q, k, gpunet.ones_like(v), dropout_p=0.25)  # the sum of the weights that are kept, over 0.75
    assert kept.mean().item() == pytest.approx(1.0, abs=0.01) and kept.std().item() > 0.05
    assert (attention(q, k, v, dropout_p=1.0) == 0).all()
    gpunet.manual_seed(1)
    first = attention(q, k, v, dropout_p=0.5)
    gpunet.manual_seed(1)
    assert (attention(q, k, v, dropout_p=0.5) == first).all()


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask": True}, {"dropout_p": 0.5}], ids=str)
def test_captured_steps(options: dict[str, Any], backend: str) -> None:
    given = dict(options)
    if given.pop("mask", False):
        given["attn_mask"] = gpunet.tensor(numpy.random.default_rng(0).random((70, 70)) < 0.5)
    projection = gpunet.randn(2, 70, 3, 4, 8).requires_grad_()

    def step() -> Any:
        projection.grad = None
        y = attention(*heads_of(projection), **given)
        y.square().sum().backward()
        return y, projection.grad

    captured = gpunet.capture(step, backend=backend)
    for seed in range(3):
        gpunet.manual_seed(seed)
        expected = [x.detach().numpy().copy() for x in step()]
        gpunet.manual_seed(seed)
        for mine, other in zip(captured(), expected):
            numpy.testing.assert_allclose(mine.detach().numpy(), other, rtol=1e-5, atol=1e-5)


_Q, _K = gpunet.zeros(2, 4, 5, 3), gpunet.zeros(2, 4, 7, 3)


@pytest.mark.parametrize("error, text, call", [
    (ShapeError, "query has shape (3,)", lambda: attention(gpunet.zeros(3), _K, _K)),
    (ShapeError, "expected the same last dimension", lambda: attention(_Q[..., :2], _K, _K)),
    (ShapeError, "expected the same number of positions", lambda: attention(_Q, _K, _K[:, :, :6])),
    (ShapeError, "pass enable_gqa=True", lambda: attention(_Q, _K[:, :2], _K[:, :2])),
    (ShapeError, "4 heads of queries, 3 of keys", lambda: attention(_Q, _K[:, :3], _K[:, :3], enable_gqa=True)),
    (ShapeError, "expected (..., heads, positions, features)", lambda: attention(_Q[0, 0], _K[0, 0], _K[0, 0], enable_gqa=True)),
    (ShapeError, "attn_mask has shape (7, 5); expected one that broadcasts to (2, 4, 5, 7)",
     lambda: attention(_Q, _K, _K, gpunet.zeros(7, 5))),
    (DtypeError, "key has dtype float64; expected that of the query, float32", lambda: attention(_Q, _K.double(), _K)),
    (DtypeError, "query has dtype int64; expected a floating dtype", lambda: attention(_Q.long(), _K, _K)),
    (DtypeError, "attn_mask has dtype int64; expected bool, where True attends",
     lambda: attention(_Q, _K, _K, gpunet.ones(5, 7).long())),
    (ArgumentError, "got attn_mask and is_causal=True", lambda: attention(_Q, _K, _K, gpunet.zeros(5, 7), is_causal=True)),
    (ArgumentError, "dropout_p=1.5; expected a probability", lambda: attention(_Q, _K, _K, dropout_p=1.5)),
])  # fmt: skip
def test_refusals(error: type[GpunetError], text: str, call: Any) -> None:
    with pytest.raises(error, match="^scaled_dot_product_attention: ") as found:
        call()
    assert text in str(found.value)


def test_every_option_changes_the_result() -> None:
    q, k, v = (gpunet.randn(1, 4, 6, 3) for _ in range(3))
    options: list[dict[str, Any]] = [{}, {"is_causal": True}, {"scale": 2.0}, {"attn_mask": gpunet.ones(6, 6, dtype=bool).triu()}]
    values = [attention(q, k, v, **given) for given in options]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(values, 2))


@pytest.mark.parametrize("lowest", [-1e300, float(numpy.finfo("float64").min)])
def test_keys_that_a_finite_mask_lowers_equally_share_the_weight(lowest: float, device: str, torch: Any) -> None:
    """As in PyTorch: only a mask of -infinity hides keys."""
    arrays, found = numpy.random.default_rng(0).normal(size=(3, 1, 2, 5, 4)), []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        q, k, v = (library.tensor(a, **place) for a in arrays)
        mask = library.full((5, 5), lowest, dtype=library.float64, **place)
        found.append(library.nn.functional.scaled_dot_product_attention(q, k, v, mask).cpu().numpy())
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-12)
