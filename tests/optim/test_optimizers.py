"""Each optimizer against PyTorch's, or the formulas of its paper, over options drawn from a grid; hooks; optimizers of users."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import pickle
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, CaptureError, DeviceError, DtypeError, StateDictError
from gpunet.launch.tape import Tape, record
from gpunet.optim import LBFGS, SGD, Lion, Muon
from gpunet.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook, required
from tests.optim.test_optim import _counters_of_torch_in_float64, arrays, parameters, start, step  # noqa: F401

ADAM: dict[str, list[Any]] = {
    "lr": [0.05, 0.01], "betas": [(0.9, 0.999), (0.5, 0.9)], "eps": [1e-8, 1e-3], "weight_decay": [0, 0.1],
    "maximize": [False, True],
}  # fmt: skip
#: Options of PyTorch's optimizers, and the values that they are drawn from.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "SGD": {
        "lr": [0.1, 0.01], "momentum": [0, 0.9], "dampening": [0, 0.5], "weight_decay": [0, 0.1], "maximize": [False, True],
        "fused": [None, True],
    },
    "Adam": {**ADAM, "amsgrad": [False, True], "decoupled_weight_decay": [False, True]},
    "AdamW": {**ADAM, "amsgrad": [False, True]},
    "Adamax": ADAM,
    "NAdam": {**ADAM, "momentum_decay": [4e-3, 0.1], "decoupled_weight_decay": [False, True]},
    "RAdam": {**ADAM, "decoupled_weight_decay": [False, True]},
    "RMSprop": {
        "lr": [0.05, 0.01], "alpha": [0.99, 0.5], "eps": [1e-4, 1e-2], "weight_decay": [0, 0.1], "momentum": [0, 0.9],
        "centered": [False, True], "maximize": [False, True],
    },
    "Adagrad": {
        "lr": [0.1, 0.01], "lr_decay": [0, 0.1], "weight_decay": [0, 0.1], "initial_accumulator_value": [0, 0.5],
        "eps": [1e-10, 1e-2], "maximize": [False, True],
    },
    "Adadelta": {
        "lr": [1.0, 0.1], "rho": [0.9, 0.5], "eps": [1e-6, 1e-2], "weight_decay": [0, 0.1], "maximize": [False, True]
    },
    "ASGD": {
        "lr": [0.05, 0.01], "lambd": [1e-4, 0.1], "alpha": [0.75, 0.5], "t0": [1e6, 5, 0], "weight_decay": [0, 0.1],
        "maximize": [False, True],
    },
    "Rprop": {
        "lr": [0.01, 0.1], "etas": [(0.5, 1.2), (0.7, 1.5)], "step_sizes": [(1e-6, 50), (0.01, 0.2)], "maximize": [False, True]
    },
    "Muon": {
        "lr": [0.02, 0.1], "weight_decay": [0, 0.1], "momentum": [0.95, 0.5], "nesterov": [False, True], "ns_steps": [5, 2, 1],
        "ns_coefficients": [(3.4445, -4.775, 2.0315), (1.5, -0.5, 0.0)], "adjust_lr_fn": [None, "original", "match_rms_adamw"],
    },
}  # fmt: skip
MATRICES = [(4, 3), (3, 5), (2, 2)]


def drawn(kind: str, seed: int) -> dict[str, Any]:
    """Options of the grid.  The first two draws have every option at its first and at its last value."""
    generator = numpy.random.default_rng(seed)
    index = {0: 0, 1: -1}.get(seed)
    return {k: values[generator.integers(len(values)) if index is None else index] for k, values in GRIDS[kind].items()}


def initial(kind: str, dtype: str) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=s).astype(dtype) for s in MATRICES] if kind == "Muon" else start(dtype)


def in_torch(torch: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Our state_dict with PyTorch's tensors."""
    tensors = {
        number: {name: torch.tensor(value.cpu().numpy()) for name, value in entries.items()}
        for number, entries in state["state"].items()
    }
    return {"state": tensors, "param_groups": copy.deepcopy(state["param_groups"])}


