"""Type promotion, broadcasting, and single-launch helpers for elementwise ops; the primitives that the engine needs.

Types promote as in PyTorch: float32 with float64 gives float64, an integer with a floating tensor gives the floating
dtype, and a Python number changes the dtype only if it is of a higher category (a float with an integer tensor).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import COPY, FILL, Tensor, get_default_dtype, make_tensor, primitive
from gpunet.autograd.data import convert_number, number_dtype
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_complex, is_floating, is_inexact, uint8
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch import parts
from gpunet.launch.launchable import Launchable
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import constant

SUM = Shim("sum", lambda xp, out, x, *, axis, keepdims: xp.sum(x, axis=axis, keepdims=keepdims, out=out))
SUM.computes(lambda out, x, *, axis, keepdims: parts.Sum(out, x) if out.size == 1 else None)
_UFUNCS: dict[str, Ufunc] = {}


def ufunc(name: str) -> Ufunc:
    """The launchable for a NumPy universal function, cached by name."""
    if name not in _UFUNCS:
        _UFUNCS[name] = Ufunc(name)
    return _UFUNCS[name]


def result_dtype(*operands: Any) -> numpy.dtype[Any]:
    """The dtype of an arithmetic result, by PyTorch's promotion rules.

    Tensors with at least one dimension take precedence over 0-d tensors, and these over Python numbers: an operand of
    lower precedence counts only if its category is higher (a float with integer tensors); a complex one makes a floating dtype
    complex, without more precision.
    """
    arrays = [o.array for o in operands if isinstance(o, Tensor)]
    numbers = [number_dtype(o) for o in operands if not isinstance(o, Tensor)]
    result: Any = None
    for group in ([a.dtype for a in arrays if a.ndim], [a.dtype for a in arrays if not a.ndim], numbers):
        if group:
            found = functools.reduce(dtypes.promote, group)
            if result is None or dtypes.category(found) > dtypes.category(result):
                result = dtypes.to_complex(result) if is_complex(found) and result is not None and is_floating(result) else found
    return result


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The broadcast shape of the operands of op ``name``.

    Raises:
        ShapeError: the shapes cannot be broadcast together.
    """
    try:
        return numpy.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(f"{shape}" for shape in shapes)
        raise ShapeError(
            f"{name}: shapes {listed} cannot be broadcast together: from the right, dimensions must be equal or 1"
        ) from None


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether a tensor of ``shape`` can be broadcast to the shape ``target``."""
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(target)))


def check_operand(name: str, value: Any) -> None:
    """Raise a DtypeError if an operand of op ``name`` is neither a tensor nor a number."""
    if not isinstance(value, (Tensor, int, float, complex, numpy.number, numpy.bool_)):
        got = "got None" if value is None else f"operand {value!r} has type {type(value).__name__}"
        raise DtypeError(f"{name}: {got}; expected a tensor, an array or a number")


def wrap_around(number: Any) -> Any:
    """Return a negative integer beside a uint8 tensor modulo 256, as in PyTorch; other numbers as they are."""
    return number % 256 if isinstance(number, (int, numpy.integer)) and -256 < number < 0 else number


def operand_array(operand: Any, dtype: numpy.dtype[Any]) -> Any:
    """Return an operand's array, or a number as it is, converted to ``dtype`` where a ufunc would compute something else.

    NumPy refuses to write the result of unsigned integers and a signed 0-d array to unsigned ones.  Beside halves it would take
    integers as float32 numbers, which have a wider range: as in PyTorch, 100000 is inf beside float16, but not in a 0-d tensor.
    """
    if not isinstance(operand, Tensor):
        return operand
    array = operand.array
    is_0d_integer = not array.ndim and array.dtype != dtype and dtypes.is_integer(dtype)
    is_wide_integer = dtypes.is_half(dtype) and array.ndim > 0 and array.dtype.itemsize > 1 and dtypes.is_integer(array.dtype)
    return cast(operand, dtype=dtype).array if is_0d_integer or is_wide_integer else array


def launch_binary(function: Ufunc, a: Any, b: Any, dtype: Any = None) -> Array:
    """Launch a binary ufunc on two operands (tensors or Python numbers) into a new array."""
    if not isinstance(a, Tensor):
        check_operand(function.public_name, a)
        if not isinstance(b, Tensor):
            check_operand(function.public_name, b)
            own = result_dtype(b)
            b = make_tensor(constant(numpy.asarray(convert_number(b, own, function.public_name, rounds_to_inf=True), own)))
        x, y, shape, like = a, b.array, b.array.shape, b.array
        dtype = dtype or (like.dtype if is_floating(like.dtype) and type(a) is not complex else result_dtype(a, b))
        if dtype is uint8:
            x = wrap_around(a)
    elif not isinstance(b, Tensor):
        check_operand(function.public_name, b)
        x, y, shape, like = a.array, b, a.array.shape, a.array
        dtype = dtype or (like.dtype if is_floating(like.dtype) and type(b) is not complex else result_dtype(a, b))
        if dtype is uint8:
            y = wrap_around(b)
    else:
        x, y, like = a.array, b.array, a.array
        shape = x.shape if x.shape == y.shape else broadcast_shape(function.public_name, x.shape, y.shape)
        if x.dtype == y.dtype:
            dtype = dtype or x.dtype
        else:
            dtype = dtype or result_dtype(a, b)
            x, y = operand_array(a, dtype), operand_array(b, dtype)
    out = empty(shape, dtype, like)
    function(out, x, y)
    return out


def launch_unary(function: Launchable, x: Tensor, dtype: Any = None) -> Array:
    """Launch a unary ufunc into a new array; without ``dtype``, an integer tensor gives the default dtype."""
    array = x.array
    out = empty(array.shape, dtype or (array.dtype if is_inexact(array.dtype) else get_default_dtype()), array)
    function(out, array)
    return out


@primitive(name="broadcasting", takes_complex=True)
def sum_to(x, *, shape):
    """Sum x to ``shape``: the transpose of broadcasting ``shape`` to ``x.shape``."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    out = empty(shape, x.dtype, x.array)
    SUM(out.reshape((1,) * lead + tuple(shape)), x.array, axis=axes, keepdims=True)
    return out


