"""Ops that users define by subclassing Function, against PyTorch's."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd import Function, Variable, once_differentiable
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, ShapeError


def exp_of(library: Any) -> Any:
    class Exp(library.autograd.Function):
        """Saves its output, and a number."""

        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            y = (x * factor).exp()
            ctx.save_for_backward(y)
            ctx.factor = factor
            return y

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            (y,) = ctx.saved_tensors
            return dy * y * ctx.factor, None

    return Exp


def product_of(library: Any) -> Any:
    class ProductAndSum(library.autograd.Function):
        """Two outputs; saves its inputs in setup_context."""

        @staticmethod
        def forward(x: Any, y: Any) -> Any:
            return x * y, x + y

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, dp: Any, ds: Any) -> Any:
            x, y = ctx.saved_tensors
            return dp * y + ds if ctx.needs_input_grad[0] else None, dp * x + ds if ctx.needs_input_grad[1] else None

    return ProductAndSum


def derivatives(library: Any, f: Any, *values: Any) -> list[numpy.ndarray]:
    """The result, first and second derivatives of the sum of squares of f."""
    xs = [library.tensor(v, dtype=library.float64, requires_grad=True) for v in values]
    y = f(*xs)
    loss = sum((t * t).sum() for t in (y if isinstance(y, tuple) else (y,)))
    first = library.autograd.grad(loss, xs, create_graph=True)
    second = library.autograd.grad(sum((g * g).sum() for g in first), xs)
    return [numpy.asarray(t.detach()) for t in (loss, *first, *second)]


@pytest.mark.parametrize("name", ["exp", "product"])
def test_derivatives_are_those_of_pytorch(name: str, torch: Any) -> None:
    found = []
    for library in (gpunet, torch):
        op = exp_of(library) if name == "exp" else product_of(library)
        others = (0.5,) if name == "exp" else ()
        values = ([0.5, -1.0],) if name == "exp" else ([0.5, -1.0], [2.0, 3.0])
        found.append(derivatives(library, lambda *xs, op=op, others=others: op.apply(*xs, *others), *values))
    for mine, theirs in zip(*found, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_runs_on_every_device_and_in_captured_steps(device: str) -> None:
    op = exp_of(gpunet)
    x = gpunet.tensor([0.5, -1.0], requires_grad=True)

    @gpunet.capture
    def step(scale: Any) -> Any:
        x.grad = None
        y = (op.apply(x, 0.5) * scale).sum()
        y.backward()
        return y, x.grad

    for factor in (1.0, 3.0):
        y, dx = step(gpunet.tensor(factor))
        expected = numpy.exp(numpy.array([0.25, -0.5]))
        numpy.testing.assert_allclose(y.item(), factor * expected.sum(), rtol=1e-6)
        numpy.testing.assert_allclose(dx.tolist(), factor * 0.5 * expected, rtol=1e-6)


def test_unused_outputs_give_zeros_or_none() -> None:
    seen: list[Any] = []

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, materialize: bool) -> Any:
            ctx.set_materialize_grads(materialize)
            return x * 2, x * 3, "text"

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            seen.append([g if g is None else g.tolist() for g in gradients])
            return gradients[0] * 2, None

    x = gpunet.ones(2, requires_grad=True)
    for materialize in (True, False):
        y, z, text = Two.apply(x, materialize)
        assert text == "text" and z.requires_grad
        y.sum().backward()
    assert seen == [[[1.0, 1.0], [0.0, 0.0], None], [[1.0, 1.0], None, None]]


def test_defaults_and_keywords_with_setup_context() -> None:
    class Scaled(Function):
        @staticmethod
        def forward(x: Any, scale: float = 2.0) -> Any:
            return x * scale, x.argmax()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            _, ctx.scale = inputs

        @staticmethod
        def backward(ctx: Any, dy: Any, of_index: Any) -> Any:
            assert of_index.item() == 0 and of_index.dtype == gpunet.int64
            return dy * ctx.scale, None

    x = gpunet.ones(2, requires_grad=True)
    (Scaled.apply(x)[0] + Scaled.apply(x, scale=3.0)[0]).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [5.0, 5.0]
    with pytest.raises(ArgumentError, match=r"Scaled\.apply: missing a required argument: 'x'"):
        Scaled.apply()
    with pytest.raises(ArgumentError, match=r"Same\.apply: got x="):
        Same.apply(x=x)


def test_gradients_have_memory_of_their_own() -> None:
    p, x = gpunet.ones(3, requires_grad=True), gpunet.ones(3, requires_grad=True)
    upstream = gpunet.ones(3)
    (p + x).backward(upstream, create_graph=True)
    with gpunet.no_grad():
        p.grad.zero_()  # type: ignore[union-attr]
        upstream.zero_()
    assert x.grad is not None and x.grad.tolist() == [1.0] * 3
    a, b = p * 1, x * 1
    a.retain_grad()
    b.retain_grad()
    (a + b).sum().backward()
    a.grad.mul_(5.0)  # type: ignore[union-attr]
    assert b.grad is not None and b.grad.tolist() == [1.0] * 3


def test_retained_gradient_is_not_added_twice() -> None:
    x = gpunet.ones(2, requires_grad=True)
    z = x * 2
    z.retain_grad()
    (z * 3).sum().backward(inputs=[x, z])
    assert z.grad is not None and z.grad.tolist() == [3.0, 3.0]
    assert x.grad is not None and x.grad.tolist() == [6.0, 6.0]


def test_outputs_without_gradient() -> None:
    class Sorted(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            values, indices = x.sort()
            ranks = indices.to(x.dtype)
            ctx.mark_non_differentiable(ranks)
            ctx.save_for_backward(indices)
            return values, indices, ranks

        @staticmethod
        def backward(ctx: Any, dy: Any, *unused: Any) -> Any:
            (indices,) = ctx.saved_tensors
            return dy[indices.argsort()]

    x = gpunet.tensor([3.0, 1.0, 2.0], requires_grad=True)
    values, indices, ranks = Sorted.apply(x)
    assert values.requires_grad and not indices.requires_grad and not ranks.requires_grad
    (values * gpunet.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [100.0, 1.0, 10.0]


class Doubled(Function):
    """In place."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * 2


