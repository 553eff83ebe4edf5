"""Mutation operators: each removes an element of a source, or shifts it by one.

An operator is a generator of edits of a Source, registered in ``OPERATORS`` by name.  The name of a mutant consists of
its declaration and its change, without a line number, so that it stays valid when other parts of the file change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .source import STOPS, Source

#: Names of calls that wait for asynchronous copies or barriers, or that signal them.
WAITS = re.compile(r"\w*(?:wait|arrive|commit|expect)\w*")
#: Tokens that end an operand of && and of ||, among them the operators that bind less tightly.
_OF_AND = STOPS | {"||", "&&"}
_OF_OR = STOPS | {"||"}
_LOGIC = frozenset(["&&", "||"])


class Edit(NamedTuple):
    """Replace [start, end) of the text by ``replacement``; the mutant's name quotes [first, last)."""

    start: int
    end: int
    replacement: str
    first: int
    last: int


class Mutant(NamedTuple):
    file: str
    declaration: str  # the innermost declaration that contains the edit
    operator: str
    change: str  # "before -> after"
    occurrence: int  # from 1, among mutants that would have the same name
    line: int
    edit: Edit

    @property
    def name(self) -> str:
        again = f" #{self.occurrence}" if self.occurrence > 1 else ""
        return f"{self.file} {self.declaration}, {self.operator}: {self.change}{again}"

    def apply(self, text: str) -> str:
        return text[: self.edit.start] + self.edit.replacement + text[self.edit.end :]


Operator = Callable[[Source], Iterator[Edit]]
OPERATORS: dict[str, Operator] = {}


def _operator(function: Operator) -> Operator:
    OPERATORS[function.__name__.strip("_").replace("_", " ")] = function
    return function


def _replaced(source: Source, first: int, end: int, replacement: str, around: tuple[int, int] | None = None) -> Edit:
    """The edit that replaces tokens [first, end); the name quotes the tokens ``around``."""
    return Edit(*source.span(first, end), replacement, *source.span(*(around or (first, end))))


def _part(source: Source, index: int, stops: frozenset[str] | set[str] = STOPS) -> tuple[int, int]:
    """The tokens [first, end) of the expression around a token, for the name of the mutant."""
    return source.left(index, stops), source.right(index, stops)


def _statement(source: Source, index: int) -> tuple[int, int] | None:
    """The tokens [first, end) of a statement that is a single call, or None."""
    if source.tokens[index - 1] not in (";", "{", "}", ")", "else"):
        return None
    end = source.right(index, frozenset([";"]))
    return (index, end + 1) if source.tokens[end - 1] == ")" else None


# ---- barriers, fences, waits ------------------------------------------------------------------------------------------


def _removed_calls(source: Source, pattern: str) -> Iterator[Edit]:
    for index, token in enumerate(source.tokens):
        if re.fullmatch(pattern, token) and (statement := _statement(source, index)):
            yield _replaced(source, *statement, ";")


@_operator
def barrier(source: Source) -> Iterator[Edit]:
    """Remove a barrier of the block or the warp."""
    yield from _removed_calls(source, r"__sync(?:threads|warp)")


@_operator
def fence(source: Source) -> Iterator[Edit]:
    """Remove a memory fence."""
    yield from _removed_calls(source, r"\w*fence\w*")


@_operator
def wait(source: Source) -> Iterator[Edit]:
    """Remove a wait, or the call that it waits for; replace ``wait<n>`` by ``wait<n + 1>``."""
    yield from _removed_calls(source, WAITS.pattern)
    for index in source.find("<"):
        if (
            WAITS.fullmatch(source.tokens[index - 1])
            and source.tokens[index + 1].isdigit()
            and source.tokens[index + 2] == ">"
        ):
            more = str(int(source.tokens[index + 1]) + 1)
            yield _replaced(source, index + 1, index + 2, more, (index - 1, index + 3))


