"""Networks that are built to vanish, explode, die, saturate or be healthy, and a few steps of their training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

import gpunet
from gpunet import diagnose, nn, optim
from gpunet.nn import functional as F


class Case(NamedTuple):
    """A training: the kind that the verdict must name, and functions that build its parts."""

    name: str
    kind: str
    model: Callable[[], nn.Module]
    data: Callable[[numpy.random.Generator], tuple[Any, Any]]  # all inputs and targets
    optimizer: Callable[[Any], Any]
    at_step: Callable[[int, nn.Module, Any], None] = lambda step, model, optimizer: None  # before a step
    step: int | None = None  # at which the verdict must say that it explodes


def sgd(lr: float = 0.05, momentum: float = 0.0) -> Callable[[Any], Any]:
    return lambda parameters: optim.SGD(parameters, lr=lr, momentum=momentum)


def adam(lr: float = 1e-3) -> Callable[[Any], Any]:
    return lambda parameters: optim.Adam(parameters, lr=lr)


def blobs(features: int = 16, classes: int = 4, scale: float = 1.0) -> Callable[..., tuple[Any, Any]]:
    """Points around a center for each class."""

    def make(random: numpy.random.Generator) -> tuple[Any, Any]:
        labels = random.integers(0, classes, 512)
        centers = random.standard_normal((classes, features))
        x = (centers[labels] + 0.7 * random.standard_normal((512, features))) * scale
        return gpunet.tensor(x.astype(numpy.float32)), gpunet.tensor(labels)

    return make


def curve(features: int = 8, scale: float = 1.0) -> Callable[..., tuple[Any, Any]]:
    """A smooth function of several variables, with noise."""

    def make(random: numpy.random.Generator) -> tuple[Any, Any]:
        x = random.uniform(-1.0, 1.0, (512, features)).astype(numpy.float32)
        y = numpy.sin(3.0 * x.sum(1, keepdims=True)) + 0.1 * random.standard_normal((512, 1))
        return gpunet.tensor(x * numpy.float32(scale)), gpunet.tensor(y.astype(numpy.float32))

    return make


def images(channels: int = 1, size: int = 8, classes: int = 4) -> Callable[..., tuple[Any, Any]]:
    """Images with a bright quarter, which is the class."""

    def make(random: numpy.random.Generator) -> tuple[Any, Any]:
        labels = random.integers(0, classes, 256)
        x = random.standard_normal((256, channels, size, size)).astype(numpy.float32)
        half = size // 2
        for image, label in zip(x, labels):
            row, column = divmod(int(label), 2)
            image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.5
        return gpunet.tensor(x), gpunet.tensor(labels)

    return make


def words(length: int = 12, size: int = 20) -> Callable[..., tuple[Any, Any]]:
    """Sequences of numbers of words; the class is the most frequent half of the vocabulary."""

    def make(random: numpy.random.Generator) -> tuple[Any, Any]:
        x = random.integers(0, size, (256, length))
        return gpunet.tensor(x), gpunet.tensor((x < size // 2).sum(1) > length // 2).long()

    return make


def mlp(
    depth: int, width: int, activation: Callable[[], nn.Module], gain: float | None = None, *, norm: bool = False,
    features: int = 16, out: int = 4, bias: float | None = None,
) -> Callable[[], nn.Module]:  # fmt: skip
    """``depth`` linear layers; weights of standard deviation gain/sqrt(fan in), or PyTorch's if it is None."""

    def make() -> nn.Module:
        sizes = [features, *[width] * (depth - 1), out]
        layers: list[nn.Module] = []
        for at, (i, o) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.Linear(i, o))
            if gain is not None:
                nn.init.normal_(layers[-1].weight, std=gain / math.sqrt(i))
                nn.init.zeros_(layers[-1].bias)
            if at < depth - 1:
                layers += [nn.BatchNorm1d(o)] if norm else []
                layers.append(activation())
        return nn.Sequential(*layers)

    return make


class Functional(nn.Module):
    """Layers whose activations are functions."""

    def __init__(self, function: Callable[[Any], Any], depth: int, width: int, gain: float) -> None:
        super().__init__()
        sizes = [16, *[width] * (depth - 1), 4]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
        self.function = function

    def forward(self, x: Any) -> Any:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.function(layer(x))
        return last(x)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


def residual(depth: int, width: int, activation: Callable[[], nn.Module], norm: bool = True) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        blocks = [
            Residual(*([nn.LayerNorm(width)] if norm else []), nn.Linear(width, width), activation()) for _ in range(depth - 2)
        ]
        return nn.Sequential(nn.Linear(16, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 4))

    return make


