"""Which shared-memory reads are proved to pair: lanes n and n^1, or lanes n and n^2, read the same address.

For one bit of the lane's number a register is followed as a mask: the bits of its value that may differ between two lanes that
differ in that bit.  Moves, sums, shifts by constants and logic with constants keep the mask narrow; any other instruction
makes every bit differ if one of its operands does.  An address without such bits is the same in both lanes.  A shuffle from
the own lane is a move, by which a source may keep the compiler from computing a value again; so registers that hold the
number of the lane are followed, too.

Blocks are one-dimensional, so bit b of threadIdx.x is bit b of the lane for b < 5.  Values that differ only because lanes took
different branches are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpunet.tools.machine_code import Code, Instruction

_ALL = 0xFFFFFFFF
#: Masks by register, "R12" or "P0"; those that are 0 are absent.  "R12 is the lane" is there if the lower five bits of R12 are
#: the number of the lane.
State = dict[str, int]


def paired_reads(code: Code) -> set[int]:
    """The indices of the LDS instructions whose address does not depend on bit 0, or not on bit 1, of the lane."""
    return _reads_independent_of(code, 0) | _reads_independent_of(code, 1)


def _reads_independent_of(code: Code, lane_bit: int) -> set[int]:
    before: list[State | None] = [{}, *[None] * (len(code.blocks) - 1)]  # at the start of each block
    waiting = {0}
    while waiting:
        number = min(waiting)
        waiting.discard(number)
        state = dict(before[number] or {})
        for index in code.blocks[number]:
            _execute(state, code.instructions[index], lane_bit)
        for follower in code.successors[number]:
            known = before[follower]
            joined = state if known is None else _joined(known, state)
            if joined != known:
                before[follower] = dict(joined)
                waiting.add(follower)
    found = set()
    for block, start in zip(code.blocks, before):
        state = dict(start or {})
        for index in block:
            instruction = code.instructions[index]
            if instruction.name == "LDS" and start is not None and not _mask_of(state, instruction.operands[1]):
                found.add(index)
            _execute(state, instruction, lane_bit)
    return found


def _joined(one: State, other: State) -> State:
    """What holds after either of two states."""
    names = [n for n in one.keys() | other.keys() if not n.endswith(_IS_LANE) or (n in one and n in other)]
    return {name: one.get(name, 0) | other.get(name, 0) for name in names}


_REGISTER = re.compile(r"(?<![A-Z_])(?:R\d+|P\d)(?!\w)")  # UR and UP are the same in all lanes
_DESTINATION = re.compile(r"(R|P)(\d+)")


def _mask_of(state: State, operand: str) -> int:
    mask = 0
    for name in _REGISTER.findall(operand):
        mask |= state.get(name, 0)
    return mask


def _constant(operand: str) -> int | None:
    """The value of an immediate or of the zero register; None if it is not known."""
    if re.fullmatch(r"U?RZ(\.reuse)?", operand):
        return 0
    return int(operand, 16) & _ALL if re.fullmatch(r"-?0x[0-9a-f]+", operand) else None


def _execute(state: State, instruction: Instruction, lane_bit: int) -> None:
    """Update the masks by one instruction."""
    operands = instruction.operands[instruction.name == "SHFL" :]  # its first destination is a predicate
    destination = _DESTINATION.fullmatch(operands[0]) if operands else None
    if destination is None:
        return  # a store, a branch, or a uniform register
    rest = [o for o in operands[1:] if not re.fullmatch(r"!?U?P(T|\d)", o)]
    predicates = [o for o in operands[1:] if re.fullmatch(r"!?P\d", o)]
    mask = _result(state, instruction, rest, lane_bit)
    writes_predicates = instruction.opcode in ("IADD3", "LEA")  # the carry out; other predicates are read
    if not writes_predicates and any(_mask_of(state, p) for p in predicates):
        mask = _ALL
    is_lane = _is_lane(state, instruction, rest)
    names = [operands[0]]
    if destination[1] == "R":
        names = [f"R{int(destination[2]) + i}" for i in range(_registers_written(instruction))]
    else:
        names += [o for o in operands[1:2] if re.fullmatch(r"P\d", o)]  # two predicates, such as P0 and its complement
    for name in names:
        value = mask
        if instruction.predicate and not instruction.predicate.lstrip("@!").startswith("U"):  # else it keeps its value
            value |= state.get(name, 0) | (_ALL if _mask_of(state, instruction.predicate) else 0)
        state[name], state[name + _IS_LANE] = value, 1
        if not value:
            del state[name]
        if not is_lane or instruction.predicate:
            del state[name + _IS_LANE]


_IS_LANE = " is the lane"


def _is_lane(state: State, instruction: Instruction, rest: Sequence[str]) -> bool:
    """Whether the lower five bits of the result are the number of the lane."""
    if instruction.name == "S2R":
        return rest[0] in _LANE
    if instruction.opcode in (*_MOVES, "SHFL.IDX"):
        sources = rest[:2] if instruction.name == "SHFL" else rest[-1:]
    elif instruction.opcode == "LOP3.LUT" and rest[2:] == ["RZ", "0xc0"]:  # a and b
        sources = rest[:1] if (_constant(rest[1]) or 0) & 31 == 31 else []
    else:
        return False
    return bool(sources) and all(_holds_lane(state, operand) for operand in sources)


def _holds_lane(state: State, operand: str) -> bool:
    register = re.fullmatch(r"(R\d+)(\.reuse)?", operand)
    return register is not None and register[1] + _IS_LANE in state


def _registers_written(instruction: Instruction) -> int:
    parts = instruction.opcode.split(".")
    if "128" in parts:
        return 4
    is_wide = "64" in parts or "WIDE" in parts or (parts[0] == "CS2R" and "32" not in parts)
    return 2 if is_wide else 1


def _result(state: State, instruction: Instruction, rest: Sequence[str], lane_bit: int) -> int:
    """The mask of the first destination."""
    opcode, masks, constants = instruction.opcode, [_mask_of(state, o) for o in rest], [_constant(o) for o in rest]
    if instruction.name == "S2R":
        return 1 << lane_bit if rest[0] in _LANE else 0 if rest[0] in _SAME_IN_A_WARP else _ALL
    if instruction.name == "SHFL":
        return masks[0] if opcode == "SHFL.IDX" and _holds_lane(state, rest[1]) and constants[2] == 31 else _ALL
    if not any(masks):
        return 0
    if opcode in _MOVES:
        return masks[-1]
    if opcode in ("IADD3", "VIADD", "IADD", "IMAD.IADD"):
        return _carried(masks)
    if opcode in ("IMAD", "IMAD.SHL", "IMAD.SHL.U32") and len(rest) == 3:
        return _carried([_times(masks[0], masks[1], constants[1]), masks[2]])
    if opcode == "LEA" and len(rest) == 3 and constants[2] is not None:
        return _carried([masks[0] << constants[2] & _ALL, masks[1]])
    if opcode == "LEA.HI" and len(rest) == 4 and constants[2] == 0 and constants[3] is not None:
        return _carried([masks[0] >> (32 - constants[3]), masks[1]])
    if opcode == "SHF.L.U32" and constants[1] is not None and constants[2] == 0:
        return masks[0] << constants[1] & _ALL
    if opcode == "SHF.R.U32.HI" and constants[0] == 0 and constants[1] is not None:
        return masks[2] >> constants[1]
    if opcode == "LOP3.LUT" and len(rest) == 4 and constants[3] is not None:
        return _logic(masks[:3], constants[:3], constants[3])
    return _ALL


_MOVES = ("MOV", "IMAD.MOV", "IMAD.MOV.U32")
_LANE = ("SR_TID.X", "SR_LANEID")
_SAME_IN_A_WARP = ("SR_CTAID.X", "SR_CTAID.Y", "SR_CTAID.Z", "SR_CgaCtaId", "SR_TID.Y", "SR_TID.Z")


def _carried(masks: Sequence[int]) -> int:
    """The mask of a sum: a bit differs if it or a lower one of a summand does."""
    mask = 0
    for one in masks:
        mask |= one
    return -(mask & -mask) & _ALL if mask else 0


def _times(mask: int, other: int, factor: int | None) -> int:
    """The mask of a product, by a constant if ``factor`` is not None."""
    if not other and factor is not None:
        if factor & (factor - 1) == 0:
            return mask * factor & _ALL
        mask = mask * (factor & -factor) & _ALL
    return _carried([mask, other])


def _logic(masks: Sequence[int], constants: Sequence[int | None], table: int) -> int:
    """The mask of LOP3, whose result bit is bit 4 a + 2 b + c of ``table`` for the bits a, b, c of its operands."""
    result = 0
    for number, weight in enumerate((4, 2, 1)):
        sensitive = 0  # the bits of the result that depend on this operand
        others = [w for w in (4, 2, 1) if w != weight]
        values = [c for w, c in zip((4, 2, 1), constants) if w != weight]
        for bits in range(4):
            row = sum(w for place, w in enumerate(others) if bits >> place & 1)
            if (table >> row ^ table >> (row + weight)) & 1:
                possible = _ALL  # where the others can have these bits
                for place, value in enumerate(values):
                    if value is not None:
                        possible &= value if bits >> place & 1 else ~value
                sensitive |= possible & _ALL
        result |= masks[number] & sensitive
    return result
