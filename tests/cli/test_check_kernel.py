"""Options of ``gpunet check-kernel``: exit codes and messages of invalid commands."""

from __future__ import annotations

import pytest

from gpunet import emulator
from tests.tools.check_kernel_command import FLOAT, arguments, checked, in_temporary_folder, write  # noqa: F401  a fixture among them

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

INVALID = {
    "no file": (["absent.cu", "--block", "1"], "cannot read the CUDA source 'absent.cu': there is no such file"),
    "template": (["copy.cu", "--block", "1"], "copy is a template; name a specialisation, such as 'copy<float>'"),
    "kernel": (["copy.cu", "--block", "1", "--entry", "move"], "no __global__ function 'move'; it has copy"),
    "block": (["copy.cu", "--entry", "copy<float>"], "--block is missing"),
    "missing": (["copy.cu", *FLOAT, *arguments("y=[1]")], "argument 'x' is missing: copy(T* y, const T* x, int n)"),
    "unknown": (
        ["copy.cu", *FLOAT, *arguments("z=[1]")],
        "--arg z=[1]: copy(T* y, const T* x, int n) has no parameter 'z'",
    ),
    "twice": (["copy.cu", *FLOAT, *arguments("n=1", "n=2")], "--arg 'n=2': expected NAME=VALUE, and 'n' only once"),
    "no value": (["copy.cu", *FLOAT, *arguments("n")], "--arg 'n': expected NAME=VALUE"),
    "no number": (["copy.cu", *FLOAT, *arguments("n=1.5")], "--arg n=1.5: '1.5' is not a valid int32"),
    "an array": (["copy.cu", *FLOAT, *arguments("x=5")], "--arg x=5: 'const T* x' takes an array: [SHAPE]"),
    "a scalar": (["copy.cu", *FLOAT, *arguments("n=[5]")], "--arg n=[5]: 'int n' takes a number"),
    "dtype": (["copy.cu", *FLOAT, *arguments("x=real[5]")], "--arg x=real[5]: 'real' is not a dtype"),
    "contents": (["copy.cu", *FLOAT, *arguments("x=[5]:many")], "invalid contents 'many' for float32; expected random, zeros"),
    "range": (["copy.cu", *FLOAT, *arguments("x=[5]:2..1")], "'2..1': expected A..B with A less than B"),
    "no npy": (["copy.cu", *FLOAT, *arguments("x=absent.npy")], "cannot read absent.npy"),
    "other dtype": (
        ["copy.cu", *FLOAT, *arguments("y=[5]", "x=float64[5]", "n=5")],
        "'x' is float64 where the kernel declares float",
    ),
    "too large": (
        ["copy.cu", "--entry", "copy<float>", "--block", "2048", *arguments("y=[5]", "x=[5]", "n=5")],
        "block (2048,)",
    ),
    "both": (["copy.cu", "--launch", "l.py", "--block", "1"], "--launch describes the whole launch"),
    "no launch file": (
        ["copy.cu", "--launch", "l.py"],
        "--launch l.py: expected a Python file with a function launches()",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_commands(capsys: pytest.CaptureFixture[str], name: str) -> None:
    command, message = INVALID[name]
    code, out, err = checked(capsys, *command)
    assert (code, out) == (2, "")
    assert err.startswith("gpunet: error: ") and message in err


def test_missing_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUNET_CXX", "absent-compiler")
    code, _, err = checked(capsys, "copy.cu", *FLOAT)
    assert code == 2 and "apt install g++" in err


def test_macros(capsys: pytest.CaptureFixture[str]) -> None:
    file = write("__global__ void fill(int* y) { y[threadIdx.x] = VALUE; }\n")
    code, out, _ = checked(capsys, file, "--block", "4", "-D", "VALUE=7", *arguments("y=[4]"))
    assert code == 0 and "y int32[4], from 7 to 7" in out
