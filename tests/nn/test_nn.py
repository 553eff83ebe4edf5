"""Modules: parameters and names, state_dict, fusion in Sequential, modes, initialisation, dropout."""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import Node
from gpunet.errors import ArgumentError, DtypeError, InPlaceError, ShapeError, StateDictError
from gpunet.launch.tape import Tape, record

ACTIVATIONS = {
    "relu": lambda m: m.ReLU(),
    "leaky_relu": lambda m: m.LeakyReLU(),
    "leaky_relu 0.3": lambda m: m.LeakyReLU(0.3),
    "leaky_relu below zero": lambda m: m.LeakyReLU(-0.2),
    "sigmoid": lambda m: m.Sigmoid(),
    "tanh": lambda m: m.Tanh(),
    "gelu": lambda m: m.GELU(),
    "gelu tanh": lambda m: m.GELU(approximate="tanh"),
    "silu": lambda m: m.SiLU(),
    "elu": lambda m: m.ELU(),
    "elu 0.7": lambda m: m.ELU(0.7),
    "softplus": lambda m: m.Softplus(),
    "softplus 2": lambda m: m.Softplus(2.0, 5.0),
    "softmax": lambda m: m.Softmax(dim=1),
    "log_softmax": lambda m: m.LogSoftmax(dim=1),
    "identity": lambda m: m.Identity(),
    "dropout 0": lambda m: m.Dropout(0.0),
}


def network(m: Any, activation: Any) -> Any:
    return m.Sequential(m.Linear(5, 7), activation(m), m.Linear(7, 6, bias=False), activation(m), m.Linear(6, 3))


def bits(tensors: Any) -> list[bytes]:
    return [t.detach().cpu().numpy().tobytes() for t in tensors]


def ops_of(out: gpunet.Tensor) -> list[str]:
    names, stack = [], [out.grad_fn]
    while stack:
        node = stack.pop()
        if isinstance(node, Node):
            names.append(node.name)
            stack += [edge[0] for edge in node.next_functions]
    return names


def to_torch(torch: Any, state: Any) -> dict[str, Any]:
    return {name: torch.tensor(value.cpu().numpy()) for name, value in state.items()}


# ---- modules --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, m: Any = nn) -> None:
        super().__init__()
        self.body = m.Sequential(OrderedDict(first=m.Linear(4, 3), act=m.Tanh()))
        self.head = m.Linear(3, 2, bias=False)
        self.register_buffer("scale", gpunet.tensor([2.0]))
        self.register_buffer("scratch", gpunet.zeros(1), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x)) * self.scale


def test_names_of_parameters_buffers_and_modules(device: str) -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["body.first.weight", "body.first.bias", "head.weight"]
    assert [n for n, _ in net.named_buffers()] == ["scale", "scratch"]
    assert [n for n, _ in net.named_modules()] == ["", "body", "body.first", "body.act", "head"]
    assert [n for n, _ in net.named_children()] == ["body", "head"]
    assert list(net.state_dict()) == ["scale", "body.first.weight", "body.first.bias", "head.weight"]
    assert net.get_submodule("body.first") is net.body[0]
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())
    assert net(gpunet.ones(1, 4)).shape == (1, 2)


