"""What must still be so for a recording to be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.captured.generated import compile_source

Reason = str | Callable[[], str]


class Guards:
    """Conditions, each with what is said when it no longer holds.

    They are compared before each replay, and mostly hold: so they are written down as one expression.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, Reason] = {}
        self._names: dict[str, Any] = {}
        self._numbers: dict[int, str] = {}
        self._compiled: Callable[[], bool] | None = None

    def add(self, expression: str, values: tuple[Any, ...], reason: Reason) -> None:
        """Add a condition: an expression, with the values that stand at its "{}".

        Args:
            reason: what no longer holds, or a function that finds it out.
        """
        self._reasons.setdefault(expression.format(*map(self._name, values)), reason)
        self._compiled = None

    def _name(self, value: Any) -> str:
        name = self._numbers.setdefault(id(value), f"v{len(self._numbers)}")
        self._names[name] = value  # which keeps its id its own
        return name

    def hold(self) -> bool:
        """Whether all of them hold."""
        if self._compiled is None:
            self._compiled = self._together([*self._reasons])
        return self._compiled()

    def broken(self) -> str:
        """What the first one that does not hold is about; nothing when all hold."""
        if self.hold():
            return ""
        for expression, reason in self._reasons.items():
            if not self._together([expression])():
                return reason if isinstance(reason, str) else reason()
        return ""

    def _together(self, expressions: list[str]) -> Callable[[], bool]:
        lines = ["try:", f"    return {' and '.join(expressions) or True}", "except (KeyError, ValueError):", "    return False"]
        return compile_source("", lines, self._names)[0]  # a name that is gone, and a closure's cell that is empty
