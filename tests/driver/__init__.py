"""CuPy on a machine without a GPU: a stand-in for NVIDIA's driver, whose kernels run on gpunet's emulator.

    from tests import driver
    driver.install()                    # before CuPy is imported
    import cupy

or from the shell, for any program:

    python -m tests.driver script.py
    python -m tests.driver --lazy --devices 2 -m pytest --device cuda tests/test_ops.py

CuPy is what pip installs, but for modules that hold machine code and NVIDIA's runtime: ``cupy_backends.cuda.api.runtime`` is
built from CuPy's source with our runtime (native/runtime), ``cupy.cuda.thrust`` and ``cupy.cuda.jitify`` are ours (thrust.py,
jitify.py), and CUB is off.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

_HERE = Path(__file__).resolve().parent
_MEMORY = 8 << 30  # bytes of each device


class Options(NamedTuple):
    """How the stand-in runs; see :func:`install`."""

    lazy: bool = False
    devices: int = 1
    peers: bool = False
    check: bool = False

    def __str__(self) -> str:
        words = ["lazy" if self.lazy else "eager", f"{self.devices} device{'s' if self.devices > 1 else ''}"]
        words += ["peer access"] * self.peers + ["check mode"] * self.check
        return ", ".join(words)


class _Settings(ctypes.Structure):
    """As ``driver::Settings`` in native/driver/driver.h."""

    _fields_ = [(name, ctypes.c_int) for name in ("devices", "peers", "lazy", "check")] + [
        ("memory_bytes", ctypes.c_uint64)
    ]


class _Installed:
    """The libraries and callbacks of this process, which live as long as it does."""

    options: Options | None = None
    libcuda: ctypes.CDLL
    kept: list[Any] = []  # noqa: RUF012


def available() -> tuple[bool, str]:
    """Whether the stand-in can be installed here, and why not."""
    from tests.driver import build

    reasons = build.missing()
    return not reasons, "; ".join(reasons)


def install(lazy: bool = False, devices: int = 1, peers: bool = False, check: bool = False) -> None:
    """Let CuPy of this process find devices that are not there.  It builds the stand-in first, if that was not done before.

    Args:
        lazy: work runs when something waits for it, and no sooner: a read that nothing orders after a write sees old memory,
            0xa5 in each byte if it is new.  Otherwise work runs inside the call that enqueues it.
        devices: how many, up to 8.
        peers: whether they can access each other's memory.
        check: kernels run in the emulator's check mode: bounds of each allocation, races, barriers.  CuPy's memory pool is
            off, so that each array is an allocation.

    Raises:
        RuntimeError: CuPy is imported already, or the stand-in was installed with other options.
        tests.driver.build.BuildError: it cannot be built.
    """
    wanted = Options(lazy, devices, peers, check)
    if _Installed.options is not None:
        if _Installed.options != wanted:
            raise RuntimeError(f"the stand-in is installed already: {_Installed.options}")
        return
    if "cupy" in sys.modules:
        raise RuntimeError("driver.install() has to be called before CuPy is imported")
    from tests.driver import build, emulator_adapter

    folder = build.build()
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB and cuTENSOR are machine code
    os.environ["CUPY_CACHE_DIR"] = str(emulator_adapter.separate_cache() / "cupy")
    os.environ["NVCC"] = f"{sys.executable} {_HERE / 'nvcc.py'}"
    # CuPy looks for a loaded library of the name before it looks for files.
    names = ("libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libnccl.so.2")
    libcuda, libnvrtc, *others = (ctypes.CDLL(str(folder / name)) for name in names)
    real_nvrtc = build.cuda_wheels() / "lib" / "libnvrtc.so.13"
    libnvrtc.standin_load_nvrtc.restype = ctypes.c_bool
    if not libnvrtc.standin_load_nvrtc(str(real_nvrtc).encode()):
        raise build.BuildError(f"{real_nvrtc} does not load")
    emulator = emulator_adapter.Emulator(check)
    if libcuda.standin_launch_bytes() != emulator.launch_bytes:
        raise build.BuildError("native/driver/emulator_interface.h differs from gpunet/emulator/runtime.h")
    libcuda.standin_configure(ctypes.byref(_Settings(devices, peers, lazy, check, _MEMORY)))
    libcuda.standin_set_emulator(ctypes.byref(emulator.functions))
    _Installed.libcuda, _Installed.options = libcuda, wanted
    _Installed.kept += [libnvrtc, *others, emulator]
    sys.meta_path.insert(0, _Finder(folder))
    _let_children_inherit(wanted)
    if check:
        import cupy

        cupy.cuda.set_allocator(None)


def _let_children_inherit(options: Options) -> None:
    """Python processes that this one starts install the stand-in when they import CuPy, by inherit/sitecustomize.py."""
    os.environ["GPUNET_DRIVER_OPTIONS"] = ",".join(str(int(value)) for value in options)
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    inherit = str(_HERE / "inherit")
    if inherit not in folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([inherit, str(_HERE.parents[1]), *filter(None, folders)])


def installed() -> Options | None:
    """How the stand-in of this process runs; None if it was not installed."""
    return _Installed.options


def describe() -> str:
    """What runs kernels on "cuda" in this process, for the header of a test run."""
    if _Installed.options is not None:
        return f"stand-in driver without a GPU ({_Installed.options})"
    import cupy

    return f"GPU: {cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()}"


def clear_faults() -> None:
    """Make devices usable again after a fault such as an illegal address, which on a GPU takes a new process."""
    _Installed.libcuda.standin_clear_faults()


def num_collectives() -> int:
    """How many collectives of NCCL this process has run, also within graphs."""
    libnccl = ctypes.CDLL("libnccl.so.2")  # the one that is loaded
    libnccl.standin_nccl_num_run.restype = ctypes.c_uint64
    return int(libnccl.standin_nccl_num_run())


def host_waits() -> int:
    """How often the host has waited for a stream that had work left; always 0 in eager mode."""
    _Installed.libcuda.standin_host_waits.restype = ctypes.c_uint64
    return int(_Installed.libcuda.standin_host_waits())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of CuPy that are replaced."""

    def __init__(self, folder: Path) -> None:
        self._places = {
            "cupy_backends.cuda.api.runtime": folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}",
            "cupy.cuda.thrust": _HERE / "thrust.py",
            "cupy.cuda.jitify": _HERE / "jitify.py",
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = self._places.get(name)
        return None if place is None else importlib.util.spec_from_file_location(name, place)
