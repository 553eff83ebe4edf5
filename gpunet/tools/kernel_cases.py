"""The cases of every kernel, from the facts that ``gpunet.ops.cases`` and ``gpunet.optim.cases`` give it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cache

from gpunet.launch.kernel import Kernel
from gpunet.ops import cases as _of_ops  # noqa: F401  fills the facts of the kernels
from gpunet.ops.cases.case import Case, Samples
from gpunet.optim import cases as _of_optim  # noqa: F401

FLOATING = ("float32", "float64")


def has_cases(kernel: Kernel) -> bool:
    """Whether a kernel has cases; kernels of users have none."""
    return bool(kernel.case_makers)


def cases(kernel: Kernel, tag: str = "edge", floating: Sequence[str] = FLOATING, width: int = 128) -> Iterator[Case]:
    """The cases of a kernel with a tag, deterministically.

    Args:
        tag: one of ``gpunet.launch.facts.TAGS``.
        floating: the floating dtypes; a kernel that does not depend on ``T`` has its cases once.
        width: see ``Samples``.
    """
    for dtype in floating if "T" in kernel.c_types else floating[:1]:
        samples = Samples(dtype, zlib.crc32(f"{kernel.name} {dtype}".encode()), width)
        for tags, make in kernel.case_makers:
            if tag in tags:
                for label, arrays, options, grid, twin in ((*found, None, None)[:5] for found in make(samples)):
                    yield Case(kernel, label, dtype, arrays, options, grid, twin, tags)


@cache
def specialisations(kernel: Kernel, tag: str = "edge") -> tuple[str, ...]:
    """The specialisations that the cases with a tag select: by default all; docs/kernels.md shows the representative ones."""
    return tuple(sorted({case.expression() for case in cases(kernel, tag)}, key=_order))


def _order(expression: str) -> list[tuple[int, int, str]]:
    """Sort key: float before double, 64 before 128, then alphabetically."""
    words = re.findall(r"\w+", expression)
    return [(word == "double", int(word) if word.isdecimal() else 0, word) for word in words]
