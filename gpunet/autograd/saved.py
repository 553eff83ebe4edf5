"""Hooks that store what nodes save for backward in another form, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.autograd import mode
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, InPlaceError, ShapeError

__all__ = ["save_on_cpu", "saved_tensors_hooks"]


#: Not empty while a thread may be in a block of hooks.  Ops look here first, which takes less time than the mode of the thread.
packing: list[None] = []


class saved_tensors_hooks:
    """Context manager: ops inside the block save ``pack_hook(tensor)`` for backward, which receives ``unpack_hook`` of it.

    The hooks run without a graph: ``pack_hook`` when an op is recorded, ``unpack_hook`` whenever backward runs through it.  Of
    nested blocks the innermost has effect.  Changes in place of a saved tensor are not detected.  A fused op also saves the
    inputs that only its second derivative needs.  A captured step records the launches of the hooks, not their Python.

    Args:
        pack_hook: receives a tensor that is saved, and returns any object; it must not change the tensor.
        unpack_hook: receives this object, and returns a tensor of the shape, dtype and device of the saved one.

    Raises:
        ArgumentError: a hook is not callable.
        InPlaceError: ``pack_hook`` changes the tensor.
        DtypeError, ShapeError: in backward, ``unpack_hook`` returns no such tensor.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        for name, hook in (("pack_hook", pack_hook), ("unpack_hook", unpack_hook)):
            if not callable(hook):
                raise ArgumentError(f"saved_tensors_hooks: {name}={hook!r}; expected a function")
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._previous: list[Any] = []

    def __enter__(self) -> None:
        self._previous.append(mode.current.saved_hooks)
        mode.current.saved_hooks = self
        packing.append(None)

    def __exit__(self, *exception: object) -> None:
        packing.pop()
        mode.current.saved_hooks = self._previous.pop()


class save_on_cpu(saved_tensors_hooks):
    """Context manager: what ops inside the block save for backward waits in the memory of the CPU.

    Args:
        pin_memory, device_type: accepted for PyTorch's signature; they change no value.
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda tensor: (tensor.device, tensor.cpu()), lambda packed: packed[1].to(packed[0]))


class Packed:
    """A tensor as :class:`saved_tensors_hooks` stores it, with its place in the graph."""

    __slots__ = ("_unpack_hook", "_value", "device", "dtype", "index", "leaf", "node", "shape")

    def __init__(self, tensor: Tensor, hooks: saved_tensors_hooks) -> None:
        given = make_tensor(tensor.array)
        given._version = tensor._version
        version = given._version[0]
        with mode.no_grad():
            self._value = hooks.pack_hook(given)
        if given._version[0] != version:
            raise InPlaceError("saved_tensors_hooks: pack_hook changed the saved tensor in place; let it return a changed copy")
        self._unpack_hook = hooks.unpack_hook
        self.shape, self.dtype, self.device = tensor.array.shape, tensor.array.dtype, tensor.device
        self.node, self.index = tensor._node, tensor._index
        self.leaf = tensor if tensor._requires_grad and tensor._node is None else None

    def restore(self, connect: bool) -> Tensor:
        """Return the tensor; with its place in the graph if ``connect``.

        Raises:
            DtypeError, ShapeError: the hook returned no tensor like the saved one.
        """
        if connect and self.leaf is not None:
            return self.leaf
        with mode.no_grad():
            found = self._unpack_hook(self._value)
        if not isinstance(found, Tensor) or found.dtype != self.dtype or found.device != self.device:
            got = f"a tensor of {found.dtype} on {found.device}" if isinstance(found, Tensor) else repr(found)
            raise DtypeError(
                f"saved_tensors_hooks: unpack_hook returned {got}; expected a tensor of {self.dtype} on {self.device}, as was saved"
            )
        if found.array.shape != self.shape:
            raise ShapeError(
                f"saved_tensors_hooks: unpack_hook returned a tensor of shape {tuple(found.shape)}; expected {self.shape}, as was "
                "saved"
            )
        result = make_tensor(found.array)
        if connect:
            result._node, result._index, result._requires_grad = self.node, self.index, self.node is not None
        return result


def pack(value: Any) -> Any:
    """Pack the tensors and arrays in a value, or a tuple or dictionary of values, by the hooks of this thread."""
    hooks = mode.current.saved_hooks
    if hooks is None:
        return value
    if isinstance(value, dict):
        return {name: pack(item) for name, item in value.items()}
    if type(value) is tuple:  # an option may be a named one
        return tuple(map(pack, value))
    if devices.is_array(value):
        return Packed(make_tensor(value), hooks)
    return Packed(value, hooks) if isinstance(value, Tensor) else value


def unpack(value: Any, connect: bool, take: Callable[[Tensor], Any] = lambda tensor: tensor) -> Any:
    """Restore what :func:`pack` packed, see :meth:`Packed.restore`; ``take`` makes each tensor what the op saved."""
    if isinstance(value, dict):
        return {name: unpack(item, connect, take) for name, item in value.items()}
    if type(value) is tuple:
        return tuple(unpack(item, connect, take) for item in value)
    return take(value.restore(connect)) if type(value) is Packed else value
