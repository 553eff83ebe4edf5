"""The table of the operators that can be loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
from onnx import TensorProto

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import FormatError

_MANY = 1 << 20
#: ONNX's number of a type -> dtype, of tensors that can be read.
DTYPES = {
    getattr(TensorProto, name): numpy.dtype(kind)
    for name, kind in {
        "FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "INT64": "int64", "INT32": "int32", "INT16": "int16",
        "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class Attributes:
    """The attributes of a node, and what else its function may need.

    Attributes:
        operator: its name.
        opset: the version of the operators.
        where: file and node, for messages.
        values: attributes by name.
    """

    operator: str
    opset: int
    where: str
    values: dict[str, Any]

    def integer(self, name: str, default: int) -> int:
        value = self.values.get(name, default)
        if type(value) is not int:
            raise FormatError(f"{self.where}: attribute {name}={value!r}; expected an integer")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name, default)
        if not isinstance(value, (int, float)):
            raise FormatError(f"{self.where}: attribute {name}={value!r}; expected a number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise FormatError(f"{self.where}: attribute {name}={value!r}; expected a text")
        return value

    def integers(self, name: str, default: Any = None) -> Any:
        """A list of integers, or the default."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise FormatError(f"{self.where}: attribute {name}={value!r}; expected integers")
        return value

    def require(self, name: str, *values: Any) -> None:
        """Refuse an attribute that has none of these values, of which the first is its default."""
        value = self.values.get(name, values[0])
        if value not in values:
            raise self.refuse(f"{name}={value!r}")

    def refuse(self, what: str) -> FormatError:
        """The error for a form of the operator that is not supported."""
        return FormatError(f"{self.where}: {what} is not supported")


class Operator(NamedTuple):
    """An operator.

    Attributes:
        run: (attributes, *inputs) -> result or tuple of results; with ``is_training``, if the operator depends on the mode.
            Inputs are tensors, NumPy arrays (shapes and constants) or None; if all are arrays, they come as tensors on the CPU,
            and the results become arrays again.
        num_inputs: the least and the most.
        attributes: the names that it takes.
        check: called with the attributes when a file is loaded.
        depends_on_mode: training or evaluation.
    """

    run: Callable[..., Any]
    num_inputs: tuple[int, int]
    attributes: frozenset[str]
    check: Callable[[Attributes], None]
    depends_on_mode: bool


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, attributes: str = "", check: Callable[[Attributes], None] | None = None) -> Any:
    """Decorator: the function of operators, with the names of the attributes that it takes, separated by spaces.

    The numbers of inputs are those of its positional parameters.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = [*inspect.signature(function).parameters.values()][1:]
        depends_on_mode = parameters[-1:] != [] and parameters[-1].name == "is_training"
        parameters = parameters[: len(parameters) - depends_on_mode]
        least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
        most = _MANY if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)
        known = frozenset(attributes.split())
        for name in names:
            OPERATORS[name] = Operator(function, (least, most), known, check or (lambda attributes: None), depends_on_mode)
        return function

    return declare


# ---- inputs ---------------------------------------------------------------------------------------------------------------


def as_tensor(value: Any, like: Any = None) -> Tensor:
    """An input as a tensor, on the device of another input."""
    if isinstance(value, Tensor):
        return value
    array = value if not isinstance(like, Tensor) else devices.move(value, like.device)
    return make_tensor(array)


def tensors(*values: Any) -> list[Any]:
    """Inputs as tensors on one device; None stays None."""
    like = next((value for value in values if isinstance(value, Tensor)), None)
    return [value if value is None else as_tensor(value, like) for value in values]


def host(attributes: Attributes, value: Any, name: str) -> list[int]:
    """The integers of an input that says a shape, axes or the like."""
    if isinstance(value, Tensor):
        value = devices.to_host(value.array)
    if is_floating(value.dtype):
        raise FormatError(f"{attributes.where}: {name} is of {value.dtype}; expected integers")
    found: list[int] = numpy.asarray(value).reshape(-1).tolist()
    return found


def axes_of(attributes: Attributes, value: Any) -> list[int] | None:
    """The axes of an operator: an input, or in earlier versions an attribute; None if neither is given."""
    if value is not None:
        return host(attributes, value, "axes")
    found: list[int] | None = attributes.integers("axes")
    return found
