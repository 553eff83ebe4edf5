"""``gpunet train --folds``: each row is held out once, runs resume, and the figures are those of the folds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from gpunet.cli.main import main
from gpunet.data import folds, load, split
from gpunet.errors import ArgumentError, DataError
from gpunet.launch.random import Generator
from gpunet.tools import training_run
from tests.tools.train_command import error_message, in_temporary_folder, train  # noqa: F401  a fixture among them

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
def test_folds_hold_each_row_out_once(name: str) -> None:
    data = load(name)
    first, again, other = (folds(data, 5, Generator(seed)) for seed in (3, 3, 4))
    for part, same in zip(first, again):
        numpy.testing.assert_array_equal(part.test.features, same.test.features)
        assert len(part.train) + len(part.test) == len(data)
        if data.task == "classification":
            assert abs(part.test.targets.mean() - data.targets.mean()) < 0.01
    assert not numpy.array_equal(first[0].test.features, other[0].test.features)
    held_out = numpy.concatenate([part.test.features for part in first])
    numpy.testing.assert_array_equal(numpy.sort(held_out, axis=0), numpy.sort(data.features, axis=0))


def test_a_run_of_folds(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("breast-cancer", "--folds", 3, "--epochs", 2, "--hidden", "8")
    assert train(*options, "--out", "run") == 0
    last = capsys.readouterr().out.splitlines()[-3:]
    assert {path.name for path in Path("run").iterdir()} == {".lock", "folds.json", "fold-1", "fold-2", "fold-3"}
    found = json.loads(Path("run/folds.json").read_text())["figures"]
    rows = [[json.loads(line) for line in Path(f"run/fold-{n}/metrics.jsonl").read_text().splitlines()] for n in (1, 2, 3)]
    best = [min(row, key=lambda r: r["val_loss"])["val_accuracy"] for row in rows]
    assert found["val_accuracy"] == best and len(set(best)) > 1
    assert last[1].startswith(f"held-out accuracy: {numpy.mean(best):.4f} ± {numpy.std(best, ddof=1):.4f} over the folds (")
    assert train(*options, "--fold", 2, "--out", "alone") == 0
    assert Path("alone/model.safetensors").read_bytes() == Path("run/fold-2/model.safetensors").read_bytes()
    capsys.readouterr()
    assert "run contains the run folders of folds; expected one of them, such as run/fold-1" in error_message(
        capsys, "predict", "run", "x.csv"
    )


def test_folds_resume_to_the_same_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("diabetes", "--folds", 3, "--epochs", 2, "--hidden", "4")
    assert train(*options, "--out", "whole") == 0
    run = training_run.run
    with monkeypatch.context() as interrupted:
        interrupted.setattr(training_run, "run", lambda options: 130 if options.fold == 2 else run(options))
        assert train(*options, "--out", "part") == 130
    assert "continue all folds with: gpunet train --resume part" in capsys.readouterr().out
    assert "figures" not in json.loads(Path("part/folds.json").read_text())
    assert main(["train", "--resume", "part"]) == 0
    assert json.loads(Path("part/folds.json").read_text())["figures"] == json.loads(Path("whole/folds.json").read_text())["figures"]


@pytest.mark.filterwarnings("ignore:R2Score. less than two rows")
def test_figures_that_are_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    """R² of a single row."""
    Path("six.csv").write_text("a,y\n" + "".join(f"{i},{i + 0.5}\n" for i in (3, 1, 4, 2, 6, 5)))
    assert train("six.csv", "--folds", 6, "--epochs", 1, "--hidden", "2", "--out", "run") == 0
    assert "held-out R²: nan ± nan over the folds (nan, nan, nan, nan, nan, nan)" in capsys.readouterr().out
    assert json.loads(Path("run/folds.json").read_text())["figures"]["val_r2"] == [None] * 6


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--folds 1; expected 2 or more" in error_message(capsys, "train", "--folds", 1)
    assert "--fold 4; expected 1 to 3" in error_message(capsys, "train", "--folds", 3, "--fold", 4)
    assert "--fold needs --folds" in error_message(capsys, "train", "--fold", 1)
    assert "--test-size 0.3 with --folds 3; expected one" in error_message(capsys, "train", "--folds", 3, "--test-size", 0.3)
    assert "'emulated'" in error_message(capsys, "train", "--folds", 3, "--device", "nothing")
    Path("few.csv").write_text("a,y\n" + "".join(f"{i},{'uv'[i % 2]}\n" for i in range(6)))
    assert "few: 3 rows of a class are too few for 4 folds" in error_message(capsys, "train", "few.csv", "--folds", 4)
    with pytest.raises(ArgumentError, match="1 folds; expected 2 or more"):
        folds(load("few.csv"), 1)
    numpy.savez("own.npz", x_train=numpy.ones((4, 2)), y_train=[0, 1, 0, 1], x_test=numpy.ones((4, 2)), y_test=[0, 1, 0, 1])
    assert len(split(load("own.npz")).test) == 4
    with pytest.raises(DataError, match="own: the file has its own held-out rows"):
        folds(load("own.npz"), 2)
