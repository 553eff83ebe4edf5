"""Planted bugs in the use of Hopper's instructions: each is reported with its line, and the correct kernels are clean."""

from __future__ import annotations

import re
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources, disk_cache
from gpunet.backend.devices import EmulatedArray
from gpunet.backend.tensor_map import TensorMap
from gpunet.emulator import COMPLETIONS, SCHEDULES, Function
from gpunet.errors import EmulationError, LaunchError

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

#: Loads a tile of x into shared memory, doubles it, and stores it to y.
COPY = """\
__global__ void planted(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap y, float* out) {
  extern __shared__ __align__(1024) unsigned char shared[];
  MBarrier* full = reinterpret_cast<MBarrier*>(shared);
  float* tile = reinterpret_cast<float*>(shared + 1024);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(full, 1024);
    tensor_load(tile, &x, {0, 0}, full);
  }
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < 256; i += blockDim.x) tile[i] *= 2.0f;
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_store(&y, {0, 0}, tile);
    bulk_commit();
    bulk_wait<0>();
  }
}
"""
#: A warpgroup multiplies a tile by itself, twice.
MULTIPLY = """\
__global__ void planted(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap y, float* out) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned short* tile = reinterpret_cast<unsigned short*>(shared);
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 64; i += blockDim.x) tile[i] = 0x3f80;
  fence_proxy_async();
  __syncthreads();
  const unsigned long long operand = matrix_descriptor(shared, Swizzle::bytes128, 16, 1024);
  float d[4];
  wgmma_fence();
  wgmma<Format::BF16, 8>(d, operand, operand, false);
  wgmma<Format::BF16, 8>(d, operand, operand, true);
  wgmma_commit();
  wgmma_wait<0>(d);
  __syncthreads();
  tile[t] = 0;
  for (int i = 0; i < 4; i++) out[4 * t + i] = d[i];
}
"""
#: The first of two blocks writes to the second one's shared memory, by a multicast copy and directly; both read the first's.
CLUSTER = """\
__global__ void __cluster_dims__(2) planted(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap y, float* out) {
  extern __shared__ __align__(1024) unsigned char shared[];
  MBarrier* full = reinterpret_cast<MBarrier*>(shared);
  float* tile = reinterpret_cast<float*>(shared + 1024);
  float* number = reinterpret_cast<float*>(shared + 512);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 2);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(full, 1024);
  }
  cluster_arrive();
  cluster_wait();
  if (cluster_rank() == 0 && threadIdx.x == 0) {
    tensor_load_multicast(tile, &x, {0, 0}, full, 3);
    for (int block = 0; block < 2; block++) {
      *map_shared(number, block) = 1.0f;
      mbarrier_arrive_remote(full, block);
    }
  }
  mbarrier_wait_cluster(full, 0);
  out[blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x] + *map_shared(number, 0);
  cluster_arrive();
  cluster_wait();
}
"""

UNREAD = r"(race|not waited for): thread 0 reads .* at planted\.cu:15; .* asynchronous copy .* planted\.cu:{}"
MEET = "  cluster_arrive();\n  cluster_wait();\n"
STORE = "  __syncthreads();\n  if (threadIdx.x == 0) {\n    tensor_store"
AGAIN = "if (threadIdx.x == 0) mbarrier_expect_tx(full, 1024), tensor_load(tile, &x, {0, 0}, full);"
MORE = "d[0] += 1.0f; wgmma<Format::BF16, 8>(d, operand, operand, true); wgmma_commit(); wgmma_wait<0>(d);"
INVALID = "if (threadIdx.x == 0) mbarrier_inval(full); else mbarrier_wait(full, 0);"
BEHIND = "__syncthreads();\n  if (threadIdx.x == 0) {\n    mbarrier_arrive"
NUMBER, ARRIVAL = "      *map_shared(number, block) = 1.0f;\n", "      mbarrier_arrive_remote(full, block);\n"
RESIZE = "if (t < 64) set_more_registers<232>(); else set_more_registers<240>();"
LACKS = (
    r"divergence: 64 of 64 threads .* wait at the mbarrier_wait of planted\.cu:14, where phase {} of the mbarrier initialised at "
    r"planted\.cu:6 lacks {} of 1 arrivals and {} bytes"
)
FENCE = r"proxy fence: the transfer that thread \d+ starts at .*:{} reads byte \d+ of .*, which thread \d+ wrote at planted\.cu:{}"
OVER = r"not waited for: thread \d+ writes .* at planted\.cu:{}; .* from it that thread \d+ started at planted\.cu:{}"

