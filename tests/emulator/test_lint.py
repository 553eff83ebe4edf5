"""The lint of the emulator: transactions of shared and global memory in planted kernels, counted as on a GPU."""

from __future__ import annotations

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources, disk_cache
from gpunet.backend.devices import EmulatedArray
from gpunet.emulator import Access, Function

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")


def lint(code: str, block: int = 32, count: int = 4096) -> list[Access]:
    """Accesses of a kernel with ``code`` on line 3, which uses shared floats ``s`` and the arrays ``out`` and ``in``."""
    text = (
        "__global__ void planted(float* out, const float* in) {\n"
        "  __shared__ __align__(16) float s[2048]; const int t = threadIdx.x;\n"
        f"{code}\n}}\n"
    )
    function = Function(text, "planted.cu", "planted", disk_cache.cache_directory() / "emulator")
    arrays = [numpy.zeros(count, numpy.float32), numpy.ones(count, numpy.float32)]
    with emulator.lint() as report:
        function((1,), (block,), arrays)
    return report.accesses()


def only(accesses: list[Access], memory: str, write: bool) -> Access:
    (found,) = [a for a in accesses if (a.memory, a.write) == (memory, write)]
    return found


#: statement of lane t -> (bytes, wavefronts, ideal, degree) of the access of a warp
SHARED = {
    "s[t] = 1": (4, 1, 1, 1),
    "s[2 * t] = 1": (4, 2, 1, 2),
    "s[3 * t] = 1": (4, 1, 1, 1),
    "s[32 * t] = 1": (4, 32, 1, 32),
    "s[33 * t] = 1": (4, 1, 1, 1),
    "if (t < 8) s[32 * t] = 1": (4, 8, 1, 8),
    "reinterpret_cast<double*>(s)[t] = 1": (8, 2, 2, 1),
    "reinterpret_cast<double*>(s)[2 * t] = 1": (8, 4, 2, 2),
    "reinterpret_cast<float4*>(s)[t] = make_float4(1, 2, 3, 4)": (16, 4, 4, 1),
    "reinterpret_cast<float4*>(s)[2 * t] = make_float4(1, 2, 3, 4)": (16, 8, 4, 2),
    "reinterpret_cast<unsigned char*>(s)[t] = 1": (1, 1, 1, 1),  # four lanes a word
}


#: A conditional read, so that the compiler keeps the writes.
READ = "if (in[0] > 5) out[t] = s[t ^ 1];"


@needs_compiler
@pytest.mark.parametrize("code", SHARED)
def test_bank_conflicts(code: str) -> None:
    found = only(lint(f"{code}; {READ}"), "shared", True)
    assert (found.bytes, found.transactions, found.ideal, found.degree) == SHARED[code]
    assert (found.requests, found.file, found.line, found.calls) == (1, "planted.cu", 3, ())
    assert found.excess == SHARED[code][1] / SHARED[code][2] - 1


@needs_compiler
def test_broadcast_is_no_conflict() -> None:
    read = only(lint("s[t] = 1; __syncthreads();\nout[t] = s[t / 8 * 8];"), "shared", False)
    assert (read.transactions, read.ideal, read.degree, read.line) == (1, 1, 1, 4)


#: expression of lane t -> (sectors, ideal) of the read of a warp
GLOBAL = {
    "in[t]": (4, 4),
    "in[t + 1]": (5, 4),
    "in[31 - t]": (4, 4),
    "in[2 * t]": (8, 4),
    "in[8 * t]": (32, 4),
    "in[64 * t]": (32, 4),
    "in[7]": (1, 1),
    "in[t / 2]": (2, 2),
    "reinterpret_cast<const float4*>(in)[t].y": (16, 4),  # uses one float of each float4
}


@needs_compiler
@pytest.mark.parametrize("code", GLOBAL)
def test_sectors(code: str) -> None:
    found = only(lint(f"out[t] = {code};"), "global", False)
    assert (found.transactions, found.ideal) == GLOBAL[code]
    assert found.efficiency == GLOBAL[code][1] / GLOBAL[code][0]


