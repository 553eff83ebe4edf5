"""The device "emulated": the CUDA sources themselves, compiled by g++ and run on the CPU, each CUDA thread a fiber.

    gpunet.set_default_device("emulated")      # launches run the .cu files
    with gpunet.emulator.check():              # and races, wrong bounds, missing barriers are errors with file and line
        ...

Fast mode runs the kernels as they are.  Check mode (``check()``, or ``GPUNET_EMULATOR_CHECK=1``) watches every access to
memory: races on shared and global memory, bounds of every array, reads of shared memory that nothing was written to,
barriers that not all threads reach, asynchronous copies that were not waited for, writes to inputs, and floating-point
atomics, whose sums depend on the order.  ``lint()`` also counts bank conflicts and sectors of global memory.
Both need g++ and nothing else; what is compiled is kept on disk.

Importing this room registers it as the loader of the device's functions, and no more: ctypes and subprocess come with the
first name that is used of it.
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
