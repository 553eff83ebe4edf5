"""The engine: Tensor, Node, backward, grad, no_grad, and the two kinds of op.

Forward.  An op computes arrays and says how to go back.  A **primitive** returns ``(array, rule, rule, ...)``: a rule
for each input, written in ops on Tensors, so gradients can be differentiated again.  A **fused** op returns
``(array, backward)``: one function of hand-written launches on arrays, beside a composition in primitives that is its
reference and the way to its second derivatives.

What a rule closes over is what it saves: the engine keeps a rule only for the inputs that need a gradient, so it keeps
exactly what these need, and it remembers the version of every saved tensor to catch changes in place.

Backward.  Nodes are numbered as they are made, and an op's inputs are always older than the op.  So taking the
youngest node first, from a heap, visits every node after all of its consumers: no recursion, no counting.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy

from gpunet import device as devices
from gpunet.device import Array, Device
from gpunet.errors import DeviceError, DtypeError, GradientError, InPlaceError, ShapeError
from gpunet.runtime.kernel import Shim, Ufunc
from gpunet.runtime.memory import empty

if TYPE_CHECKING:
    from gpunet.methods import TensorMethods
else:
    TensorMethods = object

ADD = Ufunc("add")
MULTIPLY = Ufunc("multiply")
COPY = Shim("copy", lambda xp, out, x: xp.copyto(out, x, casting="unsafe"))
FILL = Shim("fill", lambda xp, out, *, value: out.fill(value))

float32 = numpy.dtype("float32")
_default_dtype = float32


def set_default_dtype(dtype: Any) -> None:
    """The floating dtype of tensors made of Python numbers: float32, unless set here."""
    global _default_dtype
    if numpy.dtype(dtype).kind != "f":
        raise DtypeError(f"default dtype {numpy.dtype(dtype)}: expected a floating dtype, float32 or float64")
    _default_dtype = numpy.dtype(dtype)


def get_default_dtype() -> numpy.dtype[Any]:
    return _default_dtype


# ---- grad mode --------------------------------------------------------------------------------------------------


class _Mode(threading.local):
    enabled = True


_mode = _Mode()
F = TypeVar("F", bound=Callable[..., Any])


class set_grad_enabled:
    """Switch the recording of the graph on or off, for this thread: at once, and until the end of a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        self.previous = _mode.enabled
        _mode.enabled = bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = self.previous


class _GradMode:
    """A context manager and decorator that sets grad mode while inside."""

    value: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(_mode.enabled)
        _mode.enabled = self.value

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        kind = type(self)

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


class no_grad(_GradMode):
    """Record no graph, for this thread: ``with no_grad():`` or ``@no_grad()``."""

    value = False


class enable_grad(_GradMode):
    """Record the graph again inside a :class:`no_grad`."""

    value = True


def is_grad_enabled() -> bool:
    """Whether ops of this thread record the graph."""
    return _mode.enabled


# ---- Tensor -----------------------------------------------------------------------------------------------------