_NOT_ATOMIC = {
    "atomicAdd": "[&] {{ auto* at = {0}; auto old = *at; *at = old + {1}; return old; }}()",
    "atomicInc": "[&] {{ auto* at = {0}; auto old = *at; *at = old >= {1} ? 0 : old + 1; return old; }}()",
}


@_operator
def atomic(source: Source) -> Iterator[Edit]:
    """Replace an atomic by a plain read and write."""
    for index in source.find(*_NOT_ATOMIC):
        end = source.partner[index + 1]
        inside = source.text[source.spans[index + 1][1] : source.spans[end][0]]
        yield _replaced(
            source, index, end + 1, _NOT_ATOMIC[source.tokens[index]].format(*inside.split(",")), (index, end + 1)
        )


# ---- guards and predicates --------------------------------------------------------------------------------------------


@_operator
def guard(source: Source) -> Iterator[Edit]:
    """Replace the condition of an ``if`` by true, and by false."""
    for index in source.find("if"):
        opened = index + (2 if source.tokens[index + 1] == "constexpr" else 1)
        first, end = opened + 1, source.partner[opened]
        for always in ("true", "false"):
            yield _replaced(source, first, end, always, (index, end + 1))


@_operator
def choice(source: Source) -> Iterator[Edit]:
    """Replace the condition of ``?:`` by true, and by false."""
    for index in source.find("?"):
        first, end = source.left(index, STOPS), source.right(index, STOPS - {":", "?"})
        for always in ("true", "false"):
            yield _replaced(source, first, index, always, (first, end))


@_operator
def operand(source: Source) -> Iterator[Edit]:
    """Remove an operand of ``&&`` or ``||``."""
    for index in source.find("&&", "||"):
        if not source.spaced(index):
            continue
        stops = _OF_AND if source.tokens[index] == "&&" else _OF_OR
        around = _part(source, index, STOPS)
        first, end = source.left(index, stops), source.right(index, stops)
        if first == source.left(index, _OF_OR):  # otherwise it is the right operand of the previous operator
            yield _replaced(source, first, index + 1, "", around)
        yield _replaced(source, index, end, "", around)


_SHIFTED = {
    "<": ("<=", "+ 1 <"),
    "<=": ("<", "- 1 <="),
    ">": (">=", "- 1 >"),
    ">=": (">", "+ 1 >="),
    "==": ("!=",),
    "!=": ("==",),
}


@_operator
def comparison(source: Source) -> Iterator[Edit]:
    """Shift a comparison by one value in either direction; negate an equality."""
    for index in source.find(*_SHIFTED):
        if source.spaced(index):
            for other in _SHIFTED[source.tokens[index]]:
                yield _replaced(source, index, index + 1, other, _part(source, index, _OF_AND))


@_operator
def boolean(source: Source) -> Iterator[Edit]:
    """Replace the initial value of a bool, and the return value of a bool function, by true and by false."""
    for index in source.find("bool"):
        at = index + 1
        while source.tokens[at] not in (";", ")") and source.tokens[at + 1] == "=":
            end = source.right(at + 1, STOPS - {"?", ":"})
            for always in ("true", "false"):
                if source.tokens[at + 2] != always:
                    yield _replaced(source, at + 2, end, always, (at, end))
            at = end + 1
    for index in source.find("return"):
        declaration = source.declaration(source.spans[index][0])
        if declaration is not None and declaration.returns_bool:
            end = source.right(index, frozenset([";"]))
            for always in ("true", "false"):
                if source.tokens[index + 1 : end] != [always]:
                    yield _replaced(source, index + 1, end, always, (index, end))


@_operator
def clamp(source: Source) -> Iterator[Edit]:
    """Replace ``min`` or ``max`` of two values by each of them."""
    for index in source.find("min", "max"):
        if source.tokens[index + 1] == "(":
            end = source.partner[index + 1]
            comma = source.right(index + 1, frozenset([","]))
            for first, last in ((index + 2, comma), (comma + 1, end)):
                yield _replaced(source, index, end + 1, source.text[slice(*source.span(first, last))], (index, end + 1))


