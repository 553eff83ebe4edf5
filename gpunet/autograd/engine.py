"""Tensor.backward() and grad(): a backward pass over the graph, from the newest node to the oldest."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpunet.autograd import mode
from gpunet.autograd.graph import ADD, COPY, FILL, Gradient, Node, edge_to, ignore_fp_errors, materialize, operands
from gpunet.autograd.tensor import (
    PostAccumulateHook,
    Tensor,
    bump_version,
    make_tensor,
    method,
    post_accumulate_hooks_exist,
    wrap,
)
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_complex
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import active

__all__ = ["grad"]

#: held while gradients are added to ``grad``, because threads may share leaves
_accumulation = threading.Lock()
#: called with each node and the gradients of its inputs, in anomaly mode
inspect_gradients: Callable[[Node, Any], None] | None = None


@method("backward")
def _backward(
    self: Tensor,
    gradient: Tensor | Array | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Compute d self / d leaf and add it to the ``grad`` of each leaf that requires grad.

    Args:
        gradient: the upstream gradient, of this tensor's shape; defaults to 1 if the tensor has one element.
        retain_graph: keep the graph for another backward pass; defaults to ``create_graph``.
        create_graph: make the gradients differentiable.  The graph of ``leaf.grad`` then refers to the leaf, a
            reference cycle; :func:`grad` makes none.
        inputs: the leaves to compute gradients for; all leaves if None.

    Raises:
        GradientError: the tensor has no graph, its graph was released, or ``gradient`` is missing for a non-scalar, or for a
            complex number.
        InPlaceError: a saved tensor was changed in place; the message names the op that needs it.
    """
    _backward_of([self], [gradient], inputs, retain_graph, create_graph)


_backward.__qualname__ = "Tensor.backward"  # the name in Python's message about an unknown keyword


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of the sum of ``tensors`` to the ``grad`` of each leaf that requires grad, in one pass.

    Args:
        tensors: tensors to differentiate.
        grad_tensors: the upstream gradient of each; None means 1 and requires a tensor of one element.
        retain_graph, create_graph, inputs: as in :meth:`Tensor.backward`.

    Raises:
        GradientError: a tensor has no graph, a graph was released, or a non-scalar tensor has no upstream gradient.
    """
    outputs = _tensors("backward", "tensors", tensors)
    _backward_of(outputs, _seeds("backward", "grad_tensors", grad_tensors, outputs), inputs, retain_graph, create_graph)


def _backward_of(
    outputs: list[Tensor], seeds: list[Any], inputs: Any, retain_graph: bool | None, create_graph: bool
) -> None:
    leaves: list[Tensor] | None = None
    if inputs is not None:
        leaves = _tensors("backward", "inputs", inputs)
        if not leaves:
            raise ArgumentError("backward: inputs=[] is empty; expected tensors, or None for all leaves")
    gradients = run(outputs, seeds, leaves, retain_graph, create_graph, "backward")
    if leaves is not None:
        found = [(leaf, g) for leaf, g in zip(leaves, gradients) if g is not None and not leaf.retains_grad]  # else it has it
        at_end: dict[Callable[[], None], None] = {}
        for leaf, g in found:
            at_end.update(_accumulate(leaf, Gradient.of(g), create_graph))
        for function in at_end:
            function()


def _seeds(function: str, name: str, gradients: Any, outputs: list[Tensor]) -> list[Any]:
    """The upstream gradient, or None, of each output."""
    if gradients is None or isinstance(gradients, Tensor) or devices.is_array(gradients):
        gradients = [gradients]
    if len(gradients) > len(outputs):
        raise ArgumentError(f"{function}: {len(gradients)} {name} for {len(outputs)} outputs; expected one for each")
    return list(gradients) + [None] * (len(outputs) - len(gradients))


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of the sum of ``outputs`` with respect to ``inputs``, without changing any ``grad``.

    Args:
        outputs: tensors to differentiate.
        inputs: tensors to differentiate with respect to; they need not be leaves.
        grad_outputs: the upstream gradient of each output; None means 1 and requires an output of one element.
        retain_graph: keep the graph for another backward pass; defaults to ``create_graph``.
        create_graph: make the result differentiable, any number of times.
        only_inputs: True; :meth:`Tensor.backward` adds to the ``grad`` of other leaves.
        allow_unused: return None for an input that the outputs do not depend on, instead of raising; defaults to
            ``materialize_grads``.
        is_grads_batched: False; call grad for each of the upstream gradients.
        materialize_grads: return zeros instead of None for an input that the outputs do not depend on.

    Returns:
        A tuple with one tensor per input.

    Raises:
        GradientError: an input is not part of the graph, the graph was released, or a non-scalar output has no
            ``grad_outputs``.
        ArgumentError: an argument is not supported, or contradicts another.
    """
    if not only_inputs:
        raise ArgumentError("grad: only_inputs=False; use output.backward(), which adds to the grad of all leaves")
    if is_grads_batched:
        raise ArgumentError("grad: is_grads_batched=True is not supported; call grad() for each of the upstream gradients")
    if materialize_grads and allow_unused is False:
        raise ArgumentError("grad: allow_unused=False, materialize_grads=True; expected allow_unused=True or None")
    output_list, input_list = _tensors("grad", "outputs", outputs), _tensors("grad", "inputs", inputs)
    seeds = _seeds("grad", "grad_outputs", grad_outputs, output_list)
    gradients = run(output_list, seeds, input_list, retain_graph, create_graph)
    for position, gradient in enumerate(gradients):
        if gradient is None and materialize_grads:
            gradients[position] = _zeros_like(input_list[position])
        elif gradient is None and not allow_unused:
            raise GradientError(
                f"grad: input {position} of shape {input_list[position].shape} was not used to compute the outputs; "
                "pass allow_unused=True to get None for it"
            )
    return tuple(gradients)


