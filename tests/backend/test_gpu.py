"""What the array shim does on a GPU, a real one or the stand-in driver's (tests/driver)."""

from __future__ import annotations

import numpy

import gpunet
from gpunet.backend import compiler
from gpunet.backend.cuda_sources import Source
from gpunet.backend.devices import Device

_SHARED = Source(
    "shared.cu",
    """\
extern "C" __global__ void reversed(float* y, const float* x, int n) {
  __shared__ float still[10240];
  extern __shared__ float moved[];
  still[10239 - threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  moved[n - 1 - threadIdx.x] = still[10239 - threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = moved[n - 1 - threadIdx.x] + moved[threadIdx.x];
}
""",
)


def test_static_and_dynamic_shared_memory_may_exceed_48_kb_together(gpu: str) -> None:
    function = compiler.function(_SHARED, "reversed", Device(gpu))
    x, y = gpunet.arange(64).float(), gpunet.zeros(64)
    for shared in (256, 20 << 10, 30 << 10, 9 << 10):  # beside 40 KB of static shared memory
        y.zero_()
        function((1,), (64,), (y.array, x.array, numpy.int32(64)), shared)
        assert y.tolist() == [63.0] * 64
