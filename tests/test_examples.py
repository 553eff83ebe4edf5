"""The examples run and give the results that they claim."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested() -> None:
    tested = {"vanishing_gradients", "differential_equation", "step_by_step", "lenet"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_vanishing_gradients() -> None:
    shown = example("vanishing_gradients")
    nn = shown.nn
    sigmoid = shown.gradient_norms(nn.Sigmoid, nn.init.xavier_normal_)
    relu = shown.gradient_norms(nn.ReLU, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))
    assert sigmoid[0] / sigmoid[-1] < 1e-6  # twelve slopes of at most 1/4
    assert 0.05 < relu[0] / relu[-1] < 20.0


def test_differential_equation(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("differential_equation").main(steps=300) < 0.1
    assert "largest error" in capsys.readouterr().out


def test_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("step_by_step").main() < 0.005
    assert "replays" in capsys.readouterr().out


def test_lenet(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert example("lenet").main() >= 0.985
    assert "held-out accuracy" in capsys.readouterr().out