def test_change_in_place() -> None:
    leaf = gpunet.ones(2, requires_grad=True)
    x = leaf * 3
    y = Doubled.apply(x)
    assert y is x and y.tolist() == [6.0, 6.0]
    (y * y).sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [72.0, 72.0]
    with pytest.raises(GradientError, match=r"Doubled changes a leaf tensor.*\.clone\(\)"):
        Doubled.apply(leaf)
    with pytest.raises(InPlaceError, match=r"Doubled changes a view"):
        Doubled.apply((leaf * 3)[:1])


class Same(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return -dy * ctx.saved_tensors[0]


def test_returned_input_is_another_tensor() -> None:
    """So the caller's tensor keeps its place in the graph; the gradient may be reversed, as in domain adaptation."""
    x = gpunet.tensor([1.0, 2.0], requires_grad=True)
    y = Same.apply(x)
    assert y is not x and x.grad_fn is None
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-1.0, -2.0]
    with gpunet.no_grad():
        assert Same.apply(x) is not x and not Same.apply(x).requires_grad


def test_changed_saved_tensor_is_detected() -> None:
    for change in ("input", "output"):
        x = gpunet.ones(2, requires_grad=True) * 1
        y = Same.apply(x) if change == "input" else exp_of(gpunet).apply(x, 1.0)
        (x if change == "input" else y).detach().add_(1)
        with pytest.raises(InPlaceError, match=r"Same|Exp"):
            y.sum().backward()


