"""What all elementwise ops stand on: dtypes, broadcasting, one-launch helpers, and the primitives that undo them.

Dtypes follow PyTorch: a Python number takes the tensor's kind, an integer beside a floating tensor takes the floating
dtype, float32 beside float64 gives float64.
"""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, get_default_dtype, primitive
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.launchable import Launchable
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import constant

SUM = Shim("sum", lambda xp, out, x, *, axis, keepdims: xp.sum(x, axis=axis, keepdims=keepdims, out=out))
_UFUNCS: dict[str, Ufunc] = {}


def ufunc(name: str) -> Ufunc:
    """The launch of a universal function, by its NumPy name."""
    if name not in _UFUNCS:
        _UFUNCS[name] = Ufunc(name)
    return _UFUNCS[name]


_KINDS = "buif"  # a later kind of number decides over an earlier one


def result_dtype(*operands: Any) -> numpy.dtype[Any]:
    """The dtype of an arithmetic result, by PyTorch's rules.

    Tensors with dimensions decide; a tensor without any, and then a Python number, only where its kind comes later:
    a float beside integers.
    """
    arrays = [o.array for o in operands if isinstance(o, Tensor)]
    numbers = [_number_dtype(o) for o in operands if not isinstance(o, Tensor)]
    result: Any = None
    for dtypes in ([a.dtype for a in arrays if a.ndim], [a.dtype for a in arrays if not a.ndim], numbers):
        if dtypes:
            found = numpy.result_type(*([d for d in dtypes if d.kind == "f"] or dtypes))
            if result is None or _KINDS.index(found.kind) > _KINDS.index(result.kind):
                result = found
    return result


def _number_dtype(number: Any) -> numpy.dtype[Any]:
    if isinstance(number, (bool, numpy.bool_)):
        return numpy.dtype("bool")
    return numpy.dtype("int64") if isinstance(number, (int, numpy.integer)) else get_default_dtype()


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of operands.

    Raises:
        ShapeError: they cannot be broadcast; the message names them.
    """
    try:
        return numpy.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise ShapeError(
            f"{name}: shapes {listed} cannot be broadcast together: from the right, dimensions must be equal or 1"
        ) from None


def check_operand(name: str, value: Any) -> None:
    if not isinstance(value, (Tensor, int, float, numpy.number, numpy.bool_)):
        raise DtypeError(
            f"{name}: operand {value!r} is a {type(value).__name__}; expected a tensor, an array or a number"
        )


def binary(launch: Launchable, a: Any, b: Any, dtype: Any = None) -> Array:
    """Launch a universal function of two operands (tensors or Python numbers) into a new array."""
    if not isinstance(a, Tensor):
        check_operand(launch.name, a)
        if not isinstance(b, Tensor):
            b = Tensor(constant(numpy.asarray(b, result_dtype(b))))
        x, y, shape, like = a, b.array, b.array.shape, b.array
        dtype = dtype or (like.dtype if like.dtype.kind == "f" else result_dtype(a, b))
    elif not isinstance(b, Tensor):
        check_operand(launch.name, b)
        x, y, shape, like = a.array, b, a.array.shape, a.array
        dtype = dtype or (like.dtype if like.dtype.kind == "f" else result_dtype(a, b))
    else:
        x, y, like = a.array, b.array, a.array
        shape = x.shape if x.shape == y.shape else broadcast_shape(launch.name, x.shape, y.shape)
        dtype = dtype or (x.dtype if x.dtype == y.dtype else result_dtype(a, b))
    out = empty(shape, dtype, like)
    launch(out, x, y)
    return out


def unary(launch: Launchable, x: Tensor, dtype: Any = None) -> Array:
    """Launch a universal function of one tensor into a new array; integers give floats."""
    array = x.array
    out = empty(array.shape, dtype or (array.dtype if array.dtype.kind == "f" else get_default_dtype()), array)
    launch(out, array)
    return out


def like(value: Any) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of an operand: what its gradient must have."""
    return (value.array.shape, value.array.dtype) if isinstance(value, Tensor) else ((), None)


def fit(g: Tensor, target: tuple[tuple[int, ...], Any]) -> Tensor:
    """The gradient of a broadcast operand: summed over what was broadcast, in the operand's dtype."""
    shape, dtype = target
    if g.array.shape != shape:
        g = sum_to(g, shape=shape)
    return g if g.array.dtype == dtype else cast(g, dtype=dtype)


@primitive
def sum_to(x, *, shape):
    """Sum over the dimensions that broadcasting ``shape`` to ``x.shape`` repeats."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    source = x.shape
    out = empty(shape, x.dtype, x.array)
    SUM(out.reshape((1,) * lead + tuple(shape)), x.array, axis=axes, keepdims=True)
    return out, lambda g: broadcast_to(g, shape=source)


@primitive(view=True)
def broadcast_to(x, *, shape):
    """Repeat without copying: a view with strides of zero."""
    source = x.shape
    xp = devices.module(x.array)
    return xp.broadcast_to(x.array, shape), lambda g: sum_to(g, shape=source)


@primitive
def cast(x, *, dtype):
    """A copy in another dtype."""
    source = x.dtype
    out = empty(x.shape, dtype, x.array)
    COPY(out, x.array)
    return out, lambda g: cast(g, dtype=source)
