"""Methods that call a function of Python for each element, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor, bump_version, method
from gpunet.backend import devices
from gpunet.backend.dtypes import is_boolean, is_inexact
from gpunet.errors import DeviceError, DtypeError, GradientError, ShapeError
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.broadcast import broadcasts_to
from gpunet.ops.in_place import refuse_shared_memory


def _replace(name: str, target: Tensor, function: Callable[..., Any], *others: Any) -> Tensor:
    """Set each element to ``function`` of it and of those of other tensors, which broadcast."""
    if not callable(function):
        raise DtypeError(f"{name}: callable has type {type(function).__name__}; expected a function")
    for x in (target, *others):
        if not isinstance(x, Tensor):
            raise DtypeError(f"{name}: got a {type(x).__name__}; expected a tensor")
        if x.requires_grad:
            raise GradientError(f"{name} on a tensor that requires grad; use .detach() first: a function of Python has no gradient")
        if x.device != devices.CPU:
            raise DeviceError(f"{name} on a tensor on {x.device}; expected one on the CPU: use .cpu(), or a function of tensors")
        if not broadcasts_to(x.array.shape, target.array.shape):
            raise ShapeError(f"{name}: a tensor of shape {tuple(x.shape)} for {tuple(target.shape)}; expected one that broadcasts")
    graph_break_on_read(f"{name}(), which calls a function of Python for each element")
    refuse_shared_memory(target.array, name)
    columns = [x.expand(target.array.shape).reshape(-1).tolist() for x in (target, *others)]
    kind = bool if is_boolean(target.dtype) else (lambda value: value) if is_inexact(target.dtype) else int
    devices.assign(target.array, _array([kind(function(*row)) for row in zip(*columns)], target))
    bump_version(target)
    return target


def _array(values: list[Any], like: Tensor) -> Any:
    made: Any = like.new_tensor(values).reshape(like.array.shape)
    return made.array


@method("apply_")
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Set each element to ``callable(element)``; slow, and without gradient.

    Raises:
        DeviceError: the tensor is not on the CPU.
        GradientError: it requires grad.
    """
    return _replace("apply_", self, callable)


@method("map_")
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Set each element to ``callable(element, that of the other tensor)``; slow, and without gradient.

    Raises:
        DeviceError, GradientError: as of ``apply_``.
        ShapeError: the other tensor does not broadcast.
    """
    return _replace("map_", self, callable, tensor)


@method("map2_")
def map2_(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Set each element to ``callable(element, that of x, that of y)``; slow, and without gradient; errors as of ``map_``."""
    return _replace("map2_", self, callable, x, y)
