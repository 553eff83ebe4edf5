"""state_dict and load_state_dict: shared modules, prefix, keep_vars, assign; and how module lists follow PyTorch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, StateDictError


def shared(m: Any) -> Any:
    layer = m.Linear(2, 2)
    return m.Sequential(layer, m.ReLU(), layer, m.Sequential(m.Linear(2, 2), layer))


def arrays(state: Any) -> dict[str, Any]:
    return {name: value.detach().cpu().numpy().tolist() for name, value in state.items()}


# ---- shared modules -------------------------------------------------------------------------------------------------


def test_a_shared_module_has_all_its_names(device: str, torch: Any) -> None:
    mine, theirs = shared(nn), shared(torch.nn)
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    for call in (
        lambda m: [name for name, _ in m.named_parameters()],
        lambda m: [name for name, _ in m.named_parameters(remove_duplicate=False)],
        lambda m: [name for name, _ in m.named_modules()],
        lambda m: [name for name, _ in m.named_modules(remove_duplicate=False)],
        lambda m: [name for name, _ in m.named_children()],
        lambda m: len([*m.modules(remove_duplicate=False)]),
    ):
        assert call(mine) == call(theirs)


def test_a_checkpoint_of_a_shared_module_is_interchangeable_with_torch(device: str, torch: Any) -> None:
    mine, theirs = shared(nn), shared(torch.nn)
    mine.load_state_dict(theirs.state_dict())
    assert arrays(mine.state_dict()) == arrays(theirs.state_dict()) and mine[0] is mine[2] is mine[3][1]
    again = shared(torch.nn)
    again.load_state_dict({name: torch.tensor(value.cpu().numpy()) for name, value in mine.state_dict().items()})
    assert arrays(again.state_dict()) == arrays(theirs.state_dict())
    state = mine.state_dict()
    del state["2.weight"]
    with pytest.raises(StateDictError, match=r"missing keys: 2\.weight"):
        mine.load_state_dict(state)


# ---- options --------------------------------------------------------------------------------------------------------


def test_options_of_state_dict(device: str) -> None:
    net = nn.Sequential(nn.Linear(2, 1))
    net.register_buffer("scale", gpunet.ones(1))
    assert [*net.state_dict(prefix="net.")] == ["net.scale", "net.0.weight", "net.0.bias"]
    kept = net.state_dict(keep_vars=True)
    assert kept["0.weight"] is net[0].weight and net.state_dict()["0.weight"].requires_grad is False
    found: dict[str, Any] = {"other": 1}
    assert net.state_dict(destination=found, prefix="a.") is found and [*found][:2] == ["other", "a.scale"]
    with pytest.warns(FutureWarning, match="by keyword"):
        assert [*net.state_dict({}, "b.")] == ["b.scale", "b.0.weight", "b.0.bias"]


def test_a_state_dict_shares_memory_with_the_module(device: str) -> None:
    net = nn.Linear(2, 1)
    state = net.state_dict()
    with gpunet.no_grad():
        net.weight.zero_()
    assert not state["weight"].any()


def test_load_state_dict_with_assign_takes_the_tensors_themselves(device: str, torch: Any) -> None:
    for module in (gpunet, torch):
        net = module.nn.Sequential(module.nn.Linear(2, 1))
        net.register_buffer("scale", module.ones(1))
        net[0].bias.requires_grad_(False)
        state = {
            "scale": module.zeros(1, dtype=module.float64),
            "0.weight": module.ones(1, 2, dtype=module.float64),
            "0.bias": module.nn.Parameter(module.ones(1)),
        }
        assert net.load_state_dict(state, assign=True) == ([], [])
        assert net.scale is state["scale"] and net[0].bias is state["0.bias"]
        assert isinstance(net[0].weight, module.nn.Parameter) and net[0].weight.dtype == module.float64
        assert net[0].weight.requires_grad and not net[0].bias.requires_grad
        with pytest.raises(StateDictError if module is gpunet else RuntimeError):
            net.load_state_dict({**state, "scale": module.ones(2)}, assign=True)
        assert net.scale is state["scale"]


def test_entries_of_a_state_dict_that_are_no_tensors(device: str) -> None:
    net = nn.Linear(1, 1)
    net.load_state_dict({"weight": [[2.0]], "bias": numpy.array([3.0])})
    assert (net.weight.item(), net.bias.item()) == (2.0, 3.0)
    with pytest.raises(StateDictError, match=r"weight has dtype <U1; expected numbers"):
        net.load_state_dict({"weight": "x", "bias": [1.0]})
    zero = nn.Module()
    zero.register_buffer("value", gpunet.tensor(0.0))
    zero.load_state_dict({"value": gpunet.tensor([4.0])})  # as PyTorch 0.3 saved it
    assert zero.value.item() == 4.0


# ---- other call forms -----------------------------------------------------------------------------------------------


def test_module_to_keeps_integer_buffers(device: str, torch: Any) -> None:
    for module in (gpunet, torch):
        net = module.nn.Linear(1, 1)
        net.register_buffer("count", module.tensor([3]))
        reference = module.ones(1, dtype=module.float64)
        for call in (
            lambda net=net, m=module: net.to(m.float64), lambda net=net, m=module: net.to("cpu", m.float64),
            lambda net=net, r=reference: net.to(r), lambda net=net, m=module: net.to(dtype=m.float64),
        ):  # fmt: skip
            call()
            assert (net.weight.dtype, net.count.dtype) == (module.float64, module.int64)
        with pytest.raises(TypeError):
            net.to(module.int64)


def test_hooks_with_options_match_torch(device: str, torch: Any) -> None:
    for module in (gpunet, torch):
        calls: list[Any] = []

        class Net(module.nn.Module):  # type: ignore[name-defined,misc]
            def forward(self, x: Any, *, scale: float = 1.0) -> Any:
                if scale == 0.0:
                    raise ZeroDivisionError
                return x * scale

        net = Net()
        net.register_forward_hook(lambda m, args, out, calls=calls: calls.append(("late", out.item())))
        net.register_forward_hook(lambda m, args, out, calls=calls: calls.append(("early", out.item())), prepend=True)
        net.register_forward_hook(
            lambda m, args, kwargs, out, calls=calls: calls.append((dict(kwargs), out is None)), with_kwargs=True, always_call=True
        )
        handle = net.register_forward_pre_hook(lambda m, args, kwargs: (args, {"scale": kwargs["scale"] * 2.0}), with_kwargs=True)
        net.register_forward_pre_hook(lambda m, args: (args[0] + 1.0,), prepend=True)
        assert net(module.tensor(1.0), scale=3.0).item() == 12.0
        assert calls == [("early", 12.0), ("late", 12.0), ({"scale": 6.0}, False)]
        calls.clear()
        with pytest.raises(ZeroDivisionError):
            net(module.tensor(1.0), scale=0.0)
        assert calls == [({"scale": 0.0}, True)]
        handle.remove()
        assert net(module.tensor(1.0), scale=3.0).item() == 6.0


def test_sequences_of_modules_as_lists(device: str, torch: Any) -> None:
    for m in (nn, torch.nn):
        net = m.Sequential(m.ReLU(), m.Tanh(), m.Sigmoid())
        net.insert(1, m.Identity())
        assert type(net.pop(0)) is m.ReLU
        del net[-1]
        assert [(name, type(layer)) for name, layer in net.named_children()] == [("0", m.Identity), ("1", m.Tanh)]
        net += m.Sequential(m.ReLU())
        assert len(net + net) == 6 and len(net) == 3
        layers = m.ModuleList([m.ReLU()]) + [m.Tanh()]
        layers.insert(0, m.Identity())
        layers += [m.Tanh()]
        del layers[1:3]
        assert [(name, type(layer)) for name, layer in layers.named_children()] == [("0", m.Identity), ("1", m.Tanh)]
        assert len(m.ModuleList()) == 0
        for sequence in (net, layers):
            with pytest.raises(IndexError):
                sequence[7]


def test_arguments_that_modules_refuse(device: str) -> None:
    with pytest.raises(ArgumentError, match="train: mode=1; expected a bool"):
        nn.ReLU().train(1)

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__(3)

    with pytest.raises(ArgumentError, match=r"Wrong: Module.__init__\(\) got \[3\]"):
        Wrong()
    with pytest.raises(DtypeError, match="int64; expected a floating dtype"):
        nn.Linear(1, 1, dtype=gpunet.int64)
    assert nn.Linear(numpy.int64(2), 3).weight.shape == (3, 2)
    assert nn.Parameter().shape == (0,) and nn.Parameter([1.0, 2.0]).dtype == gpunet.float32


def test_initialisation_with_a_generator(device: str) -> None:
    for name in ("uniform_", "normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        first, second = (
            getattr(nn.init, name)(gpunet.empty(3, 4), generator=gpunet.Generator().manual_seed(5)).tolist() for _ in range(2)
        )
        assert first == second != getattr(nn.init, name)(gpunet.empty(3, 4)).tolist()
    wide = gpunet.zeros(3, 4)
    nn.init.normal_(wide[:, :2])  # of any strides
    assert wide[:, :2].all() and not wide[:, 2:].any()
    with pytest.raises(DtypeError, match="normal_: a tensor of dtype int64"):
        nn.init.normal_(gpunet.tensor([1]))
    with pytest.raises(DtypeError, match=r"uniform_: generator=3; expected a gpunet\.Generator"):
        nn.init.uniform_(gpunet.ones(1), generator=3)
    with pytest.raises(ArgumentError, match="uniform_: a=1.0, b=0.0"):
        nn.init.uniform_(gpunet.ones(1), 1.0, 0.0)
    with pytest.warns(UserWarning, match="no-op"):
        nn.init.kaiming_normal_(gpunet.empty(0, 3))


# ---- pickle ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "bool"])
def test_a_pickled_tensor_keeps_values_dtype_and_device(dtype: str, device: str) -> None:
    x = gpunet.tensor([[1, 0], [3, 4]], dtype=dtype)
    for given in (x, x.T, x[1:]):
        found = pickle.loads(pickle.dumps(given))
        assert (found.dtype, found.device, found.tolist()) == (given.dtype, given.device, given.tolist())


def test_a_pickled_parameter_keeps_its_class_but_not_its_gradient(device: str) -> None:
    p = nn.Parameter(gpunet.ones(2))
    p.sum().backward()
    found = pickle.loads(pickle.dumps(p))
    assert type(found) is nn.Parameter and found.requires_grad and found.grad is None
    assert not pickle.loads(pickle.dumps(nn.Parameter(gpunet.ones(2), requires_grad=False))).requires_grad
    result = pickle.loads(pickle.dumps(p * 2.0))  # of a graph only the values are kept
    assert (result.is_leaf, result.requires_grad, result.tolist()) == (True, True, [2.0, 2.0])


def print_name(module: Any, args: Any, out: Any) -> None:
    print(type(module).__name__)


def test_a_pickled_module_works_in_another_process(device: str, tmp_path: Any) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Dropout(0.5)).eval()
    net.extra = net[0].weight
    net.register_buffer("scale", gpunet.ones(1), persistent=False)
    x = gpunet.ones(1, 3)
    (tmp_path / "net").write_bytes(pickle.dumps((net, x, net(x).detach())))
    program = f"""
