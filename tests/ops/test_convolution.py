"""conv2d and Conv2d: values and gradients against PyTorch, fusion, captured steps, refusals."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import devices
from gpunet.backend.dtypes import has_bfloat16
from gpunet.errors import ArgumentError, DtypeError, GpunetError, ShapeError
from gpunet.launch.tape import Tape, record
from gpunet.ops import convolution
from tests.captured.test_fuse import work
from tests.ops.test_ops import to_numpy

F = nn.functional
#: (input, weight, groups): images larger and smaller than tiles and chunks, odd sizes, one pixel, no images.
SHAPES = (
    ((2, 3, 7, 9), (4, 3, 3, 3), 1), ((1, 1, 5, 5), (1, 1, 1, 1), 1), ((3, 4, 9, 16), (6, 2, 5, 3), 2),
    ((2, 4, 12, 11), (8, 1, 2, 4), 4), ((0, 2, 6, 6), (2, 2, 3, 3), 1), ((2, 3, 4, 3), (2, 3, 4, 3), 1),
    ((70, 2, 9, 9), (2, 2, 3, 3), 1), ((2, 5, 10, 8), (3, 5, 1, 1), 1),
)  # fmt: skip
OPTIONS = tuple(itertools.product((1, 2, (3, 1), 5), (0, 1, (2, 0), 3), (1, 2)))  # stride, padding, dilation


def calls() -> Iterator[Any]:
    """Every shape with every option that the filters fit."""
    for (x, w, groups), (stride, padding, dilation) in itertools.product(SHAPES, OPTIONS):
        pads = padding if isinstance(padding, tuple) else (padding, padding)
        if all(n + 2 * p > dilation * (k - 1) for n, p, k in zip(x[2:], pads, w[2:])):
            yield x, w, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


EVERY = tuple(calls())


def normal(*shapes: tuple[int, ...]) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=shape) for shape in shapes]


def results(
    module: Any, arrays: list[numpy.ndarray], options: dict[str, Any], dtype: Any, device: Any = None
) -> list[numpy.ndarray]:
    """Output, gradients, and gradients of the sum of their squares, of either library."""
    tensors = [module.tensor(a).to(dtype).to(device or "cpu").requires_grad_() for a in arrays]
    y = module.nn.functional.conv2d(*tensors, **options)
    weight = module.tensor(numpy.random.default_rng(1).normal(size=tuple(y.shape))).to(dtype).to(device or "cpu")
    grad = module.grad if module is gpunet else module.autograd.grad
    first = grad((y * weight + y * y).sum(), tensors, create_graph=True)
    second = grad(sum((g * g).sum() for g in first), tensors)
    return [t.detach().cpu().to(module.float64).numpy() for t in (y, *first, *second)]


@pytest.mark.parametrize("call", EVERY[:: len(EVERY) // 60], ids=str)
def test_values_and_derivatives_are_those_of_torch(call: Any, device: str, torch: Any) -> None:
    x, w, options = call
    arrays = normal(x, w, w[:1])
    for mine, theirs in zip(*(results(m, arrays, options, m.float64, where) for m, where in ((gpunet, device), (torch, None)))):
        assert mine.shape == theirs.shape
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * max(1.0, numpy.abs(theirs).max(initial=0.0)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("call", EVERY, ids=str)
def test_every_option_gives_what_torch_gives(call: Any, torch: Any) -> None:
    test_values_and_derivatives_are_those_of_torch(call, "cpu", torch)


@pytest.mark.parametrize("dtype, digits", [("float32", 2e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_dtypes(dtype: str, digits: float, number: int, device: str) -> None:
    """The result has the dtype of the operands, and differs from that of float64 by its rounding."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("ml_dtypes is not installed")
    x, w, groups = SHAPES[number]
    kind = getattr(gpunet, dtype)
    arrays = [to_numpy(gpunet.tensor(a).to(kind).double()) for a in normal(x, w, w[:1])]

    def run(of: Any) -> list[gpunet.Tensor]:
        tensors = [gpunet.tensor(a).to(of).to(device).requires_grad_() for a in arrays]
        y = F.conv2d(*tensors, padding=1, groups=groups)
        y.backward(gpunet.ones_like(y))
        return [y, *(t.grad for t in tensors if t.grad is not None)]

    for mine, exact in zip(run(kind), run(gpunet.float64)):
        assert mine.dtype == kind
        values = to_numpy(exact)
        numpy.testing.assert_allclose(to_numpy(mine.double()), values, rtol=digits, atol=digits * numpy.abs(values).max())


