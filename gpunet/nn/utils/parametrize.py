"""Parametrizations: a parameter that is computed, each time it is read, from other parameters.

    parametrize.register_parametrization(layer, "weight", Symmetric())

The layer gets a class of its own, in which ``weight`` is a property; ``layer.parametrizations.weight`` holds what is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpunet.autograd import Tensor, no_grad
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn.containers import ModuleDict, ModuleList
from gpunet.nn.module import Module, Parameter

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "transfer_parametrizations_and_params", "type_before_parametrizations",
]  # fmt: skip

#: Values of parametrized tensors inside :func:`cached`, by module and name; and how many such blocks are open.
_cache: dict[tuple[int, str], Tensor] = {}
_open_caches = [0]


class ParametrizationList(ModuleList):
    """The parametrizations of a tensor, in the order of their calls; calling the list computes the tensor.

    Attributes:
        original: what the first parametrization takes; ``original0``, ``original1`` ... if it takes several tensors.
        num_originals: how many; 0 means the one ``original``.
    """

    def __init__(self, modules: list[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe, self.num_originals = unsafe, 0
        value: Any = original.detach()
        with no_grad():
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        if isinstance(value, Tensor):
            if isinstance(original, Parameter) and value.shape == original.shape and value.dtype == original.dtype:
                original.data = value
                self.original = original  # the object that an optimizer may hold
            else:
                self._register("original", value, original)
        else:
            values = list(value)
            self.num_originals = len(values)
            for number, item in enumerate(values):
                self._register(f"original{number}", item, original)

    def _register(self, name: str, value: Tensor, original: Tensor) -> None:
        if isinstance(original, Parameter):
            setattr(self, name, Parameter(value, original.requires_grad))
        else:
            self.register_buffer(name, value)

    def originals(self) -> list[Tensor]:
        """The tensors that the first parametrization takes."""
        names = [f"original{number}" for number in range(self.num_originals)] or ["original"]
        return [getattr(self, name) for name in names]

    def right_inverse(self, value: Tensor) -> None:
        """Set the original tensors so that the parametrized one becomes ``value``.

        Raises:
            ArgumentError: a parametrization has no right_inverse.
        """
        result: Any = value
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise ArgumentError(f"assignment to a parametrized tensor: {type(module).__name__} has no right_inverse()")
                result = module.right_inverse(result)
            for original, item in zip(self.originals(), [result] if isinstance(result, Tensor) else result):
                original.copy_(item)

    def forward(self) -> Tensor:
        first, *rest = list(self)
        value: Tensor = first(*self.originals())
        for module in rest:
            value = module(value)
        return value


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Compute a parameter or buffer of a module by a parametrization; return the module.

    Args:
        module: the module.
        tensor_name: the name of its parameter or buffer.
        parametrization: its ``forward(original)`` gives the tensor; ``right_inverse(tensor)``, if any, gives the original, or
            several, which are the arguments of forward then.  On a parametrized tensor, it takes the tensor so far.
        unsafe: do not check that shape and dtype stay.

    Raises:
        ArgumentError: the module has no such parameter or buffer.
        ShapeError: the parametrization changes shape or dtype.
    """
    if is_parametrized(module, tensor_name):
        entry: Any = module.parametrizations[tensor_name]
        if not unsafe:
            _check(tensor_name, entry(), parametrization(entry()))
        with no_grad():
            value = entry()
        entry.append(parametrization)
        if hasattr(parametrization, "right_inverse"):
            entry.right_inverse(value)
        return module
    original = module._parameters.get(tensor_name, module._buffers.get(tensor_name))
    if original is None:
        raise ArgumentError(f"register_parametrization: {type(module).__name__} has no parameter or buffer {tensor_name!r}")
    before = original.detach().clone()
    entry = ParametrizationList([parametrization], original, unsafe)
    if not unsafe:
        with no_grad():
            _check(tensor_name, before, entry())
    delattr(module, tensor_name)
    if not is_parametrized(module):
        base = type(module)
        module.__class__ = type(f"Parametrized{base.__name__}", (base,), {"_unparametrized": base})
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = entry
    setattr(type(module), tensor_name, _property(tensor_name))
    return module


