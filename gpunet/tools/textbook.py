"""A small net computed twice for ``gpunet explain``: by hand, in Python floats with textbook formulas, and by the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.devices import default_device
from gpunet.nn import functional
from gpunet.ops.activations import activate, find
from gpunet.ops.cases.activations import TEXTBOOK_ACTIVATIONS
from gpunet.ops.creation import tensor
from gpunet.ops.linear import linear_layers
from gpunet.optim import SGD

Vector = list[float]
Matrix = list[Vector]


# ---- the net, by hand and by the engine ---------------------------------------------------------------------------


class Layer(NamedTuple):
    """One layer: weights (out, in), biases (out), and the activation's name."""

    w: Matrix
    b: Vector
    activation: str


class Trace(NamedTuple):
    """All values and derivatives of one sample, by layer."""

    a: list[Vector]  # activations; a[0] are the inputs
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
    """Means over the samples, and the net after one step of gradient descent."""

    cost: float
    cost_by_w: list[Matrix]
    cost_by_b: list[Vector]
    after: list[Layer]
    cost_after: float


class TextbookLoss(NamedTuple):
    """A loss of one sample, of the outputs a and the targets y."""

    value: Callable[[Vector, Vector], float]
    slope: Callable[[Vector, Vector], Vector]  # ∂C/∂a of each output
    engine: Callable[[Any, Any], Tensor]
    template: str = ""  # the formula of one output {0} and its target {1}
    slope_template: str = ""


def _log_sum_exp(a: Vector) -> float:
    highest = max(a)
    return highest + math.log(sum(math.exp(a_k - highest) for a_k in a))


def softmax_by_hand(a: Vector) -> Vector:
    """e^a over the sum of all e^a, for each element."""
    log_sum = _log_sum_exp(a)
    return [math.exp(a_k - log_sum) for a_k in a]


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


SQUARED = TextbookLoss(
    lambda a, y: sum((a_k - y_k) * (a_k - y_k) for a_k, y_k in zip(a, y)),
    lambda a, y: [2.0 * (a_k - y_k) for a_k, y_k in zip(a, y)],
    lambda a, y: ((a - y) ** 2).sum(),
    "({} − {})²", "2·({} − {})",
)  # fmt: skip
#: The losses of ``gpunet train``; the target of cross-entropy is the number of a class, and all others have one output.
TEXTBOOK_LOSSES: dict[str, TextbookLoss] = {
    "mse": SQUARED,
    "mae": TextbookLoss(
        lambda a, y: abs(a[0] - y[0]), lambda a, y: [float(a[0] > y[0]) - float(a[0] < y[0])], functional.l1_loss,
        "|{} − {}|", "(1 if {0} > {1} else −1)",
    ),
    "huber": TextbookLoss(
        lambda a, y: (a[0] - y[0]) ** 2 / 2.0 if abs(a[0] - y[0]) < 1.0 else abs(a[0] - y[0]) - 0.5,
        lambda a, y: [min(max(a[0] - y[0], -1.0), 1.0)], functional.huber_loss,
        "(({0} − {1})²/2 if |{0} − {1}| < 1 else |{0} − {1}| − 1/2)", "{} − {} limited to −1 .. 1",
    ),
    "bce": TextbookLoss(
        lambda a, y: _softplus(a[0]) - y[0] * a[0], lambda a, y: [TEXTBOOK_ACTIVATIONS["sigmoid"].value(a[0]) - y[0]],
        functional.binary_cross_entropy_with_logits, "log(1 + e^{0}) − {1}·{0}", "σ({}) − {}",
    ),
    "cross_entropy": TextbookLoss(
        lambda a, y: _log_sum_exp(a) - a[int(y[0])],
        lambda a, y: [p - float(k == int(y[0])) for k, p in enumerate(softmax_by_hand(a))],
        lambda a, y: functional.cross_entropy(a.unsqueeze(0), y.long()),
    ),
}  # fmt: skip


