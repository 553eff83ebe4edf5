"""Layers: Linear, Flatten, Dropout, Sequential."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Self

from gpunet import autograd
from gpunet.autograd import Tensor, wrap
from gpunet.backend import devices
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.activation import ActivationModule
from gpunet.nn.module import Module, Parameter
from gpunet.ops.dropout import dropout
from gpunet.ops.linear import linear_layers
from gpunet.ops.shape import flatten, unflatten

__all__ = ["Dropout", "Flatten", "Identity", "Linear", "ModuleList", "Sequential", "Unflatten"]


class Identity(Module):
    """The input itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """y = x W^T + b, in one launch; with the activation that follows it in a :class:`Sequential`.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        bias: whether there is a b.
        device: where the parameters live; the default device when None.
        dtype: float32 or float64; the default dtype when None.

    ``weight`` is (out_features, in_features), ``bias`` (out_features,); both start uniform in ±1/sqrt(in_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ArgumentError(f"Linear: {name}={value!r}; expected a whole number, 0 or more")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(_empty((out_features, in_features), device, dtype))
        if bias:
            self.bias = Parameter(_empty((out_features,), device, dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again from random values."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Tensor:
        return linear_layers(input, [(self.weight, self.bias, "identity", 0.0)])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def _empty(shape: tuple[int, ...], where: Any, dtype: Any) -> Tensor:
    target = devices.default_device() if where is None else devices.Device(where)
    return Tensor(devices.empty(shape, autograd.get_default_dtype() if dtype is None else dtype, target))


class Flatten(Module):
    """Join the dimensions start_dim .. end_dim: all but the batch, by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Tensor:
        return flatten(wrap(input), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split a dimension into several."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Any) -> Tensor:
        return unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Dropout(Module):
    """Zero each element with probability p while training, and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ArgumentError(f"Dropout: p={p}; expected a probability from 0 to 1")
        self.p = p

    def forward(self, input: Any) -> Tensor:
        return dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@functools.lru_cache
def _role_of(kind: Any, forward: Any) -> str:
    """What a class of modules with this forward is to a linear run: "linear", "activation", or nothing.

    A user's subclass may do anything in a forward of its own.
    """
    if forward.__module__ in (Linear.__module__, ActivationModule.__module__):
        for role, base in (("linear", Linear), ("activation", ActivationModule)):
            if issubclass(kind, base):
                return role
    return ""


def _role(module: Any) -> str:
    """What a module is to a linear run; nothing with hooks, which must see it run by itself."""
    kind: Any = type(module)
    return "" if module._forward_hooks or module._forward_pre_hooks else _role_of(kind, kind.forward)


class _Ordered(Module):
    """Modules in order, numbered from 0."""

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.add_module(str(len(self._modules)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(list(self._modules)[index], module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(_Ordered):
    """Modules one after the other.

    Linear layers in a row, each with the activation behind it, run as one op with one launch a layer, and give the
    same bits as unfused.

    Args:
        modules: modules in order, or one OrderedDict of names and modules.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], OrderedDict) else enumerate(modules)
        for name, module in named:
            if not isinstance(module, Module):
                raise ArgumentError(f"Sequential: entry {name} is a {type(module).__name__}; expected a Module")
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        modules = list(self._modules.values())
        at = 0
        while at < len(modules):
            layers, after = _linear_run(modules, at)
            if layers:
                input, at = linear_layers(input, layers), after
            else:
                input, at = modules[at](input), at + 1
        return input

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self._modules.items())[index]))
        return list(self._modules.values())[index]


def _linear_run(modules: list[Module], at: int) -> tuple[list[tuple[Any, Any, str, float]], int]:
    """The linear layers, with their activations, that start at ``at``; and where they end."""
    layers: list[tuple[Any, Any, str, float]] = []
    while at < len(modules) and _role(modules[at]) == "linear":
        own = modules[at]._parameters
        name, alpha = "identity", 0.0
        at += 1
        if at < len(modules) and _role(modules[at]) == "activation":
            follower: Any = modules[at]
            if follower.fusible:
                name, alpha = follower.name, follower.alpha
                at += 1
        layers.append((own["weight"], own["bias"], name, alpha))
    return layers, at


class ModuleList(_Ordered):
    """A list of modules whose parameters are found."""

    def __init__(self, modules: Any = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __getitem__(self, index: Any) -> Any:
        found = list(self._modules.values())[index]
        return ModuleList(found) if isinstance(index, slice) else found
