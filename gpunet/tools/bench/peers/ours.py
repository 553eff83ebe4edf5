"""gpunet, eager and captured."""

from __future__ import annotations

import importlib.util
from typing import Any

import gpunet
from gpunet.errors import MissingDependencyError
from gpunet.tools.bench.cases import BETAS, EPSILON, Case, Runner


def make(case: Case, kind: str, variant: str, device: str) -> Runner:
    """An eager step, or ``gpunet.capture(step, backend=variant)``."""
    model = case.build(gpunet).to(device)
    model.load_state_dict(case.state())
    optimizer = _optimizer(case, kind, model)
    zero_grad = model.zero_grad if optimizer is None else optimizer.zero_grad

    def forward(x: Any, y: Any) -> Any:
        with gpunet.no_grad():
            return case.loss(gpunet, model(x), y)

    def backward(x: Any, y: Any) -> Any:
        zero_grad()
        loss = case.loss(gpunet, model(x), y)
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


def _optimizer(case: Case, kind: str, model: Any) -> Any:
    if kind == "sgd":
        return gpunet.optim.SGD(model.parameters(), lr=case.learning_rates[kind])
    if kind == "adam":
        return gpunet.optim.Adam(model.parameters(), lr=case.learning_rates[kind], betas=BETAS, eps=EPSILON)
    return None
