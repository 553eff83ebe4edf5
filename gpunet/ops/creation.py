"""Creation of tensors: from data, constant, ranges."""

from __future__ import annotations

import functools
import inspect
import math
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from gpunet import autograd
from gpunet.autograd import COPY, FILL, Tensor, ignore_fp_errors, make_tensor, method, wrap
from gpunet.autograd.data import array_of_data, convert_number, number_dtype, plain_array
from gpunet.autograd.tensor import array_of_call
from gpunet.backend import devices, dtypes
from gpunet.backend.formats import check_layout, check_memory_format
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import move_to_device
from gpunet.launch.tape import active, constant
from gpunet.ops.dims import MAX_ELEMENTS
from gpunet.ops.face import as_integer, check_flag, sizes_of, write_out

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_file", "from_numpy", "full", "full_like", "linspace",
    "logspace", "ones", "ones_like", "range", "scalar_tensor", "tensor", "zeros", "zeros_like",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


# ---- from data ----------------------------------------------------------------------------------------------------------


@ignore_fp_errors
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, an array or a tensor.

    Args:
        dtype: None keeps the dtype of an array, and turns Python floats into the default dtype and integers into int64.
        device: None keeps the device of a tensor or CuPy array; everything else goes to the default device.
        pin_memory: accepted as in PyTorch; copies to a GPU use pinned memory where they need it.

    Raises:
        ShapeError: the nested lists have different lengths.
        DtypeError: the data are not numeric, or ``requires_grad`` is set for an integer tensor.
    """
    dtype = None if dtype is None else dtypes.as_dtype(dtype)
    check_flag("tensor", "pin_memory", pin_memory)
    if isinstance(data, Tensor):
        data = data.array
        device = devices.of(data) if device is None else device
    if devices.is_array(data):
        source = plain_array(data, "tensor")
        device = devices.of(source) if device is None and type(source) is not numpy.ndarray else device
    else:
        source = array_of_data(data, dtype, "tensor")
    tape, device = active.tape, _resolve_device(device)
    if devices.is_array(data) and tape is not None:  # recorded: each replay copies again
        placed = move_to_device(source, device)
        copy = allocate(placed.shape, source.dtype if dtype is None else dtype, device)
        COPY(copy.array, placed)
        return copy if requires_grad is False else copy.requires_grad_(requires_grad)
    placed = devices.move(source, device)
    array = devices.cast(placed, source.dtype if dtype is None else dtype)
    result = make_tensor(constant(array))
    return result if requires_grad is False else result.requires_grad_(requires_grad)


def as_tensor(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor that shares memory with ``data`` if it is an array or tensor and needs no conversion, else a copy."""
    if isinstance(data, Tensor) or devices.is_array(data):
        return wrap(data, "as_tensor").to(device=device, dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: numpy.ndarray) -> Tensor:
    """A tensor that shares memory with a NumPy array; one of foreign byte order is converted."""
    if not isinstance(array, numpy.ndarray):
        raise DtypeError(f"from_numpy: got a {type(array).__name__}; expected a numpy.ndarray")
    return make_tensor(plain_array(array, "from_numpy"))


def from_file(
    filename: Any, shared: bool | None = None, size: int | None = 0, *, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool | None = False,
) -> Tensor:  # fmt: skip
    """A vector whose memory is a file on the CPU.

    Args:
        filename: the path; with ``shared`` the file is created, or made longer, if need be.
        shared: changes of the tensor change the file.  Otherwise they stay in memory.
        size: the number of elements.
        dtype: None: the default dtype.
        layout: "strided", or None.
        pin_memory: accepted as in PyTorch; copies to a GPU use pinned memory where they need it.

    Raises:
        ArgumentError: the file has fewer elements, or the device is not the CPU.
    """
    of = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    check_layout("from_file", layout)
    size = as_integer("from_file", "size", size)
    if size < 0:
        raise ArgumentError(f"from_file: size={size}; expected the number of elements")
    if device is not None and devices.Device(device).type != "cpu":
        raise ArgumentError(f"from_file: device={device!r}; expected the CPU: move the result with .to(device)")
    path = os.fspath(filename)
    available = os.path.getsize(path) // of.itemsize if os.path.exists(path) else 0
    if not shared and not os.path.exists(path):
        raise ArgumentError(f"from_file: there is no file {path!r}; with shared=True it is created")
    if not shared and available < size:
        raise ArgumentError(f"from_file: {path!r} has {available} elements of {of}; expected at least {size}")
    if shared and available < size:
        with open(path, "ab") as file:
            file.truncate(size * of.itemsize)
    array = numpy.memmap(path, of, "r+" if shared else "c", shape=(size,)) if size else numpy.empty(0, of)
    return from_numpy(array).requires_grad_(requires_grad)


