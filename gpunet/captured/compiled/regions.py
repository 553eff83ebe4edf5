"""Regions: loops of a compiled step that are cut into chunks, which the threads that are there take one by one.

Where a chunk ends follows from the shapes, and nothing in it depends on another, so that bits depend neither on how many
threads there are nor on who takes what.  A region is begun and ended by the thread that runs the step; helpers wait for
the next one without sleeping, for a while.  ``state`` is, in words of 64 bits,

    [0]   what is taken next: region, number of chunks and next chunk in one word; negative when helpers shall go
    [8]   how many chunks helpers have done
    [16]  how many helpers are there
    [24]  not 0 where helpers shall go, whatever there is to take

each in a cache line of its own.  Whether helpers are of use, the clock says: other processes may have the cores, and then a
region waits for a chunk whose thread does not run; and what a machine calls two cores may be two halves of one.  So some
steps are timed with helpers and some without, now and again.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.backend import threads
from gpunet.captured.compiled.library_calls import Form, Library
from gpunet.captured.compiled.nests import Nest, Unit

#: Work, in bytes moved in the cache or multiplications of a product; both take about 8 to 18 us for 2^20.
CHUNK = 1 << 18  # of a chunk, at least
LEAST_REGION = 1 << 19
LEAST_PART = 1 << 23  # of all regions between two calls of NumPy: less is not worth waking somebody
_MOST_CHUNKS = 32

#: Pauses of a helper until it goes to sleep: some 50 us.
SPINS = 2000

#: Steps are timed in turns with and without helpers: so many turns, each of so many steps, or fewer if they take so many seconds.
#: What counts is a turn's whole time: now and again a helper loses its core amid a chunk, and the step waits for it.
_TURNS, _TURN, _TURN_SECONDS = 6, 64, 0.005
#: Then none is for so many times as many; for fewer where helpers were of no use, since what kept the cores busy may be over soon.
_HOLD = 20
_GAIN = 0.97  # of the time without helpers is what they have to stay below

STATE = "state"  # as a name in the table of addresses
YIELD = "yield"


class Division(NamedTuple):
    """How something is cut: along ``extent`` elements, so many a chunk."""

    work: int
    extent: int
    step: int
    along: Any

    @property
    def chunks(self) -> int:
        return -(-self.extent // self.step)


def _divided(work: int, extent: int, unit: int, along: Any) -> Division | None:
    """Chunks of whole ``unit`` elements."""
    units = -(-extent // unit)
    chunks = min(_MOST_CHUNKS, work // CHUNK, units)
    if work < LEAST_REGION or chunks < 2:
        return None
    return Division(work, extent, -(-units // chunks) * unit, along)


def of_library(library: Library) -> Division | None:
    """Of a product, rows or columns; of a transposition, columns."""
    sizes: Any = library.arguments
    if library.function == "transpose":
        rows, columns = sizes[2:4]
        return _divided(4 * rows * columns * library.dtype.itemsize, columns, 16, None)
    if library.function != "product":
        return None
    m, n, k = sizes[3:6]
    stripe = 128 // library.dtype.itemsize  # two of the widest vectors
    wide = _divided(m * n * k, n, stripe, "columns")
    high = _divided(m * n * k, m, 24, "rows")  # 24: whole tiles on every CPU
    return max(filter(None, (wide, high)), key=lambda d: (min(d.chunks, 8), d.along == "columns"), default=None)


def of_nest(nest: Nest) -> Division | None:
    """Along the first loop over which nothing is summed."""
    along, extent, work = nest.divisible()
    if along is None:
        return None
    rest = max(1, nest.size // extent)
    return _divided(work, extent, max(1, 1024 // rest) if along == 0 else 64, along)


def part_work(units: list[Unit]) -> int:
    """Of all regions of a part."""
    found: list[Division | None] = []
    for unit in units:
        if isinstance(unit, Nest):
            found.append(of_nest(unit))
        elif isinstance(unit, Form):
            found += map(of_library, unit.lines)
    return sum(d.work for d in found if d is not None)


#: What a module with regions has: ``do`` (table, region, chunk) is written for it.
SOURCE = '''
@threaded
def run(table, state, yielded, region, chunks):
    """All chunks of a region, together with whoever helps."""
    apart()
    write(state + 64, 0)
    write(state, region << 40 | chunks << 20)
    mine = 0
    while True:
        chunk = fetch_add(state, 1) & 0xFFFFF
        if chunk >= chunks:
            break
        do(table, region, chunk)
        mine += 1
    waited = 0
    while read(state + 64) < chunks - mine:
        pause()
        waited += 1
        if waited > 5000:
            call(yielded, 0)


@helping
def assist(table, state, yielded, spins):
    """Take chunks until there are none for a while; how many it were."""
    fetch_add(state + 128, 1)
    waited = taken = 0
    while waited < spins and read(state + 192) == 0:
        now = read(state)
        if now < 0:
            break
        if now & 0xFFFFF < now >> 20 & 0xFFFFF:
            now = fetch_add(state, 1)
            if now >= 0 and now & 0xFFFFF < now >> 20 & 0xFFFFF:
                do(table, now >> 40, now & 0xFFFFF)
                fetch_add(state + 64, 1)
                taken += 1
            waited = 0
        else:
            pause()
            waited += 1
            if waited & 255 == 0:
                call(yielded, 0)
    fetch_add(state + 128, -1)
    return taken
'''


def yield_address() -> int:
    """Of the system's function that lets another thread run."""
    if os.name == "nt":
        function = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """Who works at a step: its state, and the work that helpers are offered."""

    def __init__(self) -> None:
        room = numpy.zeros(40, numpy.int64)
        start = -room.ctypes.data % 64 // 8
        self.state = room[start : start + 32]
        self.address = self.state.ctypes.data
        self._present, self._gone = memoryview(self.state.data)[16:17], memoryview(self.state.data)[24:25]
        self._asked: deque[None] = deque()  # one for each helper that was called and has not come yet
        self._process = os.getpid()
        self._assist: Callable[[], int] = int
        self.helped = 0  # chunks that helpers have done
        self._turn, self._left, self._hold, self._patience = -1, 0, 0, 1
        self._turns: tuple[list[float], list[float]] = ([], [])  # seconds a step in turns with helpers, and without
        self._step = self._turn_began = self._seconds = 0.0
        self._steps = self._trial = 0  # of this turn, and of all turns

    def bind(self, assist: Callable[[int, int, int, int], int], table: int, memory: Any) -> None:
        """Let helpers call the step's ``assist``; ``memory`` is what it works on."""
        state, yielded = self.address, yield_address()  # not self, which would be a cycle that keeps the memory

        def call(memory: Any = memory) -> int:
            return assist(table, state, yielded, SPINS)

        self._assist = call

    # -- around a step
    def begin(self) -> None:
        """A step begins."""
        if self._hold:
            self._hold -= 1
            return
        if self._left == 0:
            self._next_turn()
        self._step = time.perf_counter()

    def end(self) -> None:
        """It has ended."""
        if self._left:
            now = time.perf_counter()
            self._seconds += now - self._step
            self._steps += 1
            self._left = self._left - 1 if now - self._turn_began < _TURN_SECONDS else 0
            if self._left == 0:
                self._turns[self._turn % 2].append(self._seconds / self._steps)
                self._trial += self._steps

    def _next_turn(self) -> None:
        self._turn += 1
        if self._turn == _TURNS:
            helped, alone = (sorted(seconds)[len(seconds) // 2] for seconds in self._turns)
            self._gone[0] = useless = helped > _GAIN * alone
            self._patience = min(2 * self._patience, _HOLD) if useless else 1
            self._hold = self._trial * (self._patience if useless else _HOLD)
            self._turn, self._trial, self._turns = -1, 0, ([], [])
            return
        self._gone[0] = self._turn % 2
        self._left, self._turn_began, self._seconds, self._steps = _TURN, time.perf_counter(), 0.0, 0

    def summon(self) -> None:
        """Call helpers, as many as may work and are not here yet."""
        if self._gone[0]:
            return
        if self._process != os.getpid():  # after a fork nobody is here any more
            self._process = os.getpid()
            self._asked.clear()
            self._present[0] = 0
        missing = threads.get_num_threads() - 1 - len(self._asked) - self._present[0]
        if missing > 0:
            self._asked.extend([None] * missing)
            threads.offer(self._help, missing)

    def _help(self) -> None:
        self._asked.pop()
        self.helped += self._assist()
