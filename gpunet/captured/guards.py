"""What a recorded function depends on besides its arguments: numbers and objects that its code names.

A recording holds for the surroundings it was made in.  Before each replay they are compared, and when one of them has
changed (a Python number in a closure, ``model.eval()``, another tensor under the same name) the step is recorded anew.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any

from gpunet.autograd import Tensor, settings_changed
from gpunet.captured.guard_expression import Guards
from gpunet.nn.module import Module
from gpunet.optim import Optimizer
from gpunet.optim.lr_scheduler import LRScheduler

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_ITEMS = 64  # of lists and dicts that are looked into
_DEPTH = 4  # of functions that call functions, and of objects in objects


def _same(a: Any, b: Any) -> bool:
    if a is b or type(a) is not type(b) or not isinstance(a, _PLAIN):
        return a is b
    return repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b  # 0.0 is not -0.0, and NaN is NaN


_MISSING = object()


class Surroundings:
    """Names that a function's code refers to, with what they stood for, and its arguments that are objects.

    ``conditions`` says that they still do.
    """

    def __init__(self, function: Callable[..., Any], arguments: Any = ()) -> None:
        self.conditions = Guards()
        self._modules: dict[int, Module] = {}
        self._tensors: dict[int, Tensor] = {}
        self._seen: set[int] = set()
        self._looked: dict[int, set[str]] = {}  # names of an object's attributes that were looked up
        self._function(function, 0, _objects(arguments))
        for module in self._modules.values():
            for parameter in module._parameters.values():
                if parameter is not None:
                    self._tensor(parameter)
        for module in [*self._modules.values()]:
            for hook in _hooks_of(module):
                self._function(hook, 0)
        settings = _Settings([*self._modules.values()], [*self._tensors.values()])
        self.conditions.add("({}[0] == {}[0] or {}())", (settings_changed, settings.changes, settings.hold), settings.changed)

    # -- conditions
    def _item(self, space: Mapping[str, Any], key: Any, value: Any, called: str) -> None:
        kind = type(space)
        if value is _MISSING:
            self.conditions.add("{} not in {}", (key, space), called)
        elif kind is not dict and kind is not types.MappingProxyType:  # it may make up items
            self.conditions.add("{}({}.get({}, {}), {})", (_same, space, key, _MISSING, value), called)
        elif isinstance(value, _PLAIN):
            self.conditions.add("({1}[{2}] is {3} or {0}({1}[{2}], {3}))", (_same, space, key, value), called)
        else:
            self.conditions.add("{}[{}] is {}", (space, key, value), called)

    def _cell(self, cell: Any, value: Any, name: str) -> None:
        self.conditions.add("({1}.cell_contents is {2} or {0}({1}.cell_contents, {2}))", (_same, cell, value), name)

    def _list(self, items: list[Any]) -> None:
        expression = "len({2}) == len({3}) and (all(map({0}, {2}, {3})) or all(map({1}, {2}, {3})))"
        self.conditions.add(expression, (is_, _same, items, tuple(items)), "a list")

    def _tensor(self, tensor: Tensor) -> None:
        reason = f"requires_grad of a tensor of shape {tensor.shape}"
        self.conditions.add("{}._requires_grad is {}", (tensor, tensor.requires_grad), reason)
        self._tensors[id(tensor)] = tensor
        for hook in _hooks_of(tensor):
            self._function(hook, 0)

    # -- what there is
    def _function(self, function: Any, depth: int, arguments: Iterable[Any] = ()) -> None:
        if isinstance(function, functools.partial):
            for value in (*function.args, *function.keywords.values()):
                self._look(value, set(), depth)
            function = function.func
        if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
            self._look(function.__self__, _all_names(function.__func__.__code__), depth)
            function = function.__func__
        if isinstance(function, Module):
            self._look(function, set(), depth)
            function = type(function).forward
        elif not hasattr(function, "__code__"):  # an object that can be called
            called = type(function).__call__
            if isinstance(called, types.FunctionType):
                self._look(function, _all_names(called.__code__), depth)
                function = called
        code = getattr(function, "__code__", None)
        if code is None or id(function) in self._seen or _is_library(function):
            return
        self._seen.add(id(function))
        names = _all_names(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            self._cell(cell, value, name)
            self._look(value, names, depth)
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            self._item(function.__globals__, name, value, name)
            self._look(value, names, depth)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *arguments):
            self._look(value, names, depth)

    def _look(self, value: Any, names: set[str], depth: int) -> None:
        """Take up what belongs to a value that the code names."""
        if isinstance(value, Tensor):
            self._tensor(value)
        if isinstance(value, LRScheduler):
            value.update_constants()  # what was set outside of the step, which a step that is recorded may not do
        if depth >= _DEPTH or isinstance(value, (*_PLAIN, Tensor, Optimizer)):
            return
        if isinstance(value, type):
            if not _is_library(value):
                self._of_class(value, value, names, depth)
        elif isinstance(value, Module):
            self._modules.update((id(m), m) for m in value.modules())
            for module in value.modules():
                forward = type(module).forward
                self._function(forward, depth + 1)
                if not _is_library(type(module)):
                    named = _all_names(forward.__code__) if hasattr(forward, "__code__") else set()
                    self._attributes_once(module, named | (names if module is value else set()), depth)
        elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._function(value, depth + 1)
        elif isinstance(value, (list, tuple)) and len(value) <= _ITEMS:
            if isinstance(value, list):
                self._list(value)
            for item in value:
                self._look(item, names, depth + 1)
        elif isinstance(value, dict) and len(value) <= _ITEMS and id(value) not in self._seen:
            self._seen.add(id(value))
            if type(value) is dict:  # others may make up items
                length: list[int] = []  # found when first asked, after the step ran: a cache may fill in its first run
                expression = "(len({0}) == {1}[0] if {1} else not {1}.append(len({0})))"
                self.conditions.add(expression, (value, length), "a dict")
            for key, item in value.items():
                self._item(value, key, item, f"[{key!r}]")
                self._look(item, names, depth + 1)
        elif isinstance(value, types.ModuleType):
            self._attributes(value, names, plain_only=True, depth=depth)
        elif (hasattr(value, "__dict__") or hasattr(value, "__slots__")) and not _is_library(type(value)):
            self._attributes_once(value, names, depth)
            if isinstance(getattr(type(value), "__call__", None), types.FunctionType):  # noqa: B004
                self._function(value, depth + 1)

    def _attributes_once(self, owner: Any, names: set[str], depth: int) -> None:
        known = self._looked.setdefault(id(owner), set())
        names = names - known
        known |= names
        self._attributes(owner, names, plain_only=False, depth=depth)

    def _attributes(self, owner: Any, names: set[str], plain_only: bool, depth: int) -> None:
        space = getattr(owner, "__dict__", {})
        for name in names:
            called = f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
            value = space.get(name, _MISSING)
            plain = isinstance(value, _PLAIN)
            if plain if plain_only else not isinstance(owner, Module) or not (plain or value is _MISSING):
                self._item(space, name, value, called)  # plain ones of modules are among the settings
            if plain_only:
                if isinstance(value, (types.FunctionType, type)):
                    self._look(value, names, depth + 1)
                continue
            if value is not _MISSING:
                self._look(value, names, depth + 1)
            else:
                self._of_class(owner, type(owner), {name}, depth)

    def _of_class(self, owner: Any, kind: type, names: set[str], depth: int) -> None:
        """What an object, or a class itself, has by its class."""
        for name in names:
            called = f"{kind.__name__}.{name}"
            for base in kind.__mro__:
                found = base.__dict__.get(name, _MISSING)
                if isinstance(found, (staticmethod, classmethod)):
                    found = found.__func__
                if isinstance(found, _PLAIN):
                    self._item(base.__dict__, name, found, called)
                elif isinstance(found, types.FunctionType):
                    self._function(types.MethodType(found, owner), depth + 1)
                elif isinstance(found, property) and found.fget is not None:
                    self._function(types.MethodType(found.fget, owner), depth + 1)
                elif isinstance(found, types.MemberDescriptorType):  # of __slots__
                    value = getattr(owner, name, _MISSING)
                    values = _same, getattr, owner, name, _MISSING, value
                    self.conditions.add("{}({}({}, {}, {}), {})", values, called)
                    self._look(value, names, depth + 1)


class _Settings:
    """The attributes of modules that are numbers and switches, which parts and hooks the modules have, and hooks of tensors."""

    def __init__(self, modules: list[Module], tensors: list[Tensor]) -> None:
        self._modules, self._tensors = modules, tensors
        self._before = [*map(_settings_of, modules)]
        self._hooks = [*map(_hooks_of, tensors)]
        self.changes = [settings_changed[0]]  # how often one was set, of any module, when they were compared last

    def changed(self) -> str:
        """Where one is not what it was, or nothing."""
        for module, before in zip(self._modules, self._before):
            if not _same_settings(before, _settings_of(module)):
                return f"an attribute of {type(module).__name__}"
        for tensor, hooks in zip(self._tensors, self._hooks):
            if hooks != _hooks_of(tensor):
                return f"a hook of a tensor of shape {tensor.shape}"
        return ""

    def hold(self) -> bool:
        """Whether all are what they were, though some were set."""
        changes = settings_changed[0]
        if self.changed():
            return False
        self.changes[0] = changes
        return True


def _settings_of(module: Module) -> tuple[Any, ...]:
    plain = {k: v for k, v in module.__dict__.items() if isinstance(v, _PLAIN)}
    parts = [*module._modules.values()], [*module._parameters.values()], [*module._buffers.values()]
    return plain, *parts, _hooks_of(module)


def _hooks_of(thing: Module | Tensor) -> list[Any]:
    if isinstance(thing, Tensor):
        return [*(thing._hooks or {}).values()]
    return [*thing._forward_pre_hooks.values(), *thing._forward_hooks.values()]


def _same_settings(before: Any, now: Any) -> bool:
    plain, *parts = before
    plain_now, *parts_now = now
    return (
        plain.keys() == plain_now.keys()
        and all(_same(v, plain_now[k]) for k, v in plain.items())
        and all(len(a) == len(b) and all(x is y for x, y in zip(a, b)) for a, b in zip(parts, parts_now))
    )


def _all_names(code: types.CodeType) -> set[str]:
    """The globals and attributes that code names, the functions inside it included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _all_names(constant)
    return names


def _is_library(thing: Any) -> bool:
    """Whether it is gpunet's, NumPy's or Python's own: its inner numbers are its own business."""
    top = (getattr(thing, "__module__", None) or "").partition(".")[0]
    return top in ("gpunet", "numpy", "builtins", "functools", "itertools", "math", "random", "threading", "logging")


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def _objects(value: Any) -> Iterator[Any]:
    """What is neither a tensor nor plain in a structure of lists, tuples and dicts."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _objects(item)
    elif not isinstance(value, (*_PLAIN, Tensor)):
        yield value