# ---- what creating functions have in common ---------------------------------------------------------------------------


def _resolve_device(device: Any) -> devices.Device:
    return devices.default_device() if device is None else devices.Device(device)


def allocate(shape: tuple[int, ...], dtype: Any, device: Any) -> Tensor:
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    make = devices.empty if active.tape is None else active.tape.empty
    return make_tensor(make(shape, dtype, _resolve_device(device)))


def from_values(values: numpy.ndarray, dtype: Any, device: Any) -> Tensor:
    """A tensor of values computed from Python numbers; a recorded step treats it as a constant."""
    array = values.astype(autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype), order="C")
    return make_tensor(constant(devices.move(array, _resolve_device(device))))


def creates(function: F) -> F:
    """Decorator: give a function that creates a tensor the options that all of them have in PyTorch.

    ``out`` receives the result and determines its dtype and device; ``requires_grad`` makes it a leaf; ``layout`` is
    ``strided``; ``pin_memory`` and ``memory_format`` have no effect on values.
    """
    name, signature = function.__name__, inspect.signature(function)

    @functools.wraps(function)
    def call(
        *args: Any, out: Any = None, layout: Any = None, requires_grad: bool = False, pin_memory: bool = False,
        memory_format: Any = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        if layout is not None:
            check_layout(name, layout)
        check_flag(name, "pin_memory", pin_memory, takes_none=True)
        if memory_format is not None:
            check_memory_format(name, memory_format)
        if out is not None:
            if not isinstance(out, Tensor):
                raise DtypeError(f"{name}: out has type {type(out).__name__}; expected a tensor")
            if options.get("dtype") not in (None, out.dtype):
                raise DtypeError(f"{name}: dtype={options['dtype']}, but out has dtype {out.dtype}; expected the same")
            options |= {"dtype": out.dtype, "device": out.device}
        result = function(*args, **options)
        if out is not None:
            result = write_out(name, out, result)
        return result if requires_grad is None or requires_grad is False else result.requires_grad_(requires_grad)

    extra = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation="Any") for key, default in _COMMON]
    call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


_COMMON = (("out", None), ("layout", None), ("requires_grad", False), ("pin_memory", False), ("memory_format", None))


def shape_of(function: str, args: tuple[Any, ...], size: Any) -> tuple[int, ...]:
    """The sizes of a call f(2, 3), f((2, 3)) or f(size=(2, 3)).

    Raises:
        DtypeError: a size is not an integer.
        ShapeError: a size is negative.
    """
    if not args and size is None:
        raise ArgumentError(f"{function}: size is missing; pass integers, or size=(), which is a number")
    if size is not None and not isinstance(size, (tuple, list)):
        raise DtypeError(f"{function}: size={size!r} has type {type(size).__name__}; expected a tuple of integers")
    sizes = sizes_of(function, args, size=size)
    if sizes and min(sizes) < 0:
        raise ShapeError(f"{function}: size={sizes}; expected 0 or more in each dimension")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise ShapeError(f"{function}: size={sizes}; expected at most {MAX_ELEMENTS} elements")
    return sizes


def number_of(function: str, name: str, value: Any, takes_complex: bool = False) -> Any:
    """A Python or NumPy number, or the value of a tensor without dimensions, as a Python number.

    Raises:
        DtypeError: ``value`` is no number, or an integer of more than 64 bits; or complex, unless ``takes_complex``.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, complex) and takes_complex:
        return complex(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DtypeError(f"{function}: {name}={value} is too large for an integer of 64 bits")
    if isinstance(value, (bool, int, float)):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, (numpy.number, numpy.bool_)) and dtypes.is_numeric(value.dtype) and not isinstance(value, complex):
        return number_of(function, name, value.item(), takes_complex)
    raise DtypeError(f"{function}: {name}={value!r} has type {type(value).__name__}; expected a number")


def count_of(function: str, name: str, value: Any) -> int:
    """A number of elements, 0 or more."""
    count = as_integer(function, name, value)
    if not 0 <= count <= MAX_ELEMENTS:
        raise ShapeError(f"{function}: {name}={count}; expected 0 .. {MAX_ELEMENTS}")
    return count


# ---- constant -----------------------------------------------------------------------------------------------------------


@creates
def empty(*args: Any, size: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """An uninitialised tensor."""
    return allocate(shape_of("empty", args, size), dtype, device)


@creates
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor filled with the number ``fill_value``; without ``dtype``, an int gives int64, a bool bool, 1j a complex dtype.

    Raises:
        DtypeError: the dtype cannot hold the number.
    """
    return _full("full", shape_of("full", (), size), number_of("full", "fill_value", fill_value, True), dtype, device)


