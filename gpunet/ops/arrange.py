"""Move, roll, rotate and repeat elements; change the shape of a tensor in place."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import COPY, Tensor, bump_version, is_grad_enabled, method, primitive, wrap
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.convert import clone
from gpunet.ops.dims import normalize_dim, normalize_dims, normalize_slice_dim
from gpunet.ops.face import as_integer, public, sizes_of
from gpunet.ops.in_place import alias_of, check_in_place
from gpunet.ops.shape import _flip, _permute, _repeat, _reshape, squeeze, swapaxes, t, transpose, unsqueeze

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "fliplr", "flipud", "moveaxis", "movedim", "ravel", "roll", "rot90", "swapdims",
    "tile",
]  # fmt: skip


# ---- dimensions -------------------------------------------------------------------------------------------------------


def _moved(function: str, x: Tensor, source: Any, destination: Any) -> Tensor:
    ndim = x.ndim
    if isinstance(source, (tuple, list)) != isinstance(destination, (tuple, list)):
        raise DtypeError(f"{function}: source={source!r}, destination={destination!r}; expected two integers, or two tuples")
    starts = normalize_dims(source, ndim, function, "source")
    ends = normalize_dims(destination, ndim, function, "destination")
    if len(starts) != len(ends):
        raise ShapeError(f"{function}: source={source!r}, destination={destination!r}; expected equally many dimensions")
    placed = dict(zip(ends, starts))
    others = iter([d for d in range(ndim) if d not in starts])
    return _permute(x, dims=tuple([placed[d] if d in placed else next(others) for d in range(ndim)]))


@public("movedim", out=False, takes_complex=True)
def movedim(input: Any, source: Any, destination: Any) -> Tensor:
    """A view with the dimensions ``source`` at the places ``destination``; the others keep their order.

    Args:
        source, destination: an integer, or equally long tuples of different integers.

    Raises:
        ShapeError: the tuples have different lengths.
        ArgumentError: a dimension is given twice.
    """
    return _moved("movedim", input, source, destination)


@public("moveaxis", out=False, takes_complex=True)
def moveaxis(input: Any, source: Any, destination: Any) -> Tensor:
    """:func:`movedim` under NumPy's name."""
    return _moved("moveaxis", input, source, destination)


@public("swapdims", out=False, takes_complex=True)
def swapdims(input: Any, dim0: int, dim1: int) -> Tensor:
    """:func:`gpunet.transpose` under another name."""
    ndim = input.ndim
    first, second = normalize_dim(dim0, ndim, "swapdims", "dim0"), normalize_dim(dim1, ndim, "swapdims", "dim1")
    return transpose(input, first, second)


@public("ravel", out=False, takes_complex=True)
def ravel(input: Any) -> Tensor:
    """The elements as one dimension; a view of a contiguous tensor, else a copy."""
    x = input if input.is_contiguous() else clone(input)
    return _reshape(x, shape=(x.array.size,))


