"""Loggers, progress, the plots, and the search for a learning rate."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.data import DataLoader, TensorDataset
from gpunet.errors import ArgumentError, CheckpointError, DataError
from gpunet.train import CSVLogger, JSONLinesLogger, LearningRates, TensorBoardLogger, Trainer

X = gpunet.tensor(numpy.random.default_rng(0).standard_normal((90, 4)), dtype=gpunet.float32)
Y = (X.sum(1) > 0).long()


def trainer(**options: Any) -> Trainer:
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, **{"progress": False, **options})


def loader() -> DataLoader:
    return DataLoader(TensorDataset(X, Y), 15, shuffle=True)


def test_files_have_a_line_for_each_epoch_also_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    for epochs in (2, 5):
        loggers = [JSONLinesLogger(tmp_path / "a.jsonl"), CSVLogger(tmp_path / "a.csv")]
        t = trainer(callbacks=loggers, folder=tmp_path / "run", resume=True)
        history = t.fit(loader(), loader(), epochs=epochs)
        lines = (tmp_path / "a.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == history.rows and len(lines) == epochs
        with (tmp_path / "a.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [{name: float(value) for name, value in row.items()} for row in rows] == history.rows


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write the figures to .*none/a.csv: No such file"):
        trainer(callbacks=[CSVLogger(tmp_path / "none" / "a.csv")]).fit(loader(), epochs=1)


def test_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = trainer(callbacks=[TensorBoardLogger(tmp_path)]).fit(loader(), loader(), epochs=2)
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert {"train/loss", "val/loss", "lr"} <= set(found.Tags()["scalars"])
    values = [(event.step, event.value) for event in found.Scalars("val/loss")]
    assert values == [(row["step"], pytest.approx(row["val_loss"])) for row in history]


def test_history(tmp_path: Path) -> None:
    history = trainer().fit(loader(), loader(), epochs=3)
    assert history["epoch"] == [1, 2, 3] and len(history) == 3 and history.best in history.rows
    with pytest.raises(ArgumentError, match=r"history\['val_los'\]; expected one of epoch, train_loss, val_loss"):
        history["val_los"]
    pytest.importorskip("matplotlib")
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in figure.axes] == ["loss"]


def test_progress_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    trainer(progress=True).fit(loader(), loader(), epochs=2)
    number = r"\d\.\d{4}"
    line = rf"epoch (\d)/2  train: loss {number}  held-out: loss {number}  [\d,]+ rows/s(, \d+ s left)?\n"
    assert re.fullmatch(f"({line}){{2}}", out.getvalue())


def test_progress_without_a_known_length(monkeypatch: pytest.MonkeyPatch) -> None:
    class Batches:
        def __iter__(self) -> Any:
            return iter(loader())

    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    trainer(progress=True).fit(Batches(), steps=8)
    assert [line[:8] for line in out.getvalue().splitlines()] == ["epoch 1 ", "epoch 2 "]


# ---- the search for a learning rate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "precision": "float16", "clip": 1.0}])
def test_the_search_leaves_everything_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    results = []
    for searches in (False, True):
        t = trainer(**options)
        train = loader()
        t.fit(train, epochs=1)
        if searches:
            found = t.find_learning_rate(train, steps=30)
            assert 1e-4 < found.suggestion < 10.0 and len(found.rates) == len(found.losses) <= 30
        t.fit(train, epochs=3)
        state = [value.numpy().tobytes() for value in t.model.state_dict().values()]
        results.append((state, t.history["train_loss"], repr(t.optimizer.state_dict()), gpunet.rand(3).tolist()))
    assert results[0] == results[1]
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").exists()


def test_the_search_leaves_everything_as_it_was_after_an_error() -> None:
    t = trainer()
    before = [value.numpy().tobytes() for value in t.model.state_dict().values()]
    with pytest.raises(DataError, match="a batch is a tuple of 1"):
        t.find_learning_rate([(X, Y), (X,)])
    assert [value.numpy().tobytes() for value in t.model.state_dict().values()] == before
    assert t.optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(ArgumentError, match="the loss never fell between the rates 0.1 and 10"):
        LearningRates([0.1, 1.0, 10.0], [1.0, math.nan, 2.0])
    with pytest.raises(ArgumentError, match=r"low=1, high=0\.1, steps=5; expected 0 < low < high"):
        t.find_learning_rate(loader(), 1, 0.1, 5)
