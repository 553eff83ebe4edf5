"""Runs a piece of a test in a process of its own, with the stand-in driver as that test wants it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests import driver

ROOT = Path(__file__).resolve().parents[2]

_PRELUDE = """\
import ctypes, os, subprocess, sys, threading
import cupy, numpy, pytest
from cupy.cuda import Device, Event, Stream, runtime
from cupy_backends.cuda.api.driver import CUDADriverError
from tests import driver

CUDAError = (CUDADriverError, runtime.CUDARuntimeError)

def refuses(message):
    return pytest.raises(CUDAError, match=message)

def kernel(code, name):
    return cupy.RawModule(code=code).get_function(name)

def array(pointer, count, dtype="f4"):  # on memory of cudaMalloc
    memory = cupy.cuda.UnownedMemory(pointer, count * numpy.dtype(dtype).itemsize, None)
    return cupy.ndarray((count,), dtype, cupy.cuda.MemoryPointer(memory, 0))

FILL = '''extern "C" __global__ void fill(float* x, float value, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = value;
}'''
"""


def run(code: str, *options: str) -> str:
    """Run a program with the stand-in driver and return what it prints.

    Args:
        options: of ``python -m tests.driver``.
    """
    possible, why = driver.available()
    if not possible:
        pytest.skip(why)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(_PRELUDE + textwrap.dedent(code))
        command = [sys.executable, "-m", "tests.driver", *options, str(script)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
