"""The public face of ops: functions with PyTorch's signatures that are also methods of Tensor.

    @public(methods="sum")
    def sum(input, dim=None, keepdim=False): ...

Primitives stay private behind these functions; only operators such as ``__add__`` call them directly.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpunet.autograd import COPY, Tensor, bump_version, is_grad_enabled, method, wrap
from gpunet.backend.dtypes import category
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, ShapeError

F = TypeVar("F", bound=Callable[..., Any])

#: NumPy's names of arguments, which PyTorch accepts as well -> PyTorch's.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}


def public(methods: str = "", *, out: bool = True) -> Callable[[F], F]:
    """Decorator of a function with PyTorch's parameter names.

    * A first parameter ``input`` becomes a Tensor: arrays and numbers are taken as well.
    * NumPy's names of parameters are accepted (:data:`NUMPY_NAMES`).
    * ``out=`` receives a copy of the result.

    Args:
        methods: names under which the function becomes a method of Tensor, separated by spaces.
        out: whether the function takes ``out=``.
    """

    def decorate(function: F) -> F:
        parameters = [*inspect.signature(function).parameters]
        renamed = {alias: name for alias, name in NUMPY_NAMES.items() if name in parameters and alias not in parameters}
        takes_input, takes_out = parameters[0] == "input", out and "out" not in parameters

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            destination = None
            if options:
                for alias in renamed.keys() & options.keys():
                    _rename(function.__name__, options, alias, renamed[alias])
                if takes_out:
                    destination = options.pop("out", None)
            if takes_input:
                if args:
                    if type(args[0]) is not Tensor:
                        args = (wrap(args[0]), *args[1:])
                elif "input" in options:
                    args = (wrap(options.pop("input")),)
            result = function(*args, **options)
            return result if destination is None else _write(function.__name__, destination, result)

        return method(methods)(call)  # type: ignore[return-value]

    return decorate


def _rename(function: str, options: dict[str, Any], alias: str, name: str) -> None:
    if name in options:
        raise ArgumentError(f"{function}: got both {name}= and {alias}=, which mean the same; pass one")
    options[name] = options.pop(alias)


def _write(function: str, destination: Any, result: Any) -> Any:
    """Copy a result, or a tuple of results, to the tensors passed as ``out``; return them."""
    if isinstance(result, tuple):
        if not isinstance(destination, (tuple, list)) or len(destination) != len(result):
            raise ArgumentError(f"{function}: out={destination!r}; expected a tuple of {len(result)} tensors")
        written = [_write(function, *pair) for pair in zip(destination, result)]
        return type(result)(*written) if hasattr(result, "_fields") else tuple(written)
    _check_destination(function, destination, result)
    if destination.shape == result.shape:
        COPY(destination.array, result.array)
    else:  # empty: PyTorch resizes it
        destination.array = result.array
    bump_version(destination)
    return destination


def _check_destination(function: str, destination: Any, result: Tensor) -> None:
    if not isinstance(destination, Tensor):
        raise DtypeError(f"{function}: out has type {type(destination).__name__}; expected a tensor")
    if is_grad_enabled() and (destination.requires_grad or result.requires_grad):
        raise GradientError(
            f"{function}: out= has no gradient, but an argument or out requires one; use the returned tensor, or no_grad()"
        )
    if destination.device != result.device:
        raise DeviceError(f"{function}: out is on {destination.device}, the result on {result.device}; expected one device")
    is_empty = destination.array.size == 0
    if destination.shape != result.shape and not is_empty:
        raise ShapeError(f"{function}: out has shape {destination.shape}; expected {result.shape}, or an empty tensor")
    if category(destination.dtype) < category(result.dtype) or (is_empty and destination.dtype != result.dtype):
        raise DtypeError(f"{function}: out has dtype {destination.dtype}; the result has {result.dtype}")


def sizes_of(function: str, args: Sequence[Any], **named: Any) -> tuple[int, ...]:
    """The integers of a call f(2, 3), f((2, 3)) or f(size=(2, 3)).

    Args:
        args: the positional arguments.
        named: the parameter that may hold them instead, None if it was not passed.

    Raises:
        DtypeError: an item is no integer.
    """
    [(name, value)] = named.items()
    if value is not None:
        if args:
            raise ArgumentError(f"{function}: got {name}={value!r} beside positional sizes {tuple(args)}; pass one of them")
        args = (value,)
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    return tuple(as_integer(function, name, item) for item in args)


def as_integer(function: str, name: str, value: Any) -> int:
    """Return ``value``, a Python or NumPy integer or an integer tensor of one element, as an int.

    Raises:
        DtypeError: it is none, or a bool.
    """
    if type(value) is int:
        return value
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with contextlib.suppress(TypeError):  # an array of floats or of several elements has the method, too
            return int(value.__index__())
    raise DtypeError(f"{function}: {name}={value!r} has type {type(value).__name__}; expected an integer")
