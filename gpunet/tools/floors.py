"""Measures hot loops in machine code, and compares them with the floors that kernels declare (``Facts.floors``).

A specialisation falls below its floor if its main loop has a smaller share of arithmetic, if shared memory takes more cycles for
each cycle of arithmetic, if it loads matrices for tensor cores more often, or if it accesses local memory without a known reason
(``Facts.spills``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from gpunet.launch.facts import Floor
from gpunet.launch.kernel import Geometry, Kernel
from gpunet.tools.kernel_cases import cases, specialisations
from gpunet.tools.kernel_table import why_it_spills
from gpunet.tools.machine_code import disassemble
from gpunet.tools.main_loop import MainLoop, count_main_loop, local_accesses
from gpunet.tools.multiprocessors import MULTIPROCESSORS, WARP, blocks_per_multiprocessor
from gpunet.tools.register_usage import Usage, compile_and_measure

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a", "sm_120")


class Measured(NamedTuple):
    """The machine code of a specialisation."""

    kernel: Kernel
    expression: str
    architecture: str
    loop: MainLoop
    usage: Usage
    blocks: int  # per multiprocessor
    local_accesses: int  # instructions that access local memory

    @property
    def arithmetic_cycles(self) -> float:
        """The cycles that an SM needs for the arithmetic of one iteration of a warp."""
        limits = MULTIPROCESSORS[self.architecture]
        if self.loop.halves or self.loop.tf32:
            return (self.loop.halves + 2 * self.loop.tf32) * WARP / limits.tensor
        return self.loop.arithmetic * WARP / (limits.lanes64 if "<double" in self.expression else limits.lanes)

    @property
    def shared(self) -> float:
        """Cycles of shared memory for each cycle of arithmetic, at most."""
        return self.loop.shared_cycles / self.arithmetic_cycles


def floor_of(kernel: Kernel, expression: str, architecture: str) -> Floor | None:
    """Return the floor of a specialisation; None if its kernel declares none for it."""
    arguments = expression.partition("<")[2]
    return next(
        (
            floor
            for (pattern, architectures), floor in kernel.floors.items()
            if fnmatchcase(arguments, pattern) and (architectures == "*" or architecture in architectures.split())
        ),
        None,
    )


def representatives(kernel: Kernel, architecture: str) -> dict[str, Geometry]:
    """Return the representative specialisations of a kernel that have a floor, each with the geometry of a launch."""
    geometries = [(case, case.geometry()) for case in cases(kernel, "representative")]
    found = {case.expression(geometry): geometry for case, geometry in geometries}
    return {e: found[e] for e in specialisations(kernel, "representative") if floor_of(kernel, e, architecture) is not None}


def measure(kernel: Kernel, geometries: Mapping[str, Geometry], architecture: str) -> list[Measured]:
    """Compile specialisations of a kernel and read their main loops.

    Args:
        geometries: by specialisation, the geometry of a launch.

    Raises:
        CompileError: NVRTC or nvdisasm is not installed, or a specialisation has no main loop with arithmetic.
    """
    made = compile_and_measure(kernel.file, list(geometries), architecture)
    code = disassemble(made.cubin)
    found = []
    for expression, geometry in geometries.items():
        instructions, usage = code[made.lowered[expression]], made.usage[expression]
        loop = count_main_loop(instructions, f"{expression} for {architecture}")
        blocks = blocks_per_multiprocessor(
            architecture, num_threads(geometry), usage.registers, usage.shared + geometry.shared
        )
        found.append(Measured(kernel, expression, architecture, loop, usage, blocks, local_accesses(instructions)))
    return found


def num_threads(geometry: Geometry) -> int:
    """Return the threads of a block."""
    return geometry.block if isinstance(geometry.block, int) else math.prod(geometry.block)


def complaints(measured: Measured) -> list[str]:
    """Return where a specialisation falls below its floor, with the figures."""
    floor = floor_of(measured.kernel, measured.expression, measured.architecture)
    if floor is None:
        return []
    name, loop = f"{measured.expression} for {measured.architecture}", measured.loop
    found = []
    if loop.share < floor.arithmetic:
        found.append(
            f"{name}: {loop.arithmetic} of {loop.issued} instructions of the main loop are arithmetic, {loop.share:.1%}; "
            f"the floor is {floor.arithmetic:.0%}"
        )
    if measured.shared > floor.shared:
        found.append(
            f"{name}: shared memory takes {loop.shared_cycles} cycles for {measured.arithmetic_cycles:g} of arithmetic, "
            f"{measured.shared:.2f}; the floor allows {floor.shared:g}"
        )
    if loop.per_load < floor.per_load:
        found.append(f"{name}: {loop.per_load:g} HMMA for each LDSM of four matrices; the floor is {floor.per_load:g}")
    if measured.local_accesses and why_it_spills(measured.kernel, measured.expression, measured.architecture) is None:
        found.append(f"{name}: {measured.local_accesses} instructions access local memory; the floor allows none")
    return found
