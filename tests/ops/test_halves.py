"""float16 and bfloat16 in every op: computed in float32, rounded once per launch; and what mixes with them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import dtypes
from gpunet.errors import DtypeError
from tests.ops.test_ops import bits, formula, run, tensors, to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional
HALVES = ("float16", "bfloat16")
every_half = pytest.mark.parametrize("dtype", HALVES)

#: Errors relative to the largest element, in eps.  A launch rounds once, by eps / 2 at most; most ops are one launch.
ONE_ROUNDING = 0.51
#: Rules of primitives and chains of layers are several launches, each of which rounds what the next one reads.
FEW_ROUNDINGS = 4.0


def rounded(arrays: list[numpy.ndarray], dtype: str) -> list[numpy.ndarray]:
    """The arrays with floating values that are exact in a half, in float64."""
    return [a.astype(dtypes.as_dtype(dtype)).astype("float64") if a.dtype.kind == "f" else a for a in arrays]


def error(found: Any, expected: numpy.ndarray, dtype: str) -> float:
    """The largest error relative to the largest element, in eps; infinite where one is not finite and the other differs."""
    found = (found if isinstance(found, numpy.ndarray) else to_numpy(found)).astype("float64")
    finite = numpy.isfinite(expected)
    if not numpy.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return numpy.inf
    largest = float(numpy.abs(expected[finite]).max(initial=0.0))
    difference = float(numpy.abs(found[finite] - expected[finite]).max(initial=0.0))
    return difference / (largest * float(dtypes.finfo(dtype).eps)) if difference else 0.0


@every_half
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.takes_halves], ids=lambda sample: sample.name)
def test_results_and_gradients_are_those_of_float64(sample: Sample, dtype: str, device: str) -> None:
    """Within a rounding for results, a few for gradients; the inputs are exact in the half."""
    arrays = rounded(sample.arrays(), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's, of an overflow
        out, gradients = run(sample, tensors(sample, arrays, dtype, device))
    _, exact = run(sample, tensors(sample, arrays, "float64", device))
    has_other = sample.op in ("cast", "summed_losses") or sample.name == "_prod-with zeros"  # times float32
    assert out.dtype == dtypes.as_dtype(dtype) or has_other
    # a recurrence reads the input products of all steps, which another launch has rounded
    limit = FEW_ROUNDINGS if sample.op == "recurrence" else ONE_ROUNDING
    assert error(out, formula(sample, arrays), dtype) <= limit
    for mine, other in zip(gradients, exact):
        if mine is not None and other is not None:
            assert mine.dtype == dtypes.as_dtype(dtype) and error(mine, to_numpy(other), dtype) <= FEW_ROUNDINGS


# ---- sums, means, norms ---------------------------------------------------------------------------------------------


@every_half
def test_sums_accumulate_in_float32(dtype: str, device: str) -> None:
    """In the half, a sum of ones would stay at 256 (bfloat16) or 2048, and the mean of float16 would overflow."""
    x = gpunet.ones(300, 300, dtype=dtype)
    assert x.sum().item() == (numpy.inf if dtype == "float16" else 90112.0)  # 90000 rounded
    assert x.sum(0).tolist() == [300.0] * 300 == x.sum(1).tolist()
    assert x.mean().item() == 1.0 and x.cumsum(0)[-1, 0].item() == 300.0 and x.norm().item() == 300.0
    assert x.var().item() == 0.0 and F.mse_loss(x, 0 * x).item() == 1.0 and F.mse_loss(x, 0 * x).dtype == x.dtype
    product = gpunet.ones(2, 3000, dtype=dtype) @ gpunet.ones(3000, 2, dtype=dtype)
    assert product.tolist() == [[3000.0] * 2] * 2 if dtype == "float16" else [[3008.0] * 2] * 2


@every_half
def test_bias_gradients_accumulate_in_float32(dtype: str, device: str) -> None:
    """Also in slices of the batch, which a GPU takes for a large one, and with a scale that is no half."""
    x, w, b = (gpunet.full(shape, value, dtype=dtype) for shape, value in (((5000, 3), 0.5), ((4, 3), 0.25), ((4,), 0.0)))
    w.requires_grad_()
    b.requires_grad_()
    F.linear(x, w, b).sum().backward()
    assert b.grad is not None and b.grad.tolist() == [4992.0 if dtype == "bfloat16" else 5000.0] * 4
    assert w.grad is not None and w.grad.tolist() == [[2496.0 if dtype == "bfloat16" else 2500.0] * 3] * 4
    w.grad = b.grad = None
    F.mse_loss(F.linear(x, w, b), gpunet.zeros(5000, 4, dtype=dtype)).backward()
    assert b.grad is not None and abs(b.grad[0].item() / (2 * 0.375 / 4) - 1) < float(dtypes.finfo(dtype).eps)


@every_half
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_upstream_gradient_of_a_loss(reduction: str, dtype: str, device: str) -> None:
    """The factor that travels with a gradient is a float32, also where it is a half's upstream gradient."""
    generator = numpy.random.default_rng(0)
    x, w, y = (gpunet.tensor(generator.normal(size=s), dtype=dtype) for s in ((6, 3), (4, 3), (6, 4)))
    labels = gpunet.tensor(generator.integers(0, 4, 6))
    for loss, target in ((F.mse_loss, y), (F.cross_entropy, labels)):
        gradients = []
        for dt in (dtype, "float64"):
            leaf, given = w.detach().to(dt).requires_grad_(), target.to(dt) if target is y else target
            (loss(F.linear(x.to(dt), leaf), given, reduction=reduction).sum() * 0.3).backward()
            gradients.append(to_numpy(leaf.grad))  # type: ignore[arg-type]
        assert error(gradients[0], gradients[1], dtype) <= FEW_ROUNDINGS


