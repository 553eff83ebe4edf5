"""The tape: the launches of a step, in order.

    tape = Tape()
    with record(tape):
        loss = model(x); loss.backward(); optimizer.step()
    tape.replay()            # the same launches on the same buffers: new contents in, new results out

Because a launch never allocates, a recorded launch is complete: its destinations, inputs and options.  The tape keeps
its arrays alive.
"""

from __future__ import annotations

import copy
import functools
import itertools
import linecache
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import CaptureError, GpunetError

if TYPE_CHECKING:
    from gpunet.launch.launchable import Launchable


ANY = object()


class Launch(NamedTuple):
    """One recorded launch."""

    kernel: Launchable
    arrays: tuple[Any, ...]
    options: dict[str, Any]
    line: str = ""  # of the user's program, where a strict tape recorded it


class Split(NamedTuple):
    """Why a step cannot be one recording, and where: the user's line."""

    what: str
    line: str
    way_out: str
    position: int = 0  # how many launches come before it

    def __str__(self) -> str:
        return f"{self.what.rstrip(',')} ({self.line})" if self.line else self.what


class Tape:
    """A list of launches that can be replayed.

    A strict tape is one that is replayed without the Python around it: what Python would have to do again is refused
    while recording, and what happened outside launches is noted here.  (A tape that runs launches later than it notes
    them is in ``captured/deferred.py``.)

    Args:
        splits: what would be refused is added here instead, and the step runs on.
    """

    def __init__(self, *, strict: bool = False, splits: list[Split] | None = None) -> None:
        self.launches: list[Launch] = []
        self.strict, self.splits = strict, splits
        self.runs_at_once = True
        #: arrays made uninitialised, as destinations
        self.allocated: list[Any] = []
        #: arrays made of Python numbers
        self.constants: list[Any] = []
        #: conditions that a replay relies on: an expression, the values at its "{}", and what it is about
        self.relied: list[tuple[str, tuple[Any, ...], str]] = []
        #: parameter groups of optimizers that stepped, how often their options had been set, and the options
        self.options: list[list[Any]] = []
        #: version counters of the tensors that were changed in place, by id
        self.changed: dict[int, list[int]] = {}
        #: leaves whose ``grad`` was set: what it was before, or ANY where that does not matter
        self.leaves: dict[Any, Any] = {}

    def launch(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Check, launch, and record it."""
        kernel.check(arrays)
        kernel.launch(arrays, options)
        self.append(kernel, arrays, options)

    def empty(self, shape: tuple[int, ...], dtype: Any, where: devices.Device) -> Array:
        """An uninitialised array for a launch to write."""
        array = devices.empty(shape, dtype, where)
        self.allocated.append(array)
        return array

    def graph_break(self, what: str, way_out: str, arrays: tuple[Array, ...]) -> None:
        """What a replay could not repeat is about to happen, to these arrays or to any."""
        if not self.strict:
            return
        if self.splits is None:
            raise CaptureError(f"{what} cannot be recorded ({user_line()}): {way_out}")
        self.splits.append(Split(what, user_line(), way_out, len(self.launches)))

    def flush_pending(self, what: str, arrays: tuple[Array, ...]) -> None:
        """``what`` is about to touch memory of these arrays, or of any, beside launches: let none be outstanding."""

    def sets_gradient(self, leaf: Any, before: Any) -> None:
        """The ``grad`` of a leaf was set; before it was ``before``, or ANY."""
        self.leaves.setdefault(leaf, before)

    def append(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        # lists of arrays are copied: their owner may change them later
        arrays = tuple(copy.copy(a) if isinstance(a, list) else a for a in arrays)
        self.launches.append(Launch(kernel, arrays, options, user_line() if self.strict else ""))

    @numpy.errstate(all="ignore")
    def replay(self) -> None:
        """Run the recorded launches again, in order, on the same arrays."""
        for kernel, arrays, options, _ in self.launches:
            kernel.launch(arrays, options)

    def __len__(self) -> int:
        return len(self.launches)


class _Active(threading.local):
    tape: Tape | None = None


#: The tape that this thread records on, or None.
active = _Active()


@contextmanager
def record(tape: Tape) -> Iterator[Tape]:
    """Record every launch of this thread on ``tape``; the launches also run.

    Raises:
        GpunetError: this thread is recording already.
    """
    if active.tape is not None:
        raise GpunetError("this thread is already recording a tape; recordings do not nest")
    active.tape = tape
    try:
        yield tape
    finally:
        active.tape = None


@contextmanager
def unrecorded() -> Iterator[None]:
    """Record nothing of this thread meanwhile."""
    tape, active.tape = active.tape, None
    try:
        yield
    finally:
        active.tape = tape


# ---- what a recording has to know -----------------------------------------------------------------------------------

_NOT_THE_USERS = (str(Path(__file__).resolve().parents[1]), str(Path(numpy.__file__).resolve().parent))


def user_line() -> str:
    """The innermost line on the stack that is not the library's: "train.py:12: loss = criterion(...)"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return line_at(frame.f_code, frame.f_lasti)


@functools.cache
def is_library(file: str) -> bool:
    """Whether a file of code is gpunet's or NumPy's."""
    return file.startswith(_NOT_THE_USERS)


def line_at(code: CodeType, instruction: int) -> str:
    """The line of an instruction of code, as :func:`user_line` gives it."""
    file, number = code.co_filename, next(itertools.islice(code.co_positions(), instruction // 2, None))[0] or 0
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}".rstrip(": ")


def graph_break(what: str, way_out: str, *arrays: Array) -> None:
    """Raise while a strict tape records.

    Args:
        arrays: what is read or written; without them it may be any.

    Raises:
        CaptureError: names ``what``, the user's line, and the way out.
    """
    if active.tape is not None:
        active.tape.graph_break(what, way_out, arrays)


def graph_break_on_read(what: str, *arrays: Array) -> None:
    """Refuse that a value is read back: a replay runs no Python that could see it.

    Raises:
        CaptureError: a strict tape is recording.
    """
    if active.tape is not None:
        graph_break(f"{what}, which reads a tensor's value,", "return the tensor from the step and read it there", *arrays)


def flush_pending(what: str, *arrays: Array) -> None:
    """Let no launch on these arrays, or none at all, be outstanding: ``what`` is about to touch their memory directly."""
    if active.tape is not None:
        active.tape.flush_pending(what, arrays)


def constant(array: Any) -> Any:
    """An array made of Python numbers: the same at each replay."""
    if active.tape is not None:
        active.tape.constants.append(array)
    return array
