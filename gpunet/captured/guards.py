"""Guards of a recording: the values outside a step on which its Python depends, compared before each replay.

A step's code names numbers and objects besides its arguments.  If one of them changes (a Python number in a closure,
``model.eval()``, another tensor under the same name), the recording no longer fits and the step is recorded again.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any

from gpunet.autograd import Tensor, settings_changed
from gpunet.captured.codegen import compile_source
from gpunet.nn.module import Module
from gpunet.optim import Optimizer
from gpunet.optim.lr_scheduler import LRScheduler

Description = str | Callable[[], str]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))  # types compared by value
_MAX_ITEMS = 64  # longer lists and dicts are not searched
_MAX_DEPTH = 4  # how deep calls and nested objects are followed
_MISSING = object()


class Guards:
    """Guards checked before each replay, each with a description of the value that it guards.

    They nearly always hold, so all are compiled into one expression.
    """

    def __init__(self) -> None:
        self._descriptions: dict[str, Description] = {}
        self._values: dict[str, Any] = {}
        self._names: dict[int, str] = {}  # by id of the value
        self._compiled: Callable[[], bool] | None = None

    def add(self, expression: str, values: tuple[Any, ...], description: Description) -> None:
        """Add a guard.

        Args:
            expression: source of a condition, with "{}" in place of values.
            values: the values for these places.
            description: description of the guarded value; or a function that returns it when the guard fails.
        """
        self._descriptions.setdefault(expression.format(*map(self._name, values)), description)
        self._compiled = None

    def _name(self, value: Any) -> str:
        name = self._names.setdefault(id(value), f"v{len(self._names)}")
        self._values[name] = value  # keeps the value alive, so that its id is not reused
        return name

    def hold(self) -> bool:
        """Whether all guards hold."""
        if self._compiled is None:
            self._compiled = self._compile([*self._descriptions])
        return self._compiled()

    def find_change(self) -> str:
        """Return the description of the first guard that fails, or "" if all hold."""
        if self.hold():
            return ""
        for expression, description in self._descriptions.items():
            if not self._compile([expression])():
                return description if isinstance(description, str) else description()
        return ""

    def _compile(self, expressions: list[str]) -> Callable[[], bool]:
        # KeyError: a name was deleted; ValueError: a closure's cell is empty
        lines = ["try:", f"    return {' and '.join(expressions) or True}", "except (KeyError, ValueError):", "    return False"]
        return compile_source("", lines, self._values)[0]


def collect_guards(function: Callable[..., Any], arguments: Any = ()) -> Guards:
    """Return guards for the values on which ``function`` depends.

    Guarded are values reachable from names in its code, and from arguments that are neither tensors nor plain.

    Args:
        function: a function, method, ``functools.partial``, module, or other object that can be called.
        arguments: a structure of lists, tuples and dicts.
    """
    return _Collector(function, arguments).guards


def _is_same(a: Any, b: Any) -> bool:
    """Whether two values are interchangeable for a recording: equal if plain, else identical."""
    if a is b or type(a) is not type(b) or not isinstance(a, _PLAIN):
        return a is b
    return repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b  # 0.0 is not -0.0, and NaN is NaN


class _Collector:
    """Walks the values that a function's code names, and adds guards for them."""

    def __init__(self, function: Callable[..., Any], arguments: Any) -> None:
        self.guards = Guards()
        self._modules: dict[int, Module] = {}
        self._tensors: dict[int, Tensor] = {}
        self._seen: set[int] = set()  # ids of functions and dicts
        self._guarded_names: dict[int, set[str]] = {}  # id of an object -> its attributes that are guarded
        self._guard_function(function, 0, _objects(arguments))
        for module in self._modules.values():
            for parameter in module._parameters.values():
                if parameter is not None:
                    self._guard_tensor(parameter)
        for module in [*self._modules.values()]:
            for hook in _hooks_of(module):
                self._guard_function(hook, 0)
        state = _ModuleState([*self._modules.values()], [*self._tensors.values()])
        self.guards.add("({}[0] == {}[0] or {}())", (settings_changed, state.changes, state.is_unchanged), state.find_change)

    # -- single guards
    def _guard_item(self, namespace: Mapping[str, Any], key: Any, value: Any, description: str) -> None:
        kind = type(namespace)
        if value is _MISSING:
            self.guards.add("{} not in {}", (key, namespace), description)
        elif kind is not dict and kind is not types.MappingProxyType:  # a defaultdict creates items on access
            self.guards.add("{}({}.get({}, {}), {})", (_is_same, namespace, key, _MISSING, value), description)
        elif isinstance(value, _PLAIN):
            self.guards.add("({1}[{2}] is {3} or {0}({1}[{2}], {3}))", (_is_same, namespace, key, value), description)
        else:
            self.guards.add("{}[{}] is {}", (namespace, key, value), description)

    def _guard_cell(self, cell: Any, value: Any, name: str) -> None:
        self.guards.add("({1}.cell_contents is {2} or {0}({1}.cell_contents, {2}))", (_is_same, cell, value), name)

    def _guard_list(self, items: list[Any]) -> None:
        expression = "len({2}) == len({3}) and (all(map({0}, {2}, {3})) or all(map({1}, {2}, {3})))"
        self.guards.add(expression, (is_, _is_same, items, tuple(items)), "a list")

    def _guard_tensor(self, tensor: Tensor) -> None:
        description = f"requires_grad of a tensor of shape {tensor.shape}"
        self.guards.add("{}._requires_grad is {}", (tensor, tensor.requires_grad), description)
        self._tensors[id(tensor)] = tensor
        for hook in _hooks_of(tensor):
            self._guard_function(hook, 0)

    # -- the walk
    def _guard_function(self, function: Any, depth: int, arguments: Iterable[Any] = ()) -> None:
        """Add guards for the names in a function's code, for its defaults, and for arguments that it is called with."""
        if isinstance(function, functools.partial):
            for value in (*function.args, *function.keywords.values()):
                self._guard(value, set(), depth)
            function = function.func
        if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
            self._guard(function.__self__, _all_names(function.__func__.__code__), depth)
            function = function.__func__
        if isinstance(function, Module):
            self._guard(function, set(), depth)
            function = type(function).forward
        elif not hasattr(function, "__code__"):  # an object with __call__
            call = type(function).__call__
            if isinstance(call, types.FunctionType):
                self._guard(function, _all_names(call.__code__), depth)
                function = call
        code = getattr(function, "__code__", None)
        if code is None or id(function) in self._seen or not _needs_guards(function):
            return
        self._seen.add(id(function))
        names = _all_names(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            self._guard_cell(cell, value, name)
            self._guard(value, names, depth)
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            self._guard_item(function.__globals__, name, value, name)
            self._guard(value, names, depth)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *arguments):
            self._guard(value, names, depth)

    def _guard(self, value: Any, names: set[str], depth: int) -> None:
        """Add guards for what is reachable from ``value``.

        Args:
            value: what a name in a function's code is bound to.
            names: the names in that code; it can read no other attributes.
            depth: nesting depth of ``value`` below the step.
        """
        if isinstance(value, Tensor):
            self._guard_tensor(value)
        if isinstance(value, LRScheduler):
            value.update_constants()  # an update inside the step would be a graph break
        if depth >= _MAX_DEPTH or isinstance(value, (*_PLAIN, Tensor, Optimizer)):
            return
        if isinstance(value, type):
            if _needs_guards(value):
                self._guard_class_attributes(value, value, names, depth)
        elif isinstance(value, Module):
            self._modules.update((id(m), m) for m in value.modules())
            for module in value.modules():
                forward = type(module).forward
                self._guard_function(forward, depth + 1)
                if _needs_guards(type(module)):
                    read = _all_names(forward.__code__) if hasattr(forward, "__code__") else set()
                    self._guard_attributes_once(module, read | (names if module is value else set()), depth)
        elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._guard_function(value, depth + 1)
        elif isinstance(value, (list, tuple)) and len(value) <= _MAX_ITEMS:
            if isinstance(value, list):
                self._guard_list(value)
            for item in value:
                self._guard(item, names, depth + 1)
        elif isinstance(value, dict) and len(value) <= _MAX_ITEMS and id(value) not in self._seen:
            self._seen.add(id(value))
            if type(value) is dict:  # a subclass may create items when they are read
                length: list[int] = []  # set at the first check, after the step ran: its first run may fill a cache
                expression = "(len({0}) == {1}[0] if {1} else not {1}.append(len({0})))"
                self.guards.add(expression, (value, length), "a dict")
            for key, item in value.items():
                self._guard_item(value, key, item, f"[{key!r}]")
                self._guard(item, names, depth + 1)
        elif isinstance(value, types.ModuleType):
            self._guard_attributes(value, names, plain_only=True, depth=depth)
        elif (hasattr(value, "__dict__") or hasattr(value, "__slots__")) and _needs_guards(type(value)):
            self._guard_attributes_once(value, names, depth)
            if isinstance(getattr(type(value), "__call__", None), types.FunctionType):  # noqa: B004
                self._guard_function(value, depth + 1)

    def _guard_attributes_once(self, owner: Any, names: set[str], depth: int) -> None:
        guarded = self._guarded_names.setdefault(id(owner), set())
        names = names - guarded
        guarded |= names
        self._guard_attributes(owner, names, plain_only=False, depth=depth)

    def _guard_attributes(self, owner: Any, names: set[str], plain_only: bool, depth: int) -> None:
        """Add guards for attributes of an object.

        Args:
            owner: the object.
            names: attributes to guard.
            plain_only: guard plain values, and follow functions and classes, but no other objects.
            depth: nesting depth of ``owner``.
        """
        namespace = getattr(owner, "__dict__", {})
        for name in names:
            description = f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
            value = namespace.get(name, _MISSING)
            is_plain = isinstance(value, _PLAIN)
            if is_plain if plain_only else not isinstance(owner, Module) or not (is_plain or value is _MISSING):
                self._guard_item(namespace, name, value, description)  # _ModuleState guards the plain attributes of modules
            if plain_only:
                if isinstance(value, (types.FunctionType, type)):
                    self._guard(value, names, depth + 1)
                continue
            if value is not _MISSING:
                self._guard(value, names, depth + 1)
            else:
                self._guard_class_attributes(owner, type(owner), {name}, depth)

    def _guard_class_attributes(self, owner: Any, kind: type, names: set[str], depth: int) -> None:
        """Add guards for attributes that ``owner`` (``kind`` itself or an instance) inherits from the class ``kind``."""
        for name in names:
            description = f"{kind.__name__}.{name}"
            for base in kind.__mro__:
                found = base.__dict__.get(name, _MISSING)
                if isinstance(found, (staticmethod, classmethod)):
                    found = found.__func__
                if isinstance(found, _PLAIN):
                    self._guard_item(base.__dict__, name, found, description)
                elif isinstance(found, types.FunctionType):
                    self._guard_function(types.MethodType(found, owner), depth + 1)
                elif isinstance(found, property) and found.fget is not None:
                    self._guard_function(types.MethodType(found.fget, owner), depth + 1)
                elif isinstance(found, types.MemberDescriptorType):  # of __slots__
                    value = getattr(owner, name, _MISSING)
                    values = _is_same, getattr, owner, name, _MISSING, value
                    self.guards.add("{}({}({}, {}, {}), {})", values, description)
                    self._guard(value, names, depth + 1)