def _at_least(ndim: int, expanded: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Any:
    name = f"atleast_{ndim}d"

    def function(*tensors: Any) -> Any:
        given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
        found = []
        for value in given:
            x = wrap(value, name)
            found.append(_reshape(x, shape=expanded(x.array.shape)) if x.ndim < ndim else x)
        return found[0] if len(tensors) == 1 and given is tensors else tuple(found)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Tensors of fewer than {ndim} dimensions as views of {ndim}; a tuple for several, or for a list of them."
    return public(out=False, takes_complex=True)(function)


atleast_1d = _at_least(1, lambda shape: (1,))
atleast_2d = _at_least(2, lambda shape: (1, *(shape or (1,))))
atleast_3d = _at_least(3, lambda shape: (*shape, 1) if len(shape) == 2 else (1, *(shape or (1,)), 1))


# ---- copies -----------------------------------------------------------------------------------------------------------


@primitive(takes_complex=True)
def _roll(x, *, shifts):
    """Shift the elements along each dimension by ``shifts``, from 0 to size - 1; the last ones come first."""
    out = empty(x.array.shape, x.dtype, x.array)
    halves = [
        ((slice(None), slice(None)),) if not s else ((slice(s, None), slice(None, -s)), (slice(None, s), slice(-s, None)))
        for s in shifts
    ]
    for pieces in itertools.product(*halves):
        target, source = zip(*pieces) if pieces else ((), ())
        COPY(out[(*target, ...)], x.array[(*source, ...)])
    return out


_roll.derivatives(x=lambda g, shifts, x_shape: _roll(g, shifts=tuple([-s % n if n else 0 for s, n in zip(shifts, x_shape)])))


@public("roll", out=False, takes_complex=True)
def roll(input: Any, shifts: Any, dims: Any = ()) -> Tensor:
    """Shift the elements along ``dims``, cyclically; without ``dims`` those of the flattened tensor.

    Args:
        shifts: an integer, or one for each dimension; positive towards higher indices.

    Raises:
        ShapeError: there are not as many shifts as dimensions, or ``dims`` of a tensor without dimensions.
    """
    steps = sizes_of("roll", (), shifts=shifts if isinstance(shifts, (tuple, list)) else (shifts,))
    along = sizes_of("roll", (), dims=dims if isinstance(dims, (tuple, list)) else (dims,))
    if not along and len(steps) == 1:
        return _reshape(roll(_reshape(input, shape=(input.array.size,)), steps, (0,)), shape=input.array.shape)
    if len(steps) != len(along) or not steps:
        raise ShapeError(f"roll: shifts={shifts!r}, dims={dims!r}; expected a shift for each dimension")
    shape, total = input.array.shape, [0] * input.ndim
    for step, dim in zip(steps, along):
        total[normalize_slice_dim(dim, input, "roll")] += step
    return _roll(input, shifts=tuple([s % n if n else 0 for s, n in zip(total, shape)]))


@public("rot90", out=False, takes_complex=True)
def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A copy rotated by 90 degrees ``k`` times in the plane of two dimensions, from the first towards the second.

    Raises:
        ShapeError: ``dims`` is not two dimensions.
    """
    given = sizes_of("rot90", (), dims=dims)
    if len(given) != 2 or input.ndim < 2:
        raise ShapeError(f"rot90: dims={dims!r} for a tensor with {input.ndim} dimensions; expected two different ones of it")
    first, second = normalize_dims(given, input.ndim, "rot90", "dims")
    turns = as_integer("rot90", "k", k) % 4
    if turns == 0:
        return clone(input)
    if turns == 2:
        return _flip(input, dims=(first, second))
    turned = _flip(input, dims=(second if turns == 1 else first,))
    return clone(transpose(turned, first, second))


def _flipped(function: str, x: Tensor, dim: int) -> Tensor:
    if x.ndim <= dim:
        raise ShapeError(f"{function}: the tensor has shape {tuple(x.shape)}; expected at least {dim + 1} dimensions")
    return _flip(x, dims=(dim,))


@public("flipud", out=False, takes_complex=True)
def flipud(input: Any) -> Tensor:
    """A copy with the rows (dimension 0) in reversed order."""
    return _flipped("flipud", input, 0)


@public("fliplr", out=False, takes_complex=True)
def fliplr(input: Any) -> Tensor:
    """A copy with the columns (dimension 1) in reversed order."""
    return _flipped("fliplr", input, 1)


@public("tile", out=False, takes_complex=True)
def tile(input: Any, *times: Any, dims: Sequence[int] | None = None) -> Tensor:
    """The tensor repeated along each dimension, like numpy.tile; ``dims`` may name the last dimensions only.

    Raises:
        ShapeError: a number is negative.
    """
    given = sizes_of("tile", times, dims=dims)
    if any(n < 0 for n in given):
        raise ShapeError(f"tile: dims={given}; expected numbers of repetitions >= 0")
    return _repeat(input, repeats=(1,) * (input.ndim - len(given)) + given)


# ---- in place -----------------------------------------------------------------------------------------------------------


def view_in_place(function: Callable[..., Tensor], name: str) -> None:
    """Attach the method that turns a tensor into a view of itself: ``unsqueeze_`` beside ``unsqueeze``."""

    @functools.wraps(function)
    def change(input: Tensor, *args: Any, **options: Any) -> Tensor:
        if input._requires_grad and is_grad_enabled():
            check_in_place(input, (), name)
        result = function(alias_of(input), *args, **options)
        input.array = result.array
        bump_version(input)  # backward has the shape from before
        if result._requires_grad:
            input._node, input._index = result._node, result._index
        return input

    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"{name.removesuffix('_')}, in place: the tensor keeps its memory."
    method(name)(change)


for _function in (squeeze, unsqueeze, t, transpose, swapaxes, swapdims):
    view_in_place(_function, f"{_function.__name__}_")
