"""The speed of the emulator on a product of 256 x 256 matrices: the shipped float32 GEMM, and one on tensor cores.

pytest bench/test_emulator_gemm.py

Targets: SIMT below 20 ms in fast mode and 300 ms in check mode; tensor cores below 100 ms and 200 ms.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler
from gpunet.backend.devices import Device, move
from gpunet.ops.matmul import matmul_forward

N = 256
EMULATED = Device("emulated")
ON_TENSOR_CORES = Path(__file__).parents[1] / "tests" / "emulator" / "kernels" / "gemm_mma.cu"

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")


def matrices() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    return random.normal(size=(N, N)).astype(numpy.float32), random.normal(size=(N, N)).astype(numpy.float32)


@pytest.mark.parametrize("check", [False, True], ids=["fast", "check"])
def test_simt(benchmark, check):
    a, b = (move(x[None], EMULATED) for x in matrices())
    out = move(numpy.empty((1, N, N), numpy.float32), EMULATED)
    with emulator.check(check):
        benchmark(matmul_forward, out, None, None, a, b)
    numpy.testing.assert_allclose(out.get()[0], matrices()[0] @ matrices()[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("check", [False, True], ids=["fast", "check"])
@pytest.mark.parametrize("kind", ["Bf16", "Tf32"])
def test_tensor_cores(benchmark, kind, check):
    a, b = matrices()
    if kind == "Bf16":
        a, b = ((x.view(numpy.uint32) >> 16).astype(numpy.uint16) for x in (a, b))
    c = numpy.empty((N, N), numpy.float32)
    gemm = compiler.function(ON_TENSOR_CORES, f"gemm_mma<{kind}, 16>", EMULATED)
    with emulator.check(check, completion="lazy"):
        benchmark(gemm, (2, 2), (256,), (c, a, b, *(numpy.int32(N) for _ in range(5))))
    a, b = matrices()
    numpy.testing.assert_allclose(c, a @ b.T, rtol=0, atol=0.5)
