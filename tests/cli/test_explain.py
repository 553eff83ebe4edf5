"""``gpunet explain``: the numbers against finite differences of a net written anew here, the text, and bad input."""

from __future__ import annotations

import argparse
import io
import math
import sys

import numpy
import pytest

from gpunet.cli import explain
from gpunet.errors import ArgumentError
from gpunet.ops.activations import ACTIVATIONS
from gpunet.tools import by_hand
from gpunet.tools.by_hand import SQUASHES, Layer
from gpunet.tools.derivation import Section, Step, derive


@pytest.fixture(autouse=True)
def terminal_of_100_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def command(*options: str) -> int:
    parser = argparse.ArgumentParser(prog="gpunet")
    explain.add_parser(parser.add_subparsers())
    return explain.run(parser.parse_args(["explain", *options]))


def steps_of(sections: list[Section]) -> dict[str, Step]:
    return {step.name: step for section in sections for step in section.steps}


def error(net: list[Layer], inputs: list[list[float]], targets: list[list[float]]) -> float:
    """The mean over the samples of the squared distances, in NumPy."""
    total = 0.0
    for x, y in zip(inputs, targets):
        a = numpy.array(x)
        for layer in net:
            z = numpy.array(layer.w) @ a + numpy.array(layer.b)
            a = 1.0 / (1.0 + numpy.exp(-z)) if layer.activation == "sigmoid" else numpy.tanh(z)
        total += float(((a - numpy.array(y)) ** 2).sum())
    return total / len(inputs)


def slope_of_error(net: list[Layer], inputs: list, targets: list, row: list[float], index: int) -> float:
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


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_the_table_has_every_activation_of_the_engine():
    assert set(SQUASHES) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", SQUASHES)
@pytest.mark.parametrize("z", (-3.1, -0.7, 0.2, 1.9))
def test_slopes_are_those_of_the_activations(name, z):
    squash = SQUASHES[name]
    difference = (squash.value(z + 1e-6) - squash.value(z - 1e-6)) / 2e-6
    assert squash.slope(z) == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", SQUASHES)
@pytest.mark.parametrize("z", (-1e3, -40.0, 40.0, 1e3))
def test_activations_far_out_do_not_overflow(name, z):
    assert math.isfinite(SQUASHES[name].value(z))
    assert math.isfinite(SQUASHES[name].slope(z))


def test_chain_against_finite_differences():
    steps = steps_of(derive(CHAIN, [[0.5]], [[1.0]], 0.5, "chain"))
    assert steps["C"].value == pytest.approx(error(CHAIN, [[0.5]], [[1.0]]), rel=1e-12)
    for number, layer in enumerate(CHAIN, 1):
        for letter, row in (("w", layer.w[0]), ("b", layer.b)):
            expected = slope_of_error(CHAIN, [[0.5]], [[1.0]], row, 0)
            assert steps[f"∂C/∂{letter}{number}"].value == pytest.approx(expected, rel=1e-7)


def test_every_link_of_the_chain_is_there():
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
                expected = slope_of_error(NET, inputs, targets, row, j)
                assert steps[f"∂C/∂w{number}[{k},{j + 1}]"].value == pytest.approx(expected, rel=1e-6, abs=1e-9)
        for k in range(len(layer.b)):
            expected = slope_of_error(NET, inputs, targets, layer.b, k)
            assert steps[f"∂C/∂b{number}[{k + 1}]"].value == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_batch_gradient_is_the_mean_of_the_samples():
    steps = steps_of(derive(NET, [[1.0, 0.5], [-0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]], 0.5, "net"))
    for name in ("", "/∂w1[2,1]", "/∂b2[2]"):
        mean = f"∂C{name}" if name else "C"
        parts = [mean.replace("C", f"C{sample}") for sample in (1, 2)]
        assert steps[mean].value == pytest.approx(sum(steps[part].value for part in parts) / 2)
        assert steps[mean].symbols == f"({parts[0]} + {parts[1]})/2"


def test_a_neuron_that_feeds_two_gets_the_sum_of_their_shares():
    steps = steps_of(derive(NET, [[1.0, 0.5]], [[1.0, 0.0]], 0.5, "net"))
    step = steps["∂C/∂a1[3]"]
    assert step.symbols == "w2[1,3]·∂C/∂z2[1] + w2[2,3]·∂C/∂z2[2]"
    shares = [0.4 * steps["∂C/∂z2[1]"].value, -0.8 * steps["∂C/∂z2[2]"].value]
    assert step.value == pytest.approx(sum(shares))


