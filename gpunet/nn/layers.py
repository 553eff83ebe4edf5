"""Layers and containers: Linear, Identity, Flatten, Unflatten, Dropout, Sequential, ModuleList."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Self

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, OutOfRangeError
from gpunet.launch.kernel import Kernel
from gpunet.nn import init
from gpunet.nn.module import FusedLayer, Module, Parameter, empty_parameter, launches
from gpunet.ops.dropout import dropout
from gpunet.ops.linear import linear_forward, linear_layers
from gpunet.ops.shape import flatten, unflatten

__all__ = ["Dropout", "Flatten", "Identity", "Linear", "ModuleList", "Sequential", "Unflatten"]


class Identity(Module):
    """Return the input unchanged; all arguments are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """y = x W^T + b, in one launch; in a :class:`Sequential`, the launch includes the activation that follows.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        bias: whether to add b.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight: (out_features, in_features), initialised uniformly from ±1/sqrt(in_features).
        bias: (out_features,), initialised like ``weight``; None without bias.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise ArgumentError(f"Linear: {name}={value!r}; expected an integer, 0 or more")
        in_features, out_features = int(in_features), int(out_features)  # of NumPy's integers
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty_parameter((out_features, in_features), device, dtype)
        if bias:
            self.bias = empty_parameter((out_features,), device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weight and bias again with random values."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    @staticmethod
    def _together(input: Any, layers: list[FusedLayer]) -> Tensor:
        """Apply consecutive linear layers and their activations as one op."""
        found = [(module._parameters["weight"], module._parameters["bias"], name, alpha) for module, name, alpha in layers]
        return linear_layers(input, found)

    @launches(linear_forward, _together)
    def forward(self, input: Any) -> Tensor:
        return linear_layers(input, [(self.weight, self.bias, "identity", 0.0)])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Flatten the dimensions start_dim .. end_dim (inclusive) into one; by default all but the batch dimension."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Tensor:
        return flatten(wrap(input), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split dimension ``dim`` into dimensions of the sizes ``unflattened_size``."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Any) -> Tensor:
        return unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Dropout(Module):
    """In training mode, set each element to 0 with probability p and scale the other elements by 1 / (1 - p).

    Args:
        p: probability of a zero.
        inplace: write the result to the input.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ArgumentError(f"Dropout: p={p}; expected a probability from 0 to 1")
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Tensor:
        if self.inplace:
            return dropout(input, self.p, self.training, inplace=True)
        return dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


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
    own = module.__dict__  # faster than attributes, which go through Module.__getattr__
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own:
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
