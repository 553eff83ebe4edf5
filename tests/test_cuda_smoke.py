"""The device "cuda" in the quick tier: tests that run on CuPy, above the stand-in driver, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import driver
from tests.conftest import num_gpus
from tests.driver import build
from tests.driver.processes import ROOT

#: Options of pytest, and files.
RUNS = {
    "eager": "tests/test_smoke.py",
    "lazy, two devices": "--driver-lazy --driver-devices 2 -m on_device tests/captured/test_ownership.py tests/backend",
    "names of torch.cuda": (
        "--driver-devices 2 tests/backend/test_gpus.py --deselect tests/backend/test_gpus.py::test_without_a_gpu"
    ),
}


def why_impossible() -> str:
    """Return why nothing runs on "cuda" here; an empty string if there is a GPU, or the stand-in driver is built."""
    if num_gpus() > 0:
        return ""
    possible, why = driver.available()
    if possible:
        try:
            build.build()
        except build.BuildError as error:
            why = str(error)
    return why


@pytest.mark.parametrize("name", RUNS)
def test_on_cuda(name: str) -> None:
    if why := why_impossible():
        if os.environ.get("GPUNET_REQUIRE_CUDA_STANDIN") == "1":
            pytest.fail(f"GPUNET_REQUIRE_CUDA_STANDIN=1, but there is no GPU, and the stand-in driver cannot be built: {why}")
        pytest.skip(f"there is no GPU, and the stand-in driver cannot be built: {why}")
    command = [sys.executable, "-m", "pytest", "-q", "--device", "cuda", "-p", "no:cacheprovider", *RUNS[name].split()]
    environment = {name: value for name, value in os.environ.items() if name != "GPUNET_DRIVER_OPTIONS"}  # of this process
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join(["", *(done.stdout + done.stderr).splitlines()[-200:]])
    assert num_gpus() > 0 or " skipped" not in done.stdout, done.stdout
