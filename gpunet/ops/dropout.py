"""Dropout of elements, of channels, and alpha dropout.

A launch draws the numbers of dropout and applies them; backward draws them again from the saved position of the stream.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
from numpy import uint64

from gpunet.autograd import Tensor, fused, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, ceil_div, elementwise_grid, kernel
from gpunet.launch.loops import Loops, like, load, loop_body, select, store
from gpunet.launch.memory import empty, scratch, ticket
from gpunet.launch.random import default_generator, draw_flags, philox_at, philox_loop, random_bernoulli, threshold_of
from gpunet.ops.creation import ones
from gpunet.ops.face import as_probability, public
from gpunet.ops.in_place import in_place

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


@kernel("dropout.cu", outputs=1, types={"mask": "bool"})
def dropout_apply(y, x, mask, *, scale):
    """y = x * scale where mask holds, 0 elsewhere: forward and backward alike."""
    numpy.multiply(x, mask, out=y)
    y *= y.dtype.type(scale)


@dropout_apply.geometry
def _(y, x, mask, *, scale):
    return Geometry(elementwise_grid(y.size), 256, (numpy.int64(y.size), float(scale)))


_CHUNK = 16384  # elements of a pass of the twin, so that their random words stay in the cache


@kernel(
    "dropout.cu", outputs=3, types={"start": "uint64", "state": "uint64", "ticket": "uint32"}, optional="start ticket",
    reads_values=True, updates="state", tickets="ticket",
)  # fmt: skip
def dropout_drawn(y, start, state, ticket, x, *, probability, scale, advances):
    """y = x * scale with ``probability``, else x * 0, by the numbers of ``random_bernoulli`` at ``state``.

    ``start`` becomes a copy of the state, unless it is None.  Then, if it ``advances``, the counter passes the used blocks;
    ``ticket`` is workspace of the CUDA kernel.
    """
    if start is not None:
        numpy.copyto(start, state)
    stream, out, values, factor = philox_at(state), y.reshape(-1), x.reshape(-1), y.dtype.type(scale)
    for first in range(0, y.size, _CHUNK):
        part = out[first : first + _CHUNK]
        is_kept = scratch(part.shape, numpy.bool_, 1)
        draw_flags(stream, is_kept, probability)
        numpy.multiply(values[first : first + _CHUNK], is_kept, out=part)
        part *= factor
    if advances:
        state[1:] += numpy.uint64(ceil_div(y.size, 8))  # on an array, because a NumPy scalar would warn when it overflows


@dropout_drawn.loops
def _(y, start, state, ticket, x, *, probability, scale, advances):
    arrays = (y, state, x) if start is None else (y, state, x, start)
    numbers = (y.size, threshold_of(probability), float(scale), int(advances))
    return Loops(_drawn_loop if start is None else _marked_loop, arrays, numbers)


@loop_body
def _drawn_loop(y, state, x, count, threshold, scale, advances):
    key, counter, limit = load(state, 0, 1), load(state, 1, 1), uint64(threshold)
    for block in range((count + 7) // 8):
        words = philox_loop(key, counter, block)
        for j in range(4):
            word = words[j]
            i = 8 * block + 2 * j
            if i < count:
                store(y, i, load(x, i, 2) * select(word & uint64(0xFFFFFFFF) < limit, like(y, scale), like(y, 0.0)), 0)
            if i + 1 < count:
                store(y, i + 1, load(x, i + 1, 2) * select(word >> uint64(32) < limit, like(y, scale), like(y, 0.0)), 0)
    if advances:
        store(state, 1, uint64(counter + uint64((count + 7) // 8)), 1)
    return 0


@loop_body
def _marked_loop(y, state, x, start, count, threshold, scale, advances):
    store(start, 0, load(state, 0, 1), 3)
    store(start, 1, load(state, 1, 1), 3)
    return _drawn_loop(y, state, x, count, threshold, scale, advances)


@dropout_drawn.computes
def _(y, start, state, ticket, x, *, probability, scale, advances):
    return parts.Dropout(y, x, state, start, probability, scale, advances)


@dropout_drawn.geometry
def _(y, start, state, ticket, x, *, probability, scale, advances):
    grid = max(1, elementwise_grid(ceil_div(y.size, 8), per_thread=1))
    return Geometry(grid, 256, (numpy.int64(y.size), float(probability), float(scale), numpy.bool_(advances)))


def _masked_composed(x, mask, *, scale):
    return x * mask * scale


@fused(name="dropout", composed=_masked_composed)
def masked_scale(x, mask, *, scale, need):
    """x * scale where the boolean mask holds, 0 elsewhere."""
    y = empty(x.shape, x.dtype, x)
    dropout_apply(y, x, mask, scale=scale)
    return y, (mask,)


@masked_scale.backward
def _(saved, dy, *, scale, need):
    (mask,) = saved
    dx = empty(mask.shape, dy.array.dtype, mask)
    dropout_apply(dx, dy.array, mask, scale=scale)
    return dx, None


def _drop_composed(x, position, *, probability, scale):
    mask = empty(x.shape, numpy.bool_, x.array)
    random_bernoulli(mask, position.array, probability=probability)
    return x * make_tensor(mask) * scale


@fused(name="dropout", composed=_drop_composed)
def drop(x, position=None, *, probability, scale, need):
    """x * scale with ``probability``, else x * 0.

    Args:
        position: key and counter of the stream; by default the default generator draws, and continues behind the numbers.
    """
    y, options = empty(x.shape, x.dtype, x), {"probability": probability, "scale": scale}
    if position is not None:
        dropout_drawn(y, None, position, None, x, **options, advances=False)
        return y, (position,)
    state = default_generator.state_for_launch(devices.of(x))
    if default_generator.share is not None:
        position = default_generator.position_of_share(state, x.size, 8, 8)
        dropout_drawn(y, None, position, None, x, **options, advances=False)
        return y, (position,)
    start = empty((2,), numpy.uint64, x) if need[0] else None
    dropout_drawn(y, start, state, ticket(x), x, **options, advances=True)
    return y, (start,)


@drop.backward
def _(saved, dy, *, probability, scale, need):
    (position,) = saved
    dx = empty(dy.array.shape, dy.array.dtype, position)
    dropout_drawn(dx, None, position, None, dy.array, probability=probability, scale=scale, advances=False)
    return [dx, None][: len(need)]


@drop.composed_backward
def _(saved, dy, *, probability, scale, need):
    (position,) = saved
    return [drop(dy, position, probability=probability, scale=scale), None][: len(need)]

# ---- draws ------------------------------------------------------------------------------------------------------------


def _noise(x: Tensor, lead: int, p: float, scale: float, per_advance: int = 4) -> Tensor:
    """0 with probability p and ``scale`` otherwise, a number for each index of the first ``lead`` dimensions of x."""
    mask = empty((*x.array.shape[:lead], *(1,) * (x.ndim - lead)), numpy.bool_, x.array)
    default_generator.fill(random_bernoulli, mask, per_advance=per_advance, probability=1.0 - p)
    return masked_scale(ones(*mask.shape, dtype=x.dtype, device=x.device), make_tensor(mask), scale=scale)


def _drop(x: Tensor, p: float, lead: int) -> Tensor:
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    if lead == x.ndim and not default_generator.num_before(x.array.size, 8):
        return drop(x, probability=1.0 - p, scale=scale)
    return x * _noise(x, lead, p, scale, 8 if lead == x.ndim else 4)  # 8 as drop() advances


#: SELU of -infinity is -_SATURATION, its scale times its alpha (Klambauer et al. 2017).
_SATURATION = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def _saturate(x: Tensor, p: float, lead: int) -> Tensor:
    """a x + b, in which x is replaced by -_SATURATION with probability p, with a and b that keep mean 0 and variance 1."""
    if p == 1.0:
        return x * 0.0
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SATURATION**2))
    noise = _noise(x, lead, p, a)
    return x * noise + (noise - a * (1.0 - p)) * _SATURATION


_KINDS = {
    "dropout": _drop, "dropout1d": _drop, "dropout2d": _drop, "dropout3d": _drop, "feature_dropout": _drop,
    "alpha_dropout": _saturate, "feature_alpha_dropout": _saturate,
}  # fmt: skip
_IN_PLACE = {name: in_place(drop, f"{name}(inplace=True)") for name, drop in _KINDS.items()}


# ---- public functions -------------------------------------------------------------------------------------------------


def dropped(function: str, input: Tensor, p: Any, training: bool, inplace: bool, lead: int | None = None) -> Tensor:
    """Dropout on behalf of ``function``; with ``lead``, all elements with the same first indices are dropped together."""
    p = as_probability(function, "p", p)
    if not training or p == 0.0:
        return input
    if not is_floating(input.dtype):
        raise DtypeError(f"{function}: the tensor has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    return (_IN_PLACE if inplace else _KINDS)[function](input, p, input.ndim if lead is None else lead)


def _num_leading(function: str, input: Tensor, num_dims: tuple[int, ...], names: str) -> int:
    """How many of the first dimensions are batch and channels; the fewest of ``num_dims`` are without a batch."""
    if input.ndim not in num_dims:
        raise ShapeError(f"{function}: the input has shape {tuple(input.shape)}; expected {names}")
    return 1 + (input.ndim > num_dims[0])


@public(out=False)
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p); the identity if not training.

    Raises:
        ArgumentError: p is not in [0, 1].
        DtypeError: the tensor is not floating.
    """
    return dropped("dropout", input, p, training, inplace)


