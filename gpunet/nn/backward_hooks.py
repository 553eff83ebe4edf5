"""Backward hooks of modules: a node of the graph at the inputs of a call, and one at its outputs, that call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpunet.autograd import Gradient, Node, Tensor, is_grad_enabled, make_tensor
from gpunet.autograd.graph import edge_to, materialize
from gpunet.autograd.op import Op
from gpunet.errors import GradientError
from gpunet.ops.creation import zeros_like

Gradients = tuple[Tensor | None, ...]


class _Boundary(Op):
    """The identity of several tensors at once; its backward passes their gradients through a function."""

    kind = "boundary"

    def differentiate(self, node: Node, upstream: Sequence[Any], create: bool) -> list[Any]:
        gradients = self.function(tuple(None if g is None else materialize(g) for g in upstream))
        return [None if g is None else Gradient.of(g) for g in gradients]


def _pass(tensors: Iterable[Tensor], function: Callable[[Gradients], Gradients]) -> list[Tensor]:
    """Return aliases of tensors whose gradients go through ``function`` together."""
    tensors = list(tensors)
    specs = [(t.array.shape, t.array.dtype) for t in tensors]
    node = Node(_Boundary(function, "backward hook"), [edge_to(t) for t in tensors], {}, (), specs, {})
    passed = []
    for index, tensor in enumerate(tensors):
        alias = make_tensor(tensor.array)
        alias._version, alias._view_version = tensor._version, tensor._version[0]
        alias._node, alias._index, alias._requires_grad = node, index, True
        passed.append(alias)
    return passed


class BackwardHooks:
    """The backward hooks of one call of a module.

    Args:
        module: the module.
        pre_hooks: called as ``hook(module, grad_output)``; a result replaces grad_output.
        hooks: called as ``hook(module, grad_input, grad_output)``; a result replaces grad_input.
    """

    def __init__(self, module: Any, pre_hooks: list[Any], hooks: list[Any]) -> None:
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks
        self.num_inputs, self.has_inputs = 0, False
        self.grad_output: Gradients = ()

    def at_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of the call, with a node in the graph of those that require grad."""
        self.num_inputs = len(args)
        if not self.hooks:
            return args
        places = _requiring_grad(args)
        self.has_inputs = bool(places)

        likes = {place: value.detach() for place, value in enumerate(args) if places and isinstance(value, Tensor)}

        def finish(gradients: Gradients) -> Gradients:
            found = list(_spread(gradients, places, len(args)))
            for place, like in likes.items():  # as in PyTorch, also of tensors that do not require grad
                if found[place] is None:
                    found[place] = zeros_like(like)
            replaced = self._run(tuple(found))
            return tuple(replaced[place] for place in places)

        return _replaced(args, places, finish)

    def at_outputs(self, result: Any) -> Any:
        """Return the result of the call, with a node in the graph of the tensors in it."""
        is_single = isinstance(result, Tensor)
        if not is_single and not isinstance(result, (tuple, list)):
            return result
        outputs = (result,) if is_single else tuple(result)
        places = _requiring_grad(outputs)

        def begin(gradients: Gradients) -> Gradients:
            grad_output = _spread(gradients, places, len(outputs))
            for hook in self.pre_hooks:
                changed = hook(self.module, grad_output)
                if changed is not None:
                    grad_output = _checked("grad_output", changed, len(outputs))
            self.grad_output = grad_output
            if not self.has_inputs:  # none requires grad, so nothing will come there
                self._run((None,) * self.num_inputs)
            return tuple(grad_output[place] for place in places)

        changed = _replaced(outputs, places, begin)
        if is_single:
            return changed[0]
        return type(result)(*changed) if hasattr(result, "_fields") else type(result)(changed)

    def _run(self, grad_input: Gradients) -> Gradients:
        for hook in self.hooks:
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = _checked("grad_input", changed, self.num_inputs)
        return grad_input


def _requiring_grad(values: Sequence[Any]) -> list[int]:
    if not is_grad_enabled():
        return []
    return [place for place, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]


def _replaced(values: tuple[Any, ...], places: list[int], function: Callable[[Gradients], Gradients]) -> tuple[Any, ...]:
    if not places:
        return values
    changed = list(values)
    for place, alias in zip(places, _pass([values[place] for place in places], function)):
        changed[place] = alias
    return tuple(changed)


def _spread(gradients: Gradients, places: list[int], size: int) -> Gradients:
    """The gradients at their places among ``size`` values, None elsewhere."""
    found: list[Tensor | None] = [None] * size
    for place, gradient in zip(places, gradients):
        found[place] = gradient
    return tuple(found)


def _checked(name: str, changed: Any, size: int) -> Gradients:
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != size:
        raise GradientError(f"a backward hook returned {len(changed)} gradients for {name}; expected {size}")
    return changed