def test_gradient_descent_is_a_step_of_its_own():
    sections = derive(CHAIN, [[0.5]], [[1.0]], 0.25, "chain")
    steps = steps_of(sections)
    assert sections[-1].heading.startswith("Gradient descent")
    assert steps["new w2"].value == pytest.approx(-1.2 - 0.25 * steps["∂C/∂w2"].value)
    after = [
        Layer([[steps[f"new w{i}"].value]], [steps[f"new b{i}"].value], CHAIN[i - 1].activation) for i in (1, 2, 3)
    ]
    assert steps["new C"].value == pytest.approx(error(after, [[0.5]], [[1.0]]), rel=1e-12)
    assert steps["new C"].value < steps["C"].value


@pytest.mark.parametrize("name", SQUASHES)
def test_the_engine_agrees_on_every_activation(name):
    net = [layer._replace(activation=name) for layer in NET]
    sections = derive(net, [[1.0, 0.5], [-3.0, 40.0]], [[1.0, 0.0], [0.0, 1.0]], 0.1, "net")
    assert [step.name for section in sections for step in section.steps if not step.agrees] == []


# ---- what is printed -------------------------------------------------------------------------------------------------


def test_default_shows_chain_sum_and_mean(capsys):
    assert command() == 0
    text = capsys.readouterr().out
    assert "A chain of three neurons" in text
    assert "The whole chain for the first weight" in text
    assert "w2[1]·∂C1/∂z2[1] + w2[2]·∂C1/∂z2[2]" in text
    assert "(∂C1/∂b1 + ∂C2/∂b1)/2" in text
    assert "vanishing gradients" in text
    assert text.index("Backward") < text.index("Gradient descent")
    assert "✓ All" in text
    assert "✗" not in text
    assert text.count("✓ engine ") == int(text.split("✓ All ")[1].split()[0])
    assert max(map(len, text.splitlines())) <= 100


def test_a_wrong_value_by_hand_is_flagged(capsys, monkeypatch):
    wrong = SQUASHES["sigmoid"]._replace(slope=lambda z: 0.25)
    monkeypatch.setitem(by_hand.SQUASHES, "sigmoid", wrong)
    assert command("--weights", "0.5,2") == 1
    text = capsys.readouterr().out
    assert "✗ engine" in text
    assert "numbers differ from the engine's" in text
    assert "∂a2/∂z2: by hand 0.25, engine 0." in text
    assert "✓ All" not in text


def test_a_wrong_engine_is_flagged(capsys, monkeypatch):
    honest = by_hand.batch_by_engine

    def dishonest(*arguments):
        batch = honest(*arguments)
        return batch._replace(cost_after=batch.cost_after + 1e-6)

    monkeypatch.setattr("gpunet.tools.derivation.batch_by_engine", dishonest)
    assert command("--weights", "0.5,2") == 1
    assert "new C: by hand" in capsys.readouterr().out


@pytest.mark.parametrize("options", ((), ("--layers", "2,3,2", "--activation", "gelu", "--input", "1,2;3,4;5,6")))
def test_plain_is_ascii(capsys, options):
    assert command("--plain", *options) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    assert "dC" in text
    assert "ok engine" in text


@pytest.mark.parametrize("name", SQUASHES)
def test_plain_knows_every_symbol(name, capsys):
    assert command("--plain", "--weights", "0.5,2", "--activation", name) == 0
    assert capsys.readouterr().out.isascii()


