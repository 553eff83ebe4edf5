"""The device "cuda" in the quick tier: tests that run on CuPy, above the stand-in driver, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import driver
from tests.conftest import num_gpus
from tests.driver.processes import ROOT

#: Options of pytest, and files.
RUNS = {
    "eager": "tests/test_smoke.py",
    "lazy, two devices": "--driver-lazy --driver-devices 2 tests/captured/test_split_graphs.py tests/backend/test_devices.py",
}


@pytest.mark.parametrize("name", RUNS)
def test_on_cuda(name: str) -> None:
    possible, why = driver.available()
    if num_gpus() == 0 and not possible:
        if os.environ.get("GPUNET_REQUIRE_CUDA_STANDIN") == "1":
            pytest.fail(f"GPUNET_REQUIRE_CUDA_STANDIN=1, but the stand-in driver cannot be built: {why}")
        pytest.skip(f"no GPU, and the stand-in driver cannot be built: {why}")
    command = [sys.executable, "-m", "pytest", "-q", "--device", "cuda", "-p", "no:cacheprovider", *RUNS[name].split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join(["", *(done.stdout + done.stderr).splitlines()[-200:]])
    assert num_gpus() > 0 or " skipped" not in done.stdout, done.stdout
