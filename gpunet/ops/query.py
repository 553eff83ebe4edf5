"""Functions that ask for dtypes and sizes, without launches."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import dtypes
from gpunet.errors import ShapeError
from gpunet.ops.face import public

__all__ = [
    "can_cast", "is_complex", "is_floating_point", "is_nonzero", "is_tensor", "numel", "promote_types"
]  # fmt: skip


def promote_types(type1: Any, type2: Any) -> numpy.dtype[Any]:
    """The dtype that holds the numbers of both: a floating one wins, and float16 with bfloat16 gives float32."""
    return dtypes.promote(dtypes.as_dtype(type1), dtypes.as_dtype(type2))


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a number of one dtype is converted to the other in place: to one of the same or of a higher category."""
    return dtypes.category(dtypes.as_dtype(from_)) <= dtypes.category(dtypes.as_dtype(to))


def is_tensor(obj: Any) -> bool:
    """Whether an object is a tensor."""
    return isinstance(obj, Tensor)


@public(out=False)
def is_floating_point(input: Any) -> bool:
    """Whether the dtype of a tensor is floating."""
    return dtypes.is_floating(input.dtype)


@public(out=False)
def is_complex(input: Any) -> bool:
    """False: there are no complex tensors."""
    return False


@public("is_nonzero", out=False)
def is_nonzero(input: Any) -> bool:
    """Whether the only element of a tensor is not 0.

    Raises:
        ShapeError: it does not have exactly one element.
    """
    if input.array.size != 1:
        raise ShapeError(f"is_nonzero: the tensor has shape {tuple(input.shape)}; expected one element")
    return bool(input)


@public(out=False)
def numel(input: Any) -> int:
    """The number of elements of a tensor."""
    return int(input.array.size)
