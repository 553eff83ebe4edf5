"""GradScaler: PyTorch's scales, steps that are skipped on the device, and networks that train in float16 only with it."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.amp import GradScaler
from gpunet.errors import ArgumentError, CaptureError, DtypeError, GradientError, StateDictError
from tests.ops.test_ops import to_numpy
from tests.optim.test_optim import SHAPES, VARIANTS

inf, nan = float("inf"), float("nan")
BACKENDS = ("eager", "numpy", "numba")


def captured(step: Callable[..., Any], backend: str) -> Any:
    return step if backend == "eager" else gpunet.capture(step, backend=backend)


def scaled_step(p: Any, optimizer: Any, scaler: GradScaler, schedule: Any = None) -> Callable[[Any], None]:
    """A step whose gradient of ``p`` is its argument."""

    def step(g: Any) -> None:
        optimizer.zero_grad()
        scaler.scale((p * g).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()

    return step


@pytest.mark.parametrize("backend", BACKENDS)
def test_scales_are_those_of_torch(backend: str, device: str, torch: Any) -> None:
    pattern = [1, 1, 1, inf, 1, nan, -inf, 1, 1, 1, 1, 1, inf, inf, 1, 1, 1, 1, 1, 1]
    options = {"init_scale": 2.0**10, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    theirs = torch.amp.GradScaler("cpu", **options)
    q = torch.ones(3, requires_grad=True)
    their_optimizer = torch.optim.SGD([q], lr=0.5)
    mine = GradScaler("cpu", **options)
    p = gpunet.ones(3, device=device, requires_grad=True)
    step = captured(scaled_step(p, gpunet.optim.SGD([p], lr=0.5), mine), backend)
    for g in pattern:
        their_optimizer.zero_grad()
        theirs.scale((q * torch.tensor([1.0, g, 2.0])).sum()).backward()
        theirs.step(their_optimizer)
        theirs.update()
        step(gpunet.tensor([1.0, g, 2.0], device=device))
        assert mine.state_dict() == theirs.state_dict()
        assert mine.stepped == (g == 1)
        numpy.testing.assert_allclose(to_numpy(p), q.detach().numpy(), rtol=1e-6)
    if backend != "eager":
        assert len(step.recordings) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, options", VARIANTS, ids=lambda v: v if isinstance(v, str) else ", ".join(v))
def test_a_skipped_step_changes_nothing(name: str, options: dict[str, Any], backend: str, torch: Any) -> None:
    """Afterwards the steps go on as if it had not been: the step count, too, has not moved."""
    random = numpy.random.default_rng(0)
    first = [random.normal(size=s).astype("float32") for s in SHAPES]
    batches = [[random.normal(size=s).astype("float32") for s in SHAPES] for _ in range(4)]
    results = []
    for bad_at in ((), (0, 2, 3)):
        params = [gpunet.tensor(a, requires_grad=True) for a in first]
        optimizer = getattr(gpunet.optim, name)(params, **options)
        scaler = GradScaler("cpu", init_scale=4.0)

        def step(*gradients: Any, params: Any = params, optimizer: Any = optimizer, scaler: Any = scaler) -> None:
            optimizer.zero_grad()
            scaler.scale(gpunet.stack([(p * g).sum() for p, g in zip(params, gradients)]).sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        run = captured(step, backend)
        for number, batch in enumerate(batches):
            if number in bad_at:
                spoilt = [a.copy() for a in batch]
                spoilt[-1].reshape(-1)[0] = inf
                run(*map(gpunet.tensor, spoilt))
                assert not scaler.stepped
            run(*map(gpunet.tensor, batch))
            assert scaler.stepped
        state = [to_numpy(v) for p in params for v in optimizer.state[p].values()]
        results.append([*map(to_numpy, params), *state])
    for expected, found in zip(*results, strict=True):
        numpy.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)  # compiled steps round otherwise in the two programs


def test_optimizers_skip_on_the_device(device: str) -> None:
    """The step count and the state stay, in several dtypes and launches."""
    for dtype in ("float32", "float64", "bfloat16"):
        params = [gpunet.ones(5 + i % 3, device=device, dtype=dtype, requires_grad=True) for i in range(60)]
        optimizer, scaler = gpunet.optim.Adam(params, lr=0.5), GradScaler("cpu", init_scale=2.0)
        for bad, expected in ((False, 1.0), (True, 1.0), (False, 2.0)):
            optimizer.zero_grad()
            losses = gpunet.stack([p.float().sum() for p in params])
            if bad:
                losses = losses * gpunet.tensor([1.0] * 59 + [inf], device=device)
            scaler.scale(losses.sum()).backward()
            before = [to_numpy(p).copy() for p in params]
            scaler.step(optimizer)
            scaler.update()
            assert {float(optimizer.state[p]["step"].item()) for p in params} == {expected}
            assert all((to_numpy(p) == b).all() == bad for p, b in zip(params, before))
            assert scaler.stepped != bad


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "exponential": lambda o: gpunet.optim.lr_scheduler.ExponentialLR(o, 0.5),
    "one cycle": lambda o: gpunet.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "lambda": lambda o: gpunet.optim.lr_scheduler.LambdaLR(o, lambda t: 1.0 / (t + 1)),
    "sequential": lambda o: gpunet.optim.lr_scheduler.SequentialLR(
        o, [gpunet.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2), gpunet.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "chained": lambda o: gpunet.optim.lr_scheduler.ChainedScheduler(
        [gpunet.optim.lr_scheduler.ExponentialLR(o, 0.9), gpunet.optim.lr_scheduler.StepLR(o, 2)]
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_stays_where_it_is(name: str, backend: str, device: str) -> None:
    if name == "lambda" and backend != "eager":
        pytest.skip("it runs Python code")
    rates = []
    for pattern in ([1, 1, 1, 1], [inf, 1, 1, inf, inf, 1, 1]):
        p = gpunet.ones(3, device=device, requires_grad=True)
        optimizer = gpunet.optim.SGD([p], lr=0.5)
        scaler, schedule = GradScaler("cpu", init_scale=4.0), SCHEDULES[name](optimizer)
        step, found = captured(scaled_step(p, optimizer, scaler, schedule), backend), []
        for g in pattern:
            before = schedule.get_last_lr()
            step(gpunet.tensor([1.0, g, 1.0], device=device))
            if g == 1:
                found.append(schedule.get_last_lr()[0])
            else:
                assert schedule.get_last_lr() == before
        rates.append([*found, schedule.last_epoch])
        if backend != "eager":
            assert len(step.recordings) == 1
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)
    p.grad = gpunet.ones(3, device=device)
    optimizer.step()  # without a scaler
    schedule.step()
    assert schedule.last_epoch == 5


def test_an_infinite_gradient_of_a_part_skips_the_step_of_all() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=1.0), GradScaler("cpu", init_scale=8.0)

    def window(*factors: float) -> None:
        optimizer.zero_grad()
        for factor in factors:
            scaler.scale((p * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    window(1.0, inf, 1.0)
    assert to_numpy(p).tolist() == [1.0, 1.0] and scaler.get_scale() == 4.0
    window(1.0, -inf, inf)  # their sum is NaN
    assert to_numpy(p).tolist() == [1.0, 1.0] and scaler.get_scale() == 2.0
    window(0.25, 0.25, 0.25)
    assert to_numpy(p).tolist() == [0.25, 0.25] and scaler.get_scale() == 2.0


def test_two_optimizers_share_a_scaler(torch: Any) -> None:
    """One is skipped, the other steps, and the scale backs off, as in PyTorch."""
    results = []
    for library, scaler in ((gpunet, GradScaler("cpu", init_scale=8.0)), (torch, torch.amp.GradScaler("cpu", init_scale=8.0))):
        a, b = (library.ones(2, requires_grad=True) for _ in range(2))
        optimizers = [library.optim.SGD([p], lr=1.0) for p in (a, b)]
        scaler.scale((a * 0.5).sum() + (b * inf).sum()).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        results.append([a.tolist(), b.tolist(), scaler.get_scale()])
    assert results[0] == results[1] == [[0.5, 0.5], [1.0, 1.0], 4.0]


def losses_of_training(scaler: GradScaler | None, backend: str) -> list[float]:
    """Train on targets so large that gradients overflow in float16 at a scale of 1."""
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = gpunet.optim.Adam(model.parameters(), lr=0.05)
    x = gpunet.randn(64, 8)
    y = 50.0 * x[:, :1] + 3000.0

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with gpunet.autocast("cpu", dtype=gpunet.float16):
            loss = nn.functional.mse_loss(model(x), y, reduction="sum")
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    run = captured(step, backend)
    return [run(x, y).item() for _ in range(120)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_diverges_without_scaling_trains_with_it(backend: str) -> None:
    assert numpy.isnan(losses_of_training(None, backend)[-1])
    scaler = GradScaler("cpu")
    losses = losses_of_training(scaler, backend)
    assert losses[-1] < losses[0] and scaler.get_scale() < 1.0 and scaler.stepped


def test_small_gradients_reach_the_parameters_only_with_scaling() -> None:
    moved = []
    for scaler in (GradScaler("cpu", enabled=False), GradScaler("cpu")):
        layer = nn.Linear(4, 4, bias=False)
        optimizer = gpunet.optim.SGD(layer.parameters(), lr=1e6)
        before = to_numpy(layer.weight).copy()
        with gpunet.autocast("cpu", dtype=gpunet.float16):
            loss = layer(gpunet.ones(2, 4)).float().sum() * 1e-8
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        moved.append(float(numpy.abs(to_numpy(layer.weight) - before).max()))
    assert moved[0] == 0.0 and moved[1] == pytest.approx(0.02, rel=0.01)


def test_clipping_scaled_gradients_warns() -> None:
    p = gpunet.ones(3, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=8.0)
    for clip in (
        lambda: nn.utils.clip_grad_norm_([p], 1.0), lambda: nn.utils.clip_grad_value_(p, 1.0),
        lambda: nn.utils.clip_grads_with_norm_([p], 1.0, gpunet.tensor(8.0)),
    ):  # fmt: skip
        optimizer.zero_grad()
        scaler.scale(p.sum()).backward()
        with pytest.warns(UserWarning, match=r"clip_grad.*_: the gradients are those of a loss that GradScaler.scale"):
            clip()
        scaler.unscale_(optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip()
        scaler.step(optimizer)
        scaler.update()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip()


@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_skipped_steps_in_a_row_raise(backend: str, device: str) -> None:
    p = gpunet.ones(3, device=device, requires_grad=True)
    scaler = GradScaler("cpu")
    step = captured(scaled_step(p, gpunet.optim.Adam([p]), scaler), backend)
    bad, good = (gpunet.tensor([1.0, v, 1.0], device=device) for v in (nan, 1.0))
    for g in [bad] * 19 + [good] + [bad] * 19:
        step(g)
    gpunet.synchronize(device)

    def skip_again() -> None:
        step(bad)
        gpunet.synchronize(device)

    with pytest.raises(GradientError, match=r"the last 20 steps of Adam were skipped, the last at a scale of 2.38"):
        skip_again()
    assert scaler.get_scale() == 2.0**-23
    step(good)
    assert scaler.stepped


def test_unscaled_gradients_can_be_read(torch: Any) -> None:
    results = []
    for library, scaler in ((gpunet, GradScaler("cpu", init_scale=3.0)), (torch, torch.amp.GradScaler("cpu", init_scale=3.0))):
        p = library.ones(4, requires_grad=True)
        optimizer = library.optim.SGD([p], lr=0.5)
        scaler.scale((p * library.tensor([0.1, 0.2, 0.3, 0.7])).sum()).backward()
        scaler.unscale_(optimizer)
        results.append(p.grad.numpy().copy())
        assert scaler.step(optimizer) is None
        scaler.update(new_scale=16.0)
        assert scaler.get_scale() == 16.0
        scaler.update(new_scale=library.tensor(32.0))
        assert scaler.get_scale() == 32.0
    numpy.testing.assert_array_equal(*results)


def test_an_optimizer_with_its_own_step_is_skipped_on_the_host() -> None:
    class Own(gpunet.optim.Optimizer):
        calls = 0

        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.5})

        def step(self, closure: Any = None) -> Any:
            self.calls += 1
            return "stepped"

    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = Own([p]), GradScaler("cpu", init_scale=8.0)
    for g, expected in ((1.0, "stepped"), (inf, None), (1.0, "stepped")):
        p.grad = None
        scaler.scale((p * g).sum()).backward()
        assert scaler.step(optimizer) == expected
        scaler.update()
    assert optimizer.calls == 2
    with pytest.raises(CaptureError, match=r"GradScaler.step\(\) of Own, which has a step of its own"):
        gpunet.capture(scaled_step(p, optimizer, scaler))(gpunet.ones(2))


def test_state_is_saved_and_restored(torch: Any) -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=8.0, growth_interval=5)
    step = scaled_step(p, optimizer, scaler)
    for _ in range(7):
        step(gpunet.ones(2))
    state = scaler.state_dict()
    assert state == {"scale": 16.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5, "_growth_tracker": 2}
    theirs = torch.amp.GradScaler("cpu")
    theirs.load_state_dict(state)
    assert theirs.state_dict() == state
    fresh = GradScaler("cpu")
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    step(gpunet.tensor([inf, 1.0]))
    scaler.load_state_dict(state)
    assert scaler.state_dict() == state == copy.deepcopy(scaler).state_dict() == pickle.loads(pickle.dumps(scaler)).state_dict()
    with pytest.raises(StateDictError, match="GradScaler: the state has no 'scale'"):
        scaler.load_state_dict(GradScaler("cpu", enabled=False).state_dict())


def test_a_disabled_scaler_does_nothing() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", enabled=False)
    loss = (p * 3.0).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1.0 and not scaler.is_enabled()
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert to_numpy(p).tolist() == [-0.5, -0.5] and scaler.state_dict() == {}


def test_wrong_order_and_arguments_are_refused_in_words() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=8.0)
    for function in ("unscale_", "step"):
        with pytest.raises(GradientError, match=rf"GradScaler.{function}: no loss was scaled yet; call scaler.scale\(loss\)"):
            getattr(scaler, function)(optimizer)
    loss = scaler.scale([p.sum()])[0]
    with pytest.raises(GradientError, match="no parameter of this SGD has a gradient"):
        scaler.step(optimizer)
    loss.backward()
    with pytest.raises(GradientError, match=r"GradScaler.update: no step\(\) since the last update"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(GradientError, match=r"unscale_\(\) was already called for this SGD since the last update"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(GradientError, match=r"GradScaler.unscale_: step\(\) was already called"):
        scaler.unscale_(optimizer)
    with pytest.raises(GradientError, match=r"GradScaler.step: step\(\) was already called"):
        scaler.step(optimizer)
    with pytest.raises(ArgumentError, match="GradScaler.step: got a closure"):
        scaler.step(optimizer, lambda: None)
    with pytest.raises(ArgumentError, match=r"new_scale is a tensor of shape \(2,\)"):
        scaler.update(gpunet.ones(2))
    with pytest.raises(DtypeError, match="new_scale has type str"):
        scaler.update("8")
    scaler.update()
    with pytest.raises(DtypeError, match="GradScaler.scale: outputs has type int"):
        scaler.scale(3)
    with pytest.raises(ArgumentError, match=r"growth_factor=1.0; expected a number above 1"):
        GradScaler("cpu", growth_factor=1.0)
    with pytest.raises(ArgumentError, match=r"backoff_factor=1.0; expected a number below 1"):
        GradScaler("cpu", backoff_factor=1.0)
    half = gpunet.ones(2, dtype=gpunet.float16, requires_grad=True)
    scaler.scale(half.float().sum()).backward()
    with pytest.raises(GradientError, match=r"a parameter of shape \(2,\) is float16"):
        scaler.step(gpunet.optim.SGD([half], lr=0.1))


def test_a_captured_step_must_leave_the_stage_that_it_finds() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=8.0)

    def without_update(g: Any) -> None:
        optimizer.zero_grad()
        scaler.scale((p * g).sum()).backward()
        scaler.step(optimizer)

    with pytest.raises(CaptureError, match=r"finds the gradients .* ready .* leaves them stepped .*: call scaler"):
        gpunet.capture(without_update)(gpunet.ones(2))


def test_options_of_the_scaler_are_guards() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=8.0, growth_interval=1)
    step = gpunet.capture(scaled_step(p, optimizer, scaler))
    step(gpunet.ones(2))
    assert scaler.get_scale() == 16.0
    scaler.set_growth_factor(4.0)
    step(gpunet.ones(2))
    assert scaler.get_scale() == 64.0 and len(step.recordings) == 2


def test_older_names_warn_and_work(torch: Any) -> None:
    from gpunet.cuda import amp

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        block, scaler = amp.autocast(enabled=False), amp.GradScaler(enabled=False)
    assert [w.category for w in caught] == [FutureWarning] * 2
    with block:
        assert not gpunet.is_autocast_enabled()
    assert not scaler.is_enabled()


@pytest.mark.skipif(gpunet.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_defaults_warn_and_do_nothing() -> None:
    with pytest.warns(UserWarning, match=r"GradScaler\('cuda'\) has no effect: there is no GPU"):
        assert not GradScaler().is_enabled()
    with pytest.warns(UserWarning, match=r"autocast\('cuda'\) has no effect: there is no GPU"), gpunet.autocast("cuda"):
        assert not gpunet.is_autocast_enabled("cuda")


class OwnStep(gpunet.optim.Optimizer):
    """An optimizer of a user, whose steps a GradScaler skips on the host."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.5})

    def step(self, closure: Any = None) -> Any:
        return "stepped"