def test_plain_by_itself_where_the_terminal_has_no_utf8(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert command("--weights", "0.5,2") == 0
    terminal.flush()
    assert terminal.buffer.getvalue().isascii()


def test_long_formulas_go_on_two_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert command("--weights", "0.5,2") == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("  ∂a2/∂z2 = σ'(z2) = a2·(1 − a2)")
    assert lines[at + 1].startswith("          = 0.")
    assert "✓ engine" in lines[at + 1]


def test_precision(capsys):
    command("--weights", "1", "--activation", "identity", "--precision", "3")
    assert "= (0.5 − 1)² = 0.250  ✓ engine 0.250" in capsys.readouterr().out


def test_negative_numbers_are_values_not_options(capsys):
    assert command("--weights", "-0.5,1", "--biases", "-1,-.5", "--input", "-2", "--target", "-1") == 0
    assert "w1 = -0.5" in capsys.readouterr().out


def test_a_gradient_that_grows_and_one_that_stops(capsys):
    command("--weights", "3,4,5", "--activation", "identity")
    assert "The gradient grows" in capsys.readouterr().out
    command("--weights", "-1,1,1", "--activation", "relu", "--input", "1")
    assert "nothing arrives at layer 1" in capsys.readouterr().out


def test_a_step_that_is_too_long_is_said_to_be(capsys):
    command("--weights", "1,1", "--activation", "identity", "--lr", "100")
    assert "the step was too long" in capsys.readouterr().out


def test_the_same_seed_draws_the_same_weights(capsys):
    texts = []
    for seed in ("7", "7", "8"):
        assert command("--layers", "2,3,1", "--seed", seed) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_weights_from_a_file(tmp_path, capsys):
    path = tmp_path / "net.npz"
    numpy.savez(path, w1=[[0.5, 0.25]], b1=[0.125], w2=[[2.0], [3.0]])
    assert command("--weights", str(path), "--activation", "tanh,sigmoid") == 0
    text = capsys.readouterr().out
    assert "A net of layers 2-1-2" in text
    assert "w1[2] = 0.25" in text
    assert "w2[2] = 3" in text
    assert "b2[1] = 0 " in text


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    (
        (("--weights", "0.5,abc"), "'abc'", "numbers separated by commas"),
        (("--weights", ""), "''", "numbers"),
        (("--weights", "1e9"), "1e9", "-1e6 to 1e6"),
        (("--weights", "nan"), "nan", "-1e6 to 1e6"),
        (("--weights", "nowhere.npz"), "nowhere.npz", "no such file"),
        (("--weights", "1,2", "--biases", "1"), "got 1", "expected 2 biases"),
        (("--layers", "2,0"), "'2,0'", "positive whole numbers"),
        (("--layers", "2"), "'2'", "at least two"),
        (("--layers", "30,30"), "900 weights", "up to 400"),
        (("--layers", "2,3,1", "--weights", "1,2"), "got 2", "expected 9 weights"),
        (("--input", "0.5,0.9"), "got 2", "expected 1 for each sample"),
        (("--input", "1;2", "--target", "1"), "--target '1'", "expected 2"),
        (("--target", "1,2"), "--target '1,2'", "expected 1"),
        (("--activation", "swish"), "'swish'", "relu, leaky_relu, sigmoid"),
        (("--weights", "1,2,3", "--activation", "tanh,relu"), "got 2", "one for each of 3 layers"),
        (("--lr", "0"), "--lr 0", "positive"),
        (("--lr", "fast"), "'fast'", "number"),
        (("--precision", "0"), "--precision 0", "1 to 15"),
        (("--layers", "10,10", "--input", ";".join(["1,2,3,4,5,6,7,8,9,0"] * 5)), "5 sample(s)", "up to 400"),
    ),
)
def test_bad_options_name_the_value_and_the_expectation(options, value, expected):
    with pytest.raises(ArgumentError) as caught:
        command(*options)
    assert value in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    (
        ({}, "no weights in it"),
        ({"b": [1.0]}, "right after its weights"),
        ({"w1": [[1.0, 2.0]], "b1": [1.0, 2.0]}, "right after its weights"),
        ({"w1": [[1.0, 2.0]], "w2": [[1.0, 2.0]]}, r"expected \(out, 1\)"),
        ({"w1": [["a"]]}, "expected weights or a bias"),
        ({"w1": [[math.inf]]}, "out of range"),
    ),
)
def test_bad_files_name_what_is_wrong(tmp_path, arrays, expected):
    path = tmp_path / "net.npz"
    numpy.savez(path, **{name: numpy.array(array) for name, array in arrays.items()})
    with pytest.raises(ArgumentError, match=expected):
        command("--weights", str(path))


@pytest.mark.parametrize("end", (0, 30, -30))
def test_a_damaged_file_is_named(tmp_path, end):
    path = tmp_path / "net.npz"
    numpy.savez(path, w1=[[1.0]])
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ArgumentError, match=r"net\.npz.*not a readable"):
        command("--weights", str(path))
    path.write_bytes(b"\x00" * 50)
    with pytest.raises(ArgumentError, match=r"net\.npz.*not a readable"):
        command("--weights", str(path))
