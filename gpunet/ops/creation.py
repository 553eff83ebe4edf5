"""Creation of tensors: from data, constant, ranges, random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet import autograd
from gpunet.autograd import COPY, FILL, Tensor
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import move_to_device
from gpunet.launch.random import (
    Generator,
    default_generator,
    random_bernoulli,
    random_integers,
    random_normal,
    random_uniform,
)
from gpunet.launch.tape import active, constant

__all__ = [
    "arange", "as_tensor", "bernoulli", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace",
    "ones", "ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor", "zeros",
    "zeros_like",
]  # fmt: skip


def _resolve_device(device: Any) -> devices.Device:
    return devices.default_device() if device is None else devices.Device(device)


def tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, an array or a tensor.

    Args:
        dtype: None keeps the dtype of an array, and turns Python floats into the default dtype and integers into int64.
        device: None keeps the device of a tensor or CuPy array; everything else goes to the default device.

    Raises:
        ShapeError: the nested lists have different lengths.
        DtypeError: the data are not numeric, or ``requires_grad`` is set for an integer tensor.
    """
    dtype = None if dtype is None else dtypes.as_dtype(dtype)
    if isinstance(data, Tensor):
        data = data.array
        device = devices.of(data) if device is None else device
    if devices.is_array(data):
        source = data
        device = devices.of(data) if device is None and type(data) is not numpy.ndarray else device
    else:
        if isinstance(data, (list, tuple)) and any(isinstance(v, Tensor) for v in data):
            data = [v.tolist() if isinstance(v, Tensor) else v for v in data]
        try:
            source = numpy.asarray(data)
        except ValueError as error:
            raise ShapeError(f"tensor: the nested lists have different lengths: {error}") from None
        if dtype is None and dtypes.is_floating(source.dtype) and not isinstance(data, numpy.generic):
            source = source.astype(autograd.get_default_dtype())
        if source.size == 0 and dtype is None:
            source = source.astype(autograd.get_default_dtype())
    if not dtypes.is_numeric(source.dtype):
        raise DtypeError(f"tensor: data of dtype {source.dtype}; expected numbers or booleans")
    tape, device = active.tape, _resolve_device(device)
    if devices.is_array(data) and tape is not None:  # recorded: each replay copies again
        placed = move_to_device(source, device)
        copy = _allocate(placed.shape, source.dtype if dtype is None else dtype, device)
        COPY(copy.array, placed)
        return copy.requires_grad_() if requires_grad else copy
    placed = devices.move(source, device)
    array = devices.cast(placed, source.dtype if dtype is None else dtype)
    return Tensor(constant(array), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor that shares memory with ``data`` if it is an array or tensor and needs no conversion, else a copy."""
    if isinstance(data, Tensor) or devices.is_array(data):
        result = data if isinstance(data, Tensor) else Tensor(data)
        return result.to(device=device, dtype=dtype)
    return tensor(data, dtype, device)


def from_numpy(array: numpy.ndarray) -> Tensor:
    """A tensor that shares memory with a NumPy array."""
    if not isinstance(array, numpy.ndarray):
        raise DtypeError(f"from_numpy: got a {type(array).__name__}; expected a numpy.ndarray")
    return Tensor(array)


def _parse_shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if any(isinstance(n, float) or n < 0 for n in sizes):
        raise ShapeError(f"shape {sizes}; expected integers, 0 or more")
    return tuple(int(n) for n in sizes)


def _allocate(shape: tuple[int, ...], dtype: Any, device: Any) -> Tensor:
    dtype = autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    make = devices.empty if active.tape is None else active.tape.empty
    return Tensor(make(shape, dtype, _resolve_device(device)))


def _from_values(values: numpy.ndarray, dtype: Any, device: Any) -> Tensor:
    """A tensor of values computed from Python numbers; a recorded step treats it as a constant."""
    array = values.astype(autograd.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype), order="C")
    return Tensor(constant(devices.move(array, _resolve_device(device))))


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor."""
    result = _allocate(_parse_shape(size), dtype, device)
    return result.requires_grad_() if requires_grad else result


def full(
    size: Sequence[int], fill_value: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor filled with ``fill_value``; without ``dtype``, an int gives int64 and a bool gives bool."""
    if dtype is None and isinstance(fill_value, (bool, int)):
        dtype = dtypes.bool if isinstance(fill_value, bool) else dtypes.int64
    result = _allocate(_parse_shape(tuple(size)), dtype, device)
    FILL(result.array, value=fill_value)
    return result.requires_grad_() if requires_grad else result


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return full(_parse_shape(size), 0.0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return full(_parse_shape(size), 1.0, dtype, device, requires_grad)


def _make_like(make: Any) -> Any:
    def like(input: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        options = {"dtype": input.dtype if dtype is None else dtype, "requires_grad": requires_grad}
        return make(input.shape, *args, device=input.device if device is None else device, **options)

    like.__name__ = like.__qualname__ = f"{make.__name__}_make_like"
    like.__doc__ = f"``{make.__name__}`` with the shape, dtype and device of ``input``."
    return like


empty_like, zeros_like, ones_like, full_like = map(_make_like, (empty, zeros, ones, full))


def arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, ..., end excluded; int64 if all three are integers."""
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ArgumentError("arange: step=0; expected a nonzero number")
    integers = all(isinstance(v, (int, numpy.integer)) for v in (start, end, step))
    values = numpy.arange(start, end, step)
    return _from_values(values, (dtypes.int64 if integers else None) if dtype is None else dtype, device)


def linspace(start: float, end: float, steps: int, dtype: Any = None, device: Any = None) -> Tensor:
    """``steps`` evenly spaced numbers from start to end, both included."""
    values = numpy.linspace(start, end, steps)
    return _from_values(values, dtype, device)


def eye(n: int, m: int | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    return _from_values(numpy.eye(n, m), dtype, device)


# ---- random -------------------------------------------------------------------------------------------------------------


def rand(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Samples of the uniform distribution on [0, 1)."""
    result = _allocate(_parse_shape(size), dtype, device)
    bits = dtypes.significand_bits(result.dtype)
    (generator or default_generator).fill(random_uniform, result.array, low=0.0, high=1.0, bits=bits)
    return result.requires_grad_() if requires_grad else result


def randn(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Samples of the standard normal distribution."""
    result = _allocate(_parse_shape(size), dtype, device)
    (generator or default_generator).fill(random_normal, result.array, mean=0.0, std=1.0)
    return result.requires_grad_() if requires_grad else result


rand_like, randn_like = map(_make_like, (rand, randn))


def randint(
    low: int, high: Any = None, size: Any = None, device: Any = None, generator: Generator | None = None
) -> Tensor:
    """Uniform random integers in [low, high), int64: ``randint(high, size)`` or ``randint(low, high, size)``.

    Raises:
        ArgumentError: the range is empty.
    """
    if size is None:
        low, high, size = 0, low, high
    if not low < high:
        raise ArgumentError(f"randint: low={low}, high={high}; expected low < high")
    result = _allocate(_parse_shape(tuple(size)), dtypes.int64, device)
    (generator or default_generator).fill(random_integers, result.array, low=int(low), high=int(high))
    return result


def randperm(n: int, device: Any = None, generator: Generator | None = None) -> Tensor:
    """A random permutation of 0 .. n - 1, int64: the argsort of n random 62-bit integers."""
    keys = _allocate((n,), dtypes.int64, device)
    (generator or default_generator).fill(random_integers, keys.array, low=0, high=2**62)
    return keys.argsort(0) if n else keys


def bernoulli(
    probability: float, size: Sequence[int], device: Any = None, generator: Generator | None = None
) -> Tensor:
    """Random booleans, True with the given probability."""
    if not 0.0 <= probability <= 1.0:
        raise ArgumentError(f"bernoulli: probability={probability}; expected a number from 0 to 1")
    result = _allocate(tuple(size), dtypes.bool, device)
    (generator or default_generator).fill(random_bernoulli, result.array, probability=float(probability))
    return result
