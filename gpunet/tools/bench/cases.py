"""The named networks (linear layers with ReLU between them), their data, and the FLOPs and bytes of a step.

Data and initial weights are drawn from a seed that depends on the case, so that every process draws the same ones.
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

#: The timed functions: the loss of a batch; the loss and all gradients; the whole step with SGD or Adam.
KINDS = ("forward", "backward", "sgd", "adam")
#: Settings of plain SGD and of Adam, the same for all contestants.
LEARNING_RATES = {"sgd": 0.05, "adam": 1e-3}
BETAS, EPSILON = (0.9, 0.999), 1e-8

#: Bytes of the batches that a contestant keeps in memory and cycles through.
_RESIDENT = 32 << 20
_NOISE = 0.2  # fraction of random targets, so that no loss converges to zero


class Batch(NamedTuple):
    """Inputs (n, features) in float32; targets (n,) in int64, or (n, 1) in float32 for regression."""

    x: numpy.ndarray
    y: numpy.ndarray


class Layer(NamedTuple):
    """Initial values: weight (out, in) and bias (out,), float32."""

    weight: numpy.ndarray
    bias: numpy.ndarray


@dataclass(frozen=True)
class Case:
    """A multilayer perceptron and its batch size: regression (mean squared error) with one output, else classification."""

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
        """Initial weights: uniform with variance 2 / fan_in (He et al. 2015), biases uniform in ± 1/√fan_in."""
        random, found = self._random("weights"), []
        for i, o in itertools.pairwise(self.sizes):
            weight = random.uniform(-1, 1, (o, i)) * numpy.sqrt(6 / i)
            found.append(Layer(weight.astype("float32"), (random.uniform(-1, 1, o) / numpy.sqrt(i)).astype("float32")))
        return found

    def batches(self) -> list[Batch]:
        """8 to 64 different batches: normal inputs, targets of a random linear model with noise."""
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
        """FLOPs of the matrix products; a multiply-add counts as two.

        Forward has one product per layer. Backward adds two, for the gradients of the weights and of the inputs, except
        that the inputs of the first layer need no gradient.
        """
        products = [2.0 * self.batch * i * o for i, o in itertools.pairwise(self.sizes)]
        return sum(products) if kind == "forward" else 3.0 * sum(products) - products[0]

    def bytes(self, kind: str) -> float:
        """Bytes moved if every launch reads its float32 operands once and writes its results once."""
        weights, values = float(self.parameters), [float(self.batch * size) for size in self.sizes]
        forward = weights + sum(a + b for a, b in itertools.pairwise(values))
        if kind == "forward":
            return 4 * forward
        to_weights = weights + sum(a + b for a, b in itertools.pairwise(values))
        to_inputs = weights + sum(2 * a + b for a, b in itertools.pairwise(values[1:]))  # includes the mask of ReLU
        optimizer = {"sgd": 3, "adam": 7}.get(kind, 0) * weights  # reads p, g (m, v) and writes p (m, v)
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


def select(option: str, patterns: str, names: Iterable[str]) -> list[str]:
    """Names that match one of several patterns separated by commas, in the order of ``names``.

    Raises:
        ArgumentError: a pattern matches no name; the message has the option and lists the names.
    """
    wanted, names = [p.strip() for p in patterns.split(",") if p.strip()], list(names)
    for pattern in wanted or [""]:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ArgumentError(f"unknown --{option} {pattern!r}; expected some of {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, p) for p in wanted)]


class Runner(NamedTuple):
    """One step of one contestant, ready to run."""

    step: Callable[[Any, Any], Any]  # (x, y) of a batch -> a handle of its loss; may return before the step has ended
    batches: list[tuple[Any, Any]]  # the contestant's own arrays, on its device
    read: Callable[[Any], float]  # waits until all work is done, and returns the loss of a handle
    notes: str = ""
