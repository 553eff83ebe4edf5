"""The tape records the launches of a step in order, and can replay them.

    tape = Tape()
    with record(tape):
        loss = model(x); loss.backward(); optimizer.step()
    x.array[...] = ...       # new inputs in the same buffers
    tape.replay()            # the same launches on the same buffers

A launch never allocates, so its destinations, inputs and options describe it completely.  The tape keeps the arrays of
its launches alive.
"""

from __future__ import annotations

import copy
import functools
import itertools
import linecache
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
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


#: Passed as ``before`` if the previous gradient need not be restored.
ANY = object()


class Launch(NamedTuple):
    """One recorded launch."""

    kernel: Launchable
    arrays: tuple[Any, ...]
    options: dict[str, Any]
    line: str = ""  # the user's source line that launched it; recorded by strict tapes only


class GraphBreak(NamedTuple):
    """A graph break: the reason why a step cannot be one recording, and the user's line."""

    action: str  # the action that a replay cannot repeat, e.g. "item(), which reads a tensor's value,"
    line: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.action.rstrip(',')} ({self.line})" if self.line else self.action


class Tape:
    """A list of launches that can be replayed.

    Args:
        strict: replays will not run the step's Python.  Graph breaks raise CaptureError (or go to ``breaks``), and
            changes made outside of launches are recorded.
        breaks: collect graph breaks in this list instead of raising.
    """

    def __init__(self, *, strict: bool = False, breaks: list[GraphBreak] | None = None) -> None:
        self.launches: list[Launch] = []
        self.strict, self.breaks = strict, breaks
        #: destinations that were allocated while recording
        self.allocated: list[Any] = []
        #: arrays made from Python numbers
        self.constants: list[Any] = []
        #: counters of launches, see :func:`gpunet.launch.memory.ticket`; like constants, kept by the launches
        self.tickets: dict[tuple[devices.LaunchTarget, int], Array] = {}
        #: memory from outside the step, and guards: an expression, the values for its {} placeholders, and a description;
        #: published by :func:`gpunet.launch.stateful.rely_on`
        self.memory: list[Any] = []
        self.guards: list[tuple[str, tuple[Any, ...], str | Callable[[], str]]] = []
        #: version counters of the tensors that were changed in place, by id
        self.changed: dict[int, list[int]] = {}
        #: buffers that a replay fills with the arguments of the step
        self.arguments: list[Any] = []
        #: NumPy arrays from outside the step whose values replays rely on: the array, its values, and the user's line
        self.guarded: list[tuple[weakref.ref[Any], Any, str]] = []
        #: called when the step has run, by their owner: each breaks the graph if the step left a state that replays do not leave
        self.at_end: dict[Any, Callable[[], None]] = {}
        #: leaves whose ``grad`` was set, with the previous gradient or ANY
        self.leaves: dict[Any, Any] = {}

    def launch(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Check the arrays, launch, and record the launch."""
        kernel.check(arrays)
        if active.undo is not None:
            active.undo.keep(arrays[: kernel.outputs], self.allocated)
        kernel.launch(arrays, options)
        self.append(kernel, arrays, options)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: devices.Device) -> Array:
        """Allocate an uninitialised array as the destination of a launch."""
        array = devices.empty(shape, dtype, device)
        self.allocated.append(array)
        return array

    def graph_break(self, action: str, way_out: str) -> None:
        """Handle an action that a replay could not repeat.

        Raises:
            CaptureError: the tape is strict and does not collect graph breaks.
        """
        if not self.strict:
            return
        if self.breaks is None:
            raise CaptureError(f"{action} cannot be captured ({user_line()}): {way_out}")
        self.breaks.append(GraphBreak(action, user_line(), way_out))

    def is_own(self, array: numpy.ndarray) -> bool:
        """Whether a NumPy array is in memory of the step, which has other values at each replay."""
        own = (a for a in (*self.arguments, *self.allocated) if type(a) is numpy.ndarray)
        return any(numpy.may_share_memory(array, a) for a in own)

    def guard_values(self, array: numpy.ndarray) -> None:
        """Make replays rely on the values of a NumPy array from outside the step."""
        self.guarded.append((weakref.ref(array), array.copy(), user_line()))

    def record_gradient(self, leaf: Any, before: Any) -> None:
        """Record that the ``grad`` of a leaf was set; ``before`` is the previous gradient, or ANY."""
        self.leaves.setdefault(leaf, before)

    def append(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        # copy lists of arrays, because their owner may change them later
        arrays = tuple(copy.copy(a) if isinstance(a, list) else a for a in arrays)
        self.launches.append(Launch(kernel, arrays, options, user_line() if self.strict else ""))

    @numpy.errstate(all="ignore")
    def replay(self) -> None:
        """Run the recorded launches again, in order, on the same arrays."""
        for kernel, arrays, options, _ in self.launches:
            kernel.launch(arrays, options)

    def __len__(self) -> int:
        return len(self.launches)


class Undo:
    """Copies of the memory from outside of a step, as it was before the launches that its recording ran.

    Args:
        most_bytes: of all copies; a step that changes more cannot be undone.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._old: dict[int, tuple[Array, Array]] = {}  # owners of memory, and their copies
        self._own: set[int] = set()
        self._num_allocated = 0

    def keep(self, destinations: tuple[Any, ...], allocated: list[Array]) -> None:
        """Copy destinations of a launch, except memory that the tape has allocated."""
        self._own |= {id(devices.owner_of(a)) for a in allocated[self._num_allocated :]}
        self._num_allocated = len(allocated)
        for given in destinations:
            for array in given if isinstance(given, (list, tuple)) else [given]:
                owner = None if array is None else devices.owner_of(array)
                if owner is None or id(owner) in self._own or id(owner) in self._old or self._most_bytes < 0:
                    continue
                self._most_bytes -= owner.nbytes
                self._old[id(owner)] = owner, devices.copy(owner) if self._most_bytes >= 0 else None

    def restore(self) -> bool:
        """Copy the memory back; return whether that was possible."""
        if self._most_bytes < 0 or not self._old:
            return False
        for owner, copied in self._old.values():
            devices.assign(owner, copied)
        return True


class _Active(threading.local):
    tape: Tape | None = None
    undo: Undo | None = None


#: ``active.tape`` is the tape that this thread records on, or None.
active = _Active()


@contextmanager
def record(tape: Tape) -> Iterator[Tape]:
    """Record the launches of this thread on ``tape`` inside the block; the launches also run.

    Raises:
        GpunetError: this thread already records a tape.
    """
    if active.tape is not None:
        raise GpunetError("this thread is already recording a tape; recordings cannot be nested")
    active.tape = tape
    try:
        yield tape
    finally:
        active.tape = None


@contextmanager
def unrecorded() -> Iterator[None]:
    """Suspend the recording of this thread inside the block."""
    tape, active.tape = active.tape, None
    try:
        yield
    finally:
        active.tape = tape


@contextmanager
def undoable(most_bytes: int) -> Iterator[Undo]:
    """Let a step that is recorded by this thread inside the block be undone; see :class:`Undo`."""
    active.undo = undo = Undo(most_bytes)
    try:
        yield undo
    finally:
        active.undo = None


# ---- hooks for ops and other callers --------------------------------------------------------------------------------

#: Where gpunet and NumPy were imported from; code objects name their files by the same path, with its symbolic links.
_LIBRARY_DIRECTORIES = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(numpy.__file__).parent}{os.sep}")


