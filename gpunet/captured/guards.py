"""Guards of a recording: conditions on values outside of the step, checked before each replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import is_
from types import MappingProxyType
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.captured.codegen import compile_source
from gpunet.launch.stateful import PLAIN, Stateful, settings_changed

Description = str | Callable[[], str]

MISSING = object()  # the value of a name that does not exist


class Guards:
    """Guards checked before each replay, each with a description of the value that it guards.

    They nearly always hold, so all are compiled into one expression.
    """

    def __init__(self) -> None:
        self._descriptions: dict[str, Description] = {}
        self._values: dict[str, Any] = {}
        self._names: dict[int, str] = {}  # by id of a value, which ``_values`` keeps alive
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
        self._values[name] = value
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

    # -- guards for one kind of place each
    def add_item(self, namespace: Mapping[str, Any], key: Any, value: Any, description: str) -> None:
        """Guard that a dict, or another mapping, has this value at a key, or no such key if it is MISSING."""
        if value is MISSING:
            self.add("{} not in {}", (key, namespace), description)
        elif type(namespace) not in (dict, MappingProxyType):  # a defaultdict creates items on access
            self.add("{}({}.get({}, {}), {})", (is_same, namespace, key, MISSING, value), description)
        elif isinstance(value, PLAIN):
            self.add("({1}[{2}] is {3} or {0}({1}[{2}], {3}))", (is_same, namespace, key, value), description)
        else:
            self.add("{}[{}] is {}", (namespace, key, value), description)

    def add_cell(self, cell: Any, value: Any, name: str) -> None:
        """Guard the value of a closure's cell."""
        self.add("({1}.cell_contents is {2} or {0}({1}.cell_contents, {2}))", (is_same, cell, value), name)

    def add_items(self, items: Any) -> None:
        """Guard the items of a list, deque, set, or of a dict without its keys."""
        expression = "len({2}) == len({3}) and (all(map({0}, {2}, {3})) or all(map({1}, {2}, {3})))"
        self.add(expression, (is_, is_same, items, tuple(items)), f"a {type(items).__name__}")

    def add_dict(self, items: dict[Any, Any]) -> None:
        """Guard the items of a dict; the step's first run may add some, as to a cache."""
        self.add("{}()", (_Items(items).hold,), "a dict")


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are interchangeable for a recording: equal if plain, else identical."""
    if a is b or type(a) is not type(b) or not isinstance(a, PLAIN):
        return a is b
    if isinstance(a, (float, complex, numpy.generic)):  # 0.0 is not -0.0, and NaN is NaN
        return repr(a) == repr(b)
    return bool(a == b)


def are_same(before: Iterable[Any], now: Iterable[Any]) -> bool:
    """Whether :func:`is_same` holds for all pairs of items of two sequences."""
    before, now = tuple(before), tuple(now)
    return len(before) == len(now) and (all(map(is_, before, now)) or all(map(is_same, before, now)))


class _Items:
    """The items of a dict, compared with those at the start of the recording first, then with those after the step."""

    def __init__(self, items: dict[Any, Any]) -> None:
        self._items, self._before, self._is_final = items, dict.copy(items), False

    def hold(self) -> bool:
        if self._is_final:
            return are_same(self._before, dict.keys(self._items)) and are_same(self._before.values(), dict.values(self._items))
        unchanged = all(is_same(value, dict.get(self._items, key, MISSING)) for key, value in self._before.items())
        self._before, self._is_final = dict.copy(self._items), unchanged
        return unchanged


class State:
    """The state of stateful objects, and the hooks of tensors.

    Each change increments ``settings_changed[0]``; only then is everything compared again.
    """

    def __init__(self) -> None:
        self.changes = settings_changed[0]  # value of the counter when the state was last compared
        self._before: dict[int, tuple[Stateful | Tensor, list[Any]]] = {}

    def add(self, owner: Stateful | Tensor) -> list[Any]:
        """Add an object; return its state."""
        return self._before.setdefault(id(owner), (owner, _state_of(owner)))[1]

    def find_change(self) -> str:
        """Return a description of the first difference, or ""."""
        for owner, before in self._before.values():
            if not are_same(before, _state_of(owner)):
                if isinstance(owner, Tensor):
                    return f"a hook of a tensor of shape {owner.shape}"
                return f"an attribute of {type(owner).__name__}"
        return ""

    def is_unchanged(self) -> bool:
        """Compare everything; if nothing differs, remember the counter."""
        changes = settings_changed[0]
        if self.find_change():
            return False
        self.changes = changes
        return True


def _state_of(owner: Stateful | Tensor) -> list[Any]:
    return [*(owner._hooks or {}).values()] if isinstance(owner, Tensor) else owner.recorded_state()
