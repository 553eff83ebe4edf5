"""Products of groups of rows or columns with a matrix for each group, as mixtures of experts need them."""

from __future__ import annotations

import itertools
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.dtypes import accumulator, as_dtype, int32, is_floating, is_half
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.broadcast import cast
from gpunet.ops.join import cat, stack
from gpunet.ops.matmul import matmul

__all__ = ["grouped_mm"]


@casts("half")
def grouped_mm(mat_a: Any, mat_b: Any, *, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """The products of each group of ``mat_a`` and of ``mat_b``; of an operand with two dimensions, ``offs`` tells the groups.

    ========== ========== =========== ============================
    mat_a      mat_b      result      groups are
    ========== ========== =========== ============================
    (m, k)     (g, k, n)  (m, n)      rows of mat_a
    (g, m, k)  (k, n)     (m, n)      columns of mat_b
    (m, k)     (k, n)     (g, m, n)   parts of the inner dimension
    (g, m, k)  (g, k, n)  (g, m, n)   matrices
    ========== ========== =========== ============================

    Args:
        offs: int32 (g,): where each group ends, ascending; what is behind the last end gives 0.  Read on the CPU.
        bias: None, as in PyTorch.
        out_dtype: of the result; with float32, products of halves are not rounded.

    Raises:
        ShapeError: the shapes do not fit.
        ArgumentError: ``offs`` is missing, or beside matrices, or does not ascend; or a bias.
        DtypeError: the dtypes differ, or are not floating, or ``offs`` is not int32.
    """
    a, b = wrap(mat_a, "grouped_mm"), wrap(mat_b, "grouped_mm")
    if bias is not None:
        raise ArgumentError("grouped_mm: bias is not supported, as in PyTorch; add it to the result")
    if not is_floating(a.dtype) or a.dtype != b.dtype:
        raise DtypeError(f"grouped_mm: tensors of {a.dtype} and {b.dtype}; expected one floating dtype")
    if a.ndim not in (2, 3) or b.ndim not in (2, 3) or a.shape[-1] != b.shape[-2] or (a.ndim == b.ndim == 3 and len(a) != len(b)):
        raise ShapeError(f"grouped_mm: mat_a has shape {tuple(a.shape)}, mat_b {tuple(b.shape)}; expected (g,) m, k and (g,) k, n")
    if (offs is None) != (a.ndim == b.ndim == 3):
        raise ArgumentError(f"grouped_mm: offs={offs!r} for mat_a of {a.ndim} and mat_b of {b.ndim} dimensions; expected it with 2")
    dtype = a.dtype if out_dtype is None else as_dtype(out_dtype)
    wide = is_half(a.dtype) and dtype == accumulator(a.dtype)
    a, b = (cast(x, dtype=dtype) if wide else x for x in (a, b))
    found = matmul(a, b) if offs is None else _by_groups(a, b, wrap(offs, "grouped_mm"))
    return found if found.dtype == dtype else cast(found, dtype=dtype)


def _by_groups(a: Tensor, b: Tensor, offs: Tensor) -> Tensor:
    size = a.shape[0] if b.ndim == 3 else b.shape[1] if a.ndim == 3 else a.shape[1]
    count = len(b) if b.ndim == 3 else len(a) if a.ndim == 3 else offs.array.size
    if offs.dtype != int32:
        raise DtypeError(f"grouped_mm: offs has dtype {offs.dtype}; expected int32")
    if tuple(offs.shape) != (count,):
        raise ShapeError(f"grouped_mm: offs has shape {tuple(offs.shape)}; expected ({count},), an end for each group")
    ends = [int(end) for end in offs.tolist()]
    bounds = [0, *ends]
    if bounds != sorted(bounds) or bounds[-1] > size:
        raise ArgumentError(f"grouped_mm: offs={ends}; expected ascending numbers of at most {size}")
    spans = [slice(first, last) for first, last in itertools.pairwise(bounds)]
    if a.ndim == b.ndim:
        return stack([matmul(a[:, span], b[span]) for span in spans])
    rest = size - bounds[-1]
    if b.ndim == 3:
        parts = [matmul(a[span], b[group]) for group, span in enumerate(spans)]
        return cat([*parts, a.new_zeros(rest, b.shape[2])])
    parts = [matmul(a[group], b[:, span]) for group, span in enumerate(spans)]
    return cat([*parts, a.new_zeros(a.shape[1], rest)], 1)
