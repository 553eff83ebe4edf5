"""The derivation of ``gpunet explain``: values against finite differences of a net written here in NumPy, and formulas."""

from __future__ import annotations

import math

import numpy
import pytest

from gpunet.ops.activation_table import ACTIVATIONS
from gpunet.tools.derivation import Section, Step, derive
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS, Layer


def steps_of(sections: list[Section]) -> dict[str, Step]:
    return {step.name: step for section in sections for step in section.steps}


def error(net: list[Layer], inputs: list[list[float]], targets: list[list[float]]) -> float:
    """The mean over the samples of the squared distances, computed with NumPy."""
    total = 0.0
    for x, y in zip(inputs, targets):
        a = numpy.array(x)
        for layer in net:
            z = numpy.array(layer.w) @ a + numpy.array(layer.b)
            a = 1.0 / (1.0 + numpy.exp(-z)) if layer.activation == "sigmoid" else numpy.tanh(z)
        total += float(((a - numpy.array(y)) ** 2).sum())
    return total / len(inputs)


def error_derivative(net: list[Layer], inputs: list, targets: list, row: list[float], index: int) -> float:
    """∂C/∂row[index] by central differences; ``row`` belongs to ``net``."""
    middle, h = row[index], 1e-6
    row[index] = middle + h
    above = error(net, inputs, targets)
    row[index] = middle - h
    below = error(net, inputs, targets)
    row[index] = middle
    return (above - below) / (2 * h)


CHAIN = [Layer([[0.5]], [0.1], "sigmoid"), Layer([[-1.2]], [0.0], "tanh"), Layer([[0.8]], [0.3], "sigmoid")]
NET = [
    Layer([[0.6, -0.4], [0.3, 0.9], [-0.2, 0.7]], [0.1, 0.0, -0.3], "tanh"),
    Layer([[0.9, -0.7, 0.4], [0.5, 0.1, -0.8]], [0.2, -0.1], "sigmoid"),
]


def test_every_activation_of_the_engine_has_a_formula():
    assert set(TEXTBOOK_ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", TEXTBOOK_ACTIVATIONS)
@pytest.mark.parametrize("z", (-3.1, -0.7, 0.2, 1.9))
def test_slopes_match_finite_differences(name, z):
    activation = TEXTBOOK_ACTIVATIONS[name]
    difference = (activation.value(z + 1e-6) - activation.value(z - 1e-6)) / 2e-6
    assert activation.slope(z) == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", TEXTBOOK_ACTIVATIONS)
@pytest.mark.parametrize("z", (-1e3, -40.0, 40.0, 1e3))
def test_activations_of_large_numbers_do_not_overflow(name, z):
    assert math.isfinite(TEXTBOOK_ACTIVATIONS[name].value(z))
    assert math.isfinite(TEXTBOOK_ACTIVATIONS[name].slope(z))


def test_chain_against_finite_differences():
    steps = steps_of(derive(CHAIN, [[0.5]], [[1.0]], 0.5, "chain"))
    assert steps["C"].value == pytest.approx(error(CHAIN, [[0.5]], [[1.0]]), rel=1e-12)
    for number, layer in enumerate(CHAIN, 1):
        for letter, row in (("w", layer.w[0]), ("b", layer.b)):
            expected = error_derivative(CHAIN, [[0.5]], [[1.0]], row, 0)
            assert steps[f"∂C/∂{letter}{number}"].value == pytest.approx(expected, rel=1e-7)


def test_every_link_of_the_chain():
    steps = steps_of(derive(CHAIN, [[0.5]], [[1.0]], 0.5, "chain"))
    a2, a3 = steps["a2"].value, steps["a3"].value
    assert steps["∂C/∂a3"].value == 2 * (a3 - 1.0)
    assert steps["∂C/∂a3"].symbols == "2·(a3 − y)"
    assert steps["∂a3/∂z3"].value == pytest.approx(a3 * (1 - a3))
    assert steps["∂a3/∂z3"].symbols == "σ'(z3) = a3·(1 − a3)"
    assert steps["∂z3/∂w3"].value == a2
    assert steps["∂z3/∂w3"].symbols == "a2"
    assert steps["∂z3/∂a2"].value == 0.8
    assert steps["∂C/∂a2"].value == pytest.approx(steps["∂C/∂z3"].value * 0.8)
    assert steps["∂C/∂w3"].symbols == "∂C/∂z3·∂z3/∂w3"
    assert steps["∂C/∂b3"].value == steps["∂C/∂z3"].value


def test_net_and_batch_against_finite_differences():
    inputs, targets = [[1.0, 0.5], [-0.5, 1.0], [0.3, -2.0]], [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    steps = steps_of(derive(NET, inputs, targets, 0.5, "net"))
    assert steps["C"].value == pytest.approx(error(NET, inputs, targets), rel=1e-12)
    for number, layer in enumerate(NET, 1):
        for k, row in enumerate(layer.w, 1):
            for j in range(len(row)):
                expected = error_derivative(NET, inputs, targets, row, j)
                assert steps[f"∂C/∂w{number}[{k},{j + 1}]"].value == pytest.approx(expected, rel=1e-6, abs=1e-9)
        for k in range(len(layer.b)):
            expected = error_derivative(NET, inputs, targets, layer.b, k)
            assert steps[f"∂C/∂b{number}[{k + 1}]"].value == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_batch_gradient_is_the_mean_of_the_samples():
    steps = steps_of(derive(NET, [[1.0, 0.5], [-0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]], 0.5, "net"))
    for name in ("", "/∂w1[2,1]", "/∂b2[2]"):
        mean = f"∂C{name}" if name else "C"
        parts = [mean.replace("C", f"C{sample}") for sample in (1, 2)]
        assert steps[mean].value == pytest.approx(sum(steps[part].value for part in parts) / 2)
        assert steps[mean].symbols == f"({parts[0]} + {parts[1]})/2"


def test_neuron_that_feeds_two_neurons_sums_their_shares():
    steps = steps_of(derive(NET, [[1.0, 0.5]], [[1.0, 0.0]], 0.5, "net"))
    step = steps["∂C/∂a1[3]"]
    assert step.symbols == "w2[1,3]·∂C/∂z2[1] + w2[2,3]·∂C/∂z2[2]"
    shares = [0.4 * steps["∂C/∂z2[1]"].value, -0.8 * steps["∂C/∂z2[2]"].value]
    assert step.value == pytest.approx(sum(shares))


def test_gradient_descent_is_a_separate_step():
    sections = derive(CHAIN, [[0.5]], [[1.0]], 0.25, "chain")
    steps = steps_of(sections)
    assert sections[-1].heading.startswith("Gradient descent")
    assert steps["new w2"].value == pytest.approx(-1.2 - 0.25 * steps["∂C/∂w2"].value)
    after = [
        Layer([[steps[f"new w{i}"].value]], [steps[f"new b{i}"].value], CHAIN[i - 1].activation) for i in (1, 2, 3)
    ]
    assert steps["new C"].value == pytest.approx(error(after, [[0.5]], [[1.0]]), rel=1e-12)
    assert steps["new C"].value < steps["C"].value


@pytest.mark.parametrize("name", TEXTBOOK_ACTIVATIONS)
def test_the_engine_agrees_on_every_activation(name):
    net = [layer._replace(activation=name) for layer in NET]
    sections = derive(net, [[1.0, 0.5], [-3.0, 40.0]], [[1.0, 0.0], [0.0, 1.0]], 0.1, "net")
    assert [step.name for section in sections for step in section.steps if not step.agrees] == []
