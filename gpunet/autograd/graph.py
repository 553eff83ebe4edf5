"""The graph that ops record: nodes with their edges and what backward needs, and the gradients that travel along it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy
from numpy import ndarray

from gpunet.autograd import mode
from gpunet.autograd.data import plain_array
from gpunet.autograd.saved import Packed, pack, save_on_cpu, saved_tensors_hooks, unpack
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Array
from gpunet.errors import DeviceError, InPlaceError
from gpunet.launch import parts
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc

if TYPE_CHECKING:
    from gpunet.autograd.op import Op

__all__ = ["Node", "save_on_cpu", "saved_tensors_hooks"]

F = TypeVar("F", bound=Callable[..., Any])

ADD = Ufunc("add")
MULTIPLY = Ufunc("multiply")
#: Decorator: 1 / 0 is inf and 0 / 0 is NaN without a NumPy warning, as on a GPU.
ignore_fp_errors: Callable[[F], F] = numpy.errstate(all="ignore")

COPY = Shim("copy", lambda xp, out, x: xp.copyto(out, x, casting="unsafe"), widens=False)
FILL = Shim(
    "fill", lambda xp, out, *, value: out.fill(value), on_gpu=lambda xp, out, *, value: devices.assign(out, value),
    widens=False,
)
# of recorded launches: the scale of a mean, where an op does not take it, and the gradient of a mean
MULTIPLY.computes(parts.Scaling)
COPY.computes(parts.Copy)
FILL.computes(parts.Fill)


class Gradient:
    """The gradient of a tensor on its way through the graph: ``array * scale[0]``.

    A loss with mean reduction returns the gradients of the samples and the factor 1/n separately.  Linear layers pass
    the scale on and apply it where the batch is reduced, at the end of dW = scale * dZ^T X.  Other ops receive
    gradients with the scale applied.

    A new array, which is C-contiguous and which nothing else refers to, travels as it is: a leaf's ``grad`` may keep it.

    Attributes:
        array: the gradient; None means exactly 1, so that a loss needs no launch to create it.
        scale: the pending scale, an array of shape (1,) of the accumulator of the array's dtype; None means 1.
        tensor: the Tensor of ``array``, with its graph under ``create_graph``; None if there is none yet.
        like: for a gradient of exactly 1, an array of its shape and dtype.
    """

    __slots__ = ("array", "like", "scale", "tensor")

    def __init__(
        self, array: Array | None, scale: Array | None = None, tensor: Tensor | None = None, like: Array | None = None
    ) -> None:
        self.array = array
        self.scale = scale
        self.tensor = tensor
        self.like = like

    @classmethod
    def of(cls, tensor: Tensor) -> Gradient:
        """The gradient that is the value of ``tensor``."""
        return cls(tensor.array, None, tensor)

    def apply(self) -> Array:
        """Return the gradient as an array without a pending scale."""
        if self.array is None:
            assert self.like is not None
            out = empty(self.like.shape, self.like.dtype, self.like)
            FILL(out, value=1)
            return out
        if self.scale is None:
            return self.array
        out = empty(self.array.shape, self.array.dtype, self.array)
        MULTIPLY(out, self.array, self.scale.reshape(()))
        return out


def materialize(gradient: Gradient | Array) -> Tensor:
    """Apply the pending scale; return a Tensor."""
    if type(gradient) is not Gradient:
        return make_tensor(gradient)
    return make_tensor(gradient.apply()) if gradient.tensor is None else gradient.tensor


class Node:
    """A node of the graph: one execution of an op, with the edges to its inputs and what its backward needs."""

    __slots__ = (
        "edges",
        "hooks",
        "inputs",
        "need",
        "op",
        "options",
        "outputs",
        "packed",
        "saved",
        "sequence",
        "sources",
        "versions",
    )
    _sequence = itertools.count()

    def __init__(
        self,
        op: Op,
        edges: Sequence[Any],
        saved: Any,
        versions: Sequence[Any],
        outputs: list[tuple[tuple[int, ...], Any]],
        options: dict[str, Any],
    ) -> None:
        self.op = op
        self.edges = edges  # for each input: (Node, output index), (leaf Tensor, 0), or None if it needs no gradient
        #: what backward receives: a tuple of arrays (fused), or values by name (primitive, custom); None once released
        self.saved = saved
        #: version counter, version at forward and memory of each tensor that backward may need.  The memory is given by the
        #: tensor, or by the id of its owner if the node must not keep it alive; None if backward certainly needs it
        self.versions: Sequence[Any] = versions
        self.outputs = outputs  # (shape, dtype) of each
        self.options = options
        self.sequence = next(Node._sequence)
        self.hooks: dict[int, dict[int, Any]] = {}
        self.inputs: Sequence[Any] = ()  # inputs of a fused op, for its composed form
        self.need: Sequence[bool] = ()  # of a fused op, which inputs need a gradient
        #: of a fused op with a composed backward, for each saved array: the edge of the input that it is, the index of
        #: the output that it is, or None
        self.sources: Sequence[Any] = ()
        #: ``saved`` and ``inputs`` as :class:`saved_tensors_hooks` stores them, outside of :meth:`unpacked`; None without hooks
        self.packed: tuple[Any, Any] | None = None

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
        self.saved = None
        self.edges = self.inputs = self.sources = self.versions = ()
        self.packed = None

    def pack(self) -> None:
        """Store what is saved in the form of :class:`saved_tensors_hooks`, if this thread is in its block."""
        if mode.current.saved_hooks is None:
            return
        inputs = pack(tuple(self.inputs))
        if self.inputs:  # those among the saved arrays are packed once
            found = {id(value.array): packed for value, packed in zip(self.inputs, inputs) if type(packed) is Packed}
            self.packed = tuple(found[id(array)] if id(array) in found else pack(array) for array in self.saved), inputs
        else:
            self.packed = pack(self.saved), ()
        self.saved = self.inputs = self.versions = ()

    @contextmanager
    def unpacked(self, create: bool) -> Iterator[None]:
        """Inside the block, ``saved`` or, if the composed form of a fused op needs them for ``create``, ``inputs`` are restored."""
        assert self.packed is not None
        saved, inputs = self.packed
        if create and inputs:
            self.inputs = unpack(inputs, True)
        elif type(saved) is tuple:
            self.saved = unpack(saved, False, lambda tensor: contiguous(tensor.array))
        else:
            self.saved = unpack(saved, create)
        yield
        self.saved = self.inputs = ()

    def check_versions(self, create: bool, num_inputs: int | None = None) -> None:
        """Check that no tensor that backward needs was changed in place since forward.

        Args:
            create: the gradients shall be differentiable.  The composed form of a fused op needs its inputs.
            num_inputs: of a fused op that keeps its inputs, how many of them are still needed; None means all and the outputs.

        Raises:
            InPlaceError: a tensor was changed.
        """
        composed = create and len(self.inputs) > 0
        versions = self.versions[: -len(self.outputs)] if composed else self.versions
        if num_inputs is not None:
            versions = versions[: sum(isinstance(value, Tensor) for value in self.inputs[:num_inputs])]
        for cell, version, memory in versions:
            if cell[0] != version:
                if not composed and memory is not None:
                    owner = id_of_owner(memory.array) if isinstance(memory, Tensor) else memory
                    # Saved arrays are alive since forward, so the ids of their owners are still valid.
                    if owner not in [id_of_owner(array) for array in self.saved if array is not None]:
                        continue
                raise InPlaceError(
                    f"{self.public_name} saved a tensor for backward that was then changed in place (version {cell[0]}, "
                    f"saved at version {version}). Change a .clone() of it, or use an out-of-place op"
                )


def id_of_owner(array: Array) -> int:
    """The id of the array at the root of ``array``'s views, see :func:`devices.owner_of`."""
    return id(devices.owner_of(array))


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


