"""Whole training steps with Adam of small networks beside PyTorch's eager ones in one run, with the same weights.

pytest bench/test_models.py -s
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import pytest
from interleaved import compare

import gpunet

ITEMS = 5_000  # rows of each embedding


class Task(NamedTuple):
    """A network, its batch and its loss, for a library ``m``: gpunet or torch."""

    make: Callable[[Any], Any]
    batch: Callable[[numpy.random.Generator], tuple[numpy.ndarray, ...]]
    loss: Callable[..., Any]


def classify(m: Any, model: Any, x: Any, y: Any) -> Any:
    return m.nn.functional.cross_entropy(model(x), y)


def regress(m: Any, model: Any, *inputs: Any) -> Any:
    return m.nn.functional.mse_loss(model(*inputs[:-1]), inputs[-1])


def labeled(rows: int, *shape: int) -> Any:
    return lambda random: (random.normal(size=(rows, *shape)), random.integers(0, 10, rows))


def lenet(m: Any) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def resnet(m: Any) -> Any:
    """Three stages of one block, with 16, 32 and 64 channels."""
    nn = m.nn

    def convolution(channels: int, out: int, stride: int = 1, kernel: int = 3) -> Any:
        return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(channels, out, stride), convolution(out, out)
            self.shortcut = convolution(channels, out, stride, 1) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = self.second(nn.functional.relu(self.first(x)))
            return nn.functional.relu(y + self.shortcut(x))

    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(convolution(3, 16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg(m: Any) -> Any:
    """Three pairs of convolutions with 32, 64 and 128 channels, and two linear layers."""
    nn, layers, channels = m.nn, [], 3
    for out in (32, 64, 128):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, 10))


def autoencoder(m: Any) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 32),
        nn.Linear(32, 1568), nn.Unflatten(1, (32, 7, 7)), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )  # fmt: skip


def images_twice(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    x = random.random((32, 1, 28, 28))
    return x, x


def batch_norm_mlp(m: Any) -> Any:
    """784-256-256-10 with batch norm and ReLU."""
    nn = m.nn
    return nn.Sequential(
        nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10)
    )


def recommender(m: Any) -> Any:
    """The embeddings of a user and an item, and a perceptron of both."""
    nn = m.nn

    class Recommender(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(ITEMS, 16), nn.Embedding(ITEMS, 16)
            self.rating = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, users: Any, items: Any) -> Any:
            return self.rating(m.cat([self.users(users), self.items(items)], 1)).squeeze(1)

    return Recommender()


def ratings(random: numpy.random.Generator) -> tuple[numpy.ndarray, ...]:
    return random.integers(0, ITEMS, 256), random.integers(0, ITEMS, 256), random.normal(size=256)


def residual_mlp(m: Any) -> Any:
    """784-256, four residual blocks of layer norm, 256-256, GELU, 256-256, and 256-10."""
    nn = m.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first, self.second = nn.LayerNorm(256), nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: Any) -> Any:
            return x + self.second(nn.functional.gelu(self.first(self.norm(x))))

    return nn.Sequential(nn.Linear(784, 256), *(Block() for _ in range(4)), nn.LayerNorm(256), nn.Linear(256, 10))


TASKS = {
    "LeNet, batch 64": Task(lenet, labeled(64, 1, 28, 28), classify),
    "small ResNet, batch 32": Task(resnet, labeled(32, 3, 32, 32), classify),
    "VGG-like, batch 32": Task(vgg, labeled(32, 3, 32, 32), classify),
    "convolutional autoencoder, batch 32": Task(autoencoder, images_twice, regress),
    "MLP with batch norm, batch 128": Task(batch_norm_mlp, labeled(128, 784), classify),
    "recommender, batch 256": Task(recommender, ratings, regress),
    "residual MLP, batch 64": Task(residual_mlp, labeled(64, 784), classify),
}


def training_step(m: Any, task: Task, model: Any) -> Callable[[], Any]:
    arrays = task.batch(numpy.random.default_rng(0))
    batch = [m.tensor(a.astype("float32") if a.dtype == "float64" else a) for a in arrays]
    optimizer = m.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> Any:
        optimizer.zero_grad()
        loss = task.loss(m, model, *batch)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", TASKS)
def test_step(name, mode, benchmark):
    torch = pytest.importorskip("torch")
    task = TASKS[name]
    mine, other = task.make(gpunet), task.make(torch)
    mine.load_state_dict({key: value.numpy() for key, value in other.state_dict().items()})
    ours, theirs = training_step(gpunet, task, mine), training_step(torch, task, other)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for _ in range(5):
        numpy.testing.assert_allclose(ours().item(), theirs().item(), rtol=1e-4)
    compare(f"{name}, {mode}", ours, theirs, benchmark)
