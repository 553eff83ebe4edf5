"""``gpunet train``: accuracy, files of the run folder, progress and interrupts."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.cli.main import main
from gpunet.data import DataLoader, TensorDataset, load, split
from gpunet.launch.random import Generator
from gpunet.metrics import Accuracy
from gpunet.train import evaluate, load_run
from gpunet.train import load as load_checkpoint
from tests.tools.train_command import error_message, in_temporary_folder, train  # noqa: F401  a fixture among them

for _package in ("safetensors", "sklearn", "matplotlib", "rich"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")

QUICK = ["--epochs", "2", "--device", "cpu"]
FILES = {".lock", "checkpoint.safetensors", "config.json", "curves.png", "metrics.jsonl", "model.safetensors"}


# ---- training -------------------------------------------------------------------------------------------------------


def test_default_run_learns_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """The default run must reach an accuracy of 0.97 on held-out digits."""
    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 30
    number = r"\d+\.\d{4}"
    figures = f"loss {number} accuracy {number}"
    pattern = rf"epoch +\d+/30  train: {figures}  held-out: {figures}  [\d,]+ rows/s(, \d+ (s|min) left)?"
    assert all(re.fullmatch(pattern, line) for line in epochs)
    found = re.search(r"held-out accuracy (\S+) after 30 epochs \(of epoch (\d+), which has the lowest held-out loss\)", lines[-2])
    accuracy, best = float(found[1]), int(found[2])
    assert accuracy >= 0.97
    folder = Path(lines[-1].removeprefix("run folder: "))
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d-digits", folder.as_posix())
    assert {p.name for p in folder.iterdir()} == FILES
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, 31))
    assert metrics[best - 1]["val_accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert metrics[best - 1]["val_loss"] == min(m["val_loss"] for m in metrics)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_loaded_run_has_the_same_accuracy() -> None:
    assert train("--out", "run", "--epochs", 3) == 0
    model, config = load_run("run")
    parts = split(load("digits"), 0.2, Generator((0 ^ int.from_bytes(b"split", "big")) % 2**64))
    mean, scale = (gpunet.tensor(config["standardisation"][k], dtype=gpunet.float32) for k in ("mean", "scale"))
    x = (gpunet.tensor(parts.test.features) - mean) / scale
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val_loss"])
    held_out = DataLoader(TensorDataset(x, gpunet.tensor(parts.test.targets)), 64)
    measured = evaluate(model, gpunet.nn.CrossEntropyLoss(), held_out, {"accuracy": Accuracy("multiclass", num_classes=10)})
    assert measured["accuracy"] == best["val_accuracy"] and measured["loss"] == pytest.approx(best["val_loss"])
    assert config["classes"] == [str(i) for i in range(10)]


def test_same_seed_gives_same_bits() -> None:
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("--out", out, "--epochs", 2, "--seed", seed) == 0
    a, b, c = (Path(name, "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_run_never_overwrites_another(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert main(["train", *QUICK, "--data", "breast-cancer"]) == 0
    names = sorted(p.name.partition("-breast")[2] for p in Path("runs").iterdir())
    assert names == ["-cancer", "-cancer-2", "-cancer-3"]
    assert train("--out", "mine", "--epochs", 1) == 0
    capsys.readouterr()
    assert "a run never overwrites another" in error_message(capsys, "train", *QUICK, "--out", "mine")


@pytest.mark.parametrize(
    "options", [[], ["--loss", "mae"], ["--loss", "huber"], ["--hidden", "", "--optimizer", "sgd"]], ids=str
)
def test_regression(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "diabetes", "--out", "run", *options) == 0
    assert "R²" in capsys.readouterr().out
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_r2"] > 0.3
    assert 35 < last["val_mae"] < 60  # in the unit of the target


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_two_classes(loss: str) -> None:
    assert train("--data", "breast-cancer", "--loss", loss, "--out", "run", "--epochs", 5) == 0
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] > 0.9


@pytest.mark.parametrize(
    "activation", ["relu", "leaky-relu", "sigmoid", "tanh", "gelu", "silu", "elu", "softplus", "identity"]
)
def test_every_activation_learns(activation: str) -> None:
    assert train("--activation", activation, "--epochs", 3, "--out", "run") == 0  # sigmoid needs three for most seeds
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_learns(optimizer: str) -> None:
    assert train("--optimizer", optimizer, "--epochs", 2, "--weight-decay", 0.001, "--schedule", "constant") == 0


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "constant"])
def test_every_schedule_learns(schedule: str) -> None:
    assert train("--schedule", schedule, "--epochs", 3, "--clip", 1.0, "--out", "run") == 0
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] > 0.8


def test_clipping_applies_to_each_step() -> None:
    """With a tiny norm, SGD must hardly learn anything."""
    for clip, learns in ((1e-9, False), (1e9, True)):
        assert train("--optimizer", "sgd", "--clip", clip, "--epochs", 2, "--out", f"run{clip}") == 0
        last = json.loads(Path(f"run{clip}/metrics.jsonl").read_text().splitlines()[-1])
        assert (last["val_accuracy"] > 0.5) == learns


def test_training_on_a_csv(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 7},{'yes' if i % 7 > 3 else 'no'},{i % 5}" for i in range(200)]
    Path("mine.csv").write_text("\n".join(["size,big,noise", *rows]))
    assert train("--data", "mine.csv", "--target", "big", "--hidden", "16", "--dropout", 0, "--epochs", 60) == 0
    out = capsys.readouterr().out
    assert "target: column 'big'" in out
    assert "classification into 2 classes: the target is text" in out
    assert "network: 2-16-2" in out
    assert "held-out accuracy 1.0000" in out


def test_weights_continue_an_earlier_run() -> None:
    assert train("--out", "first", "--epochs", 5) == 0
    assert train("--out", "second", "--epochs", 1, "--weights", "first/model.safetensors", "--lr", 1e-5) == 0
    first, second = (json.loads(Path(n, "metrics.jsonl").read_text().splitlines()[-1]) for n in ("first", "second"))
    assert second["train_loss"] == pytest.approx(first["train_loss"], rel=0.1)


def test_divergence_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--optimizer", "sgd", "--lr", 1e30, "--out", "run") == 2
    assert re.search(r"error: the training loss became (nan|inf) in epoch 1: .*below 1e\+30", capsys.readouterr().err)


# ---- progress and interrupts ----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_on_a_terminal_and_plain_lines_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    assert train("--epochs", 2) == 0
    assert "\x1b[" in out.getvalue() and "90/90" in out.getvalue()
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue())
    assert re.findall(r"epoch (\d)/2", text) == ["1", "2"]
    plain_out, plain_err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain_out)
    monkeypatch.setattr(sys, "stderr", plain_err)
    assert train("--epochs", 2) == 0
    assert plain_err.getvalue() == ""
    assert not set("\r\x1b") & set(plain_out.getvalue())


def run_gpunet(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(gpunet.__file__).parents[1]), "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "gpunet", *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent as on POSIX")
def test_interrupt_saves_a_checkpoint() -> None:
    process = run_gpunet("train", "--device", "cpu", "--epochs", "100000", "--out", "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Continue with: gpunet train --resume run" in out
    assert out.splitlines()[-1] == "run folder: run"
    assert "Traceback" not in err
    state = load_checkpoint("run/model.safetensors")
    assert state["0.weight"].shape == (128, 64)
    model, _ = load_run("run")
    assert model(gpunet.zeros(1, 64)).shape == (1, 10)
    assert {p.name for p in Path("run").iterdir()} == FILES
    for line in Path("run/metrics.jsonl").read_text().splitlines():
        json.loads(line)