@public(out=False)
def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each channel with probability ``p`` and scale the others by 1 / (1 - p); the identity if not training.

    Args:
        input: (n, channels, length), or (channels, length); floating.

    Raises:
        ShapeError: the input has other dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    lead = _num_leading("dropout1d", input, (2, 3), "(batch, channels, length), or the same without batch")
    return dropped("dropout1d", input, p, training, inplace, lead)


@public(out=False)
def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each channel with probability ``p`` and scale the others by 1 / (1 - p) (Tompson et al. 2015).

    Args:
        input: (n, channels, height, width); floating.  As in PyTorch, three dimensions are (n, channels, length).

    Raises:
        ShapeError: the input has other dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    if input.ndim not in (3, 4):
        raise ShapeError(f"dropout2d: the input has shape {tuple(input.shape)}; expected (batch, channels, height, width)")
    return dropped("dropout2d", input, p, training, inplace, 2)


@public(out=False)
def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`dropout1d` of volumes (n, channels, depth, height, width), or of one without n."""
    lead = _num_leading("dropout3d", input, (4, 5), "(batch, channels, depth, height, width), or the same without batch")
    return dropped("dropout3d", input, p, training, inplace, lead)


@public(out=False)
def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Set each element to the limit of SELU with probability ``p``, then keep mean 0 and variance 1 (Klambauer et al. 2017).

    Raises:
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    return dropped("alpha_dropout", input, p, training, inplace)


@public(out=False)
def feature_alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` of whole channels (n, channels, ...).

    Raises:
        ShapeError: the input has fewer than two dimensions.
        ArgumentError, DtypeError: as of :func:`dropout`.
    """
    if input.ndim < 2:
        raise ShapeError(f"feature_alpha_dropout: the input has shape {tuple(input.shape)}; expected (batch, channels, ...)")
    return dropped("feature_alpha_dropout", input, p, training, inplace, 2)
