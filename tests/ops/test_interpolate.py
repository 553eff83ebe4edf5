"""Interpolation, padding with elements, rearrangements of pixels, and their layers: values and gradients against PyTorch."""

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
from tests.ops.test_pooling import drawn, results

F = nn.functional
MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")
SIZES: tuple[Any, ...] = (1, 3, 7, 13, (4, 9, 2))
FACTORS: tuple[Any, ...] = (2, 0.5, 1.7, 3, (2.3, 0.6, 1.5))


def calls() -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """(shape, options) of every combination; not all of them are valid."""
    for dims, mode, align in itertools.product((1, 2, 3), MODES, (None, True)):
        shape = (2, 3, 7, 6, 5)[: dims + 2]
        options = {"mode": mode, "align_corners": align}
        for size in SIZES:
            yield shape, {**options, "size": size[:dims] if isinstance(size, tuple) else size}
        for factor, recompute in itertools.product(FACTORS, (None, True)):
            factor = factor[:dims] if isinstance(factor, tuple) else factor
            yield shape, {**options, "scale_factor": factor, "recompute_scale_factor": recompute}


EVERY = tuple(calls())


def compare(call: Any, torch: Any, device: Any = "cpu") -> None:
    shape, options = call
    x = drawn(shape)
    try:
        theirs = results(torch, "interpolate", x, options)
    except (RuntimeError, ValueError, NotImplementedError):
        with pytest.raises(GpunetError, match="^interpolate: "):
            results(gpunet, "interpolate", x, options, device)
        return
    for mine, other in zip(results(gpunet, "interpolate", x, options, device), theirs, strict=True):
        assert mine.shape == other.shape
        numpy.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("call", EVERY[:: len(EVERY) // 80], ids=str)
def test_values_and_derivatives_are_those_of_torch(call: Any, device: str, torch: Any) -> None:
    compare(call, torch, device)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", MODES)
def test_every_option_gives_what_torch_gives(mode: str, torch: Any) -> None:
    for call in EVERY:
        if call[1]["mode"] == mode:
            compare(call, torch)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_every_size_takes_the_elements_that_torch_takes(mode: str, torch: Any) -> None:
    """PyTorch computes positions in float32 (but those of float64 signals in part in float64), which round up or down."""
    for n, m in itertools.product((1, 7, 30, 49, 100), range(1, 120)):
        x = numpy.arange(n, dtype="float32").reshape(1, 1, n)
        theirs = torch.nn.functional.interpolate(torch.tensor(x), m, mode=mode)
        assert F.interpolate(x, m, mode=mode).tolist() == theirs.tolist()


def test_integers(torch: Any) -> None:
    x = numpy.random.default_rng(0).integers(0, 255, (2, 3, 5, 6)).astype("uint8")
    mine, theirs = (m.nn.functional.interpolate(m.tensor(x), scale_factor=1.6) for m in (gpunet, torch))
    assert mine.dtype == "uint8" and mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_infinite_elements_stay_where_they_have_weight(mode: str, device: str) -> None:
    x = numpy.zeros((1, 1, 9, 9))
    x[0, 0, 0, 0] = numpy.inf
    y = to_numpy(F.interpolate(gpunet.tensor(x, device=device), scale_factor=2, mode=mode))
    assert not numpy.isfinite(y[0, 0, 0, 0]) and numpy.isfinite(y[0, 0, 6:]).all() and numpy.isfinite(y[0, 0, :, 6:]).all()


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_dtypes(dtype: str, digits: float, device: str) -> None:
    """Two launches, rounded once."""
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("ml_dtypes is not installed")
    kind = getattr(gpunet, dtype)
    x = gpunet.tensor(drawn((2, 3, 6, 7)), device=device).to(kind)
    found = []
    for of in (kind, gpunet.float64):
        y = F.interpolate(x.to(of), size=(9, 5), mode="bicubic")
        assert y.dtype == of
        found.append(to_numpy(y.double()))
    numpy.testing.assert_allclose(*found, rtol=digits, atol=digits)


@pytest.mark.parametrize(
    "shape, options, error, message",
    [
        ((1, 1, 4, 4), {}, ArgumentError, "size=None, scale_factor=None; expected one of them"),
        ((1, 1, 4, 4), {"size": 2, "scale_factor": 2}, ArgumentError, "size=2, scale_factor=2; expected one of them"),
        ((1, 1, 4, 4), {"size": 0}, ArgumentError, r"size=0 gives a result of \(0, 0\); expected sizes of 1 or more"),
        ((1, 1, 4, 4), {"scale_factor": 0.1}, ArgumentError, r"scale_factor=0.1 gives a result of \(0, 0\)"),
        ((1, 1, 4, 4), {"scale_factor": -1}, ArgumentError, "scale_factor=-1; expected positive numbers"),
        ((1, 1, 4, 4), {"size": (2, 2, 2)}, ArgumentError, r"size=\(2, 2, 2\); expected a number, or 2"),
        ((1, 1, 4, 4), {"size": 2, "mode": "cubic"}, ArgumentError, "mode='cubic'; expected one of 'nearest'"),
        ((1, 1, 4, 4), {"size": 2, "align_corners": True}, ArgumentError, "align_corners=True with mode='nearest'; only linear"),
        ((1, 1, 4, 4), {"size": 2, "mode": "bilinear", "antialias": True}, ArgumentError, "antialias=True is not supported"),
        ((1, 1, 4, 4), {"size": 2, "recompute_scale_factor": True}, ArgumentError, "pass scale_factor instead of size"),
        ((1, 1, 4), {"size": 2, "mode": "bilinear"}, ShapeError, r"mode='bilinear' with an input of shape \(1, 1, 4\); expected 4"),
        ((4, 4), {"size": 2}, ShapeError, "expected 3, 4 or 5 dimensions"),
        ((1, 1, 0, 4), {"size": 2}, ShapeError, "no empty dimension but the batch"),
    ],
)  # fmt: skip
def test_refusals(shape: Any, options: Any, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=f"^interpolate: .*{message}"):
        F.interpolate(gpunet.ones(*shape), **options)
    with pytest.raises(DtypeError, match="interpolate: mode='bilinear' of dtype int64"):
        F.interpolate(gpunet.ones(1, 1, 4, 4).long(), 2, mode="bilinear")


# ---- rearrangements, padding --------------------------------------------------------------------------------------------

REARRANGED = (
    ("pixel_shuffle", (2, 12, 3, 4), 2), ("pixel_shuffle", (9, 3, 4), 3), ("pixel_unshuffle", (2, 3, 6, 4), 2),
    ("pixel_unshuffle", (1, 2, 3, 6, 9), 3), ("channel_shuffle", (2, 6, 3, 4), 3), ("channel_shuffle", (2, 4, 5), 2),
)  # fmt: skip


@pytest.mark.parametrize("function, shape, number", REARRANGED)
def test_rearrangements_are_those_of_torch(function: str, shape: Any, number: int, device: str, torch: Any) -> None:
    x = drawn(shape)
    mine, theirs = (getattr(m.nn.functional, function)(m.tensor(x), number) for m in (gpunet, torch))
    assert to_numpy(mine).tolist() == theirs.tolist()


@pytest.mark.parametrize("function, shape, number, error, message", [
    ("pixel_shuffle", (1, 3, 2, 2), 2, ShapeError, "has 3 channels; expected a multiple of 4"),
    ("pixel_shuffle", (4, 4), 2, ShapeError, r"shape \(4, 4\); expected 3 dimensions or more"),
    ("pixel_shuffle", (1, 4, 2, 2), 0, ArgumentError, "upscale_factor=0; expected 1 or more"),
    ("pixel_unshuffle", (1, 1, 3, 4), 2, ShapeError, "height and width to be multiples of 2"),
    ("channel_shuffle", (1, 3, 4, 4), 2, ShapeError, "has 3 channels; expected a multiple of groups=2"),
    ("channel_shuffle", (1, 3, 4, 4), -1, ArgumentError, "groups=-1"),
])  # fmt: skip
def test_refusals_of_rearrangements(function: str, shape: Any, number: int, error: type[GpunetError], message: str) -> None:
    with pytest.raises(error, match=f"^{function}: .*{message}"):
        getattr(F, function)(gpunet.ones(*shape), number)


def pads() -> Iterator[tuple[str, tuple[Any, ...]]]:
    for name, dims in itertools.product(("ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "CircularPad"), (1, 2, 3)):
        for padding in (1, tuple(range(2 * dims))[::-1] if dims == 1 else (2, 1, 0, 2, 1, 1)[: 2 * dims]):
            yield f"{name}{dims}d", (padding, 2.5) if name == "ConstantPad" else (padding,)


LAYERS = (
    *pads(), ("PixelShuffle", (2,)), ("PixelUnshuffle", (2,)), ("ChannelShuffle", (2,)), ("Upsample", (7,)),
    ("Upsample", (None, 2)), ("Upsample", (None, (1.5, 2), "bilinear", True)), ("UpsamplingNearest2d", (None, 2)),
    ("UpsamplingBilinear2d", ((5, 3),)),
)  # fmt: skip


@pytest.mark.parametrize("name, arguments", LAYERS, ids=str)
def test_layers_are_those_of_torch(name: str, arguments: Any, device: str, torch: Any) -> None:
    mine, theirs = (getattr(m.nn, name)(*arguments) for m in (gpunet, torch))
    assert repr(mine) == repr(theirs)
    x = drawn((2, 4, 4, 6, 5)[: int(name[-2]) + 2 if name[-2].isdigit() else 4])
    found = []
    for module, net, where in ((gpunet, mine, device), (torch, theirs, "cpu")):
        tensor = module.tensor(x, device=where, requires_grad=True)
        y = net(tensor)
        (y * y).sum().backward()
        found.append([t.detach().cpu().numpy() for t in (y, tensor.grad)])
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_refusals_of_layers() -> None:
    with pytest.raises(ArgumentError, match=r"ReflectionPad2d: padding=\(1, 2\); expected an integer, or 4 of them"):
        nn.ReflectionPad2d((1, 2))
    with pytest.raises(ShapeError, match=r"ReplicationPad2d: the input has shape \(3, 4\); expected 2 dimensions behind"):
        nn.ReplicationPad2d(1)(gpunet.ones(3, 4))
    with pytest.raises(ShapeError, match="CircularPad1d"):
        nn.CircularPad1d(1)(gpunet.ones(1, 1, 3, 4))


def test_deprecated_functions_warn() -> None:
    x = gpunet.ones(1, 1, 2, 2)
    for function, options in (("upsample", {}), ("upsample_nearest", {}), ("upsample_bilinear", {})):
        with pytest.warns(UserWarning, match=f"{function} is deprecated: use nn.functional.interpolate"):
            assert getattr(F, function)(x, scale_factor=2, **options).shape == (1, 1, 4, 4)


def test_captured_steps_are_eager_ones(backend: str, device: str) -> None:
    def step(x: Any) -> Any:
        x = x.requires_grad_()
        y = F.interpolate(F.pixel_shuffle(F.pad(x, (1, 1, 1, 1), "reflect"), 2), scale_factor=1.5, mode="bilinear")
        (y * y).sum().backward()
        return y, x.grad

    captured = gpunet.capture(step, **({"backend": backend} if device == "cpu" else {}))
    for number in range(3):
        x = drawn((2, 4, 5, 6)).astype("float32") + number
        for mine, eager in zip(*(f(gpunet.tensor(x, device=device)) for f in (captured, step))):
            numpy.testing.assert_allclose(to_numpy(mine), to_numpy(eager), rtol=1e-5, atol=1e-5)
    assert len(captured.recordings) == 1


def test_padding_layers_may_be_subclassed_under_any_name() -> None:
    class Block32(nn.ZeroPad2d):
        pass

    class Short(nn.ReflectionPad1d):
        pass

    assert Block32(1)(gpunet.ones(1, 2, 3, 3)).shape == (1, 2, 5, 5)
    assert Short(2)(gpunet.ones(1, 2, 5)).shape == (1, 2, 9)
