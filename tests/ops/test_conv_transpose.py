"""Convolutions of signals and volumes, and transposed ones, with their layers: values and gradients against PyTorch."""

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
from tests.ops.test_ops import to_numpy

F = nn.functional
#: The shape of the input, and of filters (out_channels, in_channels / groups, ...), groups; of three dimensions: of fewer, the
#: last ones are left out.
SHAPES = (((2, 3, 5, 6, 4), (4, 3, 3, 2, 2), 1), ((3, 4, 4, 5, 5), (6, 2, 2, 3, 1), 2), ((0, 2, 4, 4, 4), (2, 2, 2, 2, 2), 1))


def has_elements(x: tuple[int, ...], w: tuple[int, ...], *numbers: Any) -> bool:
    """Whether a transposed convolution with this stride, padding and dilation has a result of positive sizes."""
    dims = len(x) - 2
    strides, pads, dilations = (n if isinstance(n, tuple) else (n,) * dims for n in numbers)
    along = zip(x[2:], w[2:], strides, pads, dilations, strict=True)
    return all((n - 1) * s - 2 * p + d * (k - 1) + 1 > 0 for n, k, s, p, d in along)


def calls() -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]]:
    """(function, input, weight, options); not all of them are valid."""
    for dims, (x, w, groups) in itertools.product((1, 2, 3), SHAPES):
        x, w = x[: dims + 2], w[: dims + 2]
        options = itertools.product((1, 2, (3, 1, 2)), (0, 1, (2, 0, 1), 3), (1, 2, (1, 3, 2)), (0, 1))
        for stride, padding, dilation, extra in options:
            stride, padding, dilation = (n[:dims] if isinstance(n, tuple) else n for n in (stride, padding, dilation))
            numbers = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            if dims != 2 and not extra:
                yield f"conv{dims}d", x, w, numbers
            if not x[0] and (extra or not has_elements(x, w, stride, padding, dilation)):
                continue  # PyTorch does not check these for an empty batch
            swapped = (x[1], w[0] // groups, *w[2:])
            yield f"conv_transpose{dims}d", x, swapped, {**numbers, "output_padding": extra}


EVERY = tuple(calls())


def results(module: Any, call: Any, dtype: Any, device: Any = "cpu") -> list[numpy.ndarray]:
    """Output, gradients, and gradients of the sum of their squares, of either library."""
    function, x, w, options = call
    generator = numpy.random.default_rng(0)
    channels = w[1] * options["groups"] if "transpose" in function else w[0]
    tensors = [module.tensor(generator.normal(size=s)).to(dtype).to(device).requires_grad_() for s in (x, w, (channels,))]
    y = getattr(module.nn.functional, function)(*tensors, **options)
    weight = module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape))).to(dtype).to(device)
    grad = module.grad if module is gpunet else module.autograd.grad
    first = grad((y * weight + y * y).sum(), tensors, create_graph=True)
    second = grad(sum((g * g).sum() for g in first), tensors)
    return [t.detach().cpu().to(module.float64).numpy() for t in (y, *first, *second)]


def compare(call: Any, torch: Any, device: Any = "cpu") -> None:
    try:
        theirs = results(torch, call, torch.float64)
    except RuntimeError:
        with pytest.raises(GpunetError, match=f"^{call[0]}: "):
            results(gpunet, call, gpunet.float64, device)
        return
    for mine, other in zip(results(gpunet, call, gpunet.float64, device), theirs, strict=True):
        assert mine.shape == other.shape
        numpy.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9 * max(1.0, numpy.abs(other).max(initial=0.0)))


