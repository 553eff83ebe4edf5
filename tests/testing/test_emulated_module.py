"""gpunet.testing.RawModule and the fixture ``emulated_module``: CUDA kernels on NumPy arrays, emulated and checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet import emulator
from gpunet.errors import ArgumentError, CompileError, EmulationError, LaunchError
from gpunet.testing import RawModule

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

SOURCE = r"""
extern "C" __global__ void shift(float* y, const float* x, float by, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] + by * FACTOR;
}
template <class T, int N> __global__ void scale(T* y, const T* x) { y[threadIdx.x] = N * x[threadIdx.x]; }
__global__ void count(unsigned long long* y, long long from, double step, bool down) {
  extern __shared__ unsigned char room[];
  y[threadIdx.x] = from + (long long)(step * threadIdx.x) * (down ? -1 : 1);
}
"""


def module(**changed: Any) -> RawModule:
    return RawModule(SOURCE, **({"options": ("-DFACTOR=3", "--std=c++17", "-lineinfo")} | changed))


def floats(count: int) -> numpy.ndarray:
    return numpy.arange(count, dtype=numpy.float32)


@needs_compiler
def test_functions_and_specialisations() -> None:
    y = numpy.zeros(100, numpy.float32)
    module().get_function("shift")((2,), (64,), (y, floats(100), numpy.float32(2), 100))
    assert (y == floats(100) + 6).all()
    module(name_expressions=["scale<double, 5>"]).get_function("scale<double, 5>")(
        (1,), (4,), (z := numpy.zeros(4), numpy.arange(4.0))
    )
    assert z.tolist() == [0, 5, 10, 15]


@needs_compiler
def test_python_numbers_are_passed_as_in_cupy() -> None:
    y = numpy.zeros(3, numpy.uint64)
    module().get_function("count")((1,), (3,), (y, 10, 2.0, True), shared_mem=16)
    assert y.tolist() == [10, 8, 6]


@needs_compiler
def test_findings_are_errors_unless_checks_are_off() -> None:
    arguments = (numpy.zeros(8, numpy.float32), floats(8), numpy.float32(2), 8)
    race = RawModule(SOURCE.replace("y[i] =", "y[0] ="), options=["-DFACTOR=1"])
    with pytest.raises(EmulationError, match=r"shift: race: thread 1 writes y\[0\] at raw_module\.cu:4"):
        race.get_function("shift")((1,), (8,), arguments)
    fast = RawModule(SOURCE.replace("y[i] =", "y[0] ="), options=["-DFACTOR=1"], check=False).get_function("shift")
    fast((1,), (8,), arguments)
    assert arguments[0][0] == 9.0
    with emulator.check(schedule="reversed"), pytest.raises(EmulationError, match="race: thread 6 writes"):
        fast((1,), (8,), arguments)


@needs_compiler
def test_source_file_with_headers(tmp_path: Path) -> None:
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers" / "two.h").write_text("#define TWO 2\n")
    (tmp_path / "k.cu").write_text('#include "two.h"\n__global__ void k(int* y) { y[threadIdx.x] = TWO; y[9] = 1; }\n')
    y = numpy.zeros(8, numpy.int32)
    with pytest.raises(EmulationError, match=r"k\.cu:2"):
        RawModule(path=tmp_path / "k.cu", options=[f"-I{tmp_path / 'headers'}"]).get_function("k")((1,), (8,), (y,))


MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (lambda: RawModule(), ArgumentError, "either code= or path="),
    "both": (lambda: RawModule("", path="x.cu"), ArgumentError, "either code= or path="),
    "no file": (lambda: RawModule(path="absent.cu"), CompileError, "absent.cu"),
    "no kernel": (lambda: module().get_function("move"), ArgumentError, "no __global__ function 'move'; it has shift, scale"),
    "template": (lambda: module().get_function("scale"), ArgumentError, "scale is a template; name a .*, such as 'scale<float>'"),
    "not declared": (
        lambda: module(name_expressions=["scale<float, 1>"]).get_function("scale<float, 2>"), ArgumentError,
        r"'scale<float, 2>' is not among name_expressions=\['scale<float, 1>'\]",
    ),
    "count": (lambda: module().get_function("shift")((1,), (1,), ()), LaunchError, "0 arguments; expected 4: shift.float. y"),
    "a Python float": (
        lambda: module().get_function("shift")((1,), (8,), (floats(8), floats(8), 2.0, 8)), LaunchError,
        r"argument 'by' is the Python float 2.0, which is passed as a double, .* declares float; pass numpy.float32\(2.0\)",
    ),
    "too large": (
        lambda: module().get_function("shift")((1,), (8,), (floats(8), floats(8), numpy.float32(2), 2**31)), LaunchError,
        "argument 'n' is 2147483648, which is not a valid int",
    ),
    "dtype": (
        lambda: module().get_function("shift")((1,), (8,), (floats(8), numpy.zeros(8), numpy.float32(2), 8)), LaunchError,
        "argument 'x' is float64 where the kernel declares float",
    ),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    act, error, message = MISTAKES[name]
    with pytest.raises(error) as raised:
        act()
    assert re.search(message, str(raised.value)), str(raised.value)


# ---- the plugin -------------------------------------------------------------------------------------------------------


def pytest_run(folder: Path, *options: str, **environment: str) -> str:
    """Run pytest in a subprocess with the plugin as it is installed; return its output."""
    paths = [str(ROOT), str(ROOT / "gpunet" / "testing" / "plugin")]
    options = ("-p", "pytest_gpunet", "-p", "no:cacheprovider", "-rs", "--tb=short", *options)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, check=False)
    return done.stdout + done.stderr


@needs_compiler
def test_fixture_in_the_example() -> None:
    assert re.search(r"\b2 passed", pytest_run(ROOT / "examples" / "your_own_kernel"))


def test_plugin_imports_gpunet_only_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import sys\ndef test_it():\n    assert 'gpunet' not in sys.modules\n")
    assert re.search(r"\b1 passed", pytest_run(tmp_path))


def test_without_a_compiler_the_fixture_fails_or_skips(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(emulated_module):\n    emulated_module('')\n")
    output = pytest_run(tmp_path, GPUNET_CXX="absent-compiler")
    assert re.search(r"\b1 error", output) and "apt install g++" in output
    output = pytest_run(tmp_path, "--emulated-skip", GPUNET_CXX="absent-compiler")
    assert re.search(r"\b1 skipped", output) and "g++ is not installed" in output
