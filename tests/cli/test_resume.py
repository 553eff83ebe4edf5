"""``gpunet train --resume`` and ``--config``: killed runs, and messages for folders and files that cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpunet.train.lock import FolderLock
from tests.cli import kills
from tests.tools.train_command import error_message, in_temporary_folder, train  # noqa: F401  a fixture among them

for _package in ("safetensors", "sklearn"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_runs_resume_to_the_same_bits() -> None:
    assert kills.check(6, seed=1) > 0


@needs_fork
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_many_killed_runs_resume_to_the_same_bits(seed: int) -> None:
    """Where other work slows down the run that is timed first, later ones end before many of the kills."""
    assert kills.check(30, seed) > 3


def test_a_finished_run_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--epochs", 2, "--out", "run") == 0
    before = Path("run/model.safetensors").read_bytes(), Path("run/metrics.jsonl").read_text()
    capsys.readouterr()
    from gpunet.cli.main import main

    assert main(["train", "--resume", "run"]) == 0
    assert (Path("run/model.safetensors").read_bytes(), Path("run/metrics.jsonl").read_text()) == before
    assert "after 2 epochs" in capsys.readouterr().out


def test_folders_that_cannot_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere is not a run folder: cannot read config.json" in error_message(capsys, "train", "--resume", "nowhere")
    assert train("--epochs", 1, "--out", "run") == 0
    capsys.readouterr()
    assert "--resume run with --lr; a resumed run has the options of its config.json" in error_message(
        capsys, "train", "--resume", "run", "--lr", "1"
    )
    with FolderLock(Path("run")):
        message = error_message(capsys, "train", "--resume", "run")
    assert f"the run folder run is in use by process {os.getpid()}" in message
    whole = Path("run/checkpoint.safetensors").read_bytes()
    Path("run/checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "checkpoint.safetensors is truncated" in error_message(capsys, "train", "--resume", "run")
    config = json.loads(Path("run/config.json").read_text())
    for broken, expected in (
        ({**config, "options": {"hiden": "3"}}, "unknown option 'hiden'"),
        ({**config, "data": "0"}, "the data digits have changed since the run began"),
        ({}, "was not written by this version of gpunet train"),
    ):
        Path("run/config.json").write_text(json.dumps(broken))
        assert expected in error_message(capsys, "train", "--resume", "run")
    Path("run/config.json").write_text("[" * 100_000)
    assert "is damaged" in error_message(capsys, "train", "--resume", "run")


def test_options_from_a_file() -> None:
    Path("run.toml").write_text('epochs = 1\nbatch-size = 64\nhidden = "8"\nlr = 1\noptimizer = "sgd"\n')
    assert train("--config", "run.toml", "--out", "run", "--lr", 0.01) == 0
    options = json.loads(Path("run/config.json").read_text())["options"]
    assert {name: options[name] for name in ("epochs", "batch_size", "hidden", "lr", "optimizer", "dropout")} == {
        "epochs": 1, "batch_size": 64, "hidden": "8", "lr": 0.01, "optimizer": "sgd", "dropout": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "--config run.toml: unknown option 'epoch'; expected one of data, target"),
        ('epochs = "3"', "--config run.toml: epochs = '3'; expected int"),
        ("epochs = true", "epochs = True; expected int"),
        ("ignore = [1]", "ignore = [1]; expected a list of strings"),
        ("epochs = = 3", "expected TOML, such as"),
        (None, "--config run.toml: No such file"),
        ("accumulate = 0", "--accumulate 0; expected 1 or more"),
        ("patience = 0", "--patience 0; expected 1 or more"),
        ("ema = 1.0", "--ema 1.0; expected a decay"),
        ('precision = "half"', "unknown precision 'half'; expected one of float32, bfloat16, float16"),
    ],
)
def test_files_with_options_that_cannot_be_used(text: str | None, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        Path("run.toml").write_text(text)
    assert message in error_message(capsys, "train", "--config", "run.toml")
