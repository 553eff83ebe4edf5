"""Integer division in the emulator has a GPU's results where x86 raises a signal."""

from __future__ import annotations

import platform

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import disk_cache
from gpunet.emulator import Function
from gpunet.errors import EmulationError

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

SOURCE = """\
template <class T> __global__ void divide(T* quotient, T* rest, const T* x, const T* y, int n) {
  for (int i = 0; i < n; i++) {
    quotient[i] = x[i] / y[i];
    rest[i] = x[i] % y[i];
  }
}
"""
#: Each way to name a divisor in an instruction: registers, addresses with and without index, displacement and base.
OPERANDS = ["%%rcx", "%%r9", "(%%rcx)", "(%%r9)", "8(%%rcx)", "-8(%%r9)", "1024(%%rcx)", "-1024(%%r13)", "8(%%rsp)",
            "(%%rcx,%%r10,8)", "8(%%r9,%%rdi,4)", "1024(%%r13,%%r10,2)", "64(,%%rdi,8)", "(%%r13,%%r10)",
            "emulator_divisor(%%rip)"]  # fmt: skip


def function(text: str, expression: str) -> Function:
    return Function(text, "division.cu", expression, disk_cache.cache_directory() / "emulator")


@pytest.mark.parametrize("c_type, dtype", [("int", "i4"), ("long long", "i8"), ("short", "i2"), ("signed char", "i1")])
def test_the_smallest_integer_divided_by_minus_one_wraps(c_type: str, dtype: str) -> None:
    least = numpy.iinfo(dtype).min
    x = numpy.array([least, least, 7, -7, least + 1], dtype)
    y = numpy.array([-1, 2, -1, 3, -1], dtype)
    quotient, rest = numpy.zeros(5, dtype), numpy.zeros(5, dtype)
    function(SOURCE, f"divide<{c_type}>")(1, 1, (quotient, rest, x, y, numpy.int32(5)))
    assert quotient.tolist() == [least, least // 2, -7, -2, -(least + 1)]
    assert rest.tolist() == [0, 0, 0, -1, 0]


@pytest.mark.parametrize("c_type, dtype", [("int", "i4"), ("unsigned long long", "u8")])
def test_division_by_zero_is_a_finding(c_type: str, dtype: str) -> None:
    x, y, quotient = numpy.ones(1, dtype), numpy.zeros(1, dtype), numpy.zeros(1, dtype)
    with pytest.raises(EmulationError, match=r"division: divides an integer by zero, at division.cu:3 \[block"):
        function(SOURCE, f"divide<{c_type}>")(1, 1, (quotient, quotient.copy(), x, y, numpy.int32(1)))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86")
@pytest.mark.parametrize("operand", OPERANDS)
def test_every_operand_is_decoded(operand: str) -> None:
    bits = [64, 32] if operand != "%%r9" and operand != "%%rcx" else [64]
    for size in bits:
        text = f"""\
        extern "C" __attribute__((used, visibility("hidden"))) volatile long long emulator_divisor;
        volatile long long emulator_divisor = -1;
        __global__ void divide(long long* to, long long* memory) {{
          for (int i = 0; i < 1024; i++) memory[i] = -1;
          long long* middle = memory + 512;
          long long quotient = {"1LL << 63" if size == 64 else "1LL << 31"}, rest = -1;
          const bool in_register = {int("(" not in operand)};
          asm volatile(
              "mov %[b], %%rcx; mov %[b], %%r9; mov %[b], %%r13; mov %[i], %%r10; mov %[d], %%rdi;"
              "sub $128, %%rsp; push $-1; push $-1; push $-1;"
              "{"idivq" if size == 64 else "idivl"} {operand};"
              "add $152, %%rsp"
              : "+a"(quotient), "+d"(rest)
              : [b] "r"(in_register ? -1LL : (long long)middle), [i] "r"(4LL),
                [d] "r"({"((long long)middle - 64) / 8" if "(,%%rdi" in operand else "4LL"})
              : "rcx", "r9", "r13", "r10", "rdi", "cc", "memory");
          to[0] = quotient;
          to[1] = rest;
        }}
        """
        to = numpy.zeros(2, "i8")
        function(text, "divide")(1, 1, (to, numpy.zeros(1024, "i8")))
        assert to.tolist() == [-(2**63) if size == 64 else 2**31, 0], (operand, size)
