"""Find what cannot be pickled in the objects that a spawned process needs."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any

from gpunet.errors import ArgumentError


class _Nowhere:
    """A file that forgets what is written."""

    def write(self, data: Any) -> int:
        return len(data)


def _error_of(value: Any) -> Exception | None:
    """The exception that pickling the value raises, or None; nothing is stored."""
    try:
        ForkingPickler(_Nowhere()).dump(value)
    except Exception as error:  # any code of the user's may run
        return error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object is pickled from, as far as this shows: a suffix of an expression, and its value."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif hasattr(value, "__self__") and hasattr(value, "__func__"):
        yield ".__self__", value.__self__
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items())


def check_picklable(function: str, start_method: str, **arguments: Any) -> None:
    """Raise an ArgumentError that names the innermost part of an argument that cannot be pickled.

    Args:
        function, start_method: for the message.
        arguments: what a worker process gets, by the name of the argument.
    """
    for name, value in arguments.items():
        if (error := _error_of(value)) is None:
            continue
        path, seen = name, {id(value)}
        while found := next((part for part in _parts(value) if id(part[1]) not in seen and _error_of(part[1]) is not None), None):
            path, value = path + found[0], found[1]
            seen.add(id(value))
        detail = (_error_of(value) or error) if not isinstance(error, pickle.PicklingError) else error
        raise ArgumentError(
            f"{function}: workers are started by {start_method!r}, which pickles what they need, and {path} cannot be pickled: "
            f"{_describe(value)} ({detail}). Use a function or class that a module defines at top level, open files and locks in "
            "the worker (worker_init_fn), or pass num_workers=0"
        ) from error


def _describe(value: Any) -> str:
    code = getattr(value, "__code__", None)
    where = f", defined in {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
    return f"{getattr(value, '__qualname__', type(value).__name__)!s}{where}"
