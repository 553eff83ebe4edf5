"""CUDA's 16-bit types in users' sources: the headers are found for NVRTC and the emulator, or an error names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import compiler, disk_cache, toolkit
from gpunet.backend.devices import Device
from gpunet.errors import CompileError, EmulationError
from tests.backend.test_cuda_sources import needs_nvrtc

HALVES = Path(__file__).parents[1] / "emulator" / "kernels" / "halves.cu"


def has_headers() -> bool:
    try:
        return bool(toolkit.options("#include <cuda_fp16.h>\n", "any.cu"))
    except CompileError:
        return False


needs_headers = pytest.mark.skipif(not has_headers(), reason="CUDA's headers are not installed")
needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")


def test_sources_without_these_headers_need_no_options() -> None:
    assert toolkit.options('#include "pack.cuh"\n// #include <cuda_fp16.h>\n#include <math.h>\n', "any.cu") == ()


def test_missing_headers_say_what_to_install(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(toolkit, "installed", lambda *patterns: iter([tmp_path]))
    with pytest.raises(CompileError, match=r"own\.cu includes <cuda_bf16\.h>.*pip install nvidia-cuda-runtime .*CUDA_PATH"):
        toolkit.options("int x;\n #  include <cuda_bf16.h>\n", "own.cu")
    (tmp_path / "cuda_bf16.h").write_text("")
    with pytest.raises(CompileError, match="nv/target is not found"):
        toolkit.options("#include <cuda_bf16.h>\n", "own.cu")


def test_headers_in_wheels_and_in_a_toolkit(monkeypatch: Any, tmp_path: Path) -> None:
    for file in ("nvidia/cuda_runtime/include/cuda_fp16.h", "nvidia/cuda_cccl/include/nv/target"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("")
    monkeypatch.setattr(toolkit.sys, "path", [str(tmp_path)])
    runtime, cccl = (f"-I{tmp_path}/nvidia/cuda_{name}/include" for name in ("runtime", "cccl"))
    first = toolkit.options("#include <cuda_fp16.h>\n", "own.cu")
    assert first[:2] == (runtime, cccl)
    (tmp_path / "nvidia/cuda_runtime/include/cuda_fp16.h").touch()
    assert toolkit.options("#include <cuda_fp16.h>\n", "own.cu") != first
    monkeypatch.setattr(toolkit.sys, "path", [])
    (tmp_path / "nvidia").rename(tmp_path / "home")
    (tmp_path / "home/cuda_cccl/include/nv").rename(tmp_path / "home/cuda_runtime/include/nv")
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "home/cuda_runtime"))
    assert toolkit.options("#include <cuda_fp16.h>\n", "own.cu")[0] == f"-I{tmp_path}/home/cuda_runtime/include"


@needs_headers
@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_nvrtc_compiles_the_16_bit_types(architecture: str) -> None:
    assert compiler.compile_all(HALVES, ["halves", "brains", "reverse"], architecture)[0][:4] == b"\x7fELF"


@needs_headers
@needs_compiler
def test_function_missing_in_the_emulator_is_named() -> None:
    text = "#include <cuda_fp16.h>\n__global__ void own(__half2* x) {\n  x[0] = __hcmadd(x[0], x[1], x[2]);\n}\n"
    own = emulator.Function(text, "own.cu", "own", disk_cache.cache_directory() / "emulator", toolkit.options(text, "own.cu"))
    with pytest.raises(CompileError, match=r"own\.cu:3:.*__hcmadd.*was not declared"):
        own.build("fast")


@needs_headers
@needs_compiler
def test_float16() -> None:
    x = numpy.random.default_rng(0).normal(size=64).astype(numpy.float16)
    out = numpy.zeros((10, 64), numpy.float16)
    with emulator.check():
        compiler.function(HALVES, "halves", Device("emulated"))((1,), (64,), (out, x))
    single, other = x.astype(numpy.float32), x[::-1].astype(numpy.float32)
    expected = [
        x + x[::-1], x * x[::-1], x / x[::-1], numpy.exp(single), numpy.sqrt(numpy.abs(single)), single * other + single,
        numpy.maximum(x, x[::-1]), x[numpy.arange(64) ^ 1], numpy.tanh(single), numpy.rint(single),
    ]  # fmt: skip
    numpy.testing.assert_array_equal(out, numpy.array(expected).astype(numpy.float16))


@needs_headers
@needs_compiler
def test_bfloat16() -> None:
    x = numpy.random.default_rng(1).normal(size=64).astype(numpy.float32)
    out = numpy.zeros((2, 64), numpy.float32)
    with emulator.check():
        compiler.function(HALVES, "brains", Device("emulated"))((1,), (64,), (out, x))
    # x, 1 + |x| and the results are rounded to the 8 bits of bfloat16's significand
    numpy.testing.assert_allclose(out, [x * x + 1, numpy.log1p(numpy.abs(x))], rtol=2.0**-6, atol=2.0**-6)


@needs_headers
@needs_compiler
def test_shared_float16_is_checked() -> None:
    x = numpy.arange(64, dtype=numpy.float16)
    with emulator.check():
        out = numpy.zeros_like(x)
        compiler.function(HALVES, "reverse", Device("emulated"))((1,), (64,), (out, x))
        numpy.testing.assert_array_equal(out, x[::-1])
        text = HALVES.read_text().replace("__syncthreads();", "")
        cache = disk_cache.cache_directory() / "emulator"
        planted = emulator.Function(text, "planted.cu", "reverse", cache, toolkit.options(text, ""))
        with pytest.raises(EmulationError, match=r"uninitialised: .* of tile at planted\.cu:37"):
            planted((1,), (64,), (out, x))
