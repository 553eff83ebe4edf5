"""Dropout.  The mask is drawn with Philox by ``random_bernoulli``."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, fused, make_tensor
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError
from gpunet.launch.kernel import Geometry, elementwise_grid, kernel
from gpunet.launch.memory import empty
from gpunet.launch.random import default_generator, random_bernoulli
from gpunet.ops.face import as_probability, public
from gpunet.ops.in_place import in_place

__all__ = ["dropout"]


@kernel("dropout.cu", outputs=1, types={"mask": "bool"})
def dropout_apply(y, x, mask, *, scale):
    """y = x * scale where mask holds, 0 elsewhere: forward and backward alike."""
    numpy.multiply(x, mask, out=y)
    y *= y.dtype.type(scale)


@dropout_apply.geometry
def _(y, x, mask, *, scale):
    return Geometry(elementwise_grid(y.size), 256, (numpy.int64(y.size), float(scale)))


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


@public(out=False)
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p); the identity if not training.

    Raises:
        ArgumentError: p is not in [0, 1].
        DtypeError: the tensor is not floating.
    """
    p = as_probability("dropout", "p", p)
    if not training or p == 0.0:
        return input
    if not is_floating(input.dtype):
        raise DtypeError(f"dropout: the tensor has dtype {input.dtype}; expected a floating dtype: convert it with .float()")
    return _drop_in_place(input, p) if inplace else _drop(input, p)


def _drop(x: Tensor, p: float) -> Tensor:
    mask = empty(x.shape, numpy.bool_, x.array)
    default_generator.fill(random_bernoulli, mask, probability=1.0 - p)
    return masked_scale(x, make_tensor(mask), scale=0.0 if p == 1.0 else 1.0 / (1.0 - p))


_drop_in_place = in_place(_drop, "dropout(inplace=True)")
