"""Copies and conversions of dtype and device; queries of a tensor's size and layout."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, method, primitive
from gpunet.autograd.tensor_types import TensorType, tensor_type, type_name
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Device
from gpunet.backend.formats import check_memory_format
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.tape import warn_user
from gpunet.ops.broadcast import cast
from gpunet.ops.dims import normalize_dim
from gpunet.ops.face import public
from gpunet.ops.shape import alias

# ---- copies and conversions -------------------------------------------------------------------------------------------


@primitive(name="clone", takes_complex=True)
def _clone(x):
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    return out


_clone.derivatives(x=lambda g: g)


@public("clone", out=False, takes_complex=True)
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy; the gradient passes through.  ``memory_format`` has no effect on values."""
    check_memory_format("clone", memory_format)
    result: Tensor = _clone(input)
    return result


@method("contiguous")
def contiguous(x: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its array is C-contiguous, else a copy."""
    check_memory_format("contiguous", memory_format)
    return x if x.array.flags.c_contiguous else _clone(x)


@primitive(name="to", takes_complex=True)
def _move(x, *, source, target):
    return move_to_device(x.array, target)


_move.derivatives(x=lambda g, source, target: _move(g, source=target, target=source))


@method("to")
def to(
    x: Tensor, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, copy: bool = False,
    memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Convert device, dtype or both: ``x.to("cuda")``, ``x.to(gpunet.float64)``, ``x.to("cuda", gpunet.float64)``, ``x.to(other)``.

    Differentiable unless the dtype is of integers or booleans.  Returns x itself if nothing changes, unless ``copy``.  A complex
    tensor becomes real with a warning: its imaginary part is discarded.

    Args:
        args: a device, a dtype, both, or another tensor; then ``non_blocking`` and ``copy``.
        non_blocking: accepted as in PyTorch; copies are ordered with the launches that use them.
        memory_format: accepted as in PyTorch; it changes no value.

    Raises:
        DeviceError: the device is not available.
        DtypeError: there is no such dtype.
    """
    if args:
        named = {"device": device, "dtype": dtype}
        for name, value in _targets(args).items():
            if value is None:
                continue
            if named[name] is not None:
                raise ArgumentError(f"to: got {name}={named[name]!r} beside {value!r}; pass one of them")
            named[name] = value
        device, dtype = named["device"], named["dtype"]
        copy = _flags(args) or copy
    if not (isinstance(copy, bool) and isinstance(non_blocking, bool)):
        raise ArgumentError(f"to: non_blocking={non_blocking!r}, copy={copy!r}; expected True or False")
    check_memory_format("to", memory_format)
    result = x
    if device is not None and (target := Device(device)) != x.device:
        result = _move(result, source=x.device, target=target)
    if dtype is not None and (dtype := dtypes.as_dtype(dtype)) != x.array.dtype:
        result = cast(real_if_narrowed(result, dtype), dtype=dtype)
    return _clone(x) if copy and result is x else result


def real_if_narrowed(x: Tensor, dtype: numpy.dtype[Any]) -> Tensor:
    """The real part of a complex tensor that becomes one of a real dtype, with a warning; another tensor as it is."""
    if not dtypes.discards_imaginary(x.array.dtype, dtype):
        return x
    warn_user("Casting complex values to real discards the imaginary part; take x.real to say so", UserWarning)
    part: Any = x
    return part.real


def _targets(args: tuple[Any, ...]) -> dict[str, Any]:
    """The device and the dtype among the positional arguments of ``to``."""
    first, second = args[0], args[1] if len(args) > 1 else None
    if isinstance(first, Tensor):
        return {"device": first.device, "dtype": first.array.dtype}
    if _is_dtype(first):
        return {"dtype": first}
    if (first is not None and not isinstance(first, (str, int, Device))) or isinstance(first, bool):
        raise DtypeError(f"to: {first!r} has type {type(first).__name__}; expected a device, a dtype or a tensor")
    if isinstance(second, bool):
        raise DtypeError(f"to: dtype={second!r} has type bool; expected a dtype: pass non_blocking= and copy= by keyword")
    return {"device": first, "dtype": second}


def _flags(args: tuple[Any, ...]) -> bool:
    """The value of ``copy`` among the positional arguments of ``to``; before it stands ``non_blocking``."""
    flags = args[1:] if isinstance(args[0], Tensor) or _is_dtype(args[0]) else args[2:]
    if len(flags) > 2 or not all(isinstance(flag, bool) for flag in flags):
        raise ArgumentError(f"to{args!r}: expected a device, a dtype or a tensor, then non_blocking and copy, which are booleans")
    return flags[1] if len(flags) == 2 else False


def _is_dtype(value: Any) -> bool:
    return isinstance(value, (numpy.dtype, type)) or (isinstance(value, str) and dtypes.is_name(value))


@method("cpu")
def cpu(x: Tensor, memory_format: Any = None) -> Tensor:
    """``x.to("cpu")``."""
    return to(x, device="cpu", memory_format=memory_format)


@method("cuda")
def cuda(x: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
    """``x.to("cuda")``, or to the GPU that ``device`` names or numbers.

    Raises:
        DeviceError: it is not a GPU, or not available.
    """
    target = Device("cuda" if device is None else device)
    if target.type != "cuda":
        raise ArgumentError(f"cuda: device={device!r}; expected a GPU, such as 0 or 'cuda:0'")
    return to(x, device=target, memory_format=memory_format)


def _converter(name: str, dtype: str) -> None:
    def convert(x: Tensor, memory_format: Any = None) -> Tensor:
        return to(x, dtype=getattr(dtypes, dtype), memory_format=memory_format)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"Convert to {dtype}."
    method(name)(convert)


for _name, _dtype in {
    "half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64", "bool": "bool", "byte": "uint8",
    "char": "int8", "short": "int16", "int": "int32", "long": "int64", "cfloat": "complex64", "cdouble": "complex128",
}.items():  # fmt: skip
    _converter(_name, _dtype)


@method("type_as")
def type_as(x: Tensor, other: Tensor) -> Tensor:
    """Convert to the dtype and device of ``other``."""
    if not isinstance(other, Tensor):
        raise DtypeError(f"type_as: other has type {type(other).__name__}; expected a tensor")
    return to(x, other)


@method("type")
def type_(x: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, such as "torch.FloatTensor"; with ``dtype``, convert to it.

    Args:
        dtype: a dtype, a type such as ``gpunet.FloatTensor``, or its name.
        non_blocking: see :func:`to`.

    Raises:
        DtypeError: there is no such type.
    """
    if dtype is None:
        return type_name(x)
    if isinstance(dtype, (str, TensorType)):
        found, device = tensor_type(dtype)
        return to(x, dtype=found, device=device)
    return to(x, dtype=dtype)


@method("as_subclass")
def as_subclass(x: Tensor, cls: Any) -> Tensor:
    """The tensor as one of a subclass of Tensor, which shares its memory and its place in the graph.

    Raises:
        DtypeError: ``cls`` is no subclass of Tensor.
    """
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise DtypeError(f"as_subclass: cls={cls!r}; expected a subclass of Tensor")
    found: Tensor = cls.__new__(cls)
    found._assign(alias(x))
    return found


@method("module_load")
def module_load(x: Tensor, other: Tensor, assign: bool = False) -> Tensor:
    """The tensor that ``load_state_dict`` puts in the place of x: ``x.copy_(other)``, or ``other`` to ``assign``, detached."""
    if not isinstance(other, Tensor):
        raise DtypeError(f"module_load: other has type {type(other).__name__}; expected a tensor")
    target: Any = x.detach()
    return other.detach() if assign else target.copy_(other).detach()


# ---- queries ------------------------------------------------------------------------------------------------------------


def _existing_dim(x: Tensor, dim: Any, function: str) -> int:
    if not x.ndim:
        raise OutOfRangeError(f"{function}: dim={dim} for a tensor without dimensions")
    return normalize_dim(dim, x.ndim, function)


@method("size")
def size(x: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of dimension ``dim``."""
    return x.shape if dim is None else x.array.shape[_existing_dim(x, dim, "size")]


@method("stride")
def stride(x: Tensor, dim: int | None = None) -> Any:
    """The steps in memory along all dimensions, or along ``dim``, as numbers of elements."""
    shape = x.array.shape
    if x.array.size:
        strides = tuple(step // x.array.itemsize for step in x.array.strides)
    else:  # NumPy's of empty arrays are not defined
        strides = tuple(math.prod(max(n, 1) for n in shape[axis + 1 :]) for axis in range(len(shape)))
    return strides if dim is None else strides[_existing_dim(x, dim, "stride")]


@method("numel nelement")
def numel(x: Tensor) -> int:
    """The number of elements."""
    return int(x.array.size)


@method("dim ndimension")
def dim(x: Tensor) -> int:
    """The number of dimensions."""
    return int(x.array.ndim)


@method("element_size")
def element_size(x: Tensor) -> int:
    """The number of bytes of an element."""
    return int(x.array.itemsize)


@method("data_ptr")
def data_ptr(x: Tensor) -> int:
    """The address of the first element."""
    return devices.pointer(x.array)


@method("get_device")
def get_device(x: Tensor) -> int:
    """The number of the tensor's GPU; -1 on the CPU."""
    return -1 if x.device.index is None else int(x.device.index)


@method("is_contiguous")
def is_contiguous(x: Tensor, memory_format: Any = None) -> bool:
    """Whether the array is C-contiguous."""
    check_memory_format("is_contiguous", memory_format)
    return bool(x.array.flags.c_contiguous)


@method("is_signed")
def is_signed(x: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return bool(dtypes.limits(x.array.dtype)[0] < 0)

