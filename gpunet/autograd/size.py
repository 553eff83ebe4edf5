"""Size: the shape of a tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, SupportsIndex

from gpunet.errors import DtypeError

__all__ = ["Size"]


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple of integers whose slices, sums and multiples are sizes, too.

    It prints as ``gpunet.Size([2, 3])``; inside a formatted string it stands as a plain tuple, ``(2, 3)``.

    Raises:
        DtypeError: an item is no integer.
    """

    __slots__ = ()

    def __new__(cls, sizes: Iterable[Any] = ()) -> Size:
        items = tuple(sizes)
        for position, item in enumerate(items):
            if not hasattr(item, "__index__"):
                raise DtypeError(f"Size: item {position} is {item!r}, of type {type(item).__name__}; expected integers")
        return tuple.__new__(cls, [int(item) for item in items])

    def numel(self) -> int:
        """Return the number of elements of a tensor with this shape."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return as_size(item) if type(index) is slice else item

    def __add__(self, other: Any) -> Size:
        total = tuple.__add__(self, other)
        return NotImplemented if total is NotImplemented else Size(total)

    def __radd__(self, other: Any) -> Size:
        return Size(other + tuple(self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> Size:
        return as_size(tuple(self) * times)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"gpunet.Size({list(self)})"

    def __format__(self, spec: str) -> str:
        return format(str(tuple(self)), spec)


def as_size(shape: tuple[int, ...]) -> Size:
    """Return the shape of an array, a tuple of integers, as a Size."""
    return tuple.__new__(Size, shape)
