"""Products on tensor cores: their errors, which GPUs and precisions take them, and captured steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy
import pytest

import gpunet
from gpunet import emulator, nn
from gpunet.backend import compiler, cuda_sources, disk_cache
from gpunet.backend.devices import Device
from gpunet.emulator import Function
from gpunet.launch.facts import num_elements
from gpunet.launch.kernel import Kernel
from gpunet.ops import gemm
from gpunet.ops.gemm import (
    HALVES,
    LOOPS,
    NUM_MULTIPROCESSORS,
    SIMT,
    TF32,
    TF32_3,
    Cut,
    best_cut,
    math_of,
    predicted_cycles,
)
from gpunet.ops.linear import linear_backward_weight, linear_forward
from gpunet.tools.kernel_cases import cases
from tests.ops.test_gemm import LARGE
from tests.ops.test_ops import to_numpy

F = nn.functional
EMULATED = Device("emulated")

#: name: (dtype, precision of float32 products)
FORMATS = {
    "float16": ("float16", "highest"),
    "bfloat16": ("bfloat16", "highest"),
    "TF32": ("float32", "medium"),
    "3 TF32": ("float32", "high"),
    "float32": ("float32", "highest"),
}
#: (rows, columns, depth): less than a step; ragged; rows of whole packs; split along depth; without depth
SIZES = ((3, 5, 2), (70, 65, 37), (64, 128, 96), (40, 24, 1024), (33, 17, 2000), (4, 8, 0))


@pytest.fixture(autouse=True)
def on_gpu(device: str) -> Iterator[None]:
    if device == "cpu":
        pytest.skip("the CPU has no tensor cores")
    before = gpunet.get_float32_matmul_precision()
    yield
    gpunet.set_float32_matmul_precision(before)


@contextmanager
def precision(word: str) -> Iterator[None]:
    before = gpunet.get_float32_matmul_precision()
    gpunet.set_float32_matmul_precision(word)
    try:
        yield
    finally:
        gpunet.set_float32_matmul_precision(before)


def operand(dtype: str, device: str, *shape: int, seed: int = 0) -> tuple[gpunet.Tensor, numpy.ndarray]:
    """A tensor, and its numbers in float64."""
    values = numpy.random.default_rng(seed + sum(shape)).normal(size=shape).astype("float32")
    tensor = gpunet.tensor(values, device=device).to(getattr(gpunet, dtype))
    return tensor, to_numpy(tensor.float()).astype("float64")


def bound(name: str, product: numpy.ndarray, of_absolutes: numpy.ndarray, depth: int) -> numpy.ndarray:
    """The largest error of a product in a format.

    For exact operands, a sum of k products in arithmetic of unit roundoff u differs from the exact one, in any order, by at most
    k u / (1 - k u) times the sum of the absolutes of the products (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
    section 3.1).  Sums are float32; tensor cores may truncate them, so that u is 2^-23 and not 2^-24 (Fasi, Higham, Mikaitis and
    Pranesh, Numerical behavior of NVIDIA tensor cores, 2021).  To this add of each product

    * of halves nothing: they are exact in float32;
    * of TF32 2^-10 + 2^-22: each operand is rounded to 11 bits, by at most 2^-11 of it;
    * of three products of TF32 3 2^-22 + 2^-33: both operands are sums of two numbers up to 2^-22 of them, and the product of the
      small ones, at most 2^-11 of the operands each, is left out; and there are three products to add;

    and the rounding of the result to the format, 2^-11 or 2^-8 of it.
    """
    terms = 3 * depth if name == "3 TF32" else depth
    unit = (terms + 1) * 2.0**-23
    of_sum = unit / (1 - unit) + {"TF32": 2.0**-10 + 2.0**-22, "3 TF32": 3 * 2.0**-22 + 2.0**-33}.get(name, 0.0)
    error = of_sum * of_absolutes
    of_result = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(name, 2.0**-24)
    return error + of_result * (numpy.abs(product) + error) + (2.0**-25 if name == "float16" else 0)


def assert_within_bound(name: str, found: gpunet.Tensor, a: numpy.ndarray, b: numpy.ndarray) -> None:
    product, of_absolutes = a @ b, numpy.abs(a) @ numpy.abs(b)
    errors = numpy.abs(to_numpy(found.float()).astype("float64") - product)
    assert (errors <= bound(name, product, of_absolutes, a.shape[-1])).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_errors_of_a_layer_are_within_their_bounds(name: str, size: tuple[int, int, int], device: str) -> None:
    """y = x w^T + b, dx = dy w, dw = dy^T x, db = sum of dy; a bias is one more product, of 1."""
    dtype, word = FORMATS[name]
    n, o, i = size
    (x, x64), (w, w64), (b, b64) = (operand(dtype, device, *shape) for shape in ((n, i), (o, i), (o,)))
    dy, dy64 = operand(dtype, device, n, o, seed=7)
    for tensor in (x, w, b):
        tensor.requires_grad_()
    with precision(word):
        y = F.linear(x, w, b)
        y.backward(dy)
    assert_within_bound(name, y.detach(), numpy.c_[x64, numpy.ones(n)], numpy.c_[w64, b64].T)
    assert_within_bound(name, x.grad, dy64, w64)
    assert_within_bound(name, w.grad, dy64.T, x64)
    of_bias = "float32" if dtype == "float32" else name  # not rounded to TF32
    assert_within_bound(of_bias, b.grad, numpy.ones(n), dy64)


def layouts(x: gpunet.Tensor) -> Iterator[gpunet.Tensor]:
    """A batch of matrices in memory by rows, by columns, of rows off alignment, and with a distance between elements."""
    yield x
    yield x.mT.contiguous().mT
    wider = gpunet.zeros(*x.shape[:-1], x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    wider[..., 1:] = x
    yield wider[..., 1:]
    spread = gpunet.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype, device=x.device)
    spread[..., ::2] = x
    yield spread[..., ::2]


@pytest.mark.parametrize("size", [(2, 64, 72, 40), (3, 5, 130, 33)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_errors_of_products_of_all_layouts_are_within_their_bounds(name: str, size: tuple[int, ...], device: str) -> None:
    """And all layouts give the same bits."""
    dtype, word = FORMATS[name]
    j, m, n, k = size
    (a, a64), (b, b64) = operand(dtype, device, j, m, k), operand(dtype, device, j, k, n)
    bits = set()
    with precision(word):
        for left, right in itertools.product(layouts(a), layouts(b)):
            found = left @ right
            assert_within_bound(name, found, a64, b64)
            bits.add(to_numpy(found).tobytes())
    assert len(bits) == 1


def test_precisions_differ(device: str) -> None:
    """Each is less exact than the one before."""
    (a, a64), (b, b64) = operand("float32", device, 64, 100), operand("float32", device, 100, 64)
    errors = []
    for word in ("highest", "high", "medium"):
        with precision(word):
            errors.append(numpy.abs(to_numpy(a @ b) - a64 @ b64).max())
    assert errors[0] < 1e-5 and errors[1] < 4e-5 and 1e-3 < errors[2] < 0.05


@pytest.mark.parametrize("flip", [False, True])
def test_operands_of_tf32_are_rounded_to_nearest(flip: bool, device: str) -> None:
    """1 + 2^-11 lies between 1 and 1 + 2^-10; ties are rounded away from zero, and numbers below to 1."""
    values = [1 + 2.0**-11, 1 + 2.0**-11 - 2.0**-23, -1 - 2.0**-11, 1 + 3 * 2.0**-11]
    x = gpunet.tensor([[v] for v in values], device=device)
    one = gpunet.ones(1, 1, device=device)
    with precision("medium"):
        found = (one @ x.mT).mT if flip else x @ one
    assert to_numpy(found)[:, 0].tolist() == [1 + 2.0**-10, 1.0, -1 - 2.0**-10, 1 + 2.0**-9]


def test_infinite_operands(device: str) -> None:
    """TF32 keeps infinity and nan; three products of it make nan of infinity, which has no rest."""
    x, one = gpunet.tensor([[numpy.inf], [numpy.nan], [2.0]], device=device), gpunet.ones(1, 1, device=device)
    for word, expected in (("medium", [numpy.inf, numpy.nan, 2.0]), ("high", [numpy.nan, numpy.nan, 2.0])):
        with precision(word):
            numpy.testing.assert_array_equal(to_numpy(x @ one)[:, 0], expected)


# ---- which products -----------------------------------------------------------------------------------------------------


def maths(device: str) -> dict[str, gemm.Math]:
    found = {}
    for name, (dtype, word) in {**FORMATS, "float64": ("float64", "medium")}.items():
        with precision(word):
            found[name] = math_of(gpunet.ones(1, dtype=getattr(gpunet, dtype), device=device).array)
    return found


def test_tensor_cores_multiply_halves_and_what_the_user_allowed(device: str) -> None:
    expected = {"float16": HALVES, "bfloat16": HALVES, "TF32": TF32, "3 TF32": TF32_3, "float32": SIMT, "float64": SIMT}
    assert maths(device) == expected


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (12, 0)], ids=str)
def test_older_gpus_multiply_in_plain_arithmetic(
    capability: tuple[int, int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm.devices, "of", lambda array: SimpleNamespace(type="cuda", index=0))
    monkeypatch.setattr(gemm, "_capability", lambda device: capability)
    found = {name for name, math in maths(device).items() if math != SIMT}
    assert found == {(7, 0): set(), (7, 5): {"float16"}}.get(capability, {"float16", "bfloat16", "TF32", "3 TF32"})


@pytest.mark.parametrize("math", [HALVES, TF32, TF32_3], ids=str)
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_products_fill_the_gpu(size: tuple[int, int, int], math: gemm.Math) -> None:
    cut = best_cut(*size, math=math)
    assert cut.blocks >= 0.9 * NUM_MULTIPROCESSORS  # of two steps along depth, some cannot be shared out equally


@pytest.mark.parametrize("math", [HALVES, TF32, TF32_3], ids=str)
@pytest.mark.parametrize("size", [(64, 10, 512), (128, 128, 784), (1, 1, 100_000), (8, 3000, 40)], ids=str)
def test_small_products_take_the_least_predicted_time(size: tuple[int, int, int], math: gemm.Math) -> None:
    rows, columns, depth = size
    best = predicted_cycles(best_cut(*size, math=math), depth)
    for tile, slices in itertools.product(LOOPS[math], (1, 2, 4, 8, 16, 32)):
        tiles = -(-rows // tile[0]) * -(-columns // tile[1])
        other = Cut(*tile, tiles, tiles * slices, math)
        assert best <= predicted_cycles(other, depth) or slices > depth / math.depth


@pytest.mark.parametrize("kernel", [linear_forward, linear_backward_weight], ids=str)
def test_code_for_sm_75_has_the_bits_of_that_for_sm_80(kernel: Kernel, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float16: copies through registers, and two products of half the depth."""
    if device != "emulated":
        pytest.skip("the emulator runs the code for another architecture")
    shown = [case for case in cases(kernel, "edge", ("float16",)) if "Mma" in case.expression() and "unaligned" not in case.label]
    chosen = [max(shown, key=lambda case: (flag in case.expression(), num_elements(*case.on_cpu()))) for flag in ("true", "false")]
    results = [case.on_device(EMULATED) for case in chosen]
    for case, arrays in zip(chosen, results):
        case.launch(arrays)
    text = cuda_sources.spliced(kernel.file)
    assert text.count("IS_SM_80 = true") == 1
    older = text.replace("IS_SM_80 = true", "IS_SM_80 = false")
    folder = disk_cache.cache_directory() / "emulator"
    load = lambda file, expression, device: Function(older, kernel.file, expression, folder)  # noqa: E731
    monkeypatch.setattr(compiler, "function", load)
    for case, expected in zip(chosen, results):
        arrays = case.on_device(EMULATED)
        with emulator.check():
            case.launch(arrays)
        for found, of_sm_80 in zip(arrays[: kernel.outputs], expected):
            assert found is None or found.tobytes() == of_sm_80.tobytes()


