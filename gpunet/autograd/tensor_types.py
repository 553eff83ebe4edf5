"""PyTorch's old types of tensors: ``FloatTensor(2, 3)``, ``isinstance(x, LongTensor)``, which name a dtype, and Variable."""

from __future__ import annotations

from typing import Any

from gpunet.autograd.mode import get_default_dtype
from gpunet.autograd.tensor import Tensor, array_of_call, make_tensor
from gpunet.backend import dtypes
from gpunet.errors import ArgumentError, DtypeError

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor",
    "LongTensor", "ShortTensor",
]  # fmt: skip


class TensorType(type):
    """The type of the types: they create tensors as ``Tensor`` does, with another dtype, and their tensors are of class Tensor."""

    dtype_name: str

    def __call__(cls, *data: Any, device: Any = None) -> Tensor:
        return make_tensor(array_of_call(data, device, dtypes.as_dtype(cls.dtype_name), cls.__name__))

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.array.dtype.name == cls.dtype_name and not instance.is_cuda


class BFloat16Tensor(metaclass=TensorType):
    dtype_name = "bfloat16"


class BoolTensor(metaclass=TensorType):
    dtype_name = "bool"


class ByteTensor(metaclass=TensorType):
    dtype_name = "uint8"


class CharTensor(metaclass=TensorType):
    dtype_name = "int8"


class DoubleTensor(metaclass=TensorType):
    dtype_name = "float64"


class FloatTensor(metaclass=TensorType):
    dtype_name = "float32"


class HalfTensor(metaclass=TensorType):
    dtype_name = "float16"


class IntTensor(metaclass=TensorType):
    dtype_name = "int32"


class LongTensor(metaclass=TensorType):
    dtype_name = "int64"


class ShortTensor(metaclass=TensorType):
    dtype_name = "int16"


class _VariableType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_VariableType):
    """A tensor: ``Variable(data, requires_grad=False)`` returns a tensor of the memory of ``data``, outside of its graph.

    Args:
        volatile: refused, if true: it once disabled the graph.

    Raises:
        DtypeError: ``data`` is no tensor.
        ArgumentError: volatile is true; use no_grad().
    """

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Tensor:  # type: ignore[misc]
        if volatile:
            raise ArgumentError("Variable: volatile=True; expected False: compute under `with gpunet.no_grad():` instead")
        if data is not None and not isinstance(data, Tensor):
            raise DtypeError(f"Variable: data has type {type(data).__name__}; expected a tensor: use gpunet.tensor(data)")
        result = make_tensor(array_of_call((), None, get_default_dtype(), "Variable")) if data is None else data.detach()
        return result.requires_grad_() if requires_grad else result


_TYPES: dict[str, TensorType] = {name: globals()[name] for name in __all__}


_COMPLEX = {"complex64": "ComplexFloatTensor", "complex128": "ComplexDoubleTensor"}  # which PyTorch only prints


def type_name(x: Tensor) -> str:
    """Return the name that PyTorch gives to the type of a tensor, such as "torch.cuda.FloatTensor"."""
    kind, device = x.array.dtype.name, x.device.type
    named = {found.dtype_name: name for name, found in _TYPES.items()} | _COMPLEX
    name = named.get(kind, f"{kind.capitalize()}Tensor")
    return f"torch.{name}" if device == "cpu" else f"torch.{device}.{name}"


def tensor_type(name: str | TensorType) -> tuple[Any, str | None]:
    """Return the dtype and the device (None for the tensor's own) of a type, or of its name.

    Raises:
        DtypeError: there is no such type.
    """
    if isinstance(name, TensorType):
        return dtypes.as_dtype(name.dtype_name), None
    *prefix, last = name.split(".")
    if last in _TYPES and prefix in ([], ["torch"], ["gpunet"], ["torch", "cuda"], ["gpunet", "cuda"]):
        return dtypes.as_dtype(_TYPES[last].dtype_name), "cuda" if "cuda" in prefix else "cpu" if prefix else None
    if dtypes.is_name(name):
        return dtypes.as_dtype(name), None
    raise DtypeError(f"type: {name!r}; expected a dtype, or a name such as 'torch.FloatTensor'")
