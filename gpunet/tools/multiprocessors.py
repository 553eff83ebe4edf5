"""Resources of a multiprocessor (SM) by architecture, and how many blocks of a kernel fit on one."""

from __future__ import annotations

from typing import NamedTuple

WARP, SCHEDULERS = 32, 4
_REGISTERS = 65536  # of every architecture here
_REGISTERS_AT_ONCE = 256  # a warp gets a multiple


class Multiprocessor(NamedTuple):
    """The resources of one SM (CUDA C++ Programming Guide, technical specifications per compute capability).

    Of tensor cores: dense products of halves, with sums in float32, at the peak of the data sheets of T4, A100, H100 and RTX PRO
    6000 Blackwell.  For mma.sync of sm_100a no rate is published; it is assumed to be that of sm_90a.
    """

    threads: int
    blocks: int
    shared: int  # bytes for all blocks
    reserved: int  # bytes of them that the system takes for each block
    lanes: int  # fused multiply-adds in float32 per cycle
    lanes64: int  # the same in float64
    tensor: int  # the same of halves on tensor cores; of TF32 half as many


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(1024, 16, 64 << 10, 0, 64, 2, 512),
    "sm_80": Multiprocessor(2048, 32, 164 << 10, 1024, 64, 32, 1024),
    "sm_90a": Multiprocessor(2048, 32, 228 << 10, 1024, 128, 64, 2048),
    "sm_100a": Multiprocessor(2048, 32, 228 << 10, 1024, 128, 64, 2048),
    "sm_120": Multiprocessor(1536, 24, 100 << 10, 1024, 128, 2, 512),
}


def blocks_per_multiprocessor(architecture: str, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks of a kernel an SM holds at once.

    Args:
        architecture: a key of :data:`MULTIPROCESSORS`.
        threads: of a block.
        registers: of a thread.
        shared: bytes of a block, static and dynamic.
    """
    limits = MULTIPROCESSORS[architecture]
    warps = -(-threads // WARP)
    of_a_warp = -(-max(registers, 1) * WARP // _REGISTERS_AT_ONCE) * _REGISTERS_AT_ONCE
    fitting_warps = _REGISTERS // SCHEDULERS // of_a_warp * SCHEDULERS  # each scheduler has a quarter of the registers
    return min(
        limits.blocks, limits.threads // (warps * WARP), fitting_warps // warps, limits.shared // max(1, shared + limits.reserved)
    )
