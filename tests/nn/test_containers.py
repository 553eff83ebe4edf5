"""ModuleDict, ParameterList, ParameterDict and LazyLinear, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import DtypeError, OutOfRangeError


def module_dict(lib: Any) -> Any:
    d = lib.nn.ModuleDict({"a": lib.nn.Linear(2, 3), "b": lib.nn.ReLU()})
    d.update([("c", lib.nn.Linear(3, 1))])
    d["b"] = lib.nn.Tanh()
    d.pop("c")
    d["d"] = lib.nn.Linear(1, 1, bias=False)
    return d


def parameter_list(lib: Any) -> Any:
    p = lib.nn.ParameterList([lib.ones(2), lib.nn.Parameter(lib.zeros(1, 3)), 5])
    p.append(lib.ones(1))
    p += [lib.zeros(4)]
    p[0] = lib.zeros(7)
    return p


def parameter_dict(lib: Any) -> Any:
    p = lib.nn.ParameterDict({"a": lib.ones(2), "b": lib.zeros(3)})
    p.update({"c": lib.ones(1)})
    p.pop("a")
    p.setdefault("e", lib.ones(2, 2))
    return p | lib.nn.ParameterDict({"f": lib.ones(9)})


@pytest.mark.parametrize("make", [module_dict, parameter_list, parameter_dict])
def test_containers_are_those_of_torch(make: Callable[[Any], Any], torch: Any) -> None:
    mine, theirs = make(gpunet), make(torch)
    shapes, expected = ([(k, tuple(v.shape)) for k, v in made.state_dict().items()] for made in (mine, theirs))
    assert shapes == expected
    assert len(mine) == len(theirs)
    assert [k for k, _ in mine.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    if make is not parameter_list:
        assert list(mine) == list(theirs) == list(mine.keys()) == [k for k, _ in mine.items()]
        assert list(reversed(mine)) == list(reversed(theirs)) if make is parameter_dict else "a" in mine
    else:
        assert mine[2] == theirs[2] == 5 and len(mine[1:3]) == 2 and [tuple(v.shape) for v in mine[3:]] == [(1,), (4,)]


def test_errors_of_containers() -> None:
    with pytest.raises(OutOfRangeError, match="index 3 of a ParameterList of 1 values"):
        nn.ParameterList([gpunet.ones(1)])[3]
    with pytest.raises(DtypeError, match="ModuleDict: got 3; expected a mapping"):
        nn.ModuleDict(3)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="'a' has type int; expected a Module"):
        nn.ModuleDict({"a": 1})  # type: ignore[dict-item]
    with pytest.raises(KeyError):
        nn.ParameterDict()["a"]


def test_a_lazy_linear_becomes_a_linear(device: str) -> None:
    layer = nn.LazyLinear(3, device=device)
    assert nn.parameter.is_lazy(layer.weight) and layer.weight.shape == (0,)
    parameters = list(layer.parameters())
    y = layer(gpunet.ones(2, 5, device=device))
    assert type(layer) is nn.Linear and y.shape == (2, 3) and layer.in_features == 5
    assert all(a is b and type(a) is nn.Parameter for a, b in zip(parameters, layer.parameters()))
    assert layer.weight.abs().max().item() <= 5**-0.5 and layer.weight.abs().min().item() > 0
    y.sum().backward()
    assert layer.weight.grad is not None


def test_a_lazy_linear_loads_a_state() -> None:
    source, model = nn.Linear(4, 2), nn.Sequential(nn.LazyLinear(2), nn.ReLU())
    model[0].load_state_dict(source.state_dict())
    x = gpunet.randn(3, 4)
    numpy.testing.assert_array_equal(model(x).detach().numpy(), source(x).relu().detach().numpy())
    assert model[0].in_features == 4


def test_layers_of_two_inputs_are_those_of_torch(torch: Any) -> None:
    generator = numpy.random.default_rng(0)
    a, b = generator.normal(size=(5, 3)), generator.normal(size=(5, 3))
    for name, options in (("CosineSimilarity", {}), ("PairwiseDistance", {"p": 1.0, "keepdim": True})):
        mine, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
        found, expected = mine(gpunet.tensor(a), gpunet.tensor(b)), theirs(torch.tensor(a), torch.tensor(b))
        numpy.testing.assert_allclose(found.numpy(), expected.numpy())
    mine, theirs = nn.Bilinear(3, 3, 2), torch.nn.Bilinear(3, 3, 2).double()
    mine.double().load_state_dict(theirs.state_dict())
    numpy.testing.assert_allclose(
        mine(gpunet.tensor(a), gpunet.tensor(b)).detach().numpy(), theirs(torch.tensor(a), torch.tensor(b)).detach().numpy()
    )
