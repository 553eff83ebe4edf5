"""docs/kernels.md agrees with NVRTC, and hot kernels have no spills except the accepted ones."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.backend import cuda_sources
from gpunet.errors import CompileError
from gpunet.launch.kernel import KERNELS
from gpunet.ops.linear import linear_forward
from gpunet.ops.special import erf_forward
from gpunet.tools import access_table, kernel_table
from gpunet.tools.kernel_cases import specialisations
from gpunet.tools.kernel_table import ARCHITECTURES, REWRITE, complaints
from gpunet.tools.register_usage import Usage, compile_and_measure, parse_log
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.tools.test_access_table import needs_compiler

PAGE = kernel_table.page_path().read_text(encoding="utf-8")
VERSION, CELLS = kernel_table.parse(PAGE)


def test_page_has_exactly_the_representatives() -> None:
    rows = {e for kernel in KERNELS.values() for e in specialisations(kernel, "representative")}
    assert {expression for expression, _ in CELLS} == rows, REWRITE
    assert len(CELLS) == len(rows) * len(ARCHITECTURES)


def test_every_kernel_has_a_representative() -> None:
    for kernel in KERNELS.values():
        shown = specialisations(kernel, "representative")
        every = specialisations(kernel)
        assert set(shown) <= set(every), "an edge case selects every specialisation"
        assert any(expression.startswith(f"{kernel.name}<float") for expression in shown)
        for t in ("double", "float16"):
            taken, found = (any(e.startswith(f"{kernel.name}<{t}") for e in of) for of in (every, shown))
            assert found or not taken or "T" not in kernel.c_types


@needs_nvrtc
def test_page_lists_the_known_spills() -> None:
    """Every reason on the page is a fact of a kernel, and every spill on the page, hot or not, has a reason."""
    for (expression, architecture), cell in CELLS.items():
        if "spills" in cell:
            kernel = KERNELS[expression.partition("<")[0]]
            assert kernel_table.why_it_spills(kernel, expression, architecture), f"{expression} {architecture}: {cell}"
    listed = [line for line in PAGE.partition(access_table.TITLE)[0].splitlines() if line.startswith("- `")]
    reasons = {reason for kernel in KERNELS.values() for *_, reason in kernel_table.known_spills(kernel)}
    assert listed and all(any(line.endswith(reason) for reason in reasons) for line in listed)


def test_new_spill_of_a_hot_kernel_is_reported() -> None:
    spill = Usage(128, 33792, 8, 8, 12)
    expression = "linear_forward<float, 128, Relu>"
    (new, unknown, stale) = complaints(linear_forward, expression, "sm_80", spill, "126 / 33792", True)
    assert "spills 8 + 12 bytes; docs/kernels.md: 126 / 33792" in new
    assert "the facts of the kernel have no reason" in unknown
    assert REWRITE in stale
    assert len(complaints(linear_forward, expression, "sm_80", spill, "126 / 33792", False)) == 2
    assert complaints(erf_forward, "erf_forward<float>", "sm_80", spill, "30 / 0", False) == []
    assert complaints(linear_forward, expression, "sm_80", Usage(126, 33792, 0, 0, 0), "126 / 33792", True) == []


@needs_nvrtc
@needs_compiler
def test_page_is_written_and_printed(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    """With one kernel and one architecture."""
    for module in (kernel_table, access_table):
        monkeypatch.setattr(module, "KERNELS", {erf_forward.name: erf_forward})
    monkeypatch.setattr(kernel_table, "ARCHITECTURES", ("sm_90a",))
    monkeypatch.setattr(kernel_table, "page_path", lambda: tmp_path / "kernels.md")
    assert kernel_table.main(["--write"]) == kernel_table.main([]) == 0
    page = (tmp_path / "kernels.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out
    _, cells = kernel_table.parse(page)
    assert set(cells) == {(f"erf_forward<{t}>", "sm_90a") for t in ("float", "double", "float16")}
    _, launches = access_table.parse(page)
    assert launches == {"erf_forward<float>, (16384,)": ["-", "100%", "100%", ""]}
    assert ("## Known spills" in page) == ("spills" in cells["erf_forward<double>", "sm_90a"])


# ---- NVRTC's log ------------------------------------------------------------------------------------------------------

LOG = """\
main.cu(3): warning #177-D: variable "unused" was declared but never referenced

ptxas info    : 70 bytes gmem
ptxas info    : Compiling entry function '_Z5entryIfEvPT_' for 'sm_90a'
ptxas info    : Function properties for _Z5entryIfEvPT_
ptxas         .     16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 126 registers, used 1 barriers, 33792 bytes smem
ptxas info    : Compile time = 118.443 ms
ptxas info    : Compiling entry function '_Z5entryIdEvPT_' for 'sm_90a'
ptxas info    : Used 8 registers
"""


def test_log_is_parsed() -> None:
    usage, rest = parse_log(LOG)
    assert usage == {"_Z5entryIfEvPT_": Usage(126, 33792, 16, 12, 20), "_Z5entryIdEvPT_": Usage(8, 0, 0, 0, 0)}
    assert rest == 'main.cu(3): warning #177-D: variable "unused" was declared but never referenced'


@needs_nvrtc
def test_planted_spill_and_shared_memory_are_measured(tmp_path, monkeypatch) -> None:
    text = (
        "template <class T> __global__ void __launch_bounds__(1024, 2) entry(T* out) {\n"
        "  __shared__ T shared[100];\n  T many[64];\n  for (int i = 0; i < 64; i++) many[i] = out[i * 7 + threadIdx.x];\n"
        "  shared[threadIdx.x % 100] = many[5];\n  __syncthreads();\n"
        "  for (int i = 0; i < 64; i++) out[i] = many[i] * many[63 - i] + shared[i];\n}\n"
    )
    (tmp_path / "main.cu").write_text(text)
    monkeypatch.setattr(cuda_sources, "kernel_directory", lambda: tmp_path)
    usage = compile_and_measure("main.cu", ["entry<float>"], "sm_80").usage["entry<float>"]
    assert usage.spills
    assert (usage.registers, usage.shared) == (32, 400)
    (tmp_path / "main.cu").write_text("no CUDA\n")
    with pytest.raises(CompileError, match=r"main\.cu does not compile as entry<float> for sm_80"):
        compile_and_measure("main.cu", ["entry<float>"], "sm_80")
