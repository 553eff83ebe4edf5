"""Methods that concern the memory of a tensor: detach_, resize_, set_, pin_memory, DLPack, ..."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import COPY, Tensor, bump_version, method
from gpunet.backend import devices
from gpunet.backend.dtypes import as_dtype
from gpunet.backend.formats import contiguous_format, preserve_format
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.tape import graph_break_on_read, warn_user
from gpunet.ops.face import check_flag, sizes_of


@method("detach_")
def detach_(self: Tensor) -> Tensor:
    """Take the tensor out of the graph, so that it is a leaf that needs no gradient.

    Raises:
        InPlaceError: the tensor is a view; use detach().
    """
    if self._view_version is not None:
        raise InPlaceError("detach_ on a view; use .detach(), which returns a tensor outside of the graph")
    self._node, self._index, self._requires_grad = None, 0, False
    return self


@method("resize_")
def resize_(self: Tensor, *sizes: Any, size: Any = None, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape: its first elements in memory stay, new ones are uninitialised.

    Args:
        memory_format: None leaves a tensor of the same shape as it is; with ``contiguous_format`` its elements follow each other in
            memory.

    Raises:
        ArgumentError: another memory format.
        GradientError: the tensor requires grad.
        ShapeError: a size is negative, or the tensor is a view with gaps.
    """
    return _resized("resize_", self, sizes_of("resize_", sizes, size=size), memory_format)


def _resized(function: str, x: Tensor, shape: tuple[int, ...], memory_format: Any) -> Tensor:
    if memory_format not in (None, contiguous_format):
        raise ArgumentError(f"{function}: memory_format={memory_format!r}; expected None or gpunet.contiguous_format")
    if shape and min(shape) < 0:
        raise ShapeError(f"{function}: size={shape}; expected 0 or more in each dimension")
    if x._requires_grad:
        raise GradientError(f"{function} on a tensor that requires grad; compute a new tensor with .reshape()")
    if shape == x.array.shape and (memory_format is None or x.array.flags.c_contiguous):
        return x
    count, source = math.prod(shape), x.array
    if not (source.flags.c_contiguous or source.flags.f_contiguous):
        raise ShapeError(f"{function} on a view with gaps between its elements; use .clone() first")
    flat = (source if source.flags.c_contiguous else source.T).reshape(-1)  # in the order of memory
    owner, offset = owner_of(source)
    if count <= source.size:
        x.array = flat[:count].reshape(shape)
    # as after a resize to a smaller size; of an empty view the place in the memory of its owner is not known
    elif source.size and owner.flags.c_contiguous and offset + count * source.itemsize <= owner.nbytes:
        strides = [source.itemsize * math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        x.array = devices.strided_view(owner, offset, shape, tuple(strides), source.dtype)
    else:
        array = empty((count,), source.dtype, source)
        kept = min(count, source.size)
        COPY(array[:kept], flat[:kept])
        x.array = array.reshape(shape)
    bump_version(x)
    return x


@method("resize_as_")
def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """Give the tensor the shape of another (see ``resize_``).

    Raises:
        DtypeError: the other is no tensor.
    """
    if not isinstance(the_template, Tensor):
        raise DtypeError(f"resize_as_: the_template has type {type(the_template).__name__}; expected a tensor")
    is_any = memory_format is preserve_format  # of the other tensor, which is that of all tensors here
    return _resized("resize_as_", self, the_template.array.shape, contiguous_format if is_any else memory_format)


@method("resize")
def resize(self: Tensor, *sizes: Any) -> Tensor:
    """``view(sizes)`` of the contiguous tensor; deprecated, as in PyTorch.

    Raises:
        ShapeError: the number of elements differs.
    """
    warn_user("resize() is deprecated, as in PyTorch: use view(), or resize_()")
    shape = sizes_of("resize", sizes, size=None)
    if math.prod(shape) != self.array.size or min(shape, default=0) < 0:
        raise ShapeError(f"resize: size={shape} of a tensor of shape {tuple(self.shape)}; expected as many elements: use resize_()")
    found: Tensor = self.contiguous().view(shape)
    return found


@method("resize_as")
def resize_as(self: Tensor, tensor: Tensor) -> Tensor:
    """``resize(tensor.shape)``; deprecated, as in PyTorch.

    Raises:
        DtypeError: the other is no tensor.
        ShapeError: the number of elements differs.
    """
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"resize_as: tensor has type {type(tensor).__name__}; expected a tensor")
    return resize(self, tuple(tensor.shape))


