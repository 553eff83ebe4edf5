"""The device "cuda" in the quick tier: the smoke tests run on CuPy, above the stand-in driver, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import driver
from tests.conftest import num_gpus
from tests.driver.processes import ROOT


def test_smoke_tests_pass_on_cuda() -> None:
    possible, why = driver.available()
    if num_gpus() == 0 and not possible:
        if os.environ.get("GPUNET_REQUIRE_CUDA_STANDIN") == "1":
            pytest.fail(f"GPUNET_REQUIRE_CUDA_STANDIN=1, but the stand-in driver cannot be built: {why}")
        pytest.skip(f"no GPU, and the stand-in driver cannot be built: {why}")
    command = [sys.executable, "-m", "pytest", "-q", "--device", "cuda", "-p", "no:cacheprovider", "tests/test_smoke.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join(["", *(done.stdout + done.stderr).splitlines()[-200:]])
    assert " skipped" not in done.stdout, done.stdout
