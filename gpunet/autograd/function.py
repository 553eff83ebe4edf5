"""Function: an op that a user defines by the code of its forward and its backward, in ops on tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from gpunet.autograd import mode
from gpunet.autograd.graph import FILL, Gradient, Node, edge_to, materialize, spec_at
from gpunet.autograd.op import Op, match
from gpunet.autograd.saved import pack, unpack
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_inexact
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, ShapeError
from gpunet.launch.memory import empty

__all__ = ["Function"]


class FunctionContext:
    """``ctx``: what the forward of a :class:`Function` keeps for its backward; other attributes may be set freely.

    Attributes:
        needs_input_grad: for each argument of ``apply``, whether it is a tensor that requires grad.
    """

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self, function: type[Function]) -> None:
        self._function = function
        self._to_save: tuple[Any, ...] = ()
        self._saved: list[tuple[Any, int | None]] = []  # tensors; of an output: detached, and its index
        self._dirty: tuple[Tensor, ...] = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._materializes = True
        self._node: Any = None  # while backward runs

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save tensors for backward, which finds them in ``ctx.saved_tensors``; their changes in place are detected.

        Raises:
            DtypeError: one of them is no tensor.
        """
        for position, tensor in enumerate(tensors):
            if tensor is not None and not isinstance(tensor, Tensor):
                raise DtypeError(
                    f"save_for_backward: argument {position} has type {type(tensor).__name__}; expected tensors, or None: set "
                    "other values as attributes, as in ctx.factor = factor"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that forward saved, in this order."""
        if not self._saved:
            return self._to_save
        found = []
        for tensor, index in self._saved:
            tensor = unpack(tensor, self._node is not None)
            if index is not None and self._node is not None:
                output = make_tensor(tensor.array)
                output._version, output._node, output._index, output._requires_grad = tensor._version, self._node, index, True
                tensor = output
            found.append(tensor)
        return tuple(found)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declare the inputs that forward changes in place; it must return them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Declare outputs that have no gradient; those of an integer or boolean dtype never have one."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward receives zeros (True, at first) or None for an output that nothing depends on."""
        self._materializes = bool(value)


class Function:
    """Base class of ops with their own backward.

        class Exp(Function):
            @staticmethod
            def forward(ctx, x):
                y = x.exp()
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, dy):
                (y,) = ctx.saved_tensors
                return dy * y

        y = Exp.apply(x)

    ``forward`` runs without a graph.  It may also be ``forward(*args)``, followed by ``setup_context(ctx, inputs, output)``, which
    saves what backward needs.  ``backward`` receives a gradient for each output, and returns one for each argument of ``forward``
    (None for those that need none).  It is written in ops on tensors, so that its result can be differentiated again.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise GradientError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        raise GradientError("a Function whose forward takes no ctx needs a static method setup_context(ctx, inputs, output)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise GradientError("a Function needs a static method backward(ctx, *grad_outputs) for gradients")

    vjp = backward

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise GradientError(
            f"{type(self).__name__}()(...): a Function is not called; use {type(self).__name__}.apply(...), with static methods "
            "forward and backward"
        )

    @classmethod
    def apply(cls, *args: Any, **options: Any) -> Any:
        """Call forward, and connect its results with the graph.

        Keywords, and defaults of its parameters, are for a forward without ctx; ``setup_context`` receives all of them as inputs.

        Raises:
            ArgumentError: the arguments are not those of forward.
            GradientError: forward or backward is no static method, or forward changes a leaf that requires grad in place.
        """
        for name in ("forward", "backward", "setup_context"):
            if not isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod)):
                raise GradientError(f"{cls.__name__}.{name} is no static method; write @staticmethod above it, without self")
        if cls.setup_context is not Function.setup_context:
            try:
                bound = inspect.signature(cls.forward).bind(*args, **options)
            except TypeError as error:
                raise ArgumentError(f"{cls.__name__}.apply: {error}; expected the arguments of forward") from None
            bound.apply_defaults()
            args = (*bound.args, *bound.kwargs.values())
        elif options:
            raise ArgumentError(f"{cls.__name__}.apply: got {', '.join(options)}=; pass the arguments of forward by position")
        ctx = FunctionContext(cls)
        is_recording = mode.current.enabled
        edges = [edge_to(value) if is_recording else None for value in args]
        ctx.needs_input_grad = tuple([isinstance(value, Tensor) and value._requires_grad for value in args])
        mode.current.enabled = False
        try:
            if cls.setup_context is Function.setup_context:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
        finally:
            mode.current.enabled = is_recording
        outputs = list(result) if isinstance(result, tuple) else [result]
        is_own = [not _is_one_of(y, args) or _is_one_of(y, ctx._dirty) for y in outputs]
        if any(edge is not None for edge in edges):
            _connect(ctx, edges, outputs, is_own)
        for index, y in enumerate(outputs):  # an input that forward returns unchanged is another tensor outside
            if not is_own[index] and _is_one_of(y, args) and isinstance(y, Tensor):
                outputs[index] = y.detach()
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]


def _is_one_of(tensor: Any, tensors: Sequence[Any]) -> bool:
    return any(tensor is other for other in tensors)


def _connect(ctx: FunctionContext, edges: list[Any], outputs: list[Any], is_own: list[bool]) -> None:
    """Attach a node to the outputs that have a gradient.

    Args:
        is_own: for each output, whether it is a tensor that forward made or changed.  For others another tensor is put in
            its place.
    """
    name = ctx._function.__name__
    for tensor in ctx._dirty:
        if not _is_one_of(tensor, outputs):
            raise GradientError(f"{name}: mark_dirty names a tensor that forward does not return; return it, too")
        if tensor._requires_grad and tensor._node is None:
            raise GradientError(f"{name} changes a leaf tensor that requires grad in place (mark_dirty); pass a .clone() of it")
        if tensor._view_version is not None:
            raise InPlaceError(f"{name} changes a view in place (mark_dirty), and a gradient is required; pass a .clone() of it")
    has_gradient = [
        isinstance(y, Tensor) and is_inexact(y.array.dtype) and not _is_one_of(y, ctx._non_differentiable) for y in outputs
    ]
    if not any(has_gradient):
        return
    indices: dict[int, int] = {}  # of forward's own outputs, by id
    for index, y in enumerate(outputs):
        if has_gradient[index] and is_own[index] and id(y) not in indices:
            indices[id(y)] = index
        elif has_gradient[index]:
            outputs[index] = y.detach()
    saved: list[tuple[Any, int | None]] = [
        (t.detach(), indices[id(t)]) if id(t) in indices else (t, None) for t in ctx._to_save
    ]
    versions = [(t._version, t._version[0], None) for t, _ in saved if t is not None]
    specs = [(y.array.shape, y.array.dtype) if isinstance(y, Tensor) else ((), None) for y in outputs]
    if mode.current.saved_hooks is not None:
        saved, versions = [(pack(t), index) for t, index in saved], []
    ctx._saved, ctx._to_save = saved, ()
    node = Node(_FunctionOp(ctx._function, has_gradient), edges, ctx, versions, specs, {})
    for index, y in enumerate(outputs):
        if has_gradient[index]:
            y._node, y._index, y._requires_grad = node, index, True


class _FunctionOp(Op):
    """The op of a :class:`Function`, for the engine.

    Args:
        has_gradient: for each output, whether backward receives a gradient.
    """

    kind = "custom"

    def __init__(self, cls: type[Function], has_gradient: list[bool]) -> None:
        self.name = self.public_name = cls.__name__
        self.name_from = None
        self.cls, self.has_gradient = cls, has_gradient

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        ctx: FunctionContext = node.saved
        received: list[Any] = [None if g is None else materialize(g) for g in upstream]
        if ctx._materializes:
            like = next(g.array for g in received if g is not None)
            for index in range(len(self.has_gradient)):
                shape, dtype = node.outputs[index]
                if received[index] is None and dtype is not None:
                    received[index] = make_tensor(empty(shape, dtype, like))
                    FILL(received[index].array, value=0)
        backward = self.cls.vjp if self.cls.backward is Function.backward else self.cls.backward
        ctx._node = node if create else None
        try:
            returned = backward(ctx, *received)
        finally:
            ctx._node = None
        return [None if g is None else Gradient.of(g) for g in self._checked(returned, node)]

    def _checked(self, returned: Any, node: Node) -> list[Tensor | None]:
        """What backward returned, as a gradient or None for each argument of apply.

        Raises:
            GradientError: their number is not that of the arguments, or one is no tensor.
            ShapeError: a gradient does not have the shape of its input.
        """
        name, edges = self.cls.__name__, node.edges
        items = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        while len(items) > len(edges) and items[-1] is None:
            items.pop()
        if len(items) != len(edges):
            raise GradientError(
                f"{name}.backward returned {len(items)} gradients; expected {len(edges)}, one for each argument of forward (None "
                "for an argument that needs none)"
            )
        gradients: list[Tensor | None] = []
        for position, (gradient, edge) in enumerate(zip(items, edges)):
            if gradient is not None and not isinstance(gradient, Tensor):
                raise GradientError(
                    f"{name}.backward returned a {type(gradient).__name__} as gradient {position}; expected a tensor, or None"
                )
            if gradient is None or edge is None:
                gradients.append(None)
                continue
            shape = spec_at(edge)[0]
            extra = len(gradient.shape) - len(shape)
            if extra < 0 or any(n not in (1, m) for n, m in zip(shape, gradient.shape[extra:])):
                raise ShapeError(
                    f"{name}.backward returned a gradient of shape {gradient.shape} as gradient {position}; expected {shape}, the "
                    "shape of the input"
                )
            gradients.append(match(gradient, edge))
        return gradients


class _DifferentiatedOnce(Op):
    """The op of gradients that cannot be differentiated again (see :func:`once_differentiable`)."""

    def __init__(self, name: str) -> None:
        self.name = self.public_name = name
        self.name_from = None

    def differentiate(
        self, node: Node, upstream: Sequence[Gradient | Array | None], create: bool
    ) -> Sequence[Gradient | Array | None]:
        raise GradientError(
            f"{self.name}: its backward is marked with @once_differentiable, so its gradient has no second derivative; write "
            "backward in differentiable ops, without the decorator"
        )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the ``backward`` of a :class:`Function`: it runs without a graph, and a second derivative raises an error."""

    @functools.wraps(backward)
    def call(ctx: Any, *gradients: Any) -> Any:
        creates_graph = mode.current.enabled
        mode.current.enabled = False
        try:
            returned = backward(ctx, *gradients)
        finally:
            mode.current.enabled = creates_graph
        edges = [edge_to(g) for g in gradients]
        if not creates_graph or not any(edge is not None for edge in edges):
            return returned
        items = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        items = [g.detach() if isinstance(g, Tensor) else g for g in items]
        specs = [(g.array.shape, g.array.dtype) if isinstance(g, Tensor) else ((), None) for g in items]
        node = Node(_DifferentiatedOnce(ctx._function.__name__), edges, (), (), specs, {})
        for index, g in enumerate(items):
            if isinstance(g, Tensor) and is_inexact(g.array.dtype):
                g._node, g._index, g._requires_grad = node, index, True
        return tuple(items)

    return call