@every_half
def test_gradient_norm_and_clipping(dtype: str, device: str) -> None:
    """The norm of halves is a float32: it may be larger than the largest half."""
    parameters = [gpunet.zeros(n, dtype=dtype, requires_grad=True) for n in (300, 5)]
    for p in parameters:
        p.grad = gpunet.full(p.shape, 30000.0, dtype=dtype)
    exact = 305**0.5 * parameters[0].grad[0].item()  # type: ignore[index]
    norm = nn.utils.clip_grad_norm_(parameters, 1.0)
    assert norm.dtype == gpunet.float32 and abs(norm.item() / exact - 1) < 1e-5
    assert error(parameters[0].grad, numpy.full(300, 305**-0.5), dtype) <= ONE_ROUNDING
    nn.utils.clip_grads_with_norm_(parameters, 0.5, gpunet.tensor(1.0, dtype=dtype))
    assert error(parameters[1].grad, numpy.full(5, 0.5 * 305**-0.5), dtype) <= 1.0
    nn.utils.clip_grad_value_(parameters, 0.01)
    assert {g for p in parameters for g in p.grad.tolist()} == {float(numpy.asarray(0.01, dtypes.as_dtype(dtype)))}  # type: ignore[union-attr]


# ---- numbers and other dtypes ---------------------------------------------------------------------------------------


@every_half
def test_numbers_are_not_rounded_to_the_half(dtype: str, device: str, torch: Any) -> None:
    """x * 0.1 is computed in float32 from 0.1; only a comparison rounds the number, as in PyTorch."""
    values = numpy.linspace(-3, 3, 97)
    x, t = gpunet.tensor(values, dtype=dtype), torch.from_numpy(values).to(getattr(torch, dtype))
    exact = to_numpy(x).astype("float64")
    for op in (
        lambda v: v * 0.1, lambda v: 0.1 + v, lambda v: v / 3, lambda v: 1.7 - v, lambda v: v - 0.3, lambda v: -v,
        lambda v: v.clip(-0.3, 1.1), lambda v: v**2, lambda v: v**3.0, lambda v: v // 0.5, lambda v: v % 0.75,
    ):  # fmt: skip
        assert op(x).dtype == x.dtype and error(op(x), op(exact), dtype) <= ONE_ROUNDING
    assert bits(x.clone().mul_(0.3)) == bits(x * 0.3)
    for op in (lambda v: v > 0.1, lambda v: v >= 0.1, lambda v: v == v[40].item(), lambda v: v <= 2, lambda v: v < 0.1):
        assert op(x).tolist() == op(t).tolist()
    assert (gpunet.tensor(0.1, dtype=dtype) == 0.1).item()


