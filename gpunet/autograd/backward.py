"""Backward: from the youngest node to the oldest, with a heap; and grad()."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from numpy import ndarray

from gpunet.autograd import mode
from gpunet.autograd.graph import (
    ADD,
    COPY,
    OPS,
    Node,
    Scaled,
    Unit,
    contiguous,
    edge_to,
    ignore_fp_errors,
    materialize,
    operands,
)
from gpunet.autograd.tensor import Tensor, bump_version, method
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import GradientError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import active

__all__ = ["grad"]

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
    if wanted is not None:
        _accumulate([(leaf, total) for leaf, total in zip(wanted, found) if total is not None], create_graph)


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


@ignore_fp_errors
def run(
    outputs: list[Tensor], seeds: list[Any], inputs: list[Tensor] | None, retain: bool | None, create: bool
) -> list[Any]:
    """Carry the seeds back.  To all leaves' ``grad`` when ``inputs`` is None; else return the gradients of ``inputs``."""
    retain = create if retain is None else retain
    heap: list[tuple[int, Node]] = []
    slots: dict[Node, list[Any]] = {}
    leaves: dict[Tensor, Any] = {}
    captured: dict[Any, Any] = {}
    path: set[Node] | None = None
    if inputs is not None:
        for position, tensor in enumerate(inputs):
            if not tensor._requires_grad:
                raise GradientError(f"input {position} of shape {tensor.shape} does not require grad")
        captured = {edge_to(t): None for t in inputs}
        path = _path([t._node for t in outputs if t._node is not None], set(captured))
        path.update(e[0] for e in captured if type(e[0]) is Node)

    def send(edge: Any, gradient: Any) -> None:
        target, index = edge
        if type(target) is Node:
            if path is not None and target not in path:
                return
            waiting = slots.get(target)
            if waiting is None:
                slots[target] = waiting = [None] * target.outputs
                heapq.heappush(heap, (-target.sequence, target))
            waiting[index] = gradient if waiting[index] is None else total(waiting[index], gradient)
        elif path is None or edge in captured:
            here = leaves.get(target)
            leaves[target] = gradient if here is None else total(here, gradient)

    def total(gradient: Any, other: Any) -> Any:
        both = materialize(gradient) + materialize(other)
        return both if create else both.array

    before, mode.current.enabled = mode.current.enabled, create
    try:
        for output, seed in zip(outputs, seeds, strict=True):
            send(edge_to(output), _seed(output, seed))
        while heap:
            node = heapq.heappop(heap)[1]
            arrived = slots.pop(node)
            for index, hooks in node.hooks.items():
                for hook in list(hooks.values()):
                    if arrived[index] is not None:
                        arrived[index] = materialize(arrived[index])
                        replaced = hook(arrived[index])
                        arrived[index] = arrived[index] if replaced is None else replaced
            if captured:
                for index in range(node.outputs):
                    if (node, index) in captured and arrived[index] is not None:
                        captured[node, index] = arrived[index] = materialize(arrived[index])
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
            for edge, gradient in zip(node.edges, _differentiate(node, arrived, create)):
                if edge is not None and gradient is not None:
                    send(edge, gradient)
            if not retain:
                node.release()
        for leaf, gradient in leaves.items():
            if leaf._hooks:
                gradient = materialize(gradient)
                for hook in list(leaf._hooks.values()):
                    replaced = hook(gradient)
                    gradient = gradient if replaced is None else replaced
                leaves[leaf] = gradient
        if inputs is None:
            _accumulate(leaves.items(), create)
            return []
        captured.update(((leaf, 0), materialize(gradient)) for leaf, gradient in leaves.items())
    finally:
        mode.current.enabled = before
    return [captured[edge_to(t)] for t in inputs]


def _differentiate(node: Node, arrived: list[Any], create: bool) -> Sequence[Any]:
    """The gradients of a node's inputs."""
    op = node.op
    if op.kind == "primitive":
        incoming = materialize(arrived[0])
        args: tuple[Tensor, ...] = (incoming,)
        if node.output is not None:
            out = Tensor(node.output.array)
            out._version, out._node, out._requires_grad = node.output._version, node, True
            args = (incoming, out)
        gradients = [None if rule is None else rule(*args) for rule in node.backward]
        if create:
            return gradients
        return [g if g is None or g is incoming or g.array.base is not None else g.array for g in gradients]
    if op.kind == "custom":
        return node.backward(node, [None if g is None else materialize(g) for g in arrived])
    if create:
        return _differentiate_composed(node, [None if g is None else materialize(g) for g in arrived])
    if op.scaled:
        gradient = arrived[0]
        if isinstance(gradient, Scaled):
            return node.backward(gradient.array, gradient.scale)
        return node.backward(contiguous(materialize(gradient).array), None)
    if op.takes_unit and isinstance(arrived[0], Unit):
        return node.backward(None)
    return node.backward(*[None if g is None else contiguous(materialize(g).array) for g in arrived])


def _differentiate_composed(node: Node, arrived: list[Any]) -> list[Any]:
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
    return [None if edge is None else next(found) for edge in node.edges]


def _accumulate(gradients: Iterable[tuple[Tensor, Any]], create: bool) -> None:
    """Add to each leaf's ``grad``; a first gradient becomes it, copied where its memory is somebody else's, too."""
    with _accumulation:
        for leaf, gradient in gradients:
            before = leaf._grad
            if before is None and type(gradient) is ndarray and gradient.flags.c_contiguous:
                leaf._grad = Tensor(gradient)  # what a fused op returned: nearly always
            else:
                leaf._grad = _sum(before, gradient, create)
            if active.tape is not None:
                active.tape.sets_gradient(leaf, before)


def _sum(before: Tensor | None, gradient: Any, create: bool) -> Tensor:
    """What a leaf's ``grad`` is after ``before``, which is added to in place where no graph of it is wanted."""
    shared = isinstance(gradient, Tensor) or (isinstance(gradient, Scaled) and gradient.scale is None)
    gradient = materialize(gradient)
    if before is not None:
        if create:
            return before + gradient
        ADD(before.array, before.array, gradient.array)
        bump_version(before)
        return before
    if create or (gradient.array.flags.c_contiguous and not shared):
        return gradient
    copy = empty(gradient.shape, gradient.dtype, gradient.array)
    COPY(copy, gradient.array)
    return Tensor(copy)
