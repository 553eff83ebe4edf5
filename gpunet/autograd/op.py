"""The two kinds of op, and the decorators that make them: primitive and fused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from numpy import ndarray

from gpunet.autograd import mode
from gpunet.autograd.complex_numbers import conjugated, refuse_complex
from gpunet.autograd.engine import run
from gpunet.autograd.graph import (
    Gradient,
    Node,
    contiguous,
    edge_to,
    id_of_owner,
    ignore_fp_errors,
    materialize,
    operands,
    spec_at,
)
from gpunet.autograd.saved import packing
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import complex_in_use, discards_imaginary, is_complex, is_inexact
from gpunet.errors import ArgumentError, GradientError
from gpunet.launch.contract import has_rows


class Op:
    """An op: its function, its backward, and its names.

    Attributes:
        name: the key of the op in :data:`OPS`.
        public_name: the function that a user calls, for messages.
        name_from: returns the public name for the options of a call, if it depends on them.
        takes_complex: whether it takes complex tensors; all others are refused (see :func:`primitive`).
        kind: "primitive", "fused", or "custom" (defined by a user, see ``ops/custom.py``; not in OPS).
        call: the op as a function on Tensors.
        composed: a fused op written in primitives.
    """

    kind = ""
    takes_complex = False
    composed: Callable[..., Any] | None = None

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.name = function.__name__
        self.public_name = name or self.name.lstrip("_")
        self.name_from: Callable[[dict[str, Any]], str] | None = None
        self.function = function
        self.call: Callable[..., Any] = function

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        """Return the gradient of each input of ``node``, given those of its outputs; differentiable ones if ``create``."""
        raise NotImplementedError

    #: ``backward`` as a generator of (position of the input, gradient), for an op of many steps; see :meth:`stream_gradients`.
    #: Behind a gradient it does not need its input any more, nor those between it and inputs whose gradients came before.
    stream: Callable[..., Iterator[tuple[int, Gradient | Array]]] | None = None

    def stream_gradients(
        self, node: Node, upstream: Sequence[Gradient | Array | None], retain: bool
    ) -> Iterator[tuple[Any, Gradient | Array]]:
        """Yield the gradients of :meth:`differentiate` with their edges, each as soon as it is computed.

        Args:
            retain: whether not to release the node at the end.

        Raises:
            InPlaceError: meanwhile a hook has changed a tensor in place that is still needed.
        """
        raise NotImplementedError

    def check_backward(self, function: Any) -> None:
        """Check that ``function`` uses only what the engine passes to it.

        Raises:
            ArgumentError: it is no plain function, or it closes over variables: the engine would not notice if an array
                in there is changed in place.
        """
        if type(function) is not FunctionType:
            raise ArgumentError(f"backward of {self.name}: got {function!r}; expected a plain function")
        if function.__closure__ is not None:
            raise ArgumentError(
                f"backward of {self.name} closes over {', '.join(function.__code__.co_freevars)}: save these values in "
                "forward, and receive them as arguments"
            )


#: The differentiable ops of the library by name.
OPS: dict[str, Op] = {}
#: Called with each op that any thread has run: the op, its inputs, its options and its results.
observers: list[Callable[[Op, Sequence[Any], dict[str, Any], Sequence[Tensor]], None]] = []


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


class Composite(Op):
    """A function of several ops that observers see as one, too: after its ops, with their result."""

    kind = "composite"

    def __init__(self, name: str) -> None:
        super().__init__(lambda: None, name)
        self.name = name

    def notify(self, inputs: Sequence[Any], options: dict[str, Any], result: Tensor) -> None:
        """Tell the observers, of which there is one or more."""
        _notify(self, inputs, options, (result,))


def _notify(op: Op, inputs: Sequence[Any], options: dict[str, Any], results: Sequence[Tensor]) -> None:
    for observe in observers:
        observe(op, inputs, options, results)


# ---- primitives -------------------------------------------------------------------------------------------------------


class Derivative(NamedTuple):
    """The rule for the gradient of one input of a primitive."""

    function: Callable[..., Tensor]
    takes_position: bool
    names: tuple[str, ...]  # what is saved for it


class Primitive(Op):
    """An op with a derivative for each input, written in ops on Tensors."""

    kind = "primitive"

    def __init__(self, function: Callable[..., Any], name: str, is_view: bool, takes_scale: bool, takes_complex: bool) -> None:
        super().__init__(function, name)
        self.is_view, self.takes_scale, self.takes_complex = is_view, takes_scale, takes_complex
        self.rules: list[Derivative | None] = []  # by position
        self.variadic_rule: Derivative | None = None  # of each input among *args
        self.positions: dict[str, int] = {}
        self.defaults: dict[str, Any] = {}
        self.variadic = ""  # the name of *args
        self.first_variadic = 0
        for position, (key, parameter) in enumerate(inspect.signature(function).parameters.items()):
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.variadic, self.first_variadic = key, position
                continue
            self.defaults[key] = parameter.default
            if parameter.kind is not parameter.KEYWORD_ONLY:
                self.positions[key] = position

    def set_derivatives(self, **functions: Any) -> None:
        """Set the rules of the differentiable inputs by name (see :func:`primitive`).

        Raises:
            ArgumentError: a rule is no plain function, closes over variables, or names something unknown.
        """
        known = {"out", self.variadic, *self.defaults, *(f"{key}_shape" for key in self.positions)}
        by_name: dict[str, Derivative] = {}
        for key, function in functions.items():
            self.check_backward(function)
            first, *names = function.__code__.co_varnames[: function.__code__.co_argcount]
            takes_position = names[:1] == ["position"]
            names = names[takes_position:]
            if first != "g" or not known.issuperset([key, *names]):
                raise ArgumentError(
                    f"derivative {key!r} of {self.name} has parameters {first}, {', '.join(names)}; expected g, then any of "
                    f"{', '.join(sorted(filter(None, known)))}"
                )
            by_name[key] = Derivative(function, takes_position, tuple(names))
        self.rules = [by_name.get(key) for key in self.positions]
        self.variadic_rule = by_name.get(self.variadic)

    def rules_of(self, count: int) -> list[Derivative | None]:
        """The rule of each of ``count`` inputs."""
        return (self.rules + [self.variadic_rule] * (count - len(self.rules)))[:count]

    def value(self, name: str, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
        """The value of a name in a call: an input, an option, or ``x_shape``, the shape of input ``x``."""
        position = self.positions.get(name)
        if position is not None and position < len(inputs):
            return inputs[position]
        if name in self.defaults:
            return options[name] if name in options else self.defaults[name]
        if name == self.variadic:
            return tuple(inputs[self.first_variadic :])
        tensor = self.value(name.removesuffix("_shape"), inputs, options)
        return tensor.array.shape if isinstance(tensor, Tensor) else ()

    def record(self, result: Tensor, inputs: Sequence[Any], options: dict[str, Any]) -> None:
        """Attach a node to the result if an input needs a gradient, and the result can have one, which integers cannot."""
        rules = self.rules if self.variadic_rule is None else self.rules_of(len(inputs))
        edges = [None if rule is None else edge_to(value) for rule, value in zip(rules, inputs)]
        saved: dict[str, Any] = {}
        versions: list[Any] = []
        needs_gradient = False
        for rule, edge in zip(rules, edges):
            if edge is None or rule is None:
                continue
            needs_gradient = True
            for name in rule.names:
                if name in saved:
                    continue
                if name == "out":
                    value = result.detach()  # the result refers to the node: a reference cycle
                else:
                    value = self.value(name, inputs, options)
                saved[name] = value
                for tensor in value if name == self.variadic else (value,):
                    if isinstance(tensor, Tensor):
                        versions.append((tensor._version, tensor._version[0], None))
        array = result.array
        if needs_gradient and is_inexact(array.dtype):
            result._node = node = Node(self, edges, saved, versions, [(array.shape, array.dtype)], options)
            if packing:
                node.pack()
            result._requires_grad = True

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        received, scale = upstream[0], None
        if self.takes_scale and not create and type(received) is Gradient and received.array is not None:
            received, scale = received.array, received.scale
        g = materialize(received)
        saved = node.saved
        if "out" in saved:
            out = make_tensor(saved["out"].array)
            out._version, out._node, out._requires_grad = saved["out"]._version, node, True
            saved = saved | {"out": out}
        if complex_in_use and is_complex(node.outputs[0][1]):
            saved = {name: conjugated(value) for name, value in saved.items()}
        gradients: list[Gradient | Array | None] = []
        for position, (rule, edge) in enumerate(zip(self.rules_of(len(node.edges)), node.edges)):
            if edge is None or rule is None:
                gradients.append(None)
                continue
            values = [saved[name] for name in rule.names]
            if rule.takes_position:
                values.insert(0, position - self.first_variadic)
            gradient = match(rule.function(g, *values), edge)
            array = gradient.array
            is_new = not create and gradient is not g and devices.is_own(array) and array.flags.c_contiguous
            if scale is not None:
                gradients.append(Gradient(array, scale))
            else:
                gradients.append(array if is_new else Gradient.of(gradient))
        return gradients


def match(gradient: Tensor, edge: Any) -> Tensor:
    """Sum a gradient to the shape of the tensor at ``edge``, which was broadcast, and cast it to its dtype."""
    shape, dtype = spec_at(edge)
    if gradient.array.shape != shape:
        gradient = OPS["sum_to"].call(gradient, shape=shape)
    if gradient.array.dtype == dtype:
        return gradient
    if discards_imaginary(gradient.array.dtype, dtype):  # a real input beside a complex one
        gradient = OPS["_real"].call(gradient)
    return gradient if gradient.array.dtype == dtype else OPS["cast"].call(gradient, dtype=dtype)


def primitive(
    function: Callable[..., Any] | None = None,
    *,
    name: str = "",
    name_from: Callable[[dict[str, Any]], str] | None = None,
    methods: str = "",
    view: bool = False,
    takes_scale: bool = False,
    takes_complex: bool = False,
) -> Any:
    """Decorator: make an op from ``function(*tensors, **options) -> array``.

    Its derivatives follow, a rule for each differentiable input:

        @primitive(methods="mul __mul__")
        def mul(a, b):
            return launch_binary(MULTIPLY, a, b)

        mul.derivatives(a=lambda g, b: g * b, b=lambda g, a: g * a)

    A rule returns the gradient of its input, given the upstream gradient ``g``; it is written in ops on Tensors, and
    returns ``g``, a view of ``g`` or a new tensor, never a saved one.  The names of its other parameters declare what is
    saved for it: inputs and options by their names, ``x_shape`` for the shape of the input ``x``, ``out`` for the
    result.  The rule of ``*tensors`` may take the ``position`` of its input among them.  The engine sums a gradient to
    the shape of an input that was broadcast, and casts it to the input's dtype.

    Args:
        name: the function that a user calls, for messages; by default the function's name without leading underscores.
        name_from: returns that name for the options of a call, if it depends on them.
        methods: names under which the op becomes a method of Tensor, separated by spaces.
        view: the result may share memory with the first input.
        takes_scale: the rules only rearrange the elements of the gradient, whose pending scale travels on.
        takes_complex: the inputs may be complex.  If the result is, the rules receive the conjugates of what is saved, so that
            those for real numbers hold (see :mod:`gpunet.autograd.complex_numbers`).
    """
    if function is None:
        return functools.partial(
            primitive, name=name, name_from=name_from, methods=methods, view=view, takes_scale=takes_scale,
            takes_complex=takes_complex,
        )  # fmt: skip
    body, op = function, Primitive(function, name, view, takes_scale, takes_complex)
    op.name_from = name_from

    @functools.wraps(function)
    @ignore_fp_errors
    def call(*args: Any, **options: Any) -> Tensor:
        inputs = operands(op.public_name, args)
        if complex_in_use and not takes_complex:
            refuse_complex(op.public_name, inputs)
        array = body(*inputs, **options)
        result = make_tensor(array)
        if view:
            base = inputs[0]
            if id_of_owner(array) == id_of_owner(base.array):
                result._version = base._version
                result._view_version = base._version[0]
        if mode.current.enabled:
            op.record(result, inputs, options)
        if observers:
            _notify(op, inputs, options, (result,))
        return result

    call.derivatives = op.set_derivatives  # type: ignore[attr-defined]
    return _register(op, call, methods)


# ---- fused ops --------------------------------------------------------------------------------------------------------


class Fused(Op):
    """An op whose forward and backward are launches on arrays."""

    kind = "fused"

    def __init__(self, function: Callable[..., Any], composed: Callable[..., Any], name: str) -> None:
        super().__init__(function, name)
        self.composed = composed
        self.takes_scale = self.takes_unit = self.takes_rows = False
        self.backward: Callable[..., Any] | None = None
        self.composed_backward: Callable[..., Any] | None = None

    def set_backward(self, function: Callable[..., Any]) -> None:
        """Decorator of the backward (see :func:`fused`)."""
        self.check_backward(function)
        self.backward = function

    def set_composed_backward(self, function: Callable[..., Any]) -> None:
        """Decorator of the backward in primitives (see :func:`fused`)."""
        self.check_backward(function)
        self.composed_backward = function

    def takes(self, array: Array) -> bool:
        """Return whether forward and backward take an array of these strides as it is."""
        return array.flags.c_contiguous or (self.takes_rows and has_rows(array))

    def check_saved(self, saved: Any) -> None:
        """Raise a GradientError if ``saved`` is no flat tuple of arrays and None."""
        if type(saved) is tuple:
            for item in saved:
                if item is not None and type(item) is not ndarray and not devices.is_array(item):
                    saved = item
                    break
            else:
                return
        raise GradientError(f"forward of {self.name} saved {saved!r}; expected a flat tuple of arrays, or None in it")

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        if create:
            return self._differentiate_composed(node, [None if g is None else materialize(g) for g in upstream])
        backward: Any = self.backward
        return backward(node.saved, *map(self._received, upstream), need=node.need, **node.options)

    def stream_gradients(
        self, node: Node, upstream: Sequence[Gradient | Array | None], retain: bool
    ) -> Iterator[tuple[Any, Gradient | Array]]:
        assert self.stream is not None
        num_needed = len(node.edges)
        for position, gradient in self.stream(node.saved, *map(self._received, upstream), need=node.need, **node.options):
            yield node.edges[position], gradient
            num_needed = min(num_needed, position)
            node.check_versions(False, num_needed)
        if not retain:
            node.release()

    def _received(self, gradient: Gradient | Array | None) -> Gradient | None:
        """The gradient in a form that ``backward`` takes: contiguous or rows, with the scale applied unless it takes one."""
        if type(gradient) is not Gradient:
            return None if gradient is None else Gradient(gradient)
        array = gradient.array
        is_taken = self.takes_unit if array is None else self.takes_scale or gradient.scale is None
        if not is_taken:
            return Gradient(gradient.apply())
        return gradient if array is None or self.takes(array) else Gradient(contiguous(array), gradient.scale)

    def _differentiate_composed(self, node: Node, upstream: list[Tensor | None]) -> list[Gradient | None]:
        """Return differentiable gradients: by the composed backward, or by running the composition and its backward."""
        if self.composed_backward is not None:
            saved = tuple(
                None if array is None else _connect(array, source, node) for array, source in zip(node.saved, node.sources)
            )
            gradients = self.composed_backward(saved, *upstream, need=node.need, **node.options)
            return [None if g is None else Gradient.of(g) for g in gradients]
        assert self.composed is not None
        inputs = []
        for value, edge in zip(node.inputs, node.edges):
            if edge is not None:  # an alias: this inner pass stops here, and a later pass continues through it
                value = OPS["alias"].call(value)
            inputs.append(value)
        outputs = self.composed(*inputs, **node.options)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        pairs = [(o, g) for o, g in zip(outputs, upstream) if g is not None and o._requires_grad]
        differentiable = [x for x, edge in zip(inputs, node.edges) if edge is not None]
        found = iter(run([o for o, _ in pairs], [g for _, g in pairs], differentiable, True, True))
        return [None if edge is None else Gradient.of(next(found)) for edge in node.edges]


def _connect(array: Any, source: Any, node: Node) -> Tensor:
    """Return a saved array as a Tensor with its place in the graph (see ``Node.sources``)."""
    target, index = (node, source) if isinstance(source, int) else source or (None, 0)
    if isinstance(target, Tensor):  # a leaf
        return target
    tensor = make_tensor(array)
    tensor._node, tensor._index, tensor._requires_grad = target, index, target is not None
    return tensor


def fused(
    *,
    composed: Callable[..., Any],
    name: str = "",
    name_from: Callable[[dict[str, Any]], str] | None = None,
    methods: str = "",
    takes_scale: bool = False,
    takes_unit: bool = False,
    takes_rows: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: make an op from ``function(*arrays, need, **options) -> (array or tuple of arrays, saved)``.

        @fused(composed=lambda x, *, name: ...)
        def activation(x, *, name, need):
            y = empty(x.shape, x.dtype, x)
            activation_forward(y, x, activation=name)
            return y, (y,)

        @activation.backward
        def _(saved, dy, *, name, need):
            (y,) = saved
            dx = empty(y.shape, y.dtype, y)
            activation_backward(dx, dy.array, y, activation=name)
            return (dx,)

    The function receives C-contiguous arrays and the list ``need``, which tells for each input whether it needs a
    gradient.  It returns what backward needs in ``saved``, a flat tuple of arrays and None.  Backward receives it, and a
    :class:`Gradient` for each output (None if nothing depends on the output).  It returns for each input a new
    C-contiguous array (never a saved one), a :class:`Gradient`, or None.

    ``@activation.composed_backward`` may give the backward in primitives, where all arrays are Tensors.  It is used for
    second derivatives instead of the composition, so that the inputs need not be kept for it.

    Args:
        composed: the same function written in primitives on Tensors; the reference in tests, and used for second
            derivatives.
        name: the function that a user calls, for messages; by default the function's name without leading underscores.
        name_from: returns that name for the options of a call, if it depends on them.
        methods: names under which the op becomes a method of Tensor, separated by spaces.
        takes_scale: the gradient may have a pending scale; otherwise it is applied before.
        takes_unit: the gradient's array may be None, which means exactly 1; otherwise it is an array.
        takes_rows: arrays and gradients may also have the layout "rows" (see :mod:`gpunet.launch.contract`).
    """

    def decorate(function: Callable[..., Any]) -> Any:
        op = Fused(function, composed, name)
        op.name_from, op.takes_scale, op.takes_unit, op.takes_rows = name_from, takes_scale, takes_unit, takes_rows

        @functools.wraps(function)
        @ignore_fp_errors
        def call(*args: Any, **options: Any) -> Any:
            inputs = operands(op.public_name, args)
            if complex_in_use:
                refuse_complex(op.public_name, inputs)
            recording, keeps_inputs = mode.current.enabled, op.composed_backward is None
            arrays: list[Any] = []
            edges: list[Any] = []
            versions: list[Any] = []
            for value in inputs:
                edge = None
                if isinstance(value, Tensor):
                    array = value.array
                    if recording:
                        version = value._version
                        versions.append((version, version[0], value if keeps_inputs else id_of_owner(array)))
                        if value._requires_grad:
                            edge = (value, 0) if value._node is None else edge_to(value)
                    value = array if array.flags.c_contiguous or op.takes(array) else contiguous(array)
                arrays.append(value)
                edges.append(edge)
            need = [*map(bool, edges)]
            result, saved = function(*arrays, need=need, **options)
            op.check_saved(saved)
            results = result if type(result) is tuple else (result,)
            tensors = [make_tensor(array) for array in results]
            if True in need:
                outputs: list[Any] = []
                node = Node(op, edges, saved, versions, outputs, options)
                node.need = need
                if keeps_inputs:
                    node.inputs = inputs
                else:
                    node.sources = [_source(array, arrays, edges, results) for array in saved]
                for index, tensor in enumerate(tensors):
                    array = tensor.array
                    outputs.append((array.shape, array.dtype))
                    versions.append((tensor._version, 0, id_of_owner(array)))
                    if len(tensors) == 1 or is_inexact(array.dtype):  # integers beside the result have no gradient
                        tensor._node, tensor._index, tensor._requires_grad = node, index, True
                if packing:
                    node.pack()
            if observers:
                _notify(op, inputs, options, tensors)
            return (*tensors,) if type(result) is tuple else tensors[0]

        call.backward = op.set_backward  # type: ignore[attr-defined]
        call.composed_backward = op.set_composed_backward  # type: ignore[attr-defined]
        return _register(op, call, methods)

    return decorate


def _source(array: Any, arrays: list[Any], edges: list[Any], results: Sequence[Any]) -> Any:
    """Find a saved array among the inputs and outputs of its op (see ``Node.sources``)."""
    for value, edge in zip(arrays, edges):
        if array is value:
            return edge
    return next((index for index, value in enumerate(results) if array is value), None)
