"""Registers, shared memory and spills of kernels, as reported by ptxas through NVRTC. No GPU is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpunet.backend import compiler, cuda_sources, nvrtc
from gpunet.errors import CompileError

_OPTION = "--ptxas-options=-v"


class Usage(NamedTuple):
    """Resource usage of a specialisation."""

    registers: int  # per thread
    shared: int  # static shared memory per block, in bytes
    stack: int  # local memory per thread, including spills, in bytes
    spill_stores: int  # bytes per thread
    spill_loads: int  # bytes per thread

    @property
    def spills(self) -> bool:
        return bool(self.spill_stores or self.spill_loads)


class Measured(NamedTuple):
    """Specialisations that were compiled together."""

    cubin: bytes
    lowered: dict[str, str]  # expression -> mangled name
    usage: dict[str, Usage]  # by expression
    log: str  # other messages of the compiler


def compile_and_measure(file: str | Path | cuda_sources.Source, expressions: Sequence[str], architecture: str) -> Measured:
    """Compile specialisations together and measure their resource usage.

    The register count of a kernel can depend slightly on the other specialisations in the same compilation.

    Args:
        file: a file in cuda_kernels/, or a source.
        expressions: the specialisations, such as "scale<float>".
        architecture: such as "sm_80".

    Raises:
        CompileError: the source does not compile, NVRTC is not installed, or its log cannot be parsed.
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
        raise CompileError(f"{file}: NVRTC's log has no resource usage of {missing} for {architecture}:\n{program.log}")
    return Measured(program.cubin, program.lowered, usage, rest)


def parse_log(log: str) -> tuple[dict[str, Usage], str]:
    """The usage of each kernel by its mangled name, and the lines of the log that are not from ptxas."""
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
