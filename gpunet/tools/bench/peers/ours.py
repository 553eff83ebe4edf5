"""gpunet, eager and captured."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import gpunet
from gpunet.errors import MissingDependencyError
from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Case, Runner


def make(case: Case, kind: str, variant: str, device: str) -> Runner:
    """An eager step, or ``gpunet.capture(step, backend=variant)``."""
    model = _model(case, device)
    loss_of = gpunet.nn.MSELoss() if case.regression else gpunet.nn.CrossEntropyLoss()
    optimizer = _optimizer(kind, model)
    zero_grad = model.zero_grad if optimizer is None else optimizer.zero_grad

    def forward(x: Any, y: Any) -> Any:
        with gpunet.no_grad():
            return loss_of(model(x), y)

    def backward(x: Any, y: Any) -> Any:
        zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        return loss

    def step(x: Any, y: Any) -> Any:
        loss = backward(x, y)
        optimizer.step()
        return loss

    function = {"forward": forward, "backward": backward}.get(kind, step)
    if variant == "numba" and importlib.util.find_spec("numba") is None:
        raise MissingDependencyError("numba is not installed: pip install numba")
    if variant != "eager":
        function = gpunet.capture(function, backend=variant)
    batches = [(gpunet.tensor(x, device=device), gpunet.tensor(y, device=device)) for x, y in case.batches()]
    return Runner(function, batches, lambda loss: float(loss.item()))


def _model(case: Case, device: str) -> Any:
    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(case.sizes):
        layers += [gpunet.nn.Linear(inputs, outputs), gpunet.nn.ReLU()]
    model = gpunet.nn.Sequential(*layers[:-1])
    with gpunet.no_grad():
        for linear, values in zip(list(model)[::2], case.layers(), strict=True):
            linear.weight.copy_(gpunet.tensor(values.weight))
            linear.bias.copy_(gpunet.tensor(values.bias))
    return model.to(device)


def _optimizer(kind: str, model: Any) -> Any:
    if kind == "sgd":
        return gpunet.optim.SGD(model.parameters(), lr=LEARNING_RATES[kind])
    if kind == "adam":
        return gpunet.optim.Adam(model.parameters(), lr=LEARNING_RATES[kind], betas=BETAS, eps=EPSILON)
    return None
