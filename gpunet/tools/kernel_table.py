"""docs/kernels.md: what the kernels take of a card, for every architecture that we compile for, and how they access memory.

    python -m gpunet.tools.kernel_table            print it
    python -m gpunet.tools.kernel_table --write    write it: after every change of a kernel or of NVRTC

A test fails when a hot kernel spills where the page says that it does not, and when the page is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from gpunet.backend import compiler, cuda_sources
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.tools import access_table
from gpunet.tools.representatives import is_hot, representatives, specialisations
from gpunet.tools.usage import Usage, compile_and_measure

ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120")

#: Spills that are known: specialisations, architectures, and why they stay.  All others fail a test.
KNOWN_SPILLS: tuple[tuple[str, str, str], ...] = (
    (
        "matmul_forward<float, 128, *", "*",
        "two blocks on a multiprocessor leave 128 registers; sums and steps take 96, operands of any 64-bit strides more "
        "than the rest. One block would spill nothing and hide no barrier",
    ),
    ("cross_entropy_labels<float, *", "sm_100a", "4 bytes, at the registers that the assembler chose for full occupancy"),
    (
        "*<double*", "*",
        "float64 is for checking: its exp, erf, pow and division are calls, around which registers are saved, and its "
        "products need twice the registers",
    ),
)  # fmt: skip

REWRITE = "python -m gpunet.tools.kernel_table --write"

Table = Mapping[tuple[str, str], Usage]  # (expression, architecture) ->


def collect() -> Table:
    """Compile and measure all of the table."""

    def one(job: tuple[Kernel, str]) -> list[tuple[tuple[str, str], Usage]]:
        kernel, architecture = job
        usage = compile_and_measure(kernel.file, specialisations(kernel), architecture).usage
        return [((expression, architecture), usage[expression]) for expression in representatives(kernel)]

    with ThreadPoolExecutor() as pool:
        jobs = [(kernel, architecture) for kernel in KERNELS.values() for architecture in ARCHITECTURES]
        return dict(entry for part in pool.map(one, jobs) for entry in part)


def why_it_spills(expression: str, architecture: str) -> str | None:
    """The reason that a known spill has; ``None`` when it is not known."""
    return next((entry[2] for entry in KNOWN_SPILLS if _meets(entry, (expression, architecture))), None)


def _meets(entry: tuple[str, str, str], key: tuple[str, str]) -> bool:
    pattern, architectures, _ = entry
    return fnmatchcase(key[0], pattern) and (architectures == "*" or key[1] in architectures.split())


def complaints(expression: str, architecture: str, usage: Usage, cell: str, same_compiler: bool) -> list[str]:
    """What is wrong with a specialisation whose cell on the page is ``cell``: a new spill, or a page out of date.

    Registers differ from one version of NVRTC to the next; with another than the page's, only spills are held.
    """
    found = []
    what = f"{expression} for {architecture}"
    if usage.spills and is_hot(expression):
        if "spills" not in cell:
            found.append(f"{what} spills {usage.spill_stores} + {usage.spill_loads} bytes; docs/kernels.md: {cell}")
        if why_it_spills(expression, architecture) is None:
            found.append(f"{what} spills, and KNOWN_SPILLS of gpunet/tools/kernel_table.py does not say why")
    if same_compiler and cell != cell_of(usage):
        found.append(f"{what}: docs/kernels.md says {cell!r}, NVRTC {cell_of(usage)!r}: {REWRITE}")
    return found


# ---- the page ---------------------------------------------------------------------------------------------------------

_TOP = """\
# What the kernels take of a card

Written by `python -m gpunet.tools.kernel_table --write`; a test holds it against the sources.

A cell is registers of a thread / bytes of static shared memory of a block. Where registers did not suffice, the bytes that
a thread spills to local memory follow (stores + loads, as they stand in the code: a loop repeats them). Registers are
limited to 255 a thread and 65,536 a multiprocessor: 256 threads of 128 each fill half of it.

Compiled by NVRTC {version}.
"""


def page_path() -> Path:
    """docs/kernels.md of the checkout."""
    return cuda_sources.kernel_directory().parent / "docs" / "kernels.md"


def render(table: Table, version: str) -> str:
    """The page up to the table of accesses."""
    lines = [_TOP.format(version=version)]
    lines += [_line(["specialisation", *ARCHITECTURES]), _line(["---"] * (1 + len(ARCHITECTURES)))]
    for kernel in sorted(KERNELS.values(), key=lambda k: (k.file, k.name)):
        for expression in representatives(kernel):
            cells = [cell_of(table[expression, architecture]) for architecture in ARCHITECTURES]
            lines.append(_line([f"`{expression}`", *cells]))
    known = [entry for entry in KNOWN_SPILLS if any(_meets(entry, key) for key, usage in table.items() if usage.spills)]
    if known:
        lines += ["", "## Known spills", ""]
        lines += [f"- `{p}` ({a if a != '*' else 'everywhere'}): {reason}" for p, a, reason in known]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell_of(usage: Usage) -> str:
    cell = f"{usage.registers} / {usage.shared}"
    if usage.spills:
        cell += f", spills {usage.spill_stores} + {usage.spill_loads}"
    elif usage.stack:
        cell += f", stack {usage.stack}"
    return cell


def parse(page: str) -> tuple[str, dict[tuple[str, str], str]]:
    """NVRTC's version and the cells of the first table by (expression, architecture)."""
    version = re.search(r"^Compiled by NVRTC (\S+)\.$", page, re.MULTILINE)
    cells: dict[tuple[str, str], str] = {}
    for row in re.findall(r"^\| `(.*)$", page.partition(access_table.TITLE)[0], re.MULTILINE):
        expression, *rest = [cell.strip(" `|") for cell in row.split(" | ")]
        cells |= {(expression, architecture): cell for architecture, cell in zip(ARCHITECTURES, rest)}
    return version[1] if version else "", cells


def main(arguments: Sequence[str]) -> int:
    """Print the page, or write it."""
    page = render(collect(), ".".join(map(str, compiler.nvrtc_version()))) + access_table.render()
    if "--write" in arguments:
        page_path().write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
