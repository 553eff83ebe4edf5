"""Autograd: backward, accumulation, grad(), grad mode, hooks, second derivatives, threads, scratch memory."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from gpunet.launch.memory import MAX_ZEROS, as_0d_arrays, scratch, scratch_joined, zeros_like
from gpunet.launch.tape import Tape, record


def leaf(*data: float) -> gpunet.Tensor:
    return gpunet.tensor(list(data), requires_grad=True)


# ---- backward -------------------------------------------------------------------------------------------------------


def test_backward_of_a_small_expression(device: str) -> None:
    w = gpunet.tensor([2.0], requires_grad=True)
    x = gpunet.tensor([3.0])
    loss = (w * x - 10.0) ** 2
    loss.backward()
    assert w.grad.tolist() == [-24.0]
    assert x.grad is None


def test_gradients_accumulate_until_grad_is_set_to_none(device: str) -> None:
    w = leaf(1.0, 2.0)
    for times in (1, 2, 3):
        (w * w).sum().backward()
        assert w.grad.tolist() == [2.0 * times, 4.0 * times]
    w.grad = None
    (w * 3.0).sum().backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_gradients_of_a_tensor_used_many_times_are_summed(device: str) -> None:
    x = leaf(3.0)
    y = x * x
    (y + y * x + y).sum().backward()
    assert x.grad.tolist() == [2 * 2 * 3.0 + 3 * 9.0]


def test_backward_twice_names_the_op(device: str) -> None:
    loss = leaf(2.0).exp().sum()
    loss.backward()
    with pytest.raises(GradientError, match="second time through sum,.*retain_graph=True"):
        loss.backward()


def test_grad_fn_shows_the_name_of_the_public_function(device: str) -> None:
    x, labels = gpunet.rand(2, 3, requires_grad=True), gpunet.tensor([0, 2])
    F = nn.functional
    for result, name in (
        (F.mse_loss(x, gpunet.zeros(2, 3)), "mse_loss"),
        (F.binary_cross_entropy_with_logits(x, gpunet.zeros(2, 3)), "binary_cross_entropy_with_logits"),
        (F.cross_entropy(x, labels), "cross_entropy"),
        (F.dropout(x, 0.5), "dropout"),
        (F.silu(x), "silu"),
        (F.linear(x, x), "linear"),
        (x.amax(1), "max/min"),
        (x[labels - labels], "indexing"),
        (x.softmax(1), "softmax"),
        (gpunet.cat([x, x]), "cat"),
    ):
        assert repr(result.grad_fn) == f"<{name} backward>"
        assert repr(result).endswith(f"grad_fn=<{name}>)")


@pytest.mark.parametrize("call", [
    "conv1d(v, gpunet.ones(1, 2, 3))", "conv2d(x, gpunet.ones(1, 2, 3, 3))", "conv_transpose2d(x, gpunet.ones(2, 1, 3, 3))",
    "max_pool2d(x, 2)", "avg_pool2d(x, 2)", "avg_pool1d(v, 2)", "adaptive_avg_pool2d(x, 2)", "adaptive_avg_pool2d(x, 4)",
    "adaptive_max_pool1d(v, 3)", "interpolate(x, 7, mode='bilinear')", "interpolate(x, 4, mode='area')",
    "pad(v, (1, 1), 'circular')",
])  # fmt: skip
def test_grad_fn_of_ops_that_several_functions_share(call: str) -> None:
    v, x = gpunet.ones(1, 2, 6, requires_grad=True), gpunet.ones(1, 2, 6, 6, requires_grad=True)
    node = eval(call, {"gpunet": gpunet, "v": v, "x": x, **vars(nn.functional)}).grad_fn
    while node.public_name in ("reshape", "permute", "transpose"):
        ((node, _),) = node.next_functions
    assert node.public_name == call.split("(")[0]


def test_backward_twice_through_a_shared_part_names_the_op(device: str) -> None:
    shared = leaf(2.0).exp()
    (shared * 2.0).sum().backward()
    with pytest.raises(GradientError, match="through exp,"):
        (shared * 3.0).sum().backward()


@pytest.mark.parametrize("make", [lambda x: (x * x).sum(), lambda x: nn.functional.linear(x.reshape(1, 2), x.reshape(1, 2)).mean()])
def test_retain_graph_allows_a_second_backward(make: Any, device: str) -> None:
    x = leaf(2.0, 5.0)
    loss = make(x)
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [12.0, 30.0]


def test_second_grad_of_a_retained_loss_has_the_same_bits(device: str) -> None:
    """A loss computes its gradient in the forward launch and saves it; a backward pass must not change it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = gpunet.randn(5, 3, requires_grad=True)
    loss = nn.functional.cross_entropy(model(x), gpunet.tensor([0, 1, 1, 0, 1]))
    first, second = (
        [g.tolist() for g in gpunet.grad(loss, [x, *model.parameters()], retain_graph=True)] for _ in range(2)
    )
    assert first == second


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


