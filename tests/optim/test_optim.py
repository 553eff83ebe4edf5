"""Optimizers: PyTorch's results over many steps, parameter groups, state, learning rates in buffers."""

from __future__ import annotations

import collections
import copy
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import compiler
from gpunet.errors import ArgumentError, DtypeError, InPlaceError, StateDictError
from gpunet.launch.list_kernel import max_tensors
from gpunet.launch.tape import Tape, record
from gpunet.optim import SGD, Adam, AdamW

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "maximize": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.5, "amsgrad": True}),
    ("AdamW", {"lr": 0.05, "maximize": True, "betas": (0.5, 0.6)}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.8, 0.9)}),
    ("RMSprop", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "eps": 1e-3}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.5, "alpha": 0.9, "maximize": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {"lr": 1.0, "rho": 0.8, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.05, "lambd": 0.01, "t0": 4, "weight_decay": 0.1}),
    ("Rprop", {"lr": 0.05, "step_sizes": (1e-3, 0.25)}),
]
SHAPES = [(4, 3), (3,), (2, 1, 2), ()]
#: Rounding errors of 50 steps; a step changes a weight of size 1 by about 0.05.
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-6}, "float64": {"rtol": 1e-12, "atol": 1e-13}}


@pytest.fixture(autouse=True)
def _counters_of_torch_in_float64(request: pytest.FixtureRequest) -> Iterator[None]:
    """PyTorch computes counters (NAdam's mu_product, ASGD's eta and mu) in its default dtype; float32 would lose our digits."""
    if "torch" not in request.fixturenames:
        yield
        return
    torch = request.getfixturevalue("torch")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def start(dtype: str) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=s).astype(dtype) for s in SHAPES]


def parameters(arrays: list[numpy.ndarray], device: str) -> list[gpunet.Tensor]:
    return [gpunet.tensor(a, device=device, requires_grad=True) for a in arrays]


def step(optimizer: Any, params: Any, number: int) -> None:
    """One step on a loss whose gradients differ from step to step."""
    optimizer.zero_grad()
    loss = sum(((p - number * 0.1) ** 2 * (i + 1)).sum() for i, p in enumerate(params))
    loss.backward()
    optimizer.step()


def arrays(params: Any) -> list[numpy.ndarray]:
    return [p.detach().cpu().numpy() for p in params]


def assert_close(mine: Any, theirs: Any, dtype: str) -> None:
    for a, b in zip(arrays(mine), arrays(theirs), strict=True):
        numpy.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind, options", VARIANTS, ids=lambda v: str(v))
def test_fifty_steps_match_torch(kind: str, options: dict[str, Any], dtype: str, device: str, torch: Any) -> None:
    mine = parameters(start(dtype), device)
    theirs = [torch.tensor(a, requires_grad=True) for a in start(dtype)]
    ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
    for number in range(50):
        step(ours, mine, number)
        step(reference, theirs, number)
    assert_close(mine, theirs, dtype)


def test_parameter_groups_have_separate_options(device: str, torch: Any) -> None:
    mine = parameters(start("float64"), device)
    theirs = [torch.tensor(a, requires_grad=True) for a in start("float64")]
    pair = []
    for module, params in ((gpunet.optim, mine), (torch.optim, theirs)):
        optimizer = module.AdamW([{"params": params[:2], "lr": 0.1}, {"params": params[2:3], "weight_decay": 0.0}], lr=0.01)
        optimizer.add_param_group({"params": params[3], "betas": (0.5, 0.5)})
        pair.append(optimizer)
    for number in range(20):
        step(pair[0], mine, number)
        step(pair[1], theirs, number)
    assert_close(mine, theirs, "float64")
    assert [g["lr"] for g in pair[0].param_groups] == [0.1, 0.01, 0.01]


