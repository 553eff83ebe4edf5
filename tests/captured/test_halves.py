"""Captured steps on halves, in all lowerings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import dtypes
from gpunet.captured import capture
from gpunet.captured.compiled import module
from tests.ops.test_halves import FEW_ROUNDINGS, error, every_half, rounded
from tests.ops.test_ops import to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional
needs_numba = pytest.mark.skipif(not module.available(), reason="Numba is not installed")


def has_dynamic_shape(sample: Sample) -> bool:
    """Whether the shape of the result depends on values."""
    return "mask" in sample.name and sample.op in ("_index", "_unindex", "_with_index")


_RECORDED = [s for s in SAMPLES if s.takes_halves and not has_dynamic_shape(s)]
_GROUPS = [tuple(_RECORDED[start : start + 40]) for start in range(0, len(_RECORDED), 40)]
_NAMES = [f"{group[0].name}..." for group in _GROUPS]


def arguments(samples: tuple[Sample, ...], dtype: str, seed: int, device: str) -> list[list[gpunet.Tensor]]:
    half = dtypes.as_dtype(dtype)
    return [
        [
            gpunet.tensor(a, dtype=half if dtypes.is_floating(a.dtype) else None, device=device)
            for a in rounded(sample.arrays(seed), dtype)
        ]
        for sample in samples
    ]


def differentiate_all(samples: tuple[Sample, ...]) -> Callable[[list[list[gpunet.Tensor]]], list[list[gpunet.Tensor]]]:
    """A step that returns of each sample the result, and the gradients of a sum of its elements with the weights 1, 2, 3, 1, ...

    Of a plain sum, the gradient of a softmax is 0 but for roundings, which no tolerance can be relative to.
    """

    def differentiate(sample: Sample, inputs: list[gpunet.Tensor]) -> list[gpunet.Tensor]:
        leaves = [x.detach().requires_grad_() if given.gradient else x for x, given in zip(inputs, sample.inputs)]
        out = sample.call(*leaves)
        if out.requires_grad:
            weights = gpunet.arange(out.numel(), device=out.device).remainder(3).reshape(out.shape) + 1
            (out * weights.to(out.dtype)).sum().backward()
        return [out, *(x.grad for x in leaves if x.grad is not None)]

    return lambda given: [differentiate(sample, inputs) for sample, inputs in zip(samples, given)]


def results(samples: tuple[Sample, ...], dtype: str, device: str, **options: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, result of eager, result of the captured step), with other inputs than those of the recording."""
    step = differentiate_all(samples)
    captured = capture(step, **options)
    for seed in range(3):
        expected, found = (f(arguments(samples, dtype, seed, device)) for f in (step, captured))
        for sample, of_eager, of_captured in zip(samples, expected, found, strict=True):
            for e, f in zip(of_eager, of_captured, strict=True):
                assert e.dtype == f.dtype
                yield sample.name, to_numpy(e), to_numpy(f)
    assert len(captured.recordings) == 1


@every_half
@pytest.mark.parametrize("samples", _GROUPS, ids=_NAMES)
def test_replays_have_the_bits_of_eager(samples: tuple[Sample, ...], dtype: str, device: str) -> None:
    options = {"backend": "numpy"} if device == "cpu" else {}
    assert [name for name, eager, replay in results(samples, dtype, device, **options) if eager.tobytes() != replay.tobytes()] == []


@needs_numba
@every_half
@pytest.mark.parametrize(
    "samples",
    [pytest.param(g, marks=[pytest.mark.exhaustive] * (number > 0), id=_NAMES[number]) for number, g in enumerate(_GROUPS)],
)
def test_compiled_steps_have_the_values_of_eager(samples: tuple[Sample, ...], dtype: str) -> None:
    """Rounded at the same places: what differs is the order of sums in float32."""
    for name, eager, found in results(samples, dtype, "cpu", backend="numba"):
        assert error(found, eager.astype("float64"), dtype) <= FEW_ROUNDINGS, name


