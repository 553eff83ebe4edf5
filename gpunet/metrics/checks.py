"""Checks of the values that metrics get, on the device, without waiting for it.

An error is raised at once on the CPU, and on a GPU when the host next reads a value (see :mod:`gpunet.launch.faults`).
"""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import float64, int64, is_floating
from gpunet.errors import ArgumentError, DtypeError, LabelError
from gpunet.launch.faults import Fault, fault_code, fault_record, report
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.elementwise import where


def check_labels(
    metric: str, argument: str, labels: Any, classes: int, ignore_index: int | None = None, are_numbers: bool = False
) -> Tensor:
    """Return labels as int64, 0 where they are ``ignore_index``.

    Args:
        are_numbers: of 2 classes, floating 0.0 and 1.0 (the targets of :class:`~gpunet.nn.BCEWithLogitsLoss`) are labels, too.

    Raises:
        DtypeError: they are no integers.
        ArgumentError: a floating label is neither 0 nor 1.
        LabelError: a label is outside 0 .. classes - 1.
    """
    if is_floating(labels.dtype):
        if not are_numbers:
            raise DtypeError(f"{metric}: {argument} has dtype {labels.dtype}; expected integer labels: convert it by .long()")
        is_label = (labels == 0) | (labels == 1)
        if ignore_index is not None:
            is_label = is_label | (labels == ignore_index)
        expected = "0 or 1" if ignore_index is None else f"0, 1 or ignore_index {ignore_index}"
        check_numbers(metric, argument, where(is_label, 0.0, labels.to(float64)), 0.0, 0.0, expected)
    given = labels.to(int64).array  # booleans, too
    out = empty(given.shape, int64, given)
    code = _code_of_labels(metric, argument, ignore_index)
    _LABELS(out, given, fault_record(given), classes=classes, ignore_index=ignore_index, code=code)
    return make_tensor(out)


def _copy_labels(xp: Any, out: Array, labels: Array, fault: Any, *, classes: int, ignore_index: int | None, code: int) -> None:
    is_outside = (labels < 0) | (labels >= classes)
    is_bad = is_outside if ignore_index is None else is_outside & (labels != ignore_index)
    report(xp, fault, is_bad, code, labels, classes)
    is_left_out = is_outside if ignore_index is None else is_outside | (labels == ignore_index)
    xp.copyto(out, xp.where(is_left_out, 0, labels))


@functools.cache
def _code_of_labels(metric: str, argument: str, ignore_index: int | None) -> int:
    def error(fault: Fault) -> LabelError:
        way_out = f" (or ignore_index {ignore_index})"
        if ignore_index is None:
            way_out = f"; pass ignore_index={fault.value} to leave such rows out" if argument == "target" else ""
        place = f"{argument} has the label {fault.value} at position {fault.position}"
        return LabelError(f"{metric}: {place}; expected 0 .. {fault.size - 1} for {fault.size} classes{way_out}")

    return fault_code(error)


def check_numbers(
    metric: str, argument: str, numbers: Any, low: float = -math.inf, high: float = math.inf, expected: str = "a number"
) -> None:
    """Check that no number is NaN or outside ``low .. high``.

    Args:
        expected: description of the range and the way out, for the message.

    Raises:
        ArgumentError: a number is.
    """
    code = _code_of_numbers(metric, argument, expected)
    array = numbers.array
    _NUMBERS(empty((1,), int64, array), array, fault_record(array), low=low, high=high, code=code)


def _check_numbers(xp: Any, out: Array, numbers: Array, fault: Any, *, low: float, high: float, code: int) -> None:
    if not numbers.size:
        return
    is_bad = ~((numbers >= low) & (numbers <= high))
    position = is_bad.argmax()
    bits = xp.take(numbers, position).astype(float64).reshape(1).view(int64)
    report(xp, fault, is_bad.any(keepdims=True).reshape(1), code, bits, 0, position)
    xp.copyto(out, bits)


@functools.cache
def _code_of_numbers(metric: str, argument: str, expected: str) -> int:
    def error(fault: Fault) -> ArgumentError:
        value = struct.unpack("d", struct.pack("q", fault.value))[0]
        return ArgumentError(f"{metric}: {argument} has {value:g} at position {int(fault.detail)}; expected {expected}")

    return fault_code(error)


_LABELS, _NUMBERS = (Shim(name, run, reads_values=True) for name, run in (("labels", _copy_labels), ("numbers", _check_numbers)))
