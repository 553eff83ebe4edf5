"""The derivation behind ``gpunet explain``: forward, chain rule, mean and gradient descent of a small net, as data.

Every number is worked out here with Python floats and textbook formulas only (:func:`by_hand`), and stands beside the
engine's (:func:`by_engine`).  :func:`derive` returns sections of steps; how they look is somebody else's affair.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gpunet
from gpunet.ops.activations import activate, find
from gpunet.ops.linear import linear_layers

Vector = list[float]
Matrix = list[Vector]


# ---- activations by hand ------------------------------------------------------------------------------------------


class Squash(NamedTuple):
    """An activation as a textbook writes it: not the engine's formulas, so that the two can be compared."""

    symbol: str
    value: Callable[[float], float]
    slope: Callable[[float], float]
    slope_formula: str  # {0} is z, {1} is a
    steepest: str  # the largest slope there is
    meaning: str = ""  # of the symbols


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0.0 else math.exp(z) / (1.0 + math.exp(z))


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _bell(z: float) -> float:
    return math.exp(-0.5 * min(z * z, 1400.0)) / math.sqrt(2.0 * math.pi)


def _gelu_t(z: float) -> float:
    return math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z * z * z))


def _gelu_tanh_slope(z: float) -> float:
    t = _gelu_t(z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * math.sqrt(2.0 / math.pi) * (1.0 + 0.134145 * z * z)


_SIGMOID = "σ(z) = 1/(1 + e^(−z))"
SQUASHES: dict[str, Squash] = {
    "identity": Squash("id", lambda z: z, lambda z: 1.0, "1", "1", "id(z) = z: no activation"),
    "relu": Squash(
        "relu", lambda z: max(z, 0.0), lambda z: float(z > 0.0), "(1 if {0} > 0 else 0)", "1", "relu(z) = max(z, 0)"
    ),
    "leaky_relu": Squash(
        "leaky", lambda z: z if z > 0.0 else 0.01 * z, lambda z: 1.0 if z > 0.0 else 0.01,
        "(1 if {0} > 0 else 0.01)", "1", "leaky(z) = z where z > 0, 0.01·z elsewhere",
    ),
    "sigmoid": Squash("σ", _sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), "{1}·(1 − {1})", "1/4", _SIGMOID),
    "tanh": Squash("tanh", math.tanh, lambda z: 1.0 - math.tanh(z) ** 2, "1 − {1}²", "1"),
    "gelu": Squash(
        "gelu", lambda z: z * _normal(z), lambda z: _normal(z) + z * _bell(z), "Φ({0}) + {0}·φ({0})", "1.13",
        "gelu(z) = z·Φ(z), with the normal distribution Φ and its density φ",
    ),
    "gelu_tanh": Squash(
        "gelu", lambda z: 0.5 * z * (1.0 + _gelu_t(z)), _gelu_tanh_slope, "(1 + t({0}))/2 + {0}·t'({0})/2", "1.13",
        "gelu(z) = z·(1 + t(z))/2 with t(z) = tanh(√(2/π)·(z + 0.044715·z³))",
    ),
    "silu": Squash(
        "silu", lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1.0 + z * _sigmoid(-z)),
        "σ({0})·(1 + {0}·(1 − σ({0})))", "1.10", f"silu(z) = z·σ(z), {_SIGMOID}",
    ),
    "elu": Squash(
        "elu", lambda z: z if z > 0.0 else math.expm1(z), lambda z: 1.0 if z > 0.0 else math.exp(z),
        "(1 if {0} > 0 else e^{0})", "1", "elu(z) = z where z > 0, e^z − 1 elsewhere",
    ),
    "softplus": Squash(
        "softplus", lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), _sigmoid, "σ({0})", "1",
        f"softplus(z) = log(1 + e^z), {_SIGMOID}",
    ),
}  # fmt: skip


# ---- the net, by hand and by the engine ---------------------------------------------------------------------------


class Layer(NamedTuple):
    """One layer: weights (out, in), biases (out), and the activation's name."""

    w: Matrix
    b: Vector
    activation: str


