"""Asynchronous copies, ldmatrix and named barriers: check mode reports each planted bug with its line."""

from __future__ import annotations

import itertools
import re

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources, disk_cache
from gpunet.emulator import COMPLETIONS, SCHEDULES, Function
from gpunet.errors import EmulationError

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

RING = """\
#include "primitives.cuh"

// A ring buffer of four stages, three of them being filled while one is read: each thread sums what another one copied.
__global__ void ring(float* out, const float* in, int steps) {
  __shared__ __align__(16) float stage[4][64];
  const int t = threadIdx.x, from = 63 - t;
  float sum = 0.0f;
  for (int step = 0; step < 3; step++) {
    if (step < steps) cp_async<4>(&stage[step][t], in + 64 * step + t);
    cp_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    cp_async_wait<2>();
    __syncthreads();
    sum += stage[step % 4][from];
    const int next = step + 3;
    if (next < steps) cp_async<4>(&stage[next % 4][t], in + 64 * next + t);
    cp_async_commit();
  }
  out[t] = sum;
}
"""
MATRICES = """\
#include "primitives.cuh"

__global__ void matrices(unsigned int* out, const unsigned int* in, int n) {
  __shared__ __align__(16) unsigned int tile[2][32 * 4];
  const int lane = threadIdx.x;
  cp_async<16>(&tile[0][4 * lane], in + 4 * lane);
  cp_async_wait_all();
  __syncthreads();
  unsigned int r[4];
  ldmatrix(r, &tile[0][4 * (31 - lane)]);
  for (int i = 0; i < 4; i++) out[4 * lane + i] = r[i];
}
"""
BARRIERS = """\
#include "primitives.cuh"

__global__ void barriers(float* out, const float* in, int n) {
  __shared__ float piece[32];
  if (threadIdx.x < 32) {
    piece[threadIdx.x] = in[threadIdx.x];
    bar_arrive(1, 64);
  } else {
    bar_sync(1, 64);
    out[threadIdx.x] = piece[63 - threadIdx.x];
  }
}
"""
TO_IT = r"the asynchronous copy to it that thread \d+ started at planted\.cu:"
FIRST_COPY, NEXT_COPY = "cp_async<4>(&stage[step][t], in + 64 * step + t)", "cp_async<4>(&stage[next % 4][t], in + 64 * next + t)"
LOAD = "ldmatrix(r, &tile[0][4 * (31 - lane)])"

#: For each kernel, name: (old text, new text, expected finding).
MISTAKES = {
    RING: {
        "missing wait": ("    cp_async_wait<2>();\n", "", rf"not waited for: .* reads byte \d+ of stage at .*:14; {TO_IT}9"),
        "wait off by one": ("wait<2>", "wait<3>", rf"not waited for: .* reads byte \d+ of stage at planted\.cu:15; {TO_IT}9"),
        "commit left out": ("    cp_async_commit();\n  }\n  out", "  }\n  out", rf"not waited for: .* at planted\.cu:15; {TO_IT}9"),
        "missing barrier": ("    __syncthreads();\n", "", r"uninitialised: thread 0 reads byte 252 of stage at planted\.cu:14"),
        "ring too short": ("stage[next % 4]", "stage[next % 3]", rf"not waited for: .* reads .* at planted\.cu:15; {TO_IT}17"),
        "source out of bounds": ("if (next < steps)", "if (next <= steps)", r"out of bounds: reads 4 bytes at planted\.cu:17"),
        "from shared memory": (NEXT_COPY, "cp_async<4>(out + t, stage[0])", r"not shared memory: cp\.async at .*:17 .* out"),
        "to a local variable": (NEXT_COPY, "cp_async<4>(&sum, in)", r"not shared memory: cp\.async at planted\.cu:17 .* local"),
        "misaligned": (FIRST_COPY, FIRST_COPY.replace("<4>", "<8>"), r"misaligned: .* copy of 8 bytes.* at planted\.cu:9"),
    },
    MATRICES: {
        "before the barrier": ("  __syncthreads();\n", "", r"uninitialised: thread 0 reads byte 496 of tile at planted\.cu:9"),
        "before the wait": (
            "  cp_async_wait_all();\n", "", rf"not waited for: thread 0 reads byte 496 of tile at planted\.cu:9; {TO_IT}6"
        ),
        "uninitialised": ("&tile[0][4 * (31", "&tile[1][4 * (31", r"uninitialised: .* of tile at planted\.cu:10"),
        "out of bounds": (
            LOAD, "ldmatrix(r, &tile[0][0] + 4 * (95 - lane))",
            r"out of bounds: reads 16 bytes at planted\.cu:10, up to \d+ bytes past the end of tile of 1024",
        ),
        "misaligned row": ("31 - lane)]", "31 - lane) + 1]", r"misaligned: ldmatrix at planted\.cu:10 is given a row at"),
        "global memory": (LOAD, "ldmatrix(r, in + 4 * lane)", r"not shared memory: ldmatrix at planted\.cu:10 .* of in\[0\]"),
        "in a branch": (
            "  ldmatrix(", "  if (lane < 16)\n  ldmatrix(", r"divergence: 16 of 32 .* wait at the ldmatrix of planted\.cu:11"
        ),
        "stored and read without a barrier": (
            "  for (int i", "  stmatrix(&tile[0][4 * lane], r);\n  out[0] = tile[0][4 * ((lane + 1) % 32)];\n  for (int i",
            r"race: thread \d+ (reads|writes) byte \d+ of tile at planted\.cu:1[012]; .* it at planted\.cu:1[012]",
        ),
    },
    BARRIERS: {
        "wrong count": ("sync(1, 64)", "sync(1, 32)", r"barrier: barrier 1 is for \d+ threads at planted\.cu:[79], but for \d+"),
        "too few arrive": (
            "bar_arrive(1, 64)", "",
            r"divergence: .*32 of 64 threads .* wait at the barrier 1 \(for 64 threads, 32 arrived\) of planted\.cu:9",
        ),
        "count not a multiple of a warp": ("sync(1, 64)", "sync(1, 48)", r"barrier: barrier 1 of planted\.cu:9 is for 48 threads"),
        "no such number": ("sync(1, 64)", "sync(16, 64)", r"barrier: there is no barrier 16 at planted\.cu:9"),
        "written after arriving": (
            "bar_arrive(1, 64);", "bar_arrive(1, 64);\n    piece[threadIdx.x] = 0.0f;",
            r"race: thread \d+ (writes|reads) byte \d+ of piece at planted\.cu:(8|11); thread \d+ \w+ it at planted\.cu:(8|11)",
        ),
        "mixed with __syncthreads": ("bar_sync(1, 64)", "__syncthreads()", r"divergence: .*barrier 1|divergence: .*__syncthreads"),
        "half a warp": (
            "if (threadIdx.x < 32)", "if (threadIdx.x % 2) bar_sync(2, 32);\n  else if (threadIdx.x < 32)",
            r"divergence: only lanes 0xaaaaaaaa of warp 0 arrived at barrier 2 of planted\.cu:5",
        ),
    },
}  # fmt: skip


