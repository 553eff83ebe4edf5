"""Networks for images: torchvision's ``state_dict`` keys, shapes and numbers of parameters, refusals, and training.

That they compute what PyTorch does is tested in tests/networks/.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, MissingNameError, ShapeError
from gpunet.interop.torch_modules import torch_names
from gpunet.nn import init
from gpunet.vision import models

#: Parameters of each network, as torchvision's documentation states them; of the last two rows, counted from the papers' tables.
COUNTS = {
    "alexnet": 61_100_840, "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336, "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240, "wide_resnet101_2": 126_886_696,
    "vgg11": 132_863_336, "vgg11_bn": 132_868_840, "vgg13": 133_047_848, "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544, "vgg16_bn": 138_365_992, "vgg19": 143_667_240, "vgg19_bn": 143_678_248,
    "resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018,
    "vit_b_16": 86_567_656, "vit_b_32": 88_224_232, "vit_l_16": 304_326_632, "vit_l_32": 306_535_400, "vit_h_14": 632_045_800,
    "LeNet": 61_706,
}  # fmt: skip
FUNCTIONS = [name for name in models.__all__ if name[0].islower() and callable(getattr(models, name))]
OF_TORCHVISION = [name for name in FUNCTIONS if name not in ("resnet20", "resnet32", "resnet44", "resnet56")]


@pytest.fixture
def uninitialized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let parameters have any values, so that large networks take neither time nor memory."""
    monkeypatch.setattr(init, "_draw", lambda name, tensor, *arguments, **options: tensor)
    monkeypatch.setattr(init, "trunc_normal_", lambda tensor, **options: tensor)


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in parts}, f"{name}.num_batches_tracked": ()}


def test_every_network_is_counted() -> None:
    assert {*FUNCTIONS, "LeNet"} == {*COUNTS}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name: str, uninitialized: None) -> None:
    assert sum(p.numel() for p in getattr(models, name)().parameters()) == COUNTS[name]


# ---- keys and shapes of torchvision's state_dicts -------------------------------------------------------------------


@pytest.mark.parametrize("name, blocks, is_deep", [("resnet18", (2, 2, 2, 2), False), ("resnet50", (3, 4, 6, 3), True)])
def test_keys_of_resnets(name: str, blocks: tuple[int, ...], is_deep: bool, uninitialized: None) -> None:
    expected: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512)), 1):
        out = 4 * width if is_deep else width
        kernels = [(width, channels, 3), (width, width, 3)]
        if is_deep:
            kernels = [(width, channels, 1), (width, width, 3), (out, width, 1)]
        for block in range(count):
            path = f"layer{stage}.{block}"
            for number, (o, i, size) in enumerate(kernels, 1):
                i = i if number > 1 or block == 0 else out
                expected |= {f"{path}.conv{number}.weight": (o, i, size, size), **norm(f"{path}.bn{number}", o)}
            if block == 0 and (stage > 1 or is_deep):
                expected |= {f"{path}.downsample.0.weight": (out, channels, 1, 1), **norm(f"{path}.downsample.1", out)}
        channels = out
    expected |= {"fc.weight": (1000, channels), "fc.bias": (1000,)}
    found = shapes(getattr(models, name)())
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize("name, convolutions", [
    ("vgg11", {0: (3, 64), 3: (64, 128), 6: (128, 256), 8: (256, 256), 11: (256, 512), 13: (512, 512), 16: (512, 512),
               18: (512, 512)}),
    ("vgg16_bn", {0: (3, 64), 3: (64, 64), 7: (64, 128), 10: (128, 128), 14: (128, 256), 17: (256, 256), 20: (256, 256),
                  24: (256, 512), 27: (512, 512), 30: (512, 512), 34: (512, 512), 37: (512, 512), 40: (512, 512)}),
])  # fmt: skip
def test_keys_of_vgg(name: str, convolutions: dict[int, tuple[int, int]], uninitialized: None) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for index, (i, o) in convolutions.items():
        expected |= {f"features.{index}.weight": (o, i, 3, 3), f"features.{index}.bias": (o,)}
        if name.endswith("_bn"):
            expected |= norm(f"features.{index + 1}", o)
    for index, (i, o) in {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}.items():
        expected |= {f"classifier.{index}.weight": (o, i), f"classifier.{index}.bias": (o,)}
    assert shapes(getattr(models, name)()) == expected


