"""The mutants of a source: what stands at one place is removed, or shifted by one.

An operator is a function of a Source that yields edits; ``OPERATORS`` has them by name.  A mutant is named by what it
changes and where, never by a line number, so that a name outlives changes elsewhere in its file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .source import STOPS, Source

#: Calls that wait for something, or that make something to be waited for.
WAITS = re.compile(r"\w*(?:wait|arrive|commit|expect)\w*")
#: Without the other operands of one that binds less tightly.
_OF_AND = STOPS | {"||", "&&"}
_OF_OR = STOPS | {"||"}
_LOGIC = frozenset(["&&", "||"])


class Edit(NamedTuple):
    """[start, end) of the text becomes ``replacement``; [first, last) is what its name shows of it."""

    start: int
    end: int
    replacement: str
    first: int
    last: int


class Mutant(NamedTuple):
    file: str
    declaration: str  # a function, or what else it lies in
    operator: str
    change: str  # before and after
    occurrence: int  # among those that are otherwise called the same
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
    """Tokens ``first`` to ``end`` replaced; ``around`` says which ones the name shows."""
    return Edit(*source.span(first, end), replacement, *source.span(*(around or (first, end))))


def _part(source: Source, index: int, stops: frozenset[str] | set[str] = STOPS) -> tuple[int, int]:
    """The expression around a token, for the name of its mutant."""
    return source.left(index, stops), source.right(index, stops)


def _statement(source: Source, index: int) -> tuple[int, int] | None:
    """A call that is a statement of its own: its name's token, and the one behind the semicolon."""
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
    """A barrier of the block or the warp is removed."""
    yield from _removed_calls(source, r"__sync(?:threads|warp)")


@_operator
def fence(source: Source) -> Iterator[Edit]:
    """A memory fence is removed."""
    yield from _removed_calls(source, r"\w*fence\w*")


@_operator
def wait(source: Source) -> Iterator[Edit]:
    """A wait, or what it waits for, is removed; ``wait<n>`` lets one more stay on its way."""
    yield from _removed_calls(source, WAITS.pattern)
    for index in source.find("<"):
        if (
            WAITS.fullmatch(source.tokens[index - 1])
            and source.tokens[index + 1].isdigit()
            and source.tokens[index + 2] == ">"
        ):
            more = str(int(source.tokens[index + 1]) + 1)
            yield _replaced(source, index + 1, index + 2, more, (index - 1, index + 3))


_PLAIN = {
    "atomicAdd": "[&] {{ auto* at = {0}; auto old = *at; *at = old + {1}; return old; }}()",
    "atomicInc": "[&] {{ auto* at = {0}; auto old = *at; *at = old >= {1} ? 0 : old + 1; return old; }}()",
}


@_operator
def atomic(source: Source) -> Iterator[Edit]:
    """An atomic becomes a plain read and write."""
    for index in source.find(*_PLAIN):
        end = source.partner[index + 1]
        inside = source.text[source.spans[index + 1][1] : source.spans[end][0]]
        yield _replaced(
            source, index, end + 1, _PLAIN[source.tokens[index]].format(*inside.split(",")), (index, end + 1)
        )


# ---- guards and predicates --------------------------------------------------------------------------------------------


@_operator
def guard(source: Source) -> Iterator[Edit]:
    """The condition of an ``if`` is always true, or never."""
    for index in source.find("if"):
        first, end = index + 2, source.partner[index + 1]
        for always in ("true", "false"):
            yield _replaced(source, first, end, always, (index, end + 1))


@_operator
def choice(source: Source) -> Iterator[Edit]:
    """A conditional expression always takes the same side."""
    for index in source.find("?"):
        first, end = source.left(index, STOPS), source.right(index, STOPS - {":", "?"})
        for always in ("true", "false"):
            yield _replaced(source, first, index, always, (first, end))


@_operator
def operand(source: Source) -> Iterator[Edit]:
    """One operand of ``&&`` or ``||`` is left out."""
    for index in source.find("&&", "||"):
        if not source.spaced(index):
            continue
        stops = _OF_AND if source.tokens[index] == "&&" else _OF_OR
        around = _part(source, index, STOPS)
        first, end = source.left(index, stops), source.right(index, stops)
        if first == source.left(index, _OF_OR):  # else it is the right side of the operator before
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
    """A comparison holds for one more, or for one fewer; equality is negated."""
    for index in source.find(*_SHIFTED):
        if source.spaced(index):
            for other in _SHIFTED[source.tokens[index]]:
                yield _replaced(source, index, index + 1, other, _part(source, index, _OF_AND))


@_operator
def boolean(source: Source) -> Iterator[Edit]:
    """A boolean variable is always true, or never; so is what a function of type bool returns."""
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
                yield _replaced(source, index + 1, end, always, (index, end))


@_operator
def clamp(source: Source) -> Iterator[Edit]:
    """``min`` or ``max`` of two is one of them."""
    for index in source.find("min", "max"):
        if source.tokens[index + 1] == "(":
            end = source.partner[index + 1]
            comma = source.right(index + 1, frozenset([","]))
            for first, last in ((index + 2, comma), (comma + 1, end)):
                yield _replaced(source, index, end + 1, source.text[slice(*source.span(first, last))], (index, end + 1))


# ---- loops and places -------------------------------------------------------------------------------------------------


@_operator
def loop(source: Source) -> Iterator[Edit]:
    """A loop begins one later, strides twice as far, or does not swap its halves."""
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
    """``+ 1`` or ``- 1`` is left out."""
    for index in source.find("+", "-"):
        if source.tokens[index + 1] == "1" and source.spaced(index):
            yield _replaced(source, index, index + 2, "", _part(source, index, _OF_AND))


@_operator
def initial_value(source: Source) -> Iterator[Edit]:
    """A variable that begins at zero begins with whatever is there."""
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
    """All mutants of a source, in the order of their places; what only a compiler evaluates (static_assert) has none."""
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
