"""The recorded step as data: a list of buffers, and a list of calls on views of them.

``trace`` makes it of the recorded launches; planning and the three lowerings (``numpy_calls``, ``cuda_graph``,
``compiled``) read nothing else.  The calls run in order.  A :class:`View` names its buffer by the index in the list of
buffers; index -1 is the arena, in which ``plan`` places the temporaries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.launch.loops import Loops
from gpunet.launch.memory import JoinedArrays


class View(NamedTuple):
    """A strided view of a buffer: stands for an array argument of a call."""

    buffer: int  # index of the buffer; -1 for the arena
    offset: int  # bytes from the start of the buffer to element (0, 0, ...)
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes, as NumPy's: 0 where broadcast, negative where reversed
    dtype: numpy.dtype[Any]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without gaps between them."""
        return self.size * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether it is C-contiguous."""
        expected = self.dtype.itemsize
        for extent, stride in zip(reversed(self.shape), reversed(self.strides)):
            if extent != 1 and stride != expected:
                return False
            expected *= extent
        return True

    def reshape(self, shape: tuple[int, ...]) -> View:
        """Return a contiguous view in another shape of as many elements."""
        strides = [self.dtype.itemsize] * len(shape)
        for axis in reversed(range(len(shape) - 1)):
            strides[axis] = strides[axis + 1] * shape[axis + 1]
        return self._replace(shape=shape, strides=tuple(strides))

    def is_all_of(self, whole: View) -> bool:
        """Whether it has the elements of the contiguous view ``whole``, in the same order, perhaps in another shape."""
        mine, theirs = ((v.buffer, v.offset, v.size, v.dtype) for v in (self, whole))
        return self.contiguous and mine == theirs


def span(view: View) -> tuple[int, int, int]:
    """Return the buffer of a view and the range of bytes, from low to below high, that it covers there."""
    low = high = view.offset
    for extent, stride in zip(view.shape, view.strides):
        low, high = low + min(0, (extent - 1) * stride), high + max(0, (extent - 1) * stride)
    return view.buffer, low, high + view.dtype.itemsize


def overlap(a: View, b: View) -> bool:
    """Whether two views may share memory."""
    if a.buffer != b.buffer:
        return False
    (_, low, high), (_, other_low, other_high) = span(a), span(b)
    return low < other_high and other_low < high and a.size > 0 and b.size > 0


class Buffer:
    """A block of memory that views refer to.

    Attributes:
        array: owner of the memory while the step was recorded; None once the step is lowered.
        nbytes: its extent in bytes, gaps between its elements included.
        temporary: used by this step only, so it gets a place in the arena, and calls that write it may be dropped.
    """

    __slots__ = ("array", "nbytes", "temporary")

    @classmethod
    def of_size(cls, nbytes: int) -> Buffer:
        """A temporary buffer without memory of its own."""
        buffer = cls(numpy.empty(0), True)
        buffer.array, buffer.nbytes = None, nbytes
        return buffer

    def __init__(self, array: numpy.ndarray, temporary: bool = False) -> None:
        self.array: Any = array
        spans = (abs(stride) * (extent - 1) for extent, stride in zip(array.shape, array.strides))
        self.nbytes = sum(spans) + array.itemsize if array.size else 0
        self.temporary = temporary


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One call on arrays: ``function(*arguments, **options)``, with a :class:`View` in place of each array.

    Args:
        kind: class of the function:
            "elementwise": a ufunc that broadcasts its arguments to ``options["out"]``;
            "reduce": ``ufunc.reduce`` of one argument over ``axis`` into ``options["out"]``;
            "product": a matrix product, ``matmul`` or ``dot``, into ``options["out"]``;
            "copy": ``numpy.copyto(destination, source)``;
            "opaque": any other function, or a whole launch, destinations first; it may raise.
        function: the NumPy function or twin.
        arguments: positional arguments; views may also stand in lists, tuples, dicts and slices.
        options: keyword arguments, likewise.
        reads: views that it reads.
        writes: views that it writes.
        partial: elements of ``writes`` may keep their old values, as with ``where=`` or an indexed assignment.
        launch: index of the recorded launch that it came from.
        loops: if the function is a twin, its kernel's function that returns the ``Loops`` of the call, or None.
        meets_others: see :class:`gpunet.launch.launchable.Launchable`.
        merged: indices of the other recorded launches that are part of it.
    """

    kind: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    reads: list[View]
    writes: list[View]
    partial: bool = False
    launch: int = -1
    loops: Callable[..., Loops | None] | None = None
    meets_others: bool = False
    merged: tuple[int, ...] = ()

    def replaced(self, change: Callable[[View], Any]) -> Call:
        """Return the same call with ``change(view)`` in place of each view."""
        arguments, options = tree_map((self.arguments, self.options), change)
        reads, writes = map(change, self.reads), map(change, self.writes)
        return dataclasses.replace(self, arguments=arguments, options=options, reads=[*reads], writes=[*writes])


def tree_map(value: Any, change: Callable[[Any], Any], kind: type | Callable[[Any], bool] = View) -> Any:
    """Return ``value`` with ``change(leaf)`` in place of each leaf.

    Descends into lists, tuples, named tuples, dict values, slices and :class:`JoinedArrays`, ``flat`` included.  Anything
    else is returned as it is.

    Args:
        value: a nested structure.
        change: called with each leaf.
        kind: type of the leaves, or a predicate that tells them.
    """
    if isinstance(value, kind) if isinstance(kind, type) else kind(value):
        return change(value)
    if isinstance(value, JoinedArrays):
        return JoinedArrays([tree_map(v, change, kind) for v in value], tree_map(value.flat, change, kind))
    if isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            return type(value)(*(tree_map(v, change, kind) for v in value))
        return type(value)(tree_map(v, change, kind) for v in value)
    if isinstance(value, dict):
        return {k: tree_map(v, change, kind) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(tree_map(v, change, kind) for v in (value.start, value.stop, value.step)))
    return value


def tree_leaves(value: Any, kind: type | Callable[[Any], bool] = View) -> Iterator[Any]:
    """Yield each leaf of ``value``, in order.

    Descends into lists, tuples and dict values, but not into slices and ``JoinedArrays.flat`` as :func:`tree_map` does.

    Args:
        value: a nested structure.
        kind: type of the leaves, or a predicate that tells them.
    """
    if isinstance(value, kind) if isinstance(kind, type) else kind(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tree_leaves(item, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tree_leaves(item, kind)
