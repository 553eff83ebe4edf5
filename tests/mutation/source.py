"""Tokenize a CUDA source, match its brackets, and find its declarations.

It handles the style of ``cuda_kernels/`` (clang-format, blanks around binary operators, none inside template
brackets), not all of C++.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BLANKED = re.compile(r"//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    r"[A-Za-z_]\w*|\.?\d[\w.]*(?:(?<=[eE])[+-]\d+\w*)?|\"[^\"]*\"|<<=|>>=|->|::|\+\+|--|&&|\|\||[-+*/%&|^<>=!]=|<<|>>|\S"
)
_OPEN, _CLOSE = "([{", ")]}"
ASSIGNMENTS = frozenset(["=", "+=", "-=", "*=", "/=", "%=", "^=", "|=", "&=", "<<=", ">>="])
#: Tokens that end an operand of an operator that binds tighter than a comma, an assignment and ?:.
STOPS = ASSIGNMENTS | {",", ";", "?", ":", "return", "else"}


class Declaration(NamedTuple):
    """A declaration at the top level or in a struct."""

    name: str
    start: int  # [start, end) of the text
    end: int
    returns_bool: bool
    is_enum: bool
    is_struct: bool
    arguments: frozenset[str] = frozenset()  # names among the template arguments of a specialised struct


class Source:
    """The tokens of a text, without comments and preprocessor lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        code = _BLANKED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
        self.spans = [found.span() for found in _TOKEN.finditer(code)]
        self.tokens = [code[start:end] for start, end in self.spans]
        self.partner: dict[int, int] = {}
        opened: list[int] = []
        for index, token in enumerate(self.tokens):
            if token in _OPEN:
                opened.append(index)
            elif token in _CLOSE:
                self.partner[index], self.partner[opened[-1]] = opened[-1], index
                opened.pop()
        self.top: list[Declaration] = []  # at the top level
        self.declarations: list[Declaration] = []  # also those in structs
        self._declare(0, len(self.tokens), "", self.top)

    def _declare(self, first: int, end: int, within: str, into: list[Declaration]) -> None:
        while first < end:
            last = first
            while last < end and self.tokens[last] not in ("{", ";"):
                last = self.partner[last] + 1 if self.tokens[last] in "([" else last + 1
            if last >= end:
                return
            head = self._outside_brackets(first, last)
            is_struct = "struct" in head or "enum" in head
            stop = self.partner[last] if self.tokens[last] == "{" else last
            if is_struct or "=" in head:
                while self.tokens[stop] != ";":
                    stop += 1
            name = self._name(head, last, is_struct)
            start, end_of_text = self.span(first, stop + 1)
            is_function = "()" in head and "=" not in head and not is_struct
            arguments = frozenset(head[head.index("<") + 1 :]) if is_struct and "<" in head else frozenset()
            found = Declaration(
                within + name, start, end_of_text, is_function and "bool" in head, "enum" in head, "struct" in head, arguments
            )
            into.append(found)
            if into is not self.declarations:
                self.declarations.append(found)
            if is_struct and self.tokens[last] == "{" and "enum" not in head:
                self._declare(last + 1, self.partner[last], f"{name}::", self.declarations)
            first = stop + 1

    def _outside_brackets(self, first: int, last: int) -> list[str]:
        """The tokens of a declaration's head, with "()" for each bracketed part and without template parameters."""
        head: list[str] = []
        at = first
        while at < last:
            if self.tokens[at] == "template" and self.tokens[at + 1] == "<":
                at, depth = at + 2, 1
                while depth:
                    depth += {"<": 1, ">": -1, ">>": -2}.get(self.tokens[at], 0)
                    at += 1
            elif self.tokens[at] in _OPEN:
                head.append("()")
                at = self.partner[at] + 1
            else:
                head.append(self.tokens[at])
                at += 1
        return head

    def _name(self, head: list[str], last: int, is_struct: bool) -> str:
        if is_struct:
            for end in (":", "<"):  # without base classes, and without the arguments of a specialisation
                head = head[: head.index(end)] if end in head else head
            return head[-1] if head[-1] not in ("enum", "struct") else self.tokens[last + 1]
        if "operator" in head:
            return "operator()"
        text = re.sub(r"__\w+__ \(\) ", "", " ".join(head)) + " "
        pattern = r"(\w+) (?:< \w+ > )?(?:\(\) )*=" if "=" in head else r"(\w+) \(\)|(\w+) $"
        found = re.search(pattern, text)
        return found[found.lastindex or 0] if found else text.strip()

    # ---- positions -------------------------------------------------------------------------------------------------------

    def declaration(self, position: int) -> Declaration | None:
        """The innermost declaration that contains a position of the text."""
        around = [d for d in self.declarations if d.start <= position < d.end]
        return min(around, key=lambda d: d.end - d.start, default=None)

    def identifiers(self, declaration: Declaration) -> set[str]:
        inside = (i for i, (start, _) in enumerate(self.spans) if declaration.start <= start < declaration.end)
        return {self.tokens[i] for i in inside if self.tokens[i][0].isalpha() or self.tokens[i][0] == "_"}

    def find(self, *wanted: str) -> Iterator[int]:
        return (index for index, token in enumerate(self.tokens) if token in wanted)

    def left(self, index: int, stops: frozenset[str] | set[str]) -> int:
        """Index of the first token of the operand left of a token, which begins after ``stops`` or an open bracket."""
        at = index
        while at > 0 and self.tokens[at - 1] not in stops and self.tokens[at - 1] not in _OPEN:
            previous = self.tokens[at - 1]
            if previous == "}":
                break
            at = self.partner[at - 1] if previous in _CLOSE else at - 1
        return at

    def right(self, index: int, stops: frozenset[str] | set[str]) -> int:
        """Index after the last token of the operand right of a token, which ends at ``stops`` or a closing bracket."""
        at = index + 1
        while at < len(self.tokens) and self.tokens[at] not in stops and self.tokens[at] not in _CLOSE:
            at = self.partner[at] + 1 if self.tokens[at] in _OPEN else at + 1
        return at

    def span(self, first: int, end: int) -> tuple[int, int]:
        """The [start, end) in the text of tokens [first, end)."""
        return self.spans[first][0], self.spans[end - 1][1]

    def spaced(self, index: int) -> bool:
        """Whether a token has blanks on both sides, like a comparison and unlike a template bracket."""
        start, end = self.spans[index]
        return self.text[start - 1].isspace() and self.text[end].isspace()