@pytest.mark.parametrize("call", EVERY[:: len(EVERY) // 60], ids=str)
def test_values_and_derivatives_are_those_of_torch(call: Any, device: str, torch: Any) -> None:
    compare(call, torch, device)


@pytest.mark.exhaustive
@pytest.mark.parametrize("function", sorted({call[0] for call in EVERY}))
def test_every_option_gives_what_torch_gives(function: str, torch: Any) -> None:
    for call in EVERY:
        if call[0] == function:
            compare(call, torch)


@pytest.mark.parametrize("dtype, digits", [("float32", 2e-6), ("float16", 4e-3), ("bfloat16", 4e-2)])
@pytest.mark.parametrize("call", [
    ("conv1d", (2, 3, 9), (4, 3, 3), {"padding": 1, "groups": 1}),
    ("conv_transpose2d", (2, 4, 5, 4), (4, 3, 3, 2), {"stride": 2, "groups": 2}),
    ("conv_transpose3d", (2, 2, 3, 4, 3), (2, 3, 2, 2, 2), {"stride": 1, "padding": 1, "groups": 1}),
], ids=str)  # fmt: skip
def test_dtypes(dtype: str, digits: float, call: Any, device: str) -> None:
    """The result has the dtype of the operands, and differs from that of float64 by the rounding of them and of itself."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("ml_dtypes is not installed")
    mine, exact = (results(gpunet, call, kind, device)[:3] for kind in (getattr(gpunet, dtype), gpunet.float64))
    for a, b in zip(mine, exact):
        numpy.testing.assert_allclose(a, b, rtol=0, atol=5 * digits * numpy.abs(b).max(initial=1))


@pytest.mark.parametrize("function", ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
def test_integers_and_single_inputs(function: str, device: str, torch: Any) -> None:
    dims = int(function[-2])
    x, w = (numpy.random.default_rng(0).integers(0, 9, shape) for shape in ((4, 5, 6, 4)[: dims + 1], (4, 4, 2, 3, 2)[: dims + 2]))
    mine = getattr(F, function)(gpunet.tensor(x, device=device), gpunet.tensor(w, device=device), stride=2)
    theirs = getattr(torch.nn.functional, function)(torch.tensor(x), torch.tensor(w), stride=2)
    assert mine.dtype == "int64" and mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("function, x, w, options, error, message", [
    ("conv1d", (1, 3, 5), (4, 2, 3), {}, ShapeError, r"the input \(1, 3, 5\) has 3 channels"),
    ("conv1d", (1, 3, 5), (4, 3, 3, 3), {}, ShapeError, r"weight .*expected \(out_channels, in_channels / groups, length\)"),
    ("conv1d", (3,), (4, 3, 3), {}, ShapeError, r"expected \(batch, channels, length\), or one signal without batch"),
    ("conv1d", (1, 3, 2), (4, 3, 3), {}, ShapeError, r"filters of \(3,\) on signals of \(2,\)"),
    ("conv1d", (1, 3, 5), (4, 3, 3), {"stride": (1, 1)}, ArgumentError, r"stride=\(1, 1\); expected an integer$"),
    ("conv3d", (1, 3, 5, 5, 5), (4, 3, 3, 3, 3), {"stride": 0}, ArgumentError, "stride=0"),
    ("conv3d", (1, 3, 5, 5, 2), (4, 3, 3, 3, 3), {}, ShapeError, "on volumes of"),
    ("conv_transpose2d", (1, 3, 5, 5), (4, 2, 3, 3), {}, ShapeError, "has 3 channels; the weight .* expects 4"),
    ("conv_transpose2d", (1, 3, 5, 5), (3, 2, 3, 3), {"groups": 2}, ShapeError, "expected a multiple of groups=2"),
    ("conv_transpose2d", (1, 3, 5, 5), (3, 2, 3, 3), {"output_padding": 1}, ArgumentError, r"output_padding=\(1, 1\) with stride="),
    ("conv_transpose2d", (1, 3, 5, 5), (3, 2, 3, 3), {"bias": (3,)}, ShapeError, r"bias has shape \(3,\); expected \(2,\)"),
    ("conv_transpose2d", (1, 3, 1, 1), (3, 2, 1, 1), {"padding": 1}, ShapeError, r"a result of sizes \(-1, -1\)"),
    ("conv_transpose2d", (1, 3, 5, 5), (3, 2, 3), {}, ShapeError, r"expected \(in_channels, out_channels / groups, h"),
])  # fmt: skip
def test_refusals(function: str, x: Any, w: Any, options: dict[str, Any], error: type[GpunetError], message: str) -> None:
    options = {k: gpunet.ones(*v) if k == "bias" else v for k, v in options.items()}
    with pytest.raises(error, match=f"^{function}: .*{message}"):
        getattr(F, function)(gpunet.ones(*x), gpunet.ones(*w), **options)
    with pytest.raises(DtypeError, match="conv_transpose1d: the input has dtype float64"):
        F.conv_transpose1d(gpunet.ones(1, 1, 3).double(), gpunet.ones(1, 1, 3))


# ---- layers -----------------------------------------------------------------------------------------------------------

LAYERS = (
    ("Conv1d", (3, 4, 3), {"padding": "same", "dilation": 2}), ("Conv1d", (4, 6, 2), {"groups": 2, "stride": 2, "bias": False}),
    ("Conv1d", (3, 4, 3), {"padding": 1, "padding_mode": "circular"}), ("Conv3d", (3, 4, (1, 2, 3)), {"stride": (1, 2, 1)}),
    ("Conv3d", (3, 4, 3), {"padding": 1, "padding_mode": "replicate"}), ("ConvTranspose1d", (3, 4, 3), {"stride": 2}),
    ("ConvTranspose2d", (4, 6, 4), {"stride": 2, "padding": 1, "groups": 2}),
    ("ConvTranspose2d", (3, 2, 3), {"stride": 3, "output_padding": 2, "dilation": 2, "bias": False}),
    ("ConvTranspose3d", (3, 2, 2), {"stride": 2, "padding": 1, "output_padding": 1}),
)  # fmt: skip


@pytest.mark.parametrize("name, arguments, options", LAYERS, ids=str)
def test_layers_are_those_of_torch(name: str, arguments: Any, options: Any, torch: Any) -> None:
    """Repr, state, and values and gradients with the weights of PyTorch."""
    mine, theirs = (getattr(m.nn, name)(*arguments, **options) for m in (gpunet, torch))
    assert repr(mine) == repr(theirs)
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = numpy.random.default_rng(0).normal(size=(2, arguments[0], 7, 6, 5)[: int(name[-2]) + 2]).astype("float32")
    found = []
    for module, net in ((gpunet, mine), (torch, theirs)):
        tensor = module.tensor(x, requires_grad=True)
        y = net(tensor)
        (y * y).sum().backward()
        found.append([y.detach().numpy(), tensor.grad.numpy(), *(p.grad.numpy() for p in net.parameters())])
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * numpy.abs(b).max())


def test_output_size(torch: Any) -> None:
    x = gpunet.ones(2, 3, 5, 5)
    layer = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
    assert layer(x, output_size=(10, 9)).shape == (2, 4, 10, 9) and layer(x, output_size=(2, 4, 9, 10)).shape == (2, 4, 9, 10)
    assert layer(x, output_size=10).shape == (2, 4, 10, 10)
    with pytest.raises(DtypeError, match="conv_transpose2d: output_size=9.5 has type float; expected an integer"):
        layer(x, output_size=9.5)
    wrong = r"output_size=\(11, 9\); expected sizes from \(9, 9\) to \(10, 10\)"
    for size, message in (((11, 9), wrong), ((9,), "expected 2 sizes")):
        with pytest.raises(ArgumentError, match=f"conv_transpose2d: .*{message}"):
            layer(x, output_size=size)


@pytest.mark.parametrize("name, arguments, options, message", [
    ("Conv1d", (3, 4, (3, 3)), {}, r"kernel_size=\(3, 3\); expected an integer$"),
    ("ConvTranspose2d", (3, 4, 3), {"padding": "same"}, "padding='same'; expected integers"),
    ("ConvTranspose2d", (3, 4, 3), {"padding_mode": "reflect"}, "padding_mode='reflect'; expected one of 'zeros'"),
    ("ConvTranspose2d", (3, 4, 3), {"groups": 2}, "in_channels=3; expected a positive multiple of groups=2"),
])  # fmt: skip
def test_refusals_of_layers(name: str, arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: {message}"):
        getattr(nn, name)(*arguments, **options)


def test_captured_steps_are_eager_ones(backend: str, device: str) -> None:
    gpunet.manual_seed(0)
    down, up = nn.Conv2d(2, 3, 3, stride=2, padding=1).to(device), nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1).to(device)
    line = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 1)).to(device)

    def step(x: Any) -> Any:
        for layer in (down, up, line):
            layer.zero_grad()
        y = line(up(F.relu(down(x))).reshape(2, 8, 16))
        (y * y).mean().backward()
        return y, up.weight.grad, down.weight.grad

    captured = gpunet.capture(step, **({"backend": backend} if device == "cpu" else {}))
    for number in range(3):
        x = gpunet.tensor(numpy.random.default_rng(number).normal(size=(2, 2, 8, 8)).astype("float32"), device=device)
        for mine, eager in zip(*([to_numpy(t) for t in f(x)] for f in (captured, step))):
            numpy.testing.assert_allclose(mine, eager, rtol=1e-5, atol=1e-6)
    assert len(captured.recordings) == 1
