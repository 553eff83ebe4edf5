"""The named cases: multilayer perceptrons, and convolutional, recurrent, attention and embedding networks.

A network is written once, with the names of PyTorch, and built with gpunet or torch as ``m``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from gpunet.launch.facts import num_bytes
from gpunet.launch.kernel import Kernel
from gpunet.launch.tape import Tape, record
from gpunet.tools.bench.cases import LEARNING_RATES, Batch, Case, Perceptron

ITEMS = 5_000  # rows of each embedding of the recommender
WIDTH, HEADS, CONTEXT, TOKENS = 128, 4, 64, 65  # of the GPT
STEPS, UNITS, CLASSES = 32, 64, 10

_BATCHES = 16


def lenet(m: Any) -> Any:
    """LeNet-5 with ReLU and maximum pooling."""
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def resnet(m: Any) -> Any:
    """Three stages of one block, with 16, 32 and 64 channels."""
    nn = m.nn

    def convolution(channels: int, out: int, stride: int = 1, kernel: int = 3) -> Any:
        return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(channels, out, stride), convolution(out, out)
            self.shortcut = convolution(channels, out, stride, 1) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = self.second(nn.functional.relu(self.first(x)))
            return nn.functional.relu(y + self.shortcut(x))

    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(convolution(3, 16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def vgg(m: Any) -> Any:
    """Three pairs of convolutions with 32, 64 and 128 channels, and two linear layers."""
    nn, layers, channels = m.nn, [], 3
    for out in (32, 64, 128):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, CLASSES))


def autoencoder(m: Any) -> Any:
    """Two convolutions with stride 2, 32 features, and two transposed convolutions."""
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 32),
        nn.Linear(32, 1568), nn.Unflatten(1, (32, 7, 7)), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )  # fmt: skip


def batch_norm_mlp(m: Any) -> Any:
    """784-256-256-10 with batch norm and ReLU."""
    nn = m.nn
    return nn.Sequential(
        nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, CLASSES),
    )  # fmt: skip


def recommender(m: Any) -> Any:
    """Embeddings of a user and an item, and a perceptron of both; a row of the input is their numbers."""
    nn = m.nn

    class Recommender(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(ITEMS, 16), nn.Embedding(ITEMS, 16)
            self.rating = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, x: Any) -> Any:
            return self.rating(m.cat([self.users(x[:, 0]), self.items(x[:, 1])], 1)).squeeze(1)

    return Recommender()


def residual_mlp(m: Any) -> Any:
    """784-256, four residual blocks of layer norm, 256-256, GELU, 256-256, and 256-10."""
    nn = m.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first, self.second = nn.LayerNorm(256), nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: Any) -> Any:
            return x + self.second(nn.functional.gelu(self.first(self.norm(x))))

    return nn.Sequential(nn.Linear(784, 256), *(Block() for _ in range(4)), nn.LayerNorm(256), nn.Linear(256, CLASSES))


def gpt(m: Any) -> Any:
    """Two blocks of 128 features and 4 heads on 64 tokens, tied weights."""
    nn = m.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
            self.projection, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.first, self.second = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            n, positions, _ = x.shape
            parts = self.projection(self.norms[0](x)).split(WIDTH, dim=2)
            q, k, v = (part.view(n, positions, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.joined(y.transpose(1, 2).contiguous().view(n, positions, WIDTH))
            return x + self.second(nn.functional.gelu(self.first(self.norms[1](x))))

    class GPT(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(TOKENS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks, self.norm = nn.ModuleList([Block(), Block()]), nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, TOKENS, bias=False)
            self.tokens.weight = self.head.weight

        def forward(self, index: Any) -> Any:
            x = self.tokens(index) + self.positions(m.arange(index.shape[1], device=index.device))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return GPT()


def lstm(m: Any) -> Any:
    """An LSTM over 32 steps of 64 features, and a linear layer on its last output."""
    nn = m.nn

    class Classifier(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(UNITS, UNITS, batch_first=True), nn.Linear(UNITS, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return Classifier()


Draw = Callable[[numpy.random.Generator, int], tuple[numpy.ndarray, numpy.ndarray]]


def _labeled(*shape: int) -> Draw:
    return lambda random, n: (random.standard_normal((n, *shape), numpy.float32), random.integers(0, CLASSES, n))


def _images_twice(random: numpy.random.Generator, n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    x = random.random((n, 1, 28, 28), numpy.float32)
    return x, x


def _ratings(random: numpy.random.Generator, n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    return random.integers(0, ITEMS, (n, 2)), random.standard_normal(n, numpy.float32)


def _text(random: numpy.random.Generator, n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    text = random.integers(0, TOKENS, (n, CONTEXT + 1))
    return text[:, :-1].copy(), text[:, 1:].copy()


@dataclass(frozen=True)
class Network(Case):
    """A network that is written in modules.

    Attributes:
        make: returns the module for gpunet or torch.
        draw: returns inputs and targets from a generator and the number of rows.
        title: how a table names it.
        regression: see :class:`Case`.
    """

    name: str
    batch: int
    make: Callable[[Any], Any]
    draw: Draw
    title: str
    regression: bool = False

    @property
    def learning_rates(self) -> dict[str, float]:
        """Small ones: larger steps amplify the rounding of the first steps until losses differ by more than 0.1 %."""
        return {"sgd": 0.01, "adam": 1e-4}

    @property
    def has_images(self) -> bool:
        """Whether the input is a batch of images (n, c, h, w)."""
        return self.draw(self.random("shape"), 1)[0].ndim == 4

    @property
    def parameters(self) -> int:
        return sum(array.size for name, array in self.state().items() if name in self.trained)

    @functools.cached_property
    def trained(self) -> set[str]:
        """Names of the parameters; of a tied one, the first."""
        return {name for name, _ in self._module.named_parameters()}

    @functools.cached_property
    def _module(self) -> Any:
        import gpunet

        with gpunet.device("cpu"):
            return self.make(gpunet)

    def build(self, m: Any) -> Any:
        return self.make(m)

    def state(self) -> dict[str, numpy.ndarray]:
        """Weights uniform with variance 1 / fan_in (a token's row: 1 / columns), biases in ± 0.1, scales of norms 1 ± 0.1."""
        found = {name: value.numpy().copy() for name, value in self._module.state_dict().items()}
        drawn: dict[int, numpy.ndarray] = {}
        for name, p in self._module.named_parameters(remove_duplicate=False):
            if id(p) not in drawn:
                random, fan_in = self.random(name), math.prod(p.shape[1:])
                bound = math.sqrt(3 / fan_in) if p.ndim > 1 else 0.1
                values = random.uniform(-bound, bound, tuple(p.shape))
                is_scale = p.ndim == 1 and name.endswith("weight")
                drawn[id(p)] = (values + is_scale).astype("float32")
            found[name] = drawn[id(p)]
        return found

    def batches(self) -> list[Batch]:
        random = self.random("data")
        return [Batch(*self.draw(random, self.batch)) for _ in range(_BATCHES)]

    @functools.cache  # noqa: B019  the cases live as long as the process
    def _work(self, kind: str) -> tuple[float, float, int]:
        """FLOPs, bytes and number of the launches of a step, as the costs of our kernels state them."""
        from gpunet.ops import cases  # noqa: F401  gives the kernels their costs
        from gpunet.optim import cases as of_optimizers  # noqa: F401
        from gpunet.tools.bench.peers import ours

        runner = ours.make(self, kind, "eager", "cpu")
        runner.step(*runner.batches[0])  # allocates the state of an optimizer
        with record(Tape()) as tape:
            runner.step(*runner.batches[0])
        flop = moved = 0.0
        for launch in tape.launches:
            if isinstance(launch.kernel, Kernel):
                cost = launch.kernel.launch_cost(launch.arrays, launch.options)
                flop, moved = flop + cost.flops, moved + cost.bytes
            else:
                moved += num_bytes(*launch.arrays)
        return flop, moved, len(tape.launches)

    def flop(self, kind: str) -> float:
        return self._work("backward" if kind in LEARNING_RATES else kind)[0]

    def bytes(self, kind: str) -> float:
        return self._work(kind)[1]

    def launches(self, kind: str) -> int:
        return self._work(kind)[2]

    def __str__(self) -> str:
        return f"{self.name}: {self.title}, batch {self.batch}"


NETWORKS = {
    network.name: network
    for network in (
        Network("lenet", 64, lenet, _labeled(1, 28, 28), "LeNet-5, 28 x 28"),
        Network("resnet", 32, resnet, _labeled(3, 32, 32), "small ResNet, 32 x 32"),
        Network("vgg", 32, vgg, _labeled(3, 32, 32), "VGG-like, 32 x 32"),
        Network("gpt", 8, gpt, _text, f"GPT, 2 blocks of {WIDTH}, {HEADS} heads, {CONTEXT} tokens"),
        Network("lstm", 32, lstm, _labeled(STEPS, UNITS), f"LSTM, {STEPS} steps, {UNITS} units"),
        Network("batch-norm", 128, batch_norm_mlp, _labeled(784), "784-256-256-10 with batch norm"),
        Network("autoencoder", 32, autoencoder, _images_twice, "convolutional autoencoder, 28 x 28", regression=True),
        Network("recommender", 256, recommender, _ratings, f"two embeddings of {ITEMS} x 16, 32-64-1", regression=True),
        Network("residual", 64, residual_mlp, _labeled(784), "four residual blocks of 256, layer norm and GELU"),
    )
}

PERCEPTRONS = {
    perceptron.name: perceptron
    for perceptron in (
        Perceptron("tiny", (8, 32, 32, 1), 32),
        Perceptron("digits", (64, 128, 10), 64),
        Perceptron("tabular", (64, 256, 256, 1), 256),
        Perceptron("mnist", (784, 512, 512, 10), 64),
        Perceptron("mnist-large-batch", (784, 512, 512, 10), 1024),
        Perceptron("deep", (64,) * 20 + (10,), 128),
        Perceptron("wide", (2048, 2048, 2048), 512),
    )
}

CASES: dict[str, Case] = {**PERCEPTRONS, **NETWORKS}
