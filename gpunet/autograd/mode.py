"""What ops look up: whether this thread records the graph, and the default floating dtype."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy

from gpunet.errors import DtypeError

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
    """Switch the recording of the graph on or off, for this thread: at once, and until the end of a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        self.previous = current.enabled
        current.enabled = bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        current.enabled = self.previous


class _GradMode:
    """A context manager and decorator that sets grad mode while inside."""

    value: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(current.enabled)
        current.enabled = self.value

    def __exit__(self, *exception: object) -> None:
        current.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        kind = type(self)

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


class no_grad(_GradMode):
    """Record no graph, for this thread: ``with no_grad():`` or ``@no_grad()``."""

    value = False


class enable_grad(_GradMode):
    """Record the graph again inside a :class:`no_grad`."""

    value = True


def is_grad_enabled() -> bool:
    """Whether ops of this thread record the graph."""
    return current.enabled