def losses(dtype: str, optimizer: str, device: str, backend: str | None) -> tuple[list[float], list[numpy.ndarray], Any]:
    """Losses of a classifier, its weights after training, and the captured step."""
    gpunet.manual_seed(0)
    half = dtypes.as_dtype(dtype)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 4)).to(half).to(device)
    # the squares of small gradients are 0 in float16
    options = {"lr": 0.05, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.05, "eps": 1e-3}
    optim = getattr(gpunet.optim, optimizer)(model.parameters(), **options)

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optim.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optim.step()
        return loss

    run = step if backend is None else capture(step, **({"backend": backend} if device == "cpu" else {}))
    generator, found = numpy.random.default_rng(1), []
    for _ in range(60):
        x = generator.normal(size=(32, 6)).astype("float32")
        labels = gpunet.tensor((x[:, 0] > 0) + 2 * (x[:, 1] > 0), device=device)
        found.append(run(gpunet.tensor(x, device=device).to(half), labels).item())
    return found, [to_numpy(p) for p in model.parameters()], run


@every_half
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_captured_training_has_the_bits_of_eager(optimizer: str, dtype: str, device: str) -> None:
    eager, weights, _ = losses(dtype, optimizer, device, None)
    replayed, replayed_weights, _ = losses(dtype, optimizer, device, "numpy")
    assert replayed == eager and eager[-1] < 0.5 * eager[0]
    assert [w.tobytes() for w in replayed_weights] == [w.tobytes() for w in weights]
    assert all(w.dtype == dtypes.as_dtype(dtype) for w in weights)


@needs_numba
@every_half
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_compiled_training_follows_eager(optimizer: str, dtype: str) -> None:
    """All of it is loops: not one call of NumPy is left."""
    eager, _, _ = losses(dtype, optimizer, "cpu", None)
    found, _, step = losses(dtype, optimizer, "cpu", "numba")
    # another order of sums flips a rounding of the weights now and then, by eps; training amplifies that
    numpy.testing.assert_allclose(found, eager, rtol=0.02, atol=8 * float(dtypes.finfo(dtype).eps))
    source = step.recordings[0].lowering.source
    assert source.count("def part") == 1 and "copyto" not in source


@needs_numba
@every_half
def test_loops_convert_as_numpy(dtype: str) -> None:
    """Every half to float32; every float32 that is a half, near one, or halfway between two, back."""
    from numba import njit

    from gpunet.captured.compiled import jit

    name, half = {"float16": "f2", "bfloat16": "bf2"}[dtype], dtypes.as_dtype(dtype)
    widen, rounding = getattr(jit, f"widen_{name}"), getattr(jit, f"round_{name}")

    @njit
    def all_wide(halves):
        out = numpy.empty(halves.size, numpy.float32)
        for i in range(halves.size):
            out[i] = widen(halves[i])
        return out

    @njit
    def all_rounded(values):
        out = numpy.empty(values.size, numpy.uint16)
        for i in range(values.size):
            out[i] = rounding(values[i])
        return out

    every = numpy.arange(65536, dtype=numpy.uint16)
    wide = every.view(half).astype(numpy.float32)
    numpy.testing.assert_array_equal(all_wide(every), wide)
    exact = wide[numpy.isfinite(wide)]
    halfway = ((exact.astype("float64")[:-1] + exact[1:]) / 2).astype(numpy.float32)  # exact is sorted by magnitude
    with numpy.errstate(all="ignore"):
        beside = [numpy.nextafter(v, numpy.float32(end)) for v in (exact, halfway) for end in (-numpy.inf, numpy.inf)]
        values = numpy.concatenate([wide, halfway, *beside])
        expected = values.astype(half)
    numpy.testing.assert_array_equal(all_rounded(values).view(half).astype("float32"), expected.astype("float32"))

