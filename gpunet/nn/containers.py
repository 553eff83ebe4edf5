"""Containers: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError
from gpunet.launch.kernel import Kernel
from gpunet.nn.module import FusedLayer, Module, Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _ModuleSequence(Module):
    """Base class of containers that hold modules in order, named by their index."""

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.add_module(str(len(self._modules)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Insert a module before ``index``; the modules behind it get new names."""
        modules = list(self)
        modules.insert(index, module)
        self._replace(modules)

    def pop(self, key: int) -> Module:
        """Remove the module at ``key`` and return it; the modules behind it get new names."""
        module = self[key]
        del self[key]
        return module

    def _replace(self, modules: Iterable[Module]) -> None:
        """Hold ``modules``, named by their index."""
        for name in list(self._modules):
            delattr(self, name)
        self.extend(modules)

    def __setitem__(self, idx: int, module: Module) -> None:
        self.add_module(self._name_at(idx), module)

    def __delitem__(self, idx: int | slice) -> None:
        modules = list(self)
        del modules[idx]
        self._replace(modules)

    def __getitem__(self, idx: Any) -> Any:
        raise NotImplementedError

    def _name_at(self, index: int) -> str:
        try:
            return list(self._modules)[index]
        except IndexError:
            raise OutOfRangeError(f"index {index} of a {type(self).__name__} of {len(self)} modules") from None

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(_ModuleSequence):
    """Call modules in order, each with the output of the one before.

    A module whose kernel absorbs the activation behind it, such as Linear, runs with it in one launch; consecutive Linear modules
    run as one op.  The results have the same bits as those of the unfused modules.

    Args:
        args: modules in order, or one OrderedDict of names and modules.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], OrderedDict) else enumerate(args)
        for name, module in named:
            if not isinstance(module, Module):
                raise ArgumentError(f"Sequential: entry {name} has type {type(module).__name__}; expected a Module")
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        modules = list(self._modules.values())
        index = 0
        while index < len(modules):
            kernel, together = _declared(modules[index])
            if together is None:
                input, index = modules[index](input), index + 1
            else:
                layers, index = _fusible_layers(modules, index, kernel)
                input = together(input, layers)
        return input

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return type(self)(OrderedDict(list(self._modules.items())[idx]))
        return self._modules[self._name_at(idx)]

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other) if isinstance(other, Sequential) else NotImplemented


def _fusible_layers(modules: list[Any], start: int, kernel: Kernel) -> tuple[list[FusedLayer], int]:
    """Collect the consecutive modules that launch ``kernel``, with the activations that it absorbs, from ``modules[start]`` on.

    Returns:
        The layers, and the index of the first module after them.
    """
    layers: list[FusedLayer] = []
    index = start
    while index < len(modules) and _declared(modules[index])[0] is kernel:
        module, name, alpha = modules[index], "identity", 0.0
        index += 1
        if index < len(modules) and _declared(modules[index])[0] in kernel.absorbed and modules[index].fusible:
            name, alpha = modules[index].name, modules[index].alpha
            index += 1
        layers.append((module, name, alpha))
    return layers, index


def _declared(module: Module) -> tuple[Any, Any]:
    """What a module declares by :func:`launches`: kernel and function; None without a declaration, or with hooks."""
    if module.has_hooks or "forward" in module.__dict__:
        return None, None
    forward = type(module).forward
    return getattr(forward, "kernel", None), getattr(forward, "together", None)


class ModuleList(_ModuleSequence):
    """A list of modules that registers them as submodules."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def __getitem__(self, idx: Any) -> Any:
        return type(self)(list(self)[idx]) if isinstance(idx, slice) else self._modules[self._name_at(idx)]

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return type(self)([*self, *other])


class ModuleDict(Module):
    """A dict of modules, in the order of their insertion, that registers them as submodules.

    Args:
        modules: names and modules, a mapping or pairs.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Remove all modules."""
        for key in list(self._modules):
            del self[key]

    def pop(self, key: str) -> Module:
        """Remove a module and return it."""
        module = self[key]
        del self[key]
        return module

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Module]]:
        """The names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, a mapping or pairs; those of the same name are replaced."""
        for key, module in _pairs("ModuleDict", modules):
            self[key] = module


def _pairs(kind: str, items: Any) -> list[tuple[str, Any]]:
    """The items of a mapping, or pairs as they are."""
    if hasattr(items, "items"):
        return list(items.items())
    try:
        return [(key, value) for key, value in items]
    except (TypeError, ValueError):
        raise DtypeError(f"{kind}: got {items!r}; expected a mapping, or pairs of names and values") from None


class ParameterList(Module):
    """A list that registers tensors as parameters; other values are kept as they are.

    Args:
        values: tensors and other values.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        self.extend(() if values is None else values)

    def _key(self, index: int) -> str:
        if not -self._size <= index < self._size:
            raise OutOfRangeError(f"index {index} of a {type(self).__name__} of {self._size} values")
        return str(index % self._size)

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return type(self)([self[i] for i in range(self._size)[idx]])
        return getattr(self, self._key(idx))

    def __setitem__(self, idx: int, param: Any) -> None:
        setattr(self, self._key(idx), _registered(param))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(self._size)])

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def append(self, value: Any) -> Self:
        """Add a value at the end."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add values at the end."""
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        return "\n".join(_described(number, value) for number, value in enumerate(self))


class ParameterDict(Module):
    """A dict, in the order of its insertion, that registers tensors as parameters; other values are kept as they are.

    Args:
        parameters: names and values, a mapping or pairs.
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, str] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, self._keys[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._keys[key] = key
        setattr(self, key, _registered(value))

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __or__(self, other: ParameterDict) -> ParameterDict:
        return type(self)({**dict(self.items()), **dict(other.items())})

    def __ior__(self, other: ParameterDict) -> Self:
        self.update(other)
        return self

    def copy(self) -> ParameterDict:
        """A new ParameterDict with the same parameters."""
        return type(self)(dict(self.items()))

    def clear(self) -> None:
        """Remove all values."""
        for key in list(self._keys):
            del self[key]

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, which becomes ``default`` if there is none."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Remove a value and return it."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last name and value, and return them."""
        key = list(self._keys)[-1]
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, ``default`` if there is none."""
        return self[key] if key in self._keys else default

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new ParameterDict with the same value for all keys."""
        return type(self)(dict.fromkeys(keys, default))

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The names and values."""
        return [(key, self[key]) for key in self._keys]

    def values(self) -> Iterable[Any]:
        """The values."""
        return [self[key] for key in self._keys]

    def update(self, parameters: Any) -> None:
        """Add values, a mapping or pairs; those of the same name are replaced."""
        for key, value in _pairs("ParameterDict", parameters):
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(_described(key, value) for key, value in self.items())


def _registered(value: Any) -> Any:
    """A tensor as a parameter, other values as they are."""
    return Parameter(value.detach()) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _described(key: Any, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"({key}): Object of type: {type(value).__name__}"
    return f"({key}): Parameter containing: [{value.dtype} of size {'x'.join(map(str, value.shape))}]"