def test_second_backward_needs_retain_graph() -> None:
    x = gpunet.ones(2, requires_grad=True)
    y, dy = Same.apply(x), gpunet.ones(2)
    y.backward(dy, retain_graph=True)
    y.backward(dy)
    with pytest.raises(GradientError, match="Same, whose graph was released"):
        y.backward(dy)


def test_graph_is_freed_with_its_outputs() -> None:
    gc.disable()
    try:
        x = gpunet.ones(2, requires_grad=True)
        y = exp_of(gpunet).apply(x, 1.0)
        node = weakref.ref(y.grad_fn.saved)  # type: ignore[union-attr]
        del y
        assert node() is None
    finally:
        gc.enable()


class Once(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        assert not gpunet.is_grad_enabled()
        return 2 * ctx.saved_tensors[0] * dy


def test_once_differentiable() -> None:
    x = gpunet.ones(2, requires_grad=True)
    y = Once.apply(x)
    upstream = gpunet.ones(2, requires_grad=True)
    (dx,) = gpunet.autograd.grad(y, x, upstream, create_graph=True)
    assert dx.tolist() == [2.0, 2.0]
    with pytest.raises(GradientError, match=r"Once: its backward is marked with @once_differentiable"):
        dx.sum().backward()


def gives(result: Any) -> Any:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x * y

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return result(dy)

    return Wrong


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda dy: dy, GradientError, r"Wrong\.backward returned 1 gradients; expected 2"),
        (lambda dy: (dy, dy, dy), GradientError, r"returned 3 gradients; expected 2"),
        (lambda dy: (dy, 1.0), GradientError, r"returned a float as gradient 1"),
        (lambda dy: (dy, dy[:1]), ShapeError, r"returned a gradient of shape \(1,\) as gradient 1; expected \(3,\)"),
    ],
)
def test_wrong_results_of_backward(result: Any, error: type[Exception], message: str) -> None:
    x, y = (gpunet.ones(3, requires_grad=True) for _ in range(2))
    with pytest.raises(error, match=message):
        gives(result).apply(x, y).sum().backward()


def test_gradients_are_summed_to_the_shape_of_an_input_that_was_broadcast() -> None:
    x, y = gpunet.ones(3, requires_grad=True), gpunet.ones(1, requires_grad=True)
    gives(lambda dy: (dy, dy, None)).apply(x, y).sum().backward()
    assert y.grad is not None and y.grad.tolist() == [3.0]


def test_wrong_definitions() -> None:
    class NotStatic(Function):
        def forward(self, x: Any) -> Any:  # type: ignore[override]
            return x

    with pytest.raises(GradientError, match=r"NotStatic\.forward is no static method"):
        NotStatic.apply(gpunet.ones(1))
    with pytest.raises(GradientError, match=r"a Function is not called; use Same\.apply"):
        Same()(gpunet.ones(1))
    with pytest.raises(GradientError, match=r"needs a static method forward"):
        Function.apply(gpunet.ones(1))

    class Saves(Same):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x, 1.0)

    with pytest.raises(DtypeError, match=r"save_for_backward: argument 1 has type float"):
        Saves.apply(gpunet.ones(1))


def test_variable() -> None:
    x = gpunet.ones(2)
    v = Variable(x, requires_grad=True)
    assert isinstance(v, Variable) and isinstance(x, Variable) and not isinstance(1.0, Variable)
    assert v.requires_grad and not x.requires_grad and v.array is x.array
    with pytest.raises(ArgumentError, match="volatile=True"):
        Variable(x, volatile=True)
    with pytest.raises(DtypeError, match=r"Variable: data has type list"):
        Variable([1.0])


def test_backward_of_several_tensors() -> None:
    x = gpunet.ones(2, requires_grad=True)
    gpunet.autograd.backward([x.sum(), x * 2], [None, gpunet.tensor([1.0, 3.0])])
    assert x.grad is not None and x.grad.tolist() == [3.0, 7.0]
    with pytest.raises(ArgumentError, match="2 grad_tensors for 1 outputs"):
        gpunet.autograd.backward(x.sum(), [None, None])
