"""The cases of every kernel, collected from ``gpunet.ops.cases`` and ``gpunet.optim.cases``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gpunet import ops  # noqa: F401  fills KERNELS
from gpunet.launch.kernel import Kernel
from gpunet.ops.cases import (  # noqa: F401  fill MAKERS
    activations,
    clip,
    cross_entropy,
    dropout,
    index,
    linear,
    losses,
    matmul,
    random,
    special,
)
from gpunet.ops.cases.case import MAKERS, Case, Purpose, Samples
from gpunet.optim import cases as _optim  # noqa: F401  fills MAKERS

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
