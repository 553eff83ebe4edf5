"""In-place ops: compute out of place, then copy the result into the tensor and give it the result's graph node."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import (
    ADD,
    COPY,
    FILL,
    MULTIPLY,
    Tensor,
    bump_version,
    is_grad_enabled,
    make_tensor,
    method,
    operands,
    wrap,
)
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import GradientError, InPlaceError, ShapeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, cast, ufunc
from gpunet.ops.elementwise import abs, add_scaled, clamp, div, exp, masked_fill, mul, neg, pow, sqrt, sub_scaled, where


def assign_in_place(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Copy ``result`` into ``target``, and give ``target`` the graph node of ``result``."""
    if result.shape != target.shape:
        raise ShapeError(
            f"{name}: the result has shape {result.shape}, the tensor {target.shape}; expected the same shape"
        )
    COPY(target.array, result.array)
    bump_version(target)
    if result._requires_grad and is_grad_enabled():  # under no_grad(), copy_() must not adopt the source's graph
        retains_grad = target.retains_grad
        target._node, target._index, target._requires_grad = result._node, result._index, True
        if retains_grad:
            target.retain_grad()
    return target


def check_in_place(target: Tensor, others: tuple[Any, ...], name: str) -> None:
    """Raise if the graph cannot represent an in-place change of ``target``.

    Args:
        others: the other operands.
        name: the in-place method, for messages.

    Raises:
        GradientError: ``target`` is a leaf that requires grad.
        InPlaceError: ``target`` is a view, and it or an operand requires grad; or its memory cannot be written.
    """
    refuse_shared_memory(target.array, name)
    if not is_grad_enabled():
        return
    if target._requires_grad and target._node is None:
        raise GradientError(
            f"{name} changes a leaf tensor that requires grad; do it under no_grad(), or compute a new tensor (e.g. "
            "gpunet.where)"
        )
    needs_grad = target._requires_grad or any(isinstance(o, Tensor) and o._requires_grad for o in others)
    if needs_grad and target._view_version is not None:
        raise InPlaceError(
            f"{name} on a view, and a gradient is required; assign to the base (base[index] = ...), or to a .clone()"
        )


def refuse_shared_memory(array: Any, name: str) -> None:
    """Raise an InPlaceError if elements of an array share memory, or it is read-only."""
    if 0 in array.strides and array.size > 1 and any(n > 1 and not step for n, step in zip(array.shape, array.strides)):
        raise InPlaceError(f"{name}: elements of the tensor share memory, as those of expand() do; use .clone() first")
    if isinstance(array, numpy.ndarray) and not array.flags.writeable and array.size:
        raise InPlaceError(f"{name}: the tensor is in read-only memory; use .clone() first")


def alias_of(target: Tensor) -> Tensor:
    """A tensor with the array, version and graph node that ``target`` has before the change."""
    old = make_tensor(target.array)
    old._version, old._node, old._index = target._version, target._node, target._index
    old._requires_grad = target._requires_grad
    return old


def _copy_before_change(target: Tensor) -> Tensor:
    """A copy of ``target`` with its graph node: the op's backward may need the value that the change overwrites."""
    old = alias_of(target)
    old.array, old._version = empty(target.shape, target.dtype, target.array), [0]
    COPY(old.array, target.array)
    return old


def _overwrite(target: Tensor, source: Tensor, name: str) -> Tensor:
    """Copy ``source`` into ``target``; the previous value of ``target`` gets gradient zero."""
    if is_grad_enabled() and target._requires_grad:
        true = make_tensor(constant(devices.module(target.array).ones((), bool)))
        source = where(true, source, alias_of(target))  # connects the old value to the graph, with gradient zero
    return assign_in_place(target, source, name)


def _in_place(op: Any, methods: str, launch: Ufunc | None = None) -> None:
    name = methods.split()[0]

    def change(self: Tensor, *args: Any, **options: Any) -> Tensor:
        check_in_place(self, args, name)
        needs_graph = is_grad_enabled() and (
            self._requires_grad or any(isinstance(a, Tensor) and a._requires_grad for a in args)
        )
        if launch is not None and not needs_graph and not options and is_floating(self.array.dtype):
            other = operands(name, args)[0] if args else None
            operand = other.array if isinstance(other, Tensor) else other
            if (
                not isinstance(other, Tensor)
                or other.shape == self.shape
                or broadcast_shape(name, self.shape, other.shape) == self.shape
            ):
                launch(self.array, self.array, *(() if other is None else (operand,)))
                bump_version(self)
                return self
        before = _copy_before_change(self) if needs_graph else alias_of(self)
        return assign_in_place(self, op(before, *args, **options), name)

    change.__name__ = name
    change.__doc__ = f"{name[:-1] if name.endswith('_') else name}, in place."
    method(methods)(change)


_in_place(add_scaled, "add_ __iadd__", ADD)
_in_place(sub_scaled, "sub_ __isub__", ufunc("subtract"))
_in_place(mul, "mul_ __imul__", MULTIPLY)
_in_place(div, "div_ __itruediv__", ufunc("divide"))
_in_place(pow, "pow_ __ipow__")
_in_place(clamp, "clamp_ clip_")
_in_place(neg, "neg_", ufunc("negative"))
_in_place(exp, "exp_", ufunc("exp"))
_in_place(sqrt, "sqrt_", ufunc("sqrt"))
_in_place(abs, "abs_", ufunc("absolute"))
_in_place(masked_fill, "masked_fill_")


@method("fill_")
def fill_(x: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``."""
    check_in_place(x, (value,), "fill_")
    return _overwrite(x, _broadcast_source(cast(_scalar_tensor(value, x), dtype=x.dtype), x, "fill_"), "fill_")


def _broadcast_source(source: Tensor, x: Tensor, name: str) -> Tensor:
    if broadcast_shape(name, source.shape, x.shape) != x.shape:
        raise ShapeError(f"{name}: the source has shape {source.shape}; expected a shape that broadcasts to {x.shape}")
    return broadcast_to(source, shape=x.shape)


def _scalar_tensor(value: Any, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    out = empty((), x.dtype, x.array)
    FILL(out, value=value)
    return make_tensor(out)


@method("zero_")
def zero_(x: Tensor) -> Tensor:
    """Set every element to zero."""
    return fill_(x, 0)


@method("copy_")
def copy_(x: Tensor, source: Any) -> Tensor:
    """Copy ``source`` into ``x``, with broadcasting and conversion of dtype and device."""
    source = wrap(source)
    check_in_place(x, (source,), "copy_")
    if source.device != x.device:
        source = make_tensor(move_to_device(source.array, x.device))
    if source.dtype != x.dtype:
        source = cast(source, dtype=x.dtype)
    if source.shape != x.shape:
        source = _broadcast_source(source, x, "copy_")
    return _overwrite(x, source, "copy_")
