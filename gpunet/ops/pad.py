"""Padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import COPY, FILL, Tensor, make_tensor, primitive
from gpunet.autograd.autocast import casts
from gpunet.autograd.data import convert_number
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import constant
from gpunet.ops.face import public, sizes_of
from gpunet.ops.index import index_select
from gpunet.ops.resample import Rows, Table, resample

__all__ = ["pad"]

#: PyTorch's name of a mode -> NumPy's.
_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _indices(mode: str, low: int, high: int, size: int) -> numpy.ndarray:
    """The indices of the elements along a padded dimension.  As in PyTorch, "circular" crops first, the other modes last."""
    indices, added = numpy.arange(size), (max(0, low), max(0, high))
    if mode == "circular":
        return numpy.pad(indices[max(0, -low) : size + min(0, high)], added, "wrap")
    return numpy.pad(indices, added, _MODES[mode])[max(0, -low) : None if high >= 0 else high]


def _overlap(widths, inner, outer):
    """The index of the part of x that the result keeps, and of its place in the result; negative widths crop."""
    kept = tuple(slice(max(0, -low), n - max(0, -high)) for (low, high), n in zip(widths, inner))
    place = tuple(slice(max(0, low), n - max(0, high)) for (low, high), n in zip(widths, outer))
    return (*kept, ...), (*place, ...)


@primitive(name="pad", takes_complex=True)
def _pad_constant(x, *, widths, value):
    shape = x.array.shape
    padded = tuple(n + low + high for (low, high), n in zip(widths, shape))
    kept, place = _overlap(widths, shape, padded)
    out = empty(padded, x.dtype, x.array)
    FILL(out, value=value)
    COPY(out[place], x.array[kept])
    return out


def _pad_derivative(g, widths):
    return _pad_constant(g, widths=tuple((-low, -high) for low, high in widths), value=0)


_pad_constant.derivatives(x=_pad_derivative)


@public(out=False, takes_complex=True)
def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad with a constant, or with elements of the tensor; negative widths crop.

    Args:
        pad: (left, right) of the last dimension, then of the second to last, and so on.
        mode: "constant", "reflect" (without the edge), "replicate" (the edge) or "circular".
        value: the constant, 0 if None.

    Raises:
        ArgumentError: the mode is unknown, or ``pad`` is no list of pairs.
        DtypeError: the tensor's dtype cannot hold the value.
        ShapeError: a dimension is too small for ``pad``, or the mode does not pad a tensor of these dimensions.
    """
    numbers = sizes_of("pad", (), pad=pad)
    if value is not None and not isinstance(value, (int, float, numpy.number, numpy.bool_)):
        raise DtypeError(f"pad: value={value!r} has type {type(value).__name__}; expected a number")
    if len(numbers) % 2 or len(numbers) > 2 * input.ndim:
        raise ArgumentError(f"pad: pad={numbers}; expected a pair of widths for each of at most {input.ndim} dimensions")
    pairs = [*zip(numbers[::2], numbers[1::2])][::-1]
    widths = ((0, 0),) * (input.ndim - len(pairs)) + tuple(pairs)
    for (low, high), n in zip(widths, input.array.shape):
        if n + low + high < 0 or (low < 0 and -low > n) or (high < 0 and -high > n):
            raise ShapeError(f"pad: pad={numbers} crops more than there is of a tensor of shape {tuple(input.array.shape)}")
    if isinstance(mode, str) and mode == "constant":
        fills = value is not None and max(numbers, default=0) > 0
        value = float(value) if fills and value is not None and value < 0 else value  # of unsigned integers -1 is refused
        number = convert_number(value, input.dtype, "pad", "value", rounds_to_inf=True) if fills else 0
        return _pad_constant(input, widths=widths, value=number)
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArgumentError(f"pad: mode={mode!r}; expected 'constant', 'reflect', 'replicate' or 'circular'")
    if value:
        raise ArgumentError(f"pad: value={value} with mode={mode!r}; only mode='constant' takes a value")
    is_cast = mode == "replicate" or (mode == "reflect" and len(numbers) < 6)
    return (_pad_in_float32 if is_cast else _pad_with_elements)(input, numbers, widths, mode)


def _pad_with_elements(x: Tensor, numbers: tuple[int, ...], widths: tuple[tuple[int, int], ...], mode: str) -> Tensor:
    if len(numbers) not in (2, 4, 6) or x.ndim not in (len(numbers) // 2 + 1, len(numbers) // 2 + 2):
        raise ShapeError(
            f"pad: mode={mode!r} with pad={numbers} for a tensor of shape {tuple(x.array.shape)}; expected the pairs of the "
            "last 1, 2 or 3 dimensions, and one or two dimensions before them"
        )
    if not any(numbers):
        return _pad_constant(x, widths=widths, value=0)  # a copy
    for dim, ((low, high), n) in enumerate(zip(widths, x.array.shape)):
        if not (low or high):
            continue
        most = {"reflect": n - 1, "circular": n + min(0, low) + min(0, high)}.get(mode, max(low, high) if n else 0)
        if max(low, high) > most:
            raise ShapeError(f"pad: pad={numbers}, mode={mode!r}; dimension {dim} of size {n} takes widths up to {most}")
        if is_floating(x.dtype):
            x = resample("pad", x, dim, Table(_rows, (mode, low, high, n)))
        else:  # without a gradient
            x = index_select(x, dim, make_tensor(constant(_indices(mode, low, high, n))))
    return x


#: As in PyTorch, where the other modes have no rule.
_pad_in_float32 = casts("cpu: float32")(_pad_with_elements)


def _rows(mode: str, low: int, high: int, size: int) -> Rows:
    """The rows that pick the elements along a padded dimension."""
    indices = _indices(mode, low, high, size)
    return Rows(indices[:, None], numpy.ones((len(indices), 1)), size)
