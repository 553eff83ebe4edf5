"""Fixtures: the devices that the suite runs on, the oracle (PyTorch), and the same seed before every test.

    pytest                        the quick tier, on every device that is here
    pytest --tier all             everything
    pytest --tier rest            what the quick tier leaves out
    pytest --tier rest --part 2/8 an eighth of that
    pytest --device cpu           on one device
    pytest --device cuda          on a GPU; on a machine without one, on the stand-in driver of tests/driver
    pytest --device cuda:1        on the second GPU, while the first is CuPy's current device
    pytest --device cuda --driver-lazy --driver-devices 2 --driver-peers --driver-check
                                  options of the stand-in driver
    GPUNET_REQUIRE_TORCH=1        a missing PyTorch fails the tests that need it, instead of skipping them
    GPUNET_REQUIRE_CUDA_STANDIN=1 the same for the stand-in driver
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import gpunet
from gpunet.backend import threads
from gpunet.errors import MissingDependencyError
from tests import driver
from tests.driver import pytest_plugin as driver_plugin

# products are NumPy's where a test does not say otherwise: nothing is measured, and the bits don't depend on what is installed
os.environ["GPUNET_BLAS"] = "numpy"

DEVICES = ("cpu", "emulated", "cuda", "cuda:1")


@functools.cache
def num_gpus() -> int:
    """Return the number of GPUs that NVIDIA's driver sees; 0 without a driver.  CuPy is not imported."""
    try:
        libcuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if libcuda.cuInit(0) == 0 and libcuda.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def available_devices() -> list[str]:
    """Return the devices that tests run on by default; "cuda" if there is a GPU, or if the stand-in driver is installed."""
    return [name for name in DEVICES[:3] if not why_missing(name)]


def why_missing(name: str) -> str:
    """Return why tests cannot run on a device; an empty string if they can."""
    from gpunet import emulator

    if name == "emulated":
        return "" if emulator.available() else "g++ is not installed"
    if not name.startswith("cuda"):
        return ""
    if driver.installed() is None and num_gpus() == 0:
        return "there is no GPU, and the stand-in driver is not installed"
    if not gpunet.cuda_status().ready:
        return gpunet.cuda_status().detail
    if name == "cuda:1" and gpunet.cuda.device_count() == 1:
        return "there is one GPU; add --driver-devices 2 for the stand-in driver"
    return ""


# ---- options --------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--device", choices=DEVICES, help="run on this device only (default: all that are here)")
    parser.addoption(
        "--tier", choices=["quick", "rest", "all"], default="quick",
        help="quick leaves out the tests marked exhaustive (default), rest runs those alone; a test named by its id always runs",
    )  # fmt: skip
    parser.addoption("--part", metavar="I/N", help="of the tests marked exhaustive only part I of N, counted from 0")
    if not pluginmanager.hasplugin(driver_plugin.__name__):
        driver_plugin.pytest_addoption(parser)
        pluginmanager.set_blocked(driver_plugin.__name__)  # workers of pytest-xdist load the plugins of -p after the conftests


def is_for_cuda(config: pytest.Config) -> bool:
    return str(config.getoption("--device")).startswith("cuda")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With ``-n``, let a process that is done take tests of another one."""
    if getattr(config.option, "dist", None) == "no":
        config.option.dist = "worksteal" if config.option.numprocesses else "no"


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out to the processes of ``-n``; install the stand-in driver for ``--device cuda`` without a GPU.

    Threads of BLAS and OpenMP libraries wait for each other in loops, and where several processes have a thread for each core,
    most of the time passes in these: two runs of a test of LeNet at once take ten times as long as with a thread each.
    """
    if processes := getattr(config.option, "numprocesses", None):  # None in the processes of -n themselves
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads.available_cores() // processes)))
    if not is_for_cuda(config) or driver.installed() is not None or num_gpus() > 0:
        return
    possible, why = driver.available()  # installs it in a process that inherits it
    if not possible:
        raise pytest.UsageError(f"--device cuda: there is no GPU, and the stand-in driver cannot be built: {why}")
    if driver.installed() is None:
        driver.install(*(config.getoption(f"--driver-{name}") for name in driver.Options._fields))


def pytest_report_header(config: pytest.Config) -> str | None:
    has_plugin = config.pluginmanager.hasplugin(driver_plugin.__name__)
    return None if has_plugin or not is_for_cuda(config) else driver_plugin.pytest_report_header()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device")
        names = available_devices() if chosen is None else [chosen]
        metafunc.parametrize("device", names, indirect=True)


