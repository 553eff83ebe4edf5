"""The graph that ops record, and the two kinds of op: primitive and fused."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy
from numpy import ndarray

from gpunet.autograd import mode
from gpunet.autograd.tensor import Tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, DeviceError, InPlaceError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc

F = TypeVar("F", bound=Callable[..., Any])

ADD = Ufunc("add")
MULTIPLY = Ufunc("multiply")
#: Decorator: 1 / 0 is inf and 0 / 0 NaN without a warning, on the CPU as on a card.
ignore_fp_errors: Callable[[F], F] = numpy.errstate(all="ignore")

COPY = Shim("copy", lambda xp, out, x: xp.copyto(out, x, casting="unsafe"))
FILL = Shim("fill", lambda xp, out, *, value: out.fill(value))


class Node:
    """One op that ran: where its gradients go, and how to compute them."""

    __slots__ = (
        "backward",
        "edges",
        "hooks",
        "inputs",
        "op",
        "options",
        "output",
        "outputs",
        "saved",
        "sequence",
    )
    _sequence = itertools.count()

    def __init__(self, op: Op, edges: Sequence[Any], backward: Any, outputs: int) -> None:
        self.op = op
        self.edges = edges  # for each input: (Node, output index), (leaf Tensor, 0), or None
        self.backward = backward  # rules of a primitive, the function of a fused op; None once released
        self.outputs = outputs
        self.sequence = next(Node._sequence)
        self.hooks: dict[int, dict[int, Any]] = {}
        #: of what backward may need: version cell, version, and the array's id, or None where it is needed for sure
        self.saved: Sequence[tuple[list[int], int, int | None]] = ()
        self.output: Tensor | None = None  # a primitive that saves its output: that, without this node
        self.inputs: Sequence[Any] = ()  # a fused op's inputs and options, for its composed form
        self.options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.op.name} backward>"

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def next_functions(self) -> tuple[Any, ...]:
        """(Node, output index) of the input of each edge, as in PyTorch; leaves are themselves."""
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    def release(self) -> None:
        self.backward = None
        self.edges = self.saved = self.inputs = ()
        self.output = None

    def check_versions(self, composed: bool) -> None:
        """Raise InPlaceError when something was changed that backward needs, or that the composed form starts from."""
        for cell, version, array in self.saved[: -self.outputs] if composed else self.saved:
            if cell[0] != version:
                # What backward holds lives since forward, so an id of then is still that of the same array.
                if not composed and array is not None and array not in map(id, _closed_over(self.backward)):
                    continue
                raise InPlaceError(
                    f"backward of {self.op.name!r} needs a tensor that was changed in place after {self.op.name!r} ran "
                    f"(it is at version {cell[0]}, saved at {version}). Change a .clone() of it, or use the op that "
                    "returns a new tensor"
                )


class Op:
    """What the engine, tests and tools know of an op."""

    def __init__(self, function: Callable[..., Any], *, kind: str, composed: Callable[..., Any] | None = None) -> None:
        self.name = function.__name__
        self.function = function
        self.kind = kind  # "primitive" | "fused" | "custom": a user's (ops/custom.py), in no registry
        self.composed = composed
        self.call: Callable[..., Any] = function
        self.scaled = self.takes_unit = self.saves_output = self.view = False


#: Every differentiable op of ours by name.
OPS: dict[str, Op] = {}


class Scaled:
    """A gradient whose common factor is still to be applied: ``array * scale[0]``.

    A loss with mean reduction hands out the gradient of each sample and its 1/n apart.  Linear layers pass the factor
    along, and it is applied where the batch is reduced: at the end of dW = scale * dZ^T X.  Any other op applies it.
    """

    __slots__ = ("array", "scale")

    def __init__(self, array: Array, scale: Array | None) -> None:
        self.array, self.scale = array, scale

    def apply(self) -> Tensor:
        if self.scale is None:
            return Tensor(self.array)
        out = empty(self.array.shape, self.array.dtype, self.array)
        MULTIPLY(out, self.array, self.scale.reshape(()))
        return Tensor(out)


class Unit:
    """The gradient of a scalar with respect to itself: 1.  A loss needs no launch for it."""

    __slots__ = ("like",)

    def __init__(self, like: Array) -> None:
        self.like = like

    def apply(self) -> Tensor:
        out = empty(self.like.shape, self.like.dtype, self.like)
        FILL(out, value=1)
        return Tensor(out)


def materialize(gradient: Any) -> Tensor:
    """A gradient on its way as a tensor: it may be one, a Scaled, a Unit, or an array, whose memory is nobody else's."""
    if isinstance(gradient, Tensor):
        return gradient
    return gradient.apply() if isinstance(gradient, (Scaled, Unit)) else Tensor(gradient)


