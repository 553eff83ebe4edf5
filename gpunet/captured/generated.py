"""Functions written at run time: what is known beforehand is bound, and no loop is left over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: In the source of a function, of the first of its lines.
FIRST_LINE = 3


def compile_source(parameters: str, lines: Sequence[str], names: Mapping[str, Any]) -> tuple[Callable[..., Any], str]:
    """A function of these lines, in which the names stand for their values, and its source."""
    body = "".join(f"        {line}\n" for line in lines or ["pass"])
    source = f"def bind({', '.join(names)}):\n    def replay({parameters}):\n{body}    return replay\n"
    namespace: dict[str, Any] = {}
    exec(compile(source, "<recorded step>", "exec"), namespace)
    return namespace["bind"](**names), source
