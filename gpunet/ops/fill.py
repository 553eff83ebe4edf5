"""Overwrite a tensor, or a copy of it: fill_, zero_, copy_, fill."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import FILL, Tensor, ignore_fp_errors, is_grad_enabled, make_tensor, method, wrap
from gpunet.autograd.data import convert_number
from gpunet.backend import devices
from gpunet.errors import ShapeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, cast
from gpunet.ops.convert import clone, real_if_narrowed
from gpunet.ops.face import public
from gpunet.ops.in_place import alias_of, assign_in_place, check_in_place, overwrite

__all__ = ["fill"]


@method("fill_")
@ignore_fp_errors
def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``, a number or a 0-d tensor, converted to the tensor's dtype.

    Raises:
        ShapeError: ``value`` has dimensions.
    """
    check_in_place(input, (value,), "fill_")
    if not isinstance(value, Tensor) and devices.is_array(value):
        value = wrap(value)
    if not isinstance(value, Tensor):
        out = empty((), input.dtype, input.array)
        FILL(out, value=convert_number(value, input.dtype, "fill_", "value", rounds_to_inf=True))
        value = make_tensor(out)
    if value.ndim:
        raise ShapeError(f"fill_: value has shape {value.shape}; expected a number or a 0-d tensor: use copy_()")
    return assign(input, value, "fill_")


def fill(input: Any, value: Any) -> Tensor:
    """A tensor like ``input``, each element ``value``, a number or a 0-d tensor, converted to its dtype.

    Raises:
        ShapeError: ``value`` has dimensions.
    """
    try:
        return fill_(clone(wrap(input, "fill")), value)
    except ShapeError as error:
        raise ShapeError(str(error).replace("fill_:", "fill:", 1)) from None


@method("zero_")
def zero_(input: Tensor) -> Tensor:
    """Set every element to zero."""
    return fill_(input, 0)


@public("copy_", out=False, takes_complex=True)
@ignore_fp_errors
def copy_(input: Tensor, other: Any, non_blocking: bool = False) -> Tensor:
    """Copy ``other`` into the tensor, with broadcasting and conversion of dtype and device.

    Args:
        non_blocking: no effect: the copy is complete before its result is read.
    """
    other = wrap(other)
    check_in_place(input, (other,), "copy_")
    other = real_if_narrowed(other, input.dtype)
    if other.device != input.device:
        other = make_tensor(move_to_device(other.array, input.device))
    return assign(input, other, "copy_")


def assign(target: Tensor, source: Tensor, name: str) -> Tensor:
    """Copy ``source`` into ``target``, converted and broadcast; the previous value of ``target`` gets gradient zero."""
    if source.dtype != target.dtype:
        source = cast(source, dtype=target.dtype)
    if source.shape != target.shape:
        if broadcast_shape(name, source.shape, target.shape) != target.shape:
            raise ShapeError(
                f"{name}: the source has shape {source.shape}; expected a shape that broadcasts to {target.shape}"
            )
        source = broadcast_to(source, shape=target.shape)
    if is_grad_enabled() and (target._requires_grad or source._requires_grad):
        source = overwrite(alias_of(target), source)
    return assign_in_place(target, source, name)
