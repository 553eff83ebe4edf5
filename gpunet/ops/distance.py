"""Distances and similarities of vectors, and the losses of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import devices
from gpunet.backend.dtypes import is_boolean, is_floating, promote
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, cast, in_accumulator, result_dtype
from gpunet.ops.dims import Dims, normalize_dim, reduced_dims
from gpunet.ops.elementwise import clamp_min, minimum, raise_to, where
from gpunet.ops.face import as_number, check_flag, public, write_out
from gpunet.ops.index import index_select
from gpunet.ops.losses import reduce_composed, reduction_of
from gpunet.ops.norm import norm
from gpunet.ops.reduce import sqrt_0

__all__ = [
    "cosine_embedding_loss", "cosine_similarity", "normalize", "pairwise_distance", "pdist", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip


@public(autocast="cuda: float32")
def normalize(input: Any, p: float = 2.0, dim: Dims = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    """input / max(norm, eps), with the p-norm along ``dim``; arguments as of :func:`norm`.

    Args:
        out: a tensor that receives the result.

    Raises:
        DtypeError: an integer tensor.
    """
    result = _normalize(input, p, reduced_dims(input, dim, "normalize"), as_number("normalize", "eps", eps))
    return result if out is None else write_out("normalize", out, result)


@in_accumulator
def _normalize(x, p, axes, eps):
    return x / clamp_min(norm(x, p, axes, True), eps)


def common_floating(name: str, *values: Any) -> list[Tensor]:
    """Return tensors in their common floating dtype.

    Raises:
        DtypeError: it is not floating, or a tensor is boolean.
    """
    tensors = [wrap(value) for value in values]
    dtype = result_dtype(*tensors)
    if not is_floating(dtype) or any(is_boolean(t.dtype) for t in tensors):
        given = ", ".join(str(t.dtype) for t in tensors)
        raise DtypeError(f"{name}: tensors of dtypes {given}; expected a floating one, and no booleans: convert them with .float()")
    return [t if t.dtype == dtype else cast(t, dtype=dtype) for t in tensors]


@public(out=False, autocast="cuda: float32")
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle of vectors along ``dim``: x1 x2 / (max(|x1|, eps) max(|x2|, eps)).

    Args:
        x1, x2: of shapes that broadcast.
        dim: of the broadcast shape.
        eps: norms are at least this; the gradient passes the bound, as in PyTorch.

    Raises:
        ArgumentError: eps is negative.
        DtypeError: neither tensor is floating.
    """
    a, b = wrap(x1), wrap(x2)
    dtype = promote(a.dtype, b.dtype)  # also of 0-d tensors
    a, b = common_floating("cosine_similarity", *(v if v.dtype == dtype else cast(v, dtype=dtype) for v in (a, b)))
    shape = broadcast_shape("cosine_similarity", a.shape, b.shape)
    a, b = (v if v.shape == shape else broadcast_to(v, shape=shape) for v in (a, b))
    axis = normalize_dim(dim, len(shape), "cosine_similarity")
    eps = as_number("cosine_similarity", "eps", eps)
    if not eps >= 0.0:
        raise ArgumentError(f"cosine_similarity: eps={eps:g}; expected zero or a positive number")
    return _cosine(a, b, axis, eps)


@in_accumulator
def _cosine(a, b, axis, eps):
    b = b if b.dtype == a.dtype else cast(b, dtype=a.dtype)
    a, b = (x / raise_to(sqrt_0(reductions.sum(x * x, axis, True)), bound=eps) for x in (a, b))
    return reductions.sum(a * b, axis)


