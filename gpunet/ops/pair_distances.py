"""Distances between all pairs of vectors of two sets."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.distance import common_floating
from gpunet.ops.elementwise import clamp_min
from gpunet.ops.face import as_number, public
from gpunet.ops.norm import norm
from gpunet.ops.reduce import sqrt_0

__all__ = ["cdist"]

#: Modes of cdist -> whether distances follow from products of matrices; None: beyond 25 vectors, as in PyTorch.
_MODES = {
    "use_mm_for_euclid_dist_if_necessary": None, "use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False,
}  # fmt: skip


@public(out=False, autocast="float32")
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm of the difference of each vector of x1 and each of x2.  x1 (..., n, d), x2 (..., m, d) -> (..., n, m).

    Args:
        x1, x2: floating; the leading dimensions broadcast.
        p: the order of the norm, >= 0.
        compute_mode: whether euclidean distances are those of |a|^2 + |b|^2 - 2 a b, which takes less memory and loses digits
            of small distances: "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist", or
            "use_mm_for_euclid_dist_if_necessary" (also None), beyond 25 vectors.

    Raises:
        ArgumentError: ``p`` is negative or nan, or the mode is unknown.
        ShapeError: an argument has fewer than two dimensions, or the vectors differ in size.
        DtypeError: the tensors are not floating.
    """
    for name, x in (("x1", x1), ("x2", x2)):
        if not is_floating(wrap(x).dtype):
            raise DtypeError(f"cdist: {name} has dtype {wrap(x).dtype}; expected a floating dtype: convert it with .float()")
    p, (a, b) = as_number("cdist", "p", p), common_floating("cdist", x1, x2)
    if not p >= 0.0:
        raise ArgumentError(f"cdist: p={p}; expected zero or a positive number")
    mode = "use_mm_for_euclid_dist_if_necessary" if compute_mode is None else compute_mode
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArgumentError(f"cdist: compute_mode={compute_mode!r}; expected one of {', '.join(map(repr, _MODES))}, or None")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(f"cdist: x1 has shape {tuple(a.shape)}, x2 {tuple(b.shape)}; expected (..., n, d) and (..., m, d)")
    by_product = _MODES[mode] if _MODES[mode] is not None else max(a.shape[-2], b.shape[-2]) > 25
    return _distances(a, b, p, p == 2.0 and by_product)


@in_accumulator
def _distances(a, b, p, by_product):
    if not by_product:
        is_empty = not a.shape[-1]  # then the norm of any order is 0; that of infinite order refuses to choose
        return norm(a.unsqueeze(-2) - b.unsqueeze(-3), 1.0 if is_empty else p, -1)
    of_a, of_b = (reductions.sum(x * x, -1, True) for x in (a, b))
    return sqrt_0(clamp_min(of_a + of_b.mT - 2.0 * (a @ b.mT), 0.0))
