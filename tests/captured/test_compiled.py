"""Compiled steps: the values of eager up to rounding for every op, the same bits in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.captured import CapturedStep, capture
from gpunet.captured.compiled import module
from gpunet.errors import LabelError, MissingDependencyError
from gpunet.launch.random import default_generator
from tests.captured.compiled.steps import training_step
from tests.captured.optimizers import OPTIMIZERS
from tests.samples import SAMPLES, Sample

if not module.available():
    if os.environ.get("GPUNET_REQUIRE_NUMBA") == "1":
        pytest.fail("GPUNET_REQUIRE_NUMBA=1, but Numba is not installed: pip install 'gpunet[jit]'", pytrace=False)
    pytest.skip("Numba is not installed", allow_module_level=True)

F = nn.functional
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def assert_close(a: Any, b: Any, name: str, dtype: str) -> None:
    a, b = numpy.asarray(a), numpy.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype), name
    tolerance = TOLERANCE[dtype]
    scale = max(1.0, float(numpy.max(numpy.abs(b), initial=0.0)))
    numpy.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=name)


# ---- every op -------------------------------------------------------------------------------------------------------


def differentiate(sample: Sample, inputs: list[gpunet.Tensor]) -> list[gpunet.Tensor]:
    """The result of a sample, and the gradients of the sum of its squares."""
    leaves = [x.detach().requires_grad_() if given.gradient else x for x, given in zip(inputs, sample.inputs)]
    out = sample.call(*leaves)
    if out.requires_grad:
        (out * out).sum().backward()
    return [out, *(x.grad for x in leaves if x.grad is not None)]


def has_dynamic_shape(sample: Sample) -> bool:
    """Whether the shape of the result depends on values."""
    return "mask" in sample.name and sample.op in ("_index", "_unindex", "_with_index")


_SAMPLES_PER_STEP = 20  # one compilation of many samples takes less time than many compilations
_RECORDED = [s for s in SAMPLES if not has_dynamic_shape(s)]
_OWN_FUNCTIONS = ("activation", "_exp", "_expm1", "_log", "_log1p", "tanh", "_erf", "regression_loss", "labels_loss", "_matmul")
_OWN = [s for s in _RECORDED if s.op in _OWN_FUNCTIONS and "mean" not in s.name]


def groups(dtype: str, samples: list[Sample], *marks: pytest.MarkDecorator) -> list[Any]:
    starts = range(0, len(samples), _SAMPLES_PER_STEP)
    return [pytest.param(dtype, samples[start : start + _SAMPLES_PER_STEP], marks=marks) for start in starts]


_GROUPS = [*groups("float32", _RECORDED), pytest.param("float64", _OWN)]
_GROUPS += groups("float64", [s for s in _RECORDED if s not in _OWN], pytest.mark.exhaustive)


@pytest.mark.parametrize("dtype, samples", _GROUPS, ids=lambda v: v if isinstance(v, str) else f"{v[0].name}...")
def test_every_op_has_the_values_of_eager(dtype: str, samples: list[Sample]) -> None:
    """Forward and backward, on three other inputs than those of the recording."""

    def arguments(seed: int) -> list[list[gpunet.Tensor]]:
        return [
            [gpunet.tensor(a.astype(dtype) if a.dtype.kind == "f" else a) for a in sample.arrays(seed)] for sample in samples
        ]

    def step(given: list[list[gpunet.Tensor]]) -> list[list[gpunet.Tensor]]:
        return [differentiate(sample, inputs) for sample, inputs in zip(samples, given)]

    captured = capture(step, backend="numba")
    for seed in range(4):
        expected, found = step(arguments(seed)), captured(arguments(seed))
        for sample, of_eager, of_compiled in zip(samples, expected, found, strict=True):
            for e, f in zip(of_eager, of_compiled, strict=True):
                assert_close(f.detach().numpy(), e.detach().numpy(), sample.name, dtype)
    assert len(captured.recordings) == 1


# ---- training -------------------------------------------------------------------------------------------------------

STEPS = 120


def training(optimizer: str, backend: str, accumulate: int = 1) -> tuple[list[float], list[numpy.ndarray]]:
    """Losses and weights of a classifier with dropout; the learning rate is halved midway."""
    gpunet.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Dropout(0.2), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4))
    optim = OPTIMIZERS[optimizer](list(model.parameters()))

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optim.zero_grad()
        for part in range(accumulate):
            loss = F.cross_entropy(model(x[part::accumulate].contiguous()), y[part::accumulate].contiguous())
            loss.backward()
        optim.step()
        return loss

    run = step if backend == "eager" else capture(step, backend=backend)
    generator = numpy.random.default_rng(1)
    losses = []
    for number in range(STEPS):
        if number == STEPS // 2:
            optim.param_groups[0]["lr"] *= 0.5
        x = generator.normal(size=(30, 6)).astype("float32")
        losses.append(run(gpunet.tensor(x), gpunet.tensor((x[:, 0] > 0) + 2 * (x[:, 1] > 0))).item())
    return losses, [p.detach().numpy().copy() for p in model.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_eager(optimizer: str) -> None:
    losses, weights = training(optimizer, "eager")
    state = default_generator.position(gpunet.device("cpu"))
    found, found_weights = training(optimizer, "numba")
    assert default_generator.position(gpunet.device("cpu")) == state  # dropout drew the same masks
    # rounding errors grow, and Adam divides by small roots; wrong dropout masks or rates would change the first digit
    numpy.testing.assert_allclose(found, losses, rtol=2e-3)
    for a, b in zip(found_weights, weights, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


def test_gradients_accumulate() -> None:
    losses, _ = training("sgd", "eager", accumulate=2)
    numpy.testing.assert_allclose(training("sgd", "numba", accumulate=2)[0], losses, rtol=1e-4)


def test_two_runs_have_the_same_bits() -> None:
    first, second = training("adam", "numba"), training("adam", "numba")
    assert first[0] == second[0]
    assert [a.tobytes() for a in first[1]] == [a.tobytes() for a in second[1]]


_SCRIPT = """
import hashlib, os, sys
from tests.captured.test_compiled import training
losses, weights = training("adam", "numba")
print(hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest())
stats = next(m for n, m in sys.modules.items() if n.startswith("gpunet_start_")).start.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
entries = [m.entry for n, m in sys.modules.items() if n.startswith("gpunet_entry_")]
print(len(entries), sum(bool(entry.cache_hits) for entry in entries))
"""


def test_another_process_loads_cached_machine_code_and_computes_the_same_bits(tmp_path: Path) -> None:
    def run_process() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], capture_output=True, text=True,
            check=False, env={**os.environ, "GPUNET_CACHE_DIR": str(tmp_path)}, cwd=Path(gpunet.__file__).parents[1],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    first, second = run_process(), run_process()
    assert first[1:3] == ["0", "1"]
    count = first[3]
    assert int(count) > 5  # two products, the loss, dropout forward and backward, and nests
    assert first[4] == "0"
    assert second[1:] == ["1", "0", count, count]
    assert first[0] == second[0]


# ---- parts ----------------------------------------------------------------------------------------------------------


def lowering(step: CapturedStep) -> Any:
    return step.recordings[0].lowering


def test_a_step_is_one_compiled_part() -> None:
    weight = gpunet.tensor(numpy.ones((3, 4), "float32"), requires_grad=True)

    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return F.relu(F.linear(x, weight)).sum()

    step(gpunet.ones(5, 4))
    assert step(gpunet.ones(5, 4)).item() == 60.0
    source = lowering(step).source
    assert source.count("def part") == 1
    assert "maximum(" in source.partition("def bind")[0]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_each_gradient_and_its_update_are_one_nest(optimizer: str) -> None:
    """The optimizer's twin updates small tensors as one vector; a compiled step fuses the update of each tensor."""
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 17), nn.ReLU(), nn.Linear(17, 5))
    step = training_step(model, getattr(gpunet.optim, optimizer)(model.parameters(), lr=0.1))
    for _ in range(2):
        step(gpunet.ones(8, 30), gpunet.zeros(8).long())
    source = lowering(step).source
    calls = [line.strip() for line in source.splitlines() if line.startswith("    nest_")]
    for parameter in (p for p in model.parameters() if p.ndim == 2):
        names = [call.partition("(")[0] for call in calls if call.endswith(f", {parameter.numel()})")]
        assert len(names) == 1, f"{parameter.shape}: {len(names)} nests"
        assert " - " in source.partition(f"def {names[0]}(")[2].partition("def ")[0]
    assert not any(call.endswith(f", {sum(p.numel() for p in model.parameters())})") for call in calls)


