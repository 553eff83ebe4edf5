"""weight_norm, spectral_norm and parametrizations, beside PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn.utils import parametrize


def applied(lib: Any, kind: str, options: dict[str, Any]) -> Any:
    layer = lib.nn.Linear(3, 4, dtype=lib.float64)
    utils = lib.nn.utils
    owner = utils.parametrizations if kind.startswith("new ") else utils
    return getattr(owner, kind.removeprefix("new "))(layer, **options)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("weight_norm", {}), ("weight_norm", {"dim": None}), ("weight_norm", {"dim": 1}), ("new weight_norm", {}),
    ("new weight_norm", {"dim": 1}), ("spectral_norm", {}), ("spectral_norm", {"n_power_iterations": 3, "dim": 1}),
    ("new spectral_norm", {}), ("new spectral_norm", {"n_power_iterations": 2}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's: the old functions are deprecated
@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("training", [True, False])
def test_states_results_and_gradients_are_those_of_torch(kind: str, options: Any, training: bool, torch: Any) -> None:
    mine, theirs = applied(gpunet, kind, options), applied(torch, kind, options)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert {k: tuple(v.shape) for k, v in mine.state_dict().items()} == {k: v.shape for k, v in state.items()}
    mine.load_state_dict({k: gpunet.tensor(v) for k, v in state.items()})
    mine.train(training)
    theirs.train(training)
    x = numpy.random.default_rng(0).normal(size=(5, 3))
    for _ in range(3):  # each forward iterates
        out, expected = mine(gpunet.tensor(x)), theirs(torch.tensor(x))
        numpy.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-10)
    (out**2).sum().backward()
    (expected**2).sum().backward()
    for (key, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == other
        numpy.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_old_norms_can_be_removed(kind: str) -> None:
    layer = applied(gpunet, kind, {}).eval()
    x = gpunet.ones(2, 3, dtype="float64")
    before = layer(x)
    getattr(nn.utils, f"remove_{kind}")(layer)
    assert list(layer.state_dict()) == ["bias", "weight"] and isinstance(layer.weight, nn.Parameter)
    numpy.testing.assert_allclose(layer(x).detach().numpy(), before.detach().numpy(), rtol=1e-12)
    with pytest.raises(ArgumentError, match=f"remove_{kind}: Linear has no {kind} of 'weight'"):
        getattr(nn.utils, f"remove_{kind}")(layer)


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x: Any) -> Any:
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2


def test_a_parametrized_weight_is_computed_when_it_is_read(device: str) -> None:
    layer = nn.Linear(3, 3, device=device)
    weight = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias") and layer.parametrizations.weight.original is weight
    assert (layer.weight == layer.weight.t()).all() and layer.weight is not layer.weight
    with parametrize.cached():
        assert layer.weight is layer.weight
    layer(gpunet.ones(1, 3, device=device)).sum().backward()
    assert weight.grad is not None and weight.grad[1, 0].item() == 0.0 and weight.grad[0, 1].item() == 2.0
    layer.weight = gpunet.ones(3, 3, device=device)
    assert weight.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert layer.weight.tolist() == [[2.0] * 3] * 3
    with pytest.raises(ArgumentError, match="Doubled has no right_inverse"):
        layer.weight = gpunet.ones(3, 3, device=device)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight is weight and weight.tolist() == [[2.0] * 3] * 3
    assert list(layer.state_dict()) == ["bias", "weight"]


def test_a_sequential_takes_parametrized_layers_and_copies_them() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    parametrize.register_parametrization(model[0], "weight", Doubled())
    x = gpunet.randn(4, 3)
    expected = model[2](model[0](x).relu())
    assert (model(x) == expected).all() and (copy.deepcopy(model)(x) == expected).all()


def test_errors_of_parametrizations() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(ArgumentError, match="Linear has no parameter or buffer 'w'"):
        parametrize.register_parametrization(layer, "w", Doubled())
    with pytest.raises(ShapeError, match=r"'weight' of shape \(3, 2\) float32 became \(6,\) float32; pass unsafe=True"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    assert type(layer) is nn.Linear and list(layer.state_dict()) == ["weight", "bias"]
    with pytest.raises(ArgumentError, match="has no parametrized tensor 'weight'"):
        parametrize.remove_parametrizations(layer, "weight")
    for norm in (nn.utils.weight_norm, nn.utils.spectral_norm):
        with pytest.raises(ArgumentError, match="Linear has no parameter 'w'"):
            norm(layer, "w")
    nn.utils.weight_norm(layer)
    with pytest.raises(ArgumentError, match="has weight_norm of 'weight' already"):
        nn.utils.weight_norm(layer)


class _Scaled(nn.Module):
    """Twice the original."""

    def forward(self, x: Any) -> Any:
        return 2.0 * x


def test_transfer_of_parametrizations() -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    assert parametrize.transfer_parametrizations_and_params(source, target) is target and not parametrize.is_parametrized(target)
    parametrize.register_parametrization(source, "weight", _Scaled())
    parametrize.transfer_parametrizations_and_params(source, target, "bias")
    assert not parametrize.is_parametrized(target)
    assert parametrize.transfer_parametrizations_and_params(source, target) is target
    shared: Any = target.parametrizations
    assert shared.weight[0] is source.parametrizations.weight[0]  # type: ignore[union-attr, index]
    assert shared.weight.original is source.parametrizations.weight.original  # type: ignore[union-attr]
    numpy.testing.assert_array_equal(target.weight.detach().numpy(), source.weight.detach().numpy())
    empty = parametrize.transfer_parametrizations_and_params(source, nn.Module())
    assert [*empty.state_dict()] == ["parametrizations.weight.original"]
