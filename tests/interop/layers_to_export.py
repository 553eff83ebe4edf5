"""Every module of gpunet.nn, and networks, with inputs: what the exports are tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

import gpunet
from gpunet import models, nn
from gpunet.vision import models as vision


class Row(NamedTuple):
    """A module and the arguments of a call.

    Attributes:
        make: -> module.
        inputs: random numbers -> arrays.
        axes: the dynamic dimension of each input, or None; by default the first of all.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]
    axes: tuple[int | None, ...] | None = None


class Applied(nn.Module):
    """A function of tensors as a module, with another module in it."""

    def __init__(self, function: Callable[..., Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.inner = function, inner

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs) if self.inner is None else self.function(self.inner, *inputs)


def normal(*shapes: tuple[int, ...]) -> Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]:
    return lambda r: tuple(r.normal(size=shape).astype(numpy.float32) for shape in shapes)


def probabilities(count: int, *shape: int) -> Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]:
    return lambda r: tuple(r.uniform(0.05, 0.95, shape).astype(numpy.float32) for _ in range(count))


def labelled(classes: int, *shape: int) -> Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]:
    return lambda r: (r.normal(size=shape).astype(numpy.float32), r.integers(0, classes, (shape[0], *shape[2:])))


def signs(count: int) -> Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]:
    def draw(r: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
        shape = (4, 6)
        x = [r.normal(size=shape).astype(numpy.float32) for _ in range(count)]
        return (*x, numpy.where(r.random(shape) < 0.5, -1, 1).astype(numpy.float32))

    return draw


ROWS: dict[str, Row] = {}


def row(name: str, make: Callable[[], nn.Module], inputs: Any, axes: Any = None) -> None:
    assert name not in ROWS
    ROWS[name] = Row(make, normal(inputs) if isinstance(inputs, tuple) else inputs, axes)


# ---- activations

for name, options in [
    ("CELU", {"alpha": 0.5}), ("ELU", {"alpha": 0.3}), ("GELU", {}), ("GELU tanh", {"approximate": "tanh"}), ("GLU", {}),
    ("SELU", {}), ("Hardshrink", {}), ("Hardsigmoid", {}), ("Hardswish", {}), ("Hardtanh", {"min_val": -0.2, "max_val": 0.5}),
    ("LeakyReLU", {}),
    ("LogSigmoid", {}), ("LogSoftmax", {"dim": 1}), ("Mish", {}), ("PReLU", {"num_parameters": 6}), ("RReLU", {}), ("ReLU", {}),
    ("ReLU inplace", {"inplace": True}), ("ReLU6", {}), ("SiLU", {}), ("Sigmoid", {}), ("Softmax", {"dim": 1}),
    ("Softmin", {"dim": 1}),
    ("Softplus", {"beta": 2.0, "threshold": 1.0}), ("Softshrink", {}), ("Softsign", {}), ("Tanh", {}), ("Tanhshrink", {}),
    ("Threshold", {"threshold": 0.1, "value": 2.0}),
]:  # fmt: skip
    row(name, lambda n=name, o=options: getattr(nn, n.split()[0])(**o), (3, 6))
row("Softmax2d", nn.Softmax2d, (2, 3, 4, 5))

# ---- linear

row("Linear", lambda: nn.Linear(5, 3), (4, 5))
row("Linear of sequences", lambda: nn.Sequential(nn.Linear(5, 3), nn.GELU(), nn.Linear(3, 2, bias=False)), (4, 7, 5))
row("LazyLinear", lambda: nn.LazyLinear(3), (4, 5))
row("Bilinear", lambda: nn.Bilinear(3, 4, 2), normal((5, 3), (5, 4)))
row("Identity", nn.Identity, (4, 5))
row("Flatten", nn.Flatten, (2, 3, 4))
row("Unflatten", lambda: nn.Unflatten(1, (2, 3)), (4, 6))
row("CosineSimilarity", nn.CosineSimilarity, normal((4, 6), (4, 6)))
row("PairwiseDistance", nn.PairwiseDistance, normal((4, 6), (4, 6)))
for name in ("AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"):
    shape = {"Dropout1d": (2, 3, 4), "Dropout2d": (2, 3, 4, 5)}.get(name, (2, 3, 4, 5, 6))
    row(name, getattr(nn, name), shape)
row("Sequential", lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1)), (5, 3))
row("DataParallel", lambda: nn.DataParallel(nn.Linear(3, 2)), (4, 3))
row("ModuleList", lambda: Applied(lambda m, x: m[1](m[0](x)), nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])), (4, 3))
row("ModuleDict", lambda: Applied(lambda m, x: m["a"](x), nn.ModuleDict({"a": nn.Linear(3, 4)})), (4, 3))
row("ParameterList", lambda: Applied(lambda m, x: x * m[0], nn.ParameterList([nn.Parameter(gpunet.ones(3))])), (4, 3))
row("ParameterDict", lambda: Applied(lambda m, x: x - m["a"], nn.ParameterDict({"a": nn.Parameter(gpunet.ones(3))})), (4, 3))

