"""The emulator: planted bugs are reported with file and line, correct kernels pass, invalid launches raise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources, disk_cache
from gpunet.emulator import SCHEDULES, Function, compiler
from gpunet.errors import ArgumentError, CompileError, EmulationError, LaunchError

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
pytestmark = needs_compiler


def cache() -> Path:
    return disk_cache.cache_directory() / "emulator"


def function(text: str, expression: str = "planted", file: str = "planted.cu") -> Function:
    return Function(text, file, expression, cache())


def floats(count: int, value: float = 0.0) -> numpy.ndarray:
    return numpy.full(count, value, numpy.float32)


def i32(value: int) -> numpy.int32:
    return numpy.int32(value)


# ---- planted bugs -----------------------------------------------------------------------------------------------------

REVERSE = """\
__global__ void planted(float* out, const float* in, int n) {
  __shared__ float tile[64];
  const int i = blockIdx.x * 64 + threadIdx.x;
  tile[threadIdx.x] = in[i];
  BARRIER
  out[i] = tile[63 - threadIdx.x];
}
"""
EXCHANGE = """\
__global__ void planted(float* out, const float* in, int n) {
  __shared__ float tile[64];
  const int t = threadIdx.x;
  tile[t] = in[t];
  __syncwarp();
  const float neighbour = tile[t ^ 1];
  BARRIER
  tile[t] = 2.0f * neighbour;
  out[t] = tile[t];
}
"""
LAST_BLOCK = """\
__global__ void planted(float* out, const float* in, float* partials, unsigned int* ticket) {
  __shared__ bool last;
  partials[blockIdx.x] = in[blockIdx.x];
  if (threadIdx.x == 0) {
    BEFORE
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    AFTER
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0.0f;
    for (int block = 0; block < gridDim.x; block++) sum += partials[block];
    out[0] = sum;
  }
}
"""


def body(code: str) -> str:
    return f"__global__ void planted(float* out, const float* in, int n) {{\n{code}\n}}\n"


def edited(text: str, **parts: str) -> str:
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


#: name: (source, expected finding)
PLANTED = {
    "missing barrier": (edited(REVERSE, BARRIER=""), r"uninitialised: .*of tile at planted\.cu:6"),
    "missing barrier before reuse": (
        body("__shared__ float s[2];\nfor (int k = 0; k < 2; k++) {\n  if (threadIdx.x == 0) s[0] = in[k];\n"
             "  __syncthreads();\n  out[threadIdx.x] = s[0];\n}"),
        r"race: thread \d+ \w+ byte 0 of s at planted\.cu:[46]; thread \d+ \w+ it at planted\.cu:[46]",
    ),
    "missing syncwarp": (
        edited(EXCHANGE, BARRIER=""),
        r"race: thread \d+ \w+ byte \d+ of tile at planted\.cu:[68]; thread \d+ \w+ it at",
    ),
    "barrier in a branch": (
        body("if (threadIdx.x < 32)\n  __syncthreads();\nout[threadIdx.x] = 1.0f;"),
        r"divergence: 32 of 64 threads .* have returned; 32 .* wait at the __syncthreads of planted\.cu:3",
    ),
    "two barriers": (
        body("if (threadIdx.x < 32)\n  __syncthreads();\nelse\n  __syncthreads();"),
        r"divergence: \d+ threads are at the __syncthreads of planted\.cu:\d, but thread \d+ is at that of planted\.cu:\d",
    ),
    "early return": (
        body("if (threadIdx.x >= n) return;\n__syncthreads();\nout[threadIdx.x] = 1.0f;"),
        r"divergence: .*planted\.cu:3",
    ),
    "shuffle in a branch": (
        body("float x = in[threadIdx.x];\nif (threadIdx.x % 32 < 8)\n  x += __shfl_xor_sync(~0u, x, 1);\nout[threadIdx.x] = x;"),
        r"divergence: .*shuffle of planted\.cu:4",
    ),
    "shuffle from outside": (
        body("out[threadIdx.x] = threadIdx.x % 32 < 16 ? __shfl_sync(0xffffu, in[threadIdx.x], 20) : 0.0f;"),
        "divergence: in a shuffle, lane 0 reads lane 20, which is not in its mask 0xffff",
    ),
    "read past the end": (
        body("out[threadIdx.x] = in[threadIdx.x + 1];"),
        r"out of bounds: reads 4 bytes at planted\.cu:2, up to 4 bytes past the end of in",
    ),
    "read before the beginning": (body("out[threadIdx.x] = in[(int)threadIdx.x - 1];"), r"out of bounds: reads .* before in"),
    "write past the end": (
        body("out[threadIdx.x + 60] = 1.0f;"),
        r"out of bounds: writes 4 bytes at planted\.cu:2, .* past the end of out",
    ),
    "shared array too small": (
        body("__shared__ float s[63];\nfloat* p = s + threadIdx.x;\n*p = 1.0f;\n__syncthreads();\nout[threadIdx.x] = *p;"),
        r"out of bounds: access past the end of a shared array at planted\.cu:4",
    ),
    "local array too small": (
        body("float a[4] = {};\nout[threadIdx.x] = a[n + 2];"),
        r"array index: index \d+ is out of range at planted\.cu:3",
    ),
    "member of a structure too small": (
        body("struct Four { float v[4]; } four = {};\nfloat* last = out;\nfor (int k = 0; k <= n - 46; k++) {\n"
             "  Four& it = four;\n  it.v[k] = 1.0f;\n}\n*last = four.v[3];"),
        r"array index: index 4 is out of range at planted\.cu:6",
    ),
    "past the end of a local variable": (
        body("struct Four { float v[4]; } four[2] = {};\nFour* end = four + 2;\n*end = four[0];\n"
             "out[threadIdx.x] = four[1].v[n - 50];"),
        r"out of bounds: access past the end of a local variable at planted\.cu:4",
    ),
    "uninitialised shared memory": (
        body("__shared__ float s[64];\nconst int t = threadIdx.x;\nif (t != 9) s[t] = 1.0f;\n__syncthreads();\nout[t] = s[t];"),
        r"uninitialised: thread 9 reads byte 36 of s at planted\.cu:6",
    ),
    "write to an input": (
        body("const_cast<float*>(in)[threadIdx.x] = 1.0f;"),
        r"write to an input: writes in\[\d+\] at planted\.cu:2",
    ),
    "two blocks write one place": (
        body("out[threadIdx.x] = in[threadIdx.x];"),
        r"race: thread 0 writes out\[0\] at planted\.cu:2; thread 0 of block 0 wrote it",
    ),
    "a block reads the output of another block": (
        body("const int i = blockIdx.x * 32 + threadIdx.x / 2;\nout[i] = out[63 - i];"),
        r"race: thread \d+ \w+ out\[\d+\] at planted\.cu:3; thread \d+",
    ),
    "sum by atomics": (
        body("atomicAdd(out, in[threadIdx.x]);"),
        r"order of atomics: thread \d+ adds to out\[0\] at planted\.cu:2",
    ),
    "misaligned vector": (
        body("reinterpret_cast<float4*>(out + 1)[0] = make_float4(1, 2, 3, 4);"),
        r"misaligned: .* at planted\.cu:2",
    ),
    "null pointer": (
        body("float* nothing = n ? nullptr : out;\nnothing[threadIdx.x] = 1.0f;"),
        r"null pointer|out of bounds: writes .* planted\.cu:3",
    ),
    "integer overflow": (
        body("out[threadIdx.x] = n * 2000000000;"),
        r"overflow: integer multiplication at planted\.cu:2",
    ),
    "endless waiting loop": (body("while (atomicAdd((int*)out, 0) == 0) { }"), "no progress"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_named(name: str) -> None:
    text, finding = PLANTED[name]
    blocks = 2 if "block" in name else 1
    with emulator.check(), pytest.raises(EmulationError, match="planted: ") as error:
        function(text)((blocks,), (64,), (floats(64), floats(64, 1.0), i32(50)))
    assert re.search(finding, str(error.value), re.DOTALL), str(error.value)
    assert re.search(r"\[block \(\d, 0, 0\), thread \(\d+, 0, 0\)\]$", str(error.value))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_correct_kernels_pass_with_every_schedule(schedule: str) -> None:
    ramp = numpy.arange(128, dtype=numpy.float32)
    with emulator.check(schedule=schedule, seed=3):
        out = floats(128)
        function(edited(REVERSE, BARRIER="__syncthreads();"))((2,), (64,), (out, ramp, i32(0)))
        assert (out.reshape(2, 64) == ramp.reshape(2, 64)[:, ::-1]).all()
        function(edited(EXCHANGE, BARRIER="__syncwarp();"))((1,), (64,), (out, ramp, i32(0)))
        assert (out[:64] == 2 * ramp[:64].reshape(-1, 2)[:, ::-1].reshape(-1)).all()


@pytest.mark.parametrize("missing", ["", "BEFORE", "AFTER"])
def test_last_block_needs_both_fences(missing: str) -> None:
    fences = {name: "" if name == missing else "__threadfence();" for name in ("BEFORE", "AFTER")}
    out, numbers = floats(1), numpy.arange(5, dtype=numpy.float32)
    arguments = (out, numbers, floats(5), numpy.zeros(1, numpy.uint32))
    run = function(edited(LAST_BLOCK, **fences))
    with emulator.check():
        if not missing:
            run((5,), (1,), arguments)
            assert out[0] == numbers.sum() and arguments[3][0] == 0
            return
        with pytest.raises(EmulationError, match=r"race: thread 0 reads partials\[0\] at planted\.cu:12; thread 0 of block 0"):
            run((5,), (1,), arguments)


@pytest.mark.parametrize("after", ["__threadfence();", ""], ids=["fence", "missing fence"])
def test_blocks_may_meet_at_many_tickets(after: str) -> None:
    """Each of 150 pairs of blocks has a ticket of its own, as the tiles of a product; one pair without its fence is found."""
    text = """__global__ void planted(float* out, const float* in, float* partials, unsigned int* tickets) {
      partials[blockIdx.x * 2 + blockIdx.y] = in[blockIdx.x];
      __threadfence();
      const bool last = atomicInc(tickets + blockIdx.x, 1) == 1;
      if (blockIdx.x < 149) __threadfence();
      else { AFTER }
      if (last) out[blockIdx.x] = partials[blockIdx.x * 2] + partials[blockIdx.x * 2 + 1];
    }"""
    out, numbers = floats(150), numpy.arange(150, dtype=numpy.float32)
    run = function(edited(text, AFTER=after))
    with emulator.check():
        if after:
            run((150, 2), (1,), (out, numbers, floats(300), numpy.zeros(150, numpy.uint32)))
            assert (out == 2 * numbers).all()
        else:
            with pytest.raises(EmulationError, match=r"race: thread 0 reads partials\[298\]"):
                run((150, 2), (1,), (out, numbers, floats(300), numpy.zeros(150, numpy.uint32)))


def test_shipped_kernels_need_each_of_their_barriers() -> None:
    """Removing any barrier or fence of the block reduction is reported, except one that is redundant for this kernel."""
    text = cuda_sources.spliced("cross_entropy.cu")
    begin, end = text.index('#line 1 "common/reduce.cuh"'), text.index("sum_of_partials")
    places = [m.span() for m in re.finditer(r"__syncthreads\(\);|__threadfence\(\);", text) if begin < m.start() < end]
    assert len(places) == 6
    logits, labels = numpy.random.default_rng(0).normal(size=(9, 300)).astype(numpy.float32), numpy.arange(9)
    missed = []
    for number, (start, stop) in enumerate(places):
        run = function(text[:start] + text[stop:], "cross_entropy_labels<float, Reduction::mean, false>", "cross_entropy.cu")
        ticket, fault = numpy.zeros(1, numpy.uint32), numpy.zeros(5, numpy.int64)
        arguments = (floats(1), numpy.empty_like(logits), floats(1), floats(2048), ticket, fault, logits, labels)
        found = ""
        try:
            with emulator.check():
                run((4,), (256,), (*arguments, i32(9), i32(300), numpy.int64(-100), i32(1)))
        except EmulationError as error:
            found = str(error)
        if not re.search(r"(reduce\.cuh|cross_entropy\.cu):\d+", found):
            missed.append(number)
    # the barrier before the ticket is redundant here: thread 0 both wrote the partials and draws the ticket
    assert missed == [2]


def test_arrays_are_unchanged_after_a_finding() -> None:
    out = floats(64, 7.0)
    with emulator.check(), pytest.raises(EmulationError):
        function(PLANTED["write past the end"][0])((1,), (64,), (out, floats(64), i32(0)))
    assert (out == 7.0).all()


# ---- the CUDA language ------------------------------------------------------------------------------------------------


def test_votes_and_shuffles() -> None:
    text = """__global__ void planted(int* out) {
      const int t = threadIdx.x, lane = t % 32;
      int* mine = out + 8 * t;
      mine[0] = __syncthreads_count(t % 3 == 0);
      mine[1] = __ballot_sync(0xffffffffu, lane < 4);
      mine[2] = __shfl_down_sync(0xffffffffu, lane, 5);
      mine[3] = __shfl_up_sync(0xffffffffu, lane, 5, 8);
      mine[4] = __shfl_xor_sync(0xffffffffu, lane, 9, 8);
      mine[5] = __shfl_sync(0xffffffffu, lane, 3, 16);
      mine[6] = __any_sync(0xffffffffu, lane == 7) + 2 * __all_sync(0xffffffffu, lane == 7);
      mine[7] = __syncthreads_or(t == 70) + 2 * __syncthreads_and(t < 95);
    }"""
    out = numpy.zeros((96, 8), numpy.int32)
    with emulator.check():
        function(text)((1,), (96,), (out,))
    lane = numpy.arange(96) % 32
    xor = lane ^ 9
    expected = [
        numpy.full(96, 32), numpy.full(96, 15), numpy.where(lane < 27, lane + 5, lane), numpy.where(lane % 8 < 5, lane, lane - 5),
        numpy.where(xor // 8 > lane // 8, lane, xor), lane // 16 * 16 + 3, numpy.ones(96), numpy.ones(96),
    ]  # fmt: skip
    numpy.testing.assert_array_equal(out.T, expected)


def test_dynamic_shared_memory() -> None:
    text = """__global__ void planted(double* out) {
      extern __shared__ __align__(16) double buffer[];
      buffer[threadIdx.x] = threadIdx.x;
      __syncthreads();
      out[threadIdx.x] = buffer[31 - threadIdx.x];
    }"""
    out = numpy.zeros(32)
    with emulator.check():
        function(text)((1,), (32,), (out,), 256)
        assert (out == numpy.arange(32)[::-1]).all()
        with pytest.raises(EmulationError, match=r"out of bounds: .* past the end of dynamic shared memory of 248 bytes"):
            function(text)((1,), (32,), (out,), 248)


def test_atomics_and_grids_of_three_dimensions() -> None:
    text = """__global__ void planted(unsigned int* out) {
      atomicAdd(out, threadIdx.y + 10 * threadIdx.z);
      atomicMax(out + 1, blockIdx.y);
      atomicMin(out + 2, gridDim.z - blockIdx.z);
      atomicCAS(out + 3, 0u, 5u);
      atomicExch(out + 4, blockDim.y);
    }"""
    out = numpy.array([0, 0, 99, 0, 0], numpy.uint32)
    with emulator.check():
        function(text)((2, 3, 4), (2, 4, 2), (out,))
    assert out.tolist() == [24 * 2 * (2 * 6 + 4 * 10), 2, 1, 5, 4]


def test_aliased_and_reached_arrays() -> None:
    """Two arguments may be the same array; arrays reached through a structure's pointers have their own bounds."""
    text = """struct Two { float* to; const float* from; };
    __global__ void planted(Two two, float* same, const float* again) {
      two.to[threadIdx.x] = two.from[threadIdx.x];
      same[threadIdx.x] += again[threadIdx.x];
    }"""
    to, start, same = floats(32), floats(32, 3.0), floats(32, 2.0)
    two = numpy.zeros(1, [("to", numpy.uint64), ("from", numpy.uint64)])
    two["to"], two["from"] = to.ctypes.data, start.ctypes.data
    run = function(text)
    with emulator.check():
        run((1,), (32,), (two, same, same), 0, [("to", to, True), ("from", start, False)])
        assert (to == 3.0).all() and (same == 4.0).all()
        with pytest.raises(EmulationError, match=r"past the end of from of 120 bytes"):
            run((1,), (32,), (two, same, same), 0, [("to", to, True), ("from", start[:30], False)])
        with pytest.raises(EmulationError, match=r"write to an input: writes to\[0\]"):
            run((1,), (32,), (two, same, same), 0, [("to", to, False), ("from", start, False)])


