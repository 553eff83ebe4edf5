"""Helpers of special functions: launches that compute in float64, from functions that NumPy and CuPy share, and round once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy

from gpunet.autograd import Tensor, get_default_dtype, ignore_fp_errors, make_tensor, operands, wrap
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, GradientError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import broadcast_shape, check_operand, tensor_of
from gpunet.ops.face import parameter_names, public
from gpunet.ops.trigonometry import floating_dtype

F = TypeVar("F", bound=Callable[..., Any])


def polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """The polynomial with these coefficients, lowest power first."""
    value = x * 0.0 + coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def chebyshev(t: Array, coefficients: Sequence[float]) -> Array:
    """The sum of c_k T_k(t), for t in [-1, 1], by Clenshaw's recurrence."""
    twice, last, before = 2.0 * t, t * 0.0, t * 0.0
    for coefficient in coefficients[:0:-1]:
        last, before = twice * last - before + coefficient, last
    return t * last - before + coefficients[0]


def exp_of_minus_square(xp: Any, x: Array) -> Array:
    """exp(-x^2); x is split, since a rounded x^2 would give an error of x^2 roundings."""
    high = xp.clip(x, -1e30, 1e30).astype("float32").astype("float64")
    return xp.exp(-high * high) * xp.exp(-(x - high) * (x + high))


def float64_shim(name: str, function: Callable[..., Array]) -> Shim:
    """The launch of ``function(xp, *inputs, **options)``, which gets and returns arrays of float64."""

    def launch(xp: Any, out: Array, *inputs: Array, **options: Any) -> None:
        with numpy.errstate(all="ignore"):
            result = function(xp, *(x.astype("float64") for x in inputs), **options)
            xp.copyto(out, result.astype(out.dtype))

    return Shim(name, launch, reads_values=True)


def launched(launch: Shim, *inputs: Tensor, **options: Any) -> Array:
    """The result of a launch on tensors, which are broadcast: a new array of the floating dtype that they promote to."""
    first = inputs[0]
    if len(inputs) == 1:
        dtype = first.dtype if is_floating(first.dtype) else get_default_dtype()
        out = empty(first.shape, dtype, first.array)
    else:
        out = empty(broadcast_shape(launch.name, *(x.shape for x in inputs)), floating_dtype(*inputs), first.array)
    launch(out, *(x.array for x in inputs), **options)
    return out


def without_gradient(function: Callable[..., Array]) -> Callable[[F], F]:
    """Decorator of the declaration of a function of one tensor whose result has no gradient, as in PyTorch.

    Args:
        function: computes the result in float64, ``function(xp, x)``.
    """

    def decorate(declaration: F) -> F:
        launch = float64_shim(declaration.__name__, function)

        def call(input: Any) -> Tensor:
            return make_tensor(launched(launch, wrap(input, declaration.__name__)))

        def call_with_x(x: Any) -> Tensor:
            return call(x)

        chosen = call_with_x if parameter_names(declaration) == ("x",) else call
        return public()(ignore_fp_errors(functools.wraps(declaration)(chosen)))  # type: ignore[return-value]

    return decorate


def as_tensors(function: str, *values: Any) -> list[Tensor]:
    """Operands, tensors or numbers, as floating tensors: of one floating dtype, numbers as 0-d tensors.

    Raises:
        DtypeError: none is a tensor.
    """
    given = operands(function, values)
    for value in given:
        check_operand(function, value)
    first = next((v for v in given if isinstance(v, Tensor)), None)
    if first is None:
        raise DtypeError(f"{function} of {' and '.join(map(repr, values))}; expected a tensor")
    dtype = floating_dtype(*given)
    return [tensor_of(value, dtype, first.device) for value in given]


def refuse_gradient(function: str, parameter: str) -> Tensor:
    """Raise the error of an input whose derivative is not implemented, as in PyTorch."""
    raise GradientError(
        f"{function}: the derivative in {parameter} is not implemented; pass {parameter}.detach() if it is a constant"
    )


SQRT_HALF, SQRT_PI = math.sqrt(0.5), math.sqrt(math.pi)
