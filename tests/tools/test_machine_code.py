"""Control flow, the path through the main loop, and addresses of lanes, on machine code written by hand."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gpunet.errors import CompileError
from gpunet.tools import machine_code
from gpunet.tools.lane_addresses import paired_reads
from gpunet.tools.machine_code import Code, Instruction, disassemble
from gpunet.tools.main_loop import count_main_loop, find_main_loop, local_accesses


def nvdisasm_is_installed() -> bool:
    try:
        machine_code.nvdisasm()
    except CompileError:
        return False
    return True


needs_nvdisasm = pytest.mark.skipif(not nvdisasm_is_installed(), reason="nvdisasm is not installed")


def assemble(text: str) -> list[Instruction]:
    """Instructions from lines such as ``loop: @P0 BRA loop``; a label becomes the address that it stands at."""
    lines = [line.strip() for line in text.strip().splitlines()]
    labels = {line.partition(":")[0]: f"{16 * at:#x}" for at, line in enumerate(lines) if ":" in line}
    found = []
    for line in lines:
        words = line.rpartition(":")[2].split(maxsplit=2 if "@" in line else 1)
        predicate = words.pop(0) if words[0].startswith("@") else ""
        operands = tuple(labels.get(o.strip(), o.strip()) for o in words[1].split(",")) if len(words) > 1 else ()
        found.append(Instruction(words[0], operands, predicate))
    return found


#: A loop over batches around a main loop, which skips its copy in the last step and has a slow copy for ragged edges.
PRODUCT = assemble(
    """
           S2R R0, SR_TID.X
    batch: IADD3 R9, R9, 0x1, RZ
    step:  ISETP.GE.AND P0, PT, R1, R2, PT
           @P0 BRA multiply
           @P1 BRA P2, ragged
           LDG.E.128 R4, desc[UR4][R2.64]
           BRA multiply
    ragged: LDG.E R4, desc[UR4][R2.64]
           @P3 LDG.E R5, desc[UR4][R2.64+0x4]
           LDG.E R6, desc[UR4][R2.64+0x8]
           LDG.E R7, desc[UR4][R2.64+0xc]
    multiply: LDS.128 R8, [R20]
           FFMA R12, R8, R9, R12
           FFMA2 R14, R8, R9, R14
           @P0 BRA last
           STS.64 [R21], R4
    last:  BAR.SYNC.DEFER_BLOCKING 0x0
           @!P0 BRA step
           STL [R1], R4
           @P4 BRA batch
           EXIT
    """
)


def test_path_through_the_main_loop_copies_the_next_step_by_the_fast_branch() -> None:
    indices = find_main_loop(Code(PRODUCT))
    assert [PRODUCT[index].name for index in indices] == [
        "ISETP", "BRA", "BRA", "LDG", "BRA", "LDS", "FFMA", "FFMA2", "BRA", "STS", "BAR", "BRA"
    ]  # fmt: skip
    loop = count_main_loop(PRODUCT, "product")
    assert (loop.issued, loop.arithmetic, loop.share) == (12, 3, 0.25)
    assert loop.accesses == {"LDG 16": 1, "LDS 16": 1, "STS 8": 1}
    assert loop.shared_cycles == 2 + 2  # R20 is the same in all lanes
    assert local_accesses(PRODUCT) == 1


def test_a_function_without_arithmetic_in_a_loop_is_an_error() -> None:
    with pytest.raises(CompileError, match="copy for sm_80 has no main loop"):
        count_main_loop(assemble("loop: LDG.E R4, desc[UR4][R2.64]\n@P0 BRA loop\nFFMA R1, R2, R3, R4\nEXIT"), "copy for sm_80")


def test_a_jump_back_from_code_out_of_line_is_no_loop() -> None:
    code = Code(assemble("@P0 BRA slow\nback: FFMA R1, R2, R3, R4\nEXIT\nslow: MOV R2, RZ\nBRA back"))
    assert list(code.loops()) == []


@pytest.mark.parametrize(
    "address, pairs",
    [
        ("MOV R1, R0", False),
        ("LOP3.LUT R1, R0, 0x1c, RZ, 0xc0, !PT", True),  # tid & 28
        ("LOP3.LUT R1, R0, 0x1d, RZ, 0xc0, !PT", True),  # depends on bit 0, not on bit 1
        ("LOP3.LUT R1, R0, 0x3, RZ, 0xc0, !PT", False),
        ("LOP3.LUT R1, R5, 0x3, R0, 0x3, !PT", True),  # ~a & ~b, without c
        ("LOP3.LUT R1, R0, 0x3, R5, 0xf2, !PT", False),  # a | ~b & c
        ("SHF.R.U32.HI R1, RZ, 0x1, R0", True),
        ("SHF.L.U32 R1, R0, 0x1f, RZ", True),  # bit 0 is the sign, bit 1 is gone
        ("IMAD.SHL.U32 R1, R0, 0x10, RZ", False),
        ("IMAD R1, R0, 0x80000000, R5", True),  # bit 0 is the sign
        ("IMAD R1, R0, 0x40000000, R5", False),
        ("LEA.HI R1, R0, R5, RZ, 0x1e", True),  # tid >> 2
        ("LEA R1, R0, R5, 0x4", False),
        ("I2F R1, R0", False),
        ("SEL R1, RZ, 0x1, P0", False),
        ("IADD3 R1, P0, PT, R5, R6, RZ", True),  # P0 is the carry out
        ("@P0 MOV R1, RZ", False),
        ("S2R R1, SR_CTAID.X", True),
        ("SHFL.IDX PT, R1, R5, RZ, 0x1f", False),
        ("SHFL.IDX PT, R1, R5, R0, 0x1f", True),  # from the own lane
        ("SHFL.IDX PT, R1, R0, R0, 0x1f", False),
        ("SHFL.IDX PT, R1, R5, R2, 0x1f", False),
        ("SHFL.BFLY PT, R1, R5, R0, 0x1f", False),
    ],
)
def test_reads_of_one_address_by_two_lanes(address: str, pairs: bool) -> None:
    code = assemble(f"S2R R0, SR_TID.X\nLOP3.LUT R2, R0, 0x3, RZ, 0xc0, !PT\nISETP.EQ.AND P0, PT, R2, 0x1, PT\n{address}\n"
                    "LDS.128 R8, [R1+UR4+0x100]\nEXIT")  # fmt: skip
    assert paired_reads(Code(code)) == ({4} if pairs else set())


def test_addresses_are_followed_around_a_loop() -> None:
    text = "MOV R1, RZ\nS2R R0, SR_TID.X\nloop: LDS.128 R8, [R1]\n{}\nLDS.128 R8, [R0]\n@P0 BRA loop\nEXIT"
    assert paired_reads(Code(assemble(text.format("IADD3 R1, R1, 0x10, RZ")))) == {2}
    assert paired_reads(Code(assemble(text.format("IADD3 R1, R1, R0, RZ")))) == set()


def test_without_nvdisasm_the_error_says_what_to_install(monkeypatch: Any) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    monkeypatch.setattr(machine_code.toolkit, "installed", lambda *patterns: iter(()))
    monkeypatch.setattr(machine_code.shutil, "which", lambda name: None)
    with pytest.raises(CompileError, match=r"pip install 'gpunet\[machine-code\]'"):
        machine_code.nvdisasm.__wrapped__()
    monkeypatch.setattr(machine_code.shutil, "which", lambda name: __file__)
    assert machine_code.nvdisasm.__wrapped__() == Path(__file__)


@needs_nvdisasm
def test_a_damaged_cubin_is_an_error() -> None:
    with pytest.raises(CompileError, match="nvdisasm.* failed"):
        disassemble(b"\x7fELF")
    assert subprocess.run([machine_code.nvdisasm(), "--version"], capture_output=True, check=False).returncode == 0
