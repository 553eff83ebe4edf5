"""Finds the values on which a step's Python depends: watches which functions run while a step is recorded.

Of each Python function that runs (library functions excepted) the bytecode tells which globals, closure cells and attributes
it reads.  Values under these names get guards, as they are when the function is called: plain values by value, lists, dicts
and small NumPy arrays by their items, others by identity.  Attributes are read from the globals, the cells, the defaults and
the arguments of the functions, and from whatever these lead to by the same names and by items.

A name that nothing leads to, or a value that Python computes from elsewhere, is a constant of the recording.
"""

from __future__ import annotations

import functools
import gc
import importlib._bootstrap
import inspect
import os
import sys
import types
from collections import ChainMap, UserDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.captured.guards import MISSING, Guards, State, is_same
from gpunet.captured.reads import Reads, reads_of
from gpunet.launch.stateful import PLAIN, Stateful, settings_changed

_LIBRARIES = frozenset(("gpunet", "numpy", "cupy"))
#: of the frames that import a module
_IMPORT_NAMESPACE = vars(importlib._bootstrap)
_LISTS = (list, deque, set, frozenset)
_MAPPINGS = (type(os.environ), types.MappingProxyType, ChainMap, UserDict)  # others may load what they return
_NOTHING = Reads(*(frozenset(),) * 6)
#: The values of larger NumPy arrays are not guarded: to compare them takes longer than a small step.
MAX_GUARDED_ELEMENTS = 1 << 16