# ---- convolution, pooling, padding

PLANES = {1: (9,), 2: (9, 8), 3: (6, 7, 5)}
for dims, plane in PLANES.items():
    image, d = (2, 4, *plane), f"{dims}d"
    conv, transpose = getattr(nn, f"Conv{d}"), getattr(nn, f"ConvTranspose{d}")
    row(f"Conv{d}", lambda c=conv: c(4, 6, 3, padding=1), image)
    row(f"Conv{d} strided", lambda c=conv: c(4, 6, 3, stride=2, padding=1, dilation=1, groups=2, bias=False), image)
    row(f"Conv{d} same", lambda c=conv: c(4, 2, 2, padding="same"), image)
    row(f"Conv{d} reflect", lambda c=conv: c(4, 2, 3, padding=1, padding_mode="reflect"), image)
    row(f"LazyConv{d}", lambda n=dims: getattr(nn, f"LazyConv{n}d")(6, 3, dilation=2), image)
    row(f"ConvTranspose{d}", lambda c=transpose: c(4, 2, 3, stride=2, padding=1, output_padding=1), image)
    row(f"ConvTranspose{d} grouped", lambda c=transpose: c(4, 6, 2, groups=2, dilation=2, bias=False), image)
    row(f"LazyConvTranspose{d}", lambda n=dims: getattr(nn, f"LazyConvTranspose{n}d")(6, 3), image)
    row(f"MaxPool{d}", lambda n=d: getattr(nn, f"MaxPool{n}")(3, 2, 1), image)
    row(f"MaxPool{d} ceil", lambda n=d: getattr(nn, f"MaxPool{n}")(2, 2, dilation=2, ceil_mode=True), image)
    row(f"MaxPool{d} indices", lambda n=d: getattr(nn, f"MaxPool{n}")(2, return_indices=True), image)
    row(f"AvgPool{d}", lambda n=d: getattr(nn, f"AvgPool{n}")(3, 2, 1), image)
    row(f"AvgPool{d} ceil", lambda n=d: getattr(nn, f"AvgPool{n}")(3, 2, 1, ceil_mode=True), image)
    row(f"AvgPool{d} inner", lambda n=d: getattr(nn, f"AvgPool{n}")(3, 2, 1, count_include_pad=False), image)
    row(f"LPPool{d}", lambda n=d: getattr(nn, f"LPPool{n}")(2, 2), image)
    row(f"AdaptiveAvgPool{d}", lambda n=d: getattr(nn, f"AdaptiveAvgPool{n}")(3), image)
    row(f"AdaptiveAvgPool{d} one", lambda n=d: getattr(nn, f"AdaptiveAvgPool{n}")(1), image)
    row(f"AdaptiveMaxPool{d}", lambda n=d: getattr(nn, f"AdaptiveMaxPool{n}")(3), image)
    pools = nn.ModuleList([getattr(nn, f"MaxPool{d}")(2, return_indices=True), getattr(nn, f"MaxUnpool{d}")(2)])
    row(f"MaxUnpool{d}", lambda p=pools: Applied(lambda m, x: m[1](*m[0](x)), p), (2, 4, *(4,) * dims))
    for kind in ("CircularPad", "ReflectionPad", "ReplicationPad", "ZeroPad"):
        row(f"{kind}{d}", lambda k=kind, n=d: getattr(nn, k + n)(2), image)
    row(f"ConstantPad{d}", lambda n=d: getattr(nn, f"ConstantPad{n}")(1, 0.5), image)
    norm = (3, 4, *plane)
    row(f"BatchNorm{d}", lambda n=d: trained(getattr(nn, f"BatchNorm{n}")(4)), norm)
    row(f"LazyBatchNorm{d}", lambda n=d: getattr(nn, f"LazyBatchNorm{n}")(), norm)
    row(f"InstanceNorm{d}", lambda n=d: trained(getattr(nn, f"InstanceNorm{n}")(4, affine=True)), norm)
    row(f"LazyInstanceNorm{d}", lambda n=d: getattr(nn, f"LazyInstanceNorm{n}")(), norm)