def test_shared_parameters_are_listed_once(device: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    net(gpunet.ones(2, 3)).sum().backward()
    assert net[0].weight.grad is net[2].weight.grad is not None


def test_assigning_a_wrong_attribute_raises(device: str) -> None:
    net = Net()
    with pytest.raises(DtypeError, match="'head'.*Module"):
        net.head = 3
    with pytest.raises(DtypeError, match="'weight'.*Parameter"):
        net.head.weight = gpunet.zeros(2, 3)
    with pytest.raises(AttributeError, match="nothing"):
        _ = net.nothing

    class Broken(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(ArgumentError, match=r"super\(\).__init__"):
        Broken()
    net.head = nn.Linear(3, 5)
    assert net(gpunet.ones(1, 4)).shape == (1, 5)
    del net.head
    assert not hasattr(net, "head")


def test_calling_a_module_without_forward_raises(device: str) -> None:
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_train_and_eval_apply_to_all_submodules(device: str) -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    x = gpunet.ones(4, 8)
    assert net.eval() is net and not net[1][0].training
    assert (net(x) == x).all()
    net.train()
    assert net[1][0].training and not (net(x) == x).all()


def test_device_and_dtype_conversions(device: str) -> None:
    net = Net().double()
    assert {p.dtype.name for p in [*net.parameters(), *net.buffers()]} == {"float64"}
    assert net(gpunet.ones(1, 4)).dtype == "float64"  # float32 data into a float64 model
    net.to(gpunet.float32).to("cpu")
    assert {p.dtype.name for p in net.parameters()} == {"float32"}
    parameter = net.head.weight
    net.double()
    assert net.head.weight is parameter, "an optimizer holds the parameter object"


def test_zero_grad_requires_grad_and_apply(device: str) -> None:
    net = Net()
    net(gpunet.ones(2, 4)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(gpunet.ones(2, 4)).requires_grad
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Tanh", "Sequential", "Linear", "Net"]


def test_repr_shows_the_tree(device: str) -> None:
    text = repr(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    assert "(0): Linear(in_features=2, out_features=3, bias=True)" in text and "(1): ReLU()" in text


def test_a_deep_copy_is_independent(device: str) -> None:
    net = Net()
    twin = copy.deepcopy(net)
    assert bits(net.parameters()) == bits(twin.parameters())
    with gpunet.no_grad():
        twin.head.weight.zero_()
    assert net.head.weight.any()
    assert list(twin.state_dict()) == list(net.state_dict())


# ---- state_dict -----------------------------------------------------------------------------------------------------


def test_state_dict_is_interchangeable_with_torch(device: str, torch: Any) -> None:
    mine, theirs = network(nn, ACTIVATIONS["gelu"]), network(torch.nn, ACTIVATIONS["gelu"])
    shapes = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in mine.state_dict().items()} == shapes
    assert list(mine.state_dict()) == list(theirs.state_dict())
    x = numpy.random.default_rng(0).normal(size=(4, 5)).astype("float32")

    def outputs() -> tuple[Any, Any]:
        return mine(gpunet.tensor(x, device=device)).detach().cpu().numpy(), theirs(torch.tensor(x)).detach().numpy()

    mine.load_state_dict(theirs.state_dict())
    numpy.testing.assert_allclose(*outputs(), rtol=1e-4, atol=1e-6)  # two layers of float32 sums
    mine.load_state_dict(network(nn, ACTIVATIONS["gelu"]).state_dict())
    theirs.load_state_dict(to_torch(torch, mine.state_dict()))
    numpy.testing.assert_allclose(*outputs(), rtol=1e-4, atol=1e-6)


def test_load_state_dict_lists_all_problems_and_changes_nothing(device: str) -> None:
    net = Net()
    before = bits(net.parameters())
    state = {k: gpunet.zeros_like(v) for k, v in net.state_dict().items()}
    state["extra"] = state["other.extra"] = gpunet.zeros(1)
    del state["head.weight"], state["scale"]
    with pytest.raises(StateDictError) as caught:
        net.load_state_dict(state)
    for name in ("extra", "other.extra", "head.weight", "scale", "missing", "unexpected"):
        assert name in str(caught.value)
    assert "\\n" not in str(caught.value) and "'" not in str(caught.value)[:1]
    assert bits(net.parameters()) == before
    state = {**net.state_dict(), "head.weight": gpunet.zeros(3, 2)}
    state["body.first.bias"] = gpunet.ones(3)
    with pytest.raises(StateDictError, match=r"head.weight has shape \(3, 2\), expected \(2, 3\)"):
        net.load_state_dict(state)
    assert bits(net.parameters()) == before


def test_load_state_dict_not_strict_returns_the_mismatched_keys(device: str) -> None:
    net = Net()
    missing, unexpected = net.load_state_dict({"scale": numpy.array([7.0]), "extra": numpy.zeros(1)}, strict=False)
    assert (net.scale.item(), unexpected, len(missing)) == (7.0, ["extra"], 3)


def test_load_state_dict_copies_and_converts_values_and_backward_detects_it(device: str) -> None:
    net = nn.Linear(2, 1)
    weight, loss = net.weight, net(gpunet.ones(1, 2, requires_grad=True)).sum()
    source = {"weight": numpy.array([[1.0, 2.0]]), "bias": numpy.array([3.0])}
    net.load_state_dict(source)
    source["weight"][...] = 0.0
    assert net.weight is weight and weight.dtype == "float32" and weight.tolist() == [[1.0, 2.0]]
    with pytest.raises(InPlaceError, match="^linear saved a tensor"):
        loss.backward()


# ---- fusion in Sequential -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_and_unfused_have_the_same_bits(activation: str, dtype: str, training: bool, device: str) -> None:
    """Sequential and a loop over its modules give the same output and the same gradients."""
    net = network(nn, ACTIVATIONS[activation]).train(training).to(dtype=gpunet.float64 if dtype == "float64" else gpunet.float32)
    data = gpunet.randn(9, 5, dtype=dtype)
    labels, results = gpunet.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2]), []
    for fused in (True, False):
        net.zero_grad()
        x = data.detach().requires_grad_()
        out = x
        if fused:
            out = net(x)
        else:
            for module in net:
                out = module(out)
        nn.functional.cross_entropy(out, labels).backward()
        results.append(bits([out, x.grad, *(p.grad for p in net.parameters())]))
    assert results[0] == results[1]


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if "below" not in a and a not in ("softplus 2",)])
def test_gradients_of_networks_match_torch(activation: str, device: str, torch: Any) -> None:
    mine, theirs = network(nn, ACTIVATIONS[activation]), network(torch.nn, ACTIVATIONS[activation])
    theirs.load_state_dict(to_torch(torch, mine.state_dict()))
    x = numpy.random.default_rng(1).normal(size=(6, 5)).astype("float32")
    y = numpy.array([0, 1, 2, 2, 1, 0])
    nn.functional.cross_entropy(mine(gpunet.tensor(x, device=device)), gpunet.tensor(y, device=device)).backward()
    torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y)).backward()
    for a, b in zip(mine.parameters(), theirs.parameters()):
        numpy.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_consecutive_linear_layers_are_one_op(device: str) -> None:
    names = ops_of(network(nn, ACTIVATIONS["gelu"])(gpunet.ones(2, 5)))
    assert names == ["linear_chain"]
    with_dropout = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 4), nn.Tanh())
    assert ops_of(with_dropout(gpunet.ones(2, 5))) == ["linear_chain", "drop", "linear_chain"]
    assert ops_of(with_dropout.eval()(gpunet.ones(2, 5))) == ["linear_chain", "linear_chain"]


