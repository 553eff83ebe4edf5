"""The cases of every kernel, from the facts that ``gpunet.ops.cases`` and ``gpunet.optim.cases`` give it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from gpunet.backend.dtypes import as_dtype, has_bfloat16, is_half
from gpunet.launch.facts import num_elements
from gpunet.launch.kernel import Kernel
from gpunet.ops import cases as _of_ops  # noqa: F401  fills the facts of the kernels
from gpunet.ops.cases.case import Case, Samples
from gpunet.optim import cases as _of_optim  # noqa: F401

#: The dtypes of T.  Edge cases are also made for bfloat16, which differs from float16 in conversions alone.
_FLOATING = ("float32", "float64", "float16")


def has_cases(kernel: Kernel) -> bool:
    """Whether a kernel has cases; kernels of users have none."""
    return bool(kernel.case_makers)


def cases(kernel: Kernel, tag: str = "edge", floating: Sequence[str] = (), width: int = 128) -> Iterator[Case]:
    """The cases of a kernel with a tag, deterministically.

    Of halves, which differ from float32 in loads and stores alone, the edge cases are the largest one of each
    specialisation, and those off alignment or not finite.

    Args:
        tag: one of ``gpunet.launch.facts.TAGS``.
        floating: the floating dtypes, by default all; a kernel that does not depend on ``T`` has its cases once.
        width: see ``Samples``.
    """
    floating = floating or (*_FLOATING, *(["bfloat16"] if tag == "edge" and has_bfloat16() else []))
    for dtype in floating if "T" in kernel.c_types else floating[:1]:
        found = _cases(kernel, tag, dtype, width)
        yield from _largest(found) if tag == "edge" and is_half(as_dtype(dtype)) else found


def _cases(kernel: Kernel, tag: str, dtype: str, width: int) -> Iterator[Case]:
    samples = Samples(dtype, zlib.crc32(f"{kernel.name} {dtype}".encode()), width)
    for tags, make in kernel.case_makers:
        if tag in tags:
            for label, arrays, options, grid, twin in ((*found, None, None)[:5] for found in make(samples)):
                yield Case(kernel, label, dtype, arrays, options, grid, twin, tags)


def _largest(cases: Iterable[Case]) -> Iterator[Case]:
    """The largest case of each specialisation, and the cases off alignment or not finite."""
    largest: dict[str, tuple[int, Case]] = {}
    for case in cases:
        if "unaligned" in case.label or "not finite" in case.label:
            yield case
            continue
        expression, size = case.expression(), num_elements(*case.on_cpu())
        if size > largest.get(expression, (-1, case))[0]:
            largest[expression] = size, case
    yield from (case for _, case in largest.values())


@cache
def specialisations(kernel: Kernel, tag: str = "edge") -> tuple[str, ...]:
    """The specialisations that the cases with a tag select: by default all; docs/kernels.md shows the representative ones."""
    return tuple(sorted({case.expression() for case in cases(kernel, tag)}, key=_order))


def _order(expression: str) -> list[tuple[int, int, str]]:
    """Sort key: float before double, 64 before 128, then alphabetically."""
    words = re.findall(r"\w+", expression)
    return [(word == "double", int(word) if word.isdecimal() else 0, word) for word in words]
