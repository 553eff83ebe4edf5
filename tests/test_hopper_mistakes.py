"""Mistakes with Hopper's instructions, planted: each is named by its line, and the kernel without it is clean."""

from __future__ import annotations

import re
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.device import EmulatedArray
from gpunet.emulator import COMPLETIONS, SCHEDULES, Function
from gpunet.errors import EmulationError, LaunchError
from gpunet.runtime import source
from gpunet.runtime.tensor_map import TensorMap

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

#: A tile goes from x to shared memory, is doubled there, and goes to y.
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
#: A warpgroup multiplies a tile with itself, twice.
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
#: The first of two blocks gives the second one numbers, by a multicast copy and by hand, and lends it one of its own.
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

#: name: (kernel, what is taken out, what is put in, the finding and its place)
MISTAKES = {
    "not waited for": (COPY, "  mbarrier_wait(full, 0);\n", "\n", r"(race|not waited for): .*planted\.cu:15.*planted\.cu:12|uninitialised"),
    "too many bytes expected": (COPY, "(full, 1024)", "(full, 2048)",
        r"divergence: .*mbarrier_wait of planted\.cu:14, where phase 0 of the mbarrier initialised at planted\.cu:6 lacks 0 of 1 "
        r"arrivals and 1024 bytes"),
    "too few bytes expected": (COPY, "(full, 1024)", "(full, 512)",
        r"mbarrier: the phase of the one initialised at planted\.cu:6 gets 512 bytes more than were expected, at planted\.cu:12"),
    "no bytes expected": (COPY, "arrive_expect_tx(full, 1024)", "arrive(full)", r"mbarrier: .*planted\.cu:1[12]|(race|uninitialised): .*planted\.cu:15"),
    "one arrival too many": (COPY, "    mbarrier_arrive_expect_tx(full, 1024);",
        "    mbarrier_arrive_expect_tx(full, 1024); mbarrier_arrive(full);",
        r"mbarrier: one arrival too many at planted\.cu:11: a phase of the one initialised at planted\.cu:6 takes 1"),
    "wrong parity": (COPY, "mbarrier_wait(full, 0)", "mbarrier_wait(full, 1)", r"(race|not waited for|uninitialised): .*planted\.cu:15|divergence: .*mbarrier_wait of planted\.cu:14, where phase 1 "),
    "waits for the next phase": (COPY, "mbarrier_wait(full, 0);", "mbarrier_wait(full, 0); mbarrier_wait(full, 1);",
        r"divergence: .*64 of 64 threads.*mbarrier_wait of planted\.cu:14, where phase 1 .* lacks 1 of 1 arrivals and 0 bytes"),
    "no mbarrier": (COPY, "mbarrier_init(full, 1);", "", r"mbarrier: used at planted\.cu:1[124], but no mbarrier_init was there before"),
    "initialised twice": (COPY, "mbarrier_init(full, 1);", "mbarrier_init(full, 1); mbarrier_init(full, 1);",
        r"mbarrier: initialised at planted\.cu:6, and before at planted\.cu:6"),
    "nothing orders initialisation": (COPY, "  }\n  __syncthreads();\n  if (threadIdx.x == 0) {\n    mbarrier_arrive", "  }\n  \n  if (threadIdx.x == 0) {\n    mbarrier_arrive",
        r"race: thread \d+ changes byte 0 .* at planted\.cu:14; thread 0 wrote it at planted\.cu:6|mbarrier: .*used at planted\.cu:14"),
    "invalidated while others wait": (COPY, "mbarrier_wait(full, 0);", "if (threadIdx.x == 0) mbarrier_inval(full); else mbarrier_wait(full, 0);",
        r"(mbarrier|race|uninitialised): .*planted\.cu:1[45]"),
    "misaligned tile": (COPY, "shared + 1024", "shared + 1024 + 64", r"misaligned: the tile's address .* at planted\.cu:12; .* multiple of 1024"),
    "tile within a swizzle's pattern": (COPY, "shared + 1024", "shared + 1024 + 128", r"misaligned: .* at planted\.cu:12; .* multiple of 1024"),
    "tile out of shared memory": (COPY, "shared + 1024", "shared + 4096", r"out of bounds: writes 1024 bytes at planted\.cu:12"),
    "another tile over it": (COPY, "  mbarrier_wait(full, 0);\n", "  mbarrier_wait(full, 0);  if (threadIdx.x == 0) mbarrier_expect_tx(full, 1024), "
        "tensor_load(tile, &x, {0, 0}, full);\n", r"(race|not waited for): .*planted\.cu:1[45]"),
    "no proxy fence before a store": (COPY, "  fence_proxy_async();\n", "\n",
        r"proxy fence: what thread 0 starts at planted\.cu:19 reads .*, which thread \d+ wrote at planted\.cu:15"),
    "fence behind the barrier": (COPY, "  fence_proxy_async();\n  __syncthreads();", "  \n  __syncthreads(); if (threadIdx.x) fence_proxy_async();",
        r"proxy fence: what thread 0 starts at planted\.cu:19 reads .*, which thread \d+ wrote at planted\.cu:15"),
    "no barrier before a store": (COPY, "  __syncthreads();\n  if (threadIdx.x == 0) {\n    tensor_store", "  \n  if (threadIdx.x == 0) {\n    tensor_store",
        r"race: thread 0 reads .* at planted\.cu:19; thread \d+ (wrote|read) it at planted\.cu:15|race: thread \d+ .* planted\.cu:15;|not waited for: .*planted\.cu:15.*planted\.cu:19"),
    "written over while it is stored": (COPY, "    bulk_commit();\n", "    bulk_commit(); tile[0] = 0.0f;\n",
        r"not waited for: thread 0 writes .* at planted\.cu:20; the asynchronous copy from it that thread 0 started at planted\.cu:19"),
    "returns before it is stored": (COPY, "    bulk_wait<0>();\n", "\n",
        r"life of a block: the block returns before the transfer that thread 0 started at planted\.cu:19 is done"),
    "store not committed": (COPY, "    bulk_commit();\n", "\n", r"life of a block: .*planted\.cu:19"),
    "wrong number of coordinates": (COPY, "&x, {0, 0}", "&x, {0, 0, 0}", r"tensor map: 3 coordinates at planted\.cu:12 for a tensor map of 2 dimensions"),
    "write to an input": (COPY, "tensor_store(&y", "tensor_store(&x", r"write to an input: writes x\[0\] at planted\.cu:19"),
    "no proxy fence before wgmma": (MULTIPLY, "  fence_proxy_async();\n", "\n", r"proxy fence: what thread \d+ starts at planted\.cu:11 reads"),
    "no barrier before wgmma": (MULTIPLY, "  __syncthreads();\n  const", "  \n  const", r"(race|uninitialised): thread \d+ reads .* at planted\.cu:11"),
    "no wgmma_fence": (MULTIPLY, "  wgmma_fence();\n", "\n", r"registers: the wgmma of planted\.cu:11 needs a wgmma_fence"),
    "accumulators written in between": (MULTIPLY, "  wgmma_wait<0>(d);\n", "  wgmma_wait<0>(d); d[0] += 1.0f; wgmma<Format::BF16, 8>(d, operand, operand, true); "
        "wgmma_commit(); wgmma_wait<0>(d);\n", r"registers: the wgmma of planted\.cu:14 needs a wgmma_fence"),
    "operand written before the wait": (MULTIPLY, "  wgmma_wait<0>(d);\n", "  tile[t] = 0; wgmma_wait<0>(d);\n",
        r"not waited for: thread \d+ writes .* at planted\.cu:14; .* from it that thread \d+ started at planted\.cu:1[12]"),
    "wgmma not waited for": (MULTIPLY, "  wgmma_wait<0>(d);\n", "\n", r"not waited for: thread \d+ writes .* at planted\.cu:16; .*planted\.cu:1[12]"),
    "wgmma not committed": (MULTIPLY, "  wgmma_commit();\n", "\n", r"not waited for: thread \d+ writes .* at planted\.cu:16; .*planted\.cu:1[12]"),
    "wgmma of three warps": (MULTIPLY, "  wgmma_commit();\n", "  if (t < 96) wgmma<Format::BF16, 8>(d, operand, operand, true);\n  wgmma_commit();\n",
        r"divergence: \d+ threads of a warpgroup are at the wgmma\w* of planted\.cu:1[34], but thread \d+ is at the wgmma\w* of planted\.cu:1[34]"),
    "descriptors that differ": (MULTIPLY, "operand, operand, false)", "operand + t / 32, operand, false)",
        r"divergence: thread \d+ gives the wgmma of planted\.cu:11 other operands"),
    "operand within a pattern": (MULTIPLY, "matrix_descriptor(shared,", "matrix_descriptor(shared + 128,",
        r"misaligned: A of the wgmma of planted\.cu:11 begins within a swizzle's pattern of 1024 bytes"),
    "operand out of shared memory": (MULTIPLY, "16, 1024)", "16, 8192)", r"out of bounds: reads \d+ bytes at planted\.cu:11"),
    "registers not of a whole warpgroup": (MULTIPLY, "  wgmma_fence();\n", "  wgmma_fence(); if (t < 64) set_more_registers<232>(); else set_more_registers<240>();\n",
        r"divergence: .*planted\.cu:10"),
    "block that may not have begun": (CLUSTER, "  cluster_arrive();\n  cluster_wait();\n  if", "  \n  \n  if",
        r"life of a block: thread 0 of block 0 writes .* at planted\.cu:1[4567], but that block may not have begun|mbarrier: used at planted\.cu:14"),
    "block that may have returned": (CLUSTER, "  cluster_arrive();\n  cluster_wait();\n}", "}",
        r"life of a block: .* block 1 reads byte 512 .* at planted\.cu:21, but that block may have returned"),
    "no fence for another block": (CLUSTER, "    fence_mbarrier_init();\n", "\n",
        r"mbarrier: thread 0 of block 0 uses it at planted\.cu:1\d from afar; thread 0 of block \d initialises it at planted\.cu:7"),
    "wait that acquires too little": (CLUSTER, "mbarrier_wait_cluster", "mbarrier_wait",
        r"race: thread \d+ of block 1 reads byte 512 .* at planted\.cu:21; thread 0 of block 0 wrote it at planted\.cu:16"),
    "number behind the arrival": (CLUSTER, "      *map_shared(number, block) = 1.0f;\n      mbarrier_arrive_remote(full, block);",
        "      mbarrier_arrive_remote(full, block);\n      *map_shared(number, block) = 1.0f;",
        r"(race|uninitialised): .*planted\.cu:(17|21)"),
    "no such block": (CLUSTER, "map_shared(number, block)", "map_shared(number, block + 1)", r"cluster: block 2 asked for at planted\.cu:16; the cluster has 2"),
    "copy to no such block": (CLUSTER, "full, 3)", "full, 7)", r"cluster: a copy to the blocks of mask 0x7 at planted\.cu:14; the cluster has 2"),
    "waits without having arrived": (CLUSTER, "  cluster_arrive();\n  cluster_wait();\n  if", "  cluster_wait();\n  if", r"divergence: a cluster_wait at planted\.cu:11 without"),
    "arrives twice": (CLUSTER, "  cluster_arrive();\n  cluster_wait();\n  if", "  cluster_arrive();\n  cluster_arrive();\n  if", r"divergence: a second cluster_arrive at planted\.cu:12"),
    "one thread does not meet the cluster": (CLUSTER, "  cluster_arrive();\n  cluster_wait();\n  if", "  if (threadIdx.x != 5) cluster_arrive();\n  if (threadIdx.x != 5) cluster_wait();\n  if",
        r"(divergence|mbarrier|race): .*planted\.cu:(1\d|20)"),
}  # fmt: skip

