"""Trainer: a second fit(), batches that count nothing, and arguments that do not fit the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.errors import ArgumentError, DataError
from gpunet.metrics import Accuracy
from gpunet.optim import lr_scheduler
from gpunet.train import Trainer

pytest.importorskip("safetensors")

X = gpunet.tensor(numpy.random.default_rng(0).standard_normal((32, 4)))
Y = gpunet.tensor(numpy.random.default_rng(1).integers(0, 3, 32))
IGNORED = gpunet.full((8,), -100)


def batches() -> list[Any]:
    return list(zip(X.split(8), Y.split(8)))


def network() -> nn.Sequential:
    gpunet.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3)).double()


def trainer(loss: Any = None, model: Any = None, **options: Any) -> Trainer:
    model = network() if model is None else model
    optimizer = options.pop("optimizer", None) or optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, **{"progress": False, **options})


def accuracy(**options: Any) -> Accuracy:
    return Accuracy("multiclass", num_classes=3, **options)


# ---- batches that count nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy])
@pytest.mark.parametrize("empty", [(X[:8], IGNORED), (X[:0], Y[:0])], ids=["ignored", "no rows"])
def test_a_batch_without_labels_adds_nothing(empty: Any, loss: Any, accumulate: int, capture: bool) -> None:
    model = network()
    expected = nn.functional.cross_entropy(model(X[:8]), Y[:8]).item()
    t = trainer(loss, model, optimizer=optim.SGD(model.parameters(), lr=1e-300), accumulate=accumulate, capture=capture)
    row = t.fit([(X[:8], Y[:8]), empty], [(X[:8], Y[:8]), empty], epochs=1).rows[0]
    assert row["train_loss"] == pytest.approx(expected, rel=1e-12)
    assert row["val_loss"] == pytest.approx(expected, rel=1e-12)


def test_a_mean_over_no_rows_adds_nothing() -> None:
    t = trainer(nn.MSELoss(), accumulate=2)
    full = (X, gpunet.zeros(32, 3).double())
    row = t.fit([full, (full[0][:0], full[1][:0])], epochs=1).rows[0]
    assert math.isfinite(row["train_loss"]) and all(p.isfinite().all().item() for p in t.model.parameters())


def test_an_epoch_of_ignored_labels_is_no_divergence() -> None:
    with pytest.raises(DataError, match="no target of epoch 1 counts in the loss"):
        trainer().fit([(X[:8], IGNORED)], epochs=1)


# ---- a second fit() -------------------------------------------------------------------------------------------------


def test_other_training_data_begin_with_their_first_batch() -> None:
    t = trainer()
    t.fit(batches(), steps=3)
    assert t.num_rows == 24
    t.fit([(X, Y)], epochs=3)
    assert t.num_rows == 24 + 2 * 32 and t.epoch == 3


def test_the_same_training_data_go_on_within_the_epoch() -> None:
    train = batches()
    t = trainer()
    t.fit(train, steps=3)
    t.fit(train, steps=4)
    whole = trainer()
    whole.fit(train, epochs=1)
    assert (t.model[0].weight == whole.model[0].weight).all()


def test_patience_begins_anew() -> None:
    model = network()
    t = trainer(None, model, optimizer=optim.SGD(model.parameters(), lr=1e-300), patience=2)
    assert t.fit(batches(), batches(), epochs=20).ending == "early"
    assert t.epoch == 3
    t.fit(batches(), batches(), epochs=20)
    assert t.epoch == 5


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("name", ["cosine", "one cycle", "given one cycle"])
def test_a_schedule_of_another_length(name: str, resumes: bool, tmp_path: Path) -> None:
    def make() -> Trainer:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        one_cycle = lambda o, length: lr_scheduler.OneCycleLR(o, 0.1, length)  # noqa: E731
        schedules = {
            "cosine": lambda o, length: lr_scheduler.CosineAnnealingLR(o, length), "one cycle": one_cycle,
            "given one cycle": one_cycle(optimizer, 3),
        }  # fmt: skip
        return trainer(None, model, optimizer=optimizer, schedule=schedules[name], schedule_per="epoch")

    t = make()
    t.fit(batches(), epochs=3)
    t.save(tmp_path / "a.safetensors")
    if resumes:
        t = make() if name != "given one cycle" else t
        t.load(tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"made for 3 steps|for 3 epochs, but the training has 6"):
        t.fit(batches(), epochs=6)
    assert t.step == 12


# ---- which epoch is best --------------------------------------------------------------------------------------------


def test_a_metric_needs_a_mode() -> None:
    with pytest.raises(ArgumentError, match="monitor='val_acc' without mode; pass mode='min'.*'max'"):
        trainer(metrics={"acc": accuracy()}, monitor="val_acc").fit(batches(), batches(), epochs=1)
    trainer(metrics={"acc": accuracy()}, monitor="val_acc", mode="max").fit(batches(), batches(), epochs=1)
    trainer(monitor="train_loss").fit(batches(), batches(), epochs=1)


def test_a_plateau_of_the_other_mode() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    t = trainer(
        None, model, optimizer=optimizer, schedule=schedule, schedule_per="epoch", metrics={"acc": accuracy()},
        monitor="val_acc", mode="max",
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="ReduceLROnPlateau has mode='min'.*mode='max'"):
        t.fit(batches(), batches(), epochs=2)
