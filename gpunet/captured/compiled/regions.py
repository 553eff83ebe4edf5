"""Parallel regions: loops of a compiled step cut into chunks, which the step's thread and helper threads share.

The bounds of a chunk follow from the shapes, and no chunk depends on another, so the bits of the results do not depend
on the number of threads or their timing.  The thread that runs the step starts and finishes each region; helpers spin
for a while until the next one starts.  They share ``state``, 64-bit words, each in a cache line of its own:

    [0]   the work queue: number of the call << 40 | number of chunks << 20 | next chunk; negative if helpers shall leave
    [8]   chunks of the current region that helpers have finished
    [16]  number of helpers present
    [24]  not 0 if helpers shall leave although there is work

Helpers do not always save time: other processes may use the cores, and then a region waits for a chunk whose thread is
not running; and two cores may be two hardware threads of one.  So from time to time some steps are timed with helpers
and some without, and the faster way is kept.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy

from gpunet.backend import threads
from gpunet.captured.compiled.library_calls import LibraryCall, LibraryUnit
from gpunet.captured.compiled.nests import Nest, Unit

#: Work counts bytes moved in the cache, or multiplications of a product; 2^20 of either take about 8 to 18 us.
MIN_CHUNK_WORK = 1 << 18
MIN_REGION_WORK = 1 << 19
MIN_PART_WORK = 1 << 23  # of all regions between two NumPy calls: less is not worth waking a helper
_MAX_CHUNKS = 32

#: Pause instructions before a helper goes to sleep: about 1 ms, more than what lies between two regions of a part, such as the
#: small products of attention, or the steps of a recurrence.  A helper that has gone to sleep is missing for the rest of the part.
MAX_SPINS = 40_000

#: A trial times steps in turns with and without helpers, of 64 steps each or fewer if they take long.  The mean step of
#: a turn counts, since now and then the system takes away a helper's core during a chunk, and that step waits for it.
_TRIAL_TURNS, _TURN_STEPS, _TURN_SECONDS = 6, 64, 0.005
#: Pause between two trials, as a multiple of a trial.  After trials that the helpers lost it is 2, 4, 8 ... up to this,
#: since whatever kept the cores busy may be over soon.
_MAX_BACKOFF = 20
_GAIN = 0.97  # helpers win if a step takes less than this share of the time without them


class Division(NamedTuple):
    """How a loop is cut into chunks: ``extent`` elements along the loop or dimension ``along``, ``step`` per chunk."""

    work: int
    extent: int
    step: int
    along: Any

    @property
    def num_chunks(self) -> int:
        return -(-self.extent // self.step)


def _divide(work: int, extent: int, granule: int, along: Any) -> Division | None:
    """Cut ``extent`` elements into chunks of a multiple of ``granule`` elements; None if there is too little work."""
    granules = -(-extent // granule)
    num_chunks = min(_MAX_CHUNKS, work // MIN_CHUNK_WORK, granules)
    if work < MIN_REGION_WORK or num_chunks < 2:
        return None
    return Division(work, extent, -(-granules // num_chunks) * granule, along)


def divide_library_call(call: LibraryCall) -> Division | None:
    """Cut a product along its rows or columns, a transposition along its columns, a loop body with items into fewer items.

    None if the call is one piece.
    """
    arguments: Any = call.arguments
    if call.work:
        return _divide(call.work, arguments[call.num_arrays + 1], 1, "items")
    if call.function == "transpose":
        rows, columns = arguments[2:4]
        return _divide(4 * rows * columns * call.dtype.itemsize, columns, 16, None)
    if call.function != "product":
        return None
    m, n, k = arguments[3:6]
    tile_columns = 128 // call.dtype.itemsize  # two vectors of the widest CPU
    by_columns = _divide(m * n * k, n, tile_columns, "columns")
    by_rows = _divide(m * n * k, m, 24, "rows")  # 24: a multiple of the tile rows of every CPU
    divisions = filter(None, (by_columns, by_rows))
    return max(divisions, key=lambda d: (min(d.num_chunks, 8), d.along == "columns"), default=None)


def divide_nest(nest: Nest) -> Division | None:
    """Cut a nest along its first loop that no reduction runs over; None if it is one piece."""
    along, extent, work = nest.parallel_loop()
    if along is None:
        return None
    inner_size = max(1, nest.size // extent)
    return _divide(work, extent, max(1, 1024 // inner_size) if along == 0 else 64, along)


def is_worth_helpers(units: Iterable[Unit]) -> bool:
    """Whether a part of these units has enough work in regions to wake helpers."""
    divisions: list[Division | None] = []
    for unit in units:
        if isinstance(unit, Nest):
            divisions.append(divide_nest(unit))
        elif isinstance(unit, LibraryUnit):
            divisions += map(divide_library_call, unit.library_calls)
    return sum(d.work for d in divisions if d is not None) >= MIN_PART_WORK


def yield_address() -> int:
    """The address of the system's function that lets another thread use the core."""
    if os.name == "nt":
        function = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """The threads of a step: their shared state, and the trials that decide whether helpers take part."""

    def __init__(self) -> None:
        words = numpy.zeros(40, numpy.int64)
        start = -words.ctypes.data % 64 // 8
        self.state = words[start : start + 32]
        self.address = self.state.ctypes.data
        self._num_present, self._is_alone = memoryview(self.state.data)[16:17], memoryview(self.state.data)[24:25]
        self._summoned: deque[None] = deque()  # one item per helper that was summoned and has not started
        self._process = os.getpid()
        self._help_regions: Callable[[], int] = int
        self.helped = 0  # chunks that helpers have run
        self._turn, self._turn_steps_left, self._steps_to_trial, self._backoff = -1, 0, 0, 1
        self._turns: tuple[list[float], list[float]] = ([], [])  # seconds per step of turns with helpers, and without
        self._step_start = self._turn_start = self._turn_seconds = 0.0
        self._turn_steps = self._trial_steps = 0

    def bind(self, help_regions: Callable[[int, int, int, int], int], calls: int, memory: Any) -> None:
        """Let helpers run chunks of a program.

        Args:
            help_regions: see ``interpreter``.
            calls: the address of the program's first call.
            memory: the arrays that the step works on, kept alive while a helper runs.
        """
        state, yield_core = self.address, yield_address()  # not self: a reference cycle would keep the memory

        def call(memory: Any = memory) -> int:
            return help_regions(calls, state, yield_core, MAX_SPINS)

        self._help_regions = call

    # -- around a step
    def begin(self) -> None:
        """Start a step."""
        if self._steps_to_trial:
            self._steps_to_trial -= 1
            return
        if self._turn_steps_left == 0:
            self._next_turn()
        self._step_start = time.perf_counter()

    def end(self) -> None:
        """Finish a step; time it if a trial is under way."""
        if self._turn_steps_left:
            now = time.perf_counter()
            self._turn_seconds += now - self._step_start
            self._turn_steps += 1
            self._turn_steps_left = self._turn_steps_left - 1 if now - self._turn_start < _TURN_SECONDS else 0
            if self._turn_steps_left == 0:
                self._turns[self._turn % 2].append(self._turn_seconds / self._turn_steps)
                self._trial_steps += self._turn_steps

    def _next_turn(self) -> None:
        self._turn += 1
        if self._turn == _TRIAL_TURNS:
            helped, alone = (sorted(seconds)[len(seconds) // 2] for seconds in self._turns)
            self._is_alone[0] = is_useless = helped > _GAIN * alone
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF) if is_useless else 1
            self._steps_to_trial = self._trial_steps * (self._backoff if is_useless else _MAX_BACKOFF)
            self._turn, self._trial_steps, self._turns = -1, 0, ([], [])
            return
        self._is_alone[0] = self._turn % 2
        self._turn_steps_left, self._turn_start = _TURN_STEPS, time.perf_counter()
        self._turn_seconds, self._turn_steps = 0.0, 0

    def summon(self) -> None:
        """Wake as many helpers as may work and are not present or on their way."""
        if self._is_alone[0]:
            return
        if self._process != os.getpid():  # a fork: the child has no helpers
            self._process = os.getpid()
            self._summoned.clear()
            self._num_present[0] = 0
        missing = threads.get_num_threads() - 1 - len(self._summoned) - self._num_present[0]
        if missing > 0:
            self._summoned.extend([None] * missing)
            threads.offer(self._help, missing)

    def _help(self) -> None:
        self._summoned.pop()
        self.helped += self._help_regions()