@needs_compiler
@pytest.mark.parametrize("stride, sectors", [(1, 4), (8, 32)])
def test_asynchronous_copies_count_at_their_start(stride: int, sectors: int) -> None:
    """As reads of global memory, and as writes of shared memory."""
    text = f"""\
#include "common/primitives.cuh"
__global__ void planted(float* out, const float* in) {{
  __shared__ __align__(16) float s[2048]; const int t = threadIdx.x;
  cp_async<4>(&s[32 * t], in + {stride} * t);
  cp_async_wait_all(); __syncthreads(); out[t] = s[32 * (t ^ 1)];
}}
"""
    text = cuda_sources.spliced_text(text, "planted.cu", [cuda_sources.kernel_directory()])
    function = Function(text, "planted.cu", "planted", disk_cache.cache_directory() / "emulator")
    with emulator.lint() as report:
        function((1,), (32,), [numpy.zeros(4096, numpy.float32), numpy.ones(4096, numpy.float32)])
    read, written = only(report.accesses(), "global", False), only(report.accesses(), "shared", True)
    assert (read.bytes, read.transactions, read.ideal) == (4, sectors, 4)
    assert (written.bytes, written.transactions, written.degree) == (4, 32, 32)


@needs_compiler
def test_a_whole_float4_is_one_access() -> None:
    found = only(
        lint("const float4 v = reinterpret_cast<const float4*>(in)[t];\nout[t] = v.x + v.y + v.z + v.w;"),
        "global",
        False,
    )
    assert (found.bytes, found.requests, found.transactions, found.ideal) == (16, 1, 16, 16)


@needs_compiler
def test_loops_warps_and_divergence() -> None:
    """Each iteration and each warp is a separate access. Lanes that skip iterations converge again at a barrier."""
    loop = "for (int k = 0; k < 3; k++) { if (t % 32 < 16 || k == 2) out[64 * k + t] = 1; __syncthreads(); }"
    found = only(lint(loop, block=64), "global", True)
    assert (found.requests, found.transactions, found.ideal) == (6, 2 * 2 + 2 * 2 + 4 * 2, 16)


@needs_compiler
def test_arrays_are_aligned_as_on_a_gpu() -> None:
    """The lint aligns the owner of the memory, and a view keeps its offset from the start of its owner."""
    memory = numpy.zeros(4096 + 3, numpy.float32)
    text = "__global__ void planted(float* out, const float* in) { out[threadIdx.x] = in[threadIdx.x]; }"
    function = Function(text, "planted.cu", "planted", disk_cache.cache_directory() / "emulator")
    out = numpy.zeros(32, numpy.float32).view(EmulatedArray)
    assert emulator.lint_report(function, (1,), (32,), (out, memory[:32])) == []
    (found,) = emulator.lint_report(function, (1,), (32,), (out, memory[3:35]))
    assert (found.memory, found.file, found.line, found.degree) == ("global", "planted.cu", 1, 5)
    assert found.message == (
        "reads of 4 bytes per thread at planted.cu:1: 5 sectors of global memory instead of 4 (80%)"
    )


@needs_compiler
def test_report_sums_launches_within_the_context_only() -> None:
    text = "__global__ void planted(float* out) {\nout[8 * threadIdx.x] = 1;\n}"
    function = Function(text, "planted.cu", "planted", disk_cache.cache_directory() / "emulator")
    out = numpy.zeros(256, numpy.float32)
    with emulator.lint() as report:
        assert str(report) == "no findings"
        function((1,), (1,), (out,))
        assert str(report) == "no findings"
        function((1,), (32,), (out,))
    assert [(a.requests, a.transactions, a.ideal, a.degree) for a in report.accesses()] == [(2, 33, 5, 32)]
    assert report.findings() == report.accesses() and report.findings(above=6.0) == []
    assert function.counts is not None and function.counts.tallies
    with emulator.check():
        function((1,), (1,), (out,))
    assert function.counts.tallies == ()


@needs_compiler
def test_report_in_words() -> None:
    found = lint(f"s[2 * t] = 1; {READ}")
    report = emulator.Report()
    report.accesses = lambda: found  # type: ignore[method-assign]
    assert str(report) == (
        "planted: writes of 4 bytes per thread at planted.cu:3: up to 2-way bank conflicts, 2 wavefronts instead of 1"
    )