@pytest.mark.parametrize("kind, options", VARIANTS[2:9:2], ids=lambda v: str(v))
def test_parameters_without_a_gradient_are_not_updated(kind: str, options: dict[str, Any], device: str, torch: Any) -> None:
    """Each parameter has its own step count, also if it has a gradient in some steps only."""
    mine = parameters(start("float64"), device)
    theirs = [torch.tensor(a, requires_grad=True) for a in start("float64")]
    ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
    for number in range(12):
        for optimizer, params in ((ours, mine), (reference, theirs)):
            optimizer.zero_grad()
            for index, p in enumerate(params):
                if number % (index + 1) == 0:
                    ((p - number) ** 2).sum().backward()
            optimizer.step()
    assert_close(mine, theirs, "float64")


def test_more_tensors_than_one_launch_takes_and_mixed_dtypes(device: str, torch: Any) -> None:
    generator = numpy.random.default_rng(1)
    limit = max_tensors(gpunet.zeros(1, device=device).array)
    data = [generator.normal(size=2).astype("float32" if i % 3 else "float64") for i in range(2 * limit + 5)]
    mine, theirs = parameters(data, device), [torch.tensor(a, requires_grad=True) for a in data]
    for module, params in ((gpunet.optim, mine), (torch.optim, theirs)):
        optimizer = module.Adam(params, lr=0.1)
        for number in range(3):
            step(optimizer, params, number)
    assert_close(mine, theirs, "float32")


def test_large_parameters_are_updated_in_chunks(device: str, torch: Any) -> None:
    data = numpy.random.default_rng(1).normal(size=100_003)
    (mine,), theirs = parameters([data], device), torch.tensor(data, requires_grad=True)
    for module, p in ((gpunet.optim, mine), (torch.optim, theirs)):
        optimizer = module.AdamW([p], lr=0.1, amsgrad=True)
        for number in range(3):
            step(optimizer, [p], number)
    assert_close([mine], [theirs], "float64")


def test_parameters_updated_together_or_separately_have_the_same_bits(device: str) -> None:
    """Joined memory does not mix the state of parameters or optimizers."""
    together, alone = parameters(start("float32"), device), parameters(start("float32"), device)
    for params, optimizers in ((together, [Adam(together)]), (alone, [Adam([p]) for p in alone])):
        for number in range(5):
            for optimizer in optimizers:
                optimizer.zero_grad()
            for p in params:
                ((p - number) ** 2).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert [a.tobytes() for a in arrays(together)] == [a.tobytes() for a in arrays(alone)]


# ---- learning rate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_replays_use_the_current_learning_rate(kind: Any, device: str) -> None:
    (p,) = parameters([numpy.ones(3, "float32")], device)
    optimizer = kind([p], lr=0.0, weight_decay=0.0)
    with record(Tape()) as tape:
        step(optimizer, [p], 0)
    assert p.tolist() == [1.0] * 3
    optimizer.param_groups[0]["lr"] = 0.25
    tape.replay()
    assert p.tolist() != [1.0] * 3
    moved = p.tolist()
    optimizer.param_groups[0]["lr"] = 0
    tape.replay()
    assert p.tolist() == moved and optimizer.param_groups[0]["lr"] == 0.0


def test_a_group_is_a_dict_of_its_current_options(device: str) -> None:
    optimizer = SGD(parameters(start("float32"), device), lr=0.5, momentum=0.9)
    (group,) = optimizer.param_groups
    gpunet.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).step()
    for options in (dict(group), {**group}, dict(group.items()), group | {}, group.copy(), copy.copy(group), copy.deepcopy(group)):
        assert options["lr"] == 0.25 and options["initial_lr"] == 0.5
        options["lr"] = 3.0
    assert group["lr"] == group.get("lr") == group.setdefault("lr", 1.0) == 0.25
    assert "'lr': 0.25" in repr(group) and 0.25 in group.values() and [*group] == [*group.keys()]
    assert group.pop("initial_lr") == 0.5 and group.pop("initial_lr", None) is None
    assert group.setdefault("initial_lr", 2.0) == group["initial_lr"] == 2.0
    for remove in (lambda: group.pop("momentum"), lambda: group.__delitem__("lr")):
        with pytest.raises(ArgumentError, match="cannot be removed"):
            remove()
    assert group["momentum"] == 0.9