#: name: (kernel, old text, new text, expected finding)
MISTAKES = {
    "not waited for": (COPY, "mbarrier_wait(full, 0);", "", UNREAD.format(12)),
    "no bytes expected": (COPY, "arrive_expect_tx(full, 1024)", "arrive(full)", UNREAD.format(12)),
    "tile overwritten by another copy": (COPY, "mbarrier_wait(full, 0);", "mbarrier_wait(full, 0); " + AGAIN, UNREAD.format(14)),
    "too many bytes expected": (COPY, "(full, 1024)", "(full, 2048)", LACKS.format(0, 0, 1024)),
    "too few bytes expected": (
        COPY, "(full, 1024)", "(full, 512)",
        r"mbarrier: the phase of the mbarrier initialised at planted\.cu:6 gets 512 bytes more than .* expected, at planted\.cu:12",
    ),
    "one arrival too many": (
        COPY, "tx(full, 1024);", "tx(full, 1024); mbarrier_arrive(full);",
        r"mbarrier: one arrival too many at planted\.cu:11: a phase of the mbarrier initialised at planted\.cu:6 takes 1",
    ),
    # until the copy completes, parity 1 refers to the phase before the first one
    "wrong parity": (COPY, "mbarrier_wait(full, 0)", "mbarrier_wait(full, 1)", LACKS.format(1, 1, 0) + "|" + UNREAD.format(12)),
    "waits for the next phase": (
        COPY, "mbarrier_wait(full, 0);", "mbarrier_wait(full, 0); mbarrier_wait(full, 1);", LACKS.format(1, 1, 0),
    ),
    "mbarrier not initialised": (
        COPY, "mbarrier_init(full, 1);", "", r"mbarrier: used at planted\.cu:11, but not initialised",
    ),
    "initialised twice": (
        COPY, "mbarrier_init(full, 1);", "mbarrier_init(full, 1); mbarrier_init(full, 1);",
        r"mbarrier: initialised again at planted\.cu:6: it was initialised at planted\.cu:6",
    ),
    "nothing orders initialisation": (
        COPY, BEHIND, BEHIND.replace("__syncthreads();", ""),
        r"race: thread \d+ changes byte 0 .* at planted\.cu:14; thread 0 wrote it at planted\.cu:6",
    ),
    "invalidated while others wait": (COPY, "mbarrier_wait(full, 0);", INVALID, UNREAD.format(12)),
    "misaligned tile": (
        COPY, "shared + 1024", "shared + 1024 + 64", r"misaligned: the tile's address .* at planted\.cu:12; .* multiple of 1024",
    ),
    "tile not aligned to the swizzle's pattern": (
        COPY, "shared + 1024", "shared + 1024 + 128", r"misaligned: .* at planted\.cu:12; expected a multiple of 1024",
    ),
    "tile outside shared memory": (
        COPY, "shared + 1024", "shared + 4096", r"out of bounds: writes 1024 bytes at planted\.cu:12",
    ),
    "no proxy fence before a store": (COPY, "  fence_proxy_async();", "", FENCE.format(19, 15)),
    "fence after the barrier": (
        COPY, "  fence_proxy_async();\n  __syncthreads();", "\n  __syncthreads(); if (threadIdx.x) fence_proxy_async();",
        FENCE.format(19, 15),
    ),
    "no barrier before a store": (
        COPY, STORE, STORE.replace("__syncthreads();", ""),
        r"race: thread 1 writes .* at planted\.cu:15; thread 0 read it at planted\.cu:15",
    ),
    "overwritten while it is stored": (COPY, "bulk_commit();", "bulk_commit(); tile[0] = 0.0f;", OVER.format(20, 19)),
    "returns before it is stored": (
        COPY, "bulk_wait<0>();", "",
        r"block lifetime: the block returns before the transfer that thread 0 started at planted\.cu:19 is done",
    ),
    "store not committed": (
        COPY, "bulk_commit();", "",
        r"block lifetime: the block returns before the transfer that thread 0 started at planted\.cu:19 is done",
    ),
    "wrong number of coordinates": (
        COPY, "&x, {0, 0}", "&x, {0, 0, 0}", r"tensor map: 3 coordinates at planted\.cu:12 for a tensor map of 2 dimensions",
    ),
    "write to an input": (COPY, "tensor_store(&y", "tensor_store(&x", r"write to an input: writes x\[0\] at planted\.cu:19"),
    "no proxy fence before wgmma": (MULTIPLY, "  fence_proxy_async();", "", FENCE.format(11, 5)),
    "no barrier before wgmma": (
        MULTIPLY, "  __syncthreads();\n  const", "\n  const", r"(race|uninitialised): thread \d+ reads .* at planted\.cu:11",
    ),
    "no wgmma_fence": (
        MULTIPLY, "wgmma_fence();", "", r"registers: the wgmma of planted\.cu:11 needs a wgmma_fence before it",
    ),
    "accumulators written in between": (
        MULTIPLY, "wgmma_wait<0>(d);", "wgmma_wait<0>(d); " + MORE,
        r"registers: the wgmma of planted\.cu:14 needs a wgmma_fence before it",
    ),
    "operand written before the wait": (MULTIPLY, "wgmma_wait<0>(d);", "tile[t] = 0; wgmma_wait<0>(d);", OVER.format(14, 11)),
    "wgmma not waited for": (MULTIPLY, "wgmma_wait<0>(d);", "", OVER.format(16, 11)),
    "wgmma not committed": (MULTIPLY, "wgmma_commit();", "", OVER.format(16, 11)),
    "wgmma of three warps": (
        MULTIPLY, "wgmma_commit();", "if (t < 96) wgmma<Format::BF16, 8>(d, operand, operand, true);\n  wgmma_commit();",
        r"divergence: 96 threads of a warpgroup are at the wgmma of planted\.cu:13, but thread 96 is at the wgmma_commit of .*:14",
    ),
    "descriptors that differ": (
        MULTIPLY, "operand, operand, false)", "operand + t / 32, operand, false)",
        r"divergence: thread 32 passes other operands to the wgmma of planted\.cu:11",
    ),
    "operand not aligned to the swizzle's pattern": (
        MULTIPLY, "matrix_descriptor(shared,", "matrix_descriptor(shared + 128,",
        r"misaligned: operand A of the wgmma of planted\.cu:11 does not begin in the first row of .* of 1024 bytes",
    ),
    "operand outside shared memory": (
        MULTIPLY, "16, 1024)", "16, 8192)", r"out of bounds: reads 32 bytes at planted\.cu:11",
    ),
    "registers not of a whole warpgroup": (
        MULTIPLY, "wgmma_fence();", "wgmma_fence(); " + RESIZE,
        r"divergence: thread 64 passes other operands to the setmaxnreg of planted\.cu:10",
    ),
    "block that may not have started": (
        CLUSTER, MEET + "  if", "\n\n  if", r"mbarrier: used at planted\.cu:14, but not initialised",
    ),
    "block that may have returned": (
        CLUSTER, MEET + "}", "}", r"block lifetime: .* block 1 reads byte 512 .* at planted\.cu:21, but that block may have ret",
    ),
    "no fence for another block": (
        CLUSTER, "    fence_mbarrier_init();", "",
        r"mbarrier: thread 0 of block 0 uses it at planted\.cu:14 in another block .* initialises it at planted\.cu:7, needs",
    ),
    "wait with block scope": (
        CLUSTER, "mbarrier_wait_cluster", "mbarrier_wait",
        r"race: thread \d+ of block 1 reads byte 512 .* at planted\.cu:21; thread 0 of block 0 wrote it at planted\.cu:16",
    ),
    "arrival that orders only asynchronous operations": (
        CLUSTER, "mbarrier_arrive_remote(full", "mbarrier_arrive_remote_async(full",
        r"race: .* reads byte 512 .* at planted\.cu:21; thread 0 of block 0 wrote it at planted\.cu:16",
    ),
    "write after the arrival": (
        CLUSTER, NUMBER + ARRIVAL, ARRIVAL + NUMBER, r"race: .* at planted\.cu:21; thread 0 of block 0 wrote it at planted\.cu:17",
    ),
    "block outside the cluster": (
        CLUSTER, "map_shared(number, block)", "map_shared(number, block + 1)",
        r"cluster: block 2 requested at planted\.cu:16; the cluster has 2",
    ),
    "copy to a block outside the cluster": (
        CLUSTER, "full, 3)", "full, 7)", r"cluster: a copy to the blocks of mask 0x7 at planted\.cu:14; the cluster has 2",
    ),
    "waits without arriving": (
        CLUSTER, MEET + "  if", "  cluster_wait();\n  if", r"divergence: a cluster_wait at planted\.cu:11 without",
    ),
    "arrives twice": (
        CLUSTER, MEET + "  if", "  cluster_arrive();\n  cluster_arrive();\n  if",
        r"divergence: a second cluster_arrive at planted\.cu:12",
    ),
    "one thread misses the cluster barrier": (
        CLUSTER, MEET + "  if", MEET.replace("  c", "  if (threadIdx.x != 5) c") + "  if",
        r"race: thread 5 of block 0 changes byte 0 .* at planted\.cu:20; thread 0 of block 0 wrote it at planted\.cu:7",
    ),
}  # fmt: skip