class Tensor(TensorMethods):
    """An array with a gradient.

    ``array`` is the NumPy or CuPy array itself, ``grad`` the gradient that ``backward`` left (a Tensor of the same
    shape, or None).  Ops and methods are those of PyTorch; they live in ``gpunet.ops`` and are attached there.
    """

    __slots__ = ("__weakref__", "_hooks", "_index", "_node", "_requires_grad", "_version", "_view_version", "array", "grad")
    __array_ufunc__ = None  # so that ndarray + Tensor asks Tensor

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        self.array = array
        self.grad: Tensor | None = None
        self._requires_grad = False
        self._node: Node | None = None
        self._index = 0
        self._version = [0]  # shared by all tensors on this memory
        self._view_version: int | None = None  # of a view in a graph: the version it was made at
        self._hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
        if requires_grad:
            self.requires_grad_()

    # -- what it is
    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> numpy.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def device(self) -> Device:
        return devices.of(self.array)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_leaf(self) -> bool:
        """Whether no op made this tensor: its gradient is kept in ``grad``."""
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        return self._node

    def is_floating_point(self) -> bool:
        return self.array.dtype.kind == "f"

    # -- gradients
    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for a gradient of this tensor, or no longer.

        Raises:
            DtypeError: a tensor that is not floating cannot have a gradient.
            GradientError: switching it off on a tensor that an op made.
        """
        if requires_grad and self.array.dtype.kind != "f":
            raise DtypeError(
                f"requires_grad on a tensor of dtype {self.array.dtype}: only floating tensors have gradients; "
                "convert it first with .float()"
            )
        if not requires_grad and self._node is not None:
            raise GradientError(
                f"requires_grad = False on the result of {self._node.op.name!r}: only leaf tensors can be switched off; "
                "use .detach()"
            )
        self._requires_grad = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        result = Tensor(self.array)
        result._version = self._version
        return result

    @property
    def data(self) -> Tensor:
        """The same memory outside the graph.  Unlike PyTorch's, changes through it are seen by ``backward``'s check."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor | Array) -> None:
        self.array = value.array if isinstance(value, Tensor) else value
        self._version[0] += 1

    def backward(
        self,
        gradient: Tensor | Array | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
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
        wanted = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
        found = _run([self], [gradient], wanted, retain_graph, create_graph)
        for leaf, total in zip(wanted or (), found):
            if total is not None:
                _accumulate(leaf, total, False, create_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(gradient)`` when the gradient of this tensor is complete; what it returns replaces the gradient.

        Raises:
            GradientError: this tensor requires no gradient.
        """
        if not self._requires_grad:
            raise GradientError("register_hook on a tensor that does not require grad: no gradient will ever come")
        if self._node is not None:
            hooks = self._node.hooks.setdefault(self._index, {})
        else:
            if self._hooks is None:
                self._hooks = {}
            hooks = self._hooks
        return RemovableHandle(hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of a tensor that an op made in ``grad``, too."""
        if self._node is None:
            return
        reference = _weak(self)

        def keep(gradient: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

        self.register_hook(keep)

    # -- out of the tensor
    def numpy(self) -> numpy.ndarray:
        """The NumPy array itself, no copy.

        Raises:
            DeviceError: the tensor is on a card; call ``.cpu()`` first.
            GradientError: the tensor requires grad; call ``.detach()`` first.
        """
        if self._requires_grad:
            raise GradientError("numpy() on a tensor that requires grad would leave the graph; call .detach().numpy()")
        if not isinstance(self.array, numpy.ndarray):
            raise DeviceError(f"numpy() on a tensor on {self.device}; call .cpu().numpy()")
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> Any:
        """The only element, as a Python number.

        Raises:
            ShapeError: there is not exactly one element.
        """
        if self.array.size != 1:
            raise ShapeError(f"item() on a tensor of shape {self.shape}: only one-element tensors convert to a number")
        return self.array.item()

    def tolist(self) -> Any:
        return self.array.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.array.dtype.kind not in "iu":
            raise DtypeError(f"a tensor of dtype {self.dtype} cannot be an index; only integer tensors can")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ShapeError(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        return bool(self.array.item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise ShapeError("len() of a tensor without dimensions")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        body = numpy.array2string(
            devices.move(self.array, devices.CPU), separator=", ", prefix="tensor(", precision=4, suppress_small=True
        )
        extra = "" if self.array.dtype in (float32, numpy.int64, numpy.bool_) else f", dtype={self.dtype}"
        extra += "" if isinstance(self.array, numpy.ndarray) else f", device='{self.device}'"
        if self._node is not None:
            extra += f", grad_fn=<{self._node.op.name}>"
        elif self._requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({body}{extra})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 else format(repr(self), spec)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        raise DtypeError("tensors are not pickled; save a state_dict with gpunet.save, or use .numpy()")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise GradientError("only leaf tensors can be deep-copied; .detach() the tensor first")
        result = type(self).__new__(type(self))
        Tensor.__init__(result, self.array.copy(), self._requires_grad)
        result.grad = None if self.grad is None else Tensor(self.grad.array.copy())
        memo[id(self)] = result
        return result


def _weak(tensor: Tensor) -> Callable[[], Tensor | None]:
    import weakref

    return weakref.ref(tensor)


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook away."""

    _numbers = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks, self._number = hooks, next(self._numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        self._hooks.pop(self._number, None)


# ---- the graph --------------------------------------------------------------------------------------------------


class Node:
    """One op that ran: where its gradients go, and how to compute them."""

    __slots__ = ("backward", "edges", "hooks", "inputs", "op", "options", "output", "outputs", "saved", "sequence")
    _sequence = itertools.count()

    def __init__(self, op: Op, edges: tuple[Any, ...], backward: Any, outputs: int) -> None:
        self.op = op
        self.edges = edges  # for each input: (Node, output index), (leaf Tensor, 0), or None
        self.backward = backward  # rules of a primitive, the function of a fused op; None once released
        self.outputs = outputs
        self.sequence = next(Node._sequence)
        self.hooks: dict[int, dict[int, Any]] = {}
        self.saved: tuple[tuple[list[int], int], ...] = ()  # (version cell, version) of what backward needs
        self.output: Tensor | None = None  # a primitive that saves its output: that, without this node
        self.inputs: tuple[Any, ...] = ()  # a fused op's inputs and options, for its composed form
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

    def check_versions(self) -> None:
        for cell, version in self.saved:
            if cell[0] != version:
                raise InPlaceError(
                    f"backward of {self.op.name!r} needs a tensor that was changed in place after {self.op.name!r} ran "
                    f"(it is at version {cell[0]}, saved at {version}). Change a .clone() of it, or use the op that "
                    "returns a new tensor"
                )


class Op:
    """An entry of the registry: what tests and tools know of an op."""

    def __init__(self, function: Callable[..., Any], *, kind: str, composed: Callable[..., Any] | None = None) -> None:
        self.name = function.__name__
        self.function = function
        self.kind = kind  # "primitive" | "fused"
        self.composed = composed
        self.call: Callable[..., Any] = function
        self.scaled = self.takes_unit = self.saves_output = self.view = False
        if self.name in OPS:
            raise ValueError(f"two ops are named {self.name!r}")
        OPS[self.name] = self


#: Every differentiable op by name.
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


class _Unit:
    """The gradient of a scalar with respect to itself: 1.  A loss needs no launch for it."""

    __slots__ = ("like",)

    def __init__(self, like: Array) -> None:
        self.like = like

    def apply(self) -> Tensor:
        out = empty(self.like.shape, self.like.dtype, self.like)
        FILL(out, value=1)
        return Tensor(out)


def _whole(gradient: Any) -> Tensor:
    return gradient if isinstance(gradient, Tensor) else gradient.apply()


def _edge(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value._requires_grad:
        return None
    if value._view_version is not None and value._view_version != value._version[0]:
        raise InPlaceError(
            f"a view (result of {value._node.op.name if value._node else 'a view'!r}) is used after its base was changed "
            "in place: its place in the graph is out of date. Take the view again after the change"
        )
    return (value, 0) if value._node is None else (value._node, value._index)


def _same_device(name: str, tensors: Sequence[Any]) -> None:
    first = None
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            if first is None:
                first = tensor
            elif type(tensor.array) is not type(first.array) or tensor.device != first.device:
                raise DeviceError(
                    f"{name}: one tensor is on {first.device}, another on {tensor.device}; move one with .to(device)"
                )


def _convert(args: Sequence[Any]) -> list[Any]:
    """Arrays become tensors; everything else stays."""
    return [Tensor(a) if not isinstance(a, Tensor) and devices.is_array(a) else a for a in args]


def _closed_over(function: Callable[..., Any]) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        content = cell.cell_contents
        if isinstance(content, (list, tuple)):
            yield from content
        else:
            yield content


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
    def call(*args: Any, **options: Any) -> Tensor:
        for arg in args:
            if not isinstance(arg, Tensor):
                args = tuple(_convert(args))
                break
        if len(args) > 1:
            _same_device(op.name, args)
        array, *rules = body(*args, **options)
        result = Tensor(array)
        if view:
            base = args[0]
            owner = base.array if base.array.base is None else base.array.base
            if array is base.array or array.base is owner:
                result._version = base._version
                result._view_version = base._version[0] if base._requires_grad and _mode.enabled else None
        if not _mode.enabled:
            return result
        edges = tuple([_edge(a) for a in args[: len(rules)]])
        if not any(edges):
            return result
        rules = [rule if edge else None for rule, edge in zip(rules, edges)]
        node = Node(op, edges, rules, 1)
        node.saved = tuple(
            [(c._version, c._version[0]) for r in rules if r for c in _closed_over(r) if isinstance(c, Tensor)]
        )
        if output:
            node.output = Tensor(array)
            node.output._version = result._version
            node.saved += ((result._version, result._version[0]),)
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
        def call(*args: Any, **options: Any) -> Any:
            args = tuple(_convert(args))
            _same_device(op.name, args)
            edges = tuple([_edge(a) for a in args]) if _mode.enabled else (None,) * len(args)
            arrays = [contiguous(a.array) if isinstance(a, Tensor) else a for a in args]
            need = tuple([edge is not None for edge in edges])
            result, backward = function(*arrays, need=need, **options)
            outputs = [Tensor(a) for a in (result if isinstance(result, tuple) else (result,))]
            if any(need):
                node = Node(op, edges, backward, len(outputs))
                node.inputs, node.options = args, options
                tensors = [a for a in args if isinstance(a, Tensor)] + outputs
                saved = {id(content) for content in _closed_over(backward)}
                node.saved = tuple([(t._version, t._version[0]) for t in tensors if id(t.array) in saved])
                for index, tensor in enumerate(outputs):
                    tensor._node, tensor._index, tensor._requires_grad = node, index, True
            return tuple(outputs) if isinstance(result, tuple) else outputs[0]

        return _publish(op, call, methods)

    return decorate


def _publish(op: Op, call: Callable[..., Any], methods: str) -> Callable[..., Any]:
    op.call = call
    call.op = op  # type: ignore[attr-defined]
    for name in methods.split():
        setattr(Tensor, name, call)
    return call


def method(names: str) -> Callable[[F], F]:
    """Attach a function that is no op of its own (it is made of ops) to Tensor under these names."""

    def decorate(function: F) -> F:
        for name in names.split():
            setattr(Tensor, name, function)
        return function

    return decorate


def contiguous(array: Array) -> Array:
    """``array``, or a C-contiguous copy of it (one launch)."""
    if array.flags.c_contiguous:
        return array
    out = empty(array.shape, array.dtype, array)
    COPY(out, array)
    return out


# ---- backward ---------------------------------------------------------------------------------------------------

_accumulation = threading.Lock()


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
    found = _run(output_list, gradients, input_list, retain_graph, create_graph)
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
        return _Unit(output.array)
    gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    if gradient.shape != output.shape:
        raise ShapeError(f"gradient has shape {gradient.shape}, the tensor {output.shape}: they must be equal")
    _same_device("backward", [output, gradient])
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


def _run(
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
        captured = {_edge(t): None for t in inputs}
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
            waiting[edge[1]] = gradient if here is None else _whole(here) + _whole(gradient)
        elif path is None or edge in captured:
            if target in leaves:
                gradient, fresh = _whole(leaves[target][0]) + _whole(gradient), True
            leaves[target] = (gradient, fresh)

    with set_grad_enabled(create):
        for output, seed in zip(outputs, seeds, strict=True):
            gradient = _seed(output, seed)
            send(_edge(output), gradient, isinstance(gradient, _Unit))
        while heap:
            node = heapq.heappop(heap)[1]
            arrived = slots.pop(node)
            for index, hooks in node.hooks.items():
                for hook in list(hooks.values()):
                    if arrived[index] is not None:
                        arrived[index] = _whole(arrived[index])
                        replaced = hook(arrived[index])
                        arrived[index] = arrived[index] if replaced is None else replaced
            if captured:
                for index in range(node.outputs):
                    if (node, index) in captured and arrived[index] is not None:
                        captured[node, index] = arrived[index] = _whole(arrived[index])
                if not any(e is not None and (e in captured or (path is not None and e[0] in path)) for e in node.edges):
                    continue
            if node.backward is None:
                raise GradientError(
                    f"backward a second time through {node.op.name!r}, whose graph was released by the first; pass "
                    "retain_graph=True to the first backward, or compute the output again"
                )
            node.check_versions()
            for edge, gradient, fresh in zip(node.edges, *_differentiate(node, arrived, create)):
                if edge is not None and gradient is not None:
                    send(edge, gradient, fresh)
            if not retain:
                node.release()
        for leaf, (gradient, fresh) in leaves.items():
            if leaf._hooks:
                gradient, fresh = _whole(gradient), False
                for hook in list(leaf._hooks.values()):
                    replaced = hook(gradient)
                    gradient = gradient if replaced is None else replaced
            if inputs is None:
                _accumulate(leaf, _whole(gradient), fresh or _is_lazy(gradient), create)
            else:
                captured[leaf, 0] = _whole(gradient)
    return [] if inputs is None else [captured[_edge(t)] for t in inputs]


def _is_lazy(gradient: Any) -> bool:
    """Whether applying it makes new memory."""
    return isinstance(gradient, _Unit) or (isinstance(gradient, Scaled) and gradient.scale is not None)


def _differentiate(node: Node, arrived: list[Any], create: bool) -> tuple[list[Any], list[bool]]:
    """The gradients of a node's inputs, and which of them are memory of their own."""
    op = node.op
    if op.kind == "primitive":
        incoming = _whole(arrived[0])
        args: tuple[Tensor, ...] = (incoming,)
        if node.output is not None:
            out = Tensor(node.output.array)
            out._version, out._node, out._requires_grad = node.output._version, node, True
            args = (incoming, out)
        gradients = [None if rule is None else rule(*args) for rule in node.backward]
        fresh = [g is not None and g is not incoming and g.array.base is None for g in gradients]
        return gradients, fresh
    if create:
        return _differentiate_composed(node, [None if g is None else _whole(g) for g in arrived])
    if op.scaled:
        gradient = arrived[0]
        if isinstance(gradient, Scaled):
            results = node.backward(gradient.array, gradient.scale)
        else:
            results = node.backward(contiguous(_whole(gradient).array), None)
    elif op.takes_unit and isinstance(arrived[0], _Unit):
        results = node.backward(None)
    else:
        results = node.backward(*[None if g is None else contiguous(_whole(g).array) for g in arrived])
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
    found = iter(_run([o for o, _ in pairs], [g for _, g in pairs], wanted, True, True))
    return [None if edge is None else next(found) for edge in node.edges], [False] * len(node.edges)


def _accumulate(leaf: Tensor, gradient: Tensor, fresh: bool, create: bool) -> None:
    """Add to a leaf's ``grad``; the first gradient becomes it, copied unless its memory is nobody else's."""
    with _accumulation:
        if leaf.grad is not None:
            if create:
                leaf.grad = leaf.grad + gradient
            else:
                ADD(leaf.grad.array, leaf.grad.array, gradient.array)
                leaf.grad._version[0] += 1
        elif create:
            leaf.grad = gradient
        elif fresh and gradient.array.flags.c_contiguous:
            leaf.grad = gradient
        else:
            copy = empty(gradient.shape, gradient.dtype, gradient.array)
            COPY(copy, gradient.array)
            leaf.grad = Tensor(copy)
