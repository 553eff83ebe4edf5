"""Derivatives of sampled functions, by differences of an even or uneven grid (B. Fornberg, Generation of finite difference
formulas on arbitrarily spaced grids, 1988)."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import iinfo, is_integer
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.dims import normalize_dims
from gpunet.ops.face import as_integer, public
from gpunet.ops.join import cat

__all__ = ["gradient"]


@public(out=False, takes_complex=True)
def gradient(input: Any, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """The partial derivatives of a function by its samples, a tensor for each dimension: central differences inside.

    Args:
        spacing: the distance of samples, 1 by default; a list has one for each dimension, a list of tensors the positions (n,) of
            the samples along each dimension.
        dim: the dimensions; all by default.
        edge_order: 1 or 2, the order of the error at the edges.

    Raises:
        ArgumentError: another order, or not a distance for each dimension.
        DtypeError: unsigned integers, whose differences are none.
        ShapeError: a dimension has too few samples, or positions of another number.
    """
    if is_integer(input.dtype) and iinfo(input.dtype).min == 0:
        raise DtypeError(f"gradient: the tensor has dtype {input.dtype}; expected signed numbers: convert it with .float()")
    order = as_integer("gradient", "edge_order", edge_order)
    if order not in (1, 2):
        raise ArgumentError(f"gradient: edge_order={order}; expected 1 or 2")
    axes = tuple(range(input.ndim)) if dim is None else normalize_dims(dim, input.ndim, "gradient")
    given = [1.0 if spacing is None else spacing] * len(axes) if not isinstance(spacing, (tuple, list)) else list(spacing)
    if len(given) != len(axes):
        raise ArgumentError(f"gradient: spacing={spacing!r} for {len(axes)} dimensions; expected a number, or one for each")
    found = []
    for axis, distance in zip(axes, given):
        count = input.shape[axis] if input.ndim else 0
        if count <= order:
            raise ShapeError(
                f"gradient: the tensor has shape {tuple(input.shape)}; expected {order + 1} samples or more in dimension {axis} "
                f"for edge_order={order}"
            )
        moved = input.movedim(axis, -1)
        if isinstance(distance, Tensor) and (distance.ndim or isinstance(spacing, (tuple, list))):
            if tuple(distance.shape) != (count,):
                raise ShapeError(f"gradient: positions of shape {tuple(distance.shape)} for {count} samples; expected ({count},)")
            slopes = _of_positions(moved, distance, order)
        else:
            slopes = _of_distance(moved, distance, order)
        found.append(slopes.movedim(-1, axis).contiguous())
    return tuple(found)


def _of_distance(x: Any, h: Any, order: int) -> Tensor:
    inside = (x[..., 2:] - x[..., :-2]) / (2 * h)
    if order == 1:
        first, last = (x[..., 1:2] - x[..., :1]) / h, (x[..., -1:] - x[..., -2:-1]) / h
    else:
        first = (-1.5 * x[..., :1] + 2.0 * x[..., 1:2] - 0.5 * x[..., 2:3]) / h
        last = (1.5 * x[..., -1:] - 2.0 * x[..., -2:-1] + 0.5 * x[..., -3:-2]) / h
    return cat([first, inside, last], -1)


def _of_positions(x: Any, positions: Any, order: int) -> Tensor:
    steps = positions[1:] - positions[:-1]
    a, b = steps[:-1], steps[1:]
    inside = (
        x[..., :-2] * (-b / (a * (a + b))) + x[..., 1:-1] * ((b - a) / (a * b)) + x[..., 2:] * (a / (b * (a + b)))
    )
    if order == 1:
        first, last = (x[..., 1:2] - x[..., :1]) / steps[0], (x[..., -1:] - x[..., -2:-1]) / steps[-1]
    else:
        first, last = _edge(x[..., :3], steps[0], steps[1]), _edge(x[..., -3:].flip(-1), -steps[-1], -steps[-2])
    return cat([first, inside, last], -1)


def _edge(x: Any, a: Any, b: Any) -> Any:
    """The derivative at the first of three samples, the distances between which are a and b."""
    return (
        x[..., :1] * (-(2.0 * a + b) / (a * (a + b))) + x[..., 1:2] * ((a + b) / (a * b)) + x[..., 2:] * (-a / (b * (a + b)))
    )