class Watch:
    """Adds guards for the values that a step reads while it runs.

    Args:
        function: the step, which is also followed before it runs: a ``partial`` has arguments, a method has an object.
        arguments: of the step, without tensors and plain values.

    Attributes:
        guards: the guards.
        tensors: tensors that guarded names lead to, by id.
        arrays: NumPy arrays that guarded names lead to, by id, with copies of the values of small ones.
    """

    def __init__(self, function: Callable[..., Any], arguments: Any) -> None:
        self.guards = Guards()
        self.tensors: dict[int, Tensor] = {}
        self.arrays: dict[int, tuple[Any, numpy.ndarray | None]] = {}
        self._state = State()
        #: the outermost frame of a running import: a replay does not import again, so it reads nothing of what that read
        self._import: types.FrameType | None = None
        self._functions: dict[types.CodeType, dict[int, types.FunctionType]] = {}
        self._inner: set[types.CodeType] = set()  # of functions that other functions of the step define
        self._entered: set[tuple[types.CodeType, int]] = set()
        self._named: dict[int, Any] = {}  # values that guarded names lead to, by id
        self._followed: set[tuple[int, Reads]] = set()
        #: of the step, which is watched also if it is a function of a library, as in gpunet bench
        self._namespace = getattr(inspect.unwrap(getattr(function, "func", function)), "__globals__", None)
        self._follow(function, _NOTHING)
        for value in _leaves(arguments):
            self._follow(value, _NOTHING)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the Python functions that this thread runs inside the block."""
        previous = sys.getprofile()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
            if previous is not None:
                getattr(previous, "enable", functools.partial(sys.setprofile, previous))()  # cProfile is no function

    def finish(self) -> None:
        """Add the guard of modules, which the step itself may change until its end."""
        state = self._state
        self.guards.add("({}[0] == {}.changes or {}())", (settings_changed, state, state.is_unchanged), state.find_change)

    # -- functions that run
    def _is_library_code(self, frame: types.FrameType) -> bool:
        return frame.f_globals is not self._namespace and _is_library_code(frame)

    def _on_event(self, frame: types.FrameType, event: str, value: Any) -> None:
        if self._import is not None:
            if event == "return" and frame is self._import:
                self._import = None
        elif event == "call":
            if frame.f_globals is _IMPORT_NAMESPACE:
                self._import = frame
            if not self._is_library_code(frame):
                self._enter(frame)
        elif event == "return":
            if not self._is_library_code(frame):
                for local in frame.f_locals.values():
                    self._follow_named(local, reads_of(frame.f_code))
            if frame.f_back is not None and not self._is_library_code(frame.f_back):
                self._follow_named(value, reads_of(frame.f_back.f_code))

    def _enter(self, frame: types.FrameType) -> None:
        """Add guards for what a function reads when it is called."""
        code, namespace = frame.f_code, frame.f_globals
        if not code.co_flags & inspect.CO_OPTIMIZED:  # the code of a module or class body
            return
        reads = reads_of(code)
        if (code, id(namespace)) not in self._entered:
            self._entered.add((code, id(namespace)))
            self._inner |= reads.functions
            for name in reads.globals:
                value = namespace.get(name, MISSING)
                if value is not MISSING:
                    self._follow_item(namespace, name, value, name, reads)
                elif name not in frame.f_builtins:
                    self.guards.add_item(namespace, name, MISSING, name)
            for name in reads.modules & sys.modules.keys():
                self._follow(sys.modules[name], reads)
            if code.co_freevars and code not in self._functions and code not in self._inner:
                for function in gc.get_referrers(code):  # one that no guarded name leads to, such as an item of a C object
                    if isinstance(function, types.FunctionType):
                        self._follow(function, reads)
        for function in [*self._functions.get(code, {}).values()]:
            for name, cell in zip(code.co_freevars, function.__closure__ or ()):
                try:
                    value = cell.cell_contents
                except ValueError:  # not yet bound
                    continue
                self.guards.add_cell(cell, value, name)
                self._follow_unless_appended(name, value, reads)
        num_named = code.co_argcount + code.co_kwonlyargcount
        num_arguments = num_named + bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
        for name in code.co_varnames[:num_arguments]:
            self._follow_named(frame.f_locals.get(name), reads)

    def _follow_named(self, value: Any, reads: Reads) -> None:
        """Follow the objects in a structure that a guarded name leads to; most others were made inside the step."""
        for owner in _leaves(value):
            if id(owner) in self._named:
                self._follow(owner, reads)

    # -- values that names lead to
    def _follow_item(self, namespace: Mapping[str, Any], name: str, value: Any, description: str, reads: Reads) -> None:
        self.guards.add_item(namespace, name, value, description)
        self._follow_unless_appended(name, value, reads)

    def _follow_unless_appended(self, name: str, value: Any, reads: Reads) -> None:
        if not (name in reads.appended and isinstance(value, _LISTS)):
            self._follow(value, reads)

    def _follow(self, value: Any, reads: Reads) -> None:
        """Add guards for the items of a value that a guarded name leads to, and for the attributes of it that code reads."""
        if isinstance(value, PLAIN) or (id(value), reads) in self._followed:
            return
        self._followed.add((id(value), reads))
        self._named[id(value)] = value
        if isinstance(value, Tensor):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = value
                description = f"requires_grad of a tensor of shape {value.shape}"
                self.guards.add("{}._requires_grad is {}", (value, value.requires_grad), description)
                self._follow_all(self._state.add(value), reads)
        elif isinstance(value, numpy.ndarray):
            self.arrays.setdefault(id(value), (value, value.copy() if value.size <= MAX_GUARDED_ELEMENTS else None))
        elif isinstance(value, types.FunctionType):
            self._functions.setdefault(value.__code__, {})[id(value)] = value
            self._follow_all((*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()), reads)
        elif isinstance(value, types.MethodType):
            self._follow_all((value.__func__, value.__self__), reads)
        elif isinstance(value, (staticmethod, classmethod)):
            self._follow(value.__func__, reads)
        elif isinstance(value, property):
            self._follow(value.fget, reads)
        elif isinstance(value, functools.partial):
            self._follow_all((value.func, value.args, value.keywords), reads)
        elif isinstance(value, type):
            if not _is_library(value):
                for name in reads.attributes:
                    self._follow_class_attribute(value, name, reads)
        elif isinstance(value, types.ModuleType):
            self._follow_module(value, reads)
        elif isinstance(value, (*_LISTS, tuple)):
            if not isinstance(value, (tuple, frozenset)):
                self.guards.add_items(value)
            self._follow_all(value, reads)
        elif isinstance(value, dict):
            if not _is_library(type(value)):
                self._follow_dict(value, reads)
        elif isinstance(value, _MAPPINGS):
            for key in reads.constants:
                self.guards.add_item(value, key, value.get(key, MISSING), f"[{key!r}]")
        else:
            if isinstance(value, Stateful):
                self._follow_all(self._state.add(value), reads)
            if not _is_library(type(value)):
                self._follow_attributes(value, reads)

    def _follow_all(self, values: Any, reads: Reads) -> None:
        for value in [*values]:
            self._follow(value, reads)

    def _follow_dict(self, value: dict[Any, Any], reads: Reads) -> None:
        if type(value) is dict:
            self.guards.add_dict(value)
        else:  # a subclass may create items when they are read
            for key, item in value.items():
                self.guards.add_item(value, key, item, f"[{key!r}]")
        self._follow_all(dict.values(value), reads)

    def _follow_module(self, module: types.ModuleType, reads: Reads) -> None:
        if module is os and reads.attributes & {"environ", "getenv"}:
            self._follow(os.environ, reads)
        if not _is_library_name(module.__name__):
            for name in reads.attributes & module.__dict__.keys():
                self._follow_item(module.__dict__, name, module.__dict__[name], f"{module.__name__}.{name}", reads)

    def _follow_attributes(self, owner: Any, reads: Reads) -> None:
        namespace = getattr(owner, "__dict__", {})
        for name in reads.attributes:
            value, description = namespace.get(name, MISSING), f"{type(owner).__name__}.{name}"
            if value is not MISSING:
                if not (isinstance(owner, Stateful) and isinstance(value, PLAIN)):  # part of its state
                    self.guards.add_item(namespace, name, value, description)
                self._follow_unless_appended(name, value, reads)
                continue
            found = self._follow_class_attribute(type(owner), name, reads)
            if isinstance(found, types.MemberDescriptorType):  # of __slots__
                value = getattr(owner, name, MISSING)
                self.guards.add("{}({}({}, {}, {}), {})", (is_same, getattr, owner, name, MISSING, value), description)
                self._follow_unless_appended(name, value, reads)
            elif found is not MISSING and namespace is not None and not isinstance(found, property):
                self.guards.add_item(namespace, name, MISSING, description)

    def _follow_class_attribute(self, kind: type, name: str, reads: Reads) -> Any:
        """Guard the attribute that a class has or inherits; return it, or MISSING."""
        for base in kind.__mro__:
            found = base.__dict__.get(name, MISSING)
            if found is not MISSING:
                if not _is_library(base):
                    self._follow_item(base.__dict__, name, found, f"{kind.__name__}.{name}", reads)
                return found
        return MISSING


def _leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the values in a structure of lists, tuples, sets and dicts that are neither tensors, arrays nor plain."""
    if isinstance(value, (dict, tuple, *_LISTS)):
        if depth < 8:
            for item in dict.values(value) if isinstance(value, dict) else value:
                yield from _leaves(item, depth + 1)
    elif not isinstance(value, (*PLAIN, Tensor, numpy.ndarray)):
        yield value


def _is_library(kind: type) -> bool:
    """Whether a class is one of gpunet, NumPy or CuPy: their objects publish their state, or have none."""
    return (getattr(kind, "__module__", None) or "").partition(".")[0] in _LIBRARIES


def _is_library_name(module: str) -> bool:
    top = module.partition(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names


def _is_library_code(frame: types.FrameType) -> bool:
    """Whether a frame runs a function of gpunet, NumPy, CuPy or the standard library."""
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and (_is_library_name(name) or name.startswith("namedtuple_"))
