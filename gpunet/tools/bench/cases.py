"""Networks to measure, their data, and the FLOPs and bytes of a step; multilayer perceptrons in particular.

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
#: Learning rates of perceptrons with plain SGD and with Adam.
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


class Case:
    """A network, its batch size and its loss: mean squared error for regression, else cross-entropy over the last dimension.

    Its model is written once for all libraries with the names of PyTorch.

    Attributes:
        name: the key in tables.
        batch: the number of rows of a batch.
        regression: whether the targets are numbers.
    """

    name: str
    batch: int

    @property
    def regression(self) -> bool:
        raise NotImplementedError

    @property
    def learning_rates(self) -> dict[str, float]:
        """Those of plain SGD and of Adam, the same for all contestants."""
        return LEARNING_RATES

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        raise NotImplementedError

    def build(self, m: Any) -> Any:
        """The module, with the library's own initial values; ``m`` is gpunet or torch."""
        raise NotImplementedError

    def state(self) -> dict[str, numpy.ndarray]:
        """Initial values of the parameters and buffers by name, as for ``load_state_dict``."""
        raise NotImplementedError

    def batches(self) -> list[Batch]:
        """8 to 64 different batches."""
        raise NotImplementedError

    def flop(self, kind: str) -> float:
        """FLOPs of a step, mainly those of the products; a multiply-add counts as two."""
        raise NotImplementedError

    def bytes(self, kind: str) -> float:
        """Bytes moved if every launch reads its operands once and writes its results once."""
        raise NotImplementedError

    def launches(self, kind: str) -> int:
        """The number of gpunet's launches."""
        raise NotImplementedError

    def loss(self, m: Any, out: Any, y: Any) -> Any:
        """The loss of a batch; ``m`` is gpunet or torch."""
        if self.regression:
            return m.nn.functional.mse_loss(out, y)
        if out.ndim > 2:
            out, y = out.reshape(-1, out.shape[-1]), y.reshape(-1)
        return m.nn.functional.cross_entropy(out, y)

    def random(self, purpose: str) -> numpy.random.Generator:
        """A generator whose seed depends on the case."""
        return numpy.random.default_rng(zlib.crc32(f"{purpose} {self.name} {self.batch}".encode()))


@dataclass(frozen=True)
class Perceptron(Case):
    """A multilayer perceptron with ReLU between its layers: regression with one output, else classification."""

    name: str
    sizes: tuple[int, ...]
    batch: int

    @property
    def regression(self) -> bool:
        return self.sizes[-1] == 1

    @property
    def parameters(self) -> int:
        return sum((i + 1) * o for i, o in itertools.pairwise(self.sizes))

    def random(self, purpose: str) -> numpy.random.Generator:
        return numpy.random.default_rng(zlib.crc32(f"{purpose} {self.sizes} {self.batch}".encode()))

    def build(self, m: Any) -> Any:
        layers: list[Any] = []
        for inputs, outputs in itertools.pairwise(self.sizes):
            layers += [m.nn.Linear(inputs, outputs), m.nn.ReLU()]
        return m.nn.Sequential(*layers[:-1])

    def state(self) -> dict[str, numpy.ndarray]:
        named = ((f"{2 * i}.{name}", a) for i, layer in enumerate(self.layers()) for name, a in layer._asdict().items())
        return dict(named)

    def layers(self) -> list[Layer]:
        """Initial weights: uniform with variance 2 / fan_in (He et al. 2015), biases uniform in ± 1/√fan_in."""
        random, found = self.random("weights"), []
        for i, o in itertools.pairwise(self.sizes):
            weight = random.uniform(-1, 1, (o, i)) * numpy.sqrt(6 / i)
            found.append(Layer(weight.astype("float32"), (random.uniform(-1, 1, o) / numpy.sqrt(i)).astype("float32")))
        return found

    def batches(self) -> list[Batch]:
        """8 to 64 different batches: normal inputs, targets of a random linear model with noise."""
        count = min(64, max(8, _RESIDENT // (4 * self.batch * self.sizes[0])))
        random = self.random("data")
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

    def launches(self, kind: str) -> int:
        """1 per layer, 1 for the loss, 2 per layer in backward (1 for the first), 1 optimizer step."""
        layers = len(self.sizes) - 1
        forward = layers + 1
        return {"forward": forward, "backward": forward + 2 * layers - 1}.get(kind, forward + 2 * layers)

    def __str__(self) -> str:
        sizes = list(map(str, self.sizes))
        shown = sizes if len(sizes) < 6 else [*sizes[:2], f"... {len(sizes) - 1} layers ...", sizes[-1]]
        return f"{self.name}: {'-'.join(shown)}, batch {self.batch}"


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
