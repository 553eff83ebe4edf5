"""Pooling and its layers: values and gradients against PyTorch, NaN and infinities, captured steps, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend.dtypes import has_bfloat16
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from gpunet.ops import pooling_launches
from tests.ops.test_ops import to_numpy

F = nn.functional
SHAPES = ((2, 3, 7, 9, 5), (3, 6, 4, 8), (0, 2, 5, 5, 5))  # of three dimensions; of fewer, the last ones are left out
TAPS: tuple[Any, ...] = (1, 2, 3, (2, 3, 2))
STRIDES: tuple[Any, ...] = (None, 1, 2, (3, 1, 2))


def calls() -> Iterator[tuple[str, tuple[int, ...], dict[str, Any]]]:
    """(function, shape, options) of every combination; not all of them are valid."""
    for dims, shape in itertools.product((1, 2, 3), SHAPES):
        shape = shape[: len(shape) - 3 + dims]
        options = itertools.product(TAPS, STRIDES, (0, 1), (1, 2), (False, True))
        for number, (taps, stride, padding, dilation, ceil) in enumerate(options):
            taps, stride = (n[:dims] if isinstance(n, tuple) else n for n in (taps, stride))
            numbers = {"kernel_size": taps, "stride": stride, "padding": padding, "ceil_mode": ceil}
            yield f"max_pool{dims}d", shape, {**numbers, "dilation": dilation, "return_indices": True}
            divisor = {"divisor_override": (None, 3, -2)[number % 3]} if dims > 1 else {}
            yield f"avg_pool{dims}d", shape, {**numbers, "count_include_pad": dilation == 1, **divisor}
        for size in (1, 2, 3, 5, 7, (None, 2, 3)):
            size = size[:dims] if isinstance(size, tuple) else size
            if size != (None,):
                yield f"adaptive_max_pool{dims}d", shape, {"output_size": size, "return_indices": True}
                yield f"adaptive_avg_pool{dims}d", shape, {"output_size": size}


EVERY = tuple(calls())


def drawn(shape: tuple[int, ...]) -> numpy.ndarray:
    """Normal numbers, half of them 0, so that maxima are tied."""
    generator = numpy.random.default_rng(0)
    return numpy.where(generator.random(shape) < 0.5, 0, generator.normal(size=shape))


def results(module: Any, function: str, x: numpy.ndarray, options: dict[str, Any], device: Any = "cpu") -> list[numpy.ndarray]:
    """Output, gradient, the gradient of the sum of its squares, and places, of either library."""
    tensor = module.tensor(x, device=device, requires_grad=True)
    found = getattr(module.nn.functional, function)(tensor, **options)
    y, *places = found if isinstance(found, tuple) else (found,)
    weight = module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape)), device=device)
    grad = module.grad if module is gpunet else module.autograd.grad
    (first,) = grad((y * weight + y * y).sum(), [tensor], create_graph=True)
    (second,) = grad((first * first).sum(), [tensor])
    return [t.detach().cpu().numpy() for t in (y, first, second, *places)]


def compare(call: Any, torch: Any, device: Any = "cpu") -> None:
    function, shape, options = call
    x = drawn(shape)
    try:
        theirs = results(torch, function, x, options)
    except RuntimeError:
        with pytest.raises(GpunetError, match=f"^{function}: "):
            results(gpunet, function, x, options, device)
        return
    for mine, other in zip(results(gpunet, function, x, options, device), theirs, strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        numpy.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("call", EVERY[:: len(EVERY) // 80], ids=str)
def test_values_and_derivatives_are_those_of_torch(call: Any, device: str, torch: Any) -> None:
    compare(call, torch, device)


@pytest.mark.exhaustive
@pytest.mark.parametrize("function", sorted({call[0] for call in EVERY}))
def test_every_option_gives_what_torch_gives(function: str, torch: Any) -> None:
    for call in EVERY:
        if call[0] == function:
            compare(call, torch)


@pytest.mark.parametrize("function, options", [
    ("max_pool2d", {"kernel_size": 3, "stride": 1, "padding": 1, "return_indices": True}),
    ("max_pool2d", {"kernel_size": 2, "dilation": 2, "return_indices": True}),
    ("max_pool2d", {"kernel_size": 9, "stride": 2, "padding": 4, "return_indices": True}),
    ("adaptive_max_pool2d", {"output_size": 5, "return_indices": True}), ("avg_pool2d", {"kernel_size": 3, "padding": 1}),
])  # fmt: skip
def test_nan_and_infinities(function: str, options: dict[str, Any], device: str, torch: Any) -> None:
    """A NaN is the maximum, the last one of several; of windows of -inf, the first element."""
    values = numpy.array([0.0, 1.0, numpy.nan, -numpy.inf])
    x = numpy.random.default_rng(0).choice(values, (3, 2, 12, 12), p=(0.2, 0.1, 0.1, 0.6))
    x[0] = -numpy.inf
    found = []
    for module, where in ((gpunet, device), (torch, "cpu")):
        tensor = module.tensor(x, device=where, requires_grad=True)
        y = getattr(module.nn.functional, function)(tensor, **options)
        y, *places = y if isinstance(y, tuple) else (y,)
        y.backward(module.ones_like(y))
        found.append([t.detach().cpu().numpy() for t in (y, tensor.grad, *places)])
    for mine, theirs in zip(*found):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_infinite_elements_stay_in_their_windows(device: str, torch: Any) -> None:
    """Of an adaptive mean, whose twin is a product with zeros."""
    x = numpy.ones((1, 1, 7, 7))
    x[0, 0, 0, 0], x[0, 0, 6, 6] = numpy.inf, numpy.nan
    mine = F.adaptive_avg_pool2d(gpunet.tensor(x, device=device), 3)
    numpy.testing.assert_allclose(to_numpy(mine), torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x), 3).numpy())


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("call", [
    ("max_pool2d", {"kernel_size": 3, "stride": 2}), ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("adaptive_avg_pool2d", {"output_size": 4}), ("adaptive_max_pool2d", {"output_size": 4}),
], ids=str)  # fmt: skip
def test_dtypes(dtype: str, digits: float, call: Any, device: str) -> None:
    """The result has the dtype of the input, and differs from that of float64 by its rounding."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("ml_dtypes is not installed")
    (function, options), kind = call, getattr(gpunet, dtype)
    x = to_numpy(gpunet.tensor(drawn((2, 3, 10, 11))).to(kind).double())
    found = []
    for of in (kind, gpunet.float64):
        tensor = gpunet.tensor(x).to(of).to(device).requires_grad_()
        y = getattr(F, function)(tensor, **options)
        y.backward(gpunet.ones_like(y))
        assert y.dtype == of and tensor.grad is not None
        found.append([to_numpy(t.double()) for t in (y, tensor.grad)])
    for mine, exact in zip(*found):
        numpy.testing.assert_allclose(mine, exact, rtol=digits, atol=digits * numpy.abs(exact).max())


