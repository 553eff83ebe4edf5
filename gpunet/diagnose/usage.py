"""What kernels take of a card: registers, shared memory, and spills, as NVRTC's assembler tells.  No card is needed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpunet.errors import CompileError
from gpunet.runtime import nvrtc, source

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


def compile_and_measure(
    file: str, expressions: Sequence[str], architecture: str, folder: Path | None = None
) -> Measured:
    """Compile specialisations together, and keep what they take in ``folder`` for :func:`measure`.

    Raises:
        CompileError: they do not compile, NVRTC is not installed, or its log is not understood.
    """
    options = (*source.OPTIONS, f"--gpu-architecture={architecture}", _OPTION)
    text = source.spliced(file)
    try:
        program = nvrtc.load().compile(text, file, expressions, options)
    except nvrtc.CompilationError as failure:
        raise CompileError(
            f"{file} does not compile as {', '.join(expressions)} for {architecture}:\n{failure}"
        ) from None
    by_name, rest = parse_log(program.log)
    usage = {e: by_name[name] for e, name in program.lowered.items() if name in by_name}
    if len(usage) != len(expressions):
        missing = ", ".join(sorted(set(expressions) - set(usage)))
        raise CompileError(f"{file}: NVRTC's log does not tell what {missing} takes for {architecture}:\n{program.log}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for expression, found in usage.items():
            path = _kept(folder, text, expression, architecture)
            beside = path.with_suffix(f".{hashlib.sha256(program.cubin).hexdigest()[:8]}.tmp")
            beside.write_text(json.dumps(found))
            beside.replace(path)
    return Measured(program.cubin, program.lowered, usage, rest)


def measure(file: str, expressions: Sequence[str], architecture: str, folder: Path | None = None) -> dict[str, Usage]:
    """What specialisations take; those that ``folder`` knows are not compiled again.

    Raises:
        CompileError: as of :func:`compile_and_measure`.
    """
    found = {}
    if folder is not None:
        text = source.spliced(file)
        for expression in expressions:
            path = _kept(folder, text, expression, architecture)
            if path.exists():
                found[expression] = Usage(*json.loads(path.read_text()))
    missing = [e for e in expressions if e not in found]
    if missing:
        found |= compile_and_measure(file, missing, architecture, folder).usage
    return {e: found[e] for e in expressions}


def _kept(folder: Path, text: str, expression: str, architecture: str) -> Path:
    parts = (text, expression, architecture, *source.OPTIONS, repr(source.nvrtc_version()))
    return folder / (hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40] + ".json")


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
