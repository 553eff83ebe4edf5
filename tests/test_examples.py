"""The examples run and give the results that they claim."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
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
    tested = {
        "vanishing_gradients", "differential_equation", "step_by_step", "lenet", "image_classifier", "residual_gradients",
        "segmentation", "generate_digits", "digit_detector", "image_fitting", "language_model", "time_series",
    }  # fmt: skip
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


def test_language_model(capsys: pytest.CaptureFixture[str]) -> None:
    loss, text = example("language_model").main()
    assert loss < 1.6 and text.startswith("The ") and len(text) == 96
    assert text in capsys.readouterr().out


# ---- with a picture -------------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path) -> Iterator[str]:
    """The path of the picture that an example writes."""
    for package in ("matplotlib", "sklearn", "PIL"):
        pytest.importorskip(package)
    path = tmp_path / "picture.png"
    yield str(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_image_classifier(picture: str) -> None:
    assert example("image_classifier").main(picture) >= 0.99


def test_residual_gradients(picture: str) -> None:
    found = example("residual_gradients").main(picture)
    (plain, plain_losses), _, (residual, residual_losses) = found.values()
    assert plain[0] / plain[-1] < 1e-10 and 0.1 < residual[0] / residual[-1] < 1000
    assert min(plain_losses) > 2.2 and residual_losses[-1] < 1.6


def test_segmentation(picture: str) -> None:
    background, disk, square = example("segmentation").main(picture)
    assert background > 0.97 and disk > 0.6 and square > 0.75


def test_generate_digits(picture: str) -> None:
    assert example("generate_digits").main(picture) < 0.19


@pytest.mark.exhaustive
def test_digit_detector(picture: str) -> None:
    mean, at_half = example("digit_detector").main(picture)
    assert mean > 0.42 and at_half >= 0.8


def test_image_fitting(picture: str) -> None:
    found = example("image_fitting").main(picture)
    assert found["Fourier features"] > found["positions"] + 6


def test_time_series(picture: str) -> None:
    error, repeated = example("time_series").main(picture)
    assert error < 0.7 * repeated