# ---- captured steps -----------------------------------------------------------------------------------------------------


def step(device: str, dtype: str) -> tuple[Callable[[gpunet.Tensor], gpunet.Tensor], gpunet.Tensor]:
    """A training step of two layers, and its input."""
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 5)).to(device).to(getattr(gpunet, dtype))
    optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)

    def run(x: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return run, operand(dtype, device, 66, 40)[0]


@pytest.mark.parametrize("name", FORMATS)
def test_replays_have_the_bits_of_eager(name: str, device: str) -> None:
    dtype, word = FORMATS[name]
    with precision(word):
        losses = []
        for capture in (False, True):
            run, x = step(device, dtype)
            captured = gpunet.capture(run) if capture else run
            losses.append([to_numpy(captured(x)).tobytes() for _ in range(4)])
    assert losses[0] == losses[1]


def test_a_change_of_precision_records_anew(device: str) -> None:
    """And a return to the first precision replays the first recording."""
    run, x = step(device, "float32")
    eager, _ = step(device, "float32")
    captured = gpunet.capture(run)
    words = ("highest", "highest", "medium", "medium", "high", "highest", "medium")
    recordings = []
    for word in words:
        with precision(word):
            assert to_numpy(captured(x)).tobytes() == to_numpy(eager(x)).tobytes()
        recordings.append(len(captured.recordings))
    assert recordings == [1, 1, 2, 2, 3, 3, 3]


def test_halves_do_not_depend_on_the_precision(device: str) -> None:
    run, x = step(device, "float16")
    captured = gpunet.capture(run)
    for word in ("highest", "medium"):
        with precision(word):
            captured(x)
    assert len(captured.recordings) == 1


def test_a_step_that_sets_the_precision_itself_has_the_bits_of_eager(device: str) -> None:
    def setting(run: Callable[[gpunet.Tensor], gpunet.Tensor]) -> Callable[[gpunet.Tensor], gpunet.Tensor]:
        def sets(x: gpunet.Tensor) -> gpunet.Tensor:
            with precision("medium"):
                return run(x)

        return sets

    (run, x), (eager, _) = step(device, "float32"), step(device, "float32")
    captured, expected = gpunet.capture(setting(run)), setting(eager)
    for _ in range(3):
        assert to_numpy(captured(x)).tobytes() == to_numpy(expected(x)).tobytes()


def test_autocast_multiplies_on_tensor_cores(device: str) -> None:
    """The result has the rounding of bfloat16, and not that of float32."""
    (x, x64), (w, w64) = operand("float32", device, 20, 300), operand("float32", device, 10, 300)
    with gpunet.autocast(device, dtype=gpunet.bfloat16):
        y = F.linear(x, w)
    assert y.dtype == gpunet.bfloat16
    numpy.testing.assert_allclose(to_numpy(y.float()), x64 @ w64.T, atol=0.6)


def test_the_same_bits_each_time_whichever_block_is_last(device: str) -> None:
    (a, _), (b, _) = operand("float16", device, 17, 2000), operand("float16", device, 2000, 33)
    assert best_cut(17, 33, 2000, math=HALVES).is_split
    assert len({to_numpy(a @ b).tobytes() for _ in range(4)}) == 1