def takes_device(item: pytest.Item) -> bool:
    """Return whether a test has a fixture of a device, or "cuda" as a parameter."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return not {"device", "gpu"}.isdisjoint(getattr(item, "fixturenames", ())) or any(p == "cuda" for p in map(str, parameters))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip what needs cuSOLVER or cuBLAS on the stand-in driver, which has none."""
    try:
        return (yield)  # type: ignore[return-value]
    except MissingDependencyError as error:
        if error.name != "cusolver" or driver.installed() is None:
            raise
        pytest.skip("the stand-in driver has no cuSOLVER")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests of a device; leave out what belongs to another tier or part, and tests of GPUs alone where there is none."""
    if addresses := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]+", item.nodeid)]:
        raise pytest.UsageError(f"the ids of tests contain addresses, which differ between workers: {addresses[:3]}; pass ids=")
    tier, part = config.getoption("--tier"), config.getoption("--part")
    is_named = any("::" in argument for argument in config.args)
    if tier == "quick" and is_named:
        tier = "all"
    without_gpu = not is_named and why_missing("cuda") != ""
    index, count = map(int, part.split("/")) if part else (0, 1)

    def is_chosen(item: pytest.Item) -> bool:
        if without_gpu and "gpu" in getattr(item, "fixturenames", ()):
            return False
        if item.get_closest_marker("exhaustive") is None:
            return tier != "rest"
        return tier != "quick" and zlib.crc32(item.nodeid.encode()) % count == index

    for item in items:
        if takes_device(item):
            item.add_marker("on_device")
    left_out = [item for item in items if not is_chosen(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_chosen(item)]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a device, which new tensors are made on meanwhile."""
    name = request.param
    if why := why_missing(name):
        pytest.fail(f"--device {name} was asked for: {why}")
    gpunet.set_default_device(name)
    yield name
    gpunet.set_default_device(None)
    gpunet.synchronize(name)  # an error that a kernel reported and nobody read is this test's


@pytest.fixture(params=["numpy", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend of captured steps; "numba" only runs steps on the CPU."""
    if request.param == "numba":
        pytest.importorskip("numba")
        if request.node.callspec.params.get("device", "cpu") != "cpu":
            pytest.skip("a backend of the CPU")
    return str(request.param)


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """"cuda", on which new tensors are made meanwhile, for a test of GPUs alone: a real one or the stand-in driver's."""
    if request.config.getoption("--device") not in (None, "cuda") or why_missing("cuda"):
        pytest.skip("a test of GPUs alone; run it with --device cuda")
    gpunet.set_default_device("cuda")
    yield "cuda"
    gpunet.set_default_device(None)


@pytest.fixture
def other_gpu(gpu: str) -> str:
    """"cuda:1", on which new tensors are made meanwhile, while CuPy's current device is 0."""
    if why := why_missing("cuda:1"):
        pytest.skip(why)
    gpunet.set_default_device("cuda:1")
    return "cuda:1"


def find_torch() -> ModuleType:
    """PyTorch, the tests' oracle.  Where it is absent the test skips, or fails with ``GPUNET_REQUIRE_TORCH=1``."""
    try:
        import torch
    except ImportError as error:
        if os.environ.get("GPUNET_REQUIRE_TORCH") == "1":
            pytest.fail(f"GPUNET_REQUIRE_TORCH=1, but PyTorch does not import: {error}. pip install torch==2.13.0")
        pytest.skip("PyTorch is not installed")
    torch.set_num_threads(1)  # the suite itself runs in parallel
    torch.backends.opt_einsum.enabled = False  # else einsum depends on whether that package is installed, as for JAX
    return torch


@pytest.fixture
def torch() -> Any:
    return find_torch()


@pytest.fixture(autouse=True)
def no_numba_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the suite records is lowered to NumPy, with the bits of eager, where it does not ask for Numba by name."""
    from gpunet.captured.compiled import module

    monkeypatch.setattr(module, "available", lambda: False)


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    """The same seed for every test; and no test leaves its switches to the next."""
    gpunet.manual_seed(0)
    yield
    gpunet.set_grad_enabled(True)
    gpunet.set_default_dtype(gpunet.float32)
    if driver.installed() is not None:
        driver.clear_faults()  # of an illegal address, which would spoil the tests behind
