"""Networks of all kinds train like PyTorch's with its weights loaded by name: losses, gradients, parameters, buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from tests.networks.table import NETWORKS, Network

STEPS = 10
#: In float32 the steps are smaller: with 0.01 the weights of the ResNet leave rounding behind, and a ReLU near 0 has another slope.
LEARNING_RATES = {"float64": 0.01, "float32": 1e-3}
#: Differences relative to the largest element of each array.  In float64 they are 2e-13 at most, in float32 3e-5 (the ResNet).
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
#: What rounding leaves of numbers that are 0, such as the gradient of a bias in front of a norm: up to 2e-7 in float32.
ZEROS = {"float64": 1e-14, "float32": 1e-6}


def training_step(m: Any, network: Network, model: Any, optimizer: Any) -> Callable[..., Any]:
    def step(*batch: Any) -> Any:
        optimizer.zero_grad()
        loss = network.loss(m, model, *batch)
        loss.backward()
        optimizer.step()
        return loss

    return step


def batches(network: Network, dtype: str) -> list[tuple[numpy.ndarray, ...]]:
    random = numpy.random.default_rng(0)
    arrays = [network.batch(random) for _ in range(3)] * 4
    return [tuple(a.astype(dtype) if a.dtype == "float64" else a for a in batch) for batch in arrays[:STEPS]]


def trained(m: Any, network: Network, model: Any, dtype: str, run: Callable[[Any], Any]) -> dict[str, Any]:
    """The losses of each step of SGD with momentum, and the gradients, parameters and buffers after the last."""
    model.to(getattr(m, dtype)).train(network.is_training)
    optimizer = m.optim.SGD(model.parameters(), lr=LEARNING_RATES[dtype], momentum=0.9)
    step = run(training_step(m, network, model, optimizer))
    losses = [step(*map(m.tensor, batch)).item() for batch in batches(network, dtype)]
    gradients = {f"gradient of {name}": p.grad.numpy() for name, p in model.named_parameters()}
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return {"losses": numpy.array(losses), **gradients, **state}


def pair(torch: Any, network: Network) -> tuple[Any, Any]:
    """Models of gpunet and PyTorch with PyTorch's weights."""
    torch.manual_seed(0)
    theirs, ours = network.make(torch), network.make(gpunet)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", LEARNING_RATES)
def test_network_trains_like_pytorchs(name: str, mode: str, dtype: str, torch: Any) -> None:
    network = NETWORKS[name]
    ours, theirs = pair(torch, network)
    expected = trained(torch, network, theirs, dtype, lambda step: step)
    found = trained(gpunet, network, ours, dtype, gpunet.capture if mode == "captured" else lambda step: step)
    assert found.keys() == expected.keys()
    assert abs(expected["losses"][-1] - expected["losses"][0]) > 1e-4, "of the same batch"
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        most = TOLERANCES[dtype] * float(numpy.abs(value).max(initial=0)) + ZEROS[dtype]
        numpy.testing.assert_allclose(found[key], value, rtol=0, atol=most, err_msg=key)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NETWORKS)
def test_network_takes_the_same_step_on_every_device(name: str, device: str) -> None:
    """A captured step, recorded and replayed, in float64: losses, gradients, parameters and buffers."""
    if device == "cpu":
        pytest.skip("what the others are compared with")
    network, found = NETWORKS[name], {}
    for where in ("cpu", device):
        gpunet.manual_seed(0)
        gpunet.set_default_device("cpu")  # where the weights are drawn
        model = network.make(gpunet).to(where, gpunet.float64).train(network.is_training)
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.01)
        step = gpunet.capture(training_step(gpunet, network, model, optimizer))
        losses = [step(*(gpunet.tensor(a, device=where) for a in batch)).item() for batch in batches(network, "float64")[:2]]
        gradients = [p.grad.cpu().numpy() for p in model.parameters()]
        found[where] = [numpy.array(losses), *gradients, *(value.cpu().numpy() for value in model.state_dict().values())]
    for a, b in zip(*found.values()):
        numpy.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
