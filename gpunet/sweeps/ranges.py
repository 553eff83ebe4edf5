"""Ranges of hyperparameters: what a sweep may vary, and the values of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.errors import ArgumentError
from gpunet.train.network import ACTIVATIONS, choose

__all__ = ["Choice", "Interval"]

OPTIMIZERS = ("adam", "adamw", "sgd")


class Choice(NamedTuple):
    """One of several values.

    Attributes:
        values: not empty.
    """

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the range."""
        return self.values[int(share * len(self.values))]

    def grid(self, count: int) -> list[Any]:
        """All values."""
        return [*self.values]


class Interval(NamedTuple):
    """Numbers from ``low`` to ``high``.

    Attributes:
        is_log: uniform in the logarithm.
        is_whole: whole numbers.
    """

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1] of the range."""
        if self.is_whole:
            low, high = (math.log(self.low), math.log(self.high + 1)) if self.is_log else (self.low, self.high + 1)
            found = low + share * (high - low)
            return min(int(math.exp(found) if self.is_log else found), int(self.high))
        if self.is_log:
            found = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            return min(max(found, self.low), self.high)
        return self.low + share * (self.high - self.low)

    def grid(self, count: int) -> list[Any]:
        """At most ``count`` values, evenly from end to end."""
        if self.is_whole:
            space = numpy.geomspace if self.is_log else numpy.linspace
            return sorted({round(value) for value in space(self.low, self.high, count).tolist()})
        shares = [0.0] if count == 1 else [place / (count - 1) for place in range(count)]
        return [self.at(share) for share in shares]


Range = Choice | Interval


class Parameter(NamedTuple):
    """A hyperparameter of a trial.

    Attributes:
        kind: "number", "whole", "name" or "sizes".
        low, high: bounds [low, high) of numbers.
        default: None selects that of the optimizer.
        names: of the kind "name".
        is_shared: nets with different values cannot be in one stack.
    """

    kind: str
    default: Any
    low: float = 0.0
    high: float = math.inf
    names: tuple[str, ...] = ()
    is_shared: bool = False


#: What a sweep may vary.
PARAMETERS: dict[str, Parameter] = {
    "lr": Parameter("number", None),
    "weight_decay": Parameter("number", None),
    "dropout": Parameter("number", 0.0, 0.0, 1.0),
    "hidden": Parameter("sizes", "64"),
    "activation": Parameter("name", "relu", names=tuple(ACTIVATIONS), is_shared=True),
    "optimizer": Parameter("name", "adam", names=OPTIMIZERS, is_shared=True),
    "momentum": Parameter("number", 0.9, 0.0, 1.0),
    "beta1": Parameter("number", 0.9, 0.0, 1.0),
    "beta2": Parameter("number", 0.999, 0.0, 1.0),
    "batch_size": Parameter("whole", 32, 1, is_shared=True),
    "seed": Parameter("whole", 0, 0, 2**63),
}


def parse_ranges(ranges: Mapping[str, Any]) -> dict[str, Range]:
    """Parse the ranges of a sweep.

    Args:
        ranges: hyperparameter -> a :class:`Choice` or :class:`Interval`, a value, or a sequence of values; or as text
            "low:high", "low:high:log", "low:high:int", "low:high:int:log".

    Raises:
        ArgumentError: there is no such hyperparameter, or a range or a value is not valid.
    """
    found: dict[str, Range] = {}
    for name, given in ranges.items():
        name = name.replace("-", "_")
        if name not in PARAMETERS:
            raise ArgumentError(f"sweep: unknown hyperparameter {name!r}; expected one of {', '.join(PARAMETERS)}")
        found[name] = _parse(name, given)
    if not found:
        raise ArgumentError(f"sweep: got no ranges; expected one or more of {', '.join(PARAMETERS)}")
    return found


def _parse(name: str, given: Any) -> Range:
    if isinstance(given, Interval):
        return _checked_interval(name, given)
    values = given.values if isinstance(given, Choice) else given
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    values = [*values]
    if len(values) == 1 and isinstance(values[0], str) and ":" in values[0]:
        return _checked_interval(name, _parse_interval(name, values[0]))
    if not values:
        raise ArgumentError(f"sweep: {name} has no values; expected one or more")
    return Choice(tuple(check_value(name, value) for value in values))


def _parse_interval(name: str, text: str) -> Interval:
    low, high, *flags = (part.strip() for part in text.split(":"))
    try:
        numbers = float(low), float(high)
    except ValueError:
        numbers = math.nan, math.nan
    if not all(map(math.isfinite, numbers)) or not {*flags} <= {"log", "int"} or len({*flags}) < len(flags):
        raise ArgumentError(f"sweep: {name} = {text!r}; expected low:high, such as 1e-4:1e-1:log or 8:64:int")
    is_whole = "int" in flags or PARAMETERS[name].kind == "whole"
    return Interval(*numbers, is_log="log" in flags, is_whole=is_whole)


def _checked_interval(name: str, interval: Interval) -> Interval:
    parameter = PARAMETERS[name]
    if parameter.kind == "name":
        raise ArgumentError(f"sweep: {name} from {interval.low:g} to {interval.high:g}; expected names")
    if parameter.kind == "sizes" and not interval.is_whole:
        raise ArgumentError(f"sweep: {name} from {interval.low:g} to {interval.high:g}; expected whole numbers, such as 8:64:int")
    if parameter.kind == "whole":
        interval = interval._replace(is_whole=True)
    low = max(parameter.low, 1.0 if parameter.kind == "sizes" else 0.0)
    is_empty = not interval.low < interval.high or (interval.is_log and not interval.low > 0.0)
    if is_empty or interval.low < low or not interval.high < parameter.high:
        raise ArgumentError(
            f"sweep: {name} from {interval.low:g} to {interval.high:g}{' by its logarithm' if interval.is_log else ''}; expected "
            f"an interval in [{low:g}, {parameter.high:g}), above 0 by the logarithm"
        )
    if interval.is_whole and not (interval.low == int(interval.low) and interval.high == int(interval.high)):
        raise ArgumentError(f"sweep: {name} from {interval.low:g} to {interval.high:g}; expected an interval between whole numbers")
    return interval


def check_value(name: str, value: Any) -> Any:
    """Return a value of a hyperparameter: a float, an int, a name, or sizes as text.

    Raises:
        ArgumentError: it is not valid.
    """
    parameter = PARAMETERS[name]
    if parameter.kind == "name":
        return choose(name, str(value), parameter.names)
    if parameter.kind == "sizes":
        sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else str(value).split(",")
        texts = [str(size).strip() for size in sizes]
        if not all(text.isdecimal() and int(text) > 0 for text in texts):
            raise ArgumentError(f"sweep: {name} = {value!r}; expected positive integers separated by commas, such as 64,32")
        return ",".join(str(int(text)) for text in texts)
    try:
        text = str(value).strip()  # a float would round large whole numbers
        number = int(text) if parameter.kind == "whole" and text.isdecimal() else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    is_right = parameter.low <= number < parameter.high and (parameter.kind == "number" or number == int(number))
    if not is_right:
        kind = "a whole number" if parameter.kind == "whole" else "a number"
        raise ArgumentError(f"sweep: {name} = {value!r}; expected {kind} in [{parameter.low:g}, {parameter.high:g})")
    return int(number) if parameter.kind == "whole" else number