def spec_at(edge: tuple[Any, int]) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of the tensor at an edge."""
    target, index = edge
    return target.outputs[index] if type(target) is Node else (target.array.shape, target.array.dtype)


def operands(name: str, args: Sequence[Any]) -> Sequence[Any]:
    """Convert the arrays among the arguments of an op to Tensors, and NumPy scalars to Python numbers.

    Raises:
        DeviceError: the tensors are on different devices.
    """
    first: Any = None
    first_kind: Any = None
    for position, value in enumerate(args):
        if not isinstance(value, Tensor):
            kind = type(value)
            if kind is float or kind is int or value is None:
                continue
            if not devices.is_array(value):
                if isinstance(value, numpy.generic):  # a NumPy scalar would promote the dtype of the result
                    args = [*args]
                    args[position] = value = value.item()
                if isinstance(value, complex):
                    dtypes.note_complex()
                continue
            args = [*args]
            args[position] = value = make_tensor(plain_array(value, name))
        kind = type(value.array)
        if first is None:
            first, first_kind = value, kind
        elif kind is not first_kind or (kind is not ndarray and value.device != first.device):
            raise DeviceError(
                f"{name}: one tensor is on {first.device}, another on {value.device}; move them to one device with "
                ".to(device)"
            )
    return args


def contiguous(array: Array) -> Array:
    """Return ``array`` if it is C-contiguous, else a C-contiguous copy (one launch)."""
    if array.flags.c_contiguous:
        return array
    out = empty(array.shape, array.dtype, array)
    COPY(out, array)
    return out


@contextmanager
def contiguous_in_place(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block, the arrays of the tensors are C-contiguous, for launches that change them.

    The strided ones are replaced by copies, which are copied back at the end.
    """
    strided = [(tensor, tensor.array) for tensor in tensors if not tensor.array.flags.c_contiguous]
    try:
        for tensor, array in strided:
            tensor.array = contiguous(array)
        yield
        for tensor, array in strided:
            COPY(array, tensor.array)
    finally:
        for tensor, array in strided:
            tensor.array = array
