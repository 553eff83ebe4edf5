"""The public face of ops: functions with PyTorch's signatures that are also methods of Tensor.

    @public(methods="sum")
    def sum(input, dim=None, keepdim=False): ...

Primitives stay private behind these functions; only operators such as ``__add__`` call them directly.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy

from gpunet.autograd import COPY, Tensor, bump_version, ignore_fp_errors, is_grad_enabled, method, wrap
from gpunet.autograd.autocast import call_with_casts, parse_rules
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.autograd.data import convert_number
from gpunet.autograd.mode import autocasting
from gpunet.backend.dtypes import category, complex_in_use, is_floating, is_inexact
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, OutOfRangeError, ShapeError

F = TypeVar("F", bound=Callable[..., Any])

#: NumPy's names of arguments, which PyTorch accepts as well -> PyTorch's.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}


def public(
    methods: str = "", *, out: bool = True, numbers: bool = False, names: Mapping[str, str] | None = None, autocast: str = "",
    takes_complex: bool = False,
) -> Callable[[F], F]:  # fmt: skip
    """Decorator of a function with PyTorch's parameter names.

    * A first parameter ``input`` becomes a Tensor: arrays and numbers are taken as well.
    * NumPy's names of parameters are accepted (:data:`NUMPY_NAMES`).
    * A parameter annotated as ``bool`` takes True and False only: ``x.sum(0, 1)`` does not mean ``keepdim=True``.
    * ``out=`` receives a copy of the result.
    * Complex tensors are refused, unless the function ``takes_complex``.

    Args:
        methods: names under which the function becomes a method of Tensor, separated by spaces.
        out: whether the function takes ``out=``.
        numbers: a number stays one as ``input``, as in ``pow(2, x)``.
        names: other names of parameters, as the method or another overload has them in PyTorch -> the parameter.
        autocast: the rules in an autocast block, see :mod:`gpunet.autograd.autocast`.
        takes_complex: whether what the function computes of complex tensors is right, with its gradient.
    """
    rules = parse_rules(autocast) or None
    convert = _keep_number if numbers else wrap

    def decorate(function: F) -> F:
        parameters = parameter_names(function)
        renamed = {**numpy_names(function), **(names or {})}
        flags = _flags(function)
        first_flag = min((position for position, _ in flags.values()), default=0)
        takes_input, takes_out = parameters[:1] == ("input",), out and "out" not in parameters

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
            if flags and (options or len(args) > first_flag):
                _check_flags(function.__name__, flags, args, options)
            if complex_in_use and not takes_complex:
                refuse_complex(function.__name__, (*args, *options.values()))
            if rules is not None and autocasting:
                result = call_with_casts(function, rules, args, options)
            else:
                result = function(*args, **options)
            return result if destination is None else write_out(function.__name__, destination, result)

        call.takes_complex = takes_complex  # type: ignore[attr-defined]
        return method(methods)(call)  # type: ignore[return-value]

    return decorate


def named(function: F, name: str, doc: str) -> F:
    """Give a function of a family its name and docstring."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _keep_number(value: Any) -> Any:
    return value if isinstance(value, (Tensor, int, float, complex, numpy.generic)) else wrap(value)


def parameter_names(function: Any) -> tuple[str, ...]:
    """The names of the parameters without *args and **options.  :func:`inspect.signature` takes ten times as long."""
    code = inspect.unwrap(function).__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _flags(function: Any) -> dict[str, tuple[int, bool]]:
    """The position of each parameter that is annotated as bool, none if keyword-only; and whether None is a value of it."""
    num_positional = inspect.unwrap(function).__code__.co_argcount
    annotations = function.__annotations__
    return {
        name: (position if position < num_positional else sys.maxsize, annotations[name] != "bool")
        for position, name in enumerate(parameter_names(function))
        if annotations.get(name) in ("bool", "bool | None")
    }


def _check_flags(function: str, flags: dict[str, tuple[int, bool]], args: Sequence[Any], options: dict[str, Any]) -> None:
    for name, (position, takes_none) in flags.items():
        check_flag(function, name, args[position] if position < len(args) else options.get(name, False), takes_none)


def check_flag(function: str, name: str, value: Any, takes_none: bool = False) -> None:
    """Raise a DtypeError unless ``value`` is a bool, or None if ``takes_none``."""
    if not isinstance(value, bool) and not (takes_none and value is None):
        raise DtypeError(f"{function}: {name}={value!r}{_with_type(value)}; expected True or False")


def _with_type(value: Any) -> str:
    """The type of a value, for the message that refuses it."""
    return "" if value is None else f" has type {type(value).__name__}"


