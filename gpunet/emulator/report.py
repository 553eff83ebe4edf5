"""The lint of check mode: where a warp's accesses cost more than they need to, by file and line.

Shared memory: wavefronts, as bank conflicts make them more.  Global memory: sectors of 32 bytes, against those that the
bytes asked for would fill.  How both are counted stands in lint.cpp; what caches save is not in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gpunet.emulator.library import Library


class Tally(NamedTuple):
    """What a launch did at one address of its code.  As ``emulator::Tally`` in lint.cpp."""

    site: int
    requests: int
    transactions: int
    ideal: int
    shared: int
    write: int
    bytes: int
    degree: int

    @classmethod
    def of_last_launch(cls, runtime: ctypes.CDLL) -> tuple[Tally, ...]:
        rows = ctypes.POINTER(_Tally)()
        count = runtime.emulator_tallies(ctypes.byref(rows))
        return tuple(cls(*(getattr(rows[i], name) for name in cls._fields)) for i in range(count))


class _Tally(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64 if number < 4 else ctypes.c_int) for number, name in enumerate(Tally._fields)]


class Access(NamedTuple):
    """One place in a kernel's source that reads or writes memory, over all launches that were linted."""

    expression: str  # the specialisation
    file: str
    line: int
    calls: tuple[str, ...]  # "file:line" of the inlined calls that lead there, the nearest first
    memory: str  # "shared" or "global"
    write: bool
    bytes: int  # of one thread's access
    requests: int  # executions by a warp
    transactions: int  # wavefronts of shared memory, or sectors of 32 bytes of global memory
    ideal: int  # as many as there need be
    degree: int  # the most wavefronts of one part of a request (1: no conflict), or sectors of one request

    @property
    def excess(self) -> float:
        """Transactions that need not be, as a share of those that must."""
        return self.transactions / self.ideal - 1 if self.ideal else 0.0

    @property
    def efficiency(self) -> float:
        """Ideal by real transactions: 1 where nothing is wasted."""
        return self.ideal / self.transactions if self.transactions else 1.0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" + (f" (called at {', '.join(self.calls)})" if self.calls else "")

    @property
    def message(self) -> str:
        what = f"{'writes' if self.write else 'reads'} of {self.bytes} bytes a thread at {self.place}"
        if self.memory == "shared":
            return f"{what}: bank conflicts of up to {self.degree} ways, {self.transactions} wavefronts where {self.ideal} would do"
        return (
            f"{what}: {self.transactions} sectors of global memory where {self.ideal} would do ({self.efficiency:.0%})"
        )


class Report:
    """What the lint found in the launches of some time."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Library], dict[tuple[int, ...], list[int]]] = {}

    def add(self, library: Library, expression: str, tallies: Iterable[Tally]) -> None:
        places = self._found.setdefault((expression, library), {})
        for tally in tallies:
            sums = places.setdefault((tally.site, tally.shared, tally.write, tally.bytes), [0, 0, 0, 0])
            sums[:] = *(a + b for a, b in zip(sums, tally[1:4])), max(sums[3], tally.degree)

    def accesses(self) -> list[Access]:
        """Every place that reads or writes memory; what the compiler made several instructions of is one place."""
        found: dict[tuple, Access] = {}
        for (expression, library), places in self._found.items():
            lines = library.lines([site for site, *_ in places])
            for ((_, shared, write, bytes), sums), (line, *calls) in zip(places.items(), lines):
                file, _, number = line.partition(":")
                memory = "shared" if shared else "global"
                key = (expression, file, int(number or 0), tuple(calls), memory, bool(write), bytes)
                if key in found:
                    before = found[key][-4:]
                    sums = [*(a + b for a, b in zip(before, sums[:3])), max(before[3], sums[3])]
                found[key] = Access(*key, *sums)
        return list(found.values())

    def findings(self, above: float = 0.0) -> list[Access]:
        """The places with more than ``above`` times what would do in excess, the worst first by transactions wasted."""
        wasteful = [access for access in self.accesses() if access.excess > above]
        return sorted(wasteful, key=lambda access: access.ideal - access.transactions)

    def __str__(self) -> str:
        return "\n".join(f"{access.expression}: {access.message}" for access in self.findings()) or "nothing to say"
