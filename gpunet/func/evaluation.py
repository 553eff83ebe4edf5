"""One call of a function whose derivatives are wanted: what goes in, what comes out, and what its results depend on.

The graph is one for all transforms around each other.  The tensors that a function receives are therefore entries: nodes of
their own, behind which the graph goes on only if a derivative of the result may be wanted outside, by a transform around this
one or by ``backward``.  Entries without anything behind them are closed when the function has returned: what depends on nothing
but closed entries is no part of a graph outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import Gradient, Node, Tensor, make_tensor, mode
from gpunet.autograd.graph import edge_to
from gpunet.autograd.op import OPS, Op
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_complex, is_inexact
from gpunet.errors import DtypeError, GradientError, InPlaceError
from gpunet.func.arguments import as_tensors, check_function, positions_of
from gpunet.func.trees import flatten, unflatten


class _Entry(Op):
    """The op of an entry: its gradient is that of the tensor outside, if there is an edge to that."""

    kind = "custom"

    def __init__(self) -> None:
        self.name = self.public_name = "func"
        self.name_from = None

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        return upstream


_OPEN, _CLOSED = _Entry(), _Entry()


def closed_entry(tensor: Tensor) -> Tensor:
    """A tensor of the same array that requires grad, to take derivatives by that are no part of a graph outside."""
    return _entry(tensor, False, _CLOSED)


def _entry(tensor: Tensor, is_connected: bool, op: _Entry) -> Tensor:
    """A tensor of the same array that requires grad, behind which the graph of ``tensor`` goes on if ``is_connected``.

    It is a view, so that a function cannot change it in place.
    """
    array = tensor.array
    result = make_tensor(array)
    result._version, result._view_version = tensor._version, tensor._version[0]
    edges = [edge_to(tensor) if is_connected else None]
    result._node, result._requires_grad = Node(op, edges, {}, (), [(array.shape, array.dtype)], {}), True
    return result


class Evaluation:
    """A call of ``func`` with entries in the place of some arguments.

    Args:
        transform: the name of the transform, for messages.
        argnums: the positions of these arguments; None for all.
        has_aux: ``func`` returns (result, aux).

    Attributes:
        inputs: the entries.
        structure: of the chosen arguments, in which ``inputs`` are the leaves.
        result, aux: as ``func`` returned them, in the graph of the entries.
        is_connected: whether the result or aux depends on tensors outside that require grad, and the block around records.

    Raises:
        DtypeError: a chosen argument has leaves that are no floating or complex tensors.
        GradientError: ``func`` returned no pair, although ``has_aux``.
    """

    def __init__(
        self, transform: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnums: Any, has_aux: bool
    ) -> None:
        self.transform, self._records = transform, mode.current.enabled
        check_function(transform, func)
        positions = range(len(args)) if argnums is None else positions_of(transform, argnums, len(args))
        chosen = args[positions[0]] if isinstance(argnums, int) else tuple([args[position] for position in positions])
        leaves, self.structure = flatten(chosen)
        given = as_tensors(transform, "an argument to differentiate by", leaves)
        for tensor in given:
            if not is_inexact(tensor.array.dtype):
                raise DtypeError(
                    f"{transform}: an argument to differentiate by has dtype {tensor.dtype}; expected floating or complex tensors: "
                    "convert it with .float(), or leave it out of argnums"
                )
        self.inputs = tuple([_entry(tensor, self._records, _OPEN) for tensor in given])
        entered = unflatten(self.structure, self.inputs)
        called = [*args]
        for position, value in zip(positions, [entered] if isinstance(argnums, int) else entered):
            called[position] = value
        self._start = next(Node._sequence)
        with mode.enable_grad():
            result = func(*called, **kwargs)
        self._close()
        self.aux: Any = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise GradientError(
                    f"{transform}: has_aux=True, but func returned a {type(result).__name__}; expected a tuple (result, aux)"
                )
            result, self.aux = result
        self.result = result
        tensors = [leaf for leaf in flatten((result, self.aux))[0] if isinstance(leaf, Tensor)]
        self.is_connected = self._records and any(self._depend_on_outside(tensors))

    def _close(self) -> None:
        """Close the entries, which the function has received; later changes in place matter only where the graph saved a value.

        Raises:
            InPlaceError: the function changed an argument in place.
        """
        for tensor in self.inputs:
            if tensor._version[0] != tensor._view_version:
                raise InPlaceError(
                    f"{self.transform}: func changed an argument of shape {tuple(tensor.shape)} in place, by which it is "
                    "differentiated; let it change a .clone()"
                )
            node = tensor._node
            assert node is not None
            tensor._view_version, node.op = None, _CLOSED

    def outputs(self, must_be_inexact: bool) -> tuple[Tensor, ...]:
        """The tensors of the result.

        Raises:
            DtypeError: the result has other leaves, or none, or ``must_be_inexact`` and a tensor is of integers.
        """
        leaves = flatten(self.result)[0]
        if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
            kind = next((f"a {type(leaf).__name__}" for leaf in leaves if not isinstance(leaf, Tensor)), "no tensor")
            raise DtypeError(f"{self.transform}: func returned {kind}; expected a tensor, or a tuple or dictionary of tensors")
        for leaf in leaves:
            if must_be_inexact and not is_inexact(leaf.array.dtype):
                raise DtypeError(f"{self.transform}: func returned a tensor of {leaf.dtype}; expected floating or complex tensors")
        return tuple(leaves)

    def scalar(self) -> Tensor:
        """The result, which must be one number.

        Raises:
            DtypeError: it is no tensor.
            GradientError: it has dimensions.
        """
        result = self.result
        if not isinstance(result, Tensor):
            raise DtypeError(f"{self.transform}: func returned a {type(result).__name__}; expected a tensor without dimensions")
        if result.array.ndim:
            raise GradientError(
                f"{self.transform}: func returned a tensor of shape {tuple(result.shape)}; expected one without dimensions, such "
                "as .sum() or .mean() gives; use vjp or jacrev for several numbers"
            )
        return result

    def for_outside(self, value: Any) -> Any:
        """A value with its tensors as the block around sees them: without a graph, if they depend on nothing but entries.

        An entry that is connected becomes a view: a change in place would not reach the graph of the tensor outside.
        """
        leaves, structure = flatten(value)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf._requires_grad]
        inner = {id(tensor) for tensor, is_outer in zip(tensors, self._depend_on_outside(tensors)) if not is_outer}
        entries = {id(tensor) for tensor in self.inputs}
        with mode.enable_grad():
            views = {id(tensor): OPS["alias"].call(tensor) for tensor in tensors if id(tensor) in entries - inner}
        return unflatten(structure, [leaf.detach() if id(leaf) in inner else views.get(id(leaf), leaf) for leaf in leaves])

    def _depend_on_outside(self, tensors: Sequence[Tensor]) -> list[bool]:
        """Of each tensor, whether its graph leads to a leaf, to an open entry, or to another node from before the call."""
        edges = [edge_to(tensor) for tensor in tensors]
        inside: set[Node] = set()
        stack = [edge for edge in edges if edge is not None] if self._records else []
        while stack:
            node = stack.pop()[0]
            if self._is_inside(node) and node not in inside:
                inside.add(node)
                stack += [edge for edge in node.edges if edge is not None]
        depends: set[Node] = set()

        def leads_outside(edge: Any) -> bool:
            if edge is None or _is_closed(edge[0]):
                return False
            return not self._is_inside(edge[0]) or edge[0] in depends

        for node in sorted(inside, key=lambda node: node.sequence):  # inputs of a node have lower numbers
            if any(map(leads_outside, node.edges)):
                depends.add(node)
        return [leads_outside(edge) for edge in edges]

    def _is_inside(self, target: Any) -> bool:
        """Whether a target of an edge is a node since the call, and no entry without anything behind it."""
        return type(target) is Node and target.sequence > self._start and not (target.op is _OPEN and target.edges[0] is None)


def _is_closed(target: Any) -> bool:
    """Whether a target of an edge is a closed entry without anything behind it."""
    return type(target) is Node and target.op is _CLOSED and (not target.edges or target.edges[0] is None)


def refuse_complex(transform: str, tensors: Sequence[Tensor], what: str) -> None:
    """Raise a DtypeError if a tensor is complex."""
    if any(is_complex(tensor.array.dtype) for tensor in tensors):
        raise DtypeError(f"{transform}: {what} is complex; expected real tensors: use vjp, or differentiate by .real and .imag")
