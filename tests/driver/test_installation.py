"""Installation: when it is refused, and who inherits it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests import driver
from tests.driver import build
from tests.driver.processes import ROOT, run


def test_it_is_installed_once_and_before_cupy() -> None:
    run("""
    assert driver.installed() == driver.Options(lazy=True, devices=2)
    assert driver.describe() == "stand-in driver without a GPU (lazy, 2 devices)"
    driver.install(lazy=True, devices=2)
    with pytest.raises(RuntimeError, match="installed already: lazy, 2 devices"):
        driver.install()
    assert runtime.getDeviceCount() == 2
    """, "--lazy", "--devices", "2")  # fmt: skip
    code = "import cupy\nfrom tests import driver\ntry: driver.install()\nexcept RuntimeError as error: print(error)"
    environment = {name: value for name, value in os.environ.items() if name != "GPUNET_DRIVER_OPTIONS"}  # of this process
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if driver.available()[0]:
        assert "before CuPy is imported" in done.stdout


def test_child_processes_inherit_it() -> None:
    run("""
    child = "import cupy; print(cupy.arange(3).sum(), cupy.cuda.runtime.getDeviceCount())"
    assert subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.split() == ["3", "2"]
    """, "--devices", "2")  # fmt: skip


def test_a_build_is_kept() -> None:
    if driver.available()[0]:
        first = build.build()
        stamp = (first / "libcuda.so.1").stat().st_mtime_ns
        assert build.build() == first and (first / "libcuda.so.1").stat().st_mtime_ns == stamp
        assert (first / "LICENSE-cupy").exists()
