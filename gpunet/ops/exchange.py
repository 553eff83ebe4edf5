"""Tensors that share the memory of other objects: asarray, frombuffer, and DLPack in both directions."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, make_tensor, wrap
from gpunet.autograd.data import array_of_data, plain_array
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError
from gpunet.ops.convert import clone
from gpunet.ops.creation import tensor
from gpunet.ops.face import as_integer, check_flag

__all__ = ["asarray", "from_dlpack", "frombuffer", "to_dlpack"]

def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool | None = None
) -> Tensor:
    """A tensor of any data: a tensor, an array, an object with DLPack or Python's buffers, numbers, nested lists.

    Args:
        dtype, device: None keeps those of the data; numbers and lists get the usual ones.
        copy: None shares memory where that is possible, False requires it, True copies.
        requires_grad: whether the result requires grad; None leaves a tensor as it is. A leaf that is not copied is itself changed;
            a tensor in a graph stays there, or is detached.

    Raises:
        ArgumentError: ``copy=False``, and the data must be copied.
        DtypeError: the data are not numbers.
    """
    check_flag("asarray", "copy", copy, takes_none=True)
    check_flag("asarray", "requires_grad", requires_grad, takes_none=True)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    source = _shared(obj, wanted)
    if source is None:
        if copy is False:
            raise ArgumentError(f"asarray: copy=False of {type(obj).__name__}, which has no memory to share; pass copy=None")
        return tensor(array_of_data(obj, wanted, "asarray"), device=device, requires_grad=bool(requires_grad))
    found = source.to(device=device, dtype=wanted)
    if copy is False and found is not source:
        raise ArgumentError(f"asarray: copy=False, but the conversion to {found.dtype} on {found.device} copies; pass copy=None")
    if copy and found is source:
        found = clone(found)
    if requires_grad is None:
        return found
    return found.requires_grad_(requires_grad) if found.is_leaf or requires_grad else found.detach()


def _shared(obj: Any, dtype: Any) -> Tensor | None:
    """A tensor that shares the memory of an object; None if that has none."""
    if isinstance(obj, Tensor) or devices.is_array(obj):
        return wrap(obj, "asarray")
    if isinstance(obj, numpy.generic):
        return None
    if hasattr(obj, "__dlpack__"):
        return from_dlpack(obj)
    try:
        memoryview(obj)
    except TypeError:
        return None
    return frombuffer(obj, dtype=get_default_dtype() if dtype is None else dtype)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A vector in the memory of an object with Python's buffers, such as a bytearray or an array.array.

    A buffer that cannot be written, such as bytes, is shared, too: a change in place of the tensor is refused.

    Args:
        count: the number of elements; all behind ``offset`` if negative.
        offset: bytes before the first element.

    Raises:
        ArgumentError: the buffer is empty, has gaps, or has not so many elements.
        DtypeError: the object has no buffer.
    """
    of = dtypes.as_dtype(dtype)
    number, skipped = as_integer("frombuffer", "count", count), as_integer("frombuffer", "offset", offset)
    try:
        view = memoryview(buffer)
    except TypeError:
        raise DtypeError(f"frombuffer: buffer has type {type(buffer).__name__}; expected one such as a bytearray") from None
    if not view.c_contiguous:
        raise ArgumentError("frombuffer: the elements of the buffer do not follow each other; pass a copy, bytearray(buffer)")
    size = view.nbytes
    if not number or not size:
        raise ArgumentError(f"frombuffer: a buffer of {size} bytes, count={number}; expected one element or more")
    if not 0 <= skipped < size:
        raise ArgumentError(f"frombuffer: offset={skipped}; expected 0 to {size - 1}, a byte of the buffer")
    if number < 0 and (size - skipped) % of.itemsize:
        raise ArgumentError(
            f"frombuffer: {size - skipped} bytes behind offset={skipped}; expected a multiple of {of.itemsize}, the size of {of}"
        )
    if number > (size - skipped) // of.itemsize:
        raise ArgumentError(f"frombuffer: count={number} elements of {of}, offset={skipped}; the buffer has {size} bytes")
    result = make_tensor(numpy.frombuffer(buffer, of, number, skipped))
    return result.requires_grad_() if requires_grad else result


# ---- DLPack -----------------------------------------------------------------------------------------------------------


class _Capsule:
    """What a capsule of :func:`to_dlpack` was made from, in the form that array libraries ask for."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor that shares the memory of a tensor of another library, on the CPU or a GPU.

    Args:
        ext_tensor: an object with ``__dlpack__``, such as an array of NumPy, CuPy, JAX or PyTorch, or a capsule of
            :func:`to_dlpack` of a tensor on the CPU.
        device: move the result there, which copies it.
        copy: True copies, False raises if ``device`` needs a copy.

    Raises:
        DtypeError: the object has no ``__dlpack__``, or its dtype is none of tensors.
        ArgumentError: ``copy=False``, and the tensor is on another device.
    """
    check_flag("from_dlpack", "copy", copy, takes_none=True)
    is_capsule = type(ext_tensor).__name__ == "PyCapsule"
    if not (is_capsule or hasattr(ext_tensor, "__dlpack__")):
        raise DtypeError(f"from_dlpack: ext_tensor has type {type(ext_tensor).__name__}; expected an object with __dlpack__")
    given = _Capsule(ext_tensor) if is_capsule else ext_tensor
    try:
        array = devices.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DtypeError(f"from_dlpack: a {type(ext_tensor).__name__} that is not taken: {error}") from None
    found = make_tensor(plain_array(array, "from_dlpack"))
    placed = found if device is None else found.to(device=device)
    if copy is False and placed is not found:
        raise ArgumentError(f"from_dlpack: copy=False, but the tensor is on {found.device}, not on {device}; pass copy=None")
    return clone(placed) if copy and placed is found else placed


def to_dlpack(tensor: Tensor) -> Any:
    """A capsule of the memory of a tensor, for one call of another library's ``from_dlpack``.

    Raises:
        DtypeError: it is no tensor, or DLPack has no such dtype.
        GradientError: the tensor requires grad; detach it first.
    """
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"to_dlpack: got a {type(tensor).__name__}; expected a tensor")
    method: Any = tensor.__dlpack__
    return method()