class Trace(NamedTuple):
    """Everything that one sample makes of a net, by layers."""

    a: list[Vector]  # activations; the first are the inputs
    z: list[Vector]
    cost: float
    cost_by_a: list[Vector]  # ∂C/∂a of each layer's outputs
    slope: list[Vector]  # ∂a/∂z
    cost_by_z: list[Vector]
    z_by_w: list[Matrix]  # ∂z_k/∂w_kj
    z_by_a: list[Matrix]  # ∂z_k/∂a_j
    cost_by_w: list[Matrix]
    cost_by_b: list[Vector]


class Batch(NamedTuple):
    """The mean over the samples, and the net after one step of gradient descent."""

    cost: float
    cost_by_w: list[Matrix]
    cost_by_b: list[Vector]
    after: list[Layer]
    cost_after: float


def by_hand(net: Sequence[Layer], x: Vector, y: Vector) -> Trace:
    """Forward and backward of one sample, as one would with a pencil."""
    a, z = [x], []
    for w, b, activation in net:
        z.append([sum(w_kj * a_j for w_kj, a_j in zip(w_k, a[-1])) + b_k for w_k, b_k in zip(w, b)])
        a.append([SQUASHES[activation].value(z_k) for z_k in z[-1]])
    slope = [[SQUASHES[layer.activation].slope(z_k) for z_k in z_l] for layer, z_l in zip(net, z)]
    cost_by_a = [[2.0 * (a_k - y_k) for a_k, y_k in zip(a[-1], y)]]
    cost_by_z: list[Vector] = []
    for index in reversed(range(len(net))):
        cost_by_z.insert(0, [da * s for da, s in zip(cost_by_a[0], slope[index])])
        if index:  # the step back: each neuron of this layer sends its share to those before it
            w = net[index].w
            shares = ([w_k[j] * dz for w_k, dz in zip(w, cost_by_z[0])] for j in range(len(w[0])))
            cost_by_a.insert(0, [sum(share) for share in shares])
    return Trace(
        a, z, sum((a_k - y_k) * (a_k - y_k) for a_k, y_k in zip(a[-1], y)), cost_by_a, slope, cost_by_z,
        [[list(before) for _ in layer.w] for layer, before in zip(net, a)],
        [layer.w for layer in net],
        [[[dz * a_j for a_j in before] for dz in dz_l] for dz_l, before in zip(cost_by_z, a)],
        cost_by_z,  # ∂z/∂b = 1
    )  # fmt: skip


def batch_by_hand(net: Sequence[Layer], traces: Sequence[Trace], targets: Matrix, lr: float) -> Batch:
    """The mean of the samples' gradients, and w − η·∂C/∂w."""
    n = len(traces)
    by_w = [[[sum(v) / n for v in zip(*rows)] for rows in zip(*ws)] for ws in zip(*(t.cost_by_w for t in traces))]
    by_b = [[sum(v) / n for v in zip(*bs)] for bs in zip(*(t.cost_by_b for t in traces))]
    after = [
        Layer(
            [[w - lr * g for w, g in zip(w_k, g_k)] for w_k, g_k in zip(layer.w, g_w)],
            [b - lr * g for b, g in zip(layer.b, g_b)],
            layer.activation,
        )
        for layer, g_w, g_b in zip(net, by_w, by_b)
    ]
    costs = [by_hand(after, trace.a[0], y).cost for trace, y in zip(traces, targets)]
    return Batch(sum(trace.cost for trace in traces) / n, by_w, by_b, after, sum(costs) / n)


def _tensor(values: Any, requires_grad: bool = True) -> gpunet.Tensor:
    return gpunet.tensor(values, dtype=gpunet.float64, requires_grad=requires_grad)


def _numbers(tensor: Any) -> Any:
    return tensor.detach().cpu().tolist()


