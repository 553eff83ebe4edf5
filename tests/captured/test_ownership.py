"""Which memory is a step's own: what it made and nothing keeps lies in the arena, what is kept follows the replays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
import gpunet.captured
from gpunet import nn
from gpunet.captured.compiled import module
from gpunet.errors import CaptureError

BACKENDS = ["numpy", "numba"] if module.available() else ["numpy"]


class Keeper:
    """Keeps a tensor of the step, or a view of it, in different places."""

    def __init__(self, how: str) -> None:
        self.how, self.kept, self.gradients = how, [], []  # type: ignore[var-annotated]
        self.weight = gpunet.tensor([1.0, 2.0], requires_grad=True)
        self.hidden: Any = None

    def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
        hidden = (x * self.weight).exp()
        if self.how == "list":
            self.kept.append(hidden)
        elif self.how == "attribute":
            self.hidden = hidden
        elif self.how == "view":
            self.hidden = hidden[1:]
        elif self.how == "retain_grad":
            hidden.retain_grad()
            self.hidden = hidden
        elif self.how == "hook":
            hidden.register_hook(self.gradients.append)
        self.weight.grad = None
        loss = hidden.square().sum()
        loss.backward()
        return loss

    def found(self) -> list[Any]:
        tensors = [*self.kept, *self.gradients, *([] if self.hidden is None else [self.hidden, self.hidden.grad])]
        return [t.tolist() for t in tensors if t is not None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["list", "attribute", "view", "retain_grad", "hook"])
def test_a_kept_tensor_follows_the_replays(how: str, backend: str, device: str) -> None:
    keeper = Keeper(how)
    captured = gpunet.capture(keeper.step, backend=backend)
    for number in range(3):
        x = gpunet.tensor([0.1 * number, 0.2 + number], device=device)
        captured(x)
        eager = Keeper(how)
        eager.step(x)
        for mine, theirs in zip(keeper.found(), eager.found(), strict=True):
            numpy.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert len(captured.recordings) == 1


def test_all_that_nothing_keeps_lies_in_the_arena(device: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)
    optimizer = gpunet.optim.Adam(model.parameters())

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step(gpunet.ones(3, 4, device=device))
    outside = [b.nbytes for b in step.recordings[0].lowering.buffers if not b.temporary]
    parameters = [p.array.nbytes for p in model.parameters()]
    states = [t.array.nbytes for state in optimizer.state.values() for t in state.values()]
    hyperparameters = [g.hyperparameters.nbytes for g in optimizer.param_groups]
    assert sum(outside) <= sum((*parameters, *states, *hyperparameters)) + 12 * 4 + 64  # the argument, and a ticket


def outside_arrays() -> dict[str, Callable[[gpunet.Tensor], gpunet.Tensor]]:
    made, stack = gpunet.ones(2), iter([gpunet.ones(2), gpunet.ones(2)])
    name = "made"
    holder = type("Holder", (), {"__slots__": ("made",)})()
    holder.made = made
    return {
        "numpy inside": lambda x: x + gpunet.from_numpy(numpy.ones(2, "float32")),
        "an iterator": lambda x: x + next(stack),
        "a computed name": lambda x: x + getattr(holder, name),
    }


@pytest.mark.parametrize("how", [*outside_arrays()])
def test_an_array_that_no_guard_reaches_is_refused(how: str) -> None:
    with pytest.raises(CaptureError, match=r"add \(test_ownership.py:\d+: .* shape \(2,\), .*read it from a closure, global"):
        gpunet.capture(outside_arrays()[how])(gpunet.ones(2))


def test_capture_knows_neither_reference_counts_nor_modules_nor_optimizers() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(gpunet.captured.__file__).parent.rglob("*.py")}
    for word in ("getrefcount", "gpunet.nn", "gpunet.optim", "from_address"):
        assert not [name for name, text in sources.items() if word in text], word