def test_keys_of_alexnet(uninitialized: None) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for index, shape in {
        "features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3), "classifier.1": (4096, 9216), "classifier.4": (4096, 4096),
        "classifier.6": (1000, 4096),
    }.items():  # fmt: skip
        expected |= {f"{index}.weight": shape, f"{index}.bias": shape[:1]}
    assert shapes(models.alexnet()) == expected


def test_keys_of_mobilenet_v2(uninitialized: None) -> None:
    outs = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    expected: dict[str, tuple[int, ...]] = {"features.0.0.weight": (32, 3, 3, 3), **norm("features.0.1", 32)}
    channels = 32
    for index, out in enumerate(outs, 1):
        path, hidden = f"features.{index}.conv", channels if index == 1 else 6 * channels
        wide = 0 if index == 1 else 1  # the first block has no expansion
        if wide:
            expected |= {f"{path}.0.0.weight": (hidden, channels, 1, 1), **norm(f"{path}.0.1", hidden)}
        expected |= {f"{path}.{wide}.0.weight": (hidden, 1, 3, 3), **norm(f"{path}.{wide}.1", hidden)}
        expected |= {f"{path}.{wide + 1}.weight": (out, hidden, 1, 1), **norm(f"{path}.{wide + 2}", out)}
        channels = out
    expected |= {"features.18.0.weight": (1280, 320, 1, 1), **norm("features.18.1", 1280)}
    expected |= {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}
    assert shapes(models.mobilenet_v2()) == expected


def test_keys_of_vision_transformers(uninitialized: None) -> None:
    expected: dict[str, tuple[int, ...]] = {"class_token": (1, 1, 768), "encoder.pos_embedding": (1, 197, 768)}
    expected |= {"conv_proj.weight": (768, 3, 16, 16), "conv_proj.bias": (768,)}
    for number in range(12):
        path = f"encoder.layers.encoder_layer_{number}"
        expected |= {f"{path}.self_attention.in_proj_weight": (2304, 768), f"{path}.self_attention.in_proj_bias": (2304,)}
        for layer, shape in {
            "self_attention.out_proj": (768, 768), "ln_1": (768,), "ln_2": (768,), "mlp.0": (3072, 768), "mlp.3": (768, 3072)
        }.items():  # fmt: skip
            expected |= {f"{path}.{layer}.weight": shape, f"{path}.{layer}.bias": shape[:1]}
    for layer, shape in {"encoder.ln": (768,), "heads.head": (1000, 768)}.items():
        expected |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    assert shapes(models.vit_b_16()) == expected


# ---- blocks against the papers' formulas, in PyTorch's functions ----------------------------------------------------