def by_engine(net: Sequence[Layer], x: Vector, y: Vector) -> Trace:
    """The same as :func:`by_hand` with Tensor.backward(): once for the whole net, and once for each link alone."""
    weights, biases = [_tensor(layer.w) for layer in net], [_tensor(layer.b) for layer in net]
    a, z = [_tensor(x, requires_grad=False)], []
    for w, b, layer in zip(weights, biases, net):
        z.append(w @ a[-1] + b)
        a.append(activate(z[-1], layer.activation, find(layer.activation).alpha))
        z[-1].retain_grad()
        a[-1].retain_grad()
    cost = ((a[-1] - _tensor(y, requires_grad=False)) ** 2).sum()
    cost.backward()
    slope, z_by_w, z_by_a = [], [], []
    for layer, before, z_l in zip(net, a, z):
        alone = _tensor(_numbers(z_l))
        activate(alone, layer.activation, find(layer.activation).alpha).sum().backward()
        slope.append(_numbers(alone.grad))
        z_by_w.append([])
        z_by_a.append([])
        for w_k, b_k in zip(layer.w, layer.b):
            w_alone, a_alone = _tensor(w_k), _tensor(_numbers(before))
            ((w_alone * a_alone).sum() + b_k).backward()
            z_by_w[-1].append(_numbers(w_alone.grad))
            z_by_a[-1].append(_numbers(a_alone.grad))
    gradients = ([_numbers(t.grad) for t in tensors] for tensors in (a[1:], z, weights, biases))
    cost_by_a, cost_by_z, cost_by_w, cost_by_b = gradients
    values = [_numbers(t) for t in a], [_numbers(t) for t in z]
    return Trace(*values, cost.item(), cost_by_a, slope, cost_by_z, z_by_w, z_by_a, cost_by_w, cost_by_b)


def batch_by_engine(net: Sequence[Layer], inputs: Matrix, targets: Matrix, lr: float) -> Batch:
    """All samples at once through the fused layers (one launch each), backward, and one step of ``optim.SGD``."""
    weights, biases = [_tensor(layer.w) for layer in net], [_tensor(layer.b) for layer in net]
    x, y = _tensor(inputs, requires_grad=False), _tensor(targets, requires_grad=False)
    names = [layer.activation for layer in net]

    def cost() -> gpunet.Tensor:
        layers = [(w, b, name, find(name).alpha) for w, b, name in zip(weights, biases, names)]
        return ((linear_layers(x, layers) - y) ** 2).sum(1).mean()

    before = cost()
    before.backward()
    by_w, by_b = [_numbers(w.grad) for w in weights], [_numbers(b.grad) for b in biases]
    gpunet.optim.SGD([*weights, *biases], lr=lr).step()
    after = [Layer(_numbers(w), _numbers(b), name) for w, b, name in zip(weights, biases, names)]
    return Batch(before.item(), by_w, by_b, after, cost().item())


# ---- the derivation -----------------------------------------------------------------------------------------------

Operand = tuple[str, float]  # a quantity's name and its value


@dataclass(frozen=True)
class Step:
    """One line of the derivation: a quantity, its formula, its value by hand and the engine's.

    ``template`` has a field for each operand, ``"{}·({} − {})"``, and gives the formula in symbols and in numbers.
    """

    name: str
    template: str
    operands: tuple[Operand, ...]
    value: float
    engine: float
    alias: str = ""  # what else the quantity is called: σ'(z1)

    @property
    def agrees(self) -> bool:
        """Whether hand and engine found the same number, up to rounding in float64."""
        both_undefined = math.isnan(self.value) and math.isnan(self.engine)
        return both_undefined or math.isclose(self.value, self.engine, rel_tol=1e-9, abs_tol=1e-12)

    @property
    def symbols(self) -> str:
        """The formula with names."""
        formula = self._fill(lambda operand, bare: operand[0])
        return f"{self.alias} = {formula}" if self.alias else formula

    def numbers(self, digits: int) -> str:
        """The formula with numbers of so many significant digits; empty where it would say no more than the value."""
        if self.template in ("{}", "1"):
            return ""
        return self._fill(lambda operand, bare: _number(operand[1], digits, bare))

    def _fill(self, write: Callable[[Operand, bool], str]) -> str:
        filled, position = "", 0
        for literal, place, _, _ in string.Formatter().parse(self.template):
            filled += literal
            if place is not None:
                operand = self.operands[int(place) if place else position]
                filled += write(operand, not filled or filled.endswith("("))
                position += 1
        return filled


