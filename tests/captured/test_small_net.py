"""Epochs of small perceptrons in one launch: the losses, the weights and all effects of as many replays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn, optim
from gpunet.captured import epoch as captured_epoch
from gpunet.errors import ArgumentError, CaptureError, LabelError
from tests.captured.optimizers import OPTIMIZERS
from tests.ops.test_ops import to_numpy

ROWS, BATCH = 80, 10


class Training:
    """A net, its optimizer and data; ``run`` is its captured step.

    Args:
        device: of all of it.
        optimizer: a key of ``OPTIMIZERS``.
        loss: "cross_entropy" or "mse_loss".
        clip: the largest norm of the gradients; None does not clip.
    """

    def __init__(
        self, device: str, optimizer: str = "adam", loss: str = "cross_entropy", clip: float | None = None, dropout: float = 0.0,
        activation: Callable[[], Any] = nn.ReLU, sizes: Sequence[int] = (6, 9, 7, 3), dtype: Any = gpunet.float32,
    ) -> None:  # fmt: skip
        gpunet.manual_seed(0)
        layers: list[Any] = []
        for number, (i, o) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.Linear(i, o, device="cpu"))
            if number < len(sizes) - 2:
                layers += [activation(), *([nn.Dropout(dropout)] if dropout else [])]
        self.model = nn.Sequential(*layers).to(device).to(dtype)
        self.parameters = [*self.model.parameters()]
        self.optimizer = OPTIMIZERS[optimizer](self.parameters)
        random = numpy.random.default_rng(0)
        self.x = gpunet.tensor(random.normal(size=(ROWS, sizes[0])), dtype=dtype, device=device)
        if loss == "cross_entropy":
            self.y = gpunet.tensor(random.integers(0, sizes[-1], ROWS), device=device)
        else:
            self.y = gpunet.tensor(random.normal(size=(ROWS, sizes[-1])), dtype=dtype, device=device)
        self.loss, self.clip = getattr(nn.functional, loss), clip

    @gpunet.capture(backend="numpy")
    def run(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return loss

    def losses(self, engine: str, epochs: int = 1, seed: int = 3) -> numpy.ndarray:
        gpunet.manual_seed(seed)
        epoch = self.run.epoch(self.x, self.y, batch_size=BATCH, engine=engine)
        return numpy.concatenate([to_numpy(epoch.each()) for _ in range(epochs)])

    def state(self) -> list[numpy.ndarray]:
        """Weights, gradients, and the state of the optimizer."""
        of_optimizer = [tensor for p in self.parameters for tensor in self.optimizer.state[p].values()]
        return [to_numpy(t) for t in (*self.parameters, *(p.grad for p in self.parameters), *of_optimizer)]


def hold_to_replays(device: str, epochs: int = 25, rtol: float = 2e-5, **options: Any) -> None:
    """Train the same net by replays and in one launch for each epoch, and compare all that is left."""
    replayed, launched = Training(device, **options), Training(device, **options)
    expected, found = replayed.losses("replay", epochs), launched.losses("auto", epochs)
    numpy.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    for ours, theirs in zip(launched.state(), replayed.state(), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=20 * rtol, atol=20 * rtol)
    if device != "cpu":
        assert "one launch" in launched.run.epoch(launched.x, launched.y, batch_size=BATCH).explain()


def test_200_steps_follow_the_replays(device: str) -> None:
    hold_to_replays(device)


@pytest.mark.exhaustive
def test_200_steps_with_dropout_and_clipping_follow_the_replays(device: str) -> None:
    hold_to_replays(device, dropout=0.25, clip=0.5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "amsgrad", "adamw", "radam", "rmsprop", "adagrad", "lion"])
def test_200_steps_of_every_rule_follow_the_replays(optimizer: str) -> None:
    hold_to_replays("emulated", optimizer=optimizer, loss="mse_loss", activation=nn.Tanh, dtype=gpunet.float64, rtol=1e-9)


@pytest.mark.exhaustive
def test_activations_that_save_their_input_follow_the_replays() -> None:
    hold_to_replays("emulated", activation=nn.GELU, dropout=0.5, dtype=gpunet.float64, rtol=1e-9)


def test_200_steps_follow_a_formula_in_float64() -> None:
    """Softmax regression on hidden ReLUs with Adam, written down in NumPy."""
    training = Training("emulated", sizes=(6, 9, 3))
    w1, b1, w2, b2 = (to_numpy(p).astype("float64") for p in training.parameters)
    params, x, y = [w1, b1, w2, b2], to_numpy(training.x).astype("float64"), to_numpy(training.y)
    averages, squares = ([numpy.zeros_like(p) for p in params] for _ in range(2))
    order = numpy.random.default_rng(1).permutation(ROWS)
    epoch = training.run.epoch(training.x, training.y, batch_size=BATCH)
    found = [to_numpy(epoch.each(gpunet.tensor(order, device="emulated"))) for _ in range(25)]
    expected = []
    for step in range(1, 201):
        rows = order[(step - 1) % 8 * BATCH :][:BATCH]
        hidden = numpy.maximum(x[rows] @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        probabilities = numpy.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        expected.append(-numpy.log(probabilities[range(BATCH), y[rows]]).mean())
        dz = probabilities.copy()
        dz[range(BATCH), y[rows]] -= 1
        dz /= BATCH
        dh = dz @ w2 * (hidden > 0)
        for p, g, m, v in zip(params, (dh.T @ x[rows], dh.sum(0), dz.T @ hidden, dz.sum(0)), averages, squares):
            g = g + 1e-3 * p
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= 0.01 * (m / (1 - 0.9**step)) / (numpy.sqrt(v / (1 - 0.999**step)) + 1e-8)
    numpy.testing.assert_allclose(numpy.concatenate(found), expected, rtol=2e-5)
    for p, theirs in zip(training.parameters, params):
        numpy.testing.assert_allclose(to_numpy(p), theirs, rtol=2e-3, atol=2e-5)


def test_the_bits_do_not_depend_on_the_run_nor_on_the_division_into_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    once, again, divided = (Training("emulated", dropout=0.25, clip=0.5) for _ in range(3))
    losses = [once.losses("auto", 2), again.losses("auto", 2)]
    monkeypatch.setattr(captured_epoch, "MOST_STEPS", 3)
    losses.append(divided.losses("auto", 2))
    assert losses[0].tobytes() == losses[1].tobytes() == losses[2].tobytes()
    for a, b, c in zip(once.state(), again.state(), divided.state(), strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_random_numbers_go_on_where_replays_leave_them() -> None:
    found = []
    for engine in ("replay", "auto"):
        Training("emulated", dropout=0.25).losses(engine)
        found.append(gpunet.rand(4, device="emulated").tolist())
    assert found[0] == found[1]


def test_a_learning_rate_of_zero_changes_nothing_but_the_state() -> None:
    training = Training("emulated")
    training.losses("auto")
    before = to_numpy(training.model[0].weight).copy()
    training.optimizer.param_groups[0]["lr"] = 0.0
    training.losses("auto")
    assert (to_numpy(training.model[0].weight) == before).all()
    assert to_numpy(training.optimizer.state[training.parameters[0]]["step"]) == 16


def test_the_last_smaller_batch_is_replayed() -> None:
    replayed, launched = Training("emulated"), Training("emulated")
    means, rows = [], []
    for training, engine in ((replayed, "replay"), (launched, "auto")):
        gpunet.manual_seed(3)
        epoch = training.run.epoch(training.x, training.y, batch_size=32, engine=engine)
        means.append(epoch().item())
        rows.append(to_numpy(epoch.each()))
    assert means[1] == pytest.approx(means[0], rel=1e-5)
    assert rows[1].shape == (3,) and len(launched.run.recordings) == 2
    numpy.testing.assert_allclose(rows[1], rows[0], rtol=1e-5)


def test_a_label_out_of_range_raises_when_a_value_is_read() -> None:
    training = Training("emulated")
    training.losses("auto")
    training.y[3] = 3
    with pytest.raises(LabelError, match="label 3"):
        training.losses("auto").sum()
    gpunet.zeros(1, device="emulated").item()  # the record is cleared


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one() -> None:
    """The first batch of the resumed run records its step."""
    whole, resumed = Training("emulated", dropout=0.25), Training("emulated", dropout=0.25)
    whole.losses("auto")
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.optimizer.load_state_dict(whole.optimizer.state_dict())
    assert whole.losses("auto", seed=4).tobytes() == resumed.losses("auto", seed=4).tobytes()
    for ours, theirs in zip(resumed.state(), whole.state(), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_step_that_changes_too_much_to_be_undone_is_recorded_by_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_epoch, "MOST_UNDONE", 100)
    hold_to_replays("emulated", epochs=1)


def test_the_layout_of_the_data_does_not_change_the_bits() -> None:
    found = []
    for is_wide in (False, True):
        training = Training("emulated")
        if is_wide:
            training.x = gpunet.cat([training.x, training.x], 1)[:, :6]
            assert not training.x.is_contiguous()
        found.append(training.losses("launch").tobytes())
    assert found[0] == found[1]


def step_of(training: Training, forward: Callable[[Any], Any], result: Callable[[Any], Any] = lambda loss: loss) -> Any:
    """A captured step on labels and data, in this order, which clears the gradients at its end."""
    optimizer = training.optimizer

    @gpunet.capture(backend="numpy")
    def step(y: Any, x: Any) -> Any:
        loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return result(loss)

    return step


def test_arguments_in_another_order_and_gradients_that_are_not_left() -> None:
    found, steps = [], []
    for engine in ("replay", "launch"):
        training = Training("emulated", sizes=(6, 40, 40, 3))
        steps.append(step_of(training, training.model))
        epoch = steps[-1].epoch(training.y, training.x, batch_size=BATCH, engine=engine, shuffle=False)
        found.append([to_numpy(epoch.each()), *(to_numpy(p) for p in training.parameters)])
        assert all(p.grad is None for p in training.parameters)
    for ours, theirs in zip(*found, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = steps[-1].recordings[-1].small_net._lists[-1]  # in memory of their own
    assert not any(numpy.shares_memory(a, b) for a, b in itertools.combinations(gradients, 2))


def kept_by(engine: str, kept: str) -> tuple[bytes, str]:
    """Train by a step that keeps its logits, or the norm of its gradients; return the value, and how the epoch runs."""
    training = Training("emulated")
    optimizer, values = training.optimizer, {}

    @gpunet.capture(backend="numpy")
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = training.model(x)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(training.parameters, 1.0)
        optimizer.step()
        values["kept"] = logits if kept == "logits" else norm
        return loss

    epoch = step.epoch(training.x, training.y, batch_size=BATCH, shuffle=False, engine=engine)
    epoch()
    return to_numpy(values["kept"]).tobytes(), epoch.explain()


@pytest.mark.parametrize("kept", ["logits", "norm"])
def test_values_that_a_step_keeps_are_those_of_the_last_batch(kept: str) -> None:
    expected, _ = kept_by("replay", kept)
    found, explanation = kept_by("auto", kept)
    assert found == expected and "keeps a value" in explanation


def test_rows_that_are_split_between_layers_are_replayed() -> None:
    training = Training("emulated", sizes=(6, 6))
    second = nn.Linear(3, 2, device="emulated")
    training.y.clamp_(max=3)
    training.optimizer = optim.SGD([*training.parameters, *second.parameters()], lr=0.1)
    step = step_of(training, lambda x: second(training.model(x).reshape(-1, 3)).reshape(-1, 4))
    epoch = step.epoch(training.y, training.x, batch_size=BATCH)
    epoch()
    assert "linear_forward is no part" in epoch.explain()


def test_a_loss_in_another_shape_is_replayed() -> None:
    training = Training("emulated")
    epoch = step_of(training, training.model, lambda loss: loss.reshape(1)).epoch(training.y, training.x, batch_size=BATCH)
    assert epoch.each().shape == (8, 1) and "in another shape" in epoch.explain()


@pytest.mark.filterwarnings("ignore::gpunet.errors.GraphBreakWarning")
@pytest.mark.parametrize("options", [{"check": True}, {"fullgraph": False}])
def test_steps_without_replays_cannot_be_one_launch(options: dict[str, Any]) -> None:
    training = Training("emulated")

    @gpunet.capture(backend="numpy", **options)
    def step(x: Any, y: Any) -> Any:
        loss = nn.functional.cross_entropy(training.model(x), y)
        if not options.get("check"):
            loss.item()
        return loss

    reason = "check=True" if "check" in options else "it is not recorded"
    with pytest.raises(CaptureError, match=f"needs a replay for each step, because .*{reason}"):
        step.epoch(training.x, training.y, batch_size=40, engine="launch")()


def test_explain_says_how_epochs_run() -> None:
    training = Training("emulated")
    epoch = training.run.epoch(training.x, training.y, batch_size=BATCH)
    assert "until the step is recorded" in epoch.explain()
    epoch()
    assert epoch.explain().startswith("one launch for all steps: 6-9-7-3, batches of 10, ")
    assert "epoch: one launch for all steps" in str(training.run.explain())
    sgd = Training("emulated", optimizer="sgd")
    sgd.losses("auto")
    assert "global memory" not in sgd.run.recordings[-1].describe_epoch()  # it has no states
    assert "engine is 'replay'" in training.run.epoch(training.x, training.y, batch_size=BATCH, engine="replay").explain()


class StackTraining:
    """A stack of three nets, its optimizer and data; ``run`` is its captured step."""

    def __init__(
        self, optimizer: str = "adam", loss: str = "cross_entropy", widths: Sequence[int] = (6, 6, 6), drops: bool = False
    ) -> None:
        gpunet.manual_seed(0)
        nets = []
        for number, width in enumerate(widths):
            dropout = [nn.Dropout(0.1 * number)] if drops else []
            hidden = [nn.Linear(8, width), nn.ReLU(), *dropout, nn.Linear(width, 5), nn.ReLU(), *dropout]
            nets.append(nn.Sequential(*hidden, nn.Linear(5, 4)))
        self.stack = nn.Stack(nets, seeds=range(3)).to("emulated")
        self.optimizer: Any = (
            optim.StackSGD(self.stack, lr=[0.01, 0.02, 0.03], momentum=0.9) if optimizer == "sgd"
            else optim.StackAdam(self.stack, lr=[0.01, 0.02, 0.03], weight_decay=0.01)
        )  # fmt: skip
        random = numpy.random.default_rng(0)
        self.x = gpunet.tensor(random.normal(size=(40, 8)), dtype=gpunet.float32, device="emulated")
        if loss == "cross_entropy":
            self.y = gpunet.tensor(random.integers(0, 4, 40), device="emulated")
        else:
            self.y = gpunet.tensor(random.normal(size=(40, 4)), dtype=gpunet.float32, device="emulated")
        self.loss = getattr(nn.functional, loss)

    @gpunet.capture(backend="numpy")
    def run(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        losses = self.stack.losses(self.loss, self.stack(x), y)
        losses.sum().backward()
        self.optimizer.step()
        return losses

    def losses(self, engine: str, epochs: int) -> numpy.ndarray:
        """Those of all steps, (steps, nets); net 1 is stopped in the second half; then the means of one epoch more."""
        gpunet.manual_seed(1)
        epoch = self.run.epoch(self.x, self.y, batch_size=10, engine=engine)
        found = [to_numpy(epoch.each()) for _ in range(epochs)]
        self.stack.stop([1])
        found += [to_numpy(epoch.each()) for _ in range(epochs)]
        self.stack.resume([1])
        mean = to_numpy(epoch())
        return numpy.concatenate([*found, mean[None]])

    def state(self) -> list[numpy.ndarray]:
        """Weights, gradients, and the state of the optimizer."""
        parameters = [*self.stack.parameters()]
        of_optimizer = [tensor for p in parameters for tensor in self.optimizer.state[p].values()]
        own = [t for name, t in self.optimizer.state_dict()["nets"].items() if name == "powers"]
        return [to_numpy(t) for t in (*parameters, *(p.grad for p in parameters), *of_optimizer, *own)]


def hold_stack_to_replays(epochs: int, **options: Any) -> None:
    replayed, launched = StackTraining(**options), StackTraining(**options)
    expected, found = replayed.losses("replay", epochs), launched.losses("launch", epochs)
    assert numpy.isnan(found[4 * epochs : 8 * epochs, 1]).all() and not numpy.isnan(found[: 4 * epochs]).any()
    numpy.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(launched.state(), replayed.state(), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert launched.run.recordings[-1].describe_epoch().startswith("one launch for all steps: 3 nets 8-6-5-4, batches of 10, ")


def test_ignored_labels_count_in_the_means_of_a_stack() -> None:
    found = []
    for engine in ("replay", "launch"):
        training = StackTraining()
        training.y[::3] = -100
        training.y[10:20] = -100
        epoch = training.run.epoch(training.x, training.y, batch_size=10, shuffle=False, engine=engine)
        found.append([to_numpy(epoch.each()), *training.state()])
    for ours, theirs in zip(*found, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_factors_of_features_may_be_any_numbers() -> None:
    """Those of a stack are 1, and 0 for the features that narrower nets do not have."""
    found = []
    for engine in ("replay", "launch"):
        training = StackTraining()
        factors = gpunet.tensor(numpy.linspace(-1, 2, 18).reshape(3, 1, 6).astype("float32"), device="emulated")
        for path in ("1", "3"):
            training.stack.get_submodule(path).activation = nn.Tanh()
        training.stack.get_submodule("1").mask = factors
        epoch = training.run.epoch(training.x, training.y, batch_size=10, shuffle=False, engine=engine)
        found.append([to_numpy(epoch.each()), *training.state()])
    for ours, theirs in zip(*found, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["one norm of all nets", "an optimizer of no stack"])
def test_stacks_whose_nets_depend_on_each_other_are_replayed(change: str) -> None:
    training = StackTraining()
    parameters = [*training.stack.parameters()]
    optimizer = training.optimizer if change == "one norm of all nets" else optim.SGD(parameters, lr=0.1)

    @gpunet.capture(backend="numpy")
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        losses = training.stack.losses(nn.functional.cross_entropy, training.stack(x), y)
        losses.sum().backward()
        if change == "one norm of all nets":
            nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()
        return losses

    epoch = step.epoch(training.x, training.y, batch_size=10)
    epoch()
    assert ("gradient_norm" if optimizer is training.optimizer else "sgd_step") + " is no part" in epoch.explain()


def test_a_stack_with_dropout_and_several_widths_follows_the_replays() -> None:
    hold_stack_to_replays(2, widths=(6, 4, 5), drops=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("loss", ["cross_entropy", "mse_loss"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_200_steps_of_a_stack_follow_the_replays(optimizer: str, loss: str) -> None:
    hold_stack_to_replays(25, optimizer=optimizer, loss=loss)


def test_a_net_has_the_same_bits_in_every_stack() -> None:
    """As the first of three nets, and alone; that another net is stopped changes nothing either."""
    three, alone = StackTraining(), StackTraining()
    single = nn.Stack([alone.stack.net(0)], seeds=[0]).to("emulated")
    alone.stack, alone.optimizer = single, optim.StackAdam(single, lr=0.01, weight_decay=0.01)
    found = []
    for training in (three, alone):
        gpunet.manual_seed(1)
        if training is three:
            training.stack.stop([2])
        epoch = training.run.epoch(training.x, training.y, batch_size=10, engine="launch")
        epoch()
        found.append(to_numpy(epoch.each())[:, 0].tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: setattr(t, "loss", lambda y, target: nn.functional.cross_entropy(y, target) * 2.0), "multiply is no part"),
        (lambda t: setattr(t, "loss", lambda y, target: nn.functional.cross_entropy(y, target, label_smoothing=0.1)), "no part"),
        (lambda t: t.model.append(nn.Tanh()), "the last layer has an activation"),
        (lambda t: t.model.insert(0, nn.Dropout(0.5)), "dropout_drawn is no part"),
        (lambda t: t.model.insert(1, nn.LayerNorm(9, device="emulated")), "is no part"),
        (lambda t: t.model.__setitem__(1, nn.Tanh()), "different activations"),
        (lambda t: setattr(t.model[0].weight, "requires_grad", False), "linear_backward_weight is no part"),
        (lambda t: setattr(t, "optimizer", optim.NAdam(t.parameters)), "nadam_step is no part"),
        (lambda t: setattr(t, "optimizer", optim.Adam(t.parameters[:2])), "add is no part"),  # to gradients
        (lambda t: t.model.to(gpunet.float16), "float16"),
    ],
)
def test_other_steps_are_replayed(change: Callable[[Training], Any], reason: str) -> None:
    training = Training("emulated")
    change(training)
    if training.model[0].__class__ is nn.Linear and training.model[0].weight.dtype == gpunet.float16:
        training.x = training.x.half()
    epoch = training.run.epoch(training.x, training.y, batch_size=40)
    epoch()
    assert epoch.explain().startswith("a replay for each step, because ") and reason in epoch.explain()
    with pytest.raises(CaptureError, match=r"engine='launch', but run needs a replay for each step, because .*; use engine='auto'"):
        training.run.epoch(training.x, training.y, batch_size=40, engine="launch")()


def test_a_net_that_does_not_fit_is_replayed() -> None:
    training = Training("emulated", sizes=(6, 300, 300, 3))
    epoch = training.run.epoch(training.x, training.y, batch_size=40)
    epoch()
    assert "bytes of shared memory; a block has" in epoch.explain()


def test_a_step_with_other_results_is_replayed() -> None:
    training = Training("emulated")
    optimizer, model = training.optimizer, training.model

    @gpunet.capture(backend="numpy")
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    epoch = step.epoch(training.x, training.y, batch_size=40)
    epoch()
    assert "returns something else than its loss" in epoch.explain()


def test_rejected_arguments() -> None:
    training = Training("cpu")
    with pytest.raises(ArgumentError, match="engine='graph'; expected one of 'auto', 'replay', 'launch'"):
        training.run.epoch(training.x, training.y, batch_size=4, engine="graph")
    epoch = training.run.epoch(training.x, training.y, batch_size=40)
    for order, message in (
        (gpunet.arange(5), r"order is int64 of shape \(5,\) on cpu; expected an int64 tensor of shape \(80,\)"),
        (gpunet.zeros(80), "order is float32"),
        ([1], r"order is \[1\]"),
        (gpunet.arange(80) + 1, "rows out of range"),
    ):
        with pytest.raises(ArgumentError, match=message):
            epoch(order)
