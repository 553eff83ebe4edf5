"""The graph that ops record, and the decorators of the two kinds of op: primitive and fused."""

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
#: Decorator: 1 / 0 is inf and 0 / 0 is NaN without a NumPy warning, as on a GPU.
ignore_fp_errors: Callable[[F], F] = numpy.errstate(all="ignore")

COPY = Shim("copy", lambda xp, out, x: xp.copyto(out, x, casting="unsafe"))
FILL = Shim(
    "fill", lambda xp, out, *, value: out.fill(value), on_gpu=lambda xp, out, *, value: devices.assign(out, value)
)


class Node:
    """A node of the graph: one execution of an op, with the edges to its inputs and its backward."""

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
        self.edges = edges  # for each input: (Node, output index), (leaf Tensor, 0), or None if it needs no gradient
        self.backward = backward  # the rules of a primitive, or the function of a fused op; None once released
        self.outputs = outputs
        self.sequence = next(Node._sequence)
        self.hooks: dict[int, dict[int, Any]] = {}
        #: version counter, version at forward, and id of the array, for each tensor that backward may need; the id is
        #: None if backward certainly needs the tensor
        self.saved: Sequence[tuple[list[int], int, int | None]] = ()
        self.output: Tensor | None = None  # the saved output of a primitive, detached from this node to avoid a cycle
        self.inputs: Sequence[Any] = ()  # inputs and options of a fused op, for its composed form
        self.options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.public_name} backward>"

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def public_name(self) -> str:
        """The name of the function that the user called, for messages."""
        return self.op.public_name if self.op.name_from is None else self.op.name_from(self.options)

    @property
    def next_functions(self) -> tuple[Any, ...]:
        """(Node, output index) for each input, as in PyTorch; (None, 0) if it needs no gradient.

        A leaf stands for itself, as (Tensor, 0).
        """
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    def release(self) -> None:
        """Drop everything saved for backward."""
        self.backward = None
        self.edges = self.saved = self.inputs = ()
        self.output = None

    def check_versions(self, composed: bool) -> None:
        """Check that no tensor that backward needs was changed in place since forward.

        Args:
            composed: check the tensors that the composed form of a fused op needs instead.

        Raises:
            InPlaceError: a tensor was changed.
        """
        for cell, version, array in self.saved[: -self.outputs] if composed else self.saved:
            if cell[0] != version:
                # Arrays that backward closes over are alive since forward, so their ids are still valid.
                if not composed and array is not None and array not in map(id, _closed_over(self.backward)):
                    continue
                raise InPlaceError(
                    f"{self.public_name} saved a tensor for backward that was then changed in place (version {cell[0]}, "
                    f"saved at version {version}). Change a .clone() of it, or use an out-of-place op"
                )


class Op:
    """Description of an op, for the engine, tests and tools."""

    def __init__(
        self, function: Callable[..., Any], *, kind: str, composed: Callable[..., Any] | None = None, name: str = ""
    ) -> None:
        self.name = function.__name__
        self.public_name = name or self.name.lstrip("_")  # the function that a user calls, for messages
        #: returns the public name for the options of a launch, if it depends on them
        self.name_from: Callable[[dict[str, Any]], str] | None = None
        self.function = function
        self.kind = kind  # "primitive", "fused", or "custom" (defined by a user, see ops/custom.py; not in OPS)
        self.composed = composed
        self.call: Callable[..., Any] = function
        self.scaled = self.takes_unit = self.saves_output = self.view = False


#: The differentiable ops of the library by name.
OPS: dict[str, Op] = {}


class Scaled:
    """A gradient with a pending scale: its value is ``array * scale[0]``.

    A loss with mean reduction returns the gradients of the samples and the factor 1/n separately.  Linear layers pass
    the scale on and apply it where the batch is reduced, at the end of dW = scale * dZ^T X.  Other ops receive
    gradients with the scale applied.
    """

    __slots__ = ("array", "scale")

    def __init__(self, array: Array, scale: Array | None) -> None:
        self.array, self.scale = array, scale

    def apply(self) -> Tensor:
        """Return the gradient as a Tensor, with the scale applied."""
        if self.scale is None:
            return Tensor(self.array)
        out = empty(self.array.shape, self.array.dtype, self.array)
        MULTIPLY(out, self.array, self.scale.reshape(()))
        return Tensor(out)


class Unit:
    """The gradient 1 of a scalar with respect to itself.  A fused loss needs no launch to create it."""

    __slots__ = ("like",)

    def __init__(self, like: Array) -> None:
        self.like = like

    def apply(self) -> Tensor:
        """Return the gradient as a Tensor of ones."""
        out = empty(self.like.shape, self.like.dtype, self.like)
        FILL(out, value=1)
        return Tensor(out)


def materialize(gradient: Any) -> Tensor:
    """Apply the pending scale; return a Tensor.

    Args:
        gradient: a Tensor, a :class:`Scaled`, a :class:`Unit`, or an array that shares its memory with nothing else.
    """
    if isinstance(gradient, Tensor):
        return gradient
    return gradient.apply() if isinstance(gradient, (Scaled, Unit)) else Tensor(gradient)


