"""Trainer: a second fit(), batches that count nothing, and arguments that do not fit the training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.errors import ArgumentError, CheckpointError, DataError
from gpunet.metrics import Accuracy
from gpunet.optim import lr_scheduler
from gpunet.train import Callback, JSONLinesLogger, LearningRates, RunFolder, Trainer, evaluate, load
from gpunet.train.rate_finder import has_diverged

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


def test_the_model_is_written_if_no_epoch_was_best(tmp_path: Path) -> None:
    t = trainer(folder=tmp_path)
    assert t.fit(batches(), [(X[:8], IGNORED)], epochs=1).best_epoch is None
    assert (load(tmp_path / "model.safetensors")["0.weight"] == t.model[0].weight).all()


def test_fit_returns_the_averaged_model() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    history = gpunet.fit(model, nn.CrossEntropyLoss(), optimizer, batches(), batches(), epochs=2, ema=0.9, progress=False)
    assert history.averaged is not None
    found = evaluate(history.averaged, nn.CrossEntropyLoss(), batches())
    assert history.best is not None and found["loss"] == history.best["val_loss"]
    assert trainer().history.averaged is None


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_data_without_a_batch() -> None:
    with pytest.raises(ArgumentError, match="fit: the data 'val' have no batch"):
        trainer().fit(batches(), [], epochs=1)
    for function in (lambda: trainer().evaluate([]), lambda: evaluate(network(), nn.CrossEntropyLoss(), [])):
        with pytest.raises(ArgumentError, match="evaluate: the data to evaluate on have no batch"):
            function()


class Outputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Any) -> Any:
        return self.layer(x), x


class OfTuple:
    """A metric of the tuples that :class:`Outputs` returns."""

    def reset(self) -> None: ...

    def update(self, output: Any, target: Any) -> None:
        assert isinstance(output, tuple) and not output[0].requires_grad

    def compute(self) -> float:
        return 0.5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_metrics_of_several_outputs(accumulate: int) -> None:
    loss = lambda output, target: nn.functional.cross_entropy(output[0], target)  # noqa: E731
    history = trainer(loss, Outputs(), metrics={"half": OfTuple()}, accumulate=accumulate).fit(batches(), epochs=1)
    assert history["train_half"] == [0.5]


class Pair(NamedTuple):
    a: Any
    b: Any


def test_an_input_that_is_a_named_tuple() -> None:
    class Sum(Outputs):
        def forward(self, pair: Any) -> Any:
            return self.layer(pair.a + pair.b)

    assert len(trainer(None, Sum()).fit([(Pair(X, X), Y)], epochs=1)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"loss": accuracy()}}, "Trainer: a metric has the name 'loss'"),
        ({"metrics": [accuracy()]}, "Trainer: metrics is a list; expected a dict"),
        ({"metrics": accuracy()}, "Trainer: metrics is a Accuracy; expected a dict"),
        ({"metrics": {"a": Accuracy}}, "Trainer: the metric 'a' is .*expected an object with reset"),
        ({"optimizer": "sgd"}, "Trainer: optimizer='sgd'; expected an optimizer"),
        ({"loss": nn.CrossEntropyLoss}, r"Trainer: the loss is the class CrossEntropyLoss; .*CrossEntropyLoss\(\)"),
        ({"loss": nn.Linear(3, 1)}, r"Trainer: the loss Linear cannot be called as loss\(output, target\)"),
        ({"loss": lambda output, target: 0.5}, "fit: the loss returns a float, which has no gradient"),
        ({"loss": lambda output, target: (output**2).mean(1)}, r"fit: the loss returns the shape \(8,\); expected one number"),
        ({"clip": 0}, "Trainer: clip=0"),
        ({"patience": 0}, "Trainer: patience=0"),
        ({"optimizer": optim.SGD(network().parameters(), lr=0.1)}, "fit: the SGD has no parameter of the network"),
        ({"metrics": {"classes": accuracy(average="none")}}, "fit: the metric 'classes' computes .*expected one number"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind(options: dict[str, Any], message: str) -> None:
    steps: list[int] = []

    class Look(Callback):
        def on_step(self, trainer: Trainer) -> None:
            steps.append(trainer.step)

    with pytest.raises(ArgumentError, match=message):
        trainer(**options, callbacks=[Look()]).fit(batches(), epochs=1)
    assert not steps


def test_messages_name_the_function_that_was_called() -> None:
    model = network()
    with pytest.raises(ArgumentError, match="^fit: clip=0; expected"):
        gpunet.fit(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), batches(), epochs=1, clip=0)
    with pytest.raises(DataError, match="^evaluate: a batch is a Tensor"):
        evaluate(network(), nn.CrossEntropyLoss(), [X])
    with pytest.raises(ArgumentError, match="^evaluate: the loss has reduction='sum'"):
        evaluate(network(), nn.CrossEntropyLoss(reduction="sum"), batches())
    with pytest.raises(ArgumentError, match="^evaluate: a metric has the name 'loss'"):
        evaluate(network(), nn.CrossEntropyLoss(), batches(), {"loss": accuracy()})
    with pytest.raises(ArgumentError, match="^evaluate: the metric 'classes' computes"):
        evaluate(network(), nn.CrossEntropyLoss(), batches(), {"classes": accuracy(average="none")})


# ---- callbacks, folders, loggers ------------------------------------------------------------------------------------


def test_a_callback_may_return_a_boolean_of_numpy() -> None:
    class Stop(Callback):
        def on_step(self, trainer: Trainer) -> Any:
            return numpy.float64(trainer.step) >= 2

    t = trainer(callbacks=[Stop()])
    assert t.fit(batches(), epochs=3).ending == "stopped"
    assert t.step == 2


def test_a_run_folder_is_locked_by_fit(tmp_path: Path) -> None:
    class Second(Callback):
        def on_step(self, trainer_: Trainer) -> None:
            with pytest.raises(CheckpointError, match=r"is in use by process \d+"):
                trainer(folder=RunFolder(tmp_path), resume=True).fit(batches(), epochs=1)

    folder = RunFolder(tmp_path)
    trainer(folder=folder, callbacks=[Second()]).fit(batches(), epochs=1)
    assert not folder.is_held
    with folder:
        trainer(folder=folder, resume=True).fit(batches(), epochs=2)
        assert folder.is_held


def test_json_lines_of_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    trainer(callbacks=[JSONLinesLogger(path)]).fit(batches(), [(X[:8], IGNORED)], epochs=1)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["val_loss"] is None


# ---- the search for a learning rate ---------------------------------------------------------------------------------


def test_the_search_ends_without_a_batch() -> None:
    class Empty:
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    with pytest.raises(ArgumentError, match="find_learning_rate: the data 'train' are a generator"):
        trainer().find_learning_rate(batch for batch in batches())
    with pytest.raises(ArgumentError, match="find_learning_rate: the data 'train' have no batch"):
        trainer().find_learning_rate([])
    with pytest.raises(ArgumentError, match="find_learning_rate: the training data have no batch"):
        trainer().find_learning_rate(Empty())


def test_the_search_by_a_loss_below_zero() -> None:
    below = trainer(lambda output, target: nn.functional.cross_entropy(output, target) - 5.0)
    found = below.find_learning_rate(batches(), 1e-3, 1e3)
    assert 1e-2 < found.suggestion < 10.0
    assert has_diverged([-4.0, -4.5, 20.0, 200.0]) and not has_diverged([-4.0, -4.5, -4.2])
    assert LearningRates([0.1, 1.0, 10.0], [-4.0, -5.0, -3.0]).suggestion == 0.1


def test_the_search_trains_in_training_mode() -> None:
    t = trainer()
    t.model.eval()
    with pytest.warns(UserWarning, match="find_learning_rate: the network is in evaluation mode"):
        t.find_learning_rate(batches(), 1e-3, 1e3)
    assert t.model.training