def run_steps(pattern: str, optimizer: Any, p: Any, scaler: GradScaler, schedule: Any, backend: str = "eager") -> None:
    """Run steps: "." with finite gradients, "x" with infinite ones, "u" without the scaler, "|" of the schedule."""
    step = captured(scaled_step(p, optimizer, scaler), backend)
    for action in pattern:
        if action == "|":
            schedule.step()
        elif action == "u":
            p.grad = gpunet.ones(2, device=p.device)
            optimizer.step()
        else:
            step(gpunet.tensor([1.0, inf if action == "x" else 1.0], device=p.device))


@pytest.mark.parametrize("make", [lambda p: gpunet.optim.SGD([p], lr=0.5), lambda p: OwnStep([p])], ids=["SGD", "own step"])
@pytest.mark.parametrize("name", ["exponential", "lambda", "sequential", "chained"])
@pytest.mark.parametrize(
    "pattern, steps",
    [
        ("..x|", 1), ("x..|", 1), ("xx|", 0), ("xx|.|", 1), ("xx|x|.x|", 1), ("x|u|u|", 2), ("xu|", 1), ("x||", 1), (".||", 2),
        (".x|x|.|", 2),
    ],
)  # fmt: skip
def test_a_schedule_stays_only_if_all_steps_were_skipped(name: str, pattern: str, steps: int, make: Any, device: str) -> None:
    p = gpunet.ones(2, device=device, requires_grad=True)
    optimizer = make(p)
    schedule = SCHEDULES[name](optimizer)
    run_steps(pattern, optimizer, p, GradScaler("cpu", init_scale=4.0), schedule)
    assert schedule.last_epoch == steps


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_recorded_steps_are_counted_for_a_schedule_of_epochs(backend: str) -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer = gpunet.optim.SGD([p], lr=0.5)
    schedule = SCHEDULES["exponential"](optimizer)
    run_steps("...x|xx|.x|.|x|", optimizer, p, GradScaler("cpu", init_scale=4.0), schedule, backend)
    assert schedule.last_epoch == 3


