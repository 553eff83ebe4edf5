"""The engine: backward, accumulation, grad(), grad mode, hooks, second derivatives, threads."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import DtypeError, GradientError, ShapeError
from gpunet.launch.memory import MOST_ZEROS, as_0d_arrays, scratch, scratch_joined, zeros_like


def leaf(*data: float) -> gpunet.Tensor:
    return gpunet.tensor(list(data), requires_grad=True)


# ---- backward -------------------------------------------------------------------------------------------------------


def test_the_readers_snippet(device: str) -> None:
    w = gpunet.tensor([2.0], requires_grad=True)
    x = gpunet.tensor([3.0])
    loss = (w * x - 10.0) ** 2
    loss.backward()
    assert w.grad.tolist() == [-24.0]
    assert x.grad is None


def test_gradients_accumulate_until_they_are_forgotten(device: str) -> None:
    w = leaf(1.0, 2.0)
    for times in (1, 2, 3):
        (w * w).sum().backward()
        assert w.grad.tolist() == [2.0 * times, 4.0 * times]
    w.grad = None
    (w * 3.0).sum().backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_a_tensor_used_many_times_gets_the_sum(device: str) -> None:
    x = leaf(3.0)
    y = x * x
    (y + y * x + y).sum().backward()
    assert x.grad.tolist() == [2 * 2 * 3.0 + 3 * 9.0]


def test_backward_twice_names_the_op(device: str) -> None:
    loss = leaf(2.0).exp().sum()
    loss.backward()
    with pytest.raises(GradientError, match="second time through '_?sum'.*retain_graph=True"):
        loss.backward()


def test_backward_twice_through_a_shared_part_names_the_op(device: str) -> None:
    shared = leaf(2.0).exp()
    (shared * 2.0).sum().backward()
    with pytest.raises(GradientError, match="'exp'"):
        (shared * 3.0).sum().backward()


@pytest.mark.parametrize("make", [lambda x: (x * x).sum(), lambda x: nn.functional.linear(x.reshape(1, 2), x.reshape(1, 2)).mean()])
def test_retain_graph_allows_it(make: Any, device: str) -> None:
    x = leaf(2.0, 5.0)
    loss = make(x)
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [12.0, 30.0]


def test_a_loss_retained_gives_the_same_gradient_again(device: str) -> None:
    """A loss keeps its gradient from the forward launch: nothing on the way may change it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = gpunet.randn(5, 3, requires_grad=True)
    loss = nn.functional.cross_entropy(model(x), gpunet.tensor([0, 1, 1, 0, 1]))
    first = [g.array.copy() for g in gpunet.grad(loss, [x, *model.parameters()], retain_graph=True)]
    second = gpunet.grad(loss, [x, *model.parameters()], retain_graph=True)
    assert all((a == b.array).all() for a, b in zip(first, second))