sum_to.derivatives(x=lambda g, x_shape: broadcast_to(g, shape=x_shape))


@primitive(view=True, takes_complex=True)
def broadcast_to(x, *, shape):
    """A view of x with strides of 0 along the broadcast dimensions."""
    if x.shape == tuple(shape):
        return x.array[...]  # NumPy would make it read-only
    return devices.module(x.array).broadcast_to(x.array, shape)


broadcast_to.derivatives(x=lambda g: g)


@primitive(name="to", takes_complex=True)
def cast(x, *, dtype):
    """A copy in another dtype; a complex tensor is not cast to a real dtype, but to booleans: whether a number is not 0."""
    if is_complex(x.array.dtype) and dtypes.discards_imaginary(x.array.dtype, dtype):
        raise DtypeError(f"a tensor of {x.dtype} where {dtype} is expected: pass x.real, x.imag or x.abs()")
    out = empty(x.shape, dtype, x.array)
    COPY(out, x.array)
    return out


cast.derivatives(x=lambda g: g)


def tensor_of(value: Any, dtype: Any, device: Any) -> Tensor:
    """An operand in a dtype; a number becomes a 0-d tensor."""
    if not isinstance(value, Tensor):
        with numpy.errstate(over="ignore"):
            number = numpy.asarray(convert_number(value, dtype, "tensor", rounds_to_inf=True), dtype)
        return make_tensor(constant(devices.move(number, device)))
    return value if value.dtype == dtype else cast(value, dtype=dtype)


def in_accumulator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function of several launches: positional tensors of halves are widened, and floating results are rounded once.

    The result is a tensor, or a named tuple of tensors.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor)]
        if not any(dtypes.is_half(x.array.dtype) for x in tensors):
            return function(*args, **options)
        dtype = result_dtype(*tensors)
        wide = [cast(x, dtype=dtypes.float32) if isinstance(x, Tensor) and dtypes.is_half(x.dtype) else x for x in args]
        result = function(*wide, **options)
        if not dtypes.is_half(dtype):
            return result

        def rounded(x: Tensor) -> Tensor:
            return cast(x, dtype=dtype) if dtypes.is_floating(x.dtype) else x

        return rounded(result) if isinstance(result, Tensor) else type(result)(*map(rounded, result))

    return call


def zero_gradient(g: Tensor) -> Tensor:
    """The rule of an input that does not change the result: zero, even where the upstream gradient is infinite."""
    out = empty(g.shape, g.dtype, g.array)
    FILL(out, value=0)
    return make_tensor(out)
