"""Fixtures: the devices that the suite runs on, the oracle (PyTorch), and the same seed before every test.

    pytest                        the quick tier, on every device that is here
    pytest --tier all             everything
    pytest --tier rest            what the quick tier leaves out
    pytest --tier rest --part 2/8 an eighth of that
    pytest --device cpu           on one device
    pytest --device cuda:1        on the second GPU, while the first is CuPy's current device
    pytest --device stand-in      on "cuda" without a card: a stand-in for CuPy, launches run by the emulator
    GPUNET_REQUIRE_TORCH=1        a missing PyTorch fails the tests that need it, instead of skipping them
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import gpunet
from tests import fake_cupy

# products are NumPy's where a test does not say otherwise: nothing is measured, and the bits don't depend on what is installed
os.environ["GPUNET_BLAS"] = "numpy"

#: Ways to run a launch: the name for ``--device``, and where its arrays live.
DEVICES = {"cpu": "cpu", "emulated": "emulated", "cuda": "cuda", "cuda:1": "cuda:1", "stand-in": "cuda"}


def available_devices() -> list[str]:
    from gpunet import emulator

    here = {"cpu": True, "emulated": emulator.available(), "cuda": gpunet.cuda_status().ready}
    return [name for name in here if here[name]]


def why_missing(name: str) -> str:
    """Why tests cannot run on a device; empty if they can."""
    if name == "cuda:1" and gpunet.cuda_status().ready:
        return "" if gpunet.cuda.device_count() > 1 else "there is one GPU; of the stand-in driver ask for --driver-devices 2"
    if name.partition(":")[0] in available_devices():
        return ""
    return "g++ is not installed" if name == "emulated" else gpunet.cuda_status().detail


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=sorted(DEVICES), help="run on this device only (default: all that are here)")
    parser.addoption(
        "--tier", choices=["quick", "rest", "all"], default="quick",
        help="quick leaves out the tests marked exhaustive (default), rest runs those alone; a test named by its id always runs",
    )  # fmt: skip
    parser.addoption("--part", metavar="I/N", help="of the tests marked exhaustive only part I of N, counted from 0")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device")
        names = available_devices() if chosen is None else [chosen]
        metafunc.parametrize("device", names, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to another tier or part."""
    tier, part = config.getoption("--tier"), config.getoption("--part")
    if tier == "quick" and any("::" in argument for argument in config.args):
        tier = "all"
    index, count = map(int, part.split("/")) if part else (0, 1)

    def is_chosen(item: pytest.Item) -> bool:
        if item.get_closest_marker("exhaustive") is None:
            return tier != "rest"
        return tier != "quick" and zlib.crc32(item.nodeid.encode()) % count == index

    left_out = [item for item in items if not is_chosen(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_chosen(item)]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a device, which new tensors are made on meanwhile."""
    name = request.param
    if name == "stand-in":
        with fake_cupy.installed():
            gpunet.set_default_device("cuda")
            yield "cuda"
            gpunet.set_default_device(None)
        return
    if why := why_missing(name):
        pytest.fail(f"--device {name} was asked for: {why}")
    gpunet.set_default_device(DEVICES[name])
    yield DEVICES[name]
    gpunet.set_default_device(None)
    gpunet.synchronize(DEVICES[name])  # an error that a kernel reported and nobody read is this test's


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """"cuda", on which new tensors are made meanwhile, for a test of a GPU alone: a real one, or the stand-in driver's."""
    if request.config.getoption("--device") not in (None, "cuda") or not gpunet.cuda_status().ready:
        pytest.skip("it takes --device cuda, and a GPU or -p tests.driver.pytest_plugin")
    gpunet.set_default_device("cuda")
    yield "cuda"
    gpunet.set_default_device(None)


@pytest.fixture
def other_gpu(gpu: str) -> str:
    """"cuda:1", on which new tensors are made meanwhile, while CuPy's current device is 0."""
    if gpunet.cuda.device_count() < 2:
        pytest.skip("it takes two GPUs, or --driver-devices 2")
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