def test_calls_before_an_invalid_label_run_once() -> None:
    found = []
    for captured in (False, True):
        gpunet.manual_seed(0)
        calls = gpunet.zeros(1)

        def step(x: gpunet.Tensor, y: gpunet.Tensor, calls: gpunet.Tensor = calls) -> gpunet.Tensor:
            calls.add_(1.0)
            return F.cross_entropy(F.dropout(x, 0.5), y)

        run = capture(step, backend="numba") if captured else step
        for label in (0, 1, 2):
            run(gpunet.ones(1, 3), gpunet.tensor([label]))
        with pytest.raises(LabelError, match="label 3"):
            run(gpunet.ones(1, 3), gpunet.tensor([3]))
        found.append((calls.item(), default_generator.position()))
    assert found[0] == found[1]


def test_numpy_calls_run_between_compiled_parts() -> None:
    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return gpunet.sort(x * 2.0, 1).values + 1.0

    generator = numpy.random.default_rng(0)
    for _ in range(3):
        x = generator.normal(size=(4, 7)).astype("float32")
        assert (step(gpunet.tensor(x)).numpy() == numpy.sort(x * 2, 1) + 1).all()
    assert lowering(step).source.count("def part") > 1


def test_an_invalid_label_raises_before_the_update() -> None:
    weight = gpunet.tensor(numpy.ones((3, 4), "float32"), requires_grad=True)
    step = training_step(lambda x: F.linear(x, weight), gpunet.optim.SGD([weight], lr=0.1))
    x, y = gpunet.ones(5, 4), gpunet.tensor(numpy.array([0, 1, 2, 1, 0]))
    step(x, y)
    before = weight.detach().numpy().copy()
    with pytest.raises(LabelError, match="label 3 at row 1; expected 0 .. 2"):
        step(x, gpunet.tensor(numpy.array([0, 3, 2, 1, 0])))
    assert (weight.detach().numpy() == before).all()
    assert numpy.isfinite(step(x, y).item())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_have_the_bits_of_eager(dtype: str) -> None:
    @capture(backend="numba")
    def step() -> list[gpunet.Tensor]:
        return [
            gpunet.rand(37, dtype=dtype), gpunet.randint(-5, 9, (11,)), F.dropout(gpunet.ones(50, dtype=dtype), 0.3),
            gpunet.randn(9, dtype=dtype), gpunet.rand(6, dtype=dtype) * 4 - 1,
        ]  # fmt: skip

    step()  # recorded
    for seed, counter in ((3, 0), (2**63, 17), (5, 2**64 - 12)):  # the last counter carries into its second word
        gpunet.manual_seed(seed)
        state = default_generator.state(gpunet.device("cpu"))
        state[1] = counter
        found = [t.numpy().tobytes() for t in step()]
        after = state.copy()
        state[1] = counter
        assert found == [t.numpy().tobytes() for t in step.function()]
        assert (state == after).all()