@pytest.mark.parametrize("chunk_bytes", [1, 5000])
@pytest.mark.parametrize("waste", [1.0, 10.0])
def test_chunks_and_copies_do_not_change_values(chunk_bytes: int, waste: float, torch: Any, monkeypatch: Any) -> None:
    """Of one image and of several, the last one smaller; with all taps copied, and with the horizontal ones alone."""
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(convolution, "_MAX_WASTE", waste)
    for x, w, options in EVERY[:: len(EVERY) // 20]:
        arrays = normal(x, w, w[:1])
        for mine, theirs in zip(*(results(m, arrays, options, m.float64) for m in (gpunet, torch))):
            numpy.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * max(1.0, numpy.abs(theirs).max(initial=0.0)))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("filters, dilation", [((3, 3), 1), ((2, 4), 1), ((2, 3), 3)])
def test_padding_by_name(padding: str, filters: tuple[int, int], dilation: int, device: str, torch: Any) -> None:
    arrays = normal((2, 3, 8, 9), (4, 3, *filters))
    options = {"padding": padding, "dilation": dilation}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch copies the input for an odd border
        theirs = results(torch, arrays, options, torch.float64)
    for mine, other in zip(results(gpunet, arrays, options, gpunet.float64, device), theirs):
        numpy.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers(dtype: str, device: str, torch: Any) -> None:
    x, w, b = (numpy.random.default_rng(0).integers(0, 9, shape) for shape in ((2, 4, 5, 6), (6, 2, 3, 2), (6,)))
    mine = F.conv2d(*(gpunet.tensor(a.astype(dtype), device=device) for a in (x, w, b)), padding=1, stride=2, groups=2)
    theirs = torch.nn.functional.conv2d(*(torch.tensor(a.astype(dtype)) for a in (x, w, b)), padding=1, stride=2, groups=2)
    assert mine.dtype == dtype and mine.tolist() == theirs.tolist()


def test_one_image_without_a_batch(torch: Any) -> None:
    arrays = normal((3, 6, 5), (4, 3, 3, 2), (4,))
    for mine, theirs in zip(*(results(m, arrays, {"stride": 2}, m.float64) for m in (gpunet, torch))):
        assert mine.shape == theirs.shape
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize(
    "x, w, options, error, message",
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), {}, ShapeError, r"the input \(1, 3, 5, 5\) has 3 channels; .*groups=1 expects 2"),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, ShapeError, "3 output channels; expected a multiple of groups=2"),
        ((1, 3, 5, 5), (4, 3, 3), {}, ShapeError, r"weight has shape \(4, 3, 3\); expected \(out_channels"),
        ((5, 5), (4, 3, 3, 3), {}, ShapeError, r"the input has shape \(5, 5\)"),
        ((1, 3, 2, 5), (4, 3, 3, 3), {}, ShapeError, r"filters of \(3, 3\) on images of \(2, 5\); expected filters that fit"),
        ((1, 3, 4, 4), (4, 3, 3, 3), {"dilation": 3, "padding": 1}, ShapeError, r"dilated to \(7, 7\), on .* padded to \(6, 6\)"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"bias": (3,)}, ShapeError, r"bias has shape \(3,\); expected \(4,\)"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"stride": 0}, ArgumentError, "stride=0; expected integers of 1 or more"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"stride": (1, 2, 3)}, ArgumentError, r"stride=\(1, 2, 3\); expected an integer, or a pair"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"dilation": -1}, ArgumentError, "dilation=-1"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"padding": -1}, ArgumentError, "padding=-1"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"padding": "full"}, ArgumentError, "padding='full'; expected integers, 'valid' or 'same'"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"padding": "same", "stride": 2}, ArgumentError, "padding='same' with stride="),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"groups": 0}, ArgumentError, "groups=0; expected 1 or more"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"stride": 1.5}, DtypeError, "stride=1.5 has type float; expected an integer"),
        ((1, 3, 5, 5), (4, 3, 0, 3), {}, ShapeError, "expected filters of one element or more"),
    ],
)  # fmt: skip
def test_refusals(x: Any, w: Any, options: dict[str, Any], error: type[GpunetError], message: str) -> None:
    options = {k: gpunet.ones(*v) if k == "bias" else v for k, v in options.items()}
    with pytest.raises(error, match="conv2d: " if message.startswith("conv2d") else f"conv2d: .*{message}"):
        F.conv2d(gpunet.ones(*x), gpunet.ones(*w), **options)


