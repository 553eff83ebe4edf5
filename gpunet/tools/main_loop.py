"""Counts what the main loop of a kernel issues, from its machine code.

The main loop is the innermost loop with the most multiply-adds.  Its counts are those of one iteration of a warp on whole tiles:
of the paths through the loop, the one with the most multiply-adds, then with the most bytes that it loads from global memory and
stores to shared memory, then with the fewest instructions.  So the branches for ragged edges are not counted, the copy of
the next step is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gpunet.errors import CompileError
from gpunet.tools.lane_addresses import paired_reads
from gpunet.tools.machine_code import Code, Instruction

#: Instructions of arithmetic, and what each counts; FFMA2 is two FFMA of a lane.
ARITHMETIC = {"FFMA": 1, "FFMA2": 2, "DFMA": 1, "HMMA": 1, "HGMMA": 1}
_SHARED = ("LDS", "STS", "LDSM", "LDGSTS")
_ACCESSES = (*_SHARED, "LDG", "STG", "LDL", "STL")


class MainLoop(NamedTuple):
    """The counts of one iteration of a main loop, for a warp."""

    issued: int  # instructions
    arithmetic: int  # see ARITHMETIC
    accesses: Mapping[str, int]  # by opcode and bytes per lane: "LDS 16", "STS 4", "LDG 16"
    shared_cycles: int  # of the shared-memory pipe, at most: reads count as paired only if that is proved
    halves: int = 0  # multiply-adds per lane of tensor cores: of halves
    tf32: int = 0  # and of TF32

    @property
    def share(self) -> float:
        """Arithmetic / issued; more than 1 is possible with FFMA2."""
        return self.arithmetic / self.issued

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per lane."""
        return self.halves + self.tf32 or self.arithmetic

    @property
    def per_load(self) -> float:
        """HMMA for each LDSM of four matrices; 0 without tensor cores, infinite if plain loads read all operands."""
        if not self.halves + self.tf32:
            return 0.0
        loads = self.accesses.get("LDSM 16", 0)
        return self.arithmetic / loads if loads else math.inf


def count_main_loop(instructions: Sequence[Instruction], name: str) -> MainLoop:
    """Count the main loop of a function.

    The shared-memory pipe takes 4 cycles for a read of 16 bytes per lane, or 2 where lanes n and n^1, or n and n^2, read the
    same address; other accesses take a cycle for each 4 bytes per lane.  Bank conflicts are not counted: the lint of the
    emulator finds them.

    Args:
        name: of the function, for the message.

    Raises:
        CompileError: no loop of the function has arithmetic.
    """
    code = Code(instructions)
    indices = find_main_loop(code)
    if not indices:
        raise CompileError(f"{name} has no main loop: none of its loops has {', '.join(ARITHMETIC)}")
    return _count(code, indices)


def count_loops(instructions: Sequence[Instruction]) -> list[MainLoop]:
    """Count each innermost loop of a function that has arithmetic, as :func:`count_main_loop` counts the main loop."""
    code = Code(instructions)
    return [_count(code, path.indices) for path in _innermost_paths(code) if path.work]


def _count(code: Code, indices: Sequence[int]) -> MainLoop:
    instructions = code.instructions
    chosen = [instructions[index] for index in indices]
    accesses = Counter(f"{i.name} {access_bytes(i)}" for i in chosen if i.name in _ACCESSES)
    wide = {index for index in indices if instructions[index].name == "LDS" and access_bytes(instructions[index]) == 16}
    cycles = sum(access_bytes(i) // 4 for i in chosen if i.name in _SHARED)
    paired = len(wide & paired_reads(code)) if wide else 0
    tensor = [(multiply_adds_of(i), ".TF32" in i.opcode) for i in chosen]
    halves, tf32 = (sum(count for count, is_tf32 in tensor if is_tf32 is wanted) for wanted in (False, True))
    return MainLoop(len(chosen), sum(map(arithmetic_of, chosen)), accesses, cycles - 2 * paired, halves, tf32)


def arithmetic_of(instruction: Instruction) -> int:
    """What an instruction counts as arithmetic."""
    return ARITHMETIC.get(instruction.name, 0)


def multiply_adds_of(instruction: Instruction) -> int:
    """The multiply-adds per lane of an instruction of tensor cores: 64 of HMMA.16816, which is 16 x 8 x 16; of others 0."""
    if instruction.name != "HMMA":
        return 0
    shape = re.match(r"HMMA\.168(\d+)", instruction.opcode)
    if shape is None:
        raise CompileError(f"{instruction.opcode}: the extents of its product are not known")
    return 16 * 8 * int(shape[1]) // 32


def access_bytes(instruction: Instruction) -> int:
    """The bytes per lane of a load, a store or a copy; at least 4, since narrower accesses take as long."""
    if instruction.name == "LDSM":
        return 4 * int(instruction.opcode.rpartition(".")[2])  # matrices of 8 x 8 halves: 128 bytes each
    return max((int(bits) // 8 for bits in re.findall(r"\.(64|128)\b", instruction.opcode)), default=4)


def local_accesses(instructions: Sequence[Instruction]) -> int:
    """The number of instructions that access local memory, anywhere in a function."""
    return sum(i.name in ("LDL", "STL") for i in instructions)


# ---- the path through the loop ----------------------------------------------------------------------------------------


def find_main_loop(code: Code) -> list[int]:
    """Return the indices of the instructions of the main loop that count; empty if no loop has arithmetic."""
    best = max(_innermost_paths(code), key=_weight, default=_NO_PATH)
    return best.indices if best.work else []


def _innermost_paths(code: Code) -> Iterator[_Path]:
    """The path that counts through each innermost loop."""
    loops = list(code.loops())
    innermost = [(h, body) for h, body in loops if not any(g in body for g, _ in loops if g != h)]
    return (_path(code, header, body) for header, body in innermost)


class _Path(NamedTuple):
    indices: list[int]
    work: int  # multiply-adds per lane
    copied: int  # bytes


_NO_PATH = _Path([], 0, 0)


def _weight(path: _Path) -> tuple[int, int, int]:
    return path.work, path.copied, -len(path.indices)


def _path(code: Code, header: int, body: set[int]) -> _Path:
    """The path through an innermost loop that counts."""
    best: dict[int, _Path | None] = {}  # from each block to the branch back
    for block in _after_successors(code, header, body):
        followers = code.successors[block]
        ends = [_NO_PATH] if header in followers else []
        ends += [path for f in followers if f in body and f != header and (path := best.get(f)) is not None]
        if not ends:
            continue
        end = max(ends, key=_weight)
        chosen = [code.instructions[index] for index in code.blocks[block]]
        best[block] = _Path(
            [*code.blocks[block], *end.indices],
            sum(multiply_adds_of(i) or arithmetic_of(i) for i in chosen) + end.work,
            sum(map(_copied_bytes, chosen)) + end.copied,
        )
    return best.get(header) or _NO_PATH


def _copied_bytes(instruction: Instruction) -> int:
    return access_bytes(instruction) if instruction.name in ("LDG", "STS", "LDGSTS") else 0


def _after_successors(code: Code, header: int, body: set[int]) -> Iterator[int]:
    """The blocks of an innermost loop, each after its successors."""
    seen, stack = {header}, [(header, iter(code.successors[header]))]
    while stack:
        block, followers = stack[-1]
        follower = next((f for f in followers if f in body and f not in seen), None)
        if follower is None:
            stack.pop()
            yield block
        else:
            seen.add(follower)
            stack.append((follower, iter(code.successors[follower])))
