"""docs/kernels.md agrees with the lint of the emulator, and hot kernels waste nothing except for known reasons."""

from __future__ import annotations

import pytest

from gpunet import emulator
from gpunet.launch.kernel import KERNELS
from gpunet.tools import access_table, kernel_table
from gpunet.tools.access_table import KNOWN_WASTE, Found, complaints
from gpunet.tools.representatives import representatives

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

VERSION, CELLS = access_table.parse(kernel_table.page_path().read_text(encoding="utf-8"))


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_accesses_memory_as_documented(name: str) -> None:
    same_compiler = access_table.compiler() == VERSION
    wrong = []
    for case in access_table.launches(KERNELS[name]):
        found = access_table.lint(case)
        wrong += complaints(found, CELLS.get(found.launch, []), same_compiler)
    assert wrong == []


def test_page_has_exactly_the_launches() -> None:
    cases = [case for kernel in KERNELS.values() for case in access_table.launches(kernel)]
    assert set(CELLS) == {f"{case.expression()}, {case.label}" for case in cases}, kernel_table.REWRITE
    shown = {
        expression for kernel in KERNELS.values() for expression in representatives(kernel) if "<float" in expression
    }
    assert {case.expression() for case in cases} == shown


def test_page_has_only_known_waste() -> None:
    for launch, (banks, reads, writes, _) in CELLS.items():
        assert banks in ("-", "none") or access_table.why_it_wastes(launch, "banks"), launch
        assert reads == "100%" or access_table.why_it_wastes(launch, "reads"), launch
        assert writes == "100%" or access_table.why_it_wastes(launch, "writes"), launch
    page = kernel_table.page_path().read_text(encoding="utf-8")
    assert all(reason in page for *_, reason in KNOWN_WASTE)


def test_new_waste_of_a_hot_kernel_is_reported() -> None:
    clean = ["none", "100%", "100%", ""]
    found = Found("matmul_forward<float, 64, true, true>, a b", 2, 0.5, 1.0, 0.5, ("simt.cuh:73",))
    banks, writes, more, fewer, stale = complaints(found, clean, True)
    assert "wastes banks at simt.cuh:73, and KNOWN_WASTE" in banks and "wastes writes" in writes
    assert "bank conflicts were none, and are 2 ways, +50%" in more and "writes were 100%, and are 50%" in fewer
    assert "docs/kernels.md has" in stale
    assert len(complaints(found, found.cells(), True)) == 2
    assert complaints(found._replace(degree=1, banks=0.0, writes=1.0), clean, False) == []
    assert complaints(found._replace(launch="erf_forward<float>, (7,)"), clean, False) == []
