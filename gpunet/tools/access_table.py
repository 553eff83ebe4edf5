"""Memory access of the kernels: the second part of docs/kernels.md, counted by the emulator's lint.

The launches are the float32 cases of a kernel with the tag "representative". A test fails if a hot kernel has bank conflicts or
uncoalesced accesses that are not on the page, or that its facts give no reason for (``Facts.waste``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gpunet import emulator
from gpunet.backend.devices import Device
from gpunet.emulator import Access
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.cases.case import Case
from gpunet.tools import kernel_cases

#: Waste up to this fraction of the ideal number of transactions is ignored.
SMALL = 0.02

_SECTOR = 32  # bytes


def launches(kernel: Kernel) -> Iterator[Case]:
    """The launches of a kernel in the table."""
    return kernel_cases.cases(kernel, "representative", ("float32",))


# ---- counting ---------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The counts of one launch."""

    kernel: Kernel
    launch: str  # "linear_forward<float, 64, Relu>, (128, 64) -> (128, 128)"
    degree: int  # ways of the worst bank conflict; 0 without shared memory
    banks: float  # wavefronts of shared memory above the ideal number, as a fraction of it
    reads: float  # efficiency of global reads: ideal / moved sectors; 1 without reads
    writes: float  # efficiency of global writes
    bytes: int  # of global memory, in the sectors that are moved
    places: tuple[str, ...]  # "file:line" of the waste

    def cells(self) -> list[str]:
        """The cells of the table: bank conflicts, reads, writes, lines."""
        banks = "-" if not self.degree else "none" if self.degree == 1 else f"{self.degree} ways, +{self.banks:.0%}"
        return [banks, f"{self.reads:.0%}", f"{self.writes:.0%}", ", ".join(self.places)]

    def wasted(self) -> list[str]:
        """The kinds of waste above :data:`SMALL`: "banks", "reads", "writes"."""
        amounts = {"banks": self.banks, "reads": 1 / self.reads - 1, "writes": 1 / self.writes - 1}
        return [name for name, amount in amounts.items() if amount > SMALL]


def lint(case: Case) -> Found:
    """Launch a case on the device "emulated" and count its accesses.

    Raises:
        CompileError: g++ is not installed.
    """
    with emulator.lint() as report:
        case.kernel(*case.on_device(Device("emulated")), **case.options)
    accesses = report.accesses()
    shared = [a for a in accesses if a.memory == "shared"]
    reads, writes = ([a for a in accesses if a.memory == "global" and a.write == write] for write in (False, True))
    found = Found(
        case.kernel,
        f"{case.expression()}, {case.label}",
        max((a.degree for a in shared), default=0),
        1 / _efficiency(shared) - 1,
        _efficiency(reads),
        _efficiency(writes),
        _SECTOR * sum(a.transactions for a in (*reads, *writes)),
        (),
    )
    places = dict.fromkeys(_place(access) for access in report.findings(SMALL))
    return found._replace(places=tuple(places)[:3] if found.wasted() else ())


def _efficiency(accesses: list[Access]) -> float:
    return sum(a.ideal for a in accesses) / sum(a.transactions for a in accesses) if accesses else 1.0


def _place(access: Access) -> str:
    """The line to show: that of the caller for accesses in pack.cuh."""
    frames = [f"{access.file}:{access.line}", *access.calls]
    return next((frame for frame in frames if not frame.startswith("pack.cuh")), frames[0])


def why_it_wastes(kernel: Kernel, kind: str) -> str | None:
    """The reason of an accepted waste, or None."""
    return next((reason for kinds, reason in kernel.waste.items() if kind in kinds.split()), None)


def complaints(found: Found, cells: list[str], same_compiler: bool) -> list[str]:
    """Problems of a launch: waste of a hot kernel without a reason or above that on the page, or outdated cells.

    Args:
        found: the counts of the launch.
        cells: its cells on the page; empty if the page has no such row.
        same_compiler: whether the page is from this version of g++; otherwise only hot kernels are checked.
    """
    wrong = []
    if found.kernel.is_hot:
        wrong += [
            f"{found.launch} wastes {kind} at {', '.join(found.places)}, and the facts of the kernel have no reason for it"
            for kind in found.wasted()
            if why_it_wastes(found.kernel, kind) is None
        ]
        if cells:
            wrong += [
                f"{found.launch}: {column} were {before}, and are {now}"
                for column, before, now in zip(("bank conflicts", "reads", "writes"), cells, found.cells())
                if _is_worse(before, now)
            ]
    if same_compiler and cells != found.cells():
        wrong.append(f"{found.launch}: docs/kernels.md has {cells}, but the lint counts {found.cells()}")
    return wrong


def _is_worse(before: str, now: str) -> bool:
    def waste(cell: str) -> float:  # in percent
        numbers = re.findall(r"\d+(?=%)", cell)
        return 0.0 if not numbers else float(numbers[0]) if "ways" in cell else 100.0 - float(numbers[0])

    return waste(now) > waste(before) + 100 * SMALL


# ---- the page ---------------------------------------------------------------------------------------------------------

TITLE = "## Memory access"
_TOP = """
{title}

Accesses per warp, counted by the emulator (`gpunet.emulator.lint()`) in float32 on whole tiles and rows. Bank conflicts: the
ways of the worst conflict, and the wavefronts of shared memory above the ideal number. Reads and writes of global memory: the
32-byte sectors that the data fill, in percent of the sectors that are moved, without caches. The last column has the lines
of inefficient accesses.

Compiled by g++ {version}.
"""
_COLUMNS = ("launch", "bank conflicts", "reads", "writes", "lines")


def compiler() -> str:
    """Version of g++."""
    return emulator.compiler.version().split()[1]


def render() -> str:
    """The second part of the page: memory access and known waste."""
    kernels = sorted(KERNELS.values(), key=lambda k: (k.file, k.name))
    found = [lint(case) for kernel in kernels for case in launches(kernel)]
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *((f"`{f.launch}`", *f.cells()) for f in found)]
    known = [
        f"- `{kernel.name}` ({kinds}): {reason}"
        for kernel in kernels
        for kinds, reason in kernel.waste.items()
        if kinds == "repeats" or any(f.kernel is kernel and set(kinds.split()) & set(f.wasted()) for f in found)
    ]
    lines = [_TOP.format(title=TITLE, version=compiler()), *(f"| {' | '.join(row)} |" for row in rows)]
    if known:
        lines += ["", "### Known waste", "", *known]
    return "\n".join(lines) + "\n"


def parse(page: str) -> tuple[str, dict[str, list[str]]]:
    """Parse the second part of the page: the version of g++, and cells by launch."""
    part = page.partition(TITLE)[2]
    version = re.search(r"^Compiled by g\+\+ (\S+)\.$", part, re.MULTILINE)
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*$", part, re.MULTILINE)]
    return version[1] if version else "", {launch: cells for launch, *cells in rows}