def edge_to(value: Any) -> Any:
    """Return the edge to an input of an op (see ``Node.edges``), or None if it needs no gradient.

    Raises:
        InPlaceError: the input is a view whose base was changed in place.
    """
    if not isinstance(value, Tensor) or not value._requires_grad:
        return None
    if value._node is not None and value._view_version not in (None, value._version[0]):
        raise InPlaceError(
            f"a view (the result of {value._node.public_name}) is used after its base was changed in place, so its graph "
            "is out of date. Take the view again after the change"
        )
    return (value, 0) if value._node is None else (value._node, value._index)


def operands(name: str, args: Sequence[Any]) -> Sequence[Any]:
    """Convert the arrays among the arguments of an op to Tensors, and NumPy scalars to Python numbers.

    Raises:
        DeviceError: the tensors are on different devices.
    """
    first: Any = None
    for position, value in enumerate(args):
        if not isinstance(value, Tensor):
            if value is None or not devices.is_array(value):
                if isinstance(value, numpy.generic):  # a NumPy scalar would promote the dtype of the result
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
                f"{name}: one tensor is on {first.device}, another on {value.device}; move them to one device with "
                ".to(device)"
            )
    return args


def _closed_over(function: Callable[..., Any]) -> list[Any]:
    """Return the objects in a function's closure, including the items of lists and tuples."""
    contents: list[Any] = []
    for cell in getattr(function, "__closure__", None) or ():
        content = cell.cell_contents
        if type(content) is list or type(content) is tuple:
            contents += content
        else:
            contents.append(content)
    return contents


def primitive(
    function: Callable[..., Any] | None = None,
    *,
    name: str = "",
    methods: str = "",
    output: bool = False,
    view: bool = False,
) -> Any:
    """Decorator: make an op from ``function(*tensors, **options) -> (array, rule, ...)``.

    ``rule(g)`` returns the gradient of one input, given the upstream gradient ``g``, and is written in ops on Tensors.
    It returns ``g``, a view of ``g`` or a new tensor, never a saved tensor.  Trailing inputs without a gradient (such
    as an index) need no rule.

    Args:
        name: the function that a user calls, for messages; by default the function's name without leading underscores.
        methods: names under which the op becomes a method of Tensor, separated by spaces.
        output: call the rules as ``rule(g, out)``, where ``out`` is the output of the op.
        view: the result may share memory with the first input.
    """
    if function is None:
        return functools.partial(primitive, name=name, methods=methods, output=output, view=view)
    op = Op(function, kind="primitive", name=name)
    op.saves_output, op.view = output, view
    body = function

    @functools.wraps(function)
    @ignore_fp_errors
    def call(*args: Any, **options: Any) -> Tensor:
        inputs = operands(op.public_name, args)
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
        residuals = [c for r in rules if r for c in _closed_over(r) if isinstance(c, Tensor)]
        if output:
            node.output = Tensor(array)
            node.output._version = result._version
            residuals.append(result)
        node.saved = [(tensor._version, tensor._version[0], None) for tensor in residuals]
        result._node = node
        result._requires_grad = True
        return result

    return _register(op, call, methods)


def fused(
    *,
    composed: Callable[..., Any],
    name: str = "",
    name_from: Callable[[dict[str, Any]], str] | None = None,
    methods: str = "",
    scaled: bool = False,
    takes_unit: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: make an op from ``function(*arrays, need, **options) -> (array or tuple of arrays, backward)``.

    The function receives C-contiguous arrays and the list ``need``, which tells for each input whether it needs a
    gradient.  ``backward(dy, ...)`` takes the upstream gradient of each output as an array, and returns for each input
    a new array (never a saved one), a :class:`Scaled`, or None.  It must close over arrays, not over Tensors.

    Args:
        composed: the same function written in primitives on Tensors; the reference in tests, and used for second
            derivatives.
        name: the function that a user calls, for messages; by default the function's name without leading underscores.
        name_from: returns that name for the options of a call, if it depends on them.
        methods: names under which the op becomes a method of Tensor, separated by spaces.
        scaled: call ``backward(dy, scale)`` with the pending scale of a :class:`Scaled` gradient, an array of one
            element or None.
        takes_unit: call ``backward(None)`` if the upstream gradient is exactly 1.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        op = Op(function, kind="fused", composed=composed, name=name)
        op.name_from, op.scaled, op.takes_unit = name_from, scaled, takes_unit

        @functools.wraps(function)
        @ignore_fp_errors
        def call(*args: Any, **options: Any) -> Any:
            inputs = operands(op.public_name, args)
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

        return _register(op, call, methods)

    return decorate


def _register(op: Op, call: Callable[..., Any], methods: str) -> Callable[..., Any]:
    """Add an op to OPS and attach it to Tensor under the names in ``methods``; return ``call``."""
    if op.name in OPS:
        raise ArgumentError(f"there is already an op named {op.name!r}; choose another name")
    OPS[op.name] = op
    op.call = call
    call.op = op  # type: ignore[attr-defined]
    for name in methods.split():
        setattr(Tensor, name, call)
    return call


def contiguous(array: Array) -> Array:
    """Return ``array`` if it is C-contiguous, else a C-contiguous copy (one launch)."""
    if array.flags.c_contiguous:
        return array
    out = empty(array.shape, array.dtype, array)
    COPY(out, array)
    return out
