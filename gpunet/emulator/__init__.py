"""The device "emulated": compiles the CUDA sources with g++ and runs them on the CPU, each CUDA thread as a fiber.

    gpunet.set_default_device("emulated")      # launches run the .cu files
    with gpunet.emulator.check():              # races, out-of-bounds accesses and missing barriers raise, with file and line
        ...

Fast mode only runs the kernels.  Check mode (``check()``, or ``GPUNET_EMULATOR_CHECK=1``) checks every memory access and
reports races on shared and global memory, accesses out of bounds, reads of uninitialised shared memory, barriers that some
threads miss, asynchronous copies that were not waited for, writes to inputs, and floating-point atomics, whose sums depend
on the order.  ``lint()`` also counts bank conflicts and sectors of global memory.  All modes need only g++; compiled kernels
are cached on disk.

Importing this package only registers the loader of the device's functions.  ctypes and subprocess are imported when one of
its names is first used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.backend import compiler as cuda_compiler
from gpunet.backend import toolkit
from gpunet.backend.cuda_sources import Source, name_of, spliced
from gpunet.backend.devices import Device
from gpunet.backend.disk_cache import cache_directory

if TYPE_CHECKING:
    from gpunet.emulator.function import *


def _load(file: str | Path | Source, expression: str, device: Device) -> cuda_compiler.Function:
    from gpunet.emulator.function import Function

    text, name = spliced(file), name_of(file)
    return Function(text, name, expression, cache_directory() / "emulator", toolkit.options(text, name))


cuda_compiler.register_loader("emulated", _load)


def __getattr__(name: str) -> Any:
    function = importlib.import_module("gpunet.emulator.function")
    if name == "__all__" or name in function.__all__:
        return getattr(function, name)
    raise AttributeError(f"module 'gpunet.emulator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*importlib.import_module("gpunet.emulator.function").__all__]