def convolutions(
    depth: int, channels: int, activation: Callable[[], nn.Module], gain: float | None = None, *, norm: bool = False,
    pool: bool = False,
) -> Callable[[], nn.Module]:  # fmt: skip
    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for at in range(depth - 1):
            layers.append(nn.Conv2d(1 if at == 0 else channels, channels, 3, padding=1))
            if gain is not None:
                nn.init.normal_(layers[-1].weight, std=gain / math.sqrt(layers[-1].weight[0].numel()))
                nn.init.zeros_(layers[-1].bias)
            layers += [nn.BatchNorm2d(channels)] if norm else []
            layers.append(activation())
            layers += [nn.MaxPool2d(2)] if pool and at == 0 else []
        side = 4 if pool else 8
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 4))

    return make


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.recurrence, self.head = nn.Embedding(20, 16), nn.LSTM(16, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.recurrence(self.embedding(x))[0][:, -1])


class Attentive(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True) for _ in range(depth))
        )
        self.head = nn.Linear(width, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks(self.embedding(x)).mean(1))


def killed(make: Callable[[], nn.Module], layer: int, share: float) -> Callable[[], nn.Module]:
    """The network with a bias of -100 at a share of the units of a layer, by its number."""

    def changed() -> nn.Module:
        model = make()
        chosen = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][layer - 1]
        with gpunet.no_grad():
            chosen.bias[: round(share * len(chosen.bias))] = -100.0
        return model

    return changed


def rate_jumps(at: int, lr: float) -> Callable[[int, nn.Module, Any], None]:
    def change(step: int, model: nn.Module, optimizer: Any) -> None:
        if step == at:
            for group in optimizer.param_groups:
                group["lr"] = lr

    return change


def faulty() -> Iterator[Case]:
    """The 40 networks with a known fault."""
    for depth, width in ((6, 16), (8, 64), (10, 32), (14, 128), (20, 24)):
        yield Case(f"sigmoid, {depth} layers of {width}", "vanishing", mlp(depth, width, nn.Sigmoid), blobs(), sgd())
    for depth, width in ((10, 64), (16, 32)):
        yield Case(f"tanh, small weights, {depth}", "vanishing", mlp(depth, width, nn.Tanh, 0.3), blobs(), sgd())
        yield Case(f"relu, small weights, {depth}", "vanishing", mlp(depth, width, nn.ReLU, 0.4), blobs(), sgd())
    yield Case("relu, PyTorch's weights, 20", "vanishing", mlp(20, 64, nn.ReLU), blobs(), sgd())
    yield Case("convolutions, sigmoid", "vanishing", convolutions(8, 8, nn.Sigmoid), images(), sgd())
    yield Case("functions, sigmoid", "vanishing", lambda: Functional(F.sigmoid, 9, 40, 1.0), blobs(), adam())
    yield Case("functions, softsign", "vanishing", lambda: Functional(F.softsign, 10, 40, 0.4), blobs(), sgd())
    yield Case("gelu, small weights", "vanishing", mlp(9, 48, nn.GELU, 0.3), blobs(), sgd())

    for gain, depth, width, activation in ((6.0, 8, 64, nn.ReLU), (5.0, 10, 128, nn.LeakyReLU), (8.0, 7, 32, nn.ELU)):
        yield Case(f"gain {gain}, {depth} layers", "exploding", mlp(depth, width, activation, gain), blobs(), sgd(1e-12))
    yield Case("identity, gain 4", "exploding", mlp(8, 40, nn.Identity, 4.0), blobs(), sgd(1e-12))
    yield Case("convolutions, gain 8", "exploding", convolutions(7, 8, nn.ReLU, 8.0), images(), sgd(1e-12))
    yield Case("functions, gain 6", "exploding", lambda: Functional(F.relu, 9, 64, 6.0), blobs(), sgd(1e-12))
    regression = mlp(4, 32, nn.ReLU, 1.4, features=8, out=1)
    yield Case("rate 10", "exploding", regression, curve(), sgd(10.0))
    yield Case("rate 5 with momentum", "exploding", mlp(3, 64, nn.Tanh, features=8, out=1), curve(), sgd(5.0, 0.9))
    yield Case("inputs of 1000", "exploding", mlp(3, 32, nn.LeakyReLU, 1.4, features=8, out=1), curve(scale=1e3), sgd(0.1))
    for step, lr in ((12, 20.0), (21, 50.0)):
        model = mlp(4, 48, nn.LeakyReLU, 1.4, features=8, out=1)
        yield Case(f"rate jumps at {step}", "exploding", model, curve(), sgd(0.02), rate_jumps(step, lr), step + 1)

    for layer, share, depth, width in ((1, 0.8, 4, 50), (2, 0.75, 4, 40), (3, 1.0, 5, 32), (2, 0.9, 3, 100), (4, 0.6, 6, 60)):
        model = killed(mlp(depth, width, nn.ReLU, 1.4), layer, share)
        yield Case(f"{share:.0%} of layer {layer} dead", "dead", model, blobs(), sgd())
    yield Case("convolutions dead", "dead", killed(convolutions(4, 16, nn.ReLU, 1.4), 2, 0.75), images(), adam())
    yield Case("pooled convolution dead", "dead", killed(convolutions(3, 10, nn.ReLU, 1.4, pool=True), 1, 0.7), images(), sgd())
    yield Case("functions dead", "dead", killed(lambda: Functional(F.relu, 4, 50, 1.4), 2, 0.8), blobs(), adam())
    yield Case("regression dead", "dead", killed(mlp(3, 64, nn.ReLU, 1.4, features=8, out=1), 1, 0.9), curve(), adam())
    yield Case("relu6 dead", "dead", killed(mlp(4, 30, nn.ReLU6, 1.4), 1, 0.8), blobs(), sgd())

    for depth, width, gain in ((4, 32, 12.0), (5, 64, 20.0), (3, 100, 15.0)):
        yield Case(f"tanh, gain {gain}", "saturated", mlp(depth, width, nn.Tanh, gain), blobs(), sgd(1e-4))
    yield Case("sigmoid, gain 40", "saturated", mlp(4, 50, nn.Sigmoid, 40.0), blobs(), sgd(1e-4))
    yield Case("tanh, inputs of 100", "saturated", mlp(3, 40, nn.Tanh), blobs(scale=100.0), sgd(0.01))