row("Conv2d of one image", lambda: Applied(lambda m, x: m(x[0]) + x.sum(), nn.Conv2d(3, 2, 3)), (2, 3, 5, 5))
row("Fold", lambda: nn.Fold((6, 7), (2, 3), stride=2, padding=1), lambda r: (r.normal(size=(2, 12, 16)).astype("float32"),))
row("Unfold", lambda: nn.Unfold((2, 3), stride=2, padding=1), (2, 3, 6, 7))
row("ChannelShuffle", lambda: nn.ChannelShuffle(2), (2, 4, 3, 3))
row("PixelShuffle", lambda: nn.PixelShuffle(2), (2, 8, 3, 3))
row("PixelUnshuffle", lambda: nn.PixelUnshuffle(2), (2, 3, 4, 6))
row("UpsamplingBilinear2d", lambda: nn.UpsamplingBilinear2d(scale_factor=2), (2, 3, 4, 5))
row("UpsamplingNearest2d", lambda: nn.UpsamplingNearest2d(size=(7, 9)), (2, 3, 4, 5))
for mode, shape in (("nearest", (2, 3, 4, 5)), ("linear", (2, 3, 7)), ("bicubic", (2, 3, 5, 4)), ("trilinear", (2, 3, 3, 4, 5))):
    row(f"Upsample {mode}", lambda m=mode: nn.Upsample(scale_factor=2, mode=m), shape)

# ---- norms


def trained(norm: nn.Module) -> nn.Module:
    """A norm with parameters and statistics that are not those of a new one."""
    random = numpy.random.default_rng(5)
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.is_floating_point():
            low = 0.5 if name == "running_var" else -1.0
            tensor.data.copy_(gpunet.tensor(random.uniform(low, 2.0, tensor.shape), dtype=tensor.dtype))
    return norm


row("BatchNorm1d of rows", lambda: trained(nn.BatchNorm1d(5)), (4, 5))
row("SyncBatchNorm", lambda: nn.SyncBatchNorm(4), (2, 4, 3, 3))
row("BatchNorm2d plain", lambda: nn.BatchNorm2d(4, affine=False), (2, 4, 3, 3))
row("GroupNorm", lambda: trained(nn.GroupNorm(2, 6)), (3, 6, 4, 5))
row("LayerNorm", lambda: trained(nn.LayerNorm(6)), (3, 4, 6))
row("LayerNorm of planes", lambda: trained(nn.LayerNorm((4, 6))), (3, 4, 6))
row("LayerNorm plain", lambda: nn.LayerNorm(6, elementwise_affine=False), (3, 4, 6))
row("RMSNorm", lambda: trained(nn.RMSNorm(6)), (3, 4, 6))
row("LocalResponseNorm", lambda: nn.LocalResponseNorm(3), (2, 6, 4, 4))

# ---- embedding, sequences


def tokens(*shape: int) -> Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]:
    return lambda r: (r.integers(0, 11, shape),)


row("Embedding", lambda: nn.Embedding(11, 4, padding_idx=0), tokens(3, 5))
for mode in ("sum", "mean", "max"):
    row(f"EmbeddingBag {mode}", lambda m=mode: nn.EmbeddingBag(11, 4, mode=m), tokens(3, 5))
    row(f"EmbeddingBag {mode} padded", lambda m=mode: nn.EmbeddingBag(11, 4, mode=m, padding_idx=3),
        lambda r: (r.integers(2, 5, (4, 2)),))  # fmt: skip
row("EmbeddingBag weighted", lambda: Applied(lambda m, i, f: m(i, per_sample_weights=f), nn.EmbeddingBag(11, 4, mode="sum")),
    lambda r: (r.integers(0, 11, (3, 5)), r.normal(size=(3, 5)).astype("float32")))  # fmt: skip
