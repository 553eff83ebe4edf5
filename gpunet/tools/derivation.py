"""The derivation of ``gpunet explain`` as data: forward, chain rule, mean and gradient descent of a small net.

:func:`derive` returns sections of steps. A step has a formula, the value computed by hand, and the value of the engine.
``derivation_text`` renders them.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gpunet.tools.textbook import (
    TEXTBOOK_ACTIVATIONS,
    Batch,
    Layer,
    Matrix,
    Trace,
    Vector,
    batch_by_engine,
    batch_by_hand,
    by_engine,
    by_hand,
)

Operand = tuple[str, float]  # a quantity's name and its value


@dataclass(frozen=True)
class Step:
    """One line of the derivation: a quantity, its formula, its value by hand and the value of the engine.

    ``template`` is a format string with one field per operand, such as ``"{}·({} − {})"``.
    """

    name: str
    template: str
    operands: tuple[Operand, ...]
    value: float
    engine: float
    alias: str = ""  # another name of the quantity, such as σ'(z1)

    @property
    def agrees(self) -> bool:
        """Whether both values are equal up to float64 rounding."""
        both_undefined = math.isnan(self.value) and math.isnan(self.engine)
        return both_undefined or math.isclose(self.value, self.engine, rel_tol=1e-9, abs_tol=1e-12)

    @property
    def symbols(self) -> str:
        """The formula with names."""
        formula = self._fill(lambda operand, bare: operand[0])
        return f"{self.alias} = {formula}" if self.alias else formula

    def numbers(self, digits: int) -> str:
        """The formula with numbers of ``digits`` significant digits; empty if it only repeats the value."""
        if self.template in ("{}", "{}·1") or "{" not in self.template:
            return ""
        return self._fill(lambda operand, bare: _number(operand[1], digits, bare))

    def _fill(self, write: Callable[[Operand, bool], str]) -> str:
        filled, position = "", 0
        for literal, place, _, _ in string.Formatter().parse(self.template):
            filled += literal
            if place is not None:
                operand = self.operands[int(place) if place else position]
                filled += write(operand, not filled or filled.endswith(("(", "if ")))
                position += 1
        return filled


def _number(value: float, digits: int, bare: bool = True) -> str:
    text = f"{value + 0.0:.{digits}g}"  # + 0.0 turns -0.0 into 0.0
    return text if bare or value >= 0.0 else f"({text})"


@dataclass
class Section:
    """A heading, the text below it, the steps, and remarks after them."""

    heading: str
    level: int = 2  # 1 for a part, 3 for a group of steps
    text: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    brief: bool = False  # show names and values only: an earlier section has the same formulas


def sum_of(terms: Iterable[tuple[str, Sequence[Operand]]]) -> tuple[str, tuple[Operand, ...]]:
    """The template and operands of a sum. A sum of more than four terms shows the first two and the last."""
    parts = list(terms)
    templates = [template for template, _ in parts]
    if len(parts) > 4:
        parts = [*parts[:2], parts[-1]]
        templates = [*templates[:2], "…", templates[-1]]
    return " + ".join(templates), tuple(operand for _, operands in parts for operand in operands)


def partial(y: str, x: str) -> str:
    return f"∂{y}/∂{x}"


class Names:
    """Names of the quantities: w2[1,3] leads from neuron 3 of layer 1 to neuron 1 of layer 2.

    The index of a layer with one neuron is omitted, so in a chain of neurons this is w2.
    """

    def __init__(self, net: Sequence[Layer]) -> None:
        self.sizes = [len(net[0].w[0]), *(len(layer.w) for layer in net)]

    def _name(self, letter: str, *indices: tuple[int, int]) -> str:
        text = ",".join(str(index + 1) for index, layer in indices if self.sizes[layer] > 1)
        return f"{letter}[{text}]" if text else letter

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
        """(name, value) of all weights and biases, or of values of the same shapes, such as gradients."""
        named = []
        for layer, (w, b) in enumerate(zip(ws, bs), 1):
            named += [(self.w(layer, k, j), value) for k, w_k in enumerate(w) for j, value in enumerate(w_k)]
            named += [(self.b(layer, k), value) for k, value in enumerate(b)]
        return named


class _Sample:
    """The steps of one sample, with the values of ``hand`` and ``engine``."""

    def __init__(self, net: Sequence[Layer], y: Vector, hand: Trace, engine: Trace, cost: str) -> None:
        self.net, self.y, self.hand, self.engine, self.cost = net, y, hand, engine, cost
        self.names = Names(net)
        self.is_chain = max(self.names.sizes) == 1

    def forward(self) -> list[Step]:
        steps, names, hand, engine = [], self.names, self.hand, self.engine
        for at, layer in enumerate(self.net, 1):
            for k, (w_k, b_k) in enumerate(zip(layer.w, layer.b)):
                before = enumerate(zip(w_k, hand.a[at - 1]))
                terms = [("{}·{}", [(names.w(at, k, j), w_kj), (names.a(at - 1, j), a_j)]) for j, (w_kj, a_j) in before]
                template, operands = sum_of([*terms, ("{}", [(names.b(at, k), b_k)])])
                z, a = hand.z[at - 1][k], hand.a[at][k]
                steps.append(Step(names.z(at, k), template, operands, z, engine.z[at - 1][k]))
                symbol = TEXTBOOK_ACTIVATIONS[layer.activation].symbol
                steps.append(Step(names.a(at, k), symbol + "({})", ((names.z(at, k), z),), a, engine.a[at][k]))
        last = len(self.net)
        outputs = enumerate(zip(hand.a[-1], self.y))
        terms = [("({} − {})²", [(names.a(last, k), a_k), (names.y(k), y_k)]) for k, (a_k, y_k) in outputs]
        return [*steps, Step(self.cost, *sum_of(terms), hand.cost, engine.cost)]

    def layer(self, at: int) -> list[Step]:
        """The links of the chain rule in layer ``at``, counting from 1."""
        names, hand, engine, cost = self.names, self.hand, self.engine, self.cost
        i, steps, activation = at - 1, [], TEXTBOOK_ACTIVATIONS[self.net[at - 1].activation]
        for k, (a_k, z_k) in enumerate(zip(hand.a[at], hand.z[i])):
            a, z = names.a(at, k), names.z(at, k)
            cost_by_a, slope = (partial(cost, a), hand.cost_by_a[i][k]), (partial(a, z), hand.slope[i][k])
            operands: tuple[Operand, ...]
            if at == len(self.net):
                template, operands = "2·({} − {})", ((a, a_k), (names.y(k), self.y[k]))
            elif self.is_chain:
                after = names.z(at + 1, 0)
                link = (partial(after, a), hand.z_by_a[at][0][0])
                weight = (names.w(at + 1, 0, 0), self.net[at].w[0][0])
                steps.append(Step(link[0], "{}", (weight,), link[1], engine.z_by_a[at][0][0]))
                template, operands = "{}·{}", ((partial(cost, after), hand.cost_by_z[at][0]), link)
            else:
                template, operands = sum_of(
                    ("{}·{}", [(names.w(at + 1, m, k), w_m[k]), (partial(cost, names.z(at + 1, m)), hand.cost_by_z[at][m])])
                    for m, w_m in enumerate(self.net[at].w)
                )
            steps.append(Step(cost_by_a[0], template, operands, cost_by_a[1], engine.cost_by_a[i][k]))
            known, alias = ((z, z_k), (a, a_k)), f"{activation.symbol}'({z})"
            steps.append(Step(slope[0], activation.slope_formula, known, slope[1], engine.slope[i][k], alias))
            product = "{}·{}", (cost_by_a, slope)
            steps.append(Step(partial(cost, z), *product, hand.cost_by_z[i][k], engine.cost_by_z[i][k]))
        for k in range(len(hand.z[i])):
            steps += self._parameters(at, k)
        return steps

    def _parameters(self, at: int, k: int) -> list[Step]:
        names, hand, engine, i = self.names, self.hand, self.engine, at - 1
        z, steps = names.z(at, k), []
        cost_by_z = (partial(self.cost, z), hand.cost_by_z[i][k])
        for j, a_j in enumerate(hand.a[i]):
            w = names.w(at, k, j)
            link: Operand = (names.a(i, j), a_j)
            if self.is_chain:
                steps.append(Step(partial(z, w), "{}", (link,), hand.z_by_w[i][k][j], engine.z_by_w[i][k][j]))
                link = (partial(z, w), hand.z_by_w[i][k][j])
            value = hand.cost_by_w[i][k][j]
            steps.append(Step(partial(self.cost, w), "{}·{}", (cost_by_z, link), value, engine.cost_by_w[i][k][j]))
        name = partial(self.cost, names.b(at, k))
        return [*steps, Step(name, "{}·1", (cost_by_z,), hand.cost_by_b[i][k], engine.cost_by_b[i][k])]

    def product(self) -> Step:
        """The product of all links, for the first weight of a chain of neurons."""
        names, hand, last = self.names, self.hand, len(self.net)
        template = "2·({} − {})"
        operands = [(names.a(last, 0), hand.a[-1][0]), (names.y(0), self.y[0])]
        for at in range(last, 0, -1):
            template += "·{}·{}"
            link = (names.w(at, 0, 0), self.net[at - 1].w[0][0]) if at > 1 else (names.a(0, 0), hand.a[0][0])
            symbol = TEXTBOOK_ACTIVATIONS[self.net[at - 1].activation].symbol
            operands += [(f"{symbol}'({names.z(at, 0)})", hand.slope[at - 1][0]), link]
        value = 2.0 * (hand.a[-1][0] - self.y[0]) * math.prod(value for _, value in operands[2:])
        return Step(partial(self.cost, names.w(1, 0, 0)), template, tuple(operands), value, self.engine.cost_by_w[0][0][0])


# ---- sections ---------------------------------------------------------------------------------------------------------

_FORWARD = (
    "Each neuron computes z, the weighted sum of its inputs plus its bias, and then a, its activation of z. "
    "The error C measures how wrong the answer is: the squared distance of the last a from the target y."
)
_BACKWARD = (
    "How much would C change if a weight changed a little? A weight changes its z, z changes a, a changes the next z, "
    "and so on up to C. The derivative along such a chain is the product of the derivatives of its links: "
    "∂z/∂w = a (the activation before), ∂z/∂b = 1, ∂a/∂z = the slope of the activation, ∂z/∂a = w, ∂C/∂a = 2·(a − y). "
    "Backpropagation starts at C and goes backwards, so each link is computed once and used by all earlier layers."
)
_FAN_OUT = (
    "A neuron that feeds several neurons of the next layer changes C through each of them, so its derivative is a sum. "
    "This sum is the only difference between a net and a chain."
)
_MEAN = (
    "The error of a batch is the mean of the errors of its samples. The derivative of a mean is the mean of the "
    "derivatives, so each gradient is the mean over the samples. The engine computes all samples at once, in fused layers."
)
_DESCENT = (
    "Backpropagation ends with the gradient, the direction in which C rises. It changes no weight. Gradient descent is a "
    "separate step. It moves every weight and bias a little against the gradient: w ← w − η·∂C/∂w"
)


def derive(
    net: Sequence[Layer], inputs: Matrix, targets: Matrix, lr: float, title: str, is_continued: bool = False
) -> list[Section]:
    """The derivation of a net for a batch of samples, with one section per stage.

    Args:
        net: the layers.
        inputs: one row per sample, with as many numbers as the first layer has inputs.
        targets: one row per sample, with as many numbers as the last layer has neurons.
        lr: the learning rate η of the step of gradient descent.
        title: the heading.
        is_continued: omit the general explanations and the step of gradient descent, since an earlier part has them.
    """
    hands = [by_hand(net, x, y) for x, y in zip(inputs, targets)]
    several = len(hands) > 1
    costs = [f"C{number}" if several else "C" for number in range(1, len(hands) + 1)]
    samples = [
        _Sample(net, y, hand, by_engine(net, x, y), cost)
        for x, y, hand, cost in zip(inputs, targets, hands, costs)
    ]  # fmt: skip
    sections = [Section(title, 1, _given(net, inputs, targets)), *_first_sample(samples[0], several, is_continued)]
    for number, sample in enumerate(samples[1:], 2):
        steps = sample.forward() + [step for at in range(len(net), 0, -1) for step in sample.layer(at)]
        sections.append(Section(f"Sample {number}: the same formulas with other numbers", steps=steps, brief=True))
    hand = batch_by_hand(net, hands, targets, lr)
    engine = batch_by_engine(net, inputs, targets, lr)
    if several:
        sections.append(Section("The mean over the batch", 2, [_MEAN], _mean_steps(samples, hand, engine)))
    if not is_continued:
        sections[-1].remarks += _gradient_flow(net, hands)
        sections.append(_descent(samples[0].names, net, hand, engine, lr))
    return sections


def _given(net: Sequence[Layer], inputs: Matrix, targets: Matrix) -> list[str]:
    names = Names(net)
    parameters = names.parameters([layer.w for layer in net], [layer.b for layer in net])
    lines = ["Given:  " + "   ".join(f"{name} = {_number(value, 6)}" for name, value in parameters)]
    for number, (x, y) in enumerate(zip(inputs, targets), 1):
        values = [(names.a(0, j), value) for j, value in enumerate(x)] + [(names.y(k), v) for k, v in enumerate(y)]
        label = f"Sample {number}:  " if len(inputs) > 1 else "Sample:  "
        lines.append(label + "   ".join(f"{name} = {_number(value, 6)}" for name, value in values))
    if max(names.sizes) > 1:
        lines.append(
            "An index is the number of a neuron in its layer. A weight has two: the neuron that it leads to, then the "
            "neuron that it comes from. The index of a layer with one neuron is omitted."
        )
    meanings = {TEXTBOOK_ACTIVATIONS[layer.activation].meaning: None for layer in net}
    return [*lines, *(f"Activation:  {meaning}" for meaning in meanings if meaning)]


def _first_sample(sample: _Sample, several: bool, is_continued: bool) -> list[Section]:
    of = ", sample 1" if several else ""
    last = len(sample.net)
    sections = [Section(f"Forward{of}", 2, [] if is_continued else [_FORWARD], sample.forward())]
    fans_out = max(sample.names.sizes[2:], default=1) > 1
    text = ([] if is_continued else [_BACKWARD]) + ([_FAN_OUT] if fans_out else [])
    sections.append(Section(f"Backward{of}: the chain rule", 2, text))
    for at in range(last, 0, -1):
        kind = "Neuron" if sample.is_chain else "Layer"
        suffix = ", the last" if at == last > 1 else ""
        sections.append(Section(f"{kind} {at}{suffix}", 3, steps=sample.layer(at)))
    if sample.is_chain and last > 1:
        sections.append(Section("The whole chain for the first weight, in one line", 3, steps=[sample.product()]))
    return sections


def _mean_steps(samples: Sequence[_Sample], hand: Batch, engine: Batch) -> list[Step]:
    names, count = samples[0].names, len(samples)

    def mean(name: str, operands: list[Operand], value: float, engine_value: float) -> Step:
        template, shown = sum_of(("{}", [operand]) for operand in operands)
        return Step(name, f"({template})/{count}", shown, value, engine_value)

    steps = [mean("C", [(s.cost, s.hand.cost) for s in samples], hand.cost, engine.cost)]
    values = names.parameters(hand.cost_by_w, hand.cost_by_b)
    engine_values = names.parameters(engine.cost_by_w, engine.cost_by_b)
    each = [names.parameters(s.hand.cost_by_w, s.hand.cost_by_b) for s in samples]
    for (name, value), (_, engine_value), parts in zip(values, engine_values, zip(*each)):
        operands = [(partial(s.cost, name), part) for s, (_, part) in zip(samples, parts)]
        steps.append(mean(partial("C", name), operands, value, engine_value))
    return steps


def _descent(names: Names, net: Sequence[Layer], hand: Batch, engine: Batch, lr: float) -> Section:
    before, gradient, after, engine_after = (
        names.parameters(ws, bs)
        for ws, bs in (
            ([layer.w for layer in net], [layer.b for layer in net]),
            (hand.cost_by_w, hand.cost_by_b),
            ([layer.w for layer in hand.after], [layer.b for layer in hand.after]),
            ([layer.w for layer in engine.after], [layer.b for layer in engine.after]),
        )
    )
    rate = ("η", lr)
    steps = [
        Step(f"new {name}", "{} − {}·{}", ((name, old), rate, (partial("C", name), slope)), new, engine_new)
        for (name, old), (_, slope), (_, new), (_, engine_new) in zip(before, gradient, after, engine_after)
    ]
    steps.append(Step("new C", "C with the new weights", (), hand.cost_after, engine.cost_after))
    change = f"C went from {hand.cost:.6g} to {hand.cost_after:.6g}."
    if hand.cost_after < hand.cost:
        change += " Training repeats all of this many times, with many samples."
    elif hand.cost_after > hand.cost:
        change += " It rose: the step was too long. The gradient is only valid nearby; try a smaller --lr."
    else:
        change += " The step did not change it: the gradient is zero or too small."
    return Section(f"Gradient descent, with η = {_number(lr, 6)}", 2, [_DESCENT], steps, [change])


def _gradient_flow(net: Sequence[Layer], traces: Sequence[Trace]) -> list[str]:
    """A remark on whether the gradient shrinks, grows or vanishes from the last layer to the first."""
    if len(net) < 2 or not any(trace.cost for trace in traces):
        return []
    sizes = [math.sqrt(sum(dz * dz for t in traces for dz in t.cost_by_z[at])) for at in range(len(net))]
    first, last = sizes[0], sizes[-1]
    if first == 0.0:
        remark = "Note: the gradient is 0 at layer 1. In some layer every slope or weight is 0 (the slope of relu is 0 "
        return [remark + "where z < 0), so the layers before it do not learn from this sample."]
    if not math.isfinite(first / last):
        return ["Note: the numbers overflow floating point."]
    change = f"from layer {len(net)} back to layer 1, ∂C/∂z is multiplied by {first / last:.3g}"
    if max(len(layer.w) for layer in net) == 1 and len(traces) == 1 and len(net) > 2:
        steps = zip(reversed(net[1:]), reversed(traces[0].slope[:-1]))
        factors = [_number(abs(layer.w[0][0] * slope[0]), 3) for layer, slope in steps]
        change = f"{change} = {'·'.join(factors)} in absolute value, one factor w·slope per layer"
    names = sorted({layer.activation for layer in net[:-1]})
    max_slopes = ", ".join(f"at most {TEXTBOOK_ACTIVATIONS[name].max_slope} for {name}" for name in names)
    if 0.5 <= first / last <= 2.0:
        return [f"Note: {change}. It neither shrinks nor grows much."]
    if first < last:
        reason = (
            f"The gradient shrinks: each layer multiplies it by the slope ({max_slopes}), so in a deep net the first layers"
        )
        return [f"Note: {change}. {reason} hardly learn (vanishing gradients)."]
    reason = "The gradient grows: large weights multiply it in each layer, so in a deep net it explodes. Smaller"
    return [f"Note: {change}. {reason} weights or clipping the gradient help."]
