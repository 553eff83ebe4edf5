"""Stacks of nets: beside single nets, and the same bits of a net in any stack."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import emulator, nn, optim
from gpunet.captured.compiled import module
from gpunet.errors import ArgumentError, ShapeError, StackError, StateDictError

F = nn.functional
_NUMBA = pytest.mark.skipif(not module.available(), reason="Numba is not installed"), pytest.mark.exhaustive
BACKENDS = [None, "numpy", pytest.param("numba", marks=_NUMBA)]
SEEDS = [3, 1, 4, 15, 9]
RATES = [1e-3, 3e-2, 1e-2, 1e-1, 5e-3]


def make(seed: int, width: int = 7, activation: type[nn.Module] = nn.Tanh, dropout: float = 0.0, dtype: Any = None) -> nn.Module:
    gpunet.manual_seed(seed)
    drop = [nn.Dropout(dropout)] if dropout else []
    hidden = nn.Sequential(nn.Linear(width, width, dtype=dtype), nn.Identity(), activation())
    return nn.Sequential(nn.Linear(5, width, dtype=dtype), activation(), *drop, hidden, nn.Linear(width, 3, dtype=dtype))


def data(steps: int = 4, n: int = 9, dtype: Any = "float32") -> list[tuple[Any, Any]]:
    random = numpy.random.default_rng(0)
    return [
        (gpunet.tensor(random.normal(size=(n, 5)).astype(dtype)), gpunet.tensor(random.integers(0, 3, n))) for _ in range(steps)
    ]


def step_of(stack: nn.Stack, optimizer: Any, backend: str | None) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        losses = stack.losses(F.cross_entropy, stack(x), y)
        losses.sum().backward()
        optimizer.step()
        return losses

    return step if backend is None else gpunet.capture(step, backend=backend)


def train(
    chosen: list[int], backend: str | None, kind: str = "adam", before: Callable[..., None] | None = None, **options: Any
) -> tuple[list[list[float]], list[numpy.ndarray], nn.Stack, Any]:
    """Train the nets ``chosen``; return the losses of the steps, the parameters, the stack and its optimizer."""
    stack = nn.Stack([make(SEEDS[i], **options) for i in chosen], seeds=[SEEDS[i] for i in chosen])
    rates = [RATES[i] for i in chosen]
    decay = [0.1 * rate for rate in rates]
    optimizer = {
        "adam": lambda: optim.StackAdam(stack, lr=rates, weight_decay=decay),
        "adamw": lambda: optim.StackAdamW(stack, lr=rates),
        "sgd": lambda: optim.StackSGD(stack, lr=rates, momentum=0.9, weight_decay=decay, nesterov=True),
    }[kind]()
    if before is not None:
        before(stack, optimizer)
    step = step_of(stack, optimizer, backend)
    losses = [step(x, y).tolist() for x, y in data()]
    return losses, [p.numpy(force=True).copy() for p in stack.parameters()], stack, optimizer


def assert_same_bits(found: Any, expected: Any) -> None:
    numpy.testing.assert_array_equal(numpy.asarray(found).view(numpy.uint32), numpy.asarray(expected).view(numpy.uint32))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_nets_train_as_each_alone(kind: str) -> None:
    nets = [make(seed, dtype=gpunet.float64) for seed in SEEDS]
    single = [copy.deepcopy(net) for net in nets]
    stack, rates = nn.Stack(nets), numpy.array(RATES)
    optimizer: Any = {
        "sgd": lambda: optim.StackSGD(stack, lr=rates, momentum=0.5, weight_decay=rates, nesterov=True),
        "adam": lambda: optim.StackAdam(stack, lr=rates, weight_decay=rates),
        "adamw": lambda: optim.StackAdamW(stack, lr=rates, weight_decay=0.1),
    }[kind]()
    make_alone: Any = {
        "sgd": lambda p, rate: optim.SGD(p, rate, momentum=0.5, weight_decay=rate, nesterov=True),
        "adam": lambda p, rate: optim.Adam(p, rate, weight_decay=rate),
        "adamw": lambda p, rate: optim.AdamW(p, rate, weight_decay=0.1),
    }[kind]
    step = step_of(stack, optimizer, None)
    alone = [make_alone(net.parameters(), rate) for net, rate in zip(single, RATES)]
    for x, y in data(dtype="float64"):
        losses = step(x, y)
        for number, (net, of_net) in enumerate(zip(single, alone)):
            of_net.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            of_net.step()
            numpy.testing.assert_allclose(losses[number].item(), loss.item(), rtol=1e-10)
    for number, net in enumerate(single):
        for name, value in stack.net(number).state_dict().items():
            numpy.testing.assert_allclose(value.numpy(), net.state_dict()[name].numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_net_has_the_same_bits_in_every_stack(backend: str | None) -> None:
    losses, parameters, *_ = train([0, 1, 2, 3, 4], backend, dropout=0.3)
    for chosen in ([2], [4, 2]):
        others, own, *_ = train(chosen, backend, dropout=0.3)
        for place, net in enumerate(chosen):
            assert_same_bits([of[place] for of in others], [of[net] for of in losses])
            for found, expected in zip(own, parameters):
                assert_same_bits(found[place], expected[net])


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish])
def test_the_bits_of_every_activation(activation: type[nn.Module], backend: str | None) -> None:
    _, parameters, *_ = train([0, 1, 2, 3], backend, "sgd", activation=activation, width=11)
    _, own, *_ = train([1], backend, "sgd", activation=activation, width=11)
    for found, expected in zip(own, parameters):
        assert_same_bits(found[0], expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_net_that_becomes_nan_changes_no_bit_of_the_others(backend: str | None) -> None:
    def spoil(stack: nn.Stack, optimizer: Any) -> None:
        with gpunet.no_grad():
            next(stack.parameters())[1] = float("nan")

    losses, parameters, *_ = train([0, 1, 2], backend, before=spoil)
    expected_losses, expected, *_ = train([0, 1, 2], backend)
    assert numpy.isnan(losses)[:, 1].all()
    for net in (0, 2):
        assert_same_bits([of[net] for of in losses], [of[net] for of in expected_losses])
        for found, wanted in zip(parameters, expected):
            assert_same_bits(found[net], wanted[net])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_stopped_net_stays_and_changes_no_other(kind: str, backend: str | None) -> None:
    if backend == "numba" and kind == "sgd":
        pytest.skip("one optimizer suffices, since compiling takes long")
    stack = nn.Stack([make(seed) for seed in SEEDS[:3]])
    start = [p.numpy(force=True).copy() for p in stack.parameters()]
    optimizer: Any = optim.StackSGD(stack, lr=0.1, momentum=0.9) if kind == "sgd" else optim.StackAdam(stack, lr=0.1)
    step, batches = step_of(stack, optimizer, backend), data()
    step(*batches[0])
    stack.stop([1])
    assert stack.is_active().tolist() == [True, False, True]
    before, state = [p.numpy(force=True).copy() for p in stack.parameters()], copy.deepcopy(optimizer.state_dict())
    losses = step(*batches[1]).numpy(force=True)
    assert numpy.isnan(losses).tolist() == [False, True, False]
    for p, old, first in zip(stack.parameters(), before, start):
        assert_same_bits(p.numpy(force=True)[1], old[1])
        assert (old[1] != first[1]).any()
    for number, tensors in optimizer.state_dict()["state"].items():
        for name, value in tensors.items():
            assert_same_bits(value.numpy()[1], state["state"][number][name].numpy()[1])
    never = nn.Stack([make(seed) for seed in SEEDS[:3]])
    other: Any = optim.StackSGD(never, lr=0.1, momentum=0.9) if kind == "sgd" else optim.StackAdam(never, lr=0.1)
    step_never = step_of(never, other, backend)
    for batch in batches[:2]:
        step_never(*batch)
    for p, q in zip(stack.parameters(), never.parameters()):
        assert_same_bits(p.numpy(force=True)[[0, 2]], q.numpy(force=True)[[0, 2]])
    stack.resume(gpunet.tensor([False, True, False]))
    assert numpy.isfinite(step(*batches[2]).numpy(force=True)).all()
    stack.stop([0])
    stack.eval()
    assert (stack(batches[0][0])[0] != 0).any(), "a stopped net predicts"


@pytest.mark.parametrize("backend", BACKENDS)
def test_nets_of_different_widths(backend: str | None) -> None:
    """Of an activation with f(0) != 0, whose padding has to stay zero."""
    widths = [3, 7, 5]

    def trained(chosen: list[int]) -> tuple[Any, nn.Stack]:
        nets = [make(SEEDS[i], widths[i], nn.Sigmoid) for i in chosen]
        stack = nn.Stack(nets)
        step = step_of(stack, optim.StackAdam(stack, lr=0.05, weight_decay=0.01), backend)
        return [step(x, y).tolist() for x, y in data()], stack

    losses, stack = trained([0, 1, 2])
    alone, one = trained([0])
    numpy.testing.assert_allclose([of[0] for of in losses], [of[0] for of in alone], rtol=1e-5)
    if backend == "numba":  # there the products of a net do not depend on the padding
        assert_same_bits([of[0] for of in losses], [of[0] for of in alone])
    net = stack.net(0)
    assert [p.shape for p in net.parameters()] == [p.shape for p in one.net(0).parameters()]
    for name, parameter in stack.named_parameters():
        if parameter.shape[1] == 7:
            assert (parameter.numpy(force=True)[0, 3:] == 0).all(), name
            assert (parameter.numpy(force=True)[2, 5:] == 0).all(), name
    x = data()[0][0]
    stack.eval()
    net.eval()
    numpy.testing.assert_allclose(stack(x)[0].detach().numpy(), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_dropout_has_a_probability_and_a_seed_for_each_net() -> None:
    nets = [nn.Sequential(nn.Dropout(p), nn.Linear(400, 1, bias=False)) for p in (0.0, 0.25, 0.25, 1.0)]
    stack = nn.Stack(nets, seeds=[5, 5, 6, 7])
    x = gpunet.ones(1, 400)
    dropped: Any = stack.get_submodule("0")(x, None)
    shares = (dropped.numpy() == 0).mean((1, 2))
    assert shares[0] == 0.0
    assert shares[3] == 1.0
    assert 0.1 < shares[1] < 0.4
    assert (dropped[1] != dropped[2]).any()
    numpy.testing.assert_allclose(numpy.unique(dropped[1].numpy()), [0.0, 4 / 3], rtol=1e-6)
    again: Any = stack.get_submodule("0")(x, None)
    assert (again[1] != dropped[1]).any(), "the stream goes on"
    gpunet.manual_seed(5)
    of_weights: Any = F.dropout(x, 0.25) != 0
    fresh: Any = nn.Stack(nets, seeds=[5] * 4).get_submodule("0")(x, None)
    assert ((fresh[1] != 0) != of_weights).any(), "not the numbers of weights that were drawn with the same seed"
    gpunet.manual_seed(0)
    drawn = nn.Stack(nets).get_submodule("0").streams.numpy()
    assert len({*drawn[:, 0].tolist()}) == 4


def test_dropout_in_a_gradient_that_can_be_differentiated() -> None:
    stack = nn.Stack([nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)) for _ in range(2)], seeds=[1, 2])
    x = gpunet.ones(5, 4, requires_grad=True)
    y = stack(x).sum()
    (expected,) = gpunet.autograd.grad(y, [x], retain_graph=True)
    (found,) = gpunet.autograd.grad(y, [x], create_graph=True)
    numpy.testing.assert_allclose(found.detach().numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    (second,) = gpunet.autograd.grad((found * found).sum(), [x])
    assert (second != 0).any()


def shared_parameters(weight_only: bool) -> nn.Sequential:
    first, last = nn.Linear(3, 3), nn.Linear(3, 3)
    last.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), last if weight_only else first)


def named(*names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, nn.Linear(2, 2)) for name in names))


def test_losses_of_shared_and_own_targets() -> None:
    stack = nn.Stack([make(seed) for seed in SEEDS[:2]])
    x = gpunet.tensor(numpy.random.default_rng(1).normal(size=(2, 9, 5)).astype("float32"))
    output = stack(x)
    target = gpunet.tensor(numpy.random.default_rng(2).normal(size=(2, 9, 3)).astype("float32"))
    found = stack.losses(F.mse_loss, output, target)
    expected = [F.mse_loss(output[net], target[net]).item() for net in range(2)]
    numpy.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)
    shared = stack.losses(F.huber_loss, output, target[0], delta=0.5)
    expected = [F.huber_loss(output[net], target[0], delta=0.5).item() for net in range(2)]
    numpy.testing.assert_allclose(shared.detach().numpy(), expected, rtol=1e-6)
    for wrong in (target[:, :8], target[:, :, None], gpunet.zeros(3, 9, dtype=gpunet.int64)):
        with pytest.raises(ShapeError, match=r"Stack\.losses: .* a target of 9 rows"):
            stack.losses(F.mse_loss, output, wrong)


def test_the_gradient_of_an_input_that_all_nets_share() -> None:
    stack = nn.Stack([make(seed) for seed in SEEDS[:2]])
    x = gpunet.tensor(numpy.ones((4, 5), "float32"), requires_grad=True)
    stack(x).sum().backward()
    found = x.grad.numpy().copy()
    x.grad = None
    (stack.net(0)(x).sum() + stack.net(1)(x).sum()).backward()
    numpy.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_state_dicts_continue_a_training() -> None:
    _, _, stack, optimizer = train([0, 1, 2], None, dropout=0.3)
    states = copy.deepcopy((stack.state_dict(), optimizer.state_dict()))
    assert {"0.weight", "3.0.bias", "active", "2.streams"} <= states[0].keys()
    step = step_of(stack, optimizer, None)
    expected = [step(x, y).tolist() for x, y in data()]
    other = nn.Stack([make(7, dropout=0.3) for _ in range(3)])
    continued = optim.StackAdam(other)
    other.load_state_dict(states[0])
    continued.load_state_dict(states[1])
    numpy.testing.assert_array_equal(continued.get_numbers("lr"), RATES[:3])
    step = step_of(other, continued, None)
    assert_same_bits([step(x, y).tolist() for x, y in data()], expected)
    with pytest.raises(StateDictError, match="a stack of 2 nets"):
        optim.StackAdam(nn.Stack([make(1), make(2)])).load_state_dict(states[1])


def _changed(stack: nn.Stack, before: list[numpy.ndarray]) -> list[bool]:
    pairs = [(p.numpy(force=True), old) for p, old in zip(stack.parameters(), before)]
    return [any((now[net] != old[net]).any() for now, old in pairs) for net in range(stack.num_nets)]


def test_numbers_of_nets_change_between_replays() -> None:
    stack = nn.Stack([make(seed) for seed in SEEDS[:2]])
    optimizer = optim.StackSGD(stack, lr=[0.1, 0.0])
    step = step_of(stack, optimizer, "numpy")
    before = [p.numpy(force=True).copy() for p in stack.parameters()]
    step(*data()[0])
    assert _changed(stack, before) == [True, False]
    optimizer.set_numbers(lr=[0.0, 0.1])
    before = [p.numpy(force=True).copy() for p in stack.parameters()]
    step(*data()[1])
    assert _changed(stack, before) == [False, True]
    assert len(step.recordings) == 1
    with pytest.raises(ArgumentError, match="lr of net 1 is -1"):
        optimizer.set_numbers(lr=[0.1, -1.0])
    with pytest.raises(ArgumentError, match="2 numbers, one for each net"):
        optimizer.set_numbers(lr=[0.1] * 3)
    with pytest.raises(ArgumentError, match="has no 'beta'"):
        optimizer.set_numbers(beta=1)


def test_ensemble() -> None:
    stack = nn.Stack([make(seed) for seed in SEEDS[:3]]).eval()
    x = data()[0][0]
    outputs = numpy.stack([stack.net(number)(x).detach().numpy() for number in range(3)]).astype("float64")
    mean, spread = nn.Ensemble(stack)(x)
    numpy.testing.assert_allclose(mean.detach().numpy(), outputs.mean(0), atol=1e-6)
    numpy.testing.assert_allclose(spread.detach().numpy(), outputs.std(0), atol=1e-6)
    mean, spread = nn.Ensemble(stack, probabilities=True, chosen=[0, 2])(x)
    shares = numpy.exp(outputs) / numpy.exp(outputs).sum(2, keepdims=True)
    numpy.testing.assert_allclose(mean.detach().numpy(), shares[[0, 2]].mean(0), atol=1e-6)
    numpy.testing.assert_allclose(spread.detach().numpy(), shares[[0, 2]].std(0), atol=1e-6)
    with pytest.raises(ArgumentError, match="from 0 to 2"):
        nn.Ensemble(stack, chosen=[3])


@pytest.mark.parametrize(
    ("nets", "message"),
    [
        ([nn.Linear(2, 2)], "net 0 is a Linear; expected nn.Sequential of nn.Linear"),
        ([nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))], "BatchNorm1d in '1', which cannot be stacked"),
        ([nn.Sequential(nn.Linear(2, 2), nn.PReLU())], "PReLU in '1', which cannot be stacked"),
        ([nn.Sequential(nn.ReLU())], "no nn.Linear"),
        ([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(3, 2))], r"\[2, 3\] inputs"),
        ([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 3))], r"\[2, 3\] outputs in '0'"),
        ([nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2))], "3 outputs, the next one 2 inputs"),
        ([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())], "net 1 a Tanh"),
        ([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Tanh())], "the same kinds of layers"),
        ([nn.Sequential(nn.Linear(2, 2, bias=b)) for b in (True, False)], "the same settings"),
        ([nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2))], "a Tanh in '1', net 1 no layer"),
        ([named("a", "b"), named("b", "a")], "expected the same order"),
        ([named("active")], "a layer of the name 'active'"),
        ([shared_parameters(weight_only=True)], "'0' and '2' of net 0 share a parameter"),
        ([shared_parameters(weight_only=False)], "'0' and '2' of net 0 share a parameter"),
        ([nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(a)) for a in (0.1, 0.2)], "the same settings"),
    ],
)
def test_nets_that_cannot_be_stacked(nets: Any, message: str) -> None:
    with pytest.raises(StackError, match=message):
        nn.Stack(nets)


def test_hooks_and_wrong_arguments() -> None:
    net: Any = make(0)
    handle = net[0].register_forward_hook(lambda *_: None)
    with pytest.raises(StackError, match="with hooks"):
        nn.Stack([net])
    handle.remove()
    with pytest.raises(ArgumentError, match="no nets"):
        nn.Stack([])
    with pytest.raises(ArgumentError, match="2 seeds for 1 nets"):
        nn.Stack([net], seeds=[1, 2])
    stack = nn.Stack([net])
    with pytest.raises(ShapeError, match=r"has shape \(2, 4, 5\)"):
        stack(gpunet.ones(2, 4, 5))
    with pytest.raises(ShapeError, match="4 features; expected 5"):
        stack(gpunet.ones(3, 4))
    with pytest.raises(ArgumentError, match="numbers from 0 to 0"):
        stack.stop([1])
    with pytest.raises(ShapeError, match="one for each net"):
        stack.stop([True, False])
    for eps in (0.0, 1e-50):
        with pytest.raises(ArgumentError, match=f"eps of net 0 is {eps:g}"):
            optim.StackAdam(stack, eps=eps)
    with pytest.raises(ArgumentError, match="group 0 of StackSGD has no 'lr' to schedule"):
        optim.lr_scheduler.StepLR(optim.StackSGD(stack), 2)


@pytest.mark.exhaustive
@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
def test_on_the_emulated_device() -> None:
    """The bits of a net do not depend on the stack, and its numbers agree with the CPU's."""
    def trained(chosen: list[int], device: str) -> list[numpy.ndarray]:
        stack = nn.Stack([make(SEEDS[i], dropout=0.3) for i in chosen], seeds=[SEEDS[i] for i in chosen]).to(device)
        step = step_of(stack, optim.StackAdam(stack, lr=[RATES[i] for i in chosen]), None)
        for x, y in data(2):
            step(x.to(device), y.to(device))
        return [p.detach().cpu().numpy() for p in stack.parameters()]

    several, alone, on_cpu = trained([0, 1, 2], "emulated"), trained([1], "emulated"), trained([0, 1, 2], "cpu")
    for found, own, expected in zip(several, alone, on_cpu):
        assert_same_bits(own[0], found[1])
        numpy.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