def test_a_non_scalar_needs_a_gradient(device: str) -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2.0
    with pytest.raises(GradientError, match=r"shape \(3,\) needs gradient="):
        y.backward()
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        y.backward(gpunet.ones(2))
    y.backward(gpunet.tensor([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [2.0, 20.0, 200.0]


def test_one_element_of_any_shape_is_a_scalar(device: str) -> None:
    x = leaf(3.0)
    (x.reshape(1, 1) * 2.0).backward()
    assert x.grad.tolist() == [2.0]


def test_nothing_to_differentiate_is_an_error(device: str) -> None:
    with pytest.raises(GradientError, match="no graph"):
        gpunet.tensor([1.0]).backward()
    with gpunet.no_grad():
        y = leaf(1.0) * 2.0
    with pytest.raises(GradientError, match="no_grad"):
        y.backward()


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
def test_integers_have_no_gradient(dtype: str, device: str) -> None:
    with pytest.raises(DtypeError, match=f"{dtype}.*float"):
        gpunet.tensor([1, 0], dtype=dtype, requires_grad=True)


def test_backward_of_a_leaf_is_one(device: str) -> None:
    x = leaf(5.0)
    x.backward()
    x.backward()
    assert x.grad.tolist() == [2.0]


def test_backward_can_be_limited_to_some_leaves(device: str) -> None:
    a, b = leaf(2.0), leaf(3.0)
    (a * b).backward(inputs=[a])
    assert a.grad.tolist() == [3.0]
    assert b.grad is None


def test_gradients_share_no_memory(device: str) -> None:
    """a + b hands the same gradient to both: each leaf must get its own copy."""
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), gpunet.ones(2)
    (a + b).backward(seed)
    with gpunet.no_grad():
        a.grad += 1.0
    assert b.grad.tolist() == [1.0, 1.0]
    assert seed.tolist() == [1.0, 1.0]


def test_gradient_has_dtype_and_shape_of_its_tensor(device: str) -> None:
    single, double = gpunet.ones(2, 1, requires_grad=True), gpunet.ones(3, dtype="float64", requires_grad=True)
    (single * double).sum().backward()
    assert (single.grad.dtype, single.grad.shape) == ("float32", (2, 1))
    assert (double.grad.dtype, double.grad.shape) == ("float64", (3,))


def test_detach_cuts_and_shares_memory(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    cut = y.detach()
    assert not cut.requires_grad and cut.array is y.array and cut.is_leaf
    (cut * x).sum().backward()
    assert x.grad.tolist() == [6.0]


def test_requires_grad_cannot_be_taken_from_a_result(device: str) -> None:
    y = leaf(1.0) * 2.0
    with pytest.raises(GradientError, match="'mul'.*detach"):
        y.requires_grad = False
    x = leaf(1.0).requires_grad_(False)
    assert not (x * 2.0).requires_grad


# ---- grad() ---------------------------------------------------------------------------------------------------------


def test_grad_leaves_grad_alone(device: str) -> None:
    x, y = leaf(2.0), leaf(3.0)
    gx, gy = gpunet.grad((x * x * y).sum(), [x, y])
    assert (gx.tolist(), gy.tolist()) == ([12.0], [4.0])
    assert x.grad is None and y.grad is None
    assert not gx.requires_grad


def test_grad_by_a_tensor_that_an_op_made(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    z = (y * y).sum()
    assert [g.tolist() for g in gpunet.grad(z, [y, x], retain_graph=True)] == [[12.0], [36.0]]
    assert gpunet.grad(z, z)[0].item() == 1.0


def test_grad_of_unused_inputs(device: str) -> None:
    x, unused = leaf(2.0), leaf(1.0, 2.0)
    with pytest.raises(GradientError, match=r"input 1 of shape \(2,\).*allow_unused"):
        gpunet.grad(x * 2.0, [x, unused])
    gx, none = gpunet.grad(x * 2.0, [x, unused], allow_unused=True)
    assert gx.tolist() == [2.0] and none is None
    with pytest.raises(GradientError, match="does not require grad"):
        gpunet.grad(x * 2.0, [gpunet.ones(1)])


def test_grad_of_several_outputs_with_gradients_for_them(device: str) -> None:
    x = leaf(1.0, 2.0)
    total = gpunet.grad([x * 2.0, (x * x).sum()], x, [gpunet.tensor([1.0, 10.0]), None])[0]
    assert total.tolist() == [2.0 + 2.0, 20.0 + 4.0]


def test_grad_runs_only_what_lies_between(device: str) -> None:
    """Nodes that do not lead to the input keep their graph."""
    x, other = leaf(2.0), leaf(3.0)
    side = other.exp()
    gpunet.grad((x * side).sum(), x)
    side.sum().backward()
    assert other.grad.tolist() == side.tolist()


def test_third_derivative(device: str) -> None:
    x = gpunet.tensor(0.7, dtype="float64", requires_grad=True)
    value, expected = x.sin() * x**4, []
    for _ in range(3):
        (value,) = gpunet.grad(value, x, create_graph=True)
        expected.append(value.item())
    s, c, t = math.sin(0.7), math.cos(0.7), 0.7
    assert expected[0] == pytest.approx(c * t**4 + 4 * s * t**3, rel=1e-14)
    assert expected[2] == pytest.approx(-c * t**4 - 12 * s * t**3 + 36 * c * t**2 + 24 * s * t, rel=1e-13)


def test_second_derivatives_through_a_network_as_for_physics(device: str, torch: Any) -> None:
    """u'' of a fused network, and the gradient of its mean square by the weights."""
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    theirs = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    theirs.load_state_dict({k: torch.tensor(v.cpu().numpy()) for k, v in model.state_dict().items()})
    points = numpy.linspace(-1, 1, 6).reshape(-1, 1)
    for module, x, grad in (
        (model, gpunet.tensor(points, device=device, requires_grad=True), gpunet.grad),
        (theirs, torch.tensor(points, requires_grad=True), torch.autograd.grad),
    ):
        (slope,) = grad(module(x).sum(), x, create_graph=True)
        (bend,) = grad(slope.sum(), x, create_graph=True)
        ((bend + 1.0) ** 2).mean().backward()
    for mine, other in zip(model.parameters(), theirs.parameters()):
        if other.grad is not None:  # the last bias has no part in u''
            numpy.testing.assert_allclose(mine.grad.cpu().numpy(), other.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_backward_with_create_graph(device: str) -> None:
    x = leaf(3.0)
    (x**3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    first.sum().backward()
    assert (first.tolist(), x.grad.tolist()) == ([27.0], [18.0])


# ---- grad mode ------------------------------------------------------------------------------------------------------


def recorded() -> bool:
    return (leaf(1.0) * 2.0).requires_grad


def test_grad_mode_blocks_nest_and_end_with_errors(device: str) -> None:
    with gpunet.no_grad():
        assert not recorded()
        with gpunet.enable_grad():
            assert recorded()
        assert not recorded()
        with gpunet.set_grad_enabled(True):
            assert recorded()
        assert not gpunet.is_grad_enabled()
    assert recorded()
    with pytest.raises(ZeroDivisionError), gpunet.no_grad():
        raise ZeroDivisionError
    assert recorded()


def test_set_grad_enabled_acts_at_once(device: str) -> None:
    gpunet.set_grad_enabled(False)
    try:
        assert not recorded()
    finally:
        gpunet.set_grad_enabled(True)
    assert recorded()


def test_grad_mode_as_decorator(device: str) -> None:
    assert not gpunet.no_grad()(recorded)()
    assert gpunet.enable_grad()(recorded)()
    assert gpunet.is_grad_enabled()

    @gpunet.no_grad()
    def countdown(n: int) -> bool:
        return recorded() if n == 0 else countdown(n - 1)

    assert not countdown(3)
    assert countdown.__name__ == "countdown"


def test_set_grad_enabled_as_decorator(device: str) -> None:
    off = gpunet.set_grad_enabled(False)(recorded)
    assert gpunet.is_grad_enabled()  # decorating alone switches nothing
    assert not off()
    assert recorded()


def test_no_grad_decorates_without_parentheses(device: str) -> None:
    assert not gpunet.no_grad(recorded)()
    assert recorded()


def test_grad_mode_is_per_thread(device: str) -> None:
    inside: list[bool] = []
    with gpunet.no_grad():
        thread = threading.Thread(target=lambda: inside.append(recorded()))
        thread.start()
        thread.join()
    assert inside == [True]


# ---- hooks ----------------------------------------------------------------------------------------------------------


def test_hook_on_a_leaf_sees_the_whole_gradient_once(device: str) -> None:
    x, seen = leaf(2.0), []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    (x * x + x).sum().backward()
    assert seen == [[5.0]]
    handle.remove()
    (x * x).sum().backward()
    assert len(seen) == 1
    assert x.grad.tolist() == [9.0]


def test_hook_on_a_result_can_replace_the_gradient(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    y.register_hook(lambda g: g * 10.0)
    handle = y.register_hook(lambda g: g * 0.0)
    handle.remove()
    y.sum().backward()
    assert x.grad.tolist() == [30.0]


def test_hook_on_a_leaf_can_replace_the_gradient(device: str) -> None:
    x = leaf(2.0)
    x.register_hook(lambda g: g.clamp(max=1.0))
    (x * 5.0).sum().backward()
    assert x.grad.tolist() == [1.0]
    assert gpunet.grad((x * 5.0).sum(), x)[0].tolist() == [1.0]


def test_hook_sees_fused_gradients_with_their_factor(device: str) -> None:
    """The mean's 1/n travels apart from the gradient inside: a hook must see their product."""
    z = gpunet.zeros(4, 2, requires_grad=True)
    logits, seen = z * 1.0, []
    logits.register_hook(lambda g: seen.append(g.cpu().numpy().copy()))
    nn.functional.cross_entropy(logits, gpunet.tensor([0, 0, 1, 1])).backward()
    numpy.testing.assert_allclose(abs(seen[0]), 0.125)


def test_hook_needs_a_gradient(device: str) -> None:
    with pytest.raises(GradientError, match="register_hook"):
        gpunet.ones(1).register_hook(print)


def test_retain_grad(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    y.retain_grad()
    x.retain_grad()  # nothing to do on a leaf
    (y * y).sum().backward()
    assert (y.grad.tolist(), x.grad.tolist()) == ([12.0], [36.0])


# ---- threads --------------------------------------------------------------------------------------------------------


def test_backward_in_threads_on_shared_leaves(device: str) -> None:
    """Each thread has its own graph; all add to the same leaf, and nothing is lost."""
    w, errors = gpunet.zeros(64, requires_grad=True), []

    def work() -> None:
        try:
            for _ in range(50):
                (nn.functional.relu(w + 1.0) * 2.0).sum().backward()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert w.grad.tolist() == [400.0] * 64


def test_training_in_threads_gives_the_bits_of_training_alone(device: str) -> None:
    """Scratch memory of the twins, grad mode and tapes belong to a thread."""

    def train(number: int) -> bytes:
        generator = numpy.random.default_rng(number)
        weights = [generator.normal(size=s).astype("float32") for s in ((16, 8), (16,), (4, 16), (4,))]
        v, a, w, b = (gpunet.tensor(p, device=device, requires_grad=True) for p in weights)
        x = gpunet.tensor(generator.normal(size=(32, 8)).astype("float32"), device=device)
        y = gpunet.tensor(generator.integers(0, 4, 32), device=device)
        optimizer = gpunet.optim.Adam([v, a, w, b])
        for _ in range(20):
            optimizer.zero_grad()
            hidden = nn.functional.linear(x, v, a, activation="gelu")
            nn.functional.cross_entropy(nn.functional.linear(hidden, w, b), y).backward()
            optimizer.step()
        return b"".join(p.detach().cpu().numpy().tobytes() for p in (v, a, w, b))

    alone = [train(number) for number in range(4)]
    together: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda n=n: together.update({n: train(n)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(4)] == alone


def test_scratch_memory_belongs_to_a_thread() -> None:
    """Two twins at once must not work in the same place, however seldom they would meet."""
    here, there = scratch((8,), "float32"), []
    thread = threading.Thread(target=lambda: there.append(scratch((8,), "float32")))
    thread.start()
    thread.join()
    assert not numpy.shares_memory(here, there[0])
    assert numpy.shares_memory(here, scratch((4,), "float32"))
    assert not numpy.shares_memory(here, scratch((8,), "float32", 1))


def test_scratch_memory_that_grew_is_one() -> None:
    """Views that are kept must not be of the buffer before."""
    small = scratch((16,), "float32", 5)
    large = scratch((1 << 15,), "float32", 5)
    assert numpy.shares_memory(large, scratch((16,), "float32", 5)) and not numpy.shares_memory(large, small)
    assert scratch((16,), "float32", 5) is scratch((16,), "float32", 5)
    parts = scratch_joined(((2, 3), (), (4,)), "float32", 5)
    assert [p.shape for p in parts] == [(2, 3), (), (4,)] and parts.flat.size == 11
    parts.flat[...] = numpy.arange(11)
    assert [p.reshape(-1).tolist() for p in parts] == [[0, 1, 2, 3, 4, 5], [6], [7, 8, 9, 10]]


@pytest.mark.parametrize("shape", [(), (0, 3), (7, 5), (3, MOST_ZEROS), (MOST_ZEROS + 1,), (2, MOST_ZEROS + 1)])
def test_constants_of_twins(shape: tuple[int, ...]) -> None:
    for dtype in map(numpy.dtype, ("float32", "float64")):
        zeros = zeros_like(numpy.ones(shape, dtype))
        assert (zeros.shape, zeros.dtype, zeros.any(), zeros.flags.writeable) == (shape, dtype, False, False)
        one, tenth = as_0d_arrays(dtype, 1, 0.1)
        assert (tenth.dtype, tenth.shape, tenth, tenth.flags.writeable) == (dtype, (), dtype.type(0.1), False) and one == 1


def test_gradients_of_one_memory_stay_apart(device: str) -> None:
    """A gradient that two leaves get, or that the caller has, is copied for each."""
    a, b = gpunet.ones(3, requires_grad=True), gpunet.ones(3, requires_grad=True)
    seed = gpunet.ones(3)
    (a + b).backward(seed)
    for gradient in (a.grad, b.grad):
        gradient.mul_(2.0)
    assert (a.grad.tolist(), b.grad.tolist(), seed.tolist()) == ([2.0] * 3, [2.0] * 3, [1.0] * 3)


def test_a_sum_of_losses_twice_over_its_graph(device: str) -> None:
    """What a loss saved is given to a leaf as a copy: the second backward needs it."""
    x = gpunet.tensor([1.0, 2.0, 4.0], requires_grad=True)
    loss = nn.functional.mse_loss(x, gpunet.zeros(3), reduction="sum")
    loss.backward(retain_graph=True)
    x.grad.mul_(10.0)
    x.grad = None
    loss.backward()
    assert x.grad.tolist() == [2.0, 4.0, 8.0]
