"""Copies under the names of views: ``permute_copy(x, dims)`` is ``x.permute(dims).clone()``, and so on for each view."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, GpunetError
from gpunet.ops.convert import clone
from gpunet.ops.diagonal import diagonal
from gpunet.ops.dims import normalize_slice_dim
from gpunet.ops.face import as_integer, public
from gpunet.ops.index import _index
from gpunet.ops.join import narrow, select, split, unbind
from gpunet.ops.parts import split_with_sizes
from gpunet.ops.shape import alias as _alias
from gpunet.ops.shape import expand, permute, squeeze, t, transpose, unfold, unsqueeze, view
from gpunet.ops.strided import as_strided


def alias(input: Any) -> Tensor:
    """The tensor."""
    found: Tensor = _alias(input)
    return found


def detach(input: Any) -> Tensor:
    """The tensor, outside of the graph."""
    found: Tensor = input.detach()
    return found


def slice_of(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """The elements start:end:step along a dimension."""
    at = normalize_slice_dim(dim, input, "slice")
    first, last = (None if n is None else as_integer("slice", name, n) for name, n in (("start", start), ("end", end)))
    by = as_integer("slice", "step", step)
    if by < 1:
        raise ArgumentError(f"slice: step={step}; expected a positive number")
    found: Tensor = _index(input, pattern=(slice(None),) * at + (slice(first, last, by),))
    return found


def equal_parts(input: Any, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """The parts of ``split_size`` elements along a dimension; the last one may have fewer."""
    found: tuple[Tensor, ...] = split(input, as_integer("split", "split_size", split_size), dim)
    return found


#: The name of a view -> the function that returns it; those that split return tuples.
_VIEWS: dict[str, Callable[..., Any]] = {
    "alias": alias, "as_strided": as_strided, "detach": detach, "diagonal": diagonal, "expand": expand, "narrow": narrow,
    "permute": permute, "select": select, "slice": slice_of, "split": equal_parts, "split_with_sizes": split_with_sizes,
    "squeeze": squeeze, "t": t, "transpose": transpose, "unbind": unbind, "unfold": unfold, "unsqueeze": unsqueeze, "view": view,
}  # fmt: skip
_METHODS = {"narrow": "narrow_copy"}


def _copy(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def copy(input: Any, *args: Any, **options: Any) -> Any:
        try:
            found = function(input, *args, **options)
        except GpunetError as error:  # in the name of the copy
            raise type(error)(f"{name}_copy{str(error).removeprefix(name)}") from None
        return tuple([clone(part) for part in found]) if isinstance(found, tuple) else clone(found)

    copy.__name__ = copy.__qualname__ = f"{name}_copy"
    copy.__doc__ = f"A copy of ``input.{name}(...)``; of a function that splits, a tuple of copies."
    return public(_METHODS.get(name, ""), takes_complex=True)(copy)


_COPIES = {f"{_name}_copy": _copy(_name, _function) for _name, _function in _VIEWS.items()}
globals().update(_COPIES)
__all__ = [*_COPIES]