@public(out=False, autocast="cuda: float32")
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dimension.

    Args:
        x1, x2: (n, d) or (d,), or other shapes that broadcast.
        p: see :func:`norm`.
        eps: added to each difference, so that the gradient is defined where the vectors are equal.
        keepdim: keep the last dimension, with size 1.
    """
    p, eps = as_number("pairwise_distance", "p", p), as_number("pairwise_distance", "eps", eps)
    return _distance(*common_floating("pairwise_distance", x1, x2), p, eps, keepdim)


@in_accumulator
def _distance(a, b, p, eps, keepdim):
    return norm(a - b + eps, p, -1, keepdim)


@public(out=False, autocast="cuda: float32")
def pdist(input: Any, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of all pairs of rows: (n, d) -> (n (n - 1) / 2,), first those of row 0 and the others.

    Raises:
        ArgumentError: ``p`` is negative or nan.
        ShapeError: the tensor is no matrix.
        DtypeError: it is not floating.
    """
    order = as_number("pdist", "p", p)
    if not order >= 0.0:
        raise ArgumentError(f"pdist: p={p}; expected zero or a positive number")
    if input.ndim != 2:
        raise ShapeError(f"pdist: the tensor has shape {tuple(input.shape)}; expected rows (n, d)")
    if not is_floating(input.dtype):
        raise DtypeError(f"pdist: the tensor has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    return _pair_distances(input, order)


@in_accumulator
def _pair_distances(x, p):
    first, second = (
        make_tensor(constant(devices.move(places, x.device))) for places in numpy.triu_indices(len(x), 1)
    )
    differences = index_select(x, 0, first) - index_select(x, 0, second)
    return norm(differences, p if x.shape[1] else 1.0, -1)  # of no elements the norm of any order is 0


@casts("float32")
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos(input1, input2) where the target is 1, max(cos - margin, 0) where it is -1, reduced.

    Args:
        input1, input2: (n, d), or (d,).
        target: (n,), or (), of 1 and -1.
        margin: pairs of target -1 with a smaller cosine have no loss.
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: an input is not floating.
    """
    name = "cosine_embedding_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    a, b, target = wrap(input1), wrap(input2), wrap(target)
    if not (is_floating(a.dtype) and is_floating(b.dtype)):
        raise DtypeError(f"{name}: input1 of dtype {a.dtype}, input2 of {b.dtype}; expected floating tensors")
    a, b = common_floating(name, a, b)
    if target.ndim not in (0, 1) or a.ndim != target.ndim + 1 or b.ndim != target.ndim + 1:
        raise ShapeError(
            f"{name}: input1, input2 and target have shapes {tuple(a.shape)}, {tuple(b.shape)} and {tuple(target.shape)}; expected "
            "(n, d), (n, d) and (n,), or (d,), (d,) and ()"
        )
    return _cosine_embedding(a, b, target, as_number(name, "margin", margin), reduction)


#: Added to the squared norms in :func:`cosine_embedding_loss`: PyTorch's constant has float32, 4e-9 less than 1e-12.
_EPSILON = float(numpy.float32(1e-12))


@in_accumulator
def _cosine_embedding(a, b, target, margin, reduction):
    squares = (reductions.sum(a * a, -1) + _EPSILON) * (reductions.sum(b * b, -1) + _EPSILON)
    cosine = reductions.sum(a * b, -1) / squares.sqrt()
    similar = where(target == 1, 1.0 - cosine, 0.0)
    return reduce_composed(similar + where(target == -1, clamp_min(cosine - margin, 0.0), 0.0), reduction)


@casts("float32")
def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(margin + d(anchor, positive) - d(anchor, negative), 0), d the :func:`pairwise_distance`, reduced.

    Args:
        anchor, positive, negative: (n, d) or (d,).
        margin: by which the negative shall be farther from the anchor; positive.
        p, eps: of the distance.
        swap: take d(positive, negative) for d(anchor, negative) where it is smaller (Balntas et al. 2016).
        size_average, reduce: deprecated; bools that select the reduction.
        reduction: "mean", "sum" or "none".

    Raises:
        ArgumentError: the margin is not positive.
        ShapeError: the numbers of dimensions differ.
    """
    name = "triplet_margin_loss"
    reduction = reduction_of(name, size_average, reduce, reduction)
    return _triplet(name, lambda a, b: pairwise_distance(a, b, p, eps), anchor, positive, negative, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Any, positive: Any, negative: Any, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """:func:`triplet_margin_loss` with ``distance_function(a, b)``, by default :func:`pairwise_distance`."""
    name = "triplet_margin_with_distance_loss"
    reduction = reduction_of(name, None, None, reduction)
    return _triplet(name, distance_function or pairwise_distance, anchor, positive, negative, margin, swap, reduction)


def _triplet(
    name: str, distance: Callable[[Tensor, Tensor], Tensor], anchor: Any, positive: Any, negative: Any, margin: Any, swap: bool,
    reduction: str,
) -> Tensor:  # fmt: skip
    check_flag(name, "swap", swap)
    margin = as_number(name, "margin", margin)
    if not margin > 0.0:
        raise ArgumentError(f"{name}: margin={margin:g}; expected a positive number")
    anchor, positive, negative = (wrap(v) for v in (anchor, positive, negative))
    if not anchor.ndim == positive.ndim == negative.ndim:
        shapes = ", ".join(str(tuple(v.shape)) for v in (anchor, positive, negative))
        raise ShapeError(f"{name}: anchor, positive and negative have shapes {shapes}; expected the same number of dimensions")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return _hinge(*common_floating(name, near, far), margin, reduction)


@in_accumulator
def _hinge(near, far, margin, reduction):
    return reduce_composed(clamp_min(margin + near - far, 0.0), reduction)
