"""Products and quotients that are added with a weight, and linear interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor, operands, wrap
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import DtypeError
from gpunet.ops.broadcast import cast, in_accumulator, result_dtype
from gpunet.ops.compare import compare
from gpunet.ops.define import elementwise
from gpunet.ops.elementwise import abs, where
from gpunet.ops.face import as_factor, as_number

__all__ = ["addcdiv", "addcmul", "lerp"]


def _promoted(formula: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The formula of the tensors in their promoted dtype; of halves it is computed in float32, and rounded once."""
    dtype = result_dtype(*tensors)
    return in_accumulator(formula)(*(x if x.dtype == dtype else cast(x, dtype=dtype) for x in tensors))


@elementwise("addcmul", autocast="cuda: widest", takes_complex=True)
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2, broadcast."""
    input, tensor1, tensor2 = operands("addcmul", [input, wrap(tensor1, "addcmul"), wrap(tensor2, "addcmul")])
    dtype = result_dtype(input, tensor1, tensor2)
    if is_boolean(dtype):
        raise DtypeError("addcmul of booleans; convert one with .long() or .float() first")
    weight = as_factor("addcmul", "value", value, dtype)
    return _promoted(lambda x, a, b: x + (a * b if weight == 1 else (a * weight) * b), input, tensor1, tensor2)


@elementwise("addcdiv", autocast="cuda: widest")
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2, broadcast.

    Raises:
        DtypeError: both tensors of the quotient are integers.
    """
    input, tensor1, tensor2 = operands("addcdiv", [input, wrap(tensor1, "addcdiv"), wrap(tensor2, "addcdiv")])
    if not is_floating(tensor1.dtype) and not is_floating(tensor2.dtype):
        raise DtypeError(
            f"addcdiv: a quotient of {tensor1.dtype} and {tensor2.dtype}; expected a floating tensor: convert one with .float()"
        )
    weight = as_factor("addcdiv", "value", value, result_dtype(input, tensor1, tensor2))
    return _promoted(lambda x, a, b: x + (a / b if weight == 1 else (a * weight) / b), input, tensor1, tensor2)


@elementwise("lerp")
def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """input + weight * (end - input), broadcast; exactly ``end`` for a weight of 1.

    Args:
        weight: a number or a tensor.

    Raises:
        DtypeError: the dtypes differ, or are not floating.
    """
    end = wrap(end, "lerp")
    for x in (end, weight) if isinstance(weight, Tensor) else (end,):
        if x.dtype != input.dtype or not is_floating(x.dtype):
            raise DtypeError(f"lerp: tensors of {input.dtype} and {x.dtype}; expected one floating dtype: convert with .to(dtype)")
    if not isinstance(weight, Tensor):
        number = as_number("lerp", "weight", weight)
        if -0.5 < number < 0.5:
            return _promoted(lambda a, b: a + (b - a) * number, input, end)
        return _promoted(lambda a, b: b - (b - a) * (1.0 - number), input, end)
    input, end, weight = operands("lerp", [input, end, weight])
    return _promoted(_interpolated, input, end, weight)


def _interpolated(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    return where(compare("less", abs(w.detach()), 0.5), a + w * (b - a), b - (b - a) * (1.0 - w))
