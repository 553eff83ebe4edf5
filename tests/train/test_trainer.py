"""Trainer: gradients and figures of any partition, the best weights, exact resume, and what is told before the first step."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.data import DataLoader, TensorDataset
from gpunet.errors import ArgumentError, CheckpointError, DataError, GpunetError, GraphBreakWarning, ShapeError
from gpunet.metrics import Accuracy
from gpunet.optim import lr_scheduler
from gpunet.train import Callback, Trainer, evaluate, load
from gpunet.train.figures import Figure

pytest.importorskip("safetensors")

X = gpunet.tensor(numpy.random.default_rng(0).standard_normal((101, 6)))
Y = gpunet.tensor(numpy.random.default_rng(1).integers(0, 3, 101))
ROWS = TensorDataset(X, Y)


def network(dropout: float = 0.0, dtype: Any = gpunet.float64) -> nn.Sequential:
    gpunet.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)).to(dtype)


def adam(model: nn.Module) -> optim.Optimizer:
    return optim.Adam(model.parameters(), lr=0.01)


def loader(size: int = 16, shuffle: bool = True) -> DataLoader:
    return DataLoader(ROWS, size, shuffle=shuffle)


def trainer(model: nn.Module | None = None, loss: Any = None, **options: Any) -> Trainer:
    model = network(0.3) if model is None else model
    optimizer = options.pop("optimizer", None) or adam(model)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, **{"progress": False, **options})


def accuracy() -> Accuracy:
    return Accuracy("multiclass", num_classes=3)


def bits(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


# ---- sums and counts ------------------------------------------------------------------------------------------------


WEIGHTS = gpunet.tensor([0.2, 1.0, 3.0], dtype=gpunet.float64)
LOSSES: dict[str, Callable[[], Any]] = {
    "mean of rows": nn.CrossEntropyLoss,
    "class weights": lambda: nn.CrossEntropyLoss(WEIGHTS),
    "ignored labels": lambda: nn.CrossEntropyLoss(ignore_index=1),
    "function": lambda: nn.functional.cross_entropy,
    "user's function": lambda: lambda output, target: (output.gather(1, target[:, None]) ** 2).mean(),
}


def partition(random: numpy.random.Generator, count: int) -> list[int]:
    """Sizes of batches, of which the sum is ``count``."""
    cuts = sorted(random.choice(range(1, count), random.integers(0, 8), replace=False).tolist())
    return [b - a for a, b in zip([0, *cuts], [*cuts, count])]


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_accumulation_is_the_gradient_of_the_whole_batch(name: str, capture: bool) -> None:
    random = numpy.random.default_rng(len(name))
    for _ in range(6):
        count = int(random.integers(9, 60))
        model, whole = network(), network()
        loss = LOSSES[name]()
        loss(whole(X[:count]), Y[:count]).backward()
        batches = list(zip(X[:count].split(sizes := partition(random, count)), Y[:count].split(sizes)))
        optimizer = optim.SGD(model.parameters(), lr=1e-300)
        t = trainer(model, loss, optimizer=optimizer, accumulate=len(sizes) + int(random.integers(0, 2)), capture=capture)
        history = t.fit(batches, steps=1)
        for mine, expected in zip(model.parameters(), whole.parameters()):
            numpy.testing.assert_allclose(mine.grad.numpy(), expected.grad.numpy(), rtol=1e-12, atol=1e-15)
        assert history.rows[0]["train_loss"] == pytest.approx(loss(whole(X[:count]), Y[:count]).item(), rel=1e-12)


def test_the_last_window_of_an_epoch_is_divided_by_its_own_count() -> None:
    """7 batches of 16, 16, ..., 5 samples in windows of 3: steps on 48, 48 and 5 samples."""
    gradients: list[Any] = []

    class Keep(Callback):
        def on_step(self, trainer: Trainer) -> None:
            gradients.append([p.grad.numpy().copy() for p in trainer.model.parameters()])

    model = network()
    t = trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e-300), accumulate=3, callbacks=[Keep()])
    t.fit(loader(shuffle=False), epochs=1)
    assert t.step == len(gradients) == 3
    for rows, found in zip((slice(0, 48), slice(48, 96), slice(96, 101)), gradients):
        model.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        for p, gradient in zip(model.parameters(), found):
            numpy.testing.assert_allclose(gradient, p.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_a_window_of_ignored_labels_alone_changes_nothing() -> None:
    model = network()
    before = bits(model)
    batches = [(X[:4], gpunet.full((4,), -100)), (X[4:6], gpunet.full((2,), -100))]
    trainer(model, optimizer=optim.SGD(model.parameters(), lr=1.0), accumulate=2, restore_best=False).fit(
        batches, {"train": loader()}, epochs=1
    )
    assert bits(model) == before


@pytest.mark.parametrize("size", [7, 64, 101])
def test_figures_do_not_depend_on_the_batch_size(size: int) -> None:
    model = network()
    found = evaluate(model, nn.CrossEntropyLoss(WEIGHTS), loader(size), {"accuracy": accuracy()})
    expected = nn.functional.cross_entropy(model(X), Y, WEIGHTS).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-13)
    assert found["accuracy"] == (model(X).argmax(1) == Y).double().mean().item()


def test_metrics_of_training_are_those_of_all_its_samples() -> None:
    model = network()
    t = trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e-300), metrics={"accuracy": accuracy()})
    row = t.fit(loader(), epochs=1).rows[0]
    assert row["train_accuracy"] == (model(X).argmax(1) == Y).double().mean().item()
    assert row["train_loss"] == pytest.approx(nn.functional.cross_entropy(model(X), Y).item(), rel=1e-12)


# ---- the same bits --------------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate": 3},
    "all": {
        "accumulate": 2, "clip": 0.5, "ema": 0.9, "schedule_per": "step",
        "schedule": lambda optimizer, length: lr_scheduler.OneCycleLR(optimizer, 0.02, length),
    },
    "float16": {"precision": "float16", "clip": 1.0, "ema": 0.9, "accumulate": 2},
    "bfloat16": {"precision": "bfloat16"},
    "plateau": {"schedule": lambda o, _: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5), "schedule_per": "epoch"},
    "metrics": {"metrics": {"accuracy": accuracy()}, "patience": 3},
}  # fmt: skip


def make(name: str, **more: Any) -> Trainer:
    halves = name in ("float16", "bfloat16")
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    model = network(0.3, gpunet.float32 if halves else gpunet.float64)
    gpunet.manual_seed(11)
    return trainer(model, **{**OPTIONS[name], **more})


@contextlib.contextmanager
def silent_casts() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: the data are float64")
        yield


@pytest.mark.parametrize("name", OPTIONS)
def test_captured_and_eager_steps_give_the_same_bits(name: str) -> None:
    results = []
    for capture in (False, True):
        t = make(name, capture=capture)
        with silent_casts():
            rows = t.fit(loader(), loader(40), epochs=3).rows
        results.append((bits(t.model), bits(t.averaged), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]))
    assert results[0] == results[1]


class StopAt(Callback):
    def __init__(self, batch_or_step: int) -> None:
        self.last = batch_or_step

    def on_step(self, trainer: Trainer) -> bool:
        return trainer.step >= self.last


@pytest.mark.parametrize("name", OPTIONS)
def test_resuming_anywhere_gives_the_bits_of_never_having_stopped(name: str, tmp_path: Path) -> None:
    def results(t: Trainer) -> Any:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in t.history]
        return bits(t.model), bits(t.averaged), rows, t.step, t.history.best_epoch

    with silent_casts():
        whole = make(name)
        whole.fit(loader(), loader(40), epochs=3)
        total = whole.step
        for last in (1, 2, 3, total // 2, total - 1):  # with accumulate=3 the epoch ends with step 3
            folder = tmp_path / f"{last}"
            first = make(name, folder=folder, callbacks=[StopAt(last)])
            assert first.fit(loader(), loader(40), epochs=3).ending == "stopped"
            gpunet.manual_seed(99)
            second = make(name, folder=folder, resume=True)
            numpy.random.seed(last)  # noqa: NPY002
            second.fit(loader(), loader(40), epochs=3)
            assert results(second) == results(whole)


def test_a_half_filled_window_is_saved(tmp_path: Path) -> None:
    def batches(stop: int | None, event: list[Trainer]) -> Any:
        class Batches:
            def __iter__(self) -> Iterator[Any]:
                for number, batch in enumerate(zip(X.split(16), Y.split(16))):
                    if number == stop:  # before batch 3 of a window that began with batch 2
                        event[0].save(tmp_path / "half.safetensors")
                    yield batch

            def __len__(self) -> int:
                return 7

        return Batches()

    whole = make("accumulate")
    event = [whole]
    whole.fit(batches(5, event), epochs=1)
    assert load(tmp_path / "half.safetensors")["stateful"]["training"]["num_added"] == 2
    again = make("accumulate")
    again.load(tmp_path / "half.safetensors")
    again.fit(batches(None, []), epochs=1)
    assert bits(again.model) == bits(whole.model)
    assert again.history["train_loss"] == whole.history["train_loss"]


def test_early_stopping_counts_on_after_a_resume(tmp_path: Path) -> None:
    def run(epochs: int, **options: Any) -> Trainer:
        model = network()
        t = trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e-300), patience=4, **options)
        t.fit(loader(), loader(40), epochs=epochs)
        return t

    assert run(20).epoch == 5
    run(3, folder=tmp_path)
    resumed = run(20, folder=tmp_path, resume=True)
    assert resumed.epoch == 5 and resumed.history.ending == "early"
    assert run(20, folder=tmp_path, resume=True).epoch == 5


# ---- the best weights -----------------------------------------------------------------------------------------------


class Values:
    """A metric that computes given values, one for each epoch, and keeps the weights of then."""

    def __init__(self, model: nn.Module, values: list[float]) -> None:
        self.model, self.values, self.weights = model, list(values), []  # type: ignore[var-annotated]

    def reset(self) -> None: ...

    def update(self, output: Any, target: Any) -> None: ...

    def compute(self) -> float:
        self.weights.append(bits(self.model))
        return self.values[len(self.weights) - 1]

    def __deepcopy__(self, memo: Any) -> Values:
        return Values(self.model, [0.0] * 99)


NAN = math.nan


@pytest.mark.parametrize(
    ("values", "mode", "patience", "ending", "best"),
    [
        ([3.0, 1.0, 2.0, 2.5], "min", None, "finished", 2),
        ([3.0, 1.0, 2.0, 2.5], "max", None, "finished", 1),
        ([NAN, NAN, 2.0, NAN], "min", None, "finished", 3),
        ([NAN, NAN, NAN, 1.0], "min", 3, "early", None),
        ([1.0, NAN, 2.0, 0.5], "min", 2, "early", 1),
    ],
)
def test_best_weights_are_restored(values: list[float], mode: str, patience: int | None, ending: str, best: int | None) -> None:
    model = network()
    metric = Values(model, values)
    t = trainer(model, metrics={"score": metric}, monitor="val_score", mode=mode, patience=patience)
    history = t.fit(loader(), loader(), epochs=len(values))
    assert (history.ending, history.best_epoch) == (ending, best)
    assert bits(model) == metric.weights[-1 if best is None else best - 1]


def test_best_weights_are_restored_after_an_error_and_ctrl_c() -> None:
    class Fail(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 23:
                raise RuntimeError("the disk of the callback is full")

    class Interrupt(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 23:
                signal.raise_signal(signal.SIGINT)

    for callback in (Fail(), Interrupt()):
        model = network()
        metric = Values(model, [2.0, 1.0, 3.0, 3.0])
        t = trainer(model, metrics={"score": metric}, monitor="val_score", mode="min", callbacks=[callback])
        if isinstance(callback, Fail):
            with pytest.raises(RuntimeError, match="disk of the callback"):
                t.fit(loader(), loader(), epochs=9)
        else:
            assert t.fit(loader(), loader(), epochs=9).ending == "interrupted"
        assert t.history.best_epoch == 2 and t.step == 23
        assert bits(model) == metric.weights[1]


def test_divergence_names_a_parameter() -> None:
    model = network()
    t = trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e200))
    with pytest.raises(GpunetError, match=r"became (nan|inf) in epoch 1: .*'0.weight' is not finite.*below 1e\+200"):
        t.fit(loader(), epochs=1)


def test_averaged_network_has_the_running_buffers() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    t = trainer(model, ema=0.9, restore_best=False)
    t.fit(loader(drop_last_size()), epochs=2)
    assert (t.averaged[1].running_mean == model[1].running_mean).all()
    assert not (t.averaged[0].weight == model[0].weight).all()


def drop_last_size() -> int:
    return 33


def test_modes_of_modules_are_restored() -> None:
    model = network(0.5)
    model[2].eval()
    seen = []

    class Look(Callback):
        def on_step(self, trainer: Trainer) -> None:
            seen.append([module.training for module in model.modules()])

    trainer(model, callbacks=[Look()]).fit(loader(), loader(), epochs=2)
    assert all(modes == [True, True, True, False, True] for modes in seen)


# ---- schedules ------------------------------------------------------------------------------------------------------


def test_schedules_count_optimizer_steps() -> None:
    model = network()
    optimizer = adam(model)
    schedule = lr_scheduler.LinearLR(optimizer, total_iters=9)
    trainer(model, optimizer=optimizer, schedule=schedule, schedule_per="step", accumulate=3).fit(loader(), epochs=3)
    assert schedule.last_epoch == 9


@pytest.mark.parametrize("capture", [False, True])
def test_a_skipped_step_moves_nothing(capture: bool) -> None:
    model = network(dtype=gpunet.float32)
    optimizer = adam(model)
    schedule = lr_scheduler.LinearLR(optimizer, total_iters=50)
    t = trainer(
        model, optimizer=optimizer, schedule=schedule, schedule_per="step", precision="float16", capture=capture, ema=0.5,
        restore_best=False,
    )  # fmt: skip
    t._scaler._init_scale = 2.0**26
    skipped = []

    class Look(Callback):
        def on_step(self, trainer: Trainer) -> None:
            skipped.append((trainer._scaler.stepped, schedule.last_epoch, bits(trainer.averaged), bits(model)))

    t.callbacks.append(Look())
    with silent_casts():
        t.fit(loader(), epochs=4)
    assert not skipped[0][0] and skipped[0][1] == 0 and skipped[-1][0]
    assert schedule.last_epoch == sum(taken for taken, *_ in skipped) < len(skipped)
    for (_, _, averaged, weights), (taken, _, next_averaged, next_weights) in itertools.pairwise(skipped):
        assert (next_weights != weights) == (next_averaged != averaged) == taken


def test_a_resumed_schedule_knows_the_steps_before(tmp_path: Path) -> None:
    """All steps behind the resume are skipped, but not all of the epoch: the schedule moves."""

    class Overflow(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 5:
                trainer._scaler._set_scale(2.0**100)

    def run(**options: Any) -> Trainer:
        model = network(dtype=gpunet.float32)
        t = trainer(
            model, precision="float16", schedule=lambda o, _: lr_scheduler.StepLR(o, 1), schedule_per="epoch",
            callbacks=[Overflow(), *options.pop("more", ())], **options,
        )  # fmt: skip
        with silent_casts():
            t.fit(loader(), epochs=2)
        return t

    whole = run()
    run(folder=tmp_path, more=[StopAt(5)])
    resumed = run(folder=tmp_path, resume=True, more=[Callback()])
    assert resumed.history["lr"] == whole.history["lr"] == [0.01, pytest.approx(0.001)]
    assert bits(resumed.model) == bits(whole.model)


@pytest.mark.parametrize(
    ("make_schedule", "per", "message"),
    [
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 21), "epoch", r"for 21 steps, but schedule_per='epoch' makes 3; pass total"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 3), "step", r"made for 3 steps, but schedule_per='step' makes 21.*'epoch'"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 21), "epoch", r"made for 21 steps.*or schedule_per='step'"),
        (lambda o: lr_scheduler.StepLR(o, 1), None, r"schedule_per=None; expected 'epoch' or 'step'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "step", r"pass schedule_per='epoch'"),
    ],
)
def test_schedules_that_do_not_fit(make_schedule: Any, per: str | None, message: str) -> None:
    model = network()
    optimizer = adam(model)
    t = trainer(model, optimizer=optimizer, schedule=make_schedule(optimizer), schedule_per=per)
    with pytest.raises(ArgumentError, match=message):
        t.fit(loader(), epochs=3)


# ---- before the first step ------------------------------------------------------------------------------------------


def test_softmax_before_cross_entropy() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)).double()
    with pytest.warns(UserWarning, match="returns probabilities.*remove the softmax"):
        trainer(model).fit(loader(), epochs=1)


def test_sigmoid_before_its_loss() -> None:
    model = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid()).double()
    with pytest.warns(UserWarning, match="ends in a sigmoid"):
        trainer(model, nn.BCEWithLogitsLoss()).fit([(X, (Y > 1).double()[:, None])], epochs=1)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.functional.l1_loss, lambda output, target: ((output - target) ** 2).mean()])
def test_columns_against_rows(loss: Any) -> None:
    model = nn.Linear(6, 1).double()
    before = bits(model)
    with pytest.raises(ShapeError, match=r"returns \(16, 1\), the targets are \(16,\).*reshape\(16, 1\), or output.squeeze\(1\)"):
        trainer(model, loss).fit(DataLoader(TensorDataset(X, X[:, 0]), 16), epochs=1)
    assert bits(model) == before


def test_a_last_batch_of_one_under_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    before = bits(model)
    with pytest.raises(ArgumentError, match=r"101 samples in batches of 20 leave a last batch of one.*drop_last=True"):
        trainer(model).fit(loader(20), epochs=1)
    assert bits(model) == before
    trainer(model).fit(DataLoader(ROWS, 20, drop_last=True), epochs=1)
    model[1].eval()
    trainer(model).fit(loader(20), epochs=1)


def test_evaluation_mode_left_on() -> None:
    model = network(0.5).eval()
    with pytest.warns(UserWarning, match="in evaluation mode"):
        trainer(model).fit(loader(), epochs=1)
    assert model.training and model[2].training


def test_data_of_another_dtype_are_cast_and_said_once() -> None:
    with pytest.warns(UserWarning, match="the data are float64, the network float32") as found:
        trainer(network(dtype=gpunet.float32)).fit(loader(), loader(), epochs=2)
    assert len([w for w in found if "the data are" in str(w.message)]) == 1


def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_so_once() -> None:
    def loss(output: Any, target: Any) -> Any:
        value = nn.functional.cross_entropy(output, target)
        return value if value.item() > -1.0 else value * 2.0

    t = trainer(network(), loss)
    with pytest.warns(GraphBreakWarning, match=r"runs eagerly, because of .*test_trainer.py") as found:
        t.fit(loader(), epochs=2)
    assert len(found) == 1 and t.step == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate=0; expected an integer of 1 or more"),
        ({"clip": "a"}, "clip='a'; expected a positive"), ({"ema": "x"}, "ema='x'; expected a number"),
        ({"ema": 1.0}, "ema=1.0; expected a number"), ({"count": 3}, "count=3; expected a function"),
        ({"callbacks": [print]}, "callbacks contains <built-in function print>; expected objects"),
        ({"clip": -1.0}, "clip=-1.0; expected a positive"),
        ({"precision": "half"}, "precision='half'; expected one of float32, bfloat16, float16"),
        ({"save_every": 5}, "save_every=5 without a folder"), ({"mode": "best"}, "mode='best'; expected 'min' or 'max'"),
        ({"patience": 0}, "patience=0; expected a number of epochs"), ({"loss": nn.MSELoss(reduction="sum")}, "reduction='sum'"),
        ({"monitor": "val_los"}, "monitor='val_los'; expected one of train_loss, val_loss"),
    ],
)  # fmt: skip
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        trainer(**options).fit(loader(), loader(), epochs=1)


def test_data_that_are_no_batches() -> None:
    with pytest.raises(DataError, match=r"a batch is a Tensor; expected \(inputs, target\)"):
        trainer().fit([X], epochs=1)
    with pytest.raises(ArgumentError, match="expected batches that can be iterated over in each epoch"):
        trainer().fit(iter(loader()), epochs=1)
    with pytest.raises(ArgumentError, match="epochs=None, steps=None; expected one of them"):
        trainer().fit(loader())


# ---- run folders ----------------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    t = trainer(folder=tmp_path)
    t.fit(loader(), epochs=1)
    with pytest.raises(ArgumentError, match="has a checkpoint of another run; pass resume=True"):
        trainer(folder=tmp_path).fit(loader(), epochs=1)

    class Second(Callback):
        def on_step(self, trainer_: Trainer) -> None:
            with pytest.raises(CheckpointError, match=r"is in use by process \d+"):
                trainer(folder=tmp_path, resume=True).fit(loader(), epochs=1)

    trainer(folder=tmp_path, resume=True, callbacks=[Second()]).fit(loader(), epochs=2)


def test_checkpoint_of_other_options_or_another_network(tmp_path: Path) -> None:
    trainer(folder=tmp_path).fit(loader(), epochs=1)
    with pytest.raises(CheckpointError, match="the checkpoint has the state of .*: pass the same options"):
        trainer(folder=tmp_path, resume=True, ema=0.9).fit(loader(), epochs=2)
    with pytest.raises(GpunetError, match="does not fit Linear"):
        trainer(nn.Linear(6, 4).double(), folder=tmp_path, resume=True).fit(loader(), epochs=2)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    class Full(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 10:
                monkeypatch.setattr(os, "fsync", fail)

    whole = trainer(network(0.3))
    whole.fit(loader(), epochs=3)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint .*: No space left on device"):
        trainer(folder=tmp_path, callbacks=[Full()]).fit(loader(), epochs=3)
    monkeypatch.undo()
    resumed = trainer(folder=tmp_path, resume=True, callbacks=[Callback()])
    resumed.fit(loader(), epochs=3)
    assert resumed.epoch == 3


def test_training_in_a_thread() -> None:
    """Without Ctrl-C, which only the main thread can handle."""
    found = []
    thread = threading.Thread(target=lambda: found.append(trainer(network()).fit(loader(), epochs=1).ending))
    thread.start()
    thread.join()
    assert found == ["finished"]


def test_each_device(device: str, tmp_path: Path) -> None:
    """Batches are moved there; a resumed run has the bits of one that was not stopped."""
    def run(epochs: int, **options: Any) -> Trainer:
        gpunet.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)).to(device)
        t = trainer(model, metrics={"accuracy": accuracy()}, accumulate=2, clip=1.0, ema=0.5, **options)
        with silent_casts():
            t.fit(DataLoader(TensorDataset(X[:20], Y[:20]), 6, shuffle=True), loader(50), epochs=epochs)
        return t

    whole = run(2)
    run(2, folder=tmp_path, callbacks=[StopAt(3)])
    resumed = run(2, folder=tmp_path, resume=True)
    assert [p.device.type for p in resumed.model.parameters()] == [gpunet.device(device).type] * 4
    assert [value.cpu().tolist() for value in resumed.averaged.state_dict().values()] == [
        value.cpu().tolist() for value in whole.averaged.state_dict().values()
    ]


def test_a_loss_with_parameters_is_trained_and_saved(tmp_path: Path) -> None:
    def run(epochs: int, **options: Any) -> Trainer:
        gpunet.manual_seed(3)
        model, loss = nn.Linear(6, 5).double(), nn.LinearCrossEntropyLoss(5, 3, dtype=gpunet.float64)
        optimizer = optim.Adam([*model.parameters(), *loss.parameters()])
        t = trainer(model, loss, optimizer=optimizer, **options)
        t.fit(loader(), epochs=epochs)
        return t

    run(1, folder=tmp_path)
    whole, resumed = run(2), run(2, folder=tmp_path, resume=True)
    assert bits(whole.loss.mean) == bits(resumed.loss.mean) and bits(whole.model) == bits(resumed.model)


def test_predictions_of_a_saved_model(tmp_path: Path) -> None:
    """The weights to use are those of the averages."""
    t = trainer(network(), ema=0.5, folder=tmp_path)
    t.fit(loader(), loader(), epochs=2)
    model = network()
    model.load_state_dict(load(tmp_path / "model.safetensors"))
    assert bits(model) == bits(t.averaged) != bits(t.model)


@pytest.mark.parametrize("of_targets", [False, True])
@pytest.mark.parametrize("kind", ["tensors", "batches"])
def test_a_loss_of_data_that_are_not_finite(kind: str, of_targets: bool) -> None:
    """The message names the value, and where it is, and not the learning rate."""
    x, y = gpunet.rand(8, 3), gpunet.rand(8, 1)
    (y if of_targets else x)[5, 0] = math.inf if of_targets else math.nan
    data = DataLoader(TensorDataset(x, y), 4) if kind == "tensors" else [(x[:4], y[:4]), (x[4:], y[4:])]
    name, value, at = ("targets", "inf", 5) if of_targets else ("inputs", "nan", 5)
    place = f"the {name} have" if kind == "tensors" else f"the {name} of batch 1 have"
    at -= 0 if kind == "tensors" else 4
    model = nn.Linear(3, 1)
    message = rf"the training loss became (nan|inf) in epoch 1: {place} a value that is not finite, {value} at \[{at}, 0\]"
    with pytest.raises(DataError, match=message):
        gpunet.fit(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.01), data, epochs=2)


def test_values_that_are_not_finite_and_not_trained_on_are_not_named() -> None:
    x = gpunet.rand(8, 3)
    x[7, 0] = math.nan
    data = DataLoader(TensorDataset(x, gpunet.rand(8, 1)), 3, sampler=range(6))
    model = nn.Linear(3, 1)
    with pytest.raises(GpunetError, match="the network diverged"):
        gpunet.fit(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1e300), data, epochs=3)


def test_a_history_says_how_training_ended() -> None:
    t = trainer(network())
    assert repr(t.history) == "<History of 0 epochs>"
    t.fit(loader(), epochs=2)
    assert repr(t.history) == f"<History of 2 epochs, best: {t.history.best_epoch}, finished>"


def test_a_network_that_diverges_is_told_so_by_the_loss() -> None:
    """Not by a metric, which refuses NaN; and NaN in the outputs makes a figure NaN, also after a resume."""
    model = network()
    t = trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e300), metrics={"accuracy": accuracy()})
    with pytest.raises(GpunetError, match="the training loss became nan in epoch 1"):
        t.fit(loader(), epochs=3)
    figure = Figure("accuracy", accuracy())
    figure.update(gpunet.tensor([[0.0, 1.0, 2.0]]), gpunet.tensor([2]))
    assert figure.compute() == 1.0
    figure.update(gpunet.tensor([[math.nan, 1.0, 2.0]]), gpunet.tensor([2]))
    loaded = Figure("accuracy", accuracy())
    loaded.load_state_dict(figure.state_dict())
    assert math.isnan(figure.compute()) and math.isnan(loaded.compute())
    figure.reset()
    figure.update(gpunet.tensor([[0.0, 1.0, 2.0]]), gpunet.tensor([2]))
    assert figure.compute() == 1.0
