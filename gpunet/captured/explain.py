"""``CapturedStep.explain()``: each launch with its shapes, bytes, FLOPs, time, and fraction of the machine's limits."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy

from gpunet.backend import blas, devices
from gpunet.backend.devices import Array
from gpunet.captured.ir import Call
from gpunet.captured.lowering import Lowering

_ROUNDS = 15


class Ceilings(NamedTuple):
    """Measured limits of this machine, its roofline."""

    flops: float  # FLOP/s of a large float32 matrix product
    bytes: float  # bytes/s of a large copy


def _best_time(run: Callable[[], object], rounds: int = 7) -> float:
    """Return the least time of a call over several rounds, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def ceilings() -> Ceilings:
    """Measure the limits, once per process; takes about 0.25 s."""
    a, b, c = (numpy.ones((768, 768), numpy.float32) for _ in range(3))
    blas.dot(a, b, c)
    source, target = numpy.ones(1 << 23, numpy.float32), numpy.ones(1 << 23, numpy.float32)
    return Ceilings(
        2 * 768**3 / _best_time(lambda: blas.dot(a, b, c)),
        2 * source.nbytes / _best_time(lambda: numpy.copyto(target, source)),
    )


def flops(call: Call) -> int:
    """Return the number of floating-point operations in a call, one for each elementwise function; 0 if unknown."""
    if call.kind == "product":
        a, b = call.reads[:2]
        return 2 * call.writes[0].size * a.shape[-1]
    if call.kind == "elementwise":
        return call.writes[0].size
    return call.reads[0].size if call.kind == "reduce" else 0


class Row(NamedTuple):
    """A launch of the recorded step."""

    launch: str  # name of the kernel
    line: str  # the user's source line
    shapes: str
    calls: int  # NumPy calls that it became
    bytes: int
    flops: int
    seconds: float
    merged: tuple[str, ...] = ()  # the kernels of other recorded launches that are part of it

    def share(self, limits: Ceilings) -> float:
        """Return the fraction of the roofline reached: the least time that the limits allow, over the measured time."""
        return max(self.flops / limits.flops, self.bytes / limits.bytes) / self.seconds if self.seconds else 0.0


class Explanation(NamedTuple):
    """The launches of a step; prints as a table."""

    rows: list[Row]  # launches that run
    limits: Ceilings  # of this machine
    arena_bytes: int  # planned memory of the step
    dropped: int  # number of recorded launches that were dropped because nothing reads their results
    epoch: str = ""  # how ``epoch`` runs the step

    @property
    def seconds(self) -> float:
        """Sum of the launches' times."""
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{'launch':30} {'shapes':34} {'calls':>5} {'bytes':>9} {'FLOP':>9} {'µs':>8} {'time':>5} {'of limit':>8}  line"]
        for row in self.rows:
            lines.append(
                f"{row.launch[:30]:30} {row.shapes[:34]:34} {row.calls:5} {with_unit(row.bytes):>9} {with_unit(row.flops):>9} "
                f"{row.seconds * 1e6:8.1f} {row.seconds / total:5.0%} {row.share(self.limits):8.0%}  {row.line[:60]}"
            )
            if row.merged:
                counts = Counter(row.merged)
                lines.append(f"    with {', '.join(f'{count} {name}' for name, count in counts.items())}")
        lines.append(
            f"{len(self.rows)} launches, {sum(r.calls for r in self.rows)} calls, {self.dropped} launches dropped, "
            f"{with_unit(self.arena_bytes)}B of planned memory, {self.seconds * 1e6:.1f} µs"
        )
        lines += [f"epoch: {self.epoch}"] if self.epoch else []
        lines.append(describe(self.limits))
        return "\n".join(lines)


def describe(limits: Ceilings) -> str:
    """Return a line with the limits of a machine."""
    return f"limits measured here: {with_unit(limits.flops)}FLOP/s in a product, {with_unit(limits.bytes)}B/s in a copy"


def with_unit(count: float) -> str:
    """Format a count with three digits and a unit: 12.3 k."""
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000 or unit == "T":
            return f"{count:.0f}{unit}" if unit == "" else f"{count:.3g} {unit}"
        count /= 1000
    return ""


def _timed(calls: Sequence[Callable[[], None]], changed: Sequence[Array]) -> list[float]:
    """Return the time of each call in seconds, and restore the arrays that the calls change.

    The calls run in order, several rounds of all of them; the result is the median, less the cost of an empty call.
    """
    before = [devices.copy(a) for a in changed]
    seconds = numpy.empty((_ROUNDS, len(calls)))
    clock = time.perf_counter
    try:
        for round in seconds:
            for index, call in enumerate(calls):
                start = clock()
                call()
                round[index] = clock() - start
    finally:
        for array, value in zip(changed, before):
            devices.assign(array, value)
    overhead = numpy.median([_best_time(lambda: None, 1) for _ in range(100)])
    return list(numpy.maximum(numpy.median(seconds, axis=0) - overhead, 0.0))


def explain(lowering: Lowering, lines: Sequence[tuple[str, str]]) -> Explanation:
    """Explain a step: each launch by the calls that it became.  On devices other than the CPU FLOPs are not counted.

    Args:
        lowering: of the step.
        lines: kernel and user's source line of each recorded launch.
    """
    functions, changed = lowering.separate_calls()
    timed: dict[int, list[tuple[Call, float]]] = {}  # number of a launch -> its calls, and their times
    for call, seconds in zip(lowering.calls, _timed(functions, changed)):
        timed.setdefault(call.launch, []).append((call, seconds))
    rows = []
    for number, group in sorted(timed.items()):
        calls = [call for call, _ in group]
        shapes = " ".join(dict.fromkeys("×".join(map(str, v.shape)) or "1" for c in calls for v in (*c.writes, *c.reads)))
        seconds = sum(seconds for _, seconds in group)
        num_bytes = sum(v.nbytes for c in calls for v in {*c.reads, *c.writes})
        merged = tuple(lines[other][0] for c in calls for other in c.merged)
        name, line = lines[number]
        kernel = getattr(calls[0].function, "name", name) if merged else name
        rows.append(Row(kernel, line, shapes, len(calls), num_bytes, sum(map(flops, calls)), seconds, merged))
    num_launches = sum(1 + len(row.merged) for row in rows)
    return Explanation(rows, ceilings(), lowering.arena_bytes, len(lines) - num_launches)
