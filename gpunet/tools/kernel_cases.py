"""The cases of every kernel: those of the families of ``gpunet.ops.cases``, and of ``gpunet.optim.cases``."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Iterator

from gpunet import ops  # noqa: F401  fills KERNELS
from gpunet.launch.kernel import Kernel
from gpunet.ops import cases as _families
from gpunet.ops.cases.case import MAKERS, Case, Purpose, Samples
from gpunet.optim import cases as _optim  # noqa: F401  fills MAKERS

for _name in sorted(module.name for module in pkgutil.iter_modules(_families.__path__)):
    importlib.import_module(f"{_families.__name__}.{_name}")  # fills MAKERS

FLOATING = ("float32", "float64")


def has_cases(kernel: Kernel) -> bool:
    """Whether a kernel has cases; kernels of users have none."""
    return kernel.name in MAKERS


def purpose(kernel: Kernel) -> Purpose:
    """Which arrays of a kernel are updated in place, and which are workspaces."""
    return MAKERS[kernel.name][1]


def cases(kernel: Kernel) -> Iterator[Case]:
    """All cases of a kernel, deterministically: for each floating dtype, or once if the kernel does not depend on ``T``."""
    make, _ = MAKERS[kernel.name]
    for floating in FLOATING if "T" in kernel.c_types else FLOATING[:1]:
        samples = Samples(floating, zlib.crc32(f"{kernel.name} {floating}".encode()))
        for label, arrays, options, *more in make(samples):
            yield Case(kernel, label, floating, arrays, options, *more)
