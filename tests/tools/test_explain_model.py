"""``gpunet explain --model``: values against finite differences of the saved network, and the messages for invalid input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.cli.main import main
from gpunet.errors import ArgumentError, CheckpointError
from gpunet.nn import functional as F
from gpunet.tools.derivation import Step
from gpunet.tools.explain import Options, explain
from gpunet.tools.explain_model import derive_model
from gpunet.tools.textbook import TEXTBOOK_LOSSES
from gpunet.train import LOSSES, load_run, predict

pytest.importorskip("safetensors")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = numpy.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'high' if a + b > 0 else 'low'},{a - 2 * b:.3f}" for a, b in random.standard_normal((60, 2))]
    Path("things.csv").write_text("\n".join(["first,second,kind,amount", *rows]) + "\n")


def train(loss: str, *options: str) -> None:
    target, ignored = ("kind", "amount") if loss in ("bce", "cross_entropy") else ("amount", "kind")
    arguments = ["train", "--data", "things.csv", "--target", target, "--ignore", ignored, "--loss", loss, "--epochs", "4"]
    assert main([*arguments, "--hidden", "6,5", "--activation", "tanh", "--out", "run", *options]) == 0


def steps_of(row: int) -> dict[str, Step]:
    return {step.name: step for section in derive_model("run", row) for step in section.steps}


def test_all_losses_of_training_have_formulas() -> None:
    assert set(TEXTBOOK_LOSSES) == set(LOSSES)


@pytest.mark.parametrize("name", TEXTBOOK_LOSSES)
def test_losses_and_slopes(name: str) -> None:
    """Values are the engine's, and slopes those of central differences."""
    loss = TEXTBOOK_LOSSES[name]
    outputs = [[1.5, -0.3, 4.0]] if name == "cross_entropy" else [[-7.0], [-0.4], [0.3], [2.6], [30.0]]
    for a in outputs:
        for y in ([0.0], [1.0]):
            engine = loss.engine(gpunet.tensor(a, dtype=gpunet.float64), gpunet.tensor(y, dtype=gpunet.float64)).item()
            assert loss.value(a, y) == pytest.approx(engine, rel=1e-12)
            for k, slope in enumerate(loss.slope(a, y)):
                above, below = ([*a[:k], a[k] + h, *a[k + 1 :]] for h in (1e-6, -1e-6))
                assert slope == pytest.approx((loss.value(above, y) - loss.value(below, y)) / 2e-6, rel=1e-6, abs=1e-8)


def evaluated(step: Step) -> float | None:
    """The value of a formula of sums and products; None of another one, or of one that is not shown whole."""
    if not set(step.template) <= set("{}0123456789·+−() ") or "{" not in step.template:
        return None
    text = step.template.format(*(f"({value!r})" for _, value in step.operands))
    return float(eval(text.replace("·", "*").replace("−", "-")))


@pytest.mark.parametrize("loss", TEXTBOOK_LOSSES)
def test_formulas_have_the_values_that_are_shown(loss: str) -> None:
    train(loss)
    for row in range(1, 7):
        found = [(evaluated(step), step) for step in steps_of(row).values()]
        assert sum(value is not None for value, _ in found) >= 6
        for value, step in found:
            assert value is None or value == pytest.approx(step.value, rel=1e-9, abs=1e-12), step


