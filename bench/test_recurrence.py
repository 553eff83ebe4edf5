"""A training step of an LSTM and a linear head with Adam, 32 sequences of 32 steps, 64 features and units, beside PyTorch's eager.

pytest bench/test_recurrence.py -s
"""

from __future__ import annotations

import statistics

import numpy
import pytest

import gpunet
from bench.test_convolution import _times

LENGTH, BATCH, UNITS, CLASSES = 32, 32, 64, 10


def _step(torch, kind, states, arrays):
    """A step that returns the loss; the parameters begin with the values of ``states``, those of the layer and of the head."""
    x, labels = (torch.tensor(a) for a in arrays)
    layer, head = getattr(torch.nn, kind)(UNITS, UNITS, batch_first=True), torch.nn.Linear(UNITS, CLASSES)
    for module, state in zip((layer, head), states):
        module.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()])

    def step():
        optimizer.zero_grad()
        output, _ = layer(x)
        loss = torch.nn.functional.cross_entropy(head(output[:, -1]), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_step(kind, mode, benchmark):
    torch = pytest.importorskip("torch")
    random = numpy.random.default_rng(0)
    arrays = random.normal(size=(BATCH, LENGTH, UNITS)).astype("float32"), random.integers(0, CLASSES, BATCH)
    modules = getattr(torch.nn, kind)(UNITS, UNITS), torch.nn.Linear(UNITS, CLASSES)
    states = [{name: value.numpy() for name, value in module.state_dict().items()} for module in modules]
    ours, theirs = _step(gpunet, kind, states, arrays), _step(torch, kind, states, arrays)
    if mode == "captured":
        ours = gpunet.capture(ours)
    for _ in range(5):
        numpy.testing.assert_allclose(ours().item(), theirs().item(), rtol=1e-4)
    of_ours, of_theirs = _times(ours, theirs)
    ratio = statistics.median(b / a for a, b in zip(of_ours, of_theirs))
    of_ours, of_theirs = (1e3 * statistics.median(times) for times in (of_ours, of_theirs))
    print(f"\n{kind}, {mode}: {of_ours:.2f} ms, PyTorch eager {of_theirs:.2f} ms; speed relative to PyTorch {ratio:.2f}")
    benchmark.extra_info["speed relative to PyTorch"] = ratio
    benchmark.pedantic(ours, rounds=5)
