"""What the text of a CUDA source declares of its entry points."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_START = re.compile(r"^[^#\n]*?\b(__global__|__launch_bounds__)\b", re.MULTILINE)
_NEXT = re.compile(r"(\w*)\s*([(;{}])")
_ATTRIBUTES = ("__launch_bounds__", "__cluster_dims__", "__maxnreg__", "__block_size__", "__align__", "__attribute__")


class Entry(NamedTuple):
    """A ``__global__`` function that is defined."""

    name: str
    parameters: list[str]  # their names
    bounds: str  # what stands in its __launch_bounds__; "" without
    body: int  # where in the text its body begins, behind the brace


def entries(text: str) -> Iterator[Entry]:
    """The entry points that a source defines, in order."""
    text = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), text)
    at = 0
    while start := _START.search(text, at):
        at, bounds = start.start(1), ""
        while found := _NEXT.search(text, at):
            at = found.end()
            if found[2] != "(":
                break
            inside, at = text[at : _closing(text, at)], _closing(text, at) + 1
            if found[1] == "__launch_bounds__":
                bounds = " ".join(inside.split())
            elif found[1] not in _ATTRIBUTES:
                brace = re.compile(r"\s*\{").match(text, at)
                if brace:
                    names = [re.findall(r"\w+", part)[-1] for part in inside.split(",") if re.search(r"\w", part)]
                    yield Entry(found[1], names, bounds, brace.end())
                break


def _closing(text: str, at: int) -> int:
    """Where the parenthesis closes that was opened before ``at``."""
    depth = 1
    for parenthesis in re.compile(r"[()]").finditer(text, at):
        depth += 1 if parenthesis[0] == "(" else -1
        if not depth:
            return parenthesis.start()
    return len(text)


def entry_of(text: str, expression: str) -> Entry | None:
    """The entry point that a specialisation is of."""
    name = expression.partition("<")[0].strip()
    return next((entry for entry in entries(text) if entry.name == name), None)
