"""CTC against PyTorch, and against the sum over all alignments."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError, LabelError, ShapeError

F = gpunet.nn.functional


def collapse(path: tuple[int, ...]) -> list[int]:
    """The labels of a path: repetitions merged, blanks (0) dropped."""
    return [label for label, _ in itertools.groupby(path) if label]


@pytest.mark.parametrize("target", [[], [1], [1, 1], [2, 1], [1, 2, 1], [1, 1, 1, 1]])
def test_the_loss_sums_over_all_alignments(target: list[int]) -> None:
    logs = numpy.log(numpy.random.default_rng(0).dirichlet([1, 1, 1], 4))
    paths = (path for path in itertools.product(range(3), repeat=4) if collapse(path) == target)
    total = sum(math.exp(sum(logs[t, label] for t, label in enumerate(path))) for path in paths)
    loss = F.ctc_loss(gpunet.tensor(logs), numpy.array(target, int), (4,), (len(target),), reduction="none")
    assert loss.shape == ()
    numpy.testing.assert_allclose(loss.item(), -math.log(total) if total else math.inf, rtol=1e-12)


def case(seed: int) -> tuple[Any, ...]:
    """Logits, targets (padded or joined), input lengths and target lengths; some targets are too long for their frames."""
    generator = numpy.random.default_rng(seed)
    frames, n = generator.integers(3, 12), generator.integers(1, 5)
    sizes, lengths = generator.integers(0, 5, n), generator.integers(1, frames + 1, n)
    padded = generator.integers(1, 5, (n, 5))
    targets = padded if seed % 2 else numpy.concatenate([row[:size] for row, size in zip(padded, sizes)])
    return generator.normal(size=(frames, n, 5)), targets, lengths, sizes


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("seed", range(8))
def test_values_and_gradients_are_those_of_torch(seed: int, reduction: str, zero_infinity: bool, device: str, torch: Any) -> None:
    logits, targets, lengths, sizes = case(seed)
    x = gpunet.tensor(logits, device=device, requires_grad=True)
    loss = F.ctc_loss(x.log_softmax(2), gpunet.tensor(targets, device=device), gpunet.tensor(lengths), tuple(sizes.tolist()),
                      reduction=reduction, zero_infinity=zero_infinity)  # fmt: skip
    y = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        y.log_softmax(2), *map(torch.tensor, (targets, lengths, sizes)), reduction=reduction, zero_infinity=zero_infinity
    )
    numpy.testing.assert_allclose(loss.detach().cpu().numpy(), expected.detach().numpy(), rtol=1e-11)
    if numpy.isfinite(expected.detach().numpy()).all():
        loss.sum().backward()
        expected.sum().backward()
        numpy.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.numpy(), atol=1e-12)  # type: ignore[union-attr]


def test_gradients_are_slopes() -> None:
    logits, targets, lengths, sizes = case(3)
    x = gpunet.tensor(logits, requires_grad=True)
    assert gpunet.autograd.gradcheck(lambda v: F.ctc_loss(v, targets, lengths, sizes, zero_infinity=True), [x])


def test_halves_are_computed_in_float32() -> None:
    logits, targets, lengths, sizes = case(3)
    x = gpunet.tensor(logits, dtype=gpunet.float16)
    loss = F.ctc_loss(x, targets, lengths, sizes, zero_infinity=True, reduction="none")
    assert loss.dtype == gpunet.float16
    expected = F.ctc_loss(x.float(), targets, lengths, sizes, zero_infinity=True, reduction="none")
    numpy.testing.assert_allclose(loss.numpy(), expected.numpy(), rtol=1e-3)


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (ShapeError, "expected \\(frames, n, classes\\)", {"log_probs": numpy.zeros(3)}),
        (DtypeError, "log_probs of dtype int64", {"log_probs": numpy.zeros((4, 2, 3), int)}),
        (DtypeError, "targets of dtype float64", {"targets": numpy.ones((2, 2))}),
        (ArgumentError, "blank=3; expected one of the classes 0 .. 2", {"blank": 3}),
        (ShapeError, "input_lengths holds 1 lengths; expected 2", {"input_lengths": (4,)}),
        (ShapeError, "input_lengths\\[1\\] is 5; expected 0 .. 4", {"input_lengths": (4, 5)}),
        (ShapeError, "targets hold 3 labels, target_lengths add up to 2", {"targets": [1, 1, 1]}),
        (LabelError, "label 0; expected one of 0 .. 2 other than the blank 0", {"targets": [[1], [0]]}),
        (ArgumentError, "reduction='all'", {"reduction": "all"}),
    ],
)
def test_errors_name_the_argument(error: type[Exception], message: str, changed: dict[str, Any]) -> None:
    options: dict[str, Any] = {
        "log_probs": numpy.zeros((4, 2, 3)), "targets": [[1], [2]], "input_lengths": (4, 4), "target_lengths": (1, 1)
    }
    with pytest.raises(error, match=f"ctc_loss: .*{message}"):
        F.ctc_loss(**{**options, **changed})


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("blank", [0, 2, 4])
def test_an_infinite_loss_and_other_blanks_have_the_gradients_of_torch(
    blank: int, zero_infinity: bool, device: str, torch: Any
) -> None:
    logits = numpy.random.default_rng(1).normal(size=(4, 3, 5))
    targets, lengths, sizes = numpy.array([[1, 3, 1], [3, 3, 3], [1, 1, 1]]), (4, 4, 2), (3, 3, 1)
    x, y = gpunet.tensor(logits, device=device, requires_grad=True), torch.tensor(logits, requires_grad=True)
    options: Any = {"blank": blank, "reduction": "none", "zero_infinity": zero_infinity}
    loss = F.ctc_loss(x.log_softmax(2), targets, lengths, sizes, **options)
    expected = torch.nn.functional.ctc_loss(y.log_softmax(2), torch.tensor(targets), lengths, sizes, **options)
    numpy.testing.assert_allclose(loss.detach().cpu().numpy(), expected.detach().numpy(), rtol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    assert numpy.isnan(y.grad.numpy()).any() != zero_infinity
    numpy.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.numpy(), atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_the_composed_form_has_the_same_gradients(zero_infinity: bool) -> None:
    logits = gpunet.tensor(numpy.random.default_rng(1).normal(size=(4, 3, 5)), requires_grad=True)
    loss = F.ctc_loss(logits, [[1, 3, 1], [3, 3, 3], [0, 0, 0]], (4, 4, 0), (3, 3, 1), 4, "none", zero_infinity)
    fused, composed = (gpunet.grad(loss.sum(), logits, retain_graph=True, create_graph=create)[0] for create in (False, True))
    numpy.testing.assert_allclose(composed.detach().numpy(), fused.numpy(), atol=1e-13)


@pytest.mark.parametrize("is_padded", [False, True])
def test_a_captured_step_takes_other_labels_and_lengths(is_padded: bool, device: str, torch: Any) -> None:
    generator = numpy.random.default_rng(0)
    x = gpunet.tensor(generator.normal(size=(9, 3, 5)), device=device, requires_grad=True)
    y = torch.tensor(x.detach().cpu().numpy(), requires_grad=True)

    @gpunet.capture
    def step(targets: Any, lengths: Any, sizes: Any) -> Any:
        x.grad = None
        loss = F.ctc_loss(x.log_softmax(2), targets, lengths, sizes, reduction="sum")
        loss.backward()
        return loss

    for sizes in ([1, 3, 0], [2, 0, 2], [0, 1, 3]):
        targets, lengths = generator.integers(1, 5, (3, 3) if is_padded else 4), generator.integers(6, 10, 3)
        arrays = targets, lengths, numpy.array(sizes)
        loss = step(*(gpunet.tensor(array, device=device) for array in arrays))
        y.grad = None
        expected = torch.nn.functional.ctc_loss(y.log_softmax(2), *map(torch.tensor, arrays), reduction="sum")
        expected.backward()
        numpy.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)
        numpy.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.numpy(), atol=1e-12)  # type: ignore[union-attr]


def test_a_captured_step_names_a_bad_label_of_a_replay(device: str) -> None:
    step = gpunet.capture(lambda x, targets: F.ctc_loss(x, targets, (3, 3), (1, 2)))
    x = gpunet.zeros(3, 2, 4, device=device)
    step(x, gpunet.tensor([[1, 9], [1, 2]], device=device)).item()  # what follows the end of a sequence is no label
    with pytest.raises(LabelError, match="ctc_loss: label 4; expected one of 0 .. 3"):
        step(x, gpunet.tensor([[1, 1], [1, 4]], device=device)).item()