@every_half
@pytest.mark.parametrize("other", ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"])
def test_halves_mix_with_other_dtypes_as_in_torch(other: str, dtype: str, device: str, torch: Any) -> None:
    values, others = numpy.array([-2.5, 0.0, 0.75, 3.0], "float32"), numpy.array([1, 0, 1, 3])
    x, t = gpunet.tensor(values).to(dtype), torch.from_numpy(values).to(getattr(torch, dtype))
    y, u = gpunet.tensor(others).to(other), torch.from_numpy(others).to(getattr(torch, other))
    for op in (
        lambda a, b: a + b, lambda a, b: b * a, lambda a, b: a / (b + 1), lambda a, b: a > b, lambda a, b: b == a,
        lambda a, b: a + b[1], lambda a, b: a.clone().add_(b),
    ):  # fmt: skip
        mine, theirs = op(x, y), op(t, u)
        assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
        numpy.testing.assert_array_equal(to_numpy(mine).astype("float64"), theirs.double().numpy())
    chosen, expected = gpunet.where(y > 0, x, y), torch.where(u > 0, t, u)
    assert str(chosen.dtype) == str(expected.dtype).removeprefix("torch.")
    numpy.testing.assert_array_equal(to_numpy(chosen).astype("float64"), expected.double().numpy())
    joined, expected = gpunet.cat([x, y]), torch.cat([t, u])
    assert str(joined.dtype) == str(expected.dtype).removeprefix("torch.")
    numpy.testing.assert_array_equal(to_numpy(joined).astype("float64"), expected.double().numpy())


@every_half
def test_order_indices_and_predicates(dtype: str, device: str) -> None:
    x = gpunet.tensor([2.0, float("nan"), -1.0, float("inf"), 0.5]).to(dtype)
    assert x.isnan().tolist() == [False, True, False, False, False] and x.isinf().tolist()[3]
    finite = x[gpunet.tensor([0, 2, 4])]
    assert finite.tolist() == [2.0, -1.0, 0.5] and finite.dtype == x.dtype
    assert finite.argmax().item() == 0 and finite.argsort().tolist() == [1, 2, 0] and finite.amax().item() == 2.0
    assert finite.sort(descending=True).values.tolist() == [2.0, 0.5, -1.0] and finite.topk(2).indices.tolist() == [0, 2]
    finite[gpunet.tensor([1, 1])] = 7
    finite[0] = gpunet.tensor(0.25)
    assert finite.tolist() == [0.25, 7.0, 0.5] and finite.long().tolist() == [0, 7, 0] and (finite > 0).all().item()


@every_half
def test_random_numbers(dtype: str, device: str) -> None:
    """Uniform ones have the bits of the significand, so that none is rounded to 1; normal ones are those of float32, rounded."""
    gpunet.manual_seed(3)
    u = to_numpy(gpunet.rand(20000, dtype=dtype)).astype("float64")
    step = float(dtypes.finfo(dtype).eps) / 2
    assert u.min() == 0.0 and u.max() == 1.0 - step and (u / step == numpy.round(u / step)).all()
    assert abs(u.mean() - 0.5) < 0.01
    gpunet.manual_seed(5)
    n = gpunet.randn(1000, dtype=dtype)
    gpunet.manual_seed(5)
    assert bits(n) == bits(gpunet.randn(1000).to(dtype))
    assert bits(gpunet.nn.init.kaiming_uniform_(gpunet.empty(4, 3, dtype=dtype)).to("float64"))


def test_errors_say_what_to_do(device: str) -> None:
    half, single = gpunet.ones(3, 2).half(), gpunet.ones(3, 2)
    with pytest.raises(DtypeError, match=r"convert .* with \.float\(\) first"):
        gpunet.ones(3, dtype=gpunet.int8).requires_grad_()
    assert F.linear(single, half).dtype == gpunet.float16  # cast to the dtype of the weight


@every_half
@pytest.mark.parametrize("integer", ["int16", "int32", "int64", "uint8", "bool"])
def test_integers_are_rounded_to_the_half_beside_them(integer: str, dtype: str, device: str, torch: Any) -> None:
    """As those that are infinite in float16, although the result is computed in float32."""
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        limit = 1 if integer in ("bool", "uint8") else module.iinfo(getattr(module, integer)).max
        x = module.tensor([2.0**-14, 0.5, -2.0], dtype=getattr(module, dtype), **place)
        n = module.tensor([limit, -limit if limit > 1 else 0, limit], dtype=getattr(module, integer), **place)
        n = n.reshape(3, 1)
        found = [x * n, n / x, n + x, n**x]
        if integer != "bool":
            found += [n - x, module.fmod(n, x)]
        results.append([value.float().cpu().numpy() for value in found])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=8e-3 if dtype == "bfloat16" else 1e-3)