def _number(value: float, digits: int, bare: bool = True) -> str:
    text = f"{value:.{digits}g}"
    return text if bare or value >= 0.0 else f"({text})"


@dataclass
class Section:
    """A heading, what to say under it, its steps, and what to say after them."""

    heading: str
    level: int = 2  # 1 for a part, 3 for a group of steps
    text: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    brief: bool = False  # the same formulas as before with other numbers: names and values are enough


def _sum(terms: Iterable[tuple[str, Sequence[Operand]]]) -> tuple[str, tuple[Operand, ...]]:
    """The template of a sum and its operands; of a long sum only the first two terms and the last."""
    parts = list(terms)
    templates = [template for template, _ in parts]
    if len(parts) > 4:
        parts = [*parts[:2], parts[-1]]
        templates = [*templates[:2], "…", templates[-1]]
    return " + ".join(templates), tuple(operand for _, operands in parts for operand in operands)


def _by(of: str, what: str) -> str:
    return f"∂{of}/∂{what}"


class _Names:
    """What things are called: w2[1,3] leads from neuron 3 of layer 1 to neuron 1 of layer 2.

    An index that could only be 1 is left out, so in a chain of neurons it is w2.
    """

    def __init__(self, net: Sequence[Layer]) -> None:
        self.sizes = [len(net[0].w[0]), *(len(layer.w) for layer in net)]

    def _name(self, letter: str, *places: tuple[int, int]) -> str:
        shown = ",".join(str(index + 1) for index, layer in places if self.sizes[layer] > 1)
        return f"{letter}[{shown}]" if shown else letter

    def a(self, layer: int, k: int) -> str:
        return self._name(f"a{layer}" if layer else "x", (k, layer))

    def z(self, layer: int, k: int) -> str:
        return self._name(f"z{layer}", (k, layer))

    def b(self, layer: int, k: int) -> str:
        return self._name(f"b{layer}", (k, layer))

    def w(self, layer: int, k: int, j: int) -> str:
        return self._name(f"w{layer}", (k, layer), (j, layer - 1))

    def y(self, k: int) -> str:
        return self._name("y", (k, len(self.sizes) - 1))

    def parameters(self, ws: Sequence[Matrix], bs: Sequence[Vector]) -> list[Operand]:
        """Weights and biases, or anything of their shapes, by name."""
        named = []
        for layer, (w, b) in enumerate(zip(ws, bs), 1):
            named += [(self.w(layer, k, j), value) for k, w_k in enumerate(w) for j, value in enumerate(w_k)]
            named += [(self.b(layer, k), value) for k, value in enumerate(b)]
        return named