class _ModuleState:
    """Guarded state of modules and tensors: plain attributes, submodules, parameters, buffers and hooks.

    Setting an attribute of any module increments ``settings_changed[0]``; only then is everything compared again.
    """

    def __init__(self, modules: list[Module], tensors: list[Tensor]) -> None:
        self._modules, self._tensors = modules, tensors
        self._before = [*map(_state_of, modules)]
        self._hooks = [*map(_hooks_of, tensors)]
        self.changes = [settings_changed[0]]  # value of the counter when the state was last compared

    def find_change(self) -> str:
        """Return a description of the first difference, or ""."""
        for module, before in zip(self._modules, self._before):
            if not _is_same_state(before, _state_of(module)):
                return f"an attribute of {type(module).__name__}"
        for tensor, hooks in zip(self._tensors, self._hooks):
            if hooks != _hooks_of(tensor):
                return f"a hook of a tensor of shape {tensor.shape}"
        return ""

    def is_unchanged(self) -> bool:
        """Compare everything; if nothing differs, remember the counter."""
        changes = settings_changed[0]
        if self.find_change():
            return False
        self.changes[0] = changes
        return True


def _state_of(module: Module) -> tuple[Any, ...]:
    plain = {k: v for k, v in module.__dict__.items() if isinstance(v, _PLAIN)}
    parts = [*module._modules.values()], [*module._parameters.values()], [*module._buffers.values()]
    return plain, *parts, _hooks_of(module)


