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
import linecache
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from gpunet.errors import CaptureError, GpunetError

if TYPE_CHECKING:
    from gpunet.runtime.kernel import Launchable


ANY = object()


class Launch(NamedTuple):
    """One recorded launch."""

    kernel: Launchable
    arrays: tuple[Any, ...]
    options: dict[str, Any]
    line: str = ""  # of the user's program, where a strict tape recorded it


class Tape:
    """A list of launches that can be replayed.

    A strict tape is one that is replayed without the Python around it: what Python would have to do again is refused
    while recording, and what happened outside launches is noted here.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.launches: list[Launch] = []
        self.strict = strict
        #: arrays made uninitialised, as destinations
        self.allocated: list[Any] = []
        #: arrays made of Python numbers
        self.constants: list[Any] = []
        #: counters that a replay relies on, with their values
        self.relied: list[tuple[list[int], int]] = []
        #: version counters of the tensors that were changed in place, by id
        self.changed: dict[int, list[int]] = {}
        #: leaves whose ``grad`` was set: what it was before, or ANY where that does not matter
        self.leaves: dict[Any, Any] = {}

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


# ---- what a recording has to know -----------------------------------------------------------------------------------

_NOT_THE_USERS = (str(Path(__file__).resolve().parents[1]), str(Path(numpy.__file__).resolve().parent))


def user_line() -> str:
    """The innermost line on the stack that is not the library's: "train.py:12: loss = criterion(...)"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}".rstrip(": ")


def refuse(what: str, way_out: str) -> None:
    """Raise while a strict tape records.

    Raises:
        CaptureError: names ``what``, the user's line, and the way out.
    """
    if active.tape is not None and active.tape.strict:
        raise CaptureError(f"{what} cannot be recorded ({user_line()}): {way_out}")


def refuse_reading(what: str) -> None:
    """Refuse that a value is read back: a replay runs no Python that could see it.

    Raises:
        CaptureError: a strict tape is recording.
    """
    if active.tape is not None:
        refuse(f"{what}, which reads a tensor's value,", "return the tensor from the step and read it there")


def constant(array: Any) -> Any:
    """An array made of Python numbers: the same at each replay."""
    if active.tape is not None:
        active.tape.constants.append(array)
    return array