def test_modules_with_hooks_are_not_fused(device: str) -> None:
    net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), gpunet.ones(2, 4)
    plain, seen = bits([net(x)]), []
    for index, shapes in enumerate([((2, 4), (2, 3)), ((2, 3), (2, 3)), ((2, 3), (2, 2))]):
        handle = net[index].register_forward_hook(lambda module, args, out: seen.append((args[0].shape, out.shape)))
        assert bits([net(x)]) == plain
        handle.remove()
        assert ops_of(net(x)) == ["linear_chain"]
        assert seen.pop() == shapes and not seen


def test_hooks_can_replace_arguments_and_outputs(device: str) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    net[0].register_forward_pre_hook(lambda module, args: args[0] * 0.0)
    net[1].register_forward_hook(lambda module, args, out: out + 10.0)
    expected = 10.0 + net[0].bias.detach().clamp(min=0.0)
    assert bits([net(gpunet.ones(1, 4))[0]]) == bits([expected])


def test_a_subclass_runs_its_own_forward(device: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2.0

    class Shifted(nn.ReLU):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1.0

    net = nn.Sequential(Doubled(4, 3), Shifted())
    linear = nn.Linear(4, 3)
    linear.load_state_dict(net[0].state_dict())
    assert bits([net(gpunet.ones(1, 4))]) == bits([(linear(gpunet.ones(1, 4)) * 2.0).relu() + 1.0])

    patched = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    patched[0].forward = lambda x: x * 2.0
    assert bits([patched(gpunet.ones(1, 4))]) == bits([gpunet.full((1, 4), 2.0)])

    class Same(nn.Linear):
        """A subclass that does not override forward is fused."""

    assert ops_of(nn.Sequential(Same(4, 3), nn.ReLU())(gpunet.ones(1, 4))) == ["linear_chain"]


def test_sequential_as_a_list(device: str) -> None:
    net = network(nn, ACTIVATIONS["relu"])
    assert len(net) == 5 and isinstance(net[1], nn.ReLU) and net[-1] is list(net)[4]
    assert list(net[2:].state_dict()) == ["2.weight", "4.weight", "4.bias"]
    net.append(nn.Sigmoid())
    net[-1] = nn.Tanh()
    assert len(net) == 6
    with pytest.raises(ArgumentError, match="entry 1 has type str"):
        nn.Sequential(nn.ReLU(), "relu")


def test_inputs_of_any_number_of_dimensions(device: str) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x = gpunet.randn(2, 5, 4)
    out = net(x)
    assert out.shape == (2, 5, 2) and net(x[0, 0]).shape == (2,)
    numpy.testing.assert_allclose(out[1, 3].tolist(), net(x[1, 3]).tolist(), rtol=1e-5)
    assert nn.Flatten()(x).shape == (2, 20) and nn.Unflatten(1, (5, 1))(x[:, :, 0]).shape == (2, 5, 1)
    with pytest.raises(ShapeError, match=r"3 features.*\(3, 4\) expects 4"):
        net(gpunet.ones(2, 3))


@pytest.mark.parametrize("activation", ["ReLU", "LeakyReLU", "ELU", "SiLU"])
def test_in_place_activations_match_torch(activation: str, device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        layer = getattr(module.nn, activation)(inplace=True)
        x = module.tensor([[-1.0, 2.0], [3.0, -4.0]], requires_grad=True, **place)
        y = x * 1.0
        assert layer(y) is y and repr(layer).endswith("inplace=True)")
        (y * y).sum().backward()
        results.append([v.detach().cpu().numpy() for v in (y, x.grad)])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-5)
    chain = nn.Sequential(nn.Linear(2, 2), getattr(nn, activation)(inplace=True))
    assert ops_of(chain(gpunet.tensor([[-1.0, 2.0]], device=device))) == ["linear_chain"]  # the intermediate result is nobody's


def test_dropout_in_place(device: str) -> None:
    x = gpunet.ones(64)
    assert nn.Dropout(0.5, inplace=True)(x) is x and not x.all()


# ---- initialisation -------------------------------------------------------------------------------------------------


def test_linear_is_initialised_uniformly_within_its_bound(device: str) -> None:
    layer = nn.Linear(400, 300)
    for p in layer.parameters():
        values = p.detach().cpu().numpy()
        assert abs(values).max() <= 1 / math.sqrt(400)
        assert values.max() > 0.98 / math.sqrt(400) and values.min() < -0.98 / math.sqrt(400)
    # the std of 120,000 uniform numbers has a relative error of 0.2 %, so 1 % is five standard deviations
    assert layer.weight.detach().std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.01)