@pytest.mark.parametrize("kind, seed", [*itertools.product(GRIDS, range(6))])
def test_fifty_steps_match_torch_with_states_exchanged_midway(
    kind: str, seed: int, device: str, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "Muon":  # PyTorch orthogonalizes in bfloat16; let it do so in float64
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    options = drawn(kind, seed)
    mine = parameters(initial(kind, "float64"), device)
    theirs = [torch.tensor(a, requires_grad=True) for a in initial(kind, "float64")]
    ours, reference = getattr(gpunet.optim, kind)(mine, **options), getattr(torch.optim, kind)(theirs, **options)
    for number in range(50):
        if number == 25:
            of_ours, of_theirs = ours.state_dict(), reference.state_dict()
            assert of_ours["param_groups"] == of_theirs["param_groups"]
            ours, reference = getattr(gpunet.optim, kind)(mine), getattr(torch.optim, kind)(theirs)
            ours.load_state_dict(of_theirs)
            reference.load_state_dict(in_torch(torch, of_ours))
        step(ours, mine, number)
        step(reference, theirs, number)
    for a, b in zip(arrays(mine), arrays(theirs), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_the_first_two_draws_differ_in_every_option() -> None:
    for kind in GRIDS:
        assert all(drawn(kind, 0)[k] != drawn(kind, 1)[k] for k in GRIDS[kind])


@pytest.mark.parametrize("kind", [k for k in GRIDS if k not in ("SGD", "Adam", "AdamW")])
def test_one_step_is_as_many_launches_as_dtypes(kind: str, device: str) -> None:
    if kind == "Muon":
        pytest.skip("the products of each matrix are launches of their own")
    params = parameters([a.astype(d) for a, d in zip(start("float64"), ("float32", "float32", "float64", "float64"))], device)
    optimizer = getattr(gpunet.optim, kind)(params)
    sum(p.double().sum() for p in params).backward()
    with record(Tape()) as tape:
        optimizer.step()
    assert [launch.kernel.name for launch in tape.launches] == [f"{kind.lower()}_step"] * 2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda m, p: m.Adamax(p, betas=(0.9, 1.0)), "Adamax: betas"),
        (lambda m, p: m.NAdam(p, momentum_decay=-1), "NAdam: momentum_decay=-1; expected zero or a positive number"),
        (lambda m, p: m.RAdam(p, eps=-1), "RAdam: eps"),
        (lambda m, p: m.RMSprop(p, alpha=-0.1), "RMSprop: alpha=-0.1"),
        (lambda m, p: m.Adagrad(p, initial_accumulator_value=-1), "Adagrad: initial_accumulator_value=-1"),
        (lambda m, p: m.Adadelta(p, rho=1.5), r"Adadelta: rho=1.5; expected a number in \[0, 1\]"),
        (lambda m, p: m.ASGD(p, weight_decay=-1), "ASGD: weight_decay"),
        (lambda m, p: m.Rprop(p, etas=(0.5, 0.9)), r"Rprop: etas=\(0.5, 0.9\); expected a number in \(0, 1\), and one above 1"),
        (lambda m, p: m.LBFGS(p, lr=-1), "learning rate -1"),
        (lambda m, p: m.LBFGS([{"params": p[:1]}, {"params": p[1:]}]), "LBFGS has one parameter group"),
        (lambda m, p: m.Muon(p), "Muon: a parameter of shape"),
        (lambda m, p: m.Muon(p[:1], adjust_lr_fn="x"), "Muon: adjust_lr_fn='x'"),
        (lambda m, p: m.RMSprop(p, lr=required), "RMSprop: a parameter group without lr"),
        (lambda m, p: m.RMSprop(p, differentiable=True), "RMSprop: differentiable=True; expected False"),
    ],
)
def test_options_out_of_range_raise_as_in_torch(make: Any, message: str, device: str, torch: Any) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(gpunet.optim, parameters(start("float32"), device))
    if "required" not in message and "without lr" not in message and "differentiable" not in message:  # which PyTorch supports
        with pytest.raises(ValueError, match="."):
            make(torch.optim, [torch.tensor(a, requires_grad=True) for a in start("float32")])


# ---- Adagrad, ASGD and Rprop: state that starts at another value than zero ----------------------------------------------


def test_adagrad_has_its_sums_before_the_first_step(device: str, torch: Any) -> None:
    states = []
    for module, params in (
        (gpunet, parameters(start("float64"), device)), (torch, [torch.tensor(a, requires_grad=True) for a in start("float64")])
    ):  # fmt: skip
        optimizer = module.optim.Adagrad(params[:2], initial_accumulator_value=0.5)
        optimizer.add_param_group({"params": params[2:]})
        states.append({k: {n: v.tolist() for n, v in s.items()} for k, s in optimizer.state_dict()["state"].items()})
    assert {k: v for k, v in states[0].items() if k < 2} == states[1]