@_operator
def alignment(source: Source) -> Iterator[Edit]:
    """Ignore an argument of ``access_width``: the stride of rows, or a pointer."""
    for index in source.find("access_width"):
        if source.tokens[index - 1] == "int":  # the declaration
            continue
        end = source.partner[index + 1]
        first = source.right(index + 1, frozenset([","]))
        if source.tokens[index + 2 : first] != ["0"]:
            yield _replaced(source, index + 2, first, "0", (index, end + 1))
        while first < end:
            following = source.right(first, frozenset([","]))
            yield _replaced(source, first, following, "", (index, end + 1))
            first = following


# ---- loops and offsets ------------------------------------------------------------------------------------------------


@_operator
def loop(source: Source) -> Iterator[Edit]:
    """Start a loop one later, double its stride, or drop its ``^=``."""
    for index in source.find("for"):
        close = source.partner[index + 1]
        semicolons = [i for i in range(index, close) if source.tokens[i] == ";"]
        if len(semicolons) != 2:
            continue
        header, begin, step = (index, close + 1), semicolons[0], source.tokens[semicolons[1] + 1 : close]
        stride = next(
            (i for i in range(semicolons[1], close) if source.tokens[i] in ("+=", "-=", "/=", "*=", "^=")), None
        )
        first = next((i + 1 for i in range(index, begin) if source.tokens[i] == "="), None)
        if first is not None:
            start = source.text[slice(*source.span(first, begin))]
            later = f"({start}) / 2" if "/=" in step else f"{start} - 1" if {"--", "-="} & set(step) else f"{start} + 1"
            yield _replaced(source, first, begin, later, header)
        if stride is not None:
            by = source.text[slice(*source.span(stride + 1, close))]
            yield _replaced(source, stride + 1, close, "0" if source.tokens[stride] == "^=" else f"2 * ({by})", header)


@_operator
def offset(source: Source) -> Iterator[Edit]:
    """Remove ``+ 1`` or ``- 1``."""
    for index in source.find("+", "-"):
        if source.tokens[index + 1] == "1" and source.spaced(index):
            yield _replaced(source, index, index + 2, "", _part(source, index, _OF_AND))


@_operator
def initial_value(source: Source) -> Iterator[Edit]:
    """Leave a variable uninitialised that is initialised with zero."""
    for index in source.find("="):
        end = source.right(index, STOPS)
        value = "".join(source.tokens[index + 1 : end])
        if value not in ("0", "T(0)", "{}") or source.tokens[end : end + 1] not in ([","], [";"]):
            continue
        first = source.left(index, frozenset([";", "for"]))
        if source.tokens[first - 1] != "(" and not {"const", "constexpr"} & set(source.tokens[first:index]):
            yield _replaced(source, index, end, "", (source.left(index, STOPS), end))


# ---- the mutants of a file --------------------------------------------------------------------------------------------


def mutants(file: str, text: str) -> list[Mutant]:
    """All mutants of a source, in the order of their positions; a static_assert has none."""
    source = Source(text)
    asserted = [source.span(index, source.partner[index + 1] + 1) for index in source.find("static_assert")]
    edits = [(edit, name) for name, operator in OPERATORS.items() for edit in operator(source)]
    count: Counter[tuple[str, ...]] = Counter()
    found = []
    for edit, operator in sorted(edits, key=lambda e: (e[0].first, e[0].start, e[0].replacement)):
        if any(start <= edit.start < end for start, end in asserted):
            continue
        declaration = source.declaration(edit.start)
        before = text[edit.first : edit.last]
        after = text[edit.first : edit.start] + edit.replacement + text[edit.end : edit.last]
        if operator == "atomic":
            after = "not atomic"
        change = " -> ".join(" ".join(part.split()) or "nothing" for part in (before, after))
        key = (file, declaration.name if declaration else "", operator, change)
        count[key] += 1
        found.append(Mutant(*key, count[key], text.count("\n", 0, edit.start) + 1, edit))
    return found
