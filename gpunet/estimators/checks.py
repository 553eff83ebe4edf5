"""Checks of parameters and sample weights, in the words of the estimator's user."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy
from sklearn.utils import check_array

from gpunet.errors import ArgumentError, ShapeError

CAPTURE = ("numpy", "numba")


class Rule(NamedTuple):
    """The values that a parameter may have."""

    holds: Callable[[Any], bool]
    expected: str


def whole(low: int, *others: Any) -> Rule:
    """An integer of ``low`` or more, or one of ``others``."""
    also = "".join(f", or {other!r}" for other in others)
    return Rule(lambda v: _is_one_of(v, others) or (is_whole(v) and v >= low), f"an integer of {low} or more{also}")


def real(low: float, high: float = numpy.inf, *, has_low: bool = True, has_high: bool = False) -> Rule:
    """A number between two bounds."""
    span = f"{'[' if has_low else '('}{low:g}, {high:g}{']' if has_high else ')'}"

    def holds(value: Any) -> bool:
        is_above = _is_real(value) and (low <= value if has_low else low < value)
        return is_above and bool(value <= high if has_high else value < high)

    return Rule(holds, f"a number in {span}")


def choice(*names: Any) -> Rule:
    """One of several values."""
    return Rule(lambda v: _is_one_of(v, names), f"one of {', '.join(map(repr, names))}")


FLAG = Rule(lambda v: isinstance(v, (bool, numpy.bool_)), "True or False")
VERBOSE = Rule(lambda v: isinstance(v, (bool, Integral)), "True, False or an integer")


def _is_class_weight(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_real(weight) and 0.0 <= weight < numpy.inf for weight in value.values())
    return value is None or (isinstance(value, str) and value == "balanced")


CLASS_WEIGHT = Rule(_is_class_weight, "a dict with a finite weight of 0 or more for each class, 'balanced', or None")


def check_parameters(estimator: Any, rules: Mapping[str, Rule]) -> None:
    """Check the parameters of an estimator.

    Raises:
        ArgumentError: a parameter breaks its rule.
    """
    for name, rule in rules.items():
        value = getattr(estimator, name)
        if not rule.holds(value):
            raise ArgumentError(f"{type(estimator).__name__}: {name}={value!r}; expected {rule.expected}")


def check_weights(sample_weight: Any, num_rows: int, name: str) -> numpy.ndarray | None:
    """Return sample weights as float64 (n,); None stays None.

    Args:
        sample_weight: array-like of numbers.
        num_rows: of the data.
        name: of the estimator, for messages.

    Raises:
        ShapeError: there is not one weight for each row.
        ArgumentError: a weight is negative, or all are zero.
        ValueError: a weight is not a finite number; scikit-learn's message.
    """
    if sample_weight is None:
        return None
    weight = check_array(sample_weight, ensure_2d=False, dtype=numpy.float64, input_name="sample_weight")
    if weight.shape != (num_rows,):
        raise ShapeError(f"{name}: sample_weight has the shape {weight.shape}; expected ({num_rows},), one weight for each row")
    if (weight < 0.0).any():
        row = int((weight < 0.0).argmax())
        raise ArgumentError(f"{name}: sample_weight[{row}] is {weight[row]:g}; expected no negative weight")
    if not weight.any():
        raise ArgumentError(f"{name}: all sample weights are zero, so no row would count; expected a positive weight")
    return weight


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_one_of(value: Any, names: Container[Any]) -> bool:
    """Whether a value is among names; True is not 1, and an array is none of them."""
    return isinstance(value, (str, bool, float, type(None))) and value in names