def normalized(f: Any, w: dict[str, Any], name: str, x: Any) -> Any:
    return f.batch_norm(x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"])


def basic(f: Any, w: dict[str, Any], x: Any) -> Any:
    y = f.relu(normalized(f, w, "bn1", f.conv2d(x, w["conv1.weight"], stride=2, padding=1)))
    y = normalized(f, w, "bn2", f.conv2d(y, w["conv2.weight"], padding=1))
    return f.relu(y + f.conv2d(x, w["downsample.weight"], stride=2))


def bottleneck(f: Any, w: dict[str, Any], x: Any) -> Any:
    y = f.relu(normalized(f, w, "bn1", f.conv2d(x, w["conv1.weight"])))
    y = f.relu(normalized(f, w, "bn2", f.conv2d(y, w["conv2.weight"], padding=2, dilation=2, groups=2)))
    return f.relu(x + normalized(f, w, "bn3", f.conv2d(y, w["conv3.weight"])))


def inverted(f: Any, w: dict[str, Any], x: Any) -> Any:
    y = f.relu6(normalized(f, w, "conv.0.1", f.conv2d(x, w["conv.0.0.weight"])))
    y = f.relu6(normalized(f, w, "conv.1.1", f.conv2d(y, w["conv.1.0.weight"], padding=1, groups=24)))
    return x + normalized(f, w, "conv.3", f.conv2d(y, w["conv.2.weight"]))


def cifar(f: Any, w: dict[str, Any], x: Any) -> Any:
    y = f.relu(normalized(f, w, "bn1", f.conv2d(x, w["conv1.weight"], stride=2, padding=1)))
    y = normalized(f, w, "bn2", f.conv2d(y, w["conv2.weight"], padding=1))
    return f.relu(y + f.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))


@pytest.mark.parametrize("formula, make", [
    (basic, lambda: models.resnet.BasicBlock(8, 16, 2, gpunet.nn.Conv2d(8, 16, 1, 2, bias=False))),
    (bottleneck, lambda: models.resnet.Bottleneck(8, 2, groups=2, base_width=64, dilation=2)),
    (inverted, lambda: models.mobilenetv2.InvertedResidual(8, 8, 1, 3)),
    (cifar, lambda: models.resnet_cifar.CifarBlock(8, 16, 2, gpunet.nn.BatchNorm2d, True)),
])  # fmt: skip
def test_blocks_compute_their_formulas(formula: Any, make: Any, torch: Any) -> None:
    block = make().double().eval()
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5 if "var" in name else -1.0, 1.5)
    weights = {name: torch.tensor(value.detach().numpy()) for name, value in block.state_dict().items()}
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = block(gpunet.tensor(x.numpy())).detach().numpy()
    numpy.testing.assert_allclose(found, formula(torch.nn.functional, weights, x).numpy(), rtol=1e-9, atol=1e-9)


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_pretrained_weights_are_refused(name: str, uninitialized: None) -> None:
    make = getattr(models, name)
    assert [*inspect.signature(make).parameters] == ["weights", "progress", "kwargs"]
    with pytest.raises(ArgumentError, match=rf"{name}: weights='DEFAULT'; .*{name}\(\)\.load_state_dict\(gpunet\.load\(path\)\)"):
        make(weights="DEFAULT")
    with pytest.raises(ArgumentError, match=rf"{name}: pretrained=True; expected None"):
        make(pretrained=True)
    make(weights=None, progress=False, pretrained=False)


def test_names_of_weights_say_the_way_out() -> None:
    with pytest.raises(MissingNameError, match=r"ResNet18_Weights: .* load a safetensors file"):
        _ = models.ResNet18_Weights
    with pytest.raises(AttributeError, match="has no attribute 'no_such_model'"):
        _ = models.no_such_model


def test_networks_have_torchvisions_places() -> None:
    with torch_names():
        from torchvision.models import resnet18
        from torchvision.models.resnet import BasicBlock

        assert resnet18 is models.resnet18 and BasicBlock is models.resnet.BasicBlock