def test_special_numbers() -> None:
    values = numpy.array([0.0, -0.0, 1e-40, 88.7, 89.5, -104.0, -90.0, numpy.inf, -numpy.inf, numpy.nan, 3e38, -1.0], "float32")

    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> list[gpunet.Tensor]:
        return [
            x.exp(), x.log(), x.log1p(), x.expm1(), x.tanh(), x.sqrt(), 1.0 / x, x.sign(), F.relu(x), x.amax(), x * 0.0 + x,
            x.erf(), x**0.5, gpunet.minimum(x, 0.0), gpunet.maximum(0.0, x),
        ]  # fmt: skip

    step(gpunet.ones(12))
    for found, expected in zip(step(gpunet.tensor(values)), step.function(gpunet.tensor(values)), strict=True):
        numpy.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=5e-7, atol=1e-44)
        zero = expected.numpy() == 0
        assert (numpy.signbit(found.numpy()) == numpy.signbit(expected.numpy()))[zero].all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_of_tanh_gelu_at_large_numbers(dtype: str) -> None:
    largest = float(gpunet.finfo(dtype).max)
    values = [largest, -largest, numpy.inf, -numpy.inf, 12.0, -12.0, numpy.nan]

    @capture(backend="numba")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        x = x.detach().requires_grad_()
        F.gelu(x, approximate="tanh").sum().backward()
        return x.grad

    step(gpunet.ones(7, dtype=dtype))
    found = step(gpunet.tensor(values, dtype=dtype)).numpy()
    numpy.testing.assert_array_equal(found, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, numpy.nan])