def _check(name: str, before: Tensor, after: Any) -> None:
    if not isinstance(after, Tensor) or after.shape != before.shape or after.dtype != before.dtype:
        got = f"{tuple(after.shape)} {after.dtype}" if isinstance(after, Tensor) else type(after).__name__
        raise ShapeError(
            f"register_parametrization: {name!r} of shape {tuple(before.shape)} {before.dtype} became {got}; pass unsafe=True to "
            "allow it"
        )


def _property(name: str) -> property:
    def get(module: Any) -> Tensor:
        key = id(module), name
        if not _open_caches[0]:
            return module.parametrizations[name]()
        if key not in _cache:
            _cache[key] = module.parametrizations[name]()
        return _cache[key]

    def assign(module: Any, value: Tensor) -> None:
        module.parametrizations[name].right_inverse(value)

    return property(get, assign)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Return whether a module has parametrized tensors, or a certain one."""
    entries = module._modules.get("parametrizations")
    if not isinstance(entries, ModuleDict):
        return False
    return len(entries) > 0 if tensor_name is None else tensor_name in entries


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrized tensor a plain parameter again; return the module.

    Args:
        module: the module.
        tensor_name: the name of the tensor.
        leave_parametrized: keep the value; False restores the original, which must be a single tensor.

    Raises:
        ArgumentError: the tensor is not parametrized, or has several originals and ``leave_parametrized`` is False.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"remove_parametrizations: {type(module).__name__} has no parametrized tensor {tensor_name!r}")
    entry: Any = module.parametrizations[tensor_name]
    originals = entry.originals()
    if not leave_parametrized and entry.num_originals:
        raise ArgumentError(f"remove_parametrizations: {tensor_name!r} has several originals; pass leave_parametrized=True")
    with no_grad():
        value = entry().detach().clone() if leave_parametrized else originals[0].detach()
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not module.parametrizations:
        del module.parametrizations
        module.__class__ = type_before_parametrizations(module)
    if not isinstance(originals[0], Parameter):
        module.register_buffer(tensor_name, value)
    elif entry.num_originals == 0:  # the object that an optimizer may hold
        originals[0].data = value
        setattr(module, tensor_name, originals[0])
    else:
        setattr(module, tensor_name, Parameter(value, originals[0].requires_grad))
    return module


def transfer_parametrizations_and_params(from_module: Module, to_module: Module, tensor_name: str | None = None) -> Module:
    """Parametrize the tensors of a module as those of another, by the same parametrizations, and with the same originals.

    Args:
        tensor_name: one of the parametrized tensors; all if None.

    Returns:
        ``to_module``, which is not changed if the other has no parametrized tensor of that name.
    """
    if not is_parametrized(from_module):
        return to_module
    entries: Any = from_module.parametrizations
    for name in [tensor_name] if tensor_name is not None else list(entries):
        if name not in entries:
            continue
        entry = entries[name]
        if not hasattr(to_module, name):
            value = entry().detach()
            setattr(to_module, name, Parameter(value) if isinstance(entry.originals()[0], Parameter) else value)
        for module in entry:
            register_parametrization(to_module, name, module, unsafe=entry.unsafe)
        copied: Any = to_module.parametrizations[name]
        for key in [f"original{number}" for number in range(entry.num_originals)] or ["original"]:
            setattr(copied, key, getattr(entry, key))
    return to_module


def type_before_parametrizations(module: Module) -> type:
    """The class of a module without its parametrizations."""
    found: type = getattr(type(module), "_unparametrized", type(module))
    return found


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor only once in a ``with`` block, such as a forward that reads it several times."""
    _open_caches[0] += 1
    try:
        yield
    finally:
        _open_caches[0] -= 1
        if not _open_caches[0]:
            _cache.clear()
