"""Arguments of the transforms: functions, ``argnums``, and tensors in nested structures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.func.trees import Structure, leaves_like

Argnums = int | tuple[int, ...]


def named_as(func: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: give a wrapper the name and the docstring of ``func``, which may be a module."""
    return functools.wraps(func, updated=())


def name_of(func: Any) -> str:
    """The name of a function, or the class of another object that can be called, for messages."""
    return getattr(func, "__name__", type(func).__name__)


def check_function(transform: str, func: Any) -> None:
    """Raise a DtypeError if ``func`` cannot be called."""
    if not callable(func):
        raise DtypeError(f"{transform}: func has type {type(func).__name__}; expected a function of tensors, or a module")


def positions_of(transform: str, argnums: Any, count: int) -> tuple[int, ...]:
    """The positions that ``argnums`` names among ``count`` arguments.

    Raises:
        DtypeError: ``argnums`` is neither an integer nor a tuple of integers.
        ArgumentError: a position does not exist, or is named twice, or there is none.
    """
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise DtypeError(f"{transform}: argnums={argnums!r}; expected an integer, or a tuple of integers")
    if not numbers:
        raise ArgumentError(f"{transform}: argnums=() is empty; expected the position of one argument or more")
    for number in numbers:
        if not -count <= number < count:
            raise ArgumentError(
                f"{transform}: argnums={argnums!r}, but the function was called with {count} positional arguments; keywords cannot "
                "be differentiated"
            )
    found = tuple([number % count for number in numbers])
    if len({*found}) < len(found):
        raise ArgumentError(f"{transform}: argnums={argnums!r} names an argument twice; expected each once")
    return found


def as_tensors(transform: str, name: str, leaves: Sequence[Any]) -> list[Tensor]:
    """The leaves as tensors; arrays are not copied.

    Raises:
        DtypeError: a leaf is neither a tensor nor an array.
    """
    for leaf in leaves:
        if not isinstance(leaf, Tensor) and not devices.is_array(leaf):
            raise DtypeError(f"{transform}: {name} has a {type(leaf).__name__}, {leaf!r}; expected tensors")
    return [wrap(leaf, transform) for leaf in leaves]


def vectors_like(transform: str, name: str, value: Any, structure: Structure, tensors: Sequence[Tensor], of: str) -> list[Tensor]:
    """The tensors of a value that must have the structure and the shapes of other tensors.

    Args:
        name: the value, for messages.
        of: the other tensors, for messages.

    Raises:
        ArgumentError: the structure is another one.
        ShapeError: a shape is another one.
    """
    leaves = leaves_like(value, structure)
    if leaves is None:
        raise ArgumentError(f"{transform}: the {name} do not have the structure of the {of}; expected {structure}")
    found = as_tensors(transform, f"the {name}", leaves)
    for vector, tensor in zip(found, tensors):
        if vector.array.shape != tensor.array.shape:
            raise ShapeError(
                f"{transform}: the {name} have a tensor of shape {tuple(vector.shape)}; expected {tuple(tensor.shape)}, the shape "
                f"of the {of} there"
            )
    return found
