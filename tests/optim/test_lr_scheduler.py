"""Learning-rate schedules: PyTorch's rates in each step, state_dicts, and recorded steps."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, CaptureError, DtypeError, StateDictError
from gpunet.launch.tape import Tape, record
from gpunet.optim import lr_scheduler

STEPS = 120
#: Tolerance of float64 rates; PyTorch computes some of them in a different order.
CLOSE = {"rtol": 1e-12, "atol": 1e-15}


def half_after_three(step: int) -> float:
    return 1.0 if step < 3 else 0.5 + 0.5 / step


Make = Callable[[Any, Any], Any]
#: (module, optimizer) -> schedule, for schedules whose step is a launch
FORMULAS: dict[str, Make] = {
    "step": lambda m, o: m.StepLR(o, 7, 0.7),
    "step every step": lambda m, o: m.StepLR(o, 1),
    "multi step": lambda m, o: m.MultiStepLR(o, [3, 30, 30, 77], 0.5),
    "multi step from 0": lambda m, o: m.MultiStepLR(o, [0, 30], 0.5),
    "constant": lambda m, o: m.ConstantLR(o, 0.25, 9),
    "constant for zero steps": lambda m, o: m.ConstantLR(o, 0.25, 0),
    "constant for zero steps in a sequence": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.5), m.ConstantLR(o, 0.25, 0)], [3]),
    "linear": lambda m, o: m.LinearLR(o, 0.1, 0.8, 50),
    "linear down": lambda m, o: m.LinearLR(o, 1.0, 0.0, 60),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.97),
    "polynomial": lambda m, o: m.PolynomialLR(o, 100, 2.5),
    "polynomial to zero": lambda m, o: m.PolynomialLR(o, 5),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, STEPS),
    "cosine that rises again": lambda m, o: m.CosineAnnealingLR(o, 20, 1e-3),
    "warm restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 10),
    "warm restarts that grow": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 1e-4),
    "cyclic": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 11, 6, cycle_momentum=False),
    "cyclic 2": lambda m, o: m.CyclicLR(o, [0.01, 0.02], [0.2, 0.3], 8, mode="triangular2", cycle_momentum=False),
    "cyclic exp": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 8, mode="exp_range", gamma=0.99, cycle_momentum=False),
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.3, STEPS, cycle_momentum=False),
    "one cycle linear": lambda m, o: m.OneCycleLR(
        o, [0.3, 0.1], epochs=13, steps_per_epoch=10, anneal_strategy="linear", cycle_momentum=False
    ),
    "one cycle of three phases": lambda m, o: m.OneCycleLR(o, 0.3, STEPS, pct_start=0.2, three_phase=True, cycle_momentum=False),
    "sequence": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=8), m.CosineAnnealingLR(o, 50), m.StepLR(o, 4), m.ConstantLR(o, 0.5, 3)], [8, 60, 90]
    ),
    "sequence with absolute formulas": lambda m, o: m.SequentialLR(
        o, [m.ExponentialLR(o, 0.9), m.CosineAnnealingWarmRestarts(o, 7, 2), m.PolynomialLR(o, 20)], [30, 70]
    ),
    "sequence with an empty part": lambda m, o: m.SequentialLR(
        o, [m.ExponentialLR(o, 0.9), m.StepLR(o, 2), m.MultiStepLR(o, [0, 9], 0.5)], [30, 30]
    ),
    "chain": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, 5), m.ExponentialLR(o, 0.95), m.CosineAnnealingLR(o, 40, 1e-3)]
    ),
    "chain in a sequence": lambda m, o: m.SequentialLR(
        o, [m.ChainedScheduler([m.ConstantLR(o, 0.5, 5), m.StepLR(o, 6)]), m.ExponentialLR(o, 0.9)], [20]
    ),
    "sequence in a chain": lambda m, o: m.ChainedScheduler(
        [m.SequentialLR(o, [m.LinearLR(o, 0.2), m.StepLR(o, 9)], [6]), m.ExponentialLR(o, 0.99)]
    ),
    "cyclic with momentum": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 9),
    "cyclic exp with momentum": lambda m, o: m.CyclicLR(
        o, 0.01, 0.2, 8, 5, mode="exp_range", gamma=0.99, base_momentum=[0.5, 0.0], max_momentum=[0.8, 0.9]
    ),
    "one cycle with momentum": lambda m, o: m.OneCycleLR(o, 0.3, STEPS),
    "one cycle of three phases with momentum": lambda m, o: m.OneCycleLR(o, 0.3, STEPS, three_phase=True),
    "sequence with momentum": lambda m, o: m.SequentialLR(
        o, [m.ExponentialLR(o, 0.9), m.OneCycleLR(o, 0.3, 90)], [30]
    ),
}  # fmt: skip
#: (module, optimizer) -> schedule, for schedules that run Python code
PYTHON: dict[str, Make] = {
    "lambda": lambda m, o: m.LambdaLR(o, half_after_three),
    "lambdas": lambda m, o: m.LambdaLR(o, [half_after_three, lambda step: 0.9**step]),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, half_after_three),
    "cyclic with a function": lambda m, o: m.CyclicLR(
        o, 0.01, 0.2, 9, scale_fn=lambda x: 0.99**x, scale_mode="iterations"
    ),
    "cyclic with momentum and a function": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 9, scale_fn=lambda cycle: 0.9**cycle),
    "sequence with a function": lambda m, o: m.SequentialLR(
        o, [m.LambdaLR(o, half_after_three), m.CosineAnnealingLR(o, 50), m.LambdaLR(o, half_after_three)], [10, 60]
    ),
}  # fmt: skip
ALL = FORMULAS | PYTHON
WITH_MOMENTUM = [name for name in ALL if "momentum" in name]


def make_optimizer(kind: str = "SGD") -> gpunet.optim.Optimizer:
    groups = [{"params": [gpunet.zeros(2, requires_grad=True)]}, {"params": [gpunet.zeros(3, requires_grad=True)], "lr": 0.05}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(gpunet.optim, kind)(groups, lr=0.2, **options)


def make_torch_optimizer(torch: Any, kind: str = "SGD") -> Any:
    groups = [{"params": [torch.zeros(2, requires_grad=True)]}, {"params": [torch.zeros(3, requires_grad=True)], "lr": 0.05}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(groups, lr=0.2, **options)
    optimizer._opt_called = True  # PyTorch warns if a schedule steps before its optimizer
    return optimizer


def rates(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def momenta(optimizer: Any) -> list[Any]:
    return [group.get("betas", (group.get("momentum"),))[0] for group in optimizer.param_groups]


# ---- PyTorch's rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, kind", [*((n, "SGD") for n in ALL), *((n, "Adam") for n in WITH_MOMENTUM)])
def test_rates_match_torch(name: str, kind: str, device: str, torch: Any) -> None:
    one, other = make_optimizer(kind), make_torch_optimizer(torch, kind)
    mine, reference = ALL[name](lr_scheduler, one), ALL[name](torch.optim.lr_scheduler, other)
    for step in range(STEPS):
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE, err_msg=f"step {step}")
        numpy.testing.assert_allclose(momenta(one), momenta(other), rtol=1e-12)
        assert mine.get_last_lr() == rates(one)
        if not isinstance(mine, lr_scheduler.ChainedScheduler):  # PyTorch's has no step count
            assert mine.last_epoch == reference.last_epoch
        mine.step()
        reference.step()
    assert len({tuple(rates(one)), *[(g["initial_lr"],) for g in one.param_groups]}) > 1


@pytest.mark.parametrize("mode, threshold_mode", [("min", "rel"), ("min", "abs"), ("max", "rel"), ("max", "abs")])
def test_reductions_on_plateaus_match_torch(mode: str, threshold_mode: str, device: str, torch: Any) -> None:
    generator = numpy.random.default_rng(2)
    one, other = make_optimizer(), make_torch_optimizer(torch)
    options = {"factor": 0.5, "patience": 2, "threshold": 0.01, "cooldown": 1, "min_lr": [0.01, 0.001], "eps": 1e-4}
    mine, reference = (
        m.ReduceLROnPlateau(o, mode, threshold_mode=threshold_mode, **options)
        for m, o in ((lr_scheduler, one), (torch.optim.lr_scheduler, other))
    )
    for step in range(STEPS):
        metric = float(numpy.exp(-step / 30) + 0.1 * generator.random())
        mine.step(gpunet.tensor(metric, dtype=gpunet.float64))
        reference.step(metric)
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)
        assert (mine.best, mine.num_bad_epochs) == (reference.best, reference.num_bad_epochs)
    again = lr_scheduler.ReduceLROnPlateau(make_optimizer(), mode)
    again.load_state_dict(mine.state_dict())
    assert again.state_dict() | {"_last_lr": 0} == mine.state_dict() | {"_last_lr": 0}


def test_warm_restarts_at_given_epochs_match_torch(device: str, torch: Any) -> None:
    """Also at fractional epochs."""
    for growth in (1, 2):
        one, other = make_optimizer(), make_torch_optimizer(torch)
        mine, reference = (
            m.CosineAnnealingWarmRestarts(o, 4, growth) for m, o in ((lr_scheduler, one), (torch.optim.lr_scheduler, other))
        )
        for epoch in (0.5, 3.75, 4, 11.25, 12, 13.5, 100, 2.0, None, None, None):
            mine.step(epoch)
            reference.step(epoch)
            numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)
            assert (mine.last_epoch, mine.T_cur, mine.T_i) == (reference.last_epoch, reference.T_cur, reference.T_i)


def test_schedules_continue_from_a_rate_set_by_hand(device: str, torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    for module, optimizer in ((lr_scheduler, one), (torch.optim.lr_scheduler, other)):
        schedule = module.ExponentialLR(optimizer, 0.9)
        schedule.step()
        optimizer.param_groups[0]["lr"] = 7.0
        schedule.step()
    numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)


def test_user_defined_schedule(device: str) -> None:
    class Halves(lr_scheduler.LRScheduler):
        def get_lr(self) -> list[float]:
            return [base / 2**self.last_epoch for base in self.base_lrs]

    optimizer = make_optimizer()
    schedule = Halves(optimizer)
    for _ in range(3):
        schedule.step()
    assert rates(optimizer) == [0.025, 0.00625]
    assert schedule.state_dict()["last_epoch"] == 3


def warm_up(module: Any, optimizer: Any) -> Any:
    """A schedule as published scripts write them: a subclass of ``_LRScheduler`` with ``get_lr``."""

    class WarmUp(module._LRScheduler):  # type: ignore[misc, name-defined]
        def __init__(self, optimizer: Any, steps: int, last_epoch: int = -1) -> None:
            self.steps = steps
            super().__init__(optimizer, last_epoch)

        def get_lr(self) -> Any:
            if self.last_epoch < self.steps:
                return [base * (self.last_epoch + 1) / self.steps for base in self.base_lrs]
            return [group["lr"] * 0.9 for group in self.optimizer.param_groups]

    return WarmUp(optimizer, 4)


def cycle(module: Any, optimizer: Any) -> Any:
    """A schedule with its own ``step``, which sets ``last_epoch`` and the rates."""

    class Cycle(module._LRScheduler):  # type: ignore[misc, name-defined]
        def __init__(self, optimizer: Any) -> None:
            self.at = -1
            super().__init__(optimizer, -1)

        def get_lr(self) -> Any:
            return [base * (1 + self.at) for base in self.base_lrs]

        def step(self, epoch: Any = None) -> None:
            self.at = (self.at + 1) % 5
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            for group, rate in zip(self.optimizer.param_groups, self.get_lr()):
                group["lr"] = rate

    return Cycle(optimizer)


@pytest.mark.parametrize("make", [warm_up, cycle])
def test_schedules_in_the_style_of_scripts_match_torch(make: Any, device: str, torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    mine, theirs = make(lr_scheduler, one), make(torch.optim.lr_scheduler, other)
    for _ in range(12):
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)
        assert mine.last_epoch == theirs.last_epoch
        mine.step()
        theirs.step()


# ---- state_dict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_state_dict_continues_in_a_new_scheduler(name: str, tmp_path: Any) -> None:
    """The state is saved to and loaded from a checkpoint."""
    one, other = make_optimizer(), make_optimizer()
    mine = ALL[name](lr_scheduler, one)
    for _ in range(33):
        mine.step()
    gpunet.save({"optimizer": one.state_dict(), "schedule": mine.state_dict()}, tmp_path / "state.safetensors")
    again = ALL[name](lr_scheduler, other)
    kept = gpunet.load(tmp_path / "state.safetensors")
    other.load_state_dict(kept["optimizer"])
    again.load_state_dict(kept["schedule"])
    for _ in range(50):
        assert (rates(one), momenta(one), mine.last_epoch) == (rates(other), momenta(other), again.last_epoch)
        mine.step()
        again.step()


@pytest.mark.parametrize("name", ALL)
def test_states_are_exchanged_with_torch_midway(name: str, device: str, torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    mine, theirs = ALL[name](lr_scheduler, one), ALL[name](torch.optim.lr_scheduler, other)
    for step in range(50):
        if step == 25:
            saved = copy.deepcopy([x.state_dict() for x in (one, mine, other, theirs)])
            one, other = make_optimizer(), make_torch_optimizer(torch)
            mine, theirs = ALL[name](lr_scheduler, one), ALL[name](torch.optim.lr_scheduler, other)
            for target, state in zip((other, theirs, one, mine), saved):
                target.load_state_dict(state)
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE, err_msg=f"step {step}")
        numpy.testing.assert_allclose(momenta(one), momenta(other), rtol=1e-12)
        mine.step()
        theirs.step()


#: (module, optimizer, last_epoch) -> schedule
FROM_A_STEP: dict[str, Callable[[Any, Any, int], Any]] = {
    "step": lambda m, o, e: m.StepLR(o, 7, 0.7, e),
    "multi step": lambda m, o, e: m.MultiStepLR(o, [9, 30], 0.5, e),
    "constant": lambda m, o, e: m.ConstantLR(o, 0.5, 40, e),
    "linear": lambda m, o, e: m.LinearLR(o, 0.1, 0.8, 50, e),
    "exponential": lambda m, o, e: m.ExponentialLR(o, 0.97, e),
    "polynomial": lambda m, o, e: m.PolynomialLR(o, 99, 1.5, e),
    "cosine": lambda m, o, e: m.CosineAnnealingLR(o, 40, 0.0, e),
    "warm restarts": lambda m, o, e: m.CosineAnnealingWarmRestarts(o, 40, 1, 0.0, e),
    "cyclic": lambda m, o, e: m.CyclicLR(o, 0.01, 0.2, 9, cycle_momentum=False, last_epoch=e),
    "lambda": lambda m, o, e: m.LambdaLR(o, half_after_three, e),
    "multiplicative": lambda m, o, e: m.MultiplicativeLR(o, half_after_three, e),
}


@pytest.mark.parametrize("name", FROM_A_STEP)
def test_last_epoch_continues_as_in_torch(name: str, torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    for module, optimizer in ((lr_scheduler, one), (torch.optim.lr_scheduler, other)):
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.3
        schedule = FROM_A_STEP[name](module, optimizer, 27)
        for _ in range(30):
            schedule.step()
    numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)


def test_changed_settings_take_effect(device: str) -> None:
    optimizer = make_optimizer()
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    schedule.step()
    schedule.gamma = 0.1
    schedule.step()
    numpy.testing.assert_allclose(rates(optimizer), [0.01, 0.0025])


# ---- recorded steps -------------------------------------------------------------------------------------------------


def training(name: str, kind: str = "SGD") -> tuple[Any, nn.Module, Any, Callable[[], Any]]:
    """Return a schedule, a model, its optimizer, and a training step with gradient clipping and the schedule."""
    gpunet.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    parts = [{"params": [*model[0].parameters()]}, {"params": [*model[2].parameters()], "lr": 0.05}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(gpunet.optim, kind)(parts, lr=0.2, **options)
    schedule = ALL[name](lr_scheduler, optimizer)
    x, y = gpunet.rand(8, 3), gpunet.rand(8, 1)

    def step() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        schedule.step()
        return loss, norm

    return schedule, model, optimizer, step


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().cpu().numpy().tobytes() for p in model.parameters()]


#: Schedules that also run 200 steps on the device "emulated", which is slow.
LONG = ("multi step", "one cycle", "sequence", "chain")


@pytest.mark.parametrize(
    "name, kind", [*((n, "SGD") for n in FORMULAS), *((n, "AdamW") for n in FORMULAS if n in WITH_MOMENTUM)]
)
def test_a_recorded_step_matches_the_eager_schedule(name: str, kind: str, device: str) -> None:
    steps = 200 if device == "cpu" or name in LONG else 20
    steps = min(steps, STEPS) if "one cycle" in name else steps  # the eager step raises after total_steps
    schedule, model, optimizer, step = training(name, kind)
    replayed, other, other_optimizer, other_step = training(name, kind)
    tape, captured = Tape(), gpunet.capture(other_step)
    for number in range(steps):
        loss, norm = step()
        if device == "cpu":
            results = captured()
            assert [r.item() for r in results] == [loss.item(), norm.item()]
        elif number:
            tape.replay()
        else:
            with record(tape):
                other_step()
        if number % 9 == 0 or number == steps - 1:
            assert rates(other_optimizer) == rates(optimizer) and momenta(other_optimizer) == momenta(optimizer)
            assert (replayed.last_epoch, replayed.get_last_lr()) == (number + 1, rates(optimizer))
            assert bits(other) == bits(model)
    if device == "cpu":
        assert len(captured.recordings) == 1


def test_a_recorded_step_uses_values_set_outside() -> None:
    schedule, model, optimizer, step = training("multi step")
    replayed, other, other_optimizer, other_step = training("multi step")
    captured = gpunet.capture(other_step)
    for number in range(60):
        for one, group_owner in ((schedule, optimizer), (replayed, other_optimizer)):
            if number == 10:
                group_owner.param_groups[0]["lr"] = 0.01
            if number == 20:
                one.gamma = 0.25
                one.load_state_dict(one.state_dict())  # applies the changed settings
            if number == 40:
                one.load_state_dict({**one.state_dict(), "milestones": [5, 7, 50, 60], "last_epoch": 4})
        step()
        captured()
        assert rates(optimizer) == rates(other_optimizer)
    assert bits(model) == bits(other)
    assert len(captured.recordings) == 2  # more milestones need a larger buffer, so the step records again


@pytest.mark.parametrize(
    "name, change",
    [
        ("exponential", lambda schedule: setattr(schedule, "gamma", 0.5)),
        ("cyclic", lambda schedule: setattr(schedule, "max_lrs", [0.5, 0.6])),
        ("cyclic", lambda schedule: schedule.base_lrs.__setitem__(0, 0.1)),
        ("one cycle with momentum", lambda schedule: schedule.max_momentums.__setitem__(1, 0.5)),
        ("one cycle", lambda schedule: schedule.optimizer.param_groups[0].update(max_lr=0.5)),
    ],
)
def test_a_recorded_step_uses_changed_settings_of_its_schedule(name: str, change: Callable[[Any], None]) -> None:
    schedule, model, optimizer, step = training(name)
    replayed, other, other_optimizer, other_step = training(name)
    captured = gpunet.capture(other_step)
    for number in range(9):
        if number == 4:
            change(schedule)
            change(replayed)
        step()
        captured()
        assert rates(optimizer) == rates(other_optimizer) and momenta(optimizer) == momenta(other_optimizer)
    assert bits(model) == bits(other)


@pytest.mark.parametrize("wrap", [gpunet.capture, lambda step: step])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_momentum_that_is_zero_for_one_step_matches_torch(wrap: Any, by_hand: bool, torch: Any) -> None:
    """The momentum is set to zero by hand, or it is zero in its cycle when a state_dict is loaded."""
    results = []
    for library, schedules in ((gpunet, lr_scheduler), (torch, torch.optim.lr_scheduler)):
        weight = library.ones(3, dtype=library.float64, requires_grad=True)
        optimizer = library.optim.SGD([weight], lr=0.1, momentum=0.9)
        schedule = schedules.CyclicLR(optimizer, 0.01, 0.1, 4, base_momentum=0.8 if by_hand else 0.0)

        def step(optimizer: Any = optimizer, schedule: Any = schedule, weight: Any = weight) -> None:
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
            schedule.step()

        step = wrap(step) if library is gpunet else step
        for number in range(12):
            if number == 4 and by_hand:
                optimizer.param_groups[0]["momentum"] = 0.0
            elif number == 4:
                for one in (schedule, optimizer):
                    one.load_state_dict(one.state_dict())
            step()
        results.append(weight.tolist())
    numpy.testing.assert_allclose(*results, **CLOSE)


@pytest.mark.parametrize("name", ["cyclic with momentum", "one cycle with momentum", "plateau"])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_state_dict_of_torch_is_accepted(name: str, kind: str, torch: Any) -> None:
    def make(schedules: Any, optimizer: Any) -> Any:
        return schedules.ReduceLROnPlateau(optimizer, patience=1) if name == "plateau" else ALL[name](schedules, optimizer)

    one, other = make_optimizer(kind), make_torch_optimizer(torch, kind)
    mine, reference = make(lr_scheduler, one), make(torch.optim.lr_scheduler, other)
    for number in range(12):
        if number == 6:
            one.load_state_dict(other.state_dict())
            mine.load_state_dict(reference.state_dict())
        for schedule in (mine, reference) if number > 5 else (reference,):
            schedule.step(*([1.0] if name == "plateau" else []))
    numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE)
    numpy.testing.assert_allclose(momenta(one), momenta(other), **CLOSE)


def test_python_schedules_raise_while_recording() -> None:
    def assert_raises(act: Callable[[], Any], match: str) -> None:
        with pytest.raises(CaptureError, match=match), record(Tape(strict=True)):
            act()

    for name in PYTHON:
        schedule = PYTHON[name](lr_scheduler, make_optimizer())
        match = "outside"
        assert_raises(schedule.step, match)
    optimizer = make_optimizer()
    assert_raises(lambda: lr_scheduler.ReduceLROnPlateau(optimizer), "before the step is recorded")
    plateau, warm = lr_scheduler.ReduceLROnPlateau(optimizer), lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3)
    assert_raises(lambda: plateau.step(gpunet.ones(1)), "reads a metric")
    assert_raises(lambda: warm.step(1.5), "counts on the device")
    assert_raises(lambda: optimizer.param_groups[0]["lr"], "reads a tensor's value")
    assert_raises(lambda: optimizer.param_groups[0]["momentum"], "reads a tensor's value")
    assert_raises(lambda: optimizer.param_groups[0].update(optimizer.param_groups[0].items()), "reads a tensor's value")
    assert_raises(lambda: optimizer.param_groups[0].__setitem__("lr", 0.1), "set it outside the step")
    assert_raises(lambda: warm.last_epoch, "last_epoch")


def test_capturing_a_lambda_schedule_names_the_way_out() -> None:
    optimizer = make_optimizer()
    schedule = lr_scheduler.LambdaLR(optimizer, half_after_three)

    @gpunet.capture
    def step() -> None:
        schedule.step()

    with pytest.raises(CaptureError, match=r"LambdaLR\.step\(\), which runs Python code.*call it outside the step"):
        step()


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_invalid_arguments_raise() -> None:
    optimizer = make_optimizer()
    S = lr_scheduler
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (DtypeError, "expected an optimizer", lambda: S.StepLR("SGD", 3)),
        (ArgumentError, "step_size=0", lambda: S.StepLR(optimizer, 0)),
        (ArgumentError, "factor=0.0", lambda: S.ConstantLR(optimizer, 0.0)),
        (ArgumentError, "start_factor=2.0", lambda: S.LinearLR(optimizer, 2.0)),
        (ArgumentError, "T_mult=1.5", lambda: S.CosineAnnealingWarmRestarts(optimizer, 3, 1.5)),
        (ArgumentError, "mode='up'", lambda: S.CyclicLR(optimizer, 0.1, 0.2, mode="up")),
        (ArgumentError, "without a number of steps", lambda: S.OneCycleLR(optimizer, 0.1)),
        (ArgumentError, "momentum -0.5; expected zero or a", lambda: S.OneCycleLR(optimizer, 0.1, 10, max_momentum=-0.5)),
        (ArgumentError, "without a step", lambda: S.OneCycleLR(optimizer, 0.1, 10, pct_start=0.1)),
        (ArgumentError, "3 values for 2", lambda: S.OneCycleLR(optimizer, [0.1, 0.2, 0.3], 10)),
        (ArgumentError, "1 functions for 2", lambda: S.LambdaLR(optimizer, [half_after_three])),
        (DtypeError, "3 has type int", lambda: S.LambdaLR(optimizer, 3)),
        (ArgumentError, "at least one", lambda: S.ChainedScheduler([])),
        (ArgumentError, "another optimizer", lambda: S.SequentialLR(optimizer, [S.StepLR(make_optimizer(), 3)], [])),
        (ArgumentError, "ascending order", lambda: S.SequentialLR(optimizer, [S.StepLR(optimizer, 3)], [4])),
        (ArgumentError, "needs a metric", lambda: S.ChainedScheduler([S.ReduceLROnPlateau(optimizer)])),
        (ArgumentError, "without a metric", lambda: S.ReduceLROnPlateau(optimizer).step()),
        (ArgumentError, "no 'initial_lr'", lambda: S.StepLR(make_optimizer(), 3, last_epoch=5)),
        (StateDictError, "'gamma'", lambda: S.CosineAnnealingLR(optimizer, 3).load_state_dict({"gamma": 1, "last_epoch": 3})),
        (StateDictError, "'last_epoch'", lambda: S.StepLR(optimizer, 3).load_state_dict({"gamma": 1})),
        (StateDictError, "for 3 param", lambda: S.StepLR(optimizer, 3).load_state_dict({"base_lrs": [1] * 3, "last_epoch": 3})),
        (StateDictError, "of 0 schedulers", lambda: S.ChainedScheduler([S.StepLR(optimizer, 3)]).load_state_dict({})),
    ]  # fmt: skip
    for error, match, act in wrong:
        with pytest.raises(error, match=match):
            act()


def test_steps_after_one_cycle_and_nested_sequences_raise() -> None:
    optimizer = make_optimizer()
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, 10, cycle_momentum=False)
    for _ in range(10):
        schedule.step()
    with pytest.raises(ArgumentError, match="step 11 of a schedule of 10"):
        schedule.step()
    nested = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.StepLR(optimizer, 2)], [])
    with pytest.raises(ArgumentError, match="cannot restart"):
        lr_scheduler.SequentialLR(optimizer, [nested], [])


ADOPTING = {
    "StepLR": lambda m, o: m.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [1, 4], 0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.5, total_iters=6),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4),
    "SequentialLR": lambda m, o: m.SequentialLR(o, [m.ExponentialLR(o, 0.9), m.ConstantLR(o, 0.5)], [4]),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler([m.ExponentialLR(o, 0.9), m.StepLR(o, 3, 0.5)]),
}


@pytest.mark.parametrize("name", ADOPTING)
def test_a_group_added_later_goes_on_from_its_own_rate(name: str, device: str) -> None:
    """As if the schedule had a group with this rate from the time when it was added."""
    optimizer = gpunet.optim.SGD([gpunet.zeros(1, requires_grad=True)], lr=0.1)
    schedule = ADOPTING[name](lr_scheduler, optimizer)
    first, second = [], []
    for number in range(8):
        if number == 2:
            optimizer.add_param_group({"params": gpunet.zeros(1, requires_grad=True), "lr": schedule.get_last_lr()[0] * 3.0})
            if "Warm" in name:
                optimizer.param_groups[1]["initial_lr"] = 0.3
        schedule.step()
        first.append(optimizer.param_groups[0]["lr"])
        second += [group["lr"] for group in optimizer.param_groups[1:]]
    assert second[0] == pytest.approx(3.0 * first[2], rel=1e-12)
    if name != "SequentialLR":  # where the second schedule starts from initial_lr
        assert second == pytest.approx([3.0 * rate for rate in first[2:]], rel=1e-12)
    assert len(schedule.get_last_lr()) == 2


def test_a_group_added_later_matches_torch(torch: Any) -> None:
    rates = []
    for module in (gpunet, torch):
        optimizer = module.optim.SGD([module.zeros(1, requires_grad=True)], lr=0.1)
        schedule = module.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        optimizer.step()
        schedule.step()
        optimizer.add_param_group({"params": [module.zeros(1, requires_grad=True)], "lr": 0.4})
        rates.append([])
        for _ in range(5):
            optimizer.step()
            schedule.step()
            rates[-1] += [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == pytest.approx(rates[1])


def test_plateau_adopts_a_group_with_the_common_bound(device: str) -> None:
    optimizer = gpunet.optim.SGD([gpunet.zeros(1, requires_grad=True)], lr=0.1)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=0.02)
    optimizer.add_param_group({"params": gpunet.zeros(1, requires_grad=True), "lr": 0.03})
    for _ in range(4):
        schedule.step(1.0)
    assert schedule.get_last_lr() == pytest.approx([0.02, 0.02])
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, min_lr=[0.0, 0.0])
    optimizer.add_param_group({"params": gpunet.zeros(1, requires_grad=True)})
    with pytest.raises(ArgumentError, match="min_lr is a list without a value for it"):
        schedule.step(1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10), lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, cycle_momentum=False),
        lambda o: lr_scheduler.LambdaLR(o, lambda step: 1.0), lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 1.0),
    ],
    ids=["one cycle", "cyclic", "lambda", "multiplicative"],
)  # fmt: skip
def test_schedules_with_options_per_group_refuse_a_new_group(make: Any) -> None:
    optimizer = make_optimizer()
    schedule = make(optimizer)
    optimizer.add_param_group({"params": gpunet.zeros(1, requires_grad=True)})
    with pytest.raises(ArgumentError, match="created for 2 parameter groups"):
        schedule.step()


@pytest.mark.parametrize("name", ADOPTING)
def test_captured_steps_adopt_a_group(name: str, device: str) -> None:
    def rates(captures: bool) -> list[list[float]]:
        optimizer = gpunet.optim.SGD([gpunet.ones(1, requires_grad=True)], lr=0.1)
        schedule = ADOPTING[name](lr_scheduler, optimizer)

        def step() -> None:
            optimizer.step()
            schedule.step()

        run = gpunet.capture(step) if captures else step
        found = []
        for number in range(7):
            if number == 3:
                optimizer.add_param_group({"params": gpunet.ones(1, requires_grad=True), "lr": 0.3})
            run()
            found.append([group["lr"] for group in optimizer.param_groups])
        return found

    assert rates(True) == rates(False)


EPOCHS = {
    **{name: make for name, make in ADOPTING.items() if name not in ("SequentialLR", "ChainedScheduler")},
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 7, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 5, 0.01),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda step: 0.9),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.1, 0.3, 3, cycle_momentum=False),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.3, 20, cycle_momentum=False),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_step_with_an_epoch_matches_torch(name: str, device: str, torch: Any) -> None:
    rates = []
    for module in (gpunet, torch):
        optimizer = module.optim.SGD([module.zeros(1, requires_grad=True)], lr=0.1)
        schedule = EPOCHS[name](module.optim.lr_scheduler, optimizer)
        rates.append([])
        optimizer.step()
        for epoch in (1, 4, 3, 0, 9, None, None, 6):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                schedule.step(epoch)
            rates[-1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    if name != "CosineAnnealingWarmRestarts":  # whose epoch is no deprecated argument
        with pytest.warns(UserWarning, match=rf"{name}: step\(epoch\) is deprecated"):
            EPOCHS[name](lr_scheduler, make_optimizer()).step(3)


def test_verbose_warns_and_has_no_effect() -> None:
    for name in (*EPOCHS, "ReduceLROnPlateau"):
        arguments = {"StepLR": (2,), "MultiStepLR": ([1],), "ExponentialLR": (0.9,), "CosineAnnealingWarmRestarts": (4,)}
        arguments |= {"CosineAnnealingLR": (5,), "LambdaLR": (lambda step: 1.0,), "MultiplicativeLR": (lambda step: 1.0,)}
        arguments |= {"CyclicLR": (0.1, 0.2), "OneCycleLR": (0.1, 20)}
        with pytest.warns(UserWarning, match=f"{name}: verbose has no effect.*get_last_lr"):
            getattr(lr_scheduler, name)(make_optimizer(), *arguments.get(name, ()), verbose=True)
        getattr(lr_scheduler, name)(make_optimizer(), *arguments.get(name, ()), verbose=False)


def test_state_dicts_have_the_keys_of_torch(torch: Any) -> None:
    """Except what follows from the constructor there; extra keys are public attributes that the constructor sets."""
    for name, make in {**EPOCHS, **ADOPTING, "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o)}.items():
        mine, theirs = (
            make(module.optim.lr_scheduler, module.optim.SGD([module.zeros(1, requires_grad=True)], lr=0.1)).state_dict()
            for module in (gpunet, torch)
        )
        private = {"_is_initial", "_get_lr_called_within_step", "_scale_fn_custom", "_anneal_func_type", "_schedule_phases"}
        assert theirs.keys() - mine.keys() - private <= {"use_beta1", "mode_worse"}, name
        assert not {"kind", "rests_at_first"} & mine.keys()


def test_cycling_the_momentum_of_an_optimizer_without_momentum_raises() -> None:
    class Plain(gpunet.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

    optimizer = Plain([gpunet.zeros(1, requires_grad=True)])
    for make in (lambda: lr_scheduler.OneCycleLR(optimizer, 0.1, 10), lambda: lr_scheduler.CyclicLR(optimizer, 0.1, 0.2)):
        with pytest.raises(ArgumentError, match="Plain has no momentum; pass cycle_momentum=False"):
            make()
