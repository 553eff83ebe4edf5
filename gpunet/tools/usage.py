"""What kernels take of a card: registers, shared memory, and spills, as NVRTC's assembler tells.  No card is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpunet.backend import compiler, cuda_sources, nvrtc
from gpunet.errors import CompileError

_OPTION = "--ptxas-options=-v"


class Usage(NamedTuple):
    """What one thread, or for ``shared`` one block, of a specialisation takes."""

    registers: int
    shared: int  # bytes, static
    stack: int  # bytes of local memory, what is spilled among them
    spill_stores: int  # bytes
    spill_loads: int

    @property
    def spills(self) -> bool:
        return bool(self.spill_stores or self.spill_loads)


class Measured(NamedTuple):
    """Specialisations compiled together."""

    cubin: bytes
    lowered: dict[str, str]  # the name of each in the machine code
    usage: dict[str, Usage]
    log: str  # what else the compiler said


def compile_and_measure(file: str | Path | cuda_sources.Source, expressions: Sequence[str], architecture: str) -> Measured:
    """Compile specialisations together.  What else is compiled with it can change a kernel's registers a little.

    Raises:
        CompileError: they do not compile, NVRTC is not installed, or its log is not understood.
    """
    options = (*compiler.OPTIONS, f"--gpu-architecture={architecture}", _OPTION)
    try:
        program = nvrtc.load().compile(cuda_sources.spliced(file), cuda_sources.name_of(file), expressions, options)
    except nvrtc.CompilationError as failure:
        raise CompileError(
            f"{cuda_sources.name_of(file)} does not compile as {', '.join(expressions)} for {architecture}:\n{failure}"
        ) from None
    by_name, rest = parse_log(program.log)
    usage = {e: by_name[name] for e, name in program.lowered.items() if name in by_name}
    if len(usage) != len(expressions):
        missing = ", ".join(sorted(set(expressions) - set(usage)))
        raise CompileError(f"{file}: NVRTC's log does not tell what {missing} takes for {architecture}:\n{program.log}")
    return Measured(program.cubin, program.lowered, usage, rest)


def parse_log(log: str) -> tuple[dict[str, Usage], str]:
    """What the assembler says of each entry, by its mangled name, and all lines that are not the assembler's."""
    found: dict[str, Usage] = {}
    rest, name, local = [], "", (0, 0, 0)
    for line in log.splitlines():
        if not re.match(r"ptxas (info  )?  *[:.]", line):
            rest.append(line)
        elif entry := re.search(r"Compiling entry function '(\w+)'", line):
            name, local = entry[1], (0, 0, 0)
        elif memory := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            local = (int(memory[1]), int(memory[2]), int(memory[3]))
        elif registers := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] = Usage(int(registers[1]), int(shared[1]) if shared else 0, *local)
    return found, "\n".join(rest).strip()
