"""``gpunet check-kernel``: the errors that it finds and how it prints them."""

from __future__ import annotations

import re

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources
from gpunet.errors import ArgumentError
from gpunet.tools.check_kernel import check
from gpunet.tools.kernel_launches import Launch
from tests.tools.check_kernel_command import COPY, FLOAT, arguments, checked, in_temporary_folder, write  # noqa: F401  a fixture among them

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

def test_correct_launch(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(capsys, "copy.cu", *FLOAT, *arguments("y=[60]", "x=[60]:arange", "n=60"))
    assert (code, err) == (0, "")
    assert out == "copy<float>, grid 2, block 32: no errors found\n  y float32[60], from 0 to 59\n"


def test_errors_are_printed_as_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the path as given. An error that every schedule shows is printed once."""
    file = write(COPY, "folder/copy.cu")
    code, out, _ = checked(capsys, file, *FLOAT, *arguments("y=[60]", "x=[50]", "n=60"))
    first, last = out.splitlines()
    assert code == 1
    assert re.match(
        r"folder/copy\.cu:4: out of bounds: reads 4 bytes at folder/copy\.cu:4, up to 4 bytes past the end of x", first
    )
    assert last == "copy<float>, grid 2, block 32: 1 error(s) found"


def test_folder_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Some messages of the emulator contain the full path already."""
    file = write("__global__ void local(int* y, int n) {\n  int a[4] = {};\n  y[0] = a[n];\n}\n", "my folder/k.cu")
    code, out, _ = checked(capsys, file, "--block", "1", *arguments("y=[1]", "n=4"))
    assert code == 1 and out.startswith("my folder/k.cu:3: array index: index 4 is out of range at my folder/k.cu:3 [")


def test_error_in_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    write("\n__device__ void set(float* y) {\n  y[threadIdx.x] = 1.0f;\n}\n", "headers/set.cuh")
    file = write('#include "set.cuh"\n__global__ void ones(float* y) { set(y); }\n')
    code, out, _ = checked(capsys, file, "-I", "headers", "--block", "32", *arguments("y=[31]"))
    assert code == 1 and out.startswith("headers/set.cuh:3: out of bounds: ")


def test_schedules_show_different_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the thread that arrives last has the error, and it differs between schedules."""
    file = write(
        "__global__ void turns(int* y, int* ticket) {\n  const int turn = atomicAdd(ticket, 1);\n"
        "  if (turn == 31 && threadIdx.x == 0) y[99] = 1;\n  y[threadIdx.x] = turn;\n}\n"
    )
    code, out, _ = checked(capsys, file, "--block", "32", *arguments("y=[32]", "ticket=[1]:zeros"))
    assert code == 1
    assert re.search(r"kernel\.cu:3: out of bounds: .* \[reversed\]", out)
    assert "y int32[32], from 0 to 31, different under different schedules" in out


def test_asynchronous_copy_without_wait(capsys: pytest.CaptureFixture[str]) -> None:
    text = """#include "primitives.cuh"
__global__ void stage(float* y, const float* x) {
  __shared__ __align__(16) float tile[128];
  cp_async<16>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<WAIT>();
  __syncthreads();
  for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = tile[127 - 4 * threadIdx.x - i];
}
"""
    call = ["--block", "32", *arguments("y=[128]", "x=[128]")]
    assert checked(capsys, write(text.replace("WAIT", "0")), *call)[0] == 0
    code, out, _ = checked(capsys, write(text.replace("WAIT", "1")), *call)
    assert code == 1 and "kernel.cu:8: " in out


def test_unwritten_elements(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["copy.cu", *FLOAT, *arguments("y=[3,20]", "x=[60]", "n=45")]
    code, out, _ = checked(capsys, *call)
    assert code == 1
    assert out.startswith("copy.cu:2: not written: 15 of 60 elements of y, the first y[2, 5]\n")
    assert re.search(r"  y float32\[3,20\], from -?[\d.]+ to [\d.]+, 15 not written\n", out)
    code, out, _ = checked(capsys, *call, "--partial")
    assert code == 0 and "15 not written" in out
    code, out, _ = checked(capsys, "copy.cu", *FLOAT, *arguments("y=[60]:ones", "x=[60]", "n=45"))
    assert code == 0 and "not written" not in out


@pytest.mark.parametrize("x", [numpy.arange(256, dtype=numpy.uint8), numpy.array([numpy.nan, numpy.inf, -0.0])])
def test_values_are_not_taken_for_poison(x: numpy.ndarray) -> None:
    """All values of a byte, and the usual NaN."""
    launch = Launch(
        f"copy<{'double' if x.dtype == float else 'unsigned char'}>",
        1,
        256,
        {"y": numpy.zeros_like(x), "x": x, "n": x.size},
    )
    [output] = check(cuda_sources.splice(COPY), launch).outputs
    assert output.unwritten == 0 and numpy.array_equal(output.array, x, equal_nan=x.dtype == float)
    assert ("1 NaN, 1 infinite" in str(output)) == (x.dtype == float)


def test_compile_errors_are_those_of_the_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    file = write(COPY.replace("x[i];", "x[j];"), "folder/copy.cu")
    code, out, err = checked(capsys, file, *FLOAT, *arguments("y=[60]", "x=[60]", "n=60"))
    assert (code, out) == (1, "")
    assert re.search(r"^folder/copy\.cu:4:\d+: error: .*j", err, re.MULTILINE)


def test_names_in_a_launch_must_be_parameters() -> None:
    x = numpy.ones(4, numpy.float32)
    for wrong in ({"inout": ("x",)}, {"expected": {"z": x}}, {"partial": ("n",)}):
        with pytest.raises(ArgumentError, match=rf"{next(iter(wrong))} '.': expected one of y, as in copy"):
            check(cuda_sources.splice(COPY), Launch("copy<float>", 1, 4, {"y": x, "x": x, "n": 4}, **wrong))  # type: ignore[arg-type]
