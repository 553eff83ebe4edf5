"""Compile generated Python source: straight-line code with every constant bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def compile_source(parameters: str, lines: Sequence[str], names: Mapping[str, Any]) -> tuple[Callable[..., Any], str]:
    """Compile a function.

    Args:
        parameters: source of its parameter list.
        lines: source of its body.
        names: values of the free names in the body; they become closure variables.

    Returns:
        The function and its source.
    """
    body = "".join(f"        {line}\n" for line in lines or ["pass"])
    source = f"def bind({', '.join(names)}):\n    def replay({parameters}):\n{body}    return replay\n"
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "<recorded step>", "exec"), namespace)
    return namespace["bind"](**names), source
