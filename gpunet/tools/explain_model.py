"""``gpunet explain --model RUN --row N``: the chain rule through a trained network, for one row of its data.

A trained network has too many weights to print all.  The derivation follows one path from the loss to an input: in each layer the
neuron with the largest derivative, and each sum shows its largest terms.  Every value is computed by hand and by the engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet import data, nn
from gpunet.backend.dtypes import float64
from gpunet.data import Standardisation, TabularData
from gpunet.errors import ArgumentError, CheckpointError
from gpunet.ops.creation import tensor
from gpunet.ops.softmax import softmax
from gpunet.tools.derivation import Names, Operand, Section, Step, partial, sum_of
from gpunet.tools.textbook import (
    TEXTBOOK_ACTIVATIONS,
    TEXTBOOK_LOSSES,
    Layer,
    Trace,
    Vector,
    by_engine,
    by_hand,
    softmax_by_hand,
)  # fmt: skip
from gpunet.tools.training_run import fingerprint, of_split
from gpunet.train.run_folder import load_run

NUM_CLASSES = 5  # that are shown, the most probable ones
NUM_FEATURES = 6  # that are shown, those with the largest influence on the loss


class _Row(NamedTuple):
    """A row of the data of a run."""

    number: int  # from 1
    inputs: Vector  # standardised
    raw: Vector
    target: float  # a class, or a standardised number
    dataset: TabularData
    is_held_out: bool


def derive_model(run: str, row: int, source: str | None = None) -> list[Section]:
    """The derivation for a row of the data of a run folder.

    Args:
        run: a folder that ``gpunet train`` has written.
        row: its number, from 1, among the rows that the training used, in the order of the file.
        source: the data, if they have moved.

    Raises:
        ArgumentError: there is no such row, or the data are not those of the run.
        CheckpointError: the run folder is damaged.
        DataError: the data cannot be read.
    """
    model, config = load_run(run)
    found = _row(run, config, row, source)
    net = _layers(model)
    name = str(config.get("loss"))
    loss = TEXTBOOK_LOSSES.get(name)
    if loss is None:
        raise CheckpointError(f"{Path(run) / 'config.json'} has the loss {name!r}; expected one of {', '.join(TEXTBOOK_LOSSES)}")
    target = [found.target]
    hand, engine = by_hand(net, found.inputs, target, loss), by_engine(net, found.inputs, target, loss, has_links=False)
    return _Path(net, found, hand, engine, config).sections()


def _row(run: str, config: dict[str, Any], row: int, source: str | None) -> _Row:
    try:
        options, values = config["options"], config["standardisation"]
        name = source if source is not None else options["data"]
        standardisation = Standardisation(
            numpy.array(values["mean"]), numpy.array(values["scale"]), values["target_mean"], values["target_scale"]
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{Path(run) / 'config.json'} was not written by this version of gpunet train ({error!r})") from None
    dataset = data.load(name, options.get("target"), options.get("task", "auto"), options.get("ignore", ()))
    if fingerprint(dataset) != config.get("data"):
        raise ArgumentError(f"--model {run}: {name} is not the data of this run any more; pass the old data by --data")
    if not 1 <= row <= len(dataset):
        raise ArgumentError(f"--row {row}: {name} has {len(dataset)} rows; expected 1 to {len(dataset)}")
    features = standardisation.features(dataset.features[row - 1 : row])
    target = standardisation.targets(dataset.targets[row - 1 : row])
    numbered = replace(dataset, features=numpy.arange(len(dataset)).reshape(-1, 1))  # the split does not look at features
    chosen = {name: options[name] for name in ("test_size", "seed", "folds", "fold") if name in options}
    held_out = of_split(numbered, **chosen).test.features
    is_held_out = bool((held_out == row - 1).any())
    raw = dataset.features[row - 1].astype(float).tolist()
    return _Row(row, features[0].astype(float).tolist(), raw, float(target[0]), dataset, is_held_out)


def _layers(model: nn.Sequential) -> list[Layer]:
    """The linear layers of a network of ``multilayer_perceptron``, with the activations behind them."""
    found: list[Layer] = []
    for module in model:
        if isinstance(module, nn.Linear):
            assert module.bias is not None
            found.append(Layer(module.weight.detach().tolist(), module.bias.detach().tolist(), "identity"))
        elif not isinstance(module, (nn.Dropout, nn.Identity)):
            found[-1] = found[-1]._replace(activation=module.name)
    return found


class _Path:
    """The derivation along one path."""

    def __init__(self, net: Sequence[Layer], row: _Row, hand: Trace, engine: Trace, config: dict[str, Any]) -> None:
        self.net, self.row, self.hand, self.engine, self.config = net, row, hand, engine, config
        self.names, self.loss = Names(net), config["loss"]
        self.path = self._choose()  # the neuron of each layer from the inputs on

    def _choose(self) -> list[int]:
        """From the output with the largest derivative back: the neuron, then the input, with the largest share."""
        path = [_largest(self.hand.cost_by_z[-1])]
        for at in range(len(self.net) - 1, 0, -1):
            row = self.net[at].w[path[0]]
            path.insert(0, _largest([w * s for w, s in zip(row, self.hand.slope[at - 1])]))
        return [_largest(self._shares(self.net[0].w[path[0]], self.hand.a[0])), *path]

    @staticmethod
    def _shares(row: Vector, values: Vector) -> Vector:
        return [w * value for w, value in zip(row, values)]

    def sections(self) -> list[Section]:
        last = len(self.net)
        sections = [Section(self._title(), 1, self._given())]
        forward = [step for at in range(1, last + 1) for step in self._forward(at)]
        text = "One neuron of each layer is followed, the one through which the loss depends most on the input. Sums show their "
        text += "largest terms."
        sections.append(Section("Forward", 2, [text], [*forward, *self._outcome()]))
        text = "From the loss back to an input: each link is the derivative so far, times the next factor. A neuron that feeds "
        text += "several neurons gets the sum of its shares in all of them."
        sections.append(Section("Backward: the chain rule", 2, [text]))
        for at in range(last, 0, -1):
            sections.append(Section(f"Layer {at}{', the last' if at == last else ''}", 3, steps=self._backward(at)))
        sections.append(Section("This path alone, in one line", 3, steps=[self._product()]))
        sections[-1].remarks += [self._paths(), self._flow()]
        return sections

    # -- what is given
    def _title(self) -> str:
        sizes = "-".join(map(str, self.names.sizes))
        held_out = "held out from training" if self.row.is_held_out else "one of the training rows"
        return f"Row {self.row.number} of {self.row.dataset.name}, {held_out}, in a network of {sizes}"

    def _given(self) -> list[str]:
        dataset = self.row.dataset
        raw, x = self.row.raw, self.row.inputs
        influence = [sum(w[j] * dz for w, dz in zip(self.net[0].w, self.hand.cost_by_z[0])) * x_j for j, x_j in enumerate(x)]
        chosen = sorted(range(len(x)), key=lambda j: -abs(influence[j]))[:NUM_FEATURES]
        shown = [f"{dataset.feature_names[j]} = {raw[j]:.6g}, {self.names.a(0, j)} = {x[j]:.6g}" for j in chosen]
        more = f"   and {len(x) - len(chosen)} more" if len(x) > len(chosen) else ""
        lines = [f"Inputs:  {';   '.join(shown)}{more}. Each is standardised: less its mean, divided by its standard deviation."]
        if dataset.class_names:
            lines.append(f"Target:  {dataset.class_names[int(self.row.target)]} ({self._predicted()})")
        else:
            lines.append(f"Target:  y = {self.row.target:.6g}, standardised ({self._predicted()})")
        meanings = {TEXTBOOK_ACTIVATIONS[layer.activation].meaning: None for layer in self.net}
        return [*lines, *(f"Activation:  {meaning}" for meaning in meanings if meaning)]

    def _predicted(self) -> str:
        outputs, classes = self.hand.a[-1], self.row.dataset.class_names
        if not classes:
            return f"the network says {outputs[0]:.6g}"
        found = _largest_value(outputs) if len(outputs) > 1 else int(outputs[0] > 0.0)
        return f"the network says {classes[found]}"

    # -- steps
    def _forward(self, at: int) -> list[Step]:
        k, names = self.path[at], self.names
        row, before = self.net[at - 1].w[k], self.hand.a[at - 1]
        order = _by_size(self._shares(row, before), self.path[at - 1])
        terms: list[tuple[str, Sequence[Operand]]] = [
            ("{}·{}", [(names.w(at, k, j), row[j]), (names.a(at - 1, j), before[j])]) for j in order
        ]
        template, operands = sum_of([*terms, ("{}", [(names.b(at, k), self.net[at - 1].b[k])])])
        z, a = self.hand.z[at - 1][k], self.hand.a[at][k]
        steps = [Step(names.z(at, k), template, operands, z, self.engine.z[at - 1][k])]
        if self.net[at - 1].activation != "identity":
            symbol = TEXTBOOK_ACTIVATIONS[self.net[at - 1].activation].symbol
            steps.append(Step(names.a(at, k), symbol + "({})", ((names.z(at, k), z),), a, self.engine.a[at][k]))
        return steps

    def _output(self, k: int) -> Operand:
        """An output of the network, whose last layer has no activation."""
        return self.names.z(len(self.net), k), self.hand.a[-1][k]

    def _outcome(self) -> list[Step]:
        """From the outputs to the loss."""
        hand, engine, y = self.hand, self.engine, self.row.target
        if self.loss != "cross_entropy":
            loss = TEXTBOOK_LOSSES[self.loss]
            return [Step("C", loss.template, (self._output(0), ("y", y)), hand.cost, engine.cost)]
        shares, steps = softmax_by_hand(hand.a[-1]), []
        of_engine = softmax(tensor(engine.a[-1], dtype=float64), 0).tolist()
        chosen = sorted(range(len(shares)), key=lambda k: -shares[k])[:NUM_CLASSES]
        for k in dict.fromkeys([*chosen, int(y)]):
            name, value = self._output(k)
            template = f"e^{{}}/(sum of e^{name.partition('[')[0]})"
            steps.append(Step(f"p[{k + 1}]", template, ((name, value),), shares[k], of_engine[k]))
        target = int(y)
        return [*steps, Step("C", "−log({})", ((f"p[{target + 1}]", shares[target]),), hand.cost, engine.cost)]

    def _backward(self, at: int) -> list[Step]:
        names, hand, engine, k, i = self.names, self.hand, self.engine, self.path[at], at - 1
        a, z, last = names.a(at, k), names.z(at, k), len(self.net)
        by_z = (partial("C", z), hand.cost_by_z[i][k])
        steps: list[Step] = []
        if at == last:
            steps.append(self._first_link(k))
        else:
            after, by_next = self.net[at].w, hand.cost_by_z[at]
            order = _by_size([w[k] * dz for w, dz in zip(after, by_next)], self.path[at + 1])
            terms = [
                ("{}·{}", [(partial("C", names.z(at + 1, m)), by_next[m]), (names.w(at + 1, m, k), after[m][k])]) for m in order
            ]
            by_a = (partial("C", a), hand.cost_by_a[i][k])
            steps.append(Step(by_a[0], *sum_of(terms), by_a[1], engine.cost_by_a[i][k]))
            activation = TEXTBOOK_ACTIVATIONS[self.net[i].activation]
            slope = (partial(a, z), hand.slope[i][k])
            known = ((z, hand.z[i][k]), (a, hand.a[at][k]))
            alias = f"{activation.symbol}'({z})"
            steps.append(Step(slope[0], activation.slope_formula, known, slope[1], engine.slope[i][k], alias))
            steps.append(Step(by_z[0], "{}·{}", (by_a, slope), by_z[1], engine.cost_by_z[i][k]))
        j = self.path[i]
        link = (names.a(i, j), hand.a[i][j])
        name = partial("C", names.w(at, k, j))
        steps.append(Step(name, "{}·{}", (by_z, link), hand.cost_by_w[i][k][j], engine.cost_by_w[i][k][j]))
        name = partial("C", names.b(at, k))
        return [*steps, Step(name, "{}·1", (by_z,), hand.cost_by_b[i][k], engine.cost_by_b[i][k])]

    def _first_link(self, k: int) -> Step:
        """∂C/∂z of an output."""
        name, value = self._output(k)
        hand, engine = self.hand.cost_by_z[-1][k], self.engine.cost_by_z[-1][k]
        if self.loss == "cross_entropy":
            p = (f"p[{k + 1}]", softmax_by_hand(self.hand.a[-1])[k])
            return Step(partial("C", name), "{} − 1" if k == int(self.row.target) else "{}", (p,), hand, engine)
        operands = ((name, value), ("y", self.row.target))
        return Step(partial("C", name), TEXTBOOK_LOSSES[self.loss].slope_template, operands, hand, engine)

    def _product(self) -> Step:
        """The product of all links of the path: its share in the derivative of the first weight."""
        names, last = self.names, len(self.net)
        operands, engine = self._links(self.hand), self._links(self.engine)
        names_of = [partial("C", names.z(last, self.path[last]))]
        for at in range(last, 1, -1):
            k, j = self.path[at], self.path[at - 1]
            symbol = TEXTBOOK_ACTIVATIONS[self.net[at - 2].activation].symbol
            names_of += [names.w(at, k, j), f"{symbol}'({names.z(at - 1, j)})"]
        names_of.append(names.a(0, self.path[0]))
        name = f"share in {partial('C', names.w(1, self.path[1], self.path[0]))}"
        template = "·".join(["{}"] * len(operands))
        return Step(name, template, tuple(zip(names_of, operands)), math.prod(operands), math.prod(engine))

    def _links(self, trace: Trace) -> Vector:
        last = len(self.net)
        found = [trace.cost_by_z[-1][self.path[last]]]
        for at in range(last, 1, -1):
            k, j = self.path[at], self.path[at - 1]
            found += [self.net[at - 1].w[k][j], trace.slope[at - 2][j]]
        return [*found, trace.a[0][self.path[0]]]

    def _paths(self) -> str:
        count = math.prod(len(layer.w) for layer in self.net[1:])
        k, j = self.path[1], self.path[0]
        whole, name = self.hand.cost_by_w[0][k][j], partial("C", self.names.w(1, k, j))
        return f"{count:,} paths lead from {self.names.w(1, k, j)} to the loss; the sum of their shares is {name} = {whole:.6g}."

    def _flow(self) -> str:
        sizes = [math.sqrt(sum(dz * dz for dz in layer)) for layer in self.hand.cost_by_z]
        inactive = [sum(s == 0.0 for s in slopes) for slopes in self.hand.slope[:-1]]
        parts = [f"layer {at}: {size:.3g}" for at, size in enumerate(sizes, 1)]
        text = f"Size of ∂C/∂z: {', '.join(parts)}."
        silent = [f"{count} of {len(self.net[at].w)} in layer {at + 1}" for at, count in enumerate(inactive) if count]
        return text + (f" The slope is 0, so that nothing passes, at {', '.join(silent)}." if silent else "")


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda at: abs(values[at]))


def _largest_value(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda at: values[at])


def _by_size(values: Sequence[float], first: int) -> list[int]:
    """The places of the values, the largest first, and ``first`` before all."""
    return sorted(range(len(values)), key=lambda at: (at != first, -abs(values[at])))