def test_refusals_of_dtypes() -> None:
    x, w = gpunet.ones(1, 1, 3, 3), gpunet.ones(1, 1, 2, 2)
    for arguments, message in (
        ((x.double(), w), r"the input has dtype float64; expected that of the weight, float32: use \.to\(float32\)"),
        ((x, w, gpunet.ones(1).double()), "bias has dtype float64"), ((x.bool(), w.bool()), "weight has dtype bool"),
    ):  # fmt: skip
        with pytest.raises(DtypeError, match=f"conv2d: {message}"):
            F.conv2d(*arguments)


# ---- the module -------------------------------------------------------------------------------------------------------

MODULES = (
    ((3, 4, 3), {}),
    ((3, 4, (2, 3)), {"stride": (2, 1), "padding": (1, 0), "bias": False}),
    ((4, 6, 3), {"groups": 2, "dilation": 2}), ((3, 4, 3), {"padding": "same"}),
    ((3, 2, 3), {"padding": 1, "padding_mode": "reflect"}),
    ((3, 2, (2, 3)), {"padding": (1, 2), "padding_mode": "replicate", "stride": 2}),
    ((3, 2, 3), {"padding": "same", "padding_mode": "circular"}),
)  # fmt: skip


@pytest.mark.parametrize("arguments, options", MODULES, ids=str)
def test_module_is_that_of_torch(arguments: Any, options: Any, torch: Any) -> None:
    """Repr, state, and values and gradients with the weights of PyTorch."""
    theirs = torch.nn.Conv2d(*arguments, **options)
    mine = nn.Conv2d(*arguments, **options)
    assert repr(mine) == repr(theirs)
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    [x] = normal((2, arguments[0], 7, 8))
    found = []
    for module, net in ((gpunet, mine), (torch, theirs)):
        images = module.tensor(x.astype("float32"), requires_grad=True)
        y = net(images)
        (y * y).sum().backward()
        found.append([y.detach().numpy(), images.grad.numpy(), *(p.grad.numpy() for p in net.parameters())])
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * numpy.abs(b).max())


def test_initial_values_have_the_range_of_torch() -> None:
    gpunet.manual_seed(0)
    layer = nn.Conv2d(8, 64, (3, 5), groups=2)
    bound = (4 * 15) ** -0.5
    for p in layer.parameters():
        assert 0.9 * bound < numpy.abs(to_numpy(p)).max() <= bound


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((3, 4, 3), {"groups": 2}, "in_channels=3; expected a positive multiple of groups=2"),
        ((2, 3, 3), {"groups": 2}, "out_channels=3"),
        ((3, 4, 0), {}, "kernel_size=0"), ((3, 4, 3), {"padding_mode": "zero"}, "padding_mode='zero'; expected one of 'zeros'"),
        ((3, 4, 3), {"padding": "same", "stride": 2}, "padding='same' with stride"), ((3, 4, 3), {"groups": 0}, "groups=0"),
    ],
)  # fmt: skip
def test_refusals_of_the_module(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"Conv2d: .*{message}"):
        nn.Conv2d(*arguments, **options)


# ---- fusion, captured steps -------------------------------------------------------------------------------------------


def network(device: str) -> nn.Sequential:
    gpunet.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(27, 5))
    return nn.Sequential(*layers).to(device)


def test_sequential_fuses_activations_with_the_same_bits(device: str) -> None:
    net, x = network(device), gpunet.randn(3, 2, 8, 8, device=device)
    y = net(x)
    nodes = []
    node: Any = y.grad_fn
    while node is not None and not isinstance(node, gpunet.Tensor):
        nodes.append(node.name)
        node = next((n for n, _ in node.next_functions if n is not None), None)
    assert nodes == ["linear_chain", "_reshape", "convolution", "convolution"]
    single = x
    for layer in net:
        single = layer(single)
    assert to_numpy(single).tobytes() == to_numpy(y).tobytes()


