"""What ops look up: whether this thread records the graph, and the default floating dtype."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from gpunet.errors import DtypeError

__all__ = ["enable_grad", "get_default_dtype", "is_grad_enabled", "no_grad", "set_default_dtype", "set_grad_enabled"]

float32 = numpy.dtype("float32")
_default_dtype = float32


def set_default_dtype(dtype: Any) -> None:
    """The floating dtype of tensors made of Python numbers: float32, unless set here."""
    global _default_dtype
    if numpy.dtype(dtype).kind != "f":
        raise DtypeError(f"default dtype {numpy.dtype(dtype)}: expected a floating dtype, float32 or float64")
    _default_dtype = numpy.dtype(dtype)


def get_default_dtype() -> numpy.dtype[Any]:
    """The floating dtype of tensors made of Python numbers."""
    return _default_dtype


class _Mode(threading.local):
    enabled = True


current = _Mode()
F = TypeVar("F", bound=Callable[..., Any])


class set_grad_enabled:
    """Switch the recording of the graph on or off, for this thread: at once, and until the end of a ``with`` block.

    As a decorator it switches while the function runs.
    """

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._previous = current.enabled
        current.enabled = self._mode

    def __enter__(self) -> None:
        current.enabled = self._mode

    def __exit__(self, *exception: object) -> None:
        current.enabled = self._previous

    def __call__(self, function: F) -> F:
        current.enabled = self._previous
        mode = self._mode

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with set_grad_enabled(mode):
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def no_grad(function: Any = None) -> Any:
    """Record no graph, for this thread: ``with no_grad():``, ``@no_grad()`` or ``@no_grad``."""
    return _GradMode(False) if function is None else _GradMode(False)(function)


def enable_grad(function: Any = None) -> Any:
    """Record the graph again inside a :func:`no_grad`."""
    return _GradMode(True) if function is None else _GradMode(True)(function)


class _GradMode:
    """A context manager and decorator that sets grad mode while inside; it switches nothing before."""

    def __init__(self, value: bool) -> None:
        self._value = value
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(current.enabled)
        current.enabled = self._value

    def __exit__(self, *exception: object) -> None:
        current.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        value = self._value

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(value):
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def is_grad_enabled() -> bool:
    """Whether ops of this thread record the graph."""
    return current.enabled