def test_chunks_do_not_change_values(torch: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(pooling_launches, "_CHUNK_BYTES", 1)
    for call in EVERY[:: len(EVERY) // 40]:
        compare(call, torch)


def test_the_functions_with_indices_are_the_same(torch: Any) -> None:
    x = gpunet.tensor(drawn((2, 3, 8, 8)))
    for name, argument in (("max_pool2d", 2), ("adaptive_max_pool2d", 3)):
        for mine, other in zip(getattr(F, f"{name}_with_indices")(x, argument), getattr(F, name)(x, argument, return_indices=True)):
            assert mine.tolist() == other.tolist()


def test_inference_keeps_no_places(device: str) -> None:
    x = gpunet.randn(2, 3, 8, 8, device=device)
    assert F.max_pool2d(x, 2).grad_fn is None
    y = F.max_pool2d(x.requires_grad_(), 2)
    assert [a.dtype for a in y.grad_fn.saved] == [numpy.int32] and F.avg_pool2d(x, 2).grad_fn.saved == ()


@pytest.mark.parametrize(
    "function, shape, options, error, message",
    [
        ("max_pool2d", (1, 1, 4, 4), {"kernel_size": 0}, ArgumentError, "kernel_size=0; expected integers of 1 or more"),
        ("max_pool2d", (1, 1, 4, 4), {"kernel_size": (1, 2, 3)}, ArgumentError, r"kernel_size=\(1, 2, 3\); .* a pair"),
        ("max_pool1d", (1, 1, 4), {"kernel_size": 2.5}, DtypeError, "kernel_size=2.5 has type float; expected an integer"),
        ("avg_pool2d", (1, 1, 4, 4), {"kernel_size": 2, "stride": 0}, ArgumentError, "stride=0"),
        ("avg_pool2d", (1, 1, 4, 4), {"kernel_size": 2, "padding": 2}, ArgumentError, "padding=2 .* at most half of it, 1"),
        ("max_pool2d", (1, 1, 4, 4), {"kernel_size": 2, "dilation": 0}, ArgumentError, "dilation=0"),
        ("max_pool2d", (1, 1, 4, 4), {"kernel_size": 5}, ShapeError, r"kernel_size=5 .*\(1, 1, 4, 4\); expected windows that fit"),
        ("max_pool2d", (4, 4), {"kernel_size": 2}, ShapeError, r"shape \(4, 4\); expected \(batch, channels, height, width\)"),
        ("max_pool2d", (1, 0, 4, 4), {"kernel_size": 2}, ShapeError, "no empty dimension but the batch"),
        ("max_pool1d", (1, 1, 1), {"kernel_size": 2, "dilation": 3, "padding": 2}, ArgumentError, "some windows have no element"),
        ("avg_pool3d", (1, 1, 4, 4, 4), {"kernel_size": 2, "divisor_override": 0}, ArgumentError, "divisor_override=0"),
        ("adaptive_avg_pool2d", (1, 1, 4, 4), {"output_size": 0}, ArgumentError, "output_size=0; expected integers of 1 or more"),
        ("adaptive_max_pool2d", (1, 1, 4, 4), {"output_size": (1,)}, ArgumentError, r"output_size=\(1,\); .* 2 integers or None"),
        ("adaptive_avg_pool1d", (1, 1, 4), {"output_size": None}, ArgumentError, "output_size=None; expected an integer$"),
    ],
)  # fmt: skip
def test_refusals(function: str, shape: Any, options: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=f"^{function}: .*{message}"):
        getattr(F, function)(gpunet.ones(*shape), **options)


def test_refusals_of_dtypes_and_planes() -> None:
    with pytest.raises(DtypeError, match=r"max_pool2d: the input has dtype int64; expected a floating dtype: .*\.float\(\)"):
        F.max_pool2d(gpunet.ones(1, 1, 4, 4).long(), 2)
    with pytest.raises(ShapeError, match="avg_pool1d: .* expected less than 2\\^31 elements in a plane"):
        F.avg_pool1d(gpunet.zeros(1, 1, 1).expand(1, 1, 1 << 31), 2)


# ---- modules ----------------------------------------------------------------------------------------------------------

MODULES = (
    ("MaxPool1d", (2,), {}), ("MaxPool2d", (3, 2), {"padding": 1, "ceil_mode": True}), ("MaxPool3d", ((1, 2, 2),), {"dilation": 2}),
    ("MaxPool2d", (2,), {"return_indices": True}), ("AvgPool1d", (3,), {"stride": 1, "count_include_pad": False, "padding": 1}),
    ("AvgPool2d", ((2, 3),), {"divisor_override": 5}), ("AvgPool3d", (2, 1), {}), ("AdaptiveAvgPool1d", (3,), {}),
    ("AdaptiveAvgPool2d", ((None, 3),), {}), ("AdaptiveAvgPool3d", (2,), {}), ("AdaptiveMaxPool1d", (3,), {}),
    ("AdaptiveMaxPool2d", ((3, 4),), {"return_indices": True}), ("AdaptiveMaxPool3d", (2,), {}),
)  # fmt: skip


@pytest.mark.parametrize("name, arguments, options", MODULES, ids=str)
def test_modules_are_those_of_torch(name: str, arguments: Any, options: Any, torch: Any) -> None:
    mine, theirs = (getattr(m.nn, name)(*arguments, **options) for m in (gpunet, torch))
    assert repr(mine) == repr(theirs)
    x = drawn((2, 3, 7, 6, 5)[: int(name[-2]) + 2])
    found = [net(m.tensor(x)) for m, net in ((gpunet, mine), (torch, theirs))]
    for a, b in zip(*(f if isinstance(f, tuple) else (f,) for f in found)):
        numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


# ---- captured steps ---------------------------------------------------------------------------------------------------


def test_captured_steps_are_eager_ones(backend: str, device: str) -> None:
    def step(x: Any) -> Any:
        x = x.requires_grad_()
        y = F.adaptive_avg_pool2d(F.avg_pool2d(F.relu(F.max_pool2d(x, 2)), 3, 1, 1), 3) + F.adaptive_max_pool2d(x, (3, 3))
        (y * y).sum().backward()
        return y, x.grad

    captured = gpunet.capture(step, **({"backend": backend} if device == "cpu" else {}))
    for number in range(3):
        x = drawn((2, 3, 11, 10)).astype("float32") + number
        for mine, eager in zip(*(f(gpunet.tensor(x, device=device)) for f in (captured, step))):
            numpy.testing.assert_allclose(to_numpy(mine), to_numpy(eager), rtol=1e-5, atol=1e-5)
    assert len(captured.recordings) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"ceil_mode": True}, {"stride": 3}, {"padding": 1}], ids=str)
def test_captured_maxima_of_pairs_are_the_eager_ones(options: dict[str, Any], dtype: str, backend: str) -> None:
    """Of ties, NaN and infinities too; large enough for several threads."""
    values = numpy.array([0.0, -0.0, 1.0, numpy.nan, -numpy.inf], dtype)
    x = numpy.random.default_rng(0).choice(values, (40, 20, 23, 31), p=(0.2, 0.1, 0.1, 0.1, 0.5))
    x[::2] = drawn((20, 20, 23, 31)).astype(dtype)
    leaf = gpunet.tensor(x, requires_grad=True)
    weights = gpunet.tensor(drawn(F.max_pool2d(leaf, 2, **options).shape).astype(dtype))

    def step() -> Any:
        y, places = F.max_pool2d(leaf, 2, return_indices=True, **options)
        leaf.grad = None
        (y * weights).sum().backward()
        return y.detach(), places, leaf.grad

    captured = gpunet.capture(step, backend=backend)
    for _ in range(2):
        for mine, eager in zip(captured(), step()):
            numpy.testing.assert_array_equal(mine.numpy(), eager.numpy())