for name in ("LSTM", "GRU", "RNN"):
    kind = getattr(nn, name)
    row(name, lambda k=kind: k(3, 5), (6, 2, 3), (1,))
    row(f"{name} deep", lambda k=kind: k(3, 5, 2, batch_first=True, bidirectional=True), (2, 6, 3))
    row(f"{name} without bias", lambda k=kind: k(3, 5, bias=False, batch_first=True), (2, 6, 3))
    row(f"{name}Cell", lambda n=name: getattr(nn, f"{n}Cell")(3, 5), (4, 3))
row("RNN relu", lambda: nn.RNN(3, 5, nonlinearity="relu", batch_first=True), (2, 6, 3))
row("LSTM projected", lambda: nn.LSTM(3, 5, proj_size=2, batch_first=True), (2, 6, 3))
row("LSTM with states", lambda: Applied(lambda m, x, h, c: m(x, (h, c)), nn.LSTM(3, 5)),
    normal((6, 2, 3), (1, 2, 5), (1, 2, 5)), (1, 1, 1))  # fmt: skip
row("GRU with state", lambda: Applied(lambda m, x, h: m(x, h), nn.GRU(3, 5)), normal((6, 2, 3), (1, 2, 5)), (1, 1))
row("MultiheadAttention", lambda: Applied(lambda m, x: m(x, x, x)[0], nn.MultiheadAttention(8, 2, batch_first=True)), (2, 5, 8))
row("MultiheadAttention weights", lambda: Applied(lambda m, q, k: m(q, k, k), nn.MultiheadAttention(8, 2, batch_first=True)),
    normal((2, 5, 8), (2, 7, 8)))  # fmt: skip
row("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8))
row("TransformerEncoder", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, norm_first=True), 2), (5, 2, 8), (1,))
row("TransformerDecoderLayer", lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), normal((2, 5, 8), (2, 7, 8)))
row("TransformerDecoder", lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
    normal((2, 5, 8), (2, 7, 8)))  # fmt: skip
row("Transformer", lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), normal((2, 5, 8), (2, 7, 8)))
row("causal Transformer", lambda: Applied(
    lambda m, x: m(x, src_mask=nn.Transformer.generate_square_subsequent_mask(5), is_causal=True),
    nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), (2, 5, 8))  # fmt: skip

# ---- losses

row("BCELoss", nn.BCELoss, probabilities(2, 4, 6))
row("KLDivLoss", lambda: nn.KLDivLoss(reduction="batchmean"), probabilities(2, 4, 6))
row("PoissonNLLLoss", lambda: nn.PoissonNLLLoss(full=True), probabilities(2, 4, 6))
row("GaussianNLLLoss", nn.GaussianNLLLoss, probabilities(3, 4, 6))
for name in ("BCEWithLogitsLoss", "HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss"):
    row(name, getattr(nn, name), normal((4, 6), (4, 6)))
for name in ("HingeEmbeddingLoss", "SoftMarginLoss"):
    row(name, getattr(nn, name), signs(1))
row("MarginRankingLoss", nn.MarginRankingLoss, signs(2))
row("CosineEmbeddingLoss", lambda: Applied(lambda m, a, b, y: m(a, b, y[:, 0]), nn.CosineEmbeddingLoss()), signs(2))
row("CrossEntropyLoss", nn.CrossEntropyLoss, labelled(6, 4, 6))
row("CrossEntropyLoss smooth", lambda: nn.CrossEntropyLoss(label_smoothing=0.1), labelled(6, 4, 6))
row("CrossEntropyLoss of pixels", lambda: nn.CrossEntropyLoss(reduction="none"), labelled(3, 2, 3, 4, 4))
row("NLLLoss", nn.NLLLoss, labelled(6, 4, 6))
row("MultiMarginLoss", nn.MultiMarginLoss, labelled(6, 4, 6))
row("MultiLabelSoftMarginLoss", nn.MultiLabelSoftMarginLoss, probabilities(2, 4, 6))
row("TripletMarginLoss", nn.TripletMarginLoss, normal((4, 6), (4, 6), (4, 6)))
row("TripletMarginWithDistanceLoss", nn.TripletMarginWithDistanceLoss, normal((4, 6), (4, 6), (4, 6)))
row("LinearCrossEntropyLoss", lambda: nn.LinearCrossEntropyLoss(6, 5), labelled(5, 4, 6))

