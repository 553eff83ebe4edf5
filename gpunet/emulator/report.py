"""The report of ``lint()``: memory accesses of warps that use more transactions than necessary, by file and line.

Transactions are wavefronts for shared memory (more than necessary with bank conflicts) and 32-byte sectors for global
memory (more than necessary if the accessed bytes do not fill them).  lint.cpp counts them; caches are not modelled.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gpunet.emulator.library import Library


class Tally(NamedTuple):
    """The accesses of a launch at one code address.  Layout of ``emulator::Tally`` in lint.cpp."""

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
    """One place in a kernel's source that reads or writes memory, summed over all linted launches."""

    expression: str  # the specialisation
    file: str
    line: int
    calls: tuple[str, ...]  # "file:line" of the inlined calls that lead there, innermost first
    memory: str  # "shared" or "global"
    write: bool
    bytes: int  # per thread
    requests: int  # executions by a warp
    transactions: int  # wavefronts of shared memory, or 32-byte sectors of global memory
    ideal: int  # the minimum number of transactions
    degree: int  # the maximum of wavefronts in one part of a request (1: no conflict), or of sectors in one request

    @property
    def excess(self) -> float:
        """Unnecessary transactions as a fraction of the ideal number."""
        return self.transactions / self.ideal - 1 if self.ideal else 0.0

    @property
    def efficiency(self) -> float:
        """Ideal divided by actual transactions; 1 means no waste."""
        return self.ideal / self.transactions if self.transactions else 1.0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" + (f" (called at {', '.join(self.calls)})" if self.calls else "")

    @property
    def message(self) -> str:
        what = f"{'writes' if self.write else 'reads'} of {self.bytes} bytes per thread at {self.place}"
        if self.memory == "shared":
            return f"{what}: up to {self.degree}-way bank conflicts, {self.transactions} wavefronts instead of {self.ideal}"
        return f"{what}: {self.transactions} sectors of global memory instead of {self.ideal} ({self.efficiency:.0%})"


class Report:
    """Collects the memory accesses of linted launches."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Library], dict[tuple[int, ...], list[int]]] = {}

    def add(self, library: Library, expression: str, tallies: Iterable[Tally]) -> None:
        places = self._found.setdefault((expression, library), {})
        for tally in tallies:
            sums = places.setdefault((tally.site, tally.shared, tally.write, tally.bytes), [0, 0, 0, 0])
            sums[:] = *(a + b for a, b in zip(sums, tally[1:4])), max(sums[3], tally.degree)

    def accesses(self) -> list[Access]:
        """Return every place that reads or writes memory; instructions compiled from the same place are summed."""
        result: dict[tuple, Access] = {}
        for (expression, library), places in self._found.items():
            lines = library.lines([site for site, *_ in places])
            for ((_, shared, write, bytes), sums), (line, *calls) in zip(places.items(), lines):
                file, _, number = line.partition(":")
                memory = "shared" if shared else "global"
                key = (expression, file, int(number or 0), tuple(calls), memory, bool(write), bytes)
                if key in result:
                    before = result[key][-4:]
                    sums = [*(a + b for a, b in zip(before, sums[:3])), max(before[3], sums[3])]
                result[key] = Access(*key, *sums)
        return list(result.values())

    def findings(self, above: float = 0.0) -> list[Access]:
        """Return the places whose ``excess`` is larger than ``above``, those with the most unnecessary transactions first."""
        wasteful = [access for access in self.accesses() if access.excess > above]
        return sorted(wasteful, key=lambda access: access.ideal - access.transactions)

    def __str__(self) -> str:
        return "\n".join(f"{access.expression}: {access.message}" for access in self.findings()) or "no findings"
