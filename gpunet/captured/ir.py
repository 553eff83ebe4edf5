"""The flat form of a recorded step on the CPU: buffers, and calls of NumPy functions on views of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy

from gpunet.launch.memory import JoinedArrays


class View(NamedTuple):
    """A part of a buffer, as an array: offset and strides in bytes."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: numpy.dtype[Any]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        expected = self.dtype.itemsize
        for extent, stride in zip(reversed(self.shape), reversed(self.strides)):
            if extent != 1 and stride != expected:
                return False
            expected *= extent
        return True

    def is_all_of(self, whole: View) -> bool:
        """Whether it is the same as a contiguous view, perhaps in another shape."""
        mine, theirs = ((v.buffer, v.offset, v.size, v.dtype) for v in (self, whole))
        return self.contiguous and mine == theirs


class Buffer:
    """One piece of memory.

    ``array`` is that of the recording; a temporary, which nobody outside sees, gives it up for a place in the arena.
    """

    __slots__ = ("array", "constant", "nbytes", "temporary")

    def __init__(self, array: numpy.ndarray, temporary: bool = False) -> None:
        self.array: Any = array
        spans = (abs(stride) * (extent - 1) for extent, stride in zip(array.shape, array.strides))
        self.nbytes = sum(spans) + array.itemsize if array.size else 0
        self.temporary = temporary
        self.constant = False  # made by a twin for itself: the same at each replay


class Call:
    """One call of a NumPy function, or of a twin that is called as a whole.

    Args:
        kind: "elementwise", "reduce", "product", "copy", or "opaque": anything else.
        function: called with ``arguments`` and ``options``, in which a :class:`View` stands for an array.
        reads, writes: the views among them.
        partial: what is written keeps some of its old elements, or may.
        launch: number of the recorded launch that it belongs to.
    """

    __slots__ = ("arguments", "function", "kind", "launch", "options", "partial", "reads", "writes")

    def __init__(
        self,
        kind: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        reads: list[View],
        writes: list[View],
        partial: bool = False,
        launch: int = -1,
    ) -> None:
        self.kind, self.function, self.arguments, self.options = kind, function, arguments, options
        self.reads, self.writes, self.partial, self.launch = reads, writes, partial, launch

    def replaced(self, change: Callable[[View], Any]) -> Call:
        """The same call with other views."""
        return Call(
            self.kind, self.function, tree_map(self.arguments, change), tree_map(self.options, change),
            [change(v) for v in self.reads], [change(v) for v in self.writes], self.partial, self.launch,
        )  # fmt: skip


def tree_map(value: Any, change: Callable[[Any], Any], kind: type | Callable[[Any], bool] = View) -> Any:
    """``value`` with what is of ``kind``, or what ``kind`` says yes to, also within lists, tuples and dicts, replaced."""
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
    """Every instance of ``kind``, or what ``kind`` says yes to, in a structure of lists, tuples and dicts."""
    if isinstance(value, kind) if isinstance(kind, type) else kind(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tree_leaves(item, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tree_leaves(item, kind)
