"""GradientFlow: its verdicts on networks that are built to have a fault, and its figures beside NumPy's."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import diagnose, nn, optim
from gpunet.data import DataLoader, TensorDataset
from gpunet.errors import ArgumentError, GpunetError, GradientError
from gpunet.nn import functional as F
from gpunet.train import Trainer
from tests.diagnose import nets
from tests.diagnose.nets import Case

FAULTY, HEALTHY = [*nets.faulty()], [*nets.healthy()]
SAMPLE = [case for case in [*FAULTY[::7], *HEALTHY[::5]] if case.name != "transformer"]


def is_named(case: Case, seed: int = 0) -> bool:
    verdict = nets.train(case, seed).verdict()
    return verdict.kind == case.kind and (case.step is None or verdict.findings[0].step == case.step)


# ---- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    assert is_named(case)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_verdicts(seed: int) -> None:
    assert (len(FAULTY), len(HEALTHY)) == (40, 20)
    wrong = [case.name for case in FAULTY if not is_named(case, seed)]
    accused = [case.name for case in HEALTHY if not is_named(case, seed)]
    assert len(wrong) <= 2 and not accused, (wrong, accused)


def mended(make: Any, case: Case) -> str:
    return nets.train(case._replace(model=make)).verdict().kind


def test_a_vanishing_net_is_mended() -> None:
    """By batch norm, by residual connections, and by other weights at the start."""
    [case] = [case for case in FAULTY if case.name == "relu, PyTorch's weights, 20"]
    assert mended(case.model, case) == "vanishing"
    assert mended(nets.mlp(20, 64, nn.ReLU, norm=True), case) == "healthy"
    assert mended(nets.residual(20, 64, nn.ReLU), case) == "healthy"
    assert mended(nets.mlp(20, 64, nn.ReLU, math.sqrt(2.0)), case) == "healthy"


def test_an_exploding_and_a_saturated_net_are_mended() -> None:
    exploding = next(case for case in FAULTY if case.name == "gain 6.0, 8 layers")
    assert mended(nets.mlp(8, 64, nn.ReLU, math.sqrt(2.0)), exploding) == "healthy"
    assert mended(nets.mlp(8, 64, nn.ReLU, 6.0, norm=True), exploding) == "healthy"
    saturated = next(case for case in FAULTY if case.name == "tanh, gain 20.0")
    assert mended(nets.mlp(5, 64, nn.Tanh, 1.0), saturated) == "healthy"
    dead = next(case for case in FAULTY if case.name == "80% of layer 1 dead")
    assert mended(nets.mlp(4, 50, nn.ReLU, math.sqrt(2.0)), dead) == "healthy"


def test_the_text_names_layer_size_and_remedy() -> None:
    dead = next(case for case in FAULTY if case.name == "75% of layer 2 dead")
    verdict = nets.train(dead).verdict()
    assert str(verdict).startswith("75% of the units of layer 2 (module 2) are dead: their activation is 0 for all samples.")
    assert "LeakyReLU" in verdict.findings[0].remedy and verdict.findings[0].layers == (2,) and not verdict.is_healthy
    vanishing = next(case for case in FAULTY if case.name == "sigmoid, 10 layers of 32")
    assert str(nets.train(vanishing).verdict()).startswith("gradients vanish from layer 6 (module 10) down: the gradient of ")
    jump = next(case for case in FAULTY if case.name == "rate jumps at 12")
    assert "gradients explode at step 13: they are infinite or NaN from step " in str(nets.train(jump).verdict())
    healthy = nets.train(HEALTHY[0]).verdict()
    assert healthy.is_healthy and healthy.kind == "healthy" and str(healthy).startswith("healthy: ") and not healthy.findings


def test_units_that_die_late_and_units_that_revive() -> None:
    """The second half of the recorded steps counts."""

    def kill(step: int, model: Any, optimizer: Any) -> None:
        if step in (10, 25):
            with gpunet.no_grad():
                model[0].bias[:40] = -100.0 if step == 10 else 0.0

    case = Case("", "dead", nets.mlp(3, 50, nn.ReLU, 1.4), nets.blobs(), nets.sgd(), kill)
    assert nets.train(case, steps=24).verdict().kind == "dead"
    assert nets.train(case, steps=40).verdict().kind == "healthy"


def test_an_output_with_a_small_weight_in_the_loss_is_no_explosion() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.second = nets.mlp(4, 32, nn.ReLU, 1.4, out=32)(), nn.Linear(32, 4), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            hidden = self.body(x)
            return self.head(hidden) + 1e-6 * self.second(hidden)

    assert is_named(Case("", "healthy", Net, nets.blobs(), nets.sgd()))


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss])
def test_large_targets_are_no_explosion(depth: int, loss: Any) -> None:
    """A regression with targets of 200000 ± 80000, whose loss falls."""
    random = numpy.random.default_rng(0)
    x = random.standard_normal((512, 8)).astype(numpy.float32)
    x, y = gpunet.tensor(x), gpunet.tensor(2e5 + 8e4 * x[:, :1])
    gpunet.manual_seed(0)
    model = nets.mlp(depth, 32, nn.ReLU, features=8, out=1)()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    with diagnose.GradientFlow(model) as flow:
        for _ in range(200):
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            optimizer.step()
            flow.step()
            losses.append(value.item())
    verdict = flow.verdict()
    assert losses[-1] < losses[0] and verdict.kind != "exploding"
    if depth > 2:
        assert verdict.kind == "targets" and str(verdict).startswith(f"the targets are large: the outputs of layer {depth} ")
        assert "scale the targets" in verdict.findings[0].remedy


def record(model: Any, batches: Any, lr: float = 0.01, loss: Any = F.cross_entropy) -> diagnose.GradientFlow:
    optimizer = optim.SGD(model.parameters(), lr=lr)
    with diagnose.GradientFlow(model) as flow:
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            flow.step()
    return flow


def test_a_few_samples_do_not_judge_units() -> None:
    for make in (nets.mlp(4, 40, nn.ReLU, 1.4), nets.mlp(4, 40, nn.Tanh, 20.0), nets.convolutions(3, 8, nn.ReLU)):
        gpunet.manual_seed(0)
        model = make()
        x = gpunet.randn(1, 1, 8, 8) if isinstance(model[0], nn.Conv2d) else gpunet.randn(1, 16)
        verdict = record(model, [(x, gpunet.tensor([1]))]).verdict()
        assert verdict.is_healthy, str(verdict)
        assert "alive" not in str(verdict)
        assert str(verdict).endswith("(1 recorded step); too few samples to judge units: 1 of at least 20")
    dead = nets.killed(nets.mlp(4, 50, nn.ReLU, 1.4), 2, 0.8)
    assert "judge units: 19 of" in str(record(dead(), [(gpunet.randn(19, 16), gpunet.zeros(19).long())]).verdict())
    assert record(dead(), [(gpunet.randn(20, 16), gpunet.zeros(20).long())]).verdict().kind == "dead"
    assert record(dead(), [(gpunet.randn(2, 16), gpunet.zeros(2).long())] * 20).verdict().kind == "dead"


def test_a_last_layer_of_zeros() -> None:
    """At the first step it lets no gradient through."""
    x, y = nets.blobs()(numpy.random.default_rng(0))
    for steps in (1, 2, 3):
        model = nets.mlp(4, 40, nn.ReLU, 1.4)()
        nn.init.zeros_(model[-1].weight)
        assert record(model, [(x, y)] * steps, 0.1).verdict().is_healthy


def test_a_batch_with_nan_is_not_blamed_on_the_learning_rate() -> None:
    x, y = nets.blobs()(numpy.random.default_rng(0))
    bad = x.clone()
    bad[3, 2] = math.nan
    text = str(record(nets.mlp(3, 40, nn.ReLU, 1.4)(), [(x, y)] * 5 + [(bad, y)] * 2).verdict())
    assert text.startswith("the gradients are infinite or NaN from step 6 on, though they and the updates were normal until ")
    assert "AnomalyFinder" in text and "learning rate" not in text
    text = str(record(nets.mlp(3, 40, nn.ReLU, 1.4)(), [(bad, y)] * 2).verdict())
    assert text.startswith("the numbers overflow at step 1") and "AnomalyFinder" in text


def test_large_changes_are_in_words() -> None:
    """Not "by 45915596328694255190016%", nor "by inf%"."""
    for name in ("rate 10", "rate jumps at 12", "rate jumps at 21", "inputs of 1000", "rate 5 with momentum"):
        text = str(nets.train(next(case for case in FAULTY if case.name == name)).verdict())
        assert "lower the learning rate (a step changes the weights of a layer by " in text
        assert "inf%" not in text and all(float(share) <= 1000.0 for share in re.findall(r"(\d+)%", text))


class Detector(nn.Module):
    """A learned head of its own with a sigmoid, which runs before the last layer."""

    def __init__(self, reads: bool, is_late: bool = False) -> None:
        super().__init__()
        self.body, self.conf, self.sigmoid = nn.Sequential(nn.Linear(16, 32), nn.ReLU()), nn.Linear(32, 8), nn.Sigmoid()
        self.cls, self.reads, self.is_late = nn.Linear(40 if reads else 32, 4), reads, is_late
        with gpunet.no_grad():
            self.conf.bias.fill_(30.0)

    def forward(self, x: Any) -> Any:
        hidden = self.body(x)
        conf = self.conf(hidden)
        conf = conf if self.is_late else self.sigmoid(conf)
        out = self.cls(gpunet.cat([hidden, conf], 1) if self.reads else hidden)
        return out + (self.sigmoid(conf) if self.is_late else conf).mean()


def test_a_head_that_no_layer_reads_may_saturate() -> None:
    for is_late in (False, True):
        assert is_named(Case("", "healthy", lambda late=is_late: Detector(False, late), nets.blobs(), nets.sgd()))
    flow = nets.train(Case("", "saturated", lambda: Detector(True), nets.blobs(), nets.sgd()))
    assert flow.verdict().findings[0].layers == (2,)


def test_a_function_belongs_to_the_layer_that_it_follows() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 4), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            hidden = F.tanh(self.body(x))
            return self.first(hidden) + self.second(hidden)

    assert nets.train(Case("", "healthy", Net, nets.blobs(), nets.sgd())).flow().activations == ["tanh", "", ""]


# ---- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_numpys(device: str) -> None:
    x = numpy.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]], numpy.float32)
    w1, b1 = numpy.array([[0.5, 1.0], [-1.0, -2.0], [1.0, 0.5]], numpy.float32), numpy.array([0.0, -9.0, 0.5], numpy.float32)
    w2 = numpy.array([[0.5, 1.0, -1.0]], numpy.float32)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    with gpunet.no_grad():
        for p, values in zip(model.parameters(), (w1, b1, w2)):
            p.copy_(gpunet.tensor(values))
    model.to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with diagnose.GradientFlow(model) as flow:
        model(gpunet.tensor(x, device=device)).sum().backward()
        optimizer.step()
        flow.step()
    found = flow.flow()
    z = x @ w1.T + b1
    a = numpy.maximum(z, 0.0)
    dz = w2 * (z > 0)
    dw1, dw2 = dz.T @ x, a.sum(0, keepdims=True)
    numpy.testing.assert_allclose(found.outputs[0], [math.sqrt((z**2).mean()), math.sqrt(((a @ w2.T) ** 2).mean())], rtol=1e-5)
    numpy.testing.assert_allclose(found.gradients[0], [numpy.linalg.norm(dz), math.sqrt(3.0)], rtol=1e-5)
    numpy.testing.assert_allclose(found.weight_gradients[0], [numpy.linalg.norm(dw1), numpy.linalg.norm(dw2)], rtol=1e-5)
    updates = [0.1 * numpy.linalg.norm(dw1) / numpy.linalg.norm(w1), 0.1 * numpy.linalg.norm(dw2) / numpy.linalg.norm(w2)]
    numpy.testing.assert_allclose(found.updates[0], updates, rtol=1e-4)
    numpy.testing.assert_allclose(found.dead()[0], 1 / 3)  # the unit with the bias of -9
    assert found.activations == ["relu", ""] and found.names == ["0", "2"]


def test_saturation_and_pooled_activations() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 2)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.first(x)), 2)
            return self.last(F.tanh(self.second(x)).flatten(1))

    gpunet.manual_seed(0)
    model = Net()
    with gpunet.no_grad():
        model.first.bias[:3] = -50.0
        model.second.bias[:] = 50.0
    with diagnose.GradientFlow(model) as flow:
        model(gpunet.randn(8, 1, 4, 4)).sum().backward()
        flow.step()
    found = flow.flow()
    assert found.activations == ["relu", "tanh", ""]
    numpy.testing.assert_array_equal(found.dead(), [0.75, numpy.nan, numpy.nan])  # flattened, units cannot be told apart
    numpy.testing.assert_array_equal(found.saturated[0], [numpy.nan, 1.0, numpy.nan])
    numpy.testing.assert_array_equal(found.samples[0], [8.0, 8.0, numpy.nan])


def test_a_layer_that_does_not_run_is_left_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.odd, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: Any, step: int) -> Any:
            return self.last(self.odd(x) if step % 2 else x)

    model = Net()
    with diagnose.GradientFlow(model) as flow:
        for step in range(6):
            model.zero_grad()
            model(gpunet.randn(4, 3), step).sum().backward()
            flow.step()
    assert flow.flow().names == ["odd", "last"] and flow.verdict().is_healthy
    assert numpy.isnan(flow.flow().outputs).tolist() == [[True, False], [False, False]] * 3


# ---- with a Trainer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_a_captured_trainer_records_what_a_loop_records(every: int) -> None:
    x, y = nets.blobs()(numpy.random.default_rng(0))

    def parts() -> tuple[Any, Any]:
        gpunet.manual_seed(0)
        model = nets.mlp(3, 20, nn.ReLU)()
        return model, optim.SGD(model.parameters(), lr=0.1)

    flows = []
    for capture in (True, False):
        model, optimizer = parts()
        flows.append(diagnose.GradientFlow(model, every=every))
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[flows[-1]], capture=capture, progress=False)
        trainer.fit(DataLoader(TensorDataset(x, y), 64), DataLoader(TensorDataset(x, y), 64), epochs=2)
    model, optimizer = parts()
    with diagnose.GradientFlow(model, every=every) as flow:
        for at in [*range(0, 512, 64)] * 2:
            optimizer.zero_grad()
            F.cross_entropy(model(x[at : at + 64]), y[at : at + 64]).backward()
            optimizer.step()
            flow.step()
    for other in flows:
        assert other.steps == flow.steps == [*range(every, 17, every)]
        for name in ("outputs", "gradients", "weight_gradients", "updates"):
            numpy.testing.assert_allclose(getattr(other.flow(), name), getattr(flow.flow(), name), rtol=1e-4)
        numpy.testing.assert_array_equal(other.flow().dead(), flow.flow().dead())
    assert not any(module.has_hooks for module in model.modules())


def test_a_diverging_trainer_has_a_verdict() -> None:
    case = next(case for case in FAULTY if case.name == "rate 10")
    x, y = case.data(numpy.random.default_rng(0))
    model = case.model()
    flow = diagnose.GradientFlow(model)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=10.0), callbacks=[flow], progress=False)
    with pytest.raises(GpunetError, match="diverged"):
        trainer.fit(DataLoader(TensorDataset(x, y), 32), epochs=1)
    assert flow.verdict().kind == "exploding" and "learning rate" in str(flow.verdict())


def test_accumulation_and_halves() -> None:
    x, y = nets.blobs()(numpy.random.default_rng(0))
    model = nets.mlp(3, 20, nn.ReLU)()
    flow = diagnose.GradientFlow(model)
    options: dict[str, Any] = {"accumulate": 2, "precision": "bfloat16", "progress": False}
    pytest.importorskip("ml_dtypes")
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), callbacks=[flow], **options)
    trainer.fit(DataLoader(TensorDataset(x, y), 64), epochs=1)
    assert flow.steps == [1, 2, 3, 4] and flow.verdict().is_healthy and numpy.isfinite(flow.flow().updates).all()


# ---- pictures, tables, errors ---------------------------------------------------------------------------------------


def test_picture_and_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    flow = nets.train(next(case for case in FAULTY if case.name == "sigmoid, 6 layers of 16"), steps=4)
    figure = flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").read_bytes()[:4] == b"\x89PNG"
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 6 and "vanish" in figure.get_suptitle()
    numpy.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), flow.flow().gradients[:, 0])
    lines = str(flow).splitlines()
    assert len(lines) == 7 and "sigmoid" in lines[1] and lines[1].split()[0] == "1"


def test_errors() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(ArgumentError, match="model is a int; expected a Module"):
        diagnose.GradientFlow(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="every=0; expected a positive integer"):
        diagnose.GradientFlow(model, every=0)
    with pytest.raises(ArgumentError, match="no layer with weights"):
        diagnose.GradientFlow(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)))
    flow = diagnose.GradientFlow(model)
    assert str(flow) == "no step is recorded"
    with pytest.raises(GradientError, match="it is not recording"):
        flow.step()
    with pytest.raises(GradientError, match="no step is recorded"):
        flow.verdict()
    with flow:
        with pytest.raises(GradientError, match="no layer has a gradient"):
            flow.step()
        other = nn.Linear(2, 1)
        with pytest.raises(ArgumentError, match="trains another network"):
            flow.on_start(Trainer(other, nn.MSELoss(), optim.SGD(other.parameters(), lr=0.1), progress=False))
    model(gpunet.ones(1, 2)).sum().backward()
    with pytest.raises(GradientError, match="the network did not run inside"), diagnose.GradientFlow(model) as flow:
        flow.step()