LAUNCHES = {COPY: (1, 64, 3072), MULTIPLY: (1, 128, 8192), CLUSTER: (2, 64, 2048)}


def run(kernel: str, text: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Run ``text``, a modified version of ``kernel``; return y and out."""
    grid, block, shared = LAUNCHES[kernel]
    x, y = (numpy.full((8, 32), value, numpy.float32).view(EmulatedArray) for value in (3, 0))
    out = numpy.zeros(512, numpy.float32)
    tiles = [TensorMap(array, (8, 32), swizzle=128) for array in (x, y)]
    spliced = cuda_sources.spliced("common/hopper.cuh") + '#line 1 "planted.cu"\n' + text
    function = Function(spliced, "planted.cu", "planted", disk_cache.cache_directory() / "emulator")
    reached = tiles[0].reached("x", written=False) + tiles[1].reached("y", written=True)
    function((grid,), (block,), (tiles[0].argument, tiles[1].argument, out), shared, reached)
    return y.get(), out


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_correct_kernels_are_clean(schedule: str, completion: str) -> None:
    with emulator.check(schedule=schedule, completion=completion, seed=1):
        assert (run(COPY, COPY)[0] == 6).all()
        assert (run(MULTIPLY, MULTIPLY)[1] == 32).all()
        assert (run(CLUSTER, CLUSTER)[1][:128] == 4).all()


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str, completion: str) -> None:
    kernel, part, instead, finding = MISTAKES[name]
    assert kernel.count(part) == 1
    with emulator.check(completion=completion), pytest.raises(EmulationError) as error:
        run(kernel, kernel.replace(part, instead))
    assert re.search(finding, str(error.value), re.DOTALL), str(error.value)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_block_that_may_return_early_is_found_with_every_schedule(schedule: str) -> None:
    """Even if the other block happens to read before the block returns."""
    with emulator.check(schedule=schedule), pytest.raises(EmulationError, match=r"block lifetime: .* at planted\.cu:21"):
        run(CLUSTER, CLUSTER.replace("  cluster_arrive();\n  cluster_wait();\n}", "}"))


def test_accumulators_are_nan_before_the_wait() -> None:
    text = MULTIPLY.replace("  wgmma_wait<0>(d);", "  for (int i = 0; i < 4; i++) out[4 * t + i] = d[i]; wgmma_wait<0>(d);")
    text = text.replace("  for (int i = 0; i < 4; i++) out[4 * t + i] = d[i];\n}", "}")
    with emulator.check(completion="lazy"):
        assert numpy.isnan(run(MULTIPLY, text)[1]).all()
    text = MULTIPLY.replace("  wgmma_commit();", "  d[1] = 0.0f;\n  wgmma_commit();")
    with emulator.check(completion="lazy"), pytest.raises(EmulationError, match="registers: accumulators were written before"):
        run(MULTIPLY, text)


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_static_shared_memory_works_without_a_cluster(completion: str) -> None:
    text = re.sub(r"  extern(.|\n)*?reinterpret_cast<float\*>.*?;\n", "  __shared__ MBarrier full[1];\n"
                  "  __shared__ __align__(1024) float tile[256];\n\n", COPY)  # fmt: skip
    with emulator.check(completion=completion):
        assert "extern" not in text and (run(COPY, text)[0] == 6).all()
        with pytest.raises(EmulationError, match=r"(race|not waited for): .* byte 0 of tile at planted\.cu:15; .*cu:12"):
            run(COPY, text.replace("mbarrier_wait(full, 0);", ""))


def test_static_shared_memory_in_a_cluster_raises() -> None:
    text = CLUSTER.replace("  MBarrier* full", "  __shared__ float extra[64];\n  extra[threadIdx.x] = 1.0f;\n"
                           "  __syncthreads();\n  out[threadIdx.x] = extra[63 - threadIdx.x];\n  MBarrier* full")
    with pytest.raises(LaunchError, match=r"only dynamic shared memory in clusters; move the static __shared__ extra there"):
        run(CLUSTER, text)


def test_grid_that_is_not_a_multiple_of_the_cluster_raises(monkeypatch: Any) -> None:
    monkeypatch.setitem(LAUNCHES, CLUSTER, (3, 64, 2048))
    with pytest.raises(LaunchError, match=r"grid \(3, 1, 1\) is not a multiple of __cluster_dims__\(2, 1, 1\)"):
        run(CLUSTER, CLUSTER)
    with pytest.raises(LaunchError, match=r"__cluster_dims__\(9, 1, 1\) makes 9 blocks; a cluster can have 1 to 8"):
        run(CLUSTER, CLUSTER.replace("__cluster_dims__(2)", "__cluster_dims__(9)"))


def test_tensor_map_that_is_not_a_grid_constant_raises() -> None:
    with pytest.raises(LaunchError, match="the TensorMap parameter 'x'; declare it const __grid_constant__ TensorMap x"):
        run(COPY, COPY.replace("const __grid_constant__ TensorMap x", "const TensorMap x"))


@pytest.mark.parametrize("fence, clean", [("fence_proxy_async", True), ("fence_proxy_async_shared", False)])
def test_bulk_copies_need_a_proxy_fence_for_global_memory(fence: str, clean: bool) -> None:
    text = COPY.replace("    tensor_load(tile, &x, {0, 0}, full);", "    bulk_load(tile, out, 1024, full);").replace(
        "  __syncthreads();", f"  for (int i = threadIdx.x; i < 256; i += 64) out[i] = 2.0f;\n  {fence}();\n  __syncthreads();", 1
    )
    with emulator.check():
        if clean:
            assert (run(COPY, text)[0] == 4).all()
            return
        found = r"proxy fence: the transfer that thread 0 starts at planted\.cu:14 reads out\[0\], which .*cu:9"
        with pytest.raises(EmulationError, match=found):
            run(COPY, text)


def test_invalid_tensor_map() -> None:
    text = COPY.replace("tensor_load(tile, &x", "TensorMap no = {}; tensor_load(tile, &no")
    finding = r"tensor map: at planted\.cu:12: the argument is not a TensorMap of the device 'emulated'"
    with pytest.raises(EmulationError, match=finding):
        run(COPY, text)
