"""Floors of main loops; test_performance_page.py holds the kernels to theirs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from gpunet.backend import cuda_sources
from gpunet.launch.facts import Floor
from gpunet.launch.kernel import KERNELS, Kernel
from gpunet.ops.gemm import SIMT, TILES, Cut
from gpunet.ops.linear import linear_backward_weight, linear_forward
from gpunet.tools import floors
from gpunet.tools.floors import ARCHITECTURES, complaints, floor_of, representatives
from gpunet.tools.kernel_cases import cases, specialisations
from gpunet.tools.multiprocessors import MULTIPROCESSORS, blocks_per_multiprocessor
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.tools.test_machine_code import needs_nvdisasm

WITH_FLOORS = [kernel for kernel in KERNELS.values() if kernel.floors]


def test_every_tile_of_a_product_has_a_floor_and_every_floor_a_tile() -> None:
    """A product is a kernel with a floor; all its representatives in float32 and on tensor cores have one."""
    for kernel in WITH_FLOORS:
        hot = [e for e in specialisations(kernel, "representative") if "<float," in e or e.endswith("Mma>")]
        for architecture in ARCHITECTURES:
            assert list(representatives(kernel, architecture)) == hot
        for pattern, architectures in kernel.floors:
            assert any(fnmatchcase(e.partition("<")[2], pattern) for e in hot), f"{kernel}: {pattern}"
            assert architectures == "*" or {*architectures.split()} < {*ARCHITECTURES}
    assert {"sm_75", *ARCHITECTURES} == {*MULTIPROCESSORS}


SLOW = """
template <class T>
__global__ void __launch_bounds__(256) entry(T* y, const T* x, int n) {
  __shared__ T staged[1024];
  T sum = 0, many[40];
  for (int i = 0; i < n; i++) {
    staged[threadIdx.x * 4 + 3] = x[i];
    __syncthreads();
    const float4 four = *reinterpret_cast<float4*>(staged + threadIdx.x * 4);
    sum += four.x * four.y + four.z * four.w;
    many[i % 40] = sum;
  }
  y[threadIdx.x] = sum + many[n % 40];
}
"""


@needs_nvrtc
@needs_nvdisasm
def test_planted_slow_loop_is_reported(monkeypatch: Any) -> None:
    def slow(y: Any, x: Any, n: Any) -> None:
        """Never runs."""

    kernel = Kernel(slow, cuda_sources.Source("slow.cu", SLOW), 1, {})
    kernel.describe(floors={("float>", "*"): Floor(0.5)})
    code = floors.compile_and_measure(kernel.file, ["entry<float>"], "sm_90a")
    instructions = floors.disassemble(code.cubin)[code.lowered["entry<float>"]]
    loop = floors.count_main_loop(instructions, "entry<float>")
    measured = floors.Measured(
        kernel, "entry<float>", "sm_90a", loop, code.usage["entry<float>"], 1, floors.local_accesses(instructions)
    )
    few, busy, local = complaints(measured)
    assert "of the main loop are arithmetic" in few and "the floor is 50%" in few
    assert f"shared memory takes {loop.shared_cycles} cycles" in busy and "the floor allows 1" in busy
    assert "access local memory; the floor allows none" in local
    kernel.describe(floors={("float>", "*"): Floor(0.01, shared=100.0)}, spills={("float>", "*"): "planted"})
    monkeypatch.setattr(kernel, "name", "entry")
    assert complaints(measured) == []
    kernel.describe()
    assert complaints(measured) == []


def test_first_matching_floor_holds() -> None:
    kernel = Kernel(lambda y, x: None, "", 1, {})
    kernel.describe(floors={("float, 128*", "sm_80 sm_90a"): Floor(0.8), ("float, *", "*"): Floor(0.5)})
    assert floor_of(kernel, "k<float, 128, Relu>", "sm_80") == Floor(0.8)
    assert floor_of(kernel, "k<float, 128, Relu>", "sm_120") == Floor(0.5)
    assert floor_of(kernel, "k<double, 128, Relu>", "sm_80") is None


@pytest.mark.parametrize(
    "architecture, threads, registers, shared, blocks",
    [
        ("sm_90a", 256, 128, 32768, 2),  # registers
        ("sm_90a", 256, 71, 16384, 3),
        ("sm_90a", 64, 128, 8192, 8),
        ("sm_120", 256, 32, 16384, 5),  # shared memory
        ("sm_120", 256, 32, 0, 6),  # threads
        ("sm_80", 32, 16, 0, 32),  # blocks
        ("sm_75", 96, 255, 0, 2),  # warps of a scheduler
    ],
)
def test_blocks_per_multiprocessor(architecture: str, threads: int, registers: int, shared: int, blocks: int) -> None:
    assert blocks_per_multiprocessor(architecture, threads, registers, shared) == blocks


@needs_nvrtc
@needs_nvdisasm
def test_shares_that_the_choice_of_tiles_assumes_are_those_of_the_machine_code() -> None:
    """``gpunet.ops.gemm`` chooses tiles without a compiler."""
    found = {cut[:2]: m.loop.share for cut, m in measured_loops() if cut.math == SIMT and "<float," in m.expression}
    assert found == pytest.approx(TILES, abs=0.02)


def measured_loops() -> list[tuple[Cut, floors.Measured]]:
    """The cuts and main loops of the representatives of ``linear_forward`` with ReLU."""
    shown = [
        case for case in cases(linear_forward, "representative", floating=("float32", "float16")) if "Relu" in case.expression()
    ]
    measured = floors.measure(linear_forward, {case.expression(): case.geometry() for case in shown}, "sm_90a")
    return [(case.options["cut"], m) for case, m in zip(shown, measured)]


@needs_nvrtc
@needs_nvdisasm
def test_main_loops_of_tensor_cores_that_the_choice_assumes_are_those_of_the_machine_code() -> None:
    for cut, measured in measured_loops():
        if cut.math != SIMT:
            cycles = max(measured.loop.issued, 4 * measured.arithmetic_cycles)
            shared = measured.loop.shared_cycles * cut.loop.warps
            assert (cycles, shared) == pytest.approx(cut.loop[1:], rel=0.1), measured.expression


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_has_the_main_loop_of_float16(architecture: str) -> None:
    shown = cases(linear_backward_weight, "representative", floating=("float16",))
    [geometry] = [case.geometry() for case in shown if "128, 128, true, Mma" in case.expression()]
    names = [linear_backward_weight.expression(half, geometry) for half in ("float16", "bfloat16")]
    first, second = floors.measure(linear_backward_weight, dict.fromkeys(names, geometry), architecture)
    assert first.loop.halves == second.loop.halves == 64 * 64 and first.loop.per_load == second.loop.per_load == 4
    assert second.loop.share >= 0.35 and not second.local_accesses


@needs_nvrtc
@needs_nvdisasm
def test_float16_is_multiplied_on_tensor_cores_before_sm_80() -> None:
    expression = "linear_forward<float16, 64, 64, true, Relu, Mma>"
    code = floors.compile_and_measure(linear_forward.file, [expression], "sm_75")
    names = [i.name for i in floors.disassemble(code.cubin)[code.lowered[expression]]]
    assert "HMMA" in names and "LDSM" in names and "LDGSTS" not in names and "LDL" not in names
