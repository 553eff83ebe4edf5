"""docs/kernels.md and the costs of kernels agree with the lint, and hot kernels waste nothing except for known reasons."""

from __future__ import annotations

import pytest

from gpunet import emulator
from gpunet.launch.facts import Cost
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.matmul import matmul_forward
from gpunet.ops.special import erf_forward
from gpunet.tools import access_table, kernel_table
from gpunet.tools.access_table import Found, complaints

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
        wrong += costs(found, case.cost())
    assert wrong == []


def costs(found: Found, cost: Cost) -> list[str]:
    """Problems of the cost that a kernel states: more bytes than the launch moves, or fewer where it reads nothing twice."""
    read_by_every_block = 8192  # a scalar or two, such as the state of random numbers
    reads_once = found.degree == 0 and not found.kernel.waste  # no shared memory, no repeated sectors
    if cost.bytes > found.bytes:
        return [f"{found.launch} moves {found.bytes} bytes, fewer than its cost, {cost.bytes}"]
    if reads_once and found.bytes > 1.05 * cost.bytes + read_by_every_block:
        return [f"{found.launch} moves {found.bytes} bytes, more than its cost, {cost.bytes}"]
    return []


def test_wrong_costs_are_reported() -> None:
    found = Found(erf_forward, "erf_forward<float>, (16384,)", 0, 0.0, 1.0, 1.0, 131072, ())
    assert costs(found, Cost(0.0, 131072)) == []
    assert "fewer than its cost" in costs(found, Cost(0.0, 196608))[0]
    assert "more than its cost" in costs(found, Cost(0.0, 65536))[0]


def test_page_has_exactly_the_launches() -> None:
    cases = [case for kernel in KERNELS.values() for case in access_table.launches(kernel)]
    assert set(CELLS) == {f"{case.expression()}, {case.label}" for case in cases}, kernel_table.REWRITE


def kernel_of(launch: str) -> Kernel:
    """The kernel of a row of the page."""
    return KERNELS[launch.partition("<")[0]]


def test_page_has_only_known_waste() -> None:
    for launch, (banks, reads, writes, _) in CELLS.items():
        assert banks in ("-", "none") or access_table.why_it_wastes(kernel_of(launch), "banks"), launch
        assert reads == "100%" or access_table.why_it_wastes(kernel_of(launch), "reads"), launch
        assert writes == "100%" or access_table.why_it_wastes(kernel_of(launch), "writes"), launch
    page = kernel_table.page_path().read_text(encoding="utf-8")
    assert all(reason in page for kernel in KERNELS.values() for reason in kernel.waste.values())


def test_new_waste_of_a_hot_kernel_is_reported() -> None:
    clean = ["none", "100%", "100%", ""]
    found = Found(matmul_forward, "matmul_forward<float, 64, true, true>, a b", 2, 0.5, 1.0, 0.5, 0, ("simt.cuh:73",))
    banks, writes, more, fewer, stale = complaints(found, clean, True)
    assert "wastes banks at simt.cuh:73, and the facts of the kernel have no reason" in banks and "wastes writes" in writes
    assert "bank conflicts were none, and are 2 ways, +50%" in more and "writes were 100%, and are 50%" in fewer
    assert "docs/kernels.md has" in stale
    assert len(complaints(found, found.cells(), True)) == 2
    assert complaints(found._replace(degree=1, banks=0.0, writes=1.0), clean, False) == []
    assert complaints(found._replace(kernel=erf_forward), clean, False) == []