def edge_to(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value._requires_grad:
        return None
    if value._node is not None and value._view_version not in (None, value._version[0]):
        raise InPlaceError(
            f"a view (result of {value._node.op.name!r}) is used after its base was changed "
            "in place: its place in the graph is out of date. Take the view again after the change"
        )
    return (value, 0) if value._node is None else (value._node, value._index)


def operands(name: str, args: Sequence[Any]) -> Sequence[Any]:
    """The arguments of an op with arrays made tensors, all on one device.

    Raises:
        DeviceError: tensors on different devices.
    """
    first: Any = None
    for position, value in enumerate(args):
        if not isinstance(value, Tensor):
            if value is None or not devices.is_array(value):
                if isinstance(value, numpy.generic):  # a plain number, that NumPy does not compute in its dtype
                    args = [*args]
                    args[position] = value.item()
                continue
            args = [*args]
            args[position] = value = Tensor(value)
        if first is None:
            first = value
        elif (kind := type(value.array)) is not type(first.array) or (
            kind is not ndarray and value.device != first.device
        ):
            raise DeviceError(
                f"{name}: one tensor is on {first.device}, another on {value.device}; move one with .to(device)"
            )
    return args


def _closed_over(function: Callable[..., Any]) -> list[Any]:
    """What a function's closure holds, the contents of lists and tuples included."""
    found: list[Any] = []
    for cell in getattr(function, "__closure__", None) or ():
        content = cell.cell_contents
        if type(content) is list or type(content) is tuple:
            found += content
        else:
            found.append(content)
    return found


def primitive(
    function: Callable[..., Any] | None = None, *, methods: str = "", output: bool = False, view: bool = False
) -> Any:
    """Make an op of ``function(*tensors, **options) -> (array, rule, ...)``.

    ``rule(g)`` is the gradient of one input, in ops on Tensors: ``g`` itself, a view of it, or a new tensor, never
    something saved.  An input that has no gradient (an index) needs no rule.

    Args:
        methods: names under which the op becomes a method of Tensor, separated by blanks.
        output: rules are called ``rule(g, out)`` with the op's output.
        view: the result may share the first input's memory.
    """
    if function is None:
        return functools.partial(primitive, methods=methods, output=output, view=view)
    op = Op(function, kind="primitive")
    op.saves_output, op.view = output, view
    body = function

    @functools.wraps(function)
    @ignore_fp_errors
    def call(*args: Any, **options: Any) -> Tensor:
        inputs = operands(op.name, args)
        array, *rules = body(*inputs, **options)
        result = Tensor(array)
        if view:
            base = inputs[0]
            owner = base.array if base.array.base is None else base.array.base
            if array is base.array or array.base is owner:
                result._version = base._version
                result._view_version = base._version[0]
        if not mode.current.enabled:
            return result
        edges = [edge_to(a) for a in inputs[: len(rules)]]
        if not any(edges):
            return result
        rules = [rule if edge else None for rule, edge in zip(rules, edges)]
        node = Node(op, edges, rules, 1)
        held = [c for r in rules if r for c in _closed_over(r) if isinstance(c, Tensor)]
        if output:
            node.output = Tensor(array)
            node.output._version = result._version
            held.append(result)
        node.saved = [(tensor._version, tensor._version[0], None) for tensor in held]
        result._node = node
        result._requires_grad = True
        return result

    return _publish(op, call, methods)


def fused(
    *, composed: Callable[..., Any], methods: str = "", scaled: bool = False, takes_unit: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Make an op of ``function(*arrays, need, **options) -> (array or arrays, backward)``.

    Arrays arrive C-contiguous; ``need`` says for each input whether its gradient is wanted.  ``backward(dy, ...)``
    takes an array for each output and returns an array (new, never one it saved) or a :class:`Scaled` or None for each
    input.  It closes over arrays, never over Tensors.

    Args:
        composed: the same function in primitives, on Tensors: the reference of the tests, and the path to second
            derivatives.
        scaled: ``backward(dy, scale)`` takes the pending factor of a :class:`Scaled` gradient (an array of one, or
            None).
        takes_unit: ``backward(None)`` stands for a gradient of exactly 1.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        op = Op(function, kind="fused", composed=composed)
        op.scaled, op.takes_unit = scaled, takes_unit

        @functools.wraps(function)
        @ignore_fp_errors
        def call(*args: Any, **options: Any) -> Any:
            inputs = operands(op.name, args)
            recording = mode.current.enabled
            arrays: list[Any] = []
            edges: list[Any] = []
            saved: list[Any] = []
            for value in inputs:
                edge = None
                if isinstance(value, Tensor):
                    array = value.array
                    saved.append((value._version, value._version[0], id(array)))
                    if recording and value._requires_grad:
                        edge = (value, 0) if value._node is None else edge_to(value)
                    value = array if array.flags.c_contiguous else contiguous(array)
                arrays.append(value)
                edges.append(edge)
            need = [edge is not None for edge in edges]
            result, backward = function(*arrays, need=need, **options)
            outputs = [Tensor(a) for a in (result if isinstance(result, tuple) else (result,))]
            if True in need:
                node = Node(op, edges, backward, len(outputs))
                node.inputs, node.options, node.saved = inputs, options, saved
                for index, tensor in enumerate(outputs):
                    saved.append((tensor._version, tensor._version[0], id(tensor.array)))
                    tensor._node, tensor._index, tensor._requires_grad = node, index, True
            return tuple(outputs) if isinstance(result, tuple) else outputs[0]

        return _publish(op, call, methods)

    return decorate


def _publish(op: Op, call: Callable[..., Any], methods: str) -> Callable[..., Any]:
    if op.name in OPS:
        raise ArgumentError(f"two ops are named {op.name!r}; rename one")
    OPS[op.name] = op
    op.call = call
    call.op = op  # type: ignore[attr-defined]
    for name in methods.split():
        setattr(Tensor, name, call)
    return call


def contiguous(array: Array) -> Array:
    """``array``, or a C-contiguous copy of it (one launch)."""
    if array.flags.c_contiguous:
        return array
    out = empty(array.shape, array.dtype, array)
    COPY(out, array)
    return out