@pytest.mark.parametrize("classes", [3, 10, 40])
def test_cross_entropy_of_rows_that_are_not_finite(classes: int) -> None:
    """Rows do not affect each other: NaN at the start, in the middle, at the end; infinities; very large logits."""
    logits = numpy.random.default_rng(0).normal(size=(8, classes)).astype("float32")
    logits[1, 0] = logits[2, classes // 2] = logits[3, -1] = numpy.nan
    logits[4, 1], logits[5, :], logits[6, 2] = numpy.inf, -numpy.inf, -numpy.inf
    logits[7] *= 1e4

    @capture(backend="numba")
    def step(x: gpunet.Tensor, labels: gpunet.Tensor) -> tuple[gpunet.Tensor, ...]:
        x = x.detach().requires_grad_()
        each = F.cross_entropy(x, labels, reduction="none")
        each.sum().backward()
        return each.detach(), x.grad

    arguments = [gpunet.tensor(logits), gpunet.tensor(numpy.arange(8) % classes)]
    step(*arguments)
    for found, expected in zip(step(*arguments), step.function(*arguments), strict=True):
        numpy.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_all_shapes_and_layouts(dtype: str) -> None:
    """Full and partial tiles, single rows and columns, transposed operands."""
    shapes = [(1, 1, 1), (5, 7, 9), (8, 16, 3), (13, 33, 40), (20, 1, 64), (1, 40, 35), (3, 2, 70), (64, 10, 17), (9, 50, 2)]

    @capture(backend="numba")
    def step(*given: gpunet.Tensor) -> list[gpunet.Tensor]:
        pairs = zip(given[::2], given[1::2])
        return [p for a, b in pairs for p in (a @ b.T.contiguous(), a @ b.T, a.T.contiguous().T @ b.T, (b @ a.T).T)]

    for seed in (0, 1):
        generator = numpy.random.default_rng(seed)
        arrays = [generator.normal(size=s).astype(dtype) for m, n, k in shapes for s in ((m, k), (n, k))]
        found = iter(step(*map(gpunet.tensor, arrays)))
        for a, b in zip(arrays[::2], arrays[1::2]):
            for _ in range(4):
                assert_close(next(found).numpy(), a @ b.T, str(a.shape), dtype)


# ---- choice of the backend ------------------------------------------------------------------------------------------


def test_auto_prefers_numba_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available", lambda: True)
    assert capture(lambda x: x).backend == "numba"
    monkeypatch.setattr(module, "available", lambda: False)
    assert capture(lambda x: x).backend == "numpy"


def test_error_without_numba_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gpunet\[jit\]'"):
        capture(lambda x: x, backend="numba")


def test_only_compiled_steps_import_numba() -> None:
    code = (
        "import gpunet, sys; s = gpunet.capture(lambda x: x * 2, backend='numpy'); s(gpunet.ones(2)); s(gpunet.ones(2)); "
        "gpunet.capture(lambda x: x); print('numba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(gpunet.__file__).parents[1]
    )
    assert done.stdout == "False\n"
