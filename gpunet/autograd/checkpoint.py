"""Checkpoints (Chen et al. 2016): save the inputs of a part of the network, and run it again in the backward pass.

The part's activations are released after its forward pass, so a network of n equal parts keeps the activations of one, at the price
of one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from gpunet.autograd import mode
from gpunet.autograd.engine import run
from gpunet.autograd.function import Function
from gpunet.autograd.graph import Node, edge_to
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, GradientError
from gpunet.launch.random import default_generator
from gpunet.launch.tape import warn_user

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Any = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Return ``function(*args, **kwargs)`` without keeping its activations; the backward pass calls the function again.

    The result, all gradients and their derivatives are those of the call without a checkpoint; the function must do the same at
    both calls.  What layers count in a forward pass, such as running statistics, is counted once.

    Args:
        function: returns a tensor, or a tuple or list of values.
        use_reentrant: True, False or None: PyTorch's two ways to do it have the same effect here.
        context_fn: None: contexts around the calls are not supported.
        determinism_check, debug, early_stop: accepted as in PyTorch; the shapes of both calls are compared always.
        preserve_rng_state: draw the same random numbers at the second call; with False, dropout draws another mask.

    Raises:
        ArgumentError: ``context_fn`` is passed.
        GradientError: the second call returns other shapes, or does not depend on what the first one did.
        InPlaceError: in the backward pass, an argument or a parameter was changed in place after the first call.
    """
    if not callable(function):
        raise DtypeError(f"checkpoint: function has type {type(function).__name__}; expected a function or a module")
    if context_fn is not None:
        raise ArgumentError("checkpoint: context_fn is not supported; enter the contexts inside the function")
    if not mode.current.enabled:
        return function(*args, **kwargs)
    part = _Part(function, args, kwargs, preserve_rng_state)
    outputs, kind = part.first()
    boundary = [_at(edge) for edge in part.boundary]
    if boundary:
        results = _Checkpoint.apply(part, outputs, *boundary)
    else:
        results = tuple(outputs)
        if use_reentrant and any(isinstance(value, Tensor) and not value._requires_grad for value in args):
            message = "checkpoint: no input or parameter requires grad, so there are no gradients"
            warn_user(message)
    return results[0] if kind is None else list(results) if kind is list else results


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True
) -> Any:
    """Call functions one after the other, in ``segments`` checkpoints of equally many; the last of them keeps its activations.

    Args:
        functions: an ``nn.Sequential``, or a sequence of functions of one argument.

    Raises:
        ArgumentError: there are fewer functions than segments, or no segments.
    """
    chain = list(functions)
    if isinstance(segments, bool) or not isinstance(segments, int) or not 1 <= segments <= len(chain):
        raise ArgumentError(f"checkpoint_sequential: segments={segments!r}; expected 1 to {len(chain)}, the number of functions")
    size = len(chain) // segments

    def call(functions: Sequence[Callable[[Any], Any]], value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    for start in range(0, size * (segments - 1), size):
        input = checkpoint(
            call, chain[start : start + size], input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state
        )
    return call(chain[size * (segments - 1) :], input)


class _Part:
    """A call that can be repeated.

    Attributes:
        boundary: the edges by which its graph hangs on the graph before it and on leaves (see ``Node.edges``).
        tensors: arguments and leaves, of which changes in place matter.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], repeats_draws: bool) -> None:
        self.call = lambda: function(*args, **kwargs)
        self.tensors = [*_tensors_in([args, kwargs])]
        self.autocast = mode.current.autocast
        self.repeats_draws = repeats_draws
        where = {devices.CPU, *default_generator.drawn_on, *(devices.of(tensor.array) for tensor in self.tensors)}
        self.marks = {device: default_generator.mark(device) for device in where} if repeats_draws else {}
        self.boundary: list[Any] = []
        self.shapes: list[Any] = []

    def first(self) -> tuple[list[Any], type | None]:
        """Call the function and find the boundary; return its results without a graph, and whether they are a tuple or a list."""
        start = next(Node._sequence)
        returned = self.call()
        if self.repeats_draws:
            for device in default_generator.drawn_on - self.marks.keys():
                self.marks[device] = default_generator.mark_of_start(device)
        kind = type(returned) if isinstance(returned, (tuple, list)) else None
        outputs = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        self.boundary = _boundary([edge for edge in map(edge_to, outputs) if edge is not None], start)
        known = {id(tensor) for tensor in self.tensors}
        self.tensors += [target for target, _ in self.boundary if isinstance(target, Tensor) and id(target) not in known]
        self.shapes = _shapes(outputs)
        return [value.detach() if isinstance(value, Tensor) else value for value in outputs], kind

    def gradients(self, upstream: Sequence[Any]) -> list[Any]:
        """Call the function again, and return the gradients at the boundary."""
        creates_graph = mode.current.enabled
        with ExitStack() as stack:
            for mark in self.marks.values():
                stack.enter_context(default_generator.repeat(mark))
            before = mode.current.recomputes, mode.current.autocast
            mode.current.enabled, mode.current.recomputes, mode.current.autocast = True, True, self.autocast
            mode.autocasting.append(None)
            try:
                returned = self.call()
            finally:
                mode.current.enabled, mode.current.recomputes, mode.current.autocast = creates_graph, *before
                mode.autocasting.pop()
        outputs = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        if _shapes(outputs) != self.shapes:
            raise GradientError(
                f"checkpoint: the function returned {_shapes(outputs)} in the backward pass and {self.shapes} in the forward pass; "
                "it must do the same at both calls"
            )
        found = [(y, dy) for y, dy in zip(outputs, upstream) if dy is not None and isinstance(y, Tensor) and y._requires_grad]
        if not found:
            return [None] * len(self.boundary)
        outputs, seeds = map(list, zip(*found))
        return run(outputs, seeds, [_at(edge) for edge in self.boundary], None, creates_graph, "checkpoint", ends=self.boundary)


class _Checkpoint(Function):
    """The part as one node: its inputs are all that its graph hangs on."""

    @staticmethod
    def forward(ctx: Any, part: _Part, outputs: list[Any], *boundary: Tensor) -> tuple[Any, ...]:
        ctx.part = part
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*part.tensors)
        ctx.mark_non_differentiable(*[y for y, shape in zip(outputs, part.shapes) if isinstance(y, Tensor) and not shape[-1]])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Any, ...]:
        return None, None, *ctx.part.gradients(upstream)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments, also in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item)


def _shapes(outputs: list[Any]) -> list[Any]:
    """Of each tensor, its shape and whether it requires grad."""
    return [(tuple(y.shape), y._requires_grad) if isinstance(y, Tensor) else type(y).__name__ for y in outputs]


def _boundary(edges: list[Any], start: int) -> list[Any]:
    """The edges to leaves and to nodes up to ``start`` that are reached from these edges, in the order in which they are met."""
    found: dict[Any, None] = {}
    seen: set[Node] = set()
    stack = list(edges)
    while stack:
        edge = stack.pop()
        if edge is None:
            continue
        target = edge[0]
        if type(target) is not Node or target.sequence <= start:
            found[edge] = None
        elif target not in seen:
            seen.add(target)
            stack.extend(reversed(target.edges))
    return list(found)


def _at(edge: Any) -> Tensor:
    """A tensor with this edge: the leaf itself, or one that stands for the output of a node."""
    target, index = edge
    if type(target) is not Node:
        return target
    tensor = make_tensor(None)
    tensor._node, tensor._index, tensor._requires_grad = target, index, True
    return tensor