def _tensors(function: str, name: str, value: Any) -> list[Tensor]:
    """A tensor or an iterable of tensors as a list.

    Raises:
        DtypeError: it is something else.
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Iterable) and not devices.is_array(value):
        tensors = list(value)
        if all(isinstance(item, Tensor) for item in tensors):
            return tensors
    raise DtypeError(f"{function}: {name}={value!r}; expected a tensor, or a sequence of tensors")


def _zeros_like(tensor: Tensor) -> Tensor:
    out = empty(tensor.array.shape, tensor.array.dtype, tensor.array)
    FILL(out, value=0)
    return make_tensor(out)


def _seed(output: Tensor, gradient: Any) -> Gradient:
    """Validate the upstream gradient, cast it to the output's dtype; None becomes 1."""
    if not output._requires_grad:
        raise GradientError(
            f"backward on a tensor of shape {output.shape} that has no graph: none of its inputs has requires_grad=True, "
            "or it was computed under no_grad() or detached"
        )
    if gradient is None:
        if output.array.size != 1:
            raise GradientError(
                f"backward on a tensor of shape {output.shape} needs gradient= of that shape; only the gradient of a "
                "scalar (a loss after .mean() or .sum()) defaults to 1"
            )
        if is_complex(output.array.dtype):
            raise GradientError(
                f"backward on a tensor of {output.dtype} needs gradient=: only that of a real loss defaults to 1; take .abs() or "
                ".real first"
            )
        return Gradient(None, like=output.array)
    gradient = wrap(gradient, "backward")
    if gradient.shape != output.shape:
        raise ShapeError(f"backward: gradient has shape {gradient.shape}; expected {output.shape}")
    operands("backward", [output, gradient])
    if is_complex(gradient.dtype) != is_complex(output.dtype):
        raise DtypeError(f"backward: gradient has dtype {gradient.dtype}, the tensor {output.dtype}; expected both real or complex")
    if gradient.dtype != output.dtype:
        cast = empty(output.shape, output.dtype, output.array)
        COPY(cast, gradient.array)
        gradient = make_tensor(cast)
    return Gradient.of(gradient)