LAUNCHES = {COPY: (1, 64, 3072), MULTIPLY: (1, 128, 8192), CLUSTER: (2, 64, 2048)}


def run(kernel: str, text: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What is in y and in out afterwards, by a kernel that ``kernel`` was changed to."""
    grid, block, shared = LAUNCHES[kernel]
    x, y = (numpy.full((8, 32), value, numpy.float32).view(EmulatedArray) for value in (3, 0))
    out = numpy.zeros(512, numpy.float32)
    tiles = [TensorMap(array, (8, 32), swizzle=128) for array in (x, y)]
    spliced = source.spliced("hopper.cuh") + '#line 1 "planted.cu"\n' + text
    function = Function(spliced, "planted.cu", "planted", source.cache_directory() / "emulator")
    reached = tiles[0].reached("x", written=False) + tiles[1].reached("y", written=True)
    function((grid,), (block,), (tiles[0].argument, tiles[1].argument, out), shared, reached)
    return y.get(), out


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_right_kernels_are_clean(schedule: str, completion: str) -> None:
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
def test_end_of_a_block_is_ordered_in_every_schedule(schedule: str) -> None:
    """Also where the other block happened to read before."""
    with emulator.check(schedule=schedule), pytest.raises(EmulationError, match=r"life of a block: .* at planted\.cu:21"):
        run(CLUSTER, CLUSTER.replace("  cluster_arrive();\n  cluster_wait();\n}", "}"))


def test_accumulators_are_no_numbers_before_the_wait() -> None:
    text = MULTIPLY.replace("  wgmma_wait<0>(d);", "  for (int i = 0; i < 4; i++) out[4 * t + i] = d[i]; wgmma_wait<0>(d);")
    text = text.replace("  for (int i = 0; i < 4; i++) out[4 * t + i] = d[i];\n}", "}")
    with emulator.check(completion="lazy"):
        assert numpy.isnan(run(MULTIPLY, text)[1]).all()
    text = MULTIPLY.replace("  wgmma_commit();", "  d[1] = 0.0f;\n  wgmma_commit();")
    with emulator.check(completion="lazy"), pytest.raises(EmulationError, match="registers: accumulators were written before"):
        run(MULTIPLY, text)


def test_static_shared_memory_in_a_cluster_is_refused() -> None:
    text = CLUSTER.replace("  MBarrier* full", "  __shared__ float extra[64];\n  extra[threadIdx.x] = 1.0f;\n"
                           "  __syncthreads();\n  out[threadIdx.x] = extra[63 - threadIdx.x];\n  MBarrier* full")
    with pytest.raises(LaunchError, match=r"own dynamic shared memory only; put the static __shared__ extra there, too"):
        run(CLUSTER, text)


def test_grid_that_clusters_do_not_fill_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setitem(LAUNCHES, CLUSTER, (3, 64, 2048))
    with pytest.raises(LaunchError, match=r"grid \(3, 1, 1\) is not a multiple of its __cluster_dims__\(2, 1, 1\)"):
        run(CLUSTER, CLUSTER)
    with pytest.raises(LaunchError, match=r"__cluster_dims__\(9, 1, 1\) makes 9 blocks; a cluster has 1 to 8"):
        run(CLUSTER, CLUSTER.replace("__cluster_dims__(2)", "__cluster_dims__(9)"))


def test_tensor_map_of_nothing() -> None:
    text = COPY.replace("tensor_load(tile, &x", "TensorMap no = {}; tensor_load(tile, &no")
    with pytest.raises(EmulationError, match=r"tensor map: at planted\.cu:12: no TensorMap of the device 'emulated' was passed"):
        run(COPY, text)
