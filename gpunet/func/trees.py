"""Nested structures of arguments and results: tuples, lists, named tuples and dictionaries of tensors and other values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """The structure of a value without its leaves.

    Attributes:
        kind: the type of the container; None for a leaf.
        keys: of a dictionary, in the order of ``parts``.
        parts: the structures of the items.
    """

    kind: type | None
    keys: tuple[Any, ...] = ()
    parts: tuple[Structure, ...] = ()

    @property
    def num_leaves(self) -> int:
        return 1 if self.kind is None else sum(part.num_leaves for part in self.parts)

    def __str__(self) -> str:
        """The structure with ``*`` for each leaf, such as ``(*, {'a': *})``."""
        if self.kind is None:
            return "*"
        parts = [str(part) for part in self.parts]
        if self.keys:
            return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(self.keys, parts)) + "}"
        inner = ", ".join(parts)
        if issubclass(self.kind, dict):
            return "{}"
        if issubclass(self.kind, list):
            return f"[{inner}]"
        return f"({inner},)" if len(parts) == 1 else f"({inner})"


_LEAF = Structure(None)


def flatten(value: Any) -> tuple[list[Any], Structure]:
    """The leaves of a value, whatever is no tuple, list or dictionary, and its structure."""
    leaves: list[Any] = []
    return leaves, _take_apart(value, leaves)


def _take_apart(value: Any, leaves: list[Any]) -> Structure:
    if isinstance(value, dict):
        parts = tuple([_take_apart(item, leaves) for item in value.values()])
        return Structure(type(value), tuple(value), parts)
    if isinstance(value, (tuple, list)):
        return Structure(type(value), (), tuple([_take_apart(item, leaves) for item in value]))
    leaves.append(value)
    return _LEAF


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The value of this structure with these leaves; a dictionary of another class becomes a plain one."""
    return _put_together(structure, iter(leaves))


def _put_together(structure: Structure, leaves: Iterator[Any]) -> Any:
    kind = structure.kind
    if kind is None:
        return next(leaves)
    items = [_put_together(part, leaves) for part in structure.parts]
    if issubclass(kind, dict):
        return dict(zip(structure.keys, items))
    build: Any = kind
    return build(*items) if hasattr(kind, "_fields") else build(items)


def leaves_like(value: Any, structure: Structure, spreads: bool = False) -> list[Any] | None:
    """The leaves of a value that has this structure, in the order of the structure; None if it has another one.

    Dictionaries of all classes are alike, since :func:`unflatten` makes plain ones.

    Args:
        spreads: a leaf of the value stands for each leaf below its place.
    """
    kind = structure.kind
    if not isinstance(value, (tuple, list, dict)):
        if kind is None:
            return [value]
        return [value] * structure.num_leaves if spreads else None
    if kind is None or len(value) != len(structure.parts):
        return None
    if isinstance(value, dict):
        if not issubclass(kind, dict) or any(key not in value for key in structure.keys):
            return None
        items = [value[key] for key in structure.keys]
    elif type(value) is not kind:
        return None
    else:
        items = [*value]
    found: list[Any] = []
    for item, part in zip(items, structure.parts):
        below = leaves_like(item, part, spreads)
        if below is None:
            return None
        found += below
    return found
