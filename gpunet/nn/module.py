"""Module and Parameter, with the methods and state_dict keys of PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy

from gpunet.autograd import RemovableHandle, Tensor, get_default_dtype, make_tensor, no_grad, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import as_dtype, float16, is_inexact, is_numeric
from gpunet.errors import ArgumentError, DtypeError, ShapeError, StateDictError
from gpunet.launch.kernel import Kernel
from gpunet.launch.stateful import PLAIN, Stateful, settings_changed
from gpunet.launch.tape import warn_user
from gpunet.nn.backward_hooks import BackwardHooks
from gpunet.ops.creation import empty

__all__ = ["Buffer", "Module", "Parameter", "UninitializedBuffer", "UninitializedParameter"]

M = TypeVar("M", bound="Module")
F = TypeVar("F", bound=Callable[..., Any])


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned as an attribute; it requires grad by default.

    Args:
        data: a Tensor or an array, which is shared, not copied, or nested lists of numbers; None for an empty tensor.
        requires_grad: whether ``backward`` computes its gradient.
    """

    __slots__ = ()

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        if data is None:
            data = empty(0)
        self._initialize(wrap(data, "Parameter").array, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known yet; it has no elements until :meth:`materialize`.

    Args:
        requires_grad: whether ``backward`` computes its gradient.
        device: the default device if None.
        dtype: a floating dtype; the default dtype if None.
    """

    __slots__ = ()

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(empty_parameter((0,), device, dtype).detach(), requires_grad)

    def materialize(self, shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> None:
        """Allocate elements, uninitialized; the object is a :class:`Parameter` from then on."""
        self.data = empty_parameter(tuple(shape), device or self.device, dtype or self.dtype).detach()
        self.__class__ = Parameter  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


class Buffer(Tensor):
    """A tensor that becomes a buffer of the module that it is assigned to, as by :meth:`Module.register_buffer`.

    Args:
        data: the values, shared; None is an empty tensor.
        persistent: whether the buffer is in the state_dict.
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        self._initialize(wrap([] if data is None else data).array, False)
        self.persistent = persistent


class UninitializedBuffer(Tensor):
    """A buffer whose shape is not known yet; it has no elements until :meth:`materialize`.

    Args:
        requires_grad: whether ``backward`` computes its gradient.
        device: the default device if None.
        dtype: a floating dtype; the default dtype if None.
        persistent: only True; :meth:`Module.register_buffer` takes it.

    Raises:
        ArgumentError: ``persistent`` is not True.
    """

    __slots__ = ()

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> None:
        if persistent is not True:
            raise ArgumentError(
                f"UninitializedBuffer: persistent={persistent!r}; expected True: pass persistent to register_buffer()"
            )
        self._initialize(empty_parameter((0,), device, dtype).array, requires_grad)

    def materialize(self, shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> None:
        """Allocate elements, uninitialized; the object is a :class:`Tensor` from then on."""
        self.data = empty_parameter(tuple(shape), device or self.device, dtype or self.dtype).detach()
        self.__class__ = Tensor  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<UninitializedBuffer>"


def is_lazy(param: Any) -> bool:
    """Return whether a parameter or buffer is not initialized yet."""
    return isinstance(param, (UninitializedParameter, UninitializedBuffer))


def empty_parameter(shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """An uninitialised parameter on the device and of the floating or complex dtype, or the default ones.

    Raises:
        DtypeError: the dtype is another one.
    """
    device = devices.default_device() if device is None else devices.Device(device)
    dtype = get_default_dtype() if dtype is None else as_dtype(dtype)
    if not is_inexact(dtype):
        raise DtypeError(f"a layer with parameters of dtype {dtype}; expected a floating dtype")
    return Parameter(make_tensor(devices.empty(shape, dtype, device)))


#: A module, and the name and the parameter alpha of the activation behind it; "identity" if there is none.
FusedLayer = tuple[Any, str, float]


def with_arguments_of(base: type[Module]) -> Callable[[type[M]], type[M]]:
    """Decorator of a class: append the docstring of its base class from "Args:" on.  ``python -OO`` has no docstrings."""

    def decorate(cls: type[M]) -> type[M]:
        if cls.__doc__ is not None and base.__doc__ is not None:
            cls.__doc__ = f"{cls.__doc__.rstrip()}\n\n    Args:{base.__doc__.partition('Args:')[2]}"
        return cls

    return decorate


def launches(
    kernel: Kernel, together: Callable[[Any, list[FusedLayer]], Any] | None = None
) -> Callable[[F], F]:
    """Decorator of a ``forward``: declare the kernel that it launches, so that a Sequential can fuse modules.

    A ``forward`` that overrides it declares nothing, and is called as it is.

    Args:
        kernel: what it absorbs (:meth:`gpunet.launch.kernel.Kernel.absorbs`) is fused.
        together: ``together(input, layers)`` calls consecutive modules that launch the kernel, each with the activation that it
            absorbs; None for a module that is only absorbed.
    """

    def declare(forward: F) -> F:
        forward.kernel, forward.together = kernel, together  # type: ignore[attr-defined]
        return forward

    return declare


def run_activated(input: Any, layers: list[FusedLayer]) -> Any:
    """The ``together`` of modules with a method ``_activated(input, activation, alpha)``, which runs both in one op."""
    for module, activation, alpha in layers:
        input = module._activated(input, activation, alpha)
    return input


#: The key of a module's extra state in a state_dict.
EXTRA_STATE = "_extra_state"
#: Hooks of all modules, by kind and number, and the options that they were registered with.
_global_hooks: dict[str, dict[int, Any]] = {"forward_pre": {}, "forward": {}, "backward_pre": {}, "backward": {}}
_global_options: dict[int, set[str]] = {}


def _register_global(kind: str, hook: Callable[..., Any], options: set[str] = frozenset()) -> RemovableHandle:  # type: ignore[assignment]
    before = set(_global_hooks[kind])
    handle = RemovableHandle(_global_hooks[kind], hook)
    (number,) = _global_hooks[kind].keys() - before
    _global_options[number] = options
    return handle


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before the forward of every module (see :meth:`Module.register_forward_pre_hook`)."""
    return _register_global("forward_pre", hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the forward of every module (see :meth:`Module.register_forward_hook`)."""
    options = {name for name, value in (("with_kwargs", with_kwargs), ("always_call", always_call)) if value}
    return _register_global("forward", hook, options)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` for every module (see :meth:`Module.register_full_backward_pre_hook`)."""
    return _register_global("backward_pre", hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` for every module (see :meth:`Module.register_full_backward_hook`)."""
    return _register_global("backward", hook)


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
    #: names of parameters and buffers that a state_dict may lack; :meth:`load_state_dict` then keeps them as they are
    optional_state: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            raise ArgumentError(
                f"{type(self).__name__}: Module.__init__() got {[*args, *kwargs]}; expected no arguments: call super().__init__()"
            )
        self.__dict__["_parameters"] = {}
        self.__dict__["_buffers"] = {}
        self.__dict__["_modules"] = {}
        self.__dict__["_non_persistent"] = set()
        self.__dict__["_forward_hooks"] = {}
        self.__dict__["_forward_pre_hooks"] = {}
        self.__dict__["_backward_hooks"] = {}
        self.__dict__["_backward_pre_hooks"] = {}
        self.__dict__["_state_hooks"] = {}  # by kind: hooks of state_dict and load_state_dict
        self.__dict__["_hook_options"] = {}  # by number of the hook: the options that it was registered with
        self.training = True

    def forward(self, *input: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.has_hooks:
            return self.forward(*args, **kwargs)
        called: set[int] = set()
        try:
            return self._call_with_hooks(called, args, kwargs)
        except Exception:
            for number, hook in [*_global_hooks["forward"].items(), *self._forward_hooks.items()]:
                if number not in called and "always_call" in self._hook_options.get(number, _global_options.get(number, ())):
                    self._call_hook(number, hook, args, kwargs, (None,))
            raise

    @property
    def has_hooks(self) -> bool:
        """Whether a call runs hooks, of this module or of all."""
        own = self.__dict__  # faster than attributes, which go through Module.__getattr__
        return bool(
            own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
            or any(_global_hooks.values())
        )  # fmt: skip

    def _call_with_hooks(self, called: set[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the hooks and forward; ``called`` receives the numbers of the forward hooks that have run."""
        for number, hook in [*_global_hooks["forward_pre"].items(), *self._forward_pre_hooks.items()]:
            changed = self._call_hook(number, hook, args, kwargs)
            if changed is None:
                continue
            if "with_kwargs" not in self._hook_options.get(number, ()):
                args = changed if isinstance(changed, tuple) else (changed,)
            elif isinstance(changed, tuple) and len(changed) == 2:
                args, kwargs = changed
            else:
                raise ArgumentError(f"a forward pre-hook with kwargs returned {changed!r}; expected None or (args, kwargs)")
        backward = None
        hooks = [*_global_hooks["backward"].values(), *self._backward_hooks.values()]
        pre_hooks = [*_global_hooks["backward_pre"].values(), *self._backward_pre_hooks.values()]
        if hooks or pre_hooks:
            backward = BackwardHooks(self, pre_hooks, hooks)
            args = backward.at_inputs(args)
        result = self.forward(*args, **kwargs)
        for number, hook in [*_global_hooks["forward"].items(), *self._forward_hooks.items()]:
            called.add(number)
            changed = self._call_hook(number, hook, args, kwargs, (result,))
            result = result if changed is None else changed
        return result if backward is None else backward.at_outputs(result)

    def _call_hook(
        self, number: int, hook: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: tuple[Any, ...] = ()
    ) -> Any:
        options = self._hook_options.get(number) or _global_options.get(number, ())
        keywords = (kwargs,) if "with_kwargs" in options else ()
        return hook(self, args, *keywords, *result)

    def recorded_state(self) -> list[Any]:
        """Return plain attributes, submodules, parameters, buffers and hooks."""
        plain = {k: v for k, v in self.__dict__.items() if isinstance(v, PLAIN) and v is not None}  # None: has no value yet
        tables = (
            self._modules, self._parameters, self._buffers, self._forward_pre_hooks, self._forward_hooks, self._backward_hooks,
            self._backward_pre_hooks, *_global_hooks.values(),
        )  # fmt: skip
        return [*plain, *plain.values(), *(item for table in tables for item in (*table, *table.values()))]

    # -- attributes
    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise ArgumentError(f"{type(self).__name__}: call super().__init__() before assigning attributes")
        tables = (self._parameters, self._buffers, self._modules)
        if isinstance(value, Buffer):
            for table in tables:
                table.pop(name, None)
            self.register_buffer(name, value, value.persistent)
            return
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
            if table is not target:  # there, the name keeps its place
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

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as :meth:`add_module`."""
        self.add_module(name, module)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward; its result, unless None, replaces the output.

        Args:
            hook: the function.
            prepend: call it before the hooks that are registered already.
            with_kwargs: call ``hook(module, args, kwargs, output)``.
            always_call: call it also if forward or another hook raises; the output is None then.
        """
        options = {name for name, value in (("with_kwargs", with_kwargs), ("always_call", always_call)) if value}
        return self._register_hook(self._forward_hooks, hook, prepend, options)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; its result, unless None, replaces the arguments.

        Args:
            hook: the function.
            prepend: call it before the hooks that are registered already.
            with_kwargs: call ``hook(module, args, kwargs)``, which returns None or ``(args, kwargs)``.
        """
        return self._register_hook(self._forward_pre_hooks, hook, prepend, {"with_kwargs"} if with_kwargs else set())

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of a call's inputs have been computed.

        Args:
            hook: the function.  Both gradients are tuples, with None for what has no gradient; a result, unless None, replaces
                grad_input.  Inputs and outputs must not be changed in place.
            prepend: call it before the hooks that are registered already.
        """
        return self._register_hook(self._backward_hooks, hook, prepend, set())

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the backward of a call; its result, unless None, replaces grad_output."""
        return self._register_hook(self._backward_pre_hooks, hook, prepend, set())

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """The same as :meth:`register_full_backward_hook`; deprecated in PyTorch, where grad_input is that of the last op."""
        return self.register_full_backward_hook(hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before :meth:`state_dict` collects this module."""
        return self._register_hook(self._state_hooks.setdefault("state_pre", {}), hook, False, set())

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after :meth:`state_dict`; it may change the dict."""
        return self._register_hook(self._state_hooks.setdefault("state_post", {}), hook, False, set())

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call a hook before :meth:`load_state_dict` reads this module's part; it may change the dict.

        Args:
            hook: called as ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                error_msgs)``; what it adds to the three lists is reported.
        """
        return self._register_hook(self._state_hooks.setdefault("load_pre", {}), hook, False, set())

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after :meth:`load_state_dict`; it may change the lists of keys."""
        return self._register_hook(self._state_hooks.setdefault("load_post", {}), hook, False, set())

    def _register_hook(self, hooks: dict[int, Any], hook: Any, prepend: bool, options: set[str]) -> RemovableHandle:
        before = dict(hooks)
        if prepend:
            hooks.clear()
        handle = RemovableHandle(hooks, hook)
        (number,) = hooks.keys() - before.keys()
        hooks.update(before)
        if options:
            self._hook_options[number] = options
        return handle

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled module; its hooks get new numbers, because this process may have given theirs to others."""
        self.__dict__.update(state)
        options = self.__dict__.pop("_hook_options", {})
        self.__dict__["_hook_options"] = {}
        self.__dict__.setdefault("_state_hooks", {})
        for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            hooks = self.__dict__.get(table, {})
            self.__dict__[table] = {}
            for number, hook in hooks.items():
                self._register_hook(self.__dict__[table], hook, False, options.get(number, set()))

    # -- iteration over modules and parameters
    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Iterate over (name, module) of this module and all submodules, recursively.

        Args:
            memo: modules to leave out; the modules of the iteration are added.
            prefix: of the names.
            remove_duplicate: whether a module that occurs several times is listed once.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """Iterate over this module and all submodules, recursively."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over (name, module) of the direct submodules; each occurs once."""
        memo: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in memo:
                memo.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Iterate over the direct submodules; each occurs once."""
        return (module for _, module in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, tensor in getattr(module, table).items():
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (name, parameter).

        Args:
            prefix: of the names.
            recurse: include those of submodules.
            remove_duplicate: whether a parameter that occurs several times is listed once.
        """
        return self._named("_parameters", prefix, recurse, remove_duplicate)  # type: ignore[return-value]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, for example to pass them to an optimizer."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (name, buffer); arguments as of :meth:`named_parameters`."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

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

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with a dotted name such as "encoder.0.weight".

        Raises:
            ArgumentError: there is no such parameter.
        """
        return self._get("get_parameter", "parameter", "_parameters", target)

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer with a dotted name.

        Raises:
            ArgumentError: there is no such buffer.
        """
        return self._get("get_buffer", "buffer", "_buffers", target)

    def _get(self, method: str, kind: str, table: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = getattr(owner, table).get(name)
        if found is None:
            known = list(getattr(owner, table))
            raise ArgumentError(f"{method}({target!r}): {type(owner).__name__} has no {kind} {name!r}; it has {known}")
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Replace the submodule with a dotted name, or add it.

        Args:
            target: the name.
            module: the new module.
            strict: the submodule must exist.

        Raises:
            ArgumentError: the name is empty, its parent does not exist, or the submodule does not with ``strict``.
        """
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if strict and name not in owner._modules:
            raise ArgumentError(f"set_submodule({target!r}): {type(owner).__name__} has no submodule {name!r}; pass strict=False")
        owner.add_module(name, module)

    def get_extra_state(self) -> Any:
        """Return what :meth:`state_dict` holds beside tensors; override it together with :meth:`set_extra_state`."""
        raise ArgumentError(f"{type(self).__name__}: define get_extra_state() and set_extra_state() together")

    def set_extra_state(self, state: Any) -> None:
        """Take what :meth:`get_extra_state` returned."""
        raise ArgumentError(f"{type(self).__name__}: define get_extra_state() and set_extra_state() together")

    @property
    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Module.get_extra_state

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` with each submodule, recursively, and then with this module; return this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- modes
    def train(self: M, mode: bool = True) -> M:
        """Set training mode, in which e.g. dropout is active, or with ``mode=False`` evaluation mode.

        Raises:
            ArgumentError: ``mode`` is no bool.
        """
        if not isinstance(mode, bool):
            raise ArgumentError(f"train: mode={mode!r}; expected a bool")
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

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move parameters and buffers to a device and convert floating ones to a dtype, in place; return the module.

        The arguments are those of :meth:`Tensor.to`.

        Raises:
            DtypeError: the dtype is not floating.
        """

        def convert(t: Tensor) -> Tensor:
            if not t.is_floating_point():  # moves, and keeps its dtype
                return t.to(empty(0, device=t.device).to(*args, **kwargs).device)
            result = t.to(*args, **kwargs)
            if not result.is_floating_point():
                raise DtypeError(f"{type(self).__name__}.to({result.dtype}): expected a floating dtype")
            return result

        return self._convert(convert)

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

    def half(self: M) -> M:
        """Convert floating parameters and buffers to float16."""
        return self.to(dtype=float16)

    def bfloat16(self: M) -> M:
        """Convert floating parameters and buffers to bfloat16."""
        return self.to(dtype=as_dtype("bfloat16"))

    def type(self: M, dst_type: Any) -> M:
        """Convert parameters and buffers to a dtype."""
        return self.to(dtype=dst_type)

    def share_memory(self: M) -> M:
        """Return the module: other processes receive a copy, see :meth:`Tensor.is_shared`."""
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, as :func:`gpunet.compile`: :func:`gpunet.capture` compiles whole training steps."""

    def to_empty(self: M, *, device: Any, recurse: bool = True) -> M:
        """Move parameters and buffers to a device without their values.

        Args:
            device: the device.
            recurse: include those of submodules.
        """
        place = devices.Device(device)
        with no_grad():
            for tensor in [*self.parameters(recurse), *self.buffers(recurse)]:
                tensor.data = make_tensor(devices.empty(tensor.array.shape, tensor.array.dtype, place))
                tensor.grad = None
        return self

    # -- state
    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        """Return a dict of all parameters and persistent buffers by name; the tensors share the module's memory.

        Args:
            args: destination, prefix and keep_vars by position, which is deprecated.
            destination: the dict to add to; a new one if None.
            prefix: of the names.
            keep_vars: return the parameters themselves, instead of detached tensors.
        """
        if args:
            warn_user("state_dict: pass destination, prefix and keep_vars by keyword", FutureWarning)
            given: list[Any] = [destination, prefix, keep_vars]
            destination, prefix, keep_vars = [*args, *given[len(args) :]]
        state: dict[str, Any] = OrderedDict() if destination is None else destination
        for hook in list(self._state_hooks.get("state_pre", {}).values()):
            hook(self, prefix, keep_vars)
        for name, tensor in self._own_state().items():
            state[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_extra_state:
            state[prefix + EXTRA_STATE] = self.get_extra_state()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in list(self._state_hooks.get("state_post", {}).values()):
            hook(self, state, prefix, {})
        return state

    def _own_state(self) -> dict[str, Tensor]:
        """Return the parameters and persistent buffers of this module alone."""
        buffers = {name: b for name, b in self._buffers.items() if name not in self._non_persistent}
        return {name: tensor for name, tensor in (self._parameters | buffers).items() if tensor is not None}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the values of a state_dict into the parameters and buffers.

        Args:
            state_dict: tensors or arrays (NumPy, CuPy, or anything with ``__array__``) by name.
            strict: raise if names are missing or unexpected.
            assign: make the tensors of ``state_dict`` parameters and buffers of the module, with their dtypes and devices,
                instead of copying their values.  An optimizer must be created after that.

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
        modules = list(self.named_modules(remove_duplicate=False))
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []
        if any(module._state_hooks.get("load_pre") for _, module in modules):
            state_dict = dict(state_dict)  # the hooks change it
            for path, module in modules:
                for hook in list(module._state_hooks.get("load_pre", {}).values()):
                    hook(module, state_dict, f"{path}." if path else "", {}, strict, missing, unexpected, problems)
        own = {
            f"{path}.{name}" if path else name: (module, name, tensor)
            for path, module in modules
            for name, tensor in module._own_state().items()
        }
        extra = {f"{path}.{EXTRA_STATE}" if path else EXTRA_STATE: module for path, module in modules if module._has_extra_state}
        needed = [key for key, (module, name, _) in own.items() if name not in module.optional_state]
        missing += [key for key in (*needed, *extra) if key not in state_dict]
        unexpected += [name for name in state_dict if name not in own and name not in extra]
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(unexpected)}")
        values = {}
        for key in own.keys() & state_dict.keys():
            if is_lazy(own[key][2]):
                own[key][2].materialize(state_dict[key].shape)  # type: ignore[attr-defined]
            try:
                values[key] = _as_tensor(state_dict[key], own[key][2].shape)
            except (DtypeError, ShapeError) as error:
                problems.append(f"{key} {error}")
        if problems:
            raise StateDictError(f"state_dict does not fit {type(self).__name__}: " + "; ".join(problems))
        with no_grad():
            for key, (module, name, tensor) in own.items():
                if key not in values:
                    continue
                if not assign:
                    tensor.detach().copy_(values[key])
                elif isinstance(tensor, Parameter):
                    value = values[key]
                    value = value if isinstance(value, Parameter) else Parameter(value, tensor.requires_grad)
                    setattr(module, name, value.requires_grad_(tensor.requires_grad))
                else:
                    setattr(module, name, values[key])
        for key in extra.keys() & state_dict.keys():
            extra[key].set_extra_state(state_dict[key])
        result = IncompatibleKeys(missing, unexpected)
        for _, module in modules:
            for hook in list(module._state_hooks.get("load_post", {}).values()):
                hook(module, result)
        return result

    # -- repr
    def extra_repr(self) -> str:
        """Return the text in the parentheses of the module's repr; override it in subclasses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        if not self._modules and "\n" not in extra:
            return f"{type(self).__name__}({extra})"
        lines = [*filter(None, [extra]), *(f"({name}): {module!r}" for name, module in self._modules.items())]
        return f"{type(self).__name__}(\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n)"


def _as_tensor(value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return an entry of a state_dict as a tensor of ``shape``; one of shape (1,) fits a 0-d tensor, too.

    Raises:
        ShapeError: it has another shape.
        DtypeError: it is no array of numbers.
    """
    if not isinstance(value, Tensor) and not devices.is_array(value):
        try:
            value = numpy.asarray(value)
        except (TypeError, ValueError) as error:
            raise DtypeError(f"cannot be read as an array: {error}") from None
        if not is_numeric(value.dtype):
            raise DtypeError(f"has dtype {value.dtype}; expected numbers")
    tensor = wrap(value)
    if shape == () and tensor.shape == (1,):
        tensor = tensor.reshape(())
    if tensor.shape != shape:
        raise ShapeError(f"has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    return tensor