def test_arguments_of_resnets(uninitialized: None) -> None:
    assert models.resnet18(num_classes=7).fc.weight.shape == (7, 512)
    assert isinstance(models.resnet18(norm_layer=lambda c: gpunet.nn.GroupNorm(8, c)).layer1[0].bn1, gpunet.nn.GroupNorm)
    block = models.resnet50(replace_stride_with_dilation=(False, True, True)).layer4
    assert block[0].conv2.dilation == (2, 2) and block[1].conv2.dilation == (4, 4) and block[0].conv2.stride == (1, 1)
    with pytest.raises(ArgumentError, match="BasicBlock: groups=2, base_width=64, dilation=1; expected 1, 64 and 1"):
        models.resnet18(groups=2)
    with pytest.raises(ArgumentError, match=r"layers=\[2, 2\]; expected 4"):
        models.ResNet(models.resnet.BasicBlock, [2, 2])
    with pytest.raises(ArgumentError, match=r"replace_stride_with_dilation=\(True,\); expected None, or 3 booleans"):
        models.resnet50(replace_stride_with_dilation=(True,))
    with pytest.raises(ArgumentError, match="resnext50_32x4d: groups=8; expected 32, or call ResNet"):
        models.resnext50_32x4d(groups=8)


def test_zero_init_residual_starts_blocks_as_the_identity() -> None:
    model = models.resnet18(zero_init_residual=True, num_classes=2)
    assert {float(block.bn2.weight.abs().max()) for block in model.layer2} == {0.0}
    x = gpunet.rand(1, 64, 4, 4)
    assert model.eval().layer1(x).tolist() == x.tolist()


def test_arguments_of_cifar_resnets() -> None:
    for depth in (2, 18, 21):
        with pytest.raises(ArgumentError, match=rf"depth={depth}; expected 6 n \+ 2"):
            models.CifarResNet(depth)
    with pytest.raises(ArgumentError, match="width=0; expected 1 or more"):
        models.CifarResNet(8, width=0)
    plain = models.CifarResNet(8, width=4, norm_layer=lambda channels: gpunet.nn.Identity(), shortcuts=False)
    assert all("conv" in name or "fc" in name for name in plain.state_dict())
    assert plain(gpunet.rand(2, 3, 9, 7)).shape == (2, 10)


def test_arguments_of_mobilenet_v2(uninitialized: None) -> None:
    small = models.mobilenet_v2(width_mult=0.35, num_classes=3)
    assert small.features[0][0].out_channels == 16 and small.classifier[1].weight.shape == (3, 1280)
    with pytest.raises(ArgumentError, match=r"inverted_residual_setting=\[\(1, 16\)\]; expected rows of 4 numbers"):
        models.MobileNetV2(inverted_residual_setting=[(1, 16)])
    with pytest.raises(ArgumentError, match="InvertedResidual: stride=3; expected 1 or 2"):
        models.mobilenetv2.InvertedResidual(8, 8, 3, 6)


def test_arguments_of_vision_transformers() -> None:
    small = models.VisionTransformer(8, 4, 1, 2, 6, 12, num_classes=3, representation_size=5)
    assert small(gpunet.rand(2, 3, 8, 8)).shape == (2, 3) and "heads.pre_logits.weight" in small.state_dict()
    with pytest.raises(ShapeError, match=r"an input of shape \(2, 3, 8, 9\); expected \(n, 3, 8, 8\)"):
        small(gpunet.rand(2, 3, 8, 9))
    with pytest.raises(ArgumentError, match="image_size=30; expected a multiple of patch_size=16"):
        models.vit_b_16(image_size=30)


def test_weights_load_from_safetensors(tmp_path: Path, torch: Any) -> None:
    """Written by PyTorch under the names of the table above."""
    safetensors = pytest.importorskip("safetensors.torch")
    model = models.resnet18(num_classes=4)
    weights = {name: torch.rand(shape) if shape else torch.tensor(3) for name, shape in shapes(model).items()}
    safetensors.save_file(weights, tmp_path / "resnet18.safetensors")
    model.load_state_dict(gpunet.load(tmp_path / "resnet18.safetensors"))
    assert all(numpy.array_equal(model.state_dict()[name].numpy(), value.numpy()) for name, value in weights.items())


def test_star_import_has_public_names_only() -> None:
    names: dict[str, Any] = {}
    exec("from gpunet.vision.models import *", names)
    assert names.keys() - {"__builtins__"} == {*models.__all__}