def numpy_names(function: Any) -> dict[str, str]:
    """NumPy's names of the parameters of a function -> their names."""
    names = parameter_names(function)
    return {alias: name for alias, name in NUMPY_NAMES.items() if name in names and alias not in names}


def rename(function: str, options: dict[str, Any], names: dict[str, str]) -> None:
    """Rename keywords that have NumPy's names.

    Raises:
        ArgumentError: an argument is passed under both names.
    """
    for alias in names.keys() & options.keys():
        name = names[alias]
        if name in options:
            raise ArgumentError(f"{function}: got both {name}= and {alias}=, which mean the same; pass one")
        options[name] = options.pop(alias)


@ignore_fp_errors
def write_out(function: str, destination: Any, result: Any) -> Any:
    """Copy a result, or a tuple of results, to the tensors passed as ``out``; return them."""
    if isinstance(result, tuple):
        if not isinstance(destination, (tuple, list)) or len(destination) != len(result):
            raise ArgumentError(f"{function}: out={destination!r}; expected a tuple of {len(result)} tensors")
        for given, made in zip(destination, result):
            if isinstance(given, Tensor) and given.dtype != made.dtype:
                raise DtypeError(f"{function}: a tensor of out has dtype {given.dtype}; expected {made.dtype}")
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
        ArgumentError: no sizes were passed, or both positional and named ones.
        DtypeError: an item is no integer.
    """
    [(name, value)] = named.items()
    if value is None and not args:
        raise ArgumentError(f"{function}: {name} is missing; expected integers, or a tuple of them")
    if value is not None:
        if args:
            raise ArgumentError(f"{function}: got {name}={value!r} beside positional sizes {tuple(args)}; pass one of them")
        if not isinstance(value, (tuple, list)):
            raise DtypeError(f"{function}: {name}={value!r}{_with_type(value)}; expected a tuple of integers")
        args = value
    elif len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    return tuple([as_integer(function, name, item) for item in args])


def as_number(function: str, name: str, value: Any) -> float:
    """Return ``value``, a Python or NumPy number or a tensor of one element, as a float.

    Raises:
        DtypeError: ``value`` is no number.
    """
    if isinstance(value, (int, float, numpy.number, numpy.bool_, Tensor)):
        return float(value)
    raise DtypeError(f"{function}: {name}={value!r}{_with_type(value)}; expected a number")


def as_factor(function: str, name: str, value: Any, dtype: numpy.dtype[Any]) -> Any:
    """Return ``value``, a number or a 0-d tensor that tensors of ``dtype`` are multiplied by, as a number of the dtype's kind.

    Raises:
        DtypeError: it is floating, and the dtype is not; or it is no number.
    """
    given = value.dtype if isinstance(value, Tensor) else None
    if not is_inexact(dtype) and (is_floating(given) if given is not None else isinstance(value, (float, numpy.floating))):
        raise DtypeError(f"{function}: {name}={value!r} for tensors of {dtype}; expected an integer")
    return convert_number(value, dtype, function, name, rounds_to_inf=True)


def as_integer(function: str, name: str, value: Any) -> int:
    """Return ``value``, a Python or NumPy integer or an integer tensor of one element, as an int.

    Raises:
        DtypeError: ``value`` is no integer, or a bool.
        OutOfRangeError: ``value`` does not fit into 64 bits.
    """
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise OutOfRangeError(f"{function}: {name}={value} does not fit into 64 bits")
        return value
    if not isinstance(value, (bool, numpy.bool_)) and hasattr(value, "__index__"):
        with contextlib.suppress(TypeError, ShapeError):  # a tensor or an array that is no single integer
            return int(value.__index__())
    raise DtypeError(f"{function}: {name}={value!r}{_with_type(value)}; expected an integer")


def as_positive(function: str, name: str, value: Any) -> int:
    """Return ``value`` as :func:`as_integer` does.

    Raises:
        DtypeError, OutOfRangeError: as of :func:`as_integer`.
        ArgumentError: it is less than 1.
    """
    number = as_integer(function, name, value)
    if number < 1:
        raise ArgumentError(f"{function}: {name}={number}; expected 1 or more")
    return number


def as_probability(function: str, name: str, value: Any) -> float:
    """Return ``value`` as :func:`as_number` does.

    Raises:
        DtypeError: it is no number.
        ArgumentError: it is not in [0, 1].
    """
    number = as_number(function, name, value)
    if not 0.0 <= number <= 1.0:
        raise ArgumentError(f"{function}: {name}={value}; expected a probability from 0 to 1")
    return number
