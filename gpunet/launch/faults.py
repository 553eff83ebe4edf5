"""Errors that kernels find in the values that they read, such as an index out of range.

On a GPU no launch waits, so a kernel cannot raise.  It leaves a record in device memory, of the first error only
(``cuda_kernels/common/faults.cuh``), and goes on: nothing is read or written out of place, and results are NaN, 0 or
False.  The error is raised as soon as the host reads a value from that device or synchronizes, and the record is cleared.
A replay of a captured step, a CUDA graph too, leaves the record in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.errors import GpunetError
from gpunet.launch.stateful import rely_on


class Fault(NamedTuple):
    """What a kernel reports of a value out of range; see ``report_first`` in faults.cuh."""

    value: int
    position: int  # of the value, in the flat array that the kernel read
    size: int  # allowed are the values below it
    detail: int  # one more number for the message


#: Number of int64 in a record: code and Fault.
RECORD_SIZE = 1 + len(Fault._fields)

_errors: list[Callable[[Fault], GpunetError]] = []
_records: dict[Device, Array] = {}


def fault_code(make_error: Callable[[Fault], GpunetError]) -> int:
    """Return the number by which a kernel reports the error that ``make_error`` makes; never 0."""
    _errors.append(make_error)
    return len(_errors)


def fault_record(like: Array) -> Array | None:
    """Return the record of the device of ``like``, int64 (RECORD_SIZE,), zero if there is no error; None on the CPU."""
    if type(like) is numpy.ndarray:
        return None
    device = devices.of(like)
    if device not in _records:
        _records[device] = devices.zeros((RECORD_SIZE,), numpy.int64, device)
    rely_on([_records[device]])
    return _records[device]


def report_first(record: numpy.ndarray, is_bad: numpy.ndarray, code: int, values: numpy.ndarray, size: int, detail: int) -> None:
    """Twin of ``report_first`` in faults.cuh: record the first bad value, unless an earlier launch reported one."""
    if record[0] == 0 and is_bad.any():
        position = int(is_bad.argmax())
        record[:] = code, values[position], position, size, detail


def report(
    xp: Any, record: Array | None, is_bad: Array, code: int, values: Array, size: int, detail: int = 0
) -> None:  # fmt: skip
    """Report the first bad value from a shim: raise its error on the CPU, leave it in the record of a GPU.

    Args:
        xp: NumPy or CuPy.
        record: see :func:`fault_record`.
        is_bad: of the shape of ``values``.
        code: see :func:`fault_code`; size, detail: see :class:`Fault`.
    """
    if record is None:
        if is_bad.any():
            position = int(is_bad.argmax())
            raise _errors[code - 1](Fault(int(values.reshape(-1)[position]), position, size, detail))
    elif values.size:
        is_first, position = (record[0] == 0) & is_bad.any(), is_bad.argmax()
        for place, number in enumerate((code, xp.take(values, position), position, size, detail)):
            record[place] = xp.where(is_first, number, record[place])


@devices.at_wait
def check_record(device: Device) -> Callable[[], None] | None:
    """Start to read the record of ``device``, the current one; return a function that raises its error, if any, and clears it."""
    record = _records.get(device)
    if record is None:
        return None
    read = devices.start_read(record)

    def raise_fault() -> None:
        code, *fault = read().tolist()
        if code:
            record.fill(0)
            raise _errors[code - 1](Fault(*fault))

    return raise_fault
