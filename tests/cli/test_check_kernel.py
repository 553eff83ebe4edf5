"""``gpunet check-kernel``: findings as a compiler prints them, exit codes, the language of arguments, launches from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.backend import cuda_sources
from gpunet.backend.signature import entries
from gpunet.cli.main import main
from gpunet.errors import ArgumentError
from gpunet.tools import kernel_arguments
from gpunet.tools.check_kernel import Launch, check

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

COPY = """\
template <class T>
__global__ void copy(T* y, const T* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copy.cu").write_text(COPY)


def written(text: str, name: str = "kernel.cu") -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    return name


def checked(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main(["check-kernel", *map(str, arguments)])
    return code, *capsys.readouterr()


def arguments(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--arg", text)]


FLOAT = ["--entry", "copy<float>", "--grid", "2", "--block", "32"]


# ---- findings ---------------------------------------------------------------------------------------------------------


def test_a_clean_launch(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked(capsys, "copy.cu", *FLOAT, *arguments("y=[60]", "x=[60]:arange", "n=60"))
    assert (code, err) == (0, "")
    assert out == "copy<float>, grid 2, block 32: nothing found\n  y float32[60], from 0 to 59\n"


def test_findings_are_lines_that_editors_know(capsys: pytest.CaptureFixture[str]) -> None:
    """With the path as it was given, each finding once though every schedule comes to it."""
    file = written(COPY, "folder/copy.cu")
    code, out, _ = checked(capsys, file, *FLOAT, *arguments("y=[60]", "x=[50]", "n=60"))
    first, last = out.splitlines()
    assert code == 1
    assert re.match(
        r"folder/copy\.cu:4: out of bounds: reads 4 bytes at folder/copy\.cu:4, up to 4 bytes past the end of x", first
    )
    assert last == "copy<float>, grid 2, block 32: 1 found"


def test_a_folder_stands_once_in_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    """Some findings of the emulator have the whole name already."""
    file = written("__global__ void local(int* y, int n) {\n  int a[4] = {};\n  y[0] = a[n];\n}\n", "my folder/k.cu")
    code, out, _ = checked(capsys, file, "--block", "1", *arguments("y=[1]", "n=4"))
    assert code == 1 and out.startswith("my folder/k.cu:3: array index: index 4 is out of range at my folder/k.cu:3 [")


def test_a_finding_in_a_header_is_in_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    written("\n__device__ void set(float* y) {\n  y[threadIdx.x] = 1.0f;\n}\n", "headers/set.cuh")
    file = written('#include "set.cuh"\n__global__ void ones(float* y) { set(y); }\n')
    code, out, _ = checked(capsys, file, "-I", "headers", "--block", "32", *arguments("y=[31]"))
    assert code == 1 and out.startswith("headers/set.cuh:3: out of bounds: ")


def test_different_schedules_find_different_things(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the last thread to come sees what is wrong: each schedule has another."""
    file = written(
        "__global__ void turns(int* y, int* ticket) {\n  const int turn = atomicAdd(ticket, 1);\n"
        "  if (turn == 31 && threadIdx.x == 0) y[99] = 1;\n  y[threadIdx.x] = turn;\n}\n"
    )
    code, out, _ = checked(capsys, file, "--block", "32", *arguments("y=[32]", "ticket=[1]:zeros"))
    assert code == 1
    assert re.search(r"kernel\.cu:3: out of bounds: .* \[reversed\]", out)
    assert "y int32[32], from 0 to 31, not the same under every schedule" in out


def test_copies_that_are_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert checked(capsys, written(text.replace("WAIT", "0")), *call)[0] == 0
    code, out, _ = checked(capsys, written(text.replace("WAIT", "1")), *call)
    assert code == 1 and "kernel.cu:8: " in out


def test_elements_that_nobody_writes(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_no_value_is_taken_for_poison(x: numpy.ndarray) -> None:
    """Not any of a byte's values, nor the usual NaN."""
    launch = Launch(
        f"copy<{'double' if x.dtype == float else 'unsigned char'}>",
        1,
        256,
        {"y": numpy.zeros_like(x), "x": x, "n": x.size},
    )
    [output] = check(cuda_sources.splice(COPY), launch).outputs
    assert output.unwritten == 0 and numpy.array_equal(output.array, x, equal_nan=x.dtype == float)
    assert ("1 NaN, 1 infinite" in str(output)) == (x.dtype == float)


def test_what_does_not_compile_is_printed_as_the_compiler_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    file = written(COPY.replace("x[i];", "x[j];"), "folder/copy.cu")
    code, out, err = checked(capsys, file, *FLOAT, *arguments("y=[60]", "x=[60]", "n=60"))
    assert (code, out) == (1, "")
    assert re.search(r"^folder/copy\.cu:4:\d+: error: .*j", err, re.MULTILINE)


# ---- the command ------------------------------------------------------------------------------------------------------

WRONG = {
    "no file": (["absent.cu", "--block", "1"], "cannot read the CUDA source 'absent.cu': there is no such file"),
    "template": (["copy.cu", "--block", "1"], "copy is a template; name a specialisation, such as 'copy<float>'"),
    "kernel": (["copy.cu", "--block", "1", "--entry", "move"], "no __global__ function 'move'; it has copy"),
    "block": (["copy.cu", "--entry", "copy<float>"], "--block is missing"),
    "missing": (["copy.cu", *FLOAT, *arguments("y=[1]")], "argument 'x' is missing: copy(T* y, const T* x, int n)"),
    "unknown": (
        ["copy.cu", *FLOAT, *arguments("z=[1]")],
        "--arg z=[1]: copy(T* y, const T* x, int n) has no parameter 'z'",
    ),
    "twice": (["copy.cu", *FLOAT, *arguments("n=1", "n=2")], "--arg 'n=2': expected NAME=VALUE, and 'n' once only"),
    "no value": (["copy.cu", *FLOAT, *arguments("n")], "--arg 'n': expected NAME=VALUE"),
    "no number": (["copy.cu", *FLOAT, *arguments("n=1.5")], "--arg n=1.5: '1.5' is no int32"),
    "an array": (["copy.cu", *FLOAT, *arguments("x=5")], "--arg x=5: 'const T* x' takes an array: [SHAPE]"),
    "a scalar": (["copy.cu", *FLOAT, *arguments("n=[5]")], "--arg n=[5]: 'int n' takes a number"),
    "dtype": (["copy.cu", *FLOAT, *arguments("x=real[5]")], "--arg x=real[5]: 'real' is no dtype"),
    "contents": (["copy.cu", *FLOAT, *arguments("x=[5]:many")], "contents 'many' of float32; expected random, zeros"),
    "range": (["copy.cu", *FLOAT, *arguments("x=[5]:2..1")], "'2..1': the first must be less"),
    "no npy": (["copy.cu", *FLOAT, *arguments("x=absent.npy")], "absent.npy cannot be read"),
    "other dtype": (
        ["copy.cu", *FLOAT, *arguments("y=[5]", "x=float64[5]", "n=5")],
        "'x' is float64 where the kernel declares float",
    ),
    "too large": (
        ["copy.cu", "--entry", "copy<float>", "--block", "2048", *arguments("y=[5]", "x=[5]", "n=5")],
        "block (2048,)",
    ),
    "both": (["copy.cu", "--launch", "l.py", "--block", "1"], "--launch says all of a launch"),
    "no launch file": (
        ["copy.cu", "--launch", "l.py"],
        "--launch l.py: expected a Python file with a function launches()",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_commands(capsys: pytest.CaptureFixture[str], name: str) -> None:
    command, message = WRONG[name]
    code, out, err = checked(capsys, *command)
    assert (code, out) == (2, "")
    assert err.startswith("gpunet: error: ") and message in err


def test_without_a_compiler_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUNET_CXX", "absent-compiler")
    code, _, err = checked(capsys, "copy.cu", *FLOAT)
    assert code == 2 and "apt install g++" in err


def test_macros(capsys: pytest.CaptureFixture[str]) -> None:
    file = written("__global__ void fill(int* y) { y[threadIdx.x] = VALUE; }\n")
    code, out, _ = checked(capsys, file, "--block", "4", "-D", "VALUE=7", *arguments("y=[4]"))
    assert code == 0 and "y int32[4], from 7 to 7" in out


# ---- arguments --------------------------------------------------------------------------------------------------------


def parsed(*texts: str, expression: str = "copy<float>", seed: int = 0) -> tuple[dict[str, Any], tuple[str, ...]]:
    return kernel_arguments.parse(cuda_sources.splice(COPY), expression, texts, seed)


def test_contents() -> None:
    def x(text: str, expression: str = "copy<float>") -> Any:
        return parsed(f"x={text}", expression=expression)[0]["x"]

    numpy.save("saved.npy", numpy.array([1.0, 2.0], numpy.float32))
    assert x("[2,3]").shape == (2, 3) and x("[2,3]").dtype == numpy.float32 and x("[]").shape == ()
    assert x("[2]:arange", "copy<double>").dtype == numpy.float64 and x("int32[4]").dtype == numpy.int32
    assert (
        x("[2]:zeros").tolist() == [0, 0] and x("[2]:ones").tolist() == [1, 1] and x("[3]:arange").tolist() == [0, 1, 2]
    )
    assert x("[2]:-2.5").tolist() == [-2.5, -2.5] and x("[2]:saved.npy").tolist() == x("saved.npy").tolist() == [1, 2]
    assert set(x("[99]:-1..2", "copy<int>").tolist()) == {-1, 0, 1}
    assert -0.5 <= x("[99]:-0.5..1e-1").min() < x("[99]:-0.5..1e-1").max() < 0.1
    assert (x("[9]") == x("[9]:random")).all() and (x("[9]") != parsed("x=[9]", seed=1)[0]["x"]).any()
    assert x("null") is None
    assert set(x("[99]", "copy<bool>").tolist()) == {False, True}
    with pytest.raises(ArgumentError, match=r"the file holds float32\[2\], expected float32\[3\]"):
        x("[3]:saved.npy")


def test_what_is_given_contents_is_not_poisoned() -> None:
    values, inout = parsed("y=[4]", "x=[4]:ones", "n=0x10")
    assert inout == () and values["n"] == 16 and type(values["n"]) is numpy.int32
    assert parsed("y=[4]:zeros")[1] == ("y",)


# ---- launches from a file ---------------------------------------------------------------------------------------------


def test_launches_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    written(
        "import numpy\ndef launches():\n  for n in (5, 60):\n    x = numpy.arange(n, dtype=numpy.float64)\n"
        "    yield dict(entry='copy<double>', grid=2, block=32, arguments=dict(y=numpy.empty(n), x=x, n=n),\n"
        "               expected=dict(y=x + (n == 60) * (x == 7)))\n", "l.py"
    )  # fmt: skip
    code, out, _ = checked(capsys, "copy.cu", "--launch", "l.py")
    assert code == 1
    clean, _, wrong, *_ = out.splitlines()
    assert clean.endswith("nothing found")
    assert wrong.startswith("copy.cu:2: wrong result: y[7] is 7.0, expected 8.0 (1 of 60 elements differ")


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\ny = 1 / 0\n", "l.py:2: ZeroDivisionError"),
        ("x = 1\n", "there is no function launches"),
        ("def launches():\n  return [dict(entri='copy')]\n", "unexpected keyword argument 'entri'"),
        ("def launches():\n  return []\n", "returned none"),
    ],
)
def test_a_file_that_is_wrong(capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    written(text, "l.py")
    code, _, err = checked(capsys, "copy.cu", "--launch", "l.py")
    assert code == 2 and re.search(message, err)


def test_names_in_a_launch_are_the_kernels() -> None:
    x = numpy.ones(4, numpy.float32)
    for wrong in ({"inout": ("x",)}, {"expected": {"z": x}}, {"partial": ("n",)}):
        with pytest.raises(ArgumentError, match=rf"{next(iter(wrong))} '.': expected one of y, by copy"):
            check(cuda_sources.splice(COPY), Launch("copy<float>", 1, 4, {"y": x, "x": x, "n": 4}, **wrong))  # type: ignore[arg-type]


# ---- declarations -----------------------------------------------------------------------------------------------------


def test_declarations() -> None:
    found = entries(
        "// __global__ void in_a_comment(int* x) {}\n"
        'extern "C" __global__\nvoid __launch_bounds__(f(1), 2) first(float *__restrict__ y, float const* x, const unsigned n,\n'
        "    long long int m, int a[], unsigned long long * z /* , int no */, Pair<float, 3> q) {}\n"
        "__global__ void only_declared(int*);\n"
        '#line 7 "other.cuh"\n'
        "template <typename scalar_t, class Op = Plus<int>, int N = 4>\n__global__ static void second(scalar_t* y) { }\n"
    )
    assert list(found) == ["first", "second"]
    assert str(found["first"]) == (
        "first(float* y, const float* x, unsigned int n, long long m, int* a, unsigned long long* z, Pair<float, 3> q)"
    )
    assert found["first"].place == "source:3"
    assert found["second"].place == "other.cuh:8"
    assert (found["second"].types, found["second"].values) == (("scalar_t", "Op"), ("N",))