@method("set_")
def set_(self: Tensor, source: Tensor | None = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """Let the tensor share the memory, shape and device of ``source``; without it, be empty.

    Raises:
        ArgumentError: an offset, a size or a stride is passed; set the tensor to a view.
        DtypeError: source is no tensor of the same dtype.
        GradientError: the tensor requires grad.
    """
    if storage_offset or size is not None or stride is not None:
        raise ArgumentError("set_: storage_offset, size and stride are not supported; pass a view of the source")
    if source is not None and not isinstance(source, Tensor):
        raise DtypeError(f"set_: source has type {type(source).__name__}; expected a tensor")
    if self._requires_grad:
        raise GradientError("set_ on a tensor that requires grad; use .data = ..., or copy_() under no_grad()")
    if source is None:
        self.array = empty((0,), self.array.dtype, self.array)
    elif source.array.dtype != self.array.dtype:
        raise DtypeError(f"set_: source has dtype {source.dtype}; expected that of the tensor, {self.dtype}")
    else:
        self.array = source.array
    bump_version(self)
    return self


@method("storage_offset")
def storage_offset(self: Tensor) -> int:
    """Return the number of elements before the first one in the array that the tensor is a view of."""
    return owner_of(self.array)[1] // self.array.itemsize if self.array.size else 0


@method("storage")
def storage(self: Tensor) -> Any:
    """The memory that the tensor is a view of, as elements of its dtype: a :class:`gpunet.TypedStorage`."""
    from gpunet.ops.storage import TypedStorage, storage_of  # rarely needed

    return storage_of(self, TypedStorage)


@method("untyped_storage")
def untyped_storage(self: Tensor) -> Any:
    """The memory that the tensor is a view of, as bytes: a :class:`gpunet.UntypedStorage`."""
    from gpunet.ops.storage import UntypedStorage, storage_of

    return storage_of(self, UntypedStorage)


def owner_of(array: Any) -> tuple[Any, int]:
    """The array that an array is a view of, and its offset in that in bytes."""
    owner = devices.owner_of(array)
    return owner, devices.pointer(array) - devices.pointer(owner) if array.size else 0


@method("is_set_to")
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Return whether another tensor is the same memory, of the same shape, strides and dtype."""
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"is_set_to: tensor has type {type(tensor).__name__}; expected a tensor")
    mine, other = self.array, tensor.array
    are_alike = (mine.dtype, mine.shape, mine.strides) == (other.dtype, other.shape, other.strides)
    return are_alike and self.device == tensor.device and devices.pointer(mine) == devices.pointer(other)


@method("const_data_ptr")
def const_data_ptr(self: Tensor) -> int:
    """The address of the first element, for code that only reads."""
    return devices.pointer(self.array)


@method("dim_order")
def dim_order(self: Tensor) -> tuple[int, ...]:
    """The dimensions in the order of their strides, the longest first; equal ones keep their order."""
    strides: tuple[int, ...] = self.stride()
    return tuple(sorted(range(self.array.ndim), key=lambda dim: -strides[dim]))


@method("__dlpack__")
def _dlpack(self: Tensor, **options: Any) -> Any:
    """A capsule of the memory, for ``from_dlpack`` of another library.

    Raises:
        GradientError: the tensor requires grad; detach it first.
        DtypeError: a tensor of bfloat16 on the CPU, which NumPy does not pass on.
    """
    if self.dtype.name == "bfloat16" and not self.is_cuda:
        raise DtypeError("__dlpack__ of a tensor of bfloat16 on the CPU, which NumPy does not pass on; convert it with .float()")
    given = {name: value for name, value in options.items() if value is not None}
    return _exchanged(self).__dlpack__(**given)


@method("__dlpack_device__")
def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """The kind of the device and its number, as DLPack has them."""
    kind, number = _exchanged(self.detach()).__dlpack_device__()
    return int(kind), int(number)


def _exchanged(x: Tensor) -> Any:
    """The array of a tensor that another library is about to share."""
    graph_break_on_read("DLPack")
    if x.requires_grad:
        raise GradientError("__dlpack__ on a tensor that requires grad; use .detach()")
    return x.array if x.is_cuda else x.numpy()


@method("pin_memory")
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """Return the tensor: copies to a GPU use pinned memory where they need it."""
    if self.is_cuda:
        raise ArgumentError(f"pin_memory on a tensor on {self.device}; expected one on the CPU")
    return self


@method("is_pinned")
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Return False: copies to a GPU use pinned memory of their own."""
    return False


@method("share_memory_")
def share_memory_(self: Tensor) -> Tensor:
    """Return the tensor: other processes receive a copy, see ``is_shared``."""
    return self


@method("is_shared")
def is_shared(self: Tensor) -> bool:
    """Return whether other processes see changes of the tensor: False."""
    return False


@method("record_stream")
def record_stream(self: Tensor, stream: Any) -> None:
    """Do nothing: memory that is in use on a stream of ``with cuda.stream()`` is waited for at the end of the block."""


@method("to_dense")
def to_dense(self: Tensor, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
    """Return the tensor, converted to ``dtype`` if that is given: all tensors are dense.

    Args:
        masked_grad: no effect.

    Raises:
        DtypeError: ``dtype`` is no dtype.
    """
    check_flag("to_dense", "masked_grad", masked_grad, takes_none=True)
    return self if dtype is None else self.to(as_dtype(dtype))