def test_backward_without_a_graph_raises(device: str) -> None:
    with pytest.raises(GradientError, match="no graph"):
        gpunet.tensor([1.0]).backward()
    with gpunet.no_grad():
        y = leaf(1.0) * 2.0
    with pytest.raises(GradientError, match="no_grad"):
        y.backward()


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
def test_requires_grad_of_an_integer_tensor_raises(dtype: str, device: str) -> None:
    with pytest.raises(DtypeError, match=f"{dtype}.*float"):
        gpunet.tensor([1, 0], dtype=dtype, requires_grad=True)


def test_backward_of_a_leaf_adds_one(device: str) -> None:
    x = leaf(5.0)
    x.backward()
    x.backward()
    assert x.grad.tolist() == [2.0]


def test_backward_with_inputs_sets_only_their_grad(device: str) -> None:
    a, b = leaf(2.0), leaf(3.0)
    (a * b).backward(inputs=[a])
    assert a.grad.tolist() == [3.0]
    assert b.grad is None


def test_gradients_share_no_memory(device: str) -> None:
    """The gradients of a and b in a + b are the same array; each leaf must get its own copy."""
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), gpunet.ones(2)
    (a + b).backward(seed)
    with gpunet.no_grad():
        a.grad += 1.0
    assert b.grad.tolist() == [1.0, 1.0]
    assert seed.tolist() == [1.0, 1.0]


def test_gradient_has_the_dtype_and_shape_of_its_tensor(device: str) -> None:
    single, double = gpunet.ones(2, 1, requires_grad=True), gpunet.ones(3, dtype="float64", requires_grad=True)
    (single * double).sum().backward()
    assert (single.grad.dtype, single.grad.shape) == ("float32", (2, 1))
    assert (double.grad.dtype, double.grad.shape) == ("float64", (3,))