def test_buffer_has_the_order_of_the_hyperparameter_names(device: str) -> None:
    class Own(SGD):
        hyperparameters = ("momentum", "lr")

    optimizer = Own(parameters(start("float32"), device), lr=0.5, momentum=0.9)
    gpunet.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).step()
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.25, 0.9)
    Own.hyperparameters = ("lr", "momentun")
    with pytest.raises(ArgumentError, match="'momentun'.*no option"):
        Own(optimizer.param_groups[0]["params"])


def test_learning_rate_out_of_range_raises_and_changes_nothing(device: str) -> None:
    optimizer = SGD(parameters(start("float32"), device), lr=0.5)
    with pytest.raises(ArgumentError, match=r"learning rate -1\.0"):
        optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ArgumentError, match="nan"):
        optimizer.param_groups[0]["lr"] = float("nan")
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0].learning_rate.item() == 0.5


# ---- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, options", VARIANTS, ids=lambda v: str(v))
def test_state_dict_continues_in_a_new_optimizer(kind: str, options: dict[str, Any], device: str) -> None:
    """Ten steps, and ten steps in a new optimizer, have the bits of twenty steps."""
    make = getattr(gpunet.optim, kind)
    unbroken, resumed = parameters(start("float32"), device), parameters(start("float32"), device)
    first, second = make(unbroken, **options), make(resumed, **options)
    for number in range(20):
        if number == 10:
            state = second.state_dict()
            resumed = parameters(arrays(resumed), device)
            second = make(resumed, lr=9.0)
            second.load_state_dict(state)
        step(first, unbroken, number)
        step(second, resumed, number)
    assert [a.tobytes() for a in arrays(unbroken)] == [a.tobytes() for a in arrays(resumed)]


@pytest.mark.parametrize("kind, options", VARIANTS[2:], ids=lambda v: str(v))
def test_state_dict_of_torch_is_accepted(kind: str, options: dict[str, Any], device: str, torch: Any) -> None:
    theirs = [torch.tensor(a, requires_grad=True) for a in start("float64")]
    reference = getattr(torch.optim, kind)(theirs, **options)
    for number in range(10):
        step(reference, theirs, number)
    mine = parameters(arrays(theirs), device)
    ours = getattr(gpunet.optim, kind)(mine, lr=9.0)
    ours.load_state_dict(reference.state_dict())
    assert ours.param_groups[0]["lr"] == options["lr"]
    for number in range(10, 20):
        step(ours, mine, number)
        step(reference, theirs, number)
    assert_close(mine, theirs, "float64")


@pytest.mark.parametrize("reset", ["clear", "new", "one", "replaced"])
@pytest.mark.parametrize("kind, options", VARIANTS[2:], ids=lambda v: str(v))
def test_state_that_is_removed_or_replaced_takes_effect(
    kind: str, options: dict[str, Any], reset: str, device: str, torch: Any
) -> None:
    def change(optimizer: Any, params: Any) -> None:
        if reset == "clear":
            optimizer.state.clear()
        elif reset == "new":
            optimizer.state = collections.defaultdict(dict)
        elif reset == "one":
            del optimizer.state[params[1]]
        else:
            state = optimizer.state[params[1]].items()
            name = next(n for n, value in state if value is not None and value.shape == params[1].shape)
            optimizer.state[params[1]][name] = optimizer.state[params[1]][name] * 2.0

    mine, theirs = parameters(start("float64"), device), [torch.tensor(a, requires_grad=True) for a in start("float64")]
    ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
    for number in range(8):
        if number == 4:
            change(ours, mine)
            change(reference, theirs)
        step(ours, mine, number)
        step(reference, theirs, number)
    assert_close(mine, theirs, "float64")
    assert [*ours.state_dict()["state"]]


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: gpunet.optim.Adam(p)], ids=["sgd", "adam"])
def test_state_replaced_by_equal_tensors_is_updated(make: Any, device: str) -> None:
    """The optimizer must use the new tensors although their values are equal to the old ones."""
    (parameter,) = parameters([numpy.ones(1)], device)
    optimizer = make([parameter])
    for number in range(4):
        parameter.grad = gpunet.ones(1, dtype=gpunet.float64, device=device)
        if number == 2:
            mine = {name: tensor.clone() for name, tensor in optimizer.state[parameter].items()}
            optimizer.state[parameter].update(mine)
        optimizer.step()
    assert mine["step"].item() == 4.0
    assert all(optimizer.state[parameter][name] is tensor for name, tensor in mine.items())