def _nodes_between(roots: list[Node], targets: set[Any], ends: set[Any]) -> set[Node]:
    """Return the nodes on paths from the roots to the targets.

    Args:
        targets: edges, as in ``Node.edges``.
        ends: the edges behind which paths do not go on.
    """
    seen: set[Node] = set(roots)
    stack = list(roots)
    while stack:
        for edge in stack.pop().edges:
            if edge is not None and type(edge[0]) is Node and edge[0] not in seen and edge not in ends:
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
    outputs: list[Tensor],
    seeds: list[Any],
    inputs: list[Tensor] | None,
    retain: bool | None,
    create: bool,
    name: str = "grad",
    ends: Iterable[Any] = (),
) -> list[Any]:
    """Run a backward pass.

    Args:
        outputs: tensors to start from.
        seeds: their upstream gradients; None means 1.
        inputs: tensors to compute gradients for; if None, add the gradients to the ``grad`` of all leaves.
        retain: keep the graph; if None, keep it if ``create``.
        create: make the gradients differentiable.
        name: the function that the user called, for messages.
        ends: those of the edges of ``inputs`` (see ``Node.edges``) behind which the pass does not go on.

    Returns:
        The gradients of ``inputs`` (None for an unused input); empty if ``inputs`` is None.
    """
    if not isinstance(create, bool):
        raise DtypeError(f"{name}: create_graph={create!r}; expected True or False")
    if retain is not None and not isinstance(retain, bool):
        raise DtypeError(f"{name}: retain_graph={retain!r}; expected True, False or None")
    retain = create if retain is None else retain
    heap: list[tuple[int, Node]] = []  # nodes that have received a gradient, highest sequence number first
    received: dict[Node, list[Any]] = {}  # their gradients so far, one per output
    leaves: dict[Tensor, Gradient | Array] = {}
    ended: dict[Any, Gradient | Array] = {}  # the sums at ``ends`` that are outputs of nodes, by edge
    requested: dict[Any, Any] = {}  # gradient of each of ``inputs``, by edge
    path: set[Node] | None = None  # the nodes to visit; None means all
    if inputs is not None:
        for position, tensor in enumerate(inputs):
            if not tensor._requires_grad:
                raise GradientError(f"{name}: input {position} of shape {tensor.shape} does not require grad")
        requested = {edge_to(t): None for t in inputs}
        ends = set(ends)
        path = _nodes_between([t._node for t in outputs if t._node is not None and edge_to(t) not in ends], set(requested), ends)
        path.update(e[0] for e in requested if type(e[0]) is Node and e not in ends)

    def add(gradient: Gradient | Array, other: Gradient | Array) -> Gradient | Array:
        total = materialize(gradient) + materialize(other)
        is_new = not create and total.array.flags.c_contiguous
        return total.array if is_new else Gradient.of(total)

    at_end: dict[Callable[[], None], None] = {}  # functions to call when the pass ends, in order
    num_left: dict[Tensor, int] = {}  # of leaves whose grad is accumulated as soon as it is complete, the edges not yet passed
    if inputs is None and not create and (post_accumulate_hooks_exist[0] or mode.current.leaf_listener is not None):
        num_left = _count_edges_to_leaves(outputs)

    def finish(leaf: Tensor) -> None:
        """Add the gradient of a leaf, which is complete, to its ``grad``, and call its hooks."""
        gradient = leaves.pop(leaf)
        if leaf._hooks:
            for hook in list(leaf._hooks.values()):
                if type(hook) is not PostAccumulateHook:
                    gradient = _call_hook(hook, gradient)
        at_end.update(_accumulate(leaf, gradient, create))

    previous_mode, mode.current.enabled = mode.current.enabled, create
    autocast = mode.current.autocast if mode.autocasting else None
    if autocast is not None:
        mode.current.autocast = None  # gradients have the dtypes of the forward pass
    try:
        sent: Iterable[tuple[Any, Any]] = [(edge_to(o), _seed(o, seed)) for o, seed in zip(outputs, seeds, strict=True)]
        while True:
            for edge, gradient in sent:
                if edge is None:
                    continue
                target, index = edge
                if gradient is None:
                    pass
                elif type(target) is Node:
                    if path is None or target in path:
                        sums = received.get(target)
                        if sums is None:
                            received[target] = sums = [None] * len(target.outputs)
                            heapq.heappush(heap, (-target.sequence, target))
                        sums[index] = gradient if sums[index] is None else add(sums[index], gradient)
                    elif edge in ends:
                        ended[edge] = add(ended[edge], gradient) if edge in ended else gradient
                elif path is None or edge in requested:
                    so_far = leaves.get(target)
                    leaves[target] = gradient if so_far is None else add(so_far, gradient)
                if num_left and target in num_left:
                    num_left[target] -= 1
                    if num_left[target] == 0 and target in leaves:
                        finish(target)
            if not heap:
                break
            sent = ()
            node = heapq.heappop(heap)[1]
            gradients = received.pop(node)
            for index, hooks in node.hooks.items():
                for hook in list(hooks.values()):
                    if gradients[index] is not None:
                        gradients[index] = _call_hook(hook, gradients[index])
            if requested:
                for index, gradient in enumerate(gradients):
                    if (node, index) in requested and gradient is not None:
                        requested[node, index] = tensor = materialize(gradient)
                        gradients[index] = Gradient.of(tensor)
                if not any(
                    e is not None and (e in requested or (path is not None and e[0] in path)) for e in node.edges
                ):
                    continue
            if node.saved is None:
                raise GradientError(
                    f"backward a second time through {node.public_name}, whose graph was released by the first backward; "
                    "pass retain_graph=True to the first backward, or compute the output again"
                )
            node.check_versions(create)
            if num_left and node.packed is None and inspect_gradients is None and node.op.stream is not None:
                sent = node.op.stream_gradients(node, gradients, retain)  # each is passed on when it is computed
            else:
                if node.packed is None:
                    found = node.op.differentiate(node, gradients, create)
                else:
                    with node.unpacked(create):
                        found = node.op.differentiate(node, gradients, create)
                if inspect_gradients is not None:
                    inspect_gradients(node, found)
                sent = zip(node.edges, found)
                if not retain:
                    node.release()
        if inputs is None:
            for leaf in list(leaves):
                finish(leaf)
            for function in at_end:
                function()
            return []
        for leaf in leaves:
            if leaf._hooks:
                for hook in list(leaf._hooks.values()):
                    if type(hook) is not PostAccumulateHook:
                        leaves[leaf] = _call_hook(hook, leaves[leaf])
        requested.update(((leaf, 0), materialize(gradient)) for leaf, gradient in leaves.items())
        requested.update((edge, materialize(gradient)) for edge, gradient in ended.items())
    finally:
        mode.current.enabled = previous_mode
        if autocast is not None:
            mode.current.autocast = autocast
    return [requested[edge_to(t)] for t in inputs]