class _Sample:
    """The steps of one sample: ``hand`` and ``engine`` are walked side by side."""

    def __init__(self, net: Sequence[Layer], y: Vector, hand: Trace, engine: Trace, cost: str) -> None:
        self.net, self.y, self.hand, self.engine, self.cost = net, y, hand, engine, cost
        self.names = _Names(net)
        self.chain = max(self.names.sizes) == 1

    def forward(self) -> list[Step]:
        steps, names, hand, engine = [], self.names, self.hand, self.engine
        for l, layer in enumerate(self.net, 1):
            for k, (w_k, b_k) in enumerate(zip(layer.w, layer.b)):
                before = enumerate(zip(w_k, hand.a[l - 1]))
                terms = [("{}·{}", [(names.w(l, k, j), w_kj), (names.a(l - 1, j), a_j)]) for j, (w_kj, a_j) in before]
                template, operands = _sum([*terms, ("{}", [(names.b(l, k), b_k)])])
                z, a = hand.z[l - 1][k], hand.a[l][k]
                steps.append(Step(names.z(l, k), template, operands, z, engine.z[l - 1][k]))
                symbol = SQUASHES[layer.activation].symbol
                steps.append(Step(names.a(l, k), symbol + "({})", ((names.z(l, k), z),), a, engine.a[l][k]))
        last = len(self.net)
        outputs = enumerate(zip(hand.a[-1], self.y))
        terms = [("({} − {})²", [(names.a(last, k), a_k), (names.y(k), y_k)]) for k, (a_k, y_k) in outputs]
        return [*steps, Step(self.cost, *_sum(terms), hand.cost, engine.cost)]

    def layer(self, l: int) -> list[Step]:
        """The links of the chain rule in layer ``l``, counted from 1."""
        names, hand, engine, cost = self.names, self.hand, self.engine, self.cost
        i, steps, squash = l - 1, [], SQUASHES[self.net[l - 1].activation]
        for k, (a_k, z_k) in enumerate(zip(hand.a[l], hand.z[i])):
            a, z = names.a(l, k), names.z(l, k)
            cost_by_a, slope, cost_by_z = (_by(cost, a), hand.cost_by_a[i][k]), (_by(a, z), hand.slope[i][k]), _by(cost, z)
            if l == len(self.net):
                template, operands = "2·({} − {})", ((a, a_k), (names.y(k), self.y[k]))
            elif self.chain:
                after = names.z(l + 1, 0)
                link = (_by(after, a), hand.z_by_a[l][0][0])
                weight = (names.w(l + 1, 0, 0), self.net[l].w[0][0])
                steps.append(Step(link[0], "{}", (weight,), link[1], engine.z_by_a[l][0][0]))
                template, operands = "{}·{}", ((_by(cost, after), hand.cost_by_z[l][0]), link)
            else:
                template, operands = _sum(
                    ("{}·{}", [(names.w(l + 1, m, k), w_m[k]), (_by(cost, names.z(l + 1, m)), hand.cost_by_z[l][m])])
                    for m, w_m in enumerate(self.net[l].w)
                )
            steps.append(Step(cost_by_a[0], template, operands, cost_by_a[1], engine.cost_by_a[i][k]))
            steps.append(
                Step(slope[0], squash.slope_formula, ((z, z_k), (a, a_k)), slope[1], engine.slope[i][k], f"{squash.symbol}'({z})")
            )
            steps.append(Step(cost_by_z, "{}·{}", (cost_by_a, slope), hand.cost_by_z[i][k], engine.cost_by_z[i][k]))
        for k in range(len(hand.z[i])):
            steps += self._parameters(l, k)
        return steps

    def _parameters(self, l: int, k: int) -> list[Step]:
        names, hand, engine, i = self.names, self.hand, self.engine, l - 1
        z, steps = names.z(l, k), []
        cost_by_z = (_by(self.cost, z), hand.cost_by_z[i][k])
        for j, a_j in enumerate(hand.a[i]):
            w = names.w(l, k, j)
            link: Operand = (names.a(i, j), a_j)
            if self.chain:
                steps.append(Step(_by(z, w), "{}", (link,), hand.z_by_w[i][k][j], engine.z_by_w[i][k][j]))
                link = (_by(z, w), hand.z_by_w[i][k][j])
            value = hand.cost_by_w[i][k][j]
            steps.append(Step(_by(self.cost, w), "{}·{}", (cost_by_z, link), value, engine.cost_by_w[i][k][j]))
        name = _by(self.cost, names.b(l, k))
        return [*steps, Step(name, "{}·1", (cost_by_z,), hand.cost_by_b[i][k], engine.cost_by_b[i][k])]

    def product(self) -> Step:
        """The whole chain for the first weight of a chain of neurons, in one line."""
        names, hand, last = self.names, self.hand, len(self.net)
        template = "2·({} − {})"
        operands = [(names.a(last, 0), hand.a[-1][0]), (names.y(0), self.y[0])]
        for l in range(last, 0, -1):
            template += "·{}·{}"
            link = (names.w(l, 0, 0), self.net[l - 1].w[0][0]) if l > 1 else (names.a(0, 0), hand.a[0][0])
            operands += [(f"{SQUASHES[self.net[l - 1].activation].symbol}'({names.z(l, 0)})", hand.slope[l - 1][0]), link]
        value = 2.0 * (hand.a[-1][0] - self.y[0]) * math.prod(value for _, value in operands[2:])
        return Step(_by(self.cost, names.w(1, 0, 0)), template, tuple(operands), value, self.engine.cost_by_w[0][0][0])