def test_detach_leaves_the_graph_and_shares_memory(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    detached = y.detach()
    assert not detached.requires_grad and detached.array is y.array and detached.is_leaf
    (detached * x).sum().backward()
    assert x.grad.tolist() == [6.0]


def test_requires_grad_of_a_result_cannot_be_set_to_false(device: str) -> None:
    y = leaf(1.0) * 2.0
    with pytest.raises(GradientError, match="result of mul: .*detach"):
        y.requires_grad = False
    x = leaf(1.0).requires_grad_(False)
    assert not (x * 2.0).requires_grad


# ---- grad() ---------------------------------------------------------------------------------------------------------


def test_grad_function_does_not_change_grad(device: str) -> None:
    x, y = leaf(2.0), leaf(3.0)
    gx, gy = gpunet.grad((x * x * y).sum(), [x, y])
    assert (gx.tolist(), gy.tolist()) == ([12.0], [4.0])
    assert x.grad is None and y.grad is None
    assert not gx.requires_grad


def test_grad_with_respect_to_a_non_leaf(device: str) -> None:
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


def test_keywords_of_grad(device: str) -> None:
    x, unused = leaf(1.0, 2.0), leaf(3.0)
    y = (x * x).sum()
    found = gpunet.grad(y, [x, unused], retain_graph=True, only_inputs=True, materialize_grads=True)
    assert [g.tolist() for g in found] == [[2, 4], [0]]
    assert gpunet.grad(y, [x, unused], retain_graph=True, allow_unused=True)[1] is None
    for options, text in (
        ({"only_inputs": False}, "only_inputs=False"), ({"is_grads_batched": True}, "is_grads_batched=True is not supported"),
        ({"allow_unused": False, "materialize_grads": True}, "allow_unused=False, materialize_grads=True"),
        ({"grad_outputs": [None, None]}, "2 grad_outputs for 1 outputs"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=text):
            gpunet.grad(y, x, **options)
    for call in (lambda: gpunet.grad(y, [x, 3]), lambda: gpunet.grad(3, x), lambda: y.backward(inputs=numpy.ones(1))):
        with pytest.raises(DtypeError, match="expected a tensor, or a sequence of tensors"):
            call()
    with pytest.raises(ArgumentError, match=r"inputs=\[\] is empty"):
        y.backward(inputs=[])
    for call, text in (
        (lambda: y.backward(create_graph=[1, 2]), r"backward: create_graph=\[1, 2\]; expected True or False"),
        (lambda: gpunet.grad(y, x, retain_graph="no"), "grad: retain_graph='no'; expected True, False or None"),
        (lambda: gpunet.grad(y, x, create_graph=None), "grad: create_graph=None"),
    ):
        with pytest.raises(DtypeError, match=text):
            call()


def test_grad_of_several_outputs_with_grad_outputs(device: str) -> None:
    x = leaf(1.0, 2.0)
    total = gpunet.grad([x * 2.0, (x * x).sum()], x, [gpunet.tensor([1.0, 10.0]), None])[0]
    assert total.tolist() == [2.0 + 2.0, 20.0 + 4.0]


def test_grad_visits_only_nodes_between_outputs_and_inputs(device: str) -> None:
    """The graph of other nodes is not released."""
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


def test_second_derivatives_through_a_fused_network(device: str, torch: Any) -> None:
    """The gradient of mean((u'' + 1)^2) with respect to the weights of u, as in physics-informed networks."""
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
        if other.grad is not None:  # u'' does not depend on the last bias
            numpy.testing.assert_allclose(mine.grad.cpu().numpy(), other.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_backward_with_create_graph(device: str) -> None:
    x = leaf(3.0)
    (x**3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    first.sum().backward()
    assert (first.tolist(), x.grad.tolist()) == ([27.0], [18.0])


# ---- grad mode ------------------------------------------------------------------------------------------------------


def records_graph() -> bool:
    return (leaf(1.0) * 2.0).requires_grad


def test_grad_mode_is_restored_after_nested_blocks_and_errors(device: str) -> None:
    with gpunet.no_grad():
        assert not records_graph()
        with gpunet.enable_grad():
            assert records_graph()
        assert not records_graph()
        with gpunet.set_grad_enabled(True):
            assert records_graph()
        assert not gpunet.is_grad_enabled()
    assert records_graph()
    with pytest.raises(ZeroDivisionError), gpunet.no_grad():
        raise ZeroDivisionError
    assert records_graph()


def test_set_grad_enabled_takes_effect_immediately(device: str) -> None:
    gpunet.set_grad_enabled(False)
    try:
        assert not records_graph()
    finally:
        gpunet.set_grad_enabled(True)
    assert records_graph()


def test_grad_mode_as_decorator(device: str) -> None:
    assert not gpunet.no_grad()(records_graph)()
    assert gpunet.enable_grad()(records_graph)()
    assert gpunet.is_grad_enabled()

    @gpunet.no_grad()
    def countdown(n: int) -> bool:
        return records_graph() if n == 0 else countdown(n - 1)

    assert not countdown(3)
    assert countdown.__name__ == "countdown"


def test_set_grad_enabled_as_decorator(device: str) -> None:
    off = gpunet.set_grad_enabled(False)(records_graph)
    assert gpunet.is_grad_enabled()  # decorating does not change the mode
    assert not off()
    assert records_graph()


def test_no_grad_decorates_without_parentheses(device: str) -> None:
    assert not gpunet.no_grad(records_graph)()
    assert records_graph()


def test_grad_mode_of_a_generator_function(device: str) -> None:
    """The mode holds whenever the body runs, and not in between."""
    x, seen = leaf(1.0), []

    def steps() -> Any:
        for _ in range(2):
            try:
                seen.append(((yield (x * 2).requires_grad), (x * 2).requires_grad))
            except KeyError:
                seen.append(("thrown", (x * 2).requires_grad))
        try:
            yield
        finally:
            seen.append(("closed", (x * 2).requires_grad))

    for decorate in (gpunet.no_grad(), gpunet.no_grad, lambda f: gpunet.set_grad_enabled(False)(f)):
        seen.clear()
        generator = decorate(steps)()
        assert next(generator) is False and records_graph()
        assert generator.send(3) is False and generator.throw(KeyError()) is None and records_graph()
        generator.close()
        assert seen == [(3, False), ("thrown", False), ("closed", False)] and records_graph()

    def delegates() -> Any:
        return (yield from gpunet.no_grad()(lambda: (yield 1) or (x * 2).requires_grad)())

    generator = delegates()
    next(generator)
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value is False and records_graph()


def test_grad_mode_of_an_async_function_is_refused() -> None:
    async def step() -> None: ...

    with pytest.raises(ArgumentError, match="async function step; use `with no_grad"):
        gpunet.no_grad()(step)


def test_grad_mode_is_per_thread(device: str) -> None:
    inside: list[bool] = []
    with gpunet.no_grad():
        thread = threading.Thread(target=lambda: inside.append(records_graph()))
        thread.start()
        thread.join()
    assert inside == [True]


# ---- hooks ----------------------------------------------------------------------------------------------------------


def test_hook_on_a_leaf_gets_the_complete_gradient_once(device: str) -> None:
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


def test_the_pending_scale_travels_through_views(device: str) -> None:
    """As in ``cross_entropy(logits.view(-1, classes), labels)``: no launch applies it before the linear layer."""
    layer, labels = gpunet.nn.Linear(4, 5), gpunet.tensor([0, 4, 2, 1, 3, 0])
    x = gpunet.tensor(numpy.random.default_rng(0).normal(size=(6, 4)).astype("float32"))
    gpunet.nn.functional.cross_entropy(layer(x), labels).backward()
    expected = layer.weight.grad.tolist()
    layer.weight.grad = layer.bias.grad = None
    with record(Tape()) as tape:
        logits = layer(x.view(3, 2, 4)).permute(1, 0, 2).permute(1, 0, 2).view(-1, 5)
        gpunet.nn.functional.cross_entropy(logits, labels).backward()
    assert [launch.kernel.name for launch in tape.launches].count("multiply") == 0
    assert layer.weight.grad.tolist() == expected


def test_hook_gets_fused_gradients_with_the_pending_scale_applied(device: str) -> None:
    """Inside backward, the factor 1/n of a mean is a pending scale; a hook must get the product."""
    z = gpunet.zeros(4, 2, requires_grad=True)
    logits, seen = z * 1.0, []
    logits.register_hook(lambda g: seen.append(g.cpu().numpy().copy()))
    nn.functional.cross_entropy(logits, gpunet.tensor([0, 0, 1, 1])).backward()
    numpy.testing.assert_allclose(abs(seen[0]), 0.125)


def test_hook_on_a_tensor_that_does_not_require_grad_raises(device: str) -> None:
    with pytest.raises(GradientError, match="register_hook"):
        gpunet.ones(1).register_hook(print)


def test_retain_grad(device: str) -> None:
    x = leaf(2.0)
    y = x * 3.0
    y.retain_grad()
    x.retain_grad()  # nothing to do on a leaf
    (y * y).sum().backward()
    assert (y.grad.tolist(), x.grad.tolist()) == ([12.0], [36.0])


def test_retain_grad_twice(device: str) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    assert not y.retains_grad
    y.retain_grad()
    y.retain_grad()
    assert y.retains_grad and not x.retains_grad
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 8] and x.grad.tolist() == [8, 16]
    with pytest.raises(GradientError, match="retain_grad on a tensor that does not require grad"):
        gpunet.ones(1).retain_grad()


def test_retain_grad_follows_a_change_in_place(device: str) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.mul_(3)
    (y * y).sum().backward()
    assert y.grad.tolist() == [12, 24] and x.grad.tolist() == [72, 144]



# ---- threads --------------------------------------------------------------------------------------------------------


def test_backward_in_threads_on_shared_leaves(device: str) -> None:
    """Each thread has its own graph; all threads add to the ``grad`` of one leaf, and no gradient is lost."""
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


def test_training_in_concurrent_threads_has_the_same_bits(device: str) -> None:
    """The scratch memory of twins, grad mode and tapes are thread-local."""

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


def test_scratch_memory_is_thread_local() -> None:
    """Twins that run at the same time in two threads must not share scratch memory."""
    here, there = scratch((8,), "float32"), []
    thread = threading.Thread(target=lambda: there.append(scratch((8,), "float32")))
    thread.start()
    thread.join()
    assert not numpy.shares_memory(here, there[0])
    assert numpy.shares_memory(here, scratch((4,), "float32"))
    assert not numpy.shares_memory(here, scratch((8,), "float32", 1))


def test_scratch_views_follow_a_buffer_that_grew() -> None:
    """Cached views of a buffer must not outlive its replacement."""
    slot = 99  # not used by any twin, so that its buffer is new
    small = scratch((16,), "float32", slot)
    large = scratch((1 << 15,), "float32", slot)
    assert numpy.shares_memory(large, scratch((16,), "float32", slot)) and not numpy.shares_memory(large, small)
    assert scratch((16,), "float32", slot) is scratch((16,), "float32", slot)
    parts = scratch_joined(((2, 3), (), (4,)), "float32", slot)
    assert [p.shape for p in parts] == [(2, 3), (), (4,)] and parts.flat.size == 11
    parts.flat[...] = numpy.arange(11)
    assert [p.reshape(-1).tolist() for p in parts] == [[0, 1, 2, 3, 4, 5], [6], [7, 8, 9, 10]]


@pytest.mark.parametrize("shape", [(), (0, 3), (7, 5), (3, MAX_ZEROS), (MAX_ZEROS + 1,), (2, MAX_ZEROS + 1)])
def test_cached_constants_are_read_only_and_have_the_dtype(shape: tuple[int, ...]) -> None:
    for dtype in map(numpy.dtype, ("float32", "float64")):
        zeros = zeros_like(numpy.ones(shape, dtype))
        assert (zeros.shape, zeros.dtype, zeros.any(), zeros.flags.writeable) == (shape, dtype, False, False)
        one, tenth = as_0d_arrays(dtype, 1, 0.1)
        assert (tenth.dtype, tenth.shape, tenth, tenth.flags.writeable) == (dtype, (), dtype.type(0.1), False) and one == 1


def test_leaves_copy_a_shared_gradient(device: str) -> None:
    """A gradient array that two leaves or the caller share is copied for each leaf."""
    a, b = gpunet.ones(3, requires_grad=True), gpunet.ones(3, requires_grad=True)
    seed = gpunet.ones(3)
    (a + b).backward(seed)
    for gradient in (a.grad, b.grad):
        gradient.mul_(2.0)
    assert (a.grad.tolist(), b.grad.tolist(), seed.tolist()) == ([2.0] * 3, [2.0] * 3, [1.0] * 3)


def test_leaf_copies_the_gradient_that_a_loss_saved(device: str) -> None:
    """The second backward pass needs the saved gradient unchanged."""
    x = gpunet.tensor([1.0, 2.0, 4.0], requires_grad=True)
    loss = nn.functional.mse_loss(x, gpunet.zeros(3), reduction="sum")
    loss.backward(retain_graph=True)
    x.grad.mul_(10.0)
    x.grad = None
    loss.backward()
    assert x.grad.tolist() == [2.0, 4.0, 8.0]
