"""Module and Parameter, with the methods and state_dict keys of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy

from gpunet.autograd import RemovableHandle, Tensor, no_grad
from gpunet.backend import devices
from gpunet.errors import ArgumentError, DtypeError, StateDictError
from gpunet.launch.stateful import PLAIN, Stateful, settings_changed

__all__ = ["Module", "Parameter"]

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned as an attribute; it requires grad by default.

    Args:
        data: a Tensor or an array, which is shared, not copied, or nested lists of numbers.
        requires_grad: whether ``backward`` computes its gradient.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data.array if isinstance(data, Tensor) else numpy.asarray(data), requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class IncompatibleKeys(NamedTuple):
    """The keys that :meth:`Module.load_state_dict` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module(Stateful):
    """Base class of layers and models.

    In ``__init__``, call ``super().__init__()``, assign parameters and submodules as attributes, and register buffers
    with ``register_buffer``.  Define ``forward``; call the module to run it with its hooks.
    """

    training: bool

    def __init__(self) -> None:
        self.__dict__["_parameters"] = {}
        self.__dict__["_buffers"] = {}
        self.__dict__["_modules"] = {}
        self.__dict__["_non_persistent"] = set()
        self.__dict__["_forward_hooks"] = {}
        self.__dict__["_forward_pre_hooks"] = {}
        self.training = True

    def forward(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not (self._forward_hooks or self._forward_pre_hooks):
            return self.forward(*args, **options)
        for hook in list(self._forward_pre_hooks.values()):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **options)
        for hook in list(self._forward_hooks.values()):
            changed = hook(self, args, result)
            result = result if changed is None else changed
        return result

    def recorded_state(self) -> list[Any]:
        """Return plain attributes, submodules, parameters, buffers and hooks."""
        plain = {k: v for k, v in self.__dict__.items() if isinstance(v, PLAIN) and v is not None}  # None: has no value yet
        tables = (self._modules, self._parameters, self._buffers, self._forward_pre_hooks, self._forward_hooks)
        return [*plain, *plain.values(), *(item for table in tables for item in (*table, *table.values()))]

    # -- attributes
    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise ArgumentError(f"{type(self).__name__}: call super().__init__() before assigning attributes")
        tables = (self._parameters, self._buffers, self._modules)
        if isinstance(value, Parameter):
            target = self._parameters
        elif isinstance(value, Module):
            target = self._modules
        else:
            for table in tables:
                if name in table:
                    if value is not None and not (table is self._buffers and isinstance(value, Tensor)):
                        kind = (
                            "a Parameter"
                            if table is self._parameters
                            else "a Module"
                            if table is self._modules
                            else "a Tensor"
                        )
                        raise DtypeError(
                            f"attribute {name!r} of {type(self).__name__}: got {type(value).__name__}, expected {kind}"
                        )
                    settings_changed[0] += 1
                    table[name] = value
                    return
            settings_changed[0] += 1
            object.__setattr__(self, name, value)
            return
        settings_changed[0] += 1
        for table in tables:
            table.pop(name, None)
        self.__dict__.pop(name, None)
        target[name] = value

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_modules", "_buffers"):
            found = self.__dict__.get(table, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        settings_changed[0] += 1
        for table in (self._parameters, self._modules, self._buffers):
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._modules, *self._buffers]

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None reserves the name, e.g. for a layer without bias."""
        if param is None:
            settings_changed[0] += 1
            self._parameters[name] = None
        else:
            setattr(self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is not trained, but moves with the module and is in its state_dict.

        Args:
            name: name of the attribute.
            tensor: the buffer; None reserves the name.
            persistent: whether the buffer is in the state_dict.
        """
        settings_changed[0] += 1
        self.__dict__.pop(name, None)
        self._buffers[name] = tensor
        if not persistent:
            self._non_persistent.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name, which must not contain dots; None reserves the name."""
        if module is not None and not isinstance(module, Module):
            raise DtypeError(f"submodule {name!r} has type {type(module).__name__}; expected a Module")
        if not name or "." in name:
            raise ArgumentError(f"submodule name {name!r}; expected a non-empty name without dots")
        settings_changed[0] += 1
        self._modules[name] = module

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward; its result, unless None, replaces the output."""
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; its result, unless None, replaces the arguments."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    # -- iteration over modules and parameters
    def named_modules(self, memo: set[int] | None = None, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Iterate over (name, module) of this module and all submodules, recursively; each module occurs once."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        memo.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all submodules, recursively."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over (name, module) of the direct submodules."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        """Iterate over the direct submodules."""
        return (module for _, module in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix=prefix) if recurse else [(prefix, self)]:
            for name, tensor in getattr(module, table).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (name, parameter); each parameter occurs once.  ``recurse``: include those of submodules."""
        return self._named("_parameters", prefix, recurse)  # type: ignore[return-value]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, for example to pass them to an optimizer."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (name, buffer); each buffer occurs once.  ``recurse``: include those of submodules."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the buffers."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the submodule with a dotted name such as "encoder.0"; the empty name is this module.

        Raises:
            ArgumentError: there is no such submodule.
        """
        module = self
        for name in target.split(".") if target else []:
            found = module._modules.get(name)
            if found is None:
                raise ArgumentError(
                    f"get_submodule({target!r}): {type(module).__name__} has no submodule {name!r}; it has "
                    f"{list(module._modules)}"
                )
            module = found
        return module

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call ``function`` with each submodule, recursively, and then with this module; return this module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- modes
    def train(self: M, mode: bool = True) -> M:
        """Set training mode, in which e.g. dropout is active, or with ``mode=False`` evaluation mode."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Set evaluation mode."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Set ``requires_grad`` of all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the ``grad`` of all parameters to None, or with ``set_to_none=False`` to zero."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = parameter.grad.detach().zero_()

    # -- devices and dtypes
    def _convert(self: M, function: Callable[[Tensor], Tensor]) -> M:
        """Replace the data of each parameter and buffer, and each gradient, by ``function(tensor)``."""
        with no_grad():
            for tensor in [*self.parameters(), *self.buffers()]:
                tensor.data = function(tensor.detach())
                if tensor.grad is not None:
                    tensor.grad = function(tensor.grad)
        return self

    def to(self: M, *args: Any, **options: Any) -> M:
        """Move parameters and buffers to a device and convert floating ones to a dtype, in place; return the module.

        The arguments are those of :meth:`Tensor.to`.
        """
        return self._convert(
            lambda t: t.to(*args, **options) if t.is_floating_point() or not _has_dtype(args, options) else t
        )

    def cpu(self: M) -> M:
        """Move parameters and buffers to the CPU."""
        return self.to("cpu")

    def cuda(self: M, device: int | None = None) -> M:
        """Move parameters and buffers to a GPU: the current one, or the one with the number ``device``."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    def double(self: M) -> M:
        """Convert floating parameters and buffers to float64."""
        return self.to(dtype=numpy.dtype("float64"))

    def float(self: M) -> M:
        """Convert floating parameters and buffers to float32."""
        return self.to(dtype=numpy.dtype("float32"))

    # -- state
    def state_dict(self) -> dict[str, Tensor]:
        """Return a dict of all parameters and persistent buffers by name; the tensors share the module's memory."""
        state: dict[str, Tensor] = {}
        for path, module in self.named_modules():
            prefix = f"{path}." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    state[prefix + name] = parameter.detach()
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent:
                    state[prefix + name] = buffer.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy the values of a state_dict into the parameters and buffers.

        Args:
            state_dict: tensors or arrays (NumPy, CuPy, or anything with ``__array__``) by name.
            strict: raise if names are missing or unexpected.

        Returns:
            The missing and the unexpected names.

        Raises:
            StateDictError: names are missing or unexpected, or shapes differ; the message lists all problems, and the
                module is unchanged.
            DtypeError: ``state_dict`` is not a dict.
        """
        if not isinstance(state_dict, Mapping):
            raise DtypeError(
                f"load_state_dict got {state_dict!r}, a {type(state_dict).__name__}; expected a dict of tensors, such as the "
                "result of gpunet.load(path)"
            )
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(unexpected)}")
        values = {}
        for name in own:
            if name in state_dict:
                value = state_dict[name]
                array = (
                    value.array
                    if isinstance(value, Tensor)
                    else value
                    if devices.is_array(value)
                    else numpy.asarray(value)
                )
                if array.shape != own[name].shape:
                    problems.append(f"{name} has shape {array.shape}, expected {own[name].shape}")
                values[name] = array
        if problems:
            raise StateDictError(f"state_dict does not fit {type(self).__name__}: " + "; ".join(problems))
        with no_grad():
            for name, array in values.items():
                own[name].copy_(Tensor(array))
        return IncompatibleKeys(missing, unexpected)

    # -- repr
    def extra_repr(self) -> str:
        """Return the text in the parentheses of the module's repr; override it in subclasses."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}({extra}\n  " + "\n  ".join(lines) + "\n)"


def _has_dtype(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether the arguments of :meth:`Module.to` contain a dtype."""
    return "dtype" in options or any(not isinstance(a, (str, devices.Device, bool)) for a in args)
