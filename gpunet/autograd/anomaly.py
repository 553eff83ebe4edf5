"""Anomaly mode: backward checks each gradient for NaN, and names the op and the line of the first one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunet.autograd import engine
from gpunet.autograd.graph import Node, materialize
from gpunet.errors import GradientError
from gpunet.launch.tape import active, user_line

__all__ = [
    "detect_anomaly", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "set_anomaly_enabled", "set_detect_anomaly",
]  # fmt: skip


class _NumberWithLine(int):
    """The number of a node, with the user's line that made it."""

    line: str


class _NumbersWithLines:
    """The numbers of new nodes, with their lines."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> _NumbersWithLines:
        return self

    def __next__(self) -> int:
        number = _NumberWithLine(next(self.numbers))
        number.line = user_line()
        return number


def _set(is_enabled: bool, checks_nan: bool) -> None:
    numbers: Any = Node._sequence
    is_counting_lines = isinstance(numbers, _NumbersWithLines)
    if is_enabled and not is_counting_lines:
        Node._sequence = _NumbersWithLines(numbers)  # type: ignore[assignment]
    elif is_counting_lines and not is_enabled:
        Node._sequence = numbers.numbers
    engine.inspect_gradients = _raise_at_nan if is_enabled and checks_nan else None


def _raise_at_nan(node: Node, gradients: Any) -> None:
    """Raise a GradientError if a gradient that ``node`` returned has a NaN.  While a step is recorded, nothing is checked."""
    if active.tape is not None:
        return
    for position, gradient in enumerate(gradients):
        if gradient is not None and node.edges[position] is not None:
            tensor: Any = materialize(gradient)
            if (tensor != tensor).any():
                number = node.sequence
                raise GradientError(
                    f"the backward of {node.public_name} returned NaN as gradient of its input {position}; forward "
                    + (f"ran at {number.line}" if isinstance(number, _NumberWithLine) else "ran before anomaly mode was enabled")
                )


class _AnomalyMode:
    """Context manager that sets anomaly mode inside its block."""

    def __init__(self, mode: bool, check_nan: bool) -> None:
        self._wanted = bool(mode), bool(check_nan)
        self._previous: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._previous.append((is_anomaly_enabled(), is_anomaly_check_nan_enabled()))
        _set(*self._wanted)

    def __exit__(self, *exception: object) -> None:
        _set(*self._previous.pop())


def is_anomaly_enabled() -> bool:
    """Return whether anomaly mode is enabled."""
    return isinstance(Node._sequence, _NumbersWithLines)


def is_anomaly_check_nan_enabled() -> bool:
    """Return whether anomaly mode is enabled and backward checks gradients for NaN."""
    return engine.inspect_gradients is not None


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Enable or disable anomaly mode (see :func:`detect_anomaly`)."""
    _set(bool(mode), bool(check_nan))


def detect_anomaly(check_nan: bool = True) -> _AnomalyMode:
    """Enable anomaly mode for a block, in all threads: ``with gpunet.autograd.detect_anomaly():``.

    Forward remembers the line of each op, and backward reads each gradient, so both are much slower.  A backward that returns
    NaN raises a GradientError, which names the op and the line.

    Args:
        check_nan: whether backward checks gradients for NaN.
    """
    return _AnomalyMode(True, check_nan)


class set_detect_anomaly(_AnomalyMode):
    """Enable or disable anomaly mode (see :func:`detect_anomaly`) at once, or for a block.

    Args:
        mode: True enables it.
        check_nan: whether backward checks gradients for NaN.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        super().__init__(mode, check_nan)
        self.__enter__()

    def __enter__(self) -> None:
        if not self._previous:  # else the constructor has done it
            super().__enter__()
