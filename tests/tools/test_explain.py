"""``gpunet explain``: its output, and the messages for invalid input."""

from __future__ import annotations

import argparse
import io
import math
import sys

import numpy
import pytest

from gpunet.cli import explain
from gpunet.errors import ArgumentError
from gpunet.tools import textbook
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS


@pytest.fixture(autouse=True)
def terminal_with_100_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def command(*options: str) -> int:
    parser = argparse.ArgumentParser(prog="gpunet")
    explain.add_parser(parser.add_subparsers())
    return explain.run(parser.parse_args(["explain", *options]))


# ---- output -----------------------------------------------------------------------------------------------------------


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


def test_wrong_value_by_hand_is_reported(capsys, monkeypatch):
    wrong = TEXTBOOK_ACTIVATIONS["sigmoid"]._replace(slope=lambda z: 0.25)
    monkeypatch.setitem(textbook.TEXTBOOK_ACTIVATIONS, "sigmoid", wrong)
    assert command("--weights", "0.5,2") == 1
    text = capsys.readouterr().out
    assert "✗ engine" in text
    assert "numbers differ from the engine's" in text
    assert "∂a2/∂z2: by hand 0.25, engine 0." in text
    assert "✓ All" not in text


def test_wrong_value_of_the_engine_is_reported(capsys, monkeypatch):
    correct = textbook.batch_by_engine

    def wrong(*arguments):
        batch = correct(*arguments)
        return batch._replace(cost_after=batch.cost_after + 1e-6)

    monkeypatch.setattr("gpunet.tools.derivation.batch_by_engine", wrong)
    assert command("--weights", "0.5,2") == 1
    assert "new C: by hand" in capsys.readouterr().out


@pytest.mark.parametrize("options", ((), ("--layers", "2,3,2", "--activation", "gelu", "--input", "1,2;3,4;5,6")))
def test_plain_is_ascii(capsys, options):
    assert command("--plain", *options) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    assert "dC" in text
    assert "ok engine" in text


@pytest.mark.parametrize("name", TEXTBOOK_ACTIVATIONS)
def test_plain_replaces_every_symbol(name, capsys):
    assert command("--plain", "--weights", "0.5,2", "--activation", name) == 0
    assert capsys.readouterr().out.isascii()


def test_plain_is_the_default_without_utf8(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert command("--weights", "0.5,2") == 0
    terminal.flush()
    assert terminal.buffer.getvalue().isascii()


def test_long_formulas_take_two_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert command("--weights", "0.5,2") == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("  ∂a2/∂z2 = σ'(z2) = a2·(1 − a2)")
    assert lines[at + 1].startswith("          = 0.")
    assert "✓ engine" in lines[at + 1]


def test_precision(capsys):
    command("--weights", "1", "--activation", "identity", "--precision", "3")
    assert "= (0.5 − 1)² = 0.250  ✓ engine 0.250" in capsys.readouterr().out


def test_growing_and_vanishing_gradients(capsys):
    command("--weights", "3,4,5", "--activation", "identity")
    assert "The gradient grows" in capsys.readouterr().out
    command("--weights", "-1,1,1", "--activation", "relu", "--input", "1")
    assert "the gradient is 0 at layer 1" in capsys.readouterr().out


def test_too_long_step_is_reported(capsys):
    command("--weights", "1,1", "--activation", "identity", "--lr", "100")
    assert "the step was too long" in capsys.readouterr().out


def test_same_seed_draws_same_weights(capsys):
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


# ---- invalid input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    (
        (("--weights", "0.5,abc"), "'abc'", "numbers separated by commas"),
        (("--weights", ""), "''", "numbers"),
        (("--weights", "1e9"), "1e9", "-1e6 to 1e6"),
        (("--weights", "nan"), "nan", "-1e6 to 1e6"),
        (("--weights", "nowhere.npz"), "nowhere.npz", "no such file"),
        (("--weights", "1,2", "--biases", "1"), "got 1", "expected 2 biases"),
        (("--layers", "2,0"), "'2,0'", "positive integers"),
        (("--layers", "2"), "'2'", "at least two"),
        (("--layers", "30,30"), "900 weights", "at most 400"),
        (("--layers", "2,3,1", "--weights", "1,2"), "got 2", "expected 9 weights"),
        (("--input", "0.5,0.9"), "got 2", "expected 1 per sample"),
        (("--input", "1;2", "--target", "1"), "--target '1'", "expected 2"),
        (("--target", "1,2"), "--target '1,2'", "expected 1"),
        (("--activation", "swish"), "'swish'", "relu, leaky_relu, sigmoid"),
        (("--weights", "1,2,3", "--activation", "tanh,relu"), "got 2", "one per layer (3)"),
        (("--lr", "0"), "--lr 0", "positive"),
        (("--lr", "fast"), "'fast'", "number"),
        (("--precision", "0"), "--precision 0", "1 to 15"),
        (("--layers", "10,10", "--input", ";".join(["1,2,3,4,5,6,7,8,9,0"] * 5)), "5 sample(s)", "at most 400"),
    ),
)
def test_invalid_options_report_value_and_expectation(options, value, expected):
    with pytest.raises(ArgumentError) as caught:
        command(*options)
    assert value in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    (
        ({}, "contains no weights"),
        ({"b": [1.0]}, "that follows its weights"),
        ({"w1": [[1.0, 2.0]], "b1": [1.0, 2.0]}, "that follows its weights"),
        ({"w1": [[1.0, 2.0]], "w2": [[1.0, 2.0]]}, r"expected \(out, 1\)"),
        ({"w1": [["a"]]}, "expected weights or a bias"),
        ({"w1": [[math.inf]]}, "out of range"),
    ),
)
def test_invalid_files(tmp_path, arrays, expected):
    path = tmp_path / "net.npz"
    numpy.savez(path, **{name: numpy.array(array) for name, array in arrays.items()})
    with pytest.raises(ArgumentError, match=expected):
        command("--weights", str(path))


@pytest.mark.parametrize("end", (0, 30, -30))
def test_damaged_files(tmp_path, end):
    path = tmp_path / "net.npz"
    numpy.savez(path, w1=[[1.0]])
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ArgumentError, match=r"net\.npz.*not a readable"):
        command("--weights", str(path))
    path.write_bytes(b"\x00" * 50)
    with pytest.raises(ArgumentError, match=r"net\.npz.*not a readable"):
        command("--weights", str(path))
