"""In-place changes: correct gradients, or an error that names the op whose saved tensor was changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import GradientError, InPlaceError, ShapeError

F = nn.functional


def leaf_and_non_leaf(*shape: int) -> tuple[gpunet.Tensor, gpunet.Tensor]:
    """A leaf, and a non-leaf computed from it, which may be changed in place."""
    x = gpunet.rand(*shape, requires_grad=True)
    return x, x * 1.0


# ---- saved tensors --------------------------------------------------------------------------------------------------

#: op name in the message -> function whose backward needs its input, a (3, 3) tensor
NEED_INPUT: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "mul": lambda x: x * x,
    "div": lambda x: 2.0 / x,
    "pow": lambda x: x**3,
    "abs": lambda x: x.abs(),
    "square": lambda x: x.square(),
    "log": lambda x: x.log(),
    "sin": lambda x: x.sin(),
    "erf": lambda x: x.erf(),
    "maximum": lambda x: gpunet.maximum(x, 0.5),
    "clamp": lambda x: x.clamp(0.2, 0.8),
    "matmul": lambda x: x @ x,
    "max/min": lambda x: x.amax(1),
    "prod": lambda x: x.prod(1),
    "gelu": lambda x: F.gelu(x),
    "linear": lambda x: F.linear(x, gpunet.ones(2, 3, requires_grad=True)),
}
#: The same, for functions whose backward needs the output.
NEED_OUTPUT: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "sqrt": lambda x: x.sqrt(),
    "reciprocal": lambda x: x.reciprocal(),
    "tan": lambda x: x.tan(),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(1),
    "max/min": lambda x: x.amax(1),
    "relu": lambda x: F.relu(x),
    "linear": lambda x: F.linear(x, gpunet.ones(2, 3), activation="tanh"),
}
#: Functions whose backward needs neither input nor output.
NEED_NOTHING: dict[str, Callable[[gpunet.Tensor], Any]] = {
    "add": lambda x: x + 1.0,
    "sub": lambda x: 1.0 - x,
    "mul by a number": lambda x: x * 2.0,
    "neg": lambda x: -x,
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(),
    "cumsum": lambda x: x.cumsum(0),
    "clone": lambda x: x.clone(),
    "cat": lambda x: gpunet.cat([x, x]),
    "where": lambda x: gpunet.where(gpunet.eye(3, dtype=gpunet.bool), x, 0.0),
    "index": lambda x: x[numpy.array([0, 0, 2])],
    "mse_loss": lambda x: F.mse_loss(x, gpunet.zeros(3, 3)),
    "cross_entropy": lambda x: F.cross_entropy(x, gpunet.tensor([0, 1, 2])),
}


@pytest.mark.parametrize("name", NEED_INPUT)
def test_change_of_a_saved_input_names_the_op(name: str, device: str) -> None:
    _, y = leaf_and_non_leaf(3, 3)
    out = NEED_INPUT[name](y)
    y += 1.0
    with pytest.raises(InPlaceError, match=f"^{name} saved a tensor for backward .*version 1, saved at version 0.*clone"):
        out.sum().backward()


@pytest.mark.parametrize("name", NEED_OUTPUT)
def test_change_of_a_saved_output_names_the_op(name: str, device: str) -> None:
    _, y = leaf_and_non_leaf(3, 3)
    out = NEED_OUTPUT[name](y)
    out.mul_(2.0)
    with pytest.raises(InPlaceError, match=f"^{name} saved a tensor for backward"):
        out.sum().backward()


@pytest.mark.parametrize("name", NEED_NOTHING)
def test_change_of_a_tensor_that_is_not_saved_is_allowed(name: str, device: str) -> None:
    """The gradient is that of a run without the change."""
    gradients = []
    for change in (False, True):
        gpunet.manual_seed(1)
        x, y = leaf_and_non_leaf(3, 3)
        out = NEED_NOTHING[name](y)
        if change:
            y += 1.0
        out.sum().backward()
        gradients.append(x.grad.tolist())
    assert gradients[0] == gradients[1]


def test_only_tensors_needed_for_a_requested_gradient_are_saved(device: str) -> None:
    a, b = leaf_and_non_leaf(3)
    out = b * gpunet.ones(3)  # only the gradient of the constant, which is not requested, would need b
    b += 1.0
    out.sum().backward()
    assert a.grad.tolist() == [1.0] * 3


def test_weight_changed_between_forward_and_backward(device: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    loss = model(gpunet.ones(5, 3)).sum()
    with gpunet.no_grad():
        model[2].weight.mul_(2.0)
    with pytest.raises(InPlaceError, match="^linear saved a tensor"):
        loss.backward()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_optimizer_step_between_forward_and_backward(kind: str, device: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = getattr(gpunet.optim, kind)(model.parameters(), lr=0.1)
    x = gpunet.ones(5, 3)
    stale = model(x).sum()
    model(x).sum().backward()
    optimizer.step()
    with pytest.raises(InPlaceError, match="^linear saved a tensor"):
        stale.backward()


def test_index_changed_between_forward_and_backward(device: str) -> None:
    x, y = leaf_and_non_leaf(3)
    index = gpunet.tensor([0, 1])
    picked = y[index]
    index += 1
    with pytest.raises(InPlaceError, match="^indexing saved a tensor"):
        picked.sum().backward()


def test_condition_changed_between_forward_and_backward(device: str) -> None:
    x, y = leaf_and_non_leaf(2)
    condition = gpunet.tensor([True, False])
    out = gpunet.where(condition, y, 0.0)
    condition[1] = True
    with pytest.raises(InPlaceError, match="^where saved a tensor"):
        out.sum().backward()


def test_change_through_detach_or_data_is_detected(device: str) -> None:
    for cut in (lambda t: t.detach(), lambda t: t.data):
        x, y = leaf_and_non_leaf(3)
        out = y.exp()
        cut(out).mul_(2.0)
        with pytest.raises(InPlaceError, match="^exp saved a tensor"):
            out.sum().backward()


# ---- which tensors may change ---------------------------------------------------------------------------------------


def test_leaf_that_requires_grad_cannot_be_changed(device: str) -> None:
    x = gpunet.ones(2, requires_grad=True)
    for change in (lambda: x.add_(1.0), lambda: x.__setitem__(0, 5.0), lambda: x.zero_(), lambda: x.copy_(gpunet.ones(2))):
        with pytest.raises(GradientError, match="leaf tensor that requires grad.*no_grad"):
            change()
    assert x.tolist() == [1.0, 1.0]
    with gpunet.no_grad():
        x += 1.0
    assert x.tolist() == [2.0, 2.0] and x.is_leaf and x.requires_grad


def test_view_cannot_be_changed_if_it_requires_grad(device: str) -> None:
    x, y = leaf_and_non_leaf(4)
    with pytest.raises(InPlaceError, match="view"):
        y[:2].mul_(2.0)
    with pytest.raises(InPlaceError, match="view"):
        y.reshape(2, 2).add_(1.0)


def test_view_cannot_receive_a_tensor_that_requires_grad(device: str) -> None:
    """The base would stay outside the graph: base.sum() would have no gradient for w."""
    w, base = gpunet.ones(2, requires_grad=True), gpunet.zeros(4)
    with pytest.raises(InPlaceError, match="view"):
        base[:2].add_(w)


def test_plain_views_share_memory_and_versions(device: str) -> None:
    base = gpunet.zeros(2, 2)
    base[0] += 1.0
    base.T[1].fill_(7.0)
    assert base.tolist() == [[1.0, 7.0], [0.0, 7.0]]
    x = gpunet.ones(2, requires_grad=True)
    out = x * base[0]
    base.zero_()
    with pytest.raises(InPlaceError, match="^mul saved a tensor"):
        out.sum().backward()


def test_view_is_stale_after_its_base_was_changed(device: str) -> None:
    x, y = leaf_and_non_leaf(4)
    view = y[:2]
    y.mul_(3.0)
    with pytest.raises(InPlaceError, match="result of indexing.*Take the view again"):
        view.sum()
    y[:2].sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 0.0, 0.0]


# ---- semantics ------------------------------------------------------------------------------------------------------


def test_augmented_assignment_changes_the_same_memory(device: str) -> None:
    a = b = gpunet.tensor([1.0, 2.0])
    a += 1
    a *= 2
    a -= 1.0
    a /= 3
    assert a is b
    assert a.tolist() == [1.0, pytest.approx(5 / 3)]


def test_augmented_assignment_is_differentiable(device: str) -> None:
    x, y = leaf_and_non_leaf(3)
    before = y
    y *= 3.0
    y += x
    y **= 2
    assert y is before
    y.sum().backward()
    numpy.testing.assert_allclose(x.grad.cpu().numpy(), (2 * 16 * x.detach()).cpu().numpy(), rtol=1e-6)


def test_in_place_keeps_dtype_and_shape(device: str) -> None:
    x = gpunet.ones(2, dtype="float32")
    x += gpunet.ones(2, dtype="float64")
    assert x.dtype == "float32" and x.tolist() == [2.0, 2.0]
    x += gpunet.ones(1)
    assert x.tolist() == [3.0, 3.0]
    with pytest.raises(ShapeError, match=r"\(3, 2\).*\(2,\)"):
        x += gpunet.ones(3, 2)
    assert x.tolist() == [3.0, 3.0]


def test_setitem_is_differentiable_with_respect_to_both_operands(device: str) -> None:
    for index, shape in ((1, (4,)), ((slice(None), 2), (3,)), (numpy.array([0, 2]), (2, 4)), (numpy.eye(3, 4) > 0, (3,))):
        x, y = leaf_and_non_leaf(3, 4)
        value = gpunet.rand(*shape, requires_grad=True)
        weight = gpunet.rand(3, 4)
        y[index] = value * 2.0
        (y * weight).sum().backward()
        expected = weight.cpu().numpy().copy()
        numpy.testing.assert_allclose(value.grad.cpu().numpy(), 2 * expected[index], rtol=1e-6)
        expected[index] = 0.0
        numpy.testing.assert_allclose(x.grad.cpu().numpy(), expected, rtol=1e-6)


def test_setitem_into_a_plain_tensor_makes_it_part_of_the_graph(device: str) -> None:
    w = gpunet.ones(2, requires_grad=True)
    canvas = gpunet.zeros(2, 2)
    canvas[0] = w * 3.0
    canvas[1] = canvas[1] + w
    with pytest.raises(InPlaceError, match="base"):
        canvas[1] += w  # Python changes the view canvas[1] in place
    (canvas * gpunet.tensor([[1.0, 10.0], [100.0, 1000.0]])).sum().backward()
    assert w.grad.tolist() == [103.0, 1030.0]


def test_setitem_that_does_not_fit_changes_nothing(device: str) -> None:
    x = gpunet.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        x[0] = gpunet.ones(2)
    with pytest.raises(ShapeError, match="5"):
        x[5] = 1.0
    assert not x.any()


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda t: t.exp_(), numpy.exp),
        (lambda t: t.sqrt_(), numpy.sqrt),
        (lambda t: t.neg_(), numpy.negative),
        (lambda t: t.abs_(), numpy.abs),
        (lambda t: t.clamp_(0.3, 0.6), lambda a: a.clip(0.3, 0.6)),
        (lambda t: t.pow_(2), numpy.square),
        (lambda t: t.div_(2), lambda a: a / 2),
        (lambda t: t.sub_(2, alpha=3), lambda a: a - 6),
        (lambda t: t.masked_fill_(gpunet.tensor([True, False, True]), 9.0), lambda a: numpy.where([1, 0, 1], 9.0, a)),
        (lambda t: t.fill_(4), lambda a: 0 * a + 4),
        (lambda t: t.copy_(gpunet.tensor([1.0, 2.0, 3.0])), lambda a: numpy.array([1.0, 2.0, 3.0])),
    ],
)
def test_each_change_with_and_without_a_graph(change: Any, expected: Any, device: str) -> None:
    plain = gpunet.rand(3)
    start = plain.cpu().numpy().copy()
    assert change(plain) is plain
    numpy.testing.assert_allclose(plain.cpu().numpy(), expected(start), rtol=1e-6)
    x = gpunet.tensor(start, device=device, requires_grad=True)
    y = x * 1.0
    assert change(y) is y
    numpy.testing.assert_allclose(y.detach().cpu().numpy(), expected(start), rtol=1e-6)
    y.sum().backward()
    # central differences of the formula; their error is a few 1e-7, like that of the float32 gradient
    start = start.astype("float64")
    slope = (expected(start + 1e-5) - expected(start - 1e-5)) / 2e-5
    numpy.testing.assert_allclose(x.grad.cpu().numpy(), slope, rtol=1e-5, atol=1e-5)


def test_view_stays_valid_after_it_was_changed_itself(device: str) -> None:
    x, y = leaf_and_non_leaf(4)
    view = y[:2]
    with gpunet.no_grad():
        view[0] = 5.0
    (view * 2.0).sum().backward()
    assert x.grad is not None


def test_copy_under_no_grad_does_not_copy_the_graph() -> None:
    """As when a target network is updated: the copy of a parameter does not require grad; a parameter copied into stays a leaf."""
    source, target = gpunet.ones(3, requires_grad=True), gpunet.zeros(3)
    parameter = gpunet.zeros(3, requires_grad=True)
    with gpunet.no_grad():
        target.copy_(source)
        with gpunet.enable_grad():
            result = source * 2.0
        parameter.copy_(result)
    assert target.tolist() == [1.0, 1.0, 1.0] and not target.requires_grad
    assert parameter.tolist() == [2.0, 2.0, 2.0] and parameter.is_leaf and parameter.requires_grad
    (parameter * 3.0).sum().backward()
    assert source.grad is None and parameter.grad is not None