def test_a_new_schedule_counts_only_later_steps() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=4.0)
    run_steps("..", optimizer, p, scaler, None)
    for name in ("exponential", "sequential"):
        schedule = SCHEDULES[name](optimizer)
        run_steps("x|", optimizer, p, scaler, schedule)
        assert schedule.last_epoch == 0
        copied = copy.deepcopy(schedule)  # with an optimizer of its own, which no scaler has stepped
        copied.step()
        assert copied.last_epoch == 1


def test_a_subclass_declares_whether_it_skips_on_the_device() -> None:
    class Same(gpunet.optim.SGD):
        pass

    class OwnUpdate(gpunet.optim.SGD):
        def update(self, group: Any, params: Any, grads: Any) -> None:
            super().update(group, params, grads)

    class OwnUpdateOnDevice(OwnUpdate):
        skips_on_device = True

    assert gpunet.optim.AdamW.skips_on_device and Same.skips_on_device and OwnUpdateOnDevice.skips_on_device
    assert not OwnUpdate.skips_on_device and not gpunet.optim.LBFGS.skips_on_device


def test_stepped_is_that_of_the_last_update() -> None:
    p = gpunet.ones(2, requires_grad=True)
    optimizer, scaler = gpunet.optim.SGD([p], lr=0.5), GradScaler("cpu", init_scale=4.0)
    assert scaler.stepped
    for g, new_scale in ((inf, None), (1.0, None), (inf, 8.0), (1.0, 8.0)):
        before = scaler.stepped
        optimizer.zero_grad()
        scaler.scale((p * g).sum()).backward()
        scaler.unscale_(optimizer)
        assert scaler.stepped == before  # unscale_ does not change it
        scaler.step(optimizer)
        scaler.update(new_scale)
        assert scaler.stepped == (g == 1.0)


