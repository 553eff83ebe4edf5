"""Storages: the memory behind tensors as a vector, in PyTorch's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import uint8
from gpunet.errors import DtypeError, OutOfRangeError

__all__ = ["TypedStorage", "UntypedStorage", "is_storage"]


class TypedStorage:
    """The memory that a tensor is a view of, as elements of its dtype; ``x.storage()`` makes one.

    It shares the memory: a change of one changes the other.

    Attributes:
        dtype, device: as of the tensor.
    """

    def __init__(self, vector: Tensor) -> None:
        self._vector = vector

    @property
    def dtype(self) -> Any:
        return self._vector.dtype

    @property
    def device(self) -> Device:
        return self._vector.device

    @property
    def is_cuda(self) -> bool:
        return bool(self._vector.is_cuda)

    def __len__(self) -> int:
        return len(self._vector)

    def size(self) -> int:
        """The number of elements."""
        return len(self)

    def element_size(self) -> int:
        """The bytes of an element."""
        return int(self._vector.element_size())

    def nbytes(self) -> int:
        """The number of bytes."""
        return len(self) * self.element_size()

    def data_ptr(self) -> int:
        """The address of the first element."""
        return int(self._vector.data_ptr())

    def untyped(self) -> UntypedStorage:
        """The same memory as bytes."""
        return storage_of(self._vector, UntypedStorage)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self._vector[index])
        self._check(index)
        return self._vector[index].item()

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._check(index)
        self._vector[index] = value

    def _check(self, index: Any) -> None:
        if not isinstance(index, int):
            kind = type(index).__name__
            raise DtypeError(f"{type(self).__name__}: index {index!r} has type {kind}; expected an integer or a slice")
        if not -len(self) <= index < len(self):
            raise OutOfRangeError(f"{type(self).__name__}: index {index} of {len(self)} elements")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        values: list[Any] = self._vector.tolist()
        return values

    def fill_(self, value: Any) -> TypedStorage:
        """Set all elements."""
        self._vector.fill_(value)
        return self

    def copy_(self, source: TypedStorage, non_blocking: bool = False) -> TypedStorage:
        """Copy the elements of another storage of the same size."""
        self._vector.copy_(source._vector)
        return self

    def clone(self) -> TypedStorage:
        """A copy."""
        return type(self)(self._vector.clone())

    def cpu(self) -> TypedStorage:
        """The storage itself if it is on the CPU, else a copy there."""
        return self if not self.is_cuda else type(self)(self._vector.cpu())

    def cuda(self, device: Any = None, non_blocking: bool = False) -> TypedStorage:
        """A copy on a GPU, or the storage itself if it is there."""
        moved = self._vector.cuda(device)
        return self if moved is self._vector else type(self)(moved)

    def __repr__(self) -> str:
        lines = [f" {value}" for value in self.tolist()]
        return "\n".join([*lines, f"[{type(self).__name__}(dtype={self.dtype}, device={self.device}) of size {len(self)}]"])


class UntypedStorage(TypedStorage):
    """The memory that a tensor is a view of, as bytes; ``x.untyped_storage()`` makes one."""

    def untyped(self) -> UntypedStorage:
        return self


def is_storage(obj: Any) -> bool:
    """Whether an object is a storage."""
    return isinstance(obj, TypedStorage)


S = TypeVar("S", bound=TypedStorage)


def storage_of(x: Tensor, kind: type[S]) -> S:
    """All memory of the array that x is a view of."""
    owner, dtype = devices.owner_of(x.array), uint8 if kind is UntypedStorage else x.dtype
    count = owner.nbytes // dtype.itemsize
    vector = make_tensor(devices.strided_view(owner, 0, (count,), (dtype.itemsize,), dtype))
    vector._version = x._version  # a change of the storage is one of the tensor
    return kind(vector)
