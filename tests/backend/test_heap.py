"""What the heap keeps: large arrays that are freed and made again take no new pages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import resource, numpy
{first}

def step():
    arrays = [numpy.ones(1 << 18) for _ in range(4)]

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


_USE = "import gpunet; gpunet.ones(1)"


def _faults(first: str = "", **environment: str) -> int:
    """The page faults of eight steps that make and free 8 MB, after the line ``first``."""
    code = _CODE.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is that of Linux")
def test_freed_memory_is_used_again() -> None:
    if _faults() < 100:
        pytest.skip("this C library keeps freed memory by itself")
    assert _faults(_USE) < 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is that of Linux")
def test_the_environment_of_the_user_has_precedence() -> None:
    if _faults() >= 100:
        assert _faults(_USE, MALLOC_TRIM_THRESHOLD_="131072") >= 100
