"""The named cases: networks with ReLU between their linear layers, their data, and what a step costs at least.

Data and first weights come from the case's name, so that every process draws the same ones.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy

from gpunet.errors import ArgumentError

#: What is timed: the loss of a batch, the loss and all gradients, and the whole step with each optimizer.
KINDS = ("forward", "backward", "sgd", "adam")
#: Of "sgd" (plain) and "adam", the same for everybody.
LEARNING_RATES = {"sgd": 0.05, "adam": 1e-3}
BETAS, EPSILON = (0.9, 0.999), 1e-8

#: Bytes of batches that stay resident, to rotate over.
_RESIDENT = 32 << 20
_NOISE = 0.2  # share of the targets that has nothing to do with the inputs, so that no loss goes to zero


class Batch(NamedTuple):
    """Inputs (n, features) in float32; targets (n,) in int64, or (n, 1) in float32 for regression."""

    x: numpy.ndarray
    y: numpy.ndarray


class Layer(NamedTuple):
    """First values: weight (out, in) and bias (out,), float32."""

    weight: numpy.ndarray
    bias: numpy.ndarray


@dataclass(frozen=True)
class Case:
    """A multilayer perceptron and its batch size.  One output is regression (mean squared error), more are classes."""

    name: str
    sizes: tuple[int, ...]
    batch: int

    @property
    def regression(self) -> bool:
        return self.sizes[-1] == 1

    @property
    def parameters(self) -> int:
        return sum((i + 1) * o for i, o in itertools.pairwise(self.sizes))

    def _random(self, purpose: str) -> numpy.random.Generator:
        return numpy.random.default_rng(zlib.crc32(f"{purpose} {self.sizes} {self.batch}".encode()))

    def layers(self) -> list[Layer]:
        """First weights, He's uniform ones (2015); biases in ± 1/√inputs."""
        random, found = self._random("weights"), []
        for i, o in itertools.pairwise(self.sizes):
            weight = random.uniform(-1, 1, (o, i)) * numpy.sqrt(6 / i)
            found.append(Layer(weight.astype("float32"), (random.uniform(-1, 1, o) / numpy.sqrt(i)).astype("float32")))
        return found

    def batches(self) -> list[Batch]:
        """8 to 64 different batches: normal inputs, targets from a random linear teacher with noise."""
        count = min(64, max(8, _RESIDENT // (4 * self.batch * self.sizes[0])))
        random = self._random("data")
        x = random.standard_normal((count, self.batch, self.sizes[0]), numpy.float32)
        scores = x @ random.standard_normal((self.sizes[0], self.sizes[-1]), numpy.float32)
        scores /= numpy.float32(numpy.sqrt(self.sizes[0]))
        if self.regression:
            y = scores + numpy.float32(_NOISE) * random.standard_normal(scores.shape, numpy.float32)
        else:
            y = scores.argmax(-1)
            y = numpy.where(random.random(y.shape) < _NOISE, random.integers(0, self.sizes[-1], y.shape), y)
        return [Batch(*pair) for pair in zip(x, y)]

    def flop(self, kind: str) -> float:
        """Operations of the matrix products, two a multiply-add.

        Forward is a product a layer.  Backward is two more, for the weights' gradient and for the inputs', but the
        first layer's inputs need none.
        """
        products = [2.0 * self.batch * i * o for i, o in itertools.pairwise(self.sizes)]
        return sum(products) if kind == "forward" else 3.0 * sum(products) - products[0]

    def bytes(self, kind: str) -> float:
        """Bytes that have to move when every launch reads its operands and writes its results once, in float32."""
        weights, values = float(self.parameters), [float(self.batch * size) for size in self.sizes]
        forward = weights + sum(a + b for a, b in itertools.pairwise(values))
        if kind == "forward":
            return 4 * forward
        to_weights = weights + sum(a + b for a, b in itertools.pairwise(values))
        to_inputs = weights + sum(2 * a + b for a, b in itertools.pairwise(values[1:]))  # the ReLU's mask beside it
        optimizer = {"sgd": 3, "adam": 7}.get(kind, 0) * weights  # p, g; m and v beside them: read and written
        return 4 * (forward + to_weights + to_inputs + optimizer)

    def __str__(self) -> str:
        sizes = list(map(str, self.sizes))
        shown = sizes if len(sizes) < 6 else [*sizes[:2], f"... {len(sizes) - 1} layers ...", sizes[-1]]
        return f"{self.name}: {'-'.join(shown)}, batch {self.batch}"


CASES = {
    case.name: case
    for case in (
        Case("tiny", (8, 32, 32, 1), 32),
        Case("digits", (64, 128, 10), 64),
        Case("tabular", (64, 256, 256, 1), 256),
        Case("mnist", (784, 512, 512, 10), 64),
        Case("mnist-large-batch", (784, 512, 512, 10), 1024),
        Case("deep", (64,) * 20 + (10,), 128),
        Case("wide", (2048, 2048, 2048), 512),
    )
}


def select(what: str, patterns: str, names: Iterable[str]) -> list[str]:
    """The names that match one of several patterns between commas, in their own order.

    Raises:
        ArgumentError: a pattern that matches none; the message lists the names.
    """
    wanted, names = [p.strip() for p in patterns.split(",") if p.strip()], list(names)
    for pattern in wanted or [""]:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ArgumentError(f"--{what} {pattern!r} is none of {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, p) for p in wanted)]


class Runner(NamedTuple):
    """One step of one contestant, ready to run."""

    step: Callable[[Any, Any], Any]  # (x, y) of a batch -> a handle of its loss
    batches: list[tuple[Any, Any]]  # in the contestant's own form, where it computes
    read: Callable[[Any], float]  # the loss behind a handle, once all that was begun is done
    notes: str = ""