@pytest.mark.parametrize(
    "name, std, bounded",
    [
        ("xavier_uniform_", math.sqrt(2 / 700), True),
        ("xavier_normal_", math.sqrt(2 / 700), False),
        ("kaiming_uniform_", math.sqrt(2 / 400), True),
        ("kaiming_normal_", math.sqrt(2 / 400), False),
    ],
)
def test_init_has_the_expected_std_and_bound(name: str, std: float, bounded: bool, device: str) -> None:
    w = getattr(nn.init, name)(gpunet.empty(300, 400)).cpu().numpy()
    assert w.std() == pytest.approx(std, rel=0.01) and abs(w.mean()) < 0.02 * std  # 120,000 numbers: 5 deviations
    assert (abs(w).max() <= std * math.sqrt(3) * (1 + 1e-6)) == bounded


def test_init_of_constants(device: str) -> None:
    w = nn.Parameter(gpunet.empty(2, 3))
    assert nn.init.constant_(w, 3.0).tolist() == [[3.0] * 3] * 2
    assert not nn.init.zeros_(w).any() and nn.init.ones_(w).all()
    assert nn.init.eye_(w).tolist() == numpy.eye(2, 3).tolist()
    assert w.requires_grad and w.is_leaf
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        nn.init.xavier_uniform_(gpunet.empty(3))
    with pytest.raises(ArgumentError, match="'sideways'"):
        nn.init.kaiming_normal_(gpunet.empty(3, 3), mode="sideways")


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_match_torch(name: str, torch: Any) -> None:
    assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