def user_line() -> str:
    """Return the innermost line on the stack outside of the library, e.g. "train.py:12: loss = criterion(...)"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return line_at(frame.f_code, frame.f_lasti)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of :func:`user_line`."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@functools.cache
def is_library(file: str) -> bool:
    """Whether a source file belongs to gpunet or NumPy."""
    return file.startswith(_LIBRARY_DIRECTORIES)


def line_at(code: CodeType, instruction: int) -> str:
    """Return the source line of the instruction at a bytecode offset, in the format of :func:`user_line`."""
    file, number = code.co_filename, next(itertools.islice(code.co_positions(), instruction // 2, None))[0] or 0
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}".rstrip(": ")


def graph_break(action: str, way_out: str) -> None:
    """Report to the active tape an action that a replay cannot repeat.

    Args:
        action: description of the action, for the message.
        way_out: what the user can do instead, for the message.

    Raises:
        CaptureError: a strict tape is recording; the message contains ``action``, the user's line and ``way_out``.
    """
    if active.tape is not None:
        active.tape.graph_break(action, way_out)


def graph_break_on_read(action: str) -> None:
    """Report a graph break: ``action`` reads an array's value on the host.

    Raises:
        CaptureError: a strict tape is recording.
    """
    if active.tape is not None:
        way_out = "return the tensor from the step and read it after the call"
        graph_break(f"{action}, which reads a tensor's value,", way_out)


def constant(array: Any) -> Any:
    """Mark an array as made from Python numbers, so that it is the same at each replay; return it."""
    if active.tape is not None:
        active.tape.constants.append(array)
    return array
