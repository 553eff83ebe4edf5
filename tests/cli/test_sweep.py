"""``gpunet sweep``: options, files, and what is printed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from gpunet.cli.main import main
from gpunet.sweeps import SweepResult
from tests.tools.train_command import in_temporary_folder  # noqa: F401  a fixture among them

for _package in ("safetensors", "sklearn"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")

@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepResult, "plot", lambda *_: None)


GRID = ["--data", "breast-cancer", "--sampler", "grid", "--epochs", "2", "--capture", "numpy", "--device", "cpu"]


def table(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "trials.csv").open(encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def test_a_sweep_and_its_resumption(capsys: Any) -> None:
    assert main(["sweep", *GRID, "--lr", "1e-3", "1e-2", "--hidden", "4", "8", "--net-seed", "3", "--out", "found"]) == 0
    printed = capsys.readouterr().out
    rows = table("found")
    assert [(float(row["lr"]), row["hidden"], row["seed"]) for row in rows] == [
        (1e-3, "4", "3"), (1e-3, "8", "3"), (1e-2, "4", "3"), (1e-2, "8", "3"),
    ]  # fmt: skip
    best = min(rows, key=lambda row: float(row["loss"]))
    assert printed.startswith(f"trial {best['trial']}: loss {float(best['loss']):.4f}, accuracy {float(best['score']):.4f}")
    assert "4 trials in found" in printed
    Path("found/trials.csv").unlink()
    assert main(["sweep", "--resume", "found", "--jobs", "1"]) == 0
    assert capsys.readouterr().out == printed
    assert [row["loss"] for row in table("found")] == [row["loss"] for row in rows]


def test_a_folder_keeps_the_options_of_the_sweep_that_began() -> None:
    assert main(["sweep", *GRID, "--lr", "x", "--out", "found"]) == 2
    assert main(["sweep", *GRID, "--lr", "1e-3", "--out", "found"]) == 0
    assert main(["sweep", *GRID, "--lr", "1e-2", "--out", "found"]) == 2
    assert main(["sweep", "--resume", "found"]) == 0
    (Path("other")).mkdir()
    Path("other/notes.txt").write_text("")
    assert main(["sweep", *GRID, "--lr", "1e-3", "--out", "other"]) == 2
    assert [path.name for path in Path("other").iterdir()] == ["notes.txt"]


def test_options_of_a_file(capsys: Any) -> None:
    Path("sweep.toml").write_text(
        'data = "diabetes"\ntrials = 3\nepochs = 1\ncapture = "numpy"\ndevice = "cpu"\nout = "runs/a"\n'
        '[ranges]\nlr = "1e-3:1e-1:log"\nbatch-size = [16, 32]\n',
        encoding="utf-8",
    )
    assert main(["sweep", "--config", "sweep.toml", "--epochs", "2"]) == 0
    assert "R2" in capsys.readouterr().out
    rows = table("runs/a")
    assert len(rows) == 3
    assert {row["batch_size"] for row in rows} <= {"16", "32"}
    assert {row["epochs"] for row in rows} == {"2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no hyperparameter has a range; expected one or more, such as --lr"),
        (["--lr", "x"], "lr = 'x'; expected a number"),
        (["--lr", "1", "--sampler", "bayes"], "sampler='bayes'"),
        (["--lr", "1", "--jobs", "many"], "--jobs many; expected a number of processes, or mpi"),
        (["--lr", "1", "--jobs", "mpi"], "--jobs mpi without --out"),
        (["--resume", "nowhere"], "nowhere is no folder of gpunet sweep"),
        (["--resume", "nowhere", "--lr", "1"], "with --lr; a resumed sweep has the options that it began with"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: Any) -> None:
    assert main(["sweep", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranges = 3\n", "expected a table of hyperparameters"),
        ('trial = 3\nlr = "0.1"\n', "unknown option 'trial'"),
        ('trials = "3"\nlr = "0.1"\n', "trials = '3'; expected int"),
    ],
)
def test_wrong_files(text: str, message: str, capsys: Any) -> None:
    Path("sweep.toml").write_text(text, encoding="utf-8")
    assert main(["sweep", "--config", "sweep.toml"]) == 2
    assert message in capsys.readouterr().err