# ---- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_with_probability_p_and_scales_the_other_elements(p: float, device: str) -> None:
    x = gpunet.ones(100, 1000, requires_grad=True)
    y = nn.Dropout(p)(x)
    kept = y.detach().cpu().numpy() != 0
    assert kept.mean() == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / 1e5))  # five standard deviations
    numpy.testing.assert_allclose(y.detach().cpu().numpy()[kept], 1 / (1 - p), rtol=1e-6)
    y.sum().backward()
    assert (x.grad.cpu().numpy() == y.detach().cpu().numpy()).all()  # the same mask, the same factor


def test_dropout_with_probability_one_and_zero(device: str) -> None:
    x = gpunet.ones(3, requires_grad=True)
    assert nn.Dropout(1.0)(x).tolist() == [0.0] * 3
    assert nn.Dropout(0.0)(x) is x
    with pytest.raises(ArgumentError, match="p=1.5.*0 to 1"):
        nn.Dropout(1.5)


def test_dropout_is_reproducible_with_the_seed(device: str) -> None:
    layer, x, seen = nn.Dropout(0.5), gpunet.ones(64), []
    for seed in (1, 1, 2):
        gpunet.manual_seed(seed)
        seen.append(bits([layer(x), layer(x)]))
    assert seen[0] == seen[1] != seen[2]
    assert all(a != b for a, b in itertools.pairwise(seen[0] + seen[2]))


def test_dropout_keeps_the_position_of_the_stream_instead_of_a_mask(device: str) -> None:
    x = gpunet.ones(4000, requires_grad=True)
    y = nn.functional.dropout(x, 0.5)
    first = y.detach().tolist()
    (position,) = y._node.saved
    assert position.nbytes == 16
    nn.functional.dropout(x, 0.5)  # the stream moves on; the gradients follow the position
    (once,) = gpunet.autograd.grad(y.sum(), x, retain_graph=True)
    (twice,) = gpunet.autograd.grad((y * y).sum(), x, create_graph=True)
    twice.sum().backward()
    assert once.tolist() == first and twice.tolist() == [4.0 * value for value in first]
    assert x.grad.tolist() == [4.0 * value for value in first]


def test_dropout_is_a_launch_forward_and_one_backward(device: str) -> None:
    x, upstream = gpunet.ones(4000, requires_grad=True), gpunet.ones(4000)
    with record(Tape()) as tape:
        nn.functional.dropout(x, 0.5).backward(upstream)
    assert [launch.kernel.name for launch in tape.launches] == ["dropout_drawn"] * 2


def test_modules_of_pytorch_are_those_of_nn() -> None:
    assert nn.modules.Linear is nn.Linear and nn.modules.module.Module is nn.Module and nn.modules.loss.MSELoss is nn.MSELoss
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
