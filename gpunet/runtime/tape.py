"""The tape: the launches of a step, in order.

    tape = Tape()
    with record(tape):
        loss = model(x); loss.backward(); optimizer.step()
    tape.replay()            # the same launches on the same buffers: new contents in, new results out

Because a launch never allocates, a recorded launch is complete: its destinations, inputs and options.  The tape keeps
its arrays alive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from gpunet.errors import GpunetError

if TYPE_CHECKING:
    from gpunet.runtime.kernel import Launchable


class Launch(NamedTuple):
    """One recorded launch."""

    kernel: Launchable
    arrays: tuple[Any, ...]
    options: dict[str, Any]


class Tape:
    """A list of launches that can be replayed."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def append(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.launches.append(Launch(kernel, arrays, options))

    @numpy.errstate(all="ignore")
    def replay(self) -> None:
        """Run the recorded launches again, in order, on the same arrays."""
        for kernel, arrays, options in self.launches:
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