def _hooks_of(owner: Module | Tensor) -> list[Any]:
    if isinstance(owner, Tensor):
        return [*(owner._hooks or {}).values()]
    return [*owner._forward_pre_hooks.values(), *owner._forward_hooks.values()]


def _is_same_state(before: Any, now: Any) -> bool:
    plain, *parts = before
    plain_now, *parts_now = now
    return (
        plain.keys() == plain_now.keys()
        and all(_is_same(v, plain_now[k]) for k, v in plain.items())
        and all(len(a) == len(b) and all(x is y for x, y in zip(a, b)) for a, b in zip(parts, parts_now))
    )


def _all_names(code: types.CodeType) -> set[str]:
    """Return the globals and attributes that code names, including the functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _all_names(constant)
    return names


def _needs_guards(function: Any) -> bool:
    """Whether a function or class needs guards for its internals: if it is not of gpunet, NumPy or the standard library."""
    top = (getattr(function, "__module__", None) or "").partition(".")[0]
    return top not in ("gpunet", "numpy", "builtins", "functools", "itertools", "math", "random", "threading", "logging")


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a structure of lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def _objects(value: Any) -> Iterator[Any]:
    """Yield the values in a structure of lists, tuples and dicts that are neither tensors nor plain."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _objects(item)
    elif not isinstance(value, (*_PLAIN, Tensor)):
        yield value