def _full(function: str, shape: tuple[int, ...], value: Any, dtype: Any, device: Any) -> Tensor:
    if dtype is None and not isinstance(value, float):
        dtype = number_dtype(value)
    result = allocate(shape, dtype, device)
    if value not in (0, 1):  # which every dtype holds
        value = convert_number(value, result.array.dtype, function, "fill_value")
    FILL(result.array, value=value)
    return result


@creates
def zeros(*args: Any, size: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros."""
    return _full("zeros", shape_of("zeros", args, size), 0.0, dtype, device)


@creates
def ones(*args: Any, size: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones."""
    return _full("ones", shape_of("ones", args, size), 1.0, dtype, device)


def takes_like(function: F) -> F:
    """Decorator of a function (input, *, dtype, device), which takes input's shape, and its dtype and device by default."""
    name = function.__name__

    @functools.wraps(function)
    def call(input: Tensor, *args: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        if not isinstance(input, Tensor):
            if not devices.is_array(input):
                raise DtypeError(f"{name}: input has type {type(input).__name__}; expected a tensor")
            input = wrap(input, name)
        dtype = input.array.dtype if dtype is None else dtype
        result: Tensor = function(input, *args, dtype=dtype, device=input.device if device is None else device, **options)
        return result

    return call  # type: ignore[return-value]


@creates
@takes_like
def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An uninitialised tensor with the shape, dtype and device of ``input``."""
    return allocate(input.array.shape, dtype, device)


@creates
@takes_like
def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros with the shape, dtype and device of ``input``."""
    return _full("zeros_like", input.array.shape, 0.0, dtype, device)


@creates
@takes_like
def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones with the shape, dtype and device of ``input``."""
    return _full("ones_like", input.array.shape, 1.0, dtype, device)


@creates
@takes_like
def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The number ``fill_value`` with the shape, dtype and device of ``input``."""
    return _full("full_like", input.array.shape, number_of("full_like", "fill_value", fill_value, True), dtype, device)


# ---- ranges -------------------------------------------------------------------------------------------------------------


@creates
def arange(*args: Any, start: Any = None, end: Any = None, step: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, ..., end excluded: ``arange(end)``, ``arange(start, end)`` or ``arange(start, end, step)``.

    int64 if all of them are integers.  For an integer dtype, start and step are cut to integers first, as in PyTorch.

    Raises:
        ArgumentError: step is 0, or has the wrong sign.
    """
    given = {"start": start, "end": end, "step": step}
    names = ("end",) if len(args) == 1 and start is None else ("start", "end", "step")
    if len(args) == 1 and end is not None and start is None:
        names = ("start",)
    if len(args) > len(names) or any(given[name] is not None for name, _ in zip(names, args)):
        raise ArgumentError(f"arange: {len(args)} positional arguments beside {[n for n, v in given.items() if v is not None]}")
    given.update(zip(names, args))
    if given["end"] is None:
        raise ArgumentError("arange: end is missing")
    defaults = {"start": 0, "step": 1}
    low, high, by = (number_of("arange", name, defaults.get(name) if v is None else v) for name, v in given.items())
    if dtype is None:
        dtype = autograd.get_default_dtype() if any(isinstance(v, float) for v in (low, high, by)) else dtypes.int64
    dtype = dtypes.as_dtype(dtype)
    if dtypes.is_boolean(dtype) or dtypes.is_complex(dtype):
        raise DtypeError(f"arange: dtype={dtype}; expected real numbers")
    if not all(map(math.isfinite, (low, high, by))):
        raise ArgumentError(f"arange: start={low}, end={high}, step={by}; expected finite numbers")
    if by == 0 or (dtypes.is_integer(dtype) and int(by) == 0):
        raise ArgumentError(f"arange: step={by}; expected a nonzero {'integer' if dtypes.is_integer(dtype) else 'number'}")
    if (high - low) * by < 0:
        raise ArgumentError(f"arange: start={low}, end={high}, step={by}; expected a step from start towards end")
    if dtype == dtypes.int64:
        low, high, by = int(low), int(high), int(by)
    is_exact = all(isinstance(v, int) for v in (low, high, by))
    count = max(-((low - high) // by) if is_exact else math.ceil((high - low) / by), 0)
    if count > MAX_ELEMENTS:
        raise ShapeError(f"arange: {count} elements; expected at most {MAX_ELEMENTS}")
    if dtypes.is_integer(dtype):
        low, by = int(low), int(by)
        for end_point in (low, low + by * (count - 1)) if count else ():
            convert_number(end_point, dtype, "arange")
        return from_values(low + by * numpy.arange(count, dtype=numpy.int64), dtype, device)
    return from_values(low + by * numpy.arange(count, dtype=numpy.float64), dtype, device)


@creates
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``steps`` evenly spaced numbers from start to end, both included.

    For an integer dtype, start and end are cut to integers first, and then each number, as in PyTorch.
    """
    low, high = number_of("linspace", "start", start), number_of("linspace", "end", end)
    count = count_of("linspace", "steps", steps)
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if dtypes.is_integer(dtype):
        low, high = convert_number(low, dtype, "linspace", "start"), convert_number(high, dtype, "linspace", "end")
    with numpy.errstate(all="ignore"):
        return from_values(_spaced(low, high, count), dtype, device)


def _spaced(low: Any, high: Any, count: int) -> numpy.ndarray:
    """Evenly spaced numbers, counted from the nearer end, as PyTorch computes them."""
    step, at = numpy.float64(high - low) / (count - 1) if count > 1 else 0.0, numpy.arange(count)
    return numpy.where(at < max(count // 2, 2 - count), low + step * at, high - step * (count - 1 - at))


@creates
def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """base^start, ..., base^end: ``steps`` powers of evenly spaced exponents, computed in float64."""
    low, high = number_of("logspace", "start", start), number_of("logspace", "end", end)
    count, number = count_of("logspace", "steps", steps), float(number_of("logspace", "base", base))
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if dtypes.is_integer(dtype) and count != 1:  # a single exponent is not converted, as in PyTorch
        low, high = convert_number(low, dtype, "logspace", "start"), convert_number(high, dtype, "logspace", "end")
    with numpy.errstate(all="ignore"):
        return from_values(numpy.power(number, _spaced(low, high, count)), dtype, device)


@creates
def range(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, ... up to end, which is included; :func:`arange` is what Python's range is.

    Raises:
        ArgumentError: end is missing, or the step is 0 or has the wrong sign.
    """
    if end is None:
        raise ArgumentError("range: end is missing; expected range(start, end, step=1)")
    low, high, by = number_of("range", "start", start), number_of("range", "end", end), number_of("range", "step", step)
    warnings.warn("range is deprecated, as in PyTorch: Python's range leaves out its end; use arange", UserWarning, stacklevel=3)
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not all(map(math.isfinite, (low, high, by))) or by == 0 or (high - low) * by < 0:
        raise ArgumentError(f"range: start={low}, end={high}, step={by}; expected finite numbers, a step towards end")
    if dtypes.is_integer(dtype):
        low, high, by = int(low), int(high), int(by)
        if not by:
            raise ArgumentError(f"range: step={step} for {dtype}; expected a nonzero integer")
    count = math.floor((high - low) / by) + 1
    if count > MAX_ELEMENTS:
        raise ShapeError(f"range: {count} elements; expected at most {MAX_ELEMENTS}")
    return from_values(low + by * numpy.arange(count), dtype, device)


@creates
def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor without dimensions with the number ``s``, of the default dtype."""
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _full("scalar_tensor", (), number_of("scalar_tensor", "s", s, True), dtype, device)


@creates
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    rows = count_of("eye", "n", n)
    return from_values(numpy.eye(rows, rows if m is None else count_of("eye", "m", m)), dtype, device)


# ---- methods that create tensors like a tensor --------------------------------------------------------------------------


def _new(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method ``x.new_zeros(...)`` of a function such as :func:`zeros`: dtype and device are those of x by default."""

    def call(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        dtype = self.dtype if dtype is None else dtype
        return function(*args, dtype=dtype, device=self.device if device is None else device, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``{function.__name__}`` with the dtype and device of the tensor by default."
    return method(name)(call)


new_empty, new_full = _new("new_empty", empty), _new("new_full", full)
new_ones, new_tensor, new_zeros = _new("new_ones", ones), _new("new_tensor", tensor), _new("new_zeros", zeros)


@method("new")
def new(self: Tensor, *data: Any, device: Any = None) -> Tensor:
    """``Tensor(*data)`` with the dtype and device of the tensor: sizes, or one list of numbers."""
    return make_tensor(array_of_call(data, self.device if device is None else device, self.dtype, "new"))