def test_strided_gradients_are_unscaled(torch: Any) -> None:
    results = []
    for library, scaler in ((gpunet, GradScaler("cpu", init_scale=4.0)), (torch, torch.amp.GradScaler("cpu", init_scale=4.0))):
        p = library.ones(2, 3, requires_grad=True)
        optimizer = library.optim.SGD([p], lr=0.5)
        scaler.scale(p.sum()).backward()
        gradient = library.tensor([[4.0, 8.0], [12.0, 16.0], [20.0, 24.0]])
        p.grad = gradient.T
        scaler.unscale_(optimizer)
        results.append([gradient.tolist(), p.grad.tolist()])
        scaler.step(optimizer)
        scaler.update()
        results[-1].append(p.tolist())
    assert results[0] == results[1]


def test_clipping_gradients_of_other_losses_does_not_warn() -> None:
    """As those of the discriminator of a GAN, of which only the generator's loss is scaled."""
    a, b = (gpunet.ones(3, requires_grad=True) for _ in range(2))
    optimizer, scaler = gpunet.optim.SGD([a], lr=0.5), GradScaler("cpu", init_scale=8.0)
    scaler.scale((a * 2.0).sum()).backward()
    b.sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.utils.clip_grad_norm_([b], 1.0)
    with pytest.warns(UserWarning, match="clip_grad_norm_: the gradients are those of a loss"):
        nn.utils.clip_grad_norm_([a, b], 1.0)
    scaler.unscale_(optimizer)
    del a, optimizer
    c = gpunet.ones(3, requires_grad=True)
    scaler.scale(c.sum()).backward()
    with pytest.warns(UserWarning, match="clip_grad_norm_: the gradients are those of a loss"):
        nn.utils.clip_grad_norm_(c, 1.0)
