"""Conversions of halves, which loops keep as 16-bit integers, to float32 and back.

They are integer operations, because LLVM calls a library function for halves where the CPU has no instructions for them.
"""

from __future__ import annotations

from numba import float32, int32, uint16

from gpunet.captured.compiled.jit.arithmetic import bitcast, select
from gpunet.captured.compiled.jit.decorators import jit_helper


@jit_helper
def widen_f2(half):
    """float16 to float32, exact."""
    sign, magnitude = int32(int32(half & uint16(0x8000)) << int32(16)), int32(int32(half & uint16(0x7FFF)) << int32(13))
    scaled = bitcast(bitcast(magnitude) * float32(2.0**112))  # makes subnormal numbers normal, too
    is_finite = magnitude < int32(0x0F800000)
    return bitcast(int32(sign | select(is_finite, scaled, int32(0x70000000 | magnitude))))


@jit_helper
def round_f2(value):
    """float32 to float16, rounded to nearest, ties to even."""
    bits = bitcast(value)
    sign, magnitude = int32(int32(bits >> int32(16)) & int32(0x8000)), int32(bits & int32(0x7FFFFFFF))
    is_odd = int32(int32(magnitude >> int32(13)) & int32(1))
    normal = int32(int32(magnitude - int32(0x38000000) + int32(0xFFF) + is_odd) >> int32(13))
    # subnormal halves have the spacing of floats near 0.5, so that this sum rounds
    subnormal = int32(bitcast(bitcast(magnitude) + float32(0.5)) - int32(0x3F000000))
    half = select(magnitude >= int32(0x38800000), normal, subnormal)
    half = select(magnitude >= int32(0x477FF000), int32(0x7C00), half)  # from halfway above the largest number: infinity
    return uint16(sign | select(magnitude > int32(0x7F800000), int32(0x7E00), half))


@jit_helper
def widen_bf2(half):
    """bfloat16 to float32, exact."""
    return bitcast(int32(int32(half) << int32(16)))


@jit_helper
def round_bf2(value):
    """float32 to bfloat16, rounded to nearest, ties to even."""
    bits = bitcast(value)
    sign, magnitude = int32(int32(bits >> int32(16)) & int32(0x8000)), int32(bits & int32(0x7FFFFFFF))
    is_odd = int32(int32(magnitude >> int32(16)) & int32(1))
    half = int32(int32(magnitude + int32(0x7FFF) + is_odd) >> int32(16))
    return uint16(sign | select(magnitude > int32(0x7F800000), int32(0x7FC0), half))