#: Modules without a row, and the reason.
WITHOUT = {
    "Ensemble": "of a stack", "Stack": "many nets; export one of them, stack.net(i)",
    "Module": "base class", "RNNBase": "base class", "RNNCellBase": "base class",
    "NLLLoss2d": "deprecated name of NLLLoss",
    "CTCLoss": "its recursion is one kernel, and no operator of ONNX", "AdaptiveLogSoftmaxWithLoss": "chooses rows by their values",
    "MultiLabelMarginLoss": "its targets are read on the host", "CrossMapLRN2d": "old name of LocalResponseNorm",
    "FractionalMaxPool2d": "draws its regions", "FractionalMaxPool3d": "draws its regions",
}  # fmt: skip


# ---- networks


class Functions(nn.Module):
    """Functions outside of layers: comparisons, indexing, changes in place, reductions."""

    def forward(self, x: Any) -> Any:
        y = x.clone()
        y[:, 1:3] = x[:, :2] * 2
        y += 1
        mask = (y > 0.5) & ~(y < -1)
        z = gpunet.where(mask, y, -y).clamp(-2, 2)
        best = z.argmax(1)
        rows = z.gather(1, best.unsqueeze(1)).squeeze(1)
        spread = z.std(1) + z.var(1, correction=0).sqrt()
        joined = gpunet.cat([z[..., ::2], z.flip(1).roll(1, 1), z.cumsum(1)], 1)
        few = joined[:, [0, 3, 4]].amax(1) + joined.detach().mean(1) + joined.shape[0]
        return joined, rows * spread + few + (mask.any(1) | mask.all(1)), best


class Residual(nn.Module):
    """``x += shortcut`` in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))

    def forward(self, x: Any) -> Any:
        y = self.inner(x)
        y += x
        return nn.functional.relu_(y)


NETWORKS: dict[str, Row] = {
    "functions": Row(Functions, normal((3, 6))),
    "residual in place": Row(Residual, normal((3, 6))),
    "LeNet": Row(vision.LeNet, normal((2, 1, 28, 28))),
    "resnet20": Row(lambda: trained_norms(vision.resnet20()), normal((2, 3, 32, 32))),
    "MobileNetV2": Row(lambda: vision.MobileNetV2(5, width_mult=0.25), normal((2, 3, 32, 32))),
    "VisionTransformer": Row(lambda: vision.VisionTransformer(12, 4, 2, 2, 8, 16, num_classes=5), normal((2, 3, 12, 12))),
    "GPT": Row(lambda: models.GPT(13, context=8, depth=2, num_heads=2, width=8), tokens(2, 8)),
    "U-Net": Row(lambda: models.UNet(2, 3, width=4, depth=2), normal((2, 2, 8, 12))),
    "Autoencoder": Row(lambda: models.Autoencoder(12, 2, latent=5, width=4), normal((2, 2, 12, 12))),
    "VAE": Row(lambda: models.VAE(8, latent=3, width=4, depth=1), normal((2, 1, 8, 8))),
}

#: Networks of full size, which take seconds.
LARGE: dict[str, Row] = {
    name: Row(lambda n=name: trained_norms(getattr(vision, n)(num_classes=7)), normal((1, 3, 64, 64)))  # type: ignore[misc]
    for name in ("resnet18", "resnet50", "resnext50_32x4d", "mobilenet_v2", "alexnet", "vgg11_bn")
} | {"vit_b_32": Row(lambda: vision.vit_b_32(image_size=64, num_classes=7), normal((1, 3, 64, 64)))}


def trained_norms(model: nn.Module) -> nn.Module:
    """A model after statistics of two batches, so that activations keep their scale in depth."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 0.5
    with gpunet.no_grad():
        for _ in range(2):
            model(gpunet.randn(4, 3, 64, 64))
    return model


def arguments(case: Row, seed: int = 0) -> tuple[gpunet.Tensor, ...]:
    return tuple(map(gpunet.from_numpy, case.inputs(numpy.random.default_rng(seed))))


def axes_of(case: Row, names: list[str]) -> dict[str, Any] | None:
    """The argument ``dynamic_axes``."""
    if case.axes is None:
        return None
    return {name: {} if axis is None else {axis: "batch"} for name, axis in zip(names, case.axes)}