def test_the_first_step_with_momentum_matches_torch(device: str, torch: Any) -> None:
    mine, theirs = parameters(start("float64"), device), [torch.tensor(a, requires_grad=True) for a in start("float64")]
    ours, reference = SGD(mine, lr=0.1, dampening=0.5), torch.optim.SGD(theirs, lr=0.1, dampening=0.5)
    for number in range(9):
        for optimizer in (ours, reference):
            optimizer.param_groups[0]["momentum"] = 0.9 * (number in (3, 4, 7, 8))
        step(ours, mine, number)
        step(reference, theirs, number)
    assert_close(mine, theirs, "float64")


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), Adam])
def test_state_of_another_dtype_raises(make: Any, device: str) -> None:
    model = gpunet.nn.Linear(3, 2).to(device)
    params = [*model.parameters()]
    optimizer = make(params)
    step(optimizer, params, 0)
    model.to(gpunet.float64)
    with pytest.raises(DtypeError, match=r"is float32.* is float64 now.*load_state_dict"):
        step(optimizer, params, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    step(optimizer, params, 1)


def test_state_dict_has_the_keys_of_torch(device: str, torch: Any) -> None:
    for kind, options in VARIANTS:
        mine, theirs = parameters(start("float32"), device), [torch.tensor(a, requires_grad=True) for a in start("float32")]
        ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
        step(ours, mine, 1)
        step(reference, theirs, 1)
        for number, state in reference.state_dict()["state"].items():
            wanted = {name for name, value in state.items() if value is not None}
            assert wanted <= set(ours.state_dict()["state"][number])
        assert ours.state_dict()["param_groups"][0]["params"] == [0, 1, 2, 3]


def test_state_dict_of_another_optimizer_raises(device: str) -> None:
    params = parameters(start("float32"), device)
    few = Adam(params[:2])
    step(few, params[:2], 0)
    with pytest.raises(StateDictError, match=r"\[2\].*\[4\]"):
        Adam(params).load_state_dict(few.state_dict())
    with pytest.raises(StateDictError, match="exp_avg.*shape"):
        Adam(params[2:]).load_state_dict(few.state_dict())
    with pytest.raises(StateDictError, match="no 'momentum'"):
        SGD(params[:2]).load_state_dict(few.state_dict())
    with pytest.raises(StateDictError, match="state_dict"):
        few.load_state_dict({})
    with pytest.raises(StateDictError, match="parameter 7"):
        few.load_state_dict({**few.state_dict(), "state": {7: {}}})


def test_state_dict_with_options_out_of_range_raises_and_changes_nothing(device: str) -> None:
    optimizer = Adam(parameters(start("float32"), device), lr=0.5)
    state = optimizer.state_dict()
    state["param_groups"][0].update(lr=0.1, eps=-1.0)
    with pytest.raises(ArgumentError, match=r"eps -1\.0"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.5


# ---- other behaviour ------------------------------------------------------------------------------------------------


def test_closure_computes_the_loss(device: str) -> None:
    (p,) = parameters([numpy.ones(1, "float32")], device)
    optimizer, calls = SGD([p], lr=0.1), []

    def closure() -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = (p * 2.0).sum()
        loss.backward()
        calls.append(1)
        return loss

    with gpunet.no_grad():
        assert optimizer.step(closure).item() == 2.0
    assert len(calls) == 1 and p.item() == pytest.approx(0.8)


def test_zero_grad(device: str) -> None:
    params = parameters(start("float32"), device)
    optimizer = SGD(params)
    sum(p.sum() for p in params).backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: SGD([]), "no parameters"),
        (lambda p: SGD(p[0]), "single tensor.*list"),
        (lambda p: SGD([p[0], p[0]]), "twice"),
        (lambda p: SGD([{"params": [p[0]]}, {"params": [p[0]]}]), "twice"),
        (lambda p: SGD(["w"]), "'w' has type str"),
        (lambda p: SGD([p[0] * 2.0]), "leaf"),
        (lambda p: SGD([gpunet.tensor([1])]), "floating"),
        (lambda p: SGD(p, lr=-0.1), r"-0\.1"),
        (lambda p: SGD(p, momentum=-1), "momentum=-1"),
        (lambda p: SGD(p, nesterov=True), "nesterov=True.*momentum > 0"),
        (lambda p: Adam(p, betas=(1.0, 0.9)), r"\(1\.0, 0\.9\).*\[0, 1\)"),
        (lambda p: AdamW(p, eps=-1e-8), "AdamW: eps=-1e-08"),
        (lambda p: Adam(p, weight_decay=float("nan")), "weight_decay=nan"),
        (lambda p: Adam(p, betas=(0.9, 0.99, 0.999)), r"betas=\(0\.9, 0\.99, 0\.999\).*two numbers"),
        (lambda p: Adam(p, betas=0.9), r"betas=0\.9.*two numbers"),
        (lambda p: Adam(p, lr=[0.1, 0.2]), r"\[0\.1, 0\.2\].*a number"),
        (lambda p: SGD([{"lr": 0.1}]), "params.*tensors"),
        (lambda p: SGD([{"params": p[0]}, p[1]]), "params.*tensors"),
    ],
)
def test_invalid_arguments_raise(make: Any, message: str, device: str) -> None:
    with pytest.raises((ArgumentError, DtypeError), match=message):
        make(parameters(start("float32"), device))


