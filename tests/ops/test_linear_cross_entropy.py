"""linear_cross_entropy: chunks beside PyTorch's function, forms of targets and weights, memory, refusals."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, LabelError, ShapeError
from gpunet.launch.tape import Tape, record
from gpunet.ops import linear_cross_entropy as module

F = nn.functional
N, FEATURES, CLASSES = 300, 6, 20


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 128 rows."""
    monkeypatch.setattr(module, "_CHUNK_LOGITS", 1)


def operands(random: numpy.random.Generator) -> list[numpy.ndarray]:
    return [random.normal(size=(N, FEATURES)), random.normal(size=(CLASSES, FEATURES)), random.normal(size=CLASSES)]


def results(m: Any, arrays: list[numpy.ndarray], labels: numpy.ndarray, device: str, **options: Any) -> list[numpy.ndarray]:
    """The loss, its gradients, and second derivatives."""
    x, w, b = (m.tensor(array, device=device, requires_grad=True) for array in arrays)
    loss = m.nn.functional.linear_cross_entropy(x, w, m.tensor(labels, device=device), linear_bias=b, **options)
    gradients = m.autograd.grad(2.0 * loss, [x, w, b], create_graph=True)
    sum((g * g).sum() for g in gradients).backward()
    return [t.detach().cpu().numpy() for t in (loss, *gradients, x.grad, w.grad, b.grad)]


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"ignore_index": 3}], ids=str)
def test_chunks_match_torch(options: dict[str, Any], device: str, torch: Any) -> None:
    random = numpy.random.default_rng(0)
    arrays, labels = operands(random), random.integers(0, CLASSES, N)
    with record(Tape()) as tape:
        mine = results(gpunet, arrays, labels, device, **options)
    assert [launch.kernel.name for launch in tape.launches].count("cross_entropy_labels") == 3
    for a, b in zip(mine, results(torch, arrays, labels, "cpu", **options)):
        numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("chunks")
def test_chunks_of_captured_steps_and_halves(device: str) -> None:
    random = numpy.random.default_rng(1)
    arrays, labels = operands(random), random.integers(0, CLASSES, N)
    y = gpunet.tensor(labels)
    for dtype, tolerance in ((gpunet.float32, 1e-5), (gpunet.float16, 2e-2)):
        x, w, b = (gpunet.tensor(array, dtype=dtype, requires_grad=True) for array in arrays)

        def step(x: Any, y: Any, w: Any = w, b: Any = b) -> Any:
            w.grad = b.grad = None
            loss = F.linear_cross_entropy(x, w, y, linear_bias=b)
            loss.backward()
            return loss, w.grad

        eager = [t.tolist() for t in step(x.detach(), y)]
        captured = gpunet.capture(step)
        for _ in range(2):
            assert [t.tolist() for t in captured(x.detach(), y)] == eager
        expected = F.cross_entropy(F.linear(x.float(), w.float(), b.float()), y)
        (of_w,) = gpunet.autograd.grad(expected, w)
        numpy.testing.assert_allclose(eager[0], expected.item(), rtol=tolerance)
        numpy.testing.assert_allclose(eager[1], of_w.tolist(), rtol=tolerance, atol=tolerance * abs(of_w).max().item())


@pytest.mark.parametrize("kind", ["labels of rows", "probabilities", "class weights", "one row", "further dimensions", "none"])
def test_other_forms_match_torch(kind: str, device: str, torch: Any) -> None:
    random = numpy.random.default_rng(2)
    x, w, b = operands(random)
    target, options = random.integers(0, CLASSES, N), {}
    if kind == "probabilities":
        target = random.dirichlet(numpy.ones(CLASSES), N)
    elif kind == "class weights":
        options = {"weight": random.random(CLASSES), "label_smoothing": 0.1}
    elif kind == "one row":
        x, target = x[0], target[0]
    elif kind == "further dimensions":
        w, b = random.normal(size=(CLASSES, 2, FEATURES)), random.normal(size=(CLASSES, 2))
        target = random.integers(0, CLASSES, (N, 2))
    elif kind == "none":
        options = {"reduction": "none"}
    found = []
    for m, where in ((gpunet, device), (torch, "cpu")):
        given = {key: m.tensor(value, device=where) if key == "weight" else value for key, value in options.items()}
        tensors = [m.tensor(array, device=where) for array in (x, w, target, b)]
        loss = m.nn.functional.linear_cross_entropy(*tensors[:3], linear_bias=tensors[3], **given)
        found.append(loss.cpu().numpy())
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_the_module_has_torchs_keys_and_loss(device: str, torch: Any) -> None:
    options = {"out_features": (2,), "bias": True, "label_smoothing": 0.1}
    mine, theirs = nn.LinearCrossEntropyLoss(3, 4, **options), torch.nn.LinearCrossEntropyLoss(3, 4, **options)
    mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    random = numpy.random.default_rng(3)
    x, y = random.normal(size=(5, 3)).astype("float32"), random.integers(0, 4, (5, 2))
    expected = theirs(torch.tensor(x), torch.tensor(y)).item()
    assert mine(gpunet.tensor(x), gpunet.tensor(y)).item() == pytest.approx(expected, rel=1e-6)
    assert repr(mine) == repr(theirs)


def test_chunks_take_less_memory_than_the_logits() -> None:
    x, w, y = gpunet.randn(4096, 8, requires_grad=True), gpunet.randn(4096, 8), gpunet.zeros(4096, dtype="int64")
    tracemalloc.start()
    F.linear_cross_entropy(x, w, y).backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 4
    assert x.grad is not None


def test_halves_are_not_summed_over_chunks() -> None:
    """The gradient of the sum of these losses is beyond the range of float16, that of their mean is not."""
    x, w = gpunet.full((4096, 2), 64.0, dtype="float16"), gpunet.zeros(2048, 2, dtype="float16", requires_grad=True)
    F.linear_cross_entropy(x, w, gpunet.zeros(4096, dtype="int64")).backward()
    assert w.grad.isfinite().all() and w.grad[0, 0].item() == pytest.approx(-64.0, rel=2e-3)


def test_rows_of_a_chunk() -> None:
    """A chunk has at least as many logits as the input has elements."""
    assert module.rows_of_chunk(8192, 50_000, 768) == 128
    assert module.rows_of_chunk(8192, 50_000, 8192) == 1408
    assert module.rows_of_chunk(64, 10, 128) == 64


@pytest.mark.usefixtures("chunks")
def test_refusals(device: str) -> None:
    x, w, y = gpunet.zeros(N, 3), gpunet.zeros(5, 3), gpunet.zeros(N, dtype="int64")
    with pytest.raises(ShapeError, match=r"linear_weight \(3,\)"):
        F.linear_cross_entropy(x, w[:3, 0], y)
    with pytest.raises(ShapeError, match=r"linear_bias has shape \(4,\); expected \(5,\)"):
        F.linear_cross_entropy(x, w, y, linear_bias=gpunet.zeros(4))
    with pytest.raises(ArgumentError, match="options=1; expected None"):
        F.linear_cross_entropy(x, w, y, options=1)
    with pytest.raises(ArgumentError, match="ignore_index=1 beside probabilities"):
        F.linear_cross_entropy(x, w, gpunet.zeros(N, 5), ignore_index=1)
    y[280] = 7  # in the chunk that begins at row 256
    with pytest.raises(LabelError, match="label 7 at row " + ("280" if device == "cpu" else "24")):
        F.linear_cross_entropy(x, w, y).item()