# ---- invalid launches -------------------------------------------------------------------------------------------------

WRONG = {
    "empty grid": ({"grid": (0,)}, r"grid \(0,\)"),
    "grid too large": ({"grid": (1, 65536)}, r"grid \(1, 65536\)"),
    "empty block": ({"block": (0,)}, r"block \(0,\)"),
    "block too large": ({"block": (1025,)}, r"block \(1025,\)"),
    "block of too many threads": ({"block": (64, 32)}, "2048 threads"),
    "too much shared memory": ({"shared": 232448}, "232448 bytes of dynamic and 256 of static shared memory"),
    "too few arguments": ({"arguments": (floats(64), floats(64))}, "2 arguments for 3 parameters"),
    "wrong dtype": ({"arguments": (floats(64), numpy.zeros(64), i32(0))}, r"'in' is float64 where the kernel declares float\*"),
    "wrong scalar": ({"arguments": (floats(64), floats(64), numpy.int64(0))}, "'n' is int64 where the kernel declares int"),
    "Python number": ({"arguments": (floats(64), floats(64), 0)}, "'n' is 0; expected a NumPy scalar"),
    "array for a number": ({"arguments": (floats(64), floats(64), floats(1))}, "'n' is"),
    "number for an array": ({"arguments": (floats(64), i32(3), i32(0))}, "'in' is .*3.*; expected an array or None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_launch_raises(name: str) -> None:
    changes, message = WRONG[name]
    launch: dict[str, Any] = {"grid": (1,), "block": (64,), "arguments": (floats(64), floats(64), i32(0)), **changes}
    with pytest.raises(LaunchError, match=message):
        function(edited(REVERSE, BARRIER="__syncthreads();"))(**launch)


def test_misaligned_vector_is_an_error_in_fast_mode() -> None:
    with pytest.raises(EmulationError, match=r"misaligned: .* at planted\.cu:2"):
        function(PLANTED["misaligned vector"][0])((1,), (1,), (floats(64), floats(64), i32(0)))


def test_unknown_schedule_and_completion() -> None:
    with pytest.raises(ArgumentError, match="breadth-first"), emulator.check(schedule="sideways"):
        pass
    with pytest.raises(ArgumentError, match="eager, lazy"), emulator.check(completion="never"):
        pass


def test_check_mode_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not emulator.settings().check
    monkeypatch.setenv("GPUNET_EMULATOR_CHECK", "1")
    assert emulator.settings().check
    with emulator.check(False, schedule="random", seed=4, completion="lazy"):
        assert emulator.settings() == (False, "random", 4, "lazy")


# ---- compiling --------------------------------------------------------------------------------------------------------


def test_compiler_message_names_file_and_line() -> None:
    with pytest.raises(CompileError, match=r"planted\.cu:2:.*undeclared_thing(.|\n)*"):
        function(body("out[0] = undeclared_thing;")).build("fast")


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_CXX", "no-such-compiler")
    assert not emulator.available()
    with pytest.raises(CompileError, match=r"'no-such-compiler' is not installed: apt install g\+\+.*GPUNET_CXX"):
        function(body("out[0] = 1.0f;")).build("fast")


def test_each_specialisation_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = body("out[threadIdx.x] = 1.0f;")
    commands: list[str] = []
    run = compiler._run
    monkeypatch.setattr(compiler, "_run", lambda command, what: (commands.append(what), run(command, what)))
    run_twice = [Function(text, "planted.cu", "planted", tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda f: f.build("fast"), run_twice))
    assert len(paths) == 1
    assert sorted(commands) == ["planted.cu as planted", "the emulator's cuda_on_cpu.h"]
    assert Function(text, "planted.cu", "planted", tmp_path).build("fast") in paths and len(commands) == 2
    other = Function(text.replace("1.0f", "2.0f"), "planted.cu", "planted", tmp_path)
    assert other.build("fast") not in paths and other.build("check") != other.build("fast")
    left = [path.name for path in tmp_path.iterdir() if not re.fullmatch(r"headers-.*|\w+-(fast|check)\.(so|symbols)", path.name)]
    assert left == []


def test_unwritable_cache_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(CompileError, match="GPUNET_CACHE_DIR"):
        Function(body("out[0] = 1.0f;"), "planted.cu", "planted", tmp_path / "file" / "cache").build("fast")


def test_prepare_compiles_all_functions(tmp_path: Path) -> None:
    functions = [Function(body(f"out[0] = {n};"), "planted.cu", "planted", tmp_path) for n in range(3)]
    done: list[Function] = []
    emulator.prepare(functions, report=done.append)
    assert done == functions and len(list(tmp_path.glob("*-fast.so"))) == 3


@pytest.mark.parametrize("kind", ["assembly", pytest.param("ucontext", marks=pytest.mark.exhaustive)])
def test_both_ways_to_switch_fibers(kind: str) -> None:
    """In a subprocess, because a process can load only one runtime."""
    script = (
        "import numpy\n"
        "from gpunet import emulator; from gpunet.errors import EmulationError; from tests.emulator import test_emulator as t\n"
        f"assert emulator.compiler.switch_kind() == {kind!r}\n"
        "for schedule in t.SCHEDULES: t.test_correct_kernels_pass_with_every_schedule(schedule)\n"
        "t.test_votes_and_shuffles(); t.test_planted_bug_is_named('barrier in a branch'); print('done')\n"
    )
    environment = {**os.environ, "GPUNET_EMULATOR_SWITCH": kind}
    folder = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.stdout == "done\n", done.stderr


def test_unknown_switch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUNET_EMULATOR_SWITCH", "teleport")
    with pytest.raises(CompileError, match="'assembly' or 'ucontext'"):
        compiler.runtime(tmp_path)
