"""Lazy convolutions, layers fused with batch normalization, functional_call, buffers and the adaptive softmax, beside PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import Function, gradgradcheck
from gpunet.errors import ArgumentError, MismatchError, MissingNameError, OutOfRangeError, ShapeError
from gpunet.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval, skip_init
from gpunet.nn.utils.stateless import functional_call


def with_state_of(theirs: Any, ours: Any) -> None:
    ours.load_state_dict({name: gpunet.tensor(value.numpy()) for name, value in theirs.state_dict().items()})


def assert_equal(ours: Any, theirs: Any) -> None:
    numpy.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_lazy_convolution(dims: int, transpose: bool, torch: Any) -> None:
    name = f"LazyConv{'Transpose' if transpose else ''}{dims}d"
    ours, theirs = (getattr(library.nn, name)(6, 3, stride=2, padding=1, groups=2) for library in (gpunet, torch))
    assert isinstance(ours.weight, nn.parameter.UninitializedParameter) and ours.in_channels == 0
    x = numpy.random.default_rng(0).normal(size=(2, 4, *[7] * dims)).astype("float32")
    assert tuple(ours(gpunet.tensor(x)).shape) == tuple(theirs(torch.tensor(x)).shape)
    assert type(ours) is getattr(nn, name.removeprefix("Lazy")) and repr(ours) == repr(theirs)
    with_state_of(theirs, ours)
    assert_equal(ours(gpunet.tensor(x)), theirs(torch.tensor(x)))


def test_lazy_convolution_draws_what_the_convolution_draws() -> None:
    gpunet.manual_seed(3)
    lazy = nn.LazyConv2d(4, 3)
    lazy(gpunet.ones(1, 2, 5, 5))
    gpunet.manual_seed(3)
    assert gpunet.equal(lazy.weight, nn.Conv2d(2, 4, 3).weight)


def test_lazy_convolution_of_a_loaded_state() -> None:
    lazy, other = nn.LazyConv2d(4, 3, bias=False), nn.Conv2d(2, 4, 3, bias=False)
    lazy.load_state_dict(other.state_dict())
    x = gpunet.randn(1, 2, 5, 5)
    assert gpunet.equal(lazy(x), other(x)) and lazy.in_channels == 2


def test_lazy_convolution_refuses() -> None:
    with pytest.raises(ShapeError, match="LazyConv2d: the input has 3 channels; expected a positive multiple of groups=2"):
        nn.LazyConv2d(4, 3, groups=2)(gpunet.ones(1, 3, 5, 5))
    with pytest.raises(ShapeError, match="expected 3 or 4 dimensions"):
        nn.LazyConv2d(4, 3)(gpunet.ones(5, 5))


@pytest.mark.parametrize("bias", [False, True])
def test_fused_with_batch_norm(bias: bool, torch: Any) -> None:
    x = gpunet.randn(5, 3, 6, 6)
    for layer, transpose in ((nn.Conv2d(3, 4, 3, bias=bias), False), (nn.ConvTranspose2d(3, 4, 3, bias=bias), True)):
        norm = nn.BatchNorm2d(4)
        model = nn.Sequential(layer, norm)
        model(x)
        with pytest.raises(ArgumentError, match="training mode"):
            fuse_conv_bn_eval(layer, norm)
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        model.eval()
        assert_equal(fuse_conv_bn_eval(layer, norm, transpose)(x), model(x))
    model = nn.Sequential(nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4))
    model(x[:, :, 0, 0])
    model.eval()
    assert_equal(fuse_linear_bn_eval(*model)(x[:, :, 0, 0]), model(x[:, :, 0, 0]))


def test_functional_call() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    weight = gpunet.eye(3).requires_grad_()
    own = model[0].weight
    x = gpunet.randn(4, 3)
    out = functional_call(model, [{"0.weight": weight}, {"0.bias": gpunet.zeros(3)}], (x,))
    (out * x).sum().backward()
    assert weight.grad is not None and model[0].weight is own and own.grad is None
    assert_equal(functional_call(model[0], {"weight": weight, "bias": gpunet.zeros(3)}, x), x)
    with pytest.raises(MissingNameError, match="'2.weight'"):
        functional_call(model, {"2.weight": weight}, x)
    with pytest.raises(ArgumentError, match="strict=True, but '0.bias'"):
        functional_call(model, {"0.weight": weight}, x, strict=True)
    with pytest.raises(ArgumentError, match="in two"):
        functional_call(model, [{"0.weight": weight}] * 2, x)


def test_functional_call_replaces_tied_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    x, double = gpunet.ones(1, 3), 2.0 * gpunet.eye(3)
    assert functional_call(model, {"0.weight": double}, x).tolist() == [[4.0] * 3]
    with pytest.raises(ArgumentError, match="one parameter"):
        functional_call(model, {"0.weight": double, "1.weight": gpunet.eye(3)}, x)


def test_skip_init_draws_nothing() -> None:
    gpunet.manual_seed(0)
    expected = gpunet.rand(2)
    gpunet.manual_seed(0)
    layer = skip_init(nn.Linear, 3, 4)
    assert gpunet.equal(gpunet.rand(2), expected) and layer.weight.shape == (4, 3)
    with pytest.raises(ArgumentError, match="no parameter device"):
        skip_init(nn.ReLU)


def test_buffer() -> None:
    module = nn.Module()
    module.mean, module.count = nn.Buffer(gpunet.ones(2)), nn.Buffer(gpunet.zeros(1), persistent=False)
    assert [name for name, _ in module.named_buffers()] == ["mean", "count"]
    assert [*module.state_dict()] == ["mean"]


def test_adaptive_softmax(torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(9, 8)).astype("float32")
    labels = numpy.array([0, 3, 11, 5, 2, 19, 7, 4, 10])
    ours, theirs = (t.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], 2.0, head_bias=True) for t in (gpunet, torch))
    with_state_of(theirs, ours)
    found = []
    for library, module in ((gpunet, ours), (torch, theirs)):
        rows = library.tensor(x, requires_grad=True)
        output, loss = module(rows, library.tensor(labels))
        loss.backward()
        found.append([output, loss, rows.grad, module.log_prob(rows), *(p.grad for p in module.parameters())])
    for a, b in zip(*found):
        assert_equal(a, b)
    assert ours.predict(gpunet.tensor(x)).tolist() == theirs.predict(torch.tensor(x)).tolist()
    assert math.isclose(float(ours.log_prob(gpunet.tensor(x)).exp().sum()), 9.0, rel_tol=1e-5)
    with pytest.raises(OutOfRangeError, match="expected 0 to 19"):
        ours(gpunet.tensor(x), gpunet.tensor(labels + 1))
    with pytest.raises(ArgumentError, match="ascending"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [10, 4])


def test_gradgradcheck() -> None:
    x = gpunet.tensor([0.3, -1.2], dtype=gpunet.float64, requires_grad=True)
    y = gpunet.tensor([1.5, 0.7], dtype=gpunet.float64, requires_grad=True)
    assert gradgradcheck(lambda a, b: a.sin() * b**3, (x, y))

    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(a)
            return a**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3.0 * (ctx.saved_tensors[0].detach() ** 2)

    with pytest.raises(MismatchError):
        gradgradcheck(Wrong.apply, x)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_norm_across_maps(size: int, torch: Any, device: str) -> None:
    """PyTorch's module adds the square of the first map to all windows that lie behind it; its function does not."""
    x = numpy.random.default_rng(0).normal(size=(2, 6, 3, 4))
    mine, theirs = nn.CrossMapLRN2d(size, 0.3, 0.6, 1.5), torch.nn.CrossMapLRN2d(size, 0.3, 0.6, 1.5)
    assert repr(mine) == repr(theirs)
    given = gpunet.tensor(x, device=device, requires_grad=True)
    y = mine(given)
    behind = (size - 1) // 2 + 1
    numpy.testing.assert_allclose(y[:, :behind].detach().cpu().numpy(), theirs(torch.tensor(x))[:, :behind].numpy(), rtol=1e-11)
    if size % 2:
        expected = torch.tensor(x, requires_grad=True)
        z = torch.nn.functional.local_response_norm(expected, size, 0.3, 0.6, 1.5)
        (z * z).sum().backward()
        (y * y).sum().backward()
        for ours, other in ((y, z), (given.grad, expected.grad)):
            numpy.testing.assert_allclose(ours.detach().cpu().numpy(), other.detach().numpy(), rtol=1e-9, atol=1e-12)  # type: ignore[union-attr]
    with pytest.raises(ShapeError, match=r"CrossMapLRN2d: the input has shape \(2, 6\)"):
        mine(gpunet.tensor(x[..., 0, 0], device=device))