def test_one_launch_updates_all_parameters(device: str) -> None:
    """A step is one launch for as many parameters as one launch takes."""
    for make in (SGD, Adam, AdamW):
        params = parameters(start("float32"), device)
        optimizer = make(params)
        sum(p.sum() for p in params).backward()
        with record(Tape()) as tape:
            optimizer.step()
        assert [launch.kernel.name for launch in tape.launches] == ["sgd_step" if make is SGD else "adam_step"]


@pytest.mark.parametrize("parameter_bytes, launches", [(32764, 1), (4096, 4)])
def test_161_tensors_take_one_launch_or_four(
    parameter_bytes: int, launches: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "max_parameter_bytes", lambda device: parameter_bytes)
    params = parameters([numpy.ones(2, "float32")] * 161, device)
    optimizer = Adam(params, lr=0.5)
    sum(p.sum() for p in params).backward()
    with record(Tape()) as tape:
        optimizer.step()
    limited = device != "cpu"  # a twin has no kernel parameters
    assert [launch.kernel.name for launch in tape.launches] == ["adam_step"] * (launches if limited else 1)
    assert all(numpy.allclose(p.detach().cpu().numpy(), 0.5) for p in params)


def test_empty_parameters_are_accepted(device: str) -> None:
    params = parameters([numpy.zeros((0, 3), "float32"), numpy.ones(2, "float32")], device)
    for make in (SGD, Adam):
        optimizer = make(params, lr=0.1)
        for number in itertools.repeat(0, 2):
            step(optimizer, params, number)
    assert (params[1] < 1.0).all()