def training_step(net: nn.Module) -> Any:
    optimizer = gpunet.optim.SGD(net.parameters(), lr=0.05)

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("functional", [False, True])
def test_captured_steps_train_as_eager_ones(functional: bool, backend: str, device: str) -> None:
    net = network(device)
    other = copy.deepcopy(net)
    call: Any = net
    if functional:  # not a Sequential
        call = _Calls(net)
    eager, step = training_step(other), gpunet.capture(training_step(call), **({"backend": backend} if device == "cpu" else {}))
    for number in range(3):
        x = gpunet.tensor(normal((3, 2, 8, 8))[0].astype("float32") + number, device=device)
        labels = gpunet.tensor([1, 4, 0], device=device)
        a, b = step(x, labels).item(), eager(x, labels).item()
        assert a == b if backend == "numpy" else abs(a - b) < 1e-5
    assert len(step.recordings) == 1


class _Calls(nn.Module):
    """Calls the layers of a Sequential one by one, and activations as functions."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second, self.last = net[0], net[2], net[5]

    def forward(self, x: Any) -> Any:
        return self.last(F.gelu(self.second(F.relu(self.first(x)))).flatten(1))


def test_launches_of_convolution_bias_and_relu(device: str) -> None:
    """One forward; dX, which computes the derivative of the ReLU before it, and dW; nothing else."""
    if device == "cpu":
        pytest.skip("a replay on the CPU has no launches")
    gpunet.manual_seed(0)
    first, second = nn.Conv2d(2, 4, 3, padding=1).to(device), nn.Conv2d(4, 3, 3).to(device)
    x = gpunet.randn(3, 2, 8, 8, device=device)
    upstream = gpunet.randn(3, 3, 6, 6, device=device)

    def step(x: Any, upstream: Any) -> Any:
        x = x.detach().requires_grad_()
        for p in (*first.parameters(), *second.parameters()):
            p.grad = None
        y = second(F.relu(first(x)))
        y.backward(upstream)
        return y, x.grad

    captured = gpunet.capture(step)
    captured(x, upstream)
    names = [name for name in work(captured) if name != "copy"]
    assert names[:2] == ["conv2d_forward"] * 2
    assert sorted(names[2:]) == ["conv2d_backward_input"] * 2 + ["conv2d_backward_weight"] * 2
    for mine, expected in zip(captured(x, upstream), step(x, upstream)):
        assert to_numpy(mine).tobytes() == to_numpy(expected).tobytes()


def test_the_scale_of_a_mean_is_applied_by_the_launch_of_dw(device: str) -> None:
    """The gradient of a mean loss travels unscaled to dX, and no launch scales it."""
    layer = nn.Conv2d(2, 3, 3).to(device)
    images, target = gpunet.randn(4, 2, 5, 5, device=device), gpunet.randn(4, 3, 3, 3, device=device)
    with record(Tape()) as tape:
        F.mse_loss(layer(images), target).backward()
    assert "multiply" not in [launch.kernel.name for launch in tape.launches]
    [launch] = [launch for launch in tape.launches if launch.kernel is convolution.conv2d_backward_weight]
    scale = gpunet.from_numpy(devices.to_host(launch.arrays[-1]))
    x, w, b = (gpunet.tensor(to_numpy(t), dtype="float64", device="cpu") for t in (images, *layer.parameters()))
    w.requires_grad_()
    F.mse_loss(F.conv2d(x, w, b), target.cpu().double(), reduction="sum").backward()
    assert w.grad is not None and layer.weight.grad is not None and scale.tolist() != [1.0]
    numpy.testing.assert_allclose(to_numpy(layer.weight.grad), to_numpy(w.grad) * (1 / 108), rtol=1e-4, atol=1e-6)


def test_saves_only_what_backward_needs(device: str) -> None:
    x, w = gpunet.randn(2, 3, 5, 5, device=device), gpunet.randn(4, 3, 3, 3, device=device)
    of_weight = F.conv2d(x, w.clone().requires_grad_()).grad_fn.saved
    of_input = F.conv2d(x.clone().requires_grad_(), w).grad_fn.saved
    assert [a is not None for a in of_weight] == [True, False, False]
    assert [a is not None for a in of_input] == [False, True, False]
