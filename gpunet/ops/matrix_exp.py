"""Exponentials of matrices."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.face import public
from gpunet.ops.factorize import check_matrix, eye_like
from gpunet.ops.matmul import matmul

__all__ = ["matrix_exp"]

#: Degree of the Taylor polynomial, whose remainder is below rounding in float64 for matrices of norm 1/2.
_DEGREE = 16


@public("matrix_exp", names=dict.fromkeys(("input", "x", "a"), "A"), autocast="cpu: float32")
def matrix_exp(A: Any) -> Tensor:  # noqa: N803
    """The exponential of square matrices: the Taylor polynomial of A / 2^s, squared s times.

    The number s is that of the matrix of the largest norm in the batch, which the host reads.
    """
    return _exponential(check_matrix("matrix_exp", wrap(A, "matrix_exp"), is_square=True, name="A"))


@in_accumulator
def _exponential(x: Tensor) -> Tensor:
    eye = eye_like(x, x.array.shape[-1])
    norm = float(x.detach().abs().sum(-2).max()) if x.array.size else 0.0
    squarings = max(math.ceil(math.log2(norm)) + 1, 0) if 0.0 < norm < math.inf else 0
    scaled = x * 2.0**-squarings
    value = scaled * (1.0 / _DEGREE) + eye
    for k in range(_DEGREE - 1, 0, -1):
        value = matmul(scaled, value) * (1.0 / k) + eye
    for _ in range(squarings):
        value = matmul(value, value)
    return value
