"""Backward: from the youngest node to the oldest, with a heap; and grad()."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from typing import Any

from gpunet import device as devices
from gpunet.autograd import mode
from gpunet.autograd.graph import ADD, COPY, OPS, Node, Scaled, Unit, contiguous, edge_to, operands, quiet, whole
from gpunet.autograd.tensor import Tensor, changed, method
from gpunet.device import Array
from gpunet.errors import GradientError, ShapeError
from gpunet.runtime.memory import empty
from gpunet.runtime.tape import active

_accumulation = threading.Lock()


@method("backward")
def backward(
    self: Tensor,
    gradient: Tensor | Array | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add d self / d leaf to the ``grad`` of every leaf that requires it.

    Args:
        gradient: the gradient of something with respect to this tensor, of its shape; 1 for a scalar.
        retain_graph: keep the graph for another backward; by default kept only with ``create_graph``.
        create_graph: make the gradients differentiable.  ``grad`` then refers to the graph that refers to the leaf,
            a cycle; :func:`grad` avoids it.
        inputs: only these leaves get gradients.

    Raises:
        GradientError: no graph here, or released already, or not a scalar and no ``gradient`` given.
        InPlaceError: something needed was changed in place; the message names the op.
    """
    wanted: list[Tensor] | None = None
    if inputs is not None:
        wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    found = run([self], [gradient], wanted, retain_graph, create_graph)
    for leaf, total in zip(wanted or (), found):
        if total is not None:
            _accumulate(leaf, total, False, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """d outputs / d inputs as a tuple, without touching any ``grad``.

    Args:
        outputs: tensors to differentiate; their gradients are summed.
        inputs: tensors, leaves or not, to differentiate by.
        grad_outputs: for each output the gradient of something with respect to it; 1 for scalars.
        retain_graph: keep the graph; by default only with ``create_graph``.
        create_graph: make the result differentiable, any number of times.
        allow_unused: None for an input that the outputs do not depend on, instead of an error.

    Raises:
        GradientError: an input is not part of the graph, the graph was released, an output is no scalar.
    """
    output_list = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    input_list = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None or isinstance(grad_outputs, Tensor) or devices.is_array(grad_outputs):
        grad_outputs = [grad_outputs]
    gradients = list(grad_outputs) + [None] * (len(output_list) - len(grad_outputs))
    found = run(output_list, gradients, input_list, retain_graph, create_graph)
    for position, gradient in enumerate(found):
        if gradient is None and not allow_unused:
            raise GradientError(
                f"input {position} of shape {input_list[position].shape} was not used to compute the outputs; "
                "pass allow_unused=True to get None for it"
            )
    return tuple(found)


def _seed(output: Tensor, gradient: Any) -> Any:
    """The gradient to start from at an output."""
    if not output._requires_grad:
        raise GradientError(
            f"backward on a tensor of shape {output.shape} that has no graph: none of its inputs had requires_grad=True, "
            "or it was computed under no_grad() or detached"
        )
    if gradient is None:
        if output.array.size != 1:
            raise GradientError(
                f"backward on a tensor of shape {output.shape} needs gradient= of that shape; only a scalar (a loss "
                "after .mean() or .sum()) has the gradient 1"
            )
        return Unit(output.array)
    gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    if gradient.shape != output.shape:
        raise ShapeError(f"gradient has shape {gradient.shape}, the tensor {output.shape}: they must be equal")
    operands("backward", [output, gradient])
    if gradient.dtype != output.dtype:
        cast = empty(output.shape, output.dtype, output.array)
        COPY(cast, gradient.array)
        gradient = Tensor(cast)
    return gradient


def _path(roots: list[Node], targets: set[Any]) -> set[Node]:
    """The nodes between the roots and the targets."""
    seen: set[Node] = set(roots)
    stack = list(roots)
    while stack:
        for edge in stack.pop().edges:
            if edge is not None and type(edge[0]) is Node and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    path: set[Node] = set()
    for node in sorted(seen, key=lambda n: n.sequence):
        for edge in node.edges:
            if edge is not None and (edge[0] in path or edge in targets):
                path.add(node)
                break
    return path


@quiet
def run(
    outputs: list[Tensor], seeds: list[Any], inputs: list[Tensor] | None, retain: bool | None, create: bool
) -> list[Any]:
    """Carry the seeds back.  To all leaves' ``grad`` when ``inputs`` is None; else return the gradients of ``inputs``."""
    retain = create if retain is None else retain
    heap: list[tuple[int, Node]] = []
    slots: dict[Node, list[Any]] = {}
    leaves: dict[Tensor, tuple[Any, bool]] = {}  # leaf -> (gradient, whether nobody else holds its memory)
    captured: dict[Any, Any] = {}
    path: set[Node] | None = None
    if inputs is not None:
        for position, tensor in enumerate(inputs):
            if not tensor._requires_grad:
                raise GradientError(f"input {position} of shape {tensor.shape} does not require grad")
        captured = {edge_to(t): None for t in inputs}
        path = _path([t._node for t in outputs if t._node is not None], set(captured))
        path.update(e[0] for e in captured if type(e[0]) is Node)

    def send(edge: Any, gradient: Any, fresh: bool) -> None:
        target = edge[0]
        if type(target) is Node:
            if path is not None and target not in path:
                return
            waiting = slots.get(target)
            if waiting is None:
                slots[target] = waiting = [None] * target.outputs
                heapq.heappush(heap, (-target.sequence, target))
            here = waiting[edge[1]]
            waiting[edge[1]] = gradient if here is None else whole(here) + whole(gradient)
        elif path is None or edge in captured:
            if target in leaves:
                gradient, fresh = whole(leaves[target][0]) + whole(gradient), True
            leaves[target] = (gradient, fresh)

    with mode.set_grad_enabled(create):
        for output, seed in zip(outputs, seeds, strict=True):
            gradient = _seed(output, seed)
            send(edge_to(output), gradient, isinstance(gradient, Unit))
        while heap:
            node = heapq.heappop(heap)[1]
            arrived = slots.pop(node)
            for index, hooks in node.hooks.items():
                for hook in list(hooks.values()):
                    if arrived[index] is not None:
                        arrived[index] = whole(arrived[index])
                        replaced = hook(arrived[index])
                        arrived[index] = arrived[index] if replaced is None else replaced
            if captured:
                for index in range(node.outputs):
                    if (node, index) in captured and arrived[index] is not None:
                        captured[node, index] = arrived[index] = whole(arrived[index])
                if not any(
                    e is not None and (e in captured or (path is not None and e[0] in path)) for e in node.edges
                ):
                    continue
            if node.backward is None:
                raise GradientError(
                    f"backward a second time through {node.op.name!r}, whose graph was released by the first; pass "
                    "retain_graph=True to the first backward, or compute the output again"
                )
            node.check_versions(create and node.op.kind == "fused")
            for edge, gradient, fresh in zip(node.edges, *_differentiate(node, arrived, create)):
                if edge is not None and gradient is not None:
                    send(edge, gradient, fresh)
            if not retain:
                node.release()
        for leaf, (gradient, fresh) in leaves.items():
            if leaf._hooks:
                gradient, fresh = whole(gradient), False
                for hook in list(leaf._hooks.values()):
                    replaced = hook(gradient)
                    gradient = gradient if replaced is None else replaced
            if inputs is None:
                _accumulate(leaf, whole(gradient), fresh or _is_lazy(gradient), create)
            else:
                captured[leaf, 0] = whole(gradient)
    return [] if inputs is None else [captured[edge_to(t)] for t in inputs]


def _is_lazy(gradient: Any) -> bool:
    """Whether applying it makes new memory."""
    return isinstance(gradient, Unit) or (isinstance(gradient, Scaled) and gradient.scale is not None)


def _differentiate(node: Node, arrived: list[Any], create: bool) -> tuple[list[Any], list[bool]]:
    """The gradients of a node's inputs, and which of them are memory of their own."""
    op = node.op
    if op.kind == "primitive":
        incoming = whole(arrived[0])
        args: tuple[Tensor, ...] = (incoming,)
        if node.output is not None:
            out = Tensor(node.output.array)
            out._version, out._node, out._requires_grad = node.output._version, node, True
            args = (incoming, out)
        gradients = [None if rule is None else rule(*args) for rule in node.backward]
        fresh = [g is not None and g is not incoming and g.array.base is None for g in gradients]
        return gradients, fresh
    if op.kind == "custom":
        gradients = node.backward(node, [None if g is None else whole(g) for g in arrived])
        return gradients, [False] * len(gradients)
    if create:
        return _differentiate_composed(node, [None if g is None else whole(g) for g in arrived])
    if op.scaled:
        gradient = arrived[0]
        if isinstance(gradient, Scaled):
            results = node.backward(gradient.array, gradient.scale)
        else:
            results = node.backward(contiguous(whole(gradient).array), None)
    elif op.takes_unit and isinstance(arrived[0], Unit):
        results = node.backward(None)
    else:
        results = node.backward(*[None if g is None else contiguous(whole(g).array) for g in arrived])
    gradients = [r if r is None or isinstance(r, Scaled) else Tensor(r) for r in results]
    return gradients, [not isinstance(g, Scaled) for g in gradients]


def _differentiate_composed(node: Node, arrived: list[Any]) -> tuple[list[Any], list[bool]]:
    """A fused node's gradients with a graph of their own: through its composition in primitives."""
    assert node.op.composed is not None
    copies = []
    for value, edge in zip(node.inputs, node.edges):
        if edge is not None:  # an identity, so that the inner graph ends here and the outer one goes on from here
            value = OPS["alias"].call(value)
        copies.append(value)
    outputs = node.op.composed(*copies, **node.options)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    pairs = [(o, g) for o, g in zip(outputs, arrived) if g is not None and o._requires_grad]
    wanted = [c for c, edge in zip(copies, node.edges) if edge is not None]
    found = iter(run([o for o, _ in pairs], [g for _, g in pairs], wanted, True, True))
    return [None if edge is None else next(found) for edge in node.edges], [False] * len(node.edges)


def _accumulate(leaf: Tensor, gradient: Tensor, fresh: bool, create: bool) -> None:
    """Add to a leaf's ``grad``; the first gradient becomes it, copied unless its memory is nobody else's."""
    with _accumulation:
        before = leaf._grad
        if active.tape is not None:
            active.tape.leaves.setdefault(leaf, before)
        if before is not None:
            if create:
                leaf._grad = before + gradient
            else:
                ADD(before.array, before.array, gradient.array)
                changed(before)
        elif create or (fresh and gradient.array.flags.c_contiguous):
            leaf._grad = gradient
        else:
            copy = empty(gradient.shape, gradient.dtype, gradient.array)
            COPY(copy, gradient.array)
            leaf._grad = Tensor(copy)