@pytest.mark.parametrize("name, options", VARIANTS)
def test_updates_of_small_and_large_tensors_have_the_same_bits(name: str, options: dict[str, Any]) -> None:
    """Also if the tensors are joined, processed one by one, split into chunks, or replayed."""
    random = numpy.random.default_rng(1)
    values, gradients = (random.normal(size=300_007).astype("float32") for _ in range(2))
    ends = {"one": [300_007], "few": [200_000, 290_001, 300_007], "joined": [100_000, 100_001, 133_007]}
    found = {}
    for walk, cuts in ends.items():
        for captured in (False, True):
            pieces = [slice(a, b) for a, b in itertools.pairwise([0, *cuts])]
            params = parameters([values[piece] for piece in pieces], "cpu")
            optimizer = getattr(gpunet.optim, name)(params, **options)
            for p, piece in zip(params, pieces, strict=True):
                p.grad = gpunet.tensor(gradients[piece])
            update = gpunet.capture(optimizer.step, backend="numpy") if captured else optimizer.step
            for _ in range(3):
                update()
            found[walk, captured] = numpy.concatenate(arrays(params)).tobytes()[: 4 * 133_007]
    assert len(set(found.values())) == 1


# ---- call forms of PyTorch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*dict.fromkeys(kind for kind, _ in VARIANTS), "Lion"])
def test_keywords_without_effect_change_no_bit(kind: str, device: str) -> None:
    found = []
    names = {*inspect.signature(getattr(gpunet.optim, kind)).parameters} & {"foreach", "fused", "capturable"}
    keywords: list[dict[str, Any]] = [{}, *({name: True} for name in names), dict.fromkeys(names, False)]
    for options in keywords:
        params = parameters(start("float32"), device)
        optimizer = getattr(gpunet.optim, kind)(params, lr=0.1, **options)
        for number in range(3):
            step(optimizer, params, number)
        found.append([a.tobytes() for a in arrays(params)])
        assert all(optimizer.param_groups[0][name] == value for name, value in options.items())
    assert all(bits == found[0] for bits in found)
    with pytest.raises(ArgumentError, match="differentiable=True; expected False"):
        getattr(gpunet.optim, kind)(params, differentiable=True)
    if "fused" in names:
        with pytest.raises(ArgumentError, match="fused=True and foreach=True; pass one"):
            getattr(gpunet.optim, kind)(params, fused=True, foreach=True)
    state = optimizer.state_dict()
    state["param_groups"][0]["differentiable"] = True
    with pytest.raises(ArgumentError, match="differentiable=True"):
        optimizer.load_state_dict(state)


def test_decoupled_weight_decay_makes_adam_adamw(device: str) -> None:
    adam, adamw = parameters(start("float32"), device), parameters(start("float32"), device)
    first = Adam(adam, lr=0.1, weight_decay=0.5, decoupled_weight_decay=True)
    second = AdamW(adamw, lr=0.1, weight_decay=0.5)
    for number in range(3):
        step(first, adam, number)
        step(second, adamw, number)
    assert [a.tobytes() for a in arrays(adam)] == [a.tobytes() for a in arrays(adamw)]
    second.load_state_dict(Adam(parameters(start("float32"), device), weight_decay=0.5).state_dict())
    assert second.param_groups[0]["decoupled_weight_decay"] is True


def test_positional_arguments_match_torch(device: str, torch: Any) -> None:
    calls: dict[str, Any] = {"SGD": (0.1, 0.9, 0.1, 0.01), "Adam": (0.1, (0.8, 0.9), 1e-3, 0.1, True), "AdamW": (0.1, (0.8, 0.9))}
    for kind, arguments in calls.items():
        mine, theirs = parameters(start("float64"), device), [torch.tensor(a, requires_grad=True) for a in start("float64")]
        ours, reference = getattr(gpunet.optim, kind)(mine, *arguments), getattr(torch.optim, kind)(theirs, *arguments)
        for number in range(5):
            step(ours, mine, number)
            step(reference, theirs, number)
        assert_close(mine, theirs, "float64")