def _call_hook(hook: Any, gradient: Gradient | Array) -> Gradient:
    """Call a hook of a tensor with its gradient; return the gradient or its replacement."""
    tensor = materialize(gradient)
    replacement = hook(tensor)
    return Gradient.of(tensor if replacement is None else replacement)


@contextmanager
def listening_to_leaves(listener: Callable[[Tensor], None]) -> Iterator[None]:
    """Inside the block, backward calls ``listener(leaf)`` as soon as the ``grad`` of a leaf is complete."""
    before, mode.current.leaf_listener = mode.current.leaf_listener, listener
    try:
        yield
    finally:
        mode.current.leaf_listener = before


def _count_edges_to_leaves(outputs: list[Tensor]) -> dict[Tensor, int]:
    """The number of edges to each leaf in the graph of the outputs."""
    counts: dict[Tensor, int] = {}
    edges = [edge_to(o) for o in outputs]
    seen: set[Node] = set()
    while edges:
        edge = edges.pop()
        if edge is None:
            continue
        target = edge[0]
        if type(target) is not Node:
            counts[target] = counts.get(target, 0) + 1
        elif target not in seen:
            seen.add(target)
            edges += target.edges
    return counts


def _accumulate(leaf: Tensor, gradient: Gradient | Array, create: bool) -> dict[Callable[[], None], None]:
    """Add a gradient to the ``grad`` of a leaf, and call the hooks; return the functions to call when backward ends.

    A leaf's first gradient is stored without a copy if it is a new array.
    """
    with _accumulation:
        before = leaf._grad
        if before is None and type(gradient) is not Gradient:
            leaf._grad = make_tensor(gradient)
        else:
            leaf._grad = _add_to_grad(before, gradient, create)
        if active.tape is not None:
            active.tape.record_gradient(leaf, before)
    if mode.current.leaf_listener is not None:
        mode.current.leaf_listener(leaf)
    if not leaf._hooks:
        return {}
    hooks = [hook for hook in leaf._hooks.values() if type(hook) is PostAccumulateHook]
    for hook in hooks:
        hook.function(leaf)
    return dict.fromkeys(hook.at_end for hook in hooks if hook.at_end is not None)


def _add_to_grad(before: Tensor | None, gradient: Gradient | Array, create: bool) -> Tensor:
    """Return the new ``grad`` of a leaf, in memory of its own: ``before + gradient``, in place unless ``create``."""
    is_new = type(gradient) is not Gradient or gradient.array is None or gradient.scale is not None
    tensor = materialize(gradient)
    if before is not None:
        if create:
            return before + tensor
        ADD(before.array, before.array, tensor.array)
        bump_version(before)
        return before
    if is_new:
        return tensor
    if create:
        found: Any = tensor
        return found.clone()
    copy = empty(tensor.shape, tensor.dtype, tensor.array)
    COPY(copy, tensor.array)
    return make_tensor(copy)
