"""Copies and conversions of dtype and device; queries of a tensor's size and layout."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import COPY, Tensor, method, primitive
from gpunet.backend import dtypes
from gpunet.backend.devices import Device
from gpunet.errors import DtypeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.ops.broadcast import cast
from gpunet.ops.dims import normalize_dim


@primitive(methods="clone")
def clone(x):
    """A copy; the gradient passes through."""
    out = empty(x.shape, x.dtype, x.array)
    COPY(out, x.array)
    return out


clone.derivatives(x=lambda g: g)


@method("contiguous")
def _contiguous_method(x: Tensor) -> Tensor:
    """The tensor itself if its array is C-contiguous, else a copy."""
    return x if x.array.flags.c_contiguous else clone(x)


@primitive(name="to")
def _move(x, *, source, target):
    return move_to_device(x.array, target)


_move.derivatives(x=lambda g, source, target: _move(g, source=target, target=source))


@method("to")
def to(x: Tensor, *args: Any, device: Any = None, dtype: Any = None, copy: bool = False) -> Tensor:
    """Convert device, dtype or both: ``x.to("cuda")``, ``x.to(gpunet.float64)``, ``x.to(other)``.

    Differentiable.  Returns x itself if nothing changes, unless ``copy``.

    Raises:
        DeviceError: the device is not available.
        DtypeError: there is no such dtype.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, (Device, str)) and not _is_dtype_name(arg):
            device = arg
        elif isinstance(arg, bool):
            continue  # non_blocking of PyTorch, which has no effect here
        else:
            dtype = arg
    result = x
    if device is not None and Device(device) != x.device:
        result = _move(result, source=x.device, target=Device(device))
    if dtype is not None and (dtype := dtypes.as_dtype(dtype)) != x.dtype:
        result = cast(result, dtype=dtype)
    return clone(x) if copy and result is x else result


def _is_dtype_name(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    try:
        dtypes.as_dtype(name)
    except DtypeError:
        return False
    return True


@method("cpu")
def cpu(x: Tensor) -> Tensor:
    """``x.to("cpu")``."""
    return to(x, "cpu")


@method("cuda")
def cuda(x: Tensor, index: int | None = None) -> Tensor:
    """``x.to("cuda")``, or ``x.to("cuda:index")``."""
    return to(x, "cuda" if index is None else f"cuda:{index}")


def _converter(name: str, dtype: str) -> None:
    def convert(x: Tensor) -> Tensor:
        return to(x, dtype=getattr(dtypes, dtype))

    convert.__name__ = name
    convert.__doc__ = f"Convert to {dtype}."
    method(name)(convert)


for _name, _dtype in {
    "half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64", "bool": "bool", "byte": "uint8",
    "char": "int8", "short": "int16", "int": "int32", "long": "int64",
}.items():  # fmt: skip
    _converter(_name, _dtype)


@method("type_as")
def type_as(x: Tensor, other: Tensor) -> Tensor:
    """Convert to the dtype of ``other``."""
    return to(x, dtype=other.dtype)


@method("size")
def size(x: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of dimension ``dim``."""
    return x.shape if dim is None else x.shape[normalize_dim(dim, x.ndim, "size")]


@method("numel nelement")
def numel(x: Tensor) -> int:
    """The number of elements."""
    return int(x.array.size)


@method("dim")
def dim(x: Tensor) -> int:
    """The number of dimensions."""
    return x.ndim


@method("is_contiguous")
def is_contiguous(x: Tensor) -> bool:
    """Whether the array is C-contiguous."""
    return bool(x.array.flags.c_contiguous)
