"""PyTorch's old types of tensors on a GPU: ``cuda.FloatTensor(2, 3)``, ``isinstance(x, cuda.LongTensor)``."""

from __future__ import annotations

from typing import Any

from gpunet.autograd.tensor import Tensor, array_of_call, make_tensor
from gpunet.autograd.tensor_types import TensorType
from gpunet.backend import dtypes

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor",
    "LongTensor", "ShortTensor",
]  # fmt: skip


class GpuTensorType(TensorType):
    """The type of the types: they create tensors on the current GPU."""

    def __call__(self, *data: Any, device: Any = "cuda") -> Tensor:
        return make_tensor(array_of_call(data, device, dtypes.as_dtype(self.dtype_name), f"cuda.{self.__name__}"))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.array.dtype.name == self.dtype_name and instance.is_cuda


class BFloat16Tensor(metaclass=GpuTensorType):
    dtype_name = "bfloat16"


class BoolTensor(metaclass=GpuTensorType):
    dtype_name = "bool"


class ByteTensor(metaclass=GpuTensorType):
    dtype_name = "uint8"


class CharTensor(metaclass=GpuTensorType):
    dtype_name = "int8"


class DoubleTensor(metaclass=GpuTensorType):
    dtype_name = "float64"


class FloatTensor(metaclass=GpuTensorType):
    dtype_name = "float32"


class HalfTensor(metaclass=GpuTensorType):
    dtype_name = "float16"


class IntTensor(metaclass=GpuTensorType):
    dtype_name = "int32"


class LongTensor(metaclass=GpuTensorType):
    dtype_name = "int64"


class ShortTensor(metaclass=GpuTensorType):
    dtype_name = "int16"