def threads(text: str) -> int:
    return 32 if text is MATRICES else 64


def compiled(text: str) -> Function:
    entry = re.search(r"void (\w+)\(", text)[1]  # type: ignore[index]
    spliced = cuda_sources.spliced_text(text, "planted.cu", [cuda_sources.kernel_directory()])
    return Function(spliced, "planted.cu", entry, disk_cache.cache_directory() / "emulator")


def arguments(text: str) -> tuple[numpy.ndarray, numpy.ndarray, numpy.int32]:
    dtype = numpy.uint32 if text is MATRICES else numpy.float32
    return numpy.zeros(128, dtype), numpy.arange(64 * 7 if text is RING else 128, dtype=dtype), numpy.int32(7)


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("text, mistake", [pytest.param(t, m, id=m) for t, mistakes in MISTAKES.items() for m in mistakes])
def test_planted_mistake_is_named(text: str, mistake: str, completion: str) -> None:
    old, new, finding = MISTAKES[text][mistake]
    assert old in text, "the text to replace is missing"
    with emulator.check(completion=completion), pytest.raises(EmulationError) as error:
        compiled(text.replace(old, new, 1))((1,), (threads(text),), arguments(text))
    assert re.search(finding, str(error.value)), str(error.value)


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_source_must_not_be_overwritten_before_the_copy_completes(completion: str) -> None:
    text, barrier = RING.replace("const float* in", "float* in"), "    __syncthreads();"
    late = compiled(text.replace(barrier, f"{barrier} in[64 * step + from] = 0.0f;"))
    early = compiled(text.replace(barrier, f"{barrier} in[64 * step + 64 + t] = 0.0f;"))
    out, data, steps = arguments(RING)
    with emulator.check(completion=completion):
        late((1,), (64,), (out, data.copy(), steps))
    finding = r"not waited for: thread \d+ writes in\[\d+\] at planted\.cu:14; .* copy from it that .* planted\.cu:9"
    with emulator.check(completion=completion), pytest.raises(EmulationError, match=finding):
        early((1,), (64,), (out, numpy.append(data, data), steps))


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize(
    "access, finding",
    [
        ("if (t == 0) sum += stage[step % 4][63];", r"race: thread 0 reads byte 252 of stage .*:15; thread 63 wrote it at .*:9"),
        ("if (t == 0) in[63] = 0.0f;", r"race: thread 0 writes in\[63\] at .*:15; thread 63 read it at .*:9"),
    ],
    ids=["read", "overwritten"],
)
def test_barrier_before_the_wait_does_not_order_the_copy(access: str, finding: str, completion: str) -> None:
    """A copy is ordered by its wait, so only a barrier after the wait makes its data visible to other threads."""
    text = RING.replace("const float* in", "float* in").replace("sum += stage[step % 4][from];", access)
    wait, barrier = "    cp_async_wait<2>();\n", "    __syncthreads();\n"
    late = compiled(text.replace(wait + barrier, barrier + wait))
    with emulator.check(schedule="reversed", completion=completion), pytest.raises(EmulationError, match=finding):
        late((1,), (64,), arguments(RING))


@pytest.mark.parametrize("text", MISTAKES)
def test_correct_kernels_pass_with_the_same_bits_in_every_order(text: str) -> None:
    function, bits = compiled(text), set()
    for schedule, completion, check in itertools.product(SCHEDULES, COMPLETIONS, (False, True)):
        out, data, n = arguments(text)
        with emulator.check(check, schedule=schedule, completion=completion, seed=7):
            function((1,), (threads(text),), (out, data, n))
        bits.add(out.tobytes())
    assert len(bits) == 1
    if text is RING:
        numpy.testing.assert_array_equal(out[:64], data.reshape(7, 64)[:, ::-1].sum(0))
        assert function.counts is not None and function.counts.transfers == 7 * 64


def test_lazy_copies_reveal_a_missing_wait_in_fast_mode() -> None:
    function = compiled(RING.replace("    cp_async_wait<2>();\n", ""))
    for completion in COMPLETIONS:
        out, data, n = arguments(RING)
        with emulator.check(False, completion=completion):
            function((1,), (64,), (out, data, n))
        right = data.reshape(7, 64)[:, ::-1].sum(0)
        assert (out[:64] == right).all() == (completion == "eager")