def test_forms_of_params_match_torch(device: str, torch: Any) -> None:
    """Generators, named parameters, and groups of them."""
    for module in (gpunet, torch):
        net = module.nn.Sequential(module.nn.Linear(2, 3), module.nn.Linear(3, 1))
        optimizer = module.optim.SGD((p for p in net.parameters()), 0.1)
        assert len(optimizer.param_groups[0]["params"]) == 4 and "param_names" not in optimizer.param_groups[0]
        optimizer = module.optim.SGD(net.named_parameters(), 0.1)
        assert optimizer.param_groups[0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert optimizer.param_groups[0]["params"][2] is net[1].weight
        groups = [{"params": net[0].named_parameters()}, {"params": net[1].named_parameters(prefix="1"), "lr": 0.2}]
        optimizer = module.optim.SGD(groups, 0.1)
        assert [group["param_names"] for group in optimizer.param_groups] == [["weight", "bias"], ["1.weight", "1.bias"]]
        assert optimizer.state_dict()["param_groups"][1]["param_names"] == ["1.weight", "1.bias"]
        with pytest.raises(ValueError, match="name"):
            optimizer.add_param_group({"params": [module.zeros(1, requires_grad=True)]})
        optimizer = module.optim.SGD([{"params": []}, {"params": net[0].parameters()}], 0.1)
        optimizer.step()
        assert [len(group["params"]) for group in optimizer.param_groups] == [0, 2]
        optimizer.add_param_group(param_group={"params": net[1].weight})
        with pytest.raises(TypeError):
            module.optim.SGD([{"params": {net[1].bias}}], 0.1)


def test_a_learning_rate_as_a_tensor_is_read_when_it_is_set(device: str) -> None:
    (p,) = parameters([numpy.ones(1, "float32")], device)
    rate = gpunet.tensor(0.25)
    optimizer = SGD([{"params": [p], "lr": rate}])
    assert optimizer.param_groups[0]["lr"] == 0.25
    p.grad = gpunet.ones(1)
    optimizer.step()
    rate.mul_(2.0)
    with pytest.raises(InPlaceError, match=r'passed as lr has been changed in place.*set group\["lr"\]'):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.125
    rate.mul_(2.0)
    optimizer.step()
    assert p.item() == 1.0 - 0.25 - 0.5 - 0.125


@pytest.mark.parametrize("kind, options", VARIANTS, ids=lambda v: str(v))
def test_state_dicts_have_the_layout_of_torch(kind: str, options: dict[str, Any], device: str, torch: Any) -> None:
    """PyTorch continues from ours."""
    mine, theirs = parameters(start("float32"), device), [torch.tensor(a, requires_grad=True) for a in start("float32")]
    ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
    for number in range(3):
        step(ours, mine, number)
        step(reference, theirs, number)
    found, expected = ours.state_dict(), reference.state_dict()
    assert found["param_groups"] == expected["param_groups"]

    def shapes(state: Any) -> Any:
        return {i: {k: tuple(v.shape) for k, v in entries.items() if v is not None} for i, entries in state.items()}

    assert shapes(found["state"]) == shapes(expected["state"])
    converted = {i: {k: torch.tensor(v.cpu().numpy()) for k, v in s.items()} for i, s in found["state"].items()}
    reference.load_state_dict({"state": converted, "param_groups": found["param_groups"]})
    for number in range(3, 6):
        step(ours, mine, number)
        step(reference, theirs, number)
    assert_close(mine, theirs, "float32")


@pytest.mark.parametrize("kind, options", VARIANTS, ids=lambda v: str(v))
def test_strided_parameters_and_gradients(kind: str, options: dict[str, Any], device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        values = numpy.random.default_rng(0).normal(size=(3, 4, 3))
        start, *gradients = (module.tensor(a, **place) for a in values)
        p = start.T.requires_grad_()
        optimizer = getattr(module.optim, kind)([p], **options)
        for g in gradients:
            p.grad = g.T
            optimizer.step()
        results.append([start.cpu().numpy(), p.detach().cpu().numpy(), gradients[0].cpu().numpy()])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-10)
