"""Changes in place: the op computes beside, then the tensor takes over its result and its place in the graph."""

from __future__ import annotations

from typing import Any

from gpunet.autograd import (
    ADD,
    COPY,
    FILL,
    MULTIPLY,
    Tensor,
    bump_version,
    is_grad_enabled,
    method,
    operands,
    wrap,
)
from gpunet.backend import devices
from gpunet.errors import GradientError, InPlaceError, ShapeError
from gpunet.launch.memory import empty, move_to_device
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import broadcast_shape, broadcast_to, cast, ufunc
from gpunet.ops.elementwise import abs, add_scaled, clamp, div, exp, masked_fill, mul, neg, pow, sqrt, sub_scaled, where


def replace(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Let ``target`` become ``result`` in place: its memory and its place in the graph."""
    if result.shape != target.shape:
        raise ShapeError(
            f"{name}: the result has shape {result.shape}, the tensor {target.shape}; in place they must agree"
        )
    COPY(target.array, result.array)
    bump_version(target)
    if result._requires_grad and is_grad_enabled():  # the result may be a source that was copied, with a graph of its own
        target._node, target._index, target._requires_grad = result._node, result._index, True
    return target


def check_in_place(target: Tensor, others: tuple[Any, ...], name: str) -> None:
    """Refuse the changes in place that the graph cannot follow.

    Raises:
        GradientError: on a leaf that requires grad.
        InPlaceError: on a view, with a gradient to follow.
    """
    if not is_grad_enabled():
        return
    if target._requires_grad and target._node is None:
        raise GradientError(
            f"{name} on a leaf tensor that requires grad; do it under no_grad(), or use the op that returns a new tensor"
        )
    follows = target._requires_grad or any(isinstance(o, Tensor) and o._requires_grad for o in others)
    if follows and target._view_version is not None:
        raise InPlaceError(
            f"{name} on a view whose base has a gradient to follow: change the base (base[index] = ...), or a .clone()"
        )


def alias_of(target: Tensor) -> Tensor:
    """What the target was before the change, for rules to close over."""
    old = Tensor(target.array)
    old._version, old._node, old._index = target._version, target._node, target._index
    old._requires_grad = target._requires_grad
    return old


def _before(target: Tensor) -> Tensor:
    """What the target was before the change, with its value in memory of its own: rules may need it."""
    old = alias_of(target)
    old.array, old._version = empty(target.shape, target.dtype, target.array), [0]
    COPY(old.array, target.array)
    return old


def _overwrite(target: Tensor, source: Tensor, name: str) -> Tensor:
    """Let ``target`` become ``source``; what it was before gets a gradient of zero."""
    if is_grad_enabled() and target._requires_grad:
        with devices.on_device_of(target.array):
            always = Tensor(constant(devices.module(target.array).ones((), bool)))
        source = where(always, source, alias_of(target))
    return replace(target, source, name)


def _in_place(op: Any, methods: str, launch: Ufunc | None = None) -> None:
    name = methods.split()[0]

    def change(self: Tensor, *args: Any, **options: Any) -> Tensor:
        check_in_place(self, args, name)
        graph = is_grad_enabled() and (
            self._requires_grad or any(isinstance(a, Tensor) and a._requires_grad for a in args)
        )
        if launch is not None and not graph and not options and self.array.dtype.kind == "f":
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
        return replace(self, op(_before(self) if graph else alias_of(self), *args, **options), name)

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
    return _overwrite(x, _spread(cast(_as_scalar(value, x), dtype=x.dtype), x, "fill_"), "fill_")


def _spread(source: Tensor, x: Tensor, name: str) -> Tensor:
    if broadcast_shape(name, source.shape, x.shape) != x.shape:
        raise ShapeError(f"{name}: a source of shape {source.shape} does not fit into the tensor's {x.shape}; take a part of it")
    return broadcast_to(source, shape=x.shape)


def _as_scalar(value: Any, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    out = empty((), x.dtype, x.array)
    FILL(out, value=value)
    return Tensor(out)


@method("zero_")
def zero_(x: Tensor) -> Tensor:
    """Set every element to zero."""
    return fill_(x, 0)


@method("copy_")
def copy_(x: Tensor, source: Any) -> Tensor:
    """Copy ``source`` into ``x``, broadcast and converted; between devices too."""
    source = wrap(source)
    check_in_place(x, (source,), "copy_")
    if source.device != x.device:
        source = Tensor(move_to_device(source.array, x.device))
    if source.dtype != x.dtype:
        source = cast(source, dtype=x.dtype)
    if source.shape != x.shape:
        source = _spread(source, x, "copy_")
    return _overwrite(x, source, "copy_")