@pytest.mark.parametrize("dims", [2, 3])
def test_fractional_pooling_layers(dims: int, torch: Any, device: str) -> None:
    shape = (2, 3, 5, 6, 7)[: dims + 2]
    x = numpy.random.default_rng(0).normal(size=shape)
    samples = numpy.random.default_rng(1).uniform(size=(2, 3, dims))
    found = []
    for library, options in ((gpunet, {"device": device}), (torch, {})):
        kind = getattr(library.nn, f"FractionalMaxPool{dims}d")
        module = kind(2, output_ratio=(0.5,) * dims, return_indices=True, _random_samples=library.tensor(samples, **options))
        found.append([part.cpu().numpy() for part in module(library.tensor(x, **options))])
    for ours, theirs in zip(*found, strict=True):
        numpy.testing.assert_array_equal(ours, theirs)
    drawn = getattr(nn, f"FractionalMaxPool{dims}d")(2, output_size=2)(gpunet.tensor(x, device=device))
    assert tuple(drawn.shape) == (2, 3, *(2,) * dims)
    with pytest.raises(ArgumentError, match=f"FractionalMaxPool{dims}d: output_size=2, output_ratio=0.5"):
        getattr(nn, f"FractionalMaxPool{dims}d")(2, 2, 0.5)
    with pytest.raises(ArgumentError, match=f"FractionalMaxPool{dims}d: output_size=None, output_ratio=None"):
        getattr(nn, f"FractionalMaxPool{dims}d")(2)


def test_memory_formats_of_weights() -> None:
    layer = nn.Conv2d(2, 3, 3)
    before = layer.weight.detach().clone()
    assert nn.utils.convert_conv2d_weight_memory_format(layer, gpunet.channels_last) is layer
    assert nn.utils.convert_conv3d_weight_memory_format(layer, gpunet.contiguous_format) is layer and (layer.weight == before).all()
    with pytest.raises(ArgumentError, match="convert_conv2d_weight_memory_format: memory_format='last'"):
        nn.utils.convert_conv2d_weight_memory_format(layer, "last")