def test_the_first_step_size_of_rprop_is_the_scheduled_learning_rate(device: str) -> None:
    (p,) = parameters([numpy.ones(3)], device)
    optimizer = gpunet.optim.Rprop([p], lr=0.5)
    gpunet.optim.lr_scheduler.ExponentialLR(optimizer, 0.5).step()
    p.grad = gpunet.tensor([1.0, -1.0, 0.0], dtype=gpunet.float64, device=device)
    optimizer.step()
    assert p.tolist() == [0.75, 1.25, 1.0]


def test_momentum_may_be_cycled_by_a_schedule(device: str, torch: Any) -> None:
    found = []
    for module, params in (
        (gpunet, parameters(start("float64"), device)), (torch, [torch.tensor(a, requires_grad=True) for a in start("float64")])
    ):  # fmt: skip
        optimizer = module.optim.RMSprop(params, lr=0.01, momentum=0.9, eps=1e-2)
        schedule = module.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, 20)
        for number in range(15):
            step(optimizer, params, number)
            schedule.step()
        found.append(arrays(params))
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a, b, rtol=1e-10)


# ---- Lion: the formulas of its paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lr": 0.02, "betas": (0.8, 0.6), "weight_decay": 0.1}, {"maximize": True}])
def test_lion_follows_its_paper(options: dict[str, Any], device: str) -> None:
    lr, (beta1, beta2) = options.get("lr", 1e-4), options.get("betas", (0.9, 0.99))
    mine, expected = parameters(start("float64"), device), start("float64")
    optimizer, averages = Lion(mine, **options), [numpy.zeros_like(a) for a in expected]
    for number in range(50):
        step(optimizer, mine, number)
        for index, (p, m) in enumerate(zip(expected, averages)):
            g = 2.0 * (p - number * 0.1) * (index + 1) * (-1.0 if options.get("maximize") else 1.0)
            update = numpy.sign(beta1 * m + (1.0 - beta1) * g) + options.get("weight_decay", 0.0) * p
            p -= lr * update
            m[...] = beta2 * m + (1.0 - beta2) * g
    for a, b in zip(arrays(mine), expected, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


# ---- Muon ---------------------------------------------------------------------------------------------------------------


def test_muon_differs_from_torch_by_the_rounding_of_bfloat16(device: str, torch: Any) -> None:
    mine = parameters(initial("Muon", "float32"), device)
    theirs = [torch.tensor(a, requires_grad=True) for a in initial("Muon", "float32")]
    step(Muon(mine, lr=1.0), mine, 1)
    step(torch.optim.Muon(theirs, lr=1.0), theirs, 1)
    for a, b in zip(arrays(mine), arrays(theirs)):
        assert 0.0 < numpy.abs(a - b).max() < 0.05  # bfloat16 has 8 bits, and five iterations multiply its errors


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_muon_makes_singular_values_about_one(dtype: str, device: str) -> None:
    """The step of a momentum that has small singular values, too: from 0.5 to 1.5 in the limit of its iteration."""
    (p,) = parameters([numpy.zeros((8, 5), dtype)], device)
    p.grad = gpunet.tensor(numpy.random.default_rng(0).normal(size=(8, 5)).astype(dtype), device=device)
    Muon([p], lr=1.0, weight_decay=0.0).step()
    values = numpy.linalg.svd(arrays([p])[0].astype("float64"))[1] / math.sqrt(8 / 5)
    assert values.min() > 0.5 and values.max() < 1.5


def test_muon_of_an_empty_matrix(device: str) -> None:
    params = parameters([numpy.zeros((0, 3)), numpy.ones((2, 2))], device)
    step(Muon(params), params, 1)


# ---- LBFGS --------------------------------------------------------------------------------------------------------------


def fit(module: Any, params: Any, options: dict[str, Any], device: Any = None, load: Any = None) -> tuple[Any, ...]:
    """Ten steps on a small regression, in PyTorch's idiom: losses, closure calls, weights, and the optimizer."""
    generator = numpy.random.default_rng(1)
    inputs = generator.normal(size=(20, 3))
    dtype = arrays(params)[0].dtype
    x, y = (module.tensor(a.astype(dtype), device=device) for a in (inputs, numpy.sin(inputs.sum(1, keepdims=True))))
    linear, optimizer, calls = module.nn.functional.linear, module.optim.LBFGS(params, **options), []

    def closure() -> Any:
        optimizer.zero_grad()
        calls.append(1)
        w, b, v, c = params
        loss = ((linear(linear(x, w, b).tanh(), v, c) - y) ** 2).mean() + 1e-3 * sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    if load is not None:
        optimizer.load_state_dict(load)
    return [optimizer.step(closure).item() for _ in range(3)], len(calls), arrays(params), optimizer


NET = [(8, 3), (8,), (1, 8), (1,)]
LBFGS_OPTIONS: list[dict[str, Any]] = [
    {}, {"lr": 0.3, "max_iter": 6, "history_size": 2}, {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "history_size": 3, "max_iter": 5, "lr": 4.0}, {"tolerance_grad": 0.05},
    {"line_search_fn": "strong_wolfe", "max_eval": 7}, {"line_search_fn": "strong_wolfe", "lr": 1e-3, "tolerance_change": 1e-5},
    {"max_iter": 1}, {"max_iter": 7, "max_eval": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", LBFGS_OPTIONS, ids=str)
def test_lbfgs_matches_torch_with_states_exchanged_midway(options: dict[str, Any], device: str, torch: Any) -> None:
    data = [numpy.random.default_rng(0).normal(size=s) / 2 for s in NET]
    losses, calls, mine, ours = fit(gpunet, parameters(data, device), options, device)
    expected, expected_calls, theirs, reference = fit(torch, [torch.tensor(a, requires_grad=True) for a in data], options)
    assert calls == expected_calls
    numpy.testing.assert_allclose(losses, expected, rtol=1e-10)
    for a, b in zip(mine, theirs):
        numpy.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)  # quasi-Newton steps amplify rounding errors
    saved = reference.state_dict()
    assert saved["state"][0].keys() == ours.state_dict()["state"][0].keys()
    again, again_calls, *_ = fit(gpunet, parameters(theirs, device), {}, device, saved)
    expected, expected_calls, *_ = fit(torch, [torch.tensor(a, requires_grad=True) for a in theirs], {}, None, saved)
    assert again_calls == expected_calls
    numpy.testing.assert_allclose(again, expected, rtol=1e-9)

    def converted(value: Any) -> Any:
        if isinstance(value, list):
            return [converted(v) for v in value]
        return torch.tensor(value.cpu().numpy()) if isinstance(value, gpunet.Tensor) else value

    of_ours = ours.state_dict()
    back = {"state": {0: {k: converted(v) for k, v in of_ours["state"][0].items()}}, "param_groups": of_ours["param_groups"]}
    last, last_calls, *_ = fit(torch, [torch.tensor(a, requires_grad=True) for a in theirs], {}, None, back)
    assert last_calls == expected_calls
    # 20 more quasi-Newton steps from states whose last digits differ; CuPy sums in another order than NumPy: 1.3e-7
    numpy.testing.assert_allclose(last, expected, rtol=1e-6)


def test_lbfgs_in_float32_reaches_the_loss_of_torch(device: str, torch: Any) -> None:
    data = [numpy.random.default_rng(0).normal(size=s).astype("float32") / 2 for s in NET]
    options = {"line_search_fn": "strong_wolfe"}
    losses, *_ = fit(gpunet, parameters(data, device), options, device)
    expected, *_ = fit(torch, [torch.tensor(a, requires_grad=True) for a in data], options)
    numpy.testing.assert_allclose(losses[:2], expected[:2], rtol=0.05)  # 20 iterations each amplify rounding errors
    assert losses[2] < 1.05 * expected[2]


def test_lbfgs_refuses_what_it_cannot_do(device: str) -> None:
    params = parameters([numpy.ones(2, "float32"), numpy.ones(2)], device)
    with pytest.raises(DtypeError, match="LBFGS: parameters of float32 and float64; expected one dtype"):
        LBFGS(params)
    with pytest.raises(ArgumentError, match="line_search_fn='armijo'; expected 'strong_wolfe' or None"):
        LBFGS(params[:1], line_search_fn="armijo")
    optimizer = LBFGS(params[:1])
    with pytest.raises(DtypeError, match=r"LBFGS.step\(None\); expected a function"):
        optimizer.step(None)  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="LBFGS.step.*capture the closure"):
        gpunet.capture(lambda: optimizer.step(lambda: params[0].sum()))()
    if device == "emulated":
        with pytest.raises(DeviceError, match="LBFGS: parameters on"):
            LBFGS([params[0], gpunet.zeros(2, device="cpu", requires_grad=True)])


def test_the_closure_of_lbfgs_may_be_captured(device: str) -> None:
    """The captured closure zeroes gradients, computes them, and returns the loss."""
    found = []
    for wrap in (lambda f: f, gpunet.capture):
        (p,) = parameters([numpy.array([1.0, -2.0, 0.5])], device)
        optimizer = LBFGS([p], line_search_fn="strong_wolfe")

        def closure(p: Any = p, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = ((p - 3.0) ** 4).sum() + (p[0] * p[1]).square()
            loss.backward()
            return loss

        run = wrap(closure)
        found.append([float(optimizer.step(run)) for _ in range(4)] + arrays([p])[0].tolist())
    assert found[0] == found[1]


# ---- hooks ----------------------------------------------------------------------------------------------------------------


def test_step_hooks_are_called_as_in_torch(device: str, torch: Any) -> None:
    logs = []
    for module in (gpunet, torch):
        log: list[Any] = []
        p = module.ones(2, requires_grad=True)
        optimizer = module.optim.SGD([p], lr=0.5)
        others = importlib.import_module(f"{module.__name__}.optim.optimizer")
        first = optimizer.register_step_pre_hook(lambda o, args, kwargs, log=log: log.append(("pre", len(args), [*kwargs])))
        optimizer.register_step_post_hook(lambda o, args, kwargs, log=log: log.append(("post", len(args), [*kwargs])))
        one = others.register_optimizer_step_pre_hook(lambda o, args, kwargs, log=log: log.append("all pre"))
        two = others.register_optimizer_step_post_hook(lambda o, args, kwargs, log=log: log.append("all post"))
        optimizer.step()
        optimizer.step(lambda: None)
        optimizer.step(closure=None)
        first.remove(), one.remove(), two.remove()
        optimizer.step()
        replace = optimizer.register_step_pre_hook(lambda o, *_, log=log: ((o, lambda: log.append("closure")), {}))
        optimizer.step()
        replace.remove()
        logs.append(log)
    assert logs[0] == logs[1] and len(logs[0]) > 12
    optimizer = SGD(parameters(start("float32"), device))
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(DtypeError, match=r"returned a value of type int; a step pre-hook returns None or a tuple \(args, kwargs\)"):
        optimizer.step()


def test_a_hook_that_is_added_makes_a_captured_step_record_again(device: str) -> None:
    (p,) = parameters([numpy.ones(2)], device)
    optimizer = SGD([p], lr=0.5)

    def run() -> None:
        p.grad = None
        p.sum().backward()
        optimizer.step()

    captured = gpunet.capture(run)
    captured(), captured()
    def halve(*_: Any) -> None:
        p.data.mul_(0.5)

    hooks = optimizer.register_step_post_hook, register_optimizer_step_pre_hook, register_optimizer_step_post_hook
    for number, register in enumerate(hooks, 2):
        handle = register(halve)
        before = p.tolist()
        captured()
        captured()
        handle.remove()
        assert p.tolist() != [value - 1.0 for value in before] and len(captured.recordings) == number


def test_state_dict_hooks_are_called_as_in_torch(device: str, torch: Any) -> None:
    logs = []
    for module in (gpunet, torch):
        log: list[Any] = []
        p = module.ones(2, requires_grad=True)
        optimizer = module.optim.SGD([p], lr=0.5, momentum=0.5)
        optimizer.register_state_dict_pre_hook(lambda o, log=log: log.append("pre"))
        optimizer.register_state_dict_pre_hook(lambda o, log=log: log.append("before pre"), prepend=True)
        optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
        optimizer.register_load_state_dict_pre_hook(lambda o, state, log=log: log.append(state.pop("more")))
        optimizer.register_load_state_dict_pre_hook(lambda o, state: {**state, "more": 2}, prepend=True)
        optimizer.register_load_state_dict_post_hook(lambda o, log=log: log.append(o.param_groups[0]["lr"]))
        state = optimizer.state_dict()
        log.append([*state])
        state["param_groups"][0]["lr"] = 0.25
        optimizer.load_state_dict(state)
        log.append([*state])
        logs.append(log)
    assert logs[0] == logs[1]


# ---- optimizers of users ------------------------------------------------------------------------------------------------


def own_optimizer(module: Any) -> Any:
    """An optimizer in the style of published scripts: its own step, state of any kind, and a required option."""
    required = importlib.import_module(f"{module.__name__}.optim.optimizer").required

    class Own(module.optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(self, params: Any, lr: Any = required, decay: float = 0.9) -> None:
            super().__init__(params, {"lr": lr, "decay": decay})

        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)

        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"], state["average"], state["history"] = 0, module.zeros_like(p.data), []
                    state["step"] += 1
                    state["average"].mul_(group["decay"]).add_(p.grad.data, alpha=1.0 - group["decay"])
                    state["history"].append(state["average"].clone())
                    p.data.add_(state["average"], alpha=-group["lr"] / state["step"])

    return Own


def test_an_optimizer_in_the_style_of_scripts_matches_torch(device: str, torch: Any) -> None:
    found, states = [], []
    for module in (gpunet, torch):
        make = own_optimizer(module)
        if module is gpunet:  # PyTorch accepts the marker as a value
            with pytest.raises(ArgumentError, match="Own: a parameter group without lr, which has no default; pass it"):
                make([module.ones(2, requires_grad=True)])
        params = [module.tensor(a, requires_grad=True) for a in start("float64")]
        optimizer = make(params, lr=0.5)
        calls: list[int] = []
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append(1))
        for number in range(10):
            if number == 5:
                state = optimizer.state_dict()
                states.append(state)
                optimizer = make(params, lr=9.0)
                optimizer.load_state_dict(state)
            step(optimizer, params, number)
        assert len(calls) == 5
        assert type(optimizer.state[params[0]]["step"]) is int and len(optimizer.state[params[0]]["history"]) == 10
        found.append(arrays(params))
    for a, b in zip(*found):
        numpy.testing.assert_allclose(a, b, rtol=1e-12)
    assert {k: [*v] for k, v in states[0]["state"].items()} == {k: [*v] for k, v in states[1]["state"].items()}


def test_an_optimizer_without_a_learning_rate(device: str) -> None:
    class Halves(gpunet.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                p.data.mul_(0.5)

    (p,) = parameters([numpy.ones(2)], device)
    optimizer = Halves([p], {})
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]
    optimizer.state["all"] = {"count": 3}
    other = Halves([p], {})
    other.load_state_dict(optimizer.state_dict())
    assert other.state["all"] == {"count": 3}


@pytest.mark.parametrize("kind", [*GRIDS, "Lion", "LBFGS"])
def test_copies_and_pickles_continue_with_the_same_bits(kind: str, device: str) -> None:
    params = parameters(initial("Muon", "float32"), device)
    optimizer = getattr(gpunet.optim, kind)(params)

    def closure(optimizer: Any, params: Any) -> Any:
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    optimizer.step(lambda: closure(optimizer, params))
    other = pickle.loads(pickle.dumps(optimizer)) if device == "cpu" else copy.deepcopy(optimizer)
    its = other.param_groups[0]["params"]
    for _ in range(2):
        optimizer.step(lambda: closure(optimizer, params))
        other.step(lambda: closure(other, its))
    assert [a.tobytes() for a in arrays(params)] == [a.tobytes() for a in arrays(its)]


def test_state_of_another_shape_raises(device: str) -> None:
    params = parameters(start("float32"), device)
    optimizer = gpunet.optim.NAdam(params)
    step(optimizer, params, 0)
    state = optimizer.state_dict()
    state["state"][0]["mu_product"] = gpunet.ones(2)
    with pytest.raises(StateDictError, match=r"'mu_product' of parameter 0 has shape \(2,\), expected \(1,\)"):
        optimizer.load_state_dict(state)


def test_lists_of_sets_of_parameters_are_bounded() -> None:
    """Layer dropout: each step another set of parameters has gradients."""
    parameters = [gpunet.nn.Parameter(gpunet.ones(2)) for _ in range(100)]
    optimizer = gpunet.optim.Adam(parameters, lr=0.1)
    for number in range(100):
        for position, parameter in enumerate(parameters):
            parameter.grad = None if position == number else gpunet.ones(2)
        optimizer.step()
    assert len(optimizer._cached_lists) <= 64
    assert all(abs(parameter[0].item() - (1 - 9.9)) < 1e-4 for parameter in parameters)