import pathlib, pickle
net, x, expected = pickle.loads(pathlib.Path({str(tmp_path / "net")!r}).read_bytes())
assert (net(x) == expected).all() and not net.training and net.extra is net[0].weight
assert list(net.state_dict()) == ["extra", "0.weight", "0.bias"]
net(x).sum().backward()
assert net.extra.grad is not None
"""
    if device == "cuda":
        exec(program)
    else:
        subprocess.run([sys.executable, "-c", program], check=True)


def test_hooks_of_a_pickled_module_do_not_meet_new_ones(capsys: Any) -> None:
    net = nn.ReLU()
    net.register_forward_hook(print_name, always_call=True)
    found = pickle.loads(pickle.dumps(net))
    for _ in range(3):
        found.register_forward_hook(print_name)
    found(gpunet.ones(1))
    assert capsys.readouterr().out.split() == ["ReLU"] * 4


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_a_pickled_optimizer_continues(kind: str, device: str) -> None:
    def step(net: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        net(gpunet.ones(2, 3)).square().sum().backward()
        optimizer.step()

    net = nn.Linear(3, 2)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(gpunet.optim, kind)(net.parameters(), lr=0.1, **options)
    schedule = gpunet.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    step(net, optimizer)
    schedule.step()
    others = pickle.loads(pickle.dumps((net, optimizer, schedule)))
    assert others[1].param_groups[0]["params"][0] is others[0].weight
    for model, opt, sched in ((net, optimizer, schedule), others):
        for _ in range(3):
            step(model, opt)
            sched.step()
    assert others[1].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.1 * 0.5**4
    assert arrays(others[0].state_dict()) == arrays(net.state_dict())
