"""The lint of check mode counts what a card would, and docs/kernels.md says what it counts in our kernels."""

from __future__ import annotations

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import disk_cache
from gpunet.backend.devices import EmulatedArray
from gpunet.emulator import Access, Function
from gpunet.launch.kernel import KERNELS
from gpunet.tools import access_table, kernel_table
from gpunet.tools.access_table import KNOWN_WASTE, Found, complaints
from gpunet.tools.representatives import representatives

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

VERSION, CELLS = access_table.parse(kernel_table.page_path().read_text(encoding="utf-8"))

# ---- what is counted ----------------------------------------------------------------------------------------------------


def lint(code: str, block: int = 32, count: int = 4096) -> list[Access]:
    """Accesses of a kernel with ``code`` in line 3: to floats ``s`` in shared memory, and to the arrays out and in."""
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


#: index into shared floats that lane t writes: (bytes, wavefronts, ideal, degree) of a warp's one access
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


#: What nobody reads would not be written either.
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


#: (sectors, ideal) of a warp's one read
GLOBAL = {
    "in[t]": (4, 4),
    "in[t + 1]": (5, 4),
    "in[31 - t]": (4, 4),
    "in[2 * t]": (8, 4),
    "in[8 * t]": (32, 4),
    "in[64 * t]": (32, 4),
    "in[7]": (1, 1),
    "in[t / 2]": (2, 2),
    "reinterpret_cast<const float4*>(in)[t].y": (16, 4),  # of each float4, one float is asked for
}


@needs_compiler
@pytest.mark.parametrize("code", GLOBAL)
def test_sectors(code: str) -> None:
    found = only(lint(f"out[t] = {code};"), "global", False)
    assert (found.transactions, found.ideal) == GLOBAL[code]
    assert found.efficiency == GLOBAL[code][1] / GLOBAL[code][0]


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
    """Each trip is an access of its own, and each warp; after a barrier lanes that skipped trips are together again."""
    loop = "for (int k = 0; k < 3; k++) { if (t % 32 < 16 || k == 2) out[64 * k + t] = 1; __syncthreads(); }"
    found = only(lint(loop, block=64), "global", True)
    assert (found.requests, found.transactions, found.ideal) == (6, 2 * 2 + 2 * 2 + 4 * 2, 16)


@needs_compiler
def test_arrays_stand_where_a_card_would_place_them() -> None:
    """NumPy's memory begins anywhere; a view's first element stays as far from its owner's as it is."""
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
def test_report_sums_launches_and_is_off_elsewhere() -> None:
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


# ---- our kernels --------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_accesses_memory_as_documented(name: str) -> None:
    same_compiler = access_table.compiler() == VERSION
    wrong = []
    for case in access_table.launches(KERNELS[name]):
        found = access_table.lint(case)
        wrong += complaints(found, CELLS.get(found.launch, []), same_compiler)
    assert wrong == []


def test_page_has_all_launches_and_no_others() -> None:
    cases = [case for kernel in KERNELS.values() for case in access_table.launches(kernel)]
    assert set(CELLS) == {f"{case.expression()}, {case.label}" for case in cases}, kernel_table.REWRITE
    shown = {
        expression for kernel in KERNELS.values() for expression in representatives(kernel) if "<float" in expression
    }
    assert {case.expression() for case in cases} == shown


def test_known_waste_is_on_the_page_and_nothing_else_is() -> None:
    for launch, (banks, reads, writes, _) in CELLS.items():
        assert banks in ("-", "none") or access_table.why_it_wastes(launch, "banks"), launch
        assert reads == "100%" or access_table.why_it_wastes(launch, "reads"), launch
        assert writes == "100%" or access_table.why_it_wastes(launch, "writes"), launch
    page = kernel_table.page_path().read_text(encoding="utf-8")
    assert all(reason in page for *_, reason in KNOWN_WASTE)


def test_new_waste_of_a_hot_kernel_is_told() -> None:
    clean = ["none", "100%", "100%", ""]
    found = Found("matmul_forward<float, 64, true, true>, a b", 2, 0.5, 1.0, 0.5, ("simt.cuh:73",))
    banks, writes, more, fewer, stale = complaints(found, clean, True)
    assert "wastes banks at simt.cuh:73, and KNOWN_WASTE" in banks and "wastes writes" in writes
    assert "bank conflicts were none, and are 2 ways, +50%" in more and "writes were 100%, and are 50%" in fewer
    assert "docs/kernels.md says" in stale
    assert len(complaints(found, found.cells(), True)) == 2
    assert complaints(found._replace(degree=1, banks=0.0, writes=1.0), clean, False) == []
    assert complaints(found._replace(launch="erf_forward<float>, (7,)"), clean, False) == []
