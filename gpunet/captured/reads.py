"""The names that a function's code reads, from its bytecode."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from types import CodeType
from typing import NamedTuple

#: Kind of the name that an instruction loads, by the start of the instruction's name.
_KINDS = {
    "LOAD_GLOBAL": "global", "LOAD_NAME": "global", "LOAD_ATTR": "attribute", "LOAD_METHOD": "attribute",
    "LOAD_SUPER_ATTR": "attribute", "IMPORT_FROM": "attribute", "LOAD_DEREF": "variable", "LOAD_FAST": "variable",
    "IMPORT_NAME": "module",
}  # fmt: skip
#: Functions that read an attribute by a name, often a constant.
_BY_NAME = frozenset(("attrgetter", "getattr", "hasattr", "vars"))
#: Methods of lists, sets and deques that add items and read none.
_ADDING = frozenset(("add", "append", "appendleft", "extend", "extendleft", "insert"))


class Reads(NamedTuple):
    """What a function's code reads, the functions inside it included."""

    globals: frozenset[str]
    attributes: frozenset[str]  # also by ``getattr`` with a constant name
    appended: frozenset[str]  # names that stand only before a method that adds items, as ``kept`` in ``kept.append(x)``
    constants: frozenset[str]  # constant strings, which may be keys
    modules: frozenset[str]  # that it imports
    functions: frozenset[CodeType]  # the functions inside it


@functools.lru_cache(maxsize=4096)
def reads_of(code: CodeType) -> Reads:
    """Return what code reads."""
    found: dict[str, set[str]] = {kind: set() for kind in ("global", "attribute", "variable", "module")}
    appended: set[str] = set()
    read: set[str] = set()
    codes = [*_codes(code)]
    for instructions in ([i for i in dis.get_instructions(c) if i.opname != "EXTENDED_ARG"] for c in codes):
        for instruction, following in zip(instructions, (*instructions[1:], instructions[-1])):
            kind, name = _kind(instruction), instruction.argval
            if kind is None or not isinstance(name, str):
                continue
            found[kind].add(name)
            is_adding = _kind(following) == "attribute" and following.argval in _ADDING
            (appended if is_adding else read).add(name)
    constants = {c for code in codes for c in _strings(code.co_consts)}
    if found["global"] & _BY_NAME or found["attribute"] & _BY_NAME:
        found["attribute"] |= constants
    return Reads(
        globals=frozenset(found["global"]), attributes=frozenset(found["attribute"]), appended=frozenset(appended - read),
        constants=frozenset(constants), modules=frozenset(found["module"]), functions=frozenset(codes[1:]),
    )  # fmt: skip


def _kind(instruction: dis.Instruction) -> str | None:
    return next((kind for start, kind in _KINDS.items() if instruction.opname.startswith(start)), None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _strings(constants: object) -> Iterator[str]:
    if isinstance(constants, str):
        yield constants
    elif isinstance(constants, (tuple, frozenset)):
        for constant in constants:
            yield from _strings(constant)