def healthy() -> Iterator[Case]:
    """The 20 networks without a fault."""
    for depth, width, activation, gain in (
        (3, 64, nn.ReLU, 1.4), (6, 100, nn.ReLU, 1.4), (12, 128, nn.ReLU, 1.4), (8, 64, nn.Tanh, 1.0), (15, 100, nn.Tanh, 1.1),
        (6, 48, nn.LeakyReLU, 1.4), (8, 64, nn.GELU, 1.5), (5, 32, nn.SiLU, 1.6), (6, 64, nn.ELU, 1.2), (20, 128, nn.SELU, 1.0),
    ):  # fmt: skip
        optimizer = sgd(0.02) if depth % 2 else adam()
        yield Case(f"{activation.__name__}, {depth} layers", "healthy", mlp(depth, width, activation, gain), blobs(), optimizer)
    yield Case("PyTorch's weights", "healthy", mlp(4, 64, nn.ReLU), blobs(), sgd(0.1, 0.9))
    yield Case("a small net of sigmoid", "healthy", mlp(2, 16, nn.Sigmoid), blobs(), sgd(0.5))
    yield Case("regression", "healthy", mlp(4, 64, nn.Tanh, 1.0, features=8, out=1), curve(), adam(3e-3))
    yield Case("batch norm", "healthy", mlp(20, 64, nn.ReLU, norm=True), blobs(), sgd(0.05, 0.9))
    yield Case("residual", "healthy", residual(24, 48, nn.ReLU), blobs(), adam())
    yield Case("convolutions", "healthy", convolutions(4, 16, nn.ReLU, 1.4, pool=True), images(), adam())
    yield Case("convolutions with batch norm", "healthy", convolutions(10, 8, nn.ReLU, norm=True), images(), sgd(0.05, 0.9))
    yield Case("functions", "healthy", lambda: Functional(F.tanh, 6, 50, 1.0), blobs(), adam())
    yield Case("LSTM", "healthy", lambda: Recurrent(24), words(), adam(3e-3))
    yield Case("transformer", "healthy", lambda: Attentive(3, 32), words(), adam())


def train(case: Case, seed: int = 0, steps: int = 30, batch: int = 64) -> diagnose.GradientFlow:
    """Train for some steps, and return what was recorded."""
    gpunet.manual_seed(seed)
    random = numpy.random.default_rng(seed)
    x, y = case.data(random)
    model = case.model()
    optimizer = case.optimizer(model.parameters())
    loss = F.mse_loss if y.dtype == gpunet.float32 else F.cross_entropy
    with diagnose.GradientFlow(model) as flow:
        for step in range(1, steps + 1):
            case.at_step(step, model, optimizer)
            rows = gpunet.tensor(random.integers(0, len(x), batch))
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            flow.step()
    return flow
