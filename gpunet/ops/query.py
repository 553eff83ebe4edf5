"""Questions about dtypes, types and sizes, without launches; and the default type."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, set_default_dtype
from gpunet.autograd.tensor_types import tensor_type
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.broadcast import result_dtype
from gpunet.ops.face import public

__all__ = [
    "can_cast", "get_default_device", "is_floating_point", "is_nonzero", "is_signed", "is_tensor", "numel", "promote_types",
    "result_type", "set_default_tensor_type", "typename",
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


@public(out=False, takes_complex=True)
def is_floating_point(input: Any) -> bool:
    """Whether the dtype of a tensor is floating."""
    return dtypes.is_floating(input.dtype)


@public("is_nonzero", out=False, takes_complex=True)
def is_nonzero(input: Any) -> bool:
    """Whether the only element of a tensor is not 0.

    Raises:
        ShapeError: it does not have exactly one element.
    """
    if input.array.size != 1:
        raise ShapeError(f"is_nonzero: the tensor has shape {tuple(input.shape)}; expected one element")
    return bool(input)


@public(out=False, takes_complex=True)
def numel(input: Any) -> int:
    """The number of elements of a tensor."""
    return int(input.array.size)


@public("is_signed", out=False, takes_complex=True)
def is_signed(input: Tensor) -> bool:
    """Return whether the dtype has negative numbers."""
    return not dtypes.is_boolean(input.dtype) and float(dtypes.limits(input.dtype)[0]) < 0.0


def result_type(*values: Any, **named: Any) -> numpy.dtype[Any]:
    """Return the dtype of the sum of two tensors or numbers: ``result_type(a, b)``.

    PyTorch's names of its arguments are accepted: tensor and other, scalar and tensor, scalar1 and scalar2, tensor1 and tensor2.

    Raises:
        ArgumentError: not two values, or an unknown name.
        DtypeError: a value is no tensor and no number.
    """
    names = {"tensor", "other", "scalar", "scalar1", "scalar2", "tensor1", "tensor2", "x1", "x2"}
    given = (*values, *named.values())
    if len(given) != 2 or not named.keys() <= names:
        raise ArgumentError(f"result_type: got {len(given)} values; expected two tensors or numbers")
    for value in given:
        if not isinstance(value, (Tensor, bool, int, float, complex)):
            raise DtypeError(f"result_type: got a {type(value).__name__}; expected tensors or numbers")
    return result_dtype(*given)


def typename(obj: Any) -> str:
    """Return the name of the type of an object; of a tensor, the name that PyTorch gives it."""
    if isinstance(obj, Tensor):
        name: Any = obj.type()
        return str(name)
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def get_default_device() -> devices.Device:
    """Return the device of new tensors."""
    return devices.default_device()


def set_default_tensor_type(t: Any) -> None:
    """Set the dtype, and the device, of new tensors by an old type, such as ``cuda.FloatTensor`` or its name.

    Raises:
        DtypeError: the type is not floating, or unknown.
    """
    dtype, device = tensor_type(t)
    if not dtypes.is_floating(dtype):
        raise DtypeError(f"set_default_tensor_type({t!r}): expected a floating type, such as 'torch.FloatTensor'")
    set_default_dtype(dtype)
    devices.set_default_device(device or "cpu")
