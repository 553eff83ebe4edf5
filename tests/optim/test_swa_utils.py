"""Averages of weights and SWALR against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError
from gpunet.launch.tape import Tape, record
from gpunet.optim import swa_utils
from tests.optim.test_lr_scheduler import CLOSE, make_optimizer, make_torch_optimizer, rates
from tests.optim.test_optim import _counters_of_torch_in_float64  # noqa: F401  PyTorch divides by n_averaged in it

#: (swa_utils) -> options of AveragedModel
AVERAGES: dict[str, Any] = {
    "equal": lambda m: {},
    "equal, by function": lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()},
    "equal, tensor by tensor": lambda m: {"avg_fn": m.get_swa_avg_fn()},
    "exponential": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.9)},
    "exponential with buffers": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.7), "use_buffers": True},
    "exponential, tensor by tensor": lambda m: {"avg_fn": m.get_ema_avg_fn(0.9)},
    "own": lambda m: {"multi_avg_fn": lambda a, b, n: [x.mul_(0.5).add_(y, alpha=0.5) for x, y in zip(a, b)] and None},
}


def model(module: Any) -> Any:
    """A linear layer with a buffer, whose values are the same in both modules."""

    class Counting(module.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = module.nn.Linear(3, 2).double()
            self.register_buffer("seen", module.zeros(2, dtype=module.float64))

        def forward(self, x: Any) -> Any:
            return self.linear(x)

    return set_weights(Counting(), module, 0)


def set_weights(made: Any, module: Any, seed: int) -> Any:
    generator = numpy.random.default_rng(seed)
    with module.no_grad():
        for t in (*made.parameters(), *made.buffers()):
            t.copy_(module.tensor(generator.normal(size=tuple(t.shape))))
    return made


def values(made: Any) -> dict[str, list[Any]]:
    return {name: t.tolist() for name, t in made.state_dict().items()}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_match_torch(name: str, device: str, torch: Any) -> None:
    mine, theirs = model(gpunet).to(device), model(torch)
    ours = swa_utils.AveragedModel(mine, **AVERAGES[name](swa_utils))
    reference = torch.optim.swa_utils.AveragedModel(theirs, **AVERAGES[name](torch.optim.swa_utils))
    for seed in range(1, 7):
        if seed == 4:  # states go both ways
            of_ours, of_theirs = ours.state_dict(), reference.state_dict()
            ours.load_state_dict({k: gpunet.tensor(v.numpy()) for k, v in of_theirs.items()})
            reference.load_state_dict({k: torch.tensor(v.cpu().numpy()) for k, v in of_ours.items()})
        for module, pair in ((gpunet, (ours, mine)), (torch, (reference, theirs))):
            set_weights(pair[1], module, seed)
            pair[0].update_parameters(pair[1])
        a, b = values(ours), values(reference)
        assert a.keys() == b.keys() and a["n_averaged"] == b["n_averaged"] == seed
        for key in a:
            numpy.testing.assert_allclose(a[key], b[key], rtol=1e-10, atol=1e-14)
    x = numpy.random.default_rng(9).normal(size=(4, 3))
    found, expected = ours(gpunet.tensor(x, device=device)), reference(torch.tensor(x))
    numpy.testing.assert_allclose(found.detach().cpu().numpy(), expected.detach().numpy(), rtol=1e-10)


def test_the_functions_match_torch_on_lists(device: str, torch: Any) -> None:
    """Also of integers and of halves; a count may be a number or a tensor."""
    for make, count in ((lambda m: m.get_ema_multi_avg_fn(0.9), 3), (lambda m: m.get_swa_multi_avg_fn(), 3)):
        found = []
        for module, where in ((gpunet, {"device": device}), (torch, {})):
            for number in (count, module.tensor(count, **where)):
                a = [module.tensor([1.0, 2.0], dtype=module.float64, **where), module.tensor([1.0], dtype=module.float16, **where)]
                make(module.optim.swa_utils)(a, [2.0 * t for t in a], number)
                found.append([t.tolist() for t in a])
        for other in found[1:]:
            for x, y in zip(found[0], other):
                numpy.testing.assert_allclose(x, y, rtol=1e-3 if len(x) == 1 else 1e-12)
    a, b = gpunet.tensor([10, 20], device=device), gpunet.tensor([20, 10], device=device)
    swa_utils.get_ema_multi_avg_fn(0.75)([a], [b], 1)
    x, y = torch.tensor([10, 20]), torch.tensor([20, 10])
    torch.optim.swa_utils.get_ema_multi_avg_fn(0.75)([x], [y], 1)
    assert a.tolist() == x.tolist()


def test_an_update_is_one_launch_of_averages_and_is_captured(device: str) -> None:
    mine = model(gpunet).to(device)
    for make in (swa_utils.get_ema_multi_avg_fn, swa_utils.get_swa_multi_avg_fn):
        eager, captured = (swa_utils.AveragedModel(mine, multi_avg_fn=make()) for _ in range(2))
        with record(Tape()) as tape:
            eager.update_parameters(mine)
        assert [x.kernel.name for x in tape.launches].count("average_step") == 1
        step = gpunet.capture(lambda captured=captured: captured.update_parameters(mine))
        step()
        for seed in range(3):
            set_weights(mine, gpunet, seed)
            eager.update_parameters(mine)
            step()
            assert values(eager) == values(captured)
        assert len(step.recordings) == 1
    other = swa_utils.AveragedModel(mine, avg_fn=swa_utils.get_ema_avg_fn())
    with pytest.raises(CaptureError, match="truth value"):
        gpunet.capture(lambda: other.update_parameters(mine))()


def test_halves_are_averaged_in_float32(device: str) -> None:
    half = gpunet.nn.Linear(64, 64).to(device).to(gpunet.float16)
    ema = swa_utils.AveragedModel(half, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.75))
    ema.update_parameters(half)
    before = half.weight.detach().cpu().numpy().astype("float64")
    with gpunet.no_grad():
        half.weight.mul_(3.0)
    after = half.weight.detach().cpu().numpy().astype("float64")
    ema.update_parameters(half)
    found = ema.module.weight.detach().cpu().numpy()
    assert (found == (0.75 * before + 0.25 * after).astype("float16")).mean() > 0.999  # float32 may break a tie the other way


def test_invalid_averages_raise() -> None:
    with pytest.raises(ArgumentError, match=r"decay=1.5; expected a number in \[0, 1\]"):
        swa_utils.get_ema_multi_avg_fn(1.5)
    with pytest.raises(ArgumentError, match="decay=-1"):
        swa_utils.get_ema_avg_fn(-1)
    functions = {"avg_fn": swa_utils.get_ema_avg_fn(), "multi_avg_fn": swa_utils.get_ema_multi_avg_fn()}
    with pytest.raises(ArgumentError, match="avg_fn and multi_avg_fn; pass one"):
        swa_utils.AveragedModel(gpunet.nn.Linear(1, 1), **functions)


class Norm(gpunet.nn.Module):
    """Running means, as a batch normalization has them."""

    def __init__(self) -> None:
        super().__init__()
        self.momentum: float | None = 0.1
        self.register_buffer("running_mean", gpunet.ones(2))
        self.count = 5

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()  # type: ignore[operator]
        self.count = 0

    def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
        if self.training:
            self.count += 1
            share = 1.0 / self.count if self.momentum is None else self.momentum
            self.running_mean.lerp_(x.mean(0), share) if hasattr(x, "lerp_") else self.running_mean.copy_(  # type: ignore[operator]
                self.running_mean + share * (x.mean(0) - self.running_mean)  # type: ignore[operator]
            )
        return x


def test_update_bn_averages_the_statistics_of_all_batches(device: str) -> None:
    net = gpunet.nn.Sequential(Norm(), gpunet.nn.Linear(2, 1)).to(device).eval()
    batches = [gpunet.rand(4, 2, device="cpu") for _ in range(3)]
    swa_utils.update_bn([(x, None) for x in batches], net, device=device)
    expected = numpy.mean([x.numpy().mean(0) for x in batches], axis=0)
    numpy.testing.assert_allclose(net[0].running_mean.cpu().numpy(), expected, rtol=1e-5)
    assert net[0].momentum == 0.1 and not net.training
    swa_utils.update_bn([batches[0]], gpunet.nn.Linear(2, 1))  # nothing to do: the model is not called


# ---- SWALR ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [10, 1, 0])
@pytest.mark.parametrize("before", [0, 7])
def test_swalr_matches_torch_with_states_exchanged_midway(strategy: str, epochs: int, before: int, device: str, torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    first, second = gpunet.optim.lr_scheduler.ExponentialLR(one, 0.9), torch.optim.lr_scheduler.ExponentialLR(other, 0.9)
    for _ in range(before):
        first.step(), second.step()
    mine = swa_utils.SWALR(one, [0.05, 0.5], epochs, strategy)
    theirs = torch.optim.swa_utils.SWALR(other, [0.05, 0.5], epochs, strategy)
    for number in range(50):
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE, err_msg=f"step {number}")
        if number == 5:
            of_mine, of_theirs = mine.state_dict(), theirs.state_dict()
            mine = swa_utils.SWALR(make_optimizer(), 0.1, 3)
            mine.optimizer = one
            mine.load_state_dict(of_theirs)
            theirs.load_state_dict(of_mine)
        mine.step(), theirs.step()
    assert rates(one) == [0.05, 0.5] and mine.get_last_lr() == [0.05, 0.5]


def test_swalr_in_a_sequence_matches_torch(torch: Any) -> None:
    one, other = make_optimizer(), make_torch_optimizer(torch)
    schedules = []
    for module, optimizer in ((gpunet, one), (torch, other)):
        rates_of = module.optim.lr_scheduler
        parts = [rates_of.ExponentialLR(optimizer, 0.9), module.optim.swa_utils.SWALR(optimizer, 0.01, 6)]
        schedules.append(rates_of.SequentialLR(optimizer, parts, [5]))
    for number in range(20):
        numpy.testing.assert_allclose(rates(one), rates(other), **CLOSE, err_msg=f"step {number}")
        for schedule in schedules:
            schedule.step()


def test_swalr_is_part_of_a_recorded_step(device: str) -> None:
    found = []
    for captured in (False, True):
        optimizer = make_optimizer()
        schedule = swa_utils.SWALR(optimizer, 0.01, 6)
        step = gpunet.capture(schedule.step) if captured else schedule.step
        found.append([step() or rates(optimizer) for _ in range(9)])
    assert found[0] == found[1] and found[0][-1] == [0.01, 0.01]


def test_invalid_swalr_raises() -> None:
    optimizer = make_optimizer()
    with pytest.raises(ArgumentError, match="anneal_strategy='square'; expected 'cos' or 'linear'"):
        swa_utils.SWALR(optimizer, 0.1, anneal_strategy="square")
    with pytest.raises(ArgumentError, match="anneal_epochs=-1"):
        swa_utils.SWALR(optimizer, 0.1, -1)
    schedule = swa_utils.SWALR(optimizer, 0.1)
    with pytest.warns(UserWarning, match="deprecated"), pytest.raises(ArgumentError, match=r"SWALR.step\(3\)"):
        schedule.step(3)
    optimizer.add_param_group({"params": [gpunet.zeros(1, requires_grad=True)]})
    with pytest.raises(ArgumentError, match="without 'swa_lr'"):
        schedule.step()


def test_averages_in_strided_memory_are_moved(device: str) -> None:
    average, value = gpunet.zeros(3, 2, device=device).T, gpunet.ones(3, 2, device=device).T
    swa_utils.get_ema_multi_avg_fn(0.75)([average], [value], 1)
    assert average.tolist() == [[0.25] * 3] * 2
