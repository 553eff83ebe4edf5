"""Grad mode (whether ops record the graph) and the default floating dtype."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy

from gpunet.backend import dtypes
from gpunet.errors import ArgumentError, DtypeError

__all__ = [
    "enable_grad", "get_default_dtype", "inference_mode", "is_grad_enabled", "is_inference", "is_inference_mode_enabled",
    "no_grad", "set_default_dtype", "set_grad_enabled",
]  # fmt: skip

float32 = numpy.dtype("float32")
_default_dtype = float32


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype of tensors created from Python floats; it is float32 initially.

    Raises:
        DtypeError: the dtype is not floating.
    """
    global _default_dtype
    dtype = dtypes.as_dtype(dtype)
    if not dtypes.is_floating(dtype):
        raise DtypeError(f"set_default_dtype({dtype}): expected a floating dtype, such as gpunet.float32")
    _default_dtype = dtype


def get_default_dtype() -> numpy.dtype[Any]:
    """Return the dtype of tensors created from Python floats."""
    return _default_dtype


class _Mode(threading.local):
    enabled = True
    infers = False
    recomputes = False
    autocast: dict[str, Any] | None = None
    autocast_nesting = 0
    may_autocast = False
    saved_hooks: Any = None
    autocast_dtypes: Mapping[str, Any] = MappingProxyType({})
    leaf_listener: Callable[[Any], None] | None = None
    change_listener: Callable[[Any], None] | None = None


#: Of this thread: ``current.enabled``, whether ops record the graph; ``current.infers``, whether it is in a block of
#: :func:`inference_mode`; ``current.recomputes``, whether a forward pass runs again
#: for its gradient (see :mod:`gpunet.autograd.checkpoint`), so that layers must not count it twice; ``current.autocast``, the
#: kinds of devices on which ops autocast, with their half dtypes (see :mod:`gpunet.autograd.autocast`), None if there are none;
#: ``current.may_autocast``, whether the thread has ever set it outside of a block; ``current.autocast_dtypes``, the default of
#: these dtypes where it was set; ``current.saved_hooks``, the :class:`~gpunet.autograd.saved.saved_tensors_hooks` of the block;
#: ``current.leaf_listener``, a function that backward calls with each leaf whose gradient is complete;
#: ``current.change_listener``, a function that is called with tensors that were changed in place.
current = _Mode()
#: Not empty while a thread may autocast.  Ops look here first, which takes less time than ``current.autocast``.
autocasting: list[None] = []
F = TypeVar("F", bound=Callable[..., Any])


class set_grad_enabled:
    """Enable or disable recording of the graph in this thread.

    It takes effect immediately; as a context manager, it restores the previous mode at the end of the block.  As a
    decorator, it sets the mode while the function runs.
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
        return _in_mode(self._mode, function)


class set_multithreading_enabled:
    """Accept a bool, also as a context manager: backward runs in the thread that calls it, and in no other."""

    def __init__(self, mode: bool) -> None:
        self._value = bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass


class enforce_grad_layout_policy(set_multithreading_enabled):
    """Accept a bool, also as a context manager: the gradients of leaves have one order in memory, whatever that of the leaf."""

    def __init__(self, enable: bool = True) -> None:
        super().__init__(enable)


def no_grad(function: Any = None) -> Any:
    """Disable recording of the graph in this thread: ``with no_grad():``, ``@no_grad()`` or ``@no_grad``."""
    return _GradMode(False) if function is None else _GradMode(False)(function)


def enable_grad(function: Any = None) -> Any:
    """Enable recording of the graph in this thread, for use inside :func:`no_grad`; same forms."""
    return _GradMode(True) if function is None else _GradMode(True)(function)


def inference_mode(mode: Any = True) -> Any:
    """Disable recording of the graph, as :func:`no_grad`; ``inference_mode(False)`` changes nothing."""
    return _InferenceMode(True)(mode) if callable(mode) else _InferenceMode(bool(mode))


class _GradMode:
    """Context manager and decorator that sets the grad mode inside its block; creating it changes nothing.

    Args:
        value: the mode; None keeps that of the block around.
    """

    def __init__(self, value: bool | None) -> None:
        self._value = value
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(current.enabled)
        if self._value is not None:
            current.enabled = self._value

    def __exit__(self, *exception: object) -> None:
        current.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        return _in_mode(self._value, function)


class _InferenceMode(_GradMode):
    """:class:`_GradMode` of :func:`inference_mode`."""

    def __init__(self, mode: bool) -> None:
        super().__init__(False if mode else None)
        self._mode = mode
        self._outer: list[bool] = []

    def __enter__(self) -> None:
        super().__enter__()
        self._outer.append(current.infers)
        current.infers = self._mode

    def __exit__(self, *exception: object) -> None:
        current.infers = self._outer.pop()
        super().__exit__(*exception)

    def __call__(self, function: F) -> F:
        return _within(lambda: _InferenceMode(self._mode), function)


def _in_mode(value: bool | None, function: F) -> F:
    return _within(lambda: _GradMode(value), function)


def _within(block: Callable[[], _GradMode], function: F) -> F:
    """Return ``function`` running with a grad mode; a generator function has it whenever its own code runs.

    Raises:
        ArgumentError: the body of the function runs at an ``await``, where the mode would not be set.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ArgumentError(f"grad mode on the async function {function.__name__}; use `with no_grad():` inside it")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with block():
            return function(*args, **kwargs)

    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        resume, argument = generator.send, None
        while True:
            try:
                with block():
                    item = resume(argument)
            except StopIteration as stop:
                return stop.value
            try:
                resume, argument = generator.send, (yield item)
            except GeneratorExit:
                with block():
                    generator.close()
                raise
            except BaseException as error:
                resume, argument = generator.throw, error

    return generate if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]


def is_inference_mode_enabled() -> bool:
    """Return whether this thread is in a block of :func:`inference_mode`."""
    return current.infers


def is_inference(input: Any) -> bool:
    """Return False: tensors that are made in :func:`inference_mode` can be used as any others."""
    if not hasattr(input, "requires_grad"):
        raise DtypeError(f"is_inference: input has type {type(input).__name__}; expected a tensor")
    return False


def is_grad_enabled() -> bool:
    """Return whether ops of this thread record the graph."""
    return current.enabled
