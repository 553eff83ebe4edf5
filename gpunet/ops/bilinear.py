"""The bilinear form of two vectors."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, ShapeError
from gpunet.ops import reduce as reductions
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.matmul import matmul

__all__ = ["bilinear"]


@casts("cuda: widest")
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """y[o] = x1 weight[o] x2 + bias[o].

    Args:
        input1: (..., i).
        input2: (..., j), with the same leading dimensions.
        weight: (o, i, j).
        bias: (o,) or None.

    Returns:
        (..., o).

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: the dtypes differ, or are not floating.
    """
    x1, x2, weight = wrap(input1), wrap(input2), wrap(weight)
    given = [x1, x2, weight, *([] if bias is None else [wrap(bias)])]
    if not is_floating(x1.dtype) or any(t.dtype != x1.dtype for t in given):
        raise DtypeError(f"bilinear: tensors of dtypes {', '.join(str(t.dtype) for t in given)}; expected one floating dtype")
    if weight.ndim != 3 or not x1.ndim or x1.shape[:-1] != x2.shape[:-1] or (x1.shape[-1], x2.shape[-1]) != weight.shape[1:]:
        shapes = f"{tuple(x1.shape)}, {tuple(x2.shape)} and weight {tuple(weight.shape)}"
        raise ShapeError(f"bilinear: inputs {shapes}; expected (..., i), (..., j) and weight (o, i, j)")
    if bias is not None and given[3].shape != weight.shape[:1]:
        raise ShapeError(f"bilinear: bias has shape {tuple(given[3].shape)}; expected ({weight.shape[0]},)")
    return _bilinear(x1, x2, weight, None if bias is None else given[3])


@in_accumulator
def _bilinear(x1, x2, weight, bias):
    x2, weight = (t if t.dtype == x1.dtype else cast(t, dtype=x1.dtype) for t in (x2, weight))
    o, i, j = weight.shape
    lead = x1.shape[:-1]
    products = matmul(x1.reshape(-1, i), weight.permute(1, 0, 2).reshape(i, o * j)).reshape(-1, o, j)
    y = reductions.sum(products * x2.reshape(-1, 1, j), 2)
    return (y if bias is None else y + bias).reshape((*lead, o))
