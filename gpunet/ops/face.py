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

import numpy

from gpunet.autograd import COPY, Tensor, bump_version, is_grad_enabled, method, wrap
from gpunet.backend.dtypes import category
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, ShapeError

F = TypeVar("F", bound=Callable[..., Any])

#: NumPy's names of arguments, which PyTorch accepts as well -> PyTorch's.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}


def public(methods: str = "", *, out: bool = True, numbers: bool = False) -> Callable[[F], F]:
    """Decorator of a function with PyTorch's parameter names.

    * A first parameter ``input`` becomes a Tensor: arrays and numbers are taken as well.
    * NumPy's names of parameters are accepted (:data:`NUMPY_NAMES`).
    * ``out=`` receives a copy of the result.

    Args:
        methods: names under which the function becomes a method of Tensor, separated by spaces.
        out: whether the function takes ``out=``.
        numbers: a number stays one as ``input``, as in ``pow(2, x)``.
    """
    convert = _keep_number if numbers else wrap

    def decorate(function: F) -> F:
        parameters = [*inspect.signature(function).parameters]
        renamed = numpy_names(function)
        takes_input, takes_out = parameters[0] == "input", out and "out" not in parameters

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            destination = None
            if options:
                rename(function.__name__, options, renamed)
                if takes_out:
                    destination = options.pop("out", None)
            if takes_input:
                if args:
                    if type(args[0]) is not Tensor:
                        args = (convert(args[0]), *args[1:])
                elif "input" in options:
                    args = (convert(options.pop("input")),)
            result = function(*args, **options)
            return result if destination is None else write_out(function.__name__, destination, result)

        return method(methods)(call)  # type: ignore[return-value]

    return decorate


def _keep_number(value: Any) -> Any:
    return value if isinstance(value, (Tensor, int, float, numpy.generic)) else wrap(value)


def numpy_names(function: Callable[..., Any]) -> dict[str, str]:
    """NumPy's names of the parameters of a function -> their names."""
    names = inspect.signature(function).parameters
    return {alias: name for alias, name in NUMPY_NAMES.items() if name in names and alias not in names}


def rename(function: str, options: dict[str, Any], names: dict[str, str]) -> None:
    """Rename keywords that have NumPy's names.

    Raises:
        ArgumentError: a keyword is there under both names.
    """
    for alias in names.keys() & options.keys():
        name = names[alias]
        if name in options:
            raise ArgumentError(f"{function}: got both {name}= and {alias}=, which mean the same; pass one")
        options[name] = options.pop(alias)


def write_out(function: str, destination: Any, result: Any) -> Any:
    """Copy a result, or a tuple of results, to the tensors passed as ``out``; return them."""
    if isinstance(result, tuple):
        if not isinstance(destination, (tuple, list)) or len(destination) != len(result):
            raise ArgumentError(f"{function}: out={destination!r}; expected a tuple of {len(result)} tensors")
        written = [write_out(function, *pair) for pair in zip(destination, result)]
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


def as_number(function: str, name: str, value: Any) -> float:
    """Return ``value``, a Python or NumPy number or a tensor of one element, as a float.

    Raises:
        DtypeError: it is none.
    """
    if isinstance(value, (int, float, numpy.number, numpy.bool_, Tensor)):
        return float(value)
    raise DtypeError(f"{function}: {name}={value!r}; expected a number")


def as_integer(function: str, name: str, value: Any) -> int:
    """Return ``value``, a Python or NumPy integer or an integer tensor of one element, as an int.

    Raises:
        DtypeError: it is none, or a bool.
    """
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with contextlib.suppress(TypeError):  # an array of several elements, or not of integers
            value = int(value.__index__())
    if type(value) is int:
        if -(2**63) <= value < 2**63:
            return value
        raise DtypeError(f"{function}: {name}={value} is too large for an integer of 64 bits")
    raise DtypeError(f"{function}: {name}={value!r} has type {type(value).__name__}; expected an integer")