def by_hand(net: Sequence[Layer], x: Vector, y: Vector, loss: TextbookLoss = SQUARED) -> Trace:
    """Forward and backward of one sample by the chain rule."""
    a, z = [x], []
    for w, b, activation in net:
        z.append([sum(w_kj * a_j for w_kj, a_j in zip(w_k, a[-1])) + b_k for w_k, b_k in zip(w, b)])
        a.append([TEXTBOOK_ACTIVATIONS[activation].value(z_k) for z_k in z[-1]])
    slope = [[TEXTBOOK_ACTIVATIONS[layer.activation].slope(z_k) for z_k in z_l] for layer, z_l in zip(net, z)]
    cost_by_a = [loss.slope(a[-1], y)]
    cost_by_z: list[Vector] = []
    for index in reversed(range(len(net))):
        cost_by_z.insert(0, [da * s for da, s in zip(cost_by_a[0], slope[index])])
        if index:  # the previous layer: each of its neurons gets the sum of its shares in this layer's neurons
            w = net[index].w
            shares = ([w_k[j] * dz for w_k, dz in zip(w, cost_by_z[0])] for j in range(len(w[0])))
            cost_by_a.insert(0, [sum(share) for share in shares])
    return Trace(
        a, z, loss.value(a[-1], y), cost_by_a, slope, cost_by_z,
        [[list(before) for _ in layer.w] for layer, before in zip(net, a)],
        [layer.w for layer in net],
        [[[dz * a_j for a_j in before] for dz in dz_l] for dz_l, before in zip(cost_by_z, a)],
        cost_by_z,  # ∂z/∂b = 1
    )  # fmt: skip


def batch_by_hand(net: Sequence[Layer], traces: Sequence[Trace], targets: Matrix, lr: float) -> Batch:
    """The mean of the gradients of the samples, and the step w − η·∂C/∂w."""
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


def _tensor(values: Any, requires_grad: bool = True) -> Tensor:
    array = numpy.array(values, dtype=numpy.float64)
    return tensor(array, device=default_device(), requires_grad=requires_grad)


def _numbers(values: Any) -> Any:
    return values.detach().cpu().tolist()


def by_engine(net: Sequence[Layer], x: Vector, y: Vector, loss: TextbookLoss = SQUARED, has_links: bool = True) -> Trace:
    """The values of :func:`by_hand` from Tensor.backward(), called for the whole net and for each link of the chain rule.

    Without ``has_links`` there are no ∂z/∂w and ∂z/∂a, which take a backward pass for each neuron.
    """
    weights, biases = [_tensor(layer.w) for layer in net], [_tensor(layer.b) for layer in net]
    a, z = [_tensor(x, requires_grad=False)], []
    for w, b, layer in zip(weights, biases, net):
        z.append(w @ a[-1] + b)
        a.append(activate(z[-1], layer.activation, find(layer.activation).alpha))
        z[-1].retain_grad()
        a[-1].retain_grad()
    cost = loss.engine(a[-1], _tensor(y, requires_grad=False))
    cost.backward()
    slope: list[Vector] = []
    z_by_w: list[Matrix] = []
    z_by_a: list[Matrix] = []
    for layer, before, z_l in zip(net, a, z):
        leaf = _tensor(_numbers(z_l))
        activate(leaf, layer.activation, find(layer.activation).alpha).sum().backward()
        slope.append(_numbers(leaf.grad))
        z_by_w.append([])
        z_by_a.append([])
        for w_k, b_k in zip(layer.w, layer.b) if has_links else ():
            w_leaf, a_leaf = _tensor(w_k), _tensor(_numbers(before))
            ((w_leaf * a_leaf).sum() + b_k).backward()
            z_by_w[-1].append(_numbers(w_leaf.grad))
            z_by_a[-1].append(_numbers(a_leaf.grad))
    gradients = ([_numbers(t.grad) for t in tensors] for tensors in (a[1:], z, weights, biases))
    cost_by_a, cost_by_z, cost_by_w, cost_by_b = gradients
    values = [_numbers(t) for t in a], [_numbers(t) for t in z]
    return Trace(*values, cost.item(), cost_by_a, slope, cost_by_z, z_by_w, z_by_a, cost_by_w, cost_by_b)


def batch_by_engine(net: Sequence[Layer], inputs: Matrix, targets: Matrix, lr: float) -> Batch:
    """The values of :func:`batch_by_hand` from fused layers (one launch each) on the whole batch, backward, and ``optim.SGD``."""
    weights, biases = [_tensor(layer.w) for layer in net], [_tensor(layer.b) for layer in net]
    x, y = _tensor(inputs, requires_grad=False), _tensor(targets, requires_grad=False)
    names = [layer.activation for layer in net]

    def cost() -> Tensor:
        layers = [(w, b, name, find(name).alpha) for w, b, name in zip(weights, biases, names)]
        return ((linear_layers(x, layers) - y) ** 2).sum(1).mean()

    before = cost()
    before.backward()
    by_w, by_b = [_numbers(w.grad) for w in weights], [_numbers(b.grad) for b in biases]
    SGD([*weights, *biases], lr=lr).step()
    after = [Layer(_numbers(w), _numbers(b), name) for w, b, name in zip(weights, biases, names)]
    return Batch(before.item(), by_w, by_b, after, cost().item())
