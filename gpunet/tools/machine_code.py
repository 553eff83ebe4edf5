"""Machine code of kernels: disassembles a cubin by nvdisasm, and finds basic blocks and loops.  No GPU is needed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from gpunet.backend import toolkit
from gpunet.errors import CompileError

INSTRUCTION_BYTES = 16


class Instruction(NamedTuple):
    """An instruction, such as ``@!P0 LDS.128 R12, [R56+UR7]``."""

    opcode: str  # "LDS.128"
    operands: tuple[str, ...]  # "R12", "[R56+UR7]"
    predicate: str = ""  # "@!P0"

    @property
    def name(self) -> str:
        """The opcode without modifiers: "LDS"."""
        return self.opcode.partition(".")[0]

    @property
    def target(self) -> int | None:
        """The index of the instruction that a branch jumps to; None if this is no branch, or an indirect one."""
        if self.name != "BRA" or not self.operands or not self.operands[-1].startswith("0x"):
            return None
        return int(self.operands[-1], 16) // INSTRUCTION_BYTES

    @property
    def is_conditional(self) -> bool:
        return bool(self.predicate) or (self.name == "BRA" and len(self.operands) > 1)


# ---- disassembling ----------------------------------------------------------------------------------------------------


@functools.cache
def nvdisasm() -> Path:
    """Return the path of nvdisasm: from its wheel, a CUDA toolkit, or PATH.

    Raises:
        CompileError: it is not installed.
    """
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.stem == "nvdisasm"]
    found += toolkit.installed("*/bin/nvdisasm*", "bin/nvdisasm*")
    found += [Path(path) for path in [shutil.which("nvdisasm")] if path]
    for path in found:
        if path.is_file():
            return path
    raise CompileError("machine code is read by nvdisasm, which is not installed: pip install 'gpunet[machine-code]'")


def disassemble(cubin: bytes) -> dict[str, list[Instruction]]:
    """Return the instructions of each function in a cubin, by mangled name.

    Raises:
        CompileError: nvdisasm is not installed, does not know the architecture, or is older than CUDA 13.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernels.cubin")
        file.write_bytes(cubin)
        done = subprocess.run([nvdisasm(), "-json", file], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{nvdisasm()} failed; expected that of CUDA 13 or newer:\n{done.stderr or done.stdout}")
    _, functions = json.loads(done.stdout)
    return {f["function-name"]: [_instruction(i) for i in f["sass-instructions"]] for f in functions}


def _instruction(fields: Mapping[str, Any]) -> Instruction:
    operands = fields.get("operands") or ""
    return Instruction(fields["opcode"], tuple(operands.split(",") if operands else ()), fields.get("predicate", ""))


# ---- control flow -----------------------------------------------------------------------------------------------------


class Code:
    """A function as basic blocks.

    Attributes:
        instructions: all of them.
        blocks: the indices of the instructions of each block.
        successors, predecessors: numbers of blocks, by the number of a block.
    """

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self.instructions = instructions
        leaders = {0}
        for index, instruction in enumerate(instructions):
            if instruction.target is not None:
                leaders |= {instruction.target, index + 1}
            elif instruction.name in _ENDS:
                leaders.add(index + 1)
        starts = sorted(leader for leader in leaders if leader < len(instructions))
        number_of = {start: number for number, start in enumerate(starts)}
        self.blocks = [range(start, end) for start, end in zip(starts, [*starts[1:], len(instructions)])]
        self.successors: list[list[int]] = []
        for block in self.blocks:
            last = instructions[block[-1]]
            next_ones = [] if last.target is None else [last.target]
            if (last.target is None and last.name not in _ENDS) or last.is_conditional:
                next_ones.append(block.stop)
            self.successors.append([number_of[index] for index in next_ones if index in number_of])
        self.predecessors: list[list[int]] = [[] for _ in self.blocks]
        for number, followers in enumerate(self.successors):
            for follower in followers:
                self.predecessors[follower].append(number)

    def loops(self) -> Iterator[tuple[int, set[int]]]:
        """Yield the natural loops: the number of the header, and the numbers of all blocks."""
        dominators = self._dominators()
        bodies: dict[int, set[int]] = {}
        for number, followers in enumerate(self.successors):
            for header in followers:
                if dominators[number] >> header & 1:  # a branch back
                    body = bodies.setdefault(header, {header})
                    waiting = [number]
                    while waiting:
                        block = waiting.pop()
                        if block not in body:
                            body.add(block)
                            waiting += self.predecessors[block]
        yield from bodies.items()

    def _dominators(self) -> list[int]:
        """The blocks on every path to each block, as bits of an int."""
        everything = (1 << len(self.blocks)) - 1
        found = [1, *[everything] * (len(self.blocks) - 1)]
        changed = True
        while changed:
            changed = False
            for number in range(1, len(self.blocks)):
                common = everything
                for before in self.predecessors[number]:
                    common &= found[before]
                common |= 1 << number
                changed |= common != found[number]
                found[number] = common
        return found


_ENDS = ("EXIT", "RET", "BRX", "JMX", "JMP")
