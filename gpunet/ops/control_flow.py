"""Conditions and loops that are functions of their operands, as PyTorch's compilers need them: here they run as written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError

__all__ = ["cond", "while_loop"]


def _truth(function: str, name: str, value: Any) -> bool:
    if isinstance(value, Tensor) and value.array.size != 1:
        raise ArgumentError(f"{function}: {name} has shape {tuple(value.shape)}; expected one element")
    if not isinstance(value, (bool, int, Tensor)):
        raise DtypeError(f"{function}: {name} has type {type(value).__name__}; expected a bool, or a tensor of one element")
    return bool(value)


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    """``true_fn(*operands)`` if ``pred`` holds, else ``false_fn(*operands)``; a tensor is read, which breaks a captured step.

    Raises:
        ArgumentError: ``pred`` has several elements.
        DtypeError: an argument has another type.
    """
    if not (callable(true_fn) and callable(false_fn)):
        raise DtypeError("cond: true_fn and false_fn are not both functions; expected two functions of the operands")
    if not isinstance(operands, (tuple, list)):
        raise DtypeError(f"cond: operands has type {type(operands).__name__}; expected a tuple")
    return (true_fn if _truth("cond", "pred", pred) else false_fn)(*operands)


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Any) -> tuple[Any, ...]:
    """Replace ``carried_inputs`` by ``body_fn(*carried_inputs)`` as long as ``cond_fn(*carried_inputs)`` holds; return them.

    Raises:
        ArgumentError: ``body_fn`` returns another number of values.
        DtypeError: an argument has another type.
    """
    if not (callable(cond_fn) and callable(body_fn)):
        raise DtypeError("while_loop: cond_fn and body_fn are not both functions; expected two functions of the inputs")
    if not isinstance(carried_inputs, (tuple, list)):
        raise DtypeError(f"while_loop: carried_inputs has type {type(carried_inputs).__name__}; expected a tuple")
    values = tuple(carried_inputs)
    while _truth("while_loop", "the result of cond_fn", cond_fn(*values)):
        found = body_fn(*values)
        found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(values):
            raise ArgumentError(f"while_loop: body_fn returned {len(found)} values for {len(values)} inputs; expected as many")
        values = found
    return values