@pytest.mark.parametrize("loss", TEXTBOOK_LOSSES)
def test_values_are_those_of_the_saved_network(loss: str) -> None:
    train(loss)
    functions: dict[str, Any] = {
        "mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss, "bce": F.binary_cross_entropy_with_logits,
        "cross_entropy": F.cross_entropy,
    }  # fmt: skip
    for row in (1, 17):
        steps = steps_of(row)
        assert all(step.agrees for step in steps.values())
        model, config = load_run("run")
        model.double()
        values, options = config["standardisation"], config["options"]
        dataset = gpunet.data.load("things.csv", options["target"], "auto", options["ignore"])
        x = (dataset.features[row - 1 : row] - values["mean"]) / values["scale"]
        y: Any = dataset.targets[row - 1 : row]
        if loss == "bce":
            y = y.astype(float).reshape(1, 1)
        elif loss != "cross_entropy":
            y = ((y - values["target_mean"]) / values["target_scale"]).reshape(1, 1)
        cost = functions[loss](model(gpunet.tensor(x.astype(numpy.float32).astype(float))), gpunet.tensor(y))
        cost.backward()
        assert steps["C"].value == pytest.approx(cost.item(), rel=1e-6)
        linear = [module for module in model if isinstance(module, nn.Linear)]
        weights = [name for name in steps if name.startswith("∂C/∂w")]
        assert len(weights) == len(linear)
        for name in weights:
            layer, _, places = name.removeprefix("∂C/∂w").partition("[")
            k, *j = (int(place) - 1 for place in places.rstrip("]").split(","))
            gradient = linear[int(layer) - 1].weight.grad
            k, at = (k, j[0]) if j else (0, k)
            assert steps[name].value == pytest.approx(gradient[k, at].item(), rel=1e-5)


def test_sums_begin_with_the_term_of_the_path() -> None:
    train("mse")
    steps = steps_of(2)
    [product] = [step for name, step in steps.items() if name.startswith("share in ")]
    links = [name for name, _ in product.operands]
    sums = [step for step in steps.values() if step.template.count("·") > 1 and not step.name.startswith("share in ")]
    assert len(sums) == 4  # z1, z2, ∂C/∂a2 and ∂C/∂a1; the last layer has the five terms of z3
    for step in sums:
        first = {name for name, _ in step.operands[:2]}
        assert first & {*links, *(f"w1[{name.partition('[')[2]}" for name in links)} or step.name.startswith("z1"), step


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    train("cross_entropy")
    capsys.readouterr()
    assert main(["explain", "--model", "run", "--row", "3", "--plain"]) == 0
    text = capsys.readouterr().out
    assert "Row 3 of things" in text and "in a network of 2-6-5-2" in text and text.isascii()
    assert "first = " in text and "numbers agree with the engine" in text and "30 paths lead from w1[" not in text
    assert "10 paths lead from" in text and "This path alone" in text
    predicted = predict("run", "things.csv").values[2]
    assert f"(the network says {predicted})" in text
    held_out = sum("held out from training" in derive_model("run", row)[0].heading for row in range(1, 61))
    assert held_out == json.loads(Path("run/config.json").read_text())["rows"]["test"]


def test_a_network_without_hidden_layers() -> None:
    train("mse", "--hidden", "")
    steps = steps_of(5)
    assert steps["share in ∂C/∂w1[1]" if "share in ∂C/∂w1[1]" in steps else "share in ∂C/∂w1[2]"].agrees and "∂C/∂z1" in steps


def test_invalid_input() -> None:
    train("mse")
    with pytest.raises(ArgumentError, match="--row 61: things.csv has 60 rows; expected 1 to 60"):
        explain(Options(model="run", row=61))
    with pytest.raises(ArgumentError, match="--row 0: "):
        explain(Options(model="run", row=0))
    with pytest.raises(ArgumentError, match="--row and --data need --model"):
        explain(Options(row=1))
    with pytest.raises(ArgumentError, match="--layers describes a net, but --model run has one already"):
        explain(Options(model="run", layers="2,1"))
    with pytest.raises(CheckpointError, match="nowhere is not a run folder"):
        explain(Options(model="nowhere"))
    text = Path("things.csv").read_text().splitlines()
    Path("things.csv").write_text("\n".join([*text[:-1], "9,9,high,9"]) + "\n")
    with pytest.raises(ArgumentError, match="things.csv is not the data of this run any more; pass the old data by --data"):
        explain(Options(model="run"))
    Path("old.csv").write_text("\n".join(text) + "\n")
    assert explain(Options(model="run", data="old.csv")) == 0
