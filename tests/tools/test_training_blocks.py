"""``gpunet train FOLDER``: statistics of rows in blocks, tasks, runs and resumed runs, refused folders and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import data
from gpunet.cli.main import main
from gpunet.data import DataLoader
from gpunet.errors import DataError
from gpunet.tools import training_blocks
from gpunet.tools.training_options import Options


def rows(count: int = 300, classes: int = 3) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Sorted by class, as shards often are."""
    generator = numpy.random.default_rng(0)
    labels = numpy.sort(generator.integers(0, classes, count)) * 2 + 5
    x = generator.normal(size=(count, 2, 2)) + labels[:, None, None]
    x[:, 0, 1] = 7.0
    return x, labels


def write(folder: Path, x: numpy.ndarray, y: numpy.ndarray, parts: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for number, (some, targets) in enumerate(zip(numpy.array_split(x, parts), numpy.array_split(y, parts))):
        numpy.save(folder / f"x-{number}.npy", some)
        numpy.save(folder / f"y-{number}.npy", targets)
    return folder


def load(folder: Path, **options: Any) -> training_blocks.BlockRows:
    return training_blocks.load(Options(data=str(folder), **options))


def test_statistics_and_targets_are_those_of_the_rows_in_memory(tmp_path: Path) -> None:
    x, y = rows()
    found = load(write(tmp_path, x, y))
    [(features, targets)] = DataLoader(found.train, len(found.train))
    in_memory = data.standardise(
        data.TabularData("", "classification", features.numpy().reshape(-1, 4), targets.numpy(), (), ("5", "7", "9"))
    )
    numpy.testing.assert_allclose(found.standardisation.mean, in_memory.mean, rtol=1e-12)
    numpy.testing.assert_allclose(found.standardisation.scale, in_memory.scale, rtol=1e-12)
    assert found.standardisation.scale[1] == 1.0  # of a constant feature
    assert found.description.class_names == ("5", "7", "9") and len(found.test) == 60
    converted = [DataLoader(part, 1000) for part in found.data_sets("cross_entropy")]
    [[z, labels]] = converted[0]
    numpy.testing.assert_allclose(z.numpy(), in_memory.features(features.numpy().reshape(-1, 4)), rtol=1e-6)
    assert (labels * 2 + 5 == targets).all() and z.dtype == gpunet.float32
    [[_, as_floats]] = DataLoader(found.data_sets("binary_cross_entropy")[1], 1000)
    assert as_floats.dtype == gpunet.float32 and as_floats.shape == (60, 1)


@pytest.mark.parametrize(
    "targets, task, expected",
    [
        (numpy.arange(300) % 20, "auto", "classification"), (numpy.arange(300) % 21, "auto", "regression"),
        (numpy.arange(300) % 21, "classification", "classification"), (numpy.arange(300) % 2 == 0, "auto", "classification"),
        (numpy.arange(300) / 2, "auto", "regression"), (numpy.arange(300) % 3, "regression", "regression"),
        (numpy.arange(300.0)[:, None] % 4, "auto", "classification"),
    ],
)  # fmt: skip
def test_tasks(tmp_path: Path, targets: numpy.ndarray, task: str, expected: str) -> None:
    found = load(write(tmp_path, rows()[0], targets), task=task)
    assert found.description.task == expected
    if expected == "regression":
        [[_, y]] = DataLoader(found.data_sets("mse")[0], 1000)
        assert y.shape[1:] == (1,) and abs(y.mean().item()) < 1e-5 and abs(y.std(correction=0).item() - 1.0) < 1e-5


def run(*arguments: str) -> int:
    return main(["train", *arguments])


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_and_a_resumed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "blobs", *rows())
    options = [str(folder), "--hidden", "8", "--epochs", "3", "--dropout", "0", "--lr", "0.02"]
    assert run(*options, "--out", str(tmp_path / "whole")) == 0
    printed = capsys.readouterr().out
    assert "data: blobs, 240 training rows, 60 held out, 4 features, 3 classes" in printed and "read in 3 blocks" in printed
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_accuracy"] > 0.8 and lines[-1]["train_loss"] < lines[0]["train_loss"]

    from gpunet.train.trainer import Trainer

    count_step = Trainer._count_step

    def interrupted(self: Any) -> bool:
        return count_step(self) or self.step == 11

    monkeypatch.setattr(Trainer, "_count_step", interrupted)
    run(*options, "--out", str(tmp_path / "stopped"))
    monkeypatch.undo()
    assert run("--resume", str(tmp_path / "stopped")) == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    numpy.save(folder / "x-1.npy", numpy.load(folder / "x-1.npy") + 1e-6)
    assert run("--resume", str(tmp_path / "stopped")) == 2
    assert "have changed since the run began" in capsys.readouterr().err


def test_a_folder_of_parquet_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    x, y = rows()
    table = pyarrow.table({"id": [str(i) for i in range(300)], "y": y, "a": x[:, 0, 0], "b": x[:, 1, 0]})
    parquet.write_table(table, tmp_path / "0.parquet", row_group_size=50)
    arguments = ["--hidden", "", "--epochs", "1", "--target", "y", "--ignore", "id", "--out", str(tmp_path / "run")]
    (tmp_path / "rows").mkdir()
    (tmp_path / "0.parquet").rename(tmp_path / "rows" / "0.parquet")
    assert run(str(tmp_path / "rows"), *arguments) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["features"] == ["a", "b"] and config["target"] == "y" and config["rows"] == {"train": 240, "test": 60}
    found = gpunet.train.predict(tmp_path / "run", tmp_path / "rows" / "0.parquet")
    assert len(found.values) == 300 and set(found.values) <= {"5", "7", "9"}
    for options, match in (({"ignore": ("z",)}, "no column 'z'"), ({"target": "z"}, "no column 'z'"), ({}, "'id'.*string")):
        with pytest.raises(DataError, match=match):
            load(tmp_path / "rows", **options)


def test_refused_folders(tmp_path: Path) -> None:
    x, y = rows()
    for name, arrays, options, match in (
        ("alone", {"x": x}, {}, r"has x-\*\.npy; expected features such as x-000\.npy and targets"),
        ("target", {"x": x, "y": y}, {"target": "z"}, "or --target NAME"),
        ("ignored", {"x": x, "y": y}, {"ignore": ("x",)}, "has no columns to ignore"),
        ("infinite", {"x": numpy.where(x > 11, numpy.inf, x), "y": y}, {}, "rows with NaN or infinity"),
        ("one", {"x": x, "y": 0 * y}, {}, "only one class"),
        ("wide", {"x": x, "y": numpy.stack([y, y], 1)}, {}, "expected numbers"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for array, values in arrays.items():
            numpy.save(folder / f"{array}-0.npy", values)
        with pytest.raises(DataError, match=match):
            load(folder, **options)


@pytest.mark.parametrize("option", [["--folds", "3"], ["--report"]])
def test_options_that_need_all_rows(tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(write(tmp_path, *rows())), *option) == 2
    assert "whose rows are not all in memory" in capsys.readouterr().err


def test_batches_to_evaluate_on_are_small() -> None:
    empty = numpy.empty((0, 10**6), numpy.float32)
    description = data.TabularData("", "regression", empty, empty[:, 0], ())
    wide = training_blocks.BlockRows(None, None, description, None, None, "")  # type: ignore[arg-type]
    assert wide.evaluation_rows(8192) == 4
