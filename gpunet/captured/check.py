"""``capture(check=True)``: compare the launches of a step, whose Python runs at each call, with those of its recording."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array, owner_of
from gpunet.captured.ir import tree_leaves
from gpunet.errors import CaptureError
from gpunet.launch.stateful import PLAIN
from gpunet.launch.tape import Tape


class Described(NamedTuple):
    """A launch, or the step's result, in words that are equal for equal launches."""

    name: str
    line: str
    operands: list[str]


def describe(tape: Tape, inputs: Sequence[Array], result: Any) -> list[Described]:
    """Describe the launches of a step that has just run, and its result.

    Args:
        tape: the launches.
        inputs: arrays of the arguments.
        result: what the step returned.
    """
    arguments = {id(owner_of(a)): number for number, a in enumerate(inputs)}
    constants = {id(owner_of(a)) for a in tape.constants}
    allocated = {id(owner_of(a)) for a in tape.allocated}
    numbers: dict[int, int] = {}  # arrays of the step's own in the order of their use

    def operand(value: Any) -> str:
        array = value.array if isinstance(value, Tensor) else value
        if not devices.is_array(array):
            return repr(value)
        owner = owner_of(array)
        if id(owner) in arguments:
            source = f"argument {arguments[id(owner)]}"
        elif id(owner) in constants:
            source = f"numbers {hashlib.sha256(devices.to_host(array).tobytes()).hexdigest()[:8]}"
            return f"{source} of shape {array.shape}, {array.dtype}"
        elif id(owner) in allocated:
            source = f"array {numbers.setdefault(id(owner), len(numbers))} of the step"
        else:
            source = f"memory from outside at {devices.pointer(owner):#x}"
        offset = devices.pointer(array) - devices.pointer(owner)
        return f"{source}, offset {offset}, shape {array.shape}, strides {array.strides}, {array.dtype}"

    def is_operand(value: Any) -> bool:
        return isinstance(value, (Tensor, *PLAIN)) or devices.is_array(value)

    described = []
    for kernel, arrays, options, line in tape.launches:
        named = [operand(v) for v in tree_leaves(arrays, is_operand)]
        named += [f"{name}={operand(v)}" for name, option in options.items() for v in tree_leaves(option, is_operand)]
        described.append(Described(kernel.name, line, named))
    return [*described, Described("the result", "", [operand(v) for v in tree_leaves(result, is_operand)])]


def compare(recorded: Sequence[Described], now: Sequence[Described]) -> None:
    """Raise if a step launches other kernels than its recording, or on other operands.

    Raises:
        CaptureError: names the first difference and its line.
    """
    for before, after in zip(recorded, now):
        if before.name != after.name:
            _raise(after, f"it ran where the recording has {before.name} ({before.line})")
        for old, new in zip(before.operands, after.operands):
            if old != new:
                _raise(after, f"an operand is {new}; the recording has {old}")
        if len(before.operands) != len(after.operands):
            _raise(after, f"it has {len(after.operands)} operands; the recording has {len(before.operands)}")


def _raise(launch: Described, difference: str) -> None:
    raise CaptureError(
        f"capture(check=True): {launch.name} ({launch.line}) is not that of the recording: {difference}. The step's Python reads "
        "a value that no guard covers. Name it in the step's code (a closure, global or attribute), or pass it as an argument"
    )
